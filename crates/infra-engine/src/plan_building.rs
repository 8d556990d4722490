//! From what each host will do to one plan over all hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use infra_core::arguments::{self, LOCAL_DESTINATION};
use infra_core::condition::{Condition, Known};
use infra_core::diagnostic::Diagnostic;
use infra_core::earlier::{Continuation, EarlierNote};
use infra_core::host::HostId;
use infra_core::operation::Idempotence;
use infra_core::plan::{BlockId, HostOutlook, OpId, Outlook, Plan, PlannedBlock, PlannedOperation, fold_titles};
use infra_core::registry::Registry;
use infra_core::resources::normal_path;
use infra_core::script::{BlockKind, OperationCall, Rolling};
use infra_core::waves::Share;

use crate::graph::{self, HostCalls, Ordered, OrderedBlock, block_title};
use crate::policy::{PolicyBlock, PolicyOperation};
use crate::prepare::Prepared;

/// The plan, and what execution needs to know of it besides.
pub(crate) struct Built {
    pub(crate) plan: Arc<Plan>,
    pub(crate) operations: Vec<PolicyOperation>,
    pub(crate) blocks: Vec<PolicyBlock>,
}

/// Puts the operations of all hosts in order and says what becomes of each. `max_fail` is what waves allow that do not say so themselves.
///
/// # Errors
/// Misuse when hosts disagree where they must not.
pub(crate) fn build(hosts: &BTreeMap<HostId, (String, Prepared)>, registry: &Registry, max_fail: Share) -> Result<Built, Box<Diagnostic>> {
    let calls: Vec<HostCalls<'_>> =
        hosts.iter().map(|(host, (name, prepared))| HostCalls { host: *host, name, calls: &prepared.calls }).collect();
    let order = graph::order(&calls)?;
    one_writer_each(&calls, registry)?;
    let mut operations = Vec::with_capacity(order.operations.len());
    let mut policy = Vec::with_capacity(order.operations.len());
    let mut earlier = Vec::new();
    let mut ran: BTreeMap<usize, (String, Outlook)> = BTreeMap::new();
    for (place, ordered) in order.operations.iter().enumerate() {
        let id = op_id(place);
        let mut planned = planned(id, ordered, hosts, registry);
        if planned.run_once {
            count_for_all(&mut planned, ran.entry(ordered.origin), hosts);
        }
        let (host, at) = &ordered.calls[0];
        let globals = &hosts[host].1.calls[*at].globals;
        policy.push(PolicyOperation {
            hosts: planned.hosts.iter().map(|one| one.host).collect(),
            serial: planned.serial.clone(),
            max_fail: globals.max_fail.unwrap_or(max_fail),
            parallel: globals.parallel.map(|parallel| parallel as usize),
            run_once: planned.run_once,
            background: globals.background.unwrap_or(false),
            blocks: planned.blocks.clone(),
            after: ordered.after.iter().map(|at| op_id(*at)).collect(),
            origin: ordered.origin,
        });
        earlier.extend(notes(id, ordered, hosts));
        operations.push(planned);
    }
    let blocks = order.blocks.iter().enumerate().map(|(at, block)| planned_block(at, block, max_fail)).collect();
    let policy_blocks =
        order.blocks.iter().map(|block| PolicyBlock { kind: with_default(&block.kind, max_fail), origin: block.origin }).collect();
    Ok(Built { plan: Arc::new(Plan { operations, blocks, notes: order.notes, earlier }), operations: policy, blocks: policy_blocks })
}

