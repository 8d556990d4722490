//! Functions that made-up scripts leave behind.

use std::sync::Arc;

use infra_core::diagnostic::Diagnostic;
use infra_core::late::{FunctionId, Functions, LateReply, LateStep, Purpose, Results};
use infra_core::script::{FactRequest, OperationCall};
use infra_core::{BoxFuture, Value};
use serde_json::json;

use crate::fleet::text_at;

/// What a function knows when it is called, and each time it goes on.
pub struct Turn<'t> {
    pub host: &'t str,
    pub purpose: &'t Purpose,
    pub results: &'t Results,
    pub replies: &'t [LateReply],
}

impl Turn<'_> {
    /// The standard output of a call that has ended.
    pub fn stdout(&self, call: u32) -> String {
        self.results[&call].stdout.clone()
    }

    /// The texts that were answered last.
    pub fn texts(&self) -> Vec<Value> {
        match self.replies.last() {
            Some(LateReply::Answers(answers)) => {
                answers.iter().map(|answer| answer.as_deref().cloned().unwrap_or(json!("error"))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether each operation of the body by now changed something.
    pub fn changes(&self) -> Vec<bool> {
        let changed = |reply: &LateReply| match reply {
            LateReply::Ended(result) => Some(result.changed),
            LateReply::Answers(_) => None,
        };
        self.replies.iter().filter_map(changed).collect()
    }
}

/// A function of a made-up script: it does its next step each time.
pub type Made = Arc<dyn Fn(&Turn<'_>) -> LateStep + Send + Sync>;

pub fn function(steps: impl Fn(&Turn<'_>) -> LateStep + Send + Sync + 'static) -> Made {
    Arc::new(steps)
}

/// Gives a value at once.
pub fn gives(value: impl Fn(&Turn<'_>) -> Value + Send + Sync + 'static) -> Made {
    function(move |turn| LateStep::Returned(value(turn)))
}

/// Performs these, one after the other.
pub fn body(calls: impl Fn(&str) -> Vec<OperationCall> + Send + Sync + 'static) -> Made {
    function(move |turn| match calls(turn.host).into_iter().nth(turn.replies.len()) {
        Some(call) => LateStep::Perform(Box::new(call)),
        None => LateStep::Returned(Value::Null),
    })
}

/// Asks for the text at a path.
pub fn asks(path: &str) -> LateStep {
    LateStep::Ask(vec![FactRequest { fact: text_at(path), context: Default::default(), on: None }])
}

pub fn fails(message: &str, line: u32) -> LateStep {
    LateStep::Failed(Box::new(Diagnostic::runtime(message).at("deploy.lua", line).hint("think again")))
}

/// The functions of one host.
pub struct MadeFunctions {
    pub host: String,
    pub functions: Vec<Made>,
    pub current: Option<(FunctionId, Purpose, Arc<Results>, Vec<LateReply>)>,
}

impl MadeFunctions {
    fn step(&self) -> LateStep {
        let (function, purpose, results, replies) = self.current.as_ref().expect("a function was called");
        (self.functions[*function as usize])(&Turn { host: &self.host, purpose, results, replies })
    }
}

impl Functions for MadeFunctions {
    fn begin(&mut self, function: FunctionId, purpose: Purpose, results: Arc<Results>) -> BoxFuture<'_, LateStep> {
        self.current = Some((function, purpose, results, Vec::new()));
        Box::pin(async { self.step() })
    }

    fn resume(&mut self, reply: LateReply) -> BoxFuture<'_, LateStep> {
        self.current.as_mut().expect("a function was called").3.push(reply);
        Box::pin(async { self.step() })
    }
}
