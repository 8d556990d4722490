//! The record of a run as one JSON document. The book describes it (`docs/src/json.md`).

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use infra_core::change::TextChange;
use infra_core::connection::{ConnectError, Ending, Traffic};
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::earlier::EarlierNote;
use infra_core::event::{Event, Failure, HostResult, Outcome, Reporter, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::lock::LockNews;
use infra_core::plan::{HostOutlook, OpId, Outlook, Plan};
use infra_core::run_state::{Bucket, RunState};
use infra_core::script::{BlockKind, Rolling};
use infra_core::{Map, Value};
use serde_json::json;

use crate::diffs::Bounds;
use crate::journal::Record;
use crate::{afterwards, diffs};

/// The version of the document's schema. Members are added without a new one; none is removed or changes its meaning.
pub const VERSION: u32 = 1;

/// Writes one JSON document when the run ends, and nothing before.
pub struct Json {
    writer: Box<dyn Write + Send>,
    started: Option<Instant>,
    state: RunState,
    unreachable: BTreeMap<HostId, ConnectError>,
    failed: BTreeMap<HostId, Diagnostic>,
    misuse: Vec<(Diagnostic, Vec<HostId>)>,
    facts: BTreeMap<HostId, Vec<Value>>,
    locks: BTreeMap<HostId, Vec<Value>>,
    within: WithinCalls,
    /// What has changed in files, where that is asked for.
    texts: Option<Texts>,
}

/// What ended in the bodies of `call`, in its order.
pub(crate) type WithinCalls = BTreeMap<(HostId, OpId), Vec<WithinCall>>;

/// An operation in the body of a `call` that has ended.
#[derive(Clone, Debug)]
pub struct WithinCall {
    /// `module.operation`.
    pub kind: String,
    /// Its title for people.
    pub title: String,
    /// Where it is called.
    pub location: Option<Location>,
    /// What came of it.
    pub result: HostResult,
}

/// What operations have changed in files.
type Texts = BTreeMap<(OpId, HostId), Vec<Arc<Vec<TextChange>>>>;

impl Json {
    /// The document goes to `writer`; with `started`, the time when the program was started, it says how long the run took.
    ///
    /// A `writer` that fails leaves a document that is cut short, which no reader of JSON takes for a whole one.
    #[expect(clippy::new_ret_no_self, reason = "reporters are handed on as trait objects")]
    pub fn new(writer: Box<dyn Write + Send>, started: Option<Instant>) -> Box<dyn Reporter> {
        Self::with(writer, started, None)
    }

    /// The same with the differences of text files: what the plan changes in them, and what the run has changed.
    pub fn with_diffs(writer: Box<dyn Write + Send>, started: Option<Instant>) -> Box<dyn Reporter> {
        Self::with(writer, started, Some(Texts::new()))
    }

    fn with(writer: Box<dyn Write + Send>, started: Option<Instant>, texts: Option<Texts>) -> Box<dyn Reporter> {
        Box::new(Self {
            writer,
            started,
            state: RunState::default(),
            unreachable: BTreeMap::new(),
            failed: BTreeMap::new(),
            misuse: Vec::new(),
            facts: BTreeMap::new(),
            locks: BTreeMap::new(),
            within: BTreeMap::new(),
            texts,
        })
    }
}

/// The document for something that was written wrongly and showed before a run began: no hosts, exit code 2. It ends with a newline.
pub fn misuse_document(diagnostic: &Diagnostic) -> String {
    let mut state = RunState::default();
    state.fold(&Event::Misused { host: None, diagnostic: Box::new(diagnostic.clone()) });
    let document = Document {
        state: &state,
        unreachable: &BTreeMap::new(),
        failed: &BTreeMap::new(),
        facts: &BTreeMap::new(),
        locks: &BTreeMap::new(),
        within: &BTreeMap::new(),
        texts: None,
    };
    text(&document.value(&[(diagnostic.clone(), Vec::new())], None))
}

/// The document as text.
pub(crate) fn text(document: &Value) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("a value is JSON");
    text.push('\n');
    text
}

/// The document of a run that is over, as far as its journal tells.
pub(crate) fn of_record(record: &Record) -> Value {
    let Record { state, unreachable, failed_outside, within, .. } = record;
    let (facts, locks) = (&BTreeMap::new(), &BTreeMap::new());
    let document = Document { state, unreachable, failed: failed_outside, facts, locks, within, texts: None };
    document.value(&[], Some(record.took()))
}

