//! The outputs of `exec`, each once: who said the same stands together, and on demand how the others differ from the most.

use std::collections::{BTreeMap, HashMap};

use infra_core::change::TextChange;
use infra_core::connection::Ending;
use infra_core::digest::Sha256Builder;
use infra_core::event::HostResult;
use infra_core::host::HostId;
use infra_core::output::{Stream, printable};

use crate::text::{Page, count};
use crate::{diffs, nodeset, outcome};

/// What the hosts have said by now.
#[derive(Default)]
pub(crate) struct Gathered {
    /// The digests of what a host printed so far: outputs are compared whole, also where not all of them is kept.
    printing: BTreeMap<HostId, [Sha256Builder; 2]>,
    groups: Vec<Group>,
    places: HashMap<Key, usize>,
}

/// What makes two hosts alike.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    ending: String,
    stdout: String,
    stderr: String,
}

/// Hosts that are alike, and what they said.
struct Group {
    hosts: Vec<HostId>,
    ending: String,
    stdout: String,
    stderr: String,
}

impl Gathered {
    /// A piece of a host's output.
    pub fn take(&mut self, host: HostId, stream: Stream, line: &[u8], newline: bool) {
        let printing = &mut self.printing.entry(host).or_default()[match stream {
            Stream::Stdout => 0,
            Stream::Stderr => 1,
        }];
        printing.update(line);
        if newline {
            printing.update(b"\n");
        }
    }

    /// A host has ended.
    pub fn end(&mut self, host: HostId, result: &HostResult) {
        let [stdout, stderr] = self.printing.remove(&host).unwrap_or_default().map(Sha256Builder::finish);
        let key = Key { ending: ending(result), stdout, stderr };
        let ending = key.ending.clone();
        match self.places.get(&key) {
            Some(at) => self.groups[*at].hosts.push(host),
            None => {
                self.places.insert(key, self.groups.len());
                self.groups.push(Group { hosts: vec![host], ending, stdout: result.stdout.clone(), stderr: result.stderr.clone() });
            }
        }
    }

    /// All of it, what most hosts said first. `escape` is for a terminal.
    pub fn render<'n>(mut self, name: impl Fn(HostId) -> &'n str, diff: bool, escape: bool, page: Page) -> String {
        for group in &mut self.groups {
            group.hosts.sort_unstable();
        }
        self.groups.sort_by_key(|group| (std::cmp::Reverse(group.hosts.len()), group.hosts.first().copied()));
        let names = |group: &Group| nodeset::fold(group.hosts.iter().map(|host| name(*host)));
        let mut text = String::new();
        let first = self.groups.first();
        for (at, group) in self.groups.iter().enumerate() {
            text.push_str(&format!("-- {} ({}): {}\n", names(group), count(group.hosts.len(), "host"), group.ending));
            match first.filter(|_| diff && at > 0) {
                Some(most) => text.push_str(&difference(most, group, (&names(most), &names(group)), page)),
                None => {
                    text.push_str(&whole(&group.stdout, escape));
                    if !group.stderr.is_empty() {
                        text.push_str(&format!("-- standard error:\n{}", whole(&group.stderr, escape)));
                    }
                }
            }
        }
        text
    }
}

/// How it ended, in words that are the same on all hosts on which it ended so.
fn ending(result: &HostResult) -> String {
    match outcome::failure(&result.outcome) {
        None => format!("exit code {}", result.exit_code.unwrap_or_default()),
        Some(failure) => match &failure.ending {
            Some(Ending::Exited(status)) => format!("exit code {status}"),
            // The time differs from host to host.
            Some(Ending::TimedOut { still_running: None, .. }) => "timed out".to_owned(),
            _ => outcome::message(failure),
        },
    }
}

