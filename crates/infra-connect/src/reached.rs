//! A host that was reached: everything above [`Spawn`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connection, Crowded, Ending, LinedUp, Lineup, Lost, OutputSink, Perform, Question, Traffic};
use infra_core::global_arguments::Context;
use infra_core::output::{Output, Stream};
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::envelope::{self, Abilities, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::joined::Joined;
use crate::payload::{Part, Payload};
use crate::perform::{Ear, Turn};
use crate::receipts::{Marks, Piece, Tag};
use crate::sessions::{Session, Sessions, Use};
use crate::settings::Settings;
use crate::spawn::{Process, Spawn};

/// How long the killing of a process group may take, on a host that may not answer.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// Why what is in flight when a connection is closed is lost.
pub(crate) const CLOSED: &str = "the connection was closed";

/// A host that was reached, by whatever connector.
pub struct Reached {
    inner: Arc<Inner>,
    /// This machine, where something that belongs to the host is done there.
    controller: OnceCell<Box<Reached>>,
}

/// What several tasks share.
pub(crate) struct Inner {
    spawner: Arc<dyn Spawn>,
    pub(crate) abilities: Abilities,
    pub(crate) settings: Arc<Settings>,
    sessions: Arc<Sessions>,
    /// One session of each connection is kept for killing what runs in the others.
    control: Semaphore,
    kills: watch::Sender<Kills>,
    flights: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    round_trips: AtomicU64,
    commands: AtomicU64,
}

/// Why a command was not started.
pub(crate) enum Refusal {
    Refused(String),
    Lost(String),
}

/// What was said about killing what is in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kills {
    count: u64,
    /// Whether nothing more is started after that.
    for_good: bool,
}

/// A script for a shell that serves.
pub(crate) struct Frame<'a> {
    pub(crate) script: &'a str,
    /// The statuses of the one before after which alone it is done; whatever they were where not given.
    pub(crate) after: Option<&'a [i32]>,
    pub(crate) payload: Payload,
}

/// A command in flight, as [`Connection::kill`] counts them.
pub(crate) struct Flight<'a>(&'a Inner);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.flights.send_modify(|flights| *flights -= 1);
    }
}

struct Hello {
    number: Option<i64>,
    said: Vec<u8>,
    closed: usize,
}

impl Listener for Hello {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        match piece {
            Piece::Bytes(bytes) if self.said.len() < 4096 => self.said.extend_from_slice(bytes),
            Piece::Bytes(_) => {}
            Piece::Mark(Mark::Up, number) if stream == Stream::Stdout => self.number = Some(number),
            Piece::Mark(..) => {}
        }
    }

    fn closed(&mut self, _: Stream) {
        self.closed += 1;
    }
}

