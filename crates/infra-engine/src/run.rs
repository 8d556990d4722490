//! The phases of a run and the ways out of it.

mod second_look;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep, Connection};
use infra_core::diagnostic::{Diagnostic, Fault};
use infra_core::event::{Event, RunKind, StopReason};
use infra_core::facts::Lookup;
use infra_core::host::{Host, HostId};
use infra_core::run_state::{Bucket, RunState};
use infra_core::script::FactRequest;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::Run;
use crate::any_host;
use crate::event_stream::EventStream;
use crate::execute::{Execution, defect};
use crate::fact_store::Asked;
use crate::host_execution::HostExecution;
use crate::host_run::HostRun;
use crate::places::Places;
use crate::plan_building::{Built, build};
use crate::policy::{Policy, Rules, too_many};
use crate::prepare::{self, Prepared};
use crate::saved;
use second_look::Look;

/// The run is over before its end; what was to be said has been said.
struct Over;

type Phases = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Run {
    /// Plans, asks and executes, as [`Settings::kind`](crate::Settings::kind) says, and gives the record.
    ///
    /// # Panics
    /// When a selected host stands in no bucket or in two at the end, which would be a defect of infra.
    pub async fn deploy(self) -> RunState {
        self.guarded(|run, events| Box::pin(Ongoing::new(run, events).deploy())).await
    }

    /// Asks every host its questions in one round trip and gives the record. As whom they are asked may differ from host to host.
    ///
    /// # Panics
    /// As [`Run::deploy`].
    pub async fn facts(self, questions: HashMap<HostId, Vec<FactRequest>>) -> RunState {
        self.guarded(|run, events| Box::pin(Ongoing::new(run, events).facts(questions))).await
    }

    /// Whatever happens, every host is accounted for and `RunEnded` is said once.
    async fn guarded(self, phases: impl FnOnce(Run, EventStream) -> Phases) -> RunState {
        let events = EventStream::new(self.events.clone(), self.journal.clone(), self.settings.secrets.clone());
        let names = self.hosts.iter().map(|host| (*host, self.inventory.by_id(*host).name.clone())).collect();
        events.emit(Event::RunStarted { kind: self.settings.kind, hosts: Arc::new(names) }).await;
        if self.settings.detailed_exit_code {
            events.emit(Event::DetailedExitCode).await;
        }
        let hosts = self.hosts.clone();
        let mut owner = JoinSet::new();
        owner.spawn(phases(self, events.clone()));
        if let Some(Err(error)) = owner.join_next().await
            && let Ok(panic) = error.try_into_panic()
        {
            for host in hosts {
                let diagnostic = Box::new(Diagnostic::host(defect(&*panic)));
                events.emit(Event::HostFailed { host, diagnostic }).await;
            }
        }
        events.emit(Event::RunEnded).await;
        let state = events.state().await;
        state.account();
        state
    }
}

/// A run that goes on.
struct Ongoing {
    run: Run,
    events: EventStream,
    /// Whether the sender of interrupts is still there.
    watching: bool,
    connections: Vec<(HostId, Arc<dyn Connection>)>,
    places: Arc<Places>,
    /// How many hosts are not ok by now.
    not_ok: usize,
    look: Look,
}

/// Tasks of several hosts, so many at once, each known by its host.
struct Tasks<T> {
    running: JoinSet<T>,
    hosts: HashMap<Id, HostId>,
}

/// What the wait for the next task of a phase came to.
enum Next<T> {
    Ended(HostId, Result<T, JoinError>),
    Interrupted,
    AllEnded,
}

impl<T: Send + 'static> Tasks<T> {
    fn new() -> Self {
        Self { running: JoinSet::new(), hosts: HashMap::new() }
    }

    fn spawn(&mut self, host: HostId, task: impl Future<Output = T> + Send + 'static) {
        let id = self.running.spawn(task).id();
        self.hosts.insert(id, host);
    }

    /// Abandons what still runs and waits until it has let go of all it held: what a half-made connection has made here, such as sockets and processes,
    /// must be gone before the program is.
    async fn abandon(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.running.shutdown()).await;
    }
}

impl Ongoing {
    fn new(run: Run, events: EventStream) -> Self {
        let settings = &run.settings;
        // What only looks takes no lock.
        let lock = settings.lock.clone().filter(|_| matches!(settings.kind, RunKind::Deploy | RunKind::Exec));
        let secrets = settings.secrets.clone();
        let places = Places::new(run.connect.clone(), run.inventory.clone(), run.registry.clone(), settings.handshakes, lock, secrets);
        Self { run, events, watching: true, connections: Vec::new(), places: Arc::new(places), not_ok: 0, look: Look::First }
    }

