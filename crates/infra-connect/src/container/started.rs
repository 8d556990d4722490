//! A container that was started from an image for one run.

use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::time::Instant;

use super::client::{Client, Said};
use super::options::Options;
use crate::child::{self, Piped};

/// The first process of a container. It ends when its input does, so when we die, however that comes; unless it was told by USR1 that it is to be kept. The
/// shell waits all the while, so that it is there to take the exit status of processes that nobody else waits for.
const FIRST: &str = "exec 3<&0; trap 'exit 0' TERM INT; infra_k=; trap 'infra_k=1' USR1; echo ready; cat <&3 >/dev/null & wait $!; \
    while [ \"$infra_k\" ]; do sleep 3600 & wait $!; done";

/// How long a container may take to end when its first process has been told to.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long the client may take to remove one by force.
const REMOVAL: Duration = Duration::from_secs(10);

/// A container of ours. Dropping one ends it.
pub(crate) struct Started {
    client: Client,
    /// A name that nobody else has given.
    pub(crate) name: String,
    /// The client that is attached to it.
    attached: tokio::sync::Mutex<Option<Child>>,
    /// As long as this is open the container goes on.
    input: Mutex<Option<ChildStdin>>,
    /// Whether it has to be removed: where it may be kept, it does not go by itself when it ends.
    left: AtomicBool,
    /// What the image runs by itself, for an image that is made of the container.
    pub(crate) own_command: [String; 2],
}

impl Started {
    /// Starts a container from an image.
    ///
    /// # Errors
    /// In words for a person; none where the deadline has passed, and then nothing is left of it.
    pub(crate) async fn start(
        client: Client,
        image: &str,
        options: &Options,
        own_command: [String; 2],
        deadline: Instant,
    ) -> Result<Self, Option<ConnectError>> {
        let name = format!("infra-{:016x}", rand::random::<u64>());
        let mut words = vec!["run", "--interactive", "--name", name.as_str(), "--entrypoint", "sh"];
        if options.keep.is_none() {
            words.push("--rm");
        }
        if let Some(platform) = &options.platform {
            words.extend(["--platform", platform]);
        }
        words.extend([image, "-c", FIRST]);
        let not_started = |error| Some(explain(client, image, &Said::NotStarted(error)));
        let Piped { child, stdin, stdout, mut stderr } = child::start(client.command(words)).map_err(not_started)?;
        let started = Self {
            client,
            name,
            attached: tokio::sync::Mutex::new(Some(child)),
            input: Mutex::new(Some(stdin)),
            left: AtomicBool::new(options.keep.is_some()),
            own_command,
        };
        let mut stdout = BufReader::new(stdout);
        let mut first = String::new();
        // Who drops this while it waits drops the input: a container that comes up after that ends at once.
        let Ok(read) = tokio::time::timeout_at(deadline, stdout.read_line(&mut first)).await else {
            started.remove().await;
            return Err(None);
        };
        if read.is_ok_and(|read| read > 0) {
            // It says no more; should it, nobody has to wait for us.
            tokio::spawn(async move {
                let mut nowhere = [tokio::io::sink(), tokio::io::sink()];
                let [one, two] = &mut nowhere;
                let _ = tokio::join!(tokio::io::copy(&mut stdout, one), tokio::io::copy(&mut stderr, two));
            });
            return Ok(started);
        }
        let mut words = Vec::new();
        let _ = (&mut stderr).take(64 * 1024).read_to_end(&mut words).await;
        let ended = match started.attached.lock().await.as_mut() {
            Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
            None => String::new(),
        };
        Err(Some(explain(client, image, &Said::of(&words, &ended))))
    }

    /// Lets it go on by itself, under this name.
    ///
    /// # Errors
    /// What the client said instead.
    pub(crate) async fn keep(&self, name: &str) -> Result<(), Said> {
        self.client.ask(["kill", "--signal", "USR1", &self.name]).await?;
        self.left.store(false, Ordering::Release);
        if let Some(mut child) = self.attached.lock().await.take() {
            // Killed, it can pass on neither a signal nor the end of the input.
            let _ = child.kill().await;
        }
        self.client.ask(["rename", &self.name, name]).await.map(|_| ())
    }

    /// Ends and removes it.
    pub(crate) async fn remove(&self) {
        *self.input.lock().expect("nothing panics while it holds this lock") = None;
        let Some(mut child) = self.attached.lock().await.take() else { return };
        let gone = tokio::time::timeout(PATIENCE, child.wait()).await.is_ok_and(|ended| ended.is_ok());
        if !gone || self.left.swap(false, Ordering::AcqRel) {
            // By force, and with the volumes that were made for it alone.
            let _ = tokio::time::timeout(REMOVAL, self.client.ask(["rm", "--force", "--volumes", &self.name])).await;
        }
        if !gone {
            let _ = child.kill().await;
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if *self.left.get_mut() {
            // First who may still be making it.
            if let Some(child) = self.attached.get_mut() {
                let _ = child.start_kill();
            }
            let mut command = self.client.command(["rm", "--force", "--volumes", self.name.as_str()]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            child::own_session(&mut command);
            // Nobody is left to wait for it, or to be told.
            let _ = command.spawn();
        }
    }
}

/// Why no container was started from an image.
fn explain(client: Client, image: &str, said: &Said) -> ConnectError {
    if let Some(error) = client.trouble(said) {
        return error;
    }
    let program = client.program;
    let last = said.last();
    if said.no_program() {
        return ConnectError {
            step: ConnectStep::Shell,
            message: format!("the image {image} has no sh"),
            hint: Some("a host needs sh and coreutils or busybox; images made from scratch have neither".to_owned()),
        };
    }
    ConnectError {
        step: ConnectStep::Connect,
        message: format!("{program} could not start a container from the image {image}: {last}"),
        hint: Some(format!("`{program} run --rm --entrypoint sh {} -c true` must work first", infra_core::command::quote(image))),
    }
}
