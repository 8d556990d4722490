//! A worker: one operation on one host. It owns nothing that outlives it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use infra_core::change::{Action, Change};
use infra_core::condition::{CallIndex, Known};
use infra_core::connection::{Ending, OutputSink, Perform};
use infra_core::event::{Event, Failure, HostResult, Outcome};
use infra_core::facts::DiffError;
use infra_core::host::Connector;
use infra_core::lock::Locked;
use infra_core::operation::SharedOperation;
use infra_core::plan::OpId;
use infra_core::resources::Resources;
use infra_core::script::OperationCall;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::describe;
use crate::event_stream::EventStream;
use crate::host_run::HostRun;
use crate::joint_diff::JointDiff;
use crate::judgement::{Diffed, Wanted, diff};
use crate::output_lines::{Kept, OutputLines};

/// One operation that is started on one host.
pub(crate) struct OperationRun {
    pub(crate) op: OpId,
    pub(crate) run: Arc<HostRun>,
    pub(crate) calls: Arc<Vec<OperationCall>>,
    pub(crate) call: CallIndex,
    /// What came of the calls of this host so far.
    pub(crate) known: Vec<Known>,
    pub(crate) events: EventStream,
    /// The diffs of its `parallel` block, where it is in one.
    pub(crate) joint: Option<Arc<JointDiff>>,
    /// Whether it is to be ended, for one with `_background`.
    pub(crate) ending: watch::Receiver<bool>,
    /// How often the run was interrupted: then it is not tried again.
    pub(crate) interrupts: watch::Receiver<u32>,
    /// How long a killed command may take to end.
    pub(crate) closing: Duration,
}

/// How often an operation may ask for facts that were not asked before.
pub(crate) const ROUNDS: usize = 20;

/// Seconds before an operation is tried again, where it does not say.
const RETRY_DELAY: f64 = 5.0;

/// What was done by now.
#[derive(Default)]
struct Done {
    steps: usize,
    /// Whether some step of any try changed the host.
    changed: bool,
    retries: u32,
    exit_code: Option<i32>,
    kept: Kept,
}

/// Why an operation did not end well.
pub(crate) struct Setback {
    failure: Failure,
    kind: SetbackKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SetbackKind {
    /// It failed, and `_ignore_errors` may say that this is all right.
    Failed,
    /// There is no connection any more, so the host cannot go on.
    Lost,
    /// What came of it is not known.
    Indeterminate,
    /// The facts on which it rests may be old, and nothing was done: it is diffed again.
    Moved,
}

impl Setback {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { failure: Failure { message: message.into(), ..Failure::default() }, kind: SetbackKind::Failed }
    }

    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { kind: SetbackKind::Lost, ..Self::failed(message) }
    }
}

impl OperationRun {
    fn call(&self) -> &OperationCall {
        &self.calls[self.call as usize]
    }

    /// Diffs the operation against the host as it is, does what is to be done, and drops what that touched; and again where it fails and may be tried again.
    pub(crate) async fn work(mut self) -> HostResult {
        let started = Instant::now();
        let mut done = Done::default();
        let ended = loop {
            done.kept = Kept::default();
            match self.diff_and_perform(&mut done).await {
                Err(Setback { kind: SetbackKind::Moved, .. }) => self.drop_touched(&Resources::everything()),
                Err(setback) if setback.kind == SetbackKind::Failed && self.tries_again(&setback, &mut done).await => {}
                ended => break ended,
            }
        };
        let outcome = match ended {
            // What an earlier try did counts, also where nothing was left to do.
            Ok(Outcome::Unchanged { reason }) if done.changed => Outcome::Changed { reason },
            Ok(outcome) => outcome,
            Err(Setback { failure, kind }) => match kind {
                SetbackKind::Failed => Outcome::Failed { failure, ignored: self.call().globals.ignores_errors() },
                SetbackKind::Lost | SetbackKind::Moved => Outcome::Failed { failure, ignored: false },
                SetbackKind::Indeterminate => Outcome::Indeterminate { failure },
            },
        };
        HostResult {
            outcome,
            steps_done: done.steps,
            retries: done.retries,
            took: started.elapsed(),
            stdout: done.kept.stdout.text(),
            stderr: done.kept.stderr.text(),
            exit_code: done.exit_code,
        }
    }

