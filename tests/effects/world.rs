//! A place where plans come true: a folder of this machine or of a system of its own, planned and run through the real engine and the real wire, and looked at
//! by the test itself before and after each operation.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use infra_connect::Wire;
use infra_core::diagnostic::Location;
use infra_core::event::{Event, Journal, Outcome};
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::Host;
use infra_core::inventory_builder::from_host_list;
use infra_core::kept_to::departures;
use infra_core::late::Late;
use infra_core::plan::{Outlook, Plan};
use infra_core::run_state::RunState;
use infra_core::script::{Answer, Language, Next, OperationCall, Script, Step};
use infra_core::{BoxFuture, Map, Value};
use infra_engine::{Approve, Run, Settings};
use tokio::sync::{mpsc, watch};

/// A call of an operation: `module.operation` and its arguments.
pub type Call = (String, Value);

/// What the plan said of one operation, or what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It changes something.
    Change,
    /// It changes nothing.
    Nothing,
    /// It fails.
    Failure,
    /// It depends on an earlier operation: only the plan says so.
    Depends,
}

/// One operation of a run: what was planned and what came of it, and how things stood before and after.
#[derive(Clone, Debug)]
pub struct Done {
    /// What the plan said.
    pub planned: (Word, String),
    /// What came of it.
    pub outcome: (Word, String),
    /// What the look at the place gave before it.
    pub before: Seen,
    /// And after it.
    pub after: Seen,
}

/// What stands in a folder, one line for each thing in it; and for each call of the chain whether its wish is fulfilled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Path, kind, mode, owner, content or target.
    pub listing: Vec<String>,
    /// Whether the wish of each call is fulfilled.
    pub fulfilled: Vec<bool>,
    /// Whether the wish of each call speaks of an owner who is not there.
    pub ownerless: Vec<bool>,
}

/// A function that looks at the place.
pub type Look = Arc<dyn Fn() -> Seen + Send + Sync>;

struct Calls(Vec<Call>);

impl Language for Calls {
    fn script(&self, _: &Arc<Host>) -> Box<dyn Script> {
        let call = |(place, (kind, arguments)): (usize, &Call)| {
            let Value::Object(arguments) = arguments else { panic!("{arguments} is no map") };
            let line = u32::try_from(place + 1).expect("a short chain");
            OperationCall {
                call: line - 1,
                kind: kind.clone(),
                name: Some(format!("number {place}")),
                path: Vec::new(),
                blocks: Vec::new(),
                arguments: arguments.clone(),
                conditions: Vec::new(),
                when: Vec::new(),
                // What is refused on the host as it then stands leaves the others to go on.
                globals: GlobalArguments { ignore_errors: Some(true), ..GlobalArguments::default() },
                chain: vec![Location { file: "chain".to_owned(), line }],
                deploy: 0,
                late: Late::default(),
                on: None,
            }
        };
        Box::new(Said(self.0.iter().enumerate().map(call).collect()))
    }
}

struct Said(Vec<OperationCall>);

impl Script for Said {
    fn resume(&mut self, _: Vec<Answer>) -> BoxFuture<'_, Step> {
        Box::pin(std::future::ready(Step { calls: std::mem::take(&mut self.0), next: Next::Done }))
    }
}

struct Yes;

impl Approve for Yes {
    fn approve(&self, _: Arc<Plan>) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }

    fn asks(&self) -> bool {
        false
    }
}

/// Looks whenever an operation has ended, before anything follows from that.
struct Looking {
    look: Look,
    seen: Mutex<Vec<Seen>>,
}

impl Journal for Looking {
    fn record(&self, event: &Event) {
        if let Event::Executing | Event::HostOperationEnded { .. } = event {
            self.seen.lock().expect("no look panics").push((self.look)());
        }
    }
}