impl Reached {
    /// Hears the first words of a host from the first of its shells, and takes it over.
    ///
    /// # Errors
    /// When it is no shell, with what it said instead, as a sentence fragment. There is no deadline here: the caller has one.
    pub async fn meet(settings: Arc<Settings>, spawner: Arc<dyn Spawn>, first: Process) -> Result<Self, String> {
        let mut marks = Marks::new();
        let tag = Tag::random();
        let text = envelope::open(&mut marks, None, &tag) + &envelope::hello(&mut marks, &tag);
        let mut exchange = Exchange::new(first, marks, vec![Part { script: text, payload: Payload::none() }], true);
        let mut hello = Hello { number: None, said: Vec::new(), closed: 0 };
        while hello.number.is_none() {
            if exchange.step(&mut hello).await == Step::Closed && hello.number.is_none() {
                let reason = exchange.reason().await;
                let said = String::from_utf8_lossy(&hello.said);
                let said = infra_core::output::printable(said.trim());
                return Err(if said.is_empty() { reason } else { format!("{reason}; it said: {said}") });
            }
        }
        let abilities = Abilities::from_number(hello.number.unwrap_or_default());
        let most = spawner.sessions().max(2);
        let sessions = Sessions::new(spawner.clone(), most - 1);
        if let Some(process) = exchange.into_process().await {
            if abilities.serves {
                sessions.add(process, tag);
            } else {
                sessions.add_spent(process);
            }
        }
        let inner = Inner {
            spawner,
            abilities,
            settings,
            sessions,
            control: Semaphore::new(1),
            kills: watch::Sender::new(Kills::default()),
            flights: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            round_trips: AtomicU64::new(0),
            commands: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner), controller: OnceCell::new() })
    }

    async fn kill_everywhere(&self, for_good: bool) {
        let here = async {
            if let Some(controller) = self.controller.get() {
                controller.inner.kill_in_flight(for_good).await;
            }
        };
        tokio::join!(self.inner.kill_in_flight(for_good), here);
    }

    /// Does one step, in a request of its own.
    pub(crate) async fn perform_one(&self, step: Perform<'_>, sink: OutputSink) -> Ending {
        match step.action {
            Action::Controller(command) => self.perform_on_controller(command, &step, sink).await,
            _ => self.inner.perform(step, sink).await,
        }
    }

    /// Runs a command on this machine. It is killed and closed with those of the host.
    async fn perform_on_controller(&self, command: &Command, step: &Perform<'_>, sink: OutputSink) -> Ending {
        let connecting = async { crate::local::connect(self.inner.settings.clone()).await.map(Box::new) };
        let controller = match self.controller.get_or_try_init(|| connecting).await {
            Ok(controller) => controller,
            Err(error) => return Ending::Refused(format!("no shell can be started on this machine: {}", error.message)),
        };
        if self.inner.kills.borrow().for_good {
            return Ending::Refused("the run was interrupted before it began".to_owned());
        }
        let mut env = step.context.env.clone();
        env.insert("INFRA_ADDRESS".to_owned(), self.inner.spawner.address());
        let context = Context { env, ..Context::default() };
        let action = Action::Run(command.clone());
        controller.inner.perform(Perform { action: &action, context: &context, timeout: step.timeout }, sink).await
    }
}

impl Inner {
    /// Tells when all that is in flight is to be killed; at once where that was said for good, so that nothing slips in behind it.
    pub(crate) fn kills(&self) -> watch::Receiver<Kills> {
        let mut kills = self.kills.subscribe();
        if kills.borrow().for_good {
            kills.mark_changed();
        }
        kills
    }

    /// Has all that is in flight killed, and waits until nothing is.
    async fn kill_in_flight(&self, for_good: bool) {
        let mut flights = self.flights.subscribe();
        self.kills.send_modify(|kills| {
            kills.count += 1;
            kills.for_good |= for_good;
        });
        // Each command in flight does its own killing, which has a deadline. The sender lives as long as we do.
        let _ = flights.wait_for(|flights| *flights == 0).await;
    }

