//! The lock of one machine, as one connection has it: what stands before each step, and what its answer means.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infra_core::command::Shell;
use infra_core::connection::Ending;
use infra_core::lock::{Claim, Holder, Locked};
use infra_core::output::printable;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;

use crate::envelope::{self, Mark};
use crate::exchange::{Exchange, Step};
use crate::lock_script::{self, HELD, LOST, MOVED, OTHERS, Place};
use crate::payload::Part;
use crate::perform::{Ear, Turn};
use crate::reached::Inner;
use crate::receipts::{Marks, Tag};
use crate::sessions::Use;

/// How long the lock alone may take to be taken, renewed or given back.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long giving the lock back may hold up the end of a run.
const RELEASE_DEADLINE: Duration = Duration::from_secs(5);

/// What a connection knows of the lock of its machine.
#[derive(Default)]
pub(crate) struct Lock {
    state: Mutex<State>,
    /// One step at a time takes the lock; those that come at the same time wait for its answer.
    taking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    claim: Option<Arc<Claimed>>,
    standing: Standing,
    /// How the lock stood when the first facts were read.
    seen: Option<String>,
    moves: u64,
    /// Whether it was asked for, and no answer has come yet.
    unanswered: bool,
    renewal: Option<JoinHandle<()>>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

/// A claim, and what tells this run from every other one of the same name.
struct Claimed {
    claim: Claim,
    key: String,
}

#[derive(Clone, Default)]
enum Standing {
    #[default]
    Open,
    Held(Place),
    Lost(Option<Holder>),
}

/// What stands before the command in its first shell, and who hears the answer.
pub(crate) struct Guarded {
    pub(crate) script: Shell,
    pub(crate) answer: Awaited,
}

/// The answer that is waited for.
pub(crate) struct Awaited {
    inner: Arc<Inner>,
    kind: Kind,
}

enum Kind {
    /// How the lock stands.
    Read,
    /// It is being taken: nobody else takes it meanwhile.
    Take(#[expect(dead_code, reason = "it is held until the answer is there")] OwnedMutexGuard<()>),
    /// It is to be held still.
    Check,
}

/// A name for a file that nobody else makes.
fn temporary() -> String {
    format!("new.{:016x}", rand::random::<u64>())
}

/// A text from the host that is shown to people.
fn shown(line: &str) -> String {
    printable(&line.chars().take(200).collect::<String>()).to_string()
}

/// A line each: since when, which run, under which name, who, where.
fn holder(lines: &[&str]) -> Option<Holder> {
    let [since, run, _, user, controller, ..] = lines else { return None };
    Some(Holder { run: shown(run), user: shown(user), controller: shown(controller), since: shown(since) })
}

impl Lock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn claim(&self, claim: Option<Claim>, key: &str) {
        let mut state = self.state();
        state.claim = claim.map(|claim| Arc::new(Claimed { claim, key: key.to_owned() }));
    }

    pub(crate) fn moves(&self) -> u64 {
        self.state().moves
    }

    fn stop_renewing(&self) {
        if let Some(renewal) = self.state().renewal.take() {
            renewal.abort();
        }
    }

    /// What stands before a request for facts: the first one reads how the lock stands.
    pub(crate) fn before_facts(&self, inner: &Arc<Inner>) -> Option<Guarded> {
        let state = self.state();
        if state.claim.is_none() || state.seen.is_some() || !matches!(state.standing, Standing::Open) {
            return None;
        }
        Some(Guarded { script: lock_script::read(), answer: Awaited { inner: inner.clone(), kind: Kind::Read } })
    }

    /// What stands before a step whose facts are `as_of` that many moves; nothing before one that changes nothing.
    ///
    /// # Errors
    /// Why the step is not to be done.
    pub(crate) async fn before_step(&self, inner: &Arc<Inner>, as_of: Option<u64>) -> Result<Option<Guarded>, Locked> {
        let Some(as_of) = as_of else { return Ok(None) };
        if let Some(known) = self.known(inner, as_of)? {
            return Ok(known);
        }
        let taking = self.taking.clone().lock_owned().await;
        if let Some(known) = self.known(inner, as_of)? {
            return Ok(known);
        }
        let mut state = self.state();
        let again = std::mem::replace(&mut state.unanswered, true);
        let Some(claimed) = &state.claim else { return Ok(None) };
        let seen = state.seen.as_deref().unwrap_or_default();
        let script = lock_script::take(&claimed.claim, &claimed.key, seen, again, &temporary());
        Ok(Some(Guarded { script, answer: Awaited { inner: inner.clone(), kind: Kind::Take(taking) } }))
    }

