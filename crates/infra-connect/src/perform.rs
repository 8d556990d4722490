//! One step of a change on a host, from its beginning to its ending.

use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::{Command, Shell};
use infra_core::connection::{Ending, OutputSink, Perform};
use infra_core::global_arguments::Context;
use infra_core::lock::Locked;
use infra_core::output::Stream;
use infra_core::privilege::{Privilege, Tool};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::envelope::{Dress, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::incoming::{Arriving, Incoming};
use crate::lock::{Awaited, Guarded};
use crate::payload::Payload;
use crate::privilege::{Kind, Refused};
use crate::reached::{Inner, Kills, Refusal, Request};
use crate::receipts::{Marks, Piece};
use crate::sessions::Use;
use crate::{download, privilege, script, tree_download, tree_upload, upload};

/// How long the second output may lag behind the first one's receipt or end.
pub(crate) const LAG: Duration = Duration::from_secs(2);
/// How much is kept of what was printed before a command began.
const PRELUDE: usize = 4096;

/// A step, made ready for the wire.
pub(crate) struct Task {
    pub(crate) marks: Marks<Mark>,
    pub(crate) script: String,
    pub(crate) payload: Payload,
    pub(crate) limit: Limit,
    /// How much longer it may be silent once all is sent, as it has much to check and to sync.
    afterwards: Duration,
    pub(crate) cleanup: Shell,
    /// The destination, for an upload: it has no output, and 0 is its only good end.
    pub(crate) dest: Option<String>,
    /// Whether it may leave processes behind, whose outputs must reach no other command.
    leaves_processes: bool,
}

impl Task {
    pub(crate) fn how(&self) -> Use {
        match (self.payload.reads_to_the_end(), self.leaves_processes) {
            (true, _) => Use::ToItsEnd,
            (false, true) => Use::Once,
            (false, false) => Use::Again,
        }
    }
}

/// When the time of a step is up.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    None,
    Whole(Duration),
    /// From the last bytes that went out.
    Stall(Duration),
}

/// How many bytes in a second a host digests and syncs at the least, once all of them are there.
const SLOWEST_DISK: u64 = 16 << 20;

/// Listens to commands, one of them at a time.
pub(crate) trait Turn: Listener {
    /// Whether nothing more is waited for.
    fn done(&self) -> bool;
    /// Whether one of the outputs is over, so that the other one should soon be.
    fn nearly_done(&self) -> bool;
}

/// Listens to one command.
pub(crate) struct Ear {
    pub(crate) sink: Option<OutputSink>,
    prelude: [Vec<u8>; 2],
    begun: [bool; 2],
    over: [bool; 2],
    /// The streams that are over by the command's own receipt.
    ended: [bool; 2],
    up: Option<u32>,
    ready: Option<u32>,
    /// The number of its frame in the shell that serves it.
    frame: i64,
    group: Option<u32>,
    end: Option<i32>,
    down: Option<i32>,
    /// Who hears what the lock answers.
    awaited: Option<Awaited>,
    /// What the lock answered.
    locked: Option<Option<Locked>>,
    /// Whether a change of user is part of the command, so that the shell which serves it goes on where that ends.
    within: bool,
}

