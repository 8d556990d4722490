//! The steps of a change: done one after the other where the operation runs, with their output taken line by line.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::{Action, Change};
use infra_core::connection::{Connection, Ending, LinedUp, Lineup, OutputSink, Perform, Question};
use infra_core::event::{Event, Failure};
use infra_core::fact::Scope;
use infra_core::global_arguments::Context;
use infra_core::lock::Locked;
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::describe;
use crate::fact_store::Asked;
use crate::operation_run::{Done, OperationRun};
use crate::output_lines::{Kept, OutputLines};
use crate::setback::{Setback, SetbackKind};

/// What the steps of a change go over.
pub(crate) struct Way<'w> {
    pub(crate) wire: &'w dyn Connection,
    /// The steps as they were made ready to go out together; none where each goes out by itself.
    lined_up: Option<Box<dyn LinedUp + 'w>>,
}

impl<'w> Way<'w> {
    /// Does the next step, which is this one.
    pub(crate) fn perform<'s>(&'s mut self, step: Perform<'s>, sink: OutputSink) -> BoxFuture<'s, Ending> {
        match &mut self.lined_up {
            Some(lined_up) => lined_up.next(sink),
            None => self.wire.perform(step, sink),
        }
    }

    /// From now on each step goes out by itself. Gives what was read behind those that went out together.
    pub(crate) async fn take_apart(&mut self) -> Vec<Option<Output>> {
        match self.lined_up.take() {
            Some(mut lined_up) => lined_up.answers().await,
            None => Vec::new(),
        }
    }
}

impl OperationRun {
    /// Does the steps of a change, and gives what was read behind them of what is asked there.
    pub(crate) async fn perform(
        &self,
        change: &Change,
        as_of: Option<u64>,
        behind: &[Asked],
        done: &mut Done,
    ) -> (Result<(), Setback>, Vec<(Asked, Output)>) {
        let wire = match self.wire().await {
            Ok(wire) => wire,
            Err(setback) => return (Err(setback), Vec::new()),
        };
        let as_of = match self.beside(&wire, as_of).await {
            Ok(as_of) => as_of,
            Err(setback) => return (Err(setback), Vec::new()),
        };
        let globals = &self.call().globals;
        let context = globals.context();
        let timeout = globals.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        // A file that a saved plan carries is written as it is there, whatever has become of it since.
        let actions: Vec<Cow<'_, Action>> =
            change.actions.iter().map(|action| self.own.locals.carried_in(action).map_or(Cow::Borrowed(action), Cow::Owned)).collect();
        let step = |action| Perform { action, context: &context, timeout, as_of };
        let (behind, questions) = rides_along(behind, &context);
        let lined_up = if self.goes_together() {
            wire.line_up(Lineup { steps: actions.iter().map(|action| step(action)).collect(), behind: questions })
        } else {
            None
        };
        let mut way = Way { wire: &*wire, lined_up };
        let mut first: Option<Setback> = None;
        for action in &actions {
            if *self.ending.borrow() {
                break;
            }
            let Err(setback) = self.step(step(action), &mut way, done).await else { continue };
            let goes_on = setback.kind == SetbackKind::Failed && globals.continue_on_error.unwrap_or(false);
            first.get_or_insert(setback);
            if !goes_on {
                break;
            }
        }
        let answers = way.take_apart().await;
        let read = behind.into_iter().zip(answers).filter_map(|(one, answer)| Some((one, answer?))).collect();
        (first.map_or(Ok(()), Err), read)
    }

    /// Whether a step is begun exactly when the one before it ended with 0, so that they can be sent together: not so where the operation goes on after a
    /// failure, takes another status for a good one, or may be ended at any time.
    fn goes_together(&self) -> bool {
        let globals = &self.call().globals;
        let only_zero = globals.success_exit_codes.as_ref().is_none_or(|good| good[..] == [0]);
        only_zero && !globals.continue_on_error.unwrap_or(false) && !globals.background.unwrap_or(false)
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

    async fn step(&self, step: Perform<'_>, way: &mut Way<'_>, done: &mut Done) -> Result<(), Setback> {
        let globals = &self.call().globals;
        let action = step.action;
        let (op, host) = (self.op, self.host);
        let text = describe::step(action);
        let text = if self.is_elsewhere() { describe::step_at(&self.at.host.name, &text) } else { text };
        self.events.emit(Event::CommandStarted { op, host, text: text.clone() }).await;
        let (sink, splitter, end) =
            OutputLines::new(describe::moves(action)).parts(self.events.clone(), op, host, std::mem::take(&mut done.kept).of_next());
        // In a task of its own: a connection that waits to hand on its output must not keep it from being taken.
        let mut splitting = JoinSet::new();
        splitting.spawn(splitter.run());
        let ending = self.under_lock(step, way, sink).await;
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
            Ending::Exited(code) if globals.is_success(*code) || (*code == 0 && describe::moves(action).is_some()) => {
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
    pub(crate) async fn until_ended(&self, perform: Perform<'_>, way: &mut Way<'_>, sink: OutputSink) -> Ending {
        let wire = way.wire;
        let mut performing = way.perform(perform, sink);
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

/// What can be asked behind the steps, as who does them: what is asked by the same user, and what is the same for everyone where root asks. What rests on the
/// session is asked of a new shell, for this one has it as it was before.
fn rides_along(behind: &[Asked], context: &Context) -> (Vec<Asked>, Vec<Question>) {
    let session = Resources::Only([Resource::Session].into());
    let as_root = context.privilege.user() == Some("root");
    let same = |one: &Asked| one.context.privilege == context.privilege || (as_root && one.fact.scope() == Scope::Everyone);
    let rides = |one: &&Asked| same(one) && !one.fact.rests_on().overlaps(&session) && one.fact.command().patience.is_none();
    let behind: Vec<Asked> = behind.iter().filter(rides).cloned().collect();
    let asked_as = |one: &Asked| Context { privilege: context.privilege.clone(), ..one.context.clone() };
    let questions = behind.iter().map(|one| Question { command: one.fact.command(), context: asked_as(one) }).collect();
    (behind, questions)
}
