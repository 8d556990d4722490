//! A walk through the policy, and the rules that every step of it keeps. The rules are written from what was ordered alone, not from the policy's state.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use infra_core::event::{StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::script::BlockKind;
use infra_core::waves::Share;

use crate::policy::{Order, Policy, PolicyBlock, PolicyOperation, Rules};

/// A fleet, its plan and the rules of the run.
#[derive(Clone, Debug)]
pub struct Setup {
    pub operations: Vec<PolicyOperation>,
    pub blocks: Vec<PolicyBlock>,
    pub rules: Rules,
    pub interruptible: bool,
}

/// What a walk has seen, as far as the rules need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    pub policy: Policy,
    pub running: BTreeSet<(OpId, HostId)>,
    /// Those of them that are to be ended.
    ending: BTreeSet<(OpId, HostId)>,
    parts: BTreeMap<(OpId, HostId), Part>,
    begun: BTreeSet<OpId>,
    over: BTreeSet<OpId>,
    waves: BTreeMap<Gate, Wave>,
    pub pauses: BTreeSet<BlockId>,
    stopped: Option<&'static str>,
    pub finished: bool,
    pub interrupted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Running,
    Ok,
    NotOk,
    Served,
}

/// What goes in waves; parts of what was split are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Gate {
    Run,
    Block(usize),
    Operation(usize),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Wave {
    number: usize,
    hosts: BTreeSet<HostId>,
    /// Hosts that were in a wave before.
    before: BTreeSet<HostId>,
}

impl Setup {
    fn overlapping(&self) -> bool {
        self.rules.serial || self.rules.no_wait
    }

    fn parallel(&self, op: OpId) -> Option<BlockId> {
        let blocks = &self.operations[op.index()].blocks;
        blocks.iter().copied().find(|block| self.blocks[block.index()].kind == BlockKind::Parallel)
    }

    fn rolling(&self, op: OpId) -> Option<BlockId> {
        let blocks = &self.operations[op.index()].blocks;
        blocks.iter().copied().find(|block| matches!(self.blocks[block.index()].kind, BlockKind::Rolling(_)))
    }

    fn ops(&self) -> impl Iterator<Item = OpId> + '_ {
        (0..self.operations.len() as u32).map(OpId)
    }

    fn registered(&self, op: OpId, host: HostId) -> bool {
        self.operations[op.index()].hosts.contains(&host)
    }

    /// The operations of what goes in waves.
    fn inside(&self, gate: Gate) -> Vec<OpId> {
        let within = |op: &OpId| match gate {
            Gate::Run => true,
            Gate::Block(origin) => self.rolling(*op).is_some_and(|block| self.blocks[block.index()].origin == origin),
            Gate::Operation(origin) => self.operations[op.index()].origin == origin,
        };
        self.ops().filter(within).collect()
    }

    fn gate(&self, of: Waves) -> Gate {
        match of {
            Waves::Run => Gate::Run,
            Waves::Block(block) => Gate::Block(self.blocks[block.index()].origin),
            Waves::Operation(op) => Gate::Operation(self.operations[op.index()].origin),
        }
    }

    /// The sizes of the waves and how many hosts of one may fail.
    fn waves(&self, gate: Gate) -> (Vec<usize>, Share) {
        let inside = self.inside(gate);
        let hosts: BTreeSet<HostId> = inside.iter().flat_map(|op| self.operations[op.index()].hosts.iter().copied()).collect();
        match gate {
            Gate::Run => (vec![1; hosts.len()], self.rules.max_fail),
            Gate::Block(origin) => {
                let block = self.blocks.iter().find(|block| block.origin == origin).unwrap();
                let BlockKind::Rolling(rolling) = &block.kind else { panic!("a rolling block") };
                (rolling.batch.waves(hosts.len()), rolling.max_fail.unwrap_or(Share::NONE))
            }
            Gate::Operation(_) => {
                let operation = &self.operations[inside[0].index()];
                (operation.serial.as_ref().unwrap().waves(hosts.len()), operation.max_fail)
            }
        }
    }

    /// What goes in waves around an operation, outermost first.
    fn gates(&self, op: OpId) -> Vec<Gate> {
        let operation = &self.operations[op.index()];
        let run = self.rules.serial.then_some(Gate::Run);
        let block = self.rolling(op).map(|block| Gate::Block(self.blocks[block.index()].origin));
        let own = (operation.serial.is_some() && !operation.run_once).then_some(Gate::Operation(operation.origin));
        [run, block, own].into_iter().flatten().collect()
    }
}

