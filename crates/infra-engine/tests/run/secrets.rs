//! Secrets: what hosts are sent is what was meant, and no event has any of it.

use infra_core::event::Outcome;
use infra_core::secret::Secrets;

use crate::fleet::{Behaviour, Fleet, calls, shell, write};

const SECRET: &str = "hunter2-and-more";

#[tokio::test]
async fn commands_have_them_and_events_do_not() {
    let secrets = Secrets::default();
    drop(secrets.secret(SECRET).expect("long enough"));
    let fleet =
        Fleet::new(&["a"], |_| calls([write(1, "/x", SECRET), shell(2, &format!("say {SECRET}")), shell(3, &format!("fail {SECRET}"))]))
            .behaves("a", "say hunter2-and-more", Behaviour::Print("it is hunter2-and-more\nand aHVudGVyMi1hbmQtbW9yZQ==\n", 0))
            .behaves("a", "fail hunter2-and-more", Behaviour::Print("hunter2-and-more is wrong\n", 3))
            .settings(|settings| settings.secrets = secrets);
    let ran = fleet.run().await;
    let performed = fleet.performed("a").join("\n");
    assert!(performed.contains(&format!("/x '{SECRET}'")) || performed.contains(&format!("/x {SECRET}")), "{performed}");
    assert!(performed.contains("say hunter2-and-more"), "{performed}");
    let told = format!("{:?} {:?}", ran.events, ran.state);
    assert!(!told.contains("hunter2") && !told.contains("aHVudGVy"), "{told}");
    assert_eq!(ran.state.hosts.values().next().expect("a host").results.values().nth(1).expect("a result").stdout, "it is ***\nand ***\n");
    let Some(Outcome::Failed { failure, .. }) = ran.outcome(2, 0) else { panic!("it fails") };
    assert_eq!((failure.step.as_deref(), &failure.last_output[..]), (Some("fail ***"), &["*** is wrong".to_owned()][..]));
}
