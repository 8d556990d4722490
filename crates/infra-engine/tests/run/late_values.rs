//! Arguments, conditions and `_retry_until` that functions of the script give in execute, and what the plan says of them before.

use std::sync::{Arc, Mutex};

use infra_core::condition::{Condition, Did};
use infra_core::event::{Event, Outcome};
use infra_core::host::HostId;
use infra_core::late::{LateStep, Purpose};
use infra_core::plan::{OpId, Outlook};
use infra_core::run_state::Bucket;
use infra_core::script::BlockKind;
use infra_core::waves::Batch;
use infra_core::{Value, script::OperationCall};
use serde_json::json;

use crate::fleet::{Behaviour, Fleet, Line, Ran, With, call, calls, script, shell, touchless, write};
use crate::functions::{asks, fails, function, gives};

/// A text at a path that a function gives.
fn late_text(line: u32, path: &str, function: u32) -> OperationCall {
    call(line, "made.write", json!({ "path": path })).late("text", function)
}

fn decided_by(function: u32) -> Condition {
    Condition::Function(function)
}

fn failure(ran: &Ran, op: u32, host: u32) -> (String, Option<String>, bool) {
    match ran.outcome(op, host) {
        Some(Outcome::Failed { failure, ignored }) => (failure.message, failure.hint, ignored),
        other => panic!("it failed: {other:?}"),
    }
}