impl Walk {
    pub fn begin(setup: &Setup) -> Self {
        let mut walk = Self {
            policy: Policy::new(setup.operations.clone(), &setup.blocks, setup.rules.clone()),
            running: BTreeSet::new(),
            ending: BTreeSet::new(),
            parts: BTreeMap::new(),
            begun: BTreeSet::new(),
            over: BTreeSet::new(),
            waves: BTreeMap::new(),
            pauses: BTreeSet::new(),
            stopped: None,
            finished: false,
            interrupted: false,
        };
        let orders = walk.policy.begin();
        walk.take(setup, orders);
        walk
    }

    pub fn ends(&mut self, setup: &Setup, op: OpId, host: HostId, ok: bool, changed: bool) {
        self.running.remove(&(op, host));
        self.ending.remove(&(op, host));
        self.parts.insert((op, host), if ok { Part::Ok } else { Part::NotOk });
        let orders = self.policy.ended(op, host, ok, changed);
        self.take(setup, orders);
    }

    pub fn resumes(&mut self, setup: &Setup, block: BlockId) {
        assert!(self.pauses.remove(&block));
        let orders = self.policy.resumed(block);
        self.take(setup, orders);
    }

    pub fn interrupts(&mut self, setup: &Setup) {
        self.interrupted = true;
        let orders = self.policy.interrupt();
        self.take(setup, orders);
    }

    fn not_ok(&self, host: HostId) -> bool {
        self.parts.iter().any(|((_, other), part)| *other == host && *part == Part::NotOk)
    }

    /// Whether the host has come to a `_run_once` that has failed elsewhere.
    fn held(&self, setup: &Setup, host: HostId) -> bool {
        setup.ops().any(|op| {
            let operation = &setup.operations[op.index()];
            operation.run_once
                && operation.hosts.contains(&host)
                && !self.done(op, host)
                && self.has_come_to(setup, op, host)
                && self.parts.iter().any(|((of, _), part)| *part == Part::NotOk && setup.operations[of.index()].origin == operation.origin)
        })
    }

    fn has_come_to(&self, setup: &Setup, op: OpId, host: HostId) -> bool {
        let together = |other: OpId| setup.parallel(op).is_some() && setup.parallel(op) == setup.parallel(other);
        setup.ops().take_while(|other| *other < op).all(|other| together(other) || !setup.registered(other, host) || self.done(other, host))
    }

    fn goes_on(&self, setup: &Setup, host: HostId) -> bool {
        !self.not_ok(host) && !self.held(setup, host)
    }

    fn done(&self, op: OpId, host: HostId) -> bool {
        matches!(self.parts.get(&(op, host)), Some(Part::Ok | Part::Served))
    }

    fn is_running(&self, host: HostId) -> bool {
        self.running.iter().any(|(_, other)| *other == host)
    }

