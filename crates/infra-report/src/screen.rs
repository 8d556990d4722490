//! The screen of a run: events in, lines out.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use infra_core::change::TextChange;
use infra_core::connection::ConnectError;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Failure, HostResult, Outcome, Reporter, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::lock::LockNews;
use infra_core::output::Stream;
use infra_core::plan::{BlockId, OpId, Outlook, PlannedOperation};
use infra_core::run_state::{HostState, RunState};
use infra_core::script::BlockKind;
use infra_core::{Map, Value};

use crate::diffs::Bounds;
use crate::gathered::Gathered;
use crate::settings::{ExecOutput, Journalled, ScreenSettings};
use crate::summary::FEW;
use crate::surface::{Part, Surface};
use crate::text::{Page, count, one_line, output_line, time};
use crate::{diagnostics, diffs, nodeset, outcome, plan_table, summary};

/// Shows a run to a person: what happens goes to `human`, what was asked for (the output of `exec`, the answers of `fact`) to `results`.
///
/// On a terminal the same lines stand above a progress bar. Up to 20 hosts there is a line for each host and operation; beyond that,
/// equal ones share a line when the operation ends, and failures are shown at once.
pub fn screen(settings: ScreenSettings, human: Box<dyn Write + Send>, results: Box<dyn Write + Send>) -> Box<dyn Reporter> {
    let width = settings.width.max(48);
    let (terminal, verbosity) = (settings.terminal.then_some((width, settings.tick)), settings.verbosity);
    Box::new(Screen {
        page: Page { colour: settings.colour, width: usize::from(width), verbosity: settings.verbosity },
        surface: Surface::new(human, terminal),
        results: Some(results),
        settings,
        state: RunState::default(),
        unreachable: Vec::new(),
        diagnostics: Vec::new(),
        ended: BTreeMap::new(),
        failures: Vec::new(),
        running: Vec::new(),
        answers: Map::new(),
        gathered: Gathered::default(),
        texts: BTreeMap::new(),
        bounds: Bounds::new(verbosity),
        held: Held::default(),
    })
}

struct Screen {
    settings: ScreenSettings,
    page: Page,
    surface: Surface,
    /// Where results go, until writing there fails.
    results: Option<Box<dyn Write + Send>>,
    state: RunState,
    /// Hosts of a large fleet that could not be reached, by error.
    unreachable: Vec<(ConnectError, Vec<HostId>)>,
    /// What is wrong with what was written, each once, with its hosts.
    diagnostics: Vec<(Diagnostic, Vec<HostId>)>,
    /// The lines of a large fleet that wait for their operation to end, and the hosts that share them.
    ended: BTreeMap<OpId, Vec<(String, Vec<HostId>)>>,
    /// The failures that were shown, so that equal ones can refer to them.
    failures: Vec<(OpId, Failure, HostId)>,
    /// The operations that go on now.
    running: Vec<OpId>,
    /// The answers of `fact`, by host and name.
    answers: Map,
    /// The outputs of `exec`, where they are shown together.
    gathered: Gathered,
    /// What operations have changed in files that the plan did not show, until they end on all hosts.
    texts: BTreeMap<OpId, Vec<ChangedOn>>,
    /// How much more of that is shown.
    bounds: Bounds,
    held: Held,
}

/// Lines of output that are to be written together: a program prints them faster than a terminal with a bar takes them one by one.
#[derive(Default)]
struct Held {
    text: Vec<u8>,
    /// Whether they are results; they are for a person otherwise.
    results: bool,
}

/// With so many bytes of output held, they are written.
const ENOUGH: usize = 32 * 1024;

/// Files that have changed on a host.
type ChangedOn = (HostId, Arc<Vec<TextChange>>);

impl Reporter for Screen {
    fn idle(&mut self) {
        self.write_held();
    }

