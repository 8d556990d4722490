//! Shells of somebody else that a password may stand before.
//!
//! A shell of another user is first asked for in a way in which nothing asks back, with all that follows sent along (`sudo -n`, `doas -n`); that costs
//! nothing, and a sudo that wants no password is never given one. Where that is refused for want of a password, and for su, which knows no such way, it
//! is a conversation: the command says when it asks and when its shell is there, and nothing is sent before it has said one or the other. A password
//! goes out alone, as the answer to a prompt that was read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use infra_core::output::Stream;
use infra_core::privilege::{Privilege, Tool};
use tokio::time::Instant;

use crate::envelope::{self, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::passwords::{Attempt, HostPasswords};
use crate::payload::Part;
use crate::privilege::{Kind, Refused, is_expired, refusal, wrong};
use crate::reached::{Inner, Refusal};
use crate::receipts::{Marks, Piece, Tag};
use crate::sessions::{Session, Use};
use crate::spawn::Process;

/// How much is kept of what is said on the way.
const WORDS: usize = 8192;
/// How often a shell is asked for: in between it may show who asks for a password and who does not.
const TRIES: u32 = 4;

/// What a host is known to ask for, by privilege.
#[derive(Default)]
pub(crate) struct Doors {
    known: Mutex<HashMap<Privilege, Asks>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Asks {
    sudo: bool,
    doas: bool,
}

impl Doors {
    fn known(&self) -> MutexGuard<'_, HashMap<Privilege, Asks>> {
        self.known.lock().expect("nothing panics while it holds this lock")
    }

    fn of(&self, privilege: &Privilege) -> Asks {
        self.known().get(privilege).copied().unwrap_or_default()
    }

    /// Whether its shell comes by a conversation.
    pub(crate) fn converses(&self, privilege: &Privilege) -> bool {
        let asks = self.of(privilege);
        privilege.su.is_some() || asks.sudo || asks.doas
    }

    /// Notes what a refusal says about passwords. True where that is news, so that it is worth another try.
    pub(crate) fn learn(&self, privilege: &Privilege, refused: &Refused) -> bool {
        let mut known = self.known();
        let asks = known.entry(privilege.clone()).or_default();
        match refused.kind {
            Kind::Needed(Tool::Sudo) => !std::mem::replace(&mut asks.sudo, true),
            Kind::Needed(Tool::Doas) => !std::mem::replace(&mut asks.doas, true),
            _ => false,
        }
    }
}

/// Listens while a shell comes up.
#[derive(Default)]
struct Door {
    said: [Vec<u8>; 2],
    /// Who is about to ask, and what was said on the second output since then.
    next: Option<(Tool, Vec<u8>)>,
    /// Who asks, and was not answered yet.
    asks: Option<Tool>,
    open: [bool; 2],
    down: Option<i32>,
    over: [bool; 2],
}

impl Door {
    fn printed(&self) -> String {
        self.said.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>().join("\n")
    }

    fn is_open(&self) -> bool {
        self.open == [true; 2]
    }
}

impl Listener for Door {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        let side = usize::from(stream == Stream::Stderr);
        match piece {
            Piece::Bytes(bytes) => {
                self.said[side].extend_from_slice(bytes);
                let excess = self.said[side].len().saturating_sub(WORDS);
                self.said[side].drain(..excess);
                if let (Some((tool, text)), 1) = (&mut self.next, side) {
                    text.extend_from_slice(bytes);
                    if is_prompt(&String::from_utf8_lossy(text)) {
                        self.asks = Some(*tool);
                        self.next = None;
                    }
                }
            }
            Piece::Mark(Mark::Up, _) => self.said[side].clear(),
            Piece::Mark(Mark::Asks, _) => self.asks = Some(Tool::Sudo),
            Piece::Mark(Mark::Next(tool), _) => self.next = Some((tool, Vec::new())),
            Piece::Mark(Mark::Open, _) => self.open[side] = true,
            Piece::Mark(Mark::Down, status) => {
                self.down = i32::try_from(status).ok();
                self.over[side] = true;
            }
            Piece::Mark(..) => {}
        }
    }

    fn closed(&mut self, stream: Stream) {
        self.over[usize::from(stream == Stream::Stderr)] = true;
    }
}

/// Whether a line that is still open asks for a password: as PAM and busybox have it for su, and as doas has it. What asks for anything else, such as
/// a code, gets no answer.
fn is_prompt(text: &str) -> bool {
    let line = text.trim_start_matches(['\r', '\n']);
    !line.contains('\n') && line.trim_end().ends_with(':') && line.to_lowercase().contains("password")
}

/// What came of asking for a shell.
enum Opened {
    /// It is there, and was told to serve frames with this tag.
    Serves(Process, Tag),
    /// It was asked for in a way that the host does not take, and is to be asked for again.
    Again,
}

