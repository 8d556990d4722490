//! Steps that go out together, and questions behind them, in one request.
//!
//! A shell that serves takes its frames one after the other. So the frames of several steps can be sent before the first of them is done: each one but the
//! first is done only after a good end of the one before, which the shell itself judges by the exit status. The questions behind come last, in the same
//! shell and as the same user, however the steps went. Before a step that is killed, the shell is, so that nothing behind it begins.
//!
//! What stands between, so that a request of its own begins: a step that may leave processes behind or reads its input to the end (it takes its
//! shell along, so it may only be the last), a content above 1 MiB, a tree, a step at a terminal, what is done on this machine, and a download. Behind a
//! password each step asks for the lock by itself, so that it goes out alone. Where the user cannot be had in passing, each step finds its own way.

use std::collections::VecDeque;
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::Shell;
use infra_core::connection::{Ending, LinedUp, Lineup, OutputSink, Perform, Question};
use infra_core::output::{Output, Stream};
use infra_core::privilege::Privilege;
use infra_core::sh;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use crate::envelope::{Dress, Mark};
use crate::exchange::{Exchange, Listener, Step};
use crate::gather::Answers;
use crate::payload::Payload;
use crate::perform::{Ear, LAG, Limit, Task, Turn, dress, hear_out, interrupted, of_file, until};
use crate::privilege::refusal;
use crate::reached::{CLOSED, Flight, Frames, Inner, Kills, Reached, Refusal, Request};
use crate::receipts::{Marks, Piece};
use crate::sessions::{Session, Use};
use crate::together::{Open, Together};

/// A larger content goes out in a request of its own, in bytes.
const JOINED: u64 = 1024 * 1024;
/// How many bytes of a later step's output are held while an earlier step is still heard out.
const AHEAD: usize = 64 * 1024;

/// The steps of a change on one host.
pub(crate) struct Joined<'a> {
    reached: &'a Reached,
    inner: &'a Arc<Inner>,
    /// Those that were not sent yet.
    steps: VecDeque<Perform<'a>>,
    behind: Vec<Question>,
    sent: Option<Sent<'a>>,
    /// Each step goes out by itself.
    apart: bool,
}

/// What went out in one request.
struct Sent<'a> {
    session: Session,
    exchange: Exchange,
    parts: Parts,
    privilege: Option<&'a Privilege>,
    how: Use,
    steps: Vec<Ahead<'a>>,
    kills: watch::Receiver<Kills>,
    _flight: Flight<'a>,
}

impl Sent<'_> {
    /// The process id of the shell that takes the frames, as far as this step has heard it.
    fn server(&self, turn: usize) -> Option<u32> {
        let (up, ready) = self.parts.ears[turn].shells();
        let changes_within = self.privilege.is_some() && self.session.user.is_none();
        if changes_within { up } else { ready }
    }

    /// Takes back the count of the steps behind this one that no shell has begun.
    fn take_back(&self, inner: &Inner, turn: usize) {
        let behind = self.parts.ears.iter().zip(&self.steps).skip(turn + 1);
        behind.filter(|(ear, _)| !ear.taken()).for_each(|_| inner.command_came_back());
    }

    /// Kills a step, and one behind it that had begun already. Gives the process group that is still there.
    async fn kill(&mut self, inner: &Arc<Inner>, turn: usize) -> Option<u32> {
        let target = self.parts.ears[turn].target();
        let (privilege, cleanup) = (self.privilege, self.steps[turn].cleanup.clone());
        let mut still_running = hear_out(&mut self.exchange, &mut self.parts, inner.stop(target, privilege, &cleanup)).await;
        let begun = self.parts.ears.iter().zip(&self.steps).skip(turn + 1).filter(|(ear, _)| ear.end().is_none() && ear.has_group());
        let begun: Vec<_> = begun.map(|(ear, ahead)| (ear.target(), ahead.cleanup.clone())).collect();
        for (target, cleanup) in begun {
            still_running = inner.stop(target, privilege, &cleanup).await.or(still_running);
        }
        still_running
    }
}