    fn event(&mut self, event: &Event) {
        self.fold(event);
        // Only output waits for more output: the order of lines is that of the events.
        if !matches!(event, Event::Output { .. }) {
            self.write_held();
        }
        match event {
            Event::RunStarted { .. } | Event::DetailedExitCode | Event::Counted { .. } => {}
            Event::Connecting => {
                let hosts = self.hosts_where(|_| true);
                self.stage(&format!("Connecting to {}", count(hosts.len(), "host")));
                self.surface.begin("connecting", hosts);
            }
            Event::HostConnected { host, took } => {
                self.surface.done((None, *host));
                if self.page.verbosity > 0 {
                    let line = format!("[{}] connected{}\n", self.name(*host), crate::text::slow(*took));
                    self.surface.write(&line);
                }
            }
            Event::HostUnreachable { host, error } => self.unreachable(*host, error),
            Event::Preparing => {
                self.settle();
                let hosts = self.hosts_where(|host| host.connected);
                self.stage(&format!("Preparing {}", count(hosts.len(), "host")));
                self.surface.begin("preparing", hosts);
            }
            Event::HostPrepared { host, operations } => {
                self.surface.done((None, *host));
                if self.page.verbosity > 0 {
                    let line = format!("[{}] {}\n", self.name(*host), count(*operations, "operation"));
                    self.surface.write(&line);
                }
            }
            Event::HostFailed { host, diagnostic } => {
                self.surface.done((None, *host));
                self.wrong(Some(*host), diagnostic);
            }
            Event::Misused { host, diagnostic } => self.wrong(*host, diagnostic),
            Event::Rechecking => self.looks_again("since what is known has become old"),
            Event::PlanStands => {
                self.settle();
                self.stage("The plan is still right");
            }
            Event::Proving => self.looks_again("to prove that nothing is left to do"),
            Event::Proved { .. } => self.settle(),
            // It was said when the plan was made.
            Event::Log { .. } if self.state.looking_again && self.page.verbosity == 0 => {}
            Event::Log { host, text } => {
                let name = self.name(*host);
                let lines: String = text.split('\n').map(|line| format!("[{name}] {}\n", output_line(line.as_bytes()))).collect();
                self.surface.write(&lines);
            }
            Event::PlanReady { plan } => {
                self.settle();
                if matches!(self.state.kind, Some(RunKind::Deploy | RunKind::Dry)) {
                    if self.settings.diff {
                        let text = diffs::of_plan(plan, |host| self.name(host), self.page);
                        self.surface.write(&text);
                    }
                    let text = plan_table::render(&self.state, plan, &self.settings.controls, !self.settings.diff, self.page);
                    self.surface.write(&text);
                }
            }
            Event::Declined => {}
            Event::Executing => self.executing(),
            Event::OperationStarted { op } => self.operation_started(*op),
            Event::HostOperationStarted { op, host } => self.surface.at_work((Some(*op), *host)),
            Event::CommandStarted { op, host, text } => {
                if self.page.verbosity >= 2 {
                    let step = outcome::step(text, &format!("[{}] {}", self.name(*host), self.which(*op)));
                    self.surface.write(&step);
                }
            }
            Event::Moved { op, host, bytes, total } => self.surface.moved((Some(*op), *host), *bytes, *total),
            Event::Output { op, host, stream, line, newline } => self.output(*op, *host, *stream, line, *newline),
            Event::WaveStarted { of, wave, waves, hosts } => self.wave_started(*of, *wave, *waves, hosts),
            Event::Lock { host, on, news, .. } => self.lock(*host, on.as_deref(), news),
            Event::Retrying { op, host, retry, retries, after, failure } => self.retrying(*op, *host, (*retry, *retries), *after, failure),
            Event::WithinCall { op, host, title, result, .. } => self.within_call(*op, *host, title, result),
            Event::TextsChanged { op, host, texts } => self.texts_changed(*op, *host, texts),
            Event::HostOperationEnded { op, host, result } => {
                self.surface.done((Some(*op), *host));
                if matches!(self.settings.exec, ExecOutput::Gathered { .. }) {
                    self.gathered.end(*host, result);
                }
                self.host_ended(*op, *host, result);
            }
            Event::OperationEnded { op } => {
                self.flush_operation(*op);
                self.show_texts(*op);
                self.failures.retain(|(known, ..)| known != op);
                self.running.retain(|known| known != op);
                match self.running.is_empty() {
                    true => self.surface.end(),
                    false => self.surface.leave(*op),
                }
            }
            Event::FactAnswered { host, fact, answer, .. } => self.answered(*host, fact, answer),
            Event::Stopped { reason } => {
                if !matches!(reason, StopReason::NoHostLeft | StopReason::Interrupted) {
                    let reason = summary::stop_reason(&self.state, reason);
                    let line = format!("{} {reason}; nothing new is started\n", self.page.bad("stopping:"));
                    self.surface.write(&line);
                }
            }
            Event::Interrupted { times, in_flight } => self.interrupted(*times, in_flight),
            Event::RunEnded => self.ended(),
        }
    }
}

