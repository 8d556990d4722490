//! Execute: one dispatcher owns the state, asks the policy, and starts workers that own nothing.

use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::event::{Event, Failure, HostResult, Outcome};
use infra_core::host::HostId;
use infra_core::plan::{OpId, Plan};
use infra_core::script::OperationCall;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::event_stream::EventStream;
use crate::host_run::HostRun;
use crate::judgement::skipped;
use crate::operation_run::OperationRun;
use crate::policy::{Order, Policy};

/// One host in execute.
pub(crate) struct HostExecution {
    pub(crate) run: Arc<HostRun>,
    pub(crate) calls: Arc<Vec<OperationCall>>,
    /// What came of its calls so far.
    pub(crate) known: Vec<Known>,
}

/// The dispatcher.
pub(crate) struct Execution {
    pub(crate) plan: Arc<Plan>,
    pub(crate) policy: Policy,
    pub(crate) hosts: BTreeMap<HostId, HostExecution>,
    pub(crate) events: EventStream,
    pub(crate) interrupts: watch::Receiver<u32>,
    /// How long killed commands may take to end.
    pub(crate) closing: Duration,
}

/// What is in flight: the worker's task, and what it does since when.
#[derive(Default)]
struct InFlight {
    workers: JoinSet<HostResult>,
    started: HashMap<Id, (OpId, HostId, Instant)>,
    /// What came of a `_run_once`, and where, for the hosts that it counts for.
    outcomes: HashMap<(OpId, HostId), (bool, bool)>,
}

impl Execution {
    /// Executes the plan as far as the policy lets it.
    pub(crate) async fn run(mut self) {
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
                Some(ended) = in_flight.workers.join_next_with_id() => orders.extend(self.ended(ended, &mut in_flight).await),
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
                () = leaving => {
                    leave_at = None;
                    in_flight.workers.abort_all();
                }
            }
        }
        kills.shutdown().await;
    }

    async fn obey(&mut self, order: Order, in_flight: &mut InFlight) -> Vec<Order> {
        match order {
            Order::BeginOperation(op) => self.events.emit(Event::OperationStarted { op }).await,
            Order::EndOperation(op) => self.events.emit(Event::OperationEnded { op }).await,
            Order::Stop(reason) => self.events.stopped(reason).await,
            Order::Finish => {}
            Order::Serve { op, host, from, by } => {
                let (changed, ok) = in_flight.outcomes.get(&(from, by)).copied().unwrap_or((false, false));
                self.record(op, host, without_work(Outcome::Elsewhere { host: by, changed, ok }), in_flight).await;
            }
            Order::Start(op, host) => {
                if let Some(reason) = self.skips(op, host) {
                    self.record(op, host, without_work(Outcome::Skipped { reason }), in_flight).await;
                    return self.policy.ended(host, true);
                }
                self.events.emit(Event::HostOperationStarted { op, host }).await;
                let at = &self.hosts[&host];
                let work = OperationRun {
                    op,
                    run: at.run.clone(),
                    calls: at.calls.clone(),
                    call: self.call(op, host),
                    known: at.known.clone(),
                    events: self.events.clone(),
                };
                let id = in_flight.workers.spawn(work.work()).id();
                in_flight.started.insert(id, (op, host, Instant::now()));
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

    /// Why the operation is not started on the host: its condition does not hold.
    fn skips(&self, op: OpId, host: HostId) -> Option<String> {
        let at = &self.hosts[&host];
        let call = &at.calls[self.call(op, host) as usize];
        let known = |call: CallIndex| at.known.get(call as usize).copied().unwrap_or_default();
        let holds = Condition::All(call.when.clone()).decide(&known) == Some(true);
        (!holds).then(|| skipped(call, &at.calls, &known))
    }

    async fn ended(&mut self, ended: Result<(Id, HostResult), JoinError>, in_flight: &mut InFlight) -> Vec<Order> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let Some((op, host, since)) = in_flight.started.remove(&id) else { return Vec::new() };
        let result = match ended {
            Ok((_, result)) => result,
            Err(error) => {
                let outcome = match error.try_into_panic() {
                    Ok(panic) => Outcome::Failed { failure: failure(defect(&*panic)), ignored: false },
                    Err(_) => Outcome::Indeterminate { failure: failure("was left before it ended: it may still be running".to_owned()) },
                };
                HostResult { took: since.elapsed(), ..without_work(outcome) }
            }
        };
        let host_ok = result.outcome.host_ok();
        self.record(op, host, result, in_flight).await;
        self.policy.ended(host, host_ok)
    }

    async fn record(&mut self, op: OpId, host: HostId, result: HostResult, in_flight: &mut InFlight) {
        let succeeded = result.outcome.succeeded();
        let changed = succeeded && result.outcome.changed();
        in_flight.outcomes.insert((op, host), (changed, succeeded));
        let call = self.call(op, host) as usize;
        let at = self.hosts.get_mut(&host).expect("the policy names hosts of the plan");
        at.known[call] = Known { changed: Some(changed), succeeded: Some(succeeded) };
        self.events.emit(Event::HostOperationEnded { op, host, result: Box::new(result) }).await;
    }

    async fn interrupted(&mut self, times: u32, in_flight: &InFlight) -> Vec<Order> {
        let mut shown: Vec<_> = in_flight.started.values().map(|(op, host, since)| (*op, *host, since.elapsed())).collect();
        shown.sort();
        self.events.emit(Event::Interrupted { times, in_flight: shown }).await;
        self.policy.interrupt()
    }

    fn kill(&self, in_flight: &InFlight, kills: &mut JoinSet<()>) {
        for (_, host, _) in in_flight.started.values() {
            let connection = self.hosts[host].run.connection.clone();
            kills.spawn(async move { connection.kill().await });
        }
    }
}

/// The result of an operation for which nothing ran on the host.
fn without_work(outcome: Outcome) -> HostResult {
    HostResult { outcome, steps_done: 0, took: Duration::ZERO, stdout: String::new(), stderr: String::new(), exit_code: None }
}

fn failure(message: String) -> Failure {
    Failure { message, ..Failure::default() }
}

/// What a panic said.
pub(crate) fn defect(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("a defect of infra: {}", text.unwrap_or_else(|| "it gave no reason".to_owned()))
}
