//! The steps of a change: done one after the other where the operation runs, with their output taken line by line.

use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::{Action, Change};
use infra_core::connection::{Connection, Ending, LinedUp, Lineup, Perform, Question};
use infra_core::event::{Event, Failure};
use infra_core::fact::Scope;
use infra_core::global_arguments::Context;
use infra_core::output::Output;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::describe;
use crate::fact_store::Asked;
use crate::operation_run::{Done, OperationRun};
use crate::output_lines::{Kept, OutputLines};
use crate::setback::{Setback, SetbackKind};

impl OperationRun {
    /// Does the steps of a change, and gives what was read behind them of what is asked there.
    pub(crate) async fn perform(&self, change: &Change, behind: &[Asked], done: &mut Done) -> (Result<(), Setback>, Vec<(Asked, Output)>) {
        let globals = &self.call().globals;
        let wire = match self.wire().await {
            Ok(wire) => wire,
            Err(setback) => return (Err(setback), Vec::new()),
        };
        let context = globals.context();
        let timeout = globals.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let (behind, questions) = rides_along(behind, &context);
        let mut lined_up = self.good_statuses().and_then(|good| {
            let steps = change.actions.iter().map(|action| Perform { action, context: &context, timeout }).collect();
            wire.line_up(Lineup { steps, good, behind: questions })
        });
        let mut first: Option<Setback> = None;
        for action in &change.actions {
            if *self.ending.borrow() {
                break;
            }
            let step = Perform { action, context: &context, timeout };
            let Err(setback) = self.step(step, &*wire, lined_up.as_deref_mut(), done).await else { continue };
            let goes_on = setback.kind == SetbackKind::Failed && globals.continue_on_error.unwrap_or(false);
            first.get_or_insert(setback);
            if !goes_on {
                break;
            }
        }
        let answers = match &mut lined_up {
            Some(lined_up) => lined_up.answers().await,
            None => Vec::new(),
        };
        let read = behind.into_iter().zip(answers).filter_map(|(one, answer)| Some((one, answer?))).collect();
        (first.map_or(Ok(()), Err), read)
    }

    /// The exit statuses after which the next step is done. None where steps are not sent together: those of an operation that goes on after a failure,
    /// that may be ended at any time, or for which the status of a killed command would be a good one.
    fn good_statuses(&self) -> Option<Vec<i32>> {
        let globals = &self.call().globals;
        let good = globals.success_exit_codes.clone().unwrap_or_else(|| vec![0]);
        let apart = globals.continue_on_error.unwrap_or(false) || globals.background.unwrap_or(false);
        (!apart && !good.is_empty() && good.iter().all(|code| (0..=128).contains(code))).then_some(good)
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

    async fn step(
        &self,
        step: Perform<'_>,
        wire: &dyn Connection,
        lined_up: Option<&mut (dyn LinedUp + '_)>,
        done: &mut Done,
    ) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let action = step.action;
        let (op, host) = (self.op, self.host);
        let text = describe::step(action);
        let text = if self.is_elsewhere() { describe::step_at(&self.at.host.name, &text) } else { text };
        self.events.emit(Event::CommandStarted { op, host, text: text.clone() }).await;
        let (sink, splitter, end) = OutputLines::new().parts(self.events.clone(), op, host, std::mem::take(&mut done.kept));
        // In a task of its own: a connection that waits to hand on its output must not keep it from being taken.
        let mut splitting = JoinSet::new();
        splitting.spawn(splitter.run());
        let performing = match lined_up {
            Some(lined_up) => lined_up.next(sink),
            None => wire.perform(step, sink),
        };
        let ending = self.until_ended(performing, wire).await;
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
            _ if ended_by_us => {
                done.steps += 1;
                return Ok(());
            }
            Ending::Exited(_) | Ending::TimedOut { .. } | Ending::Refused(_) => SetbackKind::Failed,
            // The host itself can go on without the other one.
            Ending::Lost { begun: false, .. } if self.is_elsewhere() => SetbackKind::Failed,
            Ending::Lost { begun: false, .. } => SetbackKind::Final,
            Ending::Lost { begun: true, .. } | Ending::Killed => SetbackKind::Indeterminate,
        };
        let failure = Failure {
            message: describe::ending(&ending),
            hint: None,
            step: Some(text),
            ending: Some(ending),
            last_output: done.kept.last_lines(),
        };
        Err(Setback { failure, kind })
    }

    /// Waits for the end of a step, and kills it when it is to be ended. A kill that came before the command had a process to kill is sent again.
    async fn until_ended(&self, mut performing: BoxFuture<'_, Ending>, wire: &dyn Connection) -> Ending {
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

/// What can be asked behind the steps, as who does them: what is asked by the same user, and what is the same for everyone where root asks.
fn rides_along(behind: &[Asked], context: &Context) -> (Vec<Asked>, Vec<Question>) {
    let as_root = context.sudo.as_deref() == Some("root");
    let rides = |one: &&Asked| one.context.sudo == context.sudo || (as_root && one.fact.scope() == Scope::Everyone);
    let behind: Vec<Asked> = behind.iter().filter(rides).cloned().collect();
    let asked_as = |one: &Asked| Context { sudo: context.sudo.clone(), ..one.context.clone() };
    let questions = behind.iter().map(|one| Question { command: one.fact.command(), context: asked_as(one) }).collect();
    (behind, questions)
}
