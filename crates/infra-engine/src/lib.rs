//! The run: connect, gather, prepare, graph, plan, execute. Events out.
//!
//! The engine knows neither the language of deploys nor the wire: scripts come from a [`Language`], hosts are reached through a [`Connect`], and
//! what happens goes out as [`Event`]s in the order that [`infra_core::event`] states. It prints nothing and reads no setting by itself.
//!
//! A program makes a [`Run`] of an inventory, a registry, a language and a wire, reads the events while it waits for [`Run::deploy`] (or [`Run::facts`]), and
//! gets the record of the run back, from which the exit code and the accounting come. `examples/own_language.rs` does so with all of these made by itself; the
//! wire to real hosts is `infra-connect`'s, the operations of the standard library are `infra-std`'s.
//!
//! Where to look:
//!
//! - `run`: the phases, and the ways out of them; `run::second_look`: preparing again after the question and after the run;
//! - `prepare`, `judgement`: from a script to what each of its operations will do;
//! - `fact_store`, `overlay`, `layers`, `local_files`: what is known of a host, now and after the operations before;
//! - `places`: where operations go that run elsewhere than on their host;
//! - `graph`, `any_host`, `plan_building`: one order over all hosts;
//! - `saved`: what a plan rests on, for one that is saved and applied later;
//! - `earlier`: what runs before this one have done, where it goes on from them;
//! - `policy`: who may start, and when to stop;
//! - `execute`, `host_execution`, `operation_run`, `steps`, `locking`, `joint_diff`, `output_lines`: one dispatcher that owns the state, and workers that own nothing;
//! - `late_values`, `call_body`: what a script does in execute: arguments, conditions, and the bodies of `call`;
//! - `describe`: the words for steps and endings.

mod any_host;
mod call_body;
mod describe;
mod earlier;
mod event_stream;
mod execute;
mod fact_store;
mod graph;
mod host_execution;
mod host_run;
mod joint_diff;
mod judgement;
mod late_values;
mod layers;
mod local_files;
mod local_trees;
mod locking;
mod operation_run;
mod output_lines;
mod overlay;
mod places;
mod plan_building;
mod policy;
mod prepare;
mod run;
mod saved;
mod setback;
mod steps;

use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::connection::Connect;
use infra_core::earlier::Earlier;
use infra_core::event::{Event, Journal, RunKind};
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::plan::Plan;
use infra_core::registry::Registry;
use infra_core::saved_plan::{Basis, BasisRecord};
use infra_core::script::Language;
use infra_core::secret::Secrets;
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
    /// What the runs have done from which this one goes on.
    pub earlier: Option<Arc<Earlier>>,
    /// Where what the plan rests on is left, for a plan that is to be saved.
    pub record: Option<Arc<BasisRecord>>,
    /// What the plan rests on that is to be applied: hosts where that does not hold any more are refused, and operations do what they were planned to do.
    pub saved: Option<Arc<Basis>>,
    /// How old facts may be when the question before execution is answered; older ones are read again, and a plan that then differs is asked about again.
    pub facts_age: Duration,
    /// Whether the hosts that are ok after execution are prepared once more, to prove that nothing is left to do.
    pub prove: Option<Proving>,
    /// Whether the exit code is to tell whether there were changes.
    pub detailed_exit_code: bool,
    /// What must be neither shown nor kept: it is masked in all events, in what the journal is told, and in the plan that is asked about.
    pub secrets: Secrets,
}

/// What counts in a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proving {
    /// Operations that are idempotent by nature. The others are taken to have done their work: what follows them is looked at as the host stands.
    Idempotent,
    /// All operations.
    Strict,
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
            earlier: None,
            record: None,
            saved: None,
            facts_age: Duration::from_secs(60),
            prove: None,
            detailed_exit_code: false,
            secrets: Secrets::default(),
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

    /// Whether a person is asked, who may take their time. Where nobody is, facts are not read again before execution.
    fn asks(&self) -> bool {
        true
    }
}
