//! The operations of a `parallel` block on one host, diffed together when the block starts there.

use std::collections::BTreeMap;

use infra_core::change::Change;
use infra_core::condition::{CallIndex, Known};
use infra_core::operation::SharedOperation;
use infra_core::script::OperationCall;
use tokio::sync::Mutex;

use crate::host_run::HostRun;
use crate::judgement::Wanted;
use crate::operation_run::{ROUNDS, Setback, bind, diff_once, read};

/// An operation and what it is to do, or why it cannot.
pub(crate) type Diffed = Result<(SharedOperation, Change), Setback>;

/// What the operations of one block are to do on one host. The first of them that starts diffs all of them; each takes its own, once: who is tried
/// again looks at the host afresh.
pub(crate) struct JointDiff {
    /// What came of the calls of the host before the block.
    known: Vec<Known>,
    state: Mutex<State>,
}

enum State {
    /// The calls that take part.
    Waiting(Vec<CallIndex>),
    /// And on how old facts the diffs rest, as the connection counts.
    Diffed(u64, BTreeMap<CallIndex, Diffed>),
}

impl JointDiff {
    /// Nothing is diffed yet. Calls that ask for the outcome of others of the same block are diffed by themselves, when that is known.
    pub(crate) fn new(calls: Vec<CallIndex>, known: Vec<Known>) -> Self {
        Self { known, state: Mutex::new(State::Waiting(calls)) }
    }

    /// What this call is to do, and on how old facts that rests; none where it took no part or has taken it before.
    ///
    /// # Errors
    /// When the connection broke.
    pub(crate) async fn take(&self, run: &HostRun, calls: &[OperationCall], call: CallIndex) -> Result<Option<(u64, Diffed)>, Setback> {
        let mut state = self.state.lock().await;
        if let State::Waiting(waiting) = &*state {
            let as_of = run.connection.moves();
            let diffed = self.diff_all(run, calls, waiting).await?;
            *state = State::Diffed(as_of, diffed);
        }
        match &mut *state {
            State::Diffed(as_of, diffed) => Ok(diffed.remove(&call).map(|diffed| (*as_of, diffed))),
            State::Waiting(_) => Ok(None),
        }
    }

    /// Diffs until nothing is missing; what all of them miss is read in one request.
    async fn diff_all(
        &self,
        run: &HostRun,
        calls: &[OperationCall],
        waiting: &[CallIndex],
    ) -> Result<BTreeMap<CallIndex, Diffed>, Setback> {
        let mut diffed = BTreeMap::new();
        let mut open: BTreeMap<CallIndex, SharedOperation> = BTreeMap::new();
        for at in waiting {
            match bind(run, &calls[*at as usize], &self.known) {
                Ok(operation) => drop(open.insert(*at, operation)),
                Err(setback) => drop(diffed.insert(*at, Err(setback))),
            }
        }
        for _ in 0..ROUNDS {
            let mut wanted = Wanted::default();
            let mut left = BTreeMap::new();
            for (at, operation) in open {
                match diff_once(run, &operation, &calls[at as usize]).await {
                    Ok(settled) => drop(diffed.insert(at, settled.map(|change| (operation, change)))),
                    Err(missing) => {
                        wanted.add(missing);
                        left.insert(at, operation);
                    }
                }
            }
            open = left;
            if open.is_empty() {
                break;
            }
            read(run, wanted).await?;
        }
        // Who still asks by now says so in a diff of its own.
        Ok(diffed)
    }
}