    fn take(&mut self, setup: &Setup, orders: Vec<Order>) {
        for order in orders {
            assert!(!self.finished, "nothing after the end: {order:?}");
            match order {
                Order::BeginOperation(op) => assert!(self.begun.insert(op) && !self.over.contains(&op)),
                Order::EndOperation(op) => {
                    assert!(self.begun.contains(&op) && self.over.insert(op));
                    assert!(!self.running.iter().any(|(other, _)| *other == op), "{op:?} is over while it runs: {self:#?}");
                }
                Order::BeginWave { of, wave, waves, hosts } => self.wave(setup, setup.gate(of), wave, waves, hosts),
                Order::Start(op, host) => self.start(setup, op, host),
                Order::EndBackground(op, host) => {
                    assert!(setup.operations[op.index()].background && self.running.contains(&(op, host)));
                    assert!(self.ending.insert((op, host)), "told once");
                    self.ends_for_nobody(setup, op, host);
                }
                Order::Serve { op, host, from, by } => {
                    assert_eq!(self.parts.get(&(from, by)), Some(&Part::Ok), "only what ended well counts for others");
                    assert!(self.begun.contains(&op) && !self.over.contains(&op));
                    assert!(self.parts.insert((op, host), Part::Served).is_none());
                }
                Order::Pause(block, _) => assert!(self.stopped.is_none() && self.pauses.insert(block)),
                Order::Stop(StopReason::RunOnceFailed { .. }) => {}
                Order::Stop(reason) => self.stop(setup, &reason),
                Order::Finish => {
                    assert!(self.running.is_empty() && self.begun == self.over, "{self:#?}");
                    self.finished = true;
                }
            }
        }
        if !self.finished {
            let waits = self.running.iter().any(|part| !setup.operations[part.0.index()].background || self.ending.contains(part));
            assert!(waits || !self.pauses.is_empty(), "a run that waits for nobody never ends: {setup:#?} {self:#?}");
        }
        assert_eq!(self.finished, self.policy.is_finished());
        if self.finished {
            self.account(setup);
        }
    }

    /// What runs in the background is ended when the others of its block have ended on all hosts that are in it together: of the run, of a wave, or on the
    /// one host of `--serial`; or when nobody but such as it is left.
    fn ends_for_nobody(&self, setup: &Setup, op: OpId, host: HostId) {
        let background = |op: &OpId| setup.operations[op.index()].background;
        let together = |other: HostId| match setup.gates(op).into_iter().find(|gate| matches!(gate, Gate::Run | Gate::Block(_))) {
            Some(gate) => self.waves[&gate].hosts.contains(&other),
            None => true,
        };
        let others = || setup.ops().filter(|other| !background(other) && setup.parallel(*other) == setup.parallel(op));
        let here = |(other, at): &&(OpId, HostId)| !background(other) && setup.parallel(*other) == setup.parallel(op) && together(*at);
        assert!(!self.running.iter().any(|at| here(&at)), "{op:?} is ended on {host:?} while others run: {self:#?}");
        let nobody_else = self.running.iter().all(|(other, _)| background(other));
        if self.stopped.is_some() || (setup.overlapping() && nobody_else) {
            return;
        }
        for other in others() {
            for at in setup.operations[other.index()].hosts.iter().filter(|at| together(**at) && self.goes_on(setup, **at)) {
                assert!(self.done(other, *at), "{op:?} is ended on {host:?} before {other:?} on {at:?}: {setup:#?} {self:#?}");
            }
        }
    }

    fn stop(&mut self, setup: &Setup, reason: &StopReason) {
        let word = match reason {
            StopReason::FailFast { host } => {
                assert!(setup.rules.fail_fast && self.not_ok(*host));
                "fail fast"
            }
            StopReason::FailPercent { not_ok, selected, allowed } => {
                let now: BTreeSet<HostId> =
                    self.parts.iter().filter(|(_, part)| **part == Part::NotOk).map(|((_, host), _)| *host).collect();
                assert_eq!(*not_ok, now.len() + setup.rules.not_ok);
                assert!(*not_ok as f64 / *selected as f64 * 100.0 > *allowed);
                "fail percent"
            }
            StopReason::WaveFailed { of, wave, not_ok, entered, allowed } => {
                let gate = setup.gate(*of);
                let (_, max_fail) = setup.waves(gate);
                let seen = &self.waves[&gate];
                assert_eq!((*wave, *allowed), (seen.number, max_fail.of(*entered)));
                assert!(not_ok > allowed && *entered <= seen.hosts.len());
                "wave"
            }
            StopReason::Interrupted => "interrupted",
            StopReason::NoHostLeft => "nobody",
            StopReason::RunOnceFailed { .. } => unreachable!("taken before"),
        };
        assert!(
            matches!((self.stopped, word), (None, _) | (Some("wave"), "fail fast" | "fail percent" | "interrupted")),
            "{word} after {:?}",
            self.stopped
        );
        self.stopped = Some(word);
    }

