//! From scripts to a plan: rounds, what earlier operations make true, conditions, and what fails a host or the run.

use infra_core::condition::{Condition, Did};
use infra_core::connection::Ending;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Outcome, RunKind, StopReason};
use infra_core::global_arguments::Context;
use infra_core::host::{Connector, HostId};
use infra_core::plan::Outlook;
use infra_core::run_state::Bucket;
use serde_json::json;

use crate::fleet::{Approval, Behaviour, Fleet, Line, With, call, calls, script, shell, touchless, write};

#[tokio::test]
async fn all_operations_of_a_host_are_read_in_one_request_for_each_round() {
    let fleet = Fleet::new(&["a", "b"], |_| {
        calls([
            write(1, "/one", "1"),
            write(2, "/two", "2"),
            call(3, "made.copy", json!({ "from": "/three", "to": "/four" })),
            write(4, "/one", "1"),
            write(5, "/five", "5"),
        ])
    })
    .text("a", "/three", "3")
    .text("b", "/three", "3")
    .kind(RunKind::Dry);
    let ran = fleet.run().await;
    assert_eq!(fleet.gathers("a"), [vec!["read /one", "read /two", "read /three", "read /five"], vec!["read /four"]]);
    assert_eq!(ran.forecast(0), ["change", "change", "change", "none", "change"]);
    assert_eq!(ran.buckets(), [Bucket::PlannedChanges; 2]);
    assert_eq!(fleet.performed("a"), Vec::<String>::new());
    assert_eq!(ran.state.exit_code(), 0);
}

#[tokio::test]
async fn a_second_run_changes_nothing_and_its_plan_said_so() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            call(1, "made.directory", json!({ "path": "/srv/app" })),
            write(2, "/srv/app/x", "1"),
            call(3, "made.copy", json!({ "from": "/srv/app/x", "to": "/srv/app/y" })),
        ])
    });
    let first = fleet.run().await;
    assert_eq!(first.forecast(0), ["change", "change", "change"]);
    assert_eq!(first.buckets(), [Bucket::Changed]);
    let second = fleet.run().await;
    assert_eq!(second.forecast(0), ["none", "none", "none"]);
    assert_eq!(second.buckets(), [Bucket::Unchanged]);
    assert_eq!(fleet.performed("a").len(), 3, "nothing was done twice");
    assert_eq!(*fleet.asked.lock().unwrap(), 1, "a plan without changes is not asked about");
}

#[tokio::test]
async fn what_stands_in_a_fresh_directory_is_predicted() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([call(1, "made.directory", json!({ "path": "/srv/app" })), write(2, "/srv/app/x", "1"), write(3, "/srv/app/x", "1")])
    })
    // An answer that cannot be: below a directory that is made afresh there is nothing, whatever the host said.
    .text("a", "/srv/app/x", "1")
    .kind(RunKind::Dry);
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "change", "none"]);
}

#[tokio::test]
async fn an_operation_behind_one_that_may_do_anything_depends_on_it() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([write(1, "/x", "1"), shell(2, "install").named("Install"), write(3, "/x", "1"), write(4, "/y", "1"), write(5, "/y", "1")])
    })
    .text("a", "/x", "1")
    .kind(RunKind::Dry);
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["none", "change", "depends on Install", "depends on Install", "depends on made.write /y"]);
    let Outlook::Depends { would, .. } = &ran.outlooks(0)[2] else { panic!("it depends") };
    assert_eq!(would.as_deref(), Some("nothing: is as wished"));
    assert_eq!(ran.buckets(), [Bucket::PlannedChanges]);
}

