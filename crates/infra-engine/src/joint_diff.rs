//! The operations of a `parallel` block on one host, diffed together when the block starts there.

use std::collections::BTreeMap;
use std::sync::Arc;

use infra_core::change::Change;
use infra_core::condition::{CallIndex, Known};
use infra_core::connection::Crowded;
use infra_core::operation::SharedOperation;
use infra_core::script::OperationCall;
use tokio::sync::Mutex;

use crate::earlier::HostEarlier;
use crate::host_run::HostRun;
use crate::judgement::Wanted;
use crate::operation_run::{ROUNDS, bind, diff_once, read};
use crate::places::Sites;
use crate::setback::Setback;

/// An operation and what it is to do, or why it cannot; and on how old facts that rests, as [`HostRun::as_of`] counts.
pub(crate) type DiffedAsOf = (u64, Diffed);

/// An operation and what it is to do, or why it cannot.
pub(crate) type Diffed = Result<(SharedOperation, Change), Setback>;

/// What the operations of one block are to do on one host. The first of them that starts diffs all of them; each takes its own, once: who is tried
/// again looks at the host afresh.
pub(crate) struct JointDiff {
    /// What came of the calls of the host before the block.
    known: Vec<Known>,
    /// The calls of the block that take no part, and may run at the same time all the same.
    later: Vec<CallIndex>,
    earlier: Arc<HostEarlier>,
    state: Mutex<State>,
}

enum State {
    /// The calls that take part.
    Waiting(Vec<CallIndex>),
    Diffed(BTreeMap<CallIndex, DiffedAsOf>),
    /// The host does not bear so many commands at the same time: none of the block is started on it.
    Crowded(Setback),
}

impl JointDiff {
    /// Nothing is diffed yet. Calls that ask for the outcome of others of the same block, or functions for what they are, are diffed by themselves, when that
    /// is known: these are the `later` ones.
    pub(crate) fn new(calls: Vec<CallIndex>, later: Vec<CallIndex>, known: Vec<Known>, earlier: Arc<HostEarlier>) -> Self {
        Self { known, later, earlier, state: Mutex::new(State::Waiting(calls)) }
    }

    /// What this call is to do; none where it took no part or has taken it before.
    ///
    /// # Errors
    /// When a connection broke, or a host does not bear as many commands at once as the block has.
    pub(crate) async fn take(&self, sites: &Sites, calls: &[OperationCall], call: CallIndex) -> Result<Option<DiffedAsOf>, Setback> {
        let mut state = self.state.lock().await;
        if let State::Waiting(waiting) = &*state {
            let diffed = self.diff_all(sites, calls, waiting).await?;
            *state = match self.make_room(sites, calls, &diffed).await {
                Ok(()) => State::Diffed(diffed),
                Err(crowded) => State::Crowded(Setback::crowded(crowded)),
            };
        }
        match &mut *state {
            State::Diffed(diffed) => Ok(diffed.remove(&call)),
            State::Crowded(setback) => Err(setback.clone()),
            State::Waiting(_) => Ok(None),
        }
    }

    /// Has each place made ready for as many commands at once as the block may have there, before the first of them.
    async fn make_room(&self, sites: &Sites, calls: &[OperationCall], diffed: &BTreeMap<CallIndex, DiffedAsOf>) -> Result<(), Crowded> {
        let something =
            diffed.iter().filter(|(_, (_, one))| one.as_ref().is_ok_and(|(_, change)| !change.is_none())).map(|(call, _)| *call);
        let mut places: Vec<(&Arc<HostRun>, usize)> = Vec::new();
        for call in something.chain(self.later.iter().copied()) {
            let run = sites.of(&calls[call as usize]);
            match places.iter_mut().find(|(known, _)| Arc::ptr_eq(known, run)) {
                Some((_, commands)) => *commands += 1,
                None => places.push((run, 1)),
            }
        }
        // One command alone needs nothing that is not there.
        for (run, commands) in places.into_iter().filter(|(_, commands)| *commands > 1) {
            run.connection.prepare_for(commands).await?;
        }
        Ok(())
    }

    /// Diffs until nothing is missing; what all of them miss is read in one request.
    async fn diff_all(
        &self,
        sites: &Sites,
        calls: &[OperationCall],
        waiting: &[CallIndex],
    ) -> Result<BTreeMap<CallIndex, DiffedAsOf>, Setback> {
        let mut diffed = BTreeMap::new();
        let as_of: BTreeMap<CallIndex, u64> = waiting.iter().map(|at| (*at, sites.of(&calls[*at as usize]).as_of())).collect();
        let mut open: BTreeMap<CallIndex, SharedOperation> = BTreeMap::new();
        for at in waiting {
            match bind(sites.own(), &calls[*at as usize], &self.earlier.lay_over(&self.known, *at)) {
                Ok(operation) => drop(open.insert(*at, operation)),
                Err(setback) => drop(diffed.insert(*at, (as_of[at], Err(setback)))),
            }
        }
        for _ in 0..ROUNDS {
            let mut wanted: Vec<(_, Wanted)> = Vec::new();
            let mut left = BTreeMap::new();
            for (at, operation) in open {
                let run = sites.of(&calls[at as usize]);
                match diff_once(run, &operation, &calls[at as usize]).await {
                    Ok(settled) => drop(diffed.insert(at, (as_of[&at], settled.map(|change| (operation, change))))),
                    Err(missing) => {
                        match wanted.iter_mut().find(|(known, _)| Arc::ptr_eq(known, run)) {
                            Some((_, all)) => all.add(missing),
                            None => wanted.push((run.clone(), missing)),
                        }
                        left.insert(at, operation);
                    }
                }
            }
            open = left;
            if open.is_empty() {
                break;
            }
            for (run, wanted) in wanted {
                read(&run, wanted, !Arc::ptr_eq(&run, sites.own())).await?;
            }
        }
        // Who still asks by now says so in a diff of its own.
        Ok(diffed)
    }
}
