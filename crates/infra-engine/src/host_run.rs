//! One host of a run that was reached: its connection and what is known of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infra_core::arguments::{TEMPLATE_SCOPE, is_marked};
use infra_core::connection::{Connection, Lost, Question};
use infra_core::facts::Lookup;
use infra_core::host::{Connector, Host};
use infra_core::operation::Idempotence;
use infra_core::output::Output;
use infra_core::registry::Registry;
use infra_core::resources::Resources;
use infra_core::script::OperationCall;
use infra_core::secret::Secrets;
use infra_core::template::InventoryScope;

use crate::fact_store::{Asked, FactStore, Since};
use crate::local_files::LocalFiles;
use crate::locking::HostLock;

/// How often facts are read that are changed while they are read.
const AGAIN: usize = 10;

/// One host of a run that was reached.
pub(crate) struct HostRun {
    pub(crate) host: Arc<Host>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) locals: Arc<LocalFiles>,
    pub(crate) inventory: InventoryScope,
    pub(crate) facts: Mutex<FactStore>,
    /// Whether operations that are not idempotent by nature are planned as if they left the host alone, so that it is seen as it stands.
    pub(crate) overlooks: AtomicBool,
    pub(crate) lock: HostLock,
    /// What must not be shown.
    pub(crate) secrets: Secrets,
}

impl HostRun {
    pub(crate) fn store(&self) -> MutexGuard<'_, FactStore> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it has turned out that the host may have changed behind what is known of it; what was known before the last time is dropped. What is diffed
    /// after that rests on facts that are as old as this, at most.
    pub(crate) fn as_of(&self) -> u64 {
        let mut store = self.store();
        let moves = self.connection.moves();
        if self.lock.has_moved(moves) {
            store.drop_touched(&Resources::everything());
            if self.host.connector == Connector::Local {
                self.locals.forget(&Resources::everything());
            }
        }
        moves
    }

    /// Forgets all answers, so that the host is looked at afresh.
    pub(crate) fn forget_facts(&self) {
        *self.store() = FactStore::default();
    }

    /// Whether an operation of this kind is planned as if it left the host alone.
    pub(crate) fn overlooks(&self, kind: &str) -> bool {
        let idempotent = || self.registry.operation(kind).is_some_and(|definition| definition.idempotence == Idempotence::Idempotent);
        self.overlooks.load(Ordering::Relaxed) && !idempotent()
    }

    /// Whether the arguments of a call hold a secret, so that what it writes is one. What templates see of the host is no argument in this sense: they
    /// may use none of it.
    pub(crate) fn is_secret(&self, call: &OperationCall) -> bool {
        let scope =
            |name: &str| self.registry.operation(&call.kind).is_some_and(|definition| is_marked(&definition.schema, name, TEMPLATE_SCOPE));
        !self.secrets.is_empty() && call.arguments.iter().any(|(name, value)| self.secrets.holds_in(value) && !scope(name))
    }

    /// Reads what is not known of these questions, each once, all in one request. Questions that have no answer are kept as failed.
    ///
    /// What another operation may have changed meanwhile is asked again.
    ///
    /// # Errors
    /// When the connection broke.
    pub(crate) async fn gather(&self, asked: Vec<Asked>) -> Result<(), Lost> {
        for _ in 1..AGAIN {
            if !self.read(asked.clone(), false).await? {
                return Ok(());
            }
        }
        // Something changes it all the time: the last answer is as good as any.
        self.read(asked, true).await.map(drop)
    }

    /// Which of these questions are to be asked, because they rest on what `touched` names or are not known.
    pub(crate) fn stale(&self, asked: Vec<Asked>, touched: &Resources) -> Vec<Asked> {
        let mut keys = HashSet::new();
        let store = self.store();
        asked.into_iter().filter(|one| store.is_stale(one, touched) && keys.insert(one.key())).collect()
    }

    /// A change is about to be made, behind which questions are asked: what others touch meanwhile is noted.
    pub(crate) fn before_change(&self) -> Reading<'_> {
        Reading { run: self, since: self.store().begin_reading() }
    }

    /// Drops what a change has touched, and keeps what was read behind it.
    pub(crate) fn after_change(&self, touched: &Resources, reading: &Reading<'_>, read: Vec<(Asked, Output)>) {
        let mut store = self.store();
        // What others changed may have come after it was read.
        let fresh: Vec<_> = read.into_iter().filter(|(one, _)| !store.is_outdated(one, reading.since)).collect();
        store.drop_touched(touched);
        for (one, output) in fresh {
            store.note_links(&one, &output);
            let answer = one.fact.parse(&output).map_err(|error| error.to_string());
            store.keep(&one, answer);
        }
    }

    /// Reads once, and says whether something was outdated by then.
    async fn read(&self, asked: Vec<Asked>, whatever: bool) -> Result<bool, Lost> {
        let mut keys = HashSet::new();
        let wanted: Vec<Asked> = {
            let store = self.store();
            asked.into_iter().filter(|one| store.lookup(one) == Lookup::Missing && keys.insert(one.key())).collect()
        };
        if wanted.is_empty() {
            return Ok(false);
        }
        let reading = Reading { run: self, since: self.store().begin_reading() };
        let questions = wanted.iter().map(|one| Question { command: one.fact.command(), context: one.context.clone() }).collect();
        let mut outputs = self.connection.gather(questions).await?.into_iter();
        let mut outdated = false;
        for one in &wanted {
            let output = outputs.next().unwrap_or_else(|| Err("the host gave no answer to it".to_owned()));
            let answer =
                output.as_ref().map_err(String::clone).and_then(|output| one.fact.parse(output).map_err(|error| error.to_string()));
            let mut store = self.store();
            if let Ok(output) = &output {
                store.note_links(one, output);
            }
            if whatever || !store.is_outdated(one, reading.since) {
                store.keep(one, answer);
            } else {
                outdated = true;
            }
        }
        Ok(outdated)
    }
}

/// A request that is under way, also when nobody waits for it any more.
pub(crate) struct Reading<'r> {
    run: &'r HostRun,
    since: Since,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.run.store().end_reading();
    }
}
