//! What earlier runs have done, for a run that goes on from there.
//!
//! A run may resume another, which resumed another: [`Earlier`] takes them one by one, the first one first, and knows then for each operation on each
//! host whether it is done, and whether it changed something that later operations are owed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{HostResult, Outcome};
use crate::host::HostId;
use crate::plan::{OpId, Outlook, PlannedOperation};
use crate::run_state::RunState;

/// What tells in a later run whether an operation on a host is the same: digests, so that no argument stands in a plan by them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Of its kind, the chain of calls down to it, the blocks around it, and its turn where its host comes by there more than once.
    pub identity: String,
    /// Of its arguments, its conditions, and what says as whom and how it runs.
    pub digest: String,
}

/// An operation that ended well in an earlier run.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// In which of [`Earlier::runs`].
    pub run: usize,
    /// What came of it.
    pub result: Arc<HostResult>,
}

/// How far an operation on a host is that is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Left {
    /// It was not started, or its condition did not hold.
    #[default]
    NotStarted,
    /// It failed.
    Failed,
    /// What came of it is not known.
    Indeterminate,
}

/// An operation on a host, after all earlier runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EarlierOperation {
    /// Of its arguments, in the last run that had it.
    pub digest: String,
    /// Where it is done: its last end that was well.
    pub done: Option<Done>,
    /// Where it is not: how far it is.
    pub left: Left,
    /// The last run in which it changed something, or may have: it failed half-way, or what came of it is not known.
    pub changed: Option<usize>,
    /// The last run in which it changed something on any host.
    pub changed_anywhere: Option<usize>,
}

/// What earlier runs have done.
#[derive(Clone, Debug, Default)]
pub struct Earlier {
    /// Their names, the first one first.
    pub runs: Vec<String>,
    /// By the name of the host and the identity of the operation.
    hosts: BTreeMap<String, BTreeMap<String, EarlierOperation>>,
    /// By identity: what ran once and ended well, with the digest on the host that it ran on.
    once: BTreeMap<String, EarlierOperation>,
    /// By identity: the last run in which some host was changed by it.
    anywhere: BTreeMap<String, usize>,
    /// By the name of the host: whether it was as it should be at the end of the last run that it was in.
    complete: BTreeMap<String, bool>,
}

/// What is known of an operation that is planned now.
#[derive(Clone, Debug, PartialEq)]
pub enum Found<'a> {
    /// It is the same as in an earlier run.
    Same(&'a EarlierOperation),
    /// It stood in an earlier run with other arguments; what it changed then is owed all the same.
    Edited(&'a EarlierOperation),
    /// No earlier run had it on this host, though they had others there.
    New,
    /// No earlier run came to plan this host.
    NoPlan,
}

impl Earlier {
    /// Takes in the next run, as its journal tells of it.
    pub fn add(&mut self, run: &str, state: &RunState) {
        let at = self.runs.len();
        self.runs.push(run.to_owned());
        for (host, bucket) in state.account().hosts {
            self.complete.insert(state.hosts[&host].name.clone(), bucket.is_ok());
        }
        for operation in state.plan.iter().flat_map(|plan| &plan.operations) {
            self.add_operation(at, operation, state);
        }
    }

    fn add_operation(&mut self, at: usize, operation: &PlannedOperation, state: &RunState) {
        let result = |host: HostId| state.hosts.get(&host).and_then(|host| host.results.get(&operation.id));
        let changed_here = |host: HostId| result(host).is_some_and(|result| may_have_changed(result) && !is_of_earlier(result));
        let anywhere = operation.hosts.iter().any(|one| changed_here(one.host)).then_some(at);
        let ran_once = operation.hosts.iter().filter(|_| operation.run_once).find_map(|one| {
            let result = result(one.host).filter(|result| matches!(result.outcome, Outcome::Changed { .. } | Outcome::Unchanged { .. }))?;
            Some((one, Arc::new(result.clone())))
        });
        for one in &operation.hosts {
            let Some(host) = state.hosts.get(&one.host) else { continue };
            let known = self.hosts.entry(host.name.clone()).or_default().entry(one.mark.identity.clone()).or_default();
            if known.digest != one.mark.digest {
                if !known.digest.is_empty() {
                    self.once.remove(&one.mark.identity);
                }
                // What it changed before is still owed to those that rest on it.
                let EarlierOperation { changed, changed_anywhere, .. } = *known;
                *known = EarlierOperation { digest: one.mark.digest.clone(), changed, changed_anywhere, ..EarlierOperation::default() };
            }
            if let Some(at) = anywhere {
                known.changed_anywhere = Some(at);
                self.anywhere.insert(one.mark.identity.clone(), at);
            }
            match (&ran_once, result(one.host)) {
                (Some((_, ran)), _) => known.take(at, ran),
                (None, Some(result)) => known.take(at, &Arc::new(result.clone())),
                (None, None) => {}
            }
        }
        if let Some((one, result)) = &ran_once {
            let changed = result.outcome.changed().then_some(at);
            let done = Some(Done { run: at, result: result.clone() });
            let digest = one.mark.digest.clone();
            self.once.insert(one.mark.identity.clone(), EarlierOperation { digest, done, changed, ..EarlierOperation::default() });
        }
    }

    /// What is known of the operation with this mark on the host of this name.
    pub fn find(&self, host: &str, mark: &Mark) -> Found<'_> {
        let once = self.once.get(&mark.identity);
        let Some(operations) = self.hosts.get(host) else {
            return once.filter(|once| once.digest == mark.digest).map_or(Found::NoPlan, Found::Same);
        };
        match operations.get(&mark.identity) {
            Some(known) if known.digest == mark.digest => {
                // Another part of what was split may have run it for all.
                Found::Same(if known.done.is_none() { once.unwrap_or(known) } else { known })
            }
            Some(known) => Found::Edited(known),
            None => once.filter(|once| once.digest == mark.digest).map_or(Found::New, Found::Same),
        }
    }

    /// The last run in which the operation of this identity changed something on any host.
    pub fn changed_anywhere(&self, host: &str, identity: &str) -> Option<usize> {
        let known = self.hosts.get(host).and_then(|operations| operations.get(identity)).and_then(|known| known.changed_anywhere);
        known.max(self.anywhere.get(identity).copied())
    }

    /// The hosts on which something is left to do, by name, as the last run that each was in left them.
    pub fn left(&self) -> Vec<&str> {
        self.complete.iter().filter(|(_, complete)| !**complete).map(|(name, _)| name.as_str()).collect()
    }

    /// The hosts on which all is done, by name.
    pub fn complete(&self) -> Vec<&str> {
        self.complete.iter().filter(|(_, complete)| **complete).map(|(name, _)| name.as_str()).collect()
    }
}

