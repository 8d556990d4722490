//! Questions of ssh, asked at the terminal.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

use infra_connect::askpass::{Person, Question};
use infra_core::BoxFuture;
use infra_core::secret::Secret;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

use crate::questions::Gate;

/// Whoever sits at the terminal.
pub struct AtTerminal {
    gate: Gate,
    /// One question at a time, in the order in which they come.
    turn: tokio::sync::Mutex<()>,
}

impl AtTerminal {
    /// Somebody, where standard input is a terminal; nobody else can be asked.
    pub fn find(gate: Gate) -> Option<Arc<dyn Person>> {
        io::stdin().is_terminal().then(|| Arc::new(Self { gate, turn: tokio::sync::Mutex::default() }) as Arc<dyn Person>)
    }
}

/// The terminal while a question stands there. Dropped, it is as before.
struct Asked {
    gate: Gate,
    terminal: File,
    before: Option<Termios>,
    answered: bool,
    /// Open as long as somebody waits for the answer.
    _waiting: PipeWriter,
}

impl Asked {
    /// Puts the question on the terminal. The pipe ends when nobody waits for the answer any more.
    fn begin(gate: Gate, question: &Question) -> io::Result<(Self, PipeReader)> {
        let mut terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let (given_up, waiting) = io::pipe()?;
        gate.set(true);
        let mut asked = Self { gate, terminal: terminal.try_clone()?, before: None, answered: false, _waiting: waiting };
        if question.hidden {
            let before = tcgetattr(&asked.terminal)?;
            let mut hidden = before.clone();
            hidden.local_flags.remove(LocalFlags::ECHO);
            hidden.local_flags.insert(LocalFlags::ECHONL);
            // What was typed before the question is no answer to it.
            tcsetattr(&asked.terminal, SetArg::TCSAFLUSH, &hidden)?;
            asked.before = Some(before);
        }
        // The bar's line is drawn anew behind the answer.
        write!(terminal, "\r\x1b[K[{}] {}", question.host, question.text)?;
        if !question.text.ends_with(' ') {
            write!(terminal, " ")?;
        }
        terminal.flush()?;
        Ok((asked, given_up))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, before);
        }
        if !self.answered {
            let _ = writeln!(self.terminal);
        }
        self.gate.set(false);
    }
}

/// A line from the terminal, without its end. None at the end of the input, and where nobody waits for it any more: then what is typed is for the next
/// question.
fn line(mut terminal: File, given_up: &PipeReader) -> Option<String> {
    let mut sources = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN), PollFd::new(given_up.as_fd(), PollFlags::POLLIN)];
    while let Err(Errno::EINTR) = poll(&mut sources, PollTimeout::NONE) {}
    if sources[1].any() != Some(false) {
        return None;
    }
    // A terminal gives one line at a time.
    let mut bytes = vec![0; 4096];
    let read = terminal.read(&mut bytes).ok()?;
    let text = String::from_utf8(bytes[..read].to_vec()).ok()?;
    text.strip_suffix('\n').map(str::to_owned)
}

impl Person for AtTerminal {
    fn ask(&self, question: Question) -> BoxFuture<'_, Option<Secret>> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let (mut asked, given_up) = Asked::begin(self.gate.clone(), &question).ok()?;
            let reader = asked.terminal.try_clone().ok()?;
            let (sender, answer) = oneshot::channel();
            // A thread of its own: a read that never ends must not hold up the end of the program.
            std::thread::spawn(move || {
                let _ = sender.send(line(reader, &given_up).map(Secret::new));
            });
            let answer = answer.await.ok().flatten();
            asked.answered = answer.is_some();
            answer
        })
    }

    fn tell(&self, host: &str, text: &str) {
        let _free = self.gate.pass();
        if let Ok(mut terminal) = OpenOptions::new().write(true).open("/dev/tty") {
            let _ = writeln!(terminal, "\r\x1b[K[{host}] {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_up_goes_on_when_the_question_is_gone() {
        let gate = Gate::default();
        drop(gate.pass());
        gate.set(true);
        let (sender, went_on) = std::sync::mpsc::channel();
        let waiting = gate.clone();
        let writer = std::thread::spawn(move || {
            drop(waiting.pass());
            sender.send(())
        });
        assert!(went_on.try_recv().is_err());
        gate.set(false);
        went_on.recv_timeout(std::time::Duration::from_secs(20)).expect("it goes on");
        writer.join().expect("no panic").expect("somebody listens");
    }
}
