//! Steps under the lock of their machine: waiting for another run, and going on without a lock where there is no place for one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use infra_core::connection::{Ending, OutputSink, Perform};
use infra_core::event::Event;
use infra_core::host::Host;
use infra_core::lock::{Claim, LockNews, Locked};
use tokio::time::Instant;

use crate::LockSettings;
use crate::host_run::HostRun;
use crate::operation_run::OperationRun;

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
}

impl HostLock {
    pub(crate) fn new(settings: Option<LockSettings>) -> Self {
        Self { settings, ..Self::default() }
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
        self.events.emit(Event::Lock { op: self.op, host: self.run.host.id, news }).await;
    }

    /// Does a step; where another run holds the lock, as soon as it is free, within the time that is given to that.
    pub(crate) async fn under_lock(&self, perform: Perform<'_>, sink: OutputSink) -> Ending {
        loop {
            let ending = self.until_ended(perform.clone(), sink.clone()).await;
            let Ending::Locked(locked) = &ending else { return ending };
            let Some(settings) = &self.run.lock.settings else { return ending };
            match locked {
                Locked::Unavailable { reason } if !settings.required => {
                    if self.run.first_time(&self.run.lock.unavailable) {
                        self.lock_news(LockNews::Unavailable { reason: reason.clone() }).await;
                    }
                    self.run.connection.claim(None);
                }
                Locked::Held { holder } if !settings.wait.is_zero() => {
                    if self.run.first_time(&self.run.lock.waiting) {
                        self.lock_news(LockNews::Waiting { holder: holder.clone(), at_most: settings.wait }).await;
                    }
                    match self.wait_for_lock(settings.wait, ending).await {
                        Ending::Exited(_) => {}
                        Ending::Locked(moved @ Locked::Moved { .. }) => return self.moved(moved).await,
                        ending => return ending,
                    }
                }
                Locked::Moved { .. } => return self.moved(locked.clone()).await,
                _ => return ending,
            }
        }
    }

    async fn moved(&self, locked: Locked) -> Ending {
        let news = match &locked {
            Locked::Moved { same_machine: Some(other) } => Some(LockNews::SameMachine { other: other.clone() }),
            _ => self.run.first_time(&self.run.lock.moved).then_some(LockNews::Moved),
        };
        if let Some(news) = news {
            self.lock_news(news).await;
        }
        Ending::Locked(locked)
    }

    /// Looks again and again whether the lock is free, and takes it. Who is interrupted or to be ended waits no longer.
    async fn wait_for_lock(&self, at_most: Duration, mut last: Ending) -> Ending {
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
            last = self.run.connection.take_lock().await;
            if !matches!(last, Ending::Locked(Locked::Held { .. })) {
                return last;
            }
        }
        last
    }
}
