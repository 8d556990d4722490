//! The deploy of the usual kind on a fleet of real machines: nginx, over ssh.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use infra_test::process;
use infra_test::snapshot::Snapshot;
use infra_test::{Fleet, Machine};
use serde_json::Value;

const NAMES: [&str; 4] = ["web-01", "web-02", "web-03", "web-04"];

/// What nginx on a machine answers, asked over the network with no help of ours: the canary's header and the page.
fn answer(machine: &Machine) -> (bool, String) {
    let mut stream = TcpStream::connect((machine.address(), 80)).unwrap_or_else(|error| panic!("{}: {error}", machine.name()));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, page) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}: {text}", machine.name()));
    assert!(head.starts_with("HTTP/1.1 200"), "{}: {text}", machine.name());
    (head.contains("X-Canary: yes"), page.trim_end().to_owned())
}

fn buckets(document: &Value) -> BTreeMap<String, String> {
    let hosts = document["hosts"].as_object().expect("hosts");
    hosts.iter().map(|(name, host)| (name.clone(), host["state"].as_str().expect("a state").to_owned())).collect()
}

#[test]
fn nginx_on_four_machines() {
    let fleet = Fleet::boot(&NAMES).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    // The journal of the runs goes there, and with it.
    let home = tempfile::tempdir().expect("a folder");
    let infra = |more: &[&str]| {
        let mut words = vec!["inventories/fleet.lua", "deploys/nginx.lua", "--json", "--yes", "--data", &config];
        words.extend(more);
        let ran = process::run(common::infra(&common::repository()).env("HOME", home.path()).args(&words), Duration::from_secs(300));
        ran.map(|process::Outcome { code, stdout, stderr }| common::Ran { code, stdout, stderr }).expect("infra ends")
    };

    // Fresh machines.
    let ran = infra(&[]).expect(0);
    println!("{}", ran.stderr);
    assert!(buckets(&ran.json()).values().all(|state| state == "changed"), "{:#}", ran.json()["hosts"]);
    for name in NAMES {
        // A reload ends before nginx's new workers have taken over from the old ones.
        let wanted = (name == "web-04", format!("Hello from {name}"));
        let answered = process::wait_for(Duration::from_secs(10), || (answer(fleet.machine(name)) == wanted).then_some(()));
        assert!(answered.is_some(), "{name} answers {:?}", answer(fleet.machine(name)));
    }

    // Again: nothing is written and nothing is started, as the machines themselves show.
    let state = |machine: &Machine| (machine.snapshot().expect("a snapshot"), machine.unit_started("nginx").expect("a unit"));
    let before: Vec<_> = fleet.machines().iter().map(state).collect();
    let ran = infra(&[]).expect(0);
    assert!(buckets(&ran.json()).values().all(|state| state == "unchanged"), "{:#}", ran.json()["hosts"]);
    for (machine, (files, unit)) in fleet.machines().iter().zip(before) {
        let (files_now, unit_now) = state(machine);
        let written = Snapshot::difference(&files, &files_now);
        assert!(written.is_empty(), "{}: {written:#?}", machine.name());
        assert_eq!(unit, unit_now, "{}", machine.name());
    }

    // One machine is off: it is unreachable, the others are done, and the exit code says that not all is well.
    fleet.machine("web-02").stop().expect("the machine stops");
    let ran = infra(&["--data", "greeting=Bye"]).expect(1);
    let wanted = NAMES.map(|name| (name.to_owned(), if name == "web-02" { "unreachable" } else { "changed" }.to_owned()));
    assert_eq!(buckets(&ran.json()), BTreeMap::from(wanted));
    for name in ["web-01", "web-03", "web-04"] {
        assert!(answer(fleet.machine(name)).1 == format!("Bye from {name}"));
    }
    let left = fleet.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}
