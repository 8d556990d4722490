//! What does not change during a run: the stages of the plan, each host's way through them, and what goes in waves.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::time::Duration;

use infra_core::event::Waves;
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};

use super::gates::Gate;
use super::{PolicyBlock, PolicyOperation, Rules};

/// A value that is the same in all states of one policy, so that states are compared without looking at it.
#[derive(Debug)]
pub(super) struct Fixed<T>(Arc<T>);

/// The plan as the policy walks through it.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) operations: Vec<PolicyOperation>,
    pub(super) rules: Rules,
    /// Operations that begin together: a `parallel` block, or one operation.
    pub(super) stages: Vec<Stage>,
    /// Each host's way through the stages.
    pub(super) routes: BTreeMap<HostId, Vec<Leg>>,
    pub(super) gates: Vec<FixedGate>,
    /// For each operation, the gate of its `_serial`.
    pub(super) serial: Vec<Option<usize>>,
    /// The gate of `--serial`.
    pub(super) run: Option<usize>,
    /// For each origin of a `_run_once`, the hosts that registered any part.
    pub(super) once: BTreeMap<usize, BTreeSet<HostId>>,
    /// Whether hosts wait for each other nowhere but at gates.
    pub(super) no_wait: bool,
    /// For each origin, its operations: more than one where it was split.
    pub(super) parts: BTreeMap<usize, Vec<OpId>>,
    pub(super) has_background: bool,
    /// For each operation, whether it is inside `parallel`.
    pub(super) in_parallel: Vec<bool>,
}

#[derive(Debug)]
pub(super) struct Stage {
    /// The `rolling` block that it is in.
    pub(super) rolling: Option<InRolling>,
    /// The hosts that come to it.
    pub(super) hosts: BTreeSet<HostId>,
}

/// A stage's place in a `rolling` block.
#[derive(Clone, Debug)]
pub(super) struct InRolling {
    pub(super) gate: usize,
    /// The stages of the same block, or of the same part of one that was split.
    pub(super) stages: Range<usize>,
}

/// What one host does in one stage.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) stage: usize,
    pub(super) operations: Vec<OpId>,
}

/// What goes in waves, and how.
#[derive(Debug)]
pub(super) struct FixedGate {
    pub(super) of: Waves,
    pub(super) sizes: Vec<usize>,
    pub(super) max_fail: Share,
    pub(super) pause: Duration,
}

impl<T> Fixed<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Fixed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Fixed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> PartialEq for Fixed<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Fixed<T> {}

impl<T> Hash for Fixed<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl FixedGate {
    fn new(of: Waves, batch: &Batch, hosts: usize, max_fail: Share, pause: Duration) -> Self {
        Self { of, sizes: batch.waves(hosts), max_fail, pause }
    }

    /// The size of a wave, from 0; where hosts fell out and waves were smaller than planned, the last size is kept.
    pub(super) fn size(&self, wave: usize) -> usize {
        self.sizes.get(wave).or(self.sizes.last()).copied().unwrap_or(1)
    }

    /// How many waves there are when `left` hosts follow the first `done` waves.
    pub(super) fn waves(&self, done: usize, mut left: usize) -> usize {
        let mut waves = done;
        while left > 0 {
            left = left.saturating_sub(self.size(waves));
            waves += 1;
        }
        waves
    }
}

impl Program {
    pub(super) fn new(operations: Vec<PolicyOperation>, blocks: &[PolicyBlock], rules: Rules) -> (Self, Vec<Gate>) {
        let mut program = Self {
            serial: vec![None; operations.len()],
            has_background: operations.iter().any(|operation| operation.background),
            operations,
            no_wait: rules.no_wait || rules.serial,
            rules,
            stages: Vec::new(),
            routes: BTreeMap::new(),
            gates: Vec::new(),
            run: None,
            once: BTreeMap::new(),
            parts: BTreeMap::new(),
            in_parallel: Vec::new(),
        };
        let mut members: Vec<BTreeSet<HostId>> = Vec::new();
        program.lay_out(blocks);
        program.gates_of_blocks(blocks, &mut members);
        program.gates_of_operations(&mut members);
        if program.rules.serial {
            let hosts: BTreeSet<HostId> = program.routes.keys().copied().collect();
            program.run = Some(program.gates.len());
            program.gates.push(FixedGate::new(Waves::Run, &Batch::one(), hosts.len(), program.rules.max_fail, Duration::ZERO));
            members.push(hosts);
        }
        let gates = members.into_iter().map(Gate::new).collect();
        (program, gates)
    }

