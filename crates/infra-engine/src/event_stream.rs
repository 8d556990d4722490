//! The one way out of the engine: each event is folded into the record of the run and sent on.

use std::sync::{Arc, Mutex, PoisonError};

use infra_core::event::{Event, StopReason};
use infra_core::run_state::RunState;
use tokio::sync::mpsc;

/// Where events go.
#[derive(Clone)]
pub(crate) struct EventStream {
    sender: mpsc::Sender<Event>,
    state: Arc<Mutex<RunState>>,
}

impl EventStream {
    pub(crate) fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender, state: Arc::default() }
    }

    /// Folds the event and waits for its place in the channel. A reader that has gone does not hold up the run.
    pub(crate) async fn emit(&self, event: Event) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).fold(&event);
        let _ = self.sender.send(event).await;
    }

    /// A rule stopped the run.
    pub(crate) async fn stopped(&self, reason: StopReason) {
        self.emit(Event::Stopped { reason }).await;
    }

    /// The record so far.
    pub(crate) fn state(&self) -> RunState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