    /// What stands before a step that goes out behind one that has this before it, and is not begun unless that ended well: the lock is to be held still.
    pub(crate) fn before_next(&self, inner: &Arc<Inner>, first: &Guarded) -> Option<Guarded> {
        let state = self.state();
        let Claimed { claim, key } = &**state.claim.as_ref()?;
        let place = match (&state.standing, &first.answer.kind) {
            // It will have been taken by then.
            (_, Kind::Take(_)) => None,
            (Standing::Held(place), _) => Some(place),
            _ => return None,
        };
        let script = lock_script::check(claim, key, place, &temporary(), lock_script::enough(claim));
        Some(Guarded { script, answer: Awaited { inner: inner.clone(), kind: Kind::Check } })
    }

    /// Whether changes are made under it.
    pub(crate) fn is_claimed(&self) -> bool {
        self.state().claim.is_some()
    }

    /// The same, as far as the lock does not have to be taken first.
    fn known(&self, inner: &Arc<Inner>, as_of: u64) -> Result<Option<Option<Guarded>>, Locked> {
        let state = self.state();
        let Some(claimed) = &state.claim else { return Ok(Some(None)) };
        match &state.standing {
            Standing::Open => Ok(None),
            Standing::Lost(holder) => Err(Locked::TakenOver { holder: holder.clone() }),
            Standing::Held(_) if state.moves != as_of => Err(Locked::Moved { same_machine: None }),
            Standing::Held(place) => {
                let Claimed { claim, key } = &**claimed;
                let script = lock_script::check(claim, key, Some(place), &temporary(), lock_script::enough(claim));
                Ok(Some(Some(Guarded { script, answer: Awaited { inner: inner.clone(), kind: Kind::Check } })))
            }
        }
    }
}

impl Awaited {
    /// Whether a step waits for it, or the lock itself.
    pub(crate) fn is_of_a_step(&self) -> bool {
        !matches!(self.kind, Kind::Read)
    }

    /// The shell of the host has answered: with this number, and what it printed. Gives why the step is not done.
    pub(crate) fn answered(self, number: i64, said: &str) -> Option<Locked> {
        let lines: Vec<&str> = said.lines().collect();
        let lock = &self.inner.lock;
        lock.state().unanswered = false;
        let unavailable = || Locked::Unavailable { reason: shown(lines.last().copied().unwrap_or("its script ended too soon")) };
        match self.kind {
            Kind::Read => {
                let mut state = lock.state();
                let standing = lines.last().copied().unwrap_or_default().trim().to_owned();
                // Requests that went out at once, and saw different things: then nothing that is seen later is the same.
                let same = state.seen.as_ref().is_none_or(|seen| *seen == standing) && !standing.is_empty();
                state.seen = Some(if same { standing } else { "?".to_owned() });
                None
            }
            Kind::Take(_) => match number {
                HELD | MOVED => {
                    let [folder, epoch, rest @ ..] = &lines[..] else { return Some(unavailable()) };
                    let place = Place { folder: (*folder).to_owned(), epoch: (*epoch).to_owned() };
                    lock.hold(&self.inner, place);
                    if number == HELD {
                        return None;
                    }
                    lock.state().moves += 1;
                    Some(Locked::Moved { same_machine: rest.first().map(|name| shown(name)) })
                }
                OTHERS => holder(&lines).map_or_else(|| Some(unavailable()), |holder| Some(Locked::Held { holder })),
                _ => Some(unavailable()),
            },
            Kind::Check => match number {
                HELD => None,
                LOST => Some(lock.lose(holder(&lines))),
                _ => Some(unavailable()),
            },
        }
    }
}

impl Lock {
    fn lose(&self, holder: Option<Holder>) -> Locked {
        self.stop_renewing();
        self.state().standing = Standing::Lost(holder.clone());
        Locked::TakenOver { holder }
    }

