//! Hosts are prepared once more: where the question took long, and after the run where that is to be proved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use infra_core::diagnostic::Diagnostic;
use infra_core::event::Event;
use infra_core::host::HostId;
use infra_core::resources::Resources;
use infra_core::run_state::Bucket;
use tokio::time::Instant;

use super::{Ongoing, Over};
use crate::Proving;
use crate::host_run::HostRun;
use crate::plan_building::{Built, build};
use crate::prepare::Prepared;

/// Why hosts are prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// To make the plan.
    First,
    /// Since the facts that the plan rests on have become old.
    Again,
    /// To prove that nothing is left to do.
    Proof,
}

impl Look {
    /// What is said when it begins.
    pub(super) fn begins(self) -> Event {
        match self {
            Self::First => Event::Preparing,
            Self::Again => Event::Rechecking,
            Self::Proof => Event::Proving,
        }
    }
}

type Hosts = BTreeMap<HostId, Arc<HostRun>>;
type Plans = BTreeMap<HostId, (String, Prepared)>;

impl Ongoing {
    /// Asks until the plan that was agreed to rests on facts that are young enough, the oldest of which were read after `read_since`.
    pub(super) async fn agree(
        &mut self,
        hosts: &Hosts,
        prepared: &mut Plans,
        built: &mut Built,
        mut read_since: Instant,
    ) -> Result<(), Over> {
        loop {
            self.approve(built).await?;
            if !self.run.approve.asks() || read_since.elapsed() <= self.run.settings.facts_age {
                return Ok(());
            }
            read_since = Instant::now();
            self.look = Look::Again;
            // Who failed in the first look has no part in the second.
            let left = hosts.iter().filter(|(host, _)| prepared.contains_key(host)).map(|(host, run)| (*host, run.clone())).collect();
            *prepared = self.look_afresh(&left).await?;
            let before = built.plan.clone();
            *built = match build(prepared, &self.run.registry, self.run.settings.max_fail) {
                Ok(built) => built,
                Err(diagnostic) => {
                    self.events.emit(Event::Misused { host: None, diagnostic }).await;
                    return Err(Over);
                }
            };
            if built.plan == before {
                self.events.emit(Event::PlanStands).await;
                return Ok(());
            }
            self.events.emit(Event::PlanReady { plan: built.plan.clone() }).await;
            if built.plan.is_none() {
                return Ok(());
            }
        }
    }

    /// Prepares the hosts that came well through the run once more, and says what their operations would do now.
    pub(super) async fn prove(&mut self, mut hosts: Hosts, proving: Proving) -> Result<(), Over> {
        let state = self.events.state().await;
        if state.interrupted > 0 {
            return Ok(());
        }
        let ok = state.account().hosts.into_iter().filter(|(_, bucket)| matches!(bucket, Bucket::Changed | Bucket::Unchanged));
        let ok: Vec<HostId> = ok.map(|(host, _)| host).collect();
        hosts.retain(|host, _| ok.contains(host));
        if hosts.is_empty() {
            return Ok(());
        }
        self.look = Look::Proof;
        // What earlier runs owed is paid by now.
        self.run.settings.earlier = None;
        for run in hosts.values() {
            run.overlooks.store(proving == Proving::Idempotent, Ordering::Relaxed);
        }
        let prepared = self.look_afresh(&hosts).await?;
        match build(&prepared, &self.run.registry, self.run.settings.max_fail) {
            Ok(built) => self.events.emit(Event::Proved { plan: built.plan, strict: proving == Proving::Strict }).await,
            Err(diagnostic) => {
                for host in prepared.into_keys() {
                    let diagnostic = Box::new(Diagnostic::clone(&diagnostic));
                    self.events.emit(Event::HostFailed { host, diagnostic }).await;
                }
            }
        }
        Ok(())
    }

    /// Prepares hosts of which nothing is known any more, nor of the files of the controller.
    async fn look_afresh(&mut self, hosts: &Hosts) -> Result<Plans, Over> {
        for run in hosts.values() {
            run.forget_facts();
            run.locals.forget(&Resources::everything());
        }
        self.places.forget_facts();
        self.prepare(hosts).await
    }

    /// Says what went over the connections.
    pub(super) async fn count(&self) {
        if !self.connections.is_empty() {
            let mut hosts: Vec<_> = self.connections.iter().map(|(host, connection)| (*host, connection.traffic())).collect();
            hosts.sort_unstable_by_key(|(host, _)| *host);
            self.events.emit(Event::Counted { hosts }).await;
        }
    }
}
