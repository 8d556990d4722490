//! Runs made up event by event, and writers that keep what was written.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::change::TextChange;
use infra_core::connection::{ConnectError, ConnectStep, Ending};
use infra_core::diagnostic::Location;
use infra_core::earlier::Mark;
use infra_core::event::{Event, Failure, HostResult, Outcome, Reporter, RunKind};
use infra_core::host::HostId;
use infra_core::operation::Idempotence;
use infra_core::output::Stream;
use infra_core::plan::{HostOutlook, OpId, Outlook, Plan, PlannedBlock, PlannedOperation};
use infra_report::{ScreenSettings, screen};

/// A writer whose bytes can be read elsewhere.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    pub fn boxed(&self) -> Box<dyn Write + Send> {
        Box::new(self.clone())
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A run in the making.
pub struct Run {
    pub events: Vec<Event>,
    pub hosts: u32,
    pub blocks: Vec<PlannedBlock>,
    connected: Vec<u32>,
}

impl Run {
    /// A run on hosts of these names.
    pub fn on<N: Into<String>>(kind: RunKind, names: impl IntoIterator<Item = N>) -> Self {
        let hosts: Vec<_> = names.into_iter().zip(0..).map(|(name, id)| (HostId(id), name.into())).collect();
        let count = hosts.len() as u32;
        Self {
            events: vec![Event::RunStarted { kind, hosts: Arc::new(hosts) }, Event::Connecting],
            hosts: count,
            blocks: vec![],
            connected: vec![],
        }
    }

    /// A run on `web-01` up to this number.
    pub fn fleet(kind: RunKind, count: u32) -> Self {
        let width = count.to_string().len().max(2);
        Self::on(kind, (1..=count).map(|number| format!("web-{number:0width$}")))
    }

