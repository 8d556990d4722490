//! What a script does in execute: the functions that it left behind are called when their turn comes, one at a time on each host.

use std::sync::Arc;

use infra_core::Value;
use infra_core::condition::Condition;
use infra_core::late::{FunctionId, Functions, LateReply, LateStep, Purpose, Results};
use infra_core::script::{FactRequest, OperationCall};
use tokio::sync::{Mutex, MutexGuard};

use crate::host_run::HostRun;
use crate::places::Places;
use crate::setback::Setback;

/// The functions of one host, for the operations that are at work there.
pub(crate) type SharedFunctions = Arc<Mutex<Box<dyn Functions>>>;

/// Whether functions are called before it is known what an operation does, or whether it does anything.
pub(crate) fn is_late(call: &OperationCall) -> bool {
    let in_condition = |condition: &Condition| !condition.functions().is_empty();
    call.late.body.is_some()
        || !call.late.arguments.is_empty()
        || call.when.iter().any(in_condition)
        || call.conditions.iter().any(|(_, condition)| in_condition(condition))
}

/// Whether an operation calls functions at all.
pub(crate) fn calls_functions(call: &OperationCall) -> bool {
    is_late(call) || call.late.until.is_some()
}

/// The functions of a host, and what they are told when they are called for one operation.
pub(crate) struct LateValues {
    pub(crate) functions: Option<SharedFunctions>,
    /// What came of the calls that had ended when the operation began.
    pub(crate) results: Arc<Results>,
    pub(crate) own: Arc<HostRun>,
    pub(crate) places: Arc<Places>,
}

/// A function that was called; no other one of the host is until it ended.
pub(crate) struct Calling<'a> {
    functions: MutexGuard<'a, Box<dyn Functions>>,
}

impl Calling<'_> {
    /// Goes on with the function.
    pub(crate) async fn resume(&mut self, reply: LateReply) -> LateStep {
        self.functions.resume(reply).await
    }
}

impl LateValues {
    /// Calls a function, once no other one is at work.
    pub(crate) async fn begin(&self, function: FunctionId, purpose: Purpose) -> Result<(Calling<'_>, LateStep), Setback> {
        let Some(functions) = &self.functions else {
            return Err(Setback::failed(format!("a defect of infra: the script left no function {function} behind")));
        };
        let mut functions = functions.lock().await;
        let step = functions.begin(function, purpose, self.results.clone()).await;
        Ok((Calling { functions }, step))
    }

    /// What a function gives. `what` are words for a failure, such as ``the value of `token` cannot be had: ``.
    pub(crate) async fn value(&self, function: FunctionId, purpose: Purpose, what: &str) -> Result<Value, Setback> {
        let (mut calling, mut step) = self.begin(function, purpose).await?;
        loop {
            match step {
                LateStep::Ask(requests) => step = calling.resume(self.answers(requests).await?).await,
                LateStep::Returned(value) => return Ok(value),
                LateStep::Failed(diagnostic) => return Err(Setback::of_function(what, &diagnostic)),
                LateStep::Perform(call) => {
                    let message = format!("{what}«{}» is called where only `call` can run operations", call.title());
                    return Err(Setback::failed(message));
                }
            }
        }
    }

    /// What a function gives that must be true or false; `which` names it.
    pub(crate) async fn holds(&self, function: FunctionId, purpose: Purpose, which: &str) -> Result<bool, Setback> {
        match self.value(function, purpose, &format!("{which}: ")).await? {
            Value::Bool(holds) => Ok(holds),
            other => {
                let hint = "return true or false, such as `result.exit_code == 0`".to_owned();
                Err(Setback::hinted(format!("{which} gave {}, not true or false", described(&other)), Some(hint)))
            }
        }
    }

    /// Answers what a function asks, about the hosts as they are now.
    pub(crate) async fn answers(&self, requests: Vec<FactRequest>) -> Result<LateReply, Setback> {
        self.places.ask(&self.own, requests).await.map(LateReply::Answers).map_err(Setback::finally)
    }
}

/// A value in a few words.
fn described(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(_) => "a text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a table".to_owned(),
    }
}
