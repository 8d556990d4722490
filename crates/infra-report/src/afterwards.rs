//! What is said after a run: whether it kept to its plan, what `--prove` found, and what went over the wire.

use infra_core::Value;
use infra_core::event::Outcome;
use infra_core::host::HostId;
use infra_core::kept_to::{Departure, Proof, Restless, Way, departures};
use infra_core::plan::Outlook;
use infra_core::run_state::RunState;
use serde_json::json;

use crate::nodeset;
use crate::text::{Page, one_line};

/// Below the totals: departures from the plan, the proof, and from verbosity 1 on the traffic.
pub(crate) fn render(state: &RunState, page: Page) -> String {
    let mut text = String::new();
    let departed = departures(state);
    if !departed.is_empty() {
        text.push_str(&format!("    {} (drift or a defect):\n", page.change("not as planned")));
        text.push_str(&lines(state, departed.iter().map(|one| (one.host, departure(state, one)))));
    }
    text.push_str(&state.proof.as_ref().map(|proof| proved(state, proof, page)).unwrap_or_default());
    if page.verbosity > 0
        && let Some([round_trips, commands]) = traffic(state)
    {
        let alike = round_trips.min == round_trips.max && commands.min == commands.max;
        let words = |spread: Spread| match alike {
            true => spread.max.to_string(),
            false => format!("{} / {} / {}", spread.min, spread.median, spread.max),
        };
        let of = if alike { "on each host" } else { "(min / median / max of a host)" };
        let said = format!("round trips {}, commands {} {of}", words(round_trips), words(commands));
        text.push_str(&format!("    {} {said}\n", page.dim("wire:")));
    }
    text
}

/// Equal words once, with their hosts, in the order of the first of each.
fn lines(state: &RunState, words: impl Iterator<Item = (HostId, String)>) -> String {
    let mut shared: Vec<(String, Vec<HostId>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (host, words) in words {
        let place = *places.entry(words.clone()).or_insert(shared.len());
        match shared.get_mut(place) {
            Some((_, hosts)) => hosts.push(host),
            None => shared.push((words, vec![host])),
        }
    }
    let line = |(words, hosts): (String, Vec<HostId>)| {
        let names = nodeset::fold_within(hosts.iter().map(|host| state.hosts.get(host).map_or("?", |host| host.name.as_str())), 60);
        format!("        [{names}] {words}\n")
    };
    shared.into_iter().map(line).collect()
}

fn departure(state: &RunState, one: &Departure) -> String {
    let title = state.plan.as_ref().and_then(|plan| plan.operations.get(one.op.index())).map(|operation| one_line(&operation.title));
    let outcome = state.hosts.get(&one.host).and_then(|host| host.results.get(&one.op)).map(|result| &result.outcome);
    let reason = match outcome {
        Some(Outcome::Changed { reason } | Outcome::Unchanged { reason } | Outcome::Skipped { reason }) if !reason.is_empty() => {
            format!(": {}", one_line(reason))
        }
        _ => String::new(),
    };
    let way = match one.way {
        Way::FoundNothingToDo => "was to change, and there was nothing to do",
        Way::WasSkipped => "was to change, and was skipped",
        Way::ChangedSomething => "was to find nothing to do, and changed",
    };
    format!("{}: {way}{reason}", title.unwrap_or_default())
}

fn proved(state: &RunState, proof: &Proof, page: Page) -> String {
    let (counted, listed): (Vec<_>, Vec<_>) = proof.restless().partition(|one| one.counts);
    let mut text = match counted.len() {
        0 => format!("    {} prepared again, nothing would change\n", page.good("proved:")),
        _ => {
            let head = "prepared again, this would change or may:";
            format!("    {} {head}\n{}", page.bad("not proved:"), lines(state, counted.iter().map(restless)))
        }
    };
    if !listed.is_empty() {
        text.push_str("    not idempotent by nature, and not counted (--prove=strict counts them):\n");
        text.push_str(&lines(state, listed.iter().map(restless)));
    }
    text
}

fn restless(one: &Restless<'_>) -> (HostId, String) {
    let what = match &one.host.outlook {
        Outlook::Change { reason, .. } | Outlook::NoChange { reason } if reason.is_empty() => "would change".to_owned(),
        Outlook::Change { reason, .. } | Outlook::NoChange { reason } => format!("would change: {}", one_line(reason)),
        Outlook::Depends { on: None, .. } => "decided in its turn".to_owned(),
        Outlook::Depends { on: Some(on), would: None } => format!("depends on «{}»", one_line(on)),
        Outlook::Depends { on: Some(on), would: Some(would) } => {
            format!("depends on «{}» (as the host stands now: {})", one_line(on), one_line(would))
        }
    };
    (one.host.host, format!("{}: {what}", one_line(&one.operation.title)))
}

/// The departures, for the JSON document.
pub(crate) fn departures_value(state: &RunState) -> Value {
    let one = |one: Departure| {
        let way = match one.way {
            Way::FoundNothingToDo => ("change", "unchanged"),
            Way::WasSkipped => ("change", "skipped"),
            Way::ChangedSomething => ("no-change", "changed"),
        };
        let host = state.hosts.get(&one.host).map_or("?", |host| host.name.as_str());
        json!({ "operation": one.op, "host": host, "planned": way.0, "outcome": way.1 })
    };
    departures(state).into_iter().map(one).collect()
}

/// The proof, for the JSON document; `outlook` writes what would happen on a host.
pub(crate) fn proof_value(state: &RunState, outlook: impl Fn(&infra_core::plan::HostOutlook) -> Value) -> Value {
    let Some(proof) = &state.proof else { return Value::Null };
    let one = |one: Restless<'_>| {
        let host = state.hosts.get(&one.host.host).map_or("?", |host| host.name.as_str());
        json!({
            "operation": one.operation.kind,
            "title": one.operation.title,
            "location": one.operation.location,
            "host": host,
            "counts": one.counts,
            "would": outlook(one.host),
        })
    };
    json!({ "strict": proof.strict, "holds": proof.holds(), "left": proof.restless().map(one).collect::<Vec<_>>() })
}

/// The traffic over all hosts that were reached, for the JSON document.
pub(crate) fn traffic_value(state: &RunState) -> Value {
    let Some([round_trips, commands]) = traffic(state) else { return Value::Null };
    let value = |spread: Spread| json!({ "min": spread.min, "median": spread.median, "max": spread.max });
    json!({ "round_trips": value(round_trips), "commands": value(commands) })
}

/// How a number is spread over the hosts. Of an even number of hosts, the median is the lower of the two in the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spread {
    min: u64,
    median: u64,
    max: u64,
}

fn traffic(state: &RunState) -> Option<[Spread; 2]> {
    let counted: Vec<_> = state.hosts.values().filter_map(|host| host.traffic).collect();
    Some([spread(counted.iter().map(|one| one.round_trips))?, spread(counted.iter().map(|one| one.commands))?])
}

fn spread(numbers: impl Iterator<Item = u64>) -> Option<Spread> {
    let mut numbers: Vec<u64> = numbers.collect();
    numbers.sort_unstable();
    Some(Spread { min: *numbers.first()?, median: numbers[(numbers.len() - 1) / 2], max: *numbers.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread() {
        let spread = |numbers: &[u64]| spread(numbers.iter().copied()).map(|spread| (spread.min, spread.median, spread.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some((7, 7, 7)));
        assert_eq!(spread(&[9, 1, 4]), Some((1, 4, 9)));
        assert_eq!(spread(&[1, 2, 3, 9]), Some((1, 2, 9)));
    }
}
