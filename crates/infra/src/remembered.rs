//! The controller as the scripts of a saved plan see it: what they learn is written down, and told again when the plan is applied.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infra_core::BoxFuture;
use infra_core::command::quote;
use infra_core::diagnostic::Diagnostic;
use infra_core::digest::{sha256, slow};
use infra_core::saved_plan::{CommandAnswer, Kept, LocalBasis, Memory, RememberedCommand, content_digest};
use infra_core::secret::Secrets;
use infra_lua::{LocalCommand, LocalOutput, Question, World};
use serde_json::json;

/// The controller, with a record of all that it tells.
pub struct Recording {
    world: Arc<dyn World>,
    salt: String,
    memory: Mutex<Memory>,
    /// The environment variables that were asked for, and what was typed, as they are: which of it is secret is known only at the end.
    environment: Mutex<BTreeMap<String, Option<String>>>,
    typed: Mutex<BTreeMap<String, Typed>>,
}

/// What was typed when something was asked.
struct Typed {
    hidden: bool,
    answer: Option<String>,
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
    /// What was had anew of what the plan has a digest of alone: what commands gave, by their keys, each time in turn; and what was typed, by the question.
    outputs: Mutex<HashMap<String, VecDeque<LocalOutput>>>,
    typed: Mutex<HashMap<String, String>>,
}

/// How often a secret is asked for that is another one.
const TRIES: usize = 3;

/// What helps where a secret is another one than that of the plan.
const ANOTHER: &str = "the plan has no secret, only digests that tell whether one is the same: give the same again, or make the plan again";

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// What an environment variable's digest is made of.
fn variable(name: &str, value: &str) -> String {
    format!("{name}={value}")
}

/// What tells a command from others. Its input and its environment may hold secrets.
fn key(salt: &str, command: &LocalCommand) -> String {
    let LocalCommand { argv, stdin, chdir, env } = command;
    let stdin = stdin.as_ref().map(|bytes| sha256(bytes));
    slow(salt, json!([argv, stdin, chdir.as_deref().map(text), env]).to_string().as_bytes())
}

