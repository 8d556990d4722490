//! What ssh asks while it connects, and who answers.
//!
//! A password of the host's data is sent to one question alone: the one for the password of this host's user, asked by the very ssh that goes there, and
//! once. Whatever a jump host or a server makes up is a question for a person, or for nobody.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use infra_core::output::printable;
use infra_core::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::options::Options;
use crate::askpass::{self, Person, Question};

/// How long a question of ssh may be.
const LONGEST: u32 = 16 * 1024;

/// What all connections share that may be asked something.
pub(crate) struct Asking {
    /// What ssh starts.
    program: PathBuf,
    person: Option<Arc<dyn Person>>,
    /// What a person said about a key: it is asked once, however many hosts are reached with it. Who holds it asks.
    passphrases: tokio::sync::Mutex<HashMap<String, Secret>>,
}

impl Asking {
    pub(crate) fn new(program: PathBuf, person: Option<Arc<dyn Person>>) -> Self {
        Self { program, person, passphrases: tokio::sync::Mutex::default() }
    }

    /// Whether somebody sits at a terminal.
    pub(crate) fn has_person(&self) -> bool {
        self.person.is_some()
    }
}

/// Answers what the ssh of one connection asks, for as long as the value lives.
pub(crate) struct Questions {
    shared: Arc<Shared>,
    socket: PathBuf,
    task: JoinHandle<()>,
}

struct Shared {
    asking: Arc<Asking>,
    options: Arc<Options>,
    host: String,
    /// The process that goes to the host itself.
    ssh: OnceLock<u32>,
    state: Mutex<State>,
    /// Why nobody will be let in, once that is known.
    refused: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    password_sent: bool,
    /// What was sent as the passphrase of a key.
    opened: HashMap<String, Secret>,
    /// How long people have thought, and since when one does.
    thought: Duration,
    open: usize,
    since: Option<Instant>,
}

/// What is wanted.
#[derive(Debug, PartialEq, Eq)]
enum Meant<'p> {
    /// The passphrase of the key with this path, which ssh cuts at a hundred bytes.
    Passphrase(&'p str),
    /// The password of the user on the host.
    Password,
    /// Yes or no, such as whether a host's key is the right one.
    YesOrNo,
    /// Nothing.
    Notice,
    /// Something to log in with, which only a person can know.
    Other,
}

fn meant<'p>(prompt: &'p str, kind: &str) -> Meant<'p> {
    if kind == "none" {
        return Meant::Notice;
    }
    if let Some(key) = prompt.strip_prefix("Enter passphrase for ") {
        let key = key.strip_prefix("key ").unwrap_or(key).trim_end().trim_end_matches(':');
        return Meant::Passphrase(key.trim_matches('\''));
    }
    if kind == "confirm" || prompt.contains("(yes/no") || prompt.contains("Please type 'yes'") {
        return Meant::YesOrNo;
    }
    let lower = prompt.to_lowercase();
    let asked = lower.trim_end().trim_end_matches(':').trim_end();
    let is_new = ["new", "current", "old", "retype", "again", "expired", "one-time", "otp"].iter().any(|word| asked.contains(word));
    // `root@web's password: ` is ssh's own; what a server asks stands behind `(root@web) `.
    if asked.ends_with("'s password") || (!is_new && asked.lines().last().unwrap_or_default().ends_with("password")) {
        return Meant::Password;
    }
    Meant::Other
}

