//! What is left when a test process is killed: nothing.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use infra_test::leftovers;
use infra_test::process::{Process, wait_for};

const PATIENCE: Duration = Duration::from_secs(120);

/// A child that does not outlive a test that fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that sets up a bench, ends it with `signal` once all is up, and looks for what is left.
fn killed_by(signal: nix::sys::signal::Signal, machines: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut child = Ended(
        Command::new(env!("CARGO_BIN_EXE_abandoned-bench"))
            .arg(&report)
            .args(machines)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let text = wait_for(PATIENCE, || {
        assert_eq!(child.0.try_wait().unwrap(), None, "it ended before it was killed");
        std::fs::read_to_string(&report).ok()
    })
    .expect("the bench comes up");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let texts =
        |key: &str| -> Vec<String> { report[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect() };
    let processes: Vec<Process> = report["processes"]
        .as_array()
        .unwrap()
        .iter()
        // Something short-lived may have gone meanwhile.
        .filter_map(|pid| Process::of(i32::try_from(pid.as_i64().unwrap()).unwrap()))
        .collect();
    // An sshd, a sleep that has cut itself loose, and per machine systemd-nspawn, systemd and some services.
    assert!(processes.iter().any(|process| process.command == "sleep 4321"), "{processes:?}");
    assert!(processes.len() >= 2 + 4 * machines.len(), "{processes:?}");
    let folders: Vec<PathBuf> = texts("folders").into_iter().map(PathBuf::from).collect();
    assert!(folders.iter().all(|folder| folder.is_dir()));

    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.0.id().cast_signed()), signal).unwrap();
    child.0.wait().unwrap();

    let left = || -> Vec<String> {
        let mut left: Vec<String> = processes
            .iter()
            .filter(|process| process.is_running())
            .map(|process| format!("process {}: {}", process.pid, process.command))
            .collect();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let routes = std::fs::read_to_string("/proc/net/route").unwrap();
        for folder in &folders {
            if folder.exists() || mounts.contains(folder.to_str().unwrap()) {
                left.push(folder.display().to_string());
            }
            left.extend(leftovers::of(folder, &[]).iter().map(ToString::to_string));
        }
        for address in texts("addresses") {
            let [a, b, c, _] = address.parse::<std::net::Ipv4Addr>().unwrap().octets();
            // The bridge, the machine's end of its cable, and its namespace carry the subnet in their names.
            let subnet = format!("{:08X}", u32::from_ne_bytes([a, b, c, 0]));
            if routes.contains(&subnet) {
                left.push(format!("a route to {address}"));
            }
            for place in [format!("/sys/class/net/it-{b}-{c}"), format!("/sys/class/net/it-{b}-{c}-1"), format!("/run/netns/it-{b}-{c}-1")]
            {
                if Path::new(&place).exists() {
                    left.push(place);
                }
            }
        }
        left
    };
    wait_for(PATIENCE, || left().is_empty().then_some(())).unwrap_or_else(|| panic!("left behind: {:#?}", left()));
}

#[test]
fn a_killed_test_leaves_no_sshd() {
    killed_by(nix::sys::signal::Signal::SIGKILL, &[]);
}

#[test]
fn a_killed_test_leaves_no_machine() {
    killed_by(nix::sys::signal::Signal::SIGKILL, &["web-01", "web-02"]);
}

#[test]
fn an_aborted_test_leaves_nothing() {
    killed_by(nix::sys::signal::Signal::SIGABRT, &["web-01"]);
}
