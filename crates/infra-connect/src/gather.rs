//! Facts: many questions in one request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use infra_core::connection::{Lost, Question};
use infra_core::output::{Output, Stream};
use infra_core::privilege::Privilege;
use infra_core::sh;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::envelope::{Dress, Mark};
use crate::exchange::{Listener, Step};
use crate::payload::Payload;
use crate::perform::{Ear, Turn, until};
use crate::privilege::{Kind, Refused};
use crate::reached::{Inner, Kills, Refusal, Request};
use crate::receipts::{Marks, Piece};
use crate::sessions::Use;
use crate::together::{How, Open, Together};
use crate::{privilege, script};

type Answer = Result<Output, String>;

/// Listens to the answers of one request.
pub(crate) struct Answers {
    /// Privilege, and what was said before the first question.
    pub(crate) ear: Ear,
    limit: usize,
    /// The question whose output each stream holds now.
    current: [usize; 2],
    partial: Vec<Output>,
    answered: Vec<bool>,
    /// How they were answered.
    how: Vec<How>,
    /// When the last question was answered, or the first one asked.
    since: Instant,
}

impl Answers {
    /// To so many questions, asked in the frame with this number; no answer may be longer than `limit` bytes.
    pub(crate) fn new(frame: i64, count: usize, limit: usize) -> Self {
        Self {
            ear: Ear::new(None, frame),
            limit,
            current: [0; 2],
            partial: vec![Output::default(); count],
            answered: vec![false; count],
            how: vec![How::Whole; count],
            since: Instant::now(),
        }
    }

    /// From now on somebody waits for them.
    pub(crate) fn waited_for(&mut self) {
        self.since = Instant::now();
    }

    /// Since when the question that is asked now has been.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The answers that are whole and not too long.
    pub(crate) fn whole(self) -> Vec<Option<Output>> {
        let fits = |output: &Output| output.stdout.len() + output.stderr.len() <= self.limit;
        let all = self.partial.into_iter().zip(self.answered);
        all.map(|(output, answered)| Some(output).filter(|output| answered && fits(output))).collect()
    }

    fn first_open(&self) -> Option<usize> {
        self.answered.iter().position(|answered| !answered)
    }

    pub(crate) fn too_long(&self) -> bool {
        self.first_open().is_some_and(|open| self.partial[open].stdout.len() + self.partial[open].stderr.len() > self.limit)
    }
}

impl Listener for Answers {
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>) {
        let side = usize::from(stream == Stream::Stderr);
        match piece {
            Piece::Mark(Mark::Answer(place), status) => {
                let (how, status) = How::of(status);
                self.how[place] = how;
                self.partial[place].status = i32::try_from(status).unwrap_or(i32::MAX);
                // What was said on standard error since the last mark there is of this one: all in between were said once.
                if side == 1 && self.current[1] < place {
                    let said = std::mem::take(&mut self.partial[self.current[1]].stderr);
                    self.partial[place].stderr.extend(said);
                }
                self.current[side] = place + 1;
                let once = how != How::Whole && status == 0;
                if self.current[0] > place && (once || self.current[1] > place) {
                    self.answered[place] = true;
                    self.since = Instant::now();
                }
            }
            Piece::Bytes(bytes) if self.ear.has_begun(stream) => {
                let Some(output) = self.partial.get_mut(self.current[side]) else { return };
                let kept = if stream == Stream::Stdout { &mut output.stdout } else { &mut output.stderr };
                // One byte more than the limit says that there was more; the rest is let go.
                let room = (self.limit + 1).saturating_sub(kept.len());
                kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            piece => {
                if matches!(piece, Piece::Mark(Mark::Begin, _)) {
                    self.since = Instant::now();
                }
                self.ear.hear(stream, piece);
            }
        }
    }

    fn closed(&mut self, stream: Stream) {
        self.ear.closed(stream);
    }
}

/// As whom questions are asked, and by which shell.
#[derive(Clone, PartialEq, Eq)]
struct As {
    privilege: Privilege,
    shell: Option<String>,
}

/// What came of one request.
struct Round {
    /// By place, as far as it got.
    answers: Vec<Option<Answer>>,
    /// Whether something that was done for several questions spoilt the rest: they are to be asked each by itself.
    apart: bool,
}

impl Round {
    /// The same answer to all.
    fn all(count: usize, reason: &str) -> Self {
        Self { answers: vec![Some(Err(reason.to_owned())); count], apart: false }
    }
}

