//! Processes as `/proc` shows them (proc(5)), and programs run with a deadline.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::error::BenchError;

/// How long to wait between two looks at something that gives no notice of its own.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a program ended and what it said, invalid UTF-8 replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All it wrote to stdout.
    pub stdout: String,
    /// All it wrote to stderr.
    pub stderr: String,
}

impl Outcome {
    /// Whether it exited with code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// One process, as it was when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's id.
    pub parent: i32,
    /// When it started, in clock ticks since boot: with the id it names a process for good.
    pub started: u64,
    /// `R`, `S`, `D`, `Z`, …
    pub state: char,
    /// Its argument list joined with spaces; in brackets the short name where there is none.
    pub command: String,
}

impl Process {
    /// The process `pid`, or `None` where there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Process> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The short name stands in parentheses and may itself hold spaces and parentheses.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let arguments: Vec<_> = arguments.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            state: fields.first()?.chars().next()?,
            command: if arguments.is_empty() { format!("[{name}]") } else { arguments.join(" ") },
        })
    }

    /// Whether this very process still runs: a zombie does not, nor does another one that got its id.
    #[must_use]
    pub fn is_running(&self) -> bool {
        Process::of(self.pid).is_some_and(|now| now.started == self.started && !matches!(now.state, 'Z' | 'X'))
    }

    /// Whether a path or any other text stands in its arguments or its environment. The environment of other people's
    /// processes can only be read by root.
    #[must_use]
    pub fn mentions(&self, text: &OsStr) -> bool {
        let needle = text.as_bytes();
        ["cmdline", "environ"].iter().any(|file| {
            std::fs::read(format!("/proc/{}/{file}", self.pid))
                .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
        })
    }

    /// Sends it a signal. A process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }
}

/// All processes that can be seen, by id, without zombies.
#[must_use]
pub fn all() -> Vec<Process> {
    let Ok(folder) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut processes: Vec<Process> = folder
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::of)
        .filter(|process| !matches!(process.state, 'Z' | 'X'))
        .collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

/// The children of `pid`, their children, and so on.
#[must_use]
pub fn descendants(pid: i32) -> Vec<Process> {
    let all = all();
    let mut family = BTreeSet::from([pid]);
    // A child may have a smaller id than its parent, so one pass is not enough.
    loop {
        let before = family.len();
        family.extend(all.iter().filter(|process| family.contains(&process.parent)).map(|process| process.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    all.into_iter().filter(|process| process.pid != pid && family.contains(&process.pid)).collect()
}

/// Asks `look` again and again until it gives a value; `None` where it gave none before the deadline.
pub fn wait_for<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Runs a program to its end with nothing on stdin, in a process group of its own, and kills that group at the deadline.
///
/// # Errors
/// When it cannot be started or does not end in time. An exit code other than 0 is not an error here.
pub fn run(command: &mut Command, deadline: Duration) -> Result<Outcome, BenchError> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|source| not_started(command, source))?;
    let stdout = Collected::from(child.stdout.take());
    let stderr = Collected::from(child.stderr.take());
    let Some(status) = reap(&mut child, deadline) else {
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = reap(&mut child, Duration::from_secs(5));
        return Err(BenchError::Deadline {
            what: format!("the end of {}", words(command)),
            after: deadline,
            detail: format!("{}{}", stdout.text(), stderr.text()),
        });
    };
    // Something it left behind may hold the pipes open for ever; what it said itself is in them already.
    wait_for(Duration::from_secs(1), || (stdout.is_complete() && stderr.is_complete()).then_some(()));
    Ok(Outcome { code: status.code(), stdout: stdout.text(), stderr: stderr.text() })
}

/// Like [`run`], but anything else than exit code 0 is an error with what the program said. Gives its stdout.
///
/// # Errors
/// As [`run`], and where it fails.
pub fn run_well(command: &mut Command, deadline: Duration) -> Result<String, BenchError> {
    let outcome = run(command, deadline)?;
    if outcome.success() {
        return Ok(outcome.stdout);
    }
    Err(BenchError::Program {
        command: words(command),
        status: outcome.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
        output: last_lines(&format!("{}{}", outcome.stdout, outcome.stderr), 20),
    })
}

/// Waits for a child of ours to end, and reaps it; `None` where it did not end in time.
pub(crate) fn reap(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    wait_for(deadline, || match child.try_wait() {
        Ok(status) => status,
        // Somebody else has reaped it: it has ended, how cannot be known.
        Err(_) => Some(ExitStatus::from_raw(0)),
    })
}

/// A program that cannot be started: missing, or another reason.
pub(crate) fn not_started(command: &Command, source: std::io::Error) -> BenchError {
    let program = command.get_program().to_string_lossy().into_owned();
    if source.kind() == std::io::ErrorKind::NotFound {
        BenchError::NoProgram { program }
    } else {
        BenchError::File { action: "start", path: program.into(), source }
    }
}

/// A program by its name, also where the folders of the administrator's programs are not in `PATH`.
///
/// # Errors
/// When it is in none of them.
pub(crate) fn program(name: &str) -> Result<std::path::PathBuf, BenchError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into))
        .map(|folder| folder.join(name))
        .find(|file| file.is_absolute() && file.is_file())
        .ok_or_else(|| BenchError::NoProgram { program: name.to_owned() })
}

/// The last lines of a text, for a message.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// The last lines of a file, for a message; empty where it cannot be read.
pub(crate) fn last_lines_of(file: &Path, count: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    last_lines(&String::from_utf8_lossy(&bytes), count)
}

fn words(command: &Command) -> String {
    std::iter::once(command.get_program()).chain(command.get_args()).map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A stream that a thread reads to its end.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Collected {
    fn from(stream: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = stream.map(|mut stream| {
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => sink.lock().expect("no reader panics").extend_from_slice(&buffer[..count]),
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
            })
        });
        Self { bytes, reader }
    }

    fn is_complete(&self) -> bool {
        self.reader.as_ref().is_none_or(std::thread::JoinHandle::is_finished)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gives_its_code_and_both_streams() {
        let outcome = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10)).unwrap();
        assert_eq!(outcome, Outcome { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() });
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let mark = format!("30{}", std::process::id());
        let script = format!("sleep {mark} & echo started; wait");
        let error = run(Command::new("sh").args(["-c", &script]), Duration::from_millis(300)).unwrap_err();
        assert!(matches!(&error, BenchError::Deadline { detail, .. } if detail == "started\n"), "{error}");
        let sleep = format!("sleep {mark}");
        let gone = wait_for(Duration::from_secs(5), || all().iter().all(|process| process.command != sleep).then_some(()));
        assert!(gone.is_some(), "the child of a killed program lives on");
    }

    #[test]
    fn a_missing_program_is_named_with_a_hint() {
        let error = run(&mut Command::new("no-such-program-anywhere"), Duration::from_secs(1)).unwrap_err();
        assert!(format!("{error:?}").contains("no-such-program-anywhere was not found\nhint: "));
    }

    #[test]
    fn descendants_are_found_through_their_parents() {
        let mut child = Command::new("sh").args(["-c", "sh -c 'sleep 60; :'; :"]).process_group(0).spawn().unwrap();
        let found = wait_for(Duration::from_secs(10), || {
            let family = descendants(child.id().cast_signed());
            family.iter().any(|process| process.command == "sleep 60").then_some(family)
        })
        .expect("the sleep shows up");
        assert_eq!(found.len(), 2, "{found:?}");
        killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(found.iter().all(|process| { wait_for(Duration::from_secs(5), || { (!process.is_running()).then_some(()) }).is_some() }));
    }
}