#[tokio::test]
async fn an_argument_is_made_of_what_ran_before() {
    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "token"), late_text(2, "/x", 0)]))
        .leaves([gives(|turn| {
            assert_eq!(*turn.purpose, Purpose::Argument { name: "text".into() });
            json!(format!("{}-{}", turn.host, turn.stdout(0)))
        })])
        .behaves("a", "token", Behaviour::Print("one\n\n", 0))
        .behaves("b", "token", Behaviour::Print("two\n", 0));
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "open"]);
    assert_eq!(fleet.performed("a"), ["token", "write /x a-one"]);
    assert_eq!(fleet.performed("b"), ["token", "write /x b-two"]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn what_is_touched_is_known_where_the_other_arguments_say_so() {
    let path = |line| call(line, "made.write", json!({ "text": "1" })).late("path", 0);
    let after = |first: OperationCall| {
        let fleet = Fleet::new(&["a"], move |_| calls([first.clone(), write(2, "/y", "1"), write(3, "/x", "1")]));
        fleet.leaves([gives(|_| json!("/x"))]).kind(infra_core::event::RunKind::Dry)
    };
    // A text that is missing keeps the rest from being read: it may touch anything.
    assert_eq!(after(late_text(1, "/x", 0)).run().await.forecast(0)[1..], ["depends on made.write /x", "depends on made.write /x"]);
    assert_eq!(after(path(1)).run().await.forecast(0)[1..], ["depends on made.write", "depends on made.write"]);
    // A service that may be restarted is all that this one touches.
    let restart = call(1, "made.restart", json!({ "service": "web" })).late("reloaded", 0);
    assert_eq!(after(restart).run().await.forecast(0), ["open", "change", "change"]);
}

#[tokio::test]
async fn a_value_that_does_not_fit_fails_the_operation() {
    let fleet = Fleet::new(&["a", "b"], |name| {
        let ignored = name == "b";
        calls([late_text(7, "/x", 0).globals(|globals| globals.ignore_errors = Some(ignored)), touchless(8, "after")])
    })
    .leaves([gives(|_| json!([1]))]);
    let ran = fleet.run().await;
    let (message, _, ignored) = failure(&ran, 0, 0);
    assert!(message.starts_with("deploy.lua:7: a function gave what does not fit: ") && message.contains("`text`"), "{message}");
    assert!(!ignored && failure(&ran, 0, 1).2);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!((fleet.performed("a").len(), fleet.performed("b")), (0, vec!["after".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_fails_is_called_again_where_the_operation_may_be_tried_again() {
    let called = Arc::new(Mutex::new(0));
    let seen = called.clone();
    let second = function(move |_| {
        *seen.lock().unwrap() += 1;
        if *seen.lock().unwrap() == 1 { fails("there is no token yet", 3) } else { LateStep::Returned(json!("1")) }
    });
    let fleet = Fleet::new(&["a"], |_| calls([late_text(1, "/x", 0).globals(|globals| globals.retries = Some(1)), late_text(2, "/y", 1)]))
        .leaves([second, function(|_| fails("there is none", 4))]);
    let ran = fleet.run().await;
    assert_eq!((*called.lock().unwrap(), fleet.performed("a")), (2, vec!["write /x 1".to_owned()]));
    let said = ran.events.iter().find_map(|event| match event {
        Event::Retrying { failure, .. } => Some(failure.message.clone()),
        _ => None,
    });
    assert_eq!(said.as_deref(), Some("the value of `text` cannot be had: deploy.lua:3: there is no token yet"));
    let expected = ("the value of `text` cannot be had: deploy.lua:4: there is none".to_owned(), Some("think again".to_owned()), false);
    assert_eq!(failure(&ran, 1, 0), expected);
}

#[tokio::test]
async fn conditions_are_decided_when_their_turn_comes() {
    let fleet = Fleet::new(&["a", "b"], |_| {
        calls([
            touchless(1, "probe"),
            touchless(2, "if").condition(decided_by(0)),
            touchless(3, "if not").condition(Condition::Not(Box::new(decided_by(0)))),
            touchless(4, "then").when(1, Did::Change),
            write(5, "/x", "1").condition(decided_by(0)),
        ])
    })
    .leaves([gives(|turn| json!(turn.stdout(0) == "yes"))])
    .text("a", "/x", "1")
    .behaves("a", "probe", Behaviour::Print("yes", 0))
    .behaves("b", "probe", Behaviour::Print("no", 0));
    let ran = fleet.run().await;
    // Whether it runs or not, there is nothing to do for the last one of the first host.
    assert_eq!(ran.forecast(0), ["change", "open", "open", "depends on made.touchless if", "none"]);
    let Outlook::Depends { would, .. } = &ran.outlooks(1)[4] else { panic!("it is open") };
    assert_eq!(would.as_deref(), Some("write"));
    assert_eq!(fleet.performed("a"), ["probe", "if", "then"]);
    assert_eq!(fleet.performed("b"), ["probe", "if not"]);
    assert_eq!(ran.outcome(1, 1), Some(Outcome::Skipped { reason: "its condition does not hold".into() }));
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn a_condition_that_is_neither_true_nor_false_fails_the_operation() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            touchless(1, "one").condition(decided_by(0)).globals(|globals| globals.ignore_errors = Some(true)),
            // A function that nothing rests on any more is not called.
            touchless(2, "two").when(0, Did::Change).condition(decided_by(0)),
            touchless(3, "three").condition(Condition::Any(vec![Condition::Always(true), decided_by(0)])),
            touchless(4, "four").condition(Condition::All(vec![decided_by(1), decided_by(0)])),
        ])
    })
    .leaves([gives(|_| Value::Null), gives(|_| json!(false))]);
    let ran = fleet.run().await;
    let (message, hint, _) = failure(&ran, 0, 0);
    assert_eq!(message, "the function of `_if` gave nothing, not true or false");
    assert!(hint.unwrap().starts_with("return true or false"));
    assert_eq!(fleet.performed("a"), ["three"]);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn an_argument_that_is_a_condition_is_asked_as_well() {
    let restart = |line, function| {
        let mut call = call(line, "made.restart", json!({ "service": "web" }));
        call.conditions.push(("restarted".into(), decided_by(function)));
        call
    };
    let fleet =
        Fleet::new(&["a"], move |_| calls([restart(1, 0), restart(2, 1)])).leaves([gives(|_| json!(true)), gives(|_| json!(false))]);
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["open", "open"]);
    assert_eq!(fleet.performed("a"), ["restart web"]);
}

#[tokio::test]
async fn a_function_sees_the_host_at_that_moment() {
    let fleet = Fleet::new(&["a"], |_| {
        script(vec![
            Line::Ask(vec!["/x", "/y"]),
            write(1, "/x", "new").line(),
            late_text(2, "/copy", 0).line(),
            late_text(3, "/other", 1).line(),
        ])
    })
    .leaves(["/x", "/y"].map(|path| {
        function(move |turn| match turn.texts().pop() {
            None => asks(path),
            Some(text) => LateStep::Returned(text),
        })
    }))
    .text("a", "/x", "old")
    .text("a", "/y", "same");
    fleet.run().await;
    assert_eq!(fleet.performed("a"), ["write /x new", "write /copy new", "write /other same"]);
    // What nobody touched is not read again.
    let read = |path: &str| fleet.gathers("a").iter().flatten().filter(|question| *question == path).count();
    assert_eq!((read("read /x"), read("read /y")), (2, 1));
}

fn until(mut call: OperationCall, function: u32, retries: u32) -> OperationCall {
    call.late.until = Some(function);
    call.globals(|globals| globals.retries = Some(retries))
}

#[tokio::test(start_paused = true)]
async fn a_good_try_is_tried_again_until_the_function_says_so() {
    let fleet = Fleet::new(&["a"], |_| calls([until(touchless(1, "poll"), 0, 5), touchless(2, "after")])).leaves([function({
        let calls = Mutex::new(0);
        move |turn| {
            let Purpose::Until(result) = turn.purpose else { panic!("it is asked of a try") };
            assert_eq!((result.succeeded, result.changed, result.exit_code), (true, true, Some(0)));
            *calls.lock().unwrap() += 1;
            LateStep::Returned(json!(*calls.lock().unwrap() == 3))
        }
    })]);
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "change"]);
    assert_eq!(fleet.performed("a"), ["poll", "poll", "poll", "after"]);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].retries, 2);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_try_may_be_what_is_waited_for() {
    let accepts = |code: i32| {
        gives(move |turn| match turn.purpose {
            Purpose::Until(result) => json!(result.exit_code == Some(code)),
            _ => panic!("it is asked of a try"),
        })
    };
    let fleet = Fleet::new(&["a"], |_| calls([until(touchless(1, "poll"), 0, 1), until(touchless(2, "other"), 1, 1)]))
        .leaves([accepts(7), accepts(8)])
        .behaves("a", "poll", Behaviour::Exit(7))
        .behaves("a", "other", Behaviour::Exit(7));
    let ran = fleet.run().await;
    assert_eq!(ran.outcome(0, 0), Some(Outcome::Changed { reason: "exited with 7, which `_retry_until` accepts".into() }));
    assert_eq!(failure(&ran, 1, 0).0, "exited with 7, and `_retry_until` did not come true");
    assert_eq!(fleet.performed("a"), ["poll", "other", "other"]);
}

