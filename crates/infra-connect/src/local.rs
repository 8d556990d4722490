//! This machine: `sh` as a child.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{ConnectError, ConnectStep};
use tokio::process::Command;

use crate::child;
use crate::reached::Reached;
use crate::settings::Settings;
use crate::spawn::{BOOT, Process, Spawn, SpawnError};

/// Starts `sh` on this machine.
struct Local;

impl Spawn for Local {
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>> {
        Box::pin(async { start() })
    }

    fn sessions(&self) -> usize {
        16
    }

    fn address(&self) -> String {
        "127.0.0.1".to_owned()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn start() -> Result<Process, SpawnError> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(BOOT);
    let started = child::start(command).map_err(|error| SpawnError::Refused(format!("sh cannot be started: {error}")))?;
    Ok(child::shell(started))
}

/// Reaches this machine.
pub(crate) async fn connect(settings: Arc<Settings>) -> Result<Reached, ConnectError> {
    let failed = |message| ConnectError { step: ConnectStep::Shell, message, hint: None };
    let first = start().map_err(|error| failed(error.to_string()))?;
    let deadline = settings.connect_deadline;
    match tokio::time::timeout(deadline, Reached::meet(settings, Arc::new(Local), first)).await {
        Ok(reached) => reached.map_err(failed),
        Err(_) => Err(failed(format!("sh did not answer within {} s", deadline.as_secs_f64()))),
    }
}
