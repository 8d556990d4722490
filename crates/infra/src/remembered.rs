//! The controller as the scripts of a saved plan see it: what they learn is written down, and told again when the plan is applied.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infra_core::BoxFuture;
use infra_core::diagnostic::Diagnostic;
use infra_core::digest::sha256;
use infra_core::saved_plan::{CommandAnswer, Kept, LocalBasis, Memory, RememberedCommand, salted};
use infra_core::secret::Secrets;
use infra_lua::{LocalCommand, LocalOutput, Question, World};
use serde_json::json;

/// The controller, with a record of all that it tells.
pub struct Recording {
    world: Arc<dyn World>,
    salt: String,
    memory: Mutex<Memory>,
}

/// What the controller told when a plan was made. The environment, and what the plan has a digest of alone, comes from the controller as it is now, and so
/// does what was not asked for then: functions of a script ask for that while it is executed.
pub struct Replaying {
    world: Arc<dyn World>,
    salt: String,
    folder: PathBuf,
    memory: Memory,
    /// How often each command was asked for by now.
    turns: Mutex<HashMap<String, usize>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The digest of an environment variable's value.
fn variable_digest(salt: &str, name: &str, value: &str) -> String {
    salted(salt, &format!("{name}={value}"))
}

/// What tells a command from others.
fn key(command: &LocalCommand) -> String {
    let LocalCommand { argv, stdin, chdir, env } = command;
    let stdin = stdin.as_ref().map(|bytes| sha256(bytes));
    sha256(json!([argv, stdin, chdir.as_deref().map(text), env]).to_string().as_bytes())
}

impl Recording {
    /// Nothing is told yet; `salt` goes into digests.
    pub fn new(world: Arc<dyn World>, salt: impl Into<String>) -> Self {
        Self { world, salt: salt.into(), memory: Mutex::default() }
    }

    /// What goes into digests.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// All that was told by now.
    pub fn memory(&self) -> Memory {
        locked(&self.memory).clone()
    }
}

impl World for Recording {
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let read = self.world.read_file(path);
        let kept = match &read {
            Ok(bytes) => Kept::of(&self.salt, bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::Absent,
            Err(error) => Kept::Failed(error.to_string()),
        };
        locked(&self.memory).files.insert(text(path), kept);
        read
    }

    fn exists(&self, path: &Path) -> bool {
        let exists = self.world.exists(path);
        locked(&self.memory).paths.insert(text(path), exists);
        exists
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<String>> {
        let listed = self.world.list_folder(path);
        locked(&self.memory).folders.insert(text(path), listed.as_ref().ok().cloned());
        listed
    }

    fn environment(&self, name: &str) -> Option<String> {
        let value = self.world.environment(name);
        let digest = value.as_ref().map(|value| variable_digest(&self.salt, name, value));
        locked(&self.memory).environment.insert(name.to_owned(), digest);
        value
    }

    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>> {
        Box::pin(async move {
            let (key, argv) = (key(&command), command.argv.clone());
            let output = self.world.run(command).await?;
            let kept = |bytes: &[u8]| Kept::of(&self.salt, bytes);
            let answer = CommandAnswer { status: output.status, stdout: kept(&output.stdout), stderr: kept(&output.stderr) };
            let mut memory = locked(&self.memory);
            match memory.commands.iter_mut().find(|known| known.key == key) {
                Some(known) => known.answers.push(answer),
                None => memory.commands.push(RememberedCommand { key, argv, answers: vec![answer] }),
            }
            Ok(output)
        })
    }

    fn secrets(&self) -> &Secrets {
        self.world.secrets()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        self.world.ask(question)
    }

    fn log(&self, host: Option<&str>, text: &str) {
        self.world.log(host, text);
    }

    fn working_directory(&self) -> PathBuf {
        self.world.working_directory()
    }
}

impl Replaying {
    /// What was told to a plan that was made in `folder`.
    pub fn new(world: Arc<dyn World>, salt: impl Into<String>, folder: PathBuf, memory: Memory) -> Self {
        Self { world, salt: salt.into(), folder, memory, turns: Mutex::default() }
    }