#[tokio::test]
async fn a_fact_error_or_refusal_fails_the_host_only_where_nothing_before_could_change_it() {
    let copy = |line| call(line, "made.copy", json!({ "from": "/missing", "to": "/there" }));
    let alone = Fleet::new(&["a"], move |_| calls([copy(1)])).kind(RunKind::Dry).run().await;
    assert_eq!(alone.buckets(), [Bucket::Failed]);
    let said = alone.events.iter().find_map(|event| match event {
        Event::HostFailed { diagnostic, .. } => Some((diagnostic.to_string(), diagnostic.hint.clone())),
        _ => None,
    });
    let (message, hint) = said.expect("the host failed");
    assert_eq!(message, "deploy.lua:1: «made.copy» cannot be planned: there is no /missing");
    assert_eq!(hint.as_deref(), Some("create it first"));
    assert_eq!(alone.state.exit_code(), 1);

    let behind = Fleet::new(&["a"], move |_| calls([shell(1, "make").named("Make"), copy(2)])).kind(RunKind::Dry).run().await;
    assert_eq!(behind.forecast(0), ["change", "depends on Make"]);

    let broken = |lines: Vec<_>| {
        let fleet = Fleet::new(&["a"], move |_| calls(lines.clone())).kind(RunKind::Dry);
        fleet.behaves("a", "read /x", Behaviour::Exit(7))
    };
    assert_eq!(broken(vec![write(1, "/x", "1")]).run().await.buckets(), [Bucket::Failed]);
    let behind = broken(vec![shell(1, "make").named("Make"), write(2, "/x", "1")]).run().await;
    assert_eq!(behind.forecast(0), ["change", "depends on Make"]);
}

#[tokio::test]
async fn a_refusal_that_rests_on_what_was_predicted_depends_on_it() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([call(1, "made.remove", json!({ "path": "/x" })).named("Remove"), call(2, "made.copy", json!({ "from": "/x", "to": "/y" }))])
    })
    .text("a", "/x", "1")
    .kind(RunKind::Dry);
    assert_eq!(fleet.run().await.forecast(0), ["change", "depends on Remove"]);
}

#[tokio::test]
async fn conditions_are_decided_in_the_plan() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            write(1, "/new", "1"),
            write(2, "/old", "1"),
            touchless(3, "after new").when(0, Did::Change),
            touchless(4, "after old").when(1, Did::Change),
            touchless(5, "chained").when(3, Did::Change),
            shell(6, "anything").named("Anything"),
            write(7, "/old", "1"),
            touchless(8, "open").when(6, Did::Change),
            write(9, "/other", "1").when(6, Did::Change),
        ])
    })
    .text("a", "/old", "1");
    let ran = fleet.run().await;
    let open = "depends on made.write /old";
    assert_eq!(ran.forecast(0), ["change", "none", "change", "none", "none", "change", "depends on Anything", open, "depends on Anything"]);
    assert_eq!(fleet.performed("a"), ["write /new 1", "after new", "anything"]);
    let Some(Outcome::Skipped { reason }) = ran.outcome(7, 0) else { panic!("it was skipped: {:?}", ran.outcome(7, 0)) };
    assert_eq!(reason, "its condition on «made.write /old» does not hold");
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn an_open_condition_over_an_operation_with_nothing_to_do_is_no_change() {
    let fleet = Fleet::new(&["a"], |_| {
        let restart = |line, conditions: &[(&str, u32)]| {
            let mut restart = call(line, "made.restart", json!({ "service": "nginx" }));
            let condition = |(name, on): &(&str, u32)| ((*name).to_owned(), Condition::Outcome(*on, Did::Change));
            restart.conditions = conditions.iter().map(condition).collect();
            restart
        };
        calls([
            write(1, "/conf", "1"),
            shell(2, "anything").named("Anything"),
            write(3, "/conf", "1"),
            restart(4, &[("restarted", 0)]),
            restart(5, &[("restarted", 2)]),
            restart(6, &[]).when(2, Did::Change),
            restart(7, &[("restarted", 0), ("reloaded", 2)]),
        ])
    })
    .kind(RunKind::Deploy);
    let ran = fleet.run().await;
    let forecast = ran.forecast(0);
    assert_eq!(forecast[3], "change");
    assert_eq!(forecast[4], "depends on made.write /conf", "with true it restarts, with false it does not");
    assert_eq!(forecast[5], "none", "whether it runs or not, it is running");
    assert_eq!(forecast[6], "change", "both ways agree: a restart is a restart");
    assert_eq!(fleet.performed("a"), ["write /conf 1", "anything", "restart nginx", "restart nginx"]);
    assert!(matches!(ran.outcome(4, 0), Some(Outcome::Unchanged { .. })));
}

