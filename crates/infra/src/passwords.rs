//! Passwords, asked for at the terminal: without an echo, once per run.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};

use infra_core::BoxFuture;
use infra_core::diagnostic::Diagnostic;
use infra_core::privilege::{AskPassword, Tool, ways_out};
use infra_core::secret::Secret;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::{OnceCell, oneshot, watch};

use crate::questions::Gate;

/// The longest password that is read.
const LONGEST: usize = 4096;
/// Clears the line that the cursor is on.
const CLEAR: &str = "\r\x1b[2K";

/// Asks whoever started the run.
pub struct AtTerminal {
    gate: Gate,
    interrupts: watch::Receiver<u32>,
    /// One question after the other.
    one: tokio::sync::Mutex<()>,
    answers: [OnceCell<Result<Secret, String>>; 3],
}

impl AtTerminal {
    /// Has nothing been asked yet.
    pub fn new(gate: Gate, interrupts: watch::Receiver<u32>) -> Self {
        Self { gate, interrupts, one: tokio::sync::Mutex::default(), answers: [const { OnceCell::const_new() }; 3] }
    }

    /// Asks now, before there is a host that does: `--ask-sudo-password`. The terminal is that of the session, wherever standard input comes from.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] where there is no terminal, or no answer.
    pub async fn ask_now(&self, tool: Tool) -> Result<(), Diagnostic> {
        let option = format!("--ask-{tool}-password");
        let terminal = terminal()
            .ok_or_else(|| Diagnostic::misuse(format!("{option} asks at a terminal, and there is none")).hint(without_a_terminal(tool)))?;
        let prompt = format!("Password for {tool} on all hosts: ");
        let answer = self.read(terminal, prompt, false).await;
        let problem = answer.as_ref().err().cloned();
        // Nobody has asked before.
        let _ = self.answers[tool as usize].set(answer);
        problem.map_or(Ok(()), |problem| Err(Diagnostic::misuse(format!("{option}: {problem}"))))
    }

    async fn read(&self, terminal: File, prompt: String, again: bool) -> Result<Secret, String> {
        let mut interrupts = self.interrupts.clone();
        let _one = self.one.lock().await;
        // What the screen shows meanwhile comes afterwards.
        let _taken = self.gate.close();
        let silence = Silence::begin(&terminal).map_err(|error| format!("the terminal cannot be made to show nothing: {error}"))?;
        let (sender, answer) = oneshot::channel();
        // A thread of its own: a read that never ends must not gate up the end of the program.
        let asking = silence.terminal.try_clone().map_err(|error| format!("the terminal cannot be opened: {error}"))?;
        std::thread::spawn(move || {
            let _ = sender.send(ask_at(asking, &prompt, again));
        });
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| Err("nobody answered".to_owned())),
            _ = interrupts.wait_for(|times| *times > 0) => {
                let _ = (&silence.terminal).write_all(if again { CLEAR } else { "\n" }.as_bytes());
                Err("the run was interrupted before it was given".to_owned())
            }
        };
        drop(silence);
        answer
    }
}

impl AskPassword for AtTerminal {
    fn password<'a>(&'a self, tool: Tool, why: &'a str) -> BoxFuture<'a, Result<Secret, String>> {
        Box::pin(async move {
            let asking = || async {
                // Where answers come from somewhere else, nobody sits there.
                match terminal().filter(|_| io::stdin().is_terminal()) {
                    Some(terminal) => self.read(terminal, format!("{why} (and wherever else {tool} does): "), true).await,
                    None => Err(format!("there is no terminal to ask at: {}", ways_out(tool))),
                }
            };
            self.answers[tool as usize].get_or_init(asking).await.clone()
        })
    }
}

/// What to do instead of asking.
fn without_a_terminal(tool: Tool) -> String {
    match tool {
        Tool::Sudo => "give it as `_sudo_password` in the inventory, or allow sudo without one (NOPASSWD in sudoers)".to_owned(),
        Tool::Su => "give it as `_su_password` in the inventory, or use `_sudo`".to_owned(),
        Tool::Doas => "allow doas without one (nopass in doas.conf)".to_owned(),
    }
}

/// The terminal of the session.
fn terminal() -> Option<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn begin(terminal: &File) -> io::Result<Self> {
        let terminal = terminal.try_clone()?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        // What was typed before the question is no answer to it.
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing more.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Asks and reads one line. On a screen where something stands already, the line of the question is cleared afterwards.
fn ask_at(mut terminal: impl Read + Write, prompt: &str, on_screen: bool) -> Result<Secret, String> {
    let failed = |error: io::Error| format!("the terminal cannot be read: {error}");
    let (before, after) = if on_screen { (CLEAR, CLEAR) } else { ("", "\n") };
    write!(terminal, "{before}{prompt}").and_then(|()| terminal.flush()).map_err(failed)?;
    let answer = line(&mut terminal);
    let _ = write!(terminal, "{after}").and_then(|()| terminal.flush());
    match answer.map_err(failed)? {
        Some(text) if !text.is_empty() => Ok(Secret::new(text)),
        _ => Err("no password was given".to_owned()),
    }
}

fn line(terminal: &mut impl Read) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        match terminal.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if bytes.len() < LONGEST => bytes.push(byte[0]),
            Ok(_) => return Err(io::Error::other("the line is too long")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::other("the password is no UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Typed(&'static [u8], Vec<u8>);

    impl Read for Typed {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Typed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_is_the_answer() {
        let asked = |typed: &'static [u8]| {
            let mut shown = Typed(typed, Vec::new());
            let answer = ask_at(&mut shown, "Password: ", false);
            assert_eq!(shown.1, b"Password: \n");
            answer.map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(asked(b"open sesame\nmore"), Ok("open sesame".to_owned()));
        assert_eq!(asked(b"\n"), Err("no password was given".to_owned()));
        assert_eq!(asked(b"half"), Err("no password was given".to_owned()));
        assert_eq!(asked(b"\xff\n"), Err("the terminal cannot be read: the password is no UTF-8 text".to_owned()));
    }
}
