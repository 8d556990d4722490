//! Nodes of one level, split per group of hosts until no order contradicts another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

/// The nodes while they are split.
pub(super) struct Split {
    /// For each node, what ties are broken by: its identity's rank, and which part it is.
    pub(super) rank: Vec<(usize, usize)>,
    /// For each host, the node of each of its units, in its own order.
    pub(super) paths: Vec<Vec<usize>>,
    /// For each host, which of its units refers to which: the one referred to first.
    handles: Vec<Vec<(usize, usize)>>,
    /// Whether the order of a host's own units counts; not so inside `parallel`.
    ordered: bool,
}

impl Split {
    /// One node for each identity, whose rank is its number.
    pub(super) fn new(identities: usize, paths: Vec<Vec<usize>>, handles: Vec<Vec<(usize, usize)>>, ordered: bool) -> Self {
        Self { rank: (0..identities).map(|rank| (rank, 0)).collect(), paths, handles, ordered }
    }

    /// Edges from each unit to the next in every host's own order, and from every unit that another one refers to. Units inside `parallel` have none.
    fn graph(&self) -> DiGraph<usize, ()> {
        let mut edges = BTreeSet::new();
        if self.ordered {
            for (path, handles) in self.paths.iter().zip(&self.handles) {
                edges.extend(path.windows(2).map(|pair| (pair[0], pair[1])));
                edges.extend(handles.iter().map(|(from, to)| (path[*from], path[*to])));
            }
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
    pub(super) fn until_acyclic(&mut self) {
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
    pub(super) fn topological(&self) -> Vec<usize> {
        let graph = self.graph();
        let mut waits: Vec<usize> = graph.node_indices().map(|node| graph.neighbors_directed(node, petgraph::Incoming).count()).collect();
        let mut ready: BinaryHeap<Reverse<((usize, usize), usize)>> = BinaryHeap::new();
        ready.extend((0..waits.len()).filter(|node| waits[*node] == 0).map(|node| Reverse((self.rank[node], node))));
        let mut nodes = Vec::with_capacity(waits.len());
        while let Some(Reverse((_, node))) = ready.pop() {
            nodes.push(node);
            for next in graph.neighbors(NodeIndex::new(node)) {
                waits[next.index()] -= 1;
                if waits[next.index()] == 0 {
                    ready.push(Reverse((self.rank[next.index()], next.index())));
                }
            }
        }
        assert_eq!(nodes.len(), self.rank.len(), "a graph without cycles has an order");
        nodes
    }
}
