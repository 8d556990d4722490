//! Checks the events of a run against the grammar that `infra_core::event` states.

use std::collections::BTreeSet;

use infra_core::event::{Event, StopReason};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Nothing,
    Started,
    Connecting,
    Preparing,
    Answering,
    Planned,
    Misused,
    Declined,
    Executing,
    Rechecking,
    Proving,
    Proved,
    Counted,
    Ended,
}

/// Panics where the events are not as the grammar says. Operations overlap inside blocks, and in a run with `--serial` or `--no-wait`.
pub fn check(events: &[Event], overlapping: bool) {
    let mut stage = Stage::Nothing;
    let mut reached: BTreeSet<HostId> = BTreeSet::new();
    let mut connected: BTreeSet<HostId> = BTreeSet::new();
    let mut prepared: BTreeSet<HostId> = BTreeSet::new();
    let mut blocks: Vec<Vec<BlockId>> = Vec::new();
    let mut open: BTreeSet<OpId> = BTreeSet::new();
    let mut begun: BTreeSet<OpId> = BTreeSet::new();
    let mut working: BTreeSet<(OpId, HostId)> = BTreeSet::new();
    let mut had_part: BTreeSet<(OpId, HostId)> = BTreeSet::new();
    let mut in_waves: BTreeSet<HostId> = BTreeSet::new();
    let mut stopped = false;
    let mut wave_failed = false;
    for (at, event) in events.iter().enumerate() {
        let context = || format!("event {at}, {event:?}, in {stage:?} of {events:#?}");
        assert_ne!(stage, Stage::Ended, "something after RunEnded: {}", context());
        let expect = |allowed: &[Stage]| assert!(allowed.contains(&stage), "{}", context());
        match event {
            Event::RunStarted { .. } => {
                expect(&[Stage::Nothing]);
                stage = Stage::Started;
            }
            Event::DetailedExitCode => expect(&[Stage::Started]),
            Event::Connecting => {
                expect(&[Stage::Started]);
                stage = Stage::Connecting;
            }
            Event::HostConnected { host, .. } => {
                expect(&[Stage::Connecting]);
                assert!(reached.insert(*host), "{}", context());
                connected.insert(*host);
            }
            Event::HostUnreachable { host, .. } => {
                expect(&[Stage::Connecting]);
                assert!(reached.insert(*host), "{}", context());
            }
            Event::Preparing => {
                expect(&[Stage::Connecting]);
                assert!(!stopped, "{}", context());
                stage = Stage::Preparing;
            }
            Event::Rechecking => {
                expect(&[Stage::Planned]);
                assert!(!stopped, "{}", context());
                prepared.clear();
                stage = Stage::Rechecking;
            }
            Event::PlanStands => {
                expect(&[Stage::Rechecking]);
                stage = Stage::Planned;
            }
            Event::Proving => {
                expect(&[Stage::Executing]);
                assert!(open.is_empty() && working.is_empty(), "{}", context());
                prepared.clear();
                stage = Stage::Proving;
            }
            Event::Proved { .. } => {
                expect(&[Stage::Proving]);
                stage = Stage::Proved;
            }
            Event::Counted { hosts } => {
                let counted: BTreeSet<HostId> = hosts.iter().map(|(host, _)| *host).collect();
                assert!(counted == connected && counted.len() == hosts.len() && open.is_empty(), "{}", context());
                assert!(stage > Stage::Started && stage != Stage::Counted, "{}", context());
                stage = Stage::Counted;
            }
            // Nothing is kept of it although that was asked for.
            Event::HostFailed { host, .. } if matches!(stage, Stage::Executing | Stage::Proved) => {
                assert!(connected.contains(host) && open.is_empty(), "{}", context());
            }
            Event::HostPrepared { host, .. } | Event::HostFailed { host, .. } => {
                expect(&[Stage::Preparing, Stage::Rechecking, Stage::Proving]);
                assert!(connected.contains(host) && prepared.insert(*host), "{}", context());
            }
            Event::Misused { .. } => {
                expect(&[Stage::Started, Stage::Preparing, Stage::Rechecking, Stage::Misused]);
                stage = Stage::Misused;
            }
            Event::PlanReady { plan } => {
                expect(&[Stage::Preparing, Stage::Rechecking]);
                assert!(!stopped, "{}", context());
                blocks = plan.operations.iter().map(|operation| operation.blocks.clone()).collect();
                assert!(blocks.iter().flatten().all(|block| block.index() < plan.blocks.len()), "{}", context());
                stage = Stage::Planned;
            }
            Event::Declined => {
                expect(&[Stage::Planned]);
                stage = Stage::Declined;
            }
            Event::Executing => {
                expect(&[Stage::Planned]);
                stage = Stage::Executing;
            }
            Event::OperationStarted { op } => {
                expect(&[Stage::Executing]);
                let outermost = blocks[op.index()].first();
                let apart = open.iter().all(|other| outermost.is_some() && blocks[other.index()].first() == outermost);
                assert!(overlapping || apart, "{}", context());
                let in_order = begun.iter().all(|other| other < op || blocks[other.index()].first() == outermost);
                assert!(overlapping || in_order, "{}", context());
                assert!(!stopped && begun.insert(*op) && open.insert(*op), "{}", context());
            }
            Event::WaveStarted { wave, waves, hosts, .. } => {
                expect(&[Stage::Executing]);
                assert!(!stopped && !hosts.is_empty() && wave <= waves, "{}", context());
                in_waves.extend(hosts.iter().copied());
            }
            Event::HostOperationStarted { op, host } => {
                assert!(open.contains(op) && working.insert((*op, *host)) && had_part.insert((*op, *host)), "{}", context());
                assert!(!stopped, "something was started after a stop: {}", context());
                assert!(!wave_failed || in_waves.contains(host), "something was started outside of a wave after a stop: {}", context());
            }
            Event::CommandStarted { op, host, .. }
            | Event::Output { op, host, .. }
            | Event::Lock { op, host, .. }
            | Event::Retrying { op, host, .. }
            | Event::WithinCall { op, host, .. }
            | Event::TextsChanged { op, host, .. } => {
                assert!(working.contains(&(*op, *host)), "{}", context());
            }
            Event::HostOperationEnded { op, host, .. } => {
                assert!(open.contains(op), "{}", context());
                assert!(working.remove(&(*op, *host)) || had_part.insert((*op, *host)), "{}", context());
            }
            Event::OperationEnded { op } => {
                assert!(open.remove(op) && !working.iter().any(|(other, _)| other == op), "{}", context());
            }
            Event::FactAnswered { host, .. } => {
                expect(&[Stage::Connecting, Stage::Answering]);
                assert!(connected.contains(host), "{}", context());
                stage = Stage::Answering;
            }
            Event::Log { .. } | Event::Interrupted { .. } => assert_ne!(stage, Stage::Nothing, "{}", context()),
            // Hosts that have not registered a failed `_run_once` go on.
            Event::Stopped { reason: StopReason::RunOnceFailed { .. } } => {}
            // Hosts in a wave go through it to its end.
            Event::Stopped { reason: StopReason::WaveFailed { .. } } => wave_failed = true,
            Event::Stopped { .. } => stopped = true,
            Event::RunEnded => {
                assert!(open.is_empty() && working.is_empty(), "{}", context());
                stage = Stage::Ended;
            }
        }
    }
    assert_eq!(stage, Stage::Ended, "RunEnded is missing: {events:#?}");
}
