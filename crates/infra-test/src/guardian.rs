//! Tidying away, also after the test process was killed.
//!
//! A guardian is a small shell process that reads from a pipe which only the test process holds open. Whatever the bench
//! is about to make — a process, a mount, a network namespace, a folder — is told to the guardian first. When the pipe
//! closes, the guardian tidies all of it away. The pipe closes when the value that owns the guardian is dropped, and also when the test process
//! is killed by a signal that it cannot catch, aborts, or exits without unwinding: so there is one way of tidying up, and
//! it is the one that every test goes through.
//!
//! Processes are known by their id and start time, never by name. The guardian ignores SIGHUP, SIGINT and SIGTERM and
//! stands in a process group of its own, so what ends a test from the terminal does not end it. Only SIGKILL of the
//! guardian itself, or the machine going down, leaves something behind.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use crate::error::BenchError;
use crate::process::{not_started, reap};

/// The longest that tidying up can take: 10 s of asking, 5 s of killing, and the rest, on a busy machine.
const TIDY_DEADLINE: Duration = Duration::from_secs(60);

/// The variable with the file in which all duties are written down, for `tests/leftovers`, which looks at the end whether each was done.
const LEDGER: &str = "INFRA_TESTS_LEDGER";

/// Reports the process to the guardian, whose pipe is its stdin, moves it into the groups named up to `--`, and becomes the
/// command after that.
const JOIN_AND_BECOME: &str = r#"
echo "$0 $$" >&0
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs" || exit 125
    shift
done
shift
exec "$@" </dev/null
"#;

/// What is to be tidied away. The text must not hold a newline.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Duty<'a> {
    /// Processes with this text in their environment are killed.
    Marked(&'a str),
    /// A mount point.
    Mount(&'a Path),
    /// A named network namespace.
    Namespace(&'a str),
    /// A bridge, by its name and its hardware address.
    Bridge(&'a str, &'a str),
    /// A network interface.
    Link(&'a str),
    /// A control group, with those in it.
    ControlGroup(&'a Path),
    /// The folder of a podman of its own ([`crate::containers`]), with its containers.
    Containers(&'a Path),
    /// A folder, with all that is in it.
    Folder(&'a Path),
}

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// SIGTERM, and SIGKILL when that does not help.
    Orderly,
    /// SIGKILL, to its descendants too.
    Tree,
}

/// The process that tidies up. Dropping it waits until it has.
pub(crate) struct Guardian {
    child: Mutex<Child>,
    /// `None` once tidying up has begun.
    duties: Mutex<Option<ChildStdin>>,
}

impl Guardian {
    /// Starts a guardian with nothing to do yet.
    pub(crate) fn start() -> Result<Self, BenchError> {
        let mut command = Command::new("sh");
        command
            .args(["-c", include_str!("guardian.sh"), "infra-test-guardian"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().map_err(|source| not_started(&command, source))?;
        let duties = Mutex::new(child.stdin.take());
        Ok(Self { child: Mutex::new(child), duties })
    }

    /// Gives it a duty. Called before the thing is made, so that no kill falls in between.
    pub(crate) fn take_on(&self, duty: Duty<'_>) -> Result<(), BenchError> {
        let line = match duty {
            Duty::Marked(text) => format!("marked {text}\n"),
            Duty::Mount(folder) => format!("mount {}\n", folder.display()),
            Duty::Namespace(name) => format!("namespace {name}\n"),
            Duty::Bridge(name, hardware) => format!("bridge {name} {hardware}\n"),
            Duty::Link(name) => format!("link {name}\n"),
            Duty::ControlGroup(folder) => format!("group {}\n", folder.display()),
            Duty::Containers(folder) => format!("containers {}\n", folder.display()),
            Duty::Folder(folder) => format!("folder {}\n", folder.display()),
        };
        if let Some(ledger) = std::env::var_os(LEDGER) {
            // A line is one write, so that those of several processes do not mix.
            let written = File::options().append(true).open(&ledger).and_then(|mut file| file.write_all(line.as_bytes()));
            written.map_err(BenchError::file("write to", ledger))?;
        }
        let mut duties = self.duties.lock().expect("no holder panics");
        duties
            .as_mut()
            .ok_or(std::io::ErrorKind::BrokenPipe.into())
            .and_then(|pipe| pipe.write_all(line.as_bytes()))
            .map_err(BenchError::file("write to", "the pipe of the guardian"))
    }

    /// Starts a process that the guardian ends. The process reports itself before it becomes `command`, so that there is
    /// no moment in which it runs and the guardian does not know, and goes into these control `groups`. Stdin is empty, all output is appended to `log`.
    pub(crate) fn spawn(&self, ending: Ending, command: &Command, groups: &[PathBuf], log: &Path) -> Result<Child, BenchError> {
        let pipe: OwnedFd = {
            let duties = self.duties.lock().expect("no holder panics");
            duties
                .as_ref()
                .ok_or(std::io::ErrorKind::BrokenPipe.into())
                .and_then(|pipe| pipe.as_fd().try_clone_to_owned())
                .map_err(BenchError::file("share", "the pipe of the guardian"))?
        };
        let output = File::options().create(true).append(true).open(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (stdout, stderr) = output.map_err(BenchError::file("open", log))?;
        let kind = match ending {
            Ending::Orderly => "orderly",
            Ending::Tree => "tree",
        };
        let mut reporting = Command::new("sh");
        reporting
            .args(["-c", JOIN_AND_BECOME, kind])
            .args(groups)
            .arg("--")
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(pipe)
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => reporting.env(name, value),
                None => reporting.env_remove(name),
            };
        }
        reporting.spawn().map_err(|source| not_started(&reporting, source))
    }

    /// Tidies everything away and waits for it. What is left is the answer: an empty text is good.
    pub(crate) fn tidy(&self) -> String {
        drop(self.duties.lock().expect("no holder panics").take());
        let mut child = self.child.lock().expect("no holder panics");
        let Some(status) = reap(&mut child, TIDY_DEADLINE) else {
            return format!("the guardian (process {}) did not finish", child.id());
        };
        if status.success() {
            return String::new();
        }
        let mut said = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            let _ = stdout.read_to_string(&mut said);
        }
        format!("the guardian ended with {status}: {said}")
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // Whoever owns it has tidied up already and looked at the answer; this is for ways out by an error.
        if self.duties.lock().is_ok_and(|duties| duties.is_some()) {
            let _ = self.tidy();
        }
    }
}
