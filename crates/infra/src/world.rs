//! The controller as Lua may use it: files, the environment, commands, the log.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::event::Event;
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::secret::Secrets;
use infra_lua::{LocalCommand, LocalOutput, Question, World};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::questions::{self, Asked, CLEAR, Echo, Gate};

/// This machine, seen from the working directory.
pub struct Controller {
    folder: PathBuf,
    log: OnceLock<Log>,
    secrets: Secrets,
    /// Where scripts ask.
    gate: Gate,
}

/// Where lines of the log go once a run has begun.
struct Log {
    events: mpsc::Sender<Event>,
    hosts: HashMap<String, HostId>,
}

impl Controller {
    /// The controller, working in this folder.
    pub fn new(folder: PathBuf, secrets: Secrets, gate: Gate) -> Self {
        Self { folder, log: OnceLock::new(), secrets, gate }
    }

    /// From now on lines of the log that belong to a host become events of the run.
    pub fn log_to(&self, events: mpsc::Sender<Event>, inventory: &Inventory) {
        let hosts = inventory.hosts.iter().map(|host| (host.name.clone(), host.id)).collect();
        // A controller serves one run, so this is the first call.
        let _ = self.log.set(Log { events, hosts });
    }
}

/// The processes of a local command. Dropped before it ended, they are killed.
struct Group(Option<u32>);

impl Group {
    /// The command ended by itself: what it left running was meant to go on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // The number is not given away as long as one of the group lives.
            let _ = killpg(Pid::from_raw(leader.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// How many bytes a command of the controller may print on each of its outputs.
const LIMIT: usize = 16 << 20;

/// How long a command of the controller may take: longer than any build that a deploy would wait for.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Reads to the end, which must come before `limit` bytes.
async fn read_up_to(limit: usize, output: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(output) = output else { return Ok(bytes) };
    output.take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("it printed more than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

impl World for Controller {
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<String>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn environment(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>> {
        Box::pin(async move {
            let (program, arguments) = command.argv.split_first().ok_or_else(|| io::Error::other("there is no program to run"))?;
            let mut asked = Command::new(program);
            asked
                .args(arguments)
                .current_dir(command.chdir.as_deref().unwrap_or(&self.folder))
                .envs(&command.env)
                .stdin(if command.stdin.is_some() { std::process::Stdio::piped() } else { std::process::Stdio::null() })
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .kill_on_drop(true);
            // A Ctrl-C is ours to deal with, and a program that wants to ask at the terminal fails where it would be stopped for good.
            infra_connect::child::own_session(&mut asked);
            let mut child = asked.spawn()?;
            let group = Group(child.id());
            let stdin = child.stdin.take();
            let write = async {
                if let (Some(mut stdin), Some(bytes)) = (stdin, &command.stdin) {
                    // A program that does not read all of it has its reasons.
                    let _ = stdin.write_all(bytes).await;
                }
                Ok(())
            };
            let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
            let all = async { tokio::try_join!(write, read_up_to(LIMIT, stdout), read_up_to(LIMIT, stderr), child.wait()) };
            let ((), stdout, stderr, status) = tokio::time::timeout(DEADLINE, all)
                .await
                .map_err(|_| io::Error::other(format!("it did not end within {} minutes", DEADLINE.as_secs() / 60)))??;
            group.ended();
            Ok(LocalOutput { status: status.code(), stdout, stderr })
        })
    }

    fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        Box::pin(async move {
            if !questions::somebody_is_there() {
                return Ok(None);
            }
            let text = infra_core::output::printable(&question.text);
            let asked = Asked {
                prompt: format!("{CLEAR}{}: ", text.trim_end_matches([':', ' '])),
                echo: if question.hidden { Echo::LineEnd } else { Echo::Shown },
                answered: "",
                unanswered: "\n",
            };
            let typed = self.gate.ask(questions::terminal()?, asked).await?;
            let typed = typed.ok_or_else(|| io::Error::other("the terminal was closed"))?;
            String::from_utf8(typed).map(Some).map_err(|_| io::Error::other("what was typed is not UTF-8"))
        })
    }

    fn log(&self, host: Option<&str>, text: &str) {
        let text = &*self.secrets.mask(text);
        let meant = self.log.get().zip(host).and_then(|(log, name)| Some((log, *log.hosts.get(name)?)));
        match meant {
            // Scripts run on threads of their own, which may wait for the screen.
            Some((log, host)) => {
                let _ = log.events.blocking_send(Event::Log { host, text: text.to_owned() });
            }
            None => {
                let _ = writeln!(io::stderr(), "{}", infra_core::output::printable(text));
            }
        }
    }

    fn working_directory(&self) -> PathBuf {
        self.folder.clone()
    }
}
