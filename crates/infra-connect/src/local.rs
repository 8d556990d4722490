//! This machine: `sh` as a child.

use std::process::Stdio;
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{ConnectError, ConnectStep};
use tokio::process::Command;

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

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Puts a child into a session of its own, where no Ctrl-C of the terminal reaches it.
pub(crate) fn own_session(command: &mut Command) {
    // SAFETY: between fork and exec only setsid(2) is called, which is safe in a child of a process with threads (signal-safety(7)).
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(|_| ()).map_err(std::io::Error::from));
    }
}

fn start() -> Result<Process, SpawnError> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(BOOT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    own_session(&mut command);
    let mut child = command.spawn().map_err(|error| SpawnError::Refused(format!("sh cannot be started: {error}")))?;
    let piped = "all three were asked for as pipes";
    Ok(Process {
        stdin: Box::pin(child.stdin.take().expect(piped)),
        stdout: Box::pin(child.stdout.take().expect(piped)),
        stderr: Box::pin(child.stderr.take().expect(piped)),
        ended: Box::pin(async move {
            match child.wait().await {
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
