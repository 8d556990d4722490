//! Steps that go out together, and questions behind them, in one request.
//!
//! A shell that serves takes its frames one after the other. So the frames of several steps can be sent before the first of them is done: each one but the
//! first is done only after a good end of the one before, which the shell itself judges by the exit status; a step that was killed has a status above 128,
//! which never is one. The questions behind come last, in the same shell and as the same user, however the steps went.
//!
//! What stands between, so that a request of its own begins: a step that may leave processes behind or reads its input to the end (it takes its
//! shell along, so it may only be the last), a content above 1 MiB, what is done on this machine, and a download.

use std::collections::VecDeque;
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::command::Shell;
use infra_core::connection::{Ending, LinedUp, Lineup, OutputSink, Perform, Question};
use infra_core::output::{Output, Stream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::envelope::Mark;
use crate::exchange::{Exchange, Listener, Step};
use crate::gather::{Answers, ask};
use crate::payload::Payload;
use crate::perform::{Ear, LAG, Limit, Stopped, Task, Turn, hear_out, until};
use crate::reached::{CLOSED, Flight, Frame, Inner, Kills, Reached, Refusal};
use crate::receipts::{Marks, Piece};
use crate::sessions::{Session, Use};

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
    good: Vec<i32>,
    behind: Vec<Question>,
    sent: Option<Sent<'a>>,
}

/// What went out in one request.
struct Sent<'a> {
    session: Session,
    exchange: Exchange,
    parts: Parts,
    user: Option<String>,
    how: Use,
    steps: Vec<Ahead>,
    kills: watch::Receiver<Kills>,
    _flight: Flight<'a>,
}

/// A step that was sent.
struct Ahead {
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

    /// Whether all that was sent has ended by its own receipt, or was let go by the shell.
    fn over(&self) -> bool {
        self.at.iter().all(|at| *at >= self.count())
    }
}

impl Listener for Parts {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        let at = self.at[side(stream)];
        let own = |number: i64| usize::try_from(number - self.first).is_ok_and(|number| number == at);
        let ends = match piece {
            Piece::Mark(Mark::End, _) => true,
            Piece::Mark(Mark::Over, number) => own(number),
            _ => false,
        };
        match (self.ears.get_mut(at), piece) {
            (Some(ear), Piece::Bytes(bytes)) if at > self.turn && ear.has_begun(stream) => self.held.push((at, stream, bytes.to_vec())),
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
        Action::Run(_) => true,
        Action::Upload(upload) => upload.content.size() <= JOINED,
        Action::Script(run) => run.content.size() <= JOINED,
        Action::Download(_) | Action::Controller(_) => false,
    }
}

impl<'a> Joined<'a> {
    /// Nothing is sent before the first step is asked for.
    pub(crate) fn new(reached: &'a Reached, inner: &'a Arc<Inner>, lineup: Lineup<'a>) -> Self {
        Self { reached, inner, steps: lineup.steps.into(), good: lineup.good, behind: lineup.behind, sent: None }
    }

    /// As many of the next steps as can go out together, made ready; none of them where the first is better done by itself.
    async fn group(&mut self) -> Vec<Task> {
        let mut tasks: Vec<Task> = Vec::new();
        while let Some(step) = self.steps.front().filter(|step| joins(step)) {
            // What cannot be made ready says so when its turn comes.
            let Ok(task) = self.inner.prepare(step).await else { break };
            let last = task.how() != Use::Again;
            tasks.push(task);
            self.steps.pop_front();
            if last {
                break;
            }
        }
        tasks
    }

