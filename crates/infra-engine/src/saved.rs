//! Saved plans: what a plan rests on is written down, and looked at again before the plan is applied.
//!
//! To apply one, the same questions are asked of each host, in one request, and their answers compared by digest. Where all are the same, the scripts are
//! evaluated on them, and must come to the same operations with the same steps. In execute each operation may do what it was planned to do and nothing else.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use infra_core::Value;
use infra_core::change::Change;
use infra_core::diagnostic::Diagnostic;
use infra_core::fact::SharedFact;
use infra_core::facts::{FactSource, Facts, LocalLookup, Lookup};
use infra_core::global_arguments::Context;
use infra_core::host::HostId;
use infra_core::plan::Outlook;
use infra_core::registry::Registry;
use infra_core::resources::normal_path;
use infra_core::saved_plan::{
    Basis, CallBasis, FactBasis, HostBasis, Planned, answer_digest, difference, lasting, salted, short_answer, steps_digest,
};
use infra_core::script::OperationCall;
use infra_core::secret::Secrets;
use serde_json::json;

use crate::fact_store::Asked;
use crate::host_run::HostRun;
use crate::places::Places;
use crate::prepare::Prepared;
use crate::setback::{Setback, SetbackKind};

/// How many facts that are no longer what they were are named.
const NAMED: usize = 3;

/// What everybody is told whose plan is stale.
const AGAIN: &str = "make the plan again with --plan, and look at what has become of it";

/// What an operation may do in execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allowed {
    /// What it comes to then.
    Anything,
    /// Nothing that changes the host.
    Nothing,
    /// The steps with this digest.
    Steps(String),
}

impl Allowed {
    /// What the plan lets an operation do.
    pub(crate) fn by(planned: Planned, steps: Option<&String>) -> Self {
        match (planned, steps) {
            (Planned::Depends, _) => Self::Anything,
            (Planned::Change, Some(steps)) => Self::Steps(steps.clone()),
            (Planned::Change | Planned::NoChange, _) => Self::Nothing,
        }
    }

    /// Whether this change may be made. To find nothing left to do is always well: what was not needed is not done.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, change: &Change, secrets: &Secrets) -> Result<(), Setback> {
        let does = || if change.reason.is_empty() { String::new() } else { format!(" ({})", change.reason) };
        // Another try would come to the same, and nobody meant such a failure by `_ignore_errors`.
        let stale = |message: String| Err(Setback { kind: SetbackKind::Final, ..Setback::hinted(message, Some(AGAIN.to_owned())) });
        match (self, steps_digest(change, secrets)) {
            (Self::Anything, _) | (_, None) => Ok(()),
            (Self::Steps(planned), Some(steps)) if *planned == steps => Ok(()),
            (Self::Steps(_), Some(_)) => stale(format!("stale: it would do something else now than in the saved plan{}", does())),
            (Self::Nothing, Some(_)) => stale(format!("stale: the saved plan has no change here, and now there would be one{}", does())),
        }
    }
}

/// What the plan of each host rests on, and what it comes to.
pub(crate) fn basis(prepared: &BTreeMap<HostId, (String, Prepared)>, places: &Places, salt: &str) -> Basis {
    let first = prepared.values().next().map(|(_, one)| one.sites.own());
    let locals = first.map(|run| run.locals.basis(salt, &run.secrets)).unwrap_or_default();
    let looks = Looks::of(prepared);
    let mut basis = Basis { salt: salt.to_owned(), locals, ..Basis::default() };
    for (id, (name, one)) in prepared {
        let elsewhere = places.used_by(*id);
        let facts = looks.facts(one.sites.own(), salt);
        basis.hosts.insert(name.clone(), HostBasis { facts, elsewhere: elsewhere.keys().cloned().collect(), calls: calls(one, salt) });
        for (name, run) in elsewhere {
            if !prepared.values().any(|(host, _)| *host == name) {
                basis.places.entry(name).or_insert_with(|| looks.facts(&run, salt));
            }
        }
    }
    basis
}

