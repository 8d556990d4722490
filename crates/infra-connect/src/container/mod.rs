//! Containers of the user's own docker or podman: `docker exec` as a child, in a container that runs already or that is started from an image.
//!
//! Nothing of the user's is ever stopped or removed. A container that was started for the run goes with it, on every way out: its first process reads
//! from a pipe of ours, and ends when that does.

mod client;
mod options;
mod started;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::client::{Client, Found, Said};
use self::options::Options;
use self::started::Started;
use crate::child::{self, Piped};
use crate::reached::Reached;
use crate::settings::Settings;
use crate::spawn::{BOOT, Process, Spawn, SpawnError};

/// How long a client may go on when nobody listens to it any more.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the client may take to let a container go on by itself.
const KEEP: Duration = Duration::from_secs(30);
/// How long making an image of a container may take.
const COMMIT: Duration = Duration::from_secs(600);

/// Reaches containers.
pub(crate) struct Containers {
    settings: Arc<Settings>,
    /// Starting many at once makes none of them come up sooner.
    handshakes: Semaphore,
}

impl Containers {
    /// Nothing is started yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self { handshakes: Semaphore::new(settings.handshakes.max(1)), settings }
    }

    /// Reaches a container, or one that is started from an image.
    pub(crate) async fn connect(&self, program: &'static str, host: &Host) -> Result<Reached, ConnectError> {
        let client = Client { program };
        let options = Options::of(program, host).map_err(|(message, hint)| failed(ConnectStep::Settings, message, hint))?;
        let _handshake = self.handshakes.acquire().await.expect("nobody closes it");
        let deadline = Instant::now() + self.settings.connect_deadline;
        let mut doing = Doing::Looking;
        let found = tokio::time::timeout_at(deadline, find(client, host, &options, &mut doing)).await;
        let found = found.map_err(|_| self.late(client, host, doing))??;
        let container = match found {
            Place::Running => Container::new(client, host.address.clone(), None, options.commit),
            Place::Image(image, own_command) => {
                let started = Started::start(client, image, &options, own_command, deadline).await;
                let started = started.map_err(|error| error.unwrap_or_else(|| self.late(client, host, Doing::Starting)))?;
                Container::new(client, started.name.clone(), Some((started, options.keep)), options.commit)
            }
        };
        let container = Arc::new(container);
        let met = match container.exec() {
            Ok(first) => tokio::time::timeout_at(deadline, Reached::meet(self.settings.clone(), container.clone(), first)).await,
            Err(error) => Ok(Err(error.to_string())),
        };
        let error = match met {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(said)) if client::no_program(&said) => {
                let hint = "a host needs sh and coreutils or busybox".to_owned();
                failed(ConnectStep::Shell, format!("there is no sh in the container {}", container.name), Some(hint))
            }
            Ok(Err(said)) => failed(ConnectStep::Shell, said, None),
            Err(_) => self.late(client, host, Doing::Meeting),
        };
        container.close().await;
        Err(error)
    }

    fn late(&self, client: Client, host: &Host, doing: Doing) -> ConnectError {
        let (program, seconds) = (client.program, self.settings.connect_deadline.as_secs_f64());
        let image = host.text(&format!("{program}_image")).unwrap_or(&host.address);
        let (step, what, hint) = match doing {
            Doing::Looking => (ConnectStep::Connect, format!("{program} did not answer"), Some(format!("does `{program} ps` answer?"))),
            Doing::Pulling => {
                let hint = format!("get it beforehand: {program} pull {}", infra_core::command::quote(image));
                (ConnectStep::Resolve, format!("the image {image} could not be pulled"), Some(hint))
            }
            Doing::Starting => (ConnectStep::Connect, format!("no container of the image {image} came up"), None),
            Doing::Meeting => (ConnectStep::Shell, "sh in the container did not answer".to_owned(), None),
        };
        failed(step, format!("{what} within {seconds} s"), hint)
    }
}

/// Where a host is.
enum Place<'h> {
    /// In a container of the user's.
    Running,
    /// In a container of this image, which runs this by itself; it is still to be started.
    Image(&'h str, [String; 2]),
}

