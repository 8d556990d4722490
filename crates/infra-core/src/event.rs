//! What happens in a run, as data: the only way from the engine to the screen.
//!
//! The grammar of a run, where `*` means any number, `?` at most one, and `|` either:
//!
//! ```text
//! run      = RunStarted DetailedExitCode? Connecting reach* (prepare again* | answers)? (execute prove? keep* | Declined)? Counted? RunEnded
//! reach    = HostConnected | HostUnreachable
//! prepare  = Preparing (HostPrepared | HostFailed | Log)* (PlanReady | Misused)
//! again    = Rechecking (HostPrepared | HostFailed | Log)* (PlanReady | PlanStands | Misused)
//! answers  = FactAnswered*
//! execute  = Executing operation*
//! keep     = Log | HostFailed                                                                                  of a container that was to be kept
//! operation= OperationStarted host-op* OperationEnded
//! host-op  = HostOperationStarted (CommandStarted | Moved | Output | Log | Lock | Retrying | WithinCall | TextsChanged)* HostOperationEnded      one such sequence per host, interleaved
//! prove    = Proving (HostPrepared | HostFailed | Log)* Proved
//! ```
//!
//! Operations follow one another; inside a `parallel` or `rolling` block, and with `--serial` and `--no-wait`, they overlap: an operation then begins with its
//! first host and ends with its last. `WaveStarted` stands before the first host of its wave.
//!
//! `Stopped` and `Interrupted` may stand anywhere after `RunStarted`; `Misused` also directly after it. Every `HostOperationStarted` is followed by
//! its `HostOperationEnded`, on every path. Hosts that have no part in an operation (skipped by a condition, done in an earlier run, or served by a `_run_once` elsewhere)
//! have a `HostOperationEnded` without a start. `RunEnded` is always last, and there is exactly one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Value;
use crate::change::TextChange;
use crate::connection::{ConnectError, Ending, Traffic};
use crate::diagnostic::{Diagnostic, Location};
use crate::host::HostId;
use crate::lock::LockNews;
use crate::output::Stream;
use crate::plan::{BlockId, OpId, Plan};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunKind {
    /// Plan, ask, execute.
    Deploy,
    /// Plan only.
    Dry,
    /// Run a command on each host; nothing is planned or asked.
    Exec,
    /// Read facts.
    Fact,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A run begins on these hosts.
    RunStarted {
        /// What it is for.
        kind: RunKind,
        /// Each host's id and name, in inventory order.
        hosts: Arc<Vec<(HostId, String)>>,
    },
    /// Connecting begins.
    Connecting,
    /// A host was reached.
    HostConnected {
        /// Which.
        host: HostId,
        /// How long it took.
        took: Duration,
    },
    /// A host could not be reached.
    HostUnreachable {
        /// Which.
        host: HostId,
        /// Where it ended, and why.
        error: ConnectError,
    },
    /// Prepare begins.
    Preparing,
    /// A host's script came to its end and all its operations were diffed.
    HostPrepared {
        /// Which.
        host: HostId,
        /// How many operations it registered.
        operations: usize,
    },
    /// A host failed outside of any operation: its script, or a fact; or what was to be kept of it was not.
    HostFailed {
        /// Which.
        host: HostId,
        /// What is wrong.
        diagnostic: Box<Diagnostic>,
    },
    /// Something was written wrongly: nothing is executed.
    Misused {
        /// The host on which it came to light, where there is one.
        host: Option<HostId>,
        /// What is wrong.
        diagnostic: Box<Diagnostic>,
    },
    /// A script printed or logged something.
    Log {
        /// Its host.
        host: HostId,
        /// The text, without a newline at its end.
        text: String,
    },
    /// The plan is made.
    PlanReady {
        /// The plan.
        plan: Arc<Plan>,
    },
    /// The exit code is to tell whether there were changes: `--detailed-exitcode`.
    DetailedExitCode,
    /// The answer to the question took so long that facts are read and operations planned once more.
    Rechecking,
    /// The plan that was agreed to is still right.
    PlanStands,
    /// The question before execution was answered with no.
    Declined,
    /// Execute begins.
    Executing,
    /// An operation begins.
    OperationStarted {
        /// Which.
        op: OpId,
    },
    /// An operation begins on a host.
    HostOperationStarted {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
    },
    /// A step that writes or fetches files has moved so much of them by now. It is told now and then, and never of what is moved in a moment.
    Moved {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
        /// How many bytes of this step were moved by now.
        bytes: u64,
        /// How many there are.
        total: u64,
    },
    /// A step of an operation begins on a host.
    CommandStarted {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
        /// The command or upload, as shown to a person.
        text: String,
    },
    /// A line of output came from a command. A line that is longer than 64 KiB comes in pieces.
    Output {
        /// Which operation.
        op: OpId,
        /// From which host.
        host: HostId,
        /// From which stream.
        stream: Stream,
        /// The bytes, without the newline.
        line: Vec<u8>,
        /// Whether a newline followed: not behind a piece that is continued, nor at the end of an output that ends without one.
        newline: bool,
    },
    /// An operation ended on a host.
    HostOperationEnded {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
        /// What came of it.
        result: Box<HostResult>,
    },
    /// An operation has changed text files on a host.
    TextsChanged {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
        /// What they held before, and what they hold now.
        texts: Arc<Vec<TextChange>>,
    },
    /// The hosts that are ok are prepared once more, to prove that nothing is left to do: `--prove`.
    Proving,
    /// The proof is made.
    Proved {
        /// What the operations would do now. Its places are its own, since scripts were evaluated again.
        plan: Arc<Plan>,
        /// Whether operations that are not idempotent by nature count too: `--prove=strict`.
        strict: bool,
    },
    /// What went over the connections of all hosts that were reached.
    Counted {
        /// Each host and its share.
        hosts: Vec<(HostId, Traffic)>,
    },
    /// An operation ended on all hosts that have a part in it.
    OperationEnded {
        /// Which.
        op: OpId,
    },
    /// A fact was read for the command `fact`.
    FactAnswered {
        /// Of which host.
        host: HostId,
        /// The name of the fact.
        fact: String,
        /// The question.
        question: Value,
        /// The answer, or why there is none.
        answer: Result<Arc<Value>, String>,
    },
    /// Hosts set out on a wave of an operation with `_serial`, of a `rolling` block, or of a run with `--serial`.
    WaveStarted {
        /// What goes in waves.
        of: Waves,
        /// Which wave, from 1.
        wave: usize,
        /// How many there are.
        waves: usize,
        /// The hosts that enter it.
        hosts: Vec<HostId>,
    },
    /// There is something to say about the lock of a host; each thing is said once.
    Lock {
        /// The operation that wants to change it.
        op: OpId,
        /// Which host.
        host: HostId,
        /// The machine that the operation runs on for that host, where it is another one (`_on`); the lock is that of this machine.
        on: Option<String>,
        /// What there is to say.
        news: LockNews,
    },
    /// A failed operation will be tried again on a host.
    Retrying {
        /// Which operation.
        op: OpId,
        /// On which host.
        host: HostId,
        /// Which retry, from 1.
        retry: u32,
        /// How many there may be.
        retries: u32,
        /// When it begins.
        after: Duration,
        /// What failed.
        failure: Box<Failure>,
    },
    /// An operation that stands in the body of a `call` has ended on a host; the `call` itself goes on.
    WithinCall {
        /// The operation that is the `call`.
        op: OpId,
        /// On which host.
        host: HostId,
        /// `module.operation`.
        kind: String,
        /// Its title for people.
        title: String,
        /// Where it is called.
        location: Option<Location>,
        /// What came of it.
        result: Box<HostResult>,
    },
    /// A rule stopped the run: nothing new is started.
    Stopped {
        /// Which rule, and its arithmetic.
        reason: StopReason,
    },
    /// The run was interrupted, for the first, second or third time.
    Interrupted {
        /// How often by now.
        times: u32,
        /// What is in flight, and since when.
        in_flight: Vec<(OpId, HostId, Duration)>,
    },
    /// The run is over.
    RunEnded,
}