#[tokio::test]
async fn asking_for_ever_fails_the_host_alone() {
    let fleet =
        Fleet::new(&["a", "b"], |name| if name == "a" { calls([call(1, "made.greedy", json!({}))]) } else { calls([touchless(2, "x")]) });
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(fleet.gathers("a").len(), 20);
}

#[tokio::test]
async fn a_script_sees_the_host_as_it_stands() {
    let fleet = Fleet::new(&["a"], |_| {
        script(vec![write(1, "/x", "new").line(), Line::Ask(vec!["/x", "/none", "/broken"]), touchless(2, "y").line()])
    })
    .text("a", "/x", "old")
    .behaves("a", "read /broken", Behaviour::Exit(9))
    .kind(RunKind::Dry);
    let ran = fleet.run().await;
    let answers = fleet.answers.lock().unwrap().clone();
    assert_eq!(answers[0].as_deref(), Ok(&json!("old")));
    assert_eq!(answers[1].as_deref(), Ok(&json!(null)));
    assert_eq!(answers[2], Err("expected 0 or 1, got 9".to_owned()));
    assert_eq!(ran.forecast(0), ["change", "change"]);
    assert_eq!(fleet.gathers("a").len(), 1, "what the script asked is not asked again");
}

#[tokio::test]
async fn misuse_on_any_host_stops_the_run_before_anything_is_executed() {
    let wrong = || Diagnostic::misuse("unknown operation `apt.package`").at("deploy.lua", 3);
    let fleet = Fleet::new(&["a", "b", "c"], move |name| match name {
        "a" => calls([touchless(1, "x")]),
        _ => vec![Line::Fail(wrong())],
    });
    let ran = fleet.run().await;
    let misuses: Vec<_> = ran.events.iter().filter(|event| matches!(event, Event::Misused { .. })).collect();
    assert_eq!(misuses.len(), 1, "the same thing is said once");
    assert!(matches!(misuses[0], Event::Misused { host: Some(HostId(1)), .. }));
    assert_eq!(ran.buckets(), [Bucket::NotReached; 3]);
    assert_eq!(ran.state.exit_code(), 2);
    assert_eq!(fleet.performed("a"), Vec::<String>::new());
}

#[tokio::test]
async fn a_script_that_fails_or_panics_fails_its_host_alone() {
    let fleet = Fleet::new(&["a", "b", "c"], |name| match name {
        "a" => vec![Line::Fail(Diagnostic::runtime("attempt to index a nil value"))],
        "b" => vec![Line::Panic],
        _ => calls([touchless(1, "x")]),
    });
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Failed, Bucket::Changed]);
    assert_eq!(ran.state.exit_code(), 1);
    let said = ran
        .events
        .iter()
        .any(|event| matches!(event, Event::HostFailed { diagnostic, .. } if diagnostic.message.contains("the script broke")));
    assert!(said, "the panic's own words are shown");
}

#[tokio::test]
async fn a_connection_lost_in_prepare_fails_its_host_alone() {
    let lost = Behaviour::Ending(Ending::Lost { reason: "broken pipe".into(), begun: true });
    let fleet = Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1")])).behaves("a", "read /x", lost);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
}

