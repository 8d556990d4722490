//! This machine: `sh` as a child.

use std::process::Stdio;
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
    command.arg("-c").arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child::own_session(&mut command);
    let mut shell = command.spawn().map_err(|error| SpawnError::Refused(format!("sh cannot be started: {error}")))?;
    let piped = "all three were asked for as pipes";
    Ok(Process {
        stdin: Box::pin(shell.stdin.take().expect(piped)),
        stdout: Box::pin(shell.stdout.take().expect(piped)),
        stderr: Box::pin(shell.stderr.take().expect(piped)),
        ends: true,
        ended: Box::pin(async move {
            match shell.wait().await {
                Ok(status) => format!("the shell of the command ended without a receipt ({status})"),
                Err(error) => format!("the shell of the command is gone: {error}"),
            }
        }),
    })
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
