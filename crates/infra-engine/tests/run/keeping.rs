//! What is kept of hosts that were made for the run: asked once, after execute, and told as it came out.

use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::run_state::Bucket;

use crate::fleet::{Behaviour, Fleet, calls, touchless};

fn fleet() -> Fleet {
    Fleet::new(&["a", "b"], |_| calls([touchless(1, "one")]))
}

fn kept(fleet: &Fleet) -> [Vec<bool>; 2] {
    ["a", "b"].map(|host| fleet.machines[host].kept.lock().unwrap().clone())
}

#[tokio::test]
async fn each_host_is_asked_once_and_told_whether_it_came_through() {
    let mut fleet = fleet().behaves("b", "one", Behaviour::Exit(1));
    fleet.keeps.insert("a", Some(Ok(vec!["the container is kept".to_owned(), "it is an image now".to_owned()])));
    let ran = fleet.run().await;
    assert_eq!(kept(&fleet), [vec![true], vec![false]]);
    let said: Vec<_> = ran
        .events
        .iter()
        .filter_map(|event| if let Event::Log { host, text } = event { Some((*host, text.as_str())) } else { None })
        .collect();
    assert_eq!(said, [(HostId(0), "the container is kept"), (HostId(0), "it is an image now")]);
    assert_eq!(ran.buckets(), [Bucket::Changed, Bucket::Failed]);
}

#[tokio::test]
async fn what_could_not_be_kept_is_a_failure_of_its_host() {
    let mut fleet = fleet();
    fleet.keeps.insert("a", Some(Err("no space is left for the image".to_owned())));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(ran.state.exit_code(), 1);
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_was_executed() {
    let fleet = fleet().settings(|settings| settings.kind = RunKind::Dry);
    fleet.run().await;
    assert_eq!(kept(&fleet), [Vec::<bool>::new(), Vec::new()]);
    fleet.facts(&["/x"]).await;
    assert_eq!(kept(&fleet), [Vec::<bool>::new(), Vec::new()]);
}

#[tokio::test]
async fn an_interrupt_ends_the_keeping() {
    let mut fleet = fleet();
    fleet.keeps.insert("a", None);
    fleet.keeps.insert("b", Some(Ok(vec!["it is kept".to_owned()])));
    let ran = fleet
        .run_watched(|event, interrupt| {
            if matches!(event, Event::Log { .. }) {
                interrupt.send_replace(1);
            }
        })
        .await;
    assert_eq!(ran.buckets(), [Bucket::Failed, Bucket::Changed]);
    assert_eq!(ran.state.exit_code(), 130);
}
