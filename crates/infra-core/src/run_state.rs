//! The record of a run: folded from its events, and the one source of the table, the JSON and the exit code.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::connection::Traffic;
use crate::diagnostic::Fault;
use crate::event::{Event, HostResult, Outcome, RunKind, StopReason};
use crate::host::HostId;
use crate::kept_to::Proof;
use crate::plan::{OpId, Outlook, Plan};

/// Where a host stands when a run has ended: exactly one of these, the first that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bucket {
    /// What came of some operation is not known.
    Indeterminate,
    /// An operation, its script or a fact failed.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// Some planned operation was not started.
    NotReached,
    /// Something was changed.
    Changed,
    /// Everything was as wished.
    Unchanged,
    /// A dry run: something would be changed, or may.
    PlannedChanges,
    /// A dry run: nothing would be changed.
    PlannedNone,
    /// `exec` and `fact`: it went well.
    Ok,
}

impl Bucket {
    /// All buckets, in the order in which the first that fits counts.
    pub const ALL: [Self; 9] = [
        Self::Indeterminate,
        Self::Failed,
        Self::Unreachable,
        Self::NotReached,
        Self::Changed,
        Self::Unchanged,
        Self::PlannedChanges,
        Self::PlannedNone,
        Self::Ok,
    ];

    /// The bucket in words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Indeterminate => "indeterminate",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::NotReached => "not reached",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::PlannedChanges => "planned: changes",
            Self::PlannedNone => "planned: none",
            Self::Ok => "ok",
        }
    }

    /// Whether a host that stands here is as it should be.
    pub fn is_ok(self) -> bool {
        !matches!(self, Self::Indeterminate | Self::Failed | Self::Unreachable | Self::NotReached)
    }
}

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Whether it was reached.
    pub connected: bool,
    /// Why it could not be reached.
    pub unreachable: Option<String>,
    /// Why it failed outside of operations, and whose fault it was.
    pub failed: Option<(Fault, String)>,
    /// Whether facts were answered, for `fact`.
    pub answered: bool,
    /// The operations that ended on it.
    pub results: BTreeMap<OpId, HostResult>,
    /// What went over its connection, once that was counted.
    pub traffic: Option<Traffic>,
}

/// The record of a run.
#[derive(Clone, Debug, Default)]
pub struct RunState {
    /// What the run is for.
    pub kind: Option<RunKind>,
    /// Each selected host, by id.
    pub hosts: BTreeMap<HostId, HostState>,
    /// The plan, once it is made.
    pub plan: Option<Arc<Plan>>,
    /// Whether something was written wrongly.
    pub misused: bool,
    /// Whether the question was answered with no.
    pub declined: bool,
    /// Whether execute began.
    pub executing: bool,
    /// The rule that stopped the run.
    pub stopped: Option<StopReason>,
    /// How often the run was interrupted.
    pub interrupted: u32,
    /// Whether the exit code is to tell whether there were changes: `--detailed-exitcode`.
    pub detailed_exit_code: bool,
    /// Whether hosts are being prepared once more, after the question or after the run.
    pub looking_again: bool,
    /// What `--prove` found.
    pub proof: Option<Proof>,
}

/// Every selected host in exactly one bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Each host and where it stands, in inventory order.
    pub hosts: Vec<(HostId, Bucket)>,
}

impl Accounting {
    /// How many hosts stand in a bucket.
    pub fn count(&self, bucket: Bucket) -> usize {
        self.hosts.iter().filter(|(_, found)| *found == bucket).count()
    }

    /// The buckets that hold hosts, with their numbers.
    pub fn counts(&self) -> Vec<(Bucket, usize)> {
        Bucket::ALL.into_iter().map(|bucket| (bucket, self.count(bucket))).filter(|(_, count)| *count > 0).collect()
    }
}