impl Inner {
    /// A shell that serves a privilege, once there is one.
    pub(crate) async fn session(&self, privilege: Option<&Privilege>, how: Use) -> Result<Session, Refusal> {
        let mut why = "no shell of that user came up".to_owned();
        for _ in 0..TRIES {
            let mut session = self.sessions.take(privilege, how).await?;
            let Some(privilege) = privilege.filter(|privilege| session.tag.is_none() && self.doors.converses(privilege)) else {
                return Ok(session);
            };
            let process = session.process.take().expect("a session that was just taken has its process");
            match self.converse(process, privilege).await? {
                Ok(Opened::Serves(process, tag)) => {
                    session.process = Some(process);
                    session.tag = Some(tag);
                    return Ok(session);
                }
                Ok(Opened::Again) => {}
                Err(refused) if refused.kind == Kind::Needed(Tool::Doas) && self.doors.learn(privilege, &refused) => why = refused.message,
                Err(refused) => return Err(Refusal::Privilege(refused)),
            }
        }
        Err(Refusal::Refused(why))
    }

    /// A shell of this privilege, of a process that was started for it: for what goes past the sessions.
    pub(crate) async fn serving(&self, process: Process, privilege: Option<&Privilege>) -> Option<(Process, Option<Tag>)> {
        let Some(privilege) = privilege.filter(|privilege| self.doors.converses(privilege)) else { return Some((process, None)) };
        match self.converse(process, privilege).await {
            Ok(Ok(Opened::Serves(process, tag))) => Some((process, Some(tag))),
            _ => None,
        }
    }

    async fn converse(&self, process: Process, privilege: &Privilege) -> Result<Result<Opened, Refused>, Refusal> {
        self.goes_out();
        let doas_asks = self.doors.of(privilege).doas;
        let mut marks = Marks::new();
        let text = envelope::knock(&mut marks, privilege, doas_asks);
        let mut exchange = Exchange::new(process, marks, vec![Part::script(text)], true);
        let mut door = Door::default();
        let passwords: &HostPasswords = self.passwords();
        let mut attempt: Option<(Tool, Attempt)> = None;
        let mut due = Instant::now() + self.settings.connect_deadline;
        let hide =
            |attempt: &Option<(Tool, Attempt)>, text: String| attempt.as_ref().map_or_else(|| text.clone(), |(_, one)| one.hide(&text));
        loop {
            if door.is_open() && exchange.has_sent() {
                break;
            }
            if let (Some(tool), true) = (door.asks, exchange.has_sent()) {
                door.asks = None;
                if let Some((asked, one)) = attempt.take() {
                    if asked == tool {
                        one.rejected();
                        return Ok(Err(wrong(tool)));
                    }
                    // Who asks next was let in by the one before.
                    one.taken();
                }
                let one = match passwords.attempt(privilege, tool).await {
                    Ok(one) => one,
                    Err(refused) => return Ok(Err(refused)),
                };
                self.goes_out();
                exchange.send_more(one.line());
                attempt = Some((tool, one));
                due = Instant::now() + self.settings.connect_deadline;
            }
            // Who has to renew a password is asked for the old one and the new one, which is no question for us.
            if door.over == [true; 2] || is_expired(&door.printed()) {
                let printed = hide(&attempt, door.printed());
                if door.down.is_none() && printed.trim().is_empty() {
                    return Err(Refusal::Lost(exchange.reason().await));
                }
                let refused = refusal(privilege, door.down.unwrap_or(1), &printed);
                match (attempt, refused.kind) {
                    (Some((tool, one)), Kind::Wrong(by)) if tool == by => one.rejected(),
                    // It says so to those alone whom it knows.
                    (Some((Tool::Sudo, one)), Kind::NotAllowed) => one.taken(),
                    _ => {}
                }
                return Ok(Err(refused));
            }
            tokio::select! {
                step = exchange.step(&mut door) => if step == Step::Closed { door.over = [true; 2] },
                () = tokio::time::sleep_until(due) => {
                    let seconds = self.settings.connect_deadline.as_secs_f64();
                    let printed = hide(&attempt, door.printed());
                    let said = printed.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing").to_owned();
                    let user = privilege.user().unwrap_or("root");
                    let message = format!("no shell as {user} came up within {seconds} s; the last that was said: {said}");
                    return Ok(Err(Refused { kind: Kind::Other, message }));
                }
            }
        }
        let asked = attempt.is_some();
        if let Some((_, one)) = attempt {
            one.taken();
        }
        if doas_asks && !asked {
            // What was to carry the password to it still reads our input.
            self.doors.known().entry(privilege.clone()).or_default().doas = false;
            return Ok(Ok(Opened::Again));
        }
        let tag = Tag::random();
        exchange.send_more(envelope::enter(&tag));
        while !exchange.has_sent() {
            if exchange.step(&mut door).await == Step::Closed {
                return Err(Refusal::Lost(exchange.reason().await));
            }
        }
        match exchange.into_process().await {
            Some(process) => Ok(Ok(Opened::Serves(process, tag))),
            None => Err(Refusal::Lost("the shell ended as soon as it was there".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_prompt;

    #[test]
    fn a_prompt_is_told_from_the_beginning_of_a_message() {
        for (text, is) in [
            ("Password: ", true),
            ("\rdoas (plain@web) password: ", true),
            ("su: ", false),
            ("Verification code: ", false),
            ("Password: \n", false),
            ("su: Authentication failure\n", false),
            ("", false),
        ] {
            assert_eq!(is_prompt(text), is, "{text:?}");
        }
    }
}
