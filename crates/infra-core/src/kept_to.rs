//! Whether a run kept to its plan, and whether a second one would find nothing to do.

use std::sync::Arc;

use crate::event::{Outcome, RunKind};
use crate::host::HostId;
use crate::operation::Idempotence;
use crate::plan::{HostOutlook, OpId, Outlook, Plan, PlannedOperation};
use crate::run_state::RunState;

/// An operation whose outcome on a host was not what the plan said: the host changed behind infra's back (drift), or the operation has foreseen
/// wrongly (a defect).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The operation.
    pub op: OpId,
    /// The host.
    pub host: HostId,
    /// Which way it went.
    pub way: Way,
}

/// Which way an outcome departed from the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// It was to change something, and there was nothing to do.
    FoundNothingToDo,
    /// It was to change something, and was not run, since its condition did not hold.
    WasSkipped,
    /// There was to be nothing to do, and it changed something.
    ChangedSomething,
}

/// What a second look at the hosts of a run found.
#[derive(Clone, Debug)]
pub struct Proof {
    /// What the operations would do now.
    pub plan: Arc<Plan>,
    /// Whether operations that are not idempotent by nature count too.
    pub strict: bool,
}

/// An operation that is not at rest on a host.
#[derive(Clone, Copy, Debug)]
pub struct Restless<'p> {
    /// The operation.
    pub operation: &'p PlannedOperation,
    /// The host, and what the operation would do there.
    pub host: &'p HostOutlook,
    /// Whether it counts against the proof.
    pub counts: bool,
}

/// The operations whose outcome was not what the plan said, in the order of the plan, and of its hosts.
///
/// What *depends on* an earlier operation may come to anything. What failed or was not reached is told as that. What a `_run_once` came to on another
/// host than the plan named is no departure either: the plan looked at the first host alone.
pub fn departures(state: &RunState) -> Vec<Departure> {
    let mut departures = Vec::new();
    let Some(plan) = state.plan.as_ref().filter(|_| state.kind == Some(RunKind::Deploy)) else { return departures };
    for operation in &plan.operations {
        for (place, planned) in operation.hosts.iter().enumerate() {
            if operation.run_once && place > 0 {
                continue;
            }
            let Some(result) = state.hosts.get(&planned.host).and_then(|host| host.results.get(&operation.id)) else { continue };
            if let Some(way) = way(&planned.outlook, &result.outcome) {
                departures.push(Departure { op: operation.id, host: planned.host, way });
            }
        }
    }
    departures
}

fn way(planned: &Outlook, outcome: &Outcome) -> Option<Way> {
    match (planned, outcome) {
        (Outlook::Change { .. }, Outcome::Unchanged { .. }) => Some(Way::FoundNothingToDo),
        (Outlook::Change { .. }, Outcome::Skipped { .. }) => Some(Way::WasSkipped),
        (Outlook::NoChange { .. }, Outcome::Changed { .. }) => Some(Way::ChangedSomething),
        _ => None,
    }
}

