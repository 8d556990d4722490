//! The connections to one host: one, or more where more commands are to run at once than one of them bears.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use infra_core::BoxFuture;
use infra_core::connection::{ConnectError, ConnectStep};
use tokio::task::JoinSet;

use super::master::{Master, SESSIONS};
use super::{Ssh, Target, failed, log};
use crate::reached::Reached;
use crate::spawn::{Process, Spawn, SpawnError};

/// The masters of one host. Dropping them kills them.
pub(crate) struct Masters {
    ssh: Arc<Ssh>,
    target: Arc<Target>,
    first: Arc<Master>,
    more: Mutex<Vec<Another>>,
    /// What the first one said that it connected to. It is read while it still stands in the log.
    address: OnceLock<String>,
}

/// One more connection.
struct Another {
    master: Arc<Master>,
    /// Reads what its first shell prints.
    _reached: Reached,
}

impl Masters {
    /// One master alone.
    pub(crate) fn new(ssh: Arc<Ssh>, target: Arc<Target>, first: Arc<Master>) -> Self {
        Self { ssh, target, first, more: Mutex::default(), address: OnceLock::new() }
    }

    /// Notes what the first master is connected to.
    pub(crate) fn note_address(&self) {
        let address = log::address(&self.first.log()).unwrap_or_else(|| self.target.options.name().to_owned());
        let _ = self.address.set(address);
    }

    /// The one with the fewest sessions, and a session counted on it before anybody else looks.
    fn least_busy(&self) -> (Arc<Master>, Arc<()>) {
        let more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
        let masters = std::iter::once(&self.first).chain(more.iter().map(|another| &another.master));
        let master = masters.min_by_key(|master| master.open_sessions()).unwrap_or(&self.first);
        (master.clone(), master.count_session())
    }

    async fn open_more(&self, connections: usize) -> Result<(), ConnectError> {
        let there = 1 + self.more.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut connecting = JoinSet::new();
        for _ in there..connections {
            let (ssh, target) = (self.ssh.clone(), self.target.clone());
            connecting.spawn(async move { ssh.connect_again(&target).await });
        }
        let mut opened = Vec::new();
        let mut failure = None;
        while let Some(connected) = connecting.join_next().await {
            match connected {
                Ok(Ok((reached, master))) => opened.push(Another { master, _reached: reached }),
                Ok(Err(error)) => failure = Some(error),
                Err(error) => failure = Some(failed(ConnectStep::Connect, format!("connecting came to no end: {error}"), None)),
            }
        }
        let Some(error) = failure else {
            self.more.lock().unwrap_or_else(PoisonError::into_inner).extend(opened);
            return Ok(());
        };
        for another in &opened {
            another.master.close().await;
        }
        Err(error)
    }
}

impl Spawn for Masters {
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>> {
        let (master, counted) = self.least_busy();
        Box::pin(async move { master.open(counted).await })
    }

    fn sessions(&self) -> usize {
        SESSIONS
    }

    fn address(&self) -> String {
        self.address.get().cloned().unwrap_or_else(|| self.target.options.name().to_owned())
    }

    fn widen(&self, connections: usize) -> BoxFuture<'_, Result<(), ConnectError>> {
        Box::pin(self.open_more(connections))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let masters: Vec<Arc<Master>> = {
                let more = self.more.lock().unwrap_or_else(PoisonError::into_inner);
                std::iter::once(&self.first).chain(more.iter().map(|another| &another.master)).cloned().collect()
            };
            let mut closing = JoinSet::new();
            for master in masters {
                closing.spawn(async move { master.close().await });
            }
            while closing.join_next().await.is_some() {}
        })
    }
}
