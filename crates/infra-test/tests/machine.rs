//! Real machines: what the bench promises of them. They need root and the machine root of `tests/setup`.

use std::process::{Command, Stdio};
use std::time::Duration;

use infra_test::snapshot::Kind;
use infra_test::{BenchError, Fleet, Machine, Snapshot};

fn ssh(fleet: &Fleet, user: &str, host: &str, script: &str) -> (Option<i32>, String) {
    let output = Command::new("timeout")
        .args(["60", "ssh", "-o", "ConnectTimeout=10", "-l", user, "-F"])
        .arg(fleet.ssh_config())
        .args([host, script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn written(machine: &Machine, before: &Snapshot) -> Vec<String> {
    let after = machine.snapshot().unwrap();
    Snapshot::difference(before, &after).iter().map(ToString::to_string).collect()
}

#[test]
fn machines_are_reached_by_ssh_with_their_own_host_keys() {
    let fleet = Fleet::boot(&["web-01", "web-02"]).unwrap();
    for machine in fleet.machines() {
        let expected = format!("{}\n", machine.name());
        assert_eq!(ssh(&fleet, "root", machine.name(), "hostname"), (Some(0), expected));
        assert_eq!(ssh(&fleet, "admin", machine.name(), "sudo -n id -u"), (Some(0), "0\n".to_owned()));
        let (code, said) = ssh(&fleet, "plain", machine.name(), "sudo -n id -u");
        assert_eq!(code, Some(1), "{said}");
    }
    let [one, other] = fleet.machines() else { panic!("two machines") };
    assert_ne!(one.host_key(), other.host_key());
    assert_ne!(one.check(["cat", "/etc/machine-id"]).unwrap(), other.check(["cat", "/etc/machine-id"]).unwrap());
    assert_eq!(one.check(["pwd"]).unwrap(), "/");
    // They see each other by name, and nothing else.
    assert_eq!(one.check(["getent", "hosts", "web-02"]).unwrap().split_whitespace().next(), Some(other.address()));
    let routes = one.check(["ip", "route"]).unwrap();
    assert!(!routes.contains("default") && routes.lines().count() == 1, "{routes}");
    // All of it came up: no unit has failed.
    for machine in fleet.machines() {
        assert_eq!(machine.check(["systemctl", "--failed", "--no-legend"]).unwrap(), "");
    }
    // Nobody on the controller speaks of the fleet but its machines.
    assert_eq!(fleet.leftovers(), []);
}

#[test]
fn packages_come_from_the_machines_own_repository() {
    let fleet = Fleet::boot(&["web-01"]).unwrap();
    let machine = fleet.machine("web-01");
    let install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "--yes"];
    machine.check(install.iter().chain(&["nginx-light", "infra-probe=1.0"])).unwrap();
    assert_eq!(machine.check(["systemctl", "is-active", "nginx"]).unwrap(), "active");
    assert_eq!(machine.check(["cat", "/usr/share/infra-probe/version"]).unwrap(), "1.0");

    let before = machine.unit_started("nginx").unwrap();
    assert_eq!(before.state, "active");
    assert!(before.active_since > 0 && before.main_process > 1 && !before.invocation.is_empty());
    assert_eq!(machine.unit_started("nginx").unwrap(), before);
    machine.check(["systemctl", "reload", "nginx"]).unwrap();
    let reloaded = machine.unit_started("nginx").unwrap();
    assert_ne!(reloaded, before, "a reload shows");
    assert_eq!(reloaded.invocation, before.invocation, "but is no start");
    machine.check(["systemctl", "restart", "nginx"]).unwrap();
    assert_ne!(machine.unit_started("nginx").unwrap().invocation, before.invocation);
    assert_eq!(machine.unit_started("no-such-unit").unwrap().state, "inactive");

    let failed = machine.check(["apt-get", "install", "-qq", "no-such-package"]).unwrap_err();
    assert!(failed.to_string().contains("no-such-package"), "{failed}");
}

#[test]
fn a_snapshot_shows_what_is_written_and_nothing_when_only_asked() {
    let fleet = Fleet::boot(&["web-01"]).unwrap();
    let machine = fleet.machine("web-01");
    let before = machine.snapshot().unwrap();
    // What a run with nothing to change does: log-ins, questions, sudo.
    for user in ["root", "admin"] {
        let ask = "sudo -n dpkg-query -W >/dev/null; sudo -n apt-cache policy hello; sudo -n sha256sum /etc/passwd; \
                   systemctl is-enabled ssh; sudo -n apt-get install --dry-run hello";
        let (code, said) = ssh(&fleet, user, "web-01", ask);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(written(machine, &before), Vec::<String>::new());

    machine
        .check(["sh", "-c", "echo x >/etc/new; chmod 600 /etc/issue; rm /etc/debian_version; chmod 644 /etc/hosts; ln -s new /etc/newer"])
        .unwrap();
    assert_eq!(
        written(machine, &before),
        [
            "/etc: written again, the same",
            "/etc/debian_version: removed",
            "/etc/hosts: touched (inode changed, nothing else to be seen)",
            "/etc/issue: written",
            "/etc/new: written",
            "/etc/newer: written",
        ]
    );
    let after = machine.snapshot().unwrap();
    let issue = &after.entries()[std::path::Path::new("/etc/issue")];
    assert_eq!((issue.kind, issue.mode, issue.uid), (Kind::File, 0o600, 0));
}

#[test]
fn a_machine_is_stopped_cut_off_and_started_again() {
    let fleet = Fleet::boot(&["web-01", "web-02"]).unwrap();
    let machine = fleet.machine("web-01");
    machine.check(["sh", "-c", "echo kept >/etc/kept"]).unwrap();
    let before = machine.snapshot().unwrap();
    let processes = machine.processes();
    assert!(processes.len() > 3, "{processes:?}");

    machine.stop().unwrap();
    assert!(processes.iter().all(|process| !process.is_running()));
    assert!(matches!(machine.run(["true"]), Err(BenchError::NotRunning(_))));
    assert!(matches!(machine.stop(), Err(BenchError::NotRunning(_))));
    let (code, said) = ssh(&fleet, "root", "web-01", "true");
    assert_eq!(code, Some(255), "{said}");
    assert!(said.contains("No route to host"), "{said}");
    assert_eq!(ssh(&fleet, "root", "web-02", "echo here"), (Some(0), "here\n".to_owned()));

    machine.start().unwrap();
    assert_eq!(ssh(&fleet, "root", "web-01", "cat /etc/kept"), (Some(0), "kept\n".to_owned()));
    assert_eq!(written(machine, &before), Vec::<String>::new(), "a boot writes nothing of note");
    let processes = machine.processes();
    machine.cut_power().unwrap();
    assert!(processes.iter().all(|process| !process.is_running()));
    machine.start().unwrap();
    assert_eq!(machine.check(["cat", "/etc/kept"]).unwrap(), "kept");

    // A reboot from inside.
    let first = machine.unit_started("ssh").unwrap().invocation;
    machine.run(["systemctl", "reboot"]).unwrap();
    assert!(machine.is_off_within(Duration::from_secs(60)));
    machine.start().unwrap();
    assert_ne!(machine.unit_started("ssh").unwrap().invocation, first);
}

#[test]
fn fleets_at_the_same_time_do_not_get_in_each_others_way() {
    let fleets: Vec<Fleet> = std::thread::scope(|scope| {
        let boots: Vec<_> = (0..3).map(|_| scope.spawn(|| Fleet::boot(&["same"]).unwrap())).collect();
        boots.into_iter().map(|boot| boot.join().unwrap()).collect()
    });
    let mut addresses: Vec<_> = fleets.iter().map(|fleet| fleet.machine("same").address().to_owned()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    for fleet in &fleets {
        assert_eq!(ssh(fleet, "root", "same", "hostname"), (Some(0), "same\n".to_owned()));
    }
}

#[test]
fn nothing_is_left_when_a_fleet_is_dropped() {
    let fleet = Fleet::boot(&["web-01"]).unwrap();
    let folder = fleet.folder().to_owned();
    let processes = fleet.machine("web-01").processes();
    let address = fleet.machine("web-01").address().to_owned();
    drop(fleet);
    assert!(!folder.exists());
    assert!(processes.iter().all(|process| !process.is_running()));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.to_str().unwrap()), "{mounts}");
    let subnet = address.rsplit_once('.').unwrap().0;
    let routes = Command::new("ip").args(["route", "show"]).output().unwrap();
    assert!(!String::from_utf8(routes.stdout).unwrap().contains(&format!("{subnet}.0/24")));
}

#[test]
fn names_that_are_no_host_names_are_refused() {
    for names in [&["a b"][..], &["web-01", "web-01"], &["../x"]] {
        let error = Fleet::boot(names).err().unwrap();
        assert!(matches!(error, BenchError::Argument(_)), "{error}");
    }
}
