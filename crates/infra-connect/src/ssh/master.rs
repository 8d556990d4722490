//! One `ssh -M`: a connection.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use openssh::Session;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::folder::{Folder, Place};
use super::options::{Client, Options};
use super::questions::Questions;
use super::{Files, failed, log};
use crate::settings::Settings;
use crate::spawn::{BOOT, Process, SpawnError};

/// How many sessions are asked of a host at once, the first one included: sshd allows ten where it is not told otherwise.
pub(super) const SESSIONS: usize = 8;
/// When the log is cut: long before it fills the memory that the runtime folder is made of.
const LONGEST_LOG: u64 = 256 * 1024;
/// How long a master may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running master. Dropping it kills it.
pub(crate) struct Master {
    /// For a master that is kept: the ssh that brought it up and has its first session, where this process did.
    child: tokio::sync::Mutex<Option<Child>>,
    group: Option<Pid>,
    /// It stays when this process ends.
    kept: bool,
    /// As long as this is open the master's first session reads on, and with it the master lives.
    first_input: Mutex<Option<ChildStdin>>,
    session: Arc<Session>,
    place: Place,
    /// One more of these for each session besides the first.
    sessions: Arc<()>,
    /// What ssh and its proxy commands say past the log.
    stderr: Said,
    pumps: Vec<JoinHandle<()>>,
    _files: Files,
    _folder: Arc<Folder>,
}

/// What a master is started with.
pub(crate) struct Start<'s> {
    pub(crate) client: &'s Client,
    pub(crate) options: &'s Options,
    pub(crate) settings: &'s Settings,
    pub(crate) folder: Arc<Folder>,
    pub(crate) place: Place,
    pub(crate) files: Files,
    /// Who answers what ssh asks; where nobody does, it asks nothing.
    pub(crate) questions: Option<&'s Questions>,
    /// Whether it stays when this process ends.
    pub(crate) kept: bool,
}

impl Master {
    /// Starts a master, whose first session is a shell of ours.
    pub(crate) fn start(start: Start<'_>) -> Result<(Self, Process), ConnectError> {
        let Start { client, options, settings, folder, place, files, questions, kept } = start;
        let mut command = Command::new("ssh");
        command.arg("-M").arg("-S").arg(&place.socket).arg("-E").arg(&place.log);
        match questions {
            Some(questions) => {
                command.args(questions.arguments()).envs(questions.environment());
                if !client.is_forced_to_ask() {
                    // Without a screen these ask nobody.
                    command.env("DISPLAY", ":0");
                }
            }
            None => {
                command.args(options.questions(false, false)).env("SSH_ASKPASS_REQUIRE", "never");
            }
        }
        command.args(["-o", &options.persistence(kept)]);
        command.args(options.arguments(client, Some(settings)));
        command.arg("--").arg(&options.address).arg(if kept { remote_command() } else { first_command() });
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        crate::child::own_session(&mut command);
        let error = |error: std::io::Error| failed(ConnectStep::Settings, format!("ssh cannot be started: {error}"), None);
        let mut child = command.spawn().map_err(error)?;
        let piped = "all three were asked for as pipes";
        let process = child.id().expect("it was not waited for");
        if let Some(questions) = questions {
            questions.asked_by(process);
        }
        let group = Pid::from_raw(process.cast_signed());
        let stdin = child.stdin.take().expect(piped).into_owned_fd().map_err(error)?;
        let second = stdin.try_clone().map_err(error)?;
        let input = |fd| ChildStdin::from_std(std::process::ChildStdin::from(fd));
        let (sender, stderr) = watch::channel(Vec::new());
        let (stdout, first_stdout) = tokio::io::duplex(PIPE);
        let (said, first_stderr) = tokio::io::duplex(PIPE);
        let pumps = vec![
            tokio::spawn(pump(child.stdout.take().expect(piped), stdout, None)),
            tokio::spawn(pump(child.stderr.take().expect(piped), said, Some(sender))),
        ];
        let (log, words) = (place.log.clone(), Said(stderr.clone()));
        let master = Self {
            child: tokio::sync::Mutex::new(Some(child)),
            group: Some(group),
            kept,
            // A kept one needs no session to live.
            first_input: Mutex::new(if kept { None } else { Some(input(second).map_err(error)?) }),
            session: Arc::new(Session::resume_mux(place.socket.clone().into_boxed_path(), None)),
            place,
            sessions: Arc::new(()),
            stderr: Said(stderr),
            pumps,
            _files: files,
            _folder: folder,
        };
        let first = Process {
            stdin: Box::pin(input(stdin).map_err(error)?),
            stdout: Box::pin(first_stdout),
            stderr: Box::pin(first_stderr),
            // Where it is the master's own, its input is held open, and its outputs are read on: ssh must not see them close while it has other
            // sessions.
            ends: kept,
            ended: Box::pin(async move {
                let said = words.at_end().await;
                last_words(&read_log(&log), &said).unwrap_or_else(|| "the shell on the host ended".to_owned())
            }),
        };
        Ok((master, first))
    }

