//! `call`: operations that a script performs in execute.

use std::sync::{Arc, Mutex};

use infra_core::condition::Did;
use infra_core::connection::Ending;
use infra_core::event::{Event, Outcome};
use infra_core::host::HostId;
use infra_core::late::{LateStep, Place};
use infra_core::plan::OpId;
use infra_core::run_state::Bucket;
use infra_core::script::BlockKind;
use serde_json::json;

use crate::fleet::{Behaviour, Fleet, Ran, With, call, calls, run_body, touchless, write};
use crate::functions::{asks, body, fails, function};

/// The operations within calls: of which host, what, and whether each changed something.
fn within(ran: &Ran) -> Vec<(u32, String, bool)> {
    let one = |event: &Event| match event {
        Event::WithinCall { host, title, result, .. } => Some((host.0, title.clone(), result.outcome.changed())),
        _ => None,
    };
    ran.events.iter().filter_map(one).collect()
}

fn message(ran: &Ran, op: u32) -> String {
    match ran.outcome(op, 0) {
        Some(Outcome::Failed { failure, .. } | Outcome::Indeterminate { failure }) => failure.message,
        other => panic!("it did not end well: {other:?}"),
    }
}

#[tokio::test]
async fn operations_run_at_once_against_the_host_as_it_is() {
    let fleet =
        Fleet::new(&["a"], |_| calls([run_body(1, 0).named("Set up"), write(2, "/x", "1"), touchless(3, "then").when(0, Did::Change)]))
            .leaves([function(|turn| match turn.replies.len() {
                0 => LateStep::Perform(Box::new(write(11, "/x", "1"))),
                1 => LateStep::Perform(Box::new(write(12, "/x", "1"))),
                2 => asks("/x"),
                3 => {
                    assert_eq!((turn.changes(), turn.texts()), (vec![true, false], vec![json!("1")]));
                    LateStep::Perform(Box::new(touchless(13, "speak")))
                }
                _ => LateStep::Returned(json!(null)),
            })])
            .behaves("a", "speak", Behaviour::Print("hello\n", 0));
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["open", "depends on Set up", "depends on Set up"]);
    assert_eq!(fleet.performed("a"), ["write /x 1", "speak", "then"]);
    assert_eq!(
        within(&ran),
        [(0, "made.write /x".into(), true), (0, "made.write /x".into(), false), (0, "made.touchless speak".into(), true)]
    );
    assert_eq!(ran.outcome(0, 0), Some(Outcome::Changed { reason: "2 of 3 operations in it".into() }));
    let result = &ran.state.hosts[&HostId(0)].results[&OpId(0)];
    assert_eq!((result.steps_done, result.stdout.as_str(), result.exit_code), (2, "hello\n", Some(0)));
    // It stands in the plan by itself, though no library has it.
    assert_eq!(ran.plan().operations[0].kind, "call");
}

#[tokio::test]
async fn a_call_without_changes_is_no_change() {
    let fleet = Fleet::new(&["a"], |_| calls([run_body(1, 0), run_body(2, 1), touchless(3, "then").when(0, Did::Change)]))
        .leaves([body(|_| vec![write(11, "/x", "1")]), body(|_| vec![])])
        .text("a", "/x", "1");
    let ran = fleet.run().await;
    assert_eq!(ran.outcome(0, 0), Some(Outcome::Unchanged { reason: "the operations in it found nothing to do".into() }));
    assert_eq!(ran.outcome(1, 0), Some(Outcome::Unchanged { reason: "no operation was called in it".into() }));
    assert_eq!(ran.buckets(), [Bucket::Unchanged]);
}

