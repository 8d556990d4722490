//! Operations and questions that go elsewhere than to their host: `_on`.

use std::sync::{Arc, Mutex};

use infra_core::connection::Ending;
use infra_core::event::{Event, Outcome, RunKind};
use infra_core::host::{Connector, HostId};
use infra_core::late::Place;
use infra_core::plan::{OpId, Outlook};
use infra_core::run_state::Bucket;
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};
use serde_json::json;

use crate::fleet::{Behaviour, Fleet, Line, Ran, With, call, calls, run_body, script, touchless, write};
use crate::functions::body;

fn host(number: u32) -> Place {
    Place::Host(HostId(number))
}

fn host_failures(ran: &Ran) -> Vec<(u32, String)> {
    let failure = |event: &Event| match event {
        Event::HostFailed { host, diagnostic } => Some((host.0, diagnostic.to_string())),
        _ => None,
    };
    let mut failures: Vec<_> = ran.events.iter().filter_map(failure).collect();
    failures.sort();
    failures
}

#[tokio::test]
async fn a_wave_drains_at_one_load_balancer_at_once() {
    let fleet = Fleet::new(&["a", "b", "c"], |name| {
        let rolling = || BlockKind::Rolling(Rolling { batch: Batch::of(vec![Share::parse("2").unwrap()]), ..Rolling::default() });
        let drain = touchless(1, &format!("drain {name}")).on(host(3));
        calls([drain.inside(rolling(), 9), touchless(2, "restart").inside(rolling(), 9)])
    })
    .beside(&["lb"])
    .behaves("lb", "drain a", Behaviour::Block)
    .behaves("lb", "drain b", Behaviour::Block);
    let machine = fleet.machines["lb"].clone();
    let started = Arc::new(Mutex::new(0));
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::CommandStarted { op: OpId(0), text, .. } = event {
                assert!(text.starts_with("on lb: drain "), "{text}");
                *started.lock().unwrap() += 1;
                // Both wait there before either goes on.
                if *started.lock().unwrap() == 2 {
                    machine.release("drain a");
                    machine.release("drain b");
                }
            }
        })
        .await;
    let mut drained = fleet.performed("lb");
    drained[..2].sort();
    assert_eq!(drained, ["drain a", "drain b", "drain c"]);
    assert_eq!([fleet.performed("a"), fleet.performed("b"), fleet.performed("c")], [["restart"]; 3]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 3]);
    let Outlook::Change { steps, .. } = &ran.outlooks(1)[0] else { panic!("it changes something") };
    assert_eq!(steps, &["on lb: drain b"]);
}

#[tokio::test]
async fn a_place_is_connected_to_once_and_a_selected_host_is_shared() {
    let opened = Arc::new(Mutex::new(Vec::new()));
    let fleet = Fleet::new(&["a", "b"], |_| {
        calls([
            write(1, "/lb", "1").on(host(2)),
            write(2, "/x", "1").on(host(0)),
            write(3, "/x", "1"),
            write(4, "/c", "1").on(Place::Controller),
        ])
    })
    .beside(&["lb", "@local"]);
    let (machines, seen) = (fleet.machines.clone(), opened.clone());
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::Executing = event {
                let count = |(name, machine): (&String, &Arc<crate::fleet::Machine>)| (name.clone(), *machine.opened.lock().unwrap());
                *seen.lock().unwrap() = machines.iter().map(count).collect();
            }
        })
        .await;
    assert_eq!(*opened.lock().unwrap(), ["@local", "a", "b", "lb"].map(|name| (name.to_owned(), 1)));
    // The second host finds done, on the first one and on the load balancer, what the first has done, or does it twice where both began at once; in any case
    // the first host sees by its own operation what was done there for the second.
    assert_eq!(fleet.performed("b"), ["write /x 1"]);
    assert!(!fleet.performed("a").is_empty() && !fleet.performed("lb").is_empty() && !fleet.performed("@local").is_empty());
    assert!(matches!(ran.outcome(2, 0), Some(Outcome::Unchanged { .. })), "{:?}", ran.outcome(2, 0));
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn what_is_done_at_one_place_is_not_foreseen_at_another() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            write(1, "/x", "1").on(host(1)),
            write(2, "/x", "1"),
            write(3, "/x", "1").on(host(1)),
            write(4, "/x", "1").on(host(0)),
            run_body(5, 0).named("Anything"),
            write(6, "/x", "1").on(host(1)),
            write(7, "/x", "1"),
        ])
    })
    .beside(&["lb"])
    .leaves([body(|_| vec![])])
    .kind(RunKind::Dry);
    let ran = fleet.run().await;
    assert_eq!(
        ran.forecast(0),
        ["change", "change", "none", "none", "open", "depends on Anything", "depends on Anything"],
        "the host itself is no other place, and a body may run anywhere"
    );
    assert_eq!((fleet.gathers("a"), fleet.gathers("lb")), (vec![vec!["read /x".to_owned()]], vec![vec!["read /x".to_owned()]]));
}

