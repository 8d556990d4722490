//! Steps under the lock of their machine: waiting for another run, and going on without a lock where there is no place for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use infra_core::connection::{Connection, Ending, OutputSink, Perform};
use infra_core::event::{Event, Failure};
use infra_core::host::Host;
use infra_core::lock::{Claim, LockNews, Locked};
use tokio::time::Instant;

use crate::LockSettings;
use crate::describe;
use crate::host_run::HostRun;
use crate::operation_run::OperationRun;
use crate::setback::{Setback, SetbackKind};
use crate::steps::Way;

/// The first pause between two looks at a lock that is waited for; each is longer than the one before it, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What one host is to make of its lock.
#[derive(Default)]
pub(crate) struct HostLock {
    settings: Option<LockSettings>,
    /// What was said, each once for a host.
    waiting: AtomicBool,
    moved: AtomicBool,
    unavailable: AtomicBool,
    /// What [`Connection::moves`] said when it was last compared with what is known of the host.
    moves: AtomicU64,
}

impl HostLock {
    pub(crate) fn new(settings: Option<LockSettings>) -> Self {
        Self { settings, ..Self::default() }
    }

    /// Whether something may have changed the host since this was last asked; `moves` is what its connection says.
    pub(crate) fn has_moved(&self, moves: u64) -> bool {
        self.moves.swap(moves, Ordering::Relaxed) != moves
    }

    /// What the connection to this host is told.
    pub(crate) fn claim(settings: &LockSettings, host: &Host) -> Claim {
        let LockSettings { run, user, controller, lease, .. } = settings.clone();
        Claim { run, user, controller, host: host.name.clone(), lease }
    }
}

impl HostRun {
    fn first_time(&self, said: &AtomicBool) -> bool {
        !said.swap(true, Ordering::Relaxed)
    }
}

impl OperationRun {
    async fn lock_news(&self, news: LockNews) {
        let on = self.is_elsewhere().then(|| self.at.host.name.clone());
        self.events.emit(Event::Lock { op: self.op, host: self.host, on, news }).await;
    }

    /// An ending for people, with the machine whose lock it is about where that is another one.
    pub(crate) fn told(&self, ending: &Ending) -> String {
        let text = describe::ending(ending);
        let elsewhere = self.is_elsewhere() && matches!(ending, Ending::Locked(_));
        if elsewhere { format!("{}: {text}", self.at.host.name) } else { text }
    }

    /// What the steps on `wire` rest on, as that counts. One of its own is told of no change that was there before it: so the lock is taken through the
    /// connection first which the facts were read on, and which holds it for both.
    ///
    /// # Errors
    /// As a step of its own that does nothing.
    pub(crate) async fn beside(&self, wire: &Arc<dyn Connection>, as_of: Option<u64>) -> Result<Option<u64>, Setback> {
        let own = &self.at.connection;
        let Some(known) = as_of.filter(|_| !Arc::ptr_eq(wire, own)) else { return Ok(as_of) };
        let ending = self.settled(&**own, own.take_lock().await).await.unwrap_or(Ending::Exited(0));
        let kind = match &ending {
            Ending::Exited(_) if own.moves() == known => return Ok(Some(wire.moves())),
            Ending::Exited(_) | Ending::Locked(Locked::Moved { .. }) => SetbackKind::Moved,
            _ if self.is_elsewhere() => SetbackKind::Failed,
            _ => SetbackKind::Final,
        };
        let failure = Failure { message: self.told(&ending), hint: describe::hint(&ending), ending: Some(ending), ..Failure::default() };
        Err(Setback { failure, kind })
    }

    /// Does a step; where another run holds the lock, as soon as it is free, within the time that is given to that.
    pub(crate) async fn under_lock(&self, perform: Perform<'_>, way: &mut Way<'_>, sink: OutputSink) -> Ending {
        loop {
            let ending = self.until_ended(perform.clone(), way, sink.clone()).await;
            if let Some(ending) = self.settled(way.wire, ending).await {
                return ending;
            }
            way.take_apart().await;
        }
    }

    /// What came of a step, or none where it is to be done now that the lock does not keep it from that any more.
    async fn settled(&self, wire: &dyn Connection, ending: Ending) -> Option<Ending> {
        let (Ending::Locked(locked), Some(settings)) = (&ending, &self.at.lock.settings) else { return Some(ending) };
        match locked {
            Locked::Unavailable { reason } if !settings.required => {
                if self.at.first_time(&self.at.lock.unavailable) {
                    self.lock_news(LockNews::Unavailable { reason: reason.clone() }).await;
                }
                wire.claim(None);
                None
            }
            Locked::Held { holder } if !settings.wait.is_zero() => {
                if self.at.first_time(&self.at.lock.waiting) {
                    self.lock_news(LockNews::Waiting { holder: holder.clone(), at_most: settings.wait }).await;
                }
                match self.wait_for_lock(wire, settings.wait, ending).await {
                    Ending::Exited(_) => None,
                    Ending::Locked(moved @ Locked::Moved { .. }) => Some(self.moved(moved).await),
                    ending => Some(ending),
                }
            }
            Locked::Moved { .. } => Some(self.moved(locked.clone()).await),
            _ => Some(ending),
        }
    }

    async fn moved(&self, locked: Locked) -> Ending {
        let news = match &locked {
            Locked::Moved { same_machine: Some(other) } => Some(LockNews::SameMachine { other: other.clone() }),
            _ => self.at.first_time(&self.at.lock.moved).then_some(LockNews::Moved),
        };
        if let Some(news) = news {
            self.lock_news(news).await;
        }
        Ending::Locked(locked)
    }

    /// Looks again and again whether the lock is free, and takes it. Who is interrupted or to be ended waits no longer.
    async fn wait_for_lock(&self, wire: &dyn Connection, at_most: Duration, mut last: Ending) -> Ending {
        let end = Instant::now() + at_most;
        let mut pause = FIRST_PAUSE;
        let (mut interrupts, mut told_to_end) = (self.interrupts.clone(), self.ending.clone());
        while Instant::now() < end {
            tokio::select! {
                biased;
                Ok(_) = interrupts.wait_for(|times| *times > 0) => return last,
                Ok(_) = told_to_end.wait_for(|ending| *ending) => return last,
                () = tokio::time::sleep_until(end.min(Instant::now() + pause)) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            last = wire.take_lock().await;
            if !matches!(last, Ending::Locked(Locked::Held { .. })) {
                return last;
            }
        }
        last
    }
}
