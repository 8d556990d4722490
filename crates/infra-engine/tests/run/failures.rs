//! What failed, whose failure it is, and who goes on.

use infra_core::condition::Did;
use infra_core::connection::Ending;
use infra_core::event::{Event, Outcome, StopReason};
use infra_core::host::HostId;
use infra_core::run_state::Bucket;
use serde_json::json;

use crate::fleet::{Approval, Behaviour, Fleet, With, call, calls, seconds, touchless};

fn failure(outcome: Option<Outcome>) -> infra_core::event::Failure {
    match outcome {
        Some(Outcome::Failed { failure, .. } | Outcome::Indeterminate { failure }) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[tokio::test]
async fn a_failed_host_leaves_the_others_to_go_on() {
    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")]));
    let fleet = fleet.behaves("a", "one", Behaviour::Print("reading\nno such file", 3));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(fleet.performed("a"), ["one"]);
    let failure = failure(ran.outcome(0, 0));
    assert_eq!((failure.message.as_str(), failure.step.as_deref()), ("exited with 3", Some("one")));
    assert_eq!(failure.last_output, ["reading", "no such file"]);
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn a_failure_shows_what_its_own_step_printed() {
    let fleet = Fleet::new(&["a"], |_| calls([call(1, "made.touchless", json!({ "commands": ["one", "two", "three"] }))]));
    let fleet = fleet.behaves("a", "one", Behaviour::Print("reading", 0)).behaves("a", "two", Behaviour::Print("no such file", 3));
    let ran = fleet.run().await;
    let failure = failure(ran.outcome(0, 0));
    assert_eq!((failure.step.as_deref(), &failure.last_output[..]), (Some("two"), &["no such file".to_owned()][..]));
    assert_eq!(fleet.performed("a"), ["one", "two"]);
}

#[tokio::test]
async fn every_ending_has_its_outcome() {
    let after = seconds(5);
    let lost = |begun| Ending::Lost { reason: "broken pipe".into(), begun };
    let table = [
        (Ending::Exited(137), "exited with 137 (KILL?)", Bucket::Failed),
        (Ending::TimedOut { after, still_running: None }, "timed out after 5 s", Bucket::Failed),
        (Ending::Refused("no space left on the device".into()), "no space left on the device", Bucket::Failed),
        (lost(false), "the connection was lost before it began: broken pipe", Bucket::Failed),
        (lost(true), "the connection was lost while it ran, so its outcome is not known: broken pipe", Bucket::Indeterminate),
        (Ending::Killed, "was killed because the run was interrupted", Bucket::Indeterminate),
    ];
    for (ending, message, bucket) in table {
        // A lost connection is no failure of the operation that could be ignored.
        let ignore = matches!(ending, Ending::Lost { .. } | Ending::Killed);
        let fleet = Fleet::new(&["a"], move |_| {
            calls([touchless(1, "one").globals(|globals| globals.ignore_errors = Some(ignore)), touchless(2, "two")])
        })
        .behaves("a", "one", Behaviour::Ending(ending));
        let ran = fleet.run().await;
        assert_eq!(failure(ran.outcome(0, 0)).message, message);
        assert_eq!(ran.buckets(), [bucket], "{message}");
        assert_eq!(fleet.performed("a"), ["one"]);
    }
}

#[tokio::test]
async fn an_ignored_failure_leaves_its_host_ok_and_its_commands_undone() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            call(1, "made.touchless", json!({ "commands": ["one", "two", "three"] })).globals(|globals| globals.ignore_errors = Some(true)),
            touchless(2, "on error").when(0, Did::Error),
            touchless(3, "on success").when(0, Did::Succeed),
            touchless(4, "on no change").when(0, Did::NotChange),
        ])
    })
    .behaves("a", "two", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["one", "two", "on error"]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Failed { ignored: true, .. })));
    assert_eq!(ran.state.hosts[&HostId(0)].results[&infra_core::plan::OpId(0)].steps_done, 1);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
    assert_eq!(ran.state.exit_code(), 0);
}

#[tokio::test]
async fn whether_an_ignored_operation_fails_is_not_known_in_the_plan() {
    let script = |_: &str| {
        calls([
            touchless(1, "one").named("One").globals(|globals| globals.ignore_errors = Some(true)),
            touchless(2, "mend").when(0, Did::Error),
            touchless(3, "go on").when(0, Did::Succeed),
            touchless(4, "tell").when(0, Did::Change),
        ])
    };
    for (behaviour, done) in [(Behaviour::Exit(3), vec!["one", "mend"]), (Behaviour::Exit(0), vec!["one", "go on", "tell"])] {
        let fleet = Fleet::new(&["a"], script).behaves("a", "one", behaviour);
        let ran = fleet.run().await;
        assert_eq!(ran.forecast(0), ["change", "depends on One", "depends on One", "change"]);
        assert_eq!(fleet.performed("a"), done);
    }
}