    async fn deploy(mut self) {
        let _ = self.deploy_until_over().await;
        self.keep().await;
        self.close().await;
    }

    async fn deploy_until_over(&mut self) -> Result<(), Over> {
        let hosts = self.connect().await?;
        let read_since = Instant::now();
        let mut prepared = self.prepare(&hosts).await?;
        let mut built = match build(&prepared, &self.run.registry, self.run.settings.max_fail) {
            Ok(built) => built,
            Err(diagnostic) => {
                self.events.emit(Event::Misused { host: None, diagnostic }).await;
                return Err(Over);
            }
        };
        if let Some(record) = &self.run.settings.record {
            record.leave(saved::basis(&prepared, &self.places, &record.salt));
        }
        self.events.emit(Event::PlanReady { plan: built.plan.clone() }).await;
        let may_change = !built.plan.is_none();
        match self.run.settings.kind {
            RunKind::Dry | RunKind::Fact => return Ok(()),
            RunKind::Deploy if may_change => self.agree(&hosts, &mut prepared, &mut built, read_since).await?,
            RunKind::Deploy | RunKind::Exec => {}
        }
        self.execute(prepared, built).await;
        match self.run.settings.prove {
            Some(proving) if self.run.settings.kind == RunKind::Deploy => self.prove(hosts, proving).await,
            _ => Ok(()),
        }
    }

    /// Asks; an interrupt while the question stands means no.
    async fn approve(&mut self, built: &Built) -> Result<(), Over> {
        let approve = self.run.approve.clone();
        let approved = tokio::select! {
            // Where nobody is asked, nobody declines: an interrupt at this moment is met by what comes next.
            biased;
            approved = approve.approve(self.run.settings.secrets.masked_plan(&built.plan)) => approved,
            () = interrupt(&mut self.run.interrupts, &mut self.watching) => false,
        };
        if approved {
            return Ok(());
        }
        self.events.emit(Event::Declined).await;
        Err(Over)
    }

    async fn execute(&mut self, prepared: BTreeMap<HostId, (String, Prepared)>, built: Built) {
        let saved = self.run.settings.saved.is_some();
        let at = |(host, (_, prepared)): (HostId, (String, Prepared))| (host, HostExecution::new(prepared, saved));
        let execution = Execution {
            plan: built.plan,
            policy: Policy::new(built.operations, &built.blocks, self.rules()),
            hosts: prepared.into_iter().map(at).collect(),
            places: self.places.clone(),
            events: self.events.clone(),
            interrupts: self.run.interrupts.clone(),
            closing: self.run.settings.closing,
        };
        self.events.emit(Event::Executing).await;
        execution.run().await;
    }

    fn rules(&self) -> Rules {
        let settings = &self.run.settings;
        Rules {
            parallel: settings.parallel,
            fail_fast: settings.fail_fast,
            fail_percent: settings.fail_percent,
            serial: settings.serial,
            no_wait: settings.no_wait,
            max_fail: settings.max_fail,
            selected: self.run.hosts.len(),
            not_ok: self.not_ok,
        }
    }

    /// Reaches the hosts, so many at once.
    async fn connect(&mut self) -> Result<BTreeMap<HostId, Arc<HostRun>>, Over> {
        self.events.emit(Event::Connecting).await;
        let mut waiting: VecDeque<Arc<Host>> = self.run.hosts.iter().map(|host| self.run.inventory.by_id(*host).clone()).collect();
        let mut tasks = Tasks::new();
        let mut reached = BTreeMap::new();
        let mut unreachable = BTreeMap::new();
        loop {
            while tasks.running.len() < self.run.settings.handshakes.max(1) {
                let Some(host) = waiting.pop_front() else { break };
                let connect = self.run.connect.clone();
                tasks.spawn(host.id, async move {
                    let began = Instant::now();
                    (connect.connect(&host).await, began.elapsed())
                });
            }
            let (host, result) = match self.next(&mut tasks).await {
                Next::Ended(host, result) => (host, result),
                Next::Interrupted => return self.interrupted().await,
                Next::AllEnded => break,
            };
            let error = match result {
                Ok((Ok(connection), took)) => {
                    self.places.claim(self.run.inventory.by_id(host), &*connection);
                    self.connections.push((host, connection.clone()));
                    reached.insert(host, self.places.reached(self.run.inventory.by_id(host).clone(), connection));
                    self.events.emit(Event::HostConnected { host, took }).await;
                    continue;
                }
                Ok((Err(error), _)) => error,
                Err(error) => ConnectError { step: ConnectStep::Connect, message: broken(error), hint: None },
            };
            unreachable.insert(host, error.clone());
            self.events.emit(Event::HostUnreachable { host, error }).await;
            if let Err(over) = self.is_not_ok(host).await {
                tasks.abandon(self.run.settings.closing).await;
                return Err(over);
            }
        }
        self.some_left(&reached).await?;
        self.places.selected(&reached, unreachable);
        Ok(reached)
    }

