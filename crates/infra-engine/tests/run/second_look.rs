//! Preparing again: after a question that stood long, and after the run to prove it. And what is counted at the end.

use std::sync::atomic::{AtomicU32, Ordering};

use infra_core::condition::Did;
use infra_core::connection::Traffic;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::kept_to::{Way, departures};
use infra_core::operation::Idempotence;
use infra_core::run_state::Bucket;
use infra_engine::Proving;

use crate::fleet::{Approval, Behaviour, Fleet, Line, Ran, With, calls, script, shell, touchless, write};

/// What is left to do: place, host, and whether it counts; and whether the proof holds.
fn proof(ran: &Ran) -> (Vec<(u32, u32, bool)>, bool) {
    let proof = ran.state.proof.as_ref().expect("a proof was made");
    (proof.restless().map(|one| (one.operation.id.0, one.host.host.0, one.counts)).collect(), proof.holds())
}

fn happened(ran: &Ran, wanted: fn(&Event) -> bool) -> usize {
    ran.events.iter().filter(|event| wanted(event)).count()
}

fn proving(fleet: Fleet, proving: Proving) -> Fleet {
    fleet.settings(|settings| settings.prove = Some(proving))
}

#[tokio::test]
async fn a_run_that_did_its_work_is_proved() {
    let fleet = proving(Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), write(2, "/y", "2")])), Proving::Strict);
    let ran = fleet.run().await;
    assert_eq!(proof(&ran), (vec![], true));
    assert_eq!((ran.buckets(), ran.state.exit_code()), (vec![Bucket::Changed; 2], 0));
    assert_eq!(departures(&ran.state), []);
    assert_eq!(fleet.performed("a").len(), 2, "the proof does nothing");
    // What was known was read anew, in one request.
    assert_eq!(fleet.gathers("a").last().expect("questions"), &["read /x", "read /y"]);
    assert_eq!(*fleet.asked.lock().unwrap(), 1);
}

#[tokio::test]
async fn what_an_operation_undid_is_named_by_the_proof() {
    let script = |_: &str| calls([write(1, "/x", "1"), shell(2, "write /x 2"), write(3, "/y", "1")]);
    let ran = proving(Fleet::new(&["a"], script), Proving::Idempotent).run().await;
    assert_eq!(proof(&ran), (vec![(0, 0, true), (1, 0, false)], false));
    assert_eq!((ran.buckets(), ran.state.exit_code()), (vec![Bucket::Changed], 1));
    assert!(ran.forecast(0)[2].starts_with("depends on"), "in the plan the file depends on the command before it");
}

#[tokio::test]
async fn what_is_not_idempotent_counts_in_a_strict_proof_alone() {
    let script = |_: &str| calls([shell(1, "true"), write(2, "/y", "1")]);
    let ran = proving(Fleet::new(&["a"], script), Proving::Idempotent).run().await;
    assert_eq!(proof(&ran), (vec![(0, 0, false)], true));
    assert_eq!(ran.state.exit_code(), 0);
    let ran = proving(Fleet::new(&["a"], script), Proving::Strict).run().await;
    assert_eq!(proof(&ran), (vec![(0, 0, true), (1, 0, true)], false));
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn conditions_are_decided_anew_in_a_proof() {
    let script = |_: &str| {
        calls([write(1, "/x", "1"), write(2, "/reloaded", "1").when(0, Did::Change), touchless(3, "reload").when(0, Did::Change)])
    };
    let ran = proving(Fleet::new(&["a"], script), Proving::Strict).run().await;
    assert_eq!(proof(&ran), (vec![], true));
    assert_eq!(ran.state.exit_code(), 0);
}

#[tokio::test]
async fn only_hosts_that_are_ok_are_proved() {
    let fleet =
        Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), shell(2, "write /x 2")])).behaves("b", "write /x 1", Behaviour::Exit(1));
    let ran = proving(fleet, Proving::Idempotent).run().await;
    assert_eq!(proof(&ran), (vec![(0, 0, true), (1, 0, false)], false));
    assert_eq!((ran.buckets(), ran.state.exit_code()), (vec![Bucket::Changed, Bucket::Failed], 1));
    let none_left = Fleet::new(&["a"], |_| calls([shell(1, "false")])).behaves("a", "false", Behaviour::Exit(1));
    let ran = proving(none_left, Proving::Idempotent).run().await;
    assert!(ran.state.proof.is_none());
}

