//! Orders by table, and the rules that hold for all of them.

use infra_core::Map;
use infra_core::condition::{Condition, Did};
use infra_core::global_arguments::GlobalArguments;
use infra_core::late::Late;
use infra_core::script::Rolling;
use proptest::prelude::*;

use super::*;

fn call(at: usize, line: u32, name: Option<&str>) -> OperationCall {
    chained(at, &[("deploy.lua", line)], name)
}

fn chained(at: usize, chain: &[(&str, u32)], name: Option<&str>) -> OperationCall {
    OperationCall {
        call: at as u32,
        kind: "made.up".into(),
        name: name.map(str::to_owned),
        path: Vec::new(),
        blocks: Vec::new(),
        arguments: Map::new(),
        conditions: Vec::new(),
        when: Vec::new(),
        globals: GlobalArguments::default(),
        chain: chain.iter().map(|(file, line)| Location { file: (*file).to_owned(), line: *line }).collect(),
        deploy: 0,
        late: Late::default(),
        on: None,
    }
}

/// One host's script: a line, and a name where it has one.
type Lines = Vec<(u32, Option<&'static str>)>;

fn calls(lines: &Lines) -> Vec<OperationCall> {
    lines.iter().enumerate().map(|(at, (line, name))| call(at, *line, *name)).collect()
}

fn ordered(scripts: &[Vec<OperationCall>], turn: impl IntoIterator<Item = usize>) -> Order {
    let names = ["a", "b", "c", "d", "e"];
    let hosts: Vec<HostCalls<'_>> =
        turn.into_iter().map(|host| HostCalls { host: HostId(host as u32), name: names[host], calls: &scripts[host] }).collect();
    order(&hosts).expect("the hosts agree")
}

/// The order in words: for each operation, its line and the hosts.
fn words(scripts: &[Lines]) -> Vec<String> {
    let scripts: Vec<Vec<OperationCall>> = scripts.iter().map(calls).collect();
    let order = ordered(&scripts, 0..scripts.len());
    let word = |operation: &Ordered| {
        let (host, at) = operation.calls[0];
        let call = &scripts[host.index()][at];
        let hosts: String = operation.calls.iter().map(|(host, _)| ["a", "b", "c", "d", "e"][host.index()]).collect();
        format!("{}{} {hosts}", call.chain[0].line, call.name.as_deref().unwrap_or_default())
    };
    order.operations.iter().map(word).collect()
}

#[test]
fn the_same_call_on_several_hosts_is_one_operation() {
    let table: [(&[Lines], &[&str]); 8] = [
        (&[vec![(1, None), (2, None)], vec![(1, None), (2, None)]], &["1 ab", "2 ab"]),
        // A conditional: who does not come by has no part.
        (&[vec![(1, None), (3, None)], vec![(2, None), (3, None)]], &["1 a", "2 b", "3 ab"]),
        // A name with the host's own in it does not make two of it.
        (&[vec![(1, Some("of a"))], vec![(1, Some("of b"))]], &["1of a ab"]),
        // A loop: first the name tells the calls apart.
        (&[vec![(1, Some("x")), (1, Some("y"))], vec![(1, Some("x")), (1, Some("y"))]], &["1x ab", "1y ab"]),
        (&[vec![(1, Some("x")), (1, Some("y"))], vec![(1, Some("y"))]], &["1x a", "1y ab"]),
        // Then the count.
        (&[vec![(1, None), (1, None)], vec![(1, None)]], &["1 ab", "1 a"]),
        // The body of a loop stays together.
        (&[vec![(1, None), (2, None), (1, None), (2, None)], vec![(1, None), (2, None)]], &["1 ab", "2 ab", "1 a", "2 a"]),
        // A function called from below its place.
        (&[vec![(9, None), (2, None)], vec![(9, None), (2, None)]], &["9 ab", "2 ab"]),
    ];
    for (scripts, expected) in table {
        assert_eq!(words(scripts), expected, "{scripts:?}");
    }
}

#[test]
fn ties_are_broken_by_the_deploy_file_then_line_by_line_down_the_chain() {
    let mut first = chained(0, &[("b.lua", 9)], None);
    let second = vec![chained(0, &[("a.lua", 1), ("z.lua", 5)], None)];
    let third = vec![chained(0, &[("a.lua", 1), ("z.lua", 3)], None)];
    let last = vec![chained(0, &[("a.lua", 1), ("a.lua", 5)], None)];
    let scripts = |first: OperationCall| vec![vec![first], second.clone(), third.clone(), last.clone()];
    let hosts = |order: Order| order.operations.iter().map(|operation| operation.calls[0].0.0).collect::<Vec<_>>();
    assert_eq!(hosts(ordered(&scripts(first.clone()), 0..4)), [2, 3, 1, 0]);
    for others in [1, 2] {
        let mut later = scripts(first.clone());
        later.iter_mut().skip(1).flatten().for_each(|call| call.deploy = others);
        first.deploy = 0;
        assert_eq!(hosts(ordered(&later, 0..4)), [0, 2, 3, 1]);
    }
}

#[test]
fn opposite_orders_are_split_and_said() {
    let scripts: Vec<Vec<OperationCall>> =
        [vec![(1, None), (2, None)], vec![(2, None), (1, None)], vec![(1, None), (2, None)]].iter().map(calls).collect();
    let order = ordered(&scripts, 0..3);
    assert_eq!(order.operations.len(), 3, "one of the two is split, once");
    assert_eq!(order.notes, ["«made.up» (deploy.lua:1) runs in 2 parts, because hosts call it in different orders: a, c; b"]);
    let origins: BTreeSet<usize> = order.operations.iter().map(|operation| operation.origin).collect();
    assert_eq!(origins.len(), 2, "the parts share their origin");
}

#[test]
fn handles_are_edges_too() {
    let mut scripts = vec![calls(&vec![(5, None), (1, None)])];
    scripts[0][1].when = vec![Condition::Outcome(0, Did::Change)];
    assert_eq!(ordered(&scripts, [0]).operations.iter().map(|operation| operation.calls[0].1).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn every_handle_of_a_condition_is_an_edge() {
    let not = |one| Condition::Not(Box::new(one));
    for condition in [not(Condition::Outcome(0, Did::Change)), Condition::AnyHost(0), Condition::Any(vec![not(Condition::AnyHost(0))])] {
        let mut scripts = vec![calls(&vec![(5, None), (1, None)])];
        scripts[0][1].conditions = vec![("restarted".into(), condition)];
        assert_eq!(scripts[0][1].asks(), [0]);
        assert_eq!(ordered(&scripts, [0]).operations.iter().map(|operation| operation.calls[0].1).collect::<Vec<_>>(), [0, 1]);
    }
}

/// The same call inside one more block, which stands on this line.
fn inside(mut call: OperationCall, kind: BlockKind, line: u32, turn: u32) -> OperationCall {
    let chain = vec![Location { file: "deploy.lua".to_owned(), line }];
    call.blocks.push(Block { kind, name: None, chain, turn });
    call
}

fn rolling() -> BlockKind {
    BlockKind::Rolling(Rolling::default())
}

/// For each operation its line and the blocks around it.
fn lines_and_blocks(order: &Order, scripts: &[Vec<OperationCall>]) -> Vec<(u32, Vec<usize>)> {
    let line = |operation: &Ordered| {
        let (host, at) = operation.calls[0];
        (scripts[host.index()][at].chain[0].line, operation.blocks.clone())
    };
    order.operations.iter().map(line).collect()
}

#[test]
fn a_block_is_one_node() {
    // What stands behind the block for one host does not come between its operations for another.
    let one = vec![inside(call(0, 3, None), rolling(), 2, 0), call(1, 9, None)];
    let other = vec![call(0, 1, None), inside(call(1, 4, None), rolling(), 2, 0), call(2, 9, None)];
    let scripts = [one, other];
    let order = ordered(&scripts, 0..2);
    assert_eq!(lines_and_blocks(&order, &scripts), [(1, vec![]), (3, vec![0]), (4, vec![0]), (9, vec![])]);
    assert_eq!((order.blocks.len(), order.notes.len()), (1, 0));
}

#[test]
fn inside_parallel_there_is_no_order_but_a_stable_one() {
    let parallel = |at, line| inside(call(at, line, None), BlockKind::Parallel, 2, 0);
    let scripts = [vec![parallel(0, 4), parallel(1, 3)], vec![parallel(0, 3), parallel(1, 4)]];
    let order = ordered(&scripts, 0..2);
    assert_eq!(lines_and_blocks(&order, &scripts), [(3, vec![0]), (4, vec![0])]);
    assert_eq!(order.notes, Vec::<String>::new());
    let mut asking = scripts.clone();
    asking[1][1].when = vec![Condition::Outcome(0, Did::Change)];
    let after: Vec<Vec<usize>> = ordered(&asking, 0..2).operations.into_iter().map(|operation| operation.after).collect();
    assert_eq!(after, [vec![], vec![0]]);
}

#[test]
fn each_turn_of_a_loop_is_a_block_of_its_own() {
    let turn = |at, turn| inside(call(at, 3, None), rolling(), 2, turn);
    let scripts = [vec![turn(0, 0), turn(1, 1)], vec![turn(0, 0)]];
    let order = ordered(&scripts, 0..2);
    assert_eq!(lines_and_blocks(&order, &scripts), [(3, vec![0]), (3, vec![1])]);
    assert_eq!(order.operations[0].calls.len(), 2);
}

#[test]
fn blocks_are_split_as_a_whole_and_share_their_origin() {
    let block = |at| [inside(call(at, 3, None), rolling(), 2, 0), inside(call(at + 1, 4, None), rolling(), 2, 0)];
    let plain = |at| [call(at, 8, None)];
    let scripts = [[block(0).to_vec(), plain(2).to_vec()].concat(), [plain(0).to_vec(), block(1).to_vec()].concat()];
    let order = ordered(&scripts, 0..2);
    let found = lines_and_blocks(&order, &scripts);
    if order.blocks.len() == 2 {
        assert_eq!(found, [(3, vec![0]), (4, vec![0]), (8, vec![]), (3, vec![1]), (4, vec![1])]);
        assert_eq!(order.blocks[0].origin, order.blocks[1].origin);
        assert_eq!(order.operations[0].origin, order.operations[3].origin);
    } else {
        assert_eq!(found, [(8, vec![]), (3, vec![0]), (4, vec![0]), (8, vec![])]);
        assert_eq!(order.operations[0].origin, order.operations[3].origin);
    }
    assert_eq!(order.notes.len(), 1, "{:?}", order.notes);
}

#[test]
fn names_of_blocks_tell_nothing_apart() {
    let named = |host: &str| {
        let mut call = inside(call(0, 3, None), rolling(), 2, 0);
        call.blocks[0].name = Some(format!("restart of {host}"));
        call.path = vec![format!("set up {host}")];
        vec![call]
    };
    let order = ordered(&[named("a"), named("b")], 0..2);
    assert_eq!((order.operations.len(), order.blocks.len()), (1, 1));
    assert_eq!(block_title(&order.blocks[0].kind, &order.blocks[0].names), "restart of *");
}

#[test]
fn nobody_and_nothing_have_an_order() {
    assert_eq!(order(&[]).expect("nobody disagrees"), Order::default());
    assert_eq!(ordered(&[Vec::new()], [0]), Order::default());
}

fn scripts() -> impl Strategy<Value = Vec<Lines>> {
    let name = prop_oneof![Just(None), Just(Some("x")), Just(Some("y")), Just(Some("z"))];
    // Few lines and many calls: loops over different lists, conditionals, and hosts that go the other way.
    prop::collection::vec(prop::collection::vec((1u32..5, name), 0..9), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_is_always_one_order_and_it_keeps_every_hosts_own(scripts in scripts(), seed in any::<u64>()) {
        let calls: Vec<Vec<OperationCall>> = scripts.iter().map(calls).collect();
        let found = ordered(&calls, 0..calls.len());
        // Whoever was prepared first.
        let mut turn: Vec<usize> = (0..calls.len()).collect();
        turn.sort_by_key(|host| seed.rotate_left(*host as u32 * 13) ^ (*host as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        prop_assert_eq!(&ordered(&calls, turn), &found);
        for (host, own) in calls.iter().enumerate() {
            let seen: Vec<usize> = found
                .operations
                .iter()
                .flat_map(|operation| operation.calls.iter().filter(|(other, _)| other.index() == host).map(|(_, at)| *at))
                .collect();
            prop_assert_eq!(seen, (0..own.len()).collect::<Vec<_>>(), "host {} keeps its order", host);
        }
        for operation in &found.operations {
            prop_assert!(operation.calls.windows(2).all(|pair| pair[0].0 < pair[1].0), "each host once, in inventory order");
            let lines: BTreeSet<u32> = operation.calls.iter().map(|(host, at)| calls[host.index()][*at].chain[0].line).collect();
            prop_assert_eq!(lines.len(), 1);
        }
        // Where nobody disagrees, nothing is split: each operation's origin is its own.
        let origins: BTreeSet<usize> = found.operations.iter().map(|operation| operation.origin).collect();
        prop_assert_eq!(found.notes.is_empty(), origins.len() == found.operations.len());
        if calls.windows(2).all(|pair| pair[0] == pair[1]) {
            prop_assert!(found.notes.is_empty());
            prop_assert_eq!(found.operations.len(), calls[0].len());
        }
    }
}

/// Random scripts with blocks: for each host, lines and the block around each: none, `rolling`, `parallel`, or `parallel` inside `rolling`.
fn blocked() -> impl Strategy<Value = Vec<Vec<OperationCall>>> {
    prop::collection::vec(prop::collection::vec((1u32..4, prop::collection::vec(5u32..8, 1..4), 0u8..4), 0..5), 1..5).prop_map(|hosts| {
        hosts
            .into_iter()
            .map(|units| {
                let mut calls = Vec::new();
                let mut turns = BTreeMap::new();
                for (place, lines, kind) in units {
                    let turn = turns.entry((place, kind)).or_insert(0);
                    for line in lines {
                        let one = call(calls.len(), line, None);
                        let outer = 10 * place + u32::from(kind);
                        calls.push(match kind {
                            1 => inside(one, rolling(), outer, *turn),
                            2 => inside(one, BlockKind::Parallel, outer, *turn),
                            3 => inside(inside(one, rolling(), outer, *turn), BlockKind::Parallel, outer + 1, *turn),
                            _ => one,
                        });
                    }
                    *turn += 1;
                }
                calls
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_stand_together_and_every_host_keeps_its_order(scripts in blocked()) {
        let found = ordered(&scripts, 0..scripts.len());
        prop_assert_eq!(&ordered(&scripts, (0..scripts.len()).rev()), &found);
        for block in 0..found.blocks.len() {
            let places: Vec<usize> = (0..found.operations.len()).filter(|at| found.operations[*at].blocks.contains(&block)).collect();
            prop_assert!(!places.is_empty() && places.windows(2).all(|pair| pair[1] == pair[0] + 1), "block {} stands together", block);
        }
        for (host, own) in scripts.iter().enumerate() {
            let calls = found.operations.iter().flat_map(|operation| operation.calls.iter().map(move |call| (operation, call)));
            let seen: Vec<usize> = calls.filter(|(_, (other, _))| other.index() == host).map(|(_, (_, at))| *at).collect();
            prop_assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>().len(), own.len());
            for pair in seen.windows(2) {
                let together = own[pair[0]].blocks.len() == own[pair[1]].blocks.len()
                    && own[pair[0]].blocks == own[pair[1]].blocks
                    && outermost_parallel(&own[pair[0]]).is_some();
                prop_assert!(pair[0] < pair[1] || together, "host {} keeps its order: {:?}", host, seen);
            }
        }
    }
}
