//! Hosts over the user's own OpenSSH.
//!
//! One `ssh -M` in the foreground per host is the connection. Its first session is a `sh` that reads until its input ends; the other end of that
//! input is held by this process, so the master ends when this process does, however it ends. All else goes through the master's socket. A host that
//! is to run more commands at once than one connection bears has more of them, each like the first.
//!
//! Where the host's data asks for it (`ssh_persist`), the first master stays when this process ends, and the next run joins it (`kept`).

mod folder;
mod jumps;
mod kept;
mod log;
mod master;
mod masters;
mod options;
mod questions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::folder::{Folder, Place};
use self::jumps::Jumps;
use self::kept::{Kept, Seat};
use self::master::{Master, Start};
use self::masters::Masters;
use self::options::{Client, Options};
use self::questions::{Asking, Questions};
use crate::askpass::Person;
use crate::reached::Reached;
use crate::settings::Settings;
use crate::spawn::SpawnError;

/// What all hosts over ssh share.
pub(crate) struct Ssh {
    settings: Arc<Settings>,
    handshakes: Semaphore,
    jumps: Jumps,
    folder: OnceCell<Arc<Folder>>,
    client: OnceCell<Client>,
    /// Looked through once, however many hosts there are: each look knocks at every master in it.
    kept: OnceCell<Kept>,
    count: AtomicU64,
    /// How many hosts there are files for.
    room: Option<Arc<Semaphore>>,
    /// Who answers what ssh asks.
    asking: Option<Arc<Asking>>,
}

/// A host, and the way to it.
pub(crate) struct Target {
    pub(crate) options: Arc<Options>,
    /// Its name in the inventory.
    host: String,
    /// The jump hosts on the way.
    gates: Vec<Arc<Semaphore>>,
}

/// What came of joining a kept master.
enum Joined {
    Reached(Box<Reached>),
    /// It lives, and the host lets it open no session at this time.
    Full,
    /// It does not answer.
    Silent,
}

