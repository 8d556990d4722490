//! Execute: one dispatcher owns the state, asks the policy, and starts workers that own nothing.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use infra_core::condition::CallIndex;
use infra_core::event::{Event, Failure, HostResult, Outcome};
use infra_core::host::HostId;
use infra_core::late::CallResult;
use infra_core::plan::{BlockId, OpId, Plan};
use infra_core::script::BlockKind;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::event_stream::EventStream;
use crate::graph::Asks;
use crate::host_execution::{HostExecution, stage};
use crate::joint_diff::JointDiff;
use crate::operation_run::OperationRun;
use crate::places::Places;
use crate::policy::{Order, Policy};

/// The dispatcher.
pub(crate) struct Execution {
    pub(crate) plan: Arc<Plan>,
    pub(crate) policy: Policy,
    pub(crate) hosts: BTreeMap<HostId, HostExecution>,
    pub(crate) places: Arc<Places>,
    pub(crate) events: EventStream,
    pub(crate) interrupts: watch::Receiver<u32>,
    /// How long killed commands may take to end.
    pub(crate) closing: Duration,
}

/// What is in flight.
#[derive(Default)]
struct InFlight {
    workers: JoinSet<HostResult>,
    started: HashMap<Id, Started>,
    /// What came of a `_run_once`, and where, for the hosts that it counts for.
    outcomes: HashMap<(OpId, HostId), (bool, bool)>,
    /// The whole of it, for their functions.
    once: HashMap<(OpId, HostId), Arc<CallResult>>,
    /// The operations that changed something on some host.
    changed: HashSet<OpId>,
    /// The blocks that wait before their next wave.
    pauses: JoinSet<BlockId>,
}

/// What a worker does since when, and how it is told to end.
struct Started {
    op: OpId,
    host: HostId,
    since: Instant,
    ending: watch::Sender<bool>,
}

impl Execution {
    /// Executes the plan as far as the policy lets it.
    pub(crate) async fn run(mut self) {
        for operation in &self.plan.operations {
            for one in &operation.hosts {
                let host = self.hosts.get_mut(&one.host).expect("the plan names hosts that are prepared");
                host.operations[one.call as usize] = operation.id;
            }
        }
        let mut in_flight = InFlight::default();
        let mut kills: JoinSet<()> = JoinSet::new();
        let mut leave_at: Option<Instant> = None;
        let mut watching = true;
        // An interrupt that came before is not late: nothing is started at all.
        let interrupted_before = self.interrupts.has_changed().unwrap_or(false);
        let mut orders: VecDeque<Order> = if interrupted_before {
            let times = *self.interrupts.borrow_and_update();
            self.interrupted(times, &in_flight).await.into()
        } else {
            self.policy.begin().into()
        };
        loop {
            while let Some(order) = orders.pop_front() {
                let more = self.obey(order, &mut in_flight).await;
                orders.extend(more);
            }
            if self.policy.is_finished() {
                break;
            }
            let leaving = async {
                match leave_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An interrupt comes first: what ends because of it must not end the run as if there had been none.
                biased;
                changed = self.interrupts.changed(), if watching => {
                    if changed.is_err() {
                        watching = false;
                        continue;
                    }
                    let times = *self.interrupts.borrow_and_update();
                    orders.extend(self.interrupted(times, &in_flight).await);
                    if times >= 2 && leave_at.is_none() {
                        self.kill(&in_flight, &mut kills);
                        leave_at = Some(Instant::now() + self.closing);
                    }
                    if times >= 3 {
                        leave_at = Some(Instant::now());
                    }
                }
                Some(ended) = in_flight.workers.join_next_with_id() => orders.extend(self.ended(ended, &mut in_flight).await),
                Some(Ok(block)) = in_flight.pauses.join_next() => orders.extend(self.policy.resumed(block)),
                () = leaving => {
                    leave_at = None;
                    in_flight.workers.abort_all();
                }
            }
        }
        in_flight.pauses.shutdown().await;
        kills.shutdown().await;
    }