impl Reporter for Json {
    fn event(&mut self, event: &Event) {
        self.state.fold(event);
        match event {
            Event::HostUnreachable { host, error } => {
                self.unreachable.insert(*host, error.clone());
            }
            Event::HostFailed { host, diagnostic } => {
                self.failed.insert(*host, (**diagnostic).clone());
            }
            Event::Misused { host, diagnostic } => match self.misuse.iter_mut().find(|(known, _)| *known == **diagnostic) {
                Some((_, hosts)) => hosts.extend(host),
                None => self.misuse.push(((**diagnostic).clone(), host.iter().copied().collect())),
            },
            Event::Lock { host, on, news, .. } => self.locks.entry(*host).or_default().push(lock_news(on.as_deref(), news)),
            Event::FactAnswered { host, fact, question, answer } => {
                let mut one = Map::new();
                one.insert("fact".into(), json!(fact));
                one.insert("question".into(), question.clone());
                match answer {
                    Ok(answer) => one.insert("answer".into(), (**answer).clone()),
                    Err(message) => one.insert("error".into(), json!(message)),
                };
                self.facts.entry(*host).or_default().push(Value::Object(one));
            }
            Event::WithinCall { op, host, kind, title, location, result } => {
                let (kind, title, location, result) = (kind.clone(), title.clone(), location.clone(), (**result).clone());
                self.within.entry((*host, *op)).or_default().push(WithinCall { kind, title, location, result });
            }
            Event::TextsChanged { op, host, texts } => {
                if let Some(known) = &mut self.texts {
                    known.entry((*op, *host)).or_default().push(texts.clone());
                }
            }
            Event::RunEnded => {
                let Self { state, unreachable, failed, facts, locks, within, texts, .. } = &*self;
                let document = Document { state, unreachable, failed, facts, locks, within, texts: texts.as_ref() };
                let document = text(&document.value(&self.misuse, self.started.map(|started| started.elapsed())));
                // There is no other place to say that this one cannot be written to; the reader sees that the document is not whole.
                let _ = self.writer.write_all(document.as_bytes()).and_then(|()| self.writer.flush());
            }
            _ => {}
        }
    }
}

struct Document<'r> {
    state: &'r RunState,
    unreachable: &'r BTreeMap<HostId, ConnectError>,
    failed: &'r BTreeMap<HostId, Diagnostic>,
    facts: &'r BTreeMap<HostId, Vec<Value>>,
    locks: &'r BTreeMap<HostId, Vec<Value>>,
    within: &'r WithinCalls,
    texts: Option<&'r Texts>,
}