/// Finds out what a host's address names. An image is there after that.
async fn find<'h>(client: Client, host: &'h Host, options: &'h Options, doing: &mut Doing) -> Result<Place<'h>, ConnectError> {
    let program = client.program;
    let name = &host.address;
    let asked = |said: &Said| {
        let message = format!("{program} cannot say what {name} is: {}", said.last());
        client.trouble(said).unwrap_or_else(|| failed(ConnectStep::Connect, message, None))
    };
    if options.image.is_none() {
        match client.find(name).await.map_err(|said| asked(&said))? {
            Found::Running => return Ok(Place::Running),
            Found::Idle(state) => {
                let message = format!("the container {name} does not run ({state})");
                let verb = if state == "paused" { "unpause" } else { "start" };
                return Err(failed(ConnectStep::Connect, message, Some(format!("start it: {program} {verb} {name}"))));
            }
            Found::Nothing => {}
        }
    }
    if let Some(keep) = &options.keep
        && client.find(keep).await.map_err(|said| asked(&said))? != Found::Nothing
    {
        let hint = format!("go on with it as @{program}/{keep}, choose another name for {program}_keep, or remove it: {program} rm {keep}");
        return Err(failed(ConnectStep::Settings, format!("there is a container called {keep} already"), Some(hint)));
    }
    let image = options.image.as_ref().unwrap_or(name);
    let own_command = match look(client, image).await {
        Ok(own) => own,
        Err(said) if said.no_such() => {
            *doing = Doing::Pulling;
            let mut words = vec!["pull"];
            words.extend(options.platform.iter().flat_map(|platform| ["--platform", platform]));
            words.push(image);
            client.ask(words).await.map_err(|said| no_image(client, name, image, &said))?;
            look(client, image).await.map_err(|said| asked(&said))?
        }
        Err(said) => return Err(asked(&said)),
    };
    Ok(Place::Image(image, own_command))
}

/// How far connecting has come.
#[derive(Clone, Copy)]
enum Doing {
    Looking,
    Pulling,
    Starting,
    Meeting,
}

fn failed(step: ConnectStep, message: impl Into<String>, hint: Option<String>) -> ConnectError {
    ConnectError { step, message: message.into(), hint }
}

/// What an image runs by itself: its entrypoint and its command, as JSON. An image that is made of a container keeps them.
async fn look(client: Client, image: &str) -> Result<[String; 2], Said> {
    let text = client.ask(["image", "inspect", "--format", "{{json .Config.Entrypoint}}\n{{json .Config.Cmd}}", image]).await?;
    let mut lines = text.lines().map(|line| if line == "null" { "[]" } else { line }.to_owned());
    Ok([lines.next().unwrap_or_else(|| "[]".to_owned()), lines.next().unwrap_or_else(|| "[]".to_owned())])
}

fn no_image(client: Client, name: &str, image: &str, said: &Said) -> ConnectError {
    let program = client.program;
    let what = if name == image {
        format!("there is no container {name}, and no image of that name")
    } else {
        format!("there is no image {image}")
    };
    let message = format!("{what} that could be pulled: {}", said.last());
    failed(ConnectStep::Resolve, message, Some(format!("`{program} ps` and `{program} images` say which there are")))
}

/// A container that runs. It is the user's, or was started for the run.
struct Container {
    client: Client,
    name: String,
    /// The container where it is ours, and the name under which it is to be kept.
    started: Option<(Started, Option<String>)>,
    commit: Option<String>,
    /// Each waits for one client.
    clients: Mutex<JoinSet<()>>,
}

impl Container {
    fn new(client: Client, name: String, started: Option<(Started, Option<String>)>, commit: Option<String>) -> Self {
        Self { client, name, started, commit, clients: Mutex::default() }
    }

    fn exec(&self) -> Result<Process, SpawnError> {
        let program = self.client.program;
        let command = self.client.command(["exec", "--interactive", &self.name, "sh", "-c", BOOT]);
        let started = child::start(command).map_err(|error| SpawnError::Refused(format!("{program} cannot be started: {error}")))?;
        let Piped { mut child, stdin, stdout, stderr } = started;
        let (mut told, ended) = oneshot::channel();
        let mut clients = self.clients.lock().expect("nothing panics while it holds this lock");
        while clients.try_join_next().is_some() {}
        clients.spawn(async move {
            // A client ends with its command. Where something that the command left behind holds the outputs open, the client would wait for that,
            // and nobody waits for the client any more.
            let status = tokio::select! {
                status = child.wait() => status,
                () = told.closed() => match tokio::time::timeout(PATIENCE, child.wait()).await {
                    Ok(status) => status,
                    Err(_) => child.kill().await.and(child.wait().await),
                },
            };
            let _ = told.send(status.map_or_else(|error| error.to_string(), |status| status.to_string()));
        });
        let (client, name) = (self.client, self.name.clone());
        Ok(Process {
            stdin: Box::pin(stdin),
            stdout: Box::pin(stdout),
            stderr: Box::pin(stderr),
            ends: true,
            ended: Box::pin(async move {
                let status = ended.await.unwrap_or_else(|_| "it is gone".to_owned());
                match client.find(&name).await {
                    Ok(Found::Nothing) => format!("the container {name} is gone"),
                    Ok(Found::Idle(state)) => format!("the container {name} does not run any more ({state})"),
                    Ok(Found::Running) | Err(_) => format!("{} exec ended without a receipt ({status})", client.program),
                }
            }),
        })
    }

