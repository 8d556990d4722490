//! Prepare on one host: its script, then gather ⇄ diff until each of its operations is planned.

use infra_core::condition::Known;
use infra_core::connection::Lost;
use infra_core::diagnostic::Diagnostic;
use infra_core::facts::Lookup;
use infra_core::plan::Outlook;
use infra_core::script::{Answer, FactRequest, Next, OperationCall, Script};

use crate::any_host::Anywhere;
use crate::fact_store::Asked;
use crate::graph::{Asks, outermost_parallel};
use crate::host_run::HostRun;
use crate::judgement::{Judgement, Prefix, Settled, Wanted, judge, placed};
use crate::overlay::Layer;

/// What one host will do.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) calls: Vec<OperationCall>,
    /// One for each call.
    pub(crate) outlooks: Vec<Outlook>,
    /// What it was told of other hosts when this was planned.
    pub(crate) anywhere: Anywhere,
}

/// How often one operation may ask for facts that were not asked before.
const ROUNDS: usize = 20;

/// Runs a host's script to its end and gives the operations that it called.
pub(crate) async fn evaluate(run: &HostRun, mut script: Box<dyn Script>) -> Result<Vec<OperationCall>, Box<Diagnostic>> {
    let mut calls: Vec<OperationCall> = Vec::new();
    let mut answers = Vec::new();
    loop {
        let step = script.resume(std::mem::take(&mut answers)).await;
        calls.extend(step.calls);
        match step.next {
            Next::Ask(requests) => answers = ask(run, requests).await.map_err(|lost| Box::new(Diagnostic::host(lost.to_string())))?,
            Next::Foresee(_) => return Err(Box::new(Diagnostic::host("`will_change` is not available yet"))),
            Next::Done => break,
            Next::Failed(diagnostic) => return Err(diagnostic),
        }
    }
    match calls.iter().enumerate().find(|(at, call)| call.call as usize != *at) {
        Some((at, call)) => {
            let message = format!("a defect of infra: call {} of the script has the number {}", at, call.call);
            Err(Box::new(placed(call, Diagnostic::host(message))))
        }
        None => Ok(calls),
    }
}

/// Answers a script: the host as it stands now, never as it will be.
async fn ask(run: &HostRun, requests: Vec<FactRequest>) -> Result<Vec<Answer>, Lost> {
    let asked: Vec<Asked> = requests.into_iter().map(|request| Asked::new(request.fact, &request.context)).collect();
    run.gather(asked.clone()).await?;
    let store = run.store();
    let answer = |one: &Asked| match store.lookup(one) {
        Lookup::Known(value) => Ok(value),
        Lookup::Failed(message) => Err(message),
        Lookup::Missing | Lookup::Unknown(_) => Err("the host gave no answer to it".to_owned()),
    };
    Ok(asked.iter().map(answer).collect())
}

/// Plans a host's operations in their order, each over what the ones before it make true.
///
/// In each round all operations are looked at, also behind one that waits for facts, so that what all of them miss is read at once.
pub(crate) async fn plan(
    run: &HostRun,
    calls: Vec<OperationCall>,
    runs_once: bool,
    anywhere: Anywhere,
) -> Result<Prepared, Box<Diagnostic>> {
    let mut outlooks = Vec::with_capacity(calls.len());
    let mut known: Vec<Known> = Vec::with_capacity(calls.len());
    let mut layers = Vec::new();
    let mut rounds = 0;
    while outlooks.len() < calls.len() {
        let settled_before = outlooks.len();
        let wanted = look_at_all(run, &calls, &mut outlooks, &mut known, &mut layers, (runs_once, &anywhere))?;
        let Some(waiting) = calls.get(outlooks.len()) else { break };
        rounds = if outlooks.len() > settled_before { 1 } else { rounds + 1 };
        if rounds > ROUNDS {
            let message = format!(
                "«{}» cannot be planned: after {ROUNDS} rounds it still asks for facts that were not asked before",
                waiting.title()
            );
            return Err(Box::new(placed(waiting, Diagnostic::host(message))));
        }
        run.locals.read(wanted.locals).await;
        run.gather(wanted.facts).await.map_err(|lost| Box::new(Diagnostic::host(lost.to_string())))?;
    }
    Ok(Prepared { calls, outlooks, anywhere })
}

/// Settles what can be settled in order, and collects what all the others miss.
fn look_at_all(
    run: &HostRun,
    calls: &[OperationCall],
    outlooks: &mut Vec<Outlook>,
    known: &mut Vec<Known>,
    layers: &mut Vec<Layer>,
    (runs_once, anywhere): (bool, &Anywhere),
) -> Result<Wanted, Box<Diagnostic>> {
    let mut wanted = Wanted::default();
    // What stands behind an operation that waits is looked at for its questions alone.
    let mut kept: Option<(usize, usize)> = None;
    for call in &calls[outlooks.len()..] {
        let prefix = Prefix { calls, known, layers: seen_by(call, calls, layers), runs_once };
        let judgement = judge(run, call, &prefix);
        let settled = match judgement {
            Judgement::Settled(settled) => Some(settled),
            Judgement::Impossible(diagnostic) if kept.is_none() => return Err(diagnostic),
            Judgement::Impossible(_) => None,
            Judgement::Wanting(missing) => {
                wanted.add(missing);
                kept.get_or_insert((known.len(), layers.len()));
                None
            }
        };
        match settled {
            Some(Settled { outlook, known: mut outcome, layer }) => {
                outcome.changed_anywhere = anywhere.get(known.len()).copied().flatten().or(outcome.changed_anywhere);
                if kept.is_none() {
                    outlooks.push(outlook);
                }
                known.push(outcome);
                layers.extend(layer.filter(|_| !run.overlooks(&call.kind)));
            }
            None => known.push(Known::OPEN),
        }
    }
    if let Some((known_kept, layers_kept)) = kept {
        known.truncate(known_kept);
        layers.truncate(layers_kept);
    }
    Ok(wanted)
}

/// What a call sees of the ones before it: those of its own `parallel` block run at the same time, so that it sees nothing of them, unless it asks for
/// the outcome of one.
fn seen_by<'l>(call: &OperationCall, calls: &[OperationCall], layers: &'l [Layer]) -> &'l [Layer] {
    let Some(block) = outermost_parallel(call) else { return layers };
    let within =
        |other: &OperationCall| outermost_parallel(other).is_some_and(|other| (&other.chain, other.turn) == (&block.chain, block.turn));
    if call.asks().iter().any(|asked| calls.get(*asked as usize).is_some_and(within)) {
        return layers;
    }
    let start = calls.iter().position(within).unwrap_or_default();
    &layers[..layers.partition_point(|layer| (layer.from.call as usize) < start)]
}
