//! The shells of a host: which are open, which are free, and who must wait.
//!
//! A shell that was started serves commands one after the other for as long as nothing that one of them left behind could reach the next one; so most
//! commands find one open and cost a single round trip. What may leave processes behind, and what reads its input to the end, takes a shell with
//! it. The first one of a connection may be one whose end is that of the connection ([`Process::ends`]): it is never taken along while others
//! can be had, unless nothing is to come after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use infra_core::connection::Crowded;
use infra_core::privilege::Privilege;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::reached::Refusal;
use crate::receipts::Tag;
use crate::spawn::{Process, Spawn, SpawnError};

/// What a command does to the shell that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// It leaves it as it was.
    Again,
    /// It may leave something behind.
    Once,
    /// Besides, it reads its input to the end.
    ToItsEnd,
}

/// Which shells are of no use any more, since they have what was changed as it was when they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outdated {
    /// Those that changed to another user than root.
    OfUsers,
    /// All.
    All,
}

impl Outdated {
    fn includes(self, user: Option<&Privilege>) -> bool {
        self == Self::All || user.is_some_and(|privilege| privilege.user() != Some("root"))
    }
}

/// All shells of one host.
pub(crate) struct Sessions {
    spawner: Arc<dyn Spawn>,
    state: Mutex<State>,
    changed: Notify,
    widening: tokio::sync::Mutex<()>,
    /// How many were asked for.
    asked: AtomicU64,
}

struct State {
    idle: Vec<Idle>,
    /// How many are open, idle ones included.
    open: usize,
    /// How many may be: as many as the host lets us have of those that its connections are asked for.
    limit: usize,
    /// How many its connections are asked for.
    most: usize,
    connections: usize,
    /// How many of the open ones nobody can use any more.
    spent: usize,
    /// Why the host opened no further one, when it last did not.
    refused: Option<String>,
    /// How many were taken along by a command.
    used_up: usize,
    /// How often shells of users, and all of them, were outdated: one that was taken before is let go where it would be given back.
    renewed: Renewed,
    /// Whether nothing comes after the next command.
    one_command: bool,
    closed: bool,
}

#[derive(Clone, Copy, Default)]
struct Renewed {
    of_users: u64,
    all: u64,
}

impl Renewed {
    fn outdates(self, taken: Self, user: Option<&Privilege>) -> bool {
        self.all > taken.all || (self.of_users > taken.of_users && Outdated::OfUsers.includes(user))
    }
}

/// A shell that nobody uses. Without a tag it has not been told anything yet, and so has no user either.
struct Idle {
    process: Process,
    serves: Option<(Tag, Option<Privilege>)>,
    /// How many frames it was given.
    frames: i64,
    /// Whether it has what was changed as it was before: it is of use only where there is no other.
    outdated: bool,
}

impl Idle {
    /// One that was just started.
    fn fresh(process: Process) -> Self {
        Self { process, serves: None, frames: 0, outdated: false }
    }
}

/// A shell in use. Dropping it ends it.
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    /// Its process, until an exchange takes it.
    pub(crate) process: Option<Process>,
    /// What its frames begin with; none where it was not opened yet.
    pub(crate) tag: Option<Tag>,
    /// Whose shell it is; none for the user who is logged in.
    pub(crate) user: Option<Privilege>,
    /// How many frames it was given, the one to come included.
    pub(crate) frame: i64,
    /// Whether its place is free once it has ended.
    ends: bool,
    given_back: bool,
    /// What had been renewed when it was taken.
    taken: Renewed,
    outdated: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.given_back {
            let mut state = self.sessions.state();
            if self.ends {
                state.open -= 1;
            } else {
                state.spent += 1;
            }
        }
        self.sessions.changed.notify_waiters();
    }
}

#[expect(clippy::large_enum_variant, reason = "it is made and taken apart at once, never kept")]
enum Take {
    Idle(Idle),
    Spawn,
    Wait,
    Never(Refusal),
}

