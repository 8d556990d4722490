//! When what runs in the background of a `parallel` block is ended.
//!
//! It is ended when no operation of the block without `_background` is in flight or may still be started, on any host that is in the block with it: all hosts
//! of the block, or those of the wave where the block goes in waves, of which the host of a run with `--serial` is one. A host that does not go on is
//! not waited for.
//!
//! Without barriers a host may have to come by something on its way to the block that waits for a host in the block. So what runs in the background
//! is ended, too, when nothing else is in flight in the whole run and nothing can be started: there is nobody left that it could be waiting for.

use std::collections::BTreeSet;

use infra_core::host::HostId;
use infra_core::plan::OpId;

use super::{Order, Policy, Standing, Stop};

impl Policy {
    /// Ends what runs in the background for nobody any more. Nothing can be started at this moment.
    pub(super) fn end_backgrounds(&mut self, orders: &mut Vec<Order>) {
        if !self.program.has_background {
            return;
        }
        let background = |op: &OpId| self.program.operations[op.index()].background;
        let in_flight = || self.at_work.iter().flat_map(|host| self.hosts[host].in_flight.iter().map(move |op| (*op, *host)));
        let is_ending = |(op, host): &(OpId, HostId)| self.hosts[host].ending.contains(op);
        let alone = in_flight().all(|at| background(&at.0) && !is_ending(&at))
            && (self.stop != Stop::Not || !self.gates.iter().any(|gate| gate.paused));
        let mut open: Vec<(usize, OpId, HostId)> = Vec::new();
        for (op, host) in in_flight().filter(|at| background(&at.0) && !is_ending(at)) {
            open.extend(self.stage_of(host).map(|stage| (stage, op, host)));
        }
        let stages: BTreeSet<usize> = open.iter().map(|(stage, ..)| *stage).collect();
        let over: BTreeSet<usize> = stages.into_iter().filter(|stage| alone || !self.goes_on_in(*stage)).collect();
        for (_, op, host) in open.into_iter().filter(|(stage, ..)| over.contains(stage)) {
            self.hosts.get_mut(&host).expect("it is at work").ending.insert(op);
            orders.push(Order::EndBackground(op, host));
        }
    }

    /// Whether an operation of the stage that is not in the background is in flight or may come, on a host of those that are in it together.
    fn goes_on_in(&self, stage: usize) -> bool {
        let program = &self.program;
        let gate = program.run.or(program.stages[stage].rolling.as_ref().map(|rolling| rolling.gate));
        let hosts = &program.stages[stage].hosts;
        match gate {
            Some(gate) => hosts.intersection(&self.gates[gate].wave).any(|host| self.others_go_on(stage, *host, true)),
            None => hosts.iter().any(|host| self.others_go_on(stage, *host, false)),
        }
    }

    /// Whether the host has something in flight in the stage, or still to come, that is not in the background.
    fn others_go_on(&self, stage: usize, host: HostId, in_wave: bool) -> bool {
        let state = &self.hosts[&host];
        let legs = &self.program.routes[&host][state.leg..];
        let Some((at, leg)) = legs.iter().enumerate().find(|(_, leg)| leg.stage == stage) else { return false };
        // What is ready and may not start any more is no reason to go on.
        let comes = |op: &OpId| match self.stop {
            Stop::Not => true,
            Stop::AfterWaves => in_wave || (at == 0 && self.opened.contains(&(stage, host)) && self.in_wave_around(*op, host)),
            Stop::Now => false,
        };
        leg.operations.iter().filter(|op| !self.program.operations[op.index()].background).any(|op| {
            state.in_flight.contains(op)
                || (state.standing == Standing::Ok && !self.operations[op.index()].done.contains(&host) && comes(op))
        })
    }
}
