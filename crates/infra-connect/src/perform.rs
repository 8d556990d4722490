//! One step of a change on a host, from its beginning to its ending.

use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::Shell;
use infra_core::connection::{Ending, OutputSink, Perform};
use infra_core::output::Stream;
use tokio::time::Instant;

use crate::download::Incoming;
use crate::envelope::Mark;
use crate::exchange::{Exchange, Listener, Step};
use crate::payload::Payload;
use crate::reached::{Inner, Refusal};
use crate::receipts::{Marks, Piece};
use crate::sessions::Use;
use crate::{privilege, script, upload};

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
        }
    }

    /// The exit status of the command, by its receipt.
    pub(crate) fn end(&self) -> Option<i32> {
        self.end
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
            }
            // Without a receipt before it, the shell of the command was killed; those of earlier frames say nothing.
            Piece::Mark(Mark::Over, frame) => self.over[at] |= frame == self.frame,
            Piece::Mark(Mark::Answer(_), _) => {}
        }
    }

    fn closed(&mut self, stream: Stream) {
        self.over[side(stream)] = true;
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.sink.as_ref().map_or_else(|| Box::pin(std::future::ready(())) as BoxFuture<'static, ()>, |sink| sink.room())
    }
}

/// Why a command was stopped by us.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stopped {
    TimedOut,
    Killed,
}

impl Inner {
    /// Does one step of a change.
    pub(crate) async fn perform(self: &Arc<Self>, step: Perform<'_>, sink: OutputSink) -> Ending {
        let Action::Download(download) = step.action else { return self.perform_within(step, sink, None).await };
        let incoming = match Incoming::open(download, &temporary_name()).await {
            Ok(incoming) => incoming,
            Err(reason) => return Ending::Refused(reason),
        };
        let read = Action::Run(incoming.command());
        let limit = Limit::Stall(step.timeout.unwrap_or(self.settings.upload_stall));
        let ending = self.perform_within(Perform { action: &read, ..step }, incoming.sink(sink), Some(limit)).await;
        incoming.end(ending).await
    }

    /// Does one step; `limit` in place of the one that steps of its kind have.
    async fn perform_within(self: &Arc<Self>, step: Perform<'_>, sink: OutputSink, limit: Option<Limit>) -> Ending {
        let user = step.context.sudo.as_deref();
        let task = match self.prepare(&step).await {
            Ok(task) => Task { limit: limit.unwrap_or(task.limit), ..task },
            Err(reason) => return Ending::Refused(reason),
        };
        let mut kills = self.kills();
        let _flight = self.flight();
        let how = task.how();
        let session = tokio::select! {
            biased;
            _ = kills.changed() => return Ending::Refused("the run was interrupted before it began".to_owned()),
            session = self.session(user, how) => session,
        };
        let mut session = match session {
            Ok(session) => session,
            Err(Refusal::Refused(reason)) => return Ending::Refused(reason),
            Err(Refusal::Lost(reason)) => return Ending::Lost { reason, begun: false },
        };
        let started = Instant::now();
        self.command_goes_out();
        let frame = session.frame;
        let mut exchange = self.begin(&mut session, user, &task.script, task.marks, task.payload, how);
        let mut ear = Ear::new(Some(sink), frame);
        let stopped = self.listen(&mut exchange, &mut ear, task.limit, &mut kills).await;
        if let Some(stopped) = stopped {
            let after = started.elapsed();
            self.settle(&mut exchange, &mut ear, Ear::settled).await;
            let killing = self.stop(ear.target(), user, &task.cleanup);
            let still_running = hear_out(&mut exchange, &mut ear, killing).await;
            return match (stopped, ear.target()) {
                (Stopped::Killed, _) => Ending::Killed,
                (Stopped::TimedOut, Some(_)) => Ending::TimedOut { after, still_running },
                (Stopped::TimedOut, None) => {
                    let reason = format!("the host did not start a shell within {} s", after.as_secs());
                    Ending::Lost { reason, begun: exchange.progress().begun(0) }
                }
            };
        }
        let ending = self.judge(&mut exchange, &ear, 0, user, task.dest.as_deref()).await;
        self.end(session, exchange, &ear, how).await;
        ending
    }

    pub(crate) async fn prepare(&self, step: &Perform<'_>) -> Result<Task, String> {
        let mut marks = Marks::new();
        let whole = step.timeout.map_or(Limit::None, Limit::Whole);
        let name = temporary_name();
        let task = match step.action {
            Action::Run(command) => {
                let begin = marks.add(Mark::Begin);
                let payload = command.stdin.clone().map_or_else(Payload::none, |bytes| Payload::Stream(Arc::new(bytes)));
                let script = script::run(command, step.context, &begin)?;
                let leaves_processes = command.leaves_processes;
                Task { script, marks, payload, limit: whole, cleanup: Shell::verbatim(":"), dest: None, leaves_processes }
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
                cleanup: upload::cleanup(wanted, &name),
                dest: Some(wanted.dest.clone()),
                leaves_processes: false,
            },
            Action::Download(_) | Action::Controller(_) => return Err("it is no step of a host".to_owned()),
        };
        if task.script.contains('\0') {
            return Err("a command cannot hold a NUL character".to_owned());
        }
        Ok(task)
    }

    /// Listens until the command is over, its time is up or it is to be killed.
    pub(crate) async fn listen<L: Turn>(
        &self,
        exchange: &mut Exchange,
        ear: &mut L,
        limit: Limit,
        kills: &mut tokio::sync::watch::Receiver<crate::reached::Kills>,
    ) -> Option<Stopped> {
        let started = Instant::now();
        let mut lag: Option<Instant> = None;
        while !ear.done() {
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
    pub(crate) async fn stop(self: &Arc<Self>, target: Option<(u32, bool)>, user: Option<&str>, cleanup: &Shell) -> Option<u32> {
        let (group, privileged) = target?;
        let gone = self.kill_group(group, user.filter(|_| privileged), cleanup).await;
        (!gone).then_some(group)
    }

    /// How a step ended, from what was heard of it; `part` is its place in what was sent.
    pub(crate) async fn judge(&self, exchange: &mut Exchange, ear: &Ear, part: usize, user: Option<&str>, dest: Option<&str>) -> Ending {
        let begun = exchange.progress().begun(part);
        let refused = |reason: String| {
            Ending::Refused(match dest {
                Some(dest) => format!("{dest} was not written: {reason}"),
                None => reason,
            })
        };
        if let Some((status, printed)) = ear.refused_by() {
            return refused(privilege::refusal(user.unwrap_or("root"), status, &printed));
        }
        match ear.end {
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
