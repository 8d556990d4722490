//! Barrier, window, `_serial`, `_run_once`, and the truth about facts while the host changes.

use std::sync::{Arc, Mutex};

use infra_core::condition::Did;
use infra_core::event::{Event, Outcome, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::output::Stream;
use infra_core::plan::OpId;
use infra_core::run_state::Bucket;
use infra_core::waves::Batch;

use crate::fleet::{Behaviour, Fleet, With, calls, shell, touchless, write};

#[tokio::test]
async fn the_next_operation_starts_when_the_former_has_ended_on_every_host() {
    let fleet = Fleet::new(&["a", "b", "c"], |_| calls([touchless(1, "one"), touchless(2, "two")])).behaves("b", "one", Behaviour::Block);
    let ended = Arc::new(Mutex::new(0));
    let (machine, seen) = (fleet.machines["b"].clone(), ended.clone());
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { op: OpId(0), .. } = event {
                *seen.lock().unwrap() += 1;
                // The others have ended: only now the last one may.
                if *seen.lock().unwrap() == 2 {
                    machine.release("one");
                }
            }
        })
        .await;
    let trace = ran.trace();
    let second = trace.iter().position(|line| line.starts_with("+1/")).unwrap();
    assert_eq!(trace[second - 1], "-0/1");
    assert_eq!(trace.len(), 12);
    assert_eq!(ran.buckets(), [Bucket::Changed; 3]);
    assert_eq!(ran.most_at_once(), 3);
}

#[tokio::test]
async fn the_window_slides() {
    let fleet = Fleet::new(&["a", "b", "c", "d"], |_| calls([touchless(1, "one")])).settings(|settings| settings.parallel = Some(2));
    let fleet = fleet.behaves("a", "one", Behaviour::Block);
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { host: HostId(3), .. } = event {
                machine.release("one");
            }
        })
        .await;
    assert_eq!(ran.most_at_once(), 2);
    assert_eq!(ran.trace().last().map(String::as_str), Some("-0/0"), "the others went by the one that takes long");
}

#[tokio::test]
async fn serial_goes_one_by_one_and_stops_at_a_host_that_is_not_ok() {
    let serial = |_: &str| calls([touchless(1, "one").globals(|globals| globals.serial = Some(Batch::one())), touchless(2, "two")]);
    let fleet = Fleet::new(&["a", "b", "c"], serial);
    let ran = fleet.run().await;
    assert_eq!(ran.trace()[..6], ["+0/0", "-0/0", "+0/1", "-0/1", "+0/2", "-0/2"]);

    let fleet = Fleet::new(&["a", "b", "c"], serial).behaves("b", "one", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.trace(), ["+0/0", "-0/0", "+0/1", "-0/1"]);
    assert_eq!(ran.stopped(), Some(StopReason::WaveFailed { of: Waves::Operation(OpId(0)), wave: 2, not_ok: 1, entered: 1, allowed: 0 }));
    assert_eq!(ran.buckets(), [Bucket::NotReached, Bucket::Failed, Bucket::NotReached]);
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn run_once_counts_for_all_that_registered_it() {
    let once = |name: &str| {
        let once = touchless(2, "once").globals(|globals| globals.run_once = Some(true));
        let before = touchless(1, "before");
        if name == "a" { calls([before, touchless(4, "other")]) } else { calls([before, once, touchless(3, "after").when(1, Did::Change)]) }
    };
    let fleet = Fleet::new(&["a", "b", "c"], once);
    let ran = fleet.run().await;
    assert_eq!(ran.outcome(1, 2), Some(Outcome::Elsewhere { host: HostId(1), changed: true, ok: true }));
    assert_eq!(fleet.performed("b"), ["before", "once", "after"]);
    assert_eq!(fleet.performed("c"), ["before", "after"]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 3]);

    // The first host that is alive when it starts: the failure of the other one came before.
    let fleet = Fleet::new(&["a", "b", "c"], once).behaves("b", "before", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("c"), ["before", "once", "after"]);
    assert_eq!(ran.buckets(), [Bucket::Changed, Bucket::Failed, Bucket::Changed]);

    // It failed: who registered it goes no further, the others do.
    let fleet = Fleet::new(&["a", "b", "c"], once).behaves("b", "once", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed, Bucket::Failed, Bucket::NotReached]);
    assert_eq!(fleet.performed("a"), ["before", "other"]);
    assert_eq!(fleet.performed("c"), ["before"]);
    assert_eq!(ran.stopped(), Some(StopReason::RunOnceFailed { op: OpId(1), host: HostId(1) }));
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn the_plan_of_a_run_once_is_that_of_its_first_host() {
    let fleet = Fleet::new(&["a", "b"], |_| {
        calls([write(1, "/x", "1").globals(|globals| globals.run_once = Some(true)), touchless(2, "after").when(0, Did::Change)])
    })
    .text("a", "/x", "1");
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["none", "none"]);
    assert_eq!(ran.forecast(1), ["none", "depends on made.write /x"]);
    assert_eq!(fleet.performed("b"), Vec::<String>::new());
    assert_eq!(ran.buckets(), [Bucket::Unchanged; 2]);
}

