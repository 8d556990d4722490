//! One order over the operations of all hosts (semantics.md, section 2).
//!
//! The same operation called on several hosts is one node; every host's own order is kept; where hosts disagree, nodes are split per group of
//! hosts. The order does not depend on which host came first, and there always is one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::host::HostId;
use infra_core::script::OperationCall;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

/// One host's calls, in its own order.
#[derive(Clone, Copy, Debug)]
pub struct HostCalls<'a> {
    /// The host.
    pub host: HostId,
    /// Its name, for notes and errors.
    pub name: &'a str,
    /// Its calls; a call's number is its place here.
    pub calls: &'a [OperationCall],
}

/// One operation in the order of execution, and the calls that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The hosts, in inventory order, each with its call's place in its own order.
    pub calls: Vec<(HostId, usize)>,
    /// The same for all parts of an operation that was split, and different for different operations.
    pub origin: usize,
}

/// The order, and what was done to get it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The operations, first to last.
    pub operations: Vec<Ordered>,
    /// For people: which operations were split, and why.
    pub notes: Vec<String>,
}

/// What tells one call place from another, and which of two comes first where nothing else says: the deploy file's place on the command line, the
/// chain of calls (line, then file), the kind, the blocks around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place<'a> {
    deploy: u32,
    chain: Vec<(u32, &'a str)>,
    kind: &'a str,
    blocks: &'a [String],
}

/// What tells one operation from another: its place, and where some host comes by there more than once, its name and the count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Identity<'a> {
    place: Place<'a>,
    turn: Option<(Option<&'a str>, usize)>,
}

impl<'a> Place<'a> {
    fn of(call: &'a OperationCall) -> Self {
        let chain = call.chain.iter().map(|Location { file, line }| (*line, file.as_str())).collect();
        Self { deploy: call.deploy, chain, kind: &call.kind, blocks: &call.path }
    }
}

/// Puts the operations of all hosts into one order.
///
/// # Errors
/// Misuse when hosts give `_serial` or `_run_once` differently to one operation.
pub fn order(hosts: &[HostCalls<'_>]) -> Result<Order, Box<Diagnostic>> {
    let mut sorted = hosts.to_vec();
    sorted.sort_by_key(|host| host.host);
    let identities = identify(&sorted);
    agree(&sorted, &identities)?;
    let mut split = Split::new(&sorted, &identities);
    split.until_acyclic();
    Ok(Order { operations: split.topological(), notes: split.notes() })
}

/// The identity of every call, host by host.
fn identify<'a>(hosts: &[HostCalls<'a>]) -> Vec<Vec<Identity<'a>>> {
    let mut repeated = BTreeSet::new();
    for host in hosts {
        let mut met = BTreeSet::new();
        repeated.extend(host.calls.iter().map(Place::of).filter(|place| !met.insert(place.clone())));
    }
    let identity = |call: &'a OperationCall, counts: &mut HashMap<(Place<'a>, Option<&'a str>), usize>| {
        let place = Place::of(call);
        let turn = repeated.contains(&place).then(|| {
            let name = call.name.as_deref();
            let count = counts.entry((place.clone(), name)).or_default();
            *count += 1;
            (name, *count)
        });
        Identity { place, turn }
    };
    let of_host = |host: &HostCalls<'a>| {
        let mut counts = HashMap::new();
        host.calls.iter().map(|call| identity(call, &mut counts)).collect()
    };
    hosts.iter().map(of_host).collect()
}

/// Checks that hosts agree on what an operation's turn is.
fn agree(hosts: &[HostCalls<'_>], identities: &[Vec<Identity<'_>>]) -> Result<(), Box<Diagnostic>> {
    let mut first: HashMap<&Identity<'_>, (&str, &OperationCall)> = HashMap::new();
    for (host, identities) in hosts.iter().zip(identities) {
        for (call, identity) in host.calls.iter().zip(identities) {
            let (other, before) = *first.entry(identity).or_insert((host.name, call));
            let serial = (before.globals.serial.unwrap_or(false), call.globals.serial.unwrap_or(false));
            let run_once = (before.globals.run_once.unwrap_or(false), call.globals.run_once.unwrap_or(false));
            for (argument, (theirs, ours)) in [("_serial", serial), ("_run_once", run_once)] {
                if theirs != ours {
                    let message = format!("`{argument}` is {theirs} on {other} and {ours} on {}: hosts must agree on it", host.name);
                    let mut diagnostic = Diagnostic::misuse(message);
                    diagnostic.location = call.location().cloned();
                    diagnostic.chain = call.chain.clone();
                    diagnostic.hint = Some("give it without looking at the host, or call two operations on two lines".to_owned());
                    return Err(Box::new(diagnostic));
                }
            }
        }
    }
    Ok(())
}

