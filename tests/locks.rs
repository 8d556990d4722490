//! Two runs at once on one machine: who waits, who is told what, and what becomes of a lock whose run is stopped or killed.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Ran, ran};
use infra_test::{Fleet, Sshd, SshdOptions, process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

/// Hosts, and where the runs that go there are at home.
struct Bench {
    sshd: Sshd,
    home: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let sshd = Sshd::start(SshdOptions::default().aliases(["one", "two"])).unwrap_or_else(|error| panic!("{error}"));
        Self { sshd, home: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = common::infra(self.home.path());
        command.env("XDG_RUNTIME_DIR", self.path("r"));
        // First, as all words behind `exec --` are the command's.
        command.arg("--data").arg(format!("ssh_config_file={}", self.sshd.ssh_config().display())).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        ran(&mut self.command(words))
    }

    /// Begins a run that waits on its hosts until the gate is open, and waits until it is there.
    fn begin(&self, words: &[&str], gate: &str) -> Behind {
        Behind::start(self.command(words), &self.path(gate))
    }

    /// Shell text that says that it is there, and goes on when the gate is open.
    fn waits(&self, gate: &str) -> String {
        let path = self.path(gate).display().to_string();
        format!("touch {path}.there; while [ ! -e {path}.open ]; do sleep 0.02; done")
    }

    fn open(&self, gate: &str) {
        fs::write(self.path(&format!("{gate}.open")), "").expect("a file");
    }

    fn deploy(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).expect("a deploy");
        name.to_owned()
    }

    /// The files of the lock of the first host.
    fn lock(&self) -> Vec<String> {
        let folder = self.sshd.folder().join(format!("machine-0/infra-lock-{}", nix::unistd::geteuid()));
        let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.file_name().into_string().expect("a name")).collect()
    }
}

/// A run that goes on behind the test.
struct Behind {
    child: Child,
    output: PathBuf,
}

impl Behind {
    fn start(mut command: Command, gate: &Path) -> Self {
        let output = gate.with_extension("output");
        command.stderr(fs::File::create(&output).expect("a file")).stdout(Stdio::null());
        let mut behind = Self { child: command.spawn().expect("infra starts"), output };
        let there = gate.with_extension("there");
        let seen = process::wait_for(DEADLINE, || there.exists().then_some(()));
        assert!(seen.is_some(), "it never came to the gate: {:?}\n{}", behind.child.try_wait(), behind.said());
        behind
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("it runs");
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        assert!(
            process::wait_for(DEADLINE, || self.said().contains(text).then_some(())).is_some(),
            "«{text}» is missing:\n{}",
            self.said()
        );
    }

