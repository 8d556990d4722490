//! Passwords: sent to the question they belong to, once, and seen nowhere.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use infra_test::{Fleet, Machine};

use crate::common::Ran;
use crate::common::ran;

const PASSWORD: &str = "canary-of-a-password";

/// One that nobody watches for: another test sets it by a command.
const OTHER: &str = "some-other-password";

/// An inventory of one host, written beside the fleet's files.
fn infra(fleet: &Fleet, runtime: &Path, data: &str, words: &[&str]) -> Ran {
    let folder = fleet.folder().join("user");
    let _ = std::fs::create_dir(&folder);
    let config = fleet.ssh_config().display();
    std::fs::write(folder.join("inventory.lua"), format!("all_of = {{ {{ 'web-01', ssh_config_file = '{config}', {data} }} }}\n"))
        .expect("a file");
    let mut command = crate::common::infra(&folder);
    ran(command.env("XDG_RUNTIME_DIR", runtime).arg("inventory.lua").args(words))
}

/// How often the machine's sshd wrote this.
fn times(machine: &Machine, text: &str) -> usize {
    let log = machine.check(["journalctl", "-u", "ssh", "--no-pager", "-o", "cat"]).expect("its journal");
    log.lines().filter(|line| line.contains(text)).count()
}

/// Looks for the password in the arguments and environments of all processes of this machine, the test machines' among them, until it is told to stop.
fn watch() -> (Arc<AtomicBool>, std::thread::JoinHandle<(usize, Vec<String>)>) {
    let stop: Arc<AtomicBool> = Arc::default();
    let stopping = stop.clone();
    let watcher = std::thread::spawn(move || {
        let (mut looks, mut found) = (0, Vec::new());
        while !stopping.load(Ordering::SeqCst) {
            for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
                for what in ["cmdline", "environ"] {
                    let text = std::fs::read(entry.path().join(what)).unwrap_or_default();
                    if text.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()) {
                        found.push(format!("{}: {}", entry.path().display(), String::from_utf8_lossy(&text)));
                    }
                }
            }
            looks += 1;
        }
        (looks, found)
    });
    (stop, watcher)
}

fn nothing_holds_it(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            nothing_holds_it(&path);
        } else if path.file_name().is_some_and(|name| name != "inventory.lua") {
            let text = std::fs::read(&path).unwrap_or_default();
            assert!(!text.windows(PASSWORD.len()).any(|part| part == PASSWORD.as_bytes()), "{}", path.display());
        }
    }
}

