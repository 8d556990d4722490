//! What the tests of the wire share.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_connect::reached::Reached;
use infra_connect::spawn::{BOOT, Process, Spawn, SpawnError};
use infra_connect::{Settings, Wire};
use infra_core::BoxFuture;
use infra_core::change::{Action, Content, Download, Replaces, ScriptRun, Upload};
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connect, Connection, Ending, OutputSink, Perform, Question};
use infra_core::global_arguments::Context;
use infra_core::host::{Connector, Host, HostId};
use infra_core::output::Stream;

/// What a command printed, as its sink saw it.
#[derive(Default)]
pub struct Heard {
    pub stdout: Mutex<Vec<u8>>,
    pub stderr: Mutex<Vec<u8>>,
}

impl Heard {
    pub fn sink(self: &Arc<Self>) -> OutputSink {
        let heard = self.clone();
        Arc::new(move |stream: Stream, bytes: &[u8]| {
            let stream = if stream == Stream::Stdout { &heard.stdout } else { &heard.stderr };
            stream.lock().unwrap().extend_from_slice(bytes);
        })
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }
}

/// This machine as if it were another one, which is told by how its `sh` is started.
pub trait MadeUp: Send + Sync + 'static {
    /// The program with all that stands before `-c`.
    fn shell(&self) -> tokio::process::Command;
}

/// The way to such a machine: a connector of the tests' own, which shows how small one is.
struct Door<M>(Arc<M>);

impl<M: MadeUp> Door<M> {
    fn start(&self) -> Process {
        let mut command = self.0.shell();
        command.args(["-c", BOOT]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Process {
            stdin: Box::pin(child.stdin.take().unwrap()),
            stdout: Box::pin(child.stdout.take().unwrap()),
            stderr: Box::pin(child.stderr.take().unwrap()),
            ends: true,
            ended: Box::pin(async move { format!("{:?}", child.wait().await) }),
        }
    }
}

impl<M: MadeUp> Spawn for Door<M> {
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>> {
        Box::pin(async { Ok(self.start()) })
    }

    fn address(&self) -> String {
        "127.0.0.1".to_owned()
    }

    fn sessions(&self) -> usize {
        8
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Connects to a made-up machine.
pub async fn meet(settings: Arc<Settings>, machine: &Arc<impl MadeUp>) -> Result<Reached, String> {
    let door = Door(machine.clone());
    let first = door.start();
    Reached::meet(settings, Arc::new(door), first).await
}

pub fn settings(folder: &Path) -> Settings {
    Settings::new(folder.join("run"))
}

pub fn local_host() -> Arc<Host> {
    Arc::new(Host::new(HostId(0), "@local", Connector::Local, ""))
}

pub async fn local() -> Arc<dyn Connection> {
    local_with(Settings::new("/nonexistent/never-used")).await
}

pub async fn local_with(settings: Settings) -> Arc<dyn Connection> {
    Wire::new(settings).connect(&local_host()).await.expect("this machine has sh")
}

pub fn run(script: &str) -> Action {
    Action::Run(Command::new(Shell::verbatim(script)))
}

pub fn run_with(script: &str, stdin: impl Into<Vec<u8>>) -> Action {
    Action::Run(Command::new(Shell::verbatim(script)).with_stdin(stdin))
}

pub fn upload(content: impl Into<Vec<u8>>, dest: &Path) -> Upload {
    Upload {
        content: Content::Bytes(Arc::new(content.into())),
        dest: dest.to_str().unwrap().to_owned(),
        mode: None,
        user: None,
        group: None,
        replaces: Replaces::Anything,
    }
}

/// The download of a file that holds this.
pub fn download(src: &Path, content: impl AsRef<[u8]>, dest: &Path) -> Download {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let sha256 = infra_core::digest::sha256(content.as_ref());
    Download { src: text(src), dest: text(dest), size: None, sha256, create_dir: false }
}

pub fn script(text: &str, args: &[&str]) -> Action {
    Action::Script(ScriptRun { content: Content::text(text), args: args.iter().map(|&arg| arg.to_owned()).collect() })
}

pub fn environment(variables: &[(&str, &str)]) -> Context {
    let env: BTreeMap<String, String> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Context { env, ..Context::default() }
}

pub fn question(script: &str) -> Question {
    Question { command: Command::new(Shell::verbatim(script)), context: Context::default() }
}

/// Does a step and gives its ending and all that was printed.
pub async fn perform_in(
    connection: &Arc<dyn Connection>,
    action: &Action,
    context: &Context,
    timeout: Option<Duration>,
) -> (Ending, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let ending = connection.perform(Perform { action, context, timeout, as_of: Some(0) }, heard.sink()).await;
    (ending, heard)
}

pub async fn perform(connection: &Arc<dyn Connection>, action: &Action) -> (Ending, Arc<Heard>) {
    perform_in(connection, action, &Context::default(), None).await
}

/// Waits until something holds; fails the test after ten seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is there and no zombie.
pub fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X'])))
}