#[tokio::test]
async fn a_failed_operation_fails_the_call_unless_it_is_ignored() {
    let fleet = Fleet::new(&["a"], |_| calls([run_body(1, 0), run_body(2, 1), touchless(3, "after")]))
        .leaves([
            body(|_| vec![touchless(11, "bad").globals(|globals| globals.ignore_errors = Some(true)), touchless(12, "good")]),
            body(|_| vec![touchless(13, "first"), touchless(14, "bad").named("Bad"), touchless(15, "never")]),
        ])
        .behaves("a", "bad", Behaviour::Exit(3));
    let ran = fleet.run().await;
    assert_eq!(ran.outcome(0, 0), Some(Outcome::Changed { reason: "1 of 2 operations in it".into() }));
    let Some(Outcome::Failed { failure, ignored: false }) = ran.outcome(1, 0) else { panic!("it failed") };
    assert_eq!((failure.message.as_str(), failure.step.as_deref()), ("«Bad»: exited with 3", Some("bad")));
    assert_eq!(fleet.performed("a"), ["bad", "good", "first", "bad"]);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(1)].steps_done, 1);
    assert_eq!(ran.buckets(), [Bucket::Failed]);
}

#[tokio::test]
async fn a_body_can_fail_by_itself() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([run_body(1, 0).globals(|globals| globals.ignore_errors = Some(true)), touchless(2, "on error").when(0, Did::Error)])
    })
    .leaves([function(|_| fails("there is no room for it", 5))]);
    let ran = fleet.run().await;
    let Some(Outcome::Failed { failure, ignored: true }) = ran.outcome(0, 0) else { panic!("it failed") };
    assert_eq!((failure.message.as_str(), failure.hint.as_deref()), ("deploy.lua:5: there is no room for it", Some("think again")));
    assert_eq!(fleet.performed("a"), ["on error"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_tried_again_as_a_whole_and_so_are_operations_in_it() {
    let retries = |number| move |globals: &mut infra_core::global_arguments::GlobalArguments| globals.retries = Some(number);
    let fleet = Fleet::new(&["a"], move |_| calls([run_body(1, 0).globals(retries(1))]))
        .leaves([body(move |_| vec![write(11, "/x", "1"), touchless(12, "shy").globals(retries(1)), touchless(13, "bad")])])
        .behaves("a", "shy", Behaviour::FailOnce)
        .behaves("a", "bad", Behaviour::FailOnce);
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["write /x 1", "shy", "shy", "bad", "shy", "bad"]);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].retries, 1);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn an_interrupt_lets_no_further_operation_of_a_body_start() {
    let fleet = Fleet::new(&["a"], |_| calls([run_body(1, 0).globals(|globals| globals.ignore_errors = Some(true))]))
        .leaves([body(|_| vec![touchless(11, "one"), touchless(12, "two").named("Two")])])
        .behaves("a", "one", Behaviour::Block);
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, interrupt| match event {
            Event::CommandStarted { .. } => drop(interrupt.send_replace(1)),
            Event::Interrupted { .. } => machine.release("one"),
            _ => {}
        })
        .await;
    assert_eq!(fleet.performed("a"), ["one"]);
    assert_eq!(message(&ran, 0), "the run was interrupted before «Two» in it");
    assert_eq!((ran.buckets(), ran.state.exit_code()), (vec![Bucket::Failed], 130));
}

#[tokio::test]
async fn twice_kills_what_is_in_flight_in_a_body_also_elsewhere() {
    for place in [None, Some(Place::Host(HostId(1)))] {
        let inner = move || {
            let one = touchless(11, "one").named("One");
            place.map_or(one.clone(), |place| one.on(place))
        };
        let fleet =
            Fleet::new(&["a"], |_| calls([run_body(1, 0)])).beside(&["lb"]).leaves([body(move |_| vec![inner(), touchless(12, "two")])]);
        let fleet = fleet.behaves("a", "one", Behaviour::Block).behaves("lb", "one", Behaviour::Block);
        let ran = fleet
            .run_watched(|event, interrupt| match event {
                Event::CommandStarted { .. } => drop(interrupt.send_replace(1)),
                Event::Interrupted { times: 1, .. } => drop(interrupt.send_replace(2)),
                _ => {}
            })
            .await;
        assert_eq!(message(&ran, 0), "«One»: was killed because the run was interrupted");
        assert_eq!(ran.buckets(), [Bucket::Indeterminate]);
    }
}

