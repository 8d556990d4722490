//! A host that was reached: everything above [`Spawn`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connection, Crowded, Ending, LinedUp, Lineup, Lost, OutputSink, Perform, Question, Traffic};
use infra_core::global_arguments::Context;
use infra_core::lock::Claim;
use infra_core::output::{Output, Stream};
use infra_core::privilege::Privilege;
use infra_core::resources::{Resource, Resources};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit, watch};

use crate::envelope::{self, Abilities, Before, Dress, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::joined::Joined;
use crate::lock::Lock;
use crate::opening::Doors;
use crate::passwords::{HostPasswords, Passwords};
use crate::payload::{Part, Payload};
use crate::perform::{Ear, Turn, interrupted};
use crate::privilege::Refused;
use crate::receipts::{Marks, Piece, Tag};
use crate::sessions::{Outdated, Session, Sessions, Use};
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
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) doors: Doors,
    passwords: OnceLock<HostPasswords>,
    /// One session of each connection is kept for killing what runs in the others.
    control: Semaphore,
    kills: watch::Sender<Kills>,
    flights: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    round_trips: AtomicU64,
    commands: AtomicU64,
    pub(crate) lock: Lock,
}

/// Why a command was not started.
pub(crate) enum Refusal {
    Refused(String),
    /// The user could not be had.
    Privilege(Refused),
    Lost(String),
}

/// What a shell is to do.
pub(crate) struct Request<'r> {
    /// As whom; where the shell that serves it is another user's, the user is changed for this alone.
    pub(crate) privilege: Option<&'r Privilege>,
    /// What concerns the lock of the user who is logged in, before it. A shell of another user does it when it is opened, and never again.
    pub(crate) lock: Option<&'r Shell>,
    pub(crate) script: &'r str,
    pub(crate) dress: Dress<'r>,
    pub(crate) marks: Marks<Mark>,
    pub(crate) payload: Payload,
    /// Whether it is let go unless the one before it in the same conversation ended with 0.
    pub(crate) after: bool,
}

/// Scripts that go out to a shell together, one after the other.
#[derive(Default)]
pub(crate) struct Frames {
    marks: Marks<Mark>,
    parts: Vec<Part>,
}

