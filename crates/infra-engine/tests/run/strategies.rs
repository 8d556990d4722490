//! Each strategy: who runs when, taken from the events.

use std::collections::BTreeSet;

use infra_core::condition::{Condition, Did};
use infra_core::event::{Event, Outcome, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::run_state::Bucket;
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};
use tokio::time::Instant;

use crate::fleet::{Behaviour, Fleet, Ran, With, calls, seconds, touchless, write};

fn rolling(sizes: &[Share]) -> Rolling {
    Rolling { batch: Batch::of(sizes.to_vec()), ..Rolling::default() }
}

/// Two operations inside `rolling`, one behind it.
fn rolled(options: Rolling) -> impl Fn(&str) -> Vec<crate::fleet::Line> + Send + Sync + 'static {
    move |_| {
        let kind = BlockKind::Rolling(options.clone());
        calls([touchless(2, "drain").inside(kind.clone(), 1), touchless(3, "restart").inside(kind, 1), touchless(9, "after")])
    }
}

/// The places in the trace of these lines, in order.
fn place(ran: &Ran, line: &str) -> usize {
    ran.trace().iter().position(|one| one == line).unwrap_or_else(|| panic!("{line} is not in {:?}", ran.trace()))
}

#[tokio::test]
async fn a_wave_goes_through_the_block_before_the_next() {
    let ran = Fleet::new(&["a", "b", "c"], rolled(rolling(&[Share::Count(2)]))).run().await;
    let block = Waves::Block(BlockId(0));
    assert_eq!(ran.waves(), [(block, vec![0, 1]), (block, vec![2])]);
    let before = [place(&ran, "-1/0"), place(&ran, "-1/1")];
    assert!(before.iter().all(|end| *end < place(&ran, "+0/2")), "{:?}", ran.trace());
    assert!(place(&ran, "-1/2") < place(&ran, "+2/0"), "what follows the block waits for all waves");
    assert_eq!(ran.buckets(), [Bucket::Changed; 3]);
    assert_eq!(ran.plan().blocks[0].title, "rolling at deploy.lua:1");
    assert_eq!(ran.plan().operations[1].blocks, [BlockId(0)]);
}

#[tokio::test]
async fn growing_waves_begin_with_a_canary() {
    let sizes = [Share::Count(1), Share::Percent(5000), Share::Percent(10_000)];
    let script = move |_: &str| calls([touchless(1, "one").globals(|globals| globals.serial = Some(Batch::of(sizes.to_vec())))]);
    let ran = Fleet::new(&["a", "b", "c", "d", "e"], script).run().await;
    let op = Waves::Operation(OpId(0));
    assert_eq!(ran.waves(), [(op, vec![0]), (op, vec![1, 2]), (op, vec![3, 4])]);
}

#[tokio::test]
async fn a_failed_wave_goes_to_the_blocks_end_and_no_further() {
    let fleet = Fleet::new(&["a", "b", "c", "d"], rolled(rolling(&[Share::Count(2)]))).behaves("a", "drain", Behaviour::Exit(1));
    let ran = fleet.run().await;
    let reason = StopReason::WaveFailed { of: Waves::Block(BlockId(0)), wave: 1, not_ok: 1, entered: 2, allowed: 0 };
    assert_eq!(ran.stopped(), Some(reason));
    assert_eq!(fleet.performed("b"), ["drain", "restart"], "it does not stay drained");
    assert_eq!([fleet.performed("c"), fleet.performed("d")], [Vec::<String>::new(), Vec::new()]);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::NotReached, Bucket::NotReached, Bucket::NotReached]);

    // As many may fail as it says, counted over those that entered.
    let options = Rolling { max_fail: Some(Share::Percent(5000)), ..rolling(&[Share::Count(2)]) };
    let fleet = Fleet::new(&["a", "b", "c", "d"], rolled(options)).behaves("a", "drain", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.stopped(), None);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed, Bucket::Changed, Bucket::Changed]);
}