fn side(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Ear {
    pub(crate) fn new(sink: Option<OutputSink>, frame: i64) -> Self {
        Self {
            sink,
            frame,
            prelude: [Vec::new(), Vec::new()],
            begun: [false; 2],
            over: [false; 2],
            ended: [false; 2],
            up: None,
            ready: None,
            group: None,
            end: None,
            down: None,
            awaited: None,
            locked: None,
            within: false,
        }
    }

    /// The same, which hands on what the lock answers.
    pub(crate) fn guarded(self, awaited: Option<Awaited>) -> Self {
        let within = awaited.as_ref().is_some_and(Awaited::is_of_a_step);
        Self { awaited, within, ..self }
    }

    /// What the lock answered, once it has: why the command is not run.
    pub(crate) fn locked(&self) -> Option<Option<&Locked>> {
        self.locked.as_ref().map(Option::as_ref)
    }

    /// The exit status of the command, by its receipt.
    pub(crate) fn end(&self) -> Option<i32> {
        self.end
    }

    /// The shell that changes the user, and the one that serves the command.
    pub(crate) fn shells(&self) -> (Option<u32>, Option<u32>) {
        (self.up, self.ready)
    }

    /// The process group to kill, and whether it is that of the user we changed to.
    pub(crate) fn target(&self) -> Option<(u32, bool)> {
        let serving = self.ready.map(|group| (group, true));
        self.group.map(|group| (group, true)).or(serving).or_else(|| self.up.map(|group| (group, false)))
    }

    /// What was said before the command began: a reason on the first output, words of some tool on the second.
    pub(crate) fn prelude(&self) -> String {
        let text = |stream: usize| String::from_utf8_lossy(&self.prelude[stream]).trim().to_owned();
        let (reason, detail) = (text(0), text(1));
        let last = |text: &str| text.lines().next_back().unwrap_or_default().trim().to_owned();
        match (last(&reason), last(&detail)) {
            (reason, detail) if detail.is_empty() => reason,
            (reason, detail) if reason.is_empty() => detail,
            (reason, detail) => format!("{reason}: {detail}"),
        }
    }

    /// Whether the command has begun, as this stream says.
    pub(crate) fn has_begun(&self, stream: Stream) -> bool {
        self.begun[side(stream)]
    }

    /// Whether this stream is over.
    pub(crate) fn is_over(&self, stream: Stream) -> bool {
        self.over[side(stream)]
    }

    /// Whether the command has a process group of its own by now.
    pub(crate) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Whether the process group of the command is known, or will never be.
    pub(crate) fn settled(&self) -> bool {
        self.group.is_some() || self.done()
    }

    /// Whether some shell took the command.
    pub(crate) fn taken(&self) -> bool {
        self.up.is_some() || self.ready.is_some()
    }

    /// Whether both outputs came to their end by the command's own receipt.
    pub(crate) fn ended_whole(&self) -> bool {
        self.ended == [true; 2]
    }

    /// The exit status of a change of user that never came to its command, and what was printed.
    pub(crate) fn refused_by(&self) -> Option<(i32, String)> {
        self.down.filter(|_| self.group.is_none() && !self.begun[0] && self.end.is_none()).map(|status| (status, self.printed()))
    }

    fn printed(&self) -> String {
        self.prelude.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect::<Vec<_>>().join("\n")
    }
}

impl Turn for Ear {
    fn done(&self) -> bool {
        self.over == [true; 2]
    }

    fn nearly_done(&self) -> bool {
        self.over[0]
    }
}

impl Listener for Ear {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        let at = side(stream);
        match piece {
            Piece::Bytes(_) if self.over[at] => {}
            Piece::Bytes(bytes) if self.begun[at] => {
                if let Some(sink) = &self.sink {
                    sink.take(stream, bytes);
                }
            }
            Piece::Bytes(bytes) => {
                self.prelude[at].extend_from_slice(bytes);
                let excess = self.prelude[at].len().saturating_sub(PRELUDE);
                self.prelude[at].drain(..excess);
            }
            Piece::Mark(Mark::Up, pid) => {
                self.up = u32::try_from(pid).ok();
                self.prelude[at].clear();
            }
            Piece::Mark(Mark::Lock, number) => {
                let said = String::from_utf8_lossy(&std::mem::take(&mut self.prelude[at])).into_owned();
                self.locked = self.awaited.take().map(|awaited| awaited.answered(number, &said));
            }
            Piece::Mark(Mark::Ready, pid) => {
                self.ready = u32::try_from(pid).ok();
                self.prelude[at].clear();
            }
            Piece::Mark(Mark::Group, pid) => self.group = u32::try_from(pid).ok(),
            Piece::Mark(Mark::Begin, _) => self.begun[at] = true,
            Piece::Mark(Mark::End, status) => {
                self.end = self.end.or(i32::try_from(status).ok());
                self.over[at] = true;
                self.ended[at] = true;
            }
            Piece::Mark(Mark::Down, status) => {
                self.down = i32::try_from(status).ok();
                self.over[at] = true;
                self.ended[at] |= self.within;
            }
            // Without a receipt before it, the shell of the command was killed; those of earlier frames say nothing.
            Piece::Mark(Mark::Over, frame) => self.over[at] |= frame == self.frame,
            Piece::Mark(Mark::Answer(_) | Mark::Asks | Mark::Next(_) | Mark::Open, _) => {}
        }
    }

    fn closed(&mut self, stream: Stream) {
        self.over[side(stream)] = true;
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.sink.as_ref().map_or_else(|| Box::pin(std::future::ready(())) as BoxFuture<'static, ()>, |sink| sink.room())
    }
}

/// What a step comes to that got no shell of its user.
struct NotThere {
    refused: Refused,
    /// Whether it was asked for in the way in which nothing asks back.
    unasked: bool,
}

/// The refusal of a step that was to write a file.
pub(crate) fn of_file(dest: Option<&str>, refused: Refused) -> Refused {
    match dest {
        Some(dest) => Refused { message: format!("{dest} was not written: {}", refused.message), ..refused },
        None => refused,
    }
}

/// The shell of a step: what a person wrote is read by the shell that they asked for.
pub(crate) fn dress<'c>(step: &Perform<'c>) -> Dress<'c> {
    match step.action {
        Action::Run(_) => Dress { shell: step.context.shell.as_deref(), terminal: step.context.get_pty },
        _ => Dress::default(),
    }
}