/// Why nothing new is started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// `--fail-fast`, and this host is not ok.
    FailFast {
        /// The first host that was not ok.
        host: HostId,
    },
    /// A wave had more hosts that are not ok than it may.
    WaveFailed {
        /// What went in waves.
        of: Waves,
        /// Which wave, from 1.
        wave: usize,
        /// How many hosts of the wave are not ok.
        not_ok: usize,
        /// How many entered it.
        entered: usize,
        /// How many may fail.
        allowed: usize,
    },
    /// `--fail-percent`: more than that share of the selected hosts are not ok.
    FailPercent {
        /// How many hosts are not ok.
        not_ok: usize,
        /// How many were selected.
        selected: usize,
        /// The percentage that is allowed.
        allowed: f64,
    },
    /// An operation with `_run_once` failed.
    RunOnceFailed {
        /// The operation.
        op: OpId,
        /// The host it ran on.
        host: HostId,
    },
    /// The user interrupted the run.
    Interrupted,
    /// No host is left.
    NoHostLeft,
}

/// What goes through its hosts in waves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waves {
    /// An operation with `_serial`.
    Operation(OpId),
    /// A `rolling` block.
    Block(BlockId),
    /// The whole run: `--serial`.
    Run,
}

/// What came of an operation on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostResult {
    /// The outcome.
    pub outcome: Outcome,
    /// How many steps were done, also of one that failed in the end.
    pub steps_done: usize,
    /// How often it was tried again.
    pub retries: u32,
    /// How long it took, with all tries and the time between them.
    pub took: Duration,
    /// The standard output of its commands, bounded.
    pub stdout: String,
    /// The standard error of its commands, bounded.
    pub stderr: String,
    /// The exit status of its last command.
    pub exit_code: Option<i32>,
}

