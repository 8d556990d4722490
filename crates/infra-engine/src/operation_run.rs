//! A worker: one operation on one host. It owns nothing that outlives it.

use std::sync::Arc;
use std::time::Duration;

use infra_core::change::Change;
use infra_core::condition::{CallIndex, Known};
use infra_core::connection::{Ending, Perform};
use infra_core::event::{Event, Failure, HostResult, Outcome};
use infra_core::facts::DiffError;
use infra_core::host::Connector;
use infra_core::operation::SharedOperation;
use infra_core::plan::OpId;
use infra_core::resources::Resources;
use infra_core::script::OperationCall;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::describe;
use crate::event_stream::EventStream;
use crate::host_run::HostRun;
use crate::judgement::{Diffed, diff};
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
}

/// How often an operation may ask for facts that were not asked before.
const ROUNDS: usize = 20;

/// What was done by now.
#[derive(Default)]
struct Done {
    steps: usize,
    exit_code: Option<i32>,
    kept: Kept,
}

/// Why an operation did not end well.
struct Setback {
    failure: Failure,
    kind: SetbackKind,
}

enum SetbackKind {
    /// It failed, and `_ignore_errors` may say that this is all right.
    Failed,
    /// There is no connection any more, so the host cannot go on.
    Lost,
    /// What came of it is not known.
    Indeterminate,
}

impl Setback {
    fn failed(message: impl Into<String>) -> Self {
        Self { failure: Failure { message: message.into(), ..Failure::default() }, kind: SetbackKind::Failed }
    }

    fn lost(message: impl Into<String>) -> Self {
        Self { kind: SetbackKind::Lost, ..Self::failed(message) }
    }
}

impl OperationRun {
    fn call(&self) -> &OperationCall {
        &self.calls[self.call as usize]
    }

    /// Diffs the operation against the host as it is, does what is to be done, and drops what that touched.
    pub(crate) async fn work(self) -> HostResult {
        let started = Instant::now();
        let mut done = Done::default();
        let outcome = match self.diff_and_perform(&mut done).await {
            Ok(outcome) => outcome,
            Err(Setback { failure, kind }) => match kind {
                SetbackKind::Failed => Outcome::Failed { failure, ignored: self.call().globals.ignore_errors.unwrap_or(false) },
                SetbackKind::Lost => Outcome::Failed { failure, ignored: false },
                SetbackKind::Indeterminate => Outcome::Indeterminate { failure },
            },
        };
        HostResult {
            outcome,
            steps_done: done.steps,
            took: started.elapsed(),
            stdout: done.kept.stdout.text(),
            stderr: done.kept.stderr.text(),
            exit_code: done.exit_code,
        }
    }

    async fn diff_and_perform(&self, done: &mut Done) -> Result<Outcome, Setback> {
        let known = |call| self.known.get(call as usize).copied().unwrap_or_default();
        let operation = self.call().bind(&self.run.registry, |condition| condition.decide(&known).unwrap_or(false)).map_err(|error| {
            Setback { failure: Failure { message: error.message, hint: error.hint, ..Failure::default() }, kind: SetbackKind::Failed }
        })?;
        let change = self.diff(&operation).await?;
        if change.is_none() {
            return Ok(Outcome::Unchanged { reason: change.reason });
        }
        let touches = change.touches.clone().unwrap_or_else(|| operation.touches());
        let performed = self.perform(&change, done).await;
        self.drop_touched(&touches);
        performed.map(|()| Outcome::Changed { reason: change.reason })
    }

    /// Diffs against the host as it is; effects of other operations are never trusted here.
    async fn diff(&self, operation: &SharedOperation) -> Result<Change, Setback> {
        let context = self.call().globals.context();
        for _ in 0..ROUNDS {
            match diff(&self.run, operation, &[], &context) {
                Diffed::Wanting(wanted) => {
                    self.run.locals.read(wanted.locals).await;
                    self.run.gather(wanted.facts).await.map_err(|lost| Setback::lost(lost.to_string()))?;
                }
                Diffed::Change(change, seen) => {
                    for path in &seen.locals {
                        self.run.locals.check(path).await.map_err(Setback::failed)?;
                    }
                    return Ok(change);
                }
                Diffed::Error(error, _) => {
                    let mut setback = Setback::failed(error.to_string());
                    if let DiffError::Refused { hint, .. } = error {
                        setback.failure.hint = hint;
                    }
                    return Err(setback);
                }
            }
        }
        Err(Setback::failed(format!("after {ROUNDS} rounds it still asks for facts that were not asked before")))
    }

    async fn perform(&self, change: &Change, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let context = globals.context();
        let timeout = globals.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let host = self.run.host.id;
        for action in &change.actions {
            let text = describe::step(action);
            self.events.emit(Event::CommandStarted { op: self.op, host, text: text.clone() }).await;
            let (sink, splitter, end) = OutputLines::new().parts(self.events.clone(), self.op, host, std::mem::take(&mut done.kept));
            // In a task of its own: a connection that waits for room must not keep it from being made.
            let mut splitting = JoinSet::new();
            splitting.spawn(splitter.run());
            let ending = self.run.connection.perform(Perform { action, context: &context, timeout }, sink).await;
            end.end();
            done.kept = match splitting.join_next().await {
                Some(Ok(kept)) => kept,
                Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                _ => Kept::default(),
            };
            if let Ending::Exited(code) = &ending {
                done.exit_code = Some(*code);
            }
            let kind = match &ending {
                Ending::Exited(code)
                    if globals.is_success(*code) || (*code == 0 && matches!(action, infra_core::change::Action::Upload(_))) =>
                {
                    done.steps += 1;
                    continue;
                }
                Ending::Exited(_) | Ending::TimedOut { .. } | Ending::Refused(_) => SetbackKind::Failed,
                Ending::Lost { begun: false, .. } => SetbackKind::Lost,
                Ending::Lost { begun: true, .. } | Ending::Killed => SetbackKind::Indeterminate,
            };
            let failure = Failure {
                message: describe::ending(&ending),
                hint: None,
                step: Some(text),
                ending: Some(ending),
                last_output: done.kept.last_lines(),
            };
            return Err(Setback { failure, kind });
        }
        Ok(())
    }

    fn drop_touched(&self, touches: &Resources) {
        self.run.store().drop_touched(touches);
        if self.run.host.connector == Connector::Local {
            self.run.locals.forget(touches);
        }
    }
}
