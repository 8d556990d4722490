//! One host in execute: what came of its calls so far, and what its operations are told of it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::event::{HostResult, Outcome};
use infra_core::late::{CallResult, Results};
use infra_core::plan::{BlockId, OpId, Outlook};
use infra_core::script::OperationCall;

use crate::earlier::HostEarlier;
use crate::fact_store::Asked;
use crate::graph::{Asks, outermost_parallel};
use crate::joint_diff::JointDiff;
use crate::judgement::skipped;
use crate::late_values::{LateValues, SharedFunctions, calls_functions, is_late};
use crate::operation_run::Stage;
use crate::places::{Places, Sites};
use crate::prepare::Prepared;
use crate::saved::{Allowed, allowed};

/// One host in execute.
pub(crate) struct HostExecution {
    /// What the plan said of its calls, and what they asked when it was made.
    planned: Vec<(Outlook, Vec<Asked>)>,
    pub(crate) sites: Arc<Sites>,
    pub(crate) calls: Arc<Vec<OperationCall>>,
    /// What came of its calls so far.
    pub(crate) known: Vec<Known>,
    /// The operation that each call is.
    pub(crate) operations: Vec<OpId>,
    /// The diffs of the `parallel` blocks that it has come to.
    joint: HashMap<BlockId, Arc<JointDiff>>,
    /// What earlier runs have done of it.
    earlier: Arc<HostEarlier>,
    functions: Option<SharedFunctions>,
    /// What its functions are told of its calls; empty where it has none.
    results: Arc<Results>,
    /// What a saved plan lets its calls do; none where the plan was made by this run.
    allowed: Option<Vec<Allowed>>,
}

impl HostExecution {
    pub(crate) fn new(prepared: Prepared, saved: bool) -> Self {
        let allowed = saved.then(|| allowed(&prepared));
        let Prepared { calls, outlooks, asked, sites, functions, earlier, .. } = prepared;
        let count = calls.len();
        Self {
            allowed,
            planned: outlooks.into_iter().zip(asked).collect(),
            sites,
            calls: Arc::new(calls),
            known: vec![Known::OPEN; count],
            operations: vec![OpId(0); count],
            joint: HashMap::new(),
            earlier,
            functions,
            results: Arc::default(),
        }
    }

    /// What a call may do.
    pub(crate) fn allowed(&self, call: CallIndex) -> Allowed {
        self.allowed.as_ref().and_then(|allowed| allowed.get(call as usize)).cloned().unwrap_or(Allowed::Anything)
    }

    pub(crate) fn call(&self, call: CallIndex) -> &OperationCall {
        &self.calls[call as usize]
    }

