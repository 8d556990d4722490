//! The steps of a change: done one after the other where the operation runs, with their output taken line by line.

use std::sync::Arc;
use std::time::Duration;

use infra_core::change::{Action, Change};
use infra_core::connection::{Connection, Ending, OutputSink, Perform};
use infra_core::event::{Event, Failure};
use infra_core::lock::Locked;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::describe;
use crate::operation_run::{Done, OperationRun};
use crate::output_lines::{Kept, OutputLines};
use crate::setback::{Setback, SetbackKind};

impl OperationRun {
    pub(crate) async fn perform(&self, change: &Change, as_of: Option<u64>, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let wire = self.wire().await?;
        let as_of = self.beside(&wire, as_of).await?;
        let mut first: Option<Setback> = None;
        for action in &change.actions {
            if *self.ending.borrow() {
                break;
            }
            let Err(setback) = self.step(action, &*wire, as_of, done).await else { continue };
            if setback.kind != SetbackKind::Failed || !globals.continue_on_error.unwrap_or(false) {
                return Err(first.unwrap_or(setback));
            }
            first.get_or_insert(setback);
        }
        first.map_or(Ok(()), Err)
    }

    /// What the steps are done through. To end an operation ends all that runs on its connection, so that one that is to be ended has a connection of its
    /// own where operations of other hosts may run beside it.
    async fn wire(&self) -> Result<Arc<dyn Connection>, Setback> {
        let background = self.call().globals.background.unwrap_or(false);
        if !background || (!self.is_elsewhere() && !self.places.is_shared(self.host)) {
            return Ok(self.at.connection.clone());
        }
        let opened = self.places.open(&self.at.host).await;
        opened.map_err(|error| Setback::hinted(format!("a connection of its own to {}: {error}", self.at.host.name), error.hint))
    }

    async fn step(&self, action: &Action, wire: &dyn Connection, as_of: Option<u64>, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let context = globals.context();
        let timeout = globals.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let (op, host) = (self.op, self.host);
        let text = describe::step(action);
        let text = if self.is_elsewhere() { describe::step_at(&self.at.host.name, &text) } else { text };
        self.events.emit(Event::CommandStarted { op, host, text: text.clone() }).await;
        let (sink, splitter, end) = OutputLines::new().parts(self.events.clone(), op, host, std::mem::take(&mut done.kept));
        // In a task of its own: a connection that waits to hand on its output must not keep it from being taken.
        let mut splitting = JoinSet::new();
        splitting.spawn(splitter.run());
        let ending = self.under_lock(Perform { action, context: &context, timeout, as_of }, wire, sink).await;
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
            Ending::Exited(code)
                if globals.is_success(*code) || (*code == 0 && matches!(action, Action::Upload(_) | Action::Download(_))) =>
            {
                done.steps += 1;
                return Ok(());
            }
            Ending::Locked(Locked::Moved { .. }) => SetbackKind::Moved,
            _ if ended_by_us => {
                done.steps += 1;
                return Ok(());
            }
            Ending::Exited(_) | Ending::TimedOut { .. } | Ending::Refused(_) => SetbackKind::Failed,
            // The host itself can go on without the other one.
            Ending::Lost { begun: false, .. } if self.is_elsewhere() => SetbackKind::Failed,
            Ending::Locked(_) if self.is_elsewhere() => SetbackKind::Failed,
            // It is not the operation that failed: what it would have is of no use to a host that another run changes.
            Ending::Lost { begun: false, .. } | Ending::Locked(_) => SetbackKind::Final,
            Ending::Lost { begun: true, .. } | Ending::Killed => SetbackKind::Indeterminate,
        };
        let failure = Failure {
            message: self.told(&ending),
            hint: describe::hint(&ending),
            step: Some(text),
            ending: Some(ending),
            last_output: done.kept.last_lines(),
        };
        Err(Setback { failure, kind })
    }

    /// Waits for the end of a step, and kills it when it is to be ended. A kill that came before the command had a process to kill is sent again.
    pub(crate) async fn until_ended(&self, perform: Perform<'_>, wire: &dyn Connection, sink: OutputSink) -> Ending {
        let mut performing = wire.perform(perform, sink);
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
                wire.end().await;
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
}