/// The nodes while they are split: for each host, the node of each of its calls.
struct Split<'a> {
    /// For each node, what ties are broken by: its identity's rank, and which part it is.
    rank: Vec<(usize, usize)>,
    /// For each host, the node of each of its calls.
    paths: Vec<Vec<usize>>,
    /// For each host, the calls that each call's conditions ask about.
    handles: Vec<Vec<(usize, usize)>>,
    hosts: &'a [HostCalls<'a>],
}

impl<'a> Split<'a> {
    fn new(hosts: &'a [HostCalls<'a>], identities: &[Vec<Identity<'_>>]) -> Self {
        let ranks: BTreeMap<&Identity<'_>, usize> = {
            let all: BTreeSet<_> = identities.iter().flatten().collect();
            all.into_iter().enumerate().map(|(rank, identity)| (identity, rank)).collect()
        };
        let handles = |host: &HostCalls<'_>| {
            let asked = |call: &OperationCall| {
                call.when.iter().chain(call.conditions.iter().map(|(_, one)| one)).flat_map(|one| one.calls()).collect::<Vec<_>>()
            };
            let edges = host.calls.iter().enumerate().flat_map(|(at, call)| asked(call).into_iter().map(move |to| (to as usize, at)));
            edges.filter(|(from, to)| from < to).collect()
        };
        Self {
            rank: (0..ranks.len()).map(|rank| (rank, 0)).collect(),
            paths: identities.iter().map(|list| list.iter().map(|identity| ranks[identity]).collect()).collect(),
            handles: hosts.iter().map(handles).collect(),
            hosts,
        }
    }

    /// Edges from each operation to the next in every host's own order, and from every operation that a condition asks about.
    fn graph(&self) -> DiGraph<usize, ()> {
        let mut edges = BTreeSet::new();
        for (path, handles) in self.paths.iter().zip(&self.handles) {
            edges.extend(path.windows(2).map(|pair| (pair[0], pair[1])));
            edges.extend(handles.iter().map(|(from, to)| (path[*from], path[*to])));
        }
        let mut graph = DiGraph::with_capacity(self.rank.len(), edges.len());
        for node in 0..self.rank.len() {
            graph.add_node(node);
        }
        for (from, to) in edges {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
        }
        graph
    }

    /// Splits nodes until there is no cycle. In each strongly connected component the node with most ways through it is split, one
    /// part for each group of hosts that go through the component in the same order.
    ///
    /// It ends: hosts of one group agree, so a component in which every node belongs to one group has no cycle; there is a node to be split as long
    /// as there is a component, and a part of one group is never split for the same component again.
    fn until_acyclic(&mut self) {
        loop {
            let graph = self.graph();
            let components: Vec<BTreeSet<usize>> = petgraph::algo::tarjan_scc(&graph)
                .into_iter()
                .filter(|component| component.len() > 1)
                .map(|component| component.into_iter().map(NodeIndex::index).collect())
                .collect();
            if components.is_empty() {
                return;
            }
            for component in components {
                let (node, parts) = self.choose(&graph, &component);
                self.split(node, &parts);
            }
        }
    }

    /// For each operation that was split, its parts and their hosts.
    fn notes(&self) -> Vec<String> {
        let mut operations: BTreeMap<usize, BTreeMap<usize, Vec<&'a str>>> = BTreeMap::new();
        for (host, path) in self.hosts.iter().zip(&self.paths) {
            for node in path {
                operations.entry(self.rank[*node].0).or_default().entry(*node).or_default().push(host.name);
            }
        }
        let shown = |hosts: &Vec<&str>| {
            let more = if hosts.len() > 3 { format!(" and {} more", hosts.len() - 3) } else { String::new() };
            format!("{}{more}", hosts[..hosts.len().min(3)].join(", "))
        };
        let note = |parts: &BTreeMap<usize, Vec<&str>>| {
            let (title, location) = parts.keys().next().map(|node| self.title(*node)).unwrap_or_default();
            let groups: Vec<String> = parts.values().map(shown).collect();
            let count = parts.len();
            format!("«{title}»{location} runs in {count} parts, because hosts call it in different orders: {}", groups.join("; "))
        };
        operations.values().filter(|parts| parts.len() > 1).map(note).collect()
    }

    /// The node of a component that is split next, and the groups of hosts that get a part each, in inventory order.
    fn choose(&self, graph: &DiGraph<usize, ()>, component: &BTreeSet<usize>) -> (usize, Vec<Vec<usize>>) {
        let mut groups: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let mut members: BTreeMap<usize, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        for (host, path) in self.paths.iter().enumerate() {
            let through: Vec<usize> = path.iter().copied().filter(|node| component.contains(node)).collect();
            if through.is_empty() {
                continue;
            }
            let next = groups.len();
            let group = *groups.entry(through.clone()).or_insert(next);
            for node in through {
                members.entry(node).or_default().entry(group).or_default().push(host);
            }
        }
        let ways = |node: usize| {
            let at = NodeIndex::new(node);
            let inward = graph.edges_directed(at, petgraph::Incoming).filter(|edge| component.contains(&edge.source().index())).count();
            let outward = graph.edges_directed(at, petgraph::Outgoing).filter(|edge| component.contains(&edge.target().index())).count();
            inward * outward
        };
        let (node, parts) = members
            .into_iter()
            .filter(|(_, parts)| parts.len() > 1)
            .max_by_key(|(node, _)| (ways(*node), Reverse(self.rank[*node])))
            .expect("a component of hosts that agree has no cycle");
        let mut parts: Vec<Vec<usize>> = parts.into_values().collect();
        parts.sort();
        (node, parts)
    }

    fn title(&self, node: usize) -> (String, String) {
        let call = self.hosts.iter().zip(&self.paths).find_map(|(host, path)| {
            let at = path.iter().position(|found| *found == node)?;
            Some(&host.calls[at])
        });
        let location = call.and_then(OperationCall::location).map(|location| format!(" ({location})"));
        (call.map(OperationCall::title).unwrap_or_default(), location.unwrap_or_default())
    }

    /// Gives each group but the first a node of its own.
    fn split(&mut self, node: usize, parts: &[Vec<usize>]) {
        let (rank, _) = self.rank[node];
        for part in &parts[1..] {
            let copies = self.rank.iter().filter(|(other, _)| *other == rank).count();
            let copy = self.rank.len();
            self.rank.push((rank, copies));
            for host in part {
                self.paths[*host].iter_mut().filter(|found| **found == node).for_each(|found| *found = copy);
            }
        }
    }

    /// Kahn's algorithm; of the nodes that may come next, the one of the lowest rank does.
    fn topological(&self) -> Vec<Ordered> {
        let graph = self.graph();
        let mut calls: Vec<Vec<(HostId, usize)>> = vec![Vec::new(); self.rank.len()];
        for (host, path) in self.hosts.iter().zip(&self.paths) {
            for (at, node) in path.iter().enumerate() {
                calls[*node].push((host.host, at));
            }
        }
        let mut waits: Vec<usize> = graph.node_indices().map(|node| graph.neighbors_directed(node, petgraph::Incoming).count()).collect();
        let mut ready: BinaryHeap<Reverse<((usize, usize), usize)>> = BinaryHeap::new();
        ready.extend((0..waits.len()).filter(|node| waits[*node] == 0).map(|node| Reverse((self.rank[node], node))));
        let mut operations = Vec::with_capacity(waits.len());
        while let Some(Reverse(((origin, _), node))) = ready.pop() {
            operations.push(Ordered { calls: std::mem::take(&mut calls[node]), origin });
            for next in graph.neighbors(NodeIndex::new(node)) {
                waits[next.index()] -= 1;
                if waits[next.index()] == 0 {
                    ready.push(Reverse((self.rank[next.index()], next.index())));
                }
            }
        }
        assert_eq!(operations.len(), self.rank.len(), "a graph without cycles has an order");
        operations
    }
}

#[cfg(test)]
mod tests;
