//! Hosts over the user's own OpenSSH.
//!
//! One `ssh -M` in the foreground per host is the connection. Its first session is a `sh` that reads until its input ends; the other end of that
//! input is held by this process, so the master ends when this process does, however it ends. All else goes through the master's socket. A host that
//! is to run more commands at once than one connection bears has more of them, each like the first.

mod folder;
mod log;
mod master;
mod masters;
mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use self::folder::Folder;
use self::master::Master;
use self::masters::Masters;
use self::options::{Client, Options};
use crate::reached::Reached;
use crate::settings::Settings;

/// What all hosts over ssh share.
pub(crate) struct Ssh {
    settings: Arc<Settings>,
    handshakes: Semaphore,
    folder: OnceCell<Arc<Folder>>,
    client: OnceCell<Client>,
    count: AtomicU64,
    /// How many hosts there are files for.
    room: Option<Arc<Semaphore>>,
}

/// The files that one host takes, kept for it.
pub(crate) type Files = Option<Arc<OwnedSemaphorePermit>>;

/// How many files a host may take: four for its master, and for a command, a question and a kill that are under way at once (measured: 5 for a host that
/// is idle, 12 while a command begins).
const FILES: u64 = 20;
/// How many files are kept for everything else.
const OTHER_FILES: u64 = 48;

fn room(open_files: u64) -> usize {
    // Above this there are more places than a controller has memory for masters.
    usize::try_from(open_files.saturating_sub(OTHER_FILES) / FILES).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

fn failed(step: ConnectStep, message: impl Into<String>, hint: Option<String>) -> ConnectError {
    ConnectError { step, message: message.into(), hint }
}

impl Ssh {
    /// Nothing is started or made yet.
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let handshakes = Semaphore::new(settings.handshakes.max(1));
        let room = settings.open_files.map(|files| Arc::new(Semaphore::new(room(files))));
        Self { settings, room, handshakes, folder: OnceCell::new(), client: OnceCell::new(), count: AtomicU64::new(0) }
    }

    /// Reaches a host.
    pub(crate) async fn connect(self: &Arc<Self>, host: &Host) -> Result<Reached, ConnectError> {
        let options = Options::of(host).map_err(|message| failed(ConnectStep::Settings, message, None))?;
        let _handshake = self.handshakes.acquire().await.expect("nobody closes it");
        let files = self.files()?;
        let client = self.client.get_or_try_init(Client::find).await?;
        let deadline = Instant::now() + self.settings.connect_deadline;
        let options = Arc::new(options.complete(client, deadline).await?);
        Ok(self.master(&options, deadline, files).await?.0)
    }

    /// Opens one more connection to a host that was reached.
    pub(crate) async fn connect_again(self: &Arc<Self>, options: &Arc<Options>) -> Result<(Reached, Arc<Master>), ConnectError> {
        let _handshake = self.handshakes.acquire().await.expect("nobody closes it");
        let files = self.files()?;
        self.master(options, Instant::now() + self.settings.connect_deadline, files).await
    }

    /// Starts a master, and again where sshd turns it away.
    async fn master(
        self: &Arc<Self>,
        options: &Arc<Options>,
        deadline: Instant,
        files: Files,
    ) -> Result<(Reached, Arc<Master>), ConnectError> {
        let mut wait = Duration::from_millis(250);
        loop {
            let error = match self.attempt(options, deadline, files.clone()).await {
                Ok(reached) => return Ok(reached),
                Err(error) => error,
            };
            // An sshd that has too many strangers at its door turns some away (MaxStartups); knocking again, later and not in step with
            // the others, is what it asks for.
            let pause = wait.mul_f64(rand::random_range(0.5..1.5));
            if !error.turned_away || Instant::now() + pause >= deadline {
                return Err(error.error);
            }
            tokio::time::sleep(pause).await;
            wait *= 2;
        }
    }

    /// Keeps the files that a host takes, where there are any left.
    fn files(&self) -> Result<Files, ConnectError> {
        let Some(room) = &self.room else { return Ok(None) };
        room.clone().try_acquire_owned().map(|permit| Some(Arc::new(permit))).map_err(|_| {
            let limit = self.settings.open_files.unwrap_or_default();
            let hosts = self::room(limit);
            let hint =
                format!("allow more with `ulimit -n` (about {FILES} for each host), or take at most {hosts} hosts at a time with --limit");
            failed(
                ConnectStep::Settings,
                format!("infra may open {limit} files on this machine, which is enough for {hosts} hosts"),
                Some(hint),
            )
        })
    }

    async fn attempt(self: &Arc<Self>, options: &Arc<Options>, deadline: Instant, files: Files) -> Result<(Reached, Arc<Master>), Attempt> {
        let folder = self.folder.get_or_try_init(|| Folder::open(&self.settings.runtime_folder)).await?;
        let client = self.client.get_or_try_init(Client::find).await?;
        let place = folder.place(self.count.fetch_add(1, Ordering::Relaxed));
        let (master, first) = Master::start(client, options, &self.settings, folder.clone(), place, files).map_err(Attempt::from)?;
        let master = Arc::new(master);
        let met = tokio::time::timeout_at(deadline, async {
            let masters = Arc::new(Masters::new(self.clone(), options.clone(), master.clone()));
            let reached = Reached::meet(self.settings.clone(), masters.clone(), first).await?;
            master.check().await?;
            masters.note_address();
            Ok::<_, String>(reached)
        });
        match met.await {
            Ok(Ok(reached)) => Ok((reached, master)),
            Ok(Err(said)) => Err(self.explain(&master, options, Some(said)).await),
            Err(_) => Err(self.explain(&master, options, None).await),
        }
    }

    async fn explain(&self, master: &Master, options: &Options, said: Option<String>) -> Attempt {
        let stderr = master.end().await;
        let seconds = said.is_none().then_some(self.settings.connect_deadline.as_secs_f64());
        log::explain(&master.log(), &stderr, said.as_deref().unwrap_or_default(), seconds, options)
    }
}

/// An attempt that failed.
pub(crate) struct Attempt {
    error: ConnectError,
    /// Whether the server had no time for us, so that a later attempt may do better.
    turned_away: bool,
}

impl From<ConnectError> for Attempt {
    fn from(error: ConnectError) -> Self {
        Self { error, turned_away: false }
    }
}
