//! The one way out of the engine: each event is folded into the record of the run and sent on.

use std::collections::BTreeSet;
use std::sync::Arc;

use infra_core::event::{Event, Journal, StopReason};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::RunState;
use infra_core::secret::Secrets;
use tokio::sync::{Mutex, mpsc};

/// Where events go.
#[derive(Clone)]
pub(crate) struct EventStream {
    sender: mpsc::Sender<Event>,
    journal: Option<Arc<dyn Journal>>,
    secrets: Secrets,
    told: Arc<Mutex<Told>>,
}

/// What has been told by now.
#[derive(Default)]
struct Told {
    state: RunState,
    /// The hosts that are at work, each on its operation.
    working: BTreeSet<(OpId, HostId)>,
}

impl EventStream {
    pub(crate) fn new(sender: mpsc::Sender<Event>, journal: Option<Arc<dyn Journal>>, secrets: Secrets) -> Self {
        Self { sender, journal, secrets, told: Arc::default() }
    }

    /// What is masked in all that is told.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Masks what is secret, tells the journal, folds the event and waits for its place in the channel; both are one, so that the record is folded in the order in which events are read. A
    /// reader that has gone does not hold up the run.
    pub(crate) async fn emit(&self, mut event: Event) {
        self.secrets.mask_event(&mut event);
        let mut told = self.told.lock().await;
        match &event {
            Event::HostOperationStarted { op, host } => {
                told.working.insert((*op, *host));
            }
            Event::HostOperationEnded { op, host, .. } => {
                told.working.remove(&(*op, *host));
            }
            // What a worker still had to say when it was left behind comes too late.
            Event::CommandStarted { op, host, .. }
            | Event::Moved { op, host, .. }
            | Event::Output { op, host, .. }
            | Event::Lock { op, host, .. }
            | Event::Retrying { op, host, .. }
            | Event::WithinCall { op, host, .. }
            | Event::TextsChanged { op, host, .. }
                if !told.working.contains(&(*op, *host)) =>
            {
                return;
            }
            _ => {}
        }
        if let Some(journal) = &self.journal {
            journal.record(&event);
        }
        told.state.fold(&event);
        let _ = self.sender.send(event).await;
    }

    /// A rule stopped the run.
    pub(crate) async fn stopped(&self, reason: StopReason) {
        self.emit(Event::Stopped { reason }).await;
    }

    /// The record so far.
    pub(crate) async fn state(&self) -> RunState {
        self.told.lock().await.state.clone()
    }
}
