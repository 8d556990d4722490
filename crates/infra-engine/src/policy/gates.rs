//! What goes in waves: an operation with `_serial`, a `rolling` block, a run with `--serial`.

use std::collections::BTreeSet;

use infra_core::event::StopReason;
use infra_core::host::HostId;

use super::program::FixedGate;
use super::{Order, Policy, Stop};

/// How far something is that goes in waves. Parts of what was split share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Gate {
    /// Hosts that can go on and are in no wave yet.
    pub(super) left: BTreeSet<HostId>,
    /// Hosts of the wave that are not through yet.
    pub(super) wave: BTreeSet<HostId>,
    /// Those of them that have started something in it.
    begun: BTreeSet<HostId>,
    /// How many hosts entered the wave, or will.
    entered: usize,
    not_ok: usize,
    /// How many waves there were by now, with this one.
    number: usize,
    changed: bool,
    pub(super) paused: bool,
}

impl Gate {
    pub(super) fn new(left: BTreeSet<HostId>) -> Self {
        Self { left, wave: BTreeSet::new(), begun: BTreeSet::new(), entered: 0, not_ok: 0, number: 0, changed: false, paused: false }
    }

    /// Whether the next wave may be made up.
    pub(super) fn is_free(&self) -> bool {
        self.wave.is_empty() && !self.paused && !self.left.is_empty()
    }

    /// The first hosts of the candidates, in inventory order, that the next wave has room for.
    pub(super) fn first_of(&self, fixed: &FixedGate, candidates: impl Iterator<Item = HostId>) -> Vec<HostId> {
        candidates.take(fixed.size(self.number)).collect()
    }

    /// These hosts set out.
    pub(super) fn open(&mut self, fixed: &FixedGate, hosts: Vec<HostId>) -> Order {
        self.number += 1;
        self.wave = hosts.iter().copied().collect();
        self.left.retain(|host| !self.wave.contains(host));
        (self.entered, self.not_ok, self.changed) = (hosts.len(), 0, false);
        self.begun.clear();
        Order::BeginWave { of: fixed.of, wave: self.number, waves: fixed.waves(self.number, self.left.len()), hosts }
    }

    /// A host of the wave starts something.
    pub(super) fn begins(&mut self, host: HostId) {
        if self.wave.contains(&host) {
            self.begun.insert(host);
        }
    }

    /// A host changed something.
    pub(super) fn changes(&mut self, host: HostId) {
        self.changed |= self.wave.contains(&host);
    }

    /// A host goes no further. Who had not started yet gives its turn up; whether the wave has failed by that.
    fn loses(&mut self, fixed: &FixedGate, host: HostId, not_ok: bool) -> Option<StopReason> {
        self.left.remove(&host);
        if !self.wave.contains(&host) {
            return None;
        }
        if !self.begun.contains(&host) {
            self.entered -= 1;
        } else if not_ok {
            self.not_ok += 1;
        }
        let allowed = fixed.max_fail.of(self.entered);
        let (of, wave, not_ok, entered) = (fixed.of, self.number, self.not_ok, self.entered);
        (not_ok > allowed).then_some(StopReason::WaveFailed { of, wave, not_ok, entered, allowed })
    }
}

impl Policy {
    /// A host goes no further, for every gate; the outermost wave that has failed by that stops the run.
    pub(super) fn gates_lose(&mut self, host: HostId, not_ok: bool, orders: &mut Vec<Order>) {
        let program = self.program.clone();
        let blocks_first = program.run.into_iter().chain((0..self.gates.len()).filter(|gate| Some(*gate) != program.run));
        for gate in blocks_first {
            if let Some(reason) = self.gates[gate].loses(&program.gates[gate], host, not_ok) {
                self.stop(Stop::AfterWaves, reason, orders);
            }
        }
    }

    /// A host is through, or goes no further: with the last one the wave is over.
    pub(super) fn leave(&mut self, gate: usize, host: HostId, orders: &mut Vec<Order>) {
        let fixed = &self.program.gates[gate];
        let state = &mut self.gates[gate];
        if !state.wave.remove(&host) || !state.wave.is_empty() {
            return;
        }
        let going_on = self.stop == Stop::Not && !state.left.is_empty();
        if let infra_core::event::Waves::Block(block) = fixed.of
            && state.changed
            && going_on
            && !fixed.pause.is_zero()
        {
            state.paused = true;
            orders.push(Order::Pause(block, fixed.pause));
        }
    }
}