    /// What came of the calls so far, as this call is to see it: with what earlier runs have changed and it has not heard of.
    pub(crate) fn known_to(&self, call: CallIndex) -> Cow<'_, [Known]> {
        self.earlier.lay_over(&self.known, call)
    }

    /// What an earlier run did of this call, where it is not run again.
    pub(crate) fn done_before(&self, call: CallIndex) -> Option<HostResult> {
        self.earlier.skips(self.call(call), &self.known_to(call))?;
        self.earlier.result(call)
    }

    /// Why the call is not started: its condition does not hold. Where functions have a say, they are asked when it starts.
    pub(crate) fn skips(&self, call: CallIndex) -> Option<String> {
        let known = self.known_to(call);
        let call = self.call(call);
        let known = |call: CallIndex| known.get(call as usize).copied().unwrap_or_default();
        match Condition::All(call.when.clone()).decide(&known) {
            Some(true) => None,
            Some(false) => Some(skipped(call, &self.calls, &known)),
            None if stage(call) == Stage::Undecided => None,
            None => Some("its condition asks for what not all hosts have come to".to_owned()),
        }
    }

    /// What the call needs to call functions; none where it calls none. `changed_anywhere` says of an operation whether it changed something on any host.
    pub(crate) fn late(
        &mut self,
        call: CallIndex,
        places: &Arc<Places>,
        changed_anywhere: impl Fn(OpId) -> Option<bool>,
    ) -> Option<LateValues> {
        if !calls_functions(self.call(call)) {
            return None;
        }
        // What is known once stays as it is, so that each result is made anew at most once.
        let anywhere = |(call, result): (&CallIndex, &Arc<CallResult>)| {
            let operation = *self.operations.get(*call as usize)?;
            result.changed_anywhere.is_none().then(|| changed_anywhere(operation)).flatten().map(|changed| (*call, changed))
        };
        let learned: Vec<(CallIndex, bool)> = self.results.iter().filter_map(anywhere).collect();
        if !learned.is_empty() {
            let results = Arc::make_mut(&mut self.results);
            for (call, changed) in learned {
                if let Some(result) = results.get_mut(&call) {
                    Arc::make_mut(result).changed_anywhere = Some(changed);
                }
            }
        }
        let mut results = self.results.clone();
        // As conditions see it: with what earlier runs have changed and this call has not heard of, and without what it has.
        for (at, known) in self.known_to(call).iter().enumerate() {
            let at = CallIndex::try_from(at).unwrap_or(CallIndex::MAX);
            let Some(result) = results.get(&at) else { continue };
            let changed = known.changed.filter(|_| result.succeeded).unwrap_or(result.changed);
            // What an earlier run changed on another host is owed as well.
            let changed_anywhere = known.changed_anywhere.filter(|anywhere| *anywhere).or(result.changed_anywhere);
            if (changed, changed_anywhere) != (result.changed, result.changed_anywhere) {
                let result = CallResult { changed, changed_anywhere, ..(**result).clone() };
                Arc::make_mut(&mut results).insert(at, Arc::new(result));
            }
        }
        let functions = self.functions.clone();
        Some(LateValues { functions, results, own: self.sites.own().clone(), places: places.clone() })
    }

    /// What is asked of the host once this call has changed it: by itself where it may be tried again, and by those after it up to the next one that is
    /// planned to change something or to depend. Nothing in a `parallel` block, whose calls are diffed when it begins.
    pub(crate) fn asked_after(&self, call: CallIndex) -> Vec<Asked> {
        let this = self.call(call);
        let own = this.globals.retries.unwrap_or(0) > 0;
        if self.sites.place(this).is_some() || outermost_parallel(this).is_some() || this.globals.background.unwrap_or(false) {
            return Vec::new();
        }
        let at = call as usize;
        let mut asked = if own { self.planned[at].1.clone() } else { Vec::new() };
        let mut block = None;
        for (next, (outlook, wanted)) in self.calls.iter().zip(&self.planned).skip(at + 1) {
            let parallel = outermost_parallel(next).map(|block| (&block.chain, block.turn));
            // All calls of a block are diffed at once.
            if block.is_some_and(|block| parallel != Some(block)) {
                break;
            }
            if self.sites.place(next).is_none() {
                asked.extend_from_slice(wanted);
            }
            if !outlook.is_none() {
                match parallel {
                    Some(parallel) => block = Some(parallel),
                    None => break,
                }
            }
        }
        asked
    }

    /// The diffs of a `parallel` block that the host came to before.
    pub(crate) fn joint(&self, block: BlockId) -> Option<Arc<JointDiff>> {
        self.joint.get(&block).cloned()
    }

    /// The calls inside a block that can be diffed when it starts: not those that ask for the outcome of others inside it, nor those of which functions say
    /// what they are; those come second.
    pub(crate) fn apart(&self, inside: impl Fn(OpId) -> bool) -> (Vec<CallIndex>, Vec<CallIndex>) {
        let inside: Vec<CallIndex> = (0..).zip(&self.operations).filter(|(_, op)| inside(**op)).map(|(call, _)| call).collect();
        let waits = |call: &OperationCall| call.asks().iter().any(|asked| inside.contains(asked));
        let apart = |call: &CallIndex| !is_late(self.call(*call)) && !waits(self.call(*call));
        inside.iter().copied().partition(apart)
    }

    /// The host comes to a block with these calls.
    pub(crate) fn enter(&mut self, block: BlockId, calls: Vec<CallIndex>, later: Vec<CallIndex>) -> Arc<JointDiff> {
        let takes_part = |call: &CallIndex| self.done_before(*call).is_none() && self.skips(*call).is_none();
        let taking_part = calls.into_iter().filter(takes_part).collect();
        let later = later.into_iter().filter(|call| self.done_before(*call).is_none()).collect();
        let joint = Arc::new(JointDiff::new(taking_part, later, self.known.clone(), self.earlier.clone()));
        self.joint.insert(block, joint.clone());
        joint
    }

    /// A call has ended.
    pub(crate) fn ended(&mut self, call: CallIndex, result: &HostResult) {
        let succeeded = result.outcome.succeeded();
        // What was changed in an earlier run is laid over what is known, for those that have not heard of it.
        let changed = succeeded && result.outcome.changed() && !matches!(result.outcome, Outcome::Earlier { .. });
        self.known[call as usize] = Known { changed: Some(changed), succeeded: Some(succeeded), changed_anywhere: None };
        // What nobody asks for is not kept: outputs of all operations on all hosts are much.
        if self.functions.is_some() {
            self.told(call, Arc::new(CallResult::of(result)));
        }
    }

    /// What came of a call, as functions are told: of one that ran elsewhere, what it gave there.
    pub(crate) fn told(&mut self, call: CallIndex, result: Arc<CallResult>) {
        if self.functions.is_some() {
            Arc::make_mut(&mut self.results).insert(call, result);
        }
    }
}

/// How far a call is when it starts.
pub(crate) fn stage(call: &OperationCall) -> Stage {
    if call.when.iter().any(|condition| !condition.functions().is_empty()) { Stage::Undecided } else { Stage::Decided }
}