    /// A master that an earlier run has kept.
    pub(crate) fn join(place: Place, files: Files, folder: Arc<Folder>) -> Self {
        let (_, stderr) = watch::channel(Vec::new());
        Self {
            child: tokio::sync::Mutex::new(None),
            group: None,
            kept: true,
            first_input: Mutex::new(None),
            session: Arc::new(Session::resume_mux(place.socket.clone().into_boxed_path(), None)),
            place,
            sessions: Arc::new(()),
            stderr: Said(stderr),
            pumps: Vec::new(),
            _files: files,
            _folder: folder,
        }
    }

    /// Makes sure that the socket answers: resuming checks nothing.
    pub(crate) async fn check(&self) -> Result<(), String> {
        self.session.check().await.map_err(|error| format!("the socket of ssh's master does not answer: {}", chain(&error)))
    }

    /// What the log says by now.
    pub(crate) fn log(&self) -> String {
        read_log(&self.place.log)
    }

    /// Ends the master. Gives the last of what it and its children said past the log.
    pub(crate) async fn end(&self) -> String {
        *self.first_input.lock().expect("nothing panics while it holds this lock") = None;
        if let Some(mut child) = self.child.lock().await.take() {
            // The log is whole once the process is gone; it may be gone already, and then its group may be, too.
            if child.try_wait().ok().flatten().is_none()
                && let Some(group) = self.group
            {
                let _ = killpg(group, Signal::SIGTERM);
                if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                    let _ = killpg(group, Signal::SIGKILL);
                    let _ = child.wait().await;
                }
            }
        }
        self.stderr.at_end().await
    }

    /// Ends the master and removes what it left on this machine; one that is kept is left to others.
    pub(crate) async fn close(&self) {
        self.end().await;
        if !self.kept {
            self.place.clear();
        }
    }

    /// How many sessions it has besides the first.
    pub(crate) fn open_sessions(&self) -> usize {
        Arc::strong_count(&self.sessions) - 1
    }

    /// Counts one more session, as long as the value lives.
    pub(crate) fn count_session(&self) -> Arc<()> {
        self.sessions.clone()
    }

    /// Opens a session.
    pub(crate) async fn open(&self, counted: Arc<()>) -> Result<Process, SpawnError> {
        if std::fs::metadata(&self.place.log).is_ok_and(|log| log.len() > LONGEST_LOG) {
            // ssh appends, so it goes on at the new end.
            let _ = std::fs::OpenOptions::new().write(true).open(&self.place.log).and_then(|log| log.set_len(0));
        }
        let mut command = self.session.clone().arc_raw_command(remote_command());
        command.stdin(openssh::Stdio::piped()).stdout(openssh::Stdio::piped()).stderr(openssh::Stdio::piped());
        match command.spawn().await {
            Ok(mut child) => {
                let piped = "all three were asked for as pipes";
                let stdin = child.stdin().take().expect(piped);
                let stdout = child.stdout().take().expect(piped);
                let stderr = child.stderr().take().expect(piped);
                let (log, words, session) = (self.place.log.clone(), self.stderr.clone(), self.session.clone());
                Ok(Process {
                    stdin: Box::pin(stdin),
                    stdout: Box::pin(stdout),
                    stderr: Box::pin(stderr),
                    ends: true,
                    ended: Box::pin(async move {
                        let _counted = counted;
                        // The child is the channel: with it dropped, the outputs would end.
                        let _ = child.wait().await;
                        if session.check().await.is_ok() {
                            "the shell of the command ended without a receipt".to_owned()
                        } else {
                            last_words(&read_log(&log), &words.at_end().await).unwrap_or_else(|| "ssh ended".to_owned())
                        }
                    }),
                })
            }
            Err(error) => {
                let words = chain(&error);
                if out_of_files(&error) {
                    return Err(SpawnError::Refused(format!(
                        "this machine lets infra open no more files ({words}); `ulimit -n` says how many"
                    )));
                }
                let master_lives = tokio::time::timeout(PATIENCE, self.session.check()).await.is_ok_and(|checked| checked.is_ok());
                Err(if master_lives {
                    SpawnError::Refused(format!(
                        "the host opens no further session ({words}); `MaxSessions` in its sshd_config says how many there may be"
                    ))
                } else {
                    SpawnError::Lost(last_words(&self.log(), &self.stderr.at_end().await).unwrap_or(words))
                })
            }
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut()
            && child.try_wait().ok().flatten().is_none()
            && let Some(group) = self.group
        {
            let _ = killpg(group, Signal::SIGKILL);
        }
        self.pumps.iter().for_each(JoinHandle::abort);
        if !self.kept {
            self.place.clear();
        }
    }
}

