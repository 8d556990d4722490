//! Connections that are kept between runs.

use std::time::Duration;

use infra_test::process::wait_for;
use infra_test::{Relay, SshdOptions};

use crate::common::Ran;
use crate::common::ran;
use crate::stage::Stage;

/// Runs the binary without looking for what it left.
fn infra(stage: &Stage, words: &[&str]) -> Ran {
    ran(&mut stage.command(stage.sshd.ssh_config(), words))
}

fn disconnect(stage: &Stage, words: &[&str]) -> Ran {
    let mut command = crate::common::infra(stage.sshd.folder());
    ran(command.env("XDG_RUNTIME_DIR", stage.path("r")).arg("disconnect").args(words))
}

/// The files of kept masters that end so.
fn files(stage: &Stage, kind: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(stage.path("r/infra/kept")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == kind)).collect()
}

#[test]
fn a_second_run_joins_what_the_first_has_kept_until_it_is_told_to_go() {
    let stage = Stage::with(SshdOptions::default().aliases(["h-1", "h-2"]));
    let words = ["h-[1-2]", "exec", "--persist", "10m", "--", "echo $PPID"];
    let first = infra(&stage, &words).expect(0);
    assert_eq!(stage.sshd.logins(), 2);
    let second = infra(&stage, &words).expect(0);
    assert_eq!(stage.sshd.logins(), 2, "{}{}", first.stderr, second.stderr);
    assert_eq!(second.stdout.lines().count(), 2, "{}", second.stdout);
    // Also one that keeps nothing of its own connects anew and leaves nothing.
    infra(&stage, &["h-1", "exec", "--", "true"]).expect(0);
    assert_eq!(stage.sshd.logins(), 3);
    // What leads elsewhere, or to it as somebody else, is another connection.
    infra(&stage, &["h-1", "exec", "--persist", "10m", "--data", "ssh_allow_agent=false", "--", "true"]).expect(0);
    assert_eq!((stage.sshd.logins(), files(&stage, "s").len()), (4, 3));

    let config = format!("ssh_config_file={}", stage.sshd.ssh_config().display());
    let said = disconnect(&stage, &["h-2", "--data", &config]).expect(0);
    assert_eq!(said.stderr, "infra: ended the connection to h-2\n");
    let said = disconnect(&stage, &["h-2", "--data", &config]).expect(0);
    assert_eq!(said.stderr, "infra: no connection was kept\n");
    let said = disconnect(&stage, &[]).expect(0);
    assert_eq!(said.stderr, "infra: ended 2 connections: h-1, h-1\n");
    stage.nothing_left();
    assert!(["s", "l", "n", "k"].iter().all(|kind| files(&stage, kind).is_empty()));
    infra(&stage, &words).expect(0);
    assert_eq!(stage.sshd.logins(), 6);
    disconnect(&stage, &[]).expect(0);
    stage.nothing_left();
}

/// What one master is asked does not grow with the number of those that are kept beside it.
#[test]
fn no_master_is_asked_on_account_of_the_others() {
    const HOSTS: usize = 12;
    let stage = Stage::with(SshdOptions::default().aliases((1..=HOSTS).map(|number| format!("h-{number}"))));
    let hosts = format!("h-[1-{HOSTS}]");
    let words = [&hosts, "exec", "--persist", "10m", "--", "true"];
    infra(&stage, &words).expect(0);
    let asked = || -> Vec<usize> {
        let mut logs = files(&stage, "l");
        logs.sort();
        let log = |path| std::fs::read_to_string(path).expect("a log");
        logs.iter().map(|path| log(path).lines().filter(|line| line.contains(": new ") && line.contains("[mux-control]")).count()).collect()
    };
    let before = asked();
    infra(&stage, &words).expect(0);
    let grown: Vec<usize> = asked().iter().zip(&before).map(|(now, before)| now - before).collect();
    assert_eq!(grown.len(), HOSTS);
    assert!(grown.iter().all(|times| (1..HOSTS).contains(times)), "{grown:?}");
    disconnect(&stage, &[]).expect(0);
    stage.nothing_left();
}

