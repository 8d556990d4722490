//! A fleet in memory: hosts whose commands do what the test says, scripts that are lists, and runs over them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::condition::{Condition, Did};
use infra_core::connection::{Connect, ConnectError, ConnectStep, Connection, Ending};
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::event::{Event, Journal, Outcome, RunKind, Waves};
use infra_core::fact::{SharedFact, erase};
use infra_core::global_arguments::{Context, GlobalArguments};
use infra_core::host::{Connector, Host, HostId};
use infra_core::inventory::Inventory;
use infra_core::late::{FunctionId, Functions, Late, Place};
use infra_core::lock::{Claim, Locked};
use infra_core::plan::{OpId, Outlook, Plan};
use infra_core::run_state::{Bucket, RunState};
use infra_core::script::{Answer, Block, BlockKind, FactRequest, Language, Next, OperationCall, Script, Step};
use infra_core::{BoxFuture, Value};
use infra_engine::{Approve, Run, Settings};
use serde_json::json;
use tokio::sync::{Notify, mpsc, watch};

use crate::functions::{Made, MadeFunctions};
use crate::library::{TextAt, registry};
use crate::wire::Wire;

/// What a command does on a host, where it is not simply done.
#[derive(Clone)]
pub enum Behaviour {
    Exit(i32),
    Print(&'static str, i32),
    Ending(Ending),
    /// It goes on until it is released, or killed.
    Block,
    /// The same, and then it exits with this status.
    BlockThen(i32),
    /// A question whose first answer after this command is held back until it is released, and then is as old as that. Meanwhile `go` is released.
    HoldAfter(&'static str),
    /// It exits with 1 the first time, and well after that.
    FailOnce,
    /// It goes on, whatever is done.
    Immortal,
    Panic,
}

/// How the question before execution is answered.
#[derive(Clone, Copy)]
pub enum Approval {
    Yes,
    No,
    Never,
    Panic,
    YesAndInterrupt,
    /// Yes, after so many seconds. The first time, `host` has another text at a path by then, where there is one.
    YesAfter(u64, Option<(&'static str, &'static str, &'static str)>),
}

/// A host in memory.
#[derive(Default)]
pub struct Machine {
    pub texts: Mutex<BTreeMap<String, String>>,
    /// Questions of each request.
    pub gathers: Mutex<Vec<Vec<String>>>,
    pub performed: Mutex<Vec<String>>,
    pub held: Mutex<bool>,
    pub opened: Mutex<u32>,
    pub closed: Mutex<u32>,
    /// How many connections to it were begun and never made, and how many of these have not let go of what they hold.
    pub half_made: Arc<Mutex<(u32, u32)>>,
    /// What it was told when it was asked what is to be kept of it.
    pub kept: Mutex<Vec<bool>>,
    /// As whom each question and command came, and a command's deadline.
    pub contexts: Mutex<Vec<(Context, Option<Duration>)>>,
    /// How often its commands in flight were killed.
    pub killed: watch::Sender<u32>,
    /// What its lock answers to the next steps; after that it is free, or held by the run.
    pub locked: Mutex<VecDeque<Locked>>,
    /// How often a claim was laid on it, or lifted, and how often its lock was given back.
    pub claims: Mutex<Vec<Option<Claim>>>,
    pub released: Mutex<u32>,
    pub moves: AtomicU64,
    pub releases: Mutex<HashMap<String, Arc<Notify>>>,
    /// For how many commands at once it was prepared.
    pub prepared: Mutex<Vec<usize>>,
}

impl Machine {
    /// Whether the lock lets a step be done that rests on facts of that age.
    pub fn under_lock(&self, as_of: Option<u64>) -> Option<Ending> {
        let as_of = as_of?;
        if !self.claims.lock().unwrap().last().is_some_and(Option::is_some) {
            return None;
        }
        if let Some(locked) = self.locked.lock().unwrap().pop_front() {
            self.moves.fetch_add(u64::from(matches!(locked, Locked::Moved { .. })), Ordering::SeqCst);
            return Some(Ending::Locked(locked));
        }
        (as_of != self.moves.load(Ordering::SeqCst)).then_some(Ending::Locked(Locked::Moved { same_machine: None }))
    }

    pub fn release(&self, command: &str) {
        self.releases.lock().unwrap().entry(command.to_owned()).or_default().notify_one();
    }
}

/// A connection that is being made, and what it holds.
struct HalfMade(Arc<Mutex<(u32, u32)>>);

impl HalfMade {
    fn begin(count: &Arc<Mutex<(u32, u32)>>) -> Self {
        let mut counts = count.lock().unwrap();
        *counts = (counts.0 + 1, counts.1 + 1);
        Self(count.clone())
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        // It takes a while, as the end of a process does.
        std::thread::sleep(Duration::from_millis(50));
        self.0.lock().unwrap().1 -= 1;
    }
}

/// One line of a script.
#[derive(Clone)]
pub enum Line {
    Call(Box<OperationCall>),
    /// Asks for the text at these paths; the answers are kept in [`Fleet::answers`].
    Ask(Vec<&'static str>),
    /// Asks for the text at a path of another place.
    AskAt(Place, &'static str),
    /// Asks what the plan says of a call; the answer is kept in [`Fleet::answers`].
    Foresee(u32),
    Fail(Diagnostic),
    Panic,
    /// Never comes to its end.
    Hang,
}

type ScriptOf = dyn Fn(&str) -> Vec<Line> + Send + Sync;

/// A fleet and the script that its hosts run.
pub struct Fleet {
    pub names: Vec<&'static str>,
    /// Hosts of the inventory that are not selected.
    pub others: Vec<&'static str>,
    /// What every host's script leaves behind.
    pub functions: Vec<Made>,
    pub machines: BTreeMap<String, Arc<Machine>>,
    pub behaviours: HashMap<(String, String), Behaviour>,
    pub unreachable: Vec<&'static str>,
    /// Hosts that never answer while they are connected to.
    pub black_holes: Vec<&'static str>,
    /// Hosts whose connections do not come to their end.
    pub hangs_on_close: Vec<&'static str>,
    /// What comes of keeping something of a host; nothing is kept of the others. None never comes to its end.
    pub keeps: HashMap<&'static str, Option<Result<Vec<String>, String>>>,
    pub connector: Connector,
    pub settings: Settings,
    pub approve: Approval,
    pub answers: Arc<Mutex<Vec<Answer>>>,
    pub asked: Arc<Mutex<u32>>,
    pub journal: Option<Arc<Kept>>,
    script: Arc<ScriptOf>,
}

/// A journal in memory.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<Event>>);

impl Journal for Kept {
    fn record(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// What came of a run.
pub struct Ran {
    pub state: RunState,
    pub events: Vec<Event>,
}

impl Fleet {
    pub fn new(names: &[&'static str], script: impl Fn(&str) -> Vec<Line> + Send + Sync + 'static) -> Self {
        Self {
            names: names.to_vec(),
            others: Vec::new(),
            functions: Vec::new(),
            machines: names.iter().map(|name| ((*name).to_owned(), Arc::default())).collect(),
            behaviours: HashMap::new(),
            unreachable: Vec::new(),
            black_holes: Vec::new(),
            hangs_on_close: Vec::new(),
            keeps: HashMap::new(),
            connector: Connector::Ssh,
            settings: Settings::default(),
            approve: Approval::Yes,
            answers: Arc::default(),
            asked: Arc::default(),
            journal: None,
            script: Arc::new(script),
        }
    }

    /// Machines that are not selected: `@local`, or hosts of the inventory, numbered after the selected ones.
    pub fn beside(mut self, names: &[&'static str]) -> Self {
        self.machines.extend(names.iter().map(|name| ((*name).to_owned(), Arc::default())));
        self.others.extend(names.iter().filter(|name| **name != "@local"));
        self
    }

    pub fn leaves(mut self, functions: impl IntoIterator<Item = Made>) -> Self {
        self.functions = functions.into_iter().collect();
        self
    }

    pub fn kind(mut self, kind: RunKind) -> Self {
        self.settings.kind = kind;
        self
    }

    pub fn answered(mut self, approve: Approval) -> Self {
        self.approve = approve;
        self
    }

    pub fn unreachable(mut self, host: &'static str) -> Self {
        self.unreachable.push(host);
        self
    }

    pub fn behaves(mut self, host: &str, command: &str, behaviour: Behaviour) -> Self {
        self.behaviours.insert((host.to_owned(), command.to_owned()), behaviour);
        self
    }

    pub fn text(self, host: &str, path: &str, text: &str) -> Self {
        self.machines[host].texts.lock().unwrap().insert(path.to_owned(), text.to_owned());
        self
    }

    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    fn inventory(&self) -> Inventory {
        let host = |(id, name): (usize, &&str)| Arc::new(Host::new(HostId(id as u32), *name, self.connector, *name));
        Inventory { hosts: self.names.iter().chain(&self.others).enumerate().map(host).collect(), ..Inventory::default() }
    }

    /// Begins a run; the events come out of the receiver one by one.
    pub fn begin(&self) -> (Run, mpsc::Receiver<Event>, watch::Sender<u32>) {
        let (events, receiver) = mpsc::channel(4);
        let (interrupt, interrupts) = watch::channel(0);
        let inventory = Arc::new(self.inventory());
        let made = Arc::new(MadeUp {
            machines: self.machines.clone(),
            behaviours: self.behaviours.clone(),
            unreachable: self.unreachable.clone(),
            black_holes: self.black_holes.clone(),
            hangs_on_close: self.hangs_on_close.clone(),
            keeps: self.keeps.clone(),
            script: self.script.clone(),
            functions: self.functions.clone(),
            answers: self.answers.clone(),
            approve: self.approve,
            interrupt: interrupt.clone(),
            asked: self.asked.clone(),
        });
        let run = Run {
            hosts: inventory.hosts.iter().take(self.names.len()).map(|host| host.id).collect(),
            inventory,
            registry: Arc::new(registry()),
            language: made.clone(),
            connect: made.clone(),
            settings: self.settings.clone(),
            approve: made,
            interrupts,
            events,
            journal: self.journal.clone().map(|journal| journal as Arc<dyn Journal>),
        };
        (run, receiver, interrupt)
    }

    /// Runs to the end.
    pub async fn run(&self) -> Ran {
        self.run_watched(|_, _| ()).await
    }

    /// Runs to the end, showing each event to the test, which may interrupt the run.
    pub async fn run_watched(&self, mut watch: impl FnMut(&Event, &watch::Sender<u32>)) -> Ran {
        let (run, mut receiver, interrupt) = self.begin();
        let watching = async {
            let mut events = Vec::new();
            while let Some(event) = receiver.recv().await {
                watch(&event, &interrupt);
                events.push(event);
            }
            events
        };
        let (state, events) = tokio::join!(run.deploy(), watching);
        self.finished(state, events)
    }

    pub async fn facts(&self, paths: &[&str]) -> Ran {
        self.facts_as(paths, |_| Context::default()).await
    }

    /// Asks for the texts at these paths, on each host as whom it is said.
    pub async fn facts_as(&self, paths: &[&str], as_whom: impl Fn(HostId) -> Context) -> Ran {
        let (run, mut receiver, _interrupt) = self.begin();
        let watching = async {
            let mut events = Vec::new();
            while let Some(event) = receiver.recv().await {
                events.push(event);
            }
            events
        };
        let questions = |host: HostId| -> Vec<FactRequest> {
            paths.iter().map(|path| FactRequest { fact: text_at(path), context: as_whom(host), on: None }).collect()
        };
        let questions = run.hosts.iter().map(|host| (*host, questions(*host))).collect();
        let (state, events) = tokio::join!(run.facts(questions), watching);
        self.finished(state, events)
    }

    /// What holds after every run: the grammar of its events, the accounting, the record folded from the events, every connection closed.
    pub fn finished(&self, state: RunState, events: Vec<Event>) -> Ran {
        crate::grammar::check(&events, self.settings.serial || self.settings.no_wait);
        let mut folded = RunState::default();
        events.iter().for_each(|event| folded.fold(event));
        assert_eq!(folded.account(), state.account());
        assert_eq!(state.account().hosts.len(), self.names.len());
        for event in &events {
            if let Event::HostConnected { host, .. } = event {
                let closed = *self.machines[self.names[host.index()]].closed.lock().unwrap();
                // Who interrupts three times does not wait for it.
                assert!(closed > 0 || state.interrupted >= 3, "a connection was not closed");
            }
        }
        for (name, machine) in &self.machines {
            let opened = std::mem::take(&mut *machine.opened.lock().unwrap());
            let closed = std::mem::take(&mut *machine.closed.lock().unwrap());
            // A run that stops while it connects leaves those that it has not heard of.
            let at_most = self.names.contains(&name.as_str()) && closed <= opened;
            assert!(closed == opened || at_most || state.interrupted >= 3, "{opened} connections were closed {closed} times");
        }
        Ran { state, events }
    }

    pub fn performed(&self, host: &str) -> Vec<String> {
        self.machines[host].performed.lock().unwrap().clone()
    }

    pub fn gathers(&self, host: &str) -> Vec<Vec<String>> {
        self.machines[host].gathers.lock().unwrap().clone()
    }
}

impl Ran {
    pub fn buckets(&self) -> Vec<Bucket> {
        self.state.account().hosts.into_iter().map(|(_, bucket)| bucket).collect()
    }

    pub fn plan(&self) -> Arc<Plan> {
        self.state.plan.clone().expect("a plan was made")
    }

    /// The outlooks of one host in the plan's order.
    pub fn outlooks(&self, host: u32) -> Vec<Outlook> {
        let plan = self.plan();
        plan.operations
            .iter()
            .flat_map(|operation| operation.hosts.iter().filter(|one| one.host == HostId(host)).map(|one| one.outlook.clone()))
            .collect()
    }

    /// `change`, `none` or `depends on …` for each operation of a host.
    pub fn forecast(&self, host: u32) -> Vec<String> {
        let word = |outlook: Outlook| match outlook {
            Outlook::Change { .. } => "change".to_owned(),
            Outlook::NoChange { .. } => "none".to_owned(),
            Outlook::Depends { on: Some(on), .. } => format!("depends on {on}"),
            Outlook::Depends { on: None, .. } => "open".to_owned(),
        };
        self.outlooks(host).into_iter().map(word).collect()
    }

    pub fn outcome(&self, op: u32, host: u32) -> Option<Outcome> {
        self.state.hosts[&HostId(host)].results.get(&OpId(op)).map(|result| result.outcome.clone())
    }

    /// The order in which hosts began and ended operations: `+op/host` and `-op/host`.
    pub fn trace(&self) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::HostOperationStarted { op, host } => Some(format!("+{}/{}", op.0, host.0)),
            Event::HostOperationEnded { op, host, .. } => Some(format!("-{}/{}", op.0, host.0)),
            _ => None,
        };
        self.events.iter().filter_map(line).collect()
    }

    /// The waves in order: of what, and which hosts.
    pub fn waves(&self) -> Vec<(Waves, Vec<u32>)> {
        let wave = |event: &Event| match event {
            Event::WaveStarted { of, hosts, .. } => Some((*of, hosts.iter().map(|host| host.0).collect())),
            _ => None,
        };
        self.events.iter().filter_map(wave).collect()
    }

    /// What was written wrongly, where something was.
    pub fn misuse(&self) -> Option<Diagnostic> {
        self.events.iter().find_map(|event| match event {
            Event::Misused { diagnostic, .. } => Some((**diagnostic).clone()),
            _ => None,
        })
    }

    /// The largest number of hosts that were at work at once.
    pub fn most_at_once(&self) -> usize {
        let mut now = BTreeMap::new();
        let mut most = 0;
        for event in &self.events {
            match event {
                Event::HostOperationStarted { op, host } => drop(now.insert((*op, *host), ())),
                Event::HostOperationEnded { op, host, .. } => drop(now.remove(&(*op, *host))),
                _ => {}
            }
            most = most.max(now.len());
        }
        most
    }

    pub fn stopped(&self) -> Option<infra_core::event::StopReason> {
        self.state.stopped.clone()
    }
}

pub fn text_at(path: &str) -> SharedFact {
    erase(TextAt { path: path.to_owned() })
}

/// Numbers the calls of a script by their places.
pub fn script(lines: Vec<Line>) -> Vec<Line> {
    let mut number = 0;
    let mut numbered = lines;
    for line in &mut numbered {
        if let Line::Call(call) = line {
            call.call = number;
            number += 1;
        }
    }
    numbered
}

/// A call on this line of the deploy.
pub fn call(line: u32, kind: &str, arguments: Value) -> OperationCall {
    let Value::Object(arguments) = arguments else { panic!("arguments are a map") };
    OperationCall {
        call: 0,
        kind: kind.to_owned(),
        name: None,
        path: Vec::new(),
        blocks: Vec::new(),
        arguments,
        conditions: Vec::new(),
        when: Vec::new(),
        globals: GlobalArguments::default(),
        chain: vec![Location { file: "deploy.lua".into(), line }],
        deploy: 0,
        late: Late::default(),
        on: None,
    }
}

pub fn write(line: u32, path: &str, text: &str) -> OperationCall {
    call(line, "made.write", json!({ "path": path, "text": text }))
}

pub fn shell(line: u32, command: &str) -> OperationCall {
    call(line, "made.shell", json!({ "command": command }))
}

/// A `call` whose body is this function.
pub fn run_body(line: u32, function: FunctionId) -> OperationCall {
    let mut call = call(line, infra_core::late::CALL, json!({}));
    call.late.body = Some(function);
    call
}

/// A command that touches nothing.
pub fn touchless(line: u32, command: &str) -> OperationCall {
    call(line, "made.touchless", json!({ "commands": [command] }))
}

/// What a test says of a call, written behind it.
pub trait With: Sized {
    fn line(self) -> Line;
    fn globals(self, change: impl FnOnce(&mut GlobalArguments)) -> Self;
    fn when(self, call: u32, did: Did) -> Self;
    fn named(self, name: &str) -> Self;
    /// A function gives this argument.
    fn late(self, argument: &str, function: FunctionId) -> Self;
    fn on(self, place: Place) -> Self;
    /// Inside one more block, which stands on this line.
    fn inside(self, kind: BlockKind, line: u32) -> Self;
    fn condition(self, condition: Condition) -> Self;
}

impl With for OperationCall {
    fn line(self) -> Line {
        Line::Call(Box::new(self))
    }

    fn globals(mut self, change: impl FnOnce(&mut GlobalArguments)) -> Self {
        change(&mut self.globals);
        self
    }

    fn when(mut self, call: u32, did: Did) -> Self {
        self.when.push(Condition::Outcome(call, did));
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    fn inside(mut self, kind: BlockKind, line: u32) -> Self {
        let chain = vec![Location { file: "deploy.lua".into(), line }];
        self.blocks.push(Block { kind, name: None, chain, turn: 0 });
        self
    }

    fn late(mut self, argument: &str, function: FunctionId) -> Self {
        self.late.arguments.push((argument.to_owned(), function));
        self
    }

    fn on(mut self, place: Place) -> Self {
        self.on = Some(place);
        self
    }

    fn condition(mut self, condition: Condition) -> Self {
        self.when.push(condition);
        self
    }
}

/// A script of these calls.
pub fn calls(calls: impl IntoIterator<Item = OperationCall>) -> Vec<Line> {
    script(calls.into_iter().map(With::line).collect())
}

struct MadeUp {
    machines: BTreeMap<String, Arc<Machine>>,
    behaviours: HashMap<(String, String), Behaviour>,
    unreachable: Vec<&'static str>,
    black_holes: Vec<&'static str>,
    keeps: HashMap<&'static str, Option<Result<Vec<String>, String>>>,
    hangs_on_close: Vec<&'static str>,
    script: Arc<ScriptOf>,
    functions: Vec<Made>,
    answers: Arc<Mutex<Vec<Answer>>>,
    approve: Approval,
    interrupt: watch::Sender<u32>,
    asked: Arc<Mutex<u32>>,
}

impl Approve for MadeUp {
    fn approve(&self, _: Arc<Plan>) -> BoxFuture<'_, bool> {
        *self.asked.lock().unwrap() += 1;
        let first = *self.asked.lock().unwrap() == 1;
        Box::pin(async move {
            match self.approve {
                Approval::Yes => true,
                Approval::No => false,
                Approval::Never => std::future::pending().await,
                Approval::Panic => panic!("the question broke"),
                Approval::YesAndInterrupt => {
                    self.interrupt.send_replace(1);
                    true
                }
                Approval::YesAfter(seconds, change) => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    if let Some((host, path, text)) = change.filter(|_| first) {
                        self.machines[host].texts.lock().unwrap().insert(path.to_owned(), text.to_owned());
                    }
                    true
                }
            }
        })
    }
}

impl Connect for MadeUp {
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(async {
            if self.black_holes.contains(&host.name.as_str()) {
                let _half = HalfMade::begin(&self.machines[&host.name].half_made);
                std::future::pending::<()>().await;
            }
            if self.unreachable.contains(&host.name.as_str()) {
                return Err(ConnectError { step: ConnectStep::Connect, message: "no route to host".into(), hint: None });
            }
            let of_host = |((name, command), behaviour): (&(String, String), &Behaviour)| {
                (*name == host.name).then(|| (command.clone(), behaviour.clone()))
            };
            let behaviours = self.behaviours.iter().filter_map(of_host).collect();
            *self.machines[&host.name].opened.lock().unwrap() += 1;
            let hangs_on_close = self.hangs_on_close.contains(&host.name.as_str());
            let keeps = self.keeps.get(host.name.as_str()).cloned().unwrap_or(Some(Ok(Vec::new())));
            let machine = self.machines[&host.name].clone();
            Ok(Arc::new(Wire {
                killed: watch::Sender::default(),
                machine,
                behaviours,
                hangs_on_close,
                keeps,
                closed: AtomicBool::new(false),
            }) as Arc<dyn Connection>)
        })
    }
}

impl Language for MadeUp {
    fn script(&self, host: &Arc<Host>) -> Box<dyn Script> {
        Box::new(Lines {
            host: host.name.clone(),
            lines: (self.script)(&host.name).into(),
            functions: self.functions.clone(),
            answers: self.answers.clone(),
        })
    }
}

struct Lines {
    host: String,
    functions: Vec<Made>,
    lines: VecDeque<Line>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Script for Lines {
    fn resume(&mut self, answers: Vec<Answer>) -> BoxFuture<'_, Step> {
        Box::pin(async move {
            self.answers.lock().unwrap().extend(answers);
            let mut calls = Vec::new();
            while let Some(line) = self.lines.pop_front() {
                let next = match line {
                    Line::Call(call) => {
                        calls.push(*call);
                        continue;
                    }
                    Line::Ask(paths) => {
                        let request = |path: &&str| FactRequest { fact: text_at(path), context: Context::default(), on: None };
                        Next::Ask(paths.iter().map(request).collect())
                    }
                    Line::AskAt(place, path) => {
                        Next::Ask(vec![FactRequest { fact: text_at(path), context: Context::default(), on: Some(place) }])
                    }
                    Line::Foresee(call) => Next::Foresee(call),
                    Line::Fail(diagnostic) => Next::Failed(Box::new(diagnostic)),
                    Line::Panic => panic!("the script broke"),
                    Line::Hang => std::future::pending().await,
                };
                return Step { calls, next };
            }
            Step { calls, next: Next::Done }
        })
    }

    fn functions(self: Box<Self>) -> Option<Box<dyn Functions>> {
        let left = MadeFunctions { host: self.host, functions: self.functions, current: None };
        (!left.functions.is_empty()).then(|| Box::new(left) as Box<dyn Functions>)
    }
}

/// So many seconds.
pub fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}