#[tokio::test]
async fn max_fail_of_an_operation_goes_on_whatever_happens() {
    let script = |_: &str| {
        calls([touchless(1, "one").globals(|globals| {
            globals.serial = Some(Batch::one());
            globals.max_fail = Some(Share::Percent(10_000));
        })])
    };
    let ran = Fleet::new(&["a", "b", "c"], script).behaves("a", "one", Behaviour::Exit(1)).run().await;
    assert_eq!(ran.trace(), ["+0/0", "-0/0", "+0/1", "-0/1", "+0/2", "-0/2"]);
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed, Bucket::Changed]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_stands_between_waves_that_changed_something() {
    let paused = |text: &'static str| {
        move |_: &str| calls([write(2, "/x", text).inside(BlockKind::Rolling(Rolling { pause: 60.0, ..Rolling::default() }), 1)])
    };
    for (text, pauses) in [("new", 2), ("old", 0)] {
        let began = Instant::now();
        let fleet = Fleet::new(&["a", "b", "c"], paused(text)).text("a", "/x", "old").text("b", "/x", "old").text("c", "/x", "old");
        let ran = fleet.run().await;
        assert_eq!(ran.waves().len(), 3);
        assert_eq!(began.elapsed().as_secs(), pauses * 60, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_a_pause() {
    let options = Rolling { pause: 1000.0, ..Rolling::default() };
    let began = Instant::now();
    let ran = Fleet::new(&["a", "b"], rolled(options))
        .run_watched(|event, interrupt| {
            if let Event::HostOperationEnded { op: OpId(1), .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert!(began.elapsed() < seconds(1));
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
}

#[tokio::test]
async fn run_once_inside_rolling_runs_in_the_first_wave() {
    let script = |_: &str| {
        let kind = BlockKind::Rolling(Rolling::default());
        let once = touchless(2, "once").globals(|globals| globals.run_once = Some(true));
        calls([once.inside(kind.clone(), 1), touchless(3, "each").inside(kind, 1)])
    };
    let fleet = Fleet::new(&["a", "b", "c"], script);
    let ran = fleet.run().await;
    assert_eq!([fleet.performed("a"), fleet.performed("b"), fleet.performed("c")].map(|all| all.len()), [2, 1, 1]);
    assert!(matches!(ran.outcome(0, 2), Some(Outcome::Elsewhere { host: HostId(0), changed: true, ok: true })));
    assert!(place(&ran, "-1/0") < place(&ran, "-0/1"));
}

#[tokio::test]
async fn serial_inside_rolling_goes_within_the_wave() {
    let script = |_: &str| {
        let kind = BlockKind::Rolling(rolling(&[Share::Count(2)]));
        let serial = touchless(3, "serial").globals(|globals| globals.serial = Some(Batch::one()));
        calls([touchless(2, "drain").inside(kind.clone(), 1), serial.inside(kind, 1)])
    };
    let ran = Fleet::new(&["a", "b", "c", "d"], script).run().await;
    let (block, op) = (Waves::Block(BlockId(0)), Waves::Operation(OpId(1)));
    let expected = [(block, vec![0, 1]), (op, vec![0]), (op, vec![1]), (block, vec![2, 3]), (op, vec![2]), (op, vec![3])];
    assert_eq!(ran.waves(), expected);
}

#[tokio::test]
async fn host_by_host_runs_all_operations_of_a_host_before_the_next() {
    let fleet =
        Fleet::new(&["a", "b", "c"], |_| calls([touchless(1, "one"), touchless(2, "two")])).settings(|settings| settings.serial = true);
    let ran = fleet.run().await;
    let expected = ["+0/0", "-0/0", "+1/0", "-1/0", "+0/1", "-0/1", "+1/1", "-1/1", "+0/2", "-0/2", "+1/2", "-1/2"];
    assert_eq!(ran.trace(), expected);

    let fleet = fleet.behaves("b", "one", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed, Bucket::Failed, Bucket::NotReached]);
    assert_eq!(ran.stopped(), Some(StopReason::WaveFailed { of: Waves::Run, wave: 2, not_ok: 1, entered: 1, allowed: 0 }));

    let fleet = fleet.settings(|settings| settings.max_fail = Share::Percent(10_000));
    assert_eq!(fleet.run().await.buckets(), [Bucket::Changed, Bucket::Failed, Bucket::Changed]);
}

#[tokio::test]
async fn without_waiting_every_host_runs_through_its_own() {
    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")]))
        .settings(|settings| settings.no_wait = true)
        .behaves("a", "one", Behaviour::Block);
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { op: OpId(1), host: HostId(1), .. } = event {
                machine.release("one");
            }
        })
        .await;
    assert!(place(&ran, "-1/1") < place(&ran, "-0/0"));
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn without_waiting_a_host_waits_for_its_turn_and_a_failed_one_gives_it_up() {
    let script = |_: &str| calls([touchless(1, "one"), touchless(2, "turn").globals(|globals| globals.serial = Some(Batch::one()))]);
    for ending in [0, 1] {
        let fleet = Fleet::new(&["a", "b", "c"], script).settings(|settings| settings.no_wait = true).behaves(
            "a",
            "one",
            Behaviour::BlockThen(ending),
        );
        let machine = fleet.machines["a"].clone();
        let ran = fleet
            .run_watched(move |event, _| {
                if let Event::HostOperationEnded { op: OpId(0), host: HostId(2), .. } = event {
                    machine.release("one");
                }
            })
            .await;
        let turns: Vec<u32> = ran.waves().into_iter().flat_map(|(_, hosts)| hosts).collect();
        assert_eq!(turns, if ending == 0 { vec![0, 1, 2] } else { vec![1, 2] });
    }
}

#[tokio::test]
async fn parallel_runs_different_operations_at_once_on_one_host() {
    let script = |_: &str| {
        let inside = |line, command| touchless(line, command).inside(BlockKind::Parallel, 1);
        calls([inside(2, "one"), inside(3, "two"), touchless(9, "after")])
    };
    let fleet = Fleet::new(&["a", "b"], script).behaves("a", "one", Behaviour::Block).behaves("a", "two", Behaviour::Block);
    let machine = fleet.machines["a"].clone();
    let mut begun = BTreeSet::new();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::CommandStarted { op, host: HostId(0), .. } = event {
                begun.insert(*op);
                if begun.len() == 2 {
                    machine.release("one");
                    machine.release("two");
                }
            }
        })
        .await;
    assert!(place(&ran, "+1/0") < place(&ran, "-0/0") && place(&ran, "+0/0") < place(&ran, "-1/0"));
    assert!(place(&ran, "-1/0") < place(&ran, "+2/1"), "the block is one node: {:?}", ran.trace());
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn the_operations_of_a_block_are_diffed_together() {
    // Both read the text before the other one writes it; what they touch is read again after the block.
    let script = |_: &str| {
        let inside = |line, path| write(line, path, "new").inside(BlockKind::Parallel, 1);
        calls([touchless(1, "first"), inside(2, "/x"), inside(3, "/y"), write(9, "/x", "new"), write(10, "/y", "new")])
    };
    let fleet = Fleet::new(&["a"], script);
    let ran = fleet.run().await;
    assert_eq!(fleet.gathers("a").last().map(|last| last.len()), Some(1));
    assert!(matches!(ran.outcome(1, 0), Some(Outcome::Changed { .. })) && matches!(ran.outcome(2, 0), Some(Outcome::Changed { .. })));
    assert!(matches!(ran.outcome(3, 0), Some(Outcome::Unchanged { .. })) && matches!(ran.outcome(4, 0), Some(Outcome::Unchanged { .. })));
}

#[tokio::test]
async fn what_runs_in_the_background_is_ended_and_counts_as_ok() {
    let script = |_: &str| {
        let serve =
            |line, command| touchless(line, command).globals(|globals| globals.background = Some(true)).inside(BlockKind::Parallel, 1);
        calls([
            serve(2, "serve"),
            serve(3, "watch"),
            touchless(4, "load").inside(BlockKind::Parallel, 1),
            touchless(9, "after").when(0, Did::Succeed),
        ])
    };
    let fleet = Fleet::new(&["a", "b"], script);
    let fleet = ["a", "b"]
        .into_iter()
        .fold(fleet, |fleet, host| fleet.behaves(host, "serve", Behaviour::Block).behaves(host, "watch", Behaviour::Block));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
    for host in 0..2 {
        assert!(place(&ran, &format!("-2/{host}")) < place(&ran, &format!("-0/{host}")));
        assert!(matches!(ran.outcome(0, host), Some(Outcome::Changed { .. })), "{:?}", ran.outcome(0, host));
    }
    assert_eq!(fleet.performed("a").last().map(String::as_str), Some("after"));
}

#[tokio::test]
async fn servers_are_ended_when_the_load_of_other_hosts_has_ended() {
    let script = |name: &str| {
        let serve = touchless(2, "serve").globals(|globals| globals.background = Some(true)).inside(BlockKind::Parallel, 1);
        let load = touchless(4, "load").inside(BlockKind::Parallel, 1);
        calls([if name == "a" { serve } else { load }])
    };
    let fleet = Fleet::new(&["a", "b", "c"], script).behaves("a", "serve", Behaviour::Block);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed; 3]);
    for load in ["-1/1", "-1/2"] {
        assert!(place(&ran, load) < place(&ran, "-0/0"), "{:?}", ran.trace());
    }
}

