//! Every interleaving of small fleets, and the rules that hold in all of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;

/// What a walk through the policy has seen, as far as the rules need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Walk {
    policy: Policy,
    running: BTreeSet<HostId>,
    current: Option<OpId>,
    /// What came of each host's part in each operation: started here and ok, started here and not, served.
    parts: BTreeMap<(OpId, HostId), Part>,
    stopped: Option<&'static str>,
    finished: bool,
    interrupted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Running,
    Ok,
    NotOk,
    Served,
}

#[derive(Clone, Debug)]
struct Setup {
    operations: Vec<PolicyOperation>,
    parallel: Option<usize>,
    fail_fast: bool,
    interruptible: bool,
}

impl Walk {
    fn take(&mut self, setup: &Setup, orders: Vec<Order>) {
        for order in orders {
            assert!(!self.finished, "nothing after the end: {order:?}");
            match order {
                Order::BeginOperation(op) => {
                    assert!(self.current.is_none() && self.stopped.is_none() && self.running.is_empty(), "the barrier: {self:?}");
                    self.current = Some(op);
                }
                Order::Start(op, host) => self.start(setup, op, host),
                Order::Serve { op, host, from, by } => {
                    assert_eq!(self.parts.get(&(from, by)), Some(&Part::Ok), "only what ended well counts for others");
                    assert!(self.current == Some(op) && self.parts.insert((op, host), Part::Served).is_none());
                }
                Order::EndOperation(op) => {
                    assert!(self.current == Some(op) && self.running.is_empty());
                    self.current = None;
                }
                Order::Stop(StopReason::RunOnceFailed { .. }) => {}
                Order::Stop(reason) => {
                    assert!(self.stopped.is_none(), "one rule stops the run");
                    self.stopped = Some(match reason {
                        StopReason::FailFast { .. } => "fail fast",
                        StopReason::WaveFailed { .. } => "wave",
                        StopReason::Interrupted => "interrupted",
                        StopReason::NoHostLeft => "nobody",
                        StopReason::RunOnceFailed { .. } => unreachable!("taken above"),
                    });
                }
                Order::Finish => {
                    assert!(self.current.is_none() && self.running.is_empty());
                    self.finished = true;
                }
            }
        }
        if !self.finished {
            assert!(!self.running.is_empty(), "a run that waits for nobody never ends: {self:?}");
        }
        assert_eq!(self.finished, self.policy.is_finished());
        if self.finished {
            self.account(setup);
        }
    }

    fn start(&mut self, setup: &Setup, op: OpId, host: HostId) {
        let operation = &setup.operations[op.index()];
        assert_eq!(self.current, Some(op));
        assert!(self.stopped.is_none(), "nothing is started after a stop");
        assert!(operation.hosts.contains(&host), "only hosts that registered it have a part");
        assert!(self.running.insert(host));
        assert!(self.parts.insert((op, host), Part::Running).is_none(), "nobody does it twice");
        let at_once = if operation.serial || operation.run_once { 1 } else { setup.parallel.unwrap_or(usize::MAX) };
        assert!(self.running.len() <= at_once.min(setup.parallel.unwrap_or(usize::MAX)), "too many at once: {self:?}");
        assert!(!self.parts.iter().any(|((_, other), part)| *other == host && *part == Part::NotOk), "who is not ok takes no part");
        for (earlier, before) in setup.operations[..op.index()].iter().enumerate() {
            let part = self.parts.get(&(OpId(earlier as u32), host));
            if before.hosts.contains(&host) {
                assert!(matches!(part, Some(Part::Ok | Part::Served)), "each host keeps its own order and skips nothing: {self:?}");
            }
        }
        if operation.serial || operation.run_once {
            let before: Vec<HostId> = operation.hosts.iter().copied().take_while(|other| *other < host).collect();
            for other in before {
                let out = self.parts.contains_key(&(op, other)) || self.lost(setup, op, other);
                assert!(out, "inventory order: {host:?} before {other:?} in {self:?}");
            }
        }
        if operation.run_once {
            let ran = |(of, _): &&(OpId, HostId)| setup.operations[of.index()].origin == operation.origin;
            let runs = self.parts.iter().filter(|(key, part)| ran(key) && **part != Part::Served).count();
            assert_eq!(runs, 1, "once: {self:?}");
        }
    }

    /// Whether a host was out before this operation: it was not ok, or a `_run_once` took it along.
    fn lost(&self, setup: &Setup, op: OpId, host: HostId) -> bool {
        (0..op.0).any(|earlier| {
            let registered = setup.operations[earlier as usize].hosts.contains(&host);
            registered && !matches!(self.parts.get(&(OpId(earlier), host)), Some(Part::Ok | Part::Served))
        })
    }