/// What the user's login shell is given, whatever it is.
fn remote_command() -> String {
    format!("exec sh -c '{BOOT}'")
}

/// The same for the first session of a master that lives as long as that: when our shell there is killed, another one goes on to wait for the end of the input.
/// It has nothing to say of that (the subshell is for those that redirect a command's outputs in themselves), and lets go of the outputs, so that they are at
/// their end for who listens.
fn first_command() -> String {
    format!("exec sh -c 'exec 3>&2 2>/dev/null; (exec sh -c \"$0\" 2>&3 3>&-); exec cat >/dev/null 3>&-' '{BOOT}'")
}

fn read_log(path: &PathBuf) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// What ssh and its children say past the log: among it, why a connection that stood has ended.
#[derive(Clone)]
struct Said(watch::Receiver<Vec<u8>>);

impl Said {
    /// The last of it, once they have ended. A proxy command may live for longer than anybody wants to wait.
    async fn at_end(&self) -> String {
        let mut said = self.0.clone();
        let _ = tokio::time::timeout(Duration::from_millis(500), said.wait_for(|_| false)).await;
        String::from_utf8_lossy(&self.0.borrow()).into_owned()
    }
}

/// The last words of ssh, of its log since the connection stood, else of what it said past it.
fn last_words(log: &str, stderr: &str) -> Option<String> {
    let since = log.rsplit("debug1: Entering interactive session.").next().unwrap_or(log);
    log::last_words(since).or_else(|| log::last_words(stderr))
}

/// How much of an output of the first session may wait to be read.
const PIPE: usize = 64 * 1024;

/// Hands a stream on to its end, past the time when nobody wants it any more, and keeps the last of it where asked to.
async fn pump(mut stream: impl AsyncRead + Unpin, mut to: DuplexStream, kept: Option<watch::Sender<Vec<u8>>>) {
    let mut buffer = vec![0; 16 * 1024];
    let mut wanted = true;
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        if let Some(kept) = &kept {
            kept.send_modify(|kept| {
                kept.extend_from_slice(&buffer[..read]);
                let excess = kept.len().saturating_sub(8192);
                kept.drain(..excess);
            });
        }
        wanted = wanted && to.write_all(&buffer[..read]).await.is_ok();
    }
}

/// Whether an error is of this process, which has as many files open as it may.
fn out_of_files(error: &(dyn std::error::Error + 'static)) -> bool {
    let own = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    matches!(own, Some(nix::libc::EMFILE | nix::libc::ENFILE)) || error.source().is_some_and(out_of_files)
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