/// What the operations of all hosts look at, by the name of where it is asked.
#[derive(Default)]
struct Looks {
    /// By the question: the titles of those that look at it.
    titles: BTreeMap<(String, String), BTreeSet<(usize, String)>>,
    /// What tells what a file holds that an operation with a secret looks at: by the path of the file.
    secret: BTreeSet<(String, String)>,
}

impl Looks {
    fn of(prepared: &BTreeMap<HostId, (String, Prepared)>) -> Self {
        let mut looks = Self::default();
        for (_, one) in prepared.values() {
            for (at, call) in one.calls.iter().enumerate() {
                let run = one.sites.of(call);
                let (asked, of_secret) = looks_at(one, at);
                let secret = of_secret || has_secret(run, call);
                for asked in asked {
                    let of = |text: String| (run.host.name.clone(), text);
                    if let Some(path) = asked.fact.path().filter(|_| secret && asked.fact.tells_content()) {
                        looks.secret.insert(of(normal_path(path)));
                    }
                    looks.titles.entry(of(asked.key())).or_default().insert((at, call.title()));
                }
            }
        }
        looks
    }

    /// All that is known of a host or another place, but for that from which a secret could be found out: it is compared by what it comes to.
    fn facts(&self, run: &HostRun, salt: &str) -> Vec<FactBasis> {
        let mut facts = Vec::new();
        for (asked, answer) in run.store().all() {
            let of = |text: String| (run.host.name.clone(), text);
            let of_file = asked.fact.path().filter(|_| asked.fact.tells_content()).map(|path| of(normal_path(path)));
            let told = of_file.is_some_and(|file| self.secret.contains(&file));
            let held = |value: &Value| run.secrets.holds_in(value);
            if told || held(&asked.fact.question()) || held(&json!(asked.context)) || answer.as_ref().is_ok_and(held) {
                continue;
            }
            let titles = self.titles.get(&of(asked.key())).into_iter().flatten();
            let mut operations: Vec<String> = Vec::new();
            for (_, title) in titles {
                if !operations.contains(title) {
                    operations.push(title.clone());
                }
            }
            let answer = answer.map(|answer| lasting(&*asked.fact, answer));
            facts.push(FactBasis {
                fact: asked.fact.name().to_owned(),
                question: asked.fact.question(),
                digest: answer_digest(salt, &answer),
                answer: answer.ok().as_ref().filter(|_| !asked.fact.confidential()).and_then(short_answer),
                context: asked.context,
                operations,
            });
        }
        facts
    }
}

/// Whether what a call writes may hold a secret: also by way of what a template sees of its host.
fn has_secret(run: &HostRun, call: &OperationCall) -> bool {
    let secrets = &run.secrets;
    !secrets.is_empty()
        && (call.arguments.values().any(|value| secrets.holds_in(value)) || secrets.holds_in(&json!(call.globals.context())))
}

/// What each call of a host comes to.
fn calls(prepared: &Prepared, salt: &str) -> Vec<CallBasis> {
    let call = |(at, outlook): (usize, &Outlook)| CallBasis {
        title: prepared.calls[at].title(),
        mark: prepared.earlier.mark(at).clone(),
        planned: Planned::of(outlook),
        steps: prepared.steps[at].as_ref().map(|steps| salted(salt, steps)),
    };
    prepared.outlooks.iter().enumerate().map(call).collect()
}

/// The questions that an operation asks as its host stands, and whether it looks at a file of the controller that holds a secret.
fn looks_at(prepared: &Prepared, at: usize) -> (Vec<Asked>, bool) {
    let call = &prepared.calls[at];
    let run = prepared.sites.of(call);
    let Ok(operation) = call.bind(&run.registry, |_| true) else { return (Vec::new(), false) };
    let listening = Listening { run, context: call.globals.context(), asked: RefCell::default(), secret: Cell::new(false) };
    // What it comes to is known by now: here it matters what it asks.
    let _ = operation.diff(&Facts::new(&listening).with_inventory(&run.inventory));
    (listening.asked.into_inner(), listening.secret.get())
}