#[tokio::test]
async fn a_block_is_prepared_for_before_its_first_command() {
    let script = |name: &str| {
        let lines = if name == "a" { 12 } else { 3 };
        let block = (0..lines).map(|at| touchless(10 + at, "x").inside(BlockKind::Parallel, 3));
        calls(block.chain([touchless(90, "after")]).collect::<Vec<_>>())
    };
    let fleet = Fleet::new(&["a", "b"], script).behaves("a", "parallel", Behaviour::Exit(11));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(*fleet.machines["a"].prepared.lock().unwrap(), [12]);
    assert_eq!(*fleet.machines["b"].prepared.lock().unwrap(), [3]);
    assert_eq!(fleet.performed("a"), Vec::<String>::new(), "nothing of the block is started");
    let Some(Outcome::Failed { failure, ignored: false }) = ran.outcome(0, 0) else { panic!("{:?}", ran.outcome(0, 0)) };
    assert_eq!((failure.message.as_str(), failure.hint.as_deref()), ("12 are too many", Some("take fewer")));
    // What has nothing to do needs no place.
    let inside = |line| write(line, "/x", "1").inside(BlockKind::Parallel, 1);
    let fleet = Fleet::new(&["a"], move |_| calls([inside(2), inside(3), touchless(4, "x").inside(BlockKind::Parallel, 1)]));
    let fleet = fleet.text("a", "/x", "1");
    assert_eq!(fleet.run().await.buckets(), [Bucket::Changed]);
    assert_eq!(*fleet.machines["a"].prepared.lock().unwrap(), Vec::<usize>::new());
}