    /// Evaluates and plans on all hosts at once. Misuse on any host ends the run, when all hosts have said theirs.
    async fn prepare(&mut self, hosts: &BTreeMap<HostId, Arc<HostRun>>) -> Result<BTreeMap<HostId, (String, Prepared)>, Over> {
        self.events.emit(self.look.begins()).await;
        if let (Some(saved), Some(run)) = (&self.run.settings.saved, hosts.values().next()) {
            run.locals.carry(&saved.locals);
        }
        let first = hosts.keys().next().copied();
        let misused = Arc::new(AtomicBool::new(false));
        let mut waiting: VecDeque<_> = hosts.iter().collect();
        let mut tasks = Tasks::new();
        let mut prepared = BTreeMap::new();
        let mut misuses: BTreeMap<HostId, Box<Diagnostic>> = BTreeMap::new();
        loop {
            while tasks.running.len() < self.run.settings.preparing.max(1) {
                let Some((host, run)) = waiting.pop_front() else { break };
                let (run, misused, language, places) = (run.clone(), misused.clone(), self.run.language.clone(), self.places.clone());
                let runs_once = first == Some(*host);
                let (earlier, inventory) = (self.run.settings.earlier.clone(), self.run.inventory.clone());
                let saved = self.run.settings.saved.clone().filter(|_| self.look != Look::Proof);
                tasks.spawn(*host, async move {
                    if let Some(saved) = &saved {
                        saved::check_facts(&run, saved, &places).await?;
                    }
                    let evaluated = prepare::evaluate(&run, language.script(&run.host), &places, runs_once).await?;
                    // Where something was written wrongly there will be no plan.
                    if misused.load(Ordering::Relaxed) {
                        return Ok(None);
                    }
                    evaluated.plan(&places, earlier.as_deref(), &inventory).await.map(Some)
                });
            }
            let (host, result) = match self.next(&mut tasks).await {
                Next::Ended(host, result) => (host, result),
                Next::Interrupted => return self.interrupted().await,
                Next::AllEnded => break,
            };
            let diagnostic = match result {
                Ok(Ok(None)) => continue,
                Ok(Ok(Some(plan))) => {
                    self.events.emit(Event::HostPrepared { host, operations: plan.calls.len() }).await;
                    prepared.insert(host, (hosts[&host].host.name.clone(), plan));
                    continue;
                }
                Ok(Err(diagnostic)) => diagnostic,
                Err(error) => Box::new(Diagnostic::host(broken(error))),
            };
            if diagnostic.fault == Fault::Misuse && self.look != Look::Proof {
                misused.store(true, Ordering::Relaxed);
                misuses.insert(host, diagnostic);
                continue;
            }
            self.events.emit(Event::HostFailed { host, diagnostic }).await;
            if !misused.load(Ordering::Relaxed) {
                self.is_not_ok(host).await?;
            }
        }
        if !misuses.is_empty() {
            let mut said: Vec<Box<Diagnostic>> = Vec::new();
            for (host, diagnostic) in misuses {
                if !said.contains(&diagnostic) {
                    said.push(diagnostic.clone());
                    self.events.emit(Event::Misused { host: Some(host), diagnostic }).await;
                }
            }
            return Err(Over);
        }
        self.look_around(hosts, &mut prepared).await?;
        self.refuse_other_calls(&mut prepared).await?;
        self.some_left(&prepared).await?;
        Ok(prepared)
    }

    /// Leaves out the hosts on which a saved plan comes to something else by now.
    async fn refuse_other_calls(&mut self, prepared: &mut BTreeMap<HostId, (String, Prepared)>) -> Result<(), Over> {
        let Some(saved) = self.run.settings.saved.clone().filter(|_| self.look != Look::Proof) else { return Ok(()) };
        let check = |(host, (name, one)): (&HostId, &(String, Prepared))| Some((*host, saved::check_calls(name, one, &saved).err()?));
        let refused: Vec<(HostId, Box<Diagnostic>)> = prepared.iter().filter_map(check).collect();
        for (host, diagnostic) in refused {
            prepared.remove(&host);
            self.events.emit(Event::HostFailed { host, diagnostic }).await;
            self.is_not_ok(host).await?;
        }
        Ok(())
    }