#[test]
fn joining_costs_two_round_trips() {
    let mut stage = Stage::new();
    let relay = Relay::start(stage.address(), Duration::from_millis(15)).expect("a relay");
    stage.sshd.known_as(vec![("far".to_owned(), relay.address())]).expect("a name");
    let known = std::fs::read_to_string(stage.sshd.known_hosts()).expect("known hosts");
    assert!(known.contains(&relay.address().port().to_string()), "{known}");
    let run = || {
        let before = relay.round_trips();
        infra(&stage, &["far", "fact", "server.kernel", "--persist", "10m"]).expect(0);
        relay.round_trips() - before
    };
    let (first, second) = (run(), run());
    assert_eq!(relay.connections(), 1);
    // Two to join: to open a session, and for the first words of its shell. The rest are the question's and the end of the session.
    let question = 2;
    assert!(second <= 2 + question, "{second} after {first}");
    assert!(first >= second + 4, "{second} after {first}");
    disconnect(&stage, &[]).expect(0);
    stage.nothing_left();
}

#[test]
fn a_master_that_was_killed_is_found_out_and_replaced() {
    let stage = Stage::new();
    let words = ["sshd-01", "exec", "--persist", "10m", "--", "echo in"];
    infra(&stage, &words).expect(0);
    let masters = || {
        let mentions = |process: &infra_test::process::Process| process.mentions(stage.path("r/infra/kept").as_os_str());
        let all = infra_test::process::all().into_iter().filter(|process| process.command.starts_with("ssh") && mentions(process));
        all.collect::<Vec<_>>()
    };
    let [master] = masters().try_into().expect("one master");
    master.signal(nix::sys::signal::Signal::SIGKILL);
    wait_for(Duration::from_secs(10), || (!master.is_running()).then_some(())).expect("it is dead");
    assert_eq!(files(&stage, "s").len(), 1, "it left its socket");
    assert_eq!(infra(&stage, &words).expect(0).stdout, "in\n");
    assert_eq!(stage.sshd.logins(), 2);

    // One that lives and does not answer.
    let [master] = masters().try_into().expect("one master");
    stage.sshd.cut_connections();
    wait_for(Duration::from_secs(10), || (!master.is_running()).then_some(())).expect("it ends with its connection");
    infra(&stage, &words).expect(0);
    let [master] = masters().try_into().expect("one master");
    master.signal(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(infra(&stage, &words).expect(0).stdout, "in\n");
    assert_eq!(stage.sshd.logins(), 4);
    master.signal(nix::sys::signal::Signal::SIGKILL);
    disconnect(&stage, &[]).expect(0);
    stage.nothing_left();
}

#[test]
fn a_kept_master_goes_when_its_time_is_up() {
    let stage = Stage::new();
    infra(&stage, &["sshd-01", "exec", "--data", "ssh_persist=1s", "--", "true"]).expect(0);
    stage.nothing_left();
    // Its log and its name go with the next one that looks.
    infra(&stage, &["sshd-01", "exec", "--persist", "1", "--", "true"]).expect(0);
    assert_eq!(stage.sshd.logins(), 2);
    stage.nothing_left();
    for wrong in ["10 minutes", "soon", "1000w"] {
        let said = infra(&stage, &["sshd-01", "exec", "--persist", wrong, "--", "true"]).expect(2);
        assert!(said.stderr.contains("--persist"), "{}", said.stderr);
    }
}

#[test]
fn two_runs_at_once_bring_up_one_master() {
    let stage = Stage::new();
    let runs: Vec<_> = (0..3)
        .map(|_| {
            let mut command = stage.command(stage.sshd.ssh_config(), &["sshd-01", "fact", "server.kernel", "--persist", "10m"]);
            std::thread::spawn(move || ran(&mut command))
        })
        .collect();
    for run in runs {
        run.join().expect("no panic").expect(0);
    }
    assert_eq!(stage.sshd.logins(), 1);
    disconnect(&stage, &[]).expect(0);
    stage.nothing_left();
}
