//! Questions to the person who started infra, at the terminal: one at a time, whoever asks, and with what is secret not shown.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::{MutexGuard, oneshot};

/// The longest line that is read, in bytes.
const LONGEST: usize = 4096;
/// Clears the line that the cursor is on: a bar may stand there.
pub const CLEAR: &str = "\r\x1b[2K";

/// What all share who ask at the terminal, and what holds the screen while a question stands, so that nothing is drawn over what is typed. Clones share it.
#[derive(Clone, Default)]
pub struct Gate(Arc<Shared>);

#[derive(Default)]
struct Shared {
    shut: Mutex<bool>,
    opened: Condvar,
    /// Of the one that asks: questions come in the order in which they were put.
    turn: tokio::sync::Mutex<()>,
}

/// What is shown of what is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// All of it.
    Shown,
    /// Only that the line was ended.
    LineEnd,
    /// Nothing: what is written afterwards ends the line.
    Nothing,
}

/// A question as it stands at the terminal.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is written before the answer, as it is.
    pub prompt: String,
    /// What is shown of the answer.
    pub echo: Echo,
    /// What is written when the line was typed.
    pub answered: &'static str,
    /// What is written when the question goes without an answer.
    pub unanswered: &'static str,
}

impl Gate {
    /// Waits until no question stands. None is asked before what it gives is dropped.
    pub fn pass(&self) -> impl Drop + '_ {
        let mut shut = self.0.shut.lock().unwrap_or_else(PoisonError::into_inner);
        while *shut {
            shut = self.0.opened.wait(shut).unwrap_or_else(PoisonError::into_inner);
        }
        shut
    }

    fn set(&self, shut: bool) {
        *self.0.shut.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.0.opened.notify_all();
    }

    /// Asks when it is this question's turn, and gives the bytes of the line that was typed, without its end. None where the input ended before the
    /// line did. Dropped, the question is given up: the terminal is as before, and what is typed from then on is for the next one.
    ///
    /// # Errors
    /// When the terminal cannot be set, written or read.
    pub async fn ask(&self, terminal: File, asked: Asked) -> io::Result<Option<Vec<u8>>> {
        let turn = self.0.turn.lock().await;
        let (mut standing, given_up) = Standing::begin(self, turn, terminal, asked)?;
        let reader = standing.terminal.try_clone()?;
        let (sender, answer) = oneshot::channel();
        // A thread of its own: a read that never ends must not hold up the end of the program.
        std::thread::spawn(move || {
            let _ = sender.send(line(&mut &reader, || is_wanted(&reader, &given_up)));
        });
        let answer = answer.await.map_err(|_| io::Error::other("nobody answered"))?;
        standing.is_answered = matches!(answer, Ok(Some(_)));
        answer
    }
}

/// Whether somebody sits at the terminal: where answers come from somewhere else, nobody does.
pub fn somebody_is_there() -> bool {
    io::stdin().is_terminal()
}

/// The terminal of the session, wherever standard input comes from.
///
/// # Errors
/// When there is none.
pub fn terminal() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

/// The terminal while a question stands. Dropped, it is as it was before, also where nobody answered.
struct Standing<'g> {
    gate: &'g Gate,
    terminal: File,
    before: Option<Termios>,
    asked: Asked,
    is_answered: bool,
    /// Open as long as somebody waits for the answer.
    _waiting: PipeWriter,
    /// Given on when all else of the question is gone.
    _turn: MutexGuard<'g, ()>,
}

impl<'g> Standing<'g> {
    /// Puts the question on the terminal. The pipe ends when nobody waits for the answer any more.
    fn begin(gate: &'g Gate, turn: MutexGuard<'g, ()>, terminal: File, asked: Asked) -> io::Result<(Self, PipeReader)> {
        let (given_up, waiting) = io::pipe()?;
        // What the screen shows meanwhile comes afterwards.
        gate.set(true);
        let mut standing = Self { gate, terminal, before: None, asked, is_answered: false, _waiting: waiting, _turn: turn };
        if standing.asked.echo != Echo::Shown {
            let before = tcgetattr(&standing.terminal)?;
            let mut hidden = before.clone();
            hidden.local_flags.remove(LocalFlags::ECHO);
            hidden.local_flags.set(LocalFlags::ECHONL, standing.asked.echo == Echo::LineEnd);
            // What was typed before the question is no answer to it.
            tcsetattr(&standing.terminal, SetArg::TCSAFLUSH, &hidden)?;
            standing.before = Some(before);
        }
        (&standing.terminal).write_all(standing.asked.prompt.as_bytes())?;
        Ok((standing, given_up))
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing more.
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, before);
        }
        let after = if self.is_answered { self.asked.answered } else { self.asked.unanswered };
        let _ = self.terminal.write_all(after.as_bytes());
        self.gate.set(false);
    }
}

/// Waits until there is something to read. Not where nobody waits for the answer any more: then what is typed is for the next question.
fn is_wanted(terminal: &File, given_up: &PipeReader) -> bool {
    let mut sources = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN), PollFd::new(given_up.as_fd(), PollFlags::POLLIN)];
    while let Err(Errno::EINTR) = poll(&mut sources, PollTimeout::NONE) {}
    sources[1].any() == Some(false)
}

/// A line, byte for byte, without its end. None where it is not ended, and where it is not wanted any more.
fn line(from: &mut impl Read, mut wanted: impl FnMut() -> bool) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while wanted() {
        match from.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte[0] == b'\n' => return Ok(Some(line)),
            Ok(_) if line.len() < LONGEST => line.push(byte[0]),
            Ok(_) => return Err(io::Error::other("the line is too long")),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_waits_while_a_question_stands() {
        let gate = Gate::default();
        drop(gate.pass());
        gate.set(true);
        let (passed, wait) = std::sync::mpsc::channel();
        let screen = gate.clone();
        let writer = std::thread::spawn(move || {
            drop(screen.pass());
            passed.send(())
        });
        assert!(wait.try_recv().is_err());
        gate.set(false);
        wait.recv_timeout(std::time::Duration::from_secs(20)).expect("it goes on");
        writer.join().expect("no panic").expect("somebody listens");
    }

    #[test]
    fn a_line_is_what_was_ended_and_is_wanted() {
        let read = |typed: &[u8]| line(&mut &*typed, || true).map_err(|error| error.to_string());
        assert_eq!(read(b"open sesame\nmore"), Ok(Some(b"open sesame".to_vec())));
        assert_eq!(read(b"\n"), Ok(Some(Vec::new())));
        assert_eq!(read(b"half"), Ok(None));
        assert_eq!(read(b"\xff\n"), Ok(Some(vec![0xff])));
        let (mut most, mut more) = (vec![b'a'; LONGEST], vec![b'a'; LONGEST + 1]);
        most.push(b'\n');
        more.push(b'\n');
        assert_eq!(read(&most).map(|line| line.map(|line| line.len())), Ok(Some(LONGEST)));
        assert_eq!(read(&more), Err("the line is too long".to_owned()));
        let mut left = 2;
        let mut typed = &b"abc\n"[..];
        let given_up = line(&mut typed, || {
            left -= 1;
            left >= 0
        });
        assert_eq!((given_up.expect("nothing fails"), typed), (None, &b"c\n"[..]), "the rest is for who asks next");
    }
}
