//! One order over the operations of all hosts (semantics.md, section 2).
//!
//! The same operation called on several hosts is one node; a block is one node whose inside is ordered likewise; every host's own order is kept; where
//! hosts disagree, nodes are split per group of hosts. The order does not depend on which host came first, and there always is one.

mod agreement;
mod identity;
mod splitting;

use std::collections::{BTreeMap, BTreeSet};

use infra_core::condition::{CallIndex, Condition};
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::host::HostId;
use infra_core::script::{Block, BlockKind, OperationCall};

pub(crate) use agreement::outermost_parallel;
use identity::{Identity, Key};
pub(crate) use identity::{of_one_host, short_digest};
use splitting::Split;

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
#[derive(Clone, Debug, PartialEq)]
pub struct Ordered {
    /// The hosts, in inventory order, each with its call's place in its own order.
    pub calls: Vec<(HostId, usize)>,
    /// The same for all parts of an operation that was split, and different for different operations.
    pub origin: usize,
    /// The blocks around it, outermost first: places in [`Order::blocks`].
    pub blocks: Vec<usize>,
    /// The operations of the same `parallel` block that it refers to: places in [`Order::operations`].
    pub after: Vec<usize>,
}

/// A block in the order of execution.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderedBlock {
    /// What it does.
    pub kind: BlockKind,
    /// The names that hosts gave it.
    pub names: Vec<String>,
    /// Where it is called.
    pub location: Option<Location>,
    /// The same for all parts of a block that was split.
    pub origin: usize,
}

/// The order, and what was done to get it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Order {
    /// The operations, first to last.
    pub operations: Vec<Ordered>,
    /// The blocks, by their first operation.
    pub blocks: Vec<OrderedBlock>,
    /// For people: which operations and blocks were split, and why.
    pub notes: Vec<String>,
}

/// The calls of the same host that a call refers to.
pub(crate) trait Asks {
    fn asks(&self) -> Vec<CallIndex>;
}

impl Asks for OperationCall {
    fn asks(&self) -> Vec<CallIndex> {
        self.all_conditions().flat_map(Condition::calls).collect()
    }
}

/// Puts the operations of all hosts into one order.
///
/// # Errors
/// Misuse when hosts disagree on what makes an operation's or a block's turn, and where a block stands in one that it must not stand in.
pub fn order(hosts: &[HostCalls<'_>]) -> Result<Order, Box<Diagnostic>> {
    let mut sorted = hosts.to_vec();
    sorted.sort_by_key(|host| host.host);
    let identities = identity::identify(&sorted);
    agreement::agree(&sorted, &identities)?;
    let mut levels = Levels {
        hosts: &sorted,
        identities: &identities,
        origins: identities.iter().flatten().map(Vec::as_slice).collect::<BTreeSet<_>>().into_iter().zip(0..).collect(),
        block_origins: BTreeMap::new(),
        order: Order::default(),
    };
    let all = sorted.iter().enumerate().map(|(host, calls)| (host, (0..calls.calls.len()).collect())).collect();
    levels.put(all, &[], false);
    let mut order = levels.order;
    refer(&sorted, &mut order);
    Ok(order)
}

/// For each operation inside `parallel`, the ones of its block that it refers to.
fn refer(hosts: &[HostCalls<'_>], order: &mut Order) {
    let mut places: BTreeMap<(HostId, usize), usize> = BTreeMap::new();
    for (place, operation) in order.operations.iter().enumerate() {
        places.extend(operation.calls.iter().map(|call| (*call, place)));
    }
    let calls: BTreeMap<HostId, &[OperationCall]> = hosts.iter().map(|host| (host.host, host.calls)).collect();
    let block = |place: usize| order.operations[place].blocks.iter().copied().find(|at| order.blocks[*at].kind == BlockKind::Parallel);
    let after = |place: usize| {
        let own = block(place)?;
        let asked = order.operations[place].calls.iter().flat_map(|(host, at)| {
            calls[host][*at].asks().into_iter().filter_map(|to| places.get(&(*host, to as usize)).copied()).collect::<Vec<_>>()
        });
        Some(asked.filter(|to| *to != place && block(*to) == Some(own)).collect::<BTreeSet<_>>().into_iter().collect())
    };
    let found: Vec<Vec<usize>> = (0..order.operations.len()).map(|place| after(place).unwrap_or_default()).collect();
    order.operations.iter_mut().zip(found).for_each(|(operation, after)| operation.after = after);
}

/// The levels of blocks, from the outside in.
struct Levels<'a> {
    hosts: &'a [HostCalls<'a>],
    identities: &'a [Vec<Identity<'a>>],
    origins: BTreeMap<&'a [Key<'a>], usize>,
    block_origins: BTreeMap<&'a [Key<'a>], usize>,
    order: Order,
}

/// One operation or block of one host at one level: its identity down to this level, and its calls.
struct Unit<'a> {
    key: &'a [Key<'a>],
    calls: Vec<usize>,
}