/// What is known of a host, with a list of what is asked.
struct Listening<'r> {
    run: &'r HostRun,
    context: Context,
    asked: RefCell<Vec<Asked>>,
    secret: Cell<bool>,
}

impl FactSource for Listening<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        let asked = Asked::new(fact.clone(), &self.context);
        let answer = self.run.store().lookup(&asked);
        self.asked.borrow_mut().push(asked);
        answer
    }

    fn local(&self, path: &str) -> LocalLookup {
        let found = self.run.locals.lookup(path);
        if let LocalLookup::Known(file) = &found {
            let holds = file.content.as_ref().is_some_and(|content| self.run.secrets.holds_bytes(content));
            self.secret.set(self.secret.get() || holds);
        }
        found
    }
}

/// Asks a host the questions of a saved plan again, in one request, and compares the answers; and so with the places where it has something to do.
///
/// # Errors
/// What is no longer as it was, or why the host cannot be asked.
pub(crate) async fn check_facts(run: &Arc<HostRun>, basis: &Basis, places: &Places) -> Result<(), Box<Diagnostic>> {
    let Some(host) = basis.hosts.get(&run.host.name) else {
        return Err(Box::new(Diagnostic::host("the saved plan does not have this host")));
    };
    let mut changed = changed_facts(run, &host.facts, &basis.salt).await.map_err(|lost| Box::new(Diagnostic::host(lost)))?;
    for name in &host.elsewhere {
        let facts = basis.places.get(name).or_else(|| Some(&basis.hosts.get(name)?.facts)).map(Vec::as_slice).unwrap_or_default();
        let not_there = |why: String| Box::new(Diagnostic::host(format!("{name}, on which the plan of this host rests, is {why}")));
        let Some(place) = places.named(name) else { return Err(not_there("no host of the inventory".to_owned())) };
        let there = places.at(run, Some(place)).await.map_err(|error| not_there(error.to_string()))?;
        let changed_there = changed_facts(&there, facts, &basis.salt).await;
        let changed_there = changed_there.map_err(|lost| Box::new(Diagnostic::host(format!("{name}: {lost}"))))?;
        changed.extend(changed_there.into_iter().map(|fact| format!("on {name}: {fact}")));
    }
    if changed.is_empty() {
        return Ok(());
    }
    let more = changed.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    changed.truncate(NAMED);
    let message = format!("stale: what the plan rests on has changed: {}{more}", changed.join("; "));
    Err(Box::new(Diagnostic::host(message).hint(AGAIN)))
}

/// Those of these facts that are no longer what they were, each with who looks at it.
///
/// # Errors
/// Why the host cannot be asked.
async fn changed_facts(run: &HostRun, facts: &[FactBasis], salt: &str) -> Result<Vec<String>, String> {
    // A fact that a file of Lua defines is known only when that file has run: what rests on it is compared by what it comes to.
    let asked = |fact: &FactBasis| Some(Asked { fact: bind(&run.registry, fact)?, context: fact.context.clone() });
    let known: Vec<(&FactBasis, Asked)> = facts.iter().filter_map(|fact| Some((fact, asked(fact)?))).collect();
    let questions = known.iter().map(|(_, asked)| asked.clone()).collect();
    run.gather(questions).await.map_err(|lost| lost.to_string())?;
    let mut changed: Vec<String> = Vec::new();
    for (before, asked) in known {
        let now: Result<Value, String> = match run.store().lookup(&asked) {
            Lookup::Known(value) => Ok(lasting(&*asked.fact, (*value).clone())),
            Lookup::Failed(message) => Err(message),
            Lookup::Missing | Lookup::Unknown(_) => Err("the host gave no answer to it".to_owned()),
        };
        if answer_digest(salt, &now) != before.digest {
            changed.push(no_longer(before, &now, asked.fact.confidential()));
        }
    }
    Ok(changed)
}

fn bind(registry: &Registry, fact: &FactBasis) -> Option<SharedFact> {
    registry.fact(&fact.fact)?.bind(fact.question.as_object().cloned().unwrap_or_default()).ok()
}