    /// Plans hosts again that ask what an operation does on other hosts, with what those plan to do, until no plan changes any more.
    async fn look_around(
        &mut self,
        hosts: &BTreeMap<HostId, Arc<HostRun>>,
        prepared: &mut BTreeMap<HostId, (String, Prepared)>,
    ) -> Result<(), Over> {
        let first = hosts.keys().next().copied();
        // A condition rests on earlier calls alone, so that each round settles at least one more call of a chain of them.
        let rounds = prepared.values().map(|(_, prepared)| prepared.calls.len()).max().unwrap_or_default();
        for _ in 0..rounds {
            let mut tasks = Tasks::new();
            for (host, anywhere) in any_host::told(prepared) {
                let stale = |(_, before): &(String, Prepared)| before.anywhere != anywhere;
                if prepared.get(&host).is_some_and(stale)
                    && let Some((_, before)) = prepared.remove(&host)
                {
                    tasks.spawn(host, before.again(first == Some(host), anywhere));
                }
            }
            if tasks.running.is_empty() {
                break;
            }
            loop {
                match self.next(&mut tasks).await {
                    Next::Ended(host, Ok(Ok(plan))) => {
                        prepared.insert(host, (hosts[&host].host.name.clone(), plan));
                    }
                    Next::Ended(host, result) => {
                        let diagnostic = match result {
                            Ok(planned) => planned.err().expect("a plan is taken above"),
                            Err(error) => Box::new(Diagnostic::host(broken(error))),
                        };
                        self.events.emit(Event::HostFailed { host, diagnostic }).await;
                        self.is_not_ok(host).await?;
                    }
                    Next::Interrupted => return self.interrupted().await,
                    Next::AllEnded => break,
                }
            }
        }
        Ok(())
    }

    async fn facts(mut self, questions: HashMap<HostId, Vec<FactRequest>>) {
        let _ = self.facts_until_over(questions).await;
        self.close().await;
    }

    async fn facts_until_over(&mut self, questions: HashMap<HostId, Vec<FactRequest>>) -> Result<(), Over> {
        let hosts = self.connect().await?;
        let asked_as = |request: FactRequest| Asked::new(request.fact, &request.context);
        let asked: HashMap<HostId, Vec<Asked>> =
            questions.into_iter().map(|(host, requests)| (host, requests.into_iter().map(asked_as).collect())).collect();
        let mut waiting: VecDeque<_> = hosts.into_iter().collect();
        let mut tasks = Tasks::new();
        loop {
            while tasks.running.len() < self.run.settings.preparing.max(1) {
                let Some((host, run)) = waiting.pop_front() else { break };
                let asked = asked.get(&host).cloned().unwrap_or_default();
                tasks.spawn(host, async move {
                    run.gather(asked.clone()).await.map_err(|lost| lost.to_string())?;
                    let store = run.store();
                    Ok(asked.iter().map(|one| store.lookup(one)).collect::<Vec<Lookup>>())
                });
            }
            let (host, result) = match self.next(&mut tasks).await {
                Next::Ended(host, result) => (host, result),
                Next::Interrupted => return self.interrupted().await,
                Next::AllEnded => return Ok(()),
            };
            let answers: Result<Vec<Lookup>, String> = result.unwrap_or_else(|error| Err(broken(error)));
            let mut all_answered = true;
            for (at, one) in asked.get(&host).into_iter().flatten().enumerate() {
                let answer = match &answers {
                    Ok(answers) => match &answers[at] {
                        Lookup::Known(value) => Ok(value.clone()),
                        Lookup::Failed(message) => Err(message.clone()),
                        Lookup::Missing | Lookup::Unknown(_) => Err("the host gave no answer to it".to_owned()),
                    },
                    Err(message) => Err(message.clone()),
                };
                all_answered &= answer.is_ok();
                let (fact, question) = (one.fact.name().to_owned(), one.fact.question());
                self.events.emit(Event::FactAnswered { host, fact, question, answer }).await;
            }
            if !all_answered {
                self.is_not_ok(host).await?;
            }
        }
    }