impl EarlierOperation {
    /// Takes in what came of it in a later run.
    fn take(&mut self, at: usize, result: &Arc<HostResult>) {
        if is_of_earlier(result) {
            return;
        }
        if may_have_changed(result) {
            self.changed = Some(at);
        }
        match &result.outcome {
            Outcome::Changed { .. } | Outcome::Unchanged { .. } | Outcome::Elsewhere { ok: true, .. } => {
                self.done = Some(Done { run: at, result: result.clone() });
            }
            // Whether it is to run is asked again.
            Outcome::Skipped { .. } | Outcome::Earlier { .. } => {}
            Outcome::Failed { .. } | Outcome::Elsewhere { ok: false, .. } => (self.done, self.left) = (None, Left::Failed),
            Outcome::Indeterminate { .. } => (self.done, self.left) = (None, Left::Indeterminate),
        }
    }
}

/// Whether it tells of an earlier run again.
fn is_of_earlier(result: &HostResult) -> bool {
    matches!(result.outcome, Outcome::Earlier { .. })
}

/// A change that is certain, and one that may be: what depends on it is owed in both cases, since nothing more may be found to change.
fn may_have_changed(result: &HostResult) -> bool {
    match &result.outcome {
        Outcome::Indeterminate { .. } => true,
        Outcome::Failed { .. } => result.steps_done > 0,
        other => other.changed(),
    }
}

/// What a plan that goes on from earlier runs makes of them, for one operation: shown before anything is executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlierNote {
    /// Which operation.
    pub op: OpId,
    /// What is made of it.
    pub what: Continuation,
    /// On which hosts, in inventory order.
    pub hosts: Vec<HostId>,
}

/// What is made of an operation that an earlier run may have done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "continuation")]
pub enum Continuation {
    /// It is done, and whether it still holds cannot be seen: it is not run again.
    Done {
        /// The run that did it.
        run: String,
    },
    /// What came of it is not known: it counts as not done.
    Indeterminate,
    /// It changed something then, or may have, and operations that rest on it have not been run since: for them it counts as changed.
    Owed {
        /// The run that changed it.
        run: String,
    },
    /// Its arguments are no more what they were: it is planned afresh.
    Edited,
    /// The earlier runs did not have it: it is planned afresh.
    New,
}

impl Continuation {
    /// The outlook of an operation that is not run again.
    pub fn outlook(run: &str) -> Outlook {
        Outlook::NoChange { reason: format!("done in run {run}, not run again") }
    }
}
