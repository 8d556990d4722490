//! The run: connect, gather, prepare, graph, plan, execute. Events out.
//!
//! The engine knows neither the language of deploys nor the wire: scripts come from a [`Language`], hosts are reached through a [`Connect`], and
//! what happens goes out as [`Event`]s in the order that [`infra_core::event`] states. It prints nothing and reads no setting by itself.
//!
//! Where to look:
//!
//! - `run`: the phases, and the ways out of them;
//! - `prepare`, `judgement`: from a script to what each of its operations will do;
//! - `fact_store`, `overlay`, `local_files`: what is known of a host, now and after the operations before;
//! - `graph`, `any_host`, `plan_building`: one order over all hosts;
//! - `policy`: who may start, and when to stop;
//! - `execute`, `operation_run`, `joint_diff`, `locking`, `output_lines`: one dispatcher that owns the state, and workers that own nothing;
//! - `describe`: the words for steps and endings.

mod any_host;
mod describe;
mod event_stream;
mod execute;
mod fact_store;
mod graph;
mod host_run;
mod joint_diff;
mod judgement;
mod local_files;
mod locking;
mod operation_run;
mod output_lines;
mod overlay;
mod plan_building;
mod policy;
mod prepare;
mod run;

use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::connection::Connect;
use infra_core::event::{Event, Journal, RunKind};
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::plan::Plan;
use infra_core::registry::Registry;
use infra_core::script::Language;
use infra_core::waves::Share;
use tokio::sync::{mpsc, watch};

/// What a run does and within which bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the run is for.
    pub kind: RunKind,
    /// How many hosts may be at work at once in execute; all where not given.
    pub parallel: Option<usize>,
    /// Stop at the first host that is not ok, from connecting on.
    pub fail_fast: bool,
    /// Stop as soon as more than so many percent of the selected hosts are not ok, from connecting on.
    pub fail_percent: Option<f64>,
    /// Host by host: all operations of a host, then the next host. It wins over [`no_wait`](Self::no_wait).
    pub serial: bool,
    /// How many hosts of a wave may fail before no further one starts, where hosts go one by one ([`serial`](Self::serial)).
    pub max_fail: Share,
    /// Every host runs through its own operations, without barriers.
    pub no_wait: bool,
    /// How many hosts are connected to at once.
    pub handshakes: usize,
    /// How many hosts are prepared at once.
    pub preparing: usize,
    /// How machines are kept to one run at a time; not at all where not given.
    pub lock: Option<LockSettings>,
    /// How long closing all connections may take, and how long killed commands may take to end.
    pub closing: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: RunKind::Deploy,
            parallel: None,
            fail_fast: false,
            fail_percent: None,
            serial: false,
            max_fail: Share::NONE,
            no_wait: false,
            handshakes: 64,
            preparing: 256,
            lock: None,
            closing: Duration::from_secs(10),
        }
    }
}

/// How machines are kept to one run at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSettings {
    /// The name of this run, which another one is told.
    pub run: String,
    /// Who started it.
    pub user: String,
    /// The name of this machine.
    pub controller: String,
    /// How long a lock holds after the last sign of life of its run.
    pub lease: Duration,
    /// How long a host waits for another run to end there, once.
    pub wait: Duration,
    /// Whether a host on which no lock can be kept fails.
    pub required: bool,
}

/// A run that has not begun.
pub struct Run {
    /// All hosts there are.
    pub inventory: Arc<Inventory>,
    /// The selected ones, in inventory order.
    pub hosts: Vec<HostId>,
    /// All operations and facts.
    pub registry: Arc<Registry>,
    /// What makes each host's script. Not used by [`Run::facts`].
    pub language: Arc<dyn Language>,
    /// What makes connections.
    pub connect: Arc<dyn Connect>,
    /// What the run does and within which bounds.
    pub settings: Settings,
    /// Who is asked before execution.
    pub approve: Arc<dyn Approve>,
    /// How often the user interrupted infra by now: 1 ends what is in flight in peace, 2 kills it, 3 leaves at once.
    pub interrupts: watch::Receiver<u32>,
    /// Where the events go. The channel is bounded: a slow reader slows the run.
    pub events: mpsc::Sender<Event>,
    /// Where events are kept beyond the run. It is told of each before anything follows from it.
    pub journal: Option<Arc<dyn Journal>>,
}

/// Who is asked before execution.
pub trait Approve: Send + Sync {
    /// Whether this plan is to be executed. It is asked only in a [`RunKind::Deploy`] whose plan may change something.
    fn approve(&self, plan: Arc<Plan>) -> BoxFuture<'_, bool>;
}