    /// The stages, and every host's way through them.
    fn lay_out(&mut self, blocks: &[PolicyBlock]) {
        let mut last: Option<BlockId> = None;
        for (at, operation) in self.operations.iter().enumerate() {
            let op = OpId(u32::try_from(at).expect("a plan has fewer than 2^32 operations"));
            let parallel = operation.blocks.iter().copied().find(|block| blocks[block.index()].kind == BlockKind::Parallel);
            if parallel.is_none() || parallel != last {
                self.stages.push(Stage { rolling: None, hosts: BTreeSet::new() });
            }
            last = parallel;
            self.in_parallel.push(parallel.is_some());
            let stage = self.stages.len() - 1;
            self.stages[stage].hosts.extend(operation.hosts.iter().copied());
            for host in &operation.hosts {
                let legs = self.routes.entry(*host).or_default();
                match legs.last_mut() {
                    Some(leg) if leg.stage == stage => leg.operations.push(op),
                    _ => legs.push(Leg { stage, operations: vec![op] }),
                }
            }
            if operation.run_once {
                self.once.entry(operation.origin).or_default().extend(operation.hosts.iter().copied());
            }
            self.parts.entry(operation.origin).or_default().push(op);
            // Which `rolling` the stage is in, as far as its stages are known.
            let rolling = operation.blocks.iter().copied().find(|block| rolling(blocks, *block).is_some());
            if let Some(block) = rolling {
                let before = stage.checked_sub(1).and_then(|before| self.stages[before].rolling.clone());
                let start = match before {
                    Some(before) if before.gate == block.index() => before.stages.start,
                    _ => stage,
                };
                // The block's number stands for its gate until all stages are there.
                self.stages[stage].rolling = Some(InRolling { gate: block.index(), stages: start..stage + 1 });
            }
        }
        for at in (1..self.stages.len()).rev() {
            let [before, after] = &mut self.stages[at - 1..=at] else { continue };
            if let (Some(before), Some(after)) = (&mut before.rolling, &after.rolling)
                && before.gate == after.gate
            {
                before.stages.end = after.stages.end;
            }
        }
    }

    /// One gate for each `rolling` block, whatever parts it has.
    fn gates_of_blocks(&mut self, blocks: &[PolicyBlock], members: &mut Vec<BTreeSet<HostId>>) {
        let mut gates: BTreeMap<usize, (usize, BlockId)> = BTreeMap::new();
        for (at, block) in blocks.iter().enumerate() {
            if matches!(block.kind, BlockKind::Rolling(_)) {
                let next = gates.len();
                gates.entry(block.origin).or_insert((next, BlockId(u32::try_from(at).expect("a plan has fewer than 2^32 blocks"))));
            }
        }
        members.resize(gates.len(), BTreeSet::new());
        for operation in &self.operations {
            for block in &operation.blocks {
                if let Some((gate, _)) = gates.get(&blocks[block.index()].origin).filter(|_| rolling(blocks, *block).is_some()) {
                    members[*gate].extend(operation.hosts.iter().copied());
                }
            }
        }
        let mut sorted: Vec<(usize, BlockId)> = gates.values().copied().collect();
        sorted.sort();
        for (gate, block) in sorted {
            let Some(Rolling { batch, max_fail, pause }) = rolling(blocks, block) else { continue };
            let pause = Duration::try_from_secs_f64(*pause).unwrap_or_default();
            self.gates.push(FixedGate::new(Waves::Block(block), batch, members[gate].len(), max_fail.unwrap_or(Share::NONE), pause));
        }
        for stage in &mut self.stages {
            if let Some(rolling) = &mut stage.rolling {
                rolling.gate = gates[&blocks[rolling.gate].origin].0;
            }
        }
    }

    /// One gate for each operation with `_serial`, whatever parts it has; a `_run_once` has one host and no waves.
    fn gates_of_operations(&mut self, members: &mut Vec<BTreeSet<HostId>>) {
        let parts = self.parts.clone();
        for parts in parts.values() {
            let first = &self.operations[parts[0].index()];
            let Some(batch) = first.serial.as_ref().filter(|batch| !first.run_once && !batch.is_off()) else { continue };
            let hosts: BTreeSet<HostId> = parts.iter().flat_map(|op| self.operations[op.index()].hosts.iter().copied()).collect();
            let gate = FixedGate::new(Waves::Operation(parts[0]), batch, hosts.len(), first.max_fail, Duration::ZERO);
            for op in parts {
                self.serial[op.index()] = Some(self.gates.len());
            }
            self.gates.push(gate);
            members.push(hosts);
        }
    }
}

fn rolling(blocks: &[PolicyBlock], block: BlockId) -> Option<&Rolling> {
    match &blocks[block.index()].kind {
        BlockKind::Rolling(rolling) => Some(rolling),
        BlockKind::Parallel => None,
    }
}