#[tokio::test(start_paused = true)]
async fn retries_that_are_used_up_are_a_failure_that_changed_something() {
    let fleet = Fleet::new(&["a"], |_| calls([until(touchless(1, "poll"), 0, 1), touchless(2, "after")]))
        .leaves([gives(|_| json!(false))])
        .behaves("a", "poll", Behaviour::Print("not yet", 0));
    let ran = fleet.run().await;
    let Some(Outcome::Failed { failure, ignored: false }) = ran.outcome(0, 0) else { panic!("it failed") };
    assert_eq!((failure.message.as_str(), failure.last_output), ("`_retry_until` did not come true", vec!["not yet".to_owned()]));
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].steps_done, 2);
    assert_eq!(ran.buckets(), [Bucket::Failed]);
    // One that is true in the end has changed what an earlier try changed.
    let fleet =
        Fleet::new(&["a"], |_| calls([until(write(1, "/x", "1"), 0, 3), touchless(2, "then").when(0, Did::Change)])).leaves([gives(
            |turn| match turn.purpose {
                Purpose::Until(result) => json!(!result.changed),
                _ => panic!("it is asked of a try"),
            },
        )]);
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["write /x 1", "then"]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Changed { .. })), "{:?}", ran.outcome(0, 0));
}

#[tokio::test]
async fn functions_know_what_other_hosts_did() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let fleet = Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), write(2, "/y", "1"), late_text(3, "/z", 0)]))
        .leaves([gives(move |turn| {
            let anywhere = |call| turn.results[&call].changed_anywhere;
            seen.lock().unwrap().push((turn.host.to_owned(), turn.results[&0].changed, anywhere(0), anywhere(1)));
            json!("1")
        })])
        .text("b", "/x", "1")
        .text("a", "/y", "1")
        .text("b", "/y", "1");
    fleet.run().await;
    let mut told = told.lock().unwrap().clone();
    told.sort();
    assert_eq!(told, [("a".into(), true, Some(true), Some(false)), ("b".into(), false, Some(true), Some(false))]);
    let told = Arc::new(Mutex::new(None));
    let seen = told.clone();
    let fleet = Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), late_text(2, "/z", 0)]))
        .leaves([gives(move |turn| {
            seen.lock().unwrap().get_or_insert(turn.results[&0].changed_anywhere);
            json!("1")
        })])
        .text("a", "/x", "1")
        .settings(|settings| settings.serial = true);
    fleet.run().await;
    assert_eq!(*told.lock().unwrap(), Some(None), "the second host may still change something");
}

