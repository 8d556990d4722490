//! Interrupted once, twice, three times, in every phase.

use infra_core::event::{Event, Outcome, StopReason};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::Bucket;

use crate::fleet::{Approval, Behaviour, Fleet, Line, calls, touchless};

fn blocked() -> Fleet {
    Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")])).settings(|settings| settings.parallel = Some(1)).behaves(
        "a",
        "one",
        Behaviour::Block,
    )
}

#[tokio::test]
async fn once_lets_what_is_in_flight_end() {
    let fleet = blocked();
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, interrupt| match event {
            Event::CommandStarted { .. } => drop(interrupt.send_replace(1)),
            Event::Interrupted { times: 1, in_flight } => {
                assert_eq!(in_flight.iter().map(|(op, host, _)| (*op, *host)).collect::<Vec<_>>(), [(OpId(0), HostId(0))]);
                machine.release("one");
            }
            _ => {}
        })
        .await;
    assert_eq!(ran.trace(), ["+0/0", "-0/0"]);
    assert_eq!(ran.stopped(), Some(StopReason::Interrupted));
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Changed { .. })));
    assert_eq!(ran.state.exit_code(), 130);
}

#[tokio::test]
async fn twice_kills_what_is_in_flight() {
    let ran = blocked()
        .run_watched(|event, interrupt| match event {
            Event::CommandStarted { .. } => drop(interrupt.send_replace(1)),
            Event::Interrupted { times: 1, .. } => drop(interrupt.send_replace(2)),
            _ => {}
        })
        .await;
    assert_eq!(ran.trace(), ["+0/0", "-0/0"]);
    assert_eq!(ran.buckets(), [Bucket::Indeterminate, Bucket::NotReached]);
    assert_eq!(ran.state.exit_code(), 130);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_is_left_after_a_while_or_at_once_the_third_time() {
    for third in [false, true] {
        let began = tokio::time::Instant::now();
        let fleet = Fleet::new(&["a"], |_| calls([touchless(1, "one")])).behaves("a", "one", Behaviour::Immortal);
        let ran = fleet
            .run_watched(move |event, interrupt| match event {
                Event::CommandStarted { .. } => drop(interrupt.send_replace(2)),
                Event::Interrupted { times: 2, .. } if third => drop(interrupt.send_replace(3)),
                _ => {}
            })
            .await;
        let Some(Outcome::Indeterminate { failure }) = ran.outcome(0, 0) else { panic!("its outcome is not known") };
        assert_eq!(failure.message, "was left before it ended: it may still be running");
        assert_eq!(ran.buckets(), [Bucket::Indeterminate]);
        let waited = began.elapsed() >= fleet.settings.closing;
        assert_eq!(waited, !third);
    }
}

/// What is abandoned while it connects lets go of its sockets and processes before the run is over: the program may end right after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_half_made_is_gone_before_the_run_is() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")]));
    fleet.black_holes = vec!["b"];
    let half_made = fleet.machines["b"].half_made.clone();
    let (run, mut receiver, interrupt) = fleet.begin();
    let begun = half_made.clone();
    let watching = tokio::spawn(async move {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            if matches!(event, Event::HostConnected { .. }) {
                while begun.lock().unwrap().0 == 0 {
                    tokio::task::yield_now().await;
                }
                interrupt.send_replace(1);
            }
            events.push(event);
        }
        events
    });
    let state = run.deploy().await;
    assert_eq!(*half_made.lock().unwrap(), (1, 0));
    let ran = fleet.finished(state, watching.await.expect("it does not panic"));
    assert_eq!(ran.state.exit_code(), 130);
}

#[tokio::test]
async fn before_execute_once_is_enough() {
    let mut connecting = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")]));
    connecting.black_holes = vec!["b"];
    let ran = connecting
        .run_watched(|event, interrupt| {
            if let Event::HostConnected { .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
    assert_eq!(ran.state.exit_code(), 130);
    assert_eq!(ran.stopped(), Some(StopReason::Interrupted));

    let preparing = Fleet::new(&["a", "b"], |name| if name == "b" { vec![Line::Hang] } else { calls([touchless(1, "one")]) });
    let ran = preparing
        .run_watched(|event, interrupt| {
            if let Event::HostPrepared { .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
    assert_eq!(ran.state.exit_code(), 130);
    assert_eq!(preparing.performed("a"), Vec::<String>::new());
}

#[tokio::test]
async fn before_the_first_operation_nothing_is_started() {
    let mut fleet = Fleet::new(&["a"], |_| calls([touchless(1, "one")]));
    fleet.approve = Approval::YesAndInterrupt;
    let ran = fleet.run().await;
    assert_eq!(ran.trace(), Vec::<String>::new());
    assert_eq!(ran.buckets(), [Bucket::NotReached]);
    assert_eq!(ran.state.exit_code(), 130);
}

#[tokio::test]
async fn at_the_question_it_means_no() {
    let mut fleet = Fleet::new(&["a"], |_| calls([touchless(1, "one")]));
    fleet.approve = Approval::Never;
    let ran = fleet
        .run_watched(|event, interrupt| {
            if let Event::PlanReady { .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert!(ran.state.declined);
    assert_eq!(ran.buckets(), [Bucket::NotReached]);
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn a_run_goes_on_without_anyone_to_interrupt_it() {
    let fleet = Fleet::new(&["a"], |_| calls([touchless(1, "one")]));
    let (run, mut receiver, interrupt) = fleet.begin();
    drop(interrupt);
    let collecting = async {
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        events
    };
    let (state, events) = tokio::join!(run.deploy(), collecting);
    assert_eq!(fleet.finished(state, events).buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn a_reader_that_has_gone_does_not_hold_up_the_run() {
    let fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")]));
    let (run, receiver, _interrupt) = fleet.begin();
    drop(receiver);
    let state = run.deploy().await;
    assert_eq!(state.account().count(Bucket::Changed), 2);
}
