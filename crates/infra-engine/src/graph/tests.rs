//! Orders by table, and the rules that hold for all of them.

use infra_core::Map;
use infra_core::condition::{Condition, Did};
use infra_core::global_arguments::GlobalArguments;
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
