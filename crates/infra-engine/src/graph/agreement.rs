//! What hosts must agree on, and what blocks may stand in which.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::script::{Block, BlockKind, OperationCall};

use super::identity::Identity;
use super::{Asks, HostCalls};

type Misuse = Box<Diagnostic>;

/// Checks each call by itself, and that hosts agree on what makes an operation's and a block's turn.
pub(super) fn agree(hosts: &[HostCalls<'_>], identities: &[Vec<Identity<'_>>]) -> Result<(), Misuse> {
    let mut operations: HashMap<&[super::identity::Key<'_>], (&str, &OperationCall)> = HashMap::new();
    let mut blocks: HashMap<&[super::identity::Key<'_>], (&str, &Block)> = HashMap::new();
    for (host, identities) in hosts.iter().zip(identities) {
        for (call, identity) in host.calls.iter().zip(identities) {
            nested(call)?;
            background(host.calls, call)?;
            for (depth, block) in call.blocks.iter().enumerate() {
                match blocks.entry(&identity[..=depth]) {
                    Entry::Vacant(entry) => drop(entry.insert((host.name, block))),
                    Entry::Occupied(entry) => same_options(entry.get(), (host.name, block))?,
                }
            }
            match operations.entry(identity) {
                Entry::Vacant(entry) => drop(entry.insert((host.name, call))),
                Entry::Occupied(entry) => same_turn(entry.get(), (host.name, call))?,
            }
        }
    }
    Ok(())
}

fn misuse(message: String, hint: &str, chain: &[Location]) -> Misuse {
    let mut diagnostic = Diagnostic::misuse(message);
    diagnostic.location = chain.last().cloned();
    diagnostic.chain = chain.to_vec();
    diagnostic.hint = Some(hint.to_owned());
    Box::new(diagnostic)
}

/// `rolling` stands in no other block.
fn nested(call: &OperationCall) -> Result<(), Misuse> {
    for (at, block) in call.blocks.iter().enumerate().skip(1) {
        if !matches!(block.kind, BlockKind::Rolling(_)) {
            continue;
        }
        let outer = match call.blocks[at - 1].kind {
            BlockKind::Parallel => "parallel",
            BlockKind::Rolling(_) => "rolling",
        };
        let message = format!("`rolling` cannot stand inside `{outer}`");
        return Err(misuse(message, "put one after the other, or `parallel` inside `rolling`", &block.chain));
    }
    Ok(())
}

/// `_background` has a meaning inside `parallel` alone, and nothing beside it there can wait for it.
fn background(calls: &[OperationCall], call: &OperationCall) -> Result<(), Misuse> {
    let of = |call: &OperationCall| outermost_parallel(call).map(|block| (block.chain.clone(), block.turn));
    if call.globals.background.unwrap_or(false) && of(call).is_none() {
        let message = "`_background` has a meaning inside `parallel` alone".to_owned();
        return Err(misuse(message, "put the operation into a `parallel` block, with those that it is to outlive", &call.chain));
    }
    let waits_for_one = |at: &u32| {
        calls
            .get(*at as usize)
            .is_some_and(|asked| asked.globals.background.unwrap_or(false) && of(asked).is_some() && of(asked) == of(call))
    };
    if call.asks().iter().any(waits_for_one) {
        let message = "it depends on an operation with `_background` of its own `parallel` block, which ends only after it".to_owned();
        return Err(misuse(message, "ask for the outcome after the block", &call.chain));
    }
    Ok(())
}

/// The `parallel` block that a call runs in; one inside it changes nothing.
pub(crate) fn outermost_parallel(call: &OperationCall) -> Option<&Block> {
    call.blocks.iter().find(|block| block.kind == BlockKind::Parallel)
}

fn same_options((other, before): &(&str, &Block), (host, block): (&str, &Block)) -> Result<(), Misuse> {
    let (BlockKind::Rolling(theirs), BlockKind::Rolling(ours)) = (&before.kind, &block.kind) else { return Ok(()) };
    let differ = |option: &str, theirs: String, ours: String| {
        let message = format!("`{option}` of `rolling` is {theirs} on {other} and {ours} on {host}: hosts must agree on it");
        Err(misuse(message, "give it without looking at the host", &block.chain))
    };
    if theirs.batch != ours.batch {
        return differ("batch", theirs.batch.to_string(), ours.batch.to_string());
    }
    if theirs.max_fail != ours.max_fail {
        let written = |share: Option<infra_core::waves::Share>| share.map_or_else(|| "not given".to_owned(), |share| share.to_string());
        return differ("max_fail", written(theirs.max_fail), written(ours.max_fail));
    }
    if theirs.pause != ours.pause {
        return differ("pause", theirs.pause.to_string(), ours.pause.to_string());
    }
    Ok(())
}

fn same_turn((other, before): &(&str, &OperationCall), (host, call): (&str, &OperationCall)) -> Result<(), Misuse> {
    let flag = |given: Option<bool>| given.unwrap_or(false).to_string();
    let words = |call: &OperationCall| {
        let globals = &call.globals;
        let or_not = |given: Option<String>| given.unwrap_or_else(|| "not given".to_owned());
        [
            ("_serial", globals.batch().map_or_else(|| "off".to_owned(), ToString::to_string)),
            ("_max_fail", or_not(globals.max_fail.map(|share| share.to_string()))),
            ("_parallel", or_not(globals.parallel.map(|number| number.to_string()))),
            ("_run_once", flag(globals.run_once)),
            ("_background", flag(globals.background)),
        ]
    };
    for ((argument, theirs), (_, ours)) in words(before).into_iter().zip(words(call)) {
        if theirs != ours {
            let message = format!("`{argument}` is {theirs} on {other} and {ours} on {host}: hosts must agree on it");
            return Err(misuse(message, "give it without looking at the host, or call two operations on two lines", &call.chain));
        }
    }
    Ok(())
}
