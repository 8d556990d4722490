//! Who may start, and when to stop: one pure state machine.
//!
//! What happened goes in ([`Policy::begin`], [`Policy::ended`], [`Policy::interrupt`]), what is to be done comes out as [`Order`]s. It knows of no
//! clock, no task and no channel, so every interleaving of a small fleet can be tried.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use infra_core::event::StopReason;
use infra_core::host::HostId;
use infra_core::plan::OpId;

/// An operation as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyOperation {
    /// The hosts that registered it, in inventory order.
    pub hosts: Vec<HostId>,
    /// One host at a time, in inventory order.
    pub serial: bool,
    /// On the first living host only.
    pub run_once: bool,
    /// The same for all parts of an operation that was split.
    pub origin: usize,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// An operation begins.
    BeginOperation(OpId),
    /// A host is to be started on an operation; [`Policy::ended`] is owed for it.
    Start(OpId, HostId),
    /// A host is served by what came of a `_run_once` on another host.
    Serve {
        /// The operation.
        op: OpId,
        /// The host.
        host: HostId,
        /// The operation whose result it is: the same one, or another part of one that was split.
        from: OpId,
        /// The host it ran on.
        by: HostId,
    },
    /// An operation has ended on all its hosts, or nothing more of it is started.
    EndOperation(OpId),
    /// A rule stopped the run, or the hosts of a `_run_once`.
    Stop(StopReason),
    /// Nothing is in flight and nothing more will be started.
    Finish,
}

/// The state of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    operations: Vec<PolicyOperation>,
    parallel: usize,
    fail_fast: bool,
    alive: BTreeSet<HostId>,
    next: usize,
    current: Option<Current>,
    once: BTreeMap<usize, Once>,
    stopping: bool,
    reported: bool,
    finished: bool,
}

/// The operation that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Current {
    op: OpId,
    waiting: VecDeque<HostId>,
    in_flight: BTreeSet<HostId>,
    at_once: usize,
    /// The hosts that wait for the result of a `_run_once`.
    served: Vec<HostId>,
}

/// What came of a `_run_once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Once {
    op: OpId,
    by: HostId,
    ok: bool,
}

impl Policy {
    /// Before the first operation. `parallel` is how many hosts may be at work at once; all where not given.
    pub fn new(operations: Vec<PolicyOperation>, parallel: Option<usize>, fail_fast: bool) -> Self {
        let alive = operations.iter().flat_map(|operation| operation.hosts.iter().copied()).collect();
        Self {
            operations,
            parallel: parallel.map_or(usize::MAX, |parallel| parallel.max(1)),
            fail_fast,
            alive,
            next: 0,
            current: None,
            once: BTreeMap::new(),
            stopping: false,
            reported: false,
            finished: false,
        }
    }

    /// Begins.
    pub fn begin(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.advance(&mut orders);
        orders
    }

    /// A host that was started on the current operation has ended it, and is ok or not.
    pub fn ended(&mut self, host: HostId, host_ok: bool) -> Vec<Order> {
        let mut orders = Vec::new();
        let Some(current) = self.current.as_mut() else { return orders };
        if !current.in_flight.remove(&host) {
            return orders;
        }
        let op = current.op;
        let operation = &self.operations[op.index()];
        if !host_ok {
            self.alive.remove(&host);
        }
        if operation.run_once {
            self.once.insert(operation.origin, Once { op, by: host, ok: host_ok });
            let others = std::mem::take(&mut current.served);
            if host_ok {
                orders.extend(others.into_iter().map(|other| Order::Serve { op, host: other, from: op, by: host }));
            } else {
                // No host goes past a `_run_once` it registered before that has ended well.
                self.alive.retain(|host| !others.contains(host));
                self.report(StopReason::RunOnceFailed { op, host }, &mut orders);
            }
        }
        if !host_ok && self.fail_fast {
            self.stop(StopReason::FailFast { host }, &mut orders);
        } else if !host_ok && operation_is_serial(&self.operations[op.index()]) {
            self.stop(StopReason::WaveFailed { op, not_ok: 1, entered: 1, allowed: 0 }, &mut orders);
        }
        self.advance(&mut orders);
        orders
    }

    /// The user interrupted the run: nothing new is started.
    pub fn interrupt(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.stop(StopReason::Interrupted, &mut orders);
        self.advance(&mut orders);
        orders
    }

    /// Whether nothing is in flight and nothing more will be started.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn stop(&mut self, reason: StopReason, orders: &mut Vec<Order>) {
        if !self.stopping && !self.finished {
            self.stopping = true;
            self.report(reason, orders);
        }
    }

    fn report(&mut self, reason: StopReason, orders: &mut Vec<Order>) {
        self.reported = true;
        orders.push(Order::Stop(reason));
    }

    fn advance(&mut self, orders: &mut Vec<Order>) {
        while !self.finished {
            if let Some(current) = &mut self.current {
                while !self.stopping && current.in_flight.len() < current.at_once {
                    let Some(host) = current.waiting.pop_front() else { break };
                    current.in_flight.insert(host);
                    orders.push(Order::Start(current.op, host));
                }
                if !current.in_flight.is_empty() {
                    return;
                }
                orders.push(Order::EndOperation(current.op));
                self.current = None;
            }
            if self.stopping || self.next == self.operations.len() {
                self.finish(orders);
            } else if self.alive.is_empty() {
                // Where a `_run_once` took the last hosts along, that was said already.
                if !self.reported {
                    self.report(StopReason::NoHostLeft, orders);
                }
                self.finish(orders);
            } else {
                let op = OpId(u32::try_from(self.next).expect("a plan has fewer than 2^32 operations"));
                self.next += 1;
                self.enter(op, orders);
            }
        }
    }

    fn enter(&mut self, op: OpId, orders: &mut Vec<Order>) {
        let operation = &self.operations[op.index()];
        let mut waiting: VecDeque<HostId> = operation.hosts.iter().copied().filter(|host| self.alive.contains(host)).collect();
        let once = operation.run_once.then(|| self.once.get(&operation.origin).copied()).flatten();
        if let Some(Once { ok: false, .. }) = once {
            self.alive.retain(|host| !waiting.contains(host));
            return;
        }
        if waiting.is_empty() {
            return;
        }
        orders.push(Order::BeginOperation(op));
        let mut served = Vec::new();
        if let Some(Once { op: from, by, .. }) = once {
            orders.extend(waiting.drain(..).map(|host| Order::Serve { op, host, from, by }));
        } else if operation.run_once {
            served.extend(waiting.drain(1..));
        }
        let at_once = if operation.serial { 1 } else { self.parallel };
        self.current = Some(Current { op, waiting, in_flight: BTreeSet::new(), at_once, served });
    }

    fn finish(&mut self, orders: &mut Vec<Order>) {
        self.finished = true;
        orders.push(Order::Finish);
    }
}

/// Whether the operation goes through its hosts wave by wave; a `_run_once` has one host and no waves.
fn operation_is_serial(operation: &PolicyOperation) -> bool {
    operation.serial && !operation.run_once
}

#[cfg(test)]
mod tests;