#[tokio::test]
async fn who_needs_a_place_that_cannot_be_reached_fails_in_prepare() {
    let of = |selected: &'static [&'static str], beside: &'static [&'static str]| {
        let mut fleet = Fleet::new(selected, |name| {
            let drain = touchless(1, "drain").named("Drain");
            calls(if name == "b" { vec![touchless(2, "alone")] } else { vec![drain.on(host(2)), touchless(3, "after")] })
        })
        .beside(beside);
        fleet.unreachable = vec!["lb"];
        fleet
    };
    let expected = "deploy.lua:1: lb, where «Drain» is to run (`_on`), is unreachable (connect): no route to host";
    let ran = of(&["a", "b"], &["lb"]).run().await;
    assert_eq!(host_failures(&ran), [(0, expected.to_owned())]);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    // A selected one is not tried again.
    let ran = of(&["a", "b", "lb"], &[]).run().await;
    assert_eq!(host_failures(&ran), [(0, expected.to_owned())]);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed, Bucket::Unreachable]);
    // In a body it is the operation that fails.
    let mut within =
        Fleet::new(&["a"], |_| calls([run_body(1, 0)])).beside(&["lb"]).leaves([body(|_| vec![touchless(2, "x").on(host(1))])]);
    within.unreachable = vec!["lb"];
    let ran = within.run().await;
    let Some(Outcome::Failed { failure, .. }) = ran.outcome(0, 0) else { panic!("it failed") };
    assert_eq!(failure.message, "lb, where «made.touchless x» is to run (`_on`), is unreachable (connect): no route to host");
}

#[tokio::test]
async fn a_place_that_is_lost_leaves_the_host_to_go_on_where_it_is_ignored() {
    let fleet = Fleet::new(&["a"], |_| {
        let ignored = |globals: &mut infra_core::global_arguments::GlobalArguments| globals.ignore_errors = Some(true);
        calls([touchless(1, "drain").on(host(1)).globals(ignored), touchless(2, "after")])
    })
    .beside(&["lb"])
    .behaves("lb", "drain", Behaviour::Ending(Ending::Lost { reason: "broken pipe".into(), begun: false }));
    let ran = fleet.run().await;
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Failed { ignored: true, .. })));
    assert_eq!(fleet.performed("a"), ["after"]);
}

#[tokio::test]
async fn scripts_ask_other_hosts() {
    let fleet = Fleet::new(&["a"], |_| {
        script(vec![
            Line::AskAt(host(1), "/x"),
            Line::AskAt(host(1), "/x"),
            Line::AskAt(host(0), "/x"),
            Line::AskAt(host(2), "/x"),
            touchless(1, "one").line(),
        ])
    });
    let mut fleet = fleet.beside(&["db", "gone"]).text("db", "/x", "there").text("a", "/x", "here");
    fleet.unreachable = vec!["gone"];
    let ran = fleet.run().await;
    let answers: Vec<_> = fleet.answers.lock().unwrap().iter().map(|answer| answer.as_deref().cloned().map_err(Clone::clone)).collect();
    let unreachable = "gone: unreachable (connect): no route to host".to_owned();
    assert_eq!(answers, [Ok(json!("there")), Ok(json!("there")), Ok(json!("here")), Err(unreachable)]);
    assert_eq!(fleet.gathers("db").len(), 1, "it is read once");
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn twice_kills_what_is_in_flight_elsewhere() {
    for selected in [true, false] {
        let names: &[&str] = if selected { &["a", "lb"] } else { &["a"] };
        let fleet =
            Fleet::new(names, |name| calls(if name == "a" { vec![touchless(1, "drain").on(host(1))] } else { vec![touchless(2, "x")] }));
        let fleet = if selected { fleet } else { fleet.beside(&["lb"]) };
        let ran = fleet
            .behaves("lb", "drain", Behaviour::Block)
            .run_watched(|event, interrupt| match event {
                Event::CommandStarted { op: OpId(0), .. } => drop(interrupt.send_replace(1)),
                Event::Interrupted { times: 1, .. } => drop(interrupt.send_replace(2)),
                _ => {}
            })
            .await;
        assert_eq!(ran.buckets()[0], Bucket::Indeterminate);
        assert_eq!(ran.state.exit_code(), 130);
    }
}

#[tokio::test]
async fn what_runs_in_the_background_elsewhere_is_ended_alone() {
    // A server of the first host is ended on the third machine while the second host is still at work there.
    let fleet = Fleet::new(&["a", "b"], |name| match name {
        "a" => {
            let server = touchless(1, "serve").on(host(2)).globals(|globals| globals.background = Some(true));
            calls([server.inside(BlockKind::Parallel, 9), touchless(2, "load").on(host(2)).inside(BlockKind::Parallel, 9)])
        }
        _ => calls([touchless(3, "work").on(host(2))]),
    })
    .beside(&["lab"])
    .behaves("lab", "serve", Behaviour::Block)
    .behaves("lab", "work", Behaviour::Block)
    .settings(|settings| settings.no_wait = true);
    let machine = fleet.machines["lab"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { op: OpId(1), host: HostId(0), .. } = event {
                machine.release("work");
            }
        })
        .await;
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
    assert!(matches!(ran.outcome(0, 1), Some(Outcome::Changed { .. })), "{:?}", ran.outcome(0, 1));
}

