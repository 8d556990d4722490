//! The body of a `call`: operations that a script calls in execute are done at once, one after the other, and counted for the `call`.

use std::sync::Arc;

use infra_core::event::{Event, HostResult, Outcome};
use infra_core::late::{CallResult, FunctionId, LateReply, LateStep, Purpose};
use infra_core::script::OperationCall;

use crate::operation_run::{Done, OperationRun, Stage};
use crate::saved::Allowed;
use crate::setback::{Setback, SetbackKind};

impl OperationRun {
    /// Runs the body to its end, or to the first operation that fails.
    pub(crate) async fn body(&self, function: FunctionId, done: &mut Done) -> Result<Outcome, Setback> {
        let late = self.late()?;
        let (mut calling, mut step) = late.begin(function, Purpose::Body).await?;
        let (mut performed, mut changed) = (0usize, 0usize);
        loop {
            let reply = match step {
                LateStep::Ask(requests) => late.answers(requests).await?,
                LateStep::Perform(call) => {
                    if *self.ending.borrow() {
                        break;
                    }
                    if *self.interrupts.borrow() > 0 {
                        return Err(Setback::finally(format!("the run was interrupted before «{}» in it", call.title())));
                    }
                    let (result, has_changed) = self.perform_within(*call, done).await?;
                    performed += 1;
                    changed += usize::from(has_changed);
                    LateReply::Ended(Arc::new(CallResult::of(&result)))
                }
                LateStep::Returned(_) => break,
                LateStep::Failed(diagnostic) => return Err(Setback::of_function("", &diagnostic)),
            };
            step = calling.resume(reply).await;
        }
        Ok(match (performed, changed) {
            (0, _) => Outcome::Unchanged { reason: "no operation was called in it".to_owned() },
            (_, 0) => Outcome::Unchanged { reason: "the operations in it found nothing to do".to_owned() },
            (1, _) => Outcome::Changed { reason: "the operation in it".to_owned() },
            _ => Outcome::Changed { reason: format!("{changed} of {performed} operations in it") },
        })
    }

    /// Does one operation of the body, and gives what came of it and whether it changed something.
    async fn perform_within(&self, call: OperationCall, done: &mut Done) -> Result<(HostResult, bool), Setback> {
        let (kind, title, location) = (call.kind.clone(), call.title(), call.location().cloned());
        let at = self.places.at(&self.own, call.on).await.map_err(|error| {
            let name = call.on.map(|place| self.places.name(place)).unwrap_or_default();
            Setback::hinted(format!("{name}, where «{title}» is to run (`_on`), is {error}"), error.hint)
        })?;
        let inner = Self {
            op: self.op,
            host: self.host,
            own: self.own.clone(),
            at,
            sites: None,
            places: self.places.clone(),
            calls: Arc::new(vec![call]),
            call: 0,
            known: Vec::new(),
            late: None,
            events: self.events.clone(),
            joint: None,
            behind: Vec::new(),
            ending: self.ending.clone(),
            interrupts: self.interrupts.clone(),
            closing: self.closing,
            stage: Stage::Decided,
            allowed: Allowed::Anything,
        };
        let (result, setback) = inner.work().await;
        let has_changed = if result.outcome.succeeded() { result.outcome.changed() } else { result.steps_done > 0 };
        done.steps += result.steps_done;
        done.changed |= has_changed;
        done.has_change |= has_changed;
        done.exit_code = result.exit_code.or(done.exit_code);
        done.kept.stdout.push(result.stdout.as_bytes());
        done.kept.stderr.push(result.stderr.as_bytes());
        let within =
            Event::WithinCall { op: self.op, host: self.host, kind, title: title.clone(), location, result: Box::new(result.clone()) };
        self.events.emit(within).await;
        match (&result.outcome, setback) {
            (Outcome::Failed { failure, ignored: false } | Outcome::Indeterminate { failure }, kind) => {
                let mut failure = failure.clone();
                failure.message = format!("«{title}»: {}", failure.message);
                Err(Setback { failure, kind: kind.unwrap_or(SetbackKind::Failed) })
            }
            _ => Ok((result, has_changed)),
        }
    }
}
