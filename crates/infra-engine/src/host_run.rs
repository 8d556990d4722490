//! One host of a run that was reached: its connection and what is known of it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infra_core::connection::{Connection, Lost, Question};
use infra_core::facts::Lookup;
use infra_core::host::Host;
use infra_core::registry::Registry;
use infra_core::template::InventoryScope;

use crate::fact_store::{Asked, FactStore};
use crate::local_files::LocalFiles;
use crate::locking::HostLock;

/// One host of a run that was reached.
pub(crate) struct HostRun {
    pub(crate) host: Arc<Host>,
    pub(crate) connection: Arc<dyn Connection>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) locals: Arc<LocalFiles>,
    pub(crate) inventory: InventoryScope,
    pub(crate) facts: Mutex<FactStore>,
    pub(crate) lock: HostLock,
}

impl HostRun {
    pub(crate) fn store(&self) -> MutexGuard<'_, FactStore> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is not known of these questions, each once, all in one request. Questions that have no answer are kept as failed.
    ///
    /// # Errors
    /// When the connection broke.
    pub(crate) async fn gather(&self, asked: Vec<Asked>) -> Result<(), Lost> {
        let mut keys = HashSet::new();
        let wanted: Vec<Asked> = {
            let store = self.store();
            asked.into_iter().filter(|one| store.lookup(one) == Lookup::Missing && keys.insert(one.key())).collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let questions = wanted.iter().map(|one| Question { command: one.fact.command(), context: one.context.clone() }).collect();
        let mut outputs = self.connection.gather(questions).await?.into_iter();
        for one in &wanted {
            let output = outputs.next().unwrap_or_else(|| Err("the host gave no answer to it".to_owned()));
            let answer = output.and_then(|output| one.fact.parse(&output).map_err(|error| error.to_string()));
            self.store().keep(one, answer);
        }
        Ok(())
    }
}
