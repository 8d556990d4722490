//! Small fleets with every control, and random ones.

use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};
use proptest::prelude::*;

use super::walk::{Setup, explore, follow};
use crate::policy::{PolicyBlock, PolicyOperation, Rules};

pub fn hosts(mask: u32) -> Vec<HostId> {
    (0..8).filter(|bit| mask >> bit & 1 == 1).map(HostId).collect()
}

pub fn plain(at: usize, mask: u32) -> PolicyOperation {
    PolicyOperation {
        hosts: hosts(mask),
        serial: None,
        max_fail: Share::NONE,
        parallel: None,
        run_once: false,
        background: false,
        blocks: Vec::new(),
        after: Vec::new(),
        origin: at,
    }
}

pub fn rules(selected: usize) -> Rules {
    let max_fail = Share::NONE;
    Rules { parallel: None, fail_fast: false, fail_percent: None, serial: false, no_wait: false, max_fail, selected, not_ok: 0 }
}

fn batch(sizes: &[u32]) -> Batch {
    Batch::of(sizes.iter().map(|size| Share::Count(*size)).collect())
}

/// An operation under one of the controls.
fn controlled(mut operation: PolicyOperation, control: usize) -> PolicyOperation {
    match control {
        1 => operation.serial = Some(Batch::one()),
        2 => operation.run_once = true,
        3 => (operation.serial, operation.max_fail) = (Some(batch(&[1, 2])), Share::Percent(5000)),
        4 => operation.parallel = Some(1),
        5 => operation.background = true,
        _ => {}
    }
    operation
}

fn rolling(sizes: &[u32], max_fail: Share, pause: f64) -> BlockKind {
    BlockKind::Rolling(Rolling { batch: batch(sizes), max_fail: Some(max_fail), pause })
}

/// Blocks, and for each operation those around it.
type Layout = (Vec<BlockKind>, Vec<Vec<u32>>);

fn layouts() -> Vec<Layout> {
    vec![
        (vec![], vec![vec![], vec![], vec![]]),
        (vec![BlockKind::Parallel], vec![vec![0], vec![0], vec![]]),
        (vec![rolling(&[1], Share::NONE, 0.0)], vec![vec![0], vec![0], vec![]]),
        (vec![rolling(&[1, 2], Share::Percent(5000), 0.0)], vec![vec![], vec![0], vec![0]]),
        (vec![rolling(&[2], Share::NONE, 1.0), BlockKind::Parallel], vec![vec![0], vec![0, 1], vec![0, 1]]),
    ]
}

fn setup(masks: &[u32], controls: &[usize], (kinds, around): &Layout, rules: Rules) -> Setup {
    let operation = |(at, mask): (usize, &u32)| {
        let mut operation = controlled(plain(at, *mask), controls[at]);
        operation.blocks = around[at].iter().copied().map(BlockId).collect();
        operation.background &= operation.blocks.iter().any(|block| kinds[block.index()] == BlockKind::Parallel);
        operation
    };
    let blocks = kinds.iter().enumerate().map(|(origin, kind)| PolicyBlock { kind: kind.clone(), origin }).collect();
    Setup { operations: masks.iter().enumerate().map(operation).collect(), blocks, rules, interruptible: true }
}

fn all_rules(selected: usize) -> Vec<Rules> {
    let plain = || rules(selected);
    vec![
        plain(),
        Rules { parallel: Some(1), ..plain() },
        Rules { parallel: Some(2), fail_fast: true, ..plain() },
        Rules { fail_percent: Some(40.0), ..plain() },
        Rules { serial: true, ..plain() },
        Rules { serial: true, max_fail: Share::Percent(10_000), ..plain() },
        Rules { no_wait: true, ..plain() },
        Rules { no_wait: true, parallel: Some(2), fail_percent: Some(0.0), not_ok: 0, ..plain() },
    ]
}

/// Every control on every operation, in every layout, under every rule; gives the number of fleets and of states.
fn explore_all(masks: &[u32], rules: &[Rules], controls: usize, layouts: &[Layout], interruptible: bool) -> (usize, usize) {
    let (mut fleets, mut states) = (0, 0);
    for layout in layouts {
        for number in 0..controls.pow(masks.len() as u32) {
            let chosen: Vec<usize> = (0..masks.len()).map(|at| number / controls.pow(at as u32) % controls).collect();
            for rules in rules {
                states += explore(&Setup { interruptible, ..setup(masks, &chosen, layout, rules.clone()) });
                fleets += 1;
            }
        }
    }
    (fleets, states)
}