impl Document<'_> {
    fn value(&self, misuse: &[(Diagnostic, Vec<HostId>)], took: Option<Duration>) -> Value {
        let state = self.state;
        let accounting = state.account();
        let mut totals = Map::new();
        totals.insert("hosts".into(), json!(accounting.hosts.len()));
        totals.extend(accounting.counts().into_iter().map(|(bucket, number)| (key(bucket), json!(number))));
        let mut bounds = Bounds::new(0);
        let mut host = |(id, bucket): &(HostId, Bucket)| (state.hosts[id].name.clone(), self.host(*id, *bucket, &mut bounds));
        let hosts: Map = accounting.hosts.iter().map(&mut host).collect();
        let misuse: Vec<_> = misuse
            .iter()
            .map(|(diagnostic, hosts)| {
                let mut value = wrong(diagnostic);
                value.insert("hosts".into(), hosts.iter().map(|host| json!(self.name(*host))).collect());
                value
            })
            .collect();
        json!({
            "version": VERSION,
            "kind": state.kind,
            "plan": state.plan.as_ref().map(|plan| self.plan(plan)),
            "hosts": hosts,
            "totals": totals,
            "misuse": misuse,
            "declined": state.declined,
            "stopped": state.stopped.as_ref().map(|reason| self.stopped(reason)),
            "interrupted": state.interrupted > 0,
            "departures": afterwards::departures_value(state),
            "proof": afterwards::proof_value(state, |host| outlook(host, None)),
            "traffic": afterwards::traffic_value(state),
            "took": took.map(seconds),
            "exit_code": state.exit_code(),
        })
    }

    fn name(&self, host: HostId) -> &str {
        self.state.hosts.get(&host).map_or("?", |host| host.name.as_str())
    }

    fn plan(&self, plan: &Plan) -> Value {
        let mut bounds = self.texts.map(|_| Bounds::new(0));
        let operations = plan.operations.iter().map(|operation| {
            let hosts: Map = operation.hosts.iter().map(|host| (self.name(host.host).to_owned(), outlook(host, bounds.as_mut()))).collect();
            json!({
                "id": operation.id,
                "operation": operation.kind,
                "title": operation.title,
                "location": operation.location,
                "serial": operation.serial.as_ref().map_or(json!(false), |batch| json!(batch)),
                "blocks": operation.blocks,
                "run_once": operation.run_once,
                "hosts": hosts,
            })
        });
        let blocks = plan.blocks.iter().map(|block| {
            let mut value = Map::new();
            value.insert("id".into(), json!(block.id));
            value.insert("title".into(), json!(block.title));
            value.insert("location".into(), json!(block.location));
            match &block.kind {
                BlockKind::Parallel => {
                    value.insert("kind".into(), json!("parallel"));
                }
                BlockKind::Rolling(Rolling { batch, max_fail, pause }) => {
                    let members =
                        [("kind", json!("rolling")), ("batch", json!(batch)), ("max_fail", json!(max_fail)), ("pause", json!(pause))];
                    value.extend(members.map(|(key, member)| (key.to_owned(), member)));
                }
            }
            Value::Object(value)
        });
        let mut value = json!({ "operations": operations.collect::<Vec<_>>(), "blocks": blocks.collect::<Vec<_>>(), "notes": plan.notes });
        if !plan.earlier.is_empty() {
            let note = |note: &EarlierNote| {
                let mut value = json!(note.what);
                value["operation"] = json!(note.op);
                value["hosts"] = note.hosts.iter().map(|host| self.name(*host)).collect();
                value
            };
            value["earlier"] = plan.earlier.iter().map(note).collect();
        }
        value
    }

    fn host(&self, id: HostId, bucket: Bucket, bounds: &mut Bounds) -> Value {
        let host = &self.state.hosts[&id];
        let operations = host.results.iter().map(|(op, result)| {
            let mut value = Map::from_iter([("id".to_owned(), json!(op))]);
            value.extend(self.result(result));
            if let Some(within) = self.within.get(&(id, *op)) {
                value.insert("within".into(), within.iter().map(|one| self.within(one)).collect());
            }
            if let Some(texts) = self.texts {
                let changed = texts.get(&(*op, id)).into_iter().flatten().flat_map(|texts| texts.iter());
                value.insert("diffs".into(), changed.map(|text| diffs::value(text, bounds)).collect());
            }
            value
        });
        let mut value = Map::new();
        value.insert("state".into(), json!(bucket));
        if let Some(ConnectError { step, message, hint }) = self.unreachable.get(&id) {
            value.insert("unreachable".into(), json!({ "step": step, "message": message, "hint": hint }));
        }
        if let Some(diagnostic) = self.failed.get(&id) {
            value.insert("failed".into(), Value::Object(wrong(diagnostic)));
        }
        if let Some(news) = self.locks.get(&id) {
            value.insert("lock".into(), json!(news));
        }
        if let Some(Traffic { round_trips, commands }) = host.traffic {
            value.insert("traffic".into(), json!({ "round_trips": round_trips, "commands": commands }));
        }
        if self.state.kind == Some(RunKind::Fact) {
            value.insert("facts".into(), json!(self.facts.get(&id).map_or(&[][..], Vec::as_slice)));
        } else {
            value.insert("operations".into(), json!(operations.collect::<Vec<_>>()));
        }
        Value::Object(value)
    }

    fn within(&self, WithinCall { kind, title, location, result }: &WithinCall) -> Value {
        let members = [("operation", json!(kind)), ("title", json!(title)), ("location", json!(location))];
        let mut value: Map = members.into_iter().map(|(key, member)| (key.to_owned(), member)).collect();
        value.extend(self.result(result));
        Value::Object(value)
    }

    fn result(&self, result: &HostResult) -> Map {
        let mut value = Map::new();
        let mut put = |key: &str, one: Value| value.insert(key.to_owned(), one);
        match &result.outcome {
            Outcome::Changed { reason } => {
                put("outcome", json!("changed"));
                put("reason", json!(reason));
            }
            Outcome::Unchanged { reason } => {
                put("outcome", json!("unchanged"));
                put("reason", json!(reason));
            }
            Outcome::Skipped { reason } => {
                put("outcome", json!("skipped"));
                put("reason", json!(reason));
            }
            Outcome::Failed { failure: what, ignored } => {
                put("outcome", json!("failed"));
                put("ignored", json!(ignored));
                put("failure", failure(what));
            }
            Outcome::Indeterminate { failure: what } => {
                put("outcome", json!("indeterminate"));
                put("failure", failure(what));
            }
            Outcome::Earlier { run, changed } => {
                put("outcome", json!("earlier"));
                put("run", json!(run));
                put("changed", json!(changed));
            }
            Outcome::Elsewhere { host, changed, ok } => {
                put("outcome", json!("elsewhere"));
                put("host", json!(self.name(*host)));
                put("changed", json!(changed));
                put("ok", json!(ok));
            }
        }
        put("steps_done", json!(result.steps_done));
        put("retries", json!(result.retries));
        put("exit_code", json!(result.exit_code));
        put("stdout", json!(result.stdout));
        put("stderr", json!(result.stderr));
        put("took", json!(seconds(result.took)));
        value
    }

    fn stopped(&self, reason: &StopReason) -> Value {
        match reason {
            StopReason::FailFast { host } => json!({ "rule": "fail-fast", "host": self.name(*host) }),
            StopReason::WaveFailed { of, wave, not_ok, entered, allowed } => {
                let (operation, block) = match of {
                    Waves::Operation(op) => (Some(op), None),
                    Waves::Block(block) => (None, Some(block)),
                    Waves::Run => (None, None),
                };
                json!({
                    "rule": "wave-failed",
                    "operation": operation,
                    "block": block,
                    "wave": wave,
                    "not_ok": not_ok,
                    "entered": entered,
                    "allowed": allowed,
                })
            }
            StopReason::FailPercent { not_ok, selected, allowed } => {
                json!({ "rule": "fail-percent", "not_ok": not_ok, "selected": selected, "allowed": allowed })
            }
            StopReason::RunOnceFailed { op, host } => json!({ "rule": "run-once-failed", "operation": op, "host": self.name(*host) }),
            StopReason::Interrupted => json!({ "rule": "interrupted" }),
            StopReason::NoHostLeft => json!({ "rule": "no-host-left" }),
        }
    }
}

