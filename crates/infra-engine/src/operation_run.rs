//! A worker: one operation on one host. It owns nothing that outlives it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::arguments::join_host_paths;
use infra_core::change::{Action, Change};
use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::event::{Event, HostResult, Outcome};
use infra_core::facts::DiffError;
use infra_core::host::{Connector, HostId};
use infra_core::late::{CallResult, Purpose};
use infra_core::operation::SharedOperation;
use infra_core::plan::OpId;
use infra_core::resources::Resources;
use infra_core::script::OperationCall;
use infra_core::secret::withhold;
use infra_core::{Map, Value};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::event_stream::EventStream;
use crate::fact_store::Asked;
use crate::host_run::HostRun;
use crate::joint_diff::JointDiff;
use crate::judgement::{Diffed, Wanted, diff, skipped};
use crate::late_values::{LateValues, is_late};
use crate::output_lines::Kept;
use crate::places::{Places, Sites};
use crate::saved::Allowed;
use crate::setback::{Setback, SetbackKind};

/// One operation that is started on one host.
pub(crate) struct OperationRun {
    pub(crate) op: OpId,
    /// The host that it is counted for.
    pub(crate) host: HostId,
    pub(crate) own: Arc<HostRun>,
    /// Where it runs.
    pub(crate) at: Arc<HostRun>,
    /// Where the calls of its `parallel` block run.
    pub(crate) sites: Option<Arc<Sites>>,
    pub(crate) places: Arc<Places>,
    pub(crate) calls: Arc<Vec<OperationCall>>,
    pub(crate) call: CallIndex,
    /// What came of the calls of this host so far.
    pub(crate) known: Vec<Known>,
    /// The functions of this host, where the operation calls any.
    pub(crate) late: Option<LateValues>,
    pub(crate) events: EventStream,
    /// The diffs of its `parallel` block, where it is in one.
    pub(crate) joint: Option<Arc<JointDiff>>,
    /// What is asked of the host once it has been changed.
    pub(crate) behind: Vec<Asked>,
    /// Whether it is to be ended, for one with `_background`.
    pub(crate) ending: watch::Receiver<bool>,
    /// How often the run was interrupted: then it is not tried again.
    pub(crate) interrupts: watch::Receiver<u32>,
    /// How long a killed command may take to end.
    pub(crate) closing: Duration,
    pub(crate) stage: Stage,
    /// What a saved plan lets it do.
    pub(crate) allowed: Allowed,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Functions may still say that it does not run.
    Undecided,
    /// It runs.
    Decided,
}

/// How often an operation may ask for facts that were not asked before.
pub(crate) const ROUNDS: usize = 20;

/// Seconds before an operation is tried again, where it does not say.
const RETRY_DELAY: f64 = 5.0;

/// What was done by now.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) steps: usize,
    /// Whether some step of any try changed the host.
    pub(crate) changed: bool,
    pub(crate) retries: u32,
    /// The exit status of the last command of this try.
    pub(crate) exit_code: Option<i32>,
    pub(crate) kept: Kept,
    /// Whether this try came to the operation itself.
    pub(crate) tried: bool,
    /// Whether this try did what changes a host, or was about to.
    pub(crate) has_change: bool,
}

impl OperationRun {
    pub(crate) fn call(&self) -> &OperationCall {
        &self.calls[self.call as usize]
    }

    /// Whether it runs elsewhere than on the host that it is counted for.
    pub(crate) fn is_elsewhere(&self) -> bool {
        !Arc::ptr_eq(&self.own, &self.at)
    }

    /// The functions of the host.
    pub(crate) fn late(&self) -> Result<&LateValues, Setback> {
        self.late.as_ref().ok_or_else(|| Setback::failed("a defect of infra: it calls functions and was given none"))
    }