    /// Whether the host is through what goes in waves, or takes no further part.
    fn is_through(&self, setup: &Setup, gate: Gate, host: HostId) -> bool {
        let idle = !self.running.iter().any(|(op, other)| *other == host && setup.gates(*op).contains(&gate));
        let done = setup.inside(gate).into_iter().all(|op| !setup.registered(op, host) || self.parts.contains_key(&(op, host)));
        idle && (done || !self.goes_on(setup, host))
    }

    /// How many hosts of the wave began something in it or still may, and how many of those that began are not ok.
    fn arithmetic(&self, setup: &Setup, gate: Gate, hosts: &BTreeSet<HostId>) -> (usize, usize) {
        let began = |host: &HostId| setup.inside(gate).into_iter().any(|op| self.parts.contains_key(&(op, *host)));
        let entered = hosts.iter().filter(|host| began(host) || self.goes_on(setup, **host)).count();
        // In `parallel` another operation may have failed at the same time: then it depends on which of them ended first, and is not judged here.
        let failed_inside = |host: &HostId| {
            let failed = |op: &OpId| self.parts.get(&(*op, *host)) == Some(&Part::NotOk);
            setup.inside(gate).iter().any(failed)
        };
        (entered, hosts.iter().filter(|host| failed_inside(host)).count())
    }

    fn wave(&mut self, setup: &Setup, gate: Gate, number: usize, waves: usize, hosts: Vec<HostId>) {
        let (sizes, max_fail) = setup.waves(gate);
        let before = self.waves.remove(&gate).unwrap_or_default();
        assert_eq!(number, before.number + 1);
        assert!(waves >= number);
        let size = sizes.get(number - 1).or(sizes.last()).copied().unwrap();
        assert!(!hosts.is_empty() && hosts.len() <= size, "{hosts:?} are more than {size}");
        assert!(hosts.windows(2).all(|pair| pair[0] < pair[1]));
        for host in &before.hosts {
            assert!(self.is_through(setup, gate, *host), "{host:?} is still in the wave before: {self:#?}");
        }
        let outer = |host: &HostId| {
            let gates = setup.gates(setup.inside(gate)[0]);
            gates
                .into_iter()
                .take_while(|other| *other != gate)
                .any(|other| self.waves.get(&other).is_some_and(|wave| wave.hosts.contains(host)))
        };
        let all_inside = hosts.iter().all(outer);
        assert!(self.stopped.is_none() || (self.stopped == Some("wave") && all_inside), "a wave after a stop: {self:#?}");
        let (entered, not_ok) = self.arithmetic(setup, gate, &before.hosts);
        assert!(not_ok <= max_fail.of(entered) || all_inside, "a wave after one that failed: {self:#?}");
        let already: BTreeSet<HostId> = before.before.union(&before.hosts).copied().collect();
        let split = setup.inside(gate).iter().any(|op| {
            setup
                .inside(gate)
                .iter()
                .any(|other| op != other && setup.operations[op.index()].origin == setup.operations[other.index()].origin)
        });
        for host in &hosts {
            assert!(self.goes_on(setup, *host) && !already.contains(host));
            // In inventory order, but for what was split.
            let passed = setup.inside(gate).into_iter().flat_map(|op| setup.operations[op.index()].hosts.clone());
            let skipped = passed.filter(|other| other < host && !already.contains(other) && !hosts.contains(other));
            // After a stop nobody comes to it from outside of a wave any more.
            assert!(
                split || self.stopped.is_some() || skipped.clone().all(|other| !self.goes_on(setup, other)),
                "inventory order: {self:#?}"
            );
        }
        self.waves.insert(gate, Wave { number, hosts: hosts.into_iter().collect(), before: already });
    }

