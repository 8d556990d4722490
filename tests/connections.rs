//! What happens to many connections at once, and to those that fail, as a user sees it.

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use infra_test::{BlackHole, HostKey, Sshd, SshdOptions};

fn sshd(options: SshdOptions) -> Sshd {
    Sshd::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("h-{number:03}")).collect()
}

/// The binary with these words, over this sshd, through the shell where `prefix` says so.
fn infra(sshd: &Sshd, prefix: &str, words: &[&str]) -> common::Ran {
    let binary = env!("CARGO_BIN_EXE_infra");
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{prefix} exec \"$@\""), "sh", binary]);
    // Before the words: what stands behind `--` is the command's.
    command.arg("--data").arg(format!("ssh_config_file={}", sshd.ssh_config().display())).args(words);
    command.current_dir(sshd.folder()).env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH")).env("HOME", sshd.folder());
    command.env("XDG_RUNTIME_DIR", sshd.folder().join("r")).env("INFRA_LOCK_FOLDER", sshd.folder()).stdin(Stdio::null());
    let ran = common::ran(&mut command);
    common::nothing_left(sshd);
    ran
}

fn states(ran: &common::Ran) -> BTreeMap<String, usize> {
    let document = ran.json();
    let mut states = BTreeMap::new();
    for host in document["hosts"].as_object().expect("hosts").values() {
        *states.entry(host["state"].as_str().expect("a state").to_owned()).or_default() += 1;
    }
    states
}

#[test]
fn forty_hosts_behind_an_sshd_that_turns_some_away() {
    // By its default sshd turns away every third one from the tenth on that has not logged in yet.
    let sshd = sshd(SshdOptions::default().aliases(names(40)));
    let ran = infra(&sshd, "", &["h-[001-040]", "exec", "--json", "--", "true"]).expect(0);
    assert_eq!(states(&ran), BTreeMap::from([("ok".to_owned(), 40)]));
}

#[test]
fn no_more_hosts_are_at_work_at_once_than_asked_for() {
    let sshd = sshd(SshdOptions::default().aliases(names(6)));
    // Each takes a place among two and fails where there is none; a place is given back before the command ends.
    let places = sshd.folder().join("places");
    std::fs::create_dir(&places).expect("a folder");
    let take = format!(
        "cd {}; if mkdir one 2>/dev/null; then mine=one; elif mkdir two 2>/dev/null; then mine=two; else exit 9; fi; sleep 0.2; rmdir $mine",
        places.display()
    );
    infra(&sshd, "", &["h-[001-006]", "exec", "--parallel", "2", "--", &take]).expect(0);
    // Without it all are at work at once: each ends when all have come.
    let meet = format!("cd {}; mkdir $$; while [ $(ls | wc -l) -lt 6 ]; do sleep 0.02; done", places.display());
    infra(&sshd, "", &["h-[001-006]", "exec", "--", &meet]).expect(0);
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes_and_said_where_it_is_too_low() {
    let sshd = sshd(SshdOptions::default().aliases(names(12)));
    let words = ["h-[001-012]", "exec", "--json", "--", "true"];
    // A soft limit is only advice.
    let ran = infra(&sshd, "ulimit -S -n 64 &&", &words).expect(0);
    assert_eq!(states(&ran), BTreeMap::from([("ok".to_owned(), 12)]));
    // A hard one is not: as many hosts as there is room for are done, and the others are told why not.
    let ran = infra(&sshd, "ulimit -n 128 &&", &words).expect(1);
    assert_eq!(states(&ran), BTreeMap::from([("ok".to_owned(), 4), ("unreachable".to_owned(), 8)]), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("unreachable (settings): infra may open 128 files on this machine, which is enough for 4 hosts"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("hint: allow more with `ulimit -n`"), "{}", ran.stderr);
}

#[test]
fn commands_get_the_limits_that_infra_was_started_with() {
    let sshd = sshd(SshdOptions::default());
    let ran = infra(&sshd, "ulimit -S -n 99 &&", &["@local", "exec", "--", "ulimit -S -n"]).expect(0);
    assert_eq!(ran.stdout, "99\n");
}

#[test]
fn each_host_that_cannot_be_reached_says_where_it_ended_and_the_others_go_on() {
    let known = sshd(SshdOptions::default().aliases(["good"]));
    let changed = sshd(SshdOptions::default().aliases(["changed"]).host_key(HostKey::Changed));
    let unknown = sshd(SshdOptions::default().aliases(["unknown"]).host_key(HostKey::Unknown));
    let config = |sshd: &Sshd| sshd.ssh_config().display().to_string();
    let free = {
        let hole = BlackHole::start().expect("a listener");
        hole.address()
    };
    let inventory = format!(
        "all_of = {{ {{ 'good', ssh_config_file = '{}' }}, {{ 'changed', ssh_config_file = '{}' }}, {{ 'unknown', ssh_config_file = '{}' }},\n\
         {{ 'no-such-name.invalid', ssh_config_file = '/dev/null' }}, {{ 'refused', ssh_config_file = '/dev/null', ssh_hostname = '{}', ssh_port = {} }},\n\
         {{ 'stranger', ssh_config_file = '{}', ssh_hostname = 'good', ssh_user = 'nobody-at-all' }} }}\n",
        config(&known),
        config(&changed),
        config(&unknown),
        free.ip(),
        free.port(),
        config(&known),
    );
    let inventory = inventory.replace(
        "ssh_hostname = 'good'",
        &format!(
            "ssh_hostname = '{}', ssh_port = {}, ssh_key = '{}', ssh_known_hosts_file = '{}'",
            known.aliases()[0].1.ip(),
            known.aliases()[0].1.port(),
            known.user_key().display(),
            known.folder().join("strangers").display()
        ),
    );
    // Its key is known under its own name, as it is another host than the address says.
    let keys = std::fs::read_to_string(known.known_hosts()).expect("known hosts");
    let key = keys.split_once(' ').expect("a key").1;
    std::fs::write(known.folder().join("strangers"), format!("[stranger]:{} {key}", known.aliases()[0].1.port())).expect("a file");
    std::fs::write(known.folder().join("inventory.lua"), inventory).expect("an inventory");
    let ran = common::run(known.folder(), &["inventory.lua", "exec", "--", "echo done"]).expect(1);
    for said in [
        "[no-such-name.invalid] unreachable (resolve): Could not resolve hostname",
        "[refused] unreachable (connect): ",
        "[changed] unreachable (host key): the key of ",
        "is not the known one",
        "ssh-keygen",
        "[unknown] unreachable (host key): the key of ",
        "is not known; it is ssh-ed25519 SHA256:",
        "ssh-keyscan -p ",
        "[stranger] unreachable (authenticate): the host did not let nobody-at-all in",
        "6 hosts: 1 ok, 5 unreachable",
        "To go on from there: infra inventory.lua exec --limit changed,unknown,no-such-name.invalid,refused,stranger -- 'echo done'",
    ] {
        assert!(ran.stderr.contains(said), "«{said}» is missing:\n{}", ran.stderr);
    }
    assert_eq!(ran.stdout, "[good] done\n");
    let ran = common::run(known.folder(), &["inventory.lua", "exec", "--fail-fast", "--", "echo done"]).expect(1);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("--fail-fast allows no such host"), "{}", ran.stderr);
}