    /// Waits before the next try; not where none is left, or where the run was interrupted or the operation is to be ended.
    async fn tries_again(&mut self, setback: &Setback, done: &mut Done) -> bool {
        let globals = &self.call().globals;
        let retries = globals.retries.unwrap_or(0);
        if done.retries >= retries || *self.interrupts.borrow() > 0 || *self.ending.borrow() {
            return false;
        }
        let backoff = globals.retry_backoff.unwrap_or(1.0).powf(f64::from(done.retries));
        let delay = globals.retry_delay.unwrap_or(RETRY_DELAY).max(0.0) * backoff.max(0.0) * jitter();
        let after = Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX);
        done.retries += 1;
        let failure = Box::new(setback.failure.clone());
        self.events.emit(Event::Retrying { op: self.op, host: self.run.host.id, retry: done.retries, retries, after, failure }).await;
        let interrupted = self.interrupts.wait_for(|times| *times > 0);
        let ended = self.ending.wait_for(|ending| *ending);
        let again = tokio::select! {
            biased;
            Ok(_) = interrupted => false,
            Ok(_) = ended => false,
            () = tokio::time::sleep(after) => true,
        };
        if again {
            // The host is looked at afresh: what kept the operation from its end may rest on anything.
            self.drop_touched(&Resources::everything());
        } else {
            done.retries -= 1;
        }
        again
    }

    async fn diff_and_perform(&self, done: &mut Done) -> Result<Outcome, Setback> {
        let mut as_of = self.run.connection.moves();
        let joint = match &self.joint {
            Some(joint) => joint.take(&self.run, &self.calls, self.call).await?,
            None => None,
        };
        let (operation, change) = match joint {
            Some((joint_as_of, diffed)) => {
                as_of = joint_as_of;
                diffed?
            }
            None => {
                let operation = bind(&self.run, self.call(), &self.known)?;
                let change = self.diff(&operation).await?;
                (operation, change)
            }
        };
        if change.is_none() {
            return Ok(Outcome::Unchanged { reason: change.reason });
        }
        let touches = change.touches.clone().unwrap_or_else(|| operation.touches());
        let steps = done.steps;
        let performed = self.perform(&change, change.changes.then_some(as_of), done).await;
        done.changed |= change.changes && done.steps > steps;
        self.drop_touched(&touches);
        let ended_well =
            if change.changes { Outcome::Changed { reason: change.reason } } else { Outcome::Unchanged { reason: change.reason } };
        performed.map(|()| ended_well)
    }

    /// Diffs against the host as it is; effects of other operations are never trusted here.
    async fn diff(&self, operation: &SharedOperation) -> Result<Change, Setback> {
        for _ in 0..ROUNDS {
            match diff_once(&self.run, operation, self.call()).await {
                Ok(settled) => return settled,
                Err(wanted) => read(&self.run, wanted).await?,
            }
        }
        Err(Setback::failed(format!("after {ROUNDS} rounds it still asks for facts that were not asked before")))
    }

    async fn perform(&self, change: &Change, as_of: Option<u64>, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let mut first: Option<Setback> = None;
        for action in &change.actions {
            if *self.ending.borrow() {
                break;
            }
            let Err(setback) = self.step(action, as_of, done).await else { continue };
            if setback.kind != SetbackKind::Failed || !globals.continue_on_error.unwrap_or(false) {
                return Err(first.unwrap_or(setback));
            }
            first.get_or_insert(setback);
        }
        first.map_or(Ok(()), Err)
    }

    async fn step(&self, action: &Action, as_of: Option<u64>, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let context = globals.context();
        let timeout = globals.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let host = self.run.host.id;
        let text = describe::step(action);
        self.events.emit(Event::CommandStarted { op: self.op, host, text: text.clone() }).await;
        let (sink, splitter, end) = OutputLines::new().parts(self.events.clone(), self.op, host, std::mem::take(&mut done.kept));
        // In a task of its own: a connection that waits to hand on its output must not keep it from being taken.
        let mut splitting = JoinSet::new();
        splitting.spawn(splitter.run());
        let ending = self.under_lock(Perform { action, context: &context, timeout, as_of }, sink).await;
        end.end().await;
        done.kept = match splitting.join_next().await {
            Some(Ok(kept)) => kept,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            _ => Kept::default(),
        };
        if let Ending::Exited(code) = &ending {
            done.exit_code = Some(*code);
        }
        // However it goes that we ended: it was to be ended.
        let ended_by_us = *self.ending.borrow() && !matches!(ending, Ending::Lost { .. });
        let kind = match &ending {
            Ending::Exited(code) if globals.is_success(*code) || (*code == 0 && matches!(action, Action::Upload(_))) => {
                done.steps += 1;
                return Ok(());
            }
            Ending::Locked(Locked::Moved { .. }) => SetbackKind::Moved,
            _ if ended_by_us => {
                done.steps += 1;
                return Ok(());
            }
            Ending::Exited(_) | Ending::TimedOut { .. } | Ending::Refused(_) => SetbackKind::Failed,
            // It is not the operation that failed: what it would have is of no use to a host that another run changes.
            Ending::Lost { begun: false, .. } | Ending::Locked(_) => SetbackKind::Lost,
            Ending::Lost { begun: true, .. } | Ending::Killed => SetbackKind::Indeterminate,
        };
        let failure = Failure {
            message: describe::ending(&ending),
            hint: describe::hint(&ending),
            step: Some(text),
            ending: Some(ending),
            last_output: done.kept.last_lines(),
        };
        Err(Setback { failure, kind })
    }

    /// Waits for the end of a step, and kills it when it is to be ended. A kill that came before the command had a process to kill is sent again.
    pub(crate) async fn until_ended(&self, perform: Perform<'_>, sink: OutputSink) -> Ending {
        let mut performing = self.run.connection.perform(perform, sink);
        let mut ending = self.ending.clone();
        tokio::select! {
            biased;
            ended = &mut performing => return ended,
            Ok(_) = ending.wait_for(|ending| *ending) => {}
        }
        let give_up = Instant::now() + self.closing;
        while Instant::now() < give_up {
            let again = Instant::now() + Duration::from_secs(1);
            let killing = async {
                self.run.connection.end().await;
                tokio::time::sleep_until(again).await;
            };
            tokio::select! {
                biased;
                ended = &mut performing => return ended,
                () = killing => {}
            }
        }
        Ending::Lost { reason: "it was to be ended and did not end: it may still be running".to_owned(), begun: true }
    }

    fn drop_touched(&self, touches: &Resources) {
        self.run.store().drop_touched(touches);
        if self.run.host.connector == Connector::Local {
            self.run.locals.forget(touches);
        }
    }
}