/// How long a kept master may take for each step of being joined, before it counts as dead.
const JOINING: Duration = Duration::from_secs(5);

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
    pub(crate) fn new(settings: Arc<Settings>, person: Option<Arc<dyn Person>>) -> Self {
        let handshakes = Semaphore::new(settings.handshakes.max(1));
        let room = settings.open_files.map(|files| Arc::new(Semaphore::new(room(files))));
        let asking = settings.askpass.clone().map(|program| Arc::new(Asking::new(program, person)));
        let (folder, client, kept) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        let (count, jumps) = (AtomicU64::new(0), Jumps::default());
        Self { settings, handshakes, jumps, folder, client, kept, count, room, asking }
    }

    fn deadline(&self, options: &Options) -> Duration {
        options.connect_deadline.unwrap_or(self.settings.connect_deadline)
    }

    /// Reaches a host.
    pub(crate) async fn connect(self: &Arc<Self>, host: &Host) -> Result<Reached, ConnectError> {
        let options = Options::of(host).map_err(|message| failed(ConnectStep::Settings, message, None))?;
        if self.asking.is_none() && (options.password.is_some() || options.key_password.is_some()) {
            let message = "ssh takes a password only from a program that it can ask, and none was set (`Settings::askpass`)";
            return Err(failed(ConnectStep::Settings, message, None));
        }
        let client = self.client.get_or_try_init(Client::find).await?;
        let deadline = self.deadline(&options);
        let asked = options.is_elsewhere() || options.persist.is_some() || self.jumps.may_be(options.config_file());
        let (options, gates, digest) = if asked {
            let resolved = {
                let _one = self.handshakes.acquire().await.expect("nobody closes it");
                options.resolve(client, Instant::now() + deadline).await?
            };
            let digest = options.persist.map(|_| options.digest(client, &resolved));
            let gates = self.jumps.gates(&resolved.jumps());
            (options.with_key_alias(&resolved), gates, digest)
        } else {
            (options, Vec::new(), None)
        };
        let target = Arc::new(Target { options: Arc::new(options), host: host.name.clone(), gates });
        match digest {
            Some(digest) => self.kept(&target, digest).await,
            None => Ok(self.fresh(&target, None).await?.0),
        }
    }

    /// Opens one more connection to a host that was reached.
    pub(crate) async fn connect_again(self: &Arc<Self>, target: &Arc<Target>) -> Result<(Reached, Arc<Master>), ConnectError> {
        self.fresh(target, None).await
    }

    /// Joins the master that an earlier run has kept, or brings one up to be kept.
    async fn kept(self: &Arc<Self>, target: &Arc<Target>, digest: String) -> Result<Reached, ConnectError> {
        let kept = self.kept.get_or_try_init(|| async { Kept::open(&self.settings.runtime_folder) }).await?;
        let seat = kept.seat(digest);
        let deadline = self.deadline(&target.options);
        let late = |_| {
            let message = format!("another run of infra has been connecting to it for {} s", deadline.as_secs_f64());
            failed(ConnectStep::Connect, message, Some("wait for that run, or leave --persist away".to_owned()))
        };
        let mut held = tokio::time::timeout(deadline, seat.lock()).await.map_err(late)?;
        if seat.listens() {
            drop(held);
            match self.join(target, &seat).await? {
                Joined::Reached(reached) => return Ok(*reached),
                Joined::Full => return Ok(self.fresh(target, None).await?.0),
                Joined::Silent => {}
            }
            held = tokio::time::timeout(deadline, seat.lock()).await.map_err(late)?;
            seat.end(&held).await;
            held = tokio::time::timeout(deadline, seat.lock()).await.map_err(late)?;
        }
        seat.clear(&held);
        let brought_up = self.fresh(target, Some(&seat)).await;
        match brought_up {
            Ok((reached, _)) => {
                seat.note(&target.options.spelling(), reached.abilities());
                Ok(reached)
            }
            Err(error) => {
                seat.end(&held).await;
                Err(error)
            }
        }
    }

    async fn join(self: &Arc<Self>, target: &Arc<Target>, seat: &Seat) -> Result<Joined, ConnectError> {
        let files = self.files()?;
        let folder = self.folder.get_or_try_init(|| Folder::open(&self.settings.runtime_folder)).await?;
        let unused = folder.place(self.count.fetch_add(1, Ordering::Relaxed)).questions;
        let master = Arc::new(Master::join(seat.place(unused), files, folder.clone()));
        let masters = Arc::new(Masters::new(self.clone(), target.clone(), master.clone()));
        let first = match tokio::time::timeout(JOINING, master.open(master.count_session())).await {
            Ok(Ok(first)) => first,
            Ok(Err(SpawnError::Refused(_))) => return Ok(Joined::Full),
            Ok(Err(SpawnError::Lost(_))) | Err(_) => return Ok(Joined::Silent),
        };
        let greeting = Reached::greet(self.settings.clone(), masters.clone(), first, seat.abilities());
        match tokio::time::timeout(JOINING, greeting).await {
            Ok(Ok(reached)) => {
                masters.note_address();
                Ok(Joined::Reached(Box::new(reached)))
            }
            _ => Ok(Joined::Silent),
        }
    }

    /// Ends kept masters: those of these hosts, or all. Gives the names of the hosts.
    pub(crate) async fn disconnect(self: &Arc<Self>, hosts: Option<&[Arc<Host>]>) -> Result<Vec<String>, ConnectError> {
        let Some(kept) = Kept::existing(&self.settings.runtime_folder) else { return Ok(Vec::new()) };
        let mut seats = Vec::new();
        match hosts {
            None => seats = kept.seats(),
            Some(hosts) => {
                let client = self.client.get_or_try_init(Client::find).await?;
                for host in hosts.iter().filter(|host| host.connector == infra_core::host::Connector::Ssh) {
                    let wrong = |message| failed(ConnectStep::Settings, format!("{}: {message}", host.name), None);
                    let options = Options::of(host).map_err(wrong)?;
                    let resolved = options.resolve(client, Instant::now() + self.deadline(&options)).await?;
                    seats.push(kept.seat(options.digest(client, &resolved)));
                }
            }
        }
        let mut ending = JoinSet::new();
        for seat in seats {
            let ssh = self.clone();
            ending.spawn(async move {
                let _one = ssh.handshakes.acquire().await.expect("nobody closes it");
                let name = seat.name();
                let deadline = ssh.settings.connect_deadline;
                let held = tokio::time::timeout(deadline, seat.lock()).await.map_err(|_| {
                    let message = format!("{name}: a run of infra has been connecting to it for {} s", deadline.as_secs_f64());
                    failed(ConnectStep::Connect, message, None)
                })?;
                Ok(seat.end(&held).await.then_some(name))
            });
        }
        let mut ended = Vec::new();
        let mut failure = None;
        while let Some(one) = ending.join_next().await {
            match one {
                Ok(Ok(name)) => ended.extend(name),
                Ok(Err(error)) => failure = Some(error),
                Err(error) => failure = Some(failed(ConnectStep::Connect, format!("ending it came to no end: {error}"), None)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(ended),
        }
    }

    /// Starts a master, and again where the host's data asks for more tries and they may help.
    async fn fresh(self: &Arc<Self>, target: &Arc<Target>, seat: Option<&Seat>) -> Result<(Reached, Arc<Master>), ConnectError> {
        let mut tries_left = target.options.retries;
        loop {
            let error = match self.once(target, seat).await {
                Ok(reached) => return Ok(reached),
                Err(error) => error,
            };
            let Some((least, most)) = target.options.retry_delays.filter(|_| error.transient && tries_left > 0) else {
                return Err(error.error);
            };
            tries_left -= 1;
            tokio::time::sleep(Duration::from_secs_f64(rand::random_range(least..=most))).await;
        }
    }

    /// Starts a master within the deadline, and again where sshd turns it away.
    async fn once(self: &Arc<Self>, target: &Arc<Target>, seat: Option<&Seat>) -> Result<(Reached, Arc<Master>), Attempt> {
        let _through = jumps::pass(&target.gates).await;
        let _handshake = self.handshakes.acquire().await.expect("nobody closes it");
        let files = self.files()?;
        let deadline = Instant::now() + self.deadline(&target.options);
        let mut wait = Duration::from_millis(250);
        loop {
            let error = match self.attempt(target, deadline, files.clone(), seat).await {
                Ok(reached) => return Ok(reached),
                Err(error) => error,
            };
            // An sshd that has too many strangers at its door turns some away (MaxStartups); knocking again, later and not in step with
            // the others, is what it asks for.
            let pause = wait.mul_f64(rand::random_range(0.5..1.5));
            if !error.turned_away || Instant::now() + pause >= deadline {
                return Err(error);
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

    async fn attempt(
        self: &Arc<Self>,
        target: &Arc<Target>,
        deadline: Instant,
        files: Files,
        seat: Option<&Seat>,
    ) -> Result<(Reached, Arc<Master>), Attempt> {
        let folder = self.folder.get_or_try_init(|| Folder::open(&self.settings.runtime_folder)).await?;
        let client = self.client.get_or_try_init(Client::find).await?;
        let options = &target.options;
        let place = folder.place(self.count.fetch_add(1, Ordering::Relaxed));
        let place = seat.map_or_else(|| place.clone(), |seat| seat.place(place.questions.clone()));
        // What an earlier attempt said is not said again.
        let _ = std::fs::remove_file(&place.log);
        let questions = self.questions(target, &place)?;
        let (folder, questions) = (folder.clone(), questions.as_ref());
        let start = Start { client, options, settings: &self.settings, folder, place, files, questions, kept: seat.is_some() };
        let (master, first) = Master::start(start)?;
        let master = Arc::new(master);
        let met = within(deadline, questions, async {
            let masters = Arc::new(Masters::new(self.clone(), target.clone(), master.clone()));
            let reached = Reached::meet(self.settings.clone(), masters.clone(), first).await?;
            master.check().await?;
            masters.note_address();
            Ok::<_, String>(reached)
        });
        let refused = async {
            match questions {
                Some(questions) => questions.refused().await,
                None => std::future::pending().await,
            }
        };
        let met = tokio::select! {
            biased;
            met = met => met,
            why = refused => {
                master.end().await;
                return Err(log::refused(&master.log(), &why, options).into());
            }
        };
        match met {
            Some(Ok(reached)) => Ok((reached, master)),
            Some(Err(said)) => Err(self.explain(&master, options, Some(said)).await),
            None => Err(self.explain(&master, options, None).await),
        }
    }

    /// Who answers what ssh asks on the way to this host, where anybody has an answer.
    fn questions(&self, target: &Arc<Target>, place: &Place) -> Result<Option<Questions>, ConnectError> {
        let options = &target.options;
        let Some(asking) = &self.asking else { return Ok(None) };
        if !asking.has_person() && options.password.is_none() && options.key_password.is_none() {
            return Ok(None);
        }
        Questions::listen(asking.clone(), options.clone(), &target.host, place.questions.clone())
            .map(Some)
            .map_err(|error| failed(ConnectStep::Settings, format!("{} cannot be made: {error}", place.questions.display()), None))
    }

    async fn explain(&self, master: &Master, options: &Options, said: Option<String>) -> Attempt {
        let stderr = master.end().await;
        let seconds = said.is_none().then_some(self.deadline(options).as_secs_f64());
        log::explain(&master.log(), &stderr, said.as_deref().unwrap_or_default(), seconds, options)
    }
}

/// Waits for the end of something until a deadline, which is put off for as long as a person thinks about a question.
async fn within<T>(deadline: Instant, questions: Option<&Questions>, doing: impl Future<Output = T>) -> Option<T> {
    let mut doing = std::pin::pin!(doing);
    let mut until = deadline;
    loop {
        tokio::select! {
            biased;
            done = &mut doing => return Some(done),
            () = tokio::time::sleep_until(until) => {
                let now = Instant::now();
                let put_off = deadline + questions.map_or(Duration::ZERO, Questions::thought);
                if put_off <= now {
                    return None;
                }
                // While somebody thinks the deadline moves on with the time.
                until = put_off.max(now + Duration::from_millis(100));
            }
        }
    }
}

/// An attempt that failed.
pub(crate) struct Attempt {
    error: ConnectError,
    /// Whether the server had no time for us, so that a later attempt may do better.
    turned_away: bool,
    /// Whether it may have been a matter of the moment.
    transient: bool,
}

impl From<ConnectError> for Attempt {
    fn from(error: ConnectError) -> Self {
        Self { error, turned_away: false, transient: false }
    }
}
