//! Runs on machines that another run changes, or has changed.

use std::time::Duration;

use infra_core::event::{Event, Outcome, RunKind};
use infra_core::lock::{Holder, LockNews, Locked};
use infra_core::run_state::Bucket;
use infra_core::script::BlockKind;
use infra_engine::LockSettings;
use tokio::time::Instant;

use crate::fleet::{Fleet, Ran, With, calls, seconds, touchless, write};

fn holder() -> Holder {
    let text = str::to_owned;
    Holder { run: text("20260301T1230-0000"), user: text("ann"), controller: text("ctl"), since: text("2026-03-01 12:30:00 UTC") }
}

fn held() -> Locked {
    Locked::Held { holder: holder() }
}

fn moved() -> Locked {
    Locked::Moved { same_machine: None }
}

fn unavailable() -> Locked {
    Locked::Unavailable { reason: "it is full".to_owned() }
}

/// A fleet whose runs take locks.
fn locking(fleet: Fleet, change: impl FnOnce(&mut LockSettings)) -> Fleet {
    let text = str::to_owned;
    let (lease, wait) = (seconds(60), Duration::ZERO);
    let mut lock = LockSettings { run: text("run"), user: text("bob"), controller: text("desk"), lease, wait, required: false };
    change(&mut lock);
    fleet.settings(|settings| settings.lock = Some(lock))
}

/// Its lock answers with these.
fn answers(fleet: &Fleet, host: &str, answers: impl IntoIterator<Item = Locked>) {
    fleet.machines[host].locked.lock().unwrap().extend(answers);
}

fn news(ran: &Ran) -> Vec<LockNews> {
    let news = |event: &Event| if let Event::Lock { news, .. } = event { Some(news.clone()) } else { None };
    ran.events.iter().filter_map(news).collect()
}

fn two() -> Fleet {
    Fleet::new(&["a", "b"], |_| calls([write(1, "/x", "1"), touchless(2, "last")]))
}

#[tokio::test]
async fn each_host_is_claimed_in_its_name_and_given_back() {
    let fleet = locking(two(), |_| ());
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
    for host in ["a", "b"] {
        let claims = fleet.machines[host].claims.lock().unwrap().clone();
        let [Some(claim)] = &claims[..] else { panic!("{claims:?}") };
        assert_eq!((claim.host.as_str(), claim.run.as_str(), claim.lease), (host, "run", seconds(60)));
        assert_eq!(*fleet.machines[host].released.lock().unwrap(), 1);
    }
    // Nothing is read or run for the lock's sake.
    assert_eq!(fleet.gathers("a").len(), 1, "the facts of the plan");
    assert!(news(&ran).is_empty());
}

#[tokio::test]
async fn what_only_looks_claims_nothing() {
    for kind in [RunKind::Dry, RunKind::Fact] {
        let fleet = locking(two(), |_| ()).kind(kind);
        let _ = if kind == RunKind::Fact { fleet.facts(&["/x"]).await } else { fleet.run().await };
        assert_eq!(*fleet.machines["a"].claims.lock().unwrap(), [None], "{kind:?}");
    }
    let without = two();
    without.run().await;
    assert_eq!(*without.machines["a"].claims.lock().unwrap(), [None]);
}

#[tokio::test]
async fn a_host_that_another_run_changes_fails_and_says_who_it_is() {
    let fleet = locking(two(), |_| ());
    answers(&fleet, "a", [held()]);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    let Some(Outcome::Failed { failure, ignored: false }) = ran.outcome(0, 0) else { panic!("{:?}", ran.outcome(0, 0)) };
    let wanted = "another run changes this host, so nothing was done: ann on ctl, run 20260301T1230-0000, since 2026-03-01 12:30:00 UTC";
    assert_eq!(failure.message, wanted);
    assert!(failure.hint.unwrap().contains("--lock-wait"));
    assert!(fleet.performed("a").is_empty());
}

