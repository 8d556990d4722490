//! What happened when in a run, read from its journal: overlap, order and the size of a window come from here, not from waiting.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// The journal of a run as spans.
#[derive(Debug, Default)]
pub struct Timeline {
    /// By the number by which the journal calls them.
    hosts: BTreeMap<u64, String>,
    operations: Vec<String>,
    spans: Vec<Span>,
    /// What came of each operation on each host, also where nothing was started there.
    outcomes: Vec<(String, String, String)>,
    waves: Vec<Wave>,
    retries: Vec<Retry>,
}

/// The work on an operation on a host. Positions are lines of the journal, which are written in the order of what happened; moments are in
/// seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub operation: String,
    pub host: String,
    pub from: usize,
    pub to: usize,
    pub began: f64,
    pub ended: f64,
}

/// Hosts that entered a wave.
#[derive(Clone, Debug, PartialEq)]
pub struct Wave {
    /// `run`, or the place of the operation or the block, as the journal has it.
    pub of: String,
    pub number: u64,
    pub count: u64,
    pub hosts: Vec<String>,
}

/// A retry that was announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    pub operation: String,
    pub host: String,
    /// After so many seconds.
    pub after: f64,
    /// When it was announced.
    pub at: f64,
}

impl Span {
    /// Whether the one was over when the other began.
    pub fn before(&self, other: &Span) -> bool {
        self.to < other.from
    }

    /// Whether there was a moment in which both were at work.
    pub fn overlaps(&self, other: &Span) -> bool {
        self.from < other.to && other.from < self.to
    }
}

impl Timeline {
    /// The last journal below this state folder; empty where there is none.
    pub fn read(state: &Path) -> Self {
        let entries = std::fs::read_dir(state.join("infra/runs")).into_iter().flatten().flatten();
        let last = entries.map(|entry| entry.path()).max();
        last.map_or_else(Self::default, |file| Self::parse(&std::fs::read_to_string(file).expect("a journal is text")))
    }

