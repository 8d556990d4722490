//! What the plan says of one operation on one host.

use infra_core::change::Change;
use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::diagnostic::Diagnostic;
use infra_core::facts::{DependsOn, DiffError, Facts};
use infra_core::global_arguments::Context;
use infra_core::operation::SharedOperation;
use infra_core::plan::Outlook;
use infra_core::resources::Resources;
use infra_core::saved_plan::steps_digest;
use infra_core::script::OperationCall;
use infra_core::tree::TreeQuestion;

use crate::describe;
use crate::fact_store::Asked;
use crate::host_run::HostRun;
use crate::overlay::{Layer, Seen, View};

/// What the plan says of an operation.
pub(crate) struct Settled {
    pub(crate) outlook: Outlook,
    pub(crate) known: Known,
    /// What later operations are to see of it.
    pub(crate) layer: Option<Layer>,
    /// Whether it may run anything anywhere, so that those at other places see it as well.
    pub(crate) everywhere: bool,
    /// The digest of what it will do, where that is known.
    pub(crate) steps: Option<String>,
}

impl Settled {
    fn new(outlook: Outlook, known: Known, layer: Option<Layer>) -> Self {
        Self { outlook, known, layer, everywhere: false, steps: None }
    }

    /// With what it will do.
    fn doing(self, run: &HostRun, change: &Change) -> Self {
        Self { steps: steps_digest(change, &run.secrets), ..self }
    }
}

/// What came of looking at an operation.
pub(crate) enum Judgement {
    /// The plan is settled on it.
    Settled(Settled),
    /// Facts or files are to be read first.
    Wanting(Wanted),
    /// It cannot be planned: the host fails.
    Impossible(Box<Diagnostic>),
}

/// What is to be read.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) facts: Vec<Asked>,
    pub(crate) locals: Vec<String>,
    pub(crate) trees: Vec<TreeQuestion>,
}

impl Wanted {
    pub(crate) fn add(&mut self, other: Self) {
        self.facts.extend(other.facts);
        self.locals.extend(other.locals);
        self.trees.extend(other.trees);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.locals.is_empty() && self.trees.is_empty()
    }
}

/// What came of a diff over a view.
pub(crate) enum Diffed {
    Change(Change, Seen),
    Wanting(Wanted),
    Error(DiffError, Seen),
}

/// Diffs an operation once. What is missing was noted by the engine, whatever the operation made of the error.
pub(crate) fn diff(run: &HostRun, operation: &SharedOperation, layers: &[Layer], context: &Context) -> Diffed {
    let view = View::new(&run.facts, &run.locals, layers, context);
    let facts = Facts::new(&view).with_inventory(&run.inventory);
    let result = operation.diff(&facts);
    let noted = facts.into_noted();
    let seen = view.into_seen();
    if !noted.is_empty() {
        let facts = noted.facts.into_iter().chain(seen.missing).map(|fact| Asked::new(fact, context)).collect();
        return Diffed::Wanting(Wanted { facts, locals: noted.locals, trees: noted.trees });
    }
    match result {
        Ok(change) => Diffed::Change(change, seen),
        Err(error) => Diffed::Error(error, seen),
    }
}

/// Beyond so many open conditions among the arguments, not every combination is tried: the operation may then touch anything.
const COMBINED: usize = 4;

/// One host's plan as far as it is made.
pub(crate) struct Prefix<'a> {
    pub(crate) calls: &'a [OperationCall],
    pub(crate) known: &'a [Known],
    /// What the operation sees of those before it.
    pub(crate) layers: &'a [Layer],
    /// What those before it do on the controller, whose files it may read.
    pub(crate) controller: Vec<&'a [Layer]>,
    /// The name of the place where the operation runs, where that is not the host itself.
    pub(crate) on: Option<&'a str>,
    /// Whether a `_run_once` of this host is certain to run here.
    pub(crate) runs_once: bool,
}

impl Prefix<'_> {
    fn known(&self, call: CallIndex) -> Known {
        self.known.get(call as usize).copied().unwrap_or_default()
    }

    /// The operation whose outcome leaves a condition open; none where a function decides it.
    fn open_operation(&self, conditions: &[&Condition]) -> Option<DependsOn> {
        let open = conditions.iter().flat_map(|one| one.calls()).find(|call| {
            let known = self.known(*call);
            known.changed.is_none() || known.succeeded.is_none()
        });
        let asked = || conditions.iter().flat_map(|one| one.calls()).next();
        let by_function = || conditions.iter().any(|one| !one.functions().is_empty());
        let call = open.or_else(|| if by_function() { None } else { asked() })?;
        Some(DependsOn { call, name: self.calls.get(call as usize).map(OperationCall::title).unwrap_or_default() })
    }

    /// What the plan says of a change that is known, with the place where its steps are done.
    fn outlook(&self, change: &Change) -> Outlook {
        let mut outlook = describe::outlook(change);
        if let (Some(place), Outlook::Change { steps, .. }) = (self.on, &mut outlook) {
            steps.iter_mut().for_each(|step| *step = describe::step_at(place, step));
        }
        outlook
    }
}