#[tokio::test]
async fn nobody_left_ends_the_run() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "x")]));
    fleet.unreachable = vec!["a", "b"];
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Unreachable; 2]);
    assert_eq!(ran.stopped(), Some(StopReason::NoHostLeft));
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn the_question_and_its_refusal() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1")]));
    fleet.approve = Approval::No;
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
    assert_eq!(ran.state.exit_code(), 1);
    assert!(ran.state.declined);
    assert_eq!(fleet.performed("a"), Vec::<String>::new());

    let fleet = fleet.kind(RunKind::Exec);
    let ran = fleet.run().await;
    assert_eq!(*fleet.asked.lock().unwrap(), 1, "exec does not ask");
    assert_eq!(ran.buckets(), [Bucket::Ok; 2]);
}

#[tokio::test]
async fn facts_are_answered_host_by_host() {
    let mut fleet = Fleet::new(&["a", "b", "c", "d"], |_| Vec::new()).text("a", "/x", "1").kind(RunKind::Fact);
    fleet = fleet.behaves("b", "read /x", Behaviour::Exit(5)).behaves("d", "read /x", Behaviour::Panic);
    fleet.unreachable = vec!["c"];
    let ran = fleet.facts(&["/x", "/y"]).await;
    assert_eq!(ran.buckets(), [Bucket::Ok, Bucket::Failed, Bucket::Unreachable, Bucket::Failed]);
    assert_eq!(fleet.gathers("a"), [["read /x", "read /y"]]);
    let answered = ran.events.iter().filter(|event| matches!(event, Event::FactAnswered { .. })).count();
    assert_eq!(answered, 6);
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn each_host_is_asked_as_whom_it_says() {
    let fleet = Fleet::new(&["a", "b"], |_| Vec::new()).text("a", "/x", "1").text("b", "/x", "2").kind(RunKind::Fact);
    let as_whom = |host: HostId| Context {
        privilege: if host == HostId(1) { infra_core::privilege::Privilege::sudo("www") } else { Default::default() },
        ..Context::default()
    };
    assert_eq!(fleet.facts_as(&["/x"], as_whom).await.buckets(), [Bucket::Ok; 2]);
    let users = |name: &str| -> Vec<Option<String>> {
        fleet.machines[name].contexts.lock().unwrap().iter().map(|(context, _)| context.privilege.user().map(str::to_owned)).collect()
    };
    assert_eq!((users("a"), users("b")), (vec![None], vec![Some("www".to_owned())]));
}

#[tokio::test]
async fn a_local_file_that_is_missing_or_changed_fails_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let src = folder.path().join("motd").to_str().unwrap().to_owned();
    let put = {
        let src = src.clone();
        move |line: u32| call(line, "made.put", json!({ "src": src, "dest": "/etc/motd" }))
    };
    let script = {
        let put = put.clone();
        move |_: &str| calls([shell(1, "anything"), put(2)])
    };
    let fleet = Fleet::new(&["a", "b"], script.clone());
    assert_eq!(fleet.run().await.buckets(), [Bucket::Failed; 2], "no command on a host makes a file of the controller");

    std::fs::write(&src, "hello").unwrap();
    assert_eq!(fleet.run().await.buckets(), [Bucket::Changed; 2]);
    let changing = src.clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::PlanReady { .. } = event {
                std::fs::write(&changing, "other").unwrap();
            }
        })
        .await;
    assert_eq!(ran.buckets(), [Bucket::Failed; 2]);
    let Some(Outcome::Failed { failure, .. }) = ran.outcome(1, 0) else { panic!("it failed") };
    assert_eq!(failure.message, format!("{src} has changed since the plan was made"));
}

#[tokio::test]
async fn a_local_file_may_be_written_by_an_earlier_operation_on_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    let src = folder.path().join("motd").to_str().unwrap().to_owned();
    let made = src.clone();
    let mut fleet = Fleet::new(&["a"], move |_| {
        calls([shell(1, "make").named("Make"), call(2, "made.put", json!({ "src": made, "dest": "/etc/motd" }))])
    });
    fleet.connector = Connector::Local;
    let making = src.clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::Executing = event {
                std::fs::write(&making, "hello").unwrap();
            }
        })
        .await;
    assert_eq!(ran.forecast(0), ["change", "depends on Make"]);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}
