//! Rolling restarts on real machines: a wave that fails keeps the rest of the fleet as it is, and says how to go on.

mod common;

use std::path::Path;

use infra_test::{Fleet, Machine};
use serde_json::Value;

const NAMES: [&str; 6] = ["app-1", "app-2", "app-3", "app-4", "app-5", "app-6"];

/// An inventory of six machines that run the probe service, which is well where nothing says that it is broken.
const INVENTORY: &str = r#"
app_servers = {
  "app-[1-6]",
  data = {
    service = "infra-probe",
    drain   = { "touch /run/draining" },
    join    = { "rm -f /run/draining" },
    health  = { command = "test ! -e /srv/broken && systemctl is-active --quiet infra-probe", timeout = 2, interval = 0.2 },
  },
}
"#;

fn look(machine: &Machine, command: &str) -> String {
    machine.check(["sh", "-c", command]).unwrap_or_else(|error| panic!("{}: {command}: {error}", machine.name()))
}

/// When systemd last started the service: it changes with every restart.
fn started(machine: &Machine) -> String {
    look(machine, "systemctl show -p InvocationID --value infra-probe")
}

fn states(document: &Value) -> Vec<(String, String)> {
    let hosts = document["hosts"].as_object().expect("hosts");
    hosts.iter().map(|(name, host)| (name.clone(), host["state"].as_str().expect("a state").to_owned())).collect()
}

fn restart(folder: &Path, config: &str, more: &[&str]) -> common::Ran {
    let deploy = common::repository().join("deploys/rolling_restart.lua");
    let deploy = deploy.to_str().expect("a path in UTF-8");
    common::run(folder, &[&["inventory.lua", deploy, "--json", "--yes", "--data", config], more].concat())
}

#[test]
fn a_rolling_restart_stops_before_it_hurts_and_goes_on_from_there() {
    let fleet = Fleet::boot(&NAMES).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("inventory.lua"), INVENTORY).expect("an inventory");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    for machine in fleet.machines() {
        look(machine, "apt-get -qq update && apt-get -qq install infra-probe >/dev/null 2>&1 && systemctl start infra-probe");
    }
    look(fleet.machine("app-3"), "touch /srv/broken");
    let before: Vec<String> = fleet.machines().iter().map(started).collect();

    // One host at a time: the third does not come back, so the fourth to the sixth are never touched.
    let ran = restart(folder, &config, &[]).expect(1);
    let document = ran.json();
    let wanted = ["changed", "changed", "failed", "not-reached", "not-reached", "not-reached"];
    assert_eq!(states(&document), NAMES.iter().zip(wanted).map(|(name, state)| ((*name).to_owned(), state.to_owned())).collect::<Vec<_>>());
    let restarted: Vec<bool> = fleet.machines().iter().zip(&before).map(|(machine, before)| started(machine) != *before).collect();
    assert_eq!(restarted, [true, true, true, false, false, false]);
    let draining: Vec<bool> =
        fleet.machines().iter().map(|machine| look(machine, "test -e /run/draining && echo yes || true") == "yes").collect();
    assert_eq!(draining, [false, false, true, false, false, false], "the broken one stays out of the load balancer, and nobody else");
    for said in [
        "Wave 3 of 6 of «Restart infra-probe»: app-3",
        "of the 1 host that entered wave 3 of «Restart infra-probe» 1 is not ok, and 0 may be",
        "not reached: app-[4-6]",
        "To go on from there: infra resume ",
    ] {
        assert!(ran.stderr.contains(said), "`{said}` is not in:\n{}", ran.stderr);
    }
    assert_eq!(document["stopped"]["wave"], 3, "{:#}", document["stopped"]);

    // Mended, it goes on with those that are left, as the journal has them; the third is not drained again, and the first two are not touched.
    look(fleet.machine("app-3"), "rm /srv/broken");
    let before: Vec<String> = fleet.machines().iter().map(started).collect();
    let connections = "journalctl -u ssh -u 'ssh@*' | grep -c Accepted || true";
    let reached = || NAMES[..2].iter().map(|name| look(fleet.machine(name), connections)).collect::<Vec<_>>();
    let reached_before = reached();
    let ran = common::run(folder, &["resume", "--yes", "--json"]).expect(0);
    for said in ["with 4 of 6 hosts; all is done on app-[1-2]", "not run again: «Leave the load balancer» on app-3"] {
        assert!(ran.stderr.contains(said), "`{said}` is not in:\n{}", ran.stderr);
    }
    let restarted: Vec<bool> = fleet.machines().iter().zip(&before).map(|(machine, before)| started(machine) != *before).collect();
    assert_eq!(restarted, [false, false, true, true, true, true]);
    assert_eq!(reached(), reached_before, "nobody logged in on the first two");
    let left: Vec<(String, String)> = NAMES[2..].iter().map(|name| ((*name).to_owned(), "changed".to_owned())).collect();
    assert_eq!(states(&ran.json()), left);
    assert!(fleet.machines().iter().all(|machine| look(machine, "ls /run/draining 2>/dev/null || true").is_empty()));

    // With room for failures the whole fleet is gone through, in waves of two.
    look(fleet.machine("app-2"), "touch /srv/broken");
    let ran = restart(folder, &config, &["--data", "batch=2", "--data", "max_fail=50%"]).expect(1);
    let failed: Vec<(String, String)> = states(&ran.json()).into_iter().filter(|(_, state)| state != "changed").collect();
    assert_eq!(failed, [("app-2".to_owned(), "failed".to_owned())]);
    let leftovers = fleet.leftovers();
    assert!(leftovers.is_empty(), "{leftovers:#?}");
}
