//! Prepare on one host: its script, then gather ⇄ diff until each of its operations is planned.

use std::sync::Arc;

use infra_core::Value;
use infra_core::condition::{CallIndex, Known};
use infra_core::diagnostic::Diagnostic;
use infra_core::earlier::Earlier;
use infra_core::inventory::Inventory;
use infra_core::plan::Outlook;
use infra_core::resources::Resources;
use infra_core::script::{FactRequest, Next, OperationCall, Script};
use infra_core::secret::withhold;
use tokio::sync::Mutex;

use crate::any_host::Anywhere;
use crate::earlier::HostEarlier;
use crate::fact_store::Asked;
use crate::graph::{Asks, outermost_parallel};
use crate::host_run::HostRun;
use crate::judgement::{Judgement, Prefix, Settled, Wanted, judge, placed};
use crate::late_values::SharedFunctions;
use crate::layers::{Layers, before};
use crate::places::{Places, Sites};

/// What one host will do.
pub(crate) struct Prepared {
    pub(crate) calls: Vec<OperationCall>,
    /// One for each call.
    pub(crate) outlooks: Vec<Outlook>,
    /// The digest of what each will do, where that is known.
    pub(crate) steps: Vec<Option<String>>,
    /// What each of them asks of where it runs.
    pub(crate) asked: Vec<Vec<Asked>>,
    /// What it was told of other hosts when this was planned.
    pub(crate) anywhere: Anywhere,
    /// Where its calls run.
    pub(crate) sites: Arc<Sites>,
    /// What its script left behind.
    pub(crate) functions: Option<SharedFunctions>,
    /// What earlier runs have done of it.
    pub(crate) earlier: Arc<HostEarlier>,
}

/// How often one operation may ask for facts that were not asked before.
const ROUNDS: usize = 20;

/// A script that came to its end.
pub(crate) struct Evaluated {
    planning: Planning,
    functions: Option<SharedFunctions>,
}

/// Runs a host's script to its end. Operations are planned here as far as the script asks for it.
pub(crate) async fn evaluate(
    run: &Arc<HostRun>,
    mut script: Box<dyn Script>,
    places: &Places,
    runs_once: bool,
) -> Result<Evaluated, Box<Diagnostic>> {
    let mut planning = Planning::new(Sites::new(run.clone()), runs_once, Vec::new());
    let mut answers = Vec::new();
    loop {
        let step = script.resume(std::mem::take(&mut answers)).await;
        planning.add(step.calls)?;
        match step.next {
            Next::Ask(requests) => {
                planning.take_along(&requests).await?;
                answers = places.ask(run, requests).await.map_err(|lost| Box::new(Diagnostic::host(lost)))?;
            }
            Next::Foresee(call) => answers = vec![Ok(Arc::new(planning.foresee(call, places).await?))],
            Next::Done => break,
            Next::Failed(diagnostic) => return Err(diagnostic),
        }
    }
    Ok(Evaluated { planning, functions: script.functions().map(|functions| Arc::new(Mutex::new(functions))) })
}

impl Evaluated {
    /// Plans what is not planned yet, over what earlier runs have done of it.
    pub(crate) async fn plan(
        mut self,
        places: &Places,
        earlier: Option<&Earlier>,
        inventory: &Inventory,
    ) -> Result<Prepared, Box<Diagnostic>> {
        self.planning.reach(places).await?;
        let found = HostEarlier::new(earlier, self.planning.sites.own(), inventory, &self.planning.calls);
        self.planning.go_on_from(Arc::new(found), earlier.is_some());
        self.planning.settle().await?;
        let Planning { calls, sites, outlooks, steps, asked, anywhere, earlier, .. } = self.planning;
        Ok(Prepared { calls, outlooks, steps, asked, anywhere, sites: Arc::new(sites), functions: self.functions, earlier })
    }
}

impl Prepared {
    /// Plans all again, with what is known by now of other hosts.
    pub(crate) async fn again(self, runs_once: bool, anywhere: Anywhere) -> Result<Self, Box<Diagnostic>> {
        let mut planning = Planning::new(self.sites, runs_once, anywhere);
        planning.calls = self.calls;
        planning.earlier = self.earlier;
        planning.settle().await?;
        let Planning { calls, sites, outlooks, steps, asked, anywhere, earlier, .. } = planning;
        Ok(Self { calls, outlooks, steps, asked, anywhere, sites, functions: self.functions, earlier })
    }
}