/// Why a command was stopped by us.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stopped {
    TimedOut,
    Killed,
}

impl Stopped {
    /// How a command ended that was stopped: whether it was `found` on the host, which process group is still there, and whether it may have begun.
    pub(crate) fn ending(self, after: Duration, found: bool, still_running: Option<u32>, begun: bool) -> Ending {
        match self {
            Self::Killed => Ending::Killed,
            Self::TimedOut if found => Ending::TimedOut { after, still_running },
            Self::TimedOut => Ending::Lost { reason: format!("the host did not start a shell within {} s", after.as_secs()), begun },
        }
    }
}

/// How a step ends that nobody began, as the run was interrupted.
pub(crate) fn interrupted() -> Ending {
    Ending::Refused("the run was interrupted before it began".to_owned())
}

impl Inner {
    /// Does one step of a change.
    pub(crate) async fn perform(self: &Arc<Self>, step: Perform<'_>, sink: OutputSink) -> Ending {
        match step.action {
            Action::Download(download) => self.take_in(download::incoming(download, &temporary_name()).await, step, sink).await,
            Action::DownloadTree(tree) => self.take_in(tree_download::incoming(tree, &temporary_name()).await, step, sink).await,
            _ => self.perform_within(step, sink, None).await,
        }
    }

    /// Has the host print something, which is written here. That only reads the host, whose lock it does not need.
    async fn take_in<A: Arriving>(self: &Arc<Self>, incoming: Result<Incoming<A>, String>, step: Perform<'_>, sink: OutputSink) -> Ending {
        let incoming = match incoming {
            Ok(incoming) => incoming,
            Err(reason) => return Ending::Refused(reason),
        };
        let limit = Limit::Stall(step.timeout.unwrap_or(self.settings.upload_stall));
        let read = Action::Run(incoming.command.clone());
        let reading = Perform { action: &read, as_of: None, ..step };
        let ending = self.perform_within(reading, incoming.sink(sink), Some(limit)).await;
        incoming.end(ending).await
    }