/// One fact that is not what it was, and who looks at it.
fn no_longer(before: &FactBasis, now: &Result<Value, String>, confidential: bool) -> String {
    let words: Vec<String> = before.question.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()).map(word).collect();
    let question = [vec![before.fact.clone()], words].concat().join(" ");
    let of = match before.operations.as_slice() {
        [] => " (of the deploy itself)".to_owned(),
        [one] => format!(" (of «{one}»)"),
        [one, rest @ ..] => format!(" (of «{one}» and {} more)", rest.len()),
    };
    let what = if confidential { "it is another".to_owned() } else { difference(before.answer.as_ref(), now) };
    format!("{question}{of}: {what}")
}

fn word((name, value): (&String, &Value)) -> String {
    match value {
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    }
}

/// Whether the script has come to the same operations with the same steps.
///
/// # Errors
/// The first that is another one.
pub(crate) fn check_calls(name: &str, prepared: &Prepared, basis: &Basis) -> Result<(), Box<Diagnostic>> {
    let before = basis.hosts.get(name).map(|host| host.calls.as_slice()).unwrap_or_default();
    let now = calls(prepared, &basis.salt);
    let differs = |message: String| {
        let message = format!("stale: the same sources and facts come to something else now: {message}");
        Err(Box::new(Diagnostic::host(message).hint("what depends on the time, on chance or on another host cannot be saved in a plan")))
    };
    for (before, now) in before.iter().zip(&now) {
        if before.mark != now.mark {
            return match before.mark.identity == now.mark.identity {
                true => differs(format!("«{}» has other arguments than in the plan", now.title)),
                false => differs(format!("«{}» stands where the plan has «{}»", now.title, before.title)),
            };
        }
        if before.planned != now.planned {
            let (was, is) = (before.planned.words(), now.planned.words());
            return differs(format!("«{}» was {was} and is {is}", now.title));
        }
        if before.steps != now.steps {
            return differs(format!("«{}» would do something else than in the plan", now.title));
        }
    }
    match (before.len(), now.len()) {
        (was, is) if was == is => Ok(()),
        (was, is) => differs(format!("{is} operations, where the plan has {was}")),
    }
}

/// What each call of a host may do in execute.
pub(crate) fn allowed(prepared: &Prepared) -> Vec<Allowed> {
    let of = |(outlook, steps): (&Outlook, &Option<String>)| Allowed::by(Planned::of(outlook), steps.as_ref());
    prepared.outlooks.iter().zip(&prepared.steps).map(of).collect()
}

#[cfg(test)]
mod tests {
    use infra_core::command::Shell;

    use super::*;

    #[test]
    fn what_may_be_done_is_what_was_planned() {
        let run = |text: &str| Change::new("run").run(Shell::verbatim(text));
        let steps = steps_digest(&run("a"), &Secrets::default()).expect("a change has steps");
        let allowed = |planned, change: &Change| {
            Allowed::by(planned, Some(&steps)).check(change, &Secrets::default()).map_err(|setback| setback.failure.message)
        };
        assert_eq!(allowed(Planned::Change, &run("a")), Ok(()));
        assert_eq!(allowed(Planned::Change, &Change::none("done")), Ok(()), "what is not needed is not done");
        let other = "stale: it would do something else now than in the saved plan (run)";
        assert_eq!(allowed(Planned::Change, &run("b")), Err(other.to_owned()));
        assert_eq!(allowed(Planned::Depends, &run("b")), Ok(()));
        let waits = Change::idle("wait").then(infra_core::change::Action::Run(Shell::verbatim("w").into()));
        assert_eq!(
            Allowed::Nothing.check(&waits, &Secrets::default()).map_err(|setback| setback.failure.message),
            Ok(()),
            "waiting changes nothing"
        );
        let none = "stale: the saved plan has no change here, and now there would be one (run)";
        assert_eq!(allowed(Planned::NoChange, &run("a")), Err(none.to_owned()));
    }
}