#[tokio::test]
async fn what_is_lost_or_unknown_within_is_so_for_the_call() {
    for (begun, bucket) in [(true, Bucket::Indeterminate), (false, Bucket::Failed)] {
        let lost = Ending::Lost { reason: "broken pipe".into(), begun };
        let fleet = Fleet::new(&["a"], |_| {
            calls([run_body(1, 0).globals(|globals| (globals.ignore_errors, globals.retries) = (Some(true), Some(3))), touchless(2, "two")])
        })
        .leaves([body(|_| vec![touchless(11, "one")])])
        .behaves("a", "one", Behaviour::Ending(lost));
        let ran = fleet.run().await;
        // The host cannot go on without its connection, whatever is ignored.
        assert_eq!((ran.buckets(), fleet.performed("a").len()), (vec![bucket], 1));
    }
}

#[tokio::test]
async fn calls_stand_in_blocks_and_run_once() {
    let ran = |change: fn(infra_core::script::OperationCall) -> infra_core::script::OperationCall| async move {
        let fleet = Fleet::new(&["a", "b"], move |_| calls([run_body(1, 0), write(2, "/y", "1"), run_body(3, 1)].map(change)))
            .leaves([body(|host| vec![write(11, "/x", host)]), body(|_| vec![touchless(12, "last")])]);
        let ran = fleet.run().await;
        assert_eq!(ran.buckets()[0], Bucket::Changed);
        (fleet.performed("a"), fleet.performed("b"), ran.trace())
    };
    let (a, b, trace) = ran(|call| call.inside(BlockKind::Rolling(Default::default()), 9)).await;
    assert_eq!(
        (a.as_slice(), b.as_slice()),
        (&["write /x a", "write /y 1", "last"].map(str::to_owned)[..], &["write /x b", "write /y 1", "last"].map(str::to_owned)[..])
    );
    assert_eq!(trace[..6], ["+0/0", "-0/0", "+1/0", "-1/0", "+2/0", "-2/0"]);
    let (mut a, b, _) = ran(|call| call.inside(BlockKind::Parallel, 9)).await;
    a.sort();
    assert_eq!((a, b.len()), (vec!["last".to_owned(), "write /x a".to_owned(), "write /y 1".to_owned()], 3));
    let (a, b, _) = ran(|call| call.globals(|globals| globals.run_once = Some(true))).await;
    assert_eq!((a.len(), b.len()), (3, 0));
}

#[tokio::test]
async fn only_one_body_of_a_host_is_at_work_at_a_time() {
    let busy = Arc::new(Mutex::new(Vec::new()));
    let seen = busy.clone();
    let one = move |name: &'static str| {
        let seen = seen.clone();
        function(move |turn| {
            seen.lock().unwrap().push(name);
            match turn.replies.len() {
                0 => LateStep::Perform(Box::new(touchless(11, name))),
                _ => LateStep::Returned(json!(null)),
            }
        })
    };
    let fleet = Fleet::new(&["a"], |_| calls([run_body(1, 0), run_body(2, 1)].map(|call| call.inside(BlockKind::Parallel, 9))))
        .leaves([one("one"), one("two")]);
    fleet.run().await;
    let order = busy.lock().unwrap().clone();
    assert!(order == ["one", "one", "two", "two"] || order == ["two", "two", "one", "one"], "{order:?}");
}

#[tokio::test]
async fn a_call_takes_no_operation_where_a_value_is_wanted() {
    let fleet = Fleet::new(&["a"], |_| calls([call(1, "made.write", json!({ "path": "/x" })).late("text", 0)]))
        .leaves([body(|_| vec![touchless(11, "one")])]);
    let ran = fleet.run().await;
    assert!(message(&ran, 0).contains("is called where only `call` can run operations"));
    assert!(fleet.performed("a").is_empty());
}