    /// Does one step; `limit` in place of the one that steps of its kind have.
    async fn perform_within(self: &Arc<Self>, step: Perform<'_>, sink: OutputSink, limit: Option<Limit>) -> Ending {
        let privilege = step.context.privilege.some();
        let mut refused = match self.perform_once(&step, privilege, sink.clone(), limit).await {
            Ok(ending) => return ending,
            Err(refused) => refused,
        };
        if let (Some(privilege), Kind::Needed(_), true) = (privilege, refused.refused.kind, refused.unasked) {
            self.doors.learn(privilege, &refused.refused);
            refused = match self.perform_once(&step, Some(privilege), sink.clone(), limit).await {
                Ok(ending) => return ending,
                Err(refused) => refused,
            };
        }
        match self.perform_singly(&step, &refused.refused, sink, limit).await {
            Some(ending) => ending,
            None => Ending::Refused(refused.refused.message),
        }
    }

    /// Does one command under sudo by itself, where the user may have no shell there but that command.
    async fn perform_singly(
        self: &Arc<Self>,
        step: &Perform<'_>,
        refused: &Refused,
        sink: OutputSink,
        limit: Option<Limit>,
    ) -> Option<Ending> {
        let context = step.context;
        let only_sudo = context.privilege.doas.is_none() && context.privilege.su.is_none();
        let sudo = context.privilege.sudo.as_ref().filter(|_| only_sudo)?;
        let (Action::Run(command), Kind::Needed(Tool::Sudo) | Kind::NotAllowed) = (step.action, refused.kind) else { return None };
        let may_not = || {
            format!(
                "{}; where it lets this user run single commands only, infra runs those that are a program and its words",
                refused.message
            )
        };
        let words = privilege::simple(command.script.as_str()).filter(|_| context.shell.is_none() && context.env.is_empty());
        let Some(words) = words.filter(|_| !sudo.login && !sudo.preserve_env) else { return Some(Ending::Refused(may_not())) };
        let action = Action::Run(Command { script: privilege::single(&sudo.user, &words), ..command.clone() });
        let check = infra_core::sh!("LC_ALL=C {} || infra_no {}\n", privilege::may_run(&sudo.user, &words), may_not());
        let unprivileged = Context { privilege: Privilege::default(), ..context.clone() };
        let alone = Perform { action: &action, context: &unprivileged, ..step.clone() };
        let task = match self.prepare(&alone).await {
            Ok(task) => Task { script: format!("{}{check}{}", script::refuse(), task.script), limit: limit.unwrap_or(task.limit), ..task },
            Err(reason) => return Some(Ending::Refused(reason)),
        };
        Some(self.perform_task(task, &alone, None, sink).await.unwrap_or_else(|refused| Ending::Refused(refused.refused.message)))
    }

    /// Does one step as it is.
    async fn perform_once(
        self: &Arc<Self>,
        step: &Perform<'_>,
        privilege: Option<&Privilege>,
        sink: OutputSink,
        limit: Option<Limit>,
    ) -> Result<Ending, NotThere> {
        match self.prepare(step).await {
            Ok(task) => self.perform_task(Task { limit: limit.unwrap_or(task.limit), ..task }, step, privilege, sink).await,
            Err(reason) => Ok(Ending::Refused(reason)),
        }
    }