impl Inner {
    /// The script of a request that has these questions asked.
    pub(crate) fn asking(&self, marks: &mut Marks<Mark>, questions: &Together<'_>) -> String {
        let locale = self.abilities.locale();
        let begin = marks.add(Mark::Begin).say("0");
        let text = questions.script(marks);
        format!("{}exec </dev/null\nunset LANGUAGE\nexport LC_ALL={locale}\n{begin};unset infra_r\n{text}", script::refuse())
    }

    /// Answers all questions, in one request for each user and shell among them; the requests run at once.
    pub(crate) async fn gather(self: &Arc<Self>, questions: Vec<Question>) -> Result<Vec<Answer>, Lost> {
        let mut groups: Vec<(As, Vec<usize>)> = Vec::new();
        for (place, question) in questions.iter().enumerate() {
            let asked = As { privilege: question.context.privilege.clone(), shell: question.context.shell.clone() };
            match groups.iter_mut().find(|(of, _)| *of == asked) {
                Some((_, places)) => places.push(place),
                None => groups.push((asked, vec![place])),
            }
        }
        let count = questions.len();
        let questions = Arc::new(questions);
        let mut requests = JoinSet::new();
        for (of, places) in groups {
            let (inner, questions) = (self.clone(), questions.clone());
            requests.spawn(async move { inner.ask_all(&of, &questions, places).await });
        }
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        while let Some(request) = requests.join_next().await {
            let answered = match request {
                Ok(answered) => answered?,
                Err(error) => return Err(Lost { reason: format!("a request came to no end: {error}") }),
            };
            for (place, answer) in answered {
                answers[place] = Some(answer);
            }
        }
        Ok(answers.into_iter().map(|answer| answer.expect("each question is in one group")).collect())
    }

    /// Answers the questions of one user and shell. What one question spoils is asked again for the others, in a new request.
    async fn ask_all(self: &Arc<Self>, of: &As, questions: &[Question], places: Vec<usize>) -> Result<Vec<(usize, Answer)>, Lost> {
        let mut answered = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        for place in places {
            match Open::of(place, &questions[place]) {
                Ok(one) => match known.entry((one.text.clone(), one.patience)) {
                    Entry::Occupied(at) => open[*at.get()].places.push(place),
                    Entry::Vacant(at) => {
                        at.insert(open.len());
                        open.push(one);
                    }
                },
                Err(reason) => answered.push((place, Err(reason))),
            }
        }
        let mut kills = self.kills();
        let _flight = self.flight();
        while !open.is_empty() {
            let round = self.ask(of, &open, &mut kills).await?;
            let mut left = Vec::new();
            for (mut one, answer) in open.into_iter().zip(round.answers) {
                match answer {
                    Some(answer) => answered.extend(one.places.into_iter().map(|place| (place, answer.clone()))),
                    None => {
                        one.parts = one.parts.filter(|_| !round.apart);
                        left.push(one);
                    }
                }
            }
            open = left;
        }
        Ok(answered)
    }

    /// One request, made again where it turns out that a password is needed. At least one of its questions is answered, or they are to be asked apart.
    async fn ask(self: &Arc<Self>, of: &As, open: &[Open], kills: &mut watch::Receiver<Kills>) -> Result<Round, Lost> {
        let again = |refused: &Refused| matches!(refused.kind, Kind::Needed(_));
        let all = |refused: Refused| Round::all(open.len(), &refused.message);
        match self.ask_once(of, open, kills).await? {
            Ok(round) => Ok(round),
            Err(refused) if again(&refused) => {
                self.doors.learn(&of.privilege, &refused);
                Ok(self.ask_once(of, open, kills).await?.unwrap_or_else(all))
            }
            Err(refused) => Ok(all(refused)),
        }
    }