    /// Sends the next steps, where there is something to join.
    async fn send(&mut self) -> Result<Option<Sent<'a>>, Ending> {
        let single = self.steps.len() == 1 && self.behind.is_empty();
        if single || !self.inner.abilities.serves || !self.steps.front().is_some_and(joins) {
            return Ok(None);
        }
        let context = self.steps[0].context;
        let user = context.sudo.clone();
        let same = self.steps.iter().all(|step| step.context.sudo == user);
        let before: Vec<Perform<'a>> = self.steps.iter().cloned().collect();
        let mut tasks = if same { self.group().await } else { Vec::new() };
        let how = tasks.last().map_or(Use::Again, Task::how);
        let questions: Vec<String> = if self.steps.is_empty() && how == Use::Again {
            self.behind.iter().filter(|question| question.context.sudo == user).filter_map(|question| ask(question).ok()).collect()
        } else {
            Vec::new()
        };
        // The answers stand in the order of the questions, so that it is all of them or none.
        let questions = if questions.len() == self.behind.len() { questions } else { Vec::new() };
        if tasks.len() + usize::from(!questions.is_empty()) < 2 {
            self.steps = before.into();
            return Ok(None);
        }
        let mut kills = self.inner.kills();
        let flight = self.inner.flight();
        let session = tokio::select! {
            biased;
            _ = kills.changed() => return Err(Ending::Refused("the run was interrupted before it began".to_owned())),
            session = self.inner.session(user.as_deref(), how) => session,
        };
        let mut session = match session {
            Ok(session) => session,
            Err(Refusal::Refused(reason)) => return Err(Ending::Refused(reason)),
            Err(Refusal::Lost(reason)) => return Err(Ending::Lost { reason, begun: false }),
        };
        self.inner.goes_out();
        let mut marks = Marks::new();
        let asking = (!questions.is_empty()).then(|| self.inner.asking(&mut marks, &questions));
        let mut steps = Vec::new();
        let mut frames = Vec::new();
        let mut status = None;
        for task in &mut tasks {
            marks.join(std::mem::replace(&mut task.marks, Marks::new()));
            steps.push(Ahead { limit: task.limit, cleanup: task.cleanup.clone(), dest: task.dest.take() });
            let payload = std::mem::replace(&mut task.payload, Payload::none());
            frames.push(Frame { script: &task.script, after: status, payload });
            let upload = steps.last().is_some_and(|step| step.dest.is_some());
            status = Some(if upload { &[0][..] } else { &self.good });
            self.inner.command_goes();
        }
        if let Some(asking) = &asking {
            frames.push(Frame { script: asking, after: None, payload: Payload::none() });
        }
        let first = session.frame;
        let number = |at: usize| first + i64::try_from(at).unwrap_or(i64::MAX);
        let parts = Parts {
            ears: (0..steps.len()).map(|at| Ear::new(None, number(at))).collect(),
            answers: asking.is_some().then(|| Answers::new(number(steps.len()), questions.len(), self.inner.settings.fact_limit)),
            first,
            turn: 0,
            at: [0; 2],
            held: Vec::new(),
        };
        session.frame = number(parts.count() - 1);
        let exchange = self.inner.begin_all(&mut session, user.as_deref(), frames, marks, how);
        Ok(Some(Sent { session, exchange, parts, user, how, steps, kills, _flight: flight }))
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
        sent.parts.begin_turn(turn, sink);
        let started = Instant::now();
        let limit = sent.steps[turn].limit;
        let stopped = self.inner.listen(&mut sent.exchange, &mut sent.parts, limit, &mut sent.kills).await;
        let Some(stopped) = stopped else {
            let (user, dest) = (sent.user.as_deref(), sent.steps[turn].dest.as_deref());
            let ending = self.inner.judge(&mut sent.exchange, &sent.parts.ears[turn], turn, user, dest).await;
            self.sent = Some(sent);
            return ending;
        };
        // What was sent behind is not begun: a command that was killed has no good end.
        let after = started.elapsed();
        self.inner.settle(&mut sent.exchange, &mut sent.parts, |parts| parts.ears[turn].settled()).await;
        let target = sent.parts.ears[turn].target();
        let killing = self.inner.stop(target, sent.user.as_deref(), &sent.steps[turn].cleanup);
        let still_running = hear_out(&mut sent.exchange, &mut sent.parts, killing).await;
        match (stopped, target) {
            (Stopped::Killed, _) => Ending::Killed,
            (Stopped::TimedOut, Some(_)) => Ending::TimedOut { after, still_running },
            (Stopped::TimedOut, None) => {
                let reason = format!("the host did not start a shell within {} s", after.as_secs());
                Ending::Lost { reason, begun: sent.exchange.progress().begun(turn) }
            }
        }
    }

    /// Hears what was sent to its end, and gives the shell back. Gives the answers, where there were questions and nothing went wrong.
    async fn end(&mut self) -> Option<Answers> {
        let mut sent = self.sent.take()?;
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
        let Sent { mut session, exchange, parts, user, how, .. } = sent;
        if !whole {
            drop(exchange);
            session.tag = None;
            drop(session);
            if let Some((group, privileged)) = parts.answers.as_ref().and_then(|answers| answers.ear.target()) {
                self.inner.kill_group(group, user.as_deref().filter(|_| privileged), &infra_core::sh!(":")).await;
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