    pub fn then(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    pub fn each(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(events);
        self
    }

    /// All hosts but these are reached.
    pub fn connected_but(mut self, not: &[u32]) -> Self {
        let hosts: Vec<_> = (0..self.hosts).filter(|id| !not.contains(id)).collect();
        self.connected.clone_from(&hosts);
        self.each(hosts.into_iter().map(|id| Event::HostConnected { host: HostId(id), took: Duration::from_millis(40) }))
    }

    pub fn connected(self) -> Self {
        self.connected_but(&[])
    }

    pub fn planned(self, operations: Vec<PlannedOperation>) -> Self {
        self.planned_with(operations, vec![])
    }

    pub fn planned_with(self, operations: Vec<PlannedOperation>, notes: Vec<String>) -> Self {
        let registered = |id| operations.iter().filter(|one| one.hosts.iter().any(|host| host.host == HostId(id))).count();
        let prepared: Vec<_> =
            self.connected.iter().map(|id| Event::HostPrepared { host: HostId(*id), operations: registered(*id) }).collect();
        let operations = operations.into_iter().zip(0..).map(|(one, id)| PlannedOperation { id: OpId(id), ..one }).collect();
        let blocks = self.blocks.clone();
        self.then(Event::Preparing)
            .each(prepared)
            .then(Event::PlanReady { plan: Arc::new(Plan { operations, blocks, notes, earlier: vec![] }) })
    }

    /// An operation that has these outcomes on its hosts.
    pub fn operation(self, op: u32, outcomes: impl IntoIterator<Item = (u32, HostResult)>) -> Self {
        let op = OpId(op);
        let mut run = self.then(Event::OperationStarted { op });
        for (host, result) in outcomes {
            let host = HostId(host);
            if !matches!(result.outcome, Outcome::Skipped { .. } | Outcome::Elsewhere { .. }) {
                run = run.then(Event::HostOperationStarted { op, host });
            }
            run = run.then(Event::HostOperationEnded { op, host, result: Box::new(result) });
        }
        run.then(Event::OperationEnded { op })
    }

    pub fn ended(self) -> Self {
        self.then(Event::RunEnded)
    }

    /// What a person sees, and what stands on the results.
    pub fn shown(&self, settings: ScreenSettings) -> (String, Vec<u8>) {
        let (human, results) = (Kept::default(), Kept::default());
        let mut reporter = screen(settings, human.boxed(), results.boxed());
        self.events.iter().for_each(|event| reporter.event(event));
        reporter.idle();
        drop(reporter);
        (human.text(), results.bytes())
    }

    /// What a person sees at a verbosity, without a terminal, in 100 columns.
    pub fn human(&self, verbosity: u8) -> String {
        self.shown(ScreenSettings { verbosity, ..settings() }).0
    }

    pub fn give(&self, mut reporter: Box<dyn Reporter>) {
        self.events.iter().for_each(|event| reporter.event(event));
        reporter.idle();
    }
}

pub fn settings() -> ScreenSettings {
    ScreenSettings { invocation: words("infra fleet.lua deploy.lua"), ..ScreenSettings::default() }
}

pub fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

pub fn operation(title: &str, line: u32, outlooks: impl IntoIterator<Item = (u32, Outlook)>) -> PlannedOperation {
    PlannedOperation {
        id: OpId(0),
        kind: "server.shell".into(),
        title: title.into(),
        location: Some(Location { file: "deploy.lua".into(), line }),
        idempotence: Idempotence::NotIdempotent,
        serial: None,
        blocks: vec![],
        run_once: false,
        hosts: outlooks
            .into_iter()
            .map(|(host, outlook)| HostOutlook { host: HostId(host), call: 0, outlook, mark: Mark::default() })
            .collect(),
    }
}

pub fn change(reason: &str, steps: &[&str]) -> Outlook {
    Outlook::Change { reason: reason.into(), steps: steps.iter().map(|step| (*step).to_owned()).collect(), texts: vec![] }
}

pub fn change_text(reason: &str, path: &str, before: &str, after: &str) -> Outlook {
    let texts = vec![TextChange { path: path.into(), before: before.into(), after: after.into(), withheld: None }];
    Outlook::Change { reason: reason.into(), steps: vec![format!("write {path}")], texts }
}

pub fn none(reason: &str) -> Outlook {
    Outlook::NoChange { reason: reason.into() }
}

pub fn depends(on: &str, would: Option<&str>) -> Outlook {
    Outlook::Depends { on: Some(on.into()), would: would.map(str::to_owned) }
}

/// Decided by a function of the script.
pub fn open() -> Outlook {
    Outlook::Depends { on: None, would: None }
}

fn result(outcome: Outcome, took: f64, exit_code: Option<i32>) -> HostResult {
    let took = Duration::from_secs_f64(took);
    HostResult { took, exit_code, ..HostResult::without_work(outcome) }
}

pub fn changed(reason: &str, took: f64) -> HostResult {
    HostResult { steps_done: 1, ..result(Outcome::Changed { reason: reason.into() }, took, Some(0)) }
}

pub fn unchanged(reason: &str) -> HostResult {
    result(Outcome::Unchanged { reason: reason.into() }, 0.0, None)
}

pub fn skipped(reason: &str) -> HostResult {
    result(Outcome::Skipped { reason: reason.into() }, 0.0, None)
}

pub fn elsewhere(host: u32, changed: bool) -> HostResult {
    result(Outcome::Elsewhere { host: HostId(host), changed, ok: true }, 0.0, None)
}

pub fn exited(status: i32, step: &str, output: &[&str]) -> Failure {
    Failure {
        message: format!("exited with {status}"),
        hint: None,
        step: Some(step.into()),
        ending: Some(Ending::Exited(status)),
        last_output: output.iter().map(|line| (*line).to_owned()).collect(),
    }
}

pub fn failed(failure: Failure, took: f64) -> HostResult {
    let status = match failure.ending {
        Some(Ending::Exited(status)) => Some(status),
        _ => None,
    };
    result(Outcome::Failed { failure, ignored: false }, took, status)
}

pub fn ignored(failure: Failure) -> HostResult {
    result(Outcome::Failed { failure, ignored: true }, 0.0, Some(1))
}

pub fn indeterminate(failure: Failure, took: f64) -> HostResult {
    result(Outcome::Indeterminate { failure }, took, None)
}

pub fn refused(host: u32) -> Event {
    let error = ConnectError {
        step: ConnectStep::Connect,
        message: "connection refused by 10.0.0.7 port 22".into(),
        hint: Some("is sshd running there?".into()),
    };
    Event::HostUnreachable { host: HostId(host), error }
}

pub fn output(host: u32, stream: Stream, line: &[u8]) -> Event {
    Event::Output { op: OpId(0), host: HostId(host), stream, line: line.to_vec(), newline: true }
}