impl Screen {
    /// Takes the event into the record, without the output of commands: the screen shows that when it comes, or never.
    fn fold(&mut self, event: &Event) {
        match event {
            Event::HostOperationEnded { op, host, result } => {
                let slim = Box::new(result.without_output());
                self.state.fold(&Event::HostOperationEnded { op: *op, host: *host, result: slim });
            }
            event => self.state.fold(event),
        }
    }

    fn name(&self, host: HostId) -> &str {
        self.state.hosts.get(&host).map_or("?", |host| host.name.as_str())
    }

    fn names(&self, hosts: &[HostId]) -> Vec<&str> {
        hosts.iter().map(|host| self.name(*host)).collect()
    }

    fn hosts_where(&self, matching: impl Fn(&HostState) -> bool) -> Vec<(Part, String)> {
        self.state.hosts.iter().filter(|(_, host)| matching(host)).map(|(id, host)| ((None, *id), host.name.clone())).collect()
    }

    fn operation(&self, op: OpId) -> Option<&PlannedOperation> {
        self.state.plan.as_ref().and_then(|plan| plan.operations.get(op.index()))
    }

    /// Whether there are so many hosts that equal lines are folded.
    fn folds(&self) -> bool {
        self.state.hosts.len() > FEW && self.page.verbosity == 0
    }

    fn stage(&mut self, text: &str) {
        let line = format!("{} {text}\n", self.page.stage("-->"));
        self.surface.write(&line);
    }

    /// A stage is over: what it held back is shown.
    fn settle(&mut self) {
        self.surface.end();
        self.tell();
    }

    /// What was held back is shown.
    fn tell(&mut self) {
        for (error, hosts) in std::mem::take(&mut self.unreachable) {
            let text = diagnostics::unreachable(&error, &self.names(&hosts), self.page);
            self.surface.write(&text);
        }
        for (index, (diagnostic, hosts)) in std::mem::take(&mut self.diagnostics).into_iter().enumerate() {
            let space = if index > 0 { "\n" } else { "" };
            let text = diagnostics::on_hosts(&diagnostic, &self.names(&hosts), self.page);
            self.surface.write(&format!("{space}{text}"));
        }
    }

    fn unreachable(&mut self, host: HostId, error: &ConnectError) {
        self.surface.done((None, host));
        if self.folds() {
            match self.unreachable.iter_mut().find(|(known, _)| known == error) {
                Some((_, hosts)) => hosts.push(host),
                None => self.unreachable.push((error.clone(), vec![host])),
            }
        } else {
            let text = diagnostics::unreachable(error, &[self.name(host)], self.page);
            self.surface.write(&text);
        }
    }

    fn wrong(&mut self, host: Option<HostId>, diagnostic: &Diagnostic) {
        match self.diagnostics.iter_mut().find(|(known, _)| known == diagnostic) {
            Some((_, hosts)) => hosts.extend(host),
            None => self.diagnostics.push((diagnostic.clone(), host.into_iter().collect())),
        }
        if self.state.executing {
            self.tell();
        }
    }

    /// Hosts are prepared once more.
    fn looks_again(&mut self, why: &str) {
        self.settle();
        let ok = |host: &HostState| host.connected && host.failed.is_none() && host.results.values().all(|result| result.outcome.host_ok());
        let hosts = self.hosts_where(ok);
        self.stage(&format!("Preparing {} again, {why}", count(hosts.len(), "host")));
        self.surface.begin("preparing", hosts);
    }

    /// Keeps what has changed in files until the operation has ended on all hosts, where the plan has not shown the same.
    fn texts_changed(&mut self, op: OpId, host: HostId, texts: &Arc<Vec<TextChange>>) {
        let planned = self.operation(op).and_then(|operation| {
            let place = operation.hosts.binary_search_by_key(&host, |one| one.host).ok()?;
            operation.hosts.get(place)
        });
        let shown = matches!(planned.map(|one| &one.outlook), Some(Outlook::Change { texts: shown, .. }) if shown == &**texts);
        if self.settings.diff && !shown {
            self.texts.entry(op).or_default().push((host, texts.clone()));
        }
    }

