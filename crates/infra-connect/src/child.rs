//! Children of this process, and how many files they and it may have open.

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use tokio::process::Command;

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