#[tokio::test]
async fn in_the_plan_too_the_operations_of_a_block_see_nothing_of_each_other() {
    let inside = |line| write(line, "/x", "1").inside(BlockKind::Parallel, 1);
    let fleet = Fleet::new(&["a"], move |_| calls([inside(2), inside(3), write(9, "/x", "1")]));
    let ran = fleet.run().await;
    assert_eq!(ran.forecast(0), ["change", "change", "none"]);
    assert_eq!(fleet.performed("a").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_ended_is_left_after_a_while() {
    let script = |_: &str| {
        let serve = touchless(2, "serve").globals(|globals| globals.background = Some(true));
        calls([serve.inside(BlockKind::Parallel, 1), touchless(4, "load").inside(BlockKind::Parallel, 1)])
    };
    let began = Instant::now();
    let fleet = Fleet::new(&["a"], script).behaves("a", "serve", Behaviour::Immortal);
    let ran = fleet.run().await;
    assert_eq!(began.elapsed().as_secs(), fleet.settings.closing.as_secs());
    assert_eq!(ran.buckets(), [Bucket::Indeterminate]);
    assert!(*fleet.machines["a"].killed.borrow() > 1, "the kill is sent again");
}

#[tokio::test]
async fn a_background_operation_is_ended_when_the_others_fail_too() {
    let script = |_: &str| {
        let serve = touchless(2, "serve").globals(|globals| globals.background = Some(true));
        calls([serve.inside(BlockKind::Parallel, 1), touchless(4, "load").inside(BlockKind::Parallel, 1), touchless(9, "after")])
    };
    let fleet = Fleet::new(&["a"], script).behaves("a", "serve", Behaviour::Block).behaves("a", "load", Behaviour::Exit(1));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Changed { .. })));
    assert_eq!(ran.outcome(2, 0), None);
}