#[tokio::test]
async fn every_strategy_asks_when_the_turn_comes() {
    type Change = fn(OperationCall) -> OperationCall;
    let plain: Change = |call| call;
    let changes: [(&str, Change); 5] = [
        ("barrier", plain),
        ("serial", |call| call.globals(|globals| globals.serial = Some(Batch::one()))),
        ("once", |call| call.globals(|globals| globals.run_once = Some(true))),
        ("parallel", |call| call.inside(BlockKind::Parallel, 9)),
        ("rolling", |call| call.inside(BlockKind::Rolling(Default::default()), 9)),
    ];
    for (how, change) in changes {
        for (serial, no_wait) in [(false, false), (true, false), (false, true)] {
            let fleet = Fleet::new(&["a", "b"], move |_| {
                let inside = [late_text(2, "/x", 0), write(3, "/y", "1"), write(4, "/z", "1").condition(decided_by(1))];
                calls([touchless(1, "token")].into_iter().chain(inside.map(change)))
            })
            .leaves([gives(|turn| json!(turn.stdout(0))), gives(|turn| json!(turn.stdout(0) == "t"))])
            .behaves("a", "token", Behaviour::Print("t", 0))
            .behaves("b", "token", Behaviour::Print("t", 0))
            .settings(|settings| (settings.serial, settings.no_wait) = (serial, no_wait));
            let ran = fleet.run().await;
            let mut performed = fleet.performed("a");
            performed[1..].sort();
            assert_eq!(performed, ["token", "write /x t", "write /y 1", "write /z 1"], "{how}");
            assert_eq!(fleet.performed("b").len(), if how == "once" { 1 } else { 4 }, "{how}");
            assert_eq!(ran.buckets()[0], Bucket::Changed, "{how}");
        }
    }
}

#[tokio::test]
async fn the_plan_is_told_before_the_script_has_ended() {
    let answers = |change: fn(&mut infra_core::global_arguments::GlobalArguments)| {
        Fleet::new(&["a", "b"], move |_| {
            script(vec![
                write(1, "/x", "1").globals(change).line(),
                write(2, "/y", "1").line(),
                Line::Foresee(0),
                Line::Foresee(1),
                late_text(3, "/z", 0).line(),
                write(4, "/x", "1").line(),
                Line::Foresee(2),
                Line::Foresee(3),
                Line::Foresee(0),
            ])
        })
        .leaves([gives(|_| json!("1"))])
        .text("a", "/y", "1")
        .text("b", "/y", "1")
    };
    let fleet = answers(|_| ()).kind(infra_core::event::RunKind::Dry);
    let ran = fleet.run().await;
    let told: Vec<Value> = fleet.answers.lock().unwrap().iter().map(|answer| (**answer.as_ref().unwrap()).clone()).collect();
    let one = [json!(true), json!(false), json!("unknown"), json!("unknown"), json!(true)];
    assert!(one.iter().all(|answer| told.iter().filter(|other| *other == answer).count() >= 2), "{told:?}");
    assert_eq!(ran.forecast(0), ["change", "none", "open", "depends on made.write /z"]);
    assert_eq!(fleet.gathers("a"), [["read /x", "read /y"]], "one round trip for all of it");
    // What runs once may run elsewhere, for all that the second host knows.
    let once = answers(|globals| globals.run_once = Some(true)).kind(infra_core::event::RunKind::Dry);
    once.run().await;
    let unknown = once.answers.lock().unwrap().iter().filter(|answer| *answer.as_ref().unwrap().as_ref() == json!("unknown")).count();
    assert_eq!(unknown, 2 * 2 + 2);
}

#[tokio::test]
async fn hosts_without_functions_are_told_so() {
    let ran = Fleet::new(&["a"], |_| calls([shell(1, "one"), late_text(2, "/x", 0)])).run().await;
    assert_eq!(failure(&ran, 1, 0).0, "a defect of infra: the script left no function 0 behind");
}

#[tokio::test]
async fn what_ran_once_is_told_to_all() {
    for no_wait in [false, true] {
        let fleet = Fleet::new(&["a", "b", "c"], |_| {
            calls([touchless(1, "token").globals(|globals| globals.run_once = Some(true)), late_text(2, "/x", 0)])
        })
        .leaves([gives(|turn| json!(format!("{} {:?}", turn.stdout(0), turn.results[&0].changed_anywhere)))])
        .behaves("a", "token", Behaviour::Print("secret\n", 0))
        .settings(|settings| settings.no_wait = no_wait);
        fleet.run().await;
        assert_eq!(fleet.performed("b").last().unwrap(), "write /x 'secret Some(true)'");
        assert_eq!(fleet.performed("c").last().unwrap(), "write /x 'secret Some(true)'");
    }
}