    async fn obey(&mut self, order: Order, in_flight: &mut InFlight) -> Vec<Order> {
        match order {
            Order::BeginOperation(op) => self.events.emit(Event::OperationStarted { op }).await,
            Order::EndOperation(op) => self.events.emit(Event::OperationEnded { op }).await,
            Order::BeginWave { of, wave, waves, hosts } => self.events.emit(Event::WaveStarted { of, wave, waves, hosts }).await,
            Order::Stop(reason) => self.events.stopped(reason).await,
            Order::Finish => {}
            Order::Pause(block, pause) => {
                in_flight.pauses.spawn(async move {
                    tokio::time::sleep(pause).await;
                    block
                });
            }
            Order::EndBackground(op, host) => {
                for started in in_flight.started.values().filter(|started| started.op == op && started.host == host) {
                    started.ending.send_replace(true);
                }
            }
            Order::Serve { op, host, from, by } => {
                let (changed, ok) = in_flight.outcomes.get(&(from, by)).copied().unwrap_or((false, false));
                // Where nothing ran now, this host is served by the same earlier run.
                let there = self.hosts[&by].done_before(self.call(from, by));
                let here = there.and_then(|_| self.hosts[&host].done_before(self.call(op, host)));
                let result = here.unwrap_or_else(|| HostResult::without_work(Outcome::Elsewhere { host: by, changed, ok }));
                self.record(op, host, result, in_flight).await;
                if let (Some(result), call) = (in_flight.once.get(&(from, by)), self.call(op, host)) {
                    self.hosts.get_mut(&host).expect("the policy names hosts of the plan").told(call, result.clone());
                }
            }
            Order::Start(op, host) => {
                let call = self.call(op, host);
                self.look_around(call, host, in_flight);
                if let Some(result) = self.hosts[&host].done_before(call) {
                    self.record(op, host, result, in_flight).await;
                    return self.policy.ended(op, host, true, false);
                }
                if let Some(reason) = self.hosts[&host].skips(call) {
                    self.record(op, host, HostResult::without_work(Outcome::Skipped { reason }), in_flight).await;
                    return self.policy.ended(op, host, true, false);
                }
                self.events.emit(Event::HostOperationStarted { op, host }).await;
                let joint = self.joint(op, host, in_flight);
                let (policy, changed, places) = (&self.policy, &in_flight.changed, &self.places);
                let at = self.hosts.get_mut(&host).expect("the policy names hosts of the plan");
                let late = at.late(call, places, |op| changed_anywhere(op, policy, changed));
                let (ending, told_to_end) = watch::channel(false);
                let work = OperationRun {
                    op,
                    host,
                    own: at.sites.own().clone(),
                    at: at.sites.of(at.call(call)).clone(),
                    sites: Some(at.sites.clone()),
                    places: self.places.clone(),
                    calls: at.calls.clone(),
                    call,
                    known: at.known_to(call).into_owned(),
                    late,
                    events: self.events.clone(),
                    joint,
                    behind: at.asked_after(call),
                    ending: told_to_end,
                    interrupts: self.interrupts.clone(),
                    closing: self.closing,
                    stage: stage(at.call(call)),
                    allowed: at.allowed(call),
                };
                let id = in_flight.workers.spawn(async move { work.work().await.0 }).id();
                in_flight.started.insert(id, Started { op, host, since: Instant::now(), ending });
            }
        }
        Vec::new()
    }

    /// The call that an operation is on a host.
    fn call(&self, op: OpId, host: HostId) -> CallIndex {
        let hosts = &self.plan.operation(op).hosts;
        let at = hosts.binary_search_by_key(&host, |one| one.host).expect("the policy names hosts that registered the operation");
        hosts[at].call
    }

    /// Brings what a call asks about other hosts up to date.
    fn look_around(&mut self, call: CallIndex, host: HostId, in_flight: &InFlight) {
        let at = self.hosts.get_mut(&host).expect("the policy names hosts of the plan");
        for asked in at.call(call).asks() {
            let changed = changed_anywhere(at.operations[asked as usize], &self.policy, &in_flight.changed);
            at.known[asked as usize].changed_anywhere = changed;
        }
    }