impl RunState {
    /// Takes the next event.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::RunStarted { kind, hosts } => {
                self.kind = Some(*kind);
                for (id, name) in hosts.iter() {
                    self.hosts.insert(*id, HostState { name: name.clone(), ..HostState::default() });
                }
            }
            Event::HostConnected { host, .. } => self.host(*host).connected = true,
            Event::HostUnreachable { host, error } => self.host(*host).unreachable = Some(error.to_string()),
            Event::HostFailed { host, diagnostic } => {
                self.host(*host).failed = Some((diagnostic.fault, diagnostic.to_string()));
            }
            Event::Misused { .. } => self.misused = true,
            Event::DetailedExitCode => self.detailed_exit_code = true,
            Event::PlanReady { plan } => {
                self.plan = Some(plan.clone());
                self.looking_again = false;
            }
            Event::Rechecking | Event::Proving => self.looking_again = true,
            Event::PlanStands => self.looking_again = false,
            Event::Proved { plan, strict } => {
                self.proof = Some(Proof { plan: plan.clone(), strict: *strict });
                self.looking_again = false;
            }
            Event::Counted { hosts } => {
                for (host, traffic) in hosts {
                    self.host(*host).traffic = Some(*traffic);
                }
            }
            Event::Declined => self.declined = true,
            Event::Executing => self.executing = true,
            Event::HostOperationEnded { op, host, result } => {
                self.host(*host).results.insert(*op, (**result).clone());
            }
            Event::FactAnswered { host, fact, answer, .. } => {
                let state = self.host(*host);
                state.answered = true;
                if let Err(message) = answer {
                    state.failed = Some((Fault::Host, format!("the fact {fact} cannot be read: {message}")));
                }
            }
            Event::Stopped { reason } => {
                self.stopped.get_or_insert_with(|| reason.clone());
            }
            Event::Interrupted { times, .. } => self.interrupted = self.interrupted.max(*times),
            Event::Connecting
            | Event::Preparing
            | Event::HostPrepared { .. }
            | Event::Log { .. }
            | Event::OperationStarted { .. }
            | Event::HostOperationStarted { .. }
            | Event::CommandStarted { .. }
            | Event::Moved { .. }
            | Event::Output { .. }
            | Event::OperationEnded { .. }
            | Event::WaveStarted { .. }
            | Event::Lock { .. }
            | Event::Retrying { .. }
            | Event::WithinCall { .. }
            | Event::TextsChanged { .. }
            | Event::RunEnded => {}
        }
    }

    fn host(&mut self, id: HostId) -> &mut HostState {
        self.hosts.entry(id).or_default()
    }

    /// Puts each selected host into its bucket.
    ///
    /// # Panics
    /// When the sum over the buckets is not the number of selected hosts, which would be a defect of infra.
    pub fn account(&self) -> Accounting {
        // What is planned on each host, gathered in one walk: a plan for thousands of hosts is not walked once for each.
        let mut planned: BTreeMap<HostId, Vec<(OpId, &Outlook)>> = BTreeMap::new();
        for operation in self.plan.iter().flat_map(|plan| &plan.operations) {
            for host in &operation.hosts {
                planned.entry(host.host).or_default().push((operation.id, &host.outlook));
            }
        }
        let planned = |id| planned.get(&id).map_or(&[][..], Vec::as_slice);
        let hosts: Vec<_> = self.hosts.iter().map(|(id, state)| (*id, self.bucket(state, planned(*id)))).collect();
        let accounting = Accounting { hosts };
        let sum: usize = Bucket::ALL.into_iter().map(|bucket| accounting.count(bucket)).sum();
        assert_eq!(sum, self.hosts.len(), "each selected host stands in exactly one bucket");
        accounting
    }

    fn bucket(&self, state: &HostState, planned: &[(OpId, &Outlook)]) -> Bucket {
        let outcomes = || state.results.values().map(|result| &result.outcome);
        if outcomes().any(|outcome| matches!(outcome, Outcome::Indeterminate { .. })) {
            return Bucket::Indeterminate;
        }
        if state.failed.is_some() || outcomes().any(|outcome| !outcome.host_ok()) {
            return Bucket::Failed;
        }
        if state.unreachable.is_some() {
            return Bucket::Unreachable;
        }
        match self.kind {
            Some(RunKind::Fact) if state.answered => return Bucket::Ok,
            Some(RunKind::Fact) | None => return Bucket::NotReached,
            _ => {}
        }
        if self.plan.is_none() || self.misused || self.declined {
            return Bucket::NotReached;
        }
        if self.kind == Some(RunKind::Dry) {
            return if planned.iter().all(|(_, outlook)| outlook.is_none()) { Bucket::PlannedNone } else { Bucket::PlannedChanges };
        }
        if !self.executing || planned.iter().any(|(op, _)| !state.results.contains_key(op)) {
            return Bucket::NotReached;
        }
        match self.kind {
            Some(RunKind::Exec) => Bucket::Ok,
            _ if outcomes().any(|outcome| matches!(outcome, Outcome::Changed { .. })) => Bucket::Changed,
            // A failed operation that was ignored may have done some of its steps.
            _ if state.results.values().any(|result| !result.outcome.succeeded() && result.steps_done > 0) => Bucket::Changed,
            _ => Bucket::Unchanged,
        }
    }

    /// The exit code of the run: 0, 1, 2, 3 or 130.
    pub fn exit_code(&self) -> u8 {
        if self.interrupted > 0 {
            return 130;
        }
        if self.misused {
            return 2;
        }
        let failed_scripts = self.hosts.values().filter(|host| matches!(host.failed, Some((Fault::Misuse | Fault::Runtime, _)))).count();
        // Scripts that failed while a run was proved come after something was executed.
        if !self.hosts.is_empty() && failed_scripts == self.hosts.len() && !self.executing {
            return 2;
        }
        let accounting = self.account();
        let all_ok = accounting.hosts.iter().all(|(_, bucket)| bucket.is_ok());
        if !all_ok || self.stopped.is_some() || self.declined || self.proof.as_ref().is_some_and(|proof| !proof.holds()) {
            return 1;
        }
        let changes = accounting.hosts.iter().any(|(_, bucket)| matches!(bucket, Bucket::Changed | Bucket::PlannedChanges));
        if self.detailed_exit_code && changes { 3 } else { 0 }
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::earlier::Mark;
    use crate::operation::Idempotence;
    use crate::plan::{HostOutlook, PlannedOperation};

    fn outlook(host: u32, outlook: Outlook) -> HostOutlook {
        HostOutlook { host: HostId(host), call: 0, outlook, mark: Mark::default() }
    }

    fn plan() -> Arc<Plan> {
        let none = Outlook::NoChange { reason: String::new() };
        let change = Outlook::Change { reason: String::new(), steps: vec![], texts: vec![] };
        let operation = |id, hosts| PlannedOperation {
            id: OpId(id),
            kind: "server.shell".into(),
            title: "x".into(),
            location: None,
            idempotence: Idempotence::NotIdempotent,
            serial: None,
            blocks: vec![],
            run_once: false,
            hosts,
        };
        Arc::new(Plan {
            operations: vec![
                operation(0, vec![outlook(0, change.clone()), outlook(1, none.clone())]),
                operation(1, vec![outlook(0, none.clone()), outlook(1, none)]),
            ],
            blocks: vec![],
            notes: vec![],
            earlier: vec![],
        })
    }

    fn result(outcome: Outcome) -> Box<HostResult> {
        Box::new(HostResult::without_work(outcome))
    }

    fn state(kind: RunKind, events: impl IntoIterator<Item = Event>) -> RunState {
        let mut state = RunState::default();
        let hosts = Arc::new(vec![(HostId(0), "a".into()), (HostId(1), "b".into())]);
        state.fold(&Event::RunStarted { kind, hosts });
        events.into_iter().for_each(|event| state.fold(&event));
        state
    }

    fn ended(op: u32, host: u32, outcome: Outcome) -> Event {
        Event::HostOperationEnded { op: OpId(op), host: HostId(host), result: result(outcome) }
    }

    #[test]
    fn a_whole_run_is_changed_and_unchanged() {
        let unchanged = || Outcome::Unchanged { reason: String::new() };
        let state = state(
            RunKind::Deploy,
            [
                Event::PlanReady { plan: plan() },
                Event::Executing,
                ended(0, 0, Outcome::Changed { reason: String::new() }),
                ended(0, 1, unchanged()),
                ended(1, 0, unchanged()),
                ended(1, 1, unchanged()),
            ],
        );
        assert_eq!(state.account().hosts, [(HostId(0), Bucket::Changed), (HostId(1), Bucket::Unchanged)]);
        assert_eq!(state.exit_code(), 0);
    }

    #[test]
    fn what_was_not_started_is_not_reached() {
        let failed = Outcome::Failed { failure: Failure::default(), ignored: false };
        let state = state(RunKind::Deploy, [Event::PlanReady { plan: plan() }, Event::Executing, ended(0, 0, failed)]);
        assert_eq!(state.account().hosts, [(HostId(0), Bucket::Failed), (HostId(1), Bucket::NotReached)]);
        assert_eq!(state.exit_code(), 1);
    }

    #[test]
    fn a_dry_run_and_a_declined_one() {
        let dry = state(RunKind::Dry, [Event::PlanReady { plan: plan() }]);
        assert_eq!(dry.account().hosts, [(HostId(0), Bucket::PlannedChanges), (HostId(1), Bucket::PlannedNone)]);
        assert_eq!(dry.exit_code(), 0);
        let declined = state(RunKind::Deploy, [Event::PlanReady { plan: plan() }, Event::Declined]);
        assert_eq!(declined.account().count(Bucket::NotReached), 2);
        assert_eq!(declined.exit_code(), 1);
    }

    #[test]
    fn where_no_host_is_left_the_exit_code_says_whether_the_scripts_failed() {
        let failed = |host, diagnostic| Event::HostFailed { host: HostId(host), diagnostic: Box::new(diagnostic) };
        let runtime = || crate::diagnostic::Diagnostic::runtime("attempt to index a nil value");
        let host = || crate::diagnostic::Diagnostic::host("the connection was lost");
        assert_eq!(state(RunKind::Deploy, [failed(0, runtime()), failed(1, runtime())]).exit_code(), 2);
        assert_eq!(state(RunKind::Deploy, [failed(0, runtime()), failed(1, host())]).exit_code(), 1);
        assert_eq!(state(RunKind::Deploy, [failed(0, runtime())]).exit_code(), 1);
    }

    #[test]
    fn exit_codes_of_misuse_and_interruption() {
        let diagnostic = Box::new(crate::diagnostic::Diagnostic::misuse("x"));
        assert_eq!(state(RunKind::Deploy, [Event::Misused { host: None, diagnostic }]).exit_code(), 2);
        assert_eq!(state(RunKind::Deploy, [Event::Interrupted { times: 1, in_flight: vec![] }]).exit_code(), 130);
    }

    #[test]
    fn a_detailed_exit_code_tells_of_changes_and_yields_to_what_is_wrong() {
        let proof = |outlooks: Vec<HostOutlook>| {
            let mut plan = (*plan()).clone();
            plan.operations.truncate(1);
            plan.operations[0].idempotence = Idempotence::Idempotent;
            plan.operations[0].hosts = outlooks;
            Event::Proved { plan: Arc::new(plan), strict: false }
        };
        let none = || Outlook::NoChange { reason: String::new() };
        let unchanged = || Outcome::Unchanged { reason: String::new() };
        let run = |first: Outcome, more: Vec<Event>| {
            let mut events = vec![Event::DetailedExitCode, Event::PlanReady { plan: plan() }, Event::Executing, ended(0, 0, first)];
            events.extend([ended(0, 1, unchanged()), ended(1, 0, unchanged()), ended(1, 1, unchanged())]);
            events.extend(more);
            state(RunKind::Deploy, events).exit_code()
        };
        let changed = || Outcome::Changed { reason: String::new() };
        assert_eq!(run(changed(), vec![]), 3);
        assert_eq!(run(unchanged(), vec![]), 0);
        assert_eq!(run(Outcome::Failed { failure: Failure::default(), ignored: false }, vec![]), 1);
        assert_eq!(run(changed(), vec![Event::Interrupted { times: 1, in_flight: vec![] }]), 130);
        assert_eq!(run(changed(), vec![proof(vec![outlook(0, none())])]), 3);
        let restless = Outlook::Depends { on: Some("x".into()), would: None };
        assert_eq!(run(changed(), vec![proof(vec![outlook(0, restless)])]), 1);
        assert_eq!(state(RunKind::Dry, [Event::DetailedExitCode, Event::PlanReady { plan: plan() }]).exit_code(), 3);
        let nothing = Arc::new(Plan::default());
        assert_eq!(state(RunKind::Dry, [Event::DetailedExitCode, Event::PlanReady { plan: nothing }]).exit_code(), 0);
    }

    #[test]
    fn scripts_that_fail_in_a_proof_fail_a_run_that_was_executed() {
        let failed = |host| Event::HostFailed { host: HostId(host), diagnostic: Box::new(crate::diagnostic::Diagnostic::runtime("x")) };
        let unchanged = || Outcome::Unchanged { reason: String::new() };
        let run = [Event::PlanReady { plan: plan() }, Event::Executing, ended(0, 0, unchanged()), ended(1, 0, unchanged())];
        assert_eq!(state(RunKind::Deploy, run.into_iter().chain([Event::Proving, failed(0), failed(1)])).exit_code(), 1);
    }

    use crate::event::Failure;
}