    /// Whether what the plan has only a digest of is on this machine as it was: environment variables, large files, and files that hold secrets.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self, locals: &[LocalBasis]) -> Result<(), Diagnostic> {
        for (name, digest) in &self.memory.environment {
            let now = self.world.environment(name).map(|value| variable_digest(&self.salt, name, &value));
            if now != *digest {
                let what = match (digest, &now) {
                    (None, Some(_)) => "is set, and it was not when the plan was made",
                    (Some(_), None) => "is not set, and it was when the plan was made",
                    _ => "is not what it was when the plan was made",
                };
                return Err(Diagnostic::runtime(format!("the environment variable {name} {what}"))
                    .hint("the plan knows only its digest: set it as it was, or make the plan again"));
            }
        }
        let locals = locals.iter().map(|local| (&local.path, &local.kept));
        for (path, kept) in self.memory.files.iter().chain(locals).filter(|(_, kept)| matches!(kept, Kept::Digest(_))) {
            let bytes = self.world.read_file(Path::new(path));
            if !bytes.as_ref().is_ok_and(|bytes| kept.is(&self.salt, bytes)) {
                let why = bytes.err().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(Diagnostic::runtime(format!("the file {path} is not what it was when the plan was made{why}"))
                    .hint("the plan knows only its digest: put it back as it was, or make the plan again"));
            }
        }
        Ok(())
    }
}

impl World for Replaying {
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.memory.files.get(&text(path)) {
            Some(Kept::Text(content)) => Ok(content.clone().into_bytes()),
            Some(kept @ Kept::Digest(_)) => {
                let bytes = self.world.read_file(path)?;
                if kept.is(&self.salt, &bytes) { Ok(bytes) } else { Err(io::Error::other("it is not what it was when the plan was made")) }
            }
            Some(Kept::Absent) => Err(io::ErrorKind::NotFound.into()),
            Some(Kept::Failed(message)) => Err(io::Error::other(message.clone())),
            None => self.world.read_file(path),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.memory.paths.get(&text(path)).copied().unwrap_or_else(|| self.world.exists(path))
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<String>> {
        match self.memory.folders.get(&text(path)) {
            Some(Some(names)) => Ok(names.clone()),
            Some(None) => Err(io::ErrorKind::NotFound.into()),
            None => self.world.list_folder(path),
        }
    }

    fn environment(&self, name: &str) -> Option<String> {
        self.world.environment(name)
    }

    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>> {
        Box::pin(async move {
            let key = key(&command);
            let turn = {
                let mut turns = locked(&self.turns);
                let turn = turns.entry(key.clone()).or_default();
                *turn += 1;
                *turn - 1
            };
            let known = self.memory.commands.iter().find(|known| known.key == key);
            let Some(answer) = known.and_then(|known| known.answers.get(turn)) else {
                return self.world.run(command).await;
            };
            match (&answer.stdout, &answer.stderr) {
                (Kept::Text(stdout), Kept::Text(stderr)) => {
                    Ok(LocalOutput { status: answer.status, stdout: stdout.clone().into_bytes(), stderr: stderr.clone().into_bytes() })
                }
                (stdout, stderr) => {
                    let now = self.world.run(command).await?;
                    let same = now.status == answer.status && stdout.is(&self.salt, &now.stdout) && stderr.is(&self.salt, &now.stderr);
                    if same { Ok(now) } else { Err(io::Error::other("it no longer gives what it gave when the plan was made")) }
                }
            }
        })
    }

    fn secrets(&self) -> &Secrets {
        self.world.secrets()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        self.world.ask(question)
    }

    fn log(&self, host: Option<&str>, text: &str) {
        self.world.log(host, text);
    }

    fn working_directory(&self) -> PathBuf {
        self.folder.clone()
    }
}
