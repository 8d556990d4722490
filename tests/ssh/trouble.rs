//! Hosts that are slow, away for a moment, or beset (faults.md, F1 to F3).

use std::time::{Duration, Instant};

use infra_test::{BlackHole, Relay, SshdOptions};

use crate::common::ran;
use crate::stage::{Stage, text};

#[test]
fn slow_authentication_ends_with_the_deadline_and_is_named() {
    let mut options =
        SshdOptions::default().configuration("AuthorizedKeysCommand /bin/sleep 60").configuration("AuthorizedKeysCommandUser root");
    options = options.configuration("AuthorizedKeysFile none");
    let stage = Stage::with(options);
    let started = Instant::now();
    let said = stage.infra(stage.sshd.ssh_config(), &["sshd-01", "exec", "--data", "ssh_connect_timeout=2", "--", "true"]).expect(1);
    assert!(said.stderr.contains("unreachable (authenticate): nobody was let in within 2 s"), "{}", said.stderr);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_host_has_a_connect_deadline_of_its_own() {
    let stage = Stage::new();
    let hole = BlackHole::start().expect("a listener");
    let inventory = format!(
        "all_of = {{ 'sshd-01', {{ 'hole', ssh_hostname = '{}', ssh_port = {}, ssh_connect_timeout = 1 }} }}\n",
        hole.address().ip(),
        hole.address().port()
    );
    let inventory = stage.write("inventory.lua", &inventory);
    let said = stage.infra(stage.sshd.ssh_config(), &[text(&inventory), "exec", "--", "echo in"]).expect(1);
    assert_eq!(said.stdout, "[sshd-01] in\n");
    assert!(said.stderr.contains("[hole] unreachable (banner): the server did not say that it speaks ssh within 1 s"), "{}", said.stderr);
}

#[test]
fn connecting_is_tried_again_where_the_data_asks_for_it_and_it_may_help() {
    let mut stage = Stage::new();
    let sshd = stage.address();
    let free = BlackHole::start().expect("a listener").address();
    let relay = Relay::start_at(*free.ip(), free.port(), sshd, Duration::ZERO).expect("a relay");
    stage.sshd.known_as(vec![("late".to_owned(), relay.address())]).expect("a name");
    drop(relay);
    let words = ["late", "exec", "--data", "ssh_connect_retries=200", "--", "echo in"];
    let mut once = words;
    once[3] = "ssh_connect_retries=0";
    let said = stage.infra(stage.sshd.ssh_config(), &once).expect(1);
    assert!(said.stderr.contains("unreachable (connect)"), "{}", said.stderr);
    let mut command = stage.command(stage.sshd.ssh_config(), &words);
    let run = std::thread::spawn(move || ran(&mut command));
    // It is away for some of the tries.
    std::thread::sleep(Duration::from_millis(500));
    assert!(!run.is_finished());
    let _relay = Relay::start_at(*free.ip(), free.port(), sshd, Duration::ZERO).expect("a relay");
    assert_eq!(run.join().expect("no panic").expect(0).stdout, "in\n");
    // Who is not let in is not let in later either.
    std::fs::rename(stage.sshd.user_key(), stage.path("put-away")).expect("a file");
    stage.infra(stage.sshd.ssh_config(), &words).expect(1);
    let refused = stage.sshd.log().lines().filter(|line| line.contains("Connection closed by authenticating user")).count();
    assert_eq!(refused, 1, "{}", stage.sshd.log());
}

#[test]
fn a_hundred_hosts_behind_an_sshd_with_its_own_limits() {
    let names: Vec<String> = (1..=100).map(|number| format!("h-{number:03}")).collect();
    let stage = Stage::with(SshdOptions::default().aliases(names).configuration("MaxStartups 10:30:100").configuration("MaxSessions 10"));
    let said = stage.infra(stage.sshd.ssh_config(), &["h-[001-100]", "exec", "--json", "--", "true"]).expect(0);
    assert_eq!(said.json()["hosts"].as_object().expect("hosts").len(), 100);
    assert_eq!(stage.sshd.logins(), 100, "no host was connected to twice");
}

#[test]
fn settings_that_mean_something_else_are_refused_with_the_way_out() {
    let stage = Stage::new();
    for (data, words) in [
        ("ssh_paramiko_connect_kwargs={\"banner_timeout\":5}", "as options of ssh_config(5) into a file"),
        ("ssh_key_password=canary-passphrase", "there is no `ssh_key`"),
        ("ssh_strict_host_key_checking=perhaps", "must be one of yes, accept-new, ask, no, off"),
        ("ssh_connect_retries=-1", "must be a whole number"),
        ("ssh_persist=soon", "`soon` is no time such as"),
    ] {
        let said = stage.infra(stage.sshd.ssh_config(), &["sshd-01", "exec", "--data", data, "--", "true"]).expect(1);
        assert!(said.stderr.contains("unreachable (settings)") && said.stderr.contains(words), "{data}: {}", said.stderr);
        assert!(!said.stderr.contains("canary-passphrase"), "{}", said.stderr);
    }
    assert_eq!(stage.sshd.logins(), 0);
}