/// A step that was sent.
struct Ahead<'a> {
    step: Perform<'a>,
    limit: Limit,
    cleanup: Shell,
    dest: Option<String>,
}

/// Listens to several frames, each in its turn.
struct Parts {
    ears: Vec<Ear>,
    answers: Option<Answers>,
    /// The number of the first frame.
    first: i64,
    /// The step that is heard; past the last one, it is the answers.
    turn: usize,
    /// The frame that each stream has come to.
    at: [usize; 2],
    /// What was printed by steps whose turn it is not yet.
    held: Vec<(usize, Stream, Vec<u8>)>,
}

fn side(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

impl Parts {
    fn count(&self) -> usize {
        self.ears.len() + usize::from(self.answers.is_some())
    }

    /// The number of the frame behind those that there are.
    fn next_frame(&self) -> i64 {
        self.first + i64::try_from(self.count()).unwrap_or(i64::MAX)
    }

    fn ear(&self, at: usize) -> Option<&Ear> {
        self.ears.get(at).or_else(|| self.answers.as_ref().map(|answers| &answers.ear))
    }

    /// It is this step's turn to be heard.
    fn begin_turn(&mut self, turn: usize, sink: OutputSink) {
        self.turn = turn;
        for (at, stream, bytes) in std::mem::take(&mut self.held) {
            if at == turn {
                sink.take(stream, &bytes);
            } else {
                self.held.push((at, stream, bytes));
            }
        }
        self.ears[turn].sink = Some(sink);
    }

    /// Whether the shell is done with all that was sent.
    fn over(&self) -> bool {
        self.at.iter().all(|at| *at >= self.count())
    }
}

impl Listener for Parts {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        let at = self.at[side(stream)];
        let ends = match piece {
            Piece::Mark(Mark::Over, number) => usize::try_from(number - self.first).is_ok_and(|number| number == at),
            _ => false,
        };
        match (self.ears.get_mut(at), piece) {
            (Some(ear), Piece::Bytes(bytes)) if at > self.turn && ear.has_begun(stream) => {
                if !ear.is_over(stream) {
                    self.held.push((at, stream, bytes.to_vec()));
                }
            }
            (Some(ear), piece) => ear.hear(stream, piece),
            (None, piece) => {
                if let Some(answers) = self.answers.as_mut().filter(|_| at == self.ears.len()) {
                    answers.hear(stream, piece);
                }
            }
        }
        self.at[side(stream)] += usize::from(ends);
    }

    fn closed(&mut self, stream: Stream) {
        self.ears.iter_mut().for_each(|ear| ear.closed(stream));
        if let Some(answers) = &mut self.answers {
            answers.closed(stream);
        }
    }

    fn takes(&self, stream: Stream) -> bool {
        self.held.iter().filter(|(_, of, _)| *of == stream).map(|(_, _, bytes)| bytes.len()).sum::<usize>() <= AHEAD
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.ears.get(self.turn).map_or_else(|| Box::pin(std::future::ready(())) as BoxFuture<'static, ()>, Listener::room)
    }
}

impl Turn for Parts {
    fn done(&self) -> bool {
        self.ear(self.turn).is_none_or(Turn::done)
    }

    fn nearly_done(&self) -> bool {
        self.ear(self.turn).is_none_or(Turn::nearly_done)
    }
}

/// Whether a step can go out with others.
fn joins(step: &Perform<'_>) -> bool {
    match step.action {
        Action::Run(_) => !step.context.get_pty,
        Action::Upload(upload) => upload.content.size() <= JOINED,
        Action::Script(run) => run.content.size() <= JOINED,
        Action::UploadTree(_) | Action::Download(_) | Action::DownloadTree(_) | Action::Controller(_) => false,
    }
}

impl<'a> Joined<'a> {
    /// Nothing is sent before the first step is asked for.
    pub(crate) fn new(reached: &'a Reached, inner: &'a Arc<Inner>, lineup: Lineup<'a>) -> Self {
        Self { reached, inner, steps: lineup.steps.into(), behind: lineup.behind, sent: None, apart: !inner.abilities.serves }
    }

    /// As whom the next steps are done, where they can go out together, and how many of them at most.
    fn outlook(&self) -> Option<(Option<&'a Privilege>, usize)> {
        let first = self.steps.front().filter(|step| joins(step))?;
        if self.apart || (self.steps.len() == 1 && self.behind.is_empty()) {
            return None;
        }
        let privilege = first.context.privilege.some();
        let same = self.steps.iter().all(|step| step.context.privilege == first.context.privilege);
        // A password is asked for by a step alone, and once its shell is there it serves all.
        let converses = privilege.filter(|privilege| self.inner.doors.converses(privilege));
        if converses.is_some_and(|privilege| !self.inner.sessions.serves(privilege)) {
            return None;
        }
        let by_itself = converses.is_some() && first.as_of.is_some() && self.inner.lock.is_claimed();
        Some((privilege, if by_itself || !same { 1 } else { usize::MAX }))
    }

    /// As many of the next steps as can go out together, made ready.
    async fn group(&mut self, most: usize) -> Vec<(Perform<'a>, Task)> {
        let mut group = Vec::new();
        while group.len() < most
            && let Some(step) = self.steps.front().filter(|step| joins(step))
            // What cannot be made ready says so when its turn comes.
            && let Ok(task) = self.inner.prepare(step).await
            && let Some(step) = self.steps.pop_front()
        {
            let last = task.how() != Use::Again;
            group.push((step, task));
            if last {
                break;
            }
        }
        group
    }

    /// The questions behind, as the shell reads them; none of them where they cannot all be asked as this user.
    fn questions(&self, privilege: Option<&Privilege>) -> Vec<Open> {
        let Some(first) = self.behind.first() else { return Vec::new() };
        let rides = |question: &&Question| {
            question.context.privilege.some() == privilege
                && question.context.shell == first.context.shell
                && question.command.patience.is_none()
        };
        let open = self.behind.iter().enumerate().filter(|(_, question)| rides(question));
        // Where a part is missing nobody would ask again.
        let open: Vec<Open> = open.filter_map(|(place, question)| Some(Open { parts: None, ..Open::of(place, question).ok()? })).collect();
        // The answers stand in the order of the questions, so that it is all of them or none.
        if open.len() == self.behind.len() { open } else { Vec::new() }
    }

    /// Sends the next steps, where there is something to join.
    async fn send(&mut self) -> Result<Option<Sent<'a>>, Ending> {
        let Some((privilege, most)) = self.outlook() else { return Ok(None) };
        let group = self.group(most).await;
        let how = group.last().map_or(Use::Again, |(_, task)| task.how());
        let questions = if self.steps.is_empty() && how == Use::Again { self.questions(privilege) } else { Vec::new() };
        if group.len() + usize::from(!questions.is_empty()) < 2 {
            group.into_iter().rev().for_each(|(step, _)| self.steps.push_front(step));
            return Ok(None);
        }
        let inner = self.inner;
        let mut kills = inner.kills();
        let flight = inner.flight();
        let first_guard = inner.lock_before(&group[0].0, privilege, &mut kills).await?;
        let lock_of = |at: usize| match (at, &first_guard) {
            (0, _) | (_, None) => None,
            (_, Some(first)) => inner.lock.before_next(inner, first),
        };
        let mut guards: Vec<_> = (0..group.len()).map(lock_of).collect();
        guards[0] = first_guard;
        let session = tokio::select! {
            biased;
            _ = kills.changed() => return Err(interrupted()),
            session = inner.session(privilege.filter(|_| guards[0].is_none()), how) => session,
        };
        let mut session = session.map_err(|refusal| match refusal {
            Refusal::Refused(reason) => Ending::Refused(reason),
            Refusal::Privilege(refused) => Ending::Refused(of_file(group[0].1.dest.as_deref(), refused).message),
            Refusal::Lost(reason) => Ending::Lost { reason, begun: false },
        })?;
        inner.goes_out();
        let mut parts = Parts { ears: Vec::new(), answers: None, first: session.frame, turn: 0, at: [0; 2], held: Vec::new() };
        let (mut frames, mut steps) = (Frames::default(), Vec::new());
        for ((step, task), guard) in group.into_iter().zip(guards) {
            inner.command_goes();
            let Task { marks, script, payload, limit, cleanup, dest, .. } = task;
            let (lock, answer) = guard.map(|guard| (guard.script, guard.answer)).unzip();
            parts.ears.push(Ear::new(None, parts.next_frame()).guarded(answer));
            let after = !steps.is_empty();
            let request = Request { privilege, lock: lock.as_ref(), script: &script, dress: dress(&step), marks, payload, after };
            inner.add_frame(&mut session, &mut frames, request);
            steps.push(Ahead { step, limit, cleanup, dest });
        }
        if let Some(first) = self.behind.first().filter(|_| !questions.is_empty()) {
            let mut marks = Marks::new();
            let script = inner.asking(&mut marks, &Together::new(&questions));
            parts.answers = Some(Answers::new(parts.next_frame(), questions.len(), inner.settings.fact_limit));
            let dress = Dress { shell: first.context.shell.as_deref(), terminal: false };
            let request = Request { privilege, lock: None, script: &script, dress, marks, payload: Payload::none(), after: false };
            inner.add_frame(&mut session, &mut frames, request);
        }
        // As of a session that was given the last one of them.
        session.frame = parts.next_frame() - 1;
        let exchange = inner.send(&mut session, frames, how);
        Ok(Some(Sent { session, exchange, parts, privilege, how, steps, kills, _flight: flight }))
    }

    async fn do_next(&mut self, sink: OutputSink) -> Ending {
        let mut turn = 0;
        match &self.sent {
            Some(sent) if sent.parts.turn + 1 < sent.steps.len() => turn = sent.parts.turn + 1,
            _ => {
                self.end().await;
                match self.send().await {
                    Ok(Some(sent)) => self.sent = Some(sent),
                    Ok(None) => {
                        let Some(step) = self.steps.pop_front() else {
                            return Ending::Refused("there is no further step".to_owned());
                        };
                        return self.reached.perform_one(step, sink).await;
                    }
                    Err(ending) => return ending,
                }
            }
        }
        let Some(mut sent) = self.sent.take() else { return Ending::Refused("there is no further step".to_owned()) };
        sent.parts.begin_turn(turn, sink.clone());
        let started = Instant::now();
        let limit = sent.steps[turn].limit;
        // What a host has to do for a content that small it does at once.
        let stopped = self.inner.listen(&mut sent.exchange, &mut sent.parts, limit, Duration::ZERO, &mut sent.kills).await;
        let Some(stopped) = stopped else {
            let ear = &sent.parts.ears[turn];
            let locked = matches!(ear.locked(), Some(Some(_)));
            if let (Some(privilege), Some((status, printed)), false) = (sent.privilege, ear.refused_by(), locked) {
                self.inner.doors.learn(privilege, &refusal(privilege, status, &printed));
                return self.each_by_itself(sent, sink).await;
            }
            let ending = self.inner.judge(&mut sent.exchange, ear, turn, sent.steps[turn].dest.as_deref()).await;
            self.sent = Some(sent);
            return ending;
        };
        let after = started.elapsed();
        // A command that is killed may end well, and what was sent behind it is not to begin: so the shell is to serve no further frame.
        if let Some(shell) = sent.server(turn).filter(|_| turn + 1 < sent.steps.len()) {
            let (user, killing) = (sent.session.user.clone(), sh!("kill -s KILL {}", shell));
            self.inner.run_aside(&killing, user.as_ref()).await;
        }
        self.inner.settle(&mut sent.exchange, &mut sent.parts, |parts| parts.ears[turn].settled()).await;
        let still_running = sent.kill(self.inner, turn).await;
        sent.take_back(self.inner, turn);
        let found = sent.parts.ears[turn].target().is_some();
        stopped.ending(after, found, still_running, sent.exchange.progress().begun(turn))
    }

    /// The user could not be had in passing, so that nothing was done: each step finds its own way.
    async fn each_by_itself(&mut self, mut sent: Sent<'a>, sink: OutputSink) -> Ending {
        self.apart = true;
        sent.steps.iter().for_each(|_| self.inner.command_came_back());
        sent.steps.drain(..).rev().for_each(|ahead| self.steps.push_front(ahead.step));
        // A shell of the user who is logged in serves on.
        if sent.session.user.is_none() {
            self.sent = Some(sent);
            self.end().await;
        }
        match self.steps.pop_front() {
            Some(step) => self.reached.perform_one(step, sink).await,
            None => Ending::Refused("there is no further step".to_owned()),
        }
    }

    /// Hears what was sent to its end, and gives the shell back. Gives the answers, where there were questions and nothing went wrong.
    async fn end(&mut self) -> Option<Answers> {
        let mut sent = self.sent.take()?;
        let turn = sent.parts.turn;
        sent.parts.turn = sent.parts.ears.len();
        if let Some(answers) = &mut sent.parts.answers {
            answers.waited_for();
        }
        let deadline = self.inner.settings.fact_deadline;
        let began = Instant::now();
        let mut lag = None;
        let mut whole = true;
        while !sent.parts.over() {
            let due = sent.parts.answers.as_ref().map_or(began + LAG, |answers| answers.since() + deadline);
            if sent.parts.answers.is_some() && sent.parts.nearly_done() && lag.is_none() {
                lag = Some(Instant::now() + LAG);
            }
            tokio::select! {
                step = sent.exchange.step(&mut sent.parts) => if step == Step::Closed { break },
                () = until(lag) => break,
                () = tokio::time::sleep_until(due) => whole = false,
                _ = sent.kills.changed() => whole = false,
            }
            whole &= !sent.parts.answers.as_ref().is_some_and(Answers::too_long);
            if !whole {
                break;
            }
        }
        sent.take_back(self.inner, turn);
        let Sent { mut session, exchange, parts, privilege, how, .. } = sent;
        if !whole {
            drop(exchange);
            session.tag = None;
            drop(session);
            if let Some((group, privileged)) = parts.answers.as_ref().and_then(|answers| answers.ear.target()) {
                let nothing = sh!(":");
                self.inner.kill_group(group, privilege.filter(|_| privileged), &nothing).await;
            }
        } else if parts.over()
            && self.inner.keeps(how)
            && let Some(process) = exchange.into_process().await
        {
            session.give_back(process);
        }
        parts.answers
    }
}

impl LinedUp for Joined<'_> {
    fn next(&mut self, sink: OutputSink) -> BoxFuture<'_, Ending> {
        let inner = self.inner.clone();
        Box::pin(async move {
            tokio::select! {
                biased;
                ending = self.do_next(sink) => ending,
                () = inner.closed() => Ending::Lost { reason: CLOSED.to_owned(), begun: true },
            }
        })
    }

    fn answers(&mut self) -> BoxFuture<'_, Vec<Option<Output>>> {
        let (inner, count) = (self.inner.clone(), self.behind.len());
        Box::pin(async move {
            let answers = tokio::select! {
                biased;
                answers = self.end() => answers,
                () = inner.closed() => None,
            };
            answers.map_or_else(|| vec![None; count], Answers::whole)
        })
    }
}