    fn show_texts(&mut self, op: OpId) {
        let Some(texts) = self.texts.remove(&op) else { return };
        let title = self.operation(op).map(|operation| operation.title.clone()).unwrap_or_default();
        let changes = texts.iter().flat_map(|(host, texts)| texts.iter().map(|text| (text, *host)));
        let mut bounds = std::mem::replace(&mut self.bounds, Bounds::new(0));
        let text = diffs::of_operation(&title, changes, |host| self.name(host), &mut bounds, self.page);
        self.bounds = bounds;
        self.surface.write(&text);
    }

    fn executing(&mut self) {
        self.settle();
        let hosts = self.hosts_where(|host| host.connected && host.failed.is_none()).len();
        let hosts = count(hosts, "host");
        match (self.state.kind, &self.state.plan) {
            (Some(RunKind::Deploy), Some(plan)) => {
                let operations = count(plan.operations.len(), "operation");
                self.stage(&format!("Running {operations} on {hosts}"));
            }
            _ => self.stage(&format!("Running on {hosts}")),
        }
    }

    fn operation_started(&mut self, op: OpId) {
        let Some(operation) = self.operation(op) else { return };
        let title = one_line(&operation.title);
        let taking_part = |host: &&HostId| {
            let state = &self.state.hosts[*host];
            state.connected && state.failed.is_none() && state.results.values().all(|result| result.outcome.host_ok())
        };
        let hosts: Vec<HostId> = operation.hosts.iter().map(|host| host.host).collect();
        let hosts: Vec<_> = hosts.iter().filter(taking_part).map(|host| ((Some(op), *host), self.name(*host).to_owned())).collect();
        if self.state.kind == Some(RunKind::Deploy) && (self.folds() || self.page.verbosity >= 2) {
            let total = self.state.plan.as_ref().map_or(0, |plan| plan.operations.len());
            self.stage(&format!("{title} on {} ({} of {total})", count(hosts.len(), "host"), op.index() + 1));
        }
        self.running.push(op);
        match self.running.as_slice() {
            [_] => self.surface.begin(&title, hosts),
            several => {
                let title = count(several.len(), "operation");
                self.surface.more(&title, hosts);
            }
        }
    }

    /// Which operation a line belongs to, where it could be another one: the title and a space.
    fn which(&self, op: OpId) -> String {
        let Some(operation) = self.operation(op) else { return String::new() };
        let beside = |block: &BlockId| {
            let block = self.state.plan.as_ref().and_then(|plan| plan.blocks.get(block.index()));
            block.is_some_and(|block| block.kind == BlockKind::Parallel)
        };
        let alone = self.running.len() < 2 && !operation.blocks.iter().any(beside);
        if alone { String::new() } else { format!("{} ", one_line(&operation.title)) }
    }

    fn wave_started(&mut self, of: Waves, wave: usize, waves: usize, hosts: &[HostId]) {
        // An operation of a block ends with its last wave: what an earlier wave held back is shown before the next.
        for op in self.running.clone() {
            self.flush_operation(op);
        }
        let of = summary::waves_of(&self.state, of);
        let names = nodeset::fold_within(self.names(hosts), 60);
        let total = if hosts.len() > 2 { format!(" ({} hosts)", hosts.len()) } else { String::new() };
        self.stage(&format!("Wave {wave} of {waves} of {of}: {names}{total}"));
    }

    fn lock(&mut self, host: HostId, on: Option<&str>, news: &LockNews) {
        let this = on.map_or_else(|| "this host".to_owned(), one_line);
        let line = match news {
            LockNews::Waiting { holder, at_most } => {
                let word = self.page.change("waiting");
                format!("{word} up to {} for another run to end on {this}: {}", time(*at_most), one_line(&holder.to_string()))
            }
            LockNews::Moved if self.page.verbosity == 0 => return,
            LockNews::Moved => format!("another run may have changed {this} since its facts were read: they are read again"),
            LockNews::SameMachine { other } => {
                format!("{} {this} and {} are the same machine", self.page.change("warning:"), one_line(other))
            }
            LockNews::Unavailable { reason } => {
                let word = self.page.change("warning:");
                format!("{word} no lock can be kept on {this}, so another run could change it at the same time: {}", one_line(reason))
            }
        };
        let text = format!("[{}] {line}\n", self.name(host));
        self.surface.write(&text);
    }

