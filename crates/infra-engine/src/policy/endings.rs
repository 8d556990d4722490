//! What follows from an end, and from a host that is not ok.

use infra_core::event::StopReason;
use infra_core::host::HostId;
use infra_core::plan::OpId;

use super::{Once, Order, Policy, Standing, Stop};

impl Policy {
    /// A part that was in flight has ended.
    pub(super) fn part_ended(&mut self, op: OpId, host: HostId, host_ok: bool, changed: bool, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        self.operations[op.index()].done.insert(host);
        let state = self.hosts.get_mut(&host).expect("it was started");
        state.in_flight.remove(&op);
        state.ending.remove(&op);
        if state.in_flight.is_empty() {
            self.at_work.remove(&host);
        }
        if changed {
            self.gates.iter_mut().for_each(|gate| gate.changes(host));
        }
        let operation = &program.operations[op.index()];
        if operation.run_once {
            self.once.insert(operation.origin, if host_ok { Once::Ok { op, by: host } } else { Once::Failed });
            if !host_ok {
                // No host goes past a `_run_once` it registered before that has ended well.
                self.report(StopReason::RunOnceFailed { op, host }, orders);
                for other in program.once[&operation.origin].iter().filter(|other| **other != host) {
                    self.hold_at_failed_once(*other, orders);
                }
            }
        }
        if !host_ok {
            self.is_not_ok(host, orders);
        }
        self.part_done(op, host, orders);
    }

    /// A host is not ok: it takes no further part, and that may stop the run.
    fn is_not_ok(&mut self, host: HostId, orders: &mut Vec<Order>) {
        let state = self.hosts.get_mut(&host).expect("it was started");
        let before = std::mem::replace(&mut state.standing, Standing::NotOk);
        if before == Standing::NotOk {
            return;
        }
        self.not_ok += 1;
        if self.program.rules.fail_fast {
            self.stop(Stop::Now, StopReason::FailFast { host }, orders);
        }
        if let Some(reason) = too_many(self.program.rules.fail_percent, self.not_ok, self.program.rules.selected) {
            self.stop(Stop::Now, reason, orders);
        }
        self.gates_lose(host, true, orders);
        if before == Standing::Ok {
            self.falls_out(host, orders);
        }
    }

    /// Where a host has come to a `_run_once` that failed elsewhere, it goes no further.
    fn hold_at_failed_once(&mut self, host: HostId, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        let Some(leg) = program.routes[&host].get(self.hosts[&host].leg) else { return };
        let failed = |op: &OpId| {
            let operation = &program.operations[op.index()];
            operation.run_once
                && self.once.get(&operation.origin) == Some(&Once::Failed)
                && !self.operations[op.index()].done.contains(&host)
        };
        if leg.operations.iter().any(failed) {
            self.hold(host, orders);
        }
    }

    fn hold(&mut self, host: HostId, orders: &mut Vec<Order>) {
        let state = self.hosts.get_mut(&host).expect("it has a way");
        if state.standing == Standing::Ok {
            state.standing = Standing::Held;
            self.gates_lose(host, false, orders);
            self.falls_out(host, orders);
        }
    }

    /// What the host has not started it will not start: nobody waits for it.
    fn falls_out(&mut self, host: HostId, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        let state = &self.hosts[&host];
        let legs = &program.routes[&host][state.leg..];
        if let Some(leg) = legs.first() {
            self.arrived.remove(&(leg.stage, host));
        }
        let in_flight = state.in_flight.clone();
        for op in legs.iter().flat_map(|leg| leg.operations.iter().copied()) {
            self.ready.remove(&(op, host));
            let state = &self.operations[op.index()];
            if !in_flight.contains(&op) && !state.done.contains(&host) && !state.in_flight.contains(&host) {
                self.close_part(op, orders);
                if let Some(gate) = program.serial[op.index()] {
                    self.leave(gate, host, orders);
                }
            }
        }
        self.leave_blocks_when_idle(host, orders);
    }

    /// One host fewer may come to the operation, or is at work on it.
    fn close_part(&mut self, op: OpId, orders: &mut Vec<Order>) {
        let state = &mut self.operations[op.index()];
        state.open -= 1;
        if state.open == 0 {
            self.end_operation(op, orders);
        }
    }

    /// A host has done its part in an operation, or was served.
    pub(super) fn part_done(&mut self, op: OpId, host: HostId, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        self.operations[op.index()].done.insert(host);
        if let Some(gate) = program.serial[op.index()] {
            self.leave(gate, host, orders);
        }
        let state = self.hosts.get_mut(&host).expect("it has a way");
        state.pending -= 1;
        if state.standing != Standing::Ok {
            self.close_part(op, orders);
            self.leave_blocks_when_idle(host, orders);
            return;
        }
        if state.pending == 0 {
            let legs = &program.routes[&host];
            let stage = legs[state.leg].stage;
            state.leg += 1;
            let next = legs.get(state.leg).map(|leg| leg.stage);
            self.opened.remove(&(stage, host));
            if let Some(next) = next {
                self.arrived.insert((next, host));
            }
            if let Some(rolling) = &program.stages[stage].rolling
                && next.is_none_or(|next| !rolling.stages.contains(&next))
            {
                self.leave(rolling.gate, host, orders);
            }
            if let Some(run) = program.run.filter(|_| next.is_none()) {
                self.leave(run, host, orders);
            }
        }
        self.close_part(op, orders);
        self.hold_at_failed_once(host, orders);
    }

    /// A host that goes no further is in its waves as long as something is in flight on it.
    fn leave_blocks_when_idle(&mut self, host: HostId, orders: &mut Vec<Order>) {
        let state = &self.hosts[&host];
        if !state.in_flight.is_empty() {
            return;
        }
        if let Some(leg) = self.program.routes[&host].get(state.leg) {
            let stage = leg.stage;
            self.opened.remove(&(stage, host));
        }
        let program = self.program.clone();
        let serial: std::collections::BTreeSet<usize> = program.serial.iter().flatten().copied().collect();
        for gate in (0..self.gates.len()).filter(|gate| !serial.contains(gate)) {
            self.leave(gate, host, orders);
        }
    }
}

/// Whether more hosts are not ok than `--fail-percent` allows.
pub(crate) fn too_many(percent: Option<f64>, not_ok: usize, selected: usize) -> Option<StopReason> {
    let allowed = percent?;
    (not_ok as f64 * 100.0 > allowed * selected as f64).then_some(StopReason::FailPercent { not_ok, selected, allowed })
}
