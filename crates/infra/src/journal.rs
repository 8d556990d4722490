//! The journal of runs as files: one for each run, in a folder of the user's own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use infra_core::diagnostic::{Diagnostic, did_you_mean};
use infra_core::event::{Event, Journal};
use infra_core::secret::Secrets;
use infra_report::journal::{self, Header, Paper, Record, Recorder, is_run_name};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// So many runs are kept; the oldest give way.
const KEPT: usize = 100;

/// How many bytes the salt has.
const SALT: usize = 32;

/// The folder that the journals stand in.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// The journal of this run.
pub struct RunJournal {
    recorder: Mutex<Option<Recorder>>,
    /// Whether all that happened by now stands in it.
    pub whole: Arc<AtomicBool>,
    /// The run's name.
    pub run: String,
}

impl Folder {
    /// The folder below the user's state folder: `$XDG_STATE_HOME`, or `~/.local/state`.
    ///
    /// # Errors
    /// When the environment names neither.
    pub fn of_user() -> io::Result<Self> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        state.map(|state| Self(state.join("infra/runs"))).ok_or_else(|| io::Error::other("neither XDG_STATE_HOME nor HOME names a folder"))
    }

    /// The names of all runs, the last first.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".jsonl")).filter(|name| is_run_name(name));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// The record of a run.
    ///
    /// # Errors
    /// When its file cannot be read, or is no journal.
    pub fn read(&self, run: &str) -> io::Result<Record> {
        // In this order: what ends meanwhile has its end in the journal before it lets go of it.
        let lives = self.is_alive(run);
        let text = std::fs::read(self.file(run))?;
        if lives { Record::read_living(&text) } else { Record::read(&text) }.map_err(io::Error::other)
    }

    /// The same, with the outputs of commands.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn read_with_outputs(&self, run: &str) -> io::Result<Record> {
        Record::read_with_outputs(&std::fs::read(self.file(run))?).map_err(io::Error::other)
    }

    /// The header of a run's journal.
    ///
    /// # Errors
    /// As [`Folder::read`].
    pub fn header(&self, run: &str) -> io::Result<Header> {
        let mut line = Vec::new();
        BufReader::new(File::open(self.file(run))?).read_until(b'\n', &mut line)?;
        Ok(Record::read(&line).map_err(io::Error::other)?.header)
    }

    /// Whether the process of the run still lives: it holds a lock on its journal, which the system lets go with it.
    pub fn is_alive(&self, run: &str) -> bool {
        let Ok(file) = File::open(self.file(run)) else { return false };
        // Where locks are not to be had, nobody holds one.
        matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
    }

    /// The name of the run of this name, or of the last one.
    ///
    /// # Errors
    /// As [`Folder::find`].
    pub fn find_name(&self, run: Option<&str>) -> Result<String, Diagnostic> {
        let unreadable = |error| Diagnostic::misuse(format!("the journal in {} cannot be read: {error}", self.0.display()));
        let names = self.names().map_err(unreadable)?;
        let name = match run {
            Some(run) => names.iter().find(|name| *name == run).ok_or_else(|| {
                let nearest = did_you_mean(run, names.iter().map(String::as_str));
                Diagnostic::misuse(format!("there is no run {run} in the journal"))
                    .hint(nearest.unwrap_or_else(|| "`infra runs` lists them".to_owned()))
            })?,
            None => names.first().ok_or_else(|| {
                Diagnostic::misuse("there is no earlier run in the journal").hint(format!("runs are kept in {}", self.0.display()))
            })?,
        };
        Ok(name.clone())
    }

    /// The record of the run of this name, or of the last one.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] where there is no such run, or its journal cannot be read.
    pub fn find(&self, run: Option<&str>) -> Result<Record, Diagnostic> {
        let name = self.find_name(run)?;
        self.read(&name).map_err(|error| Diagnostic::misuse(format!("the journal of run {name} cannot be read: {error}")))
    }

    /// What goes into the digests that stand for secrets in journals: random, the same for all runs of this user, and kept beside the journals for its owner
    /// alone, so that nobody can guess a secret from a journal. Where it cannot be kept, it is another one each time, and what holds a secret is
    /// planned afresh by a run that goes on.
    pub fn salt(&self) -> Vec<u8> {
        let path = self.0.with_file_name("salt");
        if let Ok(salt) = std::fs::read(&path)
            && salt.len() == SALT
        {
            return salt;
        }
        let mut salt = vec![0; SALT];
        let random = File::open("/dev/urandom").and_then(|mut random| io::Read::read_exact(&mut random, &mut salt));
        let keep = || {
            DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(Path::new("/")))?;
            // Beside its place and then in it at once: another run reads a whole one or none.
            let beside = path.with_file_name(format!("salt.{}", std::process::id()));
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?.write_all(&salt)?;
            match std::fs::hard_link(&beside, &path) {
                Ok(()) => std::fs::remove_file(&beside).map(|()| salt.clone()),
                Err(_) => {
                    std::fs::remove_file(&beside)?;
                    std::fs::read(&path)
                }
            }
        };
        let kept = random.and_then(|()| keep());
        kept.unwrap_or(salt)
    }

    fn file(&self, run: &str) -> PathBuf {
        self.0.join(format!("{run}.jsonl"))
    }

    /// Begins the file of a run, for its owner alone, and lets the oldest runs go.
    fn begin(&self, run: &str) -> io::Result<Box<dyn Paper>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        // A folder that was there before may be open to others.
        std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.file(run))?;
        for old in self.names()?.iter().skip(KEPT) {
            // Another run may have removed it at the same time; one that stays does no harm.
            let _ = std::fs::remove_file(self.file(old));
        }
        Ok(Box::new(match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => InFile::Locked(file),
            Err((file, _)) => InFile::Unlocked(file),
        }))
    }
}