#[tokio::test]
async fn an_interrupted_proof_is_none() {
    let times = AtomicU32::new(0);
    // In the second look the script never comes to its end.
    let fleet = Fleet::new(&["a"], move |_| match times.fetch_add(1, Ordering::SeqCst) {
        0 => calls([write(1, "/x", "1")]),
        _ => vec![Line::Hang],
    });
    let ran = proving(fleet, Proving::Idempotent)
        .run_watched(|event, interrupt| {
            if matches!(event, Event::Proving) {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert_eq!((ran.state.exit_code(), ran.state.proof.is_some()), (130, false));
    assert_eq!(ran.buckets(), [Bucket::Changed]);

    let ran = proving(Fleet::new(&["a"], |_| calls([shell(1, "true")])), Proving::Strict).answered(Approval::YesAndInterrupt).run().await;
    assert_eq!((ran.state.exit_code(), happened(&ran, |event| matches!(event, Event::Proving))), (130, 0));
}

#[tokio::test]
async fn a_script_that_fails_in_the_proof_fails_its_host() {
    let times = AtomicU32::new(0);
    let fleet = Fleet::new(&["a"], move |_| {
        let second = times.fetch_add(1, Ordering::SeqCst) > 0;
        let last = if second { Line::Fail(Diagnostic::misuse("no such thing")) } else { Line::Ask(vec!["/x"]) };
        script(vec![write(1, "/x", "1").line(), last])
    });
    let ran = proving(fleet, Proving::Idempotent).run().await;
    assert_eq!((ran.buckets(), ran.state.exit_code()), (vec![Bucket::Failed], 1));
    assert!(!ran.state.misused, "something was executed");
}

#[tokio::test]
async fn drift_and_defects_are_named() {
    // The first command ends well and writes nothing: what follows finds the old text, and not the one that was foreseen.
    let script = |_: &str| calls([write(1, "/x", "1"), write(2, "/x", "1"), write(3, "/x", "2"), write(4, "/x", "2")]);
    let ways = |ran: &Ran| departures(&ran.state).into_iter().map(|one| (one.op.0, one.host.0, one.way)).collect::<Vec<_>>();
    let fleet = Fleet::new(&["a", "b"], script).text("a", "/x", "2").behaves("a", "write /x 1", Behaviour::Exit(0));
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "none", "change", "none"]);
    assert_eq!(ways(&ran), [(1, 0, Way::ChangedSomething), (2, 0, Way::FoundNothingToDo)]);
    assert_eq!(ran.state.exit_code(), 0, "it is told, and the run is what it is");
}

#[tokio::test]
async fn what_follows_a_failure_that_was_ignored_is_a_departure() {
    let script = |_: &str| {
        calls([write(1, "/x", "1"), write(2, "/y", "1").when(0, Did::Change).globals(|globals| globals.ignore_errors = Some(true))])
    };
    let fleet = Fleet::new(&["a"], script).behaves("a", "write /x 1", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(departures(&ran.state), [], "what failed is told as that");
    let ignored = |_: &str| {
        calls([write(1, "/x", "1").globals(|globals| globals.ignore_errors = Some(true)), write(2, "/y", "1").when(0, Did::Change)])
    };
    let ran = Fleet::new(&["a"], ignored).behaves("a", "write /x 1", Behaviour::Exit(1)).run().await;
    let departures: Vec<_> = departures(&ran.state).into_iter().map(|one| (one.op.0, one.host, one.way)).collect();
    assert_eq!(departures, [(1, HostId(0), Way::WasSkipped)]);
}

#[tokio::test(start_paused = true)]
async fn facts_that_are_old_when_the_answer_comes_are_read_again() {
    let script = |_: &str| calls([write(1, "/x", "1"), write(2, "/y", "1")]);
    let slow = |seconds, change| Fleet::new(&["a", "b"], script).answered(Approval::YesAfter(seconds, change));
    let fleet = slow(59, None);
    let ran = fleet.run().await;
    assert_eq!((happened(&ran, |event| matches!(event, Event::Rechecking)), *fleet.asked.lock().unwrap()), (0, 1));

    let fleet = slow(61, None);
    let ran = fleet.run().await;
    assert_eq!(happened(&ran, |event| matches!(event, Event::PlanStands)), 1);
    assert_eq!((happened(&ran, |event| matches!(event, Event::PlanReady { .. })), *fleet.asked.lock().unwrap()), (1, 1));
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);

    let fleet = slow(61, Some(("b", "/y", "1")));
    let ran = fleet.run().await;
    assert_eq!((happened(&ran, |event| matches!(event, Event::PlanReady { .. })), *fleet.asked.lock().unwrap()), (2, 2));
    assert_eq!(happened(&ran, |event| matches!(event, Event::PlanStands)), 1, "the second answer took long as well");
    assert_eq!((ran.forecast(0), ran.forecast(1)), (vec!["change".into(), "change".into()], vec!["change".into(), "none".into()]));
    assert_eq!(fleet.performed("b"), ["write /x 1"]);
    assert_eq!(departures(&ran.state), []);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_seen_to_by_another_needs_no_second_question() {
    let fleet = Fleet::new(&["a"], |_| calls([write(1, "/x", "1")])).answered(Approval::YesAfter(61, Some(("a", "/x", "1"))));
    let ran = fleet.run().await;
    assert_eq!((*fleet.asked.lock().unwrap(), ran.buckets()), (1, vec![Bucket::Unchanged]));
    assert_eq!((fleet.performed("a"), ran.state.exit_code()), (vec![], 0));
}

#[tokio::test]
async fn what_went_over_the_connections_is_counted_on_every_way_out() {
    let fleet = Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), write(2, "/y", "2")])).text("b", "/x", "1").text("b", "/y", "2");
    let ran = fleet.run().await;
    let traffic = |ran: &Ran| ran.state.hosts.values().map(|host| host.traffic).collect::<Vec<_>>();
    assert_eq!(traffic(&ran), [Some(Traffic { round_trips: 3, commands: 2 }), Some(Traffic { round_trips: 1, commands: 0 })]);
    let fleet = Fleet::new(&["a", "b"], |_| vec![Line::Panic]).unreachable("b");
    assert_eq!(traffic(&fleet.run().await), [Some(Traffic::default()), None]);
    let ran = Fleet::new(&["a"], |_| Vec::new()).facts(&["/x"]).await;
    assert_eq!(traffic(&ran), [Some(Traffic { round_trips: 1, commands: 0 })]);
}

#[tokio::test]
async fn a_detailed_exit_code_is_told_first() {
    let fleet = Fleet::new(&["a"], |_| calls([write(1, "/x", "1")])).settings(|settings| settings.detailed_exit_code = true);
    let dry = fleet.kind(RunKind::Dry);
    assert_eq!(dry.run().await.state.exit_code(), 3);
    let fleet = dry.kind(RunKind::Deploy);
    let ran = fleet.run().await;
    assert_eq!((ran.state.exit_code(), &ran.events[1]), (3, &Event::DetailedExitCode));
    assert_eq!(fleet.run().await.state.exit_code(), 0);
    assert_eq!(ran.plan().operations[0].idempotence, Idempotence::Idempotent);
}