/// Plans and runs a chain of calls on a host, such as `@local`. Gives what was planned and done, one after the other.
pub fn run(host: &str, calls: &[Call], look: Look) -> Result<Vec<Done>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let inventory = Arc::new(from_host_list(host, Map::new()).expect("a host"));
        let (events, mut told) = mpsc::channel(256);
        let (_interrupt, interrupts) = watch::channel(0);
        let journal = Arc::new(Looking { look: look.clone(), seen: Mutex::default() });
        let run = Run {
            hosts: inventory.hosts.iter().map(|host| host.id).collect(),
            inventory,
            registry: Arc::new(infra_std::registry()),
            language: Arc::new(Calls(calls.to_vec())),
            connect: Arc::new(Wire::new(infra_connect::Settings::new("/nonexistent/never-used"))),
            settings: Settings::default(),
            approve: Arc::new(Yes),
            interrupts,
            events,
            journal: Some(journal.clone()),
        };
        let listening = async { while told.recv().await.is_some() {} };
        let (state, ()) = tokio::join!(run.deploy(), listening);
        let seen = std::mem::take(&mut *journal.seen.lock().expect("no look panics"));
        told_of(&state, &look, seen)
    })
}

/// Puts together what was planned, what came of it and what was seen.
fn told_of(state: &RunState, look: &Look, mut seen: Vec<Seen>) -> Result<Vec<Done>, String> {
    let plan = state.plan.as_ref().ok_or_else(|| format!("there is no plan: {state:#?}"))?;
    let host = state.hosts.values().next().ok_or("there is no host")?;
    if let Some((_, message)) = &host.failed {
        return Err(format!("the host failed: {message}"));
    }
    let told = departures(state);
    if !state.executing {
        seen = vec![look(); plan.operations.len() + 1];
    }
    if seen.len() != plan.operations.len() + 1 {
        return Err(format!("{} looks at {} operations", seen.len(), plan.operations.len()));
    }
    let mut all = Vec::new();
    for (place, operation) in plan.operations.iter().enumerate() {
        let planned = match &operation.hosts[0].outlook {
            Outlook::Change { reason, .. } => (Word::Change, reason.clone()),
            Outlook::NoChange { reason } if reason.starts_with("fails, which is ignored") => (Word::Failure, reason.clone()),
            Outlook::NoChange { reason } => (Word::Nothing, reason.clone()),
            Outlook::Depends { on, would } => (Word::Depends, format!("on {on:?}, would {would:?}")),
        };
        let outcome = match host.results.get(&operation.id).map(|result| &result.outcome) {
            Some(Outcome::Changed { reason }) => (Word::Change, reason.clone()),
            Some(Outcome::Unchanged { reason }) => (Word::Nothing, reason.clone()),
            Some(Outcome::Failed { failure, .. }) => (Word::Failure, failure.message.clone()),
            None if !state.executing => planned.clone(),
            other => return Err(format!("operation {place} came to {other:?}")),
        };
        let (before, after) = (seen[place].clone(), seen[place + 1].clone());
        // What the run itself says of its plan is the same.
        let departs = told.iter().any(|one| one.op == operation.id);
        let differs = matches!((planned.0, outcome.0), (Word::Change, Word::Nothing) | (Word::Nothing | Word::Failure, Word::Change));
        if departs != differs {
            return Err(format!("operation {place}: planned {planned:?}, came to {outcome:?}, and the run says {told:?}"));
        }
        all.push(Done { planned, outcome, before, after });
    }
    Ok(all)
}

/// All that is below a folder: path, kind, mode, owner, and content or target. Times are left out.
pub fn listing(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in std::fs::read_dir(&at).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let found = std::fs::symlink_metadata(&entry).expect("it is there");
            let what = if found.is_symlink() {
                format!("→ {}", std::fs::read_link(&entry).expect("a link").display())
            } else if found.is_dir() {
                folders.push(entry.clone());
                String::new()
            } else {
                format!("{:?}", std::fs::read_to_string(&entry).expect("text"))
            };
            let name = entry.strip_prefix(folder).expect("below the folder");
            all.push(format!("{} {:o} {}:{} {what}", name.display(), found.mode(), found.uid(), found.gid()));
        }
    }
    all.sort();
    all
}
