//! The journal of a run: JSON lines, each written before anything follows from it, so that it tells the truth however the run ends.
//!
//! The first line is the header; each line says what happened (`event`) and when (`at`, seconds since 1970 in UTC). Who reads one ignores lines and members
//! that they do not know, and a last line that was cut. Outputs are in it where a later run may go on from this one: those of the operations of a deploy, bounded.
//! File contents and steps of the plan are not.

mod moment;
mod reading;
mod recorder;
mod rendering;

use std::time::Duration;

use infra_core::connection::{ConnectError, Traffic};
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::event::{Event, Failure, HostResult, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::lock::LockNews;
use infra_core::plan::{HostOutlook, OpId, Outlook, Plan, PlannedOperation};
use infra_core::run_state::Bucket;
use serde::{Deserialize, Serialize};

pub use crate::json::WithinCall;
pub use moment::{is_run_name, readable, run_name};
pub use reading::{InFlight, ReadError, Record};
pub use recorder::{Open, Paper, Recorder};
pub use rendering::{render_run, render_runs, run_document, runs_document};

/// The version of the format. Lines and members are added without a new one; none is removed or changes its meaning.
pub const VERSION: u32 = 1;

/// The first line: which run it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub version: u32,
    /// The run's name in the journal; names sort by time.
    pub run: String,
    /// The version of the program.
    pub program: String,
    /// The words of the command line, the program's name first.
    pub invocation: Vec<String>,
    /// The inventory as it was written on the command line.
    pub inventory: String,
    /// The working directory.
    pub folder: String,
    /// What the run is for.
    pub kind: RunKind,
    /// The run from which this one goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<String>,
    /// The selected hosts, in inventory order: the number by which the other lines call each, and its name.
    pub hosts: Vec<(HostId, String)>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    /// Seconds since 1970 in UTC.
    at: f64,
    #[serde(flatten)]
    entry: Entry,
}

/// What a line says: an event of the run, without what has no place in a journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Entry {
    RunStarted(Header),
    HostUnreachable {
        host: HostId,
        error: ConnectError,
    },
    HostFailed {
        host: HostId,
        diagnostic: Box<Diagnostic>,
    },
    PlanReady {
        plan: Plan,
    },
    Executing,
    WaveStarted {
        of: Waves,
        wave: usize,
        waves: usize,
        hosts: Vec<HostId>,
    },
    OperationStarted {
        op: OpId,
    },
    HostOperationStarted {
        op: OpId,
        host: HostId,
    },
    CommandStarted {
        op: OpId,
        host: HostId,
        text: String,
    },
    Lock {
        op: OpId,
        host: HostId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        on: Option<String>,
        news: LockNews,
    },
    Retrying {
        op: OpId,
        host: HostId,
        retry: u32,
        retries: u32,
        after: f64,
        failure: Box<Failure>,
    },
    WithinCall {
        op: OpId,
        host: HostId,
        kind: String,
        title: String,
        location: Option<Location>,
        result: Box<HostResult>,
    },
    HostOperationEnded {
        op: OpId,
        host: HostId,
        result: Box<HostResult>,
    },
    OperationEnded {
        op: OpId,
    },
    Proving,
    Proved {
        plan: Plan,
        strict: bool,
    },
    Counted {
        hosts: Vec<(HostId, Traffic)>,
    },
    Stopped {
        reason: StopReason,
    },
    Interrupted {
        times: u32,
        in_flight: Vec<(OpId, HostId, f64)>,
    },
    RunEnded {
        hosts: Vec<(HostId, Bucket)>,
        exit_code: u8,
    },
}

