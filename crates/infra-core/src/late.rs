//! What a script does in execute: functions that it registered, called when their turn comes.
//!
//! A script that ended may leave functions behind: arguments of operations that only the run can tell, conditions, `_retry_until`, and the bodies of
//! `call`. The engine calls them one at a time on each host, with the [`Results`] of what has run there by then, and answers what they need.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::condition::CallIndex;
use crate::diagnostic::Diagnostic;
use crate::event::HostResult;
use crate::host::HostId;
use crate::script::{Answer, FactRequest, OperationCall};
use crate::{BoxFuture, Value};

/// A function that a host's script left behind, by its number on this host, from 0.
pub type FunctionId = u32;

/// What of an operation call only the run can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Late {
    /// Arguments whose values functions give; `arguments` has none of them.
    pub arguments: Vec<(String, FunctionId)>,
    /// `_retry_until`: called after each try with what came of it, until it gives true.
    pub until: Option<FunctionId>,
    /// The body of a `call`: an operation of the kind [`CALL`] that is nothing else.
    pub body: Option<FunctionId>,
}

/// The kind of an operation call that is a `call(fn)` of the script. The registry does not have it.
pub const CALL: &str = "call";

/// Where an operation with `_on` runs instead of on its own host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On this host of the inventory.
    Host(HostId),
    /// On the controller: `"@local"`.
    Controller,
}

/// What came of a call that has ended on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    /// Whether it ended well and changed something.
    pub changed: bool,
    /// Whether it ended well.
    pub succeeded: bool,
    /// Whether it changed something on any host that registered it; none while some may still do so.
    pub changed_anywhere: Option<bool>,
    /// The standard output of its commands, bounded, without the line feeds at its end.
    pub stdout: String,
    /// The standard error, likewise.
    pub stderr: String,
    /// The exit status of its last command; none where no command ran.
    pub exit_code: Option<i32>,
}

impl CallResult {
    /// What scripts see of a result.
    pub fn of(result: &HostResult) -> Self {
        let succeeded = result.outcome.succeeded();
        let text = |text: &str| text.trim_end_matches(['\n', '\r']).to_owned();
        Self {
            changed: succeeded && result.outcome.changed(),
            succeeded,
            changed_anywhere: None,
            stdout: text(&result.stdout),
            stderr: text(&result.stderr),
            exit_code: result.exit_code,
        }
    }
}

/// What came of the calls that have ended on this host by now. What is not in it has not run yet.
pub type Results = BTreeMap<CallIndex, Arc<CallResult>>;

/// What a function is called for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// The value of an argument.
    Argument {
        /// Its name.
        name: String,
    },
    /// Whether an operation runs: `_if`. It gives true or false.
    Condition,
    /// Whether a try was good: `_retry_until`. It is called with what came of the try and gives true or false.
    Until(Arc<CallResult>),
    /// The body of a `call`. Operations called inside it run at once.
    Body,
}

/// What a function did until it needed something.
#[derive(Debug)]
pub enum LateStep {
    /// Answers to these questions, in this order, about the host as it is now; they are read in one round trip.
    Ask(Vec<FactRequest>),
    /// This operation is to be run now; only in a body. Its `call` counts within the body, from 0; it has no `late`, no conditions, no blocks and
    /// no strategy of its own.
    Perform(Box<OperationCall>),
    /// It came to its end and gave this: null from a body.
    Returned(Value),
    /// It cannot go on: the operation fails with this.
    Failed(Box<Diagnostic>),
}

/// What a function is told, to go on.
#[derive(Debug)]
pub enum LateReply {
    /// The answers to [`LateStep::Ask`].
    Answers(Vec<Answer>),
    /// What came of [`LateStep::Perform`]. One that failed without `_ignore_errors` ends the body: then this is not sent, and the function is given up.
    Ended(Arc<CallResult>),
}

/// The functions that a host's script left behind.
pub trait Functions: Send {
    /// Calls a function, with what has run by now. One that was called before and has not ended is given up.
    fn begin(&mut self, function: FunctionId, purpose: Purpose, results: Arc<Results>) -> BoxFuture<'_, LateStep>;

    /// Goes on with the function that was called last.
    fn resume(&mut self, reply: LateReply) -> BoxFuture<'_, LateStep>;
}
