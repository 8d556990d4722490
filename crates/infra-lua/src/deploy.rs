//! Deploys: loaded once, evaluated by each host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::diagnostic::Diagnostic;
use infra_core::host::Host;
use infra_core::inventory::Inventory;
use infra_core::late::{FunctionId, Functions, LateReply, LateStep, Purpose, Results};
use infra_core::registry::Registry;
use infra_core::script::{Answer, Language, Next, OperationCall, Script, Step};
use infra_core::template::InventoryScope;

use crate::evaluation::{Evaluation, House, Limits};
use crate::once::{Kept, OnceStore, Outcome, Teller, Turn};
use crate::pool::{Lost, Pool};
use crate::requests::{Reply, Request};
use crate::secrets::Asking;
use crate::source::{Source, SourceError, Sources};
use crate::state::{Machine, Need};
use crate::text_functions::shown_command;
use crate::world::{self, LocalCommand, LocalOutput, Question, World};

/// Deploy files, read, checked and compiled.
pub struct Deploy {
    house: Arc<House>,
}

impl Deploy {
    /// Reads deploy files, which every host will run in this order.
    ///
    /// Relative paths are below the world's working directory. Nothing is run yet.
    ///
    /// # Errors
    /// All that is wrong with the files as they are written: misuse.
    pub fn load(
        files: &[PathBuf],
        inventory: Arc<Inventory>,
        registry: Arc<Registry>,
        world: Arc<dyn World>,
        limits: Limits,
    ) -> Result<Self, Vec<Diagnostic>> {
        let sources = Sources::of_deploy(world.clone(), registry.clone());
        let files = load_files(&*world, &sources, files, true)?;
        Ok(Self { house: Arc::new(House::new(world, sources, registry, inventory, files, limits)) })
    }

    /// The deploy files by the names under which messages and chains have them, in the order of their places on the command line.
    pub fn files(&self) -> Vec<String> {
        self.house.files.iter().map(|file| file.name.clone()).collect()
    }
}

/// Reads and compiles files, or says all that is wrong with them.
pub(crate) fn load_files(
    world: &dyn World,
    sources: &Sources,
    files: &[PathBuf],
    deploy: bool,
) -> Result<Vec<Arc<Source>>, Vec<Diagnostic>> {
    let mut loaded = Vec::new();
    let mut wrong = Vec::new();
    for file in files {
        match sources.load(&world::absolute(world, file), deploy) {
            Ok(source) => loaded.push(source),
            Err(SourceError::Wrong(mut found)) => wrong.append(&mut found),
            Err(SourceError::Unreadable(why)) => wrong.push(unreadable(file, &why)),
        }
    }
    if wrong.is_empty() { Ok(loaded) } else { Err(wrong) }
}

fn unreadable(file: &Path, why: &str) -> Diagnostic {
    Diagnostic::misuse(format!("the file `{}` cannot be read: {why}", file.display()))
}

impl House {
    pub(crate) fn new(
        world: Arc<dyn World>,
        sources: Sources,
        registry: Arc<Registry>,
        inventory: Arc<Inventory>,
        files: Vec<Arc<Source>>,
        limits: Limits,
    ) -> Self {
        let by_name = inventory.hosts.iter().map(|host| (host.name.clone(), host.id)).collect();
        let (pool, once) = (Pool::new(), OnceStore::default());
        let inventory_scope = InventoryScope::new(inventory.clone());
        Self { world, sources, registry, inventory, inventory_scope, by_name, files, limits, pool, once }
    }
}

impl Language for Deploy {
    fn script(&self, host: &Arc<Host>) -> Box<dyn Script> {
        Box::new(HostScript { driver: Driver::new(self.house.clone(), Some(host.clone())) })
    }
}

/// Drives one evaluation: on the threads of scripts while it runs, asynchronously while it waits.
pub(crate) struct Driver {
    evaluation: Arc<Evaluation>,
    machine: Option<Machine>,
    started: bool,
    ended: bool,
    /// For the bodies of `once` that this evaluation is running, outermost first.
    telling: Vec<Teller>,
}

/// How an evaluation goes on.
enum Move {
    /// With this reply, or from its start.
    On(Option<Reply>),
    /// With a function that the script left behind.
    Begin(FunctionId, Purpose, Arc<Results>),
}

/// What an evaluation stopped for.
pub(crate) enum Stop {
    Facts(Vec<infra_core::script::FactRequest>),
    Foresee(infra_core::condition::CallIndex),
    Perform(Box<OperationCall>),
    Done,
    Returned(infra_core::Value),
    Failed(Box<Diagnostic>),
}

impl Driver {
    pub fn new(house: Arc<House>, host: Option<Arc<Host>>) -> Self {
        let evaluation = Evaluation::new(house, host);
        Self { evaluation, machine: None, started: false, ended: false, telling: Vec::new() }
    }