impl HostResult {
    /// The result of an operation for which nothing ran on the host.
    pub fn without_work(outcome: Outcome) -> Self {
        let (stdout, stderr) = (String::new(), String::new());
        Self { outcome, steps_done: 0, retries: 0, took: Duration::ZERO, stdout, stderr, exit_code: None }
    }

    /// The same without the outputs of its commands.
    pub fn without_output(&self) -> Self {
        let Self { outcome, steps_done, retries, took, exit_code, .. } = self;
        let (stdout, stderr) = (String::new(), String::new());
        Self { outcome: outcome.clone(), steps_done: *steps_done, retries: *retries, took: *took, stdout, stderr, exit_code: *exit_code }
    }
}

/// The outcome of an operation on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It changed something.
    Changed {
        /// What, in a few words.
        reason: String,
    },
    /// There was nothing to do.
    Unchanged {
        /// Why.
        reason: String,
    },
    /// A condition did not hold, which counts as nothing to do.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It failed.
    Failed {
        /// What failed.
        failure: Failure,
        /// Whether `_ignore_errors` leaves the host ok.
        ignored: bool,
    },
    /// What came of it is not known: the connection broke, or it was killed, while it ran.
    Indeterminate {
        /// What was going on.
        failure: Failure,
    },
    /// It was done in an earlier run from which this one goes on, and is not run again.
    Earlier {
        /// The name of that run.
        run: String,
        /// Whether it changed something then.
        changed: bool,
    },
    /// It ran on another host (`_run_once`), with this outcome.
    Elsewhere {
        /// The host.
        host: HostId,
        /// Whether it changed something there.
        changed: bool,
        /// Whether it ended well there.
        ok: bool,
    },
}

/// What failed, so that a person can act on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What is wrong, as a sentence fragment: `exited with 2`, `timed out after 5 s`.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The command or upload, as shown to a person.
    pub step: Option<String>,
    /// How the step ended.
    pub ending: Option<Ending>,
    /// The last lines it printed, of both streams.
    pub last_output: Vec<String>,
}

impl Outcome {
    /// Whether something was changed by it, here or elsewhere, now or in the earlier run that did it.
    pub fn changed(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Elsewhere { changed: true, .. } | Self::Earlier { changed: true, .. })
    }

    /// Whether it ended well; an ignored failure did not.
    pub fn succeeded(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::Unchanged { .. } | Self::Skipped { .. } | Self::Earlier { .. } => true,
            Self::Failed { .. } | Self::Indeterminate { .. } => false,
            Self::Elsewhere { ok, .. } => *ok,
        }
    }

    /// Whether it leaves its host ok: the one definition that every policy uses.
    pub fn host_ok(&self) -> bool {
        match self {
            Self::Failed { ignored, .. } => *ignored,
            Self::Indeterminate { .. } => false,
            _ => true,
        }
    }
}

/// Takes events as they happen.
pub trait Reporter: Send {
    /// Takes the next event. It never calls back into the run.
    fn event(&mut self, event: &Event);

    /// No event is waiting: what was held back, to be written together with more, is written now. It is told so before any wait for the next event, so
    /// that nothing is held back for long, and after the last one.
    fn idle(&mut self) {}
}

/// Keeps events where they outlive the run. It is told of each event before anything follows from it: of a command before it is started, of a result before
/// the next operation begins.
pub trait Journal: Send + Sync {
    /// Writes the event down. A journal that cannot be written says so once, by itself, and never holds up the run.
    fn record(&self, event: &Event);
}