/// Makes sure that no two hosts write the same file of the controller.
fn one_writer_each(hosts: &[HostCalls<'_>], registry: &Registry) -> Result<(), Box<Diagnostic>> {
    let mut writers: BTreeMap<String, &str> = BTreeMap::new();
    for host in hosts {
        for call in host.calls.iter().filter(|call| !call.globals.run_once.unwrap_or(false)) {
            let never = Condition::All(call.when.clone()).decide(&|_| Known::OPEN) == Some(false);
            let Some(definition) = registry.operation(&call.kind).filter(|_| !never) else { continue };
            let written = call.arguments.iter().filter(|(name, _)| arguments::is_marked(&definition.schema, name, LOCAL_DESTINATION));
            for (name, path) in written.filter_map(|(name, value)| Some((name, value.as_str()?))) {
                // Into a directory the file comes under the name of its source.
                let source = call.arguments.get("src").and_then(|src| src.as_str()).and_then(|src| src.rsplit('/').next());
                let path =
                    normal_path(&if path.ends_with('/') { format!("{path}{}", source.unwrap_or_default()) } else { path.to_owned() });
                let writer = *writers.entry(path.clone()).or_insert(host.name);
                if writer == host.name {
                    continue;
                }
                let mut diagnostic =
                    Diagnostic::misuse(format!("{}: {writer} and {} would both write {path} on this machine", call.kind, host.name));
                diagnostic.location = call.chain.last().cloned();
                diagnostic.chain.clone_from(&call.chain);
                diagnostic.hint = Some(format!("put the host's name into it, such as {name} = \"results/\" .. host.name .. \"/out.csv\""));
                return Err(Box::new(diagnostic));
            }
        }
    }
    Ok(())
}

/// The block with what is allowed to fail in its waves, where it does not say so itself.
fn with_default(kind: &BlockKind, max_fail: Share) -> BlockKind {
    match kind {
        BlockKind::Rolling(rolling) => BlockKind::Rolling(Rolling { max_fail: rolling.max_fail.or(Some(max_fail)), ..rolling.clone() }),
        BlockKind::Parallel => BlockKind::Parallel,
    }
}

fn op_id(place: usize) -> OpId {
    OpId(u32::try_from(place).expect("a plan has fewer than 2^32 operations"))
}

fn block_id(place: usize) -> BlockId {
    BlockId(u32::try_from(place).expect("a plan has fewer than 2^32 blocks"))
}

fn planned_block(at: usize, block: &OrderedBlock, max_fail: Share) -> PlannedBlock {
    let kind = block_title(&block.kind, &[]);
    let title = match (&block.names[..], &block.location) {
        ([], Some(location)) => format!("{kind} at {location}"),
        (names, _) => block_title(&block.kind, names),
    };
    PlannedBlock { id: block_id(at), kind: with_default(&block.kind, max_fail), title, location: block.location.clone() }
}

fn planned(id: OpId, ordered: &Ordered, hosts: &BTreeMap<HostId, (String, Prepared)>, registry: &Registry) -> PlannedOperation {
    let call = |host: &HostId, at: usize| &hosts[host].1.calls[at];
    let (first_host, first_at) = &ordered.calls[0];
    let first: &OperationCall = call(first_host, *first_at);
    // Before they are folded: what two secrets share at their ends is a part of both.
    let title = |host: &HostId, at: usize| hosts[host].1.sites.own().secrets.mask(&call(host, at).title()).into_owned();
    let titles: Vec<String> = ordered.calls.iter().map(|(host, at)| title(host, *at)).collect();
    PlannedOperation {
        id,
        kind: first.kind.clone(),
        title: fold_titles(titles.iter().map(String::as_str)),
        location: first.location().cloned(),
        idempotence: registry.operation(&first.kind).map_or(Idempotence::NotIdempotent, |definition| definition.idempotence),
        serial: first.globals.batch().cloned(),
        blocks: ordered.blocks.iter().map(|at| block_id(*at)).collect(),
        run_once: first.globals.run_once.unwrap_or(false),
        hosts: ordered
            .calls
            .iter()
            .map(|(host, at)| {
                let (_, prepared) = &hosts[host];
                let (outlook, mark) = (prepared.outlooks[*at].clone(), prepared.earlier.mark(*at).clone());
                HostOutlook { host: *host, call: call(host, *at).call, outlook, mark }
            })
            .collect(),
    }
}

/// What is made of earlier runs for this operation, hosts of which the same is said together.
fn notes(op: OpId, ordered: &Ordered, hosts: &BTreeMap<HostId, (String, Prepared)>) -> Vec<EarlierNote> {
    let mut said: BTreeMap<Continuation, Vec<HostId>> = BTreeMap::new();
    for (host, at) in &ordered.calls {
        let (_, prepared) = &hosts[host];
        if let Some(what) = prepared.earlier.note(*at, &prepared.outlooks[*at]) {
            said.entry(what).or_default().push(*host);
        }
    }
    said.into_iter().map(|(what, hosts)| EarlierNote { op, what, hosts }).collect()
}

/// What a `_run_once` does on its first host counts for all that registered it.
fn count_for_all(
    planned: &mut PlannedOperation,
    ran: std::collections::btree_map::Entry<'_, usize, (String, Outlook)>,
    hosts: &BTreeMap<HostId, (String, Prepared)>,
) {
    let first = &planned.hosts[0];
    let here = matches!(ran, std::collections::btree_map::Entry::Vacant(_));
    let (by, outlook) = ran.or_insert_with(|| (hosts[&first.host].0.clone(), first.outlook.clone()));
    for one in planned.hosts.iter_mut().skip(usize::from(here)) {
        one.outlook = match &*outlook {
            Outlook::Change { reason, .. } => {
                Outlook::Change { reason: format!("on {by}: {reason}"), steps: Vec::new(), texts: Vec::new() }
            }
            Outlook::NoChange { reason } => Outlook::NoChange { reason: format!("on {by}: {reason}") },
            depends @ Outlook::Depends { .. } => depends.clone(),
        };
    }
}