    /// The diffs of the `parallel` block that the operation is in. A host that comes to the block first says which of its operations take part.
    fn joint(&mut self, op: OpId, host: HostId, in_flight: &InFlight) -> Option<Arc<JointDiff>> {
        let plan = self.plan.clone();
        let parallel = |op: OpId| {
            let mut blocks = plan.operation(op).blocks.iter().copied();
            blocks.find(|block| plan.blocks[block.index()].kind == BlockKind::Parallel)
        };
        let block = parallel(op)?;
        let at = &self.hosts[&host];
        if let Some(joint) = at.joint(block) {
            return Some(joint);
        }
        let (apart, later) = at.apart(|op| parallel(op) == Some(block));
        for call in &apart {
            self.look_around(*call, host, in_flight);
        }
        Some(self.hosts.get_mut(&host)?.enter(block, apart, later))
    }

    async fn ended(&mut self, ended: Result<(Id, HostResult), JoinError>, in_flight: &mut InFlight) -> Vec<Order> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some(Started { op, host, since, .. }) = in_flight.started.remove(&id) else { return Vec::new() };
        let result = match ended {
            Ok((_, result)) => result,
            Err(error) => {
                let outcome = match error.try_into_panic() {
                    Ok(panic) => Outcome::Failed { failure: failure(defect(&*panic)), ignored: false },
                    Err(_) => Outcome::Indeterminate { failure: failure("was left before it ended: it may still be running".to_owned()) },
                };
                HostResult { took: since.elapsed(), ..HostResult::without_work(outcome) }
            }
        };
        let host_ok = result.outcome.host_ok();
        let changed = result.outcome.changed() || result.steps_done > 0;
        self.record(op, host, result, in_flight).await;
        self.policy.ended(op, host, host_ok, changed)
    }

    async fn record(&mut self, op: OpId, host: HostId, result: HostResult, in_flight: &mut InFlight) {
        let succeeded = result.outcome.succeeded();
        let changed = succeeded && result.outcome.changed();
        in_flight.outcomes.insert((op, host), (changed, succeeded));
        // What was changed in an earlier run is laid over what is known, for those that have not heard of it.
        let changed = changed && !matches!(result.outcome, Outcome::Earlier { .. });
        if changed {
            in_flight.changed.insert(op);
        }
        if self.plan.operation(op).run_once {
            in_flight.once.insert((op, host), Arc::new(CallResult::of(&result)));
        }
        let call = self.call(op, host);
        self.hosts.get_mut(&host).expect("the policy names hosts of the plan").ended(call, &result);
        self.events.emit(Event::HostOperationEnded { op, host, result: Box::new(result) }).await;
    }

    async fn interrupted(&mut self, times: u32, in_flight: &InFlight) -> Vec<Order> {
        let mut shown: Vec<_> = in_flight.started.values().map(|started| (started.op, started.host, started.since.elapsed())).collect();
        shown.sort();
        self.events.emit(Event::Interrupted { times, in_flight: shown }).await;
        self.policy.interrupt()
    }

    /// Kills what is in flight, also where it runs elsewhere: nothing is started any more.
    fn kill(&self, in_flight: &InFlight, kills: &mut JoinSet<()>) {
        let hosts: BTreeSet<HostId> = in_flight.started.values().map(|started| started.host).collect();
        let own = hosts.into_iter().map(|host| self.hosts[&host].sites.own().connection.clone());
        for connection in own.chain(self.places.for_killing()) {
            kills.spawn(async move { connection.kill().await });
        }
    }
}

/// Whether an operation changed something on any host; not known while some host may still do so.
fn changed_anywhere(op: OpId, policy: &Policy, changed: &HashSet<OpId>) -> Option<bool> {
    if policy.parts(op).iter().any(|part| changed.contains(part)) {
        return Some(true);
    }
    policy.is_over(op).then_some(false)
}

fn failure(message: String) -> Failure {
    Failure { message, ..Failure::default() }
}

/// What a panic said.
pub(crate) fn defect(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a defect of infra: {}", text.unwrap_or_else(|| "it gave no reason".to_owned()))
}