    /// At the end every host is through, not ok, or was kept from going on by something that is said.
    fn account(&self, setup: &Setup) {
        let not_ok: BTreeSet<HostId> = self.parts.iter().filter(|(_, part)| **part == Part::NotOk).map(|((_, host), _)| *host).collect();
        let hosts: BTreeSet<HostId> = setup.operations.iter().flat_map(|operation| operation.hosts.iter().copied()).collect();
        let failed_once: BTreeSet<usize> = setup
            .operations
            .iter()
            .enumerate()
            .filter(|(at, operation)| {
                operation.run_once && operation.hosts.iter().any(|host| self.parts.get(&(OpId(*at as u32), *host)) == Some(&Part::NotOk))
            })
            .map(|(_, operation)| operation.origin)
            .collect();
        for host in hosts.difference(&not_ok) {
            let missing: Vec<&PolicyOperation> = (0..setup.operations.len())
                .filter(|at| setup.operations[*at].hosts.contains(host) && !self.parts.contains_key(&(OpId(*at as u32), *host)))
                .map(|at| &setup.operations[at])
                .collect();
            let Some(first) = missing.first() else { continue };
            let by_once = first.run_once && failed_once.contains(&first.origin);
            assert!(self.stopped.is_some_and(|reason| reason != "nobody") || by_once, "{host:?} was left out for no reason: {self:?}");
        }
        if !not_ok.is_empty() && setup.fail_fast {
            assert!(matches!(self.stopped, Some("fail fast" | "interrupted")), "{self:?}");
        }
    }
}

/// Walks through every interleaving of endings, failures and an interrupt; gives the number of states.
fn explore(setup: &Setup) -> usize {
    let policy = Policy::new(setup.operations.clone(), setup.parallel, setup.fail_fast);
    let mut first = Walk {
        policy,
        running: BTreeSet::new(),
        current: None,
        parts: BTreeMap::new(),
        stopped: None,
        finished: false,
        interrupted: false,
    };
    let orders = first.policy.begin();
    first.take(setup, orders);
    let mut seen = HashSet::new();
    let mut open = vec![first];
    while let Some(walk) = open.pop() {
        if !seen.insert(walk.clone()) || walk.finished {
            continue;
        }
        for host in walk.running.clone() {
            for ok in [true, false] {
                let mut next = walk.clone();
                next.running.remove(&host);
                let op = next.current.expect("someone is at work on it");
                next.parts.insert((op, host), if ok { Part::Ok } else { Part::NotOk });
                let orders = next.policy.ended(host, ok);
                next.take(setup, orders);
                open.push(next);
            }
        }
        if setup.interruptible && !walk.interrupted {
            let mut next = walk;
            next.interrupted = true;
            let orders = next.policy.interrupt();
            next.take(setup, orders);
            open.push(next);
        }
    }
    seen.len()
}

fn hosts(mask: u32) -> Vec<HostId> {
    (0..8).filter(|bit| mask >> bit & 1 == 1).map(HostId).collect()
}

/// Tries every control on every operation, every window, with and without `--fail-fast`; gives the number of states and of fleets.
fn explore_controls(masks: &[u32]) -> (usize, usize) {
    let mut states = 0;
    let mut fleets = 0;
    for controls in 0..3u32.pow(masks.len() as u32) {
        let operation = |(at, mask): (usize, &u32)| {
            let control = controls / 3u32.pow(at as u32) % 3;
            PolicyOperation { hosts: hosts(*mask), serial: control == 1, run_once: control == 2, origin: at }
        };
        let operations: Vec<PolicyOperation> = masks.iter().enumerate().map(operation).collect();
        for parallel in [None, Some(1), Some(2)] {
            for fail_fast in [false, true] {
                states += explore(&Setup { operations: operations.clone(), parallel, fail_fast, interruptible: true });
                fleets += 1;
            }
        }
    }
    (states, fleets)
}

#[test]
fn every_interleaving_of_three_hosts_and_three_operations_keeps_the_rules() {
    // Which hosts registered each operation: all of them, or some in each way that matters.
    let registered = [[7, 7, 7], [7, 3, 6], [3, 5, 7], [1, 6, 7], [4, 7, 2]];
    let tried: Vec<(usize, usize)> = registered.iter().map(|masks| explore_controls(masks)).collect();
    let states: usize = tried.iter().map(|(states, _)| states).sum();
    let fleets: usize = tried.iter().map(|(_, fleets)| fleets).sum();
    println!("{states} states of {fleets} fleets of 3 hosts");
    assert_eq!(fleets, 5 * 27 * 6);
    assert!(states > 40_000, "only {states} states were tried");
}

#[test]
fn every_interleaving_of_four_hosts_keeps_the_rules() {
    let (states, fleets) = explore_controls(&[15, 13, 15]);
    println!("{states} states of {fleets} fleets of 4 hosts");
    assert!(states > 20_000, "only {states} states were tried");
}

#[test]
fn the_parts_of_a_split_run_once_run_once_together() {
    let part = |mask, origin| PolicyOperation { hosts: hosts(mask), serial: false, run_once: true, origin };
    let plain = PolicyOperation { hosts: hosts(7), serial: false, run_once: false, origin: 1 };
    let setup = Setup { operations: vec![part(3, 0), plain, part(4, 0)], parallel: None, fail_fast: false, interruptible: true };
    assert!(explore(&setup) > 10);
}

#[test]
fn nothing_planned_ends_at_once() {
    let mut policy = Policy::new(Vec::new(), None, false);
    assert_eq!(policy.begin(), [Order::Finish]);
    assert_eq!(policy.interrupt(), []);
}
