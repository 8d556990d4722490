//! Questions of scripts to the person who started infra: at the terminal, one at a time, with what is secret not shown.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use infra_lua::Question;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::oneshot;

/// How often a reader looks whether anybody still wants the answer, in milliseconds.
const LOOK: u16 = 100;

/// What holds the screen while a question stands, so that nothing is drawn over what is typed. Clones share it.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Waits until no question stands. None is asked before what it gives is dropped.
    pub fn pass(&self) -> impl Drop + '_ {
        let (shut, opened) = &*self.0;
        let mut now = shut.lock().unwrap_or_else(PoisonError::into_inner);
        while *now {
            now = opened.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        now
    }

    /// Shuts the screen off until the value is dropped.
    pub fn close(&self) -> Closed {
        self.set(true);
        Closed(self.clone())
    }

    pub(crate) fn set(&self, shut: bool) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = shut;
        self.0.1.notify_all();
    }
}

/// Something is asked until this is dropped.
pub struct Closed(Gate);

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The terminal while a question stands. Dropped, it is as it was before, also where nobody answered.
struct Standing {
    gate: Gate,
    terminal: Arc<File>,
    before: Option<Termios>,
    given_up: Arc<AtomicBool>,
    answered: bool,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::SeqCst);
        if let Some(before) = &self.before {
            let _ = tcsetattr(self.terminal.as_fd(), SetArg::TCSANOW, before);
        }
        if !self.answered {
            let _ = (&*self.terminal).write_all(b"\r\n");
        }
        self.gate.set(false);
    }
}

/// Asks at the terminal; none where standard input is none.
///
/// # Errors
/// When the terminal cannot be opened, or it was closed before anything was typed.
pub async fn ask(question: Question, gate: Gate) -> io::Result<Option<String>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let terminal = Arc::new(OpenOptions::new().read(true).write(true).open("/dev/tty")?);
    gate.set(true);
    let given_up: Arc<AtomicBool> = Arc::default();
    let mut standing = Standing { gate, terminal: terminal.clone(), before: None, given_up: given_up.clone(), answered: false };
    if question.hidden {
        let before = tcgetattr(terminal.as_fd())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ECHONL);
        standing.before = Some(before);
        // What was typed before the question is no answer to it.
        tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent)?;
    }
    let text = infra_core::output::printable(&question.text);
    // A bar may stand on the line.
    write!(&*terminal, "\r\x1b[2K{}: ", text.trim_end_matches([':', ' ']))?;
    let (sender, answer) = oneshot::channel();
    // A thread of its own: a read that nobody ends must not hold up the end of the program.
    std::thread::spawn(move || {
        let _ = sender.send(read_line(&terminal, &given_up));
    });
    let typed = answer.await.map_err(|_| io::Error::other("the terminal was closed"))??;
    standing.answered = true;
    Ok(Some(typed))
}

/// A line of the terminal, without its end.
fn read_line(terminal: &File, given_up: &AtomicBool) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        if given_up.load(Ordering::SeqCst) {
            return Err(io::Error::other("nobody waits for the answer any more"));
        }
        let mut waiting = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, LOOK) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut byte = [0];
        match (&*terminal).read(&mut byte) {
            Ok(0) if line.is_empty() => return Err(io::Error::other("the terminal was closed")),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(line).map_err(|_| io::Error::other("what was typed is not UTF-8"))
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
        std::thread::spawn(move || {
            drop(screen.pass());
            passed.send(())
        });
        assert!(wait.try_recv().is_err());
        gate.set(false);
        wait.recv_timeout(std::time::Duration::from_secs(20)).expect("it goes on");
    }
}