impl Sessions {
    /// At most so many at once. With `one_command` the first one may be taken along while others could be had.
    pub(crate) fn new(spawner: Arc<dyn Spawn>, limit: usize, one_command: bool) -> Arc<Self> {
        let state = State {
            idle: Vec::new(),
            open: 0,
            limit,
            most: limit,
            connections: 1,
            spent: 0,
            refused: None,
            used_up: 0,
            renewed: Renewed::default(),
            one_command,
            closed: false,
        };
        Arc::new(Self {
            spawner,
            state: Mutex::new(state),
            changed: Notify::new(),
            widening: tokio::sync::Mutex::new(()),
            asked: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    /// How many shells were asked for.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    async fn spawn(&self) -> Result<Process, SpawnError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.spawner.spawn().await
    }

    /// Takes over a shell that was started elsewhere, serves frames with this tag, and was given one.
    pub(crate) fn add(&self, process: Process, tag: Tag) {
        let mut state = self.state();
        state.open += 1;
        state.idle.push(Idle { process, serves: Some((tag, None)), frames: 1, outdated: false });
    }

    /// Takes over a shell that is open and of no more use.
    pub(crate) fn add_spent(&self, process: Process) {
        if !process.ends {
            let mut state = self.state();
            state.open += 1;
            state.spent += 1;
        }
    }

    /// A shell that serves `user`, or one that was told nothing yet, once there is one or a place for one.
    pub(crate) async fn take(self: &Arc<Self>, user: Option<&Privilege>, how: Use) -> Result<Session, Refusal> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let taken = self.state().take(user, how);
            match taken {
                Take::Idle(idle) => {
                    self.spare(how);
                    return Ok(self.session(idle, user));
                }
                Take::Spawn => match self.spawn().await {
                    Ok(process) => {
                        self.spare(how);
                        return Ok(self.session(Idle::fresh(process), user));
                    }
                    Err(SpawnError::Lost(reason)) => {
                        self.state().open -= 1;
                        self.changed.notify_waiters();
                        return Err(Refusal::Lost(reason));
                    }
                    Err(SpawnError::Refused(reason)) => {
                        if let Some(refusal) = self.state().refuse(reason) {
                            return Err(refusal);
                        }
                    }
                },
                Take::Wait => changed.await,
                Take::Never(refusal) => return Err(refusal),
            }
        }
    }

    /// Whether there is a shell that serves this user, and nobody uses it.
    pub(crate) fn serves(&self, user: &Privilege) -> bool {
        self.state().idle.iter().any(|idle| !idle.outdated && matches!(&idle.serves, Some((_, Some(of))) if of == user))
    }

    /// A shell of the user who is logged in that serves already, if nobody uses it.
    pub(crate) fn take_idle(self: &Arc<Self>) -> Option<Session> {
        let mut state = self.state();
        let at = state.idle.iter().position(|idle| matches!(idle.serves, Some((_, None))))?;
        let idle = state.idle.remove(at);
        drop(state);
        Some(self.session(idle, None))
    }

    fn session(self: &Arc<Self>, idle: Idle, user: Option<&Privilege>) -> Session {
        Session {
            sessions: self.clone(),
            ends: idle.process.ends,
            process: Some(idle.process),
            tag: idle.serves.map(|(tag, _)| tag),
            user: user.cloned(),
            frame: idle.frames + 1,
            given_back: false,
            taken: self.state().renewed,
            outdated: idle.outdated,
        }
    }

    /// Shells are outdated: idle ones are let go, and so are those in use once they are free. The first shell of a connection, which holds that open,
    /// stays for the case that there can be no other.
    pub(crate) fn renew(&self, outdated: Outdated) {
        let mut state = self.state();
        match outdated {
            Outdated::OfUsers => state.renewed.of_users += 1,
            Outdated::All => state.renewed.all += 1,
        }
        let before = state.idle.len();
        for idle in &mut state.idle {
            idle.outdated |= outdated.includes(idle.serves.as_ref().and_then(|(_, user)| user.as_ref()));
        }
        state.idle.retain(|idle| !(idle.outdated && idle.process.ends));
        state.open -= before - state.idle.len();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Where commands take shells along again and again, the next one is opened while this one runs.
    fn spare(self: &Arc<Self>, how: Use) {
        {
            let mut state = self.state();
            if how == Use::Again {
                return;
            }
            state.used_up += 1;
            let fresh = state.idle.iter().any(|idle| idle.serves.is_none());
            if state.used_up < 2 || fresh || state.closed || state.open >= state.limit {
                return;
            }
            state.open += 1;
        }
        let sessions = self.clone();
        tokio::spawn(async move {
            let spawned = sessions.spawn().await;
            let mut state = sessions.state();
            match spawned {
                Ok(process) if !state.closed => state.idle.push(Idle::fresh(process)),
                Ok(_) => state.open -= 1,
                Err(SpawnError::Refused(reason)) => drop(state.refuse(reason)),
                Err(SpawnError::Lost(_)) => state.open -= 1,
            }
            drop(state);
            sessions.changed.notify_waiters();
        });
    }

    /// Opens shells until so many are idle, on as many connections as that takes. Gives the number of connections that were opened for it.
    ///
    /// # Errors
    /// When the host does not bear that many, with the numbers.
    pub(crate) async fn prepare_for(&self, commands: usize) -> Result<usize, Crowded> {
        let _one = self.widening.lock().await;
        let (more, connections) = {
            let state = self.state();
            // The first shell of a further connection only holds that open.
            let each = self.spawner.sessions().saturating_sub(2).max(1);
            let more = commands.saturating_sub(state.most - state.spent).div_ceil(each);
            (more, state.connections + more)
        };
        if more > 0 {
            self.spawner.widen(connections).await.map_err(|error| Crowded {
                message: format!(
                    "{commands} commands at once need {connections} connections to the host, and not all of them could be opened: {}",
                    error.message
                ),
                hint: error.hint.or_else(|| {
                    Some("put fewer operations into the block, or let more in: MaxStartups and MaxSessions in its sshd_config".to_owned())
                }),
            })?;
        }
        let missing = {
            let mut state = self.state();
            state.connections = connections;
            state.most += more * self.spawner.sessions().saturating_sub(2).max(1);
            // What a host did not want before, it may want now: it is asked before anything runs.
            state.limit = state.most;
            let missing = commands.saturating_sub(state.idle.len());
            state.open += missing;
            missing
        };
        let mut starting = JoinSet::new();
        self.asked.fetch_add(missing as u64, Ordering::Relaxed);
        for _ in 0..missing {
            let spawner = self.spawner.clone();
            starting.spawn(async move { spawner.spawn().await });
        }
        let mut why = None;
        while let Some(started) = starting.join_next().await {
            let mut state = self.state();
            match started {
                Ok(Ok(process)) => state.idle.push(Idle::fresh(process)),
                Ok(Err(error)) => {
                    state.open -= 1;
                    why = Some(error.to_string());
                }
                Err(error) => {
                    state.open -= 1;
                    why = Some(format!("the start of a shell came to no end: {error}"));
                }
            }
        }
        self.changed.notify_waiters();
        let Some(why) = why else { return Ok(more) };
        let there = self.state().idle.len();
        let over = if connections == 1 { "one connection".to_owned() } else { format!("{connections} connections") };
        Err(Crowded {
            message: format!("{commands} commands at once are needed on the host, and over {over} there are {there} shells: {why}"),
            hint: Some(
                "put fewer operations into the block, or let more in: `MaxSessions` in its sshd_config, 10 where it is not set".to_owned(),
            ),
        })
    }

    /// No shell is given any more; the idle ones end.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.idle.clear();
        drop(state);
        self.changed.notify_waiters();
    }
}