    /// The lock is ours: it is renewed until it is given back, or the connection ends.
    fn hold(&self, inner: &Arc<Inner>, place: Place) {
        let mut state = self.state();
        state.standing = Standing::Held(place);
        let Some(claimed) = state.claim.clone() else { return };
        let pause = Duration::from_secs(claimed.claim.lease.as_secs().max(1)) / 3;
        let inner = Arc::downgrade(inner);
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(inner) = inner.upgrade() else { break };
                inner.renew().await;
            }
        });
        if let Some(former) = state.renewal.replace(renewal) {
            former.abort();
        }
    }
}

impl Inner {
    /// Renews the lease. Where no answer comes, the next time or the next step tells.
    async fn renew(self: &Arc<Self>) {
        let script = {
            let state = self.lock.state();
            let (Some(claimed), Standing::Held(place)) = (&state.claim, &state.standing) else { return };
            lock_script::check(&claimed.claim, &claimed.key, Some(place), &temporary(), claimed.claim.lease.as_secs())
        };
        let guarded = Guarded { script, answer: Awaited { inner: self.clone(), kind: Kind::Check } };
        // Losing the lock ends this task; whoever hears of it does so when the next step is to be done.
        let _ = tokio::time::timeout(DEADLINE, self.on_its_own(guarded)).await;
    }

    /// Runs what concerns the lock and nothing else, in a session that nobody uses, else in the one that is kept aside.
    async fn on_its_own(self: &Arc<Self>, guarded: Guarded) -> Ending {
        let lost = |reason: &str| Ending::Lost { reason: reason.to_owned(), begun: false };
        let mut marks = Marks::new();
        // One that is open and idle saves the time to open another.
        let mut idle = self.idle_session();
        let mut kept = None;
        let (process, tag, frame) = match &mut idle {
            Some(session) => {
                let process = session.process.take().expect("a session that was just taken has its process");
                (process, session.tag.clone().expect("an idle session serves"), session.frame)
            }
            None => {
                let Some((process, permit)) = self.aside().await else { return lost("no shell could be started for the lock") };
                kept = Some(permit);
                (process, Tag::random(), 1)
            }
        };
        self.goes_out();
        let opened = if idle.is_none() { envelope::open(&mut marks, None, &tag, None) } else { String::new() };
        marks.know(&tag, Mark::Over);
        let text = opened + &envelope::lock_alone(&mut marks, &tag, &guarded.script);
        let mut exchange = Exchange::new(process, marks, vec![Part::script(text)], idle.is_some());
        let mut ear = Ear::new(None, frame).guarded(Some(guarded.answer));
        while !ear.done() && exchange.step(&mut ear).await == Step::Moved {}
        let ending = match ear.locked() {
            Some(Some(locked)) => Ending::Locked(locked.clone()),
            Some(None) => Ending::Exited(0),
            None => lost(&exchange.reason().await),
        };
        if let Some(session) = idle {
            self.end(session, exchange, &ear, Use::Again).await;
        }
        drop(kept);
        ending
    }

    /// Takes the lock, and does nothing else.
    pub(crate) async fn take_lock(self: &Arc<Self>) -> Ending {
        match self.lock.before_step(self, Some(self.lock.moves())).await {
            Err(locked) => Ending::Locked(locked),
            Ok(None) => Ending::Exited(0),
            Ok(Some(guarded)) => self.ask_lock(guarded).await,
        }
    }

    /// Does what stands before a step, by itself.
    pub(crate) async fn ask_lock(self: &Arc<Self>, guarded: Guarded) -> Ending {
        let asked = tokio::time::timeout(DEADLINE, self.on_its_own(guarded)).await;
        asked.unwrap_or_else(|_| Ending::Lost { reason: "the host did not answer for its lock".to_owned(), begun: false })
    }

    /// Gives the lock back, where it was taken.
    pub(crate) async fn release(self: &Arc<Self>) {
        self.lock.stop_renewing();
        let script = {
            let mut state = self.lock.state();
            let standing = std::mem::take(&mut state.standing);
            let (Some(claimed), Standing::Held(place)) = (&state.claim, &standing) else { return };
            lock_script::release(&claimed.claim, &claimed.key, place, &temporary())
        };
        self.lock.claim(None, "");
        let guarded = Guarded { script, answer: Awaited { inner: self.clone(), kind: Kind::Check } };
        let _ = tokio::time::timeout(RELEASE_DEADLINE, self.on_its_own(guarded)).await;
    }
}
