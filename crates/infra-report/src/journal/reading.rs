//! Reading a journal back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use infra_core::connection::ConnectError;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Failure, HostResult, Outcome};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::{Bucket, RunState};

use super::{Entry, Header, Line, VERSION, WithinCall};

/// A run as its journal tells of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which run it is.
    pub header: Header,
    /// When it began, in seconds since 1970 in UTC.
    pub started: f64,
    /// When the last line was written, in the same.
    pub last: f64,
    /// The exit code; none where the journal has no end: the run was cut off, or is at work.
    pub exit_code: Option<u8>,
    /// What happened. What was in flight when the run was cut off has an outcome that is not known.
    pub state: RunState,
    /// What was in flight when the run was cut off; of a run that is at work, what is.
    pub in_flight: Vec<InFlight>,
    lives: bool,
    /// Why hosts could not be reached.
    pub unreachable: BTreeMap<HostId, ConnectError>,
    /// Why hosts failed outside of operations.
    pub failed_outside: BTreeMap<HostId, Diagnostic>,
    /// What ended in the bodies of `call`, in its order.
    pub within: BTreeMap<(HostId, OpId), Vec<WithinCall>>,
}

/// An operation that was at work on a host at the end of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight {
    /// Which operation.
    pub op: OpId,
    /// On which host.
    pub host: HostId,
    /// When it began there, in seconds since 1970 in UTC.
    pub since: f64,
    /// The command or upload that was begun last.
    pub step: Option<String>,
}

/// Why a journal cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// It does not begin with a header.
    NoHeader,
    /// A later infra wrote it.
    Later {
        /// The version of its format.
        version: u32,
    },
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoHeader => f.write_str("it does not begin with the header of a journal"),
            Self::Later { version } => write!(f, "its format has version {version}; this infra reads up to {VERSION}"),
        }
    }
}

impl std::error::Error for ReadError {}

impl Record {
    /// Reads a journal, without the outputs of commands. Lines that are not known are left out, and so is a last line that was cut.
    ///
    /// # Errors
    /// [`ReadError`] where the first line is no header of a format that is known.
    pub fn read(text: &[u8]) -> Result<Self, ReadError> {
        Self::read_lines(text, false, false)
    }

    /// The same for a run whose process is known to live: unless it has come to its end meanwhile, it is not cut off but [at work](Record::at_work).
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn read_living(text: &[u8]) -> Result<Self, ReadError> {
        Self::read_lines(text, false, true)
    }

