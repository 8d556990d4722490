//! Questions of ssh, asked at the terminal.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use infra_connect::askpass::{Person, Question};
use infra_core::BoxFuture;
use infra_core::secret::Secret;

use crate::questions::{Asked, Echo, Gate, somebody_is_there, terminal};

/// Whoever sits at the terminal.
pub struct AtTerminal {
    gate: Gate,
}

impl AtTerminal {
    /// Somebody, where standard input is a terminal; nobody else can be asked.
    pub fn find(gate: Gate) -> Option<Arc<dyn Person>> {
        somebody_is_there().then(|| Arc::new(Self { gate }) as Arc<dyn Person>)
    }

    async fn ask_at(&self, terminal: File, question: Question) -> Option<Secret> {
        let space = if question.text.ends_with(' ') { "" } else { " " };
        let asked = Asked {
            // The bar's line is drawn anew behind the answer.
            prompt: format!("\r\x1b[K[{}] {}{space}", question.host, question.text),
            echo: if question.hidden { Echo::LineEnd } else { Echo::Shown },
            answered: "",
            unanswered: "\n",
        };
        let typed = self.gate.ask(terminal, asked).await.ok()??;
        String::from_utf8(typed).ok().map(Secret::new)
    }
}

impl Person for AtTerminal {
    fn ask(&self, question: Question) -> BoxFuture<'_, Option<Secret>> {
        Box::pin(async move { self.ask_at(terminal().ok()?, question).await })
    }

    fn tell(&self, host: &str, text: &str) {
        let _free = self.gate.pass();
        if let Ok(mut terminal) = terminal() {
            let _ = writeln!(terminal, "\r\x1b[K[{host}] {text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::OpenOptionsExt;

    use nix::fcntl::OFlag;
    use nix::poll::{PollFd, PollFlags, poll};
    use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

    use super::*;
    use crate::passwords::AtTerminal as Passwords;

    /// The side of a terminal at which a person sits.
    struct Seat {
        ours: File,
        shown: String,
    }

    impl Seat {
        /// A new terminal, and who sits at it.
        fn new() -> (Self, File) {
            let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let ours = posix_openpt(flags).expect("a pty");
            grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("a pty of ours");
            let name = ptsname_r(&ours).expect("a pty has a name");
            let terminal = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(name).expect("the terminal");
            (Self { ours: File::from(OwnedFd::from(ours)), shown: String::new() }, terminal)
        }

        /// Looks until this has been shown.
        fn wait_for(&mut self, text: &str) {
            while !self.shown.contains(text) {
                let ready = poll(&mut [PollFd::new(self.ours.as_fd(), PollFlags::POLLIN)], 20_000u16);
                assert_eq!(ready, Ok(1), "{text:?} was never shown: {:?}", self.shown);
                let mut bytes = [0; 4096];
                let read = self.ours.read(&mut bytes).expect("it is open");
                self.shown.push_str(std::str::from_utf8(&bytes[..read]).expect("text"));
            }
        }

        fn press(&mut self, keys: &str) {
            self.ours.write_all(keys.as_bytes()).expect("it is open");
        }
    }

    #[tokio::test]
    async fn one_question_stands_at_a_time_whoever_asks() {
        let (mut seat, terminal) = Seat::new();
        let gate = Gate::default();
        let (_interrupter, interrupts) = tokio::sync::watch::channel(0);
        let (ssh, passwords) = (AtTerminal { gate: gate.clone() }, Passwords::new(gate, interrupts));
        let (go, gone) = std::sync::mpsc::channel();
        let person = std::thread::spawn(move || {
            gone.recv().expect("both are asked");
            seat.wait_for("[web] Passphrase: ");
            seat.press("one\n");
            seat.wait_for("Password: ");
            seat.press("two\n");
            // The line of the second is cleared, which is not so before it is answered.
            seat.wait_for("Password: \r\x1b[2K");
            seat.shown
        });
        let question = Question { host: "web".to_owned(), text: "Passphrase:".to_owned(), hidden: true };
        let first = ssh.ask_at(terminal.try_clone().expect("a handle"), question);
        let second = passwords.read(terminal.try_clone().expect("a handle"), "Password: ".to_owned(), true);
        // Both wait for their answers before any key is pressed. Did both stand, the end of the first line would come behind the second question.
        let (first, second, ()) = tokio::join!(biased; first, second, async { go.send(()).expect("somebody sits there") });
        assert_eq!(first.expect("an answer").reveal(), "one");
        assert_eq!(second.expect("an answer").reveal(), "two");
        let shown = person.join().expect("no panic");
        assert_eq!(shown, "\r\x1b[K[web] Passphrase: \r\n\r\x1b[2KPassword: \r\x1b[2K");
    }
}