    fn start(&mut self, setup: &Setup, op: OpId, host: HostId) {
        let operation = &setup.operations[op.index()];
        assert!(setup.registered(op, host) && self.begun.contains(&op) && !self.over.contains(&op));
        assert!(self.goes_on(setup, host), "{host:?} takes no further part: {self:#?}");
        let gates = setup.gates(op);
        for gate in &gates {
            assert!(
                self.waves.get(gate).is_some_and(|wave| wave.hosts.contains(&host)),
                "{host:?} is not in the wave of {gate:?}: {self:#?}"
            );
        }
        assert!(
            self.stopped.is_none() || (self.stopped == Some("wave") && !gates.is_empty()),
            "something is started after a stop: {self:#?}"
        );
        // Each host keeps its own order and skips nothing; nothing past a `_run_once` that has not ended well.
        let together = |other: OpId| setup.parallel(op).is_some() && setup.parallel(op) == setup.parallel(other);
        for earlier in setup.ops().take_while(|earlier| *earlier < op).filter(|earlier| !together(*earlier)) {
            assert!(!setup.registered(earlier, host) || self.done(earlier, host), "{host:?} skips {earlier:?}: {self:#?}");
            if setup.overlapping() {
                continue;
            }
            // The barriers: that of the run, and within a wave.
            let wave = setup.rolling(op).filter(|block| setup.rolling(earlier) == Some(*block));
            let wave = wave.map(|block| &self.waves[&Gate::Block(setup.blocks[block.index()].origin)].hosts);
            let behind = setup.operations[earlier.index()].hosts.iter().filter(|other| wave.is_none_or(|wave| wave.contains(other)));
            for other in behind {
                let part = self.parts.get(&(earlier, *other));
                assert!(
                    part.is_some_and(|part| *part != Part::Running) || !self.goes_on(setup, *other),
                    "the barrier: {host:?} {op:?} before {other:?} {earlier:?} {self:#?}"
                );
            }
        }
        for before in &operation.after {
            assert!(!setup.registered(*before, host) || self.done(*before, host));
        }
        if operation.run_once {
            let same = |of: &OpId| setup.operations[of.index()].origin == operation.origin;
            assert!(!self.parts.iter().any(|((of, _), _)| same(of)), "once: {self:#?}");
            let lower = operation.hosts.iter().filter(|other| **other < host);
            assert!(lower.clone().all(|other| !self.goes_on(setup, *other)), "the first that is alive: {self:#?}");
        }
        assert!(self.running.insert((op, host)));
        assert!(self.parts.insert((op, host), Part::Running).is_none(), "nobody does it twice");
        let at_work: BTreeSet<HostId> = self.running.iter().map(|(_, host)| *host).collect();
        // What runs in the background alone keeps nobody from the window.
        let foreground = self.running.iter().filter(|(op, _)| !setup.operations[op.index()].background);
        let in_window: BTreeSet<HostId> = foreground.map(|(_, host)| *host).collect();
        assert!(in_window.len() <= setup.rules.parallel.unwrap_or(usize::MAX), "too many hosts at work: {self:#?}");
        let on_it = self.running.iter().filter(|(other, _)| setup.operations[other.index()].origin == operation.origin).count();
        assert!(on_it <= operation.parallel.unwrap_or(usize::MAX), "too many hosts on it: {self:#?}");
        if setup.rules.serial {
            assert_eq!(at_work.len(), 1, "host by host");
        }
    }