/// The name of a bucket's member.
pub(crate) fn key(bucket: Bucket) -> String {
    json!(bucket).as_str().unwrap_or_default().to_owned()
}

/// Seconds, in whole milliseconds, so that a number has no more digits than it has meaning.
fn seconds(took: Duration) -> f64 {
    took.as_millis() as f64 / 1000.0
}

/// What will happen on a host; with `bounds` also what changes in files.
fn outlook(host: &HostOutlook, bounds: Option<&mut Bounds>) -> Value {
    match &host.outlook {
        Outlook::Change { reason, steps, texts } => {
            let mut value = json!({ "outlook": "change", "reason": reason, "steps": steps });
            if let Some(bounds) = bounds {
                value["diffs"] = texts.iter().map(|text| diffs::value(text, bounds)).collect();
            }
            value
        }
        Outlook::NoChange { reason } => json!({ "outlook": "no-change", "reason": reason }),
        Outlook::Depends { on, would } => json!({ "outlook": "depends", "on": on, "would": would }),
    }
}

fn lock_news(on: Option<&str>, news: &LockNews) -> Value {
    let mut value = match news {
        LockNews::Waiting { holder, at_most } => json!({ "news": "waiting", "holder": holder, "at_most": seconds(*at_most) }),
        LockNews::Moved => json!({ "news": "moved" }),
        LockNews::SameMachine { other } => json!({ "news": "same-machine", "other": other }),
        LockNews::Unavailable { reason } => json!({ "news": "unavailable", "reason": reason }),
    };
    if let Some(on) = on {
        value["on"] = json!(on);
    }
    value
}

fn wrong(diagnostic: &Diagnostic) -> Map {
    let Diagnostic { message, location, source_line, hint, chain, .. } = diagnostic;
    let members = [
        ("message", json!(message)),
        ("location", json!(location)),
        ("source_line", json!(source_line)),
        ("hint", json!(hint)),
        ("chain", json!(chain)),
    ];
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn failure(failure: &Failure) -> Value {
    let Failure { message, hint, step, ending, last_output } = failure;
    json!({ "message": message, "hint": hint, "step": step, "ending": ending.as_ref().map(self::ending), "last_output": last_output })
}

fn ending(ending: &Ending) -> Value {
    match ending {
        Ending::Exited(status) => json!({ "how": "exited", "status": status }),
        Ending::TimedOut { after, still_running } => {
            json!({ "how": "timed-out", "after": seconds(*after), "still_running": still_running })
        }
        Ending::Killed => json!({ "how": "killed" }),
        Ending::Refused(reason) => json!({ "how": "refused", "reason": reason }),
        Ending::Locked(locked) => json!({ "how": "locked", "why": locked }),
        Ending::Lost { reason, begun } => json!({ "how": "lost", "reason": reason, "begun": begun }),
    }
}
