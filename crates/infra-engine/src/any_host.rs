//! Conditions on what an operation does on any host, decided in the plan: what one host asks for, the plans of the others tell.

use std::collections::{BTreeMap, BTreeSet};

use infra_core::condition::{CallIndex, Condition};
use infra_core::host::HostId;
use infra_core::plan::Outlook;
use infra_core::script::OperationCall;

use crate::graph::{self, HostCalls};
use crate::prepare::Prepared;

/// For each call of a host, whether it changes something on any host that registered it, where that is certain.
pub(crate) type Anywhere = Vec<Option<bool>>;

/// The calls of whose outcome on any host the calls of a host ask.
fn asked(calls: &[OperationCall]) -> BTreeSet<CallIndex> {
    calls.iter().flat_map(OperationCall::all_conditions).flat_map(Condition::any_host_calls).collect()
}

/// What the hosts that ask are to be told, as the plans stand now. Hosts that disagree on what they must agree on are told when the plan is made.
pub(crate) fn told(hosts: &BTreeMap<HostId, (String, Prepared)>) -> BTreeMap<HostId, Anywhere> {
    let asking: BTreeMap<HostId, BTreeSet<CallIndex>> =
        hosts.iter().map(|(host, (_, prepared))| (*host, asked(&prepared.calls))).filter(|(_, asked)| !asked.is_empty()).collect();
    if asking.is_empty() {
        return BTreeMap::new();
    }
    let calls: Vec<HostCalls<'_>> =
        hosts.iter().map(|(host, (name, prepared))| HostCalls { host: *host, name, calls: &prepared.calls }).collect();
    let Ok(order) = graph::order(&calls) else { return BTreeMap::new() };
    let mut outlooks: BTreeMap<usize, Vec<&Outlook>> = BTreeMap::new();
    let mut origins: BTreeMap<(HostId, usize), usize> = BTreeMap::new();
    for operation in &order.operations {
        let (host, at) = operation.calls[0];
        let once = hosts[&host].1.calls[at].globals.run_once.unwrap_or(false);
        let known = outlooks.entry(operation.origin).or_default();
        for (host, at) in &operation.calls {
            origins.insert((*host, *at), operation.origin);
            // What runs once does on its first host what it does at all.
            if !once || known.is_empty() {
                known.push(&hosts[host].1.outlooks[*at]);
            }
        }
    }
    let decide = |host: HostId, call: CallIndex| {
        let outlooks = &outlooks[&origins[&(host, call as usize)]];
        if outlooks.iter().any(|outlook| outlook.is_change()) {
            return Some(true);
        }
        outlooks.iter().all(|outlook| outlook.is_none()).then_some(false)
    };
    let tell = |(host, asked): (HostId, BTreeSet<CallIndex>)| {
        let calls = hosts[&host].1.calls.len();
        let anywhere = (0..).take(calls).map(|call| if asked.contains(&call) { decide(host, call) } else { None }).collect();
        (host, anywhere)
    };
    asking.into_iter().map(tell).collect()
}