/// The words of a command for people.
fn words(argv: &[String]) -> String {
    argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

impl Recording {
    /// Nothing is told yet; `salt` goes into digests.
    pub fn new(world: Arc<dyn World>, salt: impl Into<String>) -> Self {
        Self { world, salt: salt.into(), memory: Mutex::default(), environment: Mutex::default(), typed: Mutex::default() }
    }

    /// What goes into digests.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// All that was told by now.
    pub fn memory(&self) -> Memory {
        let mut memory = locked(&self.memory).clone();
        let secrets = self.world.secrets();
        memory.environment = locked(&self.environment)
            .iter()
            .map(|(name, value)| {
                let kept = match value {
                    Some(value) if secrets.holds(value) => Kept::secret(&self.salt, variable(name, value).as_bytes()),
                    Some(value) => Kept::Digest(content_digest(&self.salt, &sha256(variable(name, value).as_bytes()))),
                    None => Kept::Absent,
                };
                (name.clone(), kept)
            })
            .collect();
        memory.answers = locked(&self.typed)
            .iter()
            .map(|(question, typed)| {
                let kept = match typed {
                    Typed { answer: Some(answer), hidden: true } => Kept::secret(&self.salt, answer.as_bytes()),
                    Typed { answer: Some(answer), hidden: false } => Kept::Text(answer.clone()),
                    Typed { answer: None, .. } => Kept::Absent,
                };
                (question.clone(), kept)
            })
            .collect();
        memory
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
        locked(&self.environment).insert(name.to_owned(), value.clone());
        value
    }

    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>> {
        Box::pin(async move {
            let (key, argv) = (key(&self.salt, &command), command.argv.clone());
            let chdir = command.chdir.as_deref().map(text);
            let whole = command.stdin.is_none() && command.env.is_empty();
            let output = self.world.run(command).await?;
            let kept = |bytes: &[u8]| Kept::of(&self.salt, bytes);
            let answer = CommandAnswer { status: output.status, stdout: kept(&output.stdout), stderr: kept(&output.stderr) };
            let mut memory = locked(&self.memory);
            match memory.commands.iter_mut().find(|known| known.key == key) {
                Some(known) => known.answers.push(answer),
                None => memory.commands.push(RememberedCommand { key, argv, chdir, whole, answers: vec![answer] }),
            }
            Ok(output)
        })
    }

    fn secrets(&self) -> &Secrets {
        self.world.secrets()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        Box::pin(async move {
            let answer = self.world.ask(question.clone()).await?;
            locked(&self.typed).insert(question.text, Typed { hidden: question.hidden, answer: answer.clone() });
            Ok(answer)
        })
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
        let (turns, outputs, typed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { world, salt: salt.into(), folder, memory, turns, outputs, typed }
    }

    /// Whether what the plan has only a digest of is as it was: environment variables, large files, and secrets, wherever they come from.
    ///
    /// # Errors
    /// The first that is not.
    pub async fn check(&self, locals: &[LocalBasis]) -> Result<(), Diagnostic> {
        for (name, kept) in &self.memory.environment {
            let now = self.world.environment(name).map(|value| variable(name, &value));
            let what = match (kept, now) {
                (Kept::Absent, None) => continue,
                (Kept::Absent, Some(_)) => "is set, and it was not when the plan was made",
                (_, None) => "is not set, and it was when the plan was made",
                (_, Some(now)) if kept.is(&self.salt, now.as_bytes()) => continue,
                (Kept::Secret(_), Some(_)) => {
                    return Err(another(&format!("the environment variable {name}")));
                }
                _ => "is not what it was when the plan was made",
            };
            return Err(Diagnostic::runtime(format!("the environment variable {name} {what}"))
                .hint("the plan knows only its digest: set it as it was, or make the plan again"));
        }
        let locals = locals.iter().map(|local| (&local.path, &local.kept));
        for (path, kept) in self.memory.files.iter().chain(locals).filter(|(_, kept)| kept.is_digest()) {
            let bytes = self.world.read_file(Path::new(path));
            if bytes.as_ref().is_ok_and(|bytes| kept.is(&self.salt, bytes)) {
                continue;
            }
            if let (Kept::Secret(_), Ok(_)) = (kept, &bytes) {
                return Err(Diagnostic::runtime(format!(
                    "the file {path}, which holds a secret, is not what it was when the plan was made"
                ))
                .hint(ANOTHER));
            }
            let why = bytes.err().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(Diagnostic::runtime(format!("the file {path} is not what it was when the plan was made{why}"))
                .hint("the plan knows only its digest: put it back as it was, or make the plan again"));
        }
        for command in self.memory.commands.iter().filter(|command| command.whole) {
            for answer in command.answers.iter().filter(|answer| answer.is_digest()) {
                self.run_again(command, answer).await?;
            }
        }
        for (question, kept) in &self.memory.answers {
            if matches!(kept, Kept::Secret(_)) {
                self.ask_again(question, kept).await?;
            }
        }
        Ok(())
    }

    /// Runs a command again that gave a secret.
    async fn run_again(&self, command: &RememberedCommand, before: &CommandAnswer) -> Result<(), Diagnostic> {
        let asked =
            LocalCommand { argv: command.argv.clone(), chdir: command.chdir.as_ref().map(PathBuf::from), ..LocalCommand::default() };
        let name = format!("the command `{}`", words(&command.argv));
        let now = self.world.run(asked).await;
        let now = now.map_err(|error| Diagnostic::runtime(format!("{name}, which the plan rests on, cannot be run: {error}")))?;
        if !before.is(&self.salt, now.status, &now.stdout, &now.stderr) {
            return Err(another(&name));
        }
        locked(&self.outputs).entry(command.key.clone()).or_default().push_back(now);
        Ok(())
    }

    /// Asks for a secret again, and once more where it is mistyped.
    async fn ask_again(&self, question: &str, before: &Kept) -> Result<(), Diagnostic> {
        let name = format!("the question `{question}`");
        for left in (0..TRIES).rev() {
            let answer = self.world.ask(Question { text: question.to_owned(), hidden: true }).await;
            let answer = answer.map_err(|error| Diagnostic::runtime(format!("{name} of the plan cannot be asked: {error}")))?;
            let Some(answer) = answer else {
                return Err(Diagnostic::runtime(format!("{name} of the plan cannot be asked: there is no terminal")).hint(ANOTHER));
            };
            if before.is(&self.salt, answer.as_bytes()) {
                locked(&self.typed).insert(question.to_owned(), answer);
                return Ok(());
            }
            if left > 0 {
                self.world.log(None, "infra: that is another secret than the one that the plan was made with");
            }
        }
        Err(another(&name))
    }
}

/// A secret that is another one than that of the plan.
fn another(source: &str) -> Diagnostic {
    Diagnostic::runtime(format!("{source} gives another secret than the one that the plan was made with")).hint(ANOTHER)
}

impl World for Replaying {
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.memory.files.get(&text(path)) {
            Some(Kept::Text(content)) => Ok(content.clone().into_bytes()),
            Some(kept @ (Kept::Digest(_) | Kept::Secret(_))) => {
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
            let key = key(&self.salt, &command);
            if let Some(output) = locked(&self.outputs).get_mut(&key).and_then(VecDeque::pop_front) {
                return Ok(output);
            }
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
                _ => {
                    let now = self.world.run(command).await?;
                    match answer.is(&self.salt, now.status, &now.stdout, &now.stderr) {
                        true => Ok(now),
                        false => Err(io::Error::other("it no longer gives what it gave when the plan was made")),
                    }
                }
            }
        })
    }

    fn secrets(&self) -> &Secrets {
        self.world.secrets()
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        Box::pin(async move {
            if let Some(typed) = locked(&self.typed).get(&question.text) {
                return Ok(Some(typed.clone()));
            }
            match self.memory.answers.get(&question.text) {
                Some(Kept::Text(answer)) => Ok(Some(answer.clone())),
                Some(Kept::Absent) => Ok(None),
                // One that was taken for a secret later, or that was not asked when the plan was made.
                _ => self.world.ask(question).await,
            }
        })
    }

    fn log(&self, host: Option<&str>, text: &str) {
        self.world.log(host, text);
    }

    fn working_directory(&self) -> PathBuf {
        self.folder.clone()
    }
}