    async fn next<T: Send + 'static>(&mut self, tasks: &mut Tasks<T>) -> Next<T> {
        tokio::select! {
            biased;
            () = interrupt(&mut self.run.interrupts, &mut self.watching) => {
                tasks.abandon(self.run.settings.closing).await;
                Next::Interrupted
            }
            ended = tasks.running.join_next_with_id() => match ended {
                None => Next::AllEnded,
                Some(ended) => {
                    let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                    let host = tasks.hosts.remove(&id).expect("each task was noted when it was spawned");
                    Next::Ended(host, ended.map(|(_, result)| result))
                }
            },
        }
    }

    /// Before execute an interrupt ends the run at once: nothing that is in flight changes a host.
    async fn interrupted<T>(&mut self) -> Result<T, Over> {
        let times = *self.run.interrupts.borrow();
        self.events.emit(Event::Interrupted { times, in_flight: Vec::new() }).await;
        self.events.stopped(StopReason::Interrupted).await;
        Err(Over)
    }

    /// A host is not ok before the first operation: whether that is one too many.
    async fn is_not_ok(&mut self, host: HostId) -> Result<(), Over> {
        // Rules stop what is going to be done, and a proof does nothing.
        if self.look == Look::Proof {
            return Ok(());
        }
        self.not_ok += 1;
        let settings = &self.run.settings;
        let fast = settings.fail_fast.then_some(StopReason::FailFast { host });
        match fast.or_else(|| too_many(settings.fail_percent, self.not_ok, self.run.hosts.len())) {
            Some(reason) => {
                self.events.stopped(reason).await;
                Err(Over)
            }
            None => Ok(()),
        }
    }

    async fn some_left<T>(&self, hosts: &BTreeMap<HostId, T>) -> Result<(), Over> {
        if !hosts.is_empty() || self.look == Look::Proof {
            return Ok(());
        }
        self.events.stopped(StopReason::NoHostLeft).await;
        Err(Over)
    }

    /// Has what the hosts were made into kept where their data asks for that, on all hosts at once. Where nothing was executed there is nothing to keep.
    async fn keep(&mut self) {
        let state = self.events.state().await;
        // Interrupts that came before were answered where they came.
        let interrupts = *self.run.interrupts.borrow_and_update();
        if !state.executing || interrupts >= 3 {
            return;
        }
        let buckets: HashMap<HostId, Bucket> = state.account().hosts.into_iter().collect();
        let mut tasks = Tasks::new();
        for (host, connection) in &self.connections {
            let (connection, ok) = (connection.clone(), buckets.get(host).is_some_and(|bucket| bucket.is_ok()));
            tasks.spawn(*host, async move { connection.keep(ok).await });
        }
        loop {
            let (host, result) = match self.next(&mut tasks).await {
                Next::Ended(host, result) => (host, result.unwrap_or_else(|error| Err(broken(error)))),
                Next::Interrupted => {
                    let _ = self.interrupted::<()>().await;
                    for host in tasks.hosts.into_values() {
                        let diagnostic = Diagnostic::host("the run was interrupted before it was known whether anything is kept of it");
                        self.events.emit(Event::HostFailed { host, diagnostic: Box::new(diagnostic) }).await;
                    }
                    return;
                }
                Next::AllEnded => return,
            };
            match result {
                Ok(kept) => {
                    for text in kept {
                        self.events.emit(Event::Log { host, text }).await;
                    }
                }
                Err(message) => self.events.emit(Event::HostFailed { host, diagnostic: Box::new(Diagnostic::host(message)) }).await,
            }
        }
    }

    /// Gives the locks back and ends all connections, all at once. Who does not end in time, or is left behind by a third interrupt, is dropped.
    async fn close(mut self) {
        self.count().await;
        let mut closing = JoinSet::new();
        let connections = self.connections.drain(..).map(|(_, connection)| connection);
        for connection in connections.chain(self.places.opened()) {
            closing.spawn(async move {
                connection.release().await;
                connection.close().await;
            });
        }
        let all = async { while closing.join_next().await.is_some() {} };
        let mut watching = self.watching;
        let third = async {
            while *self.run.interrupts.borrow() < 3 {
                interrupt(&mut self.run.interrupts, &mut watching).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = tokio::time::sleep(self.run.settings.closing) => {}
            () = third => {}
        }
    }
}

/// Waits for the next interrupt; for ever where none can come any more.
async fn interrupt(interrupts: &mut tokio::sync::watch::Receiver<u32>, watching: &mut bool) {
    if *watching && interrupts.changed().await.is_ok() {
        return;
    }
    *watching = false;
    std::future::pending().await
}

/// Why a task gave no result.
fn broken(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => defect(&*panic),
        Err(_) => "was abandoned".to_owned(),
    }
}