/// A host's operations in their order, planned one over what the ones before it make true, as far as it went by now.
struct Planning<S = Sites> {
    calls: Vec<OperationCall>,
    sites: S,
    runs_once: bool,
    anywhere: Anywhere,
    earlier: Arc<HostEarlier>,
    outlooks: Vec<Outlook>,
    steps: Vec<Option<String>>,
    asked: Vec<Vec<Asked>>,
    known: Vec<Known>,
    layers: Layers,
}

impl Planning {
    /// Takes more calls of the script.
    fn add(&mut self, calls: Vec<OperationCall>) -> Result<(), Box<Diagnostic>> {
        for call in calls {
            let at = self.calls.len();
            if call.call as usize != at {
                let message = format!("a defect of infra: call {at} of the script has the number {}", call.call);
                return Err(Box::new(placed(&call, Diagnostic::host(message))));
            }
            self.calls.push(call);
        }
        Ok(())
    }

    /// Reaches the places where calls are to run that were not planned yet.
    async fn reach(&mut self, places: &Places) -> Result<(), Box<Diagnostic>> {
        self.sites.reach(&self.calls[self.outlooks.len()..], places).await
    }

    /// Reads what a script asks of its host, and what its calls by now are known to miss there, in one request. What stands in the way of that is said
    /// where the calls are planned.
    async fn take_along(&mut self, requests: &[FactRequest]) -> Result<(), Box<Diagnostic>> {
        let own = self.sites.own().clone();
        let at_home = |request: &&FactRequest| Places::seen_from(&own, request.on).is_none();
        let asked: Vec<Asked> = requests.iter().filter(at_home).map(|request| Asked::new(request.fact.clone(), &request.context)).collect();
        let missing = own.stale(asked, &Resources::none());
        if missing.is_empty() || self.calls.iter().any(|call| self.sites.place(call).is_some()) {
            return Ok(());
        }
        let mut all = Wanted { facts: missing, ..Wanted::default() };
        if let Ok(wanted) = self.look_at_all() {
            wanted.into_iter().filter(|(run, _)| Arc::ptr_eq(run, &own)).for_each(|(_, wanted)| all.add(wanted));
        }
        own.locals.read(all.locals).await;
        own.locals.trees.read(all.trees).await;
        own.gather(all.facts).await.map_err(|lost| Box::new(Diagnostic::host(lost.to_string())))
    }

    /// Whether a call will change something, as a script is told of it.
    async fn foresee(&mut self, call: CallIndex, places: &Places) -> Result<Value, Box<Diagnostic>> {
        self.reach(places).await?;
        self.settle().await?;
        match self.known.get(call as usize) {
            Some(Known { changed: Some(changed), .. }) => Ok(Value::Bool(*changed)),
            Some(_) => Ok(Value::String("unknown".to_owned())),
            None => Err(Box::new(Diagnostic::host(format!("a defect of infra: the script asks for call {call}, which it has not made")))),
        }
    }
}

impl<S: AsRef<Sites>> Planning<S> {
    fn new(sites: S, runs_once: bool, anywhere: Anywhere) -> Self {
        let (calls, outlooks, known, layers) = (Vec::new(), Vec::new(), Vec::new(), Layers::default());
        let (steps, asked) = (Vec::new(), Vec::new());
        Self { calls, sites, runs_once, anywhere, earlier: Arc::default(), outlooks, steps, asked, known, layers }
    }

    /// What earlier runs have done of it, which can be told once all calls are there: what was planned before, for the script to foresee it, is planned again.
    fn go_on_from(&mut self, earlier: Arc<HostEarlier>, again: bool) {
        self.earlier = earlier;
        if again {
            (self.outlooks, self.steps, self.known, self.layers) = (Vec::new(), Vec::new(), Vec::new(), Layers::default());
            self.asked = Vec::new();
        }
    }