#[tokio::test]
async fn an_operations_own_window_bounds_it_alone() {
    let script = |_: &str| calls([touchless(1, "one").globals(|globals| globals.parallel = Some(2)), touchless(2, "two")]);
    let ran = Fleet::new(&["a", "b", "c", "d"], script).run().await;
    let (mut now, mut most) = (0usize, [0usize; 2]);
    for event in &ran.events {
        match event {
            Event::HostOperationStarted { op, .. } => {
                now += 1;
                most[op.index()] = most[op.index()].max(now);
            }
            Event::HostOperationEnded { .. } => now -= 1,
            _ => {}
        }
    }
    assert_eq!(most, [2, 4]);
}

#[tokio::test]
async fn fail_percent_counts_every_selected_host() {
    let fleet = || Fleet::new(&["a", "b", "c", "d"], |_| calls([touchless(1, "one"), touchless(2, "two")]));
    for (percent, stops) in [(49.0, true), (50.0, false)] {
        let mut fleet = fleet().settings(|settings| settings.fail_percent = Some(percent)).behaves("a", "one", Behaviour::Exit(1));
        fleet.unreachable = vec!["d"];
        let ran = fleet.run().await;
        let reason = StopReason::FailPercent { not_ok: 2, selected: 4, allowed: percent };
        assert_eq!(ran.stopped(), stops.then_some(reason));
        assert_eq!(ran.state.exit_code(), 1);
    }
    // From connecting on.
    let mut fleet = fleet().settings(|settings| settings.fail_percent = Some(10.0));
    fleet.unreachable = vec!["b"];
    let ran = fleet.run().await;
    assert_eq!(ran.stopped(), Some(StopReason::FailPercent { not_ok: 1, selected: 4, allowed: 10.0 }));
    assert_eq!(ran.trace(), Vec::<String>::new());
}

#[tokio::test]
async fn the_name_of_a_deploy_with_the_hosts_name_in_it_does_not_serialise_the_fleet() {
    let script = |name: &str| {
        let mut call = touchless(1, "one");
        call.path = vec![format!("set up {name}")];
        calls([call])
    };
    let fleet = Fleet::new(&["a", "b"], script).behaves("a", "one", Behaviour::Block);
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::HostOperationEnded { host: HostId(1), .. } = event {
                machine.release("one");
            }
        })
        .await;
    assert_eq!(ran.plan().operations.len(), 1);
    assert_eq!(ran.plan().operations[0].title, "set up * | made.touchless one");
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn conditions_are_combined_and_ask_about_other_hosts() {
    let script = |_: &str| {
        calls([
            write(1, "/x", "1"),
            touchless(2, "here").when(0, Did::Change),
            touchless(3, "not here").condition(Condition::Not(Box::new(Condition::Outcome(0, Did::Change)))),
            touchless(4, "anywhere").condition(Condition::AnyHost(0)),
        ])
    };
    let fleet = Fleet::new(&["a", "b"], script).text("b", "/x", "1");
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["write /x 1", "here", "anywhere"]);
    assert_eq!(fleet.performed("b"), ["not here", "anywhere"]);
    assert_eq!(ran.forecast(1), ["none", "none", "change", "change"], "it is known in the plan");

    let fleet = Fleet::new(&["a", "b"], script).text("a", "/x", "1").text("b", "/x", "1");
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["not here"]);
    assert_eq!(ran.forecast(1), ["none", "none", "change", "none"]);
}