    /// Waits until the connection is closed from this side.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as we do.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Counts a request for whose answer is waited: to open a shell, or what is asked of one.
    pub(crate) fn goes_out(&self) {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a step of a change that is sent.
    pub(crate) fn command_goes_out(&self) {
        self.goes_out();
        self.command_goes();
    }

    /// Counts a step of a change that is sent with others.
    pub(crate) fn command_goes(&self) {
        self.commands.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a command as in flight.
    pub(crate) fn flight(&self) -> Flight<'_> {
        self.flights.send_modify(|flights| *flights += 1);
        Flight(self)
    }

    /// A shell that serves `user`, once there is one.
    pub(crate) async fn session(&self, user: Option<&str>, how: Use) -> Result<Session, Refusal> {
        self.sessions.take(user, how).await
    }

    /// Begins to have `script` run by a shell as `user`. The shell is kept where it is to be used again.
    pub(crate) fn begin(
        &self,
        session: &mut Session,
        user: Option<&str>,
        script: &str,
        marks: Marks<Mark>,
        payload: Payload,
        how: Use,
    ) -> Exchange {
        let frame = Frame { script, after: None, payload };
        self.begin_all(session, user, vec![frame], marks, how)
    }

    /// The same with several scripts, one after the other.
    pub(crate) fn begin_all(
        &self,
        session: &mut Session,
        user: Option<&str>,
        frames: Vec<Frame<'_>>,
        mut marks: Marks<Mark>,
        how: Use,
    ) -> Exchange {
        let mut text = String::new();
        let tag = session.tag.get_or_insert_with(|| {
            let tag = Tag::random();
            text = envelope::open(&mut marks, user, &tag);
            tag
        });
        marks.know(tag, Mark::Over);
        let mut parts = Vec::with_capacity(frames.len());
        for Frame { script, after, payload } in frames {
            let script = std::mem::take(&mut text) + &envelope::command(&mut marks, self.abilities, tag, script, after);
            parts.push(Part { script, payload });
        }
        let process = session.process.take().expect("a session that was just taken has its process");
        Exchange::new(process, marks, parts, self.keeps(how))
    }

    pub(crate) fn keeps(&self, how: Use) -> bool {
        how == Use::Again && self.abilities.serves
    }

    /// Gives a shell back whose command came to its end by its own receipt.
    pub(crate) async fn end(&self, session: Session, exchange: Exchange, ear: &Ear, how: Use) {
        if ear.ended_whole()
            && self.keeps(how)
            && let Some(process) = exchange.into_process().await
        {
            session.give_back(process);
        }
    }

    /// Opens as many shells as there are to be commands at once, on as many connections as that takes: what a host does not bear shows before anything ran.
    async fn prepare_for(&self, commands: usize) -> Result<(), Crowded> {
        let opened = self.sessions.prepare_for(commands).await?;
        self.control.add_permits(opened);
        Ok(())
    }

    /// Kills a process group by a shell of `user`. Says whether it is gone.
    pub(crate) async fn kill_group(&self, group: u32, user: Option<&str>, cleanup: &Shell) -> bool {
        let killing = async {
            let _permit = self.control.acquire().await.ok()?;
            self.goes_out();
            let process = self.spawner.spawn().await.ok()?;
            self.goes_out();
            let mut marks = Marks::new();
            let script = crate::process_group::kill(group, cleanup);
            let tag = Tag::random();
            let open = envelope::open(&mut marks, user, &tag);
            marks.know(&tag, Mark::Over);
            let script = open + &envelope::command(&mut marks, self.abilities, &tag, script.as_str(), None);
            let mut exchange = Exchange::new(process, marks, vec![Part { script, payload: Payload::none() }], false);
            let mut ear = Ear::new(None, 1);
            while !ear.done() && exchange.step(&mut ear).await == Step::Moved {}
            ear.end()
        };
        tokio::time::timeout(KILL_DEADLINE, killing).await.ok().flatten() == Some(0)
    }
}

impl Connection for Reached {
    fn gather(&self, questions: Vec<Question>) -> BoxFuture<'_, Result<Vec<Result<Output, String>>, Lost>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                answers = self.inner.gather(questions) => answers,
                () = self.inner.closed() => Err(Lost { reason: CLOSED.to_owned() }),
            }
        })
    }

    fn prepare_for(&self, commands: usize) -> BoxFuture<'_, Result<(), Crowded>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                prepared = self.inner.prepare_for(commands) => prepared,
                () = self.inner.closed() => Err(Crowded { message: CLOSED.to_owned(), hint: None }),
            }
        })
    }

    fn perform<'a>(&'a self, step: Perform<'a>, sink: OutputSink) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            tokio::select! {
                biased;
                ending = self.perform_one(step, sink) => ending,
                () = self.inner.closed() => Ending::Lost { reason: CLOSED.to_owned(), begun: true },
            }
        })
    }

    fn line_up<'a>(&'a self, lineup: Lineup<'a>) -> Option<Box<dyn LinedUp + 'a>> {
        Some(Box::new(Joined::new(self, &self.inner, lineup)))
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill_everywhere(false))
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill_everywhere(true))
    }

    fn traffic(&self) -> Traffic {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { round_trips: of(&self.inner.round_trips), commands: of(&self.inner.commands) }
    }

    fn keep(&self, ok: bool) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.inner.spawner.keep(ok)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.inner.sessions.close();
            self.inner.control.close();
            self.inner.closed.send_replace(true);
            if let Some(controller) = self.controller.get() {
                controller.close().await;
            }
            self.inner.spawner.close().await;
        })
    }
}