    /// Makes an image of the container. What was started for the run runs what we gave it; its image runs what the one it came from does.
    async fn make_image(&self, image: &str) -> Result<String, String> {
        let own: Vec<String> = self
            .started
            .iter()
            .flat_map(|(started, _)| started.own_command.iter().zip(["ENTRYPOINT", "CMD"]))
            .flat_map(|(words, what)| ["--change".to_owned(), format!("{what} {words}")])
            .collect();
        let words = ["commit"].into_iter().chain(own.iter().map(String::as_str)).chain([self.name.as_str(), image]);
        match tokio::time::timeout(COMMIT, self.client.ask(words)).await {
            Ok(Ok(_)) => Ok(format!("the container is the image {image} now")),
            Ok(Err(said)) => Err(format!("no image {image} could be made of the container: {}", said.last())),
            Err(_) => Err(format!("no image {image} could be made of the container within {} s", COMMIT.as_secs())),
        }
    }

    async fn keep_all(&self, ok: bool) -> Result<Vec<String>, String> {
        let mut kept = Vec::new();
        let mut wrong = Vec::new();
        match &self.commit {
            Some(image) if ok => match self.make_image(image).await {
                Ok(made) => kept.push(made),
                Err(reason) => wrong.push(reason),
            },
            Some(image) => kept.push(format!("no image {image} is made of the container, as not all went well")),
            None => {}
        }
        if let Some((started, Some(name))) = &self.started {
            let program = self.client.program;
            match tokio::time::timeout(KEEP, started.keep(name)).await {
                Ok(Ok(())) => kept.push(format!(
                    "the container is kept as {name}: @{program}/{name} goes on with it, `{program} rm -f {name}` removes it"
                )),
                Ok(Err(said)) => wrong.push(format!("the container {} could not be kept as {name}: {}", started.name, said.last())),
                Err(_) => wrong.push(format!("the container {} could not be kept as {name} within {} s", started.name, KEEP.as_secs())),
            }
        }
        if wrong.is_empty() { Ok(kept) } else { Err(wrong.into_iter().chain(kept).collect::<Vec<_>>().join("; ")) }
    }

    async fn end(&self) {
        let mut clients = std::mem::take(&mut *self.clients.lock().expect("nothing panics while it holds this lock"));
        if let Some((started, _)) = &self.started {
            started.remove().await;
        }
        // Their commands have ended, or lost who listened to them.
        let all = async { while clients.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(2 * PATIENCE, all).await;
    }
}

impl Spawn for Container {
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>> {
        Box::pin(async { self.exec() })
    }

    fn sessions(&self) -> usize {
        8
    }

    fn address(&self) -> String {
        self.name.clone()
    }

    fn keep(&self, ok: bool) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(self.keep_all(ok))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use infra_core::host::{Connector, HostId};

    use super::*;

    /// Connects with a client that does what this script says, and gives the error and how often the client was called for what.
    async fn fails(script: &str) -> (ConnectError, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let calls = folder.path().join("calls");
        let file = folder.path().join("docker");
        std::fs::write(&file, format!("#!/bin/sh\necho \"$1 $2\" >>{}\n{script}\n", calls.display())).expect("a script");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let program: &'static str = file.display().to_string().leak();
        let mut settings = Settings::new("/nonexistent/never-used");
        settings.connect_deadline = Duration::from_secs(2);
        let host = Host::new(HostId(0), "@docker/app", Connector::Docker, "app");
        let Err(error) = Containers::new(Arc::new(settings)).connect(program, &host).await else { panic!("it is reached") };
        let calls = std::fs::read_to_string(&calls).expect("calls").lines().map(str::to_owned).collect();
        (error, calls)
    }

    #[tokio::test]
    async fn what_takes_too_long_is_named_with_its_step() {
        let no_container = "case \"$1 $2\" in 'container inspect') echo 'Error: No such container: app' >&2; exit 1;; esac";
        let no_image = "case \"$1 $2\" in 'image inspect') echo 'Error: No such image: app' >&2; exit 1;; esac";
        let an_image = "case \"$1 $2\" in 'image inspect') echo null; echo null; exit 0;; esac";
        let a_container = "case \"$1 $2\" in 'container inspect') echo 0123 running /app; exit 0;; esac";
        let hangs = "[ \"$1\" != rm ] || exit 0; exec sleep 1000";
        let mut at_once = JoinSet::new();
        for (script, step, wanted, last) in [
            (vec![hangs], ConnectStep::Connect, "did not answer within 2 s", "container inspect"),
            (vec![no_container, no_image, hangs], ConnectStep::Resolve, "the image app could not be pulled within 2 s", "pull app"),
            (vec![no_container, an_image, hangs], ConnectStep::Connect, "no container of the image app came up within 2 s", "rm --force"),
            (vec![a_container, hangs], ConnectStep::Shell, "sh in the container did not answer within 2 s", "exec --interactive"),
        ] {
            at_once.spawn(async move {
                let (error, calls) = fails(&script.join("\n")).await;
                assert_eq!(error.step, step, "{error}");
                assert!(error.message.contains(wanted), "{error}");
                assert_eq!(calls.last().map(String::as_str), Some(last), "{calls:?}");
            });
        }
        while let Some(checked) = at_once.join_next().await {
            checked.expect("it holds");
        }
    }
}
