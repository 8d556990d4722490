//! Children of this process, and how many files they and it may have open.

use std::io;
use std::process::Stdio;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::spawn::Process;

/// The soft and the hard limit of open files that this process was started with, where they were changed.
static BEFORE: OnceLock<(rlim_t, rlim_t)> = OnceLock::new();

/// Some systems have no hard limit and yet refuse soft ones above this (macOS: `OPEN_MAX`).
const MODEST: rlim_t = 10_240;

/// Lets this process open as many files as it may: each host takes some. Children get the old limit back ([`own_session`]), as programs that use
/// select(2) cannot do with a high one. Gives the limit that holds now.
///
/// # Errors
/// When the limit cannot be read.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let mut now = soft;
    for wanted in [hard, hard.min(MODEST)] {
        if wanted > now && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
            BEFORE.get_or_init(|| (soft, hard));
            now = wanted;
        }
    }
    Ok(now)
}

/// Puts a child into a session of its own, where no Ctrl-C of the terminal reaches it, with the limits that this process was started with.
pub fn own_session(command: &mut Command) {
    let before = BEFORE.get().copied();
    // SAFETY: between fork and exec only setsid(2) and setrlimit(2) are called, which are safe in a child of a process with threads: they are plain
    // system calls (signal-safety(7)).
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            if let Some((soft, hard)) = before {
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            }
            Ok(())
        });
    }
}

/// A child in a session of its own, with pipes to it. Dropping it kills nothing.
pub(crate) struct Piped {
    pub(crate) child: Child,
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

/// Starts a program in a session of its own, with pipes for all three of its streams.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn start(mut command: Command) -> io::Result<Piped> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    own_session(&mut command);
    let mut child = command.spawn()?;
    let piped = "all three were asked for as pipes";
    let stdin = child.stdin.take().expect(piped);
    let stdout = child.stdout.take().expect(piped);
    let stderr = child.stderr.take().expect(piped);
    Ok(Piped { child, stdin, stdout, stderr })
}

/// A child that is itself the `sh` of a command, or becomes it.
pub(crate) fn shell(piped: Piped) -> Process {
    let Piped { mut child, stdin, stdout, stderr } = piped;
    Process {
        stdin: Box::pin(stdin),
        stdout: Box::pin(stdout),
        stderr: Box::pin(stderr),
        ends: true,
        ended: Box::pin(async move {
            match child.wait().await {
                Ok(status) => format!("the shell of the command ended without a receipt ({status})"),
                Err(error) => format!("the shell of the command is gone: {error}"),
            }
        }),
    }
}
