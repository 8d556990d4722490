//! Which host may enter which stage, which operation may start, and when all is over.

use std::collections::BTreeSet;

use infra_core::event::{StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::OpId;

use super::program::InRolling;
use super::{Once, Order, Policy, Standing, Stop};

/// Whether a part may start.
enum Turn {
    Now,
    Later,
    /// A `_run_once` ended well elsewhere.
    Served {
        from: OpId,
        by: HostId,
    },
}

impl Policy {
    /// Starts all that may start, and says what is over.
    pub(super) fn advance(&mut self, orders: &mut Vec<Order>) {
        while !self.finished {
            let mut moved = false;
            if self.stop != Stop::Now {
                moved |= self.open_blocks(orders);
                moved |= self.open_stages();
            }
            moved |= self.start_parts(orders);
            if !moved {
                break;
            }
        }
        if self.finished {
            return;
        }
        self.end_backgrounds(orders);
        if self.at_work.is_empty() && (self.stop != Stop::Not || !self.gates.iter().any(|gate| gate.paused)) {
            self.finish(orders);
        }
    }

    /// The stage that no host which goes on has passed: the barrier.
    fn floor(&self) -> Option<usize> {
        let first = |set: &BTreeSet<(usize, HostId)>| set.first().map(|(stage, _)| *stage);
        first(&self.arrived).into_iter().chain(first(&self.opened)).min()
    }

    /// Makes up the next waves of `--serial` and of `rolling` blocks.
    fn open_blocks(&mut self, orders: &mut Vec<Order>) -> bool {
        if self.stop != Stop::Not {
            return false;
        }
        let program = self.program.clone();
        let mut moved = false;
        if let Some(run) = program.run.filter(|run| self.gates[*run].is_free()) {
            let gate = &self.gates[run];
            let hosts = gate.first_of(&program.gates[run], gate.left.iter().copied());
            orders.push(self.gates[run].open(&program.gates[run], hosts));
            moved = true;
        }
        let floor = self.floor();
        let mut at = 0;
        while let Some((stage, InRolling { gate, stages })) = self.next_rolling(at) {
            at = stages.end.max(stage + 1);
            if !self.gates[gate].is_free() || !(program.no_wait || floor.is_some_and(|floor| floor >= stages.start)) {
                continue;
            }
            let here: BTreeSet<HostId> = stages.flat_map(|stage| self.waiting_at(stage)).collect();
            let state = &self.gates[gate];
            let hosts = if program.no_wait {
                let run = program.run.map(|run| &self.gates[run].wave);
                let within = |host: &HostId| run.is_none_or(|wave| wave.contains(host));
                state.first_of(&program.gates[gate], state.left.iter().copied().filter(within))
            } else {
                state.first_of(&program.gates[gate], here.iter().copied().filter(|host| state.left.contains(host)))
            };
            if hosts.iter().any(|host| here.contains(host)) {
                orders.push(self.gates[gate].open(&program.gates[gate], hosts));
                moved = true;
            }
        }
        moved
    }

    /// The next stage, from `at` on, that hosts wait before and that is in a `rolling` block.
    fn next_rolling(&self, at: usize) -> Option<(usize, InRolling)> {
        let mut at = at;
        loop {
            let (stage, _) = *self.arrived.range((at, HostId(0))..).next()?;
            if let Some(rolling) = &self.program.stages[stage].rolling {
                return Some((stage, rolling.clone()));
            }
            at = stage + 1;
        }
    }

    fn waiting_at(&self, stage: usize) -> impl Iterator<Item = HostId> + '_ {
        self.arrived.range((stage, HostId(0))..(stage + 1, HostId(0))).map(|(_, host)| *host)
    }

    /// Lets hosts into the stages before which they wait.
    fn open_stages(&mut self) -> bool {
        let program = self.program.clone();
        let open = if program.no_wait { self.free_to_go() } else { self.past_barriers() };
        for at in &open {
            self.arrived.remove(at);
            self.opened.insert(*at);
            let state = self.hosts.get_mut(&at.1).expect("it has a way");
            let leg = &program.routes[&at.1][state.leg];
            state.pending = leg.operations.len();
            self.ready.extend(leg.operations.iter().map(|op| (*op, at.1)));
        }
        !open.is_empty()
    }

    /// Who waits at no gate, where there are no barriers.
    fn free_to_go(&self) -> Vec<(usize, HostId)> {
        let program = &self.program;
        let free = |(stage, host): &(usize, HostId)| {
            let run = program.run.map(|run| self.gates[run].wave.contains(host));
            let rolling = program.stages[*stage].rolling.as_ref().map(|rolling| self.gates[rolling.gate].wave.contains(host));
            run.unwrap_or(true) && rolling.unwrap_or(self.stop == Stop::Not || run.is_some())
        };
        self.arrived.iter().copied().filter(free).collect()
    }

    /// Who stands at the barrier that nobody is behind any more: that of the run, or that of a wave.
    fn past_barriers(&self) -> Vec<(usize, HostId)> {
        let outside = self.floor().filter(|floor| self.stop == Stop::Not && self.program.stages[*floor].rolling.is_none());
        let mut open: Vec<(usize, HostId)> =
            outside.into_iter().flat_map(|floor| self.waiting_at(floor).map(move |host| (floor, host))).collect();
        for (gate, fixed) in self.gates.iter().zip(&self.program.gates) {
            if matches!(fixed.of, Waves::Block(_)) {
                let stages: Vec<(usize, HostId)> = gate.wave.iter().filter_map(|host| Some((self.stage_of(*host)?, *host))).collect();
                let floor = stages.iter().map(|(stage, _)| *stage).min();
                open.extend(stages.into_iter().filter(|at| Some(at.0) == floor && self.arrived.contains(at)));
            }
        }
        open
    }

    /// The stage that a host is in or waits before.
    pub(super) fn stage_of(&self, host: HostId) -> Option<usize> {
        Some(self.program.routes.get(&host)?.get(self.hosts[&host].leg)?.stage)
    }

    fn goes_on(&self, host: HostId) -> bool {
        self.hosts[&host].standing == Standing::Ok
    }

    /// Whether the host is in a wave of something that is around this operation.
    pub(super) fn in_wave_around(&self, op: OpId, host: HostId) -> bool {
        let program = &self.program;
        let rolling = self.stage_of(host).and_then(|stage| program.stages[stage].rolling.as_ref()).map(|rolling| rolling.gate);
        program.run.into_iter().chain(rolling).chain(program.serial[op.index()]).any(|gate| self.gates[gate].wave.contains(&host))
    }

    /// Starts what is ready, or settles it without a start.
    fn start_parts(&mut self, orders: &mut Vec<Order>) -> bool {
        let mut moved = false;
        let mut at = (OpId(0), HostId(0));
        while let Some((op, host)) = self.ready.range(at..).next().copied() {
            at = (op, HostId(host.0.saturating_add(1)));
            if self.window_is_full() && !self.may_start_without_work(op, host) {
                // Outside of `parallel` no host at work can do more: nobody else on this operation needs to be looked at.
                if !self.program.in_parallel[op.index()] {
                    at = (OpId(op.0 + 1), HostId(0));
                }
                continue;
            }
            match self.turn(op, host, orders) {
                Turn::Later => continue,
                Turn::Served { from, by } => {
                    self.begin_part(op, host, orders);
                    orders.push(Order::Serve { op, host, from, by });
                    self.part_done(op, host, orders);
                }
                Turn::Now => {
                    self.begin_part(op, host, orders);
                    self.operations[op.index()].in_flight.insert(host);
                    self.hosts.get_mut(&host).expect("it has a way").in_flight.insert(op);
                    self.at_work.insert(host);
                    orders.push(Order::Start(op, host));
                }
            }
            moved = true;
        }
        moved
    }

    fn window_is_full(&self) -> bool {
        let Some(parallel) = self.program.rules.parallel else { return false };
        let at_work = if self.program.has_background {
            self.at_work.iter().filter(|host| self.is_at_work(**host)).count()
        } else {
            self.at_work.len()
        };
        at_work >= parallel.max(1)
    }

    /// Whether a host has a place in the window. One on which something runs in the background alone has none: it is ended when others have ended, and
    /// those may need the place.
    fn is_at_work(&self, host: HostId) -> bool {
        let background = |op: &OpId| self.program.operations[op.index()].background;
        self.at_work.contains(&host) && !self.hosts[&host].in_flight.iter().all(background)
    }

    /// Whether an operation of the stage that is not in the background is still to be started on the host.
    fn others_are_left(&self, host: HostId) -> bool {
        let legs = &self.program.routes[&host];
        let left = |op: &OpId| !self.program.operations[op.index()].background && self.ready.contains(&(*op, host));
        legs.get(self.hosts[&host].leg).is_some_and(|leg| leg.operations.iter().any(left))
    }

    /// Whether a full window is no hindrance: the host is at work already, or is only told what came of a `_run_once`, or the operation takes no place.
    fn may_start_without_work(&self, op: OpId, host: HostId) -> bool {
        let operation = &self.program.operations[op.index()];
        self.is_at_work(host) || operation.run_once || operation.background
    }

    fn begin_part(&mut self, op: OpId, host: HostId, orders: &mut Vec<Order>) {
        self.ready.remove(&(op, host));
        let state = &mut self.operations[op.index()];
        if !state.begun {
            state.begun = true;
            orders.push(Order::BeginOperation(op));
        }
        // A host is in few waves, but a run may have many gates: only those around the operation are looked at.
        let program = self.program.clone();
        let rolling = self.stage_of(host).and_then(|stage| program.stages[stage].rolling.as_ref()).map(|rolling| rolling.gate);
        for gate in program.run.into_iter().chain(rolling).chain(program.serial[op.index()]) {
            self.gates[gate].begins(host);
        }
    }

    fn turn(&mut self, op: OpId, host: HostId, orders: &mut Vec<Order>) -> Turn {
        let program = self.program.clone();
        let operation = &program.operations[op.index()];
        let waits = |before: &&OpId| {
            program.operations[before.index()].hosts.contains(&host) && !self.operations[before.index()].done.contains(&host)
        };
        if operation.after.iter().any(|before| waits(&before)) {
            return Turn::Later;
        }
        if operation.run_once {
            match self.once.get(&operation.origin) {
                Some(Once::Ok { op, by }) => return Turn::Served { from: *op, by: *by },
                Some(Once::Runs | Once::Failed) => return Turn::Later,
                None if self.first_alive(op) != Some(host) => return Turn::Later,
                None => {}
            }
        }
        if self.stop == Stop::Now {
            return Turn::Later;
        }
        if let Some(gate) = program.serial[op.index()] {
            self.open_operation(op, gate, orders);
            if !self.gates[gate].wave.contains(&host) {
                return Turn::Later;
            }
        }
        let crowded = operation.parallel.is_some_and(|parallel| {
            let at_work: usize = program.parts[&operation.origin].iter().map(|op| self.operations[op.index()].in_flight.len()).sum();
            at_work >= parallel.max(1)
        });
        let in_window = operation.background || self.is_at_work(host) || !self.window_is_full();
        // Within a window, what runs in the background comes with the others of its host, not before their turn.
        let too_early = operation.background && program.rules.parallel.is_some() && !self.is_at_work(host) && self.others_are_left(host);
        if crowded || !in_window || too_early || (self.stop == Stop::AfterWaves && !self.in_wave_around(op, host)) {
            return Turn::Later;
        }
        if operation.run_once {
            self.once.insert(operation.origin, Once::Runs);
        }
        Turn::Now
    }

    /// The hosts of this operation that may be next: with barriers those that have come to it, else all that will, within the waves around it.
    fn first_alive(&self, op: OpId) -> Option<HostId> {
        let program = &self.program;
        if program.no_wait {
            let around = program.run.map(|run| &self.gates[run].wave);
            let hosts = &program.once[&program.operations[op.index()].origin];
            hosts.iter().copied().find(|host| self.goes_on(*host) && around.is_none_or(|wave| wave.contains(host)))
        } else {
            self.ready.range((op, HostId(0))..(OpId(op.0 + 1), HostId(0))).map(|(_, host)| *host).next()
        }
    }

    /// Makes up the next wave of an operation with `_serial`. Hosts in a wave around it go on to the end of that, also after a stop.
    fn open_operation(&mut self, op: OpId, gate: usize, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        let state = &self.gates[gate];
        if !state.is_free() {
            return;
        }
        let here: BTreeSet<HostId> =
            program.parts[&program.operations[op.index()].origin].iter().flat_map(|op| self.ready_for(*op)).collect();
        let around = |host: &HostId| self.stop == Stop::Not || self.in_wave_around(op, *host);
        let hosts = if program.no_wait {
            let rolling = self.stage_of_operation(op).map(|gate| &self.gates[gate].wave);
            let run = program.run.map(|run| &self.gates[run].wave);
            let within = |host: &HostId| [rolling, run].into_iter().flatten().all(|wave| wave.contains(host)) && around(host);
            state.first_of(&program.gates[gate], state.left.iter().copied().filter(within))
        } else {
            state.first_of(&program.gates[gate], self.ready_for(op).filter(|host| state.left.contains(host) && around(host)))
        };
        if hosts.iter().any(|host| here.contains(host)) {
            orders.push(self.gates[gate].open(&program.gates[gate], hosts));
        }
    }

    fn ready_for(&self, op: OpId) -> impl Iterator<Item = HostId> + '_ {
        self.ready.range((op, HostId(0))..(OpId(op.0 + 1), HostId(0))).map(|(_, host)| *host)
    }

    /// The gate of the `rolling` block around an operation.
    fn stage_of_operation(&self, op: OpId) -> Option<usize> {
        let host = self.ready_for(op).next()?;
        let stage = self.stage_of(host)?;
        self.program.stages[stage].rolling.as_ref().map(|rolling| rolling.gate)
    }

    fn finish(&mut self, orders: &mut Vec<Order>) {
        let nobody = self.hosts.values().all(|host| host.standing != Standing::Ok) && !self.hosts.is_empty();
        let left = self.hosts.iter().any(|(host, state)| state.leg < self.program.routes[host].len());
        let unfinished = left && self.unstarted();
        for at in 0..self.operations.len() {
            let op = OpId(u32::try_from(at).expect("a plan has fewer than 2^32 operations"));
            self.end_operation(op, orders);
        }
        if nobody && unfinished && !self.said {
            self.report(StopReason::NoHostLeft, orders);
        }
        self.finished = true;
        orders.push(Order::Finish);
    }

    /// Whether some host has not started an operation that it registered.
    fn unstarted(&self) -> bool {
        self.program.operations.iter().zip(&self.operations).any(|(operation, state)| state.done.len() < operation.hosts.len())
    }

    pub(super) fn end_operation(&mut self, op: OpId, orders: &mut Vec<Order>) {
        let state = &mut self.operations[op.index()];
        if state.begun && !state.over {
            state.over = true;
            orders.push(Order::EndOperation(op));
        }
    }
}
