//! What tells one operation or block from another.

use std::collections::{BTreeSet, HashMap};

use infra_core::diagnostic::Location;
use infra_core::script::{Block, BlockKind, OperationCall};

use super::HostCalls;

/// What tells a call or block from what else stands beside it, and which of two comes first where nothing else says: the deploy file's place on the
/// command line, the chain of calls (line, then file), the kind, and the turn where a host comes by there more than once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key<'a> {
    deploy: u32,
    chain: Vec<(u32, &'a str)>,
    kind: &'a str,
    turn: Option<(Option<&'a str>, usize)>,
}

/// The blocks around a call, outermost first, and the call itself. Names of blocks and of `deploy` do not tell anything apart: they may hold the
/// name of a host.
pub(super) type Identity<'a> = Vec<Key<'a>>;

fn chain(chain: &[Location]) -> Vec<(u32, &str)> {
    chain.iter().map(|Location { file, line }| (*line, file.as_str())).collect()
}

fn of_block<'a>(deploy: u32, block: &'a Block) -> Key<'a> {
    let kind = match block.kind {
        BlockKind::Parallel => "parallel",
        BlockKind::Rolling(_) => "rolling",
    };
    Key { deploy, chain: chain(&block.chain), kind, turn: Some((None, block.turn as usize)) }
}

/// Where a call stands, whatever its turn.
fn place(call: &OperationCall) -> Identity<'_> {
    let own = Key { deploy: call.deploy, chain: chain(&call.chain), kind: &call.kind, turn: None };
    call.blocks.iter().map(|block| of_block(call.deploy, block)).chain([own]).collect()
}

/// What a later run knows the calls of one host by: digests of their identities, as they are where no other host is looked at.
pub(crate) fn of_one_host(host: &HostCalls<'_>) -> Vec<String> {
    let parts = |identity: &Identity<'_>| -> Vec<_> {
        let part = |key: &Key<'_>| serde_json::json!([key.deploy, key.chain, key.kind, key.turn]);
        identity.iter().map(part).collect()
    };
    let digest = |identity: &Identity<'_>| short_digest(&serde_json::Value::Array(parts(identity)));
    identify(std::slice::from_ref(host)).iter().flatten().map(digest).collect()
}

/// The first 128 bits of the digest of a value: enough that two different ones are never taken for the same.
pub(crate) fn short_digest(value: &serde_json::Value) -> String {
    let mut digest = infra_core::digest::sha256(value.to_string().as_bytes());
    digest.truncate(32);
    digest
}

/// The identity of every call, host by host. Where some host comes by a place more than once, first the name, then the count tells the calls apart.
pub(super) fn identify<'a>(hosts: &[HostCalls<'a>]) -> Vec<Vec<Identity<'a>>> {
    let mut repeated = BTreeSet::new();
    for host in hosts {
        let mut met = BTreeSet::new();
        repeated.extend(host.calls.iter().map(place).filter(|place| !met.insert(place.clone())));
    }
    let identity = |call: &'a OperationCall, counts: &mut HashMap<(Identity<'a>, Option<&'a str>), usize>| {
        let mut identity = place(call);
        if repeated.contains(&identity) {
            let name = call.name.as_deref();
            let count = counts.entry((identity.clone(), name)).or_default();
            *count += 1;
            let turn = Some((name, *count));
            identity.last_mut().expect("a call stands at its own place").turn = turn;
        }
        identity
    };
    let of_host = |host: &HostCalls<'a>| {
        let mut counts = HashMap::new();
        host.calls.iter().map(|call| identity(call, &mut counts)).collect()
    };
    hosts.iter().map(of_host).collect()
}