#[tokio::test]
async fn a_failure_that_is_certain_in_the_plan_may_be_ignored_too() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            call(1, "made.copy", json!({ "from": "/no", "to": "/x" })).globals(|globals| globals.ignore_errors = Some(true)),
            touchless(2, "on error").when(0, Did::Error),
        ])
    });
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["none", "change"]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Failed { ignored: true, .. })));
    assert_eq!(fleet.performed("a"), ["on error"]);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_close_is_left() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")]));
    fleet.hangs_on_close = vec!["a"];
    let began = tokio::time::Instant::now();
    assert_eq!(fleet.run().await.buckets(), [Bucket::Changed; 2]);
    assert_eq!(began.elapsed(), fleet.settings.closing);
}

#[tokio::test]
async fn other_exit_codes_may_be_a_success() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([touchless(1, "one").globals(|globals| globals.success_exit_codes = Some(vec![0, 2])), touchless(2, "two")])
    })
    .behaves("a", "one", Behaviour::Exit(2));
    assert_eq!(fleet.run().await.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn a_panic_is_the_failure_of_its_host() {
    // In prepare, where the diff panics over a text that only one host has.
    let fleet = Fleet::new(&["a", "b"], |_| calls([call(1, "made.broken", json!({ "path": "/x" })), touchless(2, "two")]));
    let ran = fleet.text("a", "/x", "boom").run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);

    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")])).behaves("a", "one", Behaviour::Panic);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(failure(ran.outcome(0, 0)).message, "a defect of infra: the wire broke");
}

#[tokio::test]
async fn fail_fast_lets_what_is_in_flight_end() {
    let fleet = Fleet::new(&["a", "b", "c"], |_| calls([touchless(1, "one"), touchless(2, "two")]))
        .settings(|settings| {
            settings.fail_fast = true;
            settings.parallel = Some(2);
        })
        .behaves("a", "one", Behaviour::Exit(1))
        .behaves("b", "one", Behaviour::Block);
    let machine = fleet.machines["b"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::Stopped { .. } = event {
                machine.release("one");
            }
        })
        .await;
    assert_eq!(ran.trace(), ["+0/0", "+0/1", "-0/0", "-0/1"]);
    assert_eq!(ran.stopped(), Some(StopReason::FailFast { host: HostId(0) }));
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::NotReached, Bucket::NotReached]);
}

#[tokio::test]
async fn fail_fast_counts_from_connecting_on() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")])).settings(|settings| {
        settings.fail_fast = true;
        settings.handshakes = 1;
    });
    fleet.unreachable = vec!["a"];
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Unreachable, Bucket::NotReached]);
    assert_eq!(ran.stopped(), Some(StopReason::FailFast { host: HostId(0) }));

    let fleet = Fleet::new(&["a", "b"], |_| calls([call(1, "made.copy", json!({ "from": "/no", "to": "/x" }))]));
    let fleet = fleet.text("b", "/no", "1").settings(|settings| settings.fail_fast = true);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::NotReached]);
    assert_eq!(fleet.performed("b"), Vec::<String>::new());
}

#[tokio::test]
async fn everyone_failing_ends_the_run() {
    let fleet = Fleet::new(&["a"], |_| calls([touchless(1, "one"), touchless(2, "two")])).behaves("a", "one", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.stopped(), Some(StopReason::NoHostLeft));
    assert_eq!(ran.buckets(), [Bucket::Failed]);
}

#[tokio::test]
async fn a_panic_outside_of_any_host_fails_all_and_still_ends_the_run() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")]));
    fleet.approve = Approval::Panic;
    let (run, mut receiver, _interrupt) = fleet.begin();
    let collecting = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (state, events) = tokio::join!(run.deploy(), collecting);
    assert_eq!(state.account().count(Bucket::Failed), 2);
    assert_eq!(state.exit_code(), 1);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::RunEnded)).count(), 1);
    assert_eq!(events.last(), Some(&Event::RunEnded));
    assert_eq!(fleet.performed("a"), Vec::<String>::new());
}