#[tokio::test]
async fn touched_facts_are_read_again_and_no_others() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([write(1, "/x", "1"), write(2, "/y", "1"), touchless(3, "z"), write(4, "/x", "1"), shell(5, "anything"), write(6, "/y", "1")])
    });
    let ran = fleet.run().await;
    let gathers = fleet.gathers("a");
    assert_eq!(gathers, [vec!["read /x", "read /y"], vec!["read /x"], vec!["read /y"]]);
    assert_eq!(fleet.performed("a"), ["write /x 1", "write /y 1", "z", "anything"]);
    assert!(matches!(ran.outcome(3, 0), Some(Outcome::Unchanged { .. })));
}

#[tokio::test]
async fn effects_are_never_trusted_in_execute() {
    // The command says that it was done, but the text is not there: the next operation sees that and writes it.
    let fleet = Fleet::new(&["a"], |_| calls([write(1, "/x", "1"), write(2, "/x", "1")])).behaves("a", "write /x 1", Behaviour::Exit(0));
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "none"]);
    assert_eq!(fleet.performed("a").len(), 2);
    assert!(matches!(ran.outcome(1, 0), Some(Outcome::Changed { .. })));
}

#[tokio::test]
async fn output_comes_line_by_line_and_is_kept() {
    let fleet = Fleet::new(&["a"], |_| calls([touchless(1, "speak")])).behaves("a", "speak", Behaviour::Print("one\ntwo\nthree", 0));
    let ran = fleet.run().await;
    let lines: Vec<_> = ran
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Output { stream: Stream::Stdout, line, .. } => Some(String::from_utf8_lossy(line).into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(lines, ["one", "two", "three"]);
    let result = &ran.state.hosts[&HostId(0)].results[&OpId(0)];
    assert_eq!((result.stdout.as_str(), result.exit_code, result.steps_done), ("one\ntwo\nthree", Some(0), 1));
}

#[tokio::test]
async fn hosts_that_call_in_opposite_orders_each_keep_their_own() {
    let fleet = Fleet::new(&["a", "b"], |name| {
        let (one, two) = (touchless(1, "one"), touchless(2, "two"));
        if name == "a" { calls([one, two]) } else { calls([two, one]) }
    });
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["one", "two"]);
    assert_eq!(fleet.performed("b"), ["two", "one"]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
    assert_eq!(ran.plan().notes.len(), 1, "{:?}", ran.plan().notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_up_the_command_and_loses_nothing() {
    let lines = 40_000;
    let line = "x".repeat(99);
    let text: &'static str = String::leak(format!("{line}\n").repeat(lines));
    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "speak")])).behaves("a", "speak", Behaviour::Print(text, 0));
    let ran = fleet.run().await;
    let shown = ran.events.iter().filter(|event| matches!(event, Event::Output { line, .. } if line.len() == 99)).count();
    assert_eq!(shown, lines);
    let kept = &ran.state.hosts[&HostId(0)].results[&OpId(0)].stdout;
    assert!(kept.len() < 200_000 && kept.contains("bytes not kept"));
}

#[tokio::test]
async fn commands_and_facts_run_as_the_operation_says() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([write(1, "/x", "1").globals(|globals| {
            globals.sudo = Some(true);
            globals.env = Some([("LANG".to_owned(), "C".to_owned())].into());
            globals.chdir = Some("/srv".into());
            globals.timeout = Some(2.5);
        })])
    });
    fleet.run().await;
    let contexts = fleet.machines["a"].contexts.lock().unwrap().clone();
    let [(asked, None), (performed, Some(timeout))] = &contexts[..] else { panic!("one question and one command: {contexts:?}") };
    assert_eq!(*timeout, std::time::Duration::from_millis(2500));
    assert_eq!((performed.privilege.user(), performed.chdir.as_deref()), (Some("root"), Some("/srv")));
    assert_eq!(*asked, performed.for_facts(), "facts inherit all but the directory");
}
