//! A real machine: its own sudo, its own sshd as Debian sets it up, and a cable that can be pulled.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use infra_connect::{Settings, Wire};
use infra_core::change::{Action, Replaces, Upload};
use infra_core::connection::{Connect, ConnectStep, Connection, Ending};
use infra_core::digest::sha256;
use infra_core::global_arguments::Context;
use infra_core::host::{Connector, Host, HostId};
use infra_test::Fleet;

fn host(fleet: &Fleet, user: &str) -> Arc<Host> {
    let data = [("ssh_config_file", fleet.ssh_config().to_str().unwrap()), ("ssh_user", user)];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
    Arc::new(Host { data, ..Host::new(HostId(0), "web-01", Connector::Ssh, "web-01") })
}

fn as_root() -> Context {
    Context { privilege: infra_core::privilege::Privilege::sudo("root"), ..Context::default() }
}

#[tokio::test]
async fn sudo_and_a_pulled_cable() {
    let fleet = Fleet::boot(&["web-01"]).unwrap();
    let machine = fleet.machine("web-01");
    let mut settings = Settings::new(fleet.folder().join("run"));
    settings.keepalive = Duration::from_secs(1);
    settings.keepalive_tries = 2;
    settings.connect_deadline = Duration::from_secs(10);
    let wire = Wire::new(settings);

    // Who may.
    let admin: Arc<dyn Connection> = wire.connect(&host(&fleet, "admin")).await.unwrap();
    let context = Context { env: environment(&[("GREETING", "hello")]).env, ..as_root() };
    let (ending, heard) = perform_in(&admin, &run("echo \"$(id -un) $HOME $GREETING\""), &context, None).await;
    assert_eq!((ending, heard.stdout().as_str(), heard.stderr().as_str()), (Ending::Exited(0), "root /root hello\n", ""));
    let mut as_plain = question("id -un");
    as_plain.context.privilege = infra_core::privilege::Privilege::sudo("plain");
    let mut as_nobody_known = question("id -un");
    as_nobody_known.context.privilege = infra_core::privilege::Privilege::sudo("nobody-known");
    let answers = admin.gather(vec![question("id -un"), as_plain, as_nobody_known]).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().text(), "admin\n");
    assert_eq!(answers[1].as_ref().unwrap().text(), "plain\n");
    assert!(answers[2].as_ref().unwrap_err().contains("sudo knows no user nobody-known"), "{:?}", answers[2]);

    let dest = std::path::Path::new("/etc/infra-test.conf");
    let wanted = Upload { mode: Some(0o640), group: Some("adm".to_owned()), ..upload("one\n", dest) };
    assert_eq!(perform_in(&admin, &Action::Upload(wanted), &as_root(), None).await.0, Ending::Exited(0));
    let again = Upload { replaces: Replaces::Digest(sha256(b"one\n")), ..upload("two\n", dest) };
    assert_eq!(perform_in(&admin, &Action::Upload(again), &as_root(), None).await.0, Ending::Exited(0));
    let found = machine
        .check(["sh", "-c", "stat -c '%a %U %G' /etc/infra-test.conf; cat /etc/infra-test.conf; ls -A /etc | grep -c infra"])
        .unwrap();
    assert_eq!(found.trim(), "640 root adm\ntwo\n1");
    let (ending, _) = perform(&admin, &Action::Upload(upload("x", std::path::Path::new("/etc/infra-other.conf")))).await;
    assert!(matches!(&ending, Ending::Refused(reason) if reason.contains("Permission denied")), "{ending:?}");

    // Root's processes are killed by root; by nobody else.
    let slow = run("sleep 616 & echo $! $$; wait");
    let (ending, _) = perform_in(&admin, &slow, &as_root(), Some(Duration::from_millis(500))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    // sudo passes a TERM on, so here it is one that does not obey.
    let by_hand = run("exec sudo sh -c \"trap '' TERM; sleep 617; :\"");
    let (ending, _) = perform_in(&admin, &by_hand, &Context::default(), Some(Duration::from_millis(500))).await;
    let Ending::TimedOut { still_running: Some(group), .. } = ending else { panic!("{ending:?}") };
    let left = machine.check(["sh", "-c", "pgrep -x sleep -a"]).unwrap();
    assert!(left.contains("617") && !left.contains("616"), "{left}");
    machine.check(["sh".to_owned(), "-c".to_owned(), format!("kill -s KILL -- -{group}")]).unwrap();

    // Who may not.
    let plain: Arc<dyn Connection> = wire.connect(&host(&fleet, "plain")).await.unwrap();
    for action in [run("touch /nope"), Action::Upload(upload("x", dest)), script("touch /nope", &[])] {
        let (ending, _) = perform_in(&plain, &action, &as_root(), None).await;
        let Ending::Refused(reason) = ending else { panic!("{ending:?}") };
        assert!(reason.contains("sudo asks for a password") || reason.contains("sudo does not let"), "{reason}");
    }
    assert_eq!(machine.check(["sh", "-c", "ls /nope 2>&1 | wc -l; cat /etc/infra-test.conf"]).unwrap().trim(), "1\ntwo");

    let error = wire.connect(&host(&fleet, "stranger")).await.err().unwrap();
    assert_eq!(error.step, ConnectStep::Authenticate, "{error}");
    assert!(error.message.contains("stranger"), "{error}");

    // A cable that is pulled in the middle of a command.
    let heard = Arc::new(Heard::default());
    let (action, context) = (run("echo begun; sleep 618"), Context::default());
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None, as_of: Some(0) };
    let pulling = async {
        eventually("it has begun", || heard.stdout() == "begun\n").await;
        machine.plug(false).unwrap();
    };
    let (ending, ()) = tokio::join!(admin.perform(step, heard.sink()), pulling);
    let Ending::Lost { reason, begun: true } = ending else { panic!("{ending:?}") };
    assert!(reason.contains("not responding"), "{reason}");
    let mut impatient = Settings::new(fleet.folder().join("run"));
    impatient.connect_deadline = Duration::from_secs(1);
    let error = Wire::new(impatient).connect(&host(&fleet, "admin")).await.err().unwrap();
    assert_eq!(error.step, ConnectStep::Connect, "{error}");
    machine.plug(true).unwrap();

    admin.close().await;
    plain.close().await;
    drop((admin, plain, wire));
    assert!(fleet.leftovers().is_empty(), "{:?}", fleet.leftovers());
}
