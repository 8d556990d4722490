//! Why the bench could not do what a test asked of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A failure of the bench itself, not of what is tested.
///
/// `Debug` prints the message and the hint like a sentence, so that `.unwrap()` in a test says what to do.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The test process is not root and what it asked for needs root.
    #[error("{what} needs root, and this is uid {uid}")]
    NotRoot {
        /// What was asked for.
        what: &'static str,
        /// Who asked.
        uid: u32,
    },
    /// The cached root that machines are overlays of is not there.
    #[error("the machine root {} is not there", path.display())]
    NoMachineRoot {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The cached image that containers are made of is not there.
    #[error("the container image in {} is not there", path.display())]
    NoImage {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program that the bench needs is not installed.
    #[error("the program {program} was not found")]
    NoProgram {
        /// Its name.
        program: String,
    },
    /// A program ended with a failure.
    #[error("{command} ended with {status}: {output}")]
    Program {
        /// The command as words.
        command: String,
        /// Its exit code or signal.
        status: String,
        /// The last of what it said.
        output: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {} s: {detail}", after.as_secs_f32())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// What was seen instead.
        detail: String,
    },
    /// A process that was to stay has ended.
    #[error("{what} ended by itself: {detail}")]
    Ended {
        /// What has ended.
        what: String,
        /// The last of what it said.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A name or an argument that the bench cannot take.
    #[error("{0}")]
    Argument(String),
    /// No subnet or port was free after many tries.
    #[error("found no free {what} in {tries} tries; the last said: {last}")]
    NothingFree {
        /// A subnet, an address.
        what: &'static str,
        /// How many were tried.
        tries: u32,
        /// Why the last one was not free.
        last: String,
    },
    /// A machine that was stopped was asked to do something.
    #[error("the machine {0} is not running")]
    NotRunning(String),
}

impl BenchError {
    /// What a person can do about it, where there is something.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotRoot { .. } => Some("run the tests as root, for instance with `sudo -E cargo test`"),
            Self::NoMachineRoot { .. } | Self::NoImage { .. } => {
                Some("run `tests/setup` as root with the same HOME or XDG_CACHE_HOME: it builds the root in about a minute")
            }
            Self::NoProgram { .. } => Some("run `tests/setup` as root: it installs what the tests need"),
            _ => None,
        }
    }

    /// For `map_err` on I/O with a path.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> BenchError {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

impl fmt::Debug for BenchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")?;
        match self.hint() {
            Some(hint) => write!(formatter, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Fails with [`BenchError::NotRoot`] where the test process is not root.
pub(crate) fn require_root(what: &'static str) -> Result<(), BenchError> {
    let uid = nix::unistd::geteuid();
    if uid.is_root() { Ok(()) } else { Err(BenchError::NotRoot { what, uid: uid.as_raw() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_reads_like_a_sentence_with_its_hint() {
        let error = BenchError::NotRoot { what: "booting machines", uid: 1000 };
        assert_eq!(
            format!("{error:?}"),
            "booting machines needs root, and this is uid 1000\n\
             hint: run the tests as root, for instance with `sudo -E cargo test`"
        );
    }
}