/// What the plan says of `call`, with what is known by now. What it asks of its host is added to `asked`.
pub(crate) fn judge(run: &HostRun, call: &OperationCall, before: &Prefix<'_>, asked: &mut Vec<Asked>) -> Judgement {
    let known = |call| before.known(call);
    let when = Condition::All(call.when.clone()).decide(&known);
    if when == Some(false) {
        let reason = skipped(call, before.calls, &known);
        return Judgement::Settled(Settled::new(Outlook::NoChange { reason }, Known::UNCHANGED, None));
    }
    if call.late.body.is_some() || !call.late.arguments.is_empty() {
        return Judgement::Settled(elsewhere(call, before, decided_late(run, call, &known)));
    }
    let mut open: Vec<&Condition> = Vec::new();
    for (_, condition) in &call.conditions {
        if condition.decide(&known).is_none() && !open.contains(&condition) {
            open.push(condition);
        }
    }
    let variants = match variants(run, call, &open, &known) {
        Ok(variants) => variants,
        Err(diagnostic) => return Judgement::Impossible(diagnostic),
    };
    let context = call.globals.context();
    let mut wanted = Wanted::default();
    let mut diffed = Vec::new();
    for operation in &variants {
        match diff(run, operation, before.layers, &context) {
            Diffed::Wanting(missing) => wanted.add(missing),
            Diffed::Change(change, mut seen) => {
                asked.append(&mut seen.asked);
                diffed.push(Ok(change));
            }
            Diffed::Error(error, mut seen) => {
                asked.append(&mut seen.asked);
                diffed.push(Err((error, seen)));
            }
        }
    }
    if !wanted.is_empty() {
        return Judgement::Wanting(wanted);
    }
    let undecided = when.is_none() || !open.is_empty();
    // On which operation, or on none where a function says.
    let mut depends: Option<Option<DependsOn>> = undecided.then(|| {
        let all: Vec<&Condition> = call.when.iter().filter(|one| one.decide(&known).is_none()).chain(open.iter().copied()).collect();
        before.open_operation(&all)
    });
    let mut touches = if open.len() > COMBINED { Resources::everything() } else { Resources::none() };
    let mut changes = Vec::new();
    for (operation, result) in variants.iter().zip(diffed) {
        match result {
            Ok(change) => {
                touches = touches.and(change.touches.clone().unwrap_or_else(|| operation.touches()));
                changes.push(change);
            }
            Err((error, seen)) => {
                touches = touches.and(operation.touches());
                match (unsettled(error, seen, before), depends.is_some()) {
                    (Ok(on), _) => depends = Some(Some(on)),
                    (Err(_), true) => {}
                    (Err(error), false) if call.globals.ignores_errors() => {
                        return Judgement::Settled(elsewhere(call, before, fails_and_is_ignored(&error)));
                    }
                    (Err(error), false) => return Judgement::Impossible(Box::new(cannot_be_planned(call, &error))),
                }
            }
        }
    }
    let from = DependsOn { call: call.call, name: call.title() };
    let agreed = changes.len() == variants.len() && changes.windows(2).all(|pair| pair[0] == pair[1]) && open.len() <= COMBINED;
    let settled = match (agreed.then(|| changes.swap_remove(0)), depends) {
        // Whether it runs or not, nothing changes.
        (Some(change), _) if change.is_none() => Settled::new(before.outlook(&change), Known::UNCHANGED, None),
        // Steps that change nothing, such as waiting, are done all the same; what they wait for may be true only then.
        (Some(change), _) if !change.changes && when.is_some() => {
            let known = if call.globals.ignores_errors() { Known { succeeded: None, ..Known::UNCHANGED } } else { Known::UNCHANGED };
            Settled::new(before.outlook(&change), known, Some(Layer::new(from, touches, change.effects.clone())))
        }
        (Some(change), _) if when.is_some() => {
            let layer = Layer::new(from, touches, change.effects.clone());
            // Where the host goes on after a failure, someone may ask which it was.
            let ignored = call.globals.ignores_errors();
            let known = if ignored { Known { succeeded: None, ..Known::CHANGED } } else { Known::CHANGED };
            Settled::new(before.outlook(&change), known, Some(layer)).doing(run, &change)
        }
        (agreed, depends) => {
            let would = agreed.as_ref().map(describe::summary).or_else(|| as_it_stands(run, &variants[0], &context));
            let on = depends.flatten().map(|on| on.name);
            let layer = Layer::new(from, touches, Vec::new());
            Settled::new(Outlook::Depends { on, would }, Known::OPEN, Some(layer))
        }
    };
    Judgement::Settled(elsewhere(call, before, settled))
}