impl Proof {
    /// What would change something or may, in the order of the plan, and of its hosts.
    pub fn restless(&self) -> impl Iterator<Item = Restless<'_>> {
        let strict = self.strict;
        self.plan.operations.iter().flat_map(move |operation| {
            // Of what only the run can tell nothing is known.
            let told = |outlook: &Outlook| !matches!(outlook, Outlook::Depends { on: None, .. });
            let counts = move |outlook| strict || (operation.idempotence == Idempotence::Idempotent && told(outlook));
            let hosts = operation.hosts.iter().filter(|host| !host.outlook.is_none());
            hosts.map(move |host| Restless { operation, host, counts: counts(&host.outlook) })
        })
    }

    /// Whether nothing that counts would change.
    pub fn holds(&self) -> bool {
        !self.restless().any(|one| one.counts)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::earlier::Mark;
    use crate::event::{Event, Failure, HostResult};
    use crate::plan::PlannedOperation;

    fn change() -> Outlook {
        Outlook::Change { reason: String::new(), steps: vec![], texts: vec![] }
    }

    fn none() -> Outlook {
        Outlook::NoChange { reason: String::new() }
    }

    fn depends() -> Outlook {
        Outlook::Depends { on: Some("x".into()), would: None }
    }

    fn plan(idempotence: Idempotence, run_once: bool, outlooks: impl IntoIterator<Item = Outlook>) -> Arc<Plan> {
        let hosts = (0..)
            .zip(outlooks)
            .map(|(host, outlook)| HostOutlook { host: HostId(host), call: 0, outlook, mark: Mark::default() })
            .collect();
        let operation = PlannedOperation {
            id: OpId(0),
            kind: "files.put".into(),
            title: "x".into(),
            location: None,
            idempotence,
            serial: None,
            blocks: vec![],
            run_once,
            hosts,
        };
        Arc::new(Plan { operations: vec![operation], ..Plan::default() })
    }

    fn ways(run_once: bool, of: impl IntoIterator<Item = (Outlook, Option<Outcome>)>) -> Vec<(u32, Way)> {
        let (outlooks, outcomes): (Vec<_>, Vec<_>) = of.into_iter().unzip();
        let mut state = RunState::default();
        let names = (0..outlooks.len() as u32).map(|id| (HostId(id), format!("h{id}"))).collect();
        state.fold(&Event::RunStarted { kind: RunKind::Deploy, hosts: Arc::new(names) });
        state.fold(&Event::PlanReady { plan: plan(Idempotence::Idempotent, run_once, outlooks) });
        state.fold(&Event::Executing);
        for (host, outcome) in (0..).zip(outcomes) {
            let Some(outcome) = outcome else { continue };
            let result = HostResult::without_work(outcome);
            state.fold(&Event::HostOperationEnded { op: OpId(0), host: HostId(host), result: Box::new(result) });
        }
        departures(&state).into_iter().map(|one| (one.host.0, one.way)).collect()
    }

    fn changed() -> Option<Outcome> {
        Some(Outcome::Changed { reason: String::new() })
    }

    fn unchanged() -> Option<Outcome> {
        Some(Outcome::Unchanged { reason: String::new() })
    }

    fn skipped() -> Option<Outcome> {
        Some(Outcome::Skipped { reason: String::new() })
    }

    #[test]
    fn an_outcome_that_was_not_foreseen_is_named() {
        let failed = || Some(Outcome::Failed { failure: Failure::default(), ignored: true });
        let elsewhere = || Some(Outcome::Elsewhere { host: HostId(0), changed: true, ok: true });
        let table = [
            (change(), changed(), None),
            (change(), unchanged(), Some(Way::FoundNothingToDo)),
            (change(), skipped(), Some(Way::WasSkipped)),
            (change(), failed(), None),
            (change(), Some(Outcome::Indeterminate { failure: Failure::default() }), None),
            (change(), elsewhere(), None),
            (change(), None, None),
            (none(), changed(), Some(Way::ChangedSomething)),
            (none(), unchanged(), None),
            (none(), skipped(), None),
            (none(), failed(), None),
            (none(), elsewhere(), None),
            (none(), None, None),
            (depends(), changed(), None),
            (depends(), unchanged(), None),
            (depends(), skipped(), None),
        ];
        let wanted: Vec<_> = (0..).zip(&table).filter_map(|(host, (.., way))| Some((host, (*way)?))).collect();
        assert_eq!(ways(false, table.into_iter().map(|(outlook, outcome, _)| (outlook, outcome))), wanted);
    }

    #[test]
    fn what_ran_once_elsewhere_is_compared_where_the_plan_looked() {
        assert_eq!(ways(true, [(change(), None), (change(), unchanged())]), []);
        assert_eq!(ways(true, [(change(), unchanged()), (change(), None)]), [(0, Way::FoundNothingToDo)]);
    }

    #[test]
    fn a_proof_counts_what_is_idempotent() {
        let proof = |idempotence, strict| {
            let proof = Proof { plan: plan(idempotence, false, [change(), none(), depends()]), strict };
            (proof.holds(), proof.restless().map(|one| (one.host.host.0, one.counts)).collect::<Vec<_>>())
        };
        assert_eq!(proof(Idempotence::Idempotent, false), (false, vec![(0, true), (2, true)]));
        assert_eq!(proof(Idempotence::NotIdempotent, false), (true, vec![(0, false), (2, false)]));
        assert_eq!(proof(Idempotence::NotIdempotent, true), (false, vec![(0, true), (2, true)]));
        let at_rest = Proof { plan: plan(Idempotence::Idempotent, false, [none()]), strict: true };
        assert!(at_rest.holds() && at_rest.restless().next().is_none());
    }
}