impl Entry {
    /// The line of an event, where it has one of its own; the first and the last are made elsewhere.
    fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::HostUnreachable { host, error } => Self::HostUnreachable { host: *host, error: error.clone() },
            Event::HostFailed { host, diagnostic } => Self::HostFailed { host: *host, diagnostic: diagnostic.clone() },
            Event::PlanReady { plan } => Self::PlanReady { plan: slim_plan(plan) },
            Event::Executing => Self::Executing,
            Event::WaveStarted { of, wave, waves, hosts } => {
                Self::WaveStarted { of: *of, wave: *wave, waves: *waves, hosts: hosts.clone() }
            }
            Event::OperationStarted { op } => Self::OperationStarted { op: *op },
            Event::HostOperationStarted { op, host } => Self::HostOperationStarted { op: *op, host: *host },
            Event::CommandStarted { op, host, text } => Self::CommandStarted { op: *op, host: *host, text: text.clone() },
            Event::Lock { op, host, on, news } => Self::Lock { op: *op, host: *host, on: on.clone(), news: news.clone() },
            Event::Retrying { op, host, retry, retries, after, failure } => Self::Retrying {
                op: *op,
                host: *host,
                retry: *retry,
                retries: *retries,
                after: after.as_secs_f64(),
                failure: failure.clone(),
            },
            Event::WithinCall { op, host, kind, title, location, result } => {
                let (kind, title, location) = (kind.clone(), title.clone(), location.clone());
                Self::WithinCall { op: *op, host: *host, kind, title, location, result: Box::new(result.without_output()) }
            }
            Event::HostOperationEnded { op, host, result } => {
                Self::HostOperationEnded { op: *op, host: *host, result: Box::new(kept_result(result)) }
            }
            Event::OperationEnded { op } => Self::OperationEnded { op: *op },
            Event::Proving => Self::Proving,
            Event::Proved { plan, strict } => Self::Proved { plan: slim_plan(plan), strict: *strict },
            Event::Counted { hosts } => Self::Counted { hosts: hosts.clone() },
            Event::Stopped { reason } => Self::Stopped { reason: reason.clone() },
            Event::Interrupted { times, in_flight } => {
                let in_flight = in_flight.iter().map(|(op, host, since)| (*op, *host, since.as_secs_f64())).collect();
                Self::Interrupted { times: *times, in_flight }
            }
            Event::RunStarted { .. }
            | Event::RunEnded
            | Event::Connecting
            | Event::HostConnected { .. }
            | Event::Preparing
            | Event::HostPrepared { .. }
            | Event::Misused { .. }
            | Event::Log { .. }
            | Event::Declined
            | Event::DetailedExitCode
            | Event::Rechecking
            | Event::PlanStands
            | Event::TextsChanged { .. }
            | Event::Moved { .. }
            | Event::Output { .. }
            | Event::FactAnswered { .. } => return None,
        })
    }
}

/// The plan without the contents of files and the commands: what is run is written when it is run.
fn slim_plan(plan: &Plan) -> Plan {
    let outlook = |outlook: &Outlook| match outlook {
        Outlook::Change { reason, .. } => Outlook::Change { reason: reason.clone(), steps: Vec::new(), texts: Vec::new() },
        other => other.clone(),
    };
    let operations = plan.operations.iter().map(|operation| {
        let PlannedOperation { id, kind, title, location, idempotence, serial, blocks, run_once, hosts } = operation;
        let hosts = hosts
            .iter()
            .map(|host| HostOutlook { host: host.host, call: host.call, outlook: outlook(&host.outlook), mark: host.mark.clone() })
            .collect();
        PlannedOperation {
            id: *id,
            kind: kind.clone(),
            title: title.clone(),
            location: location.clone(),
            idempotence: *idempotence,
            serial: serial.clone(),
            blocks: blocks.clone(),
            run_once: *run_once,
            hosts,
        }
    });
    Plan { operations: operations.collect(), blocks: plan.blocks.clone(), notes: plan.notes.clone(), earlier: plan.earlier.clone() }
}

/// The result of an operation of a deploy as it is kept: with its outputs, since conditions and functions of a run that goes on from this one ask for them.
/// Nothing else of outputs comes into a journal, so that this is the place where values give way that must not be kept. They are bounded when they come here.
fn kept_result(result: &HostResult) -> HostResult {
    result.clone()
}

/// A moment as lines have it: seconds, to the microsecond.
fn seconds(since_1970: Duration) -> f64 {
    since_1970.as_micros() as f64 / 1_000_000.0
}