    /// Diffs the operation against the host as it is, does what is to be done, and drops what that touched; and again where it fails and may be tried again.
    /// Besides the result it gives what kind of setback it ended with.
    pub(crate) fn work(self) -> BoxFuture<'static, (HostResult, Option<SetbackKind>)> {
        Box::pin(self.tries())
    }

    async fn tries(mut self) -> (HostResult, Option<SetbackKind>) {
        let started = Instant::now();
        let mut done = Done::default();
        let ended = loop {
            let last_exit = done.exit_code.take();
            done = Done { kept: Kept::default(), tried: false, has_change: false, ..done };
            let tried = self.attempt(&mut done).await;
            if let Err(Setback { kind: SetbackKind::Moved, .. }) = &tried {
                done.exit_code = done.exit_code.or(last_exit);
                continue;
            }
            let judged = self.accepted(tried, &mut done).await;
            done.exit_code = done.exit_code.or(last_exit);
            match judged {
                Err(setback) if setback.kind == SetbackKind::Failed && self.tries_again(&setback, &mut done).await => {}
                ended => break ended,
            }
        };
        let kind = ended.as_ref().err().map(|setback| setback.kind);
        let outcome = match ended {
            // What an earlier try did counts, also where nothing was left to do.
            Ok(Outcome::Unchanged { reason }) if done.changed => Outcome::Changed { reason },
            Ok(outcome) => outcome,
            Err(setback) => setback.outcome(self.call().globals.ignores_errors()),
        };
        (self.result(outcome, &done, started), kind)
    }

    /// What `_retry_until` says of a try. It is asked of those that failed as well: it may be what was waited for.
    async fn accepted(&self, tried: Result<Outcome, Setback>, done: &mut Done) -> Result<Outcome, Setback> {
        let Some(until) = self.call().late.until.filter(|_| done.tried && !*self.ending.borrow()) else { return tried };
        let outcome = match &tried {
            Ok(outcome) => outcome.clone(),
            Err(Setback { failure, kind: SetbackKind::Failed }) => Outcome::Failed { failure: failure.clone(), ignored: false },
            Err(_) => return tried,
        };
        let seen = Arc::new(CallResult::of(&self.result(outcome, done, Instant::now())));
        let good = self.late()?.holds(until, Purpose::Until(seen), "`_retry_until`").await?;
        match (good, tried) {
            (true, Ok(outcome)) => Ok(outcome),
            (true, Err(Setback { failure, .. })) => {
                let reason = format!("{}, which `_retry_until` accepts", failure.message);
                done.changed |= done.has_change;
                Ok(if done.has_change { Outcome::Changed { reason } } else { Outcome::Unchanged { reason } })
            }
            (false, Ok(_)) => {
                let mut setback = Setback::failed("`_retry_until` did not come true");
                setback.failure.last_output = done.kept.last_lines();
                Err(setback)
            }
            (false, Err(mut setback)) => {
                setback.failure.message.push_str(", and `_retry_until` did not come true");
                Err(setback)
            }
        }
    }

    /// Waits before the next try; not where none is left, or where the run was interrupted or the operation is to be ended.
    async fn tries_again(&mut self, setback: &Setback, done: &mut Done) -> bool {
        let globals = &self.call().globals;
        let retries = globals.retries.unwrap_or(0);
        if done.retries >= retries || *self.interrupts.borrow() > 0 || *self.ending.borrow() {
            return false;
        }
        let backoff = globals.retry_backoff.unwrap_or(1.0).powf(f64::from(done.retries));
        let delay = globals.retry_delay.unwrap_or(RETRY_DELAY).max(0.0) * backoff.max(0.0) * jitter();
        let after = Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX);
        done.retries += 1;
        let failure = Box::new(setback.failure.clone());
        self.events.emit(Event::Retrying { op: self.op, host: self.host, retry: done.retries, retries, after, failure }).await;
        let interrupted = self.interrupts.wait_for(|times| *times > 0);
        let ended = self.ending.wait_for(|ending| *ending);
        let again = tokio::select! {
            biased;
            Ok(_) = interrupted => false,
            Ok(_) = ended => false,
            () = tokio::time::sleep(after) => true,
        };
        if again {
            // The host is looked at afresh: what kept the operation from its end may rest on anything.
            self.drop_touched(&Resources::everything());
        } else {
            done.retries -= 1;
        }
        again
    }

    async fn attempt(&mut self, done: &mut Done) -> Result<Outcome, Setback> {
        if self.stage == Stage::Undecided {
            if let Some(reason) = self.skips().await? {
                return Ok(Outcome::Skipped { reason });
            }
            self.stage = Stage::Decided;
        }
        match self.call().late.body {
            Some(body) => {
                done.tried = true;
                self.body(body, done).await
            }
            None => self.diff_and_perform(done).await,
        }
    }

    /// Why it does not run after all, where functions say so. Only those are called that can still decide it.
    async fn skips(&self) -> Result<Option<String>, Setback> {
        let known = |call: CallIndex| self.known.get(call as usize).copied().unwrap_or_default();
        let mut when = Condition::All(self.call().when.clone());
        for function in when.functions() {
            if when.decide(&known).is_some() {
                break;
            }
            let gave = self.late()?.holds(function, Purpose::Condition, "the function of `_if`").await?;
            when = when.with_functions(&|other| (other == function).then_some(gave));
        }
        Ok(match when.decide(&known) {
            Some(true) => None,
            Some(false) => Some(skipped(self.call(), &self.calls, &known)),
            None => Some("its condition asks for what not all hosts have come to".to_owned()),
        })
    }

    /// The wish, with the values that functions give in it.
    async fn wish(&self) -> Result<SharedOperation, Setback> {
        let call = self.call();
        if !is_late(call) {
            return bind(&self.at, call, &self.known);
        }
        let late = self.late()?;
        let mut complete = call.clone();
        for (name, condition) in &mut complete.conditions {
            for function in condition.functions() {
                let gave = late.holds(function, Purpose::Condition, &format!("the function of `{name}`")).await?;
                *condition = condition.with_functions(&|other| (other == function).then_some(gave));
            }
        }
        let mut nothing = None;
        for (name, function) in &call.late.arguments {
            let purpose = Purpose::Argument { name: name.clone() };
            let value = late.value(*function, purpose, &format!("the value of `{name}` cannot be had: ")).await?;
            if value.is_null() {
                nothing.get_or_insert(name);
            }
            complete.arguments.insert(name.clone(), self.on_host(name, value));
        }
        bind(&self.at, &complete, &self.known).map_err(|mut setback| {
            let place = call.location().map(|location| format!("{location}: ")).unwrap_or_default();
            // Who forgot the `return` did give the argument.
            let what = match nothing {
                Some(name) => format!("the function of `{name}` gave nothing (nil)"),
                None => "a function gave what does not fit".to_owned(),
            };
            setback.failure.message = format!("{place}{what}: {}", setback.failure.message);
            setback
        })
    }

    /// A late value, with a relative path of the host joined with the directory that the operation runs in.
    fn on_host(&self, name: &str, value: Value) -> Value {
        let Some(definition) = self.at.registry.operation(&self.call().kind) else { return value };
        let mut alone = Map::from_iter([(name.to_owned(), value)]);
        join_host_paths(&definition.schema, &mut alone, &mut self.call().globals.chdir.clone());
        alone.swap_remove(name).unwrap_or_default()
    }

    async fn diff_and_perform(&self, done: &mut Done) -> Result<Outcome, Setback> {
        let mut as_of = self.at.as_of();
        let joint = match (&self.joint, &self.sites) {
            (Some(joint), Some(sites)) => joint.take(sites, &self.calls, self.call).await?,
            _ => None,
        };
        let (operation, change) = match joint {
            Some((joint_as_of, diffed)) => {
                done.tried = true;
                as_of = joint_as_of;
                diffed?
            }
            None => {
                let operation = self.wish().await?;
                done.tried = true;
                let change = self.diff(&operation).await?;
                (operation, change)
            }
        };
        if change.is_none() {
            return Ok(Outcome::Unchanged { reason: change.reason });
        }
        // After a try that did some of its steps the rest of them is another change.
        if done.steps == 0 {
            self.allowed.check(&change, &self.at.secrets)?;
        }
        let touches = change.touches.clone().unwrap_or_else(|| operation.touches());
        let steps = done.steps;
        done.has_change = change.changes;
        let reading = self.at.before_change();
        let behind = self.at.stale(self.behind.clone(), &touches);
        let (performed, read) = self.perform(&change, change.changes.then_some(as_of), &behind, done).await;
        done.changed |= change.changes && done.steps > steps;
        self.at.after_change(&touches, &reading, read);
        drop(reading);
        self.has_changed(&touches);
        for action in &change.actions {
            match action {
                Action::Download(download) => self.at.locals.forget(&Resources::path(download.dest.as_str())),
                Action::DownloadTree(tree) => self.at.locals.forget(&Resources::tree(tree.dest.as_str())),
                _ => {}
            }
        }
        // What could not be read along is read at once, for all who will ask for it.
        if !behind.is_empty() && (performed.is_ok() || self.call().globals.ignores_errors()) {
            // Whoever asks next hears of a connection that broke.
            let _ = self.at.gather(behind).await;
        }
        if performed.is_ok() && change.changes && !change.texts.is_empty() {
            let mut texts = change.texts;
            if self.own.is_secret(self.call()) {
                texts.iter_mut().for_each(withhold);
            }
            let texts = Arc::new(texts);
            self.events.emit(Event::TextsChanged { op: self.op, host: self.host, texts }).await;
        }
        let ended_well =
            if change.changes { Outcome::Changed { reason: change.reason } } else { Outcome::Unchanged { reason: change.reason } };
        performed.map(|()| ended_well)
    }

    /// Diffs against the host as it is; effects of other operations are never trusted here.
    async fn diff(&self, operation: &SharedOperation) -> Result<Change, Setback> {
        for _ in 0..ROUNDS {
            match diff_once(&self.at, operation, self.call()).await {
                Ok(settled) => return settled,
                Err(wanted) => read(&self.at, wanted, self.is_elsewhere()).await?,
            }
        }
        Err(Setback::failed(format!("after {ROUNDS} rounds it still asks for facts that were not asked before")))
    }

    /// What came of it, with its whole output: scripts go on with that. It is masked where it is told.
    fn result(&self, outcome: Outcome, done: &Done, started: Instant) -> HostResult {
        let text = |capture| self.own.secrets.text_of(capture);
        HostResult {
            outcome,
            steps_done: done.steps,
            retries: done.retries,
            took: started.elapsed(),
            stdout: text(&done.kept.stdout),
            stderr: text(&done.kept.stderr),
            exit_code: done.exit_code,
        }
    }

    fn drop_touched(&self, touches: &Resources) {
        self.at.store().drop_touched(touches);
        self.has_changed(touches);
    }

    /// Tells all but the facts of what was touched.
    fn has_changed(&self, touches: &Resources) {
        self.at.connection.changed(touches);
        if self.at.host.connector == Connector::Local {
            self.at.locals.forget(touches);
        }
    }
}