    async fn ask_once(
        self: &Arc<Self>,
        of: &As,
        open: &[Open],
        kills: &mut watch::Receiver<Kills>,
    ) -> Result<Result<Round, Refused>, Lost> {
        let privilege = of.privilege.some();
        let all = |reason: &str| Round::all(open.len(), reason);
        let killed = "it was not asked to its end, as the run was interrupted";
        let mut marks = Marks::new();
        let together = Together::new(open);
        let text = self.asking(&mut marks, &together);
        let guarded = self.lock.before_facts(self);
        let session = tokio::select! {
            session = self.session(privilege, Use::Again) => session,
            _ = kills.changed() => return Ok(Ok(all(killed))),
        };
        let mut session = match session {
            Ok(session) => session,
            Err(Refusal::Refused(reason)) => return Ok(Ok(all(&reason))),
            // All that can be known about passwords is known by now.
            Err(Refusal::Privilege(refused)) => return Ok(Ok(all(&refused.message))),
            Err(Refusal::Lost(reason)) => return Err(Lost { reason }),
        };
        self.goes_out();
        let lock = guarded.as_ref().map(|guarded| &guarded.script);
        let dress = Dress { shell: of.shell.as_deref(), terminal: false };
        let request = Request { privilege, lock, script: &text, dress, marks, payload: Payload::none(), after: false };
        let mut exchange = self.begin(&mut session, request, Use::Again);
        let mut answers = Answers::new(session.frame, together.count(), self.settings.fact_limit);
        answers.ear = answers.ear.guarded(guarded.map(|guarded| guarded.answer));
        let deadline_of = |open: Option<usize>| {
            let patience = open.and_then(|open| together.patience(open));
            patience.unwrap_or(self.settings.fact_deadline).max(self.settings.fact_deadline)
        };
        let mut deadline = self.settings.fact_deadline;
        let mut spoilt = None;
        let mut interrupted = false;
        let mut lag = None;
        while !answers.ear.done() {
            if answers.ear.nearly_done() && lag.is_none() {
                lag = Some(Instant::now() + crate::perform::LAG);
            }
            deadline = deadline_of(answers.first_open());
            let due = answers.since + deadline;
            tokio::select! {
                step = exchange.step(&mut answers) => if step == Step::Closed { break },
                () = until(lag) => break,
                () = tokio::time::sleep_until(due) => {
                    if answers.since.elapsed() >= deadline {
                        spoilt = Some(format!("its command did not end within {} s", deadline.as_secs_f64()));
                    }
                }
                _ = kills.changed() => interrupted = true,
            }
            if answers.too_long() {
                spoilt = Some(format!("its command printed more than {} bytes", answers.limit));
            }
            if spoilt.is_some() || interrupted {
                break;
            }
        }
        if interrupted {
            self.settle(&mut exchange, &mut answers, |answers| answers.ear.settled()).await;
        }
        if (spoilt.is_some() || interrupted)
            && let Some((group, privileged)) = answers.ear.target()
        {
            // Nobody reads its outputs any more; and the questions that are left need the place.
            drop(exchange);
            drop(session);
            self.kill_group(group, privilege.filter(|_| privileged), &sh!(":")).await;
        } else if spoilt.is_some() && !answers.ear.taken() {
            return Err(Lost { reason: format!("the host did not start a shell within {} s", deadline.as_secs_f64()) });
        } else if spoilt.is_none() && !interrupted && answers.ear.end().is_none() && answers.ear.refused_by().is_none() {
            return Err(Lost { reason: exchange.reason().await });
        } else {
            self.end(session, exchange, &answers.ear, Use::Again).await;
        }
        if interrupted {
            spoilt = Some(killed.to_owned());
        }
        if !answers.ear.has_begun(Stream::Stdout) {
            if let (Some((status, printed)), Some(privilege)) = (answers.ear.refused_by(), privilege) {
                return Ok(Err(privilege::refusal(privilege, status, &printed)));
            }
            let reason = spoilt.unwrap_or_else(|| answers.ear.prelude());
            return Ok(Ok(all(&reason)));
        }
        Ok(Ok(answers.sort(&together, spoilt, interrupted)))
    }
}

impl Answers {
    /// The answers to the questions. The first one without an answer is the one that spoilt the rest.
    fn sort(mut self, together: &Together<'_>, spoilt: Option<String>, interrupted: bool) -> Round {
        let first_open = self.first_open();
        let ended = self.ear.end().unwrap_or_default();
        let limit = self.limit;
        let (how, answered) = (std::mem::take(&mut self.how), std::mem::take(&mut self.answered));
        let printed =
            std::mem::take(&mut self.partial).into_iter().zip(&answered).map(|(output, answered)| Some(output).filter(|_| *answered));
        let before = answered.len() - together.questions();
        let answer = |(place, answer): (usize, Option<Output>)| match answer {
            Some(output) if output.stdout.len() + output.stderr.len() > limit => {
                Some(Err(format!("its command printed more than {limit} bytes")))
            }
            Some(output) => Some(Ok(output)),
            None if interrupted || Some(place) == first_open => {
                let reason = spoilt.clone();
                Some(Err(reason.unwrap_or_else(|| format!("its command ended the shell that it ran in (exit status {ended})"))))
            }
            None => None,
        };
        let answers: Vec<_> = (before..).zip(together.read(printed.collect(), &how)).map(answer).collect();
        // Those whose lines were not understood are open as well.
        let apart = first_open.is_none_or(|open| open < before) || answers.iter().all(Option::is_none);
        Round { answers, apart }
    }
}