    /// From the text of a journal.
    pub fn parse(text: &str) -> Self {
        let mut made = Self::default();
        let mut open: Vec<Span> = Vec::new();
        for (position, line) in text.lines().enumerate() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
            let at = line["at"].as_f64().expect("each line has a moment");
            let operation = || made.operations[usize::try_from(line["op"].as_u64().expect("an operation")).expect("small")].clone();
            let host = |value: &Value| made.hosts[&value.as_u64().expect("a host")].clone();
            match line["event"].as_str().expect("each line says what happened") {
                "run-started" => {
                    let hosts = line["hosts"].as_array().expect("hosts");
                    let host = |host: &Value| (host[0].as_u64().expect("a number"), host[1].as_str().expect("a name").to_owned());
                    made.hosts = hosts.iter().map(host).collect();
                }
                "plan-ready" => {
                    let operations = line["plan"]["operations"].as_array().expect("operations");
                    made.operations = operations.iter().map(|one| one["title"].as_str().expect("a title").to_owned()).collect();
                }
                "host-operation-started" => {
                    let (operation, host) = (operation(), host(&line["host"]));
                    open.push(Span { operation, host, from: position, to: usize::MAX, began: at, ended: f64::INFINITY });
                }
                "host-operation-ended" => {
                    let (operation, host) = (operation(), host(&line["host"]));
                    let outcome = line["result"]["outcome"]["outcome"].as_str().expect("an outcome").to_owned();
                    if let Some(found) = open.iter().position(|span| span.operation == operation && span.host == host) {
                        made.spans.push(Span { to: position, ended: at, ..open.remove(found) });
                    }
                    made.outcomes.push((operation, host, outcome));
                }
                "wave-started" => {
                    let wave = Wave {
                        of: line["of"].as_str().map_or_else(|| line["of"].to_string(), str::to_owned),
                        number: line["wave"].as_u64().expect("a number"),
                        count: line["waves"].as_u64().expect("a number"),
                        hosts: line["hosts"].as_array().expect("hosts").iter().map(host).collect(),
                    };
                    made.waves.push(wave);
                }
                "retrying" => {
                    let after = line["after"].as_f64().expect("seconds");
                    let retry = Retry { operation: operation(), host: host(&line["host"]), after, at };
                    made.retries.push(retry);
                }
                _ => {}
            }
        }
        made.spans.append(&mut open);
        made.spans.sort_by_key(|span| span.from);
        made
    }

    /// The work on these operations, in the order in which it began.
    pub fn of(&self, operations: &[&str]) -> Vec<&Span> {
        self.spans.iter().filter(|span| operations.contains(&span.operation.as_str())).collect()
    }

    /// The work on an operation on a host.
    #[track_caller]
    pub fn span(&self, operation: &str, host: &str) -> &Span {
        let found = self.spans.iter().find(|span| span.operation == operation && span.host == host);
        found.unwrap_or_else(|| panic!("{operation} was not at work on {host}: {self:#?}"))
    }

    /// The hosts on which an operation was at work, in the order in which it began.
    pub fn hosts_of(&self, operation: &str) -> Vec<&str> {
        self.of(&[operation]).into_iter().map(|span| span.host.as_str()).collect()
    }

    /// Which operation began on which host, in that order.
    pub fn order(&self) -> Vec<(&str, &str)> {
        self.spans.iter().map(|span| (span.operation.as_str(), span.host.as_str())).collect()
    }

    /// What came of an operation on a host.
    pub fn outcome(&self, operation: &str, host: &str) -> Option<&str> {
        self.outcomes.iter().find(|(of, at, _)| of == operation && at == host).map(|(_, _, outcome)| outcome.as_str())
    }

    /// The hosts of all waves, in their order.
    pub fn waves(&self) -> Vec<Vec<&str>> {
        self.waves.iter().map(|wave| wave.hosts.iter().map(String::as_str).collect()).collect()
    }

    /// The retries of an operation on a host.
    pub fn retries(&self, operation: &str, host: &str) -> Vec<&Retry> {
        self.retries.iter().filter(|retry| retry.operation == operation && retry.host == host).collect()
    }

    /// How many spans of these operations were open at once, at most.
    pub fn most_at_once(&self, operations: &[&str]) -> usize {
        self.most(operations, |open| open.len())
    }

    /// How many hosts were at work at once on these operations, at most.
    pub fn most_hosts_at_once(&self, operations: &[&str]) -> usize {
        self.most(operations, |open| open.iter().map(|span| &span.host).collect::<BTreeSet<_>>().len())
    }

    fn most(&self, operations: &[&str], count: impl Fn(&[&Span]) -> usize) -> usize {
        let spans = self.of(operations);
        // The most are open when one begins.
        let open_at = |moment: usize| spans.iter().copied().filter(move |span| span.from <= moment && moment < span.to).collect::<Vec<_>>();
        spans.iter().map(|span| count(&open_at(span.from))).max().unwrap_or_default()
    }

    /// Whether all work on the one was over before any on the other began.
    pub fn all_before(&self, one: &[&str], other: &[&str]) -> bool {
        let (one, other) = (self.of(one), self.of(other));
        !one.is_empty() && !other.is_empty() && one.iter().all(|first| other.iter().all(|second| first.before(second)))
    }

    /// Seconds from the end of the last work before `next` began to that beginning.
    pub fn gap_before(&self, next: &Span) -> f64 {
        let last = self.spans.iter().filter(|span| span.before(next)).map(|span| span.ended).fold(f64::NEG_INFINITY, f64::max);
        next.began - last
    }

    /// Seconds from the first beginning to the last end.
    pub fn length(&self) -> f64 {
        let from = self.spans.iter().map(|span| span.began).fold(f64::INFINITY, f64::min);
        self.spans.iter().map(|span| span.ended).fold(0.0, f64::max) - from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOURNAL: &str = r#"{"at":1.0,"event":"run-started","hosts":[[0,"a"],[3,"b"]]}
{"at":2.0,"event":"plan-ready","plan":{"operations":[{"title":"A"},{"title":"B"}]}}
{"at":2.0,"event":"wave-started","of":{"operation":0},"wave":1,"waves":2,"hosts":[0]}
{"at":3.0,"event":"host-operation-started","op":0,"host":0}
{"at":4.0,"event":"retrying","op":0,"host":0,"retry":1,"retries":1,"after":0.5}
{"at":5.0,"event":"host-operation-started","op":1,"host":0}
{"at":6.0,"event":"host-operation-ended","op":0,"host":0,"result":{"outcome":{"outcome":"changed"}}}
{"at":7.5,"event":"host-operation-started","op":0,"host":3}
{"at":8.0,"event":"host-operation-ended","op":1,"host":3,"result":{"outcome":{"outcome":"skipped"}}}
"#;

    #[test]
    fn a_journal_is_read_as_spans() {
        let timeline = Timeline::parse(JOURNAL);
        assert_eq!(timeline.order(), [("A", "a"), ("B", "a"), ("A", "b")]);
        let (first, second, third) = (timeline.span("A", "a"), timeline.span("B", "a"), timeline.span("A", "b"));
        assert!(first.overlaps(second) && second.overlaps(first) && first.before(third) && !second.before(third));
        // What never ended is open to the end.
        assert!(second.overlaps(third) && third.ended.is_infinite());
        assert_eq!(timeline.outcome("A", "a"), Some("changed"));
        assert_eq!((timeline.outcome("B", "b"), timeline.outcome("A", "b")), (Some("skipped"), None));
        assert_eq!((timeline.most_at_once(&["A", "B"]), timeline.most_at_once(&["A"])), (2, 1));
        assert_eq!(timeline.most_hosts_at_once(&["A"]), 1);
        assert_eq!(timeline.most_hosts_at_once(&["A", "B"]), 2);
        assert_eq!(timeline.gap_before(third), 1.5);
        assert_eq!(timeline.waves(), [["a"]]);
        assert_eq!(timeline.retries("A", "a").iter().map(|retry| retry.after).collect::<Vec<_>>(), [0.5]);
        assert!(!timeline.all_before(&["A"], &["B"]) && !timeline.all_before(&["A"], &["nothing"]));
    }
}