/// What was said about killing what is in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kills {
    count: u64,
    /// Whether nothing more is started after that.
    for_good: bool,
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
        Self::greet(settings, spawner, first, None).await
    }

    /// The same with a host of which it may be known from an earlier run what it can do.
    pub(crate) async fn greet(
        settings: Arc<Settings>,
        spawner: Arc<dyn Spawn>,
        first: Process,
        known: Option<Abilities>,
    ) -> Result<Self, String> {
        let mut marks = Marks::new();
        let tag = Tag::random();
        let text = envelope::open(&mut marks, None, &tag, None) + &envelope::hello(&mut marks, &tag, known);
        let mut exchange = Exchange::new(first, marks, vec![Part::script(text)], true);
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
        let sessions = Sessions::new(spawner.clone(), most - 1, settings.one_command);
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
            doors: Doors::default(),
            passwords: OnceLock::new(),
            control: Semaphore::new(1),
            kills: watch::Sender::new(Kills::default()),
            flights: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            round_trips: AtomicU64::new(0),
            commands: AtomicU64::new(0),
            lock: Lock::default(),
        };
        Ok(Self { inner: Arc::new(inner), controller: OnceCell::new() })
    }

    /// What the host can do.
    pub(crate) fn abilities(&self) -> Abilities {
        self.inner.abilities
    }

    /// Has the passwords of this run for it, under the name of the host.
    pub(crate) fn asking(self, passwords: &Arc<Passwords>, name: &str) -> Self {
        // Nobody else has had it yet.
        let _ = self.inner.passwords.set(HostPasswords::new(passwords.clone(), name));
        self
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
            return interrupted();
        }
        let mut env = step.context.env.clone();
        env.insert("INFRA_ADDRESS".to_owned(), self.inner.spawner.address());
        let context = Context { env, ..Context::default() };
        let action = Action::Run(command.clone());
        controller.inner.perform(Perform { action: &action, context: &context, timeout: step.timeout, as_of: None }, sink).await
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

    /// A step that was sent went to nobody: no shell of its user came up to take it.
    pub(crate) fn command_came_back(&self) {
        self.commands.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a command as in flight.
    pub(crate) fn flight(&self) -> Flight<'_> {
        self.flights.send_modify(|flights| *flights += 1);
        Flight(self)
    }

    /// The passwords for this host.
    pub(crate) fn passwords(&self) -> &HostPasswords {
        self.passwords.get_or_init(|| HostPasswords::new(Arc::default(), &self.spawner.address()))
    }

    /// Begins to have a script run by a shell. The shell is kept where it is to be used again.
    pub(crate) fn begin(&self, session: &mut Session, request: Request<'_>, how: Use) -> Exchange {
        let mut frames = Frames::default();
        self.add_frame(session, &mut frames, request);
        self.send(session, frames, how)
    }

    /// Adds a script to those that are to go out together to a shell.
    pub(crate) fn add_frame(&self, session: &mut Session, frames: &mut Frames, request: Request<'_>) {
        let Request { privilege, lock, script, dress, mut marks, payload, after } = request;
        let mut text = String::new();
        let serving = session.user.as_ref();
        let tag = session.tag.get_or_insert_with(|| {
            let tag = Tag::random();
            text = envelope::open(&mut marks, serving, &tag, lock.filter(|_| serving.is_some()));
            tag
        });
        marks.know(tag, Mark::Over);
        let before = Before { lock: lock.filter(|_| serving.is_none()), privilege: privilege.filter(|_| serving != privilege), after };
        text.push_str(&envelope::command(&mut marks, self.abilities, tag, before, dress, script));
        frames.marks.join(marks);
        frames.parts.push(Part { script: text, payload });
    }

    /// Begins to have scripts run by the shell that they were made for.
    pub(crate) fn send(&self, session: &mut Session, frames: Frames, how: Use) -> Exchange {
        let process = session.process.take().expect("a session that was just taken has its process");
        Exchange::new(process, frames.marks, frames.parts, self.keeps(how))
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

    /// A shell in the session that is kept aside, for what must be done while all others are at work.
    pub(crate) async fn aside(&self) -> Option<(Process, SemaphorePermit<'_>)> {
        let permit = self.control.acquire().await.ok()?;
        self.goes_out();
        Some((self.spawner.spawn().await.ok()?, permit))
    }

    /// A shell of the user who is logged in that nobody uses, if there is one.
    pub(crate) fn idle_session(&self) -> Option<Session> {
        self.sessions.take_idle()
    }

    /// Opens as many shells as there are to be commands at once, on as many connections as that takes: what a host does not bear shows before anything ran.
    async fn prepare_for(&self, commands: usize) -> Result<(), Crowded> {
        let opened = self.sessions.prepare_for(commands).await?;
        self.control.add_permits(opened);
        Ok(())
    }

    /// Kills a process group by a shell of a privilege. Says whether it is gone.
    pub(crate) async fn kill_group(&self, group: u32, privilege: Option<&Privilege>, cleanup: &Shell) -> bool {
        self.run_aside(&crate::process_group::kill(group, cleanup), privilege).await == Some(0)
    }

    /// Runs something of our own while all sessions may be at work. Gives its exit status, where it came to its end in time.
    pub(crate) async fn run_aside(&self, script: &Shell, privilege: Option<&Privilege>) -> Option<i32> {
        let running = async {
            let (process, _permit) = self.aside().await?;
            self.goes_out();
            let mut marks = Marks::new();
            let (process, served) = self.serving(process, privilege).await?;
            let (tag, open) = match served {
                Some(tag) => (tag, String::new()),
                None => {
                    let tag = Tag::random();
                    let open = envelope::open(&mut marks, privilege, &tag, None);
                    (tag, open)
                }
            };
            marks.know(&tag, Mark::Over);
            let text = open + &envelope::command(&mut marks, self.abilities, &tag, Before::default(), Dress::default(), script.as_str());
            let mut exchange = Exchange::new(process, marks, vec![Part::script(text)], false);
            let mut ear = Ear::new(None, 1);
            while !ear.done() && exchange.step(&mut ear).await == Step::Moved {}
            ear.end()
        };
        tokio::time::timeout(KILL_DEADLINE, running).await.ok().flatten()
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

    fn claim(&self, claim: Option<Claim>) {
        self.inner.lock.claim(claim, &self.inner.settings.run_key);
    }

    fn moves(&self) -> u64 {
        self.inner.lock.moves()
    }

    fn take_lock(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async move {
            tokio::select! {
                biased;
                ending = self.inner.take_lock() => ending,
                () = self.inner.closed() => Ending::Lost { reason: CLOSED.to_owned(), begun: false },
            }
        })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inner.release())
    }

    fn changed(&self, touched: &Resources) {
        let users = Resources::Only([Resource::Users, Resource::Session].into());
        let outdated = match touched {
            // Nearly every command may have touched everything. Of those the ones count that another user could tell from before: root has its rights
            // whatever its groups are, and the user of the login has the groups of the login.
            Resources::Everything => Outdated::OfUsers,
            touched if touched.overlaps(&users) => Outdated::All,
            _ => return,
        };
        self.inner.sessions.renew(outdated);
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill_everywhere(false))
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.kill_everywhere(true))
    }

    fn traffic(&self) -> Traffic {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic { round_trips: of(&self.inner.round_trips) + self.inner.sessions.asked(), commands: of(&self.inner.commands) }
    }

    fn keep(&self, ok: bool) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(async move {
            // What is kept must not hold a lock.
            self.inner.release().await;
            self.inner.spawner.keep(ok).await
        })
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