#[test]
fn a_password_logs_in_by_both_ways_and_is_tried_once() {
    // The folder of a fleet is too deep for sockets.
    let runtime = tempfile::tempdir().expect("a folder");
    let runtime = runtime.path();
    let fleet = Fleet::boot(&["web-01"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let machine = fleet.machine("web-01");
    machine.check(["sh", "-c", &format!("useradd -m -s /bin/sh someone && echo someone:{PASSWORD} | chpasswd")]).expect("a user");
    let configure = |lines: &str| {
        let script = format!("printf '{lines}\\n' >/etc/ssh/sshd_config.d/test.conf && systemctl restart ssh");
        machine.check(["sh", "-c", &script]).expect("an sshd");
        infra_test::process::wait_for(std::time::Duration::from_secs(20), || std::net::TcpStream::connect((machine.address(), 22)).ok())
            .expect("it listens");
    };
    let right = format!("ssh_user = 'someone', ssh_password = '{PASSWORD}'");
    let wrong = "ssh_user = 'someone', ssh_password = 'not-the-password'";
    let words = ["exec", "--", "echo in as $(id -un)"];
    for way in
        ["PasswordAuthentication yes\\nKbdInteractiveAuthentication no", "PasswordAuthentication no\\nKbdInteractiveAuthentication yes"]
    {
        configure(way);
        let (stop, watcher) = watch();
        let said = infra(&fleet, runtime, &right, &words).expect(0);
        stop.store(true, Ordering::SeqCst);
        let (looks, found) = watcher.join().expect("no panic");
        assert!(looks > 2 && found.is_empty(), "{looks} looks; {found:#?}");
        assert_eq!(said.stdout, "in as someone\n");
        assert!(!said.stderr.contains(PASSWORD));
        nothing_holds_it(&fleet.folder().join("user"));
        nothing_holds_it(runtime);

        let before = times(machine, "Failed password for someone") + times(machine, "error: PAM: Authentication failure for someone");
        let said = infra(&fleet, runtime, wrong, &words).expect(1);
        assert!(said.stderr.contains("unreachable (authenticate): the host did not let someone in"), "{way}: {}", said.stderr);
        assert!(said.stderr.contains("ssh_password") && !said.stderr.contains("not-the-password"), "{way}: {}", said.stderr);
        let after = times(machine, "Failed password for someone") + times(machine, "error: PAM: Authentication failure for someone");
        assert_eq!(after - before, 1, "{way}");
    }
    // Where both ways are open, a wrong one is still tried once.
    configure("PasswordAuthentication yes\\nKbdInteractiveAuthentication yes");
    let failures = || times(machine, "Failed password for someone") + times(machine, "error: PAM: Authentication failure for someone");
    let before = failures();
    infra(&fleet, runtime, wrong, &words).expect(1);
    assert_eq!(failures() - before, 1);
    // With none, and nobody at a terminal, none is tried.
    let before = failures();
    let said = infra(&fleet, runtime, "ssh_user = 'someone'", &words).expect(1);
    assert!(said.stderr.contains("the host did not let someone in (it takes publickey,password,keyboard-interactive)"), "{}", said.stderr);
    assert_eq!(failures(), before);
    // A connection that is kept needs it no more.
    let accepted = || times(machine, "Accepted password for someone") + times(machine, "Accepted keyboard-interactive/pam for someone");
    let before = accepted();
    for _ in 0..2 {
        infra(&fleet, runtime, &right, &["exec", "--persist", "60s", "--", "true"]).expect(0);
    }
    assert_eq!(accepted() - before, 1);
    let mut disconnect = crate::common::infra(&fleet.folder().join("user"));
    let said = ran(disconnect.env("XDG_RUNTIME_DIR", runtime).arg("disconnect")).expect(0);
    assert!(said.stderr.contains("someone@web-01"), "{}", said.stderr);
    assert!(fleet.leftovers().is_empty(), "{:?}", fleet.leftovers());
}

#[test]
fn a_password_goes_to_no_jump_host() {
    // The folder of a fleet is too deep for sockets.
    let runtime = tempfile::tempdir().expect("a folder");
    let runtime = runtime.path();
    let fleet = Fleet::boot(&["web-01", "jump-01"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let (target, jump) = (fleet.machine("web-01"), fleet.machine("jump-01"));
    for machine in [target, jump] {
        machine.check(["sh", "-c", &format!("useradd -m -s /bin/sh someone && echo someone:{OTHER} | chpasswd")]).expect("a user");
    }
    let text = std::fs::read_to_string(fleet.ssh_config()).expect("a configuration");
    let text = text.replace("Host web-01\n", "Host web-01\n  ProxyJump someone@jump-01\n");
    std::fs::write(fleet.ssh_config(), text).expect("a file");
    let data = format!("ssh_user = 'someone', ssh_password = '{OTHER}'");
    let said = infra(&fleet, runtime, &data, &["exec", "--", "true"]).expect(1);
    assert!(said.stderr.contains("unreachable (banner)"), "{}", said.stderr);
    assert_eq!(times(jump, "Accepted password for someone"), 0);
    // Where the jump host needs none, the password is for the host behind it.
    let text = std::fs::read_to_string(fleet.ssh_config()).expect("a configuration").replace("someone@jump-01", "root@jump-01");
    std::fs::write(fleet.ssh_config(), text).expect("a file");
    infra(&fleet, runtime, &data, &["exec", "--", "true"]).expect(0);
    assert_eq!((times(jump, "Accepted password"), times(target, "Accepted password for someone")), (0, 1));
}
