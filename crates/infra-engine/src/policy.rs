//! Who may start, and when to stop: one pure state machine for every strategy.
//!
//! What happened goes in ([`Policy::begin`], [`Policy::ended`], [`Policy::resumed`], [`Policy::interrupt`]), what is to be done comes out as [`Order`]s.
//! It knows of no clock, no task and no channel, so every interleaving of a small fleet can be tried.
//!
//! - `program`: what does not change: the stages of the plan, each host's way through them, what goes in waves;
//! - `gates`: what goes in waves, and how far it is;
//! - `backgrounds`: when what runs in the background is ended;
//! - `turns`: which host may enter which stage, and which operation may start;
//! - `endings`: what follows from an end, and from a host that is not ok.

mod backgrounds;
mod endings;
mod gates;
mod program;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use infra_core::event::{StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::script::BlockKind;
use infra_core::waves::{Batch, Share};

pub(crate) use endings::too_many;
use gates::Gate;
use program::{Fixed, Program};

/// An operation as the policy sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOperation {
    /// The hosts that registered it, in inventory order.
    pub hosts: Vec<HostId>,
    /// The waves its hosts go in.
    pub serial: Option<Batch>,
    /// How many hosts of such a wave may fail.
    pub max_fail: Share,
    /// At most so many hosts at work on it at once.
    pub parallel: Option<usize>,
    /// On the first living host only.
    pub run_once: bool,
    /// It is ended when the other operations of its `parallel` block have ended, on all hosts that are in the block with it.
    pub background: bool,
    /// The blocks around it, outermost first.
    pub blocks: Vec<BlockId>,
    /// Operations of the same `parallel` block that a host must have ended before.
    pub after: Vec<OpId>,
    /// The same for all parts of an operation that was split.
    pub origin: usize,
}

/// A block as the policy sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyBlock {
    /// What it does.
    pub kind: BlockKind,
    /// The same for all parts of a block that was split.
    pub origin: usize,
}

/// What holds for the whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How many hosts may be at work at once; all where not given.
    pub parallel: Option<usize>,
    /// Stop at the first host that is not ok.
    pub fail_fast: bool,
    /// Stop as soon as more than so many percent of the selected hosts are not ok.
    pub fail_percent: Option<f64>,
    /// Host by host.
    pub serial: bool,
    /// Every host through its own operations, without barriers.
    pub no_wait: bool,
    /// How many hosts of a wave of `serial` may fail.
    pub max_fail: Share,
    /// How many hosts were selected.
    pub selected: usize,
    /// How many of them are not ok before the first operation.
    pub not_ok: usize,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// An operation begins.
    BeginOperation(OpId),
    /// Hosts set out on a wave.
    BeginWave {
        /// What goes in waves.
        of: Waves,
        /// Which wave, from 1.
        wave: usize,
        /// How many there will be.
        waves: usize,
        /// Its hosts.
        hosts: Vec<HostId>,
    },
    /// A host is to be started on an operation; [`Policy::ended`] is owed for it.
    Start(OpId, HostId),
    /// An operation with `_background` that is in flight is to be ended, which counts as ok; [`Policy::ended`] is still owed for it.
    EndBackground(OpId, HostId),
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
    /// The next wave of a block begins after so long; [`Policy::resumed`] is owed for it.
    Pause(BlockId, Duration),
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
    program: Fixed<Program>,
    hosts: BTreeMap<HostId, HostState>,
    operations: Vec<OperationState>,
    /// Parts whose stage is open to their host and that have not started.
    ready: BTreeSet<(OpId, HostId)>,
    /// Hosts that wait before a stage.
    arrived: BTreeSet<(usize, HostId)>,
    /// Hosts that are in a stage.
    opened: BTreeSet<(usize, HostId)>,
    /// Hosts with something in flight.
    at_work: BTreeSet<HostId>,
    gates: Vec<Gate>,
    once: BTreeMap<usize, Once>,
    not_ok: usize,
    stop: Stop,
    /// Whether it was said why something is not started.
    said: bool,
    finished: bool,
}