    async fn perform_task(
        self: &Arc<Self>,
        task: Task,
        step: &Perform<'_>,
        privilege: Option<&Privilege>,
        sink: OutputSink,
    ) -> Result<Ending, NotThere> {
        let dest = task.dest.as_deref();
        let mut kills = self.kills();
        let _flight = self.flight();
        let guarded = match self.lock_before(step, privilege, &mut kills).await {
            Ok(guarded) => guarded,
            Err(ending) => return Ok(ending),
        };
        let lock = guarded.as_ref().map(|guarded| &guarded.script);
        // The lock is that of the user who is logged in, so that a shell of that user has a look at it and then changes the user, all in one round trip.
        let serving = privilege.filter(|_| lock.is_none());
        let how = task.how();
        let session = tokio::select! {
            biased;
            _ = kills.changed() => return Ok(interrupted()),
            session = self.session(serving, how) => session,
        };
        let mut session = match session {
            Ok(session) => session,
            Err(Refusal::Refused(reason)) => return Ok(Ending::Refused(reason)),
            Err(Refusal::Privilege(refused)) => return Err(NotThere { refused: of_file(dest, refused), unasked: false }),
            Err(Refusal::Lost(reason)) => return Ok(Ending::Lost { reason, begun: false }),
        };
        let started = Instant::now();
        self.command_goes_out();
        let frame = session.frame;
        let request =
            Request { privilege, lock, script: &task.script, dress: dress(step), marks: task.marks, payload: task.payload, after: false };
        let mut exchange = self.begin(&mut session, request, how);
        exchange.progress().tell(sink.clone());
        let mut ear = Ear::new(Some(sink), frame).guarded(guarded.map(|guarded| guarded.answer));
        let stopped = self.listen(&mut exchange, &mut ear, task.limit, task.afterwards, &mut kills).await;
        if let Some(stopped) = stopped {
            let after = started.elapsed();
            self.settle(&mut exchange, &mut ear, Ear::settled).await;
            let killing = self.stop(ear.target(), privilege, &task.cleanup);
            let still_running = hear_out(&mut exchange, &mut ear, killing).await;
            return Ok(stopped.ending(after, ear.target().is_some(), still_running, exchange.progress().begun(0)));
        }
        let locked = matches!(ear.locked(), Some(Some(_)));
        if let (Some((status, printed)), Some(privilege), false) = (ear.refused_by(), privilege, locked) {
            self.command_came_back();
            self.end(session, exchange, &ear, how).await;
            return Err(NotThere { refused: of_file(dest, privilege::refusal(privilege, status, &printed)), unasked: true });
        }
        let ending = self.judge(&mut exchange, &ear, 0, dest).await;
        self.end(session, exchange, &ear, how).await;
        Ok(ending)
    }

    /// What stands before a step for the lock, in the shell that is to serve it: nothing where the lock was asked by itself.
    ///
    /// # Errors
    /// How the step ends where it is not to be done.
    pub(crate) async fn lock_before(
        self: &Arc<Self>,
        step: &Perform<'_>,
        privilege: Option<&Privilege>,
        kills: &mut watch::Receiver<Kills>,
    ) -> Result<Option<Guarded>, Ending> {
        let mut guarded = tokio::select! {
            biased;
            _ = kills.changed() => return Err(interrupted()),
            guarded = self.lock.before_step(self, step.as_of) => guarded.map_err(Ending::Locked)?,
        };
        // A shell that a password stands before is opened once and kept, so that the lock is asked by itself.
        let by_itself = privilege.is_some_and(|privilege| self.doors.converses(privilege));
        let Some(alone) = guarded.take_if(|_| by_itself) else { return Ok(guarded) };
        let ending = tokio::select! {
            biased;
            _ = kills.changed() => return Err(interrupted()),
            ending = self.ask_lock(alone) => ending,
        };
        if ending == Ending::Exited(0) { Ok(None) } else { Err(ending) }
    }