    fn retrying(&mut self, op: OpId, host: HostId, (retry, retries): (u32, u32), after: Duration, failure: &Failure) {
        let title = self.operation(op).map(|operation| format!("{}: ", one_line(&operation.title))).unwrap_or_default();
        let message = outcome::message(failure);
        let word = self.page.change("failed");
        let mut text = format!("[{}] {title}{word}: {message}; again in {} ({retry} of {retries})\n", self.name(host), time(after));
        if self.page.verbosity > 0 {
            text.push_str(&outcome::block(failure, None, self.page.verbosity < 3, self.page));
        }
        self.surface.write(&text);
    }

    fn output(&mut self, op: OpId, host: HostId, stream: Stream, line: &[u8], newline: bool) {
        if self.state.kind != Some(RunKind::Exec) {
            if self.page.verbosity >= 3 {
                let text = format!("[{}] {}{} {}\n", self.name(host), self.which(op), self.page.dim("|"), output_line(line));
                self.hold(false, text.as_bytes());
            }
            return;
        }
        match self.settings.exec {
            ExecOutput::Lines => {}
            ExecOutput::Gathered { .. } => return self.gathered.take(host, stream, line, newline),
            ExecOutput::Elsewhere => return,
        }
        let alone = self.state.hosts.len() == 1;
        let prefix = if alone { String::new() } else { format!("[{}] ", self.name(host)) };
        match stream {
            Stream::Stderr => self.hold(false, format!("{prefix}{}\n", output_line(line)).as_bytes()),
            Stream::Stdout => {
                let mut bytes = prefix.into_bytes();
                if self.settings.results_terminal {
                    bytes.extend_from_slice(output_line(line).as_bytes());
                } else {
                    bytes.extend_from_slice(line);
                }
                // The output of one host is given as it is, to the last byte.
                if newline || !alone || self.settings.results_terminal {
                    bytes.push(b'\n');
                }
                self.hold(true, &bytes);
            }
        }
    }

    fn hold(&mut self, results: bool, text: &[u8]) {
        if self.held.results != results || self.held.text.len() >= ENOUGH {
            self.write_held();
        }
        self.held.results = results;
        self.held.text.extend_from_slice(text);
    }

    fn write_held(&mut self) {
        let Held { text, results } = std::mem::take(&mut self.held);
        if text.is_empty() {
            return;
        }
        match results {
            true => self.result(&text),
            false => self.surface.write(&String::from_utf8_lossy(&text)),
        }
    }

    /// Writes to the results. The first failure is told, and nothing more is written: half a result must not look like a whole one.
    fn result(&mut self, bytes: &[u8]) {
        let Some(results) = &mut self.results else { return };
        let written = self.surface.beside(|| results.write_all(bytes).and_then(|()| results.flush()));
        if let Err(error) = written {
            self.results = None;
            let line = format!("{} the results cannot be written: {error}\n", self.page.bad("error:"));
            self.surface.write(&line);
        }
    }

    /// An operation in the body of a `call`. What failed there is shown whole with the `call` itself, which then fails too.
    fn within_call(&mut self, op: OpId, host: HostId, title: &str, result: &HostResult) {
        let call = self.operation(op).map(|operation| one_line(&operation.title)).unwrap_or_default();
        let line = format!("{call} › {}: {}", one_line(title), outcome::words(result, "", self.page));
        if self.folds() {
            self.share(op, line, host);
        } else {
            let line = format!("[{}] {line}{}\n", self.name(host), outcome::took(result));
            self.surface.write(&line);
        }
    }

