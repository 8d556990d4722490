//! Trying again, going on after an error, and who is told of it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use infra_core::condition::Did;
use infra_core::event::{Event, Outcome, StopReason};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::Bucket;
use serde_json::json;
use tokio::time::Instant;

use crate::fleet::{Behaviour, Fleet, Kept, Ran, With, call, calls, seconds, touchless, write};

fn retries(ran: &Ran) -> Vec<(u32, u32, Duration)> {
    let retry = |event: &Event| match event {
        Event::Retrying { retry, retries, after, .. } => Some((*retry, *retries, *after)),
        _ => None,
    };
    ran.events.iter().filter_map(retry).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failed_operation_is_tried_again_after_growing_delays() {
    let began = Instant::now();
    let fleet = Fleet::new(&["a"], |_| {
        calls([touchless(1, "one").globals(|globals| {
            globals.retries = Some(3);
            globals.retry_delay = Some(10.0);
            globals.retry_backoff = Some(2.0);
        })])
    })
    .behaves("a", "one", Behaviour::Exit(1));
    let ran = fleet.run().await;
    let said = retries(&ran);
    assert_eq!(said.iter().map(|(retry, of, _)| (*retry, *of)).collect::<Vec<_>>(), [(1, 3), (2, 3), (3, 3)]);
    for ((_, _, after), about) in said.iter().zip([10.0, 20.0, 40.0]) {
        assert!((after.as_secs_f64() / about - 1.0).abs() <= 0.1001, "{after:?} is about {about} s");
    }
    let waited: Duration = said.iter().map(|(_, _, after)| *after).sum();
    assert!(began.elapsed() >= waited && began.elapsed() < waited + seconds(1));
    assert_eq!(fleet.performed("a").len(), 4);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].retries, 3);
    assert_eq!(ran.buckets(), [Bucket::Failed]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_try_changed_counts() {
    // The text is written and the command fails all the same; at the next look there is nothing left to do.
    let fleet = Fleet::new(&["a"], |_| {
        calls([write(1, "/x", "1").globals(|globals| globals.retries = Some(1)), touchless(2, "after").when(0, Did::Change)])
    })
    .behaves("a", "write /x 1", Behaviour::Exit(1));
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::Retrying { .. } = event {
                machine.texts.lock().unwrap().insert("/x".into(), "1".into());
            }
        })
        .await;
    // No step of it ended well, so it is not known to have changed anything.
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Unchanged { .. })), "{:?}", ran.outcome(0, 0));

    let fleet = Fleet::new(&["a"], |_| {
        calls([
            call(1, "made.touchless", json!({ "commands": ["one", "two"] })).globals(|globals| globals.retries = Some(1)),
            touchless(2, "after").when(0, Did::Change),
        ])
    })
    .behaves("a", "two", Behaviour::FailOnce);
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["one", "two", "one", "two", "after"]);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].steps_done, 3);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_ends_the_waiting() {
    let began = Instant::now();
    let fleet = Fleet::new(&["a"], |_| {
        calls([touchless(1, "one").globals(|globals| {
            globals.retries = Some(5);
            globals.retry_delay = Some(1000.0);
        })])
    })
    .behaves("a", "one", Behaviour::Exit(1));
    let ran = fleet
        .run_watched(|event, interrupt| {
            if let Event::Retrying { .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert!(began.elapsed() < seconds(1));
    assert_eq!(fleet.performed("a").len(), 1);
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].retries, 0);
    assert_eq!(ran.stopped(), Some(StopReason::Interrupted));
    assert_eq!(ran.buckets(), [Bucket::Failed]);
}

#[tokio::test]
async fn going_on_after_an_error_does_all_commands() {
    let fleet = Fleet::new(&["a"], |_| {
        calls([
            call(1, "made.touchless", json!({ "commands": ["one", "two", "three"] }))
                .globals(|globals| globals.continue_on_error = Some(true)),
            touchless(2, "on error").when(0, Did::Error),
        ])
    })
    .behaves("a", "two", Behaviour::Exit(7));
    let ran = fleet.run().await;
    assert_eq!(fleet.performed("a"), ["one", "two", "three", "on error"]);
    let Some(Outcome::Failed { failure, ignored: true }) = ran.outcome(0, 0) else { panic!("{:?}", ran.outcome(0, 0)) };
    assert_eq!(failure.step.as_deref(), Some("two"));
    assert_eq!(ran.state.hosts[&HostId(0)].results[&OpId(0)].steps_done, 2);
    assert_eq!(ran.buckets(), [Bucket::Changed]);
}

#[tokio::test]
async fn the_journal_is_told_of_everything_before_it_is_shown() {
    let mut fleet = Fleet::new(&["a", "b"], |_| calls([touchless(1, "one"), touchless(2, "two")]));
    let journal: Arc<Kept> = Arc::default();
    fleet.journal = Some(journal.clone());
    let behind = Arc::new(Mutex::new(0));
    let (kept, seen) = (journal.clone(), behind.clone());
    let ran = fleet
        .run_watched(move |event, _| {
            let mut at = seen.lock().unwrap();
            assert_eq!(kept.0.lock().unwrap().get(*at), Some(event), "it was written down before");
            *at += 1;
        })
        .await;
    assert_eq!(*journal.0.lock().unwrap(), ran.events);
}