impl<'a> Levels<'a> {
    /// Puts these calls of these hosts in order, which all stand inside `blocks`.
    fn put(&mut self, members: Vec<(usize, Vec<usize>)>, blocks: &[usize], in_parallel: bool) {
        let depth = blocks.len();
        let units: Vec<Vec<Unit<'a>>> = members.iter().map(|(host, calls)| self.units(*host, calls, depth)).collect();
        let keys: BTreeSet<&[Key<'_>]> = units.iter().flatten().map(|unit| unit.key).collect();
        let ranks: BTreeMap<&[Key<'_>], usize> = keys.into_iter().zip(0..).collect();
        let paths = units.iter().map(|units| units.iter().map(|unit| ranks[unit.key]).collect()).collect();
        let handles = members.iter().zip(&units).map(|((host, _), units)| self.handles(*host, units)).collect();
        let mut split = Split::new(ranks.len(), paths, handles, !in_parallel);
        split.until_acyclic();
        self.note(&split, &members, &units);
        let mut nodes: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (member, path) in split.paths.iter().enumerate() {
            for (at, node) in path.iter().enumerate() {
                nodes.entry(*node).or_default().push((member, at));
            }
        }
        for node in split.topological() {
            let parts = nodes.remove(&node).unwrap_or_default();
            let Some((member, at)) = parts.first() else { continue };
            let unit = &units[*member][*at];
            let first = &self.hosts[members[*member].0].calls[unit.calls[0]];
            let Some(block) = first.blocks.get(depth) else {
                let calls = parts.iter().map(|(member, at)| (self.hosts[members[*member].0].host, units[*member][*at].calls[0])).collect();
                let origin = self.origins[unit.key];
                self.order.operations.push(Ordered { calls, origin, blocks: blocks.to_vec(), after: Vec::new() });
                continue;
            };
            let inside: Vec<(usize, Vec<usize>)> =
                parts.iter().map(|(member, at)| (members[*member].0, units[*member][*at].calls.clone())).collect();
            let place = self.block(block, unit.key, &inside, depth);
            let within: Vec<usize> = blocks.iter().copied().chain([place]).collect();
            self.put(inside, &within, in_parallel || block.kind == BlockKind::Parallel);
        }
    }

    fn block(&mut self, block: &Block, key: &'a [Key<'a>], inside: &[(usize, Vec<usize>)], depth: usize) -> usize {
        let next = self.block_origins.len();
        let origin = *self.block_origins.entry(key).or_insert(next);
        let name = |(host, calls): &(usize, Vec<usize>)| self.hosts[*host].calls[calls[0]].blocks[depth].name.clone();
        let names = inside.iter().filter_map(name).collect();
        self.order.blocks.push(OrderedBlock { kind: block.kind.clone(), names, location: block.chain.last().cloned(), origin });
        self.order.blocks.len() - 1
    }

    /// A host's calls as the operations and blocks of one level.
    fn units(&self, host: usize, calls: &[usize], depth: usize) -> Vec<Unit<'a>> {
        let mut units: Vec<Unit<'a>> = Vec::new();
        let mut met: BTreeMap<&[Key<'_>], usize> = BTreeMap::new();
        let identities: &'a [Identity<'a>] = &self.identities[host];
        for call in calls {
            let key = &identities[*call][..=depth];
            match met.get(key) {
                Some(at) => units[*at].calls.push(*call),
                None => {
                    met.insert(key, units.len());
                    units.push(Unit { key, calls: vec![*call] });
                }
            }
        }
        units
    }

    fn handles(&self, host: usize, units: &[Unit<'_>]) -> Vec<(usize, usize)> {
        let of_call: BTreeMap<usize, usize> =
            units.iter().enumerate().flat_map(|(at, unit)| unit.calls.iter().map(move |call| (*call, at))).collect();
        let asked = |(at, unit): (usize, &Unit<'_>)| {
            let asks = unit.calls.iter().flat_map(|call| self.hosts[host].calls[*call].asks());
            asks.filter_map(|to| of_call.get(&(to as usize)).copied()).map(move |to| (to, at)).collect::<Vec<_>>()
        };
        units.iter().enumerate().flat_map(asked).filter(|(from, to)| from < to).collect()
    }

    /// For each operation or block that was split, its parts and their hosts.
    fn note(&mut self, split: &Split, members: &[(usize, Vec<usize>)], units: &[Vec<Unit<'_>>]) {
        let mut parts: BTreeMap<usize, BTreeMap<usize, Vec<(usize, usize)>>> = BTreeMap::new();
        for (member, path) in split.paths.iter().enumerate() {
            for (at, node) in path.iter().enumerate() {
                parts.entry(split.rank[*node].0).or_default().entry(*node).or_default().push((member, at));
            }
        }
        for parts in parts.into_values().filter(|parts| parts.len() > 1) {
            let names = |part: &Vec<(usize, usize)>| {
                let names: Vec<&str> = part.iter().map(|(member, _)| self.hosts[members[*member].0].name).collect();
                let more = if names.len() > 3 { format!(" and {} more", names.len() - 3) } else { String::new() };
                format!("{}{more}", names[..names.len().min(3)].join(", "))
            };
            let groups: Vec<String> = parts.values().map(names).collect();
            let (member, at) = parts.values().next().expect("more than one part")[0];
            let unit = &units[member][at];
            let call = &self.hosts[members[member].0].calls[unit.calls[0]];
            let block = call.blocks.get(unit.key.len() - 1);
            let (title, location) = match block {
                Some(block) => (block_title(&block.kind, block.name.as_slice()), block.chain.last()),
                None => (call.title(), call.location()),
            };
            let location = location.map(|location| format!(" ({location})")).unwrap_or_default();
            let count = parts.len();
            let note =
                format!("«{title}»{location} runs in {count} parts, because hosts call it in different orders: {}", groups.join("; "));
            self.order.notes.push(note);
        }
    }
}

/// A block's title for people: its name, folded where hosts give it different ones, or its kind.
pub(crate) fn block_title(kind: &BlockKind, names: &[String]) -> String {
    match (names, kind) {
        ([], BlockKind::Parallel) => "parallel".to_owned(),
        ([], BlockKind::Rolling(_)) => "rolling".to_owned(),
        (names, _) => infra_core::plan::fold_titles(names.iter().map(String::as_str)),
    }
}

#[cfg(test)]
mod tests;