    /// The same, with the outputs.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn read_with_outputs(text: &[u8]) -> Result<Self, ReadError> {
        Self::read_lines(text, true, false)
    }

    fn read_lines(text: &[u8], outputs: bool, lives: bool) -> Result<Self, ReadError> {
        let mut lines = text.split(|byte| *byte == b'\n');
        let first = lines.next().and_then(|line| serde_json::from_slice(line).ok());
        let Some(Line { at: started, entry: Entry::RunStarted(header) }) = first else { return Err(ReadError::NoHeader) };
        if header.version > VERSION {
            return Err(ReadError::Later { version: header.version });
        }
        let mut state = RunState::default();
        state.fold(&Event::RunStarted { kind: header.kind, hosts: Arc::new(header.hosts.clone()) });
        let mut record = Self {
            header,
            started,
            last: started,
            exit_code: None,
            state,
            in_flight: Vec::new(),
            lives,
            unreachable: BTreeMap::new(),
            failed_outside: BTreeMap::new(),
            within: BTreeMap::new(),
        };
        let mut at_work = BTreeMap::new();
        for mut line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
            if let (Entry::HostOperationEnded { result, .. }, false) = (&mut line.entry, outputs) {
                **result = result.without_output();
            }
            record.last = line.at;
            record.take(line, &mut at_work);
        }
        record.in_flight = at_work.into_values().collect();
        for InFlight { op, host, since, step } in record.in_flight.iter().filter(|_| !lives) {
            let message = "the run was cut off while it was at work".to_owned();
            let failure = Failure { message, step: step.clone(), ..Failure::default() };
            let took = Duration::try_from_secs_f64(record.last - since).unwrap_or_default();
            let outcome = Outcome::Indeterminate { failure };
            let result = HostResult { took, ..HostResult::without_work(outcome) };
            record.state.fold(&Event::HostOperationEnded { op: *op, host: *host, result: Box::new(result) });
        }
        Ok(record)
    }

    fn take(&mut self, Line { at, entry }: Line, at_work: &mut BTreeMap<(OpId, HostId), InFlight>) {
        let event = match entry {
            Entry::HostUnreachable { host, error } => Event::HostUnreachable { host, error },
            Entry::HostFailed { host, diagnostic } => Event::HostFailed { host, diagnostic },
            Entry::PlanReady { plan } => Event::PlanReady { plan: Arc::new(plan) },
            Entry::Executing => Event::Executing,
            Entry::Proving => Event::Proving,
            Entry::Proved { plan, strict } => Event::Proved { plan: Arc::new(plan), strict },
            Entry::Counted { mut hosts } => {
                hosts.retain(|(host, _)| self.state.hosts.contains_key(host));
                Event::Counted { hosts }
            }
            Entry::HostOperationEnded { op, host, result } => {
                at_work.remove(&(op, host));
                Event::HostOperationEnded { op, host, result }
            }
            Entry::Stopped { reason } => Event::Stopped { reason },
            Entry::Interrupted { times, .. } => Event::Interrupted { times, in_flight: Vec::new() },
            Entry::HostOperationStarted { op, host } => {
                at_work.insert((op, host), InFlight { op, host, since: at, step: None });
                return;
            }
            Entry::CommandStarted { op, host, text } => {
                if let Some(known) = at_work.get_mut(&(op, host)) {
                    known.step = Some(text);
                }
                return;
            }
            Entry::RunEnded { exit_code, .. } => {
                self.exit_code = Some(exit_code);
                return;
            }
            Entry::RunStarted(_)
            | Entry::WaveStarted { .. }
            | Entry::OperationStarted { .. }
            | Entry::OperationEnded { .. }
            | Entry::Lock { .. }
            | Entry::Retrying { .. } => return,
            Entry::WithinCall { op, host, kind, title, location, result } => {
                self.within.entry((host, op)).or_default().push(WithinCall { kind, title, location, result: *result });
                return;
            }
        };
        // A line about a host that the header does not know tells nothing.
        let known = match &event {
            Event::HostUnreachable { host, .. } | Event::HostFailed { host, .. } | Event::HostOperationEnded { host, .. } => {
                self.state.hosts.contains_key(host)
            }
            _ => true,
        };
        if !known {
            return;
        }
        self.state.fold(&event);
        match event {
            Event::HostUnreachable { host, error } => {
                self.unreachable.insert(host, error);
            }
            Event::HostFailed { host, diagnostic } => {
                self.failed_outside.insert(host, *diagnostic);
            }
            _ => {}
        }
    }

    /// Whether the run has no end and comes to none: infra was killed.
    pub fn cut_off(&self) -> bool {
        self.exit_code.is_none() && !self.lives
    }

    /// Whether the run has not come to its end yet.
    pub fn at_work(&self) -> bool {
        self.exit_code.is_none() && self.lives
    }

    /// How long the run took, as far as the journal goes.
    pub fn took(&self) -> Duration {
        Duration::try_from_secs_f64(self.last - self.started).unwrap_or_default()
    }

    /// The hosts that are not ok: failed, indeterminate or unreachable, in inventory order.
    pub fn failed(&self) -> Vec<&str> {
        self.hosts_in(|bucket| matches!(bucket, Bucket::Failed | Bucket::Indeterminate | Bucket::Unreachable))
    }

    /// The hosts that were not reached, in inventory order.
    pub fn unreached(&self) -> Vec<&str> {
        self.hosts_in(|bucket| bucket == Bucket::NotReached)
    }

    fn hosts_in(&self, wanted: impl Fn(Bucket) -> bool) -> Vec<&str> {
        let hosts = self.state.account().hosts.into_iter().filter(|(_, bucket)| wanted(*bucket));
        hosts.map(|(id, _)| self.state.hosts[&id].name.as_str()).collect()
    }
}