/// The wish, with its conditional arguments as they have come out.
pub(crate) fn bind(run: &HostRun, call: &OperationCall, known: &[Known]) -> Result<SharedOperation, Setback> {
    let known = |call: CallIndex| known.get(call as usize).copied().unwrap_or_default();
    call.bind(&run.registry, |condition| condition.decide(&known).unwrap_or(false))
        .map_err(|error| Setback::hinted(error.message, error.hint))
}

/// Diffs with what is known of the host by now, or says what is to be read first.
pub(crate) async fn diff_once(run: &HostRun, operation: &SharedOperation, call: &OperationCall) -> Result<Result<Change, Setback>, Wanted> {
    match diff(run, operation, &[], &call.globals.context()) {
        Diffed::Wanting(wanted) => Err(wanted),
        Diffed::Change(change, seen) => {
            for path in &seen.locals {
                if let Err(message) = run.locals.check(path).await {
                    return Ok(Err(Setback::failed(message)));
                }
            }
            for tree in &seen.trees {
                if let Err(message) = run.locals.trees.check(tree).await {
                    return Ok(Err(Setback::failed(message)));
                }
            }
            Ok(Ok(change))
        }
        Diffed::Error(error, _) => {
            let message = error.to_string();
            let hint = if let DiffError::Refused { hint, .. } = error { hint } else { None };
            Ok(Err(Setback::hinted(message, hint)))
        }
    }
}

/// Reads what is missing, all in one request. Where that is elsewhere, the host itself can go on without it.
pub(crate) async fn read(run: &HostRun, wanted: Wanted, elsewhere: bool) -> Result<(), Setback> {
    run.locals.read(wanted.locals).await;
    run.locals.trees.read(wanted.trees).await;
    run.gather(wanted.facts).await.map_err(|lost| match elsewhere {
        true => Setback::failed(format!("{}: {lost}", run.host.name)),
        false => Setback::finally(lost.to_string()),
    })
}

/// A factor between 0.9 and 1.1, so that hosts that failed together do not try again together.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.9 + 0.2 * (random % 10_001) as f64 / 10_000.0
}