impl RunJournal {
    /// The journal of a run that begins now. Its file is made when the run begins to execute.
    pub fn new(
        folder: io::Result<Folder>,
        invocation: Vec<String>,
        inventory: String,
        working: &Path,
        kind: infra_core::event::RunKind,
        resumes: Option<String>,
        secrets: Secrets,
    ) -> Self {
        let run = journal::run_name(since_1970());
        let header = Header {
            version: journal::VERSION,
            run: run.clone(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            invocation,
            inventory,
            folder: working.to_string_lossy().into_owned(),
            kind,
            resumes,
            hosts: Vec::new(),
        };
        let name = run.clone();
        let recorder = Recorder::new(header, Box::new(move || folder?.begin(&name)));
        // What is secret among the words of the command line may come to be known only later.
        let recorder = recorder.with_words_as(Box::new(move |word| secrets.mask(word).into_owned()));
        Self { recorder: Mutex::new(Some(recorder)), whole: Arc::default(), run }
    }
}

impl Journal for RunJournal {
    fn record(&self, event: &Event) {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(journal) = recorder.as_mut() else { return };
        let written = journal.record(event, since_1970());
        self.whole.store(written.is_ok() && journal.begun(), Ordering::SeqCst);
        if let Err(error) = written {
            *recorder = None;
            // Where standard error is gone, the run goes on all the same.
            let _ = writeln!(io::stderr(), "infra: the journal of this run cannot be written, the run goes on: {error}");
        }
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The file of the run. The lock on it is how another infra sees that the run goes on; a file system without locks is no reason to have no journal.
enum InFile {
    Locked(Flock<File>),
    Unlocked(File),
}

impl InFile {
    fn file(&mut self) -> &mut File {
        match self {
            Self::Locked(file) => file,
            Self::Unlocked(file) => file,
        }
    }
}

impl Write for InFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Paper for InFile {
    fn sync(&mut self) -> io::Result<()> {
        self.file().sync_data()
    }
}
