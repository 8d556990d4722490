//! What earlier runs have done of the operations of one host, where this run goes on from them.
//!
//! - An operation that is done and whose work cannot be seen on the host (it is not idempotent, a `call`, or it ran once for all) is not run again.
//! - Every other one is planned as always, and what an earlier run changed counts for those that ask: but only for those that did not hear of it then,
//!   which is what they are *owed*. Who asked and was done after the change has had its answer.

use std::borrow::Cow;
use std::sync::Arc;

use infra_core::Value;
use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::earlier::{Continuation, Done, Earlier, EarlierOperation, Found, Left, Mark};
use infra_core::event::{HostResult, Outcome};
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::late::{CALL, Place};
use infra_core::operation::Idempotence;
use infra_core::plan::Outlook;
use infra_core::script::{Block, OperationCall};
use infra_core::secret::Secrets;
use serde_json::json;

use crate::graph::{Asks, HostCalls, of_one_host, outermost_parallel, short_digest};
use crate::host_run::HostRun;

/// What earlier runs have done of the operations of one host.
#[derive(Debug, Default)]
pub(crate) struct HostEarlier {
    calls: Vec<OfCall>,
    /// Whether an earlier run changed anything that is known of here.
    changes: bool,
}

/// What they have done of one call.
#[derive(Debug, Default)]
struct OfCall {
    mark: Mark,
    /// The run in which it was done, by its place among the runs.
    done: Option<usize>,
    /// Where it is not to be run again: that run's name, and what came of it.
    kept: Option<(String, Arc<HostResult>)>,
    /// The last run in which it changed something here, and on any host.
    changed: Option<usize>,
    changed_anywhere: Option<usize>,
    note: Option<Continuation>,
}

impl HostEarlier {
    /// Finds the calls of a host in earlier runs; without those, it tells what later ones know them by.
    pub(crate) fn new(earlier: Option<&Earlier>, run: &HostRun, inventory: &Inventory, calls: &[OperationCall]) -> Self {
        let identities = of_one_host(&HostCalls { host: HostId(0), name: &run.host.name, calls });
        let mut all: Vec<OfCall> = Vec::with_capacity(calls.len());
        for (call, identity) in calls.iter().zip(&identities) {
            let mark = Mark { identity: identity.clone(), digest: digest(&run.secrets, inventory, call, &identities) };
            all.push(match earlier {
                Some(earlier) => OfCall::find(earlier, run, call, mark),
                None => OfCall { mark, ..OfCall::default() },
            });
        }
        keep_servers(calls, &mut all);
        for (at, call) in calls.iter().enumerate() {
            for asked in call.asks() {
                let Some(OfCall { changed: Some(changed), note, .. }) = all.get(asked as usize) else { continue };
                if note.is_none() && all[at].done.is_none_or(|heard| *changed > heard) {
                    let run = earlier.map(|earlier| earlier.runs[*changed].clone()).unwrap_or_default();
                    all[asked as usize].note = Some(Continuation::Owed { run });
                }
            }
        }
        let changes = all.iter().any(|one| one.changed.is_some() || one.changed_anywhere.is_some());
        Self { calls: all, changes }
    }

    /// What a later run knows the call by.
    pub(crate) fn mark(&self, call: usize) -> &Mark {
        &self.calls[call].mark
    }

    /// What is known of the calls before, as `asker` is to see it: with the changes of earlier runs that it has not heard of.
    pub(crate) fn lay_over<'k>(&self, known: &'k [Known], asker: CallIndex) -> Cow<'k, [Known]> {
        if !self.changes {
            return Cow::Borrowed(known);
        }
        let heard = self.calls.get(asker as usize).and_then(|asker| asker.done);
        let owed = |changed: Option<usize>| changed.is_some_and(|at| heard.is_none_or(|heard| at > heard));
        let mut seen = known.to_vec();
        for (seen, earlier) in seen.iter_mut().zip(&self.calls) {
            if owed(earlier.changed) {
                seen.changed = Some(true);
            }
            if owed(earlier.changed_anywhere) {
                seen.changed_anywhere = Some(true);
            }
        }
        Cow::Owned(seen)
    }

    /// What the plan says of a call that is not run again; `known` is as the call is to see it. It is run again where what it asks about has changed since.
    pub(crate) fn skips(&self, call: &OperationCall, known: &[Known]) -> Option<Outlook> {
        let (run, _) = self.calls.get(call.call as usize)?.kept.as_ref()?;
        let still = |asked: CallIndex| known.get(asked as usize).is_some_and(|known| known.changed == Some(false));
        let asks_any_host = |asked: CallIndex| known.get(asked as usize).is_some_and(|known| known.changed_anywhere == Some(true));
        let asked = call.asks();
        let again =
            asked.iter().any(|asked| !still(*asked)) || call.all_conditions().flat_map(Condition::any_host_calls).any(asks_any_host);
        (!again).then(|| Continuation::outlook(run))
    }

    /// What an earlier run did of a call that is not run again.
    pub(crate) fn result(&self, call: CallIndex) -> Option<HostResult> {
        let (run, result) = self.calls.get(call as usize)?.kept.as_ref()?;
        let outcome = Outcome::Earlier { run: run.clone(), changed: result.outcome.changed() };
        Some(HostResult { outcome, steps_done: 0, retries: 0, took: std::time::Duration::ZERO, ..(**result).clone() })
    }

    /// What a person is to know of the call, with what the plan says of it.
    pub(crate) fn note(&self, call: usize, outlook: &Outlook) -> Option<Continuation> {
        let one = self.calls.get(call)?;
        match &one.kept {
            Some((run, _)) if *outlook == Continuation::outlook(run) => Some(Continuation::Done { run: run.clone() }),
            _ => one.note.clone(),
        }
    }
}