impl Questions {
    /// Listens at `socket`, for the ssh that goes to the host with this name and these options.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub(crate) fn listen(asking: Arc<Asking>, options: Arc<Options>, host: &str, socket: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let (ssh, state, refused) = (OnceLock::new(), Mutex::default(), watch::Sender::new(None));
        let shared = Arc::new(Shared { asking, options, host: host.to_owned(), ssh, state, refused });
        let answering = shared.clone();
        let task = tokio::spawn(async move {
            // Dropped with this task, and with them the questions at the terminal.
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answering = answering.clone();
                open.spawn(async move { answering.answer(stream).await });
            }
        });
        Ok(Self { shared, socket, task })
    }

    /// What ssh's environment needs for it.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 3] {
        askpass::environment(&self.shared.asking.program, &self.socket)
    }

    /// The options with which ssh asks what somebody may answer.
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.shared.options.questions(true, self.shared.asking.has_person())
    }

    /// The ssh that goes to the host has this process id.
    pub(crate) fn asked_by(&self, process: u32) {
        let _ = self.shared.ssh.set(process);
    }

    /// Waits until it is known that nobody will be let in, and says why, as a sentence fragment.
    pub(crate) async fn refused(&self) -> String {
        let mut refused = self.shared.refused.subscribe();
        let why = refused.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // The sender lives as long as we do.
            None => std::future::pending().await,
        }
    }

    /// For how long a person has thought about questions: the deadline of a connect does not count that.
    pub(crate) fn thought(&self) -> Duration {
        let state = self.shared.state();
        state.thought + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.task.abort();
        // The folder goes with the process in any case.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, mut stream: UnixStream) {
        let own = nix::unistd::geteuid().as_raw();
        if stream.peer_cred().map_or(true, |peer| peer.uid() != own) {
            return;
        }
        let length = stream.read_u32().await.unwrap_or(0);
        let mut asked = vec![0; length.min(LONGEST) as usize];
        if length > LONGEST || stream.read_exact(&mut asked).await.is_err() {
            return;
        }
        let asked = String::from_utf8_lossy(&asked);
        let mut parts = asked.splitn(3, '\n');
        let (Some(by), Some(kind), Some(prompt)) = (parts.next(), parts.next(), parts.next()) else { return };
        let from_ours = by.parse().ok().is_some_and(|by: u32| self.ssh.get() == Some(&by));
        if meant(prompt, kind) == Meant::Notice {
            if let Some(person) = &self.asking.person {
                person.tell(&self.host, &printable(prompt.trim()));
            }
            let _ = stream.write_all(&[askpass::WAIT]).await;
            // ssh kills its helper when it has seen enough.
            let _ = stream.read_u8().await;
            return;
        }
        let (mut reader, mut writer) = stream.into_split();
        let answer = tokio::select! {
            answer = self.find(prompt, kind, from_ours) => answer,
            // ssh has gone: nobody needs the answer.
            _ = reader.read_u8() => return,
        };
        let message = match &answer {
            Some(secret) => [&[askpass::SAY], secret.reveal().as_bytes()].concat(),
            None => vec![askpass::REFUSE],
        };
        let _ = writer.write_all(&message).await;
        let _ = writer.shutdown().await;
    }

    async fn find(&self, prompt: &str, kind: &str, from_ours: bool) -> Option<Secret> {
        match meant(prompt, kind) {
            Meant::Passphrase(key) => self.passphrase(key, prompt).await,
            // Of these ssh reads the exit code alone.
            Meant::YesOrNo if kind == "confirm" => {
                let yes = |answer: &Secret| matches!(answer.reveal().trim().to_lowercase().as_str(), "y" | "yes");
                self.person(prompt, false).await.filter(yes)
            }
            Meant::YesOrNo => self.person(prompt, false).await,
            Meant::Password if from_ours && self.options.password.is_some() => {
                if !std::mem::replace(&mut self.state().password_sent, true) {
                    return self.options.password.clone();
                }
                self.refuse("the host did not take the password in `ssh_password`");
                None
            }
            _ => {
                let answer = self.person(prompt, true).await;
                if answer.is_none() && from_ours {
                    let asked = printable(prompt.trim().trim_end_matches(':'));
                    self.refuse(&format!("the host asked «{asked}», and nobody answered"));
                }
                answer
            }
        }
    }

    /// Has the attempt given up: where there is no answer, ssh would try an empty one.
    fn refuse(&self, why: &str) {
        self.refused.send_replace(Some(why.to_owned()));
    }

    async fn passphrase(&self, key: &str, prompt: &str) -> Option<Secret> {
        let sent = self.state().opened.get(key).cloned();
        if let (Some(path), Some(password)) = (self.options.key_path(), &self.options.key_password)
            && (path == key || (key.len() >= 97 && path.starts_with(key)))
        {
            self.state().opened.insert(key.to_owned(), password.clone());
            return sent.is_none().then(|| password.clone());
        }
        let mut known = self.asking.passphrases.lock().await;
        // One that did not open it is forgotten, unless somebody has said a better one in the meantime.
        if sent.is_some() && known.get(key) == sent.as_ref() {
            known.remove(key);
        }
        let passphrase = match known.get(key) {
            Some(passphrase) => passphrase.clone(),
            None => self.person(prompt, true).await?,
        };
        known.insert(key.to_owned(), passphrase.clone());
        self.state().opened.insert(key.to_owned(), passphrase.clone());
        Some(passphrase)
    }

    async fn person(&self, prompt: &str, hidden: bool) -> Option<Secret> {
        let person = self.asking.person.as_ref()?;
        let _thinking = Thinking::begin(self);
        let question = Question { host: self.host.clone(), text: text(prompt), hidden };
        person.ask(question).await.filter(|answer| !answer.reveal().is_empty())
    }
}

/// ssh's words for a terminal: a host has a part in some of them.
fn text(prompt: &str) -> String {
    prompt.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Counts the time that a person thinks.
struct Thinking<'s>(&'s Shared);

impl<'s> Thinking<'s> {
    fn begin(shared: &'s Shared) -> Self {
        let mut state = shared.state();
        state.open += 1;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        Self(shared)
    }
}

impl Drop for Thinking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        if state.open == 0
            && let Some(since) = state.since.take()
        {
            state.thought += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_ssh_are_known_by_their_words() {
        for (prompt, kind, wanted) in [
            ("Enter passphrase for key '/home/a b/.ssh/id_ed25519': ", "", Meant::Passphrase("/home/a b/.ssh/id_ed25519")),
            ("Enter passphrase for /k: ", "", Meant::Passphrase("/k")),
            ("root@web's password: ", "", Meant::Password),
            ("(root@web) Password: ", "", Meant::Password),
            ("(root@web) Welcome to our machine\nPassword: ", "", Meant::Password),
            ("(root@web) Current password: ", "", Meant::Other),
            ("(root@web) New password: ", "", Meant::Other),
            ("(root@web) One-time password: ", "", Meant::Other),
            ("(root@web) Verification code: ", "", Meant::Other),
            ("Enter PIN for ED25519-SK key /k: ", "", Meant::Other),
            ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", "", Meant::YesOrNo),
            ("Please type 'yes', 'no' or the fingerprint: ", "", Meant::YesOrNo),
            ("Allow use of key k?", "confirm", Meant::YesOrNo),
            ("Confirm user presence for key ED25519-SK", "none", Meant::Notice),
        ] {
            assert_eq!(meant(prompt, kind), wanted, "{prompt}");
        }
    }
}
