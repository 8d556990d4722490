//! Packages while somebody else is at work with them on the host.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::Ran;
use infra_test::process::{self, wait_for};
use infra_test::{Fleet, Machine};

/// Holds the lock that dpkg and apt have, as they do (fcntl(2)), until it is told to let go.
const HOLD: &str = r#"
import fcntl, os, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
open("/run/held", "w").close()
while not os.path.exists("/run/let-go"):
    time.sleep(0.05)
os.remove("/run/held")
"#;

/// In the place of apt-get(8): the same, which says in a file when it was refused the lock and goes on waiting for it; where there is another file it
/// does not wait for as long as it is told to.
const APT_GET: &str = r#"#!/bin/sh
impatient() {
    for word; do
        shift
        case $word in DPkg::Lock::Timeout=600) word=DPkg::Lock::Timeout=1 ;; esac
        set -- "$@" "$word"
    done
    /usr/bin/apt-get "$@"
}
[ ! -e /run/impatient ] || { impatient "$@"; exit; }
said=$(impatient "$@" 2>&1) && exit 98
printf '%s\n' "$said" >/run/refused
exec /usr/bin/apt-get "$@"
"#;

fn is_there(machine: &Machine, path: &str) -> bool {
    machine.run(["test", "-e", path]).expect("an answer").success()
}

/// Has somebody take the lock of the packages.
fn hold(machine: &Machine) {
    machine.check(["rm", "-f", "/run/let-go"]).expect("it is removed");
    machine.check(["sh", "-c", "setsid python3 -c \"$1\" </dev/null >/dev/null 2>&1 &", "sh", HOLD]).expect("it is started");
    wait_for(Duration::from_secs(60), || is_there(machine, "/run/held").then_some(())).expect("the lock is held");
}

/// Has them let it go.
fn let_go(machine: &Machine) {
    machine.check(["touch", "/run/let-go"]).expect("it is told");
    wait_for(Duration::from_secs(60), || (!is_there(machine, "/run/held")).then_some(())).expect("the lock is let go");
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for() {
    let fleet = Fleet::boot(&["web"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let machine = fleet.machine("web");
    machine
        .check(["sh", "-c", "printf %s \"$1\" >/usr/local/bin/apt-get && chmod 755 /usr/local/bin/apt-get", "sh", APT_GET])
        .expect("a program");
    let home = tempfile::tempdir().expect("a folder");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    let command = |package: &str| {
        let mut command = common::infra(home.path());
        command.args(["web", "apt.packages", &format!("packages={package}"), "--yes", "-vv", "--data", &config]);
        command
    };

    // It is refused and waits; then the lock is let go, and the package is installed.
    hold(machine);
    let said = home.path().join("said");
    let file = std::fs::File::create(&said).expect("a file");
    let both = (file.try_clone().expect("the same file"), file);
    let mut running = command("hello").stdout(Stdio::from(both.0)).stderr(Stdio::from(both.1)).spawn().expect("infra starts");
    let text = || std::fs::read_to_string(&said).expect("what it said");
    let refused = wait_for(Duration::from_secs(60), || is_there(machine, "/run/refused").then_some(()));
    assert!(refused.is_some() && running.try_wait().expect("a child").is_none(), "{}", text());
    let reason = machine.check(["cat", "/run/refused"]).expect("why");
    assert!(reason.contains("Could not get lock /var/lib/dpkg/lock-frontend"), "{reason}");
    assert!(!is_there(machine, "/usr/bin/hello"));
    let_go(machine);
    let ended = wait_for(Duration::from_secs(120), || running.try_wait().expect("a child"));
    assert!(ended.is_some_and(|ended| ended.success()), "{}", text());
    assert!(is_there(machine, "/usr/bin/hello"));

    // Past the deadline the operation fails and names who has the lock; nothing is changed.
    machine.check(["touch", "/run/impatient"]).expect("a file");
    hold(machine);
    let run = |package: &str| {
        let outcome = process::run(&mut command(package), Duration::from_secs(120)).expect("infra ends");
        Ran { code: outcome.code, stdout: outcome.stdout, stderr: outcome.stderr }
    };
    let late = run("acl").expect(1);
    assert!(late.stderr.contains("Could not get lock /var/lib/dpkg/lock-frontend. It is held by process"), "{}", late.stderr);
    assert!(late.stderr.contains("(python3)"), "{}", late.stderr);
    assert!(!is_there(machine, "/usr/bin/setfacl"));
    let_go(machine);
    run("acl").expect(0);
    assert!(is_there(machine, "/usr/bin/setfacl"));
    let left = fleet.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}