impl State {
    fn take(&mut self, user: Option<&Privilege>, how: Use) -> Take {
        if self.closed {
            return Take::Never(Refusal::Lost("the connection was closed".to_owned()));
        }
        let serves = |idle: &Idle| idle.serves.as_ref().is_none_or(|(_, of)| of.as_ref() == user);
        // One that serves this user already is better than one that was told nothing yet.
        let best = |kind: &dyn Fn(&Idle) -> bool| {
            let all = || self.idle.iter().enumerate().filter(|(_, idle)| serves(idle) && kind(idle));
            let (at, _) = all().find(|(_, idle)| idle.serves.is_some()).or_else(|| all().next())?;
            Some(at)
        };
        let any = how == Use::Again || (how == Use::Once && self.one_command);
        let found = best(&|idle| !idle.outdated && (any || idle.process.ends));
        if let Some(at) = found {
            return Take::Idle(self.idle.remove(at));
        }
        if self.open < self.limit {
            self.open += 1;
            return Take::Spawn;
        }
        // Who serves somebody else makes room.
        if let Some(at) = self.idle.iter().position(|idle| idle.process.ends) {
            self.idle.remove(at);
            return Take::Spawn;
        }
        // The last resort: the host lets us have no other.
        if let Some(at) = best(&|idle| how == Use::Once || (how == Use::Again && idle.outdated)) {
            return Take::Idle(self.idle.remove(at));
        }
        if self.open > self.idle.len() + self.spent {
            return Take::Wait;
        }
        let reason = self.refused.clone().unwrap_or_else(|| "no further shell can be opened there".to_owned());
        Take::Never(Refusal::Refused(reason))
    }

    /// The host wants fewer of them than we would use. The one that asked gives its place up.
    fn refuse(&mut self, reason: String) -> Option<Refusal> {
        self.open -= 1;
        if self.open == 0 {
            return Some(Refusal::Refused(reason));
        }
        self.limit = self.open;
        self.refused = Some(reason);
        None
    }
}

impl Session {
    /// The shell serves on: what it was asked for has ended, and its outputs are at the beginning of what comes next.
    pub(crate) fn give_back(mut self, process: Process) {
        let tag = self.tag.take();
        let mut state = self.sessions.state();
        let outdated = self.outdated || state.renewed.outdates(self.taken, self.user.as_ref());
        if let Some(tag) = tag
            && !state.closed
            && !(process.ends && outdated)
        {
            self.given_back = true;
            state.idle.push(Idle { process, serves: Some((tag, self.user.take())), frames: self.frame, outdated });
        }
        // Dropping tells who waits.
        drop(state);
    }
}