    pub fn evaluation(&self) -> &Arc<Evaluation> {
        &self.evaluation
    }

    /// The state after the end.
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Goes on until facts are needed or the end is reached.
    pub async fn run(&mut self, reply: Option<Reply>) -> Stop {
        if self.ended {
            return Stop::Failed(Box::new(Diagnostic::runtime("the script has ended already")));
        }
        self.go(Move::On(reply)).await
    }

    /// Calls a function that the script left behind.
    async fn begin(&mut self, function: FunctionId, purpose: Purpose, results: Arc<Results>) -> Stop {
        self.ended = false;
        self.telling.clear();
        self.go(Move::Begin(function, purpose, results)).await
    }

    async fn go(&mut self, mut next: Move) -> Stop {
        loop {
            let stop = match self.step(std::mem::replace(&mut next, Move::On(None))).await {
                Need::Request(Request::Facts(asked)) => return Stop::Facts(asked),
                Need::Request(Request::Foresee(call)) => return Stop::Foresee(call),
                Need::Request(Request::Perform(call)) => return Stop::Perform(call),
                Need::Request(Request::Command { key, command, ok, secret }) => {
                    next = Move::On(Some(Reply::Output(self.command(&key, command, &ok, secret).await)));
                    continue;
                }
                Need::Request(Request::Ask(asking)) => {
                    next = Move::On(Some(Reply::Output(self.ask(asking).await)));
                    continue;
                }
                Need::Request(Request::Once { key }) => {
                    let reply = Some(match self.evaluation.house.once.turn(&key).await {
                        Turn::Mine(teller) => {
                            self.telling.push(teller);
                            Reply::Mine
                        }
                        Turn::Done(outcome) => Reply::Done(outcome),
                    });
                    next = Move::On(reply);
                    continue;
                }
                Need::Request(Request::OnceDone { outcome }) => {
                    if let Some(teller) = self.telling.pop() {
                        teller.tell(outcome);
                    }
                    continue;
                }
                Need::Done => Stop::Done,
                Need::Returned(value) => Stop::Returned(value),
                Need::Failed(diagnostic) => Stop::Failed(diagnostic),
            };
            self.ended = true;
            // Others must not wait for what will not come any more.
            self.telling.clear();
            return stop;
        }
    }

    async fn step(&mut self, next: Move) -> Need {
        if self.started && self.machine.is_none() {
            return Need::Failed(Box::new(Diagnostic::runtime("the script was given up while it ran")));
        }
        self.started = true;
        let machine = self.machine.take();
        let evaluation = self.evaluation.clone();
        let work = move || {
            let mut machine = match machine {
                Some(machine) => machine,
                None => match Machine::new(&evaluation) {
                    Ok(machine) => machine,
                    Err(wrong) => return (None, Need::Failed(wrong)),
                },
            };
            let need = match next {
                Move::On(reply) => machine.step(reply),
                Move::Begin(function, purpose, results) => match machine.begin(function, purpose, results) {
                    Ok(()) => machine.step(None),
                    Err(wrong) => Need::Failed(wrong),
                },
            };
            // A state that is of no more use is freed here, not on a thread of the runtime.
            let keep = match &need {
                Need::Request(_) | Need::Returned(_) => true,
                Need::Done => evaluation.host.is_none() || !evaluation.state().left_behind.is_empty(),
                // What failed in execute is one function: others may be called after it.
                Need::Failed(_) => evaluation.state().running.is_some(),
            };
            (keep.then_some(machine), need)
        };
        match self.evaluation.house.pool.run(&self.evaluation.clock, work).await {
            Ok((machine, need)) => {
                self.machine = machine;
                need
            }
            Err(Lost::Overtime) => Need::Failed(Box::new(
                Diagnostic::runtime(format!(
                    "the script ran for more than {} s inside one function of Lua, and was left behind",
                    self.evaluation.clock.limit().as_secs_f64()
                ))
                .hint("look for a pattern on a long string, or a sort that does not end"),
            )),
            Err(Lost::Panicked) => Need::Failed(Box::new(Diagnostic::runtime("the script ended by a defect of infra itself"))),
        }
    }

    async fn command(&self, key: &str, command: LocalCommand, ok: &[i32], secret: bool) -> Outcome {
        let house = &self.evaluation.house;
        match house.once.turn(key).await {
            Turn::Done(outcome) => outcome,
            Turn::Mine(teller) => {
                let shown = shown_command(&command.argv);
                let function = if secret { "secret.command" } else { "local_command" };
                let outcome = match house.world.run(command).await {
                    Ok(output) => output_of(function, &shown, output, ok, secret),
                    Err(error) => Err(format!("{function}: `{shown}` could not be run: {error}")),
                };
                teller.tell(outcome.clone());
                outcome
            }
        }
    }