    fn host_ended(&mut self, op: OpId, host: HostId, result: &HostResult) {
        let plan = self.state.plan.clone();
        let Some(operation) = plan.as_ref().and_then(|plan| plan.operations.get(op.index())) else { return };
        let elsewhere = match result.outcome {
            Outcome::Elsewhere { host, .. } => self.name(host).to_owned(),
            _ => String::new(),
        };
        let exec = self.state.kind == Some(RunKind::Exec);
        let title = if exec { String::new() } else { format!("{}: ", one_line(&operation.title)) };
        let words = outcome::words(result, &elsewhere, self.page);
        let took = outcome::took(result);
        let Some(failure) = outcome::failure(&result.outcome) else {
            if exec {
                return;
            }
            if self.folds() {
                self.share(op, format!("{title}{words}"), host);
            } else {
                let line = format!("[{}] {title}{words}{took}\n", self.name(host));
                self.surface.write(&line);
            }
            return;
        };
        let seen = self.failures.iter().find(|(known, before, _)| *known == op && before == failure).map(|(.., first)| *first);
        match seen {
            // `exec` says at its end how each host ended.
            Some(_) if exec => {}
            Some(first) => {
                let line = format!("{title}{words} (as on {})", self.name(first));
                if self.folds() {
                    self.share(op, line, host);
                } else {
                    let line = format!("[{}] {line}{took}\n", self.name(host));
                    self.surface.write(&line);
                }
            }
            None => {
                self.failures.push((op, failure.clone(), host));
                // What `exec` printed was shown as it came, and so was everything at -vvv.
                let with_output = (!exec || self.settings.exec == ExecOutput::Elsewhere) && self.page.verbosity < 3;
                let step = if exec { Failure { step: None, ..failure.clone() } } else { failure.clone() };
                let block = outcome::block(&step, (!exec).then_some(operation), with_output, self.page);
                if !exec || !block.is_empty() {
                    let text = format!("[{}] {title}{words}{took}\n{block}", self.name(host));
                    self.surface.write(&text);
                }
            }
        }
    }

    /// Keeps a line until its operation ends, for all hosts that share it.
    fn share(&mut self, op: OpId, line: String, host: HostId) {
        let lines = self.ended.entry(op).or_default();
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, hosts)) => hosts.push(host),
            None => lines.push((line, vec![host])),
        }
    }

    fn flush_operation(&mut self, op: OpId) {
        for (line, mut hosts) in self.ended.remove(&op).unwrap_or_default() {
            hosts.sort_unstable();
            let names = nodeset::fold_within(self.names(&hosts), 60);
            let total = if hosts.len() > 1 { format!(" ({} hosts)", hosts.len()) } else { String::new() };
            self.surface.write(&format!("[{names}] {line}{total}\n"));
        }
    }

    fn answered(&mut self, host: HostId, fact: &str, answer: &Result<Arc<Value>, String>) {
        match answer {
            Ok(answer) => {
                let name = self.name(host).to_owned();
                let facts = self.answers.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(facts) = facts {
                    facts.insert(fact.to_owned(), (**answer).clone());
                }
            }
            Err(message) => {
                let line = format!("[{}] {}: {}\n", self.name(host), self.page.bad(&format!("{fact} cannot be read")), one_line(message));
                self.surface.write(&line);
            }
        }
    }

    fn interrupted(&mut self, times: u32, in_flight: &[(OpId, HostId, Duration)]) {
        let what = match (times, in_flight.is_empty()) {
            (1, true) => "nothing new is started, and nothing is in flight",
            (1, false) => "nothing new is started; what is in flight is let finish (once more to kill it)",
            (2, _) => "what is in flight is killed on the hosts (once more to leave at once)",
            (_, true) => "leaving at once",
            (_, false) => "leaving at once; this may still be running:",
        };
        let mut text = format!("{} {what}\n", self.page.bad("interrupted:"));
        for (op, host, since) in in_flight {
            let title = self.operation(*op).map(|operation| one_line(&operation.title)).unwrap_or_default();
            text.push_str(&format!("    [{}] {title}, for {}\n", self.name(*host), time(*since)));
        }
        self.surface.write(&text);
    }

    fn ended(&mut self) {
        self.settle();
        for op in self.ended.keys().copied().collect::<Vec<_>>() {
            self.flush_operation(op);
        }
        if self.state.kind == Some(RunKind::Fact) && !self.state.misused {
            self.print_answers();
        }
        if let ExecOutput::Gathered { diff } = self.settings.exec {
            let escape = self.settings.results_terminal;
            let text = std::mem::take(&mut self.gathered).render(|host| self.name(host), diff, escape, self.page);
            self.result(text.as_bytes());
        }
        let took = self.settings.started.map(|started| started.elapsed());
        let journal = self.settings.journal.as_ref().and_then(Journalled::reliable);
        let text = summary::render(&self.state, &self.settings.invocation, journal, took, self.page);
        self.surface.write(&text);
    }

    /// The answers as one JSON document, hosts in inventory order.
    fn print_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        let hosts = self.state.hosts.values();
        let ordered: Map = hosts.filter_map(|host| answers.swap_remove(&host.name).map(|facts| (host.name.clone(), facts))).collect();
        let mut text = serde_json::to_string_pretty(&ordered).expect("a map of values is JSON");
        text.push('\n');
        self.result(text.as_bytes());
    }
}
