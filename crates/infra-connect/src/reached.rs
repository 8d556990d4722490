//! A host that was reached: everything above [`Spawn`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::command::Shell;
use infra_core::connection::{Connection, Ending, Lost, OutputSink, Perform, Question};
use infra_core::lock::Claim;
use infra_core::output::{Output, Stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;

use crate::envelope::{self, Abilities, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::lock::Lock;
use crate::payload::Payload;
use crate::perform::Ear;
use crate::receipts::{Marks, Piece};
use crate::settings::Settings;
use crate::spawn::{Process, Spawn, SpawnError};

/// How long the killing of a process group may take, on a host that may not answer.
const KILL_DEADLINE: Duration = Duration::from_secs(20);

/// Why what is in flight when a connection is closed is lost.
const CLOSED: &str = "the connection was closed";

/// A host that was reached, by whatever connector.
pub struct Reached {
    inner: Arc<Inner>,
    /// Reads what the first shell still prints, so that it never waits for us.
    drain: JoinHandle<()>,
}

impl Drop for Reached {
    fn drop(&mut self) {
        self.drain.abort();
    }
}

/// What several tasks share.
pub(crate) struct Inner {
    spawner: Arc<dyn Spawn>,
    pub(crate) abilities: Abilities,
    pub(crate) settings: Arc<Settings>,
    work: Semaphore,
    /// One session is kept for killing what runs in the others.
    control: Semaphore,
    busy: AtomicUsize,
    kills: watch::Sender<Kills>,
    flights: watch::Sender<usize>,
    closed: watch::Sender<bool>,
    pub(crate) lock: Lock,
}

/// Why a command was not started.
pub(crate) enum Refusal {
    Refused(String),
    Lost(String),
}

/// A place among the sessions of a host.
pub(crate) struct Permit<'a> {
    inner: &'a Inner,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.inner.busy.fetch_sub(1, Ordering::AcqRel);
        self.permit = None;
    }
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
            Piece::Mark(_, number) if stream == Stream::Stdout => self.number = Some(number),
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
    /// A connector whose connection lives as long as its first shell keeps a second handle of that shell's input.
    ///
    /// # Errors
    /// When it is no shell, with what it said instead, as a sentence fragment. There is no deadline here: the caller has one.
    pub async fn meet(settings: Arc<Settings>, spawner: Arc<dyn Spawn>, first: Process) -> Result<Self, String> {
        let mut marks = Marks::new();
        let text = envelope::hello(&mut marks);
        let mut exchange = Exchange::new(first, marks, text, Payload::none());
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
        let sessions = spawner.sessions().max(2);
        let inner = Inner {
            spawner,
            abilities,
            settings,
            work: Semaphore::new(sessions - 1),
            control: Semaphore::new(1),
            busy: AtomicUsize::new(0),
            kills: watch::Sender::new(Kills::default()),
            flights: watch::Sender::new(0),
            closed: watch::Sender::new(false),
            lock: Lock::default(),
        };
        let outputs = exchange.into_outputs();
        let drain = tokio::spawn(async move {
            let [stdout, stderr] = outputs;
            tokio::join!(discard(stdout), discard(stderr));
        });
        Ok(Self { inner: Arc::new(inner), drain })
    }
}

async fn discard(stream: Option<std::pin::Pin<Box<dyn AsyncRead + Send>>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
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
    async fn closed(&self) {
        // The sender lives as long as we do.
        let _ = self.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// Counts a command as in flight.
    pub(crate) fn flight(&self) -> Flight<'_> {
        self.flights.send_modify(|flights| *flights += 1);
        Flight(self)
    }

    /// A shell for a command, once there is a place for it.
    ///
    /// A host that wants fewer sessions than we would use gets fewer: the place is given up, and another one waited for.
    pub(crate) async fn session(&self) -> Result<(Process, Permit<'_>), Refusal> {
        loop {
            let permit = self.work.acquire().await.map_err(|_| Refusal::Lost(CLOSED.to_owned()))?;
            let others = self.busy.fetch_add(1, Ordering::AcqRel);
            let mut permit = Permit { inner: self, permit: Some(permit) };
            match self.spawner.spawn().await {
                Ok(process) => return Ok((process, permit)),
                Err(SpawnError::Refused(_)) if others > 0 => {
                    if let Some(permit) = permit.permit.take() {
                        permit.forget();
                    }
                }
                Err(SpawnError::Refused(reason)) => return Err(Refusal::Refused(reason)),
                Err(SpawnError::Lost(reason)) => return Err(Refusal::Lost(reason)),
            }
        }
    }

    /// A shell in the session that is kept aside, for what must be done while all others are at work.
    pub(crate) async fn aside(&self) -> Option<(Process, SemaphorePermit<'_>)> {
        let permit = self.control.acquire().await.ok()?;
        Some((self.spawner.spawn().await.ok()?, permit))
    }

    /// Kills a process group by a shell of `user`. Says whether it is gone.
    pub(crate) async fn kill_group(&self, group: u32, user: Option<&str>, cleanup: &Shell) -> bool {
        let killing = async {
            let (process, _permit) = self.aside().await?;
            let mut marks = Marks::new();
            let script = crate::process_group::kill(group, cleanup);
            let text = envelope::command(&mut marks, self.abilities, user, None, script.as_str());
            let mut exchange = Exchange::new(process, marks, text, Payload::none());
            let mut ear = Ear::new(None);
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

    fn perform<'a>(&'a self, step: Perform<'a>, sink: OutputSink) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            tokio::select! {
                biased;
                ending = self.inner.perform(step, sink) => ending,
                () = self.inner.closed() => Ending::Lost { reason: CLOSED.to_owned(), begun: true },
            }
        })
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

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inner.kill_in_flight(false))
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.inner.kill_in_flight(true))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.inner.work.close();
            self.inner.control.close();
            self.inner.closed.send_replace(true);
            self.inner.spawner.close().await;
            self.drain.abort();
        })
    }
}