    /// Its exit code and what it said, when it has ended.
    fn end(mut self) -> (Option<i32>, String) {
        let code = process::wait_for(DEADLINE, || self.child.try_wait().expect("a child")).and_then(|status| status.code());
        (code, self.said())
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn buckets(document: &Value) -> Vec<(String, String)> {
    let hosts = document["hosts"].as_object().expect("hosts");
    hosts.iter().map(|(name, host)| (name.clone(), host["state"].as_str().expect("a state").to_owned())).collect()
}

/// The name of the last run in the journal.
fn last_run(bench: &Bench) -> String {
    bench.run(&["one", "hosts"]).expect(0);
    let list = ran(common::infra(bench.home.path()).args(["runs", "--json"])).expect(0).json();
    list["runs"][0]["run"].as_str().expect("a run").to_owned()
}

#[test]
fn the_second_run_is_told_who_has_the_host_or_waits_for_it() {
    let bench = Bench::new();
    let file = bench.path("file").display().to_string();
    let first = bench.begin(&["one", "exec", "--", &format!("{}; echo first >{file}", bench.waits("gate"))], "gate");
    let name = last_run(&bench);
    // What changes nothing needs no lock.
    bench.run(&["one", "fact", "server.kernel"]).expect(0);
    let same = bench.deploy("same.lua", "files.directory { path = '/tmp' }");
    bench.run(&["one", &same, "--yes"]).expect(0);
    let write = bench.deploy("write.lua", &format!("files.line {{ path = '{file}', line = 'second' }}"));
    bench.run(&["one", &write, "--dry"]).expect(0);

    // The hosts that are free are done.
    let second = bench.run(&["one,two", "exec", "--json", "--", "true"]).expect(1);
    assert_eq!(buckets(&second.json()), [("one".into(), "failed".into()), ("two".into(), "ok".into())]);
    let why = &second.json()["hosts"]["one"]["operations"][0]["failure"]["ending"]["why"];
    assert_eq!((why["lock"].as_str(), why["holder"]["run"].as_str()), (Some("held"), Some(name.as_str())), "{why}");
    for words in
        ["another run changes this host, so nothing was done", &format!("run {name}, since 2"), "hint: wait for it with --lock-wait"]
    {
        assert!(second.stderr.contains(words), "«{words}» is missing:\n{}", second.stderr);
    }

    // Who waits says so at once, reads the facts again, and keeps what the first run wrote.
    let mut command = bench.command(&["one", &write, "--yes", "-v", "--json", "--lock-wait", "60"]);
    command.stdout(fs::File::create(bench.path("document")).expect("a file"));
    let output = bench.path("waiting");
    command.stderr(fs::File::create(&output).expect("a file"));
    let waiting = Behind { child: command.spawn().expect("infra starts"), output };
    waiting.wait_for("for another run to end on this host: ");
    assert!(!Path::new(&file).exists());
    bench.open("gate");
    assert_eq!(first.end().0, Some(0));
    let (code, said) = waiting.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "first\nsecond\n", "{said}");
    assert!(said.contains("they are read again"), "{said}");
    let document: Value = serde_json::from_str(&fs::read_to_string(bench.path("document")).expect("a document")).expect("JSON");
    let news = document["hosts"]["one"]["lock"].as_array().expect("news").clone();
    assert_eq!(news.iter().map(|one| one["news"].clone()).collect::<Vec<_>>(), [json!("waiting"), json!("moved")]);
    assert_eq!(bench.lock().len(), 1, "one small file remembers the last taking");
    common::nothing_left(&bench.sshd);
}

#[test]
fn a_run_that_slept_through_its_lease_changes_nothing_more() {
    let bench = Bench::new();
    let never = bench.path("never").display().to_string();
    let deploy = bench.deploy(
        "deploy.lua",
        &format!(
            "server.shell {{ name = 'Wait', commands = {{ [==[{}]==] }} }}\nserver.shell {{ name = 'Never', commands = {{ 'touch {never}' }} }}\n",
            bench.waits("gate")
        ),
    );
    let first = bench.begin(&["one", &deploy, "--yes", "--lock-lease", "2"], "gate");
    first.signal(Signal::SIGSTOP);
    let second = bench.begin(&["one", "exec", "--lock-wait", "60", "--", &bench.waits("second")], "second");
    let name = last_run(&bench);
    bench.open("gate");
    first.signal(Signal::SIGCONT);
    let (code, said) = first.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(!Path::new(&never).exists(), "{said}");
    for words in ["Never: failed", "another run took this host over while this one gave no sign of life", &format!("run {name}")] {
        assert!(said.contains(words), "«{words}» is missing:\n{said}");
    }
    // The one that has it now is not disturbed by the end of the other.
    bench.run(&["one", "exec", "--", "true"]).expect(1);
    bench.open("second");
    assert_eq!(second.end().0, Some(0));
    bench.run(&["one", "exec", "--", "true"]).expect(0);
}

#[test]
fn the_lock_of_a_run_that_was_killed_is_free_when_its_lease_has_run_out() {
    let bench = Bench::new();
    let first = bench.begin(&["one", "exec", "--lock-lease", "8", "--", &bench.waits("gate")], "gate");
    first.signal(Signal::SIGKILL);
    let (code, _) = first.end();
    assert_eq!(code, None);
    bench.open("gate");
    let ended = bench.run(&["one", "exec", "--", "true"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("another run changes this host"), "{}", ended.stderr);
    let waited = bench.run(&["one", "exec", "--lock-wait", "30", "--", "true"]).expect(0);
    assert!(waited.stderr.contains("waiting up to 30.0 s"), "{}", waited.stderr);
}

#[test]
fn an_interrupted_run_gives_its_locks_back_and_one_without_locks_takes_none() {
    let bench = Bench::new();
    let first = bench.begin(&["one", "exec", "--", &bench.waits("gate")], "gate");
    bench.run(&["one", "exec", "--no-lock", "--", "true"]).expect(0);
    first.signal(Signal::SIGINT);
    first.wait_for("what is in flight is let finish");
    first.signal(Signal::SIGINT);
    let (code, said) = first.end();
    assert_eq!(code, Some(130), "{said}");
    bench.run(&["one", "exec", "--", "true"]).expect(0);
}

#[test]
fn a_lock_costs_no_session_and_nothing_is_taken_where_nothing_changes() {
    let bench = Bench::new();
    let file = bench.path("file").display().to_string();
    let deploy = bench.deploy(
        "deploy.lua",
        &format!(
            "for _, line in ipairs {{ 'a', 'b', 'c' }} do\n  files.line {{ path = '{file}' .. line, line = line .. tostring(host:get('round')) }}\nend\nserver.wait {{ file = '{file}a' }}\n"
        ),
    );
    let mut seen = bench.sshd.sessions();
    let mut sessions = |round: &str, more: &[&str]| {
        let data = format!("round={round}");
        bench.run(&[&["--data", &data, "one", &deploy, "--yes"], more].concat()).expect(0);
        let before = std::mem::replace(&mut seen, bench.sshd.sessions());
        seen - before
    };
    let changing = [sessions("1", &["--no-lock"]), sessions("2", &[])];
    // It is given back through a shell that is open by then.
    assert_eq!(changing[1], changing[0], "{changing:?}");
    assert_eq!(bench.lock(), ["lock.1"]);
    let converged = [sessions("2", &["--no-lock"]), sessions("2", &[])];
    assert_eq!(converged[1], converged[0], "{converged:?}");
    assert_eq!(bench.lock(), ["lock.1"], "nothing was taken");
}

#[test]
fn two_names_of_one_machine_do_not_block_each_other() {
    let bench = Bench::new();
    let ran = bench.run(&["one,@ssh/one", "exec", "--", "true"]).expect(0);
    assert!(ran.stderr.contains("are the same machine"), "{}", ran.stderr);
    let ran = bench.run(&["one,two", "exec", "--", "true"]).expect(0);
    assert!(!ran.stderr.contains("are the same machine"), "{}", ran.stderr);
}

#[test]
fn a_machine_that_was_restarted_is_free() {
    let fleet = Fleet::boot(&["web-01"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let home = tempfile::tempdir().expect("a folder");
    let machine = fleet.machine("web-01");
    let command = |words: &[&str]| {
        let mut command = common::infra(home.path());
        command.env("XDG_RUNTIME_DIR", home.path().join("r"));
        command.arg("--data").arg(format!("ssh_config_file={}", fleet.ssh_config().display())).args(words);
        command
    };
    let mut first = command(&["web-01", "exec", "--", "touch /srv/there; sleep 3216"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("infra starts");
    assert!(process::wait_for(DEADLINE, || machine.root().join("srv/there").exists().then_some(())).is_some());
    let held = ran(&mut command(&["web-01", "exec", "--", "true"])).expect(1);
    assert!(held.stderr.contains("another run changes this host"), "{}", held.stderr);
    assert!(machine.check(["ls", "/run/lock/infra-lock-0"]).expect("a folder").starts_with("lock."), "the usual place");
    machine.cut_power().expect("it is off");
    machine.start().expect("it is on");
    ran(&mut command(&["web-01", "exec", "--lock", "required", "--", "true"])).expect(0);
    first.kill().expect("it is ours");
    first.wait().expect("it is ours");
}