#[test]
fn every_interleaving_of_three_operations_keeps_the_rules() {
    let (every, some) = (all_rules(2), [&all_rules(3)[2..3], &all_rules(3)[6..7]].concat());
    let telling = [&every[..3], &every[4..5], &every[6..7]].concat();
    let two = explore_all(&[3, 3, 3], &telling, 6, &layouts(), false);
    let interrupted = explore_all(&[3, 3, 3], &every, 2, &layouts(), true);
    let three = explore_all(&[7, 3, 6], &some, 4, &layouts(), false);
    // Servers on some hosts and their load on others.
    let apart = explore_all(&[3, 6, 7], &telling, 6, &layouts()[1..], false);
    let all = [two, interrupted, three, apart];
    let (fleets, states) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{all:?}");
    println!("{states} states of {fleets} fleets of 2 and 3 hosts");
    assert!(states > 100_000, "only {states} states were tried");
}

#[test]
fn every_interleaving_of_what_was_split_keeps_the_rules() {
    let mut states = 0;
    for control in 0..5 {
        for rules in all_rules(4) {
            let part = |mask| controlled(plain(0, mask), control);
            let plan = vec![part(3), plain(1, 15), part(12)];
            states += explore(&Setup { operations: plan, blocks: vec![], rules, interruptible: false });
        }
    }
    // The parts of a block share its waves.
    for kind in [rolling(&[1], Share::NONE, 0.0), rolling(&[2], Share::Count(1), 1.0)] {
        for rules in all_rules(4) {
            let mut plan = vec![plain(0, 3), plain(1, 15), plain(0, 12)];
            (plan[0].blocks, plan[2].blocks) = (vec![BlockId(0)], vec![BlockId(1)]);
            let block = PolicyBlock { kind: kind.clone(), origin: 0 };
            states += explore(&Setup { operations: plan, blocks: vec![block.clone(), block], rules, interruptible: false });
        }
    }
    println!("{states} states of operations and blocks that were split");
    assert!(states > 1000, "only {states} states were tried");
}

/// A plan for up to four hosts and four operations: for each operation its hosts and control.
fn plans() -> impl Strategy<Value = Setup> {
    let operations = prop::collection::vec((1u32..16, 0usize..6), 1..5);
    let kinds = prop::sample::select(vec![
        rolling(&[1], Share::NONE, 0.0),
        rolling(&[2], Share::Count(1), 1.0),
        rolling(&[1, 3], Share::Percent(5000), 0.0),
        BlockKind::Parallel,
    ]);
    let rules = (prop::option::of(1usize..5), any::<bool>(), prop::option::of(0f64..80.0), 0u8..3, 0usize..2);
    (operations, kinds, 0usize..4, 1usize..5, any::<bool>(), rules).prop_map(|(operations, kind, start, length, nested, rules)| {
        let (parallel, fail_fast, fail_percent, mode, not_ok) = rules;
        let inside = |at: usize| at >= start && at < start + length;
        let nested = nested && kind != BlockKind::Parallel;
        let mut kinds = vec![kind];
        kinds.extend(nested.then_some(BlockKind::Parallel));
        let around: Vec<Vec<u32>> =
            (0..operations.len()).map(|at| if inside(at) { (0..kinds.len() as u32).collect() } else { vec![] }).collect();
        let rules = Rules {
            parallel,
            fail_fast,
            fail_percent,
            serial: mode == 1,
            no_wait: mode == 2,
            max_fail: Share::NONE,
            selected: 4 + not_ok,
            not_ok,
        };
        let masks: Vec<u32> = operations.iter().map(|(mask, _)| *mask).collect();
        let controls: Vec<usize> = operations.iter().map(|(_, control)| *control).collect();
        let mut setup = setup(&masks, &controls, &(kinds, around), rules);
        // An operation that refers to the one before it in the same block.
        for (at, mask) in masks.iter().enumerate().skip(1) {
            let apart = !setup.operations[at - 1].background && !setup.operations[at].background;
            if inside(at) && inside(at - 1) && apart && mask.is_multiple_of(3) {
                setup.operations[at].after = vec![OpId(at as u32 - 1)];
            }
        }
        setup
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_ways_through_four_hosts_and_four_operations_keep_the_rules(
        setup in plans(),
        choices in prop::collection::vec(0usize..1000, 40),
    ) {
        prop_assert!(follow(&setup, &mut choices.into_iter()) <= 40);
    }
}