/// An operation of which only the run can tell what it is: what it touches is known where its other arguments say so.
fn decided_late(run: &HostRun, call: &OperationCall, known: &impl Fn(CallIndex) -> Known) -> Settled {
    let bound = || call.bind(&run.registry, |condition| condition.decide(known).unwrap_or(false)).ok();
    let open_flags = call.conditions.iter().any(|(_, condition)| condition.decide(known).is_none());
    let operation = if call.late.body.is_some() || open_flags { None } else { bound() };
    let touches = operation.map_or_else(Resources::everything, |operation| operation.touches());
    let layer = Layer::new(DependsOn { call: call.call, name: call.title() }, touches, Vec::new());
    let settled = Settled::new(Outlook::Depends { on: None, would: None }, Known::OPEN, Some(layer));
    Settled { everywhere: call.late.body.is_some(), ..settled }
}

/// A `_run_once` that may run on another host: what comes of it is not known here, nor whether this host is touched.
fn elsewhere(call: &OperationCall, before: &Prefix<'_>, mut settled: Settled) -> Settled {
    if call.globals.run_once.unwrap_or(false) && !before.runs_once {
        settled.known = Known::OPEN;
        if let Some(layer) = &mut settled.layer {
            layer.effects.clear();
        }
    }
    settled
}

/// `_ignore_errors` leaves the host ok, also where it is certain by now that the operation fails: it does nothing.
fn fails_and_is_ignored(error: &DiffError) -> Settled {
    Settled::new(Outlook::NoChange { reason: format!("fails, which is ignored: {error}") }, Known::FAILED, None)
}

/// The wish with each combination of what its open conditions may come to.
fn variants(
    run: &HostRun,
    call: &OperationCall,
    open: &[&Condition],
    known: &impl Fn(CallIndex) -> Known,
) -> Result<Vec<SharedOperation>, Box<Diagnostic>> {
    let combinations: Vec<usize> = if open.len() > COMBINED { vec![0, usize::MAX] } else { (0..1usize << open.len()).collect() };
    let bind = |combination: usize| {
        call.bind(&run.registry, |condition| {
            condition.decide(known).unwrap_or_else(|| {
                let bit = open.iter().position(|one| *one == condition).unwrap_or_default();
                combination >> bit.min(63) & 1 == 1
            })
        })
    };
    combinations.into_iter().map(bind).collect::<Result<_, _>>().map_err(|error| {
        let diagnostic = Diagnostic::misuse(format!("{}: {}", call.kind, error.message)).maybe_hint(error.hint);
        Box::new(placed(call, diagnostic))
    })
}

/// The earlier operation that an error depends on; the error again where there is none, so that the host fails.
fn unsettled(error: DiffError, seen: Seen, before: &Prefix<'_>) -> Result<DependsOn, DiffError> {
    match error {
        DiffError::Unknown(on) => Ok(on),
        error if seen.local_failed => {
            // On this machine an earlier operation may be the one that writes the file.
            let writes = |layer: &&Layer| {
                let files = seen.locals.iter().any(|path| layer.touches.overlaps(&Resources::path(path.as_str())));
                files || seen.trees.iter().any(|tree| layer.touches.overlaps(&Resources::tree(tree.path.as_str())))
            };
            before.controller.iter().copied().flatten().find(writes).map(|layer| layer.from.clone()).ok_or(error)
        }
        error => seen.touched_by.ok_or(error),
    }
}

/// What the operation would do if nothing before it had any effect, where that is known without asking more.
fn as_it_stands(run: &HostRun, operation: &SharedOperation, context: &Context) -> Option<String> {
    match diff(run, operation, &[], context) {
        Diffed::Change(change, _) => Some(describe::summary(&change)),
        Diffed::Wanting(_) | Diffed::Error(..) => None,
    }
}

/// Why an operation is skipped.
pub(crate) fn skipped(call: &OperationCall, calls: &[OperationCall], known: &impl Fn(CallIndex) -> Known) -> String {
    let failing = call.when.iter().find(|one| one.decide(known) == Some(false));
    let names: Vec<String> = failing
        .map(Condition::calls)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|at| calls.get(at as usize))
        .map(|call| format!("«{}»", call.title()))
        .collect();
    if names.is_empty() { "its condition does not hold".to_owned() } else { format!("its condition on {} does not hold", names.join(", ")) }
}

fn cannot_be_planned(call: &OperationCall, error: &DiffError) -> Diagnostic {
    let hint = if let DiffError::Refused { hint, .. } = error { hint.clone() } else { None };
    placed(call, Diagnostic::host(format!("«{}» cannot be planned: {error}", call.title())).maybe_hint(hint))
}

/// A diagnostic that names the place of the call.
pub(crate) fn placed(call: &OperationCall, mut diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.location = call.location().cloned();
    diagnostic.chain = call.chain.clone();
    diagnostic
}