    /// At the end every host is through, not ok, held, or was kept from going on by something that is said; and hosts in a wave are through it.
    fn account(&self, setup: &Setup) {
        let hosts: BTreeSet<HostId> = setup.operations.iter().flat_map(|operation| operation.hosts.iter().copied()).collect();
        let not_ok: BTreeSet<HostId> = hosts.iter().copied().filter(|host| self.not_ok(*host)).collect();
        for host in hosts.iter().filter(|host| self.goes_on(setup, **host)) {
            let left = |gate: Option<Gate>| {
                setup.ops().any(|op| {
                    setup.registered(op, *host) && !self.done(op, *host) && gate.is_none_or(|gate| setup.gates(op).contains(&gate))
                })
            };
            assert!(
                !left(None) || self.stopped.is_some_and(|reason| reason != "nobody"),
                "{host:?} was left out for no reason: {setup:#?} {self:#?}"
            );
            if self.stopped != Some("wave") {
                continue;
            }
            for (gate, wave) in &self.waves {
                let began = setup.inside(*gate).into_iter().any(|op| self.parts.contains_key(&(op, *host)));
                assert!(
                    !wave.hosts.contains(host) || !began || !left(Some(*gate)),
                    "{host:?} was left inside {gate:?}: {setup:#?} {self:#?}"
                );
            }
        }
        assert!(!hosts.iter().any(|host| self.is_running(*host)));
        if setup.rules.fail_fast && !not_ok.is_empty() {
            assert!(self.stopped.is_some(), "{self:#?}");
        }
        for (gate, wave) in &self.waves {
            let (entered, failed) = self.arithmetic(setup, *gate, &wave.hosts);
            let (_, max_fail) = setup.waves(*gate);
            assert!(
                failed <= max_fail.of(entered) || self.stopped.is_some(),
                "a failed wave of {gate:?} stops the run: {setup:#?} {self:#?}"
            );
        }
    }

    fn digest(&self) -> u128 {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, self).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }

    /// All states that may follow.
    fn next(&self, setup: &Setup) -> Vec<Self> {
        let mut all = Vec::new();
        let pausing = setup.blocks.iter().any(|block| matches!(&block.kind, BlockKind::Rolling(rolling) if rolling.pause > 0.0));
        let endings: &[(bool, bool)] =
            if pausing { &[(true, true), (true, false), (false, false)] } else { &[(true, false), (false, false)] };
        for (op, host) in &self.running {
            for (ok, changed) in endings {
                // What runs in the background goes on until it is ended, or fails.
                let background = setup.operations[op.index()].background && !self.ending.contains(&(*op, *host));
                if background && *ok {
                    continue;
                }
                let mut next = self.clone();
                next.ends(setup, *op, *host, *ok, *changed);
                all.push(next);
            }
        }
        for block in &self.pauses {
            let mut next = self.clone();
            next.resumes(setup, *block);
            all.push(next);
        }
        if setup.interruptible && !self.interrupted {
            let mut next = self.clone();
            next.interrupts(setup);
            all.push(next);
        }
        all
    }
}

/// Walks through every interleaving of endings, failures, pauses and an interrupt; gives the number of states.
pub fn explore(setup: &Setup) -> usize {
    let mut seen = HashSet::new();
    let mut open = vec![Walk::begin(setup)];
    while let Some(walk) = open.pop() {
        if seen.insert(walk.digest()) && !walk.finished {
            open.extend(walk.next(setup));
        }
    }
    seen.len()
}

/// One way through, chosen by these numbers; gives the number of steps.
pub fn follow(setup: &Setup, choices: &mut impl Iterator<Item = usize>) -> usize {
    let mut walk = Walk::begin(setup);
    let mut steps = 0;
    while !walk.finished {
        let mut all = walk.next(setup);
        let choice = choices.next().unwrap_or_default() % all.len();
        walk = all.swap_remove(choice);
        steps += 1;
    }
    steps
}