/// The wish, with its conditional arguments as they have come out.
pub(crate) fn bind(run: &HostRun, call: &OperationCall, known: &[Known]) -> Result<SharedOperation, Setback> {
    let known = |call: CallIndex| known.get(call as usize).copied().unwrap_or_default();
    call.bind(&run.registry, |condition| condition.decide(&known).unwrap_or(false)).map_err(|error| Setback {
        failure: Failure { message: error.message, hint: error.hint, ..Failure::default() },
        kind: SetbackKind::Failed,
    })
}

/// Diffs with what is known of the host by now, or says what is to be read first.
pub(crate) async fn diff_once(run: &HostRun, operation: &SharedOperation, call: &OperationCall) -> Result<Result<Change, Setback>, Wanted> {
    match diff(run, operation, &[], &call.globals.context()) {
        Diffed::Wanting(wanted) => Err(wanted),
        Diffed::Change(change, seen) => {
            for path in &seen.locals {
                if let Err(message) = run.locals.check(path).await {
                    return Ok(Err(Setback::failed(message)));
                }
            }
            Ok(Ok(change))
        }
        Diffed::Error(error, _) => {
            let mut setback = Setback::failed(error.to_string());
            if let DiffError::Refused { hint, .. } = error {
                setback.failure.hint = hint;
            }
            Ok(Err(setback))
        }
    }
}

/// Reads what is missing, all in one request.
pub(crate) async fn read(run: &HostRun, wanted: Wanted) -> Result<(), Setback> {
    run.locals.read(wanted.locals).await;
    run.gather(wanted.facts).await.map_err(|lost| Setback::lost(lost.to_string()))
}

/// A factor between 0.9 and 1.1, so that hosts that failed together do not try again together.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.9 + 0.2 * (random % 10_001) as f64 / 10_000.0
}