#[tokio::test]
async fn a_block_is_diffed_together_at_all_its_places() {
    let fleet = Fleet::new(&["a"], |_| {
        let inside = [write(1, "/x", "1"), write(2, "/x", "1").on(host(1)), write(3, "/y", "1").on(host(1))];
        calls(
            [crate::fleet::shell(9, "anything"), crate::fleet::shell(10, "anything").on(host(1))]
                .into_iter()
                .chain(inside.map(|call| call.inside(BlockKind::Parallel, 8))),
        )
    })
    .beside(&["lb"]);
    fleet.run().await;
    assert_eq!(fleet.gathers("a").last().unwrap(), &["read /x"]);
    assert_eq!(fleet.gathers("lb").last().unwrap(), &["read /x", "read /y"]);
}

#[tokio::test]
async fn a_file_that_is_made_on_the_controller_may_be_uploaded_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("release.tar").to_str().unwrap().to_owned();
    let (made, seen) = (path.clone(), path.clone());
    let fleet = Fleet::new(&["a"], move |_| {
        let build = crate::fleet::shell(1, "build").named("Build").on(Place::Controller);
        calls([build, call(2, "made.put", json!({ "src": made, "dest": "/srv/release" }))])
    })
    .beside(&["@local"]);
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::CommandStarted { op: OpId(0), text, .. } = event {
                assert_eq!(text, "on @local: build");
                std::fs::write(&seen, "1").unwrap();
            }
        })
        .await;
    assert_eq!(ran.forecast(0), ["change", "depends on Build"]);
    assert_eq!((fleet.performed("a"), fleet.performed("@local")), (vec!["upload /srv/release".to_owned()], vec!["build".to_owned()]));
}

#[tokio::test]
async fn where_the_host_is_the_controller_it_is_no_other_place() {
    let mut fleet = Fleet::new(&["a"], |_| calls([write(1, "/x", "1").on(Place::Controller), write(2, "/x", "1")]));
    fleet.connector = Connector::Local;
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "none"]);
    assert_eq!(fleet.performed("a"), ["write /x 1"]);
    // Nor is it connected to again where a host of the run is it.
    assert_eq!(*fleet.machines["a"].opened.lock().unwrap(), 0, "counted and cleared at the end");
}

#[tokio::test]
async fn what_is_changed_while_it_is_read_is_read_again() {
    let fleet = Fleet::new(&["a", "b"], |name| {
        calls(match name {
            "a" => [crate::fleet::shell(1, "any").on(host(2)), write(2, "/x", "1").on(host(2))],
            _ => [touchless(3, "go").on(host(2)), write(4, "/x", "1").on(host(2))],
        })
    })
    .beside(&["lb"])
    .behaves("lb", "go", Behaviour::Block)
    .behaves("lb", "read /x", Behaviour::HoldAfter("any"))
    .settings(|settings| settings.no_wait = true);
    let machine = fleet.machines["lb"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { op: OpId(3), host: HostId(1), .. } = event {
                machine.release("read /x");
            }
        })
        .await;
    // The answer that the first host waited for is older than what the second one did.
    assert_eq!(fleet.performed("lb"), ["any", "go", "write /x 1"]);
    assert!(matches!(ran.outcome(1, 0), Some(Outcome::Unchanged { .. })), "{:?}", ran.outcome(1, 0));
}
