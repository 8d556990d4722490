//! Real sshd processes: what the bench promises of them.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use infra_test::leftovers::Leftover;
use infra_test::process::wait_for;
use infra_test::{BlackHole, HostKey, Sshd, SshdOptions};

const PATIENCE: Duration = Duration::from_secs(30);

/// `ssh HOST COMMAND` with a configuration of the bench. Every ssh here has a deadline of its own.
fn ssh(config: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "ssh", "-o", "ConnectTimeout=20", "-F"]).arg(config).stdin(Stdio::null());
    command
}

fn run(config: &Path, host: &str, script: &str) -> Output {
    ssh(config).args([host, script]).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn end(mut child: Child) {
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn every_alias_is_let_in_at_an_address_of_its_own_with_strict_checking() {
    let sshd = Sshd::start(SshdOptions::default().aliases(["a", "b", "c"])).unwrap();
    let mut addresses: Vec<_> = sshd.aliases().iter().map(|(_, address)| *address).collect();
    for (name, address) in sshd.aliases() {
        let seen = stdout(&run(sshd.ssh_config(), name, "echo $SSH_CONNECTION; id -un"));
        let here = format!("{} {}", address.ip(), address.port());
        assert!(seen.lines().next().unwrap().ends_with(&here), "{seen} is not {here}");
        assert_eq!(seen.lines().nth(1), Some(sshd.user()));
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 3);
    assert_eq!((sshd.logins(), sshd.sessions()), (3, 3));
}

#[test]
fn sessions_have_an_empty_home() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let seen = stdout(&run(sshd.ssh_config(), "sshd-01", "cd && pwd && ls -A"));
    assert_eq!(seen, format!("{}\n", sshd.folder().join("home").display()));
}

#[test]
fn forty_aliases_share_the_addresses_of_one_sshd() {
    let names: Vec<String> = (1..=40).map(|number| format!("host-{number:02}")).collect();
    let sshd = Sshd::start(SshdOptions::default().aliases(&names)).unwrap();
    for name in ["host-01", "host-16", "host-17", "host-40"] {
        assert_eq!(stdout(&run(sshd.ssh_config(), name, "echo in")), "in\n");
    }
}

#[test]
fn an_unknown_and_a_changed_host_key_are_refused() {
    for (host_key, message) in
        [(HostKey::Unknown, "No ED25519 host key is known"), (HostKey::Changed, "REMOTE HOST IDENTIFICATION HAS CHANGED")]
    {
        let sshd = Sshd::start(SshdOptions::default().host_key(host_key)).unwrap();
        let output = run(sshd.ssh_config(), "sshd-01", "true");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{said}");
        assert!(said.contains(message), "{said}");
        assert_eq!(sshd.logins(), 0);
    }
}

#[test]
fn lines_of_configuration_come_first_and_a_wrong_one_is_shown() {
    let options = SshdOptions::default().configuration("ForceCommand echo forced");
    let sshd = Sshd::start(options).unwrap();
    assert_eq!(stdout(&run(sshd.ssh_config(), "sshd-01", "echo mine")), "forced\n");

    let error = Sshd::start(SshdOptions::default().configuration("NoSuchKeyword yes")).err().unwrap();
    assert!(error.to_string().contains("NoSuchKeyword"), "{error}");
}

#[test]
fn connections_are_counted_and_cut_and_what_ran_in_them_is_found() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    assert_eq!(sshd.connections(), 0);
    let mut client = ssh(sshd.ssh_config())
        .args(["sshd-01", "setsid sleep 8765 </dev/null >/dev/null 2>&1 & exec sleep 8766"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let commands = || -> Vec<String> { sshd.processes().into_iter().map(|process| process.command).collect() };
    let runs = |command: &str| commands().iter().any(|one| one == command);
    wait_for(PATIENCE, || (runs("sleep 8765") && runs("sleep 8766")).then_some(())).expect("both sleeps run");
    assert_eq!(sshd.connections(), 1);
    assert_eq!(sshd.connection_processes().len(), 1, "{:?}", sshd.connection_processes());

    sshd.cut_connections();
    let status = wait_for(PATIENCE, || client.try_wait().unwrap()).expect("ssh notices");
    assert_eq!(status.code(), Some(255));
    wait_for(PATIENCE, || (sshd.connections() == 0).then_some(())).expect("no connection is left");
    // The command was not told; and the bench still knows it, whoever its parent is now.
    assert!(runs("sleep 8765"), "{:?}", commands());
    let loose: Vec<_> = sshd.processes().into_iter().filter(|one| one.command.starts_with("sleep 876")).collect();
    drop(sshd);
    assert!(loose.iter().all(|process| !process.is_running()), "{loose:?}");
}

#[test]
fn a_master_that_is_left_behind_is_found() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    assert_eq!(stdout(&run(sshd.ssh_config(), "sshd-01", "echo in")), "in\n");
    assert_eq!(sshd.leftovers_after(PATIENCE), []);

    let socket = sshd.folder().join("m");
    let mut master = Command::new("ssh");
    master.arg("-F").arg(sshd.ssh_config()).args(["-M", "-N", "-S"]).arg(&socket).arg("sshd-01").stdin(Stdio::null());
    let master = master.spawn().unwrap();
    wait_for(PATIENCE, || socket.exists().then_some(())).expect("the master opens its socket");
    let pid = master.id().cast_signed();
    let left = sshd.leftovers();
    assert!(left.iter().any(|one| matches!(one, Leftover::Process(process) if process.pid == pid)), "{left:?}");
    assert!(left.contains(&Leftover::Socket(socket.clone())), "{left:?}");

    end(master);
    assert!(sshd.leftovers().contains(&Leftover::Socket(socket.clone())), "a killed master leaves its socket");
    std::fs::remove_file(&socket).unwrap();
    assert_eq!(sshd.leftovers_after(PATIENCE), []);
}

#[test]
fn ssh_gives_up_on_a_black_hole() {
    let hole = BlackHole::start().unwrap();
    let began = Instant::now();
    let output = Command::new("ssh")
        .args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=1", "-p"])
        .arg(hole.address().port().to_string())
        .arg(hole.address().ip().to_string())
        .arg("true")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(255));
    assert!(said.contains("timed out"), "{said}");
    assert!(began.elapsed() >= Duration::from_millis(900) && hole.swallowed() == 1);
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let folder = sshd.folder().to_owned();
    let (_, address) = sshd.aliases()[0].clone();
    let listener = infra_test::process::Process::of(sshd.process_id()).unwrap();
    drop(sshd);
    assert!(!folder.exists() && !listener.is_running());
    assert!(std::net::TcpStream::connect_timeout(&address.into(), PATIENCE).is_err());
    assert_eq!(infra_test::leftovers::of(&folder, &[]), []);
}