    /// Asks the person who started infra: the same question once, for all hosts and wherever it stands.
    async fn ask(&self, asking: Asking) -> Outcome {
        let house = &self.evaluation.house;
        match house.once.turn(&format!("{asking:?}")).await {
            Turn::Done(outcome) => outcome,
            Turn::Mine(teller) => {
                let Asking { text, hidden, default } = asking;
                let outcome = match house.world.ask(Question { text: text.clone(), hidden }).await {
                    Ok(Some(typed)) if typed.is_empty() && default.is_some() => Ok(default.unwrap_or_default()),
                    Ok(Some(typed)) => Ok(typed),
                    Ok(None) => default.ok_or_else(|| {
                        let instead = if hidden {
                            "secret.env(\"NAME\") and secret.file(\"PATH\") need none"
                        } else {
                            "ask(text, default) needs none"
                        };
                        format!("`{text}` cannot be asked: there is no terminal, and {instead}")
                    }),
                    Err(error) => Err(format!("`{text}` cannot be asked: {error}")),
                };
                let outcome = outcome.map(|text| Kept::Output(Arc::new(text.into_bytes())));
                teller.tell(outcome.clone());
                outcome
            }
        }
    }
}

fn output_of(function: &str, shown: &str, output: LocalOutput, ok: &[i32], secret: bool) -> Outcome {
    let LocalOutput { status, mut stdout, stderr } = output;
    if status.is_some_and(|status| ok.contains(&status)) {
        while stdout.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            stdout.pop();
        }
        return Ok(Kept::Output(Arc::new(stdout)));
    }
    let ended = status.map_or_else(|| "was killed by a signal".to_owned(), |status| format!("exited with {status}"));
    // What was to be a secret is not shown, however it ended.
    let said = if secret || !stderr.iter().all(u8::is_ascii_whitespace) { &stderr } else { &stdout };
    let said = String::from_utf8_lossy(said).trim().to_owned();
    let tail: Vec<&str> = said.lines().rev().take(5).collect();
    let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
    Err(if tail.is_empty() { format!("{function}: `{shown}` {ended}") } else { format!("{function}: `{shown}` {ended}: {tail}") })
}

struct HostScript {
    driver: Driver,
}

impl Script for HostScript {
    fn resume(&mut self, answers: Vec<Answer>) -> BoxFuture<'_, Step> {
        Box::pin(async move {
            let reply = self.driver.started.then_some(Reply::Answers(answers));
            let next = match self.driver.run(reply).await {
                Stop::Facts(asked) => Next::Ask(asked),
                Stop::Foresee(call) => Next::Foresee(call),
                Stop::Done => Next::Done,
                Stop::Failed(diagnostic) => Next::Failed(diagnostic),
                Stop::Perform(_) | Stop::Returned(_) => {
                    Next::Failed(Box::new(Diagnostic::runtime("the script did while the plan is made what only execute can do")))
                }
            };
            let calls = std::mem::take(&mut self.driver.evaluation.state().calls);
            Step { calls, next }
        })
    }

    fn functions(self: Box<Self>) -> Option<Box<dyn Functions>> {
        let Driver { evaluation, machine, .. } = &self.driver;
        let some = machine.is_some() && self.driver.ended && !evaluation.state().left_behind.is_empty();
        some.then(|| Box::new(LeftFunctions { driver: self.driver }) as Box<dyn Functions>)
    }
}

/// The functions that a host's script left behind, in its Lua state.
struct LeftFunctions {
    driver: Driver,
}

impl Functions for LeftFunctions {
    fn begin(&mut self, function: FunctionId, purpose: Purpose, results: Arc<Results>) -> BoxFuture<'_, LateStep> {
        Box::pin(async move { late_step(self.driver.begin(function, purpose, results).await) })
    }

    fn resume(&mut self, reply: LateReply) -> BoxFuture<'_, LateStep> {
        let reply = match reply {
            LateReply::Answers(answers) => Reply::Answers(answers),
            LateReply::Ended(result) => Reply::Ended(result),
        };
        Box::pin(async move { late_step(self.driver.run(Some(reply)).await) })
    }
}

impl Drop for LeftFunctions {
    fn drop(&mut self) {
        // Freeing a state takes a while, which a thread of the runtime has not.
        if let Some(machine) = self.driver.machine.take() {
            self.driver.evaluation.house.pool.drop_there(machine);
        }
    }
}

fn late_step(stop: Stop) -> LateStep {
    match stop {
        Stop::Facts(asked) => LateStep::Ask(asked),
        Stop::Perform(call) => LateStep::Perform(call),
        Stop::Returned(value) => LateStep::Returned(value),
        Stop::Failed(diagnostic) => LateStep::Failed(diagnostic),
        Stop::Done | Stop::Foresee(_) => {
            LateStep::Failed(Box::new(Diagnostic::runtime("the function did in execute what only a script can do while the plan is made")))
        }
    }
}