fn whole(text: &str, escape: bool) -> String {
    let mut text = if escape { printable(text) } else { text.to_owned() };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

fn difference(most: &Group, other: &Group, (of_most, of_other): (&str, &str), page: Page) -> String {
    let mut text = String::new();
    for (title, before, after) in [("", &most.stdout, &other.stdout), ("standard error of ", &most.stderr, &other.stderr)] {
        if before == after {
            continue;
        }
        let change = TextChange { path: String::new(), before: before.clone(), after: after.clone(), withheld: None };
        text.push_str(&format!("--- {title}{of_most}\n+++ {title}{of_other}\n"));
        // The first two lines name a file.
        let plain = Page { colour: false, ..page };
        diffs::lines(&change).iter().skip(2).for_each(|(paint, line)| text.push_str(&format!("{}\n", paint(plain, line))));
    }
    if !text.is_empty() {
        return text;
    }
    // What is kept of them is the same.
    let same =
        if most.ending == other.ending { "it differs where the middle of long outputs is not kept" } else { "the outputs are the same" };
    format!("({same})\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use infra_core::event::{Failure, Outcome};

    use super::*;

    const NAMES: [&str; 5] = ["web-01", "web-02", "web-03", "web-04", "db"];

    fn said(stdout: &str, stderr: &str, code: i32) -> HostResult {
        let failure = Failure { message: format!("exited with {code}"), ending: Some(Ending::Exited(code)), ..Failure::default() };
        let failed = Outcome::Failed { failure, ignored: false };
        HostResult {
            outcome: if code == 0 { Outcome::Changed { reason: String::new() } } else { failed },
            steps_done: 1,
            retries: 0,
            took: Duration::ZERO,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            exit_code: Some(code),
        }
    }

    fn shown(results: &[(&str, &str, i32)], diff: bool) -> String {
        let mut gathered = Gathered::default();
        // The last host ends first.
        for (at, (stdout, stderr, code)) in results.iter().enumerate().rev() {
            let host = HostId(at as u32);
            for (stream, text) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                text.split_inclusive('\n').for_each(|line| {
                    gathered.take(host, stream, line.trim_end_matches('\n').as_bytes(), line.ends_with('\n'));
                });
            }
            gathered.end(host, &said(stdout, stderr, *code));
        }
        gathered.render(|host| NAMES[host.index()], diff, true, Page { colour: true, width: 80, verbosity: 0 })
    }

    #[test]
    fn both_outputs_and_the_exit_code_make_hosts_alike() {
        let results = [("a\n", "", 0), ("b", "", 0), ("b", "", 0), ("b", "w\n", 0), ("b", "", 3)];
        let wanted = "-- web-[02-03] (2 hosts): exit code 0\nb\n-- web-01 (1 host): exit code 0\na\n\
                      -- web-04 (1 host): exit code 0\nb\n-- standard error:\nw\n-- db (1 host): exit code 3\nb\n";
        assert_eq!(shown(&results, false), wanted);
    }

    #[test]
    fn the_odd_ones_are_shown_by_their_difference() {
        let results = [("a\nb\n", "", 0), ("a\nb\n", "", 0), ("a\nc\n", "", 0), ("a\nb\n", "", 1), ("a\nb\n", "\x1b[2J", 0)];
        let wanted = "-- web-[01-02] (2 hosts): exit code 0\na\nb\n\
                      -- web-03 (1 host): exit code 0\n--- web-[01-02]\n+++ web-03\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n\
                      -- web-04 (1 host): exit code 1\n(the outputs are the same)\n\
                      -- db (1 host): exit code 0\n--- standard error of web-[01-02]\n+++ standard error of db\n@@ -0,0 +1 @@\n\
                      +\\u{1b}[2J\n\\ No newline at end of file\n";
        assert_eq!(shown(&results, true), wanted);
    }

    #[test]
    fn outputs_that_differ_in_what_is_not_kept_are_not_alike() {
        let mut gathered = Gathered::default();
        for (host, line) in [(HostId(0), "x"), (HostId(1), "y")] {
            gathered.take(host, Stream::Stdout, line.as_bytes(), true);
            gathered.end(host, &said("the same\n", "", 0));
        }
        let text = gathered.render(|host| NAMES[host.index()], true, false, Page { colour: false, width: 80, verbosity: 0 });
        assert!(text.contains("(1 host)") && text.contains("is not kept"), "{text}");
    }
}
