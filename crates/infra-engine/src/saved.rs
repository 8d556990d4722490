//! Saved plans: what a plan rests on is written down, and looked at again before the plan is applied.
//!
//! To apply one, the same questions are asked of each host, in one request, and their answers compared by digest. Where all are the same, the scripts are
//! evaluated on them, and must come to the same operations with the same steps. In execute each operation may do what it was planned to do and nothing else.

use std::cell::RefCell;
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
use infra_core::saved_plan::{
    Basis, CallBasis, FactBasis, HostBasis, Planned, answer_digest, difference, lasting, salted, short_answer, steps_digest,
};

use crate::fact_store::Asked;
use crate::host_run::HostRun;
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
    pub(crate) fn check(&self, change: &Change) -> Result<(), Setback> {
        let does = || if change.reason.is_empty() { String::new() } else { format!(" ({})", change.reason) };
        // Another try would come to the same, and nobody meant such a failure by `_ignore_errors`.
        let stale = |message: String| Err(Setback { kind: SetbackKind::Final, ..Setback::hinted(message, Some(AGAIN.to_owned())) });
        match (self, steps_digest(change)) {
            (Self::Anything, _) | (_, None) => Ok(()),
            (Self::Steps(planned), Some(steps)) if *planned == steps => Ok(()),
            (Self::Steps(_), Some(_)) => stale(format!("stale: it would do something else now than in the saved plan{}", does())),
            (Self::Nothing, Some(_)) => stale(format!("stale: the saved plan has no change here, and now there would be one{}", does())),
        }
    }
}

/// What the plan of each host rests on, and what it comes to.
pub(crate) fn basis(prepared: &BTreeMap<HostId, (String, Prepared)>, salt: &str) -> Basis {
    let locals = prepared.values().next().map(|(_, one)| one.sites.own().locals.basis(salt)).unwrap_or_default();
    let hosts = prepared.values().map(|(name, one)| (name.clone(), host_basis(one, salt))).collect();
    Basis { salt: salt.to_owned(), hosts, locals }
}

fn host_basis(prepared: &Prepared, salt: &str) -> HostBasis {
    let run = prepared.sites.own();
    let mut looked_at: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (at, keys) in (0..prepared.calls.len()).map(|at| (at, looks_at(prepared, at))) {
        for key in keys {
            looked_at.entry(key).or_default().insert(at);
        }
    }
    let facts = run.store().all().into_iter().map(|(asked, answer)| {
        let operations = looked_at.get(&asked.key()).into_iter().flatten().map(|at| prepared.calls[*at].title()).collect();
        let answer = answer.map(|answer| lasting(&*asked.fact, answer));
        FactBasis {
            fact: asked.fact.name().to_owned(),
            question: asked.fact.question(),
            digest: answer_digest(salt, &answer),
            answer: answer.ok().as_ref().filter(|_| !asked.fact.confidential()).and_then(short_answer),
            context: asked.context,
            operations,
        }
    });
    HostBasis { facts: facts.collect(), calls: calls(prepared, salt) }
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

/// The questions that an operation asks of its host as the host stands.
fn looks_at(prepared: &Prepared, at: usize) -> BTreeSet<String> {
    let call = &prepared.calls[at];
    let run = prepared.sites.of(call);
    if !Arc::ptr_eq(run, prepared.sites.own()) {
        return BTreeSet::new();
    }
    let Ok(operation) = call.bind(&run.registry, |_| true) else { return BTreeSet::new() };
    let listening = Listening { run, context: call.globals.context(), asked: RefCell::default() };
    // What it comes to is known by now: here it matters what it asks.
    let _ = operation.diff(&Facts::new(&listening).with_inventory(&run.inventory));
    listening.asked.into_inner()
}

/// What is known of a host, with a list of what is asked.
struct Listening<'r> {
    run: &'r HostRun,
    context: Context,
    asked: RefCell<BTreeSet<String>>,
}

impl FactSource for Listening<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        let asked = Asked::new(fact.clone(), &self.context);
        self.asked.borrow_mut().insert(asked.key());
        self.run.store().lookup(&asked)
    }

    fn local(&self, path: &str) -> LocalLookup {
        self.run.locals.lookup(path)
    }
}

/// Asks a host the questions of a saved plan again, in one request, and compares the answers.
///
/// # Errors
/// What is no longer as it was, or why the host cannot be asked.
pub(crate) async fn check_facts(run: &Arc<HostRun>, basis: &Basis) -> Result<(), Box<Diagnostic>> {
    let name = &run.host.name;
    let Some(host) = basis.hosts.get(name) else {
        return Err(Box::new(Diagnostic::host("the saved plan does not have this host")));
    };
    // A fact that a file of Lua defines is known only when that file has run: what rests on it is compared by what it comes to.
    let asked = |fact: &FactBasis| Some(Asked { fact: bind(&run.registry, fact)?, context: fact.context.clone() });
    let known: Vec<(&FactBasis, Asked)> = host.facts.iter().filter_map(|fact| Some((fact, asked(fact)?))).collect();
    let questions = known.iter().map(|(_, asked)| asked.clone()).collect();
    run.gather(questions).await.map_err(|lost| Box::new(Diagnostic::host(lost.to_string())))?;
    let mut changed: Vec<String> = Vec::new();
    for (before, asked) in known {
        let now: Result<Value, String> = match run.store().lookup(&asked) {
            Lookup::Known(value) => Ok(lasting(&*asked.fact, (*value).clone())),
            Lookup::Failed(message) => Err(message),
            Lookup::Missing | Lookup::Unknown(_) => Err("the host gave no answer to it".to_owned()),
        };
        if answer_digest(&basis.salt, &now) != before.digest {
            changed.push(no_longer(before, &now, asked.fact.confidential()));
        }
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
        let steps = steps_digest(&run("a")).expect("a change has steps");
        let allowed =
            |planned, change: &Change| Allowed::by(planned, Some(&steps)).check(change).map_err(|setback| setback.failure.message);
        assert_eq!(allowed(Planned::Change, &run("a")), Ok(()));
        assert_eq!(allowed(Planned::Change, &Change::none("done")), Ok(()), "what is not needed is not done");
        let other = "stale: it would do something else now than in the saved plan (run)";
        assert_eq!(allowed(Planned::Change, &run("b")), Err(other.to_owned()));
        assert_eq!(allowed(Planned::Depends, &run("b")), Ok(()));
        let waits = Change::idle("wait").then(infra_core::change::Action::Run(Shell::verbatim("w").into()));
        assert_eq!(Allowed::Nothing.check(&waits).map_err(|setback| setback.failure.message), Ok(()), "waiting changes nothing");
        let none = "stale: the saved plan has no change here, and now there would be one (run)";
        assert_eq!(allowed(Planned::NoChange, &run("a")), Err(none.to_owned()));
    }
}