    /// Plans what is not planned yet.
    ///
    /// In each round all operations are looked at, also behind one that waits for facts, so that what all of them miss is read at once.
    async fn settle(&mut self) -> Result<(), Box<Diagnostic>> {
        let mut rounds = 0;
        while self.outlooks.len() < self.calls.len() {
            let settled_before = self.outlooks.len();
            let wanted = self.look_at_all()?;
            let Some(waiting) = self.calls.get(self.outlooks.len()) else { break };
            rounds = if self.outlooks.len() > settled_before { 1 } else { rounds + 1 };
            if rounds > ROUNDS {
                let message = format!(
                    "«{}» cannot be planned: after {ROUNDS} rounds it still asks for facts that were not asked before",
                    waiting.title()
                );
                return Err(Box::new(placed(waiting, Diagnostic::host(message))));
            }
            for (run, wanted) in wanted {
                let elsewhere = !Arc::ptr_eq(&run, self.sites.as_ref().own());
                let name = if elsewhere { format!("{}: ", run.host.name) } else { String::new() };
                run.locals.read(wanted.locals).await;
                run.locals.trees.read(wanted.trees).await;
                run.gather(wanted.facts).await.map_err(|lost| Box::new(Diagnostic::host(format!("{name}{lost}"))))?;
            }
        }
        Ok(())
    }

    /// Settles what can be settled in order, and collects what all the others miss, by where it is to be read.
    fn look_at_all(&mut self) -> Result<Vec<(Arc<HostRun>, Wanted)>, Box<Diagnostic>> {
        let mut wanted: Vec<(Arc<HostRun>, Wanted)> = Vec::new();
        let sites = self.sites.as_ref();
        let controllers = sites.controllers();
        // What stands behind an operation that waits is looked at for its questions alone.
        let mut kept: Option<usize> = None;
        for call in &self.calls[self.outlooks.len()..] {
            let (place, run) = (sites.place(call), sites.of(call));
            let start = starts_after(call, &self.calls);
            let seen = |place| before(self.layers.at(place), start);
            let known = self.earlier.lay_over(&self.known, call.call);
            let prefix = Prefix {
                calls: &self.calls,
                known: &known,
                layers: seen(place),
                controller: controllers.iter().map(|place| seen(*place)).collect(),
                on: place.map(|_| run.host.name.as_str()),
                runs_once: self.runs_once,
            };
            let mut asked = Vec::new();
            let judgement = match self.earlier.skips(call, &known) {
                Some(outlook) => {
                    Judgement::Settled(Settled { outlook, known: Known::UNCHANGED, layer: None, everywhere: false, steps: None })
                }
                None => judge(run, call, &prefix, &mut asked),
            };
            let settled = match judgement {
                Judgement::Settled(settled) => Some(settled),
                Judgement::Impossible(diagnostic) if kept.is_none() => return Err(diagnostic),
                Judgement::Impossible(_) => None,
                Judgement::Wanting(missing) => {
                    match wanted.iter_mut().find(|(known, _)| Arc::ptr_eq(known, run)) {
                        Some((_, all)) => all.add(missing),
                        None => wanted.push((run.clone(), missing)),
                    }
                    kept.get_or_insert(self.known.len());
                    None
                }
            };
            match settled {
                Some(Settled { mut outlook, known: mut outcome, layer, everywhere, steps }) => {
                    if let Outlook::Change { texts, .. } = &mut outlook
                        && !texts.is_empty()
                        && run.is_secret(call)
                    {
                        texts.iter_mut().for_each(withhold);
                    }
                    outcome.changed_anywhere = self.anywhere.get(self.known.len()).copied().flatten().or(outcome.changed_anywhere);
                    if kept.is_none() {
                        self.outlooks.push(outlook);
                        self.steps.push(steps);
                        self.asked.push(asked);
                    }
                    self.known.push(outcome);
                    let layer = layer.filter(|_| !run.overlooks(&call.kind)).map(|layer| layer.settled(seen(place), run.store().aliases()));
                    match layer {
                        Some(layer) if everywhere => self.layers.push_everywhere(layer),
                        Some(layer) => self.layers.push(place, layer),
                        None => {}
                    }
                }
                None => self.known.push(Known::OPEN),
            }
        }
        if let Some(kept) = kept {
            self.known.truncate(kept);
            self.layers.truncate(kept);
        }
        Ok(wanted)
    }
}

/// How many calls of its script a call sees the effects of: those of its own `parallel` block run at the same time, so that it sees nothing of them,
/// unless it asks for the outcome of one.
fn starts_after(call: &OperationCall, calls: &[OperationCall]) -> usize {
    let all = call.call as usize;
    let Some(block) = outermost_parallel(call) else { return all };
    let within =
        |other: &OperationCall| outermost_parallel(other).is_some_and(|other| (&other.chain, other.turn) == (&block.chain, block.turn));
    if call.asks().iter().any(|asked| calls.get(*asked as usize).is_some_and(within)) {
        return all;
    }
    calls.iter().position(within).unwrap_or(all)
}
