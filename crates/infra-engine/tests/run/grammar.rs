//! Checks the events of a run against the grammar that `infra_core::event` states.

use std::collections::BTreeSet;

use infra_core::event::{Event, StopReason};
use infra_core::host::HostId;
use infra_core::plan::OpId;

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
    Ended,
}

/// Panics where the events are not as the grammar says.
pub fn check(events: &[Event]) {
    let mut stage = Stage::Nothing;
    let mut reached: BTreeSet<HostId> = BTreeSet::new();
    let mut connected: BTreeSet<HostId> = BTreeSet::new();
    let mut prepared: BTreeSet<HostId> = BTreeSet::new();
    let mut operation: Option<OpId> = None;
    let mut last_operation: Option<OpId> = None;
    let mut working: BTreeSet<HostId> = BTreeSet::new();
    let mut had_part: BTreeSet<HostId> = BTreeSet::new();
    let mut stopped = false;
    for (at, event) in events.iter().enumerate() {
        let context = || format!("event {at}, {event:?}, in {stage:?} of {events:#?}");
        assert_ne!(stage, Stage::Ended, "something after RunEnded: {}", context());
        let expect = |allowed: &[Stage]| assert!(allowed.contains(&stage), "{}", context());
        match event {
            Event::RunStarted { .. } => {
                expect(&[Stage::Nothing]);
                stage = Stage::Started;
            }
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
            Event::HostPrepared { host, .. } | Event::HostFailed { host, .. } => {
                expect(&[Stage::Preparing]);
                assert!(connected.contains(host) && prepared.insert(*host), "{}", context());
            }
            Event::Misused { .. } => {
                expect(&[Stage::Started, Stage::Preparing, Stage::Misused]);
                stage = Stage::Misused;
            }
            Event::PlanReady { .. } => {
                expect(&[Stage::Preparing]);
                assert!(!stopped, "{}", context());
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
                assert!(operation.is_none() && last_operation < Some(*op) && !stopped, "{}", context());
                operation = Some(*op);
                last_operation = operation;
                had_part.clear();
            }
            Event::HostOperationStarted { op, host } => {
                assert!(operation == Some(*op) && working.insert(*host) && had_part.insert(*host), "{}", context());
                assert!(!stopped, "something was started after a stop: {}", context());
            }
            Event::CommandStarted { op, host, .. } | Event::Output { op, host, .. } => {
                assert!(operation == Some(*op) && working.contains(host), "{}", context());
            }
            Event::HostOperationEnded { op, host, .. } => {
                assert!(operation == Some(*op), "{}", context());
                assert!(working.remove(host) || had_part.insert(*host), "{}", context());
            }
            Event::OperationEnded { op } => {
                assert!(operation == Some(*op) && working.is_empty(), "{}", context());
                operation = None;
            }
            Event::FactAnswered { host, .. } => {
                expect(&[Stage::Connecting, Stage::Answering]);
                assert!(connected.contains(host), "{}", context());
                stage = Stage::Answering;
            }
            Event::Log { .. } | Event::Interrupted { .. } => assert_ne!(stage, Stage::Nothing, "{}", context()),
            // Hosts that have not registered a failed `_run_once` go on.
            Event::Stopped { reason } => stopped |= !matches!(reason, StopReason::RunOnceFailed { .. }),
            Event::RunEnded => {
                assert!(operation.is_none() && working.is_empty(), "{}", context());
                stage = Stage::Ended;
            }
        }
    }
    assert_eq!(stage, Stage::Ended, "RunEnded is missing: {events:#?}");
}