/// Where a host stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct HostState {
    /// How many of its legs are behind it.
    leg: usize,
    standing: Standing,
    /// How many operations of the stage it is in have not ended.
    pending: usize,
    in_flight: BTreeSet<OpId>,
    /// Those in flight that are to be ended.
    ending: BTreeSet<OpId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    Ok,
    NotOk,
    /// A `_run_once` that it registered failed elsewhere.
    Held,
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct OperationState {
    begun: bool,
    over: bool,
    /// How many hosts may still come, or are at work on it.
    open: usize,
    in_flight: BTreeSet<HostId>,
    done: BTreeSet<HostId>,
}

/// What came of a `_run_once`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Once {
    Runs,
    Ok { op: OpId, by: HostId },
    Failed,
}

/// What may still be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stop {
    /// Everything.
    Not,
    /// What hosts in a wave need to come to the end of it.
    AfterWaves,
    /// Nothing.
    Now,
}

impl Policy {
    /// Before the first operation. The operations of a block stand together.
    pub fn new(operations: Vec<PolicyOperation>, blocks: &[PolicyBlock], rules: Rules) -> Self {
        let state = |operation: &PolicyOperation| OperationState { open: operation.hosts.len(), ..OperationState::default() };
        let states = operations.iter().map(state).collect();
        let not_ok = rules.not_ok;
        let (program, gates) = Program::new(operations, blocks, rules);
        let fresh = HostState { leg: 0, standing: Standing::Ok, pending: 0, in_flight: BTreeSet::new(), ending: BTreeSet::new() };
        Self {
            hosts: program.routes.keys().map(|host| (*host, fresh.clone())).collect(),
            arrived: program.routes.iter().filter_map(|(host, legs)| Some((legs.first()?.stage, *host))).collect(),
            program: Fixed::new(program),
            operations: states,
            ready: BTreeSet::new(),
            opened: BTreeSet::new(),
            at_work: BTreeSet::new(),
            gates,
            once: BTreeMap::new(),
            not_ok,
            stop: Stop::Not,
            said: false,
            finished: false,
        }
    }

    /// Begins.
    pub fn begin(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.advance(&mut orders);
        orders
    }

    /// A host that was started on an operation has ended it: whether the host is ok, and whether something was changed.
    pub fn ended(&mut self, op: OpId, host: HostId, host_ok: bool, changed: bool) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.operations.get_mut(op.index()).is_some_and(|state| state.in_flight.remove(&host)) {
            self.part_ended(op, host, host_ok, changed, &mut orders);
            self.advance(&mut orders);
        }
        orders
    }

    /// The pause that an [`Order::Pause`] asked for is over.
    pub fn resumed(&mut self, block: BlockId) -> Vec<Order> {
        let mut orders = Vec::new();
        let program = self.program.clone();
        for (gate, fixed) in self.gates.iter_mut().zip(&program.gates) {
            if fixed.of == Waves::Block(block) {
                gate.paused = false;
            }
        }
        self.advance(&mut orders);
        orders
    }

    /// The user interrupted the run: nothing new is started.
    pub fn interrupt(&mut self) -> Vec<Order> {
        let mut orders = Vec::new();
        self.stop(Stop::Now, StopReason::Interrupted, &mut orders);
        self.advance(&mut orders);
        orders
    }

    /// The operation, and the other parts of it where it was split.
    pub fn parts(&self, op: OpId) -> &[OpId] {
        &self.program.parts[&self.program.operations[op.index()].origin]
    }

    /// Whether all hosts that registered the operation have ended it or never will.
    pub fn is_over(&self, op: OpId) -> bool {
        self.parts(op).iter().all(|part| self.operations[part.index()].open == 0)
    }

    /// Whether nothing is in flight and nothing more will be started.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// A rule that is no stronger than the one that stopped the run before has nothing to say.
    fn stop(&mut self, how: Stop, reason: StopReason, orders: &mut Vec<Order>) {
        let stronger = match self.stop {
            Stop::Not => true,
            Stop::AfterWaves => how == Stop::Now,
            Stop::Now => false,
        };
        if stronger && !self.finished {
            self.stop = how;
            self.report(reason, orders);
        }
    }

    fn report(&mut self, reason: StopReason, orders: &mut Vec<Order>) {
        self.said = true;
        orders.push(Order::Stop(reason));
    }
}

#[cfg(test)]
mod tests;