impl OfCall {
    fn find(earlier: &Earlier, run: &HostRun, call: &OperationCall, mark: Mark) -> Self {
        let host = &run.host.name;
        // Other hosts may have changed it also where this one had it otherwise, or not at all.
        let changed_anywhere = earlier.changed_anywhere(host, &mark.identity);
        let afresh = |mark, note| Self { mark, note, changed_anywhere, ..Self::default() };
        let found = match earlier.find(host, &mark) {
            Found::Same(found) => found,
            Found::Edited(before) => return Self { changed: before.changed, ..afresh(mark, Some(Continuation::Edited)) },
            Found::New => return afresh(mark, Some(Continuation::New)),
            Found::NoPlan => return afresh(mark, None),
        };
        let EarlierOperation { done, left, changed, .. } = found;
        let kept = done.as_ref().filter(|done| is_kept(run, call, done)).map(|done| (earlier.runs[done.run].clone(), done.result.clone()));
        let note = (done.is_none() && *left == Left::Indeterminate).then_some(Continuation::Indeterminate);
        Self { done: done.as_ref().map(|done| done.run), kept, changed: *changed, changed_anywhere, note, mark }
    }
}

/// Whether what is done is not run again: it cannot be seen on the host. What changed nothing was a check, such as waiting, and checks again.
fn is_kept(run: &HostRun, call: &OperationCall, done: &Done) -> bool {
    let idempotent = run.registry.operation(&call.kind).is_some_and(|definition| definition.idempotence == Idempotence::Idempotent);
    call.globals.run_once.unwrap_or(false) || call.kind == CALL || (!idempotent && done.result.outcome.changed())
}

/// What runs in the background serves the other operations of its block: as long as one of those is left, it is left as well.
fn keep_servers(calls: &[OperationCall], all: &mut [OfCall]) {
    let block = |call: &OperationCall| outermost_parallel(call).map(|block: &Block| (block.chain.clone(), block.turn));
    let background = |call: &OperationCall| call.globals.background.unwrap_or(false);
    for at in 0..calls.len() {
        if background(&calls[at]) && all[at].kept.is_some() {
            let around = block(&calls[at]);
            let others = (0..calls.len()).filter(|other| !background(&calls[*other]) && block(&calls[*other]) == around);
            if others.into_iter().any(|other| all[other].kept.is_none()) {
                (all[at].kept, all[at].done) = (None, None);
            }
        }
    }
}

/// The digest of what a call does: its arguments and conditions, and as whom, where and how it does it. When it is done and what a failure leads to is no
/// part of it, and neither is a password. Secrets are in it as salted digests, so that none can be guessed from it.
fn digest(secrets: &Secrets, inventory: &Inventory, call: &OperationCall, identities: &[String]) -> String {
    let globals = &call.globals;
    let condition = |condition: &Condition| by_identity(condition, identities);
    let conditions: Vec<Value> = call.conditions.iter().map(|(name, one)| json!([name, condition(one)])).collect();
    let when: Vec<Value> = call.when.iter().map(condition).collect();
    let late: Vec<&String> = call.late.arguments.iter().map(|(name, _)| name).collect();
    let on = call.on.map(|place| match place {
        Place::Host(host) => inventory.by_id(host).name.clone(),
        Place::Controller => "@local".to_owned(),
    });
    short_digest(&secrets.sealed(&json!({
        "arguments": call.arguments,
        "conditions": conditions,
        "when": when,
        "late": late,
        "until": call.late.until.is_some(),
        "on": on,
        "context": globals.context(),
        "success_exit_codes": globals.success_exit_codes,
        "run_once": globals.run_once.unwrap_or(false),
    })))
}

/// A condition whose calls are named by what they are, since their numbers follow what a script happens to call before.
fn by_identity(condition: &Condition, identities: &[String]) -> Value {
    let call = |call: &CallIndex| identities.get(*call as usize);
    let all = |list: &[Condition]| list.iter().map(|one| by_identity(one, identities)).collect::<Vec<_>>();
    match condition {
        Condition::Always(value) => json!(value),
        Condition::Outcome(asked, did) => json!({ "outcome": call(asked), "did": did }),
        Condition::AnyHost(asked) => json!({ "any_host": call(asked) }),
        Condition::Function(_) => json!("function"),
        Condition::Not(inner) => json!({ "not": by_identity(inner, identities) }),
        Condition::All(list) => json!({ "all": all(list) }),
        Condition::Any(list) => json!({ "any": all(list) }),
    }
}