    /// Makes a step ready for the wire.
    ///
    /// # Errors
    /// Why it cannot be done, as a sentence fragment.
    pub(crate) async fn prepare(&self, step: &Perform<'_>) -> Result<Task, String> {
        let mut marks = Marks::new();
        let whole = step.timeout.map_or(Limit::None, Limit::Whole);
        let name = temporary_name();
        let afterwards = |bytes: u64| Duration::from_secs(bytes / SLOWEST_DISK);
        let mut task = match step.action {
            Action::Run(command) => {
                let begin = marks.add(Mark::Begin);
                let payload = match (&command.stdin, &command.stdin_file, &step.context.stdin) {
                    (Some(bytes), ..) => Payload::Stream(Arc::new(bytes.clone())),
                    (None, Some(file), _) => Payload::File(file.clone()),
                    (None, None, Some(text)) => Payload::Stream(Arc::new(text.clone().into_bytes())),
                    (None, None, None) => Payload::none(),
                };
                // Who reads an input is not given another one. One that is empty is none: nothing is there to bring the input of the shell to its end.
                let stdin = command.stdin.clone().or_else(|| step.context.stdin.clone().map(String::into_bytes));
                let stdin = stdin.filter(|bytes| !bytes.is_empty());
                let command = &Command { stdin, ..command.clone() };
                let script = script::run(command, step.context, &begin)?;
                let leaves_processes = command.leaves_processes;
                Task {
                    script,
                    marks,
                    payload,
                    limit: whole,
                    afterwards: Duration::ZERO,
                    cleanup: Shell::verbatim(":"),
                    dest: None,
                    leaves_processes,
                }
            }
            Action::Script(_) if step.context.stdin.is_some() || step.context.get_pty => {
                return Err("a script that is sent to the host takes no `_stdin` and no `_get_pty`: run it as a command".to_owned());
            }
            Action::Script(run) => {
                let interpreter = script::interpreter(&script::first_bytes(&run.content).await?)?;
                let begin = marks.add(Mark::Begin);
                let place = script::place(&name);
                let script = script::program(run, &interpreter, &place, step.context, &begin, self.abilities.serves)?;
                let cleanup = infra_core::sh!("{}; rm -f -- \"$infra_t\"", place);
                Task {
                    script,
                    marks,
                    payload: Payload::Checked(run.content.clone()),
                    limit: whole,
                    afterwards: Duration::ZERO,
                    cleanup,
                    dest: None,
                    leaves_processes: true,
                }
            }
            Action::Upload(wanted) => Task {
                script: upload::script(wanted, &name, self.abilities.serves).as_str().to_owned(),
                marks,
                payload: Payload::Checked(wanted.content.clone()),
                limit: Limit::Stall(step.timeout.unwrap_or(self.settings.upload_stall)),
                afterwards: afterwards(wanted.content.size()),
                cleanup: upload::cleanup(wanted, &name),
                dest: Some(wanted.dest.clone()),
                leaves_processes: false,
            },
            Action::UploadTree(tree) => {
                let begin = marks.add(Mark::Begin);
                let written = tree_upload::prepare(tree, &name, &begin)?;
                Task {
                    script: written.script,
                    marks,
                    payload: Payload::Tree(written.stream),
                    limit: Limit::Stall(step.timeout.unwrap_or(self.settings.upload_stall)),
                    afterwards: afterwards(tree.size()),
                    cleanup: written.cleanup,
                    dest: Some(tree.root.clone()),
                    leaves_processes: false,
                }
            }
            Action::Download(_) | Action::DownloadTree(_) | Action::Controller(_) => return Err("it is no step of a host".to_owned()),
        };
        if let Some(umask) = step.context.umask {
            task.script.insert_str(0, &format!("umask {umask:03o}\n"));
        }
        if task.script.contains('\0') {
            return Err("a command cannot hold a NUL character".to_owned());
        }
        Ok(task)
    }

    /// Listens until the command is over, its time is up or it is to be killed.
    pub(crate) async fn listen(
        &self,
        exchange: &mut Exchange,
        ear: &mut impl Turn,
        limit: Limit,
        afterwards: Duration,
        kills: &mut watch::Receiver<Kills>,
    ) -> Option<Stopped> {
        let started = Instant::now();
        let mut lag: Option<Instant> = None;
        while !ear.done() {
            let limit = match limit {
                Limit::Stall(limit) if exchange.progress().whole() => Limit::Stall(limit + afterwards),
                limit => limit,
            };
            let deadline = match limit {
                Limit::None => None,
                Limit::Whole(limit) => Some(started + limit),
                Limit::Stall(limit) => Some(exchange.progress().moved() + limit),
            };
            if ear.nearly_done() && lag.is_none() {
                lag = Some(Instant::now() + LAG);
            }
            tokio::select! {
                step = exchange.step(ear) => if step == Step::Closed { break },
                () = until(lag) => break,
                () = until(deadline) => {
                    // An upload may have moved while we slept.
                    let stalled = |limit| exchange.progress().moved().elapsed() >= limit;
                    if !matches!(limit, Limit::Stall(limit) if !stalled(limit)) && !ear.nearly_done() {
                        return Some(Stopped::TimedOut);
                    }
                }
                _ = kills.changed(), if !ear.nearly_done() => return Some(Stopped::Killed),
            }
        }
        None
    }

