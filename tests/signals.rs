//! Ctrl-C and other signals while hosts are at work over ssh: what is in flight, what is left, and what is said.

mod common;
#[path = "signals/rounds.rs"]
mod rounds;
#[path = "common/terminal.rs"]
mod terminal;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use infra_test::process::{self, Process};
use infra_test::{BlackHole, Sshd, SshdOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use terminal::{Elsewhere, Ended, Terminal};

const DEADLINE: Duration = Duration::from_secs(60);

/// Two hosts over ssh that are this machine, and gates through which their commands pass.
struct Stage {
    sshd: Sshd,
}

impl Stage {
    fn new() -> Self {
        let sshd = Sshd::start(SshdOptions::default().aliases(["one", "two"])).unwrap_or_else(|error| panic!("{error}"));
        Self { sshd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sshd.folder().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file of the test's own");
    }

    /// The binary on both hosts.
    fn infra(&self, words: &[&str]) -> Command {
        let mut command = common::infra(self.sshd.folder());
        command.env("XDG_RUNTIME_DIR", self.path("r"));
        command.arg("one,two").args(words).arg("--data").arg(format!("ssh_config_file={}", self.sshd.ssh_config().display()));
        command
    }

    /// A command that says that it is there and goes on when the gate opens.
    fn waits(&self, gate: &str) -> String {
        let path = self.path(gate).display().to_string();
        format!("touch {path}.$INFRA_HOST.$$; while [ ! -e {path} ]; do sleep 0.02; done; touch {path}.passed.$$")
    }

    /// How many commands stand before a gate, or have passed it.
    fn at(&self, gate: &str) -> usize {
        let files = std::fs::read_dir(self.sshd.folder()).expect("the folder").flatten();
        files.filter(|file| file.file_name().to_string_lossy().starts_with(&format!("{gate}."))).count()
    }

    #[track_caller]
    fn wait_until_at(&self, gate: &str, count: usize, terminal: &Terminal) {
        let there = process::wait_for(DEADLINE, || (self.at(gate) == count).then_some(()));
        assert!(there.is_some(), "{} at {gate}, not {count}:\n{}", self.at(gate), terminal.screen());
    }

    /// No ssh of ours, no socket, no folder of sockets and no command on the hosts is left.
    #[track_caller]
    fn nothing_left(&self) {
        common::nothing_left(&self.sshd);
        let folders: Vec<_> = std::fs::read_dir(self.path("r/infra"))
            .map(|found| found.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
            .unwrap_or_default();
        assert!(folders.is_empty(), "{folders:?}");
    }
}

/// A deploy of two operations, of which the first waits.
fn deploy(stage: &Stage) -> Command {
    stage.write(
        "deploy.lua",
        &format!(
            "server.shell {{ name = 'Wait', commands = {{ [==[{}]==] }} }}\nserver.shell {{ name = 'Never', commands = {{ 'touch {}' }} }}\n",
            stage.waits("gate"),
            stage.path("never").display()
        ),
    );
    stage.infra(&["deploy.lua", "--yes"])
}

#[track_caller]
fn ended(terminal: Terminal, code: i32) -> Ended {
    let ended = terminal.end();
    assert_eq!((ended.code, ended.signal), (Some(code), None), "{}", ended.screen);
    ended
}

#[test]
fn once_lets_what_is_in_flight_finish_and_starts_nothing_new() {
    let stage = Stage::new();
    let mut terminal = Terminal::start(deploy(&stage), Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    terminal.press_control_c();
    terminal.wait_for("what is in flight is let finish");
    stage.write("gate", "");
    let ended = ended(terminal, 130);
    assert_eq!(stage.at("gate.passed"), 2, "both commands ended in peace\n{}", ended.screen);
    assert!(!stage.path("never").exists(), "{}", ended.screen);
    for line in [
        "[one] Wait, for ",
        "[two] Wait, for ",
        "[one] Wait: changed",
        "[two] Wait: changed",
        "2 hosts: 2 not reached",
        "stopped: interrupted",
    ] {
        assert!(ended.screen.contains(line), "«{line}» is missing:\n{}", ended.screen);
    }
    stage.nothing_left();
}

#[test]
fn twice_kills_what_is_in_flight_on_the_hosts() {
    let stage = Stage::new();
    let mut terminal = Terminal::start(deploy(&stage), Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    terminal.press_control_c();
    terminal.wait_for("what is in flight is let finish");
    terminal.press_control_c();
    let ended = ended(terminal, 130);
    assert_eq!(stage.at("gate.passed"), 0);
    for line in ["what is in flight is killed", "[one] Wait: outcome unknown", "2 hosts: 2 indeterminate"] {
        assert!(ended.screen.contains(line), "«{line}» is missing:\n{}", ended.screen);
    }
    // Their group was killed: they are gone, not just left alone.
    stage.nothing_left();
}

#[test]
fn sigterm_is_as_control_c() {
    let stage = Stage::new();
    let mut terminal = Terminal::start(deploy(&stage), Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    kill(Pid::from_raw(terminal.pid()), Signal::SIGTERM).expect("it runs");
    terminal.wait_for("what is in flight is let finish");
    stage.write("gate", "");
    let ended = ended(terminal, 130);
    assert!(ended.screen.contains("2 hosts: 2 not reached"), "{}", ended.screen);
    stage.nothing_left();
}

#[test]
fn after_a_kill_masters_end_with_the_commands_in_flight() {
    let stage = Stage::new();
    let mut killed = deploy(&stage);
    killed.args(["--lock-lease", "5"]);
    let terminal = Terminal::start(killed, Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    kill(Pid::from_raw(terminal.pid()), Signal::SIGKILL).expect("it runs");
    let ended = terminal.end();
    assert_eq!(ended.signal, Some(9));
    stage.write("gate", "");
    let passed = process::wait_for(DEADLINE, || (stage.at("gate.passed") == 2).then_some(()));
    assert!(passed.is_some(), "the commands in flight ended as if nothing had been");
    let masters = || process::all().into_iter().filter(|process| process.mentions(stage.path("r").as_os_str())).collect::<Vec<Process>>();
    let gone = process::wait_for(Duration::from_secs(10), || masters().iter().all(|one| !one.command.starts_with("ssh")).then_some(()));
    assert!(gone.is_some(), "{:#?}", masters());
    // The next run converges once the lock of the killed one is free, and sweeps what that could not.
    let mut next = deploy(&stage);
    next.args(["--lock-wait", "30"]);
    let next = Terminal::start(next, Elsewhere::default());
    assert!(self::ended(next, 0).screen.contains("2 hosts: 2 changed"));
    stage.nothing_left();
}

#[test]
fn while_connecting_it_leaves_at_once() {
    let stage = Stage::new();
    let hole = BlackHole::start().expect("a listener");
    let mut command = common::infra(stage.sshd.folder());
    command.env("XDG_RUNTIME_DIR", stage.path("r"));
    command.arg(format!("{}", hole.address())).args(["exec", "--", "true"]);
    let mut terminal = Terminal::start(command, Elsewhere::default());
    assert!(hole.wait_for(1, DEADLINE));
    terminal.press_control_c();
    let ended = ended(terminal, 130);
    assert!(ended.screen.contains("1 host: 1 not reached"), "{}", ended.screen);
    stage.nothing_left();
}

#[test]
fn while_preparing_it_leaves_at_once() {
    let stage = Stage::new();
    let gate = stage.path("gate").display().to_string();
    stage.write("deploy.lua", &format!("local_command {{ 'sh', '-c', 'touch {gate}.x.1; sleep 4321; true' }}"));
    let mut terminal = Terminal::start(stage.infra(&["deploy.lua", "--yes"]), Elsewhere::default());
    stage.wait_until_at("gate", 1, &terminal);
    terminal.press_control_c();
    let ended = ended(terminal, 130);
    assert!(ended.screen.contains("interrupted") && ended.screen.contains("2 hosts: 2 not reached"), "{}", ended.screen);
    stage.nothing_left();
}

#[test]
fn while_the_inventory_is_read_it_leaves_at_once() {
    let stage = Stage::new();
    let gate = stage.path("gate").display().to_string();
    stage.write("inventory.lua", &format!("local_command {{ 'sh', '-c', 'touch {gate}.x.1; sleep 4321; true' }}\nall_of = {{ 'one' }}"));
    let mut command = common::infra(stage.sshd.folder());
    command.args(["inventory.lua", "exec", "--", "true"]);
    let mut terminal = Terminal::start(command, Elsewhere::default());
    stage.wait_until_at("gate", 1, &terminal);
    terminal.press_control_c();
    let ended = ended(terminal, 130);
    assert!(ended.screen.contains("interrupted"), "{}", ended.screen);
    stage.nothing_left();
}

/// `infra … exec -- … | head -1`: what nobody reads any more need not be made.
#[test]
fn exec_ends_when_nobody_reads_its_results() {
    let stage = Stage::new();
    let marks = stage.path("ended").display().to_string();
    let endless = format!("trap 'touch {marks}.$$; exit' TERM; while :; do echo line; sleep 0.02; done");
    let mut command = stage.infra(&["exec"]);
    command.args(["--", &endless]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("infra starts");
    let mut results = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    results.read_line(&mut line).expect("a line");
    assert!(["[one] line\n", "[two] line\n"].contains(&line.as_str()), "{line}");
    drop(results);
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{said}");
    let (_, after) = said.split_once("Running on 2 hosts\n").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(after, "infra: nobody reads the results any more: the run was stopped, and what was in flight was killed\n");
    // The commands did not just lose their reader: they were told to end.
    assert_eq!(stage.at("ended"), 2);
    stage.nothing_left();

    // Who has nothing more to say does not notice, and has lost nothing.
    let mut command = stage.infra(&["--limit", "one", "exec"]);
    command.args(["--", &format!("echo first; {}", stage.waits("gate"))]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("infra starts");
    let mut results = BufReader::new(child.stdout.take().expect("a pipe"));
    results.read_line(&mut line).expect("a line");
    drop(results);
    stage.write("gate", "");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(stage.at("gate.passed"), 1);
    stage.nothing_left();
}

/// A deploy goes on when nobody reads of it any more: its hosts must not be left half done.
#[test]
fn a_deploy_goes_on_when_nobody_reads_of_it() {
    let stage = Stage::new();
    let mut command = deploy(&stage);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    command.arg("--json").stdout(writer.try_clone().expect("a second handle")).stderr(writer);
    let mut child = command.spawn().expect("infra starts");
    drop(command);
    let there = process::wait_for(DEADLINE, || (stage.at("gate") == 2).then_some(()));
    assert!(there.is_some());
    drop(reader);
    stage.write("gate", "");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(stage.path("never").exists(), "the second operation ran");
    stage.nothing_left();
}

/// A closed terminal is as SIGTERM: nothing new is started, what is in flight is let finish, and the journal has what nobody could be told.
#[test]
fn a_closed_terminal_lets_what_is_in_flight_finish() {
    let stage = Stage::new();
    let mut terminal = Terminal::start(deploy(&stage), Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    terminal.close();
    // Its journal says when it has taken notice.
    let journal = || {
        let file = std::fs::read_dir(stage.path(".local/state/infra/runs")).into_iter().flatten().flatten().next()?;
        std::fs::read_to_string(file.path()).ok()
    };
    let noticed = process::wait_for(DEADLINE, || journal()?.contains("\"event\":\"interrupted\"").then_some(()));
    assert!(noticed.is_some(), "{:?}", journal());
    stage.write("gate", "");
    ended(terminal, 130);
    assert_eq!(stage.at("gate.passed"), 2);
    assert!(!stage.path("never").exists());
    let journal = journal().expect("a journal");
    let last = journal.lines().last().expect("a line");
    assert!(last.contains("\"event\":\"run-ended\"") && last.contains("\"exit_code\":130"), "{last}");
    stage.nothing_left();
}

#[test]
fn three_times_leaves_at_once_and_names_what_may_still_be_running() {
    let stage = Stage::new();
    let gate = stage.path("gate").display().to_string();
    // A guard on the host that takes no notice of TERM, so that killing it takes its time.
    stage.write(
        "deploy.lua",
        &format!(
            "server.shell {{ name = 'Stay', commands = {{ [==[trap '' TERM; touch {gate}.x.$$; while :; do sleep 0.05; done]==] }} }}"
        ),
    );
    let mut terminal = Terminal::start(stage.infra(&["deploy.lua", "--yes"]), Elsewhere::default());
    stage.wait_until_at("gate", 2, &terminal);
    for said in ["what is in flight is let finish", "what is in flight is killed", "leaving at once; this may still be running:"] {
        terminal.press_control_c();
        terminal.wait_for(said);
    }
    let ended = ended(terminal, 130);
    for line in ["[one] Stay, for ", "[two] Stay, for ", "2 hosts: 2 indeterminate"] {
        assert!(ended.screen.contains(line), "«{line}» is missing:\n{}", ended.screen);
    }
    for process in stage.sshd.processes() {
        if process.command.starts_with("sh -c") {
            process.signal(Signal::SIGKILL);
        }
    }
    stage.nothing_left();
}