#[tokio::test(start_paused = true)]
async fn neither_retries_nor_ignored_errors_have_to_do_with_locks() {
    for locked in [held(), Locked::TakenOver { holder: Some(holder()) }] {
        let script = |_: &str| {
            calls([touchless(1, "one").globals(|globals| {
                globals.retries = Some(5);
                globals.ignore_errors = Some(true);
                globals.continue_on_error = Some(true);
            })])
        };
        let fleet = locking(Fleet::new(&["a"], script), |_| ());
        answers(&fleet, "a", [locked]);
        let ran = fleet.run().await;
        assert_eq!(ran.buckets(), [Bucket::Failed]);
        assert!(matches!(ran.outcome(0, 0), Some(Outcome::Failed { ignored: false, .. })));
        assert!(fleet.performed("a").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_with_facts_read_again() {
    let fleet = locking(two(), |lock| lock.wait = seconds(30));
    // The other run writes what this one wants to write.
    answers(&fleet, "a", std::iter::repeat_n(held(), 5).chain([moved()]));
    let machine = fleet.machines["a"].clone();
    let ran = fleet
        .run_watched(move |event, _| {
            if let Event::Lock { news: LockNews::Waiting { .. }, .. } = event {
                machine.texts.lock().unwrap().insert("/x".into(), "1".into());
            }
        })
        .await;
    assert_eq!(news(&ran), [LockNews::Waiting { holder: holder(), at_most: seconds(30) }, LockNews::Moved]);
    assert!(matches!(ran.outcome(0, 0), Some(Outcome::Unchanged { .. })), "{:?}", ran.outcome(0, 0));
    assert_eq!(fleet.performed("a"), ["last"]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_its_time_is_up_or_the_run_is_interrupted() {
    let began = Instant::now();
    let fleet = locking(two(), |lock| lock.wait = seconds(30));
    answers(&fleet, "a", std::iter::repeat_n(held(), 1000));
    assert_eq!(fleet.run().await.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert!(began.elapsed() >= seconds(30) && began.elapsed() < seconds(31), "{:?}", began.elapsed());
    let began = Instant::now();
    let fleet = locking(two(), |lock| lock.wait = seconds(30));
    answers(&fleet, "a", std::iter::repeat_n(held(), 1000));
    let ran = fleet
        .run_watched(|event, interrupt| {
            if let Event::Lock { .. } = event {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert!(began.elapsed() < seconds(1), "{:?}", began.elapsed());
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::NotReached]);
    assert_eq!(*fleet.machines["a"].released.lock().unwrap(), 1);
}

#[tokio::test]
async fn operations_that_were_diffed_together_are_diffed_again_each() {
    let script = |_: &str| calls([write(2, "/x", "1").inside(BlockKind::Parallel, 1), write(3, "/y", "2").inside(BlockKind::Parallel, 1)]);
    let fleet = locking(Fleet::new(&["a"], script), |_| ());
    answers(&fleet, "a", [moved()]);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed]);
    let mut performed = fleet.performed("a");
    performed.sort();
    assert_eq!(performed, ["write /x 1", "write /y 2"]);
    assert!(fleet.gathers("a").len() > 1, "the facts of the plan are not trusted any more");
    assert_eq!(news(&ran), [LockNews::Moved]);
}

#[tokio::test]
async fn two_names_of_a_machine_are_named() {
    let fleet = locking(two(), |_| ());
    answers(&fleet, "b", [Locked::Moved { same_machine: Some("a".to_owned()) }]);
    let ran = fleet.run().await;
    assert_eq!(news(&ran), [LockNews::SameMachine { other: "a".to_owned() }]);
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
}

#[tokio::test]
async fn without_a_place_for_a_lock_the_run_goes_on_and_says_so_once_unless_one_is_required() {
    let fleet = locking(two(), |_| ());
    answers(&fleet, "a", [unavailable(), unavailable()]);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Changed; 2]);
    assert_eq!(news(&ran), [LockNews::Unavailable { reason: "it is full".to_owned() }]);
    assert_eq!(fleet.performed("a").len(), 2);
    let fleet = locking(two(), |lock| lock.required = true);
    answers(&fleet, "a", [unavailable()]);
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert!(fleet.performed("a").is_empty() && news(&ran).is_empty());
}