    /// Waits a little for the process group of a command that is to be killed: it may be about to leave that of the first shell.
    pub(crate) async fn settle<L: Listener>(&self, exchange: &mut Exchange, listener: &mut L, settled: impl Fn(&L) -> bool) {
        let end = Instant::now() + LAG;
        while self.abilities.setsid && !settled(listener) {
            tokio::select! {
                step = exchange.step(listener) => if step == Step::Closed { break },
                () = tokio::time::sleep_until(end) => break,
            }
        }
    }

    /// Kills a command. Gives the process group that is still there.
    pub(crate) async fn stop(self: &Arc<Self>, target: Option<(u32, bool)>, privilege: Option<&Privilege>, cleanup: &Shell) -> Option<u32> {
        let (group, privileged) = target?;
        let gone = self.kill_group(group, privilege.filter(|_| privileged), cleanup).await;
        (!gone).then_some(group)
    }

    /// How a step ended, from what was heard of it; `part` is its place in what was sent.
    pub(crate) async fn judge(&self, exchange: &mut Exchange, ear: &Ear, part: usize, dest: Option<&str>) -> Ending {
        if let Some(Some(locked)) = ear.locked() {
            return Ending::Locked(locked.clone());
        }
        let begun = exchange.progress().begun(part);
        let refused = |reason: String| {
            Ending::Refused(match dest {
                Some(dest) => format!("{dest} was not written: {reason}"),
                None => reason,
            })
        };
        match ear.end {
            // It read less than it was to read, or something else.
            Some(_) if ear.begun[0] && exchange.progress().fault().is_some() => {
                Ending::Lost { reason: exchange.progress().fault().unwrap_or_default(), begun }
            }
            Some(status) if ear.begun[0] => Ending::Exited(status),
            Some(0) if dest.is_some() => Ending::Exited(0),
            // Its shell was killed, by somebody else: the file may have been in place already.
            Some(status) if dest.is_some() && status > 128 && begun => {
                Ending::Lost { reason: format!("the shell that wrote the file was killed (exit status {status})"), begun }
            }
            Some(status) => {
                let said = exchange.progress().fault().unwrap_or_else(|| ear.prelude());
                refused(if said.is_empty() { format!("its shell ended with exit status {status}") } else { said })
            }
            None => Ending::Lost { reason: exchange.reason().await, begun },
        }
    }
}

/// The name of a temporary file: with 64 random bits it is not to be guessed by who would put something in its place.
fn temporary_name() -> String {
    format!(".infra-{:016x}", rand::random::<u64>())
}

/// Waits for a moment, or for ever.
pub(crate) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Goes on listening while a command is killed, and a little longer, for its last words.
pub(crate) async fn hear_out<T>(exchange: &mut Exchange, ear: &mut impl Turn, killing: impl Future<Output = T>) -> T {
    let mut killing = std::pin::pin!(killing);
    let result = loop {
        tokio::select! {
            result = &mut killing => break result,
            step = exchange.step(ear) => if step == Step::Closed { break killing.await },
        }
    };
    let end = Instant::now() + Duration::from_millis(500);
    while !ear.done() {
        tokio::select! {
            step = exchange.step(ear) => if step == Step::Closed { break },
            () = tokio::time::sleep_until(end) => break,
        }
    }
    result
}
