//! `infra resume` from outside: over real ssh, after a failure, a kill and an interrupt, with what is owed and what is not done twice.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Ran, infra, says, states};
use infra_test::{Sshd, SshdOptions, process};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use terminal::{Elsewhere, Terminal};

const DEADLINE: Duration = Duration::from_secs(60);

/// A configuration, a command that leaves a line, one that fails where the data says so, and a reload that the configuration owes.
const DEPLOY: &str = r#"
local folder = host.data.folder .. "/" .. host.name
local conf = files.put { name = "Configure", content = "port = 80\n", dest = folder .. ".conf" }
server.shell { name = "Append", commands = { sh("echo line >> {}; echo token", folder .. ".log") } }
server.shell { name = "Check", commands = { sh("test ! -e {}", folder .. ".broken") } }
server.shell { name = "Reload", commands = { sh("echo reload >> {}", folder .. ".reloads") }, _if = conf.did_change }
server.shell { name = "Tell", commands = { sh("echo told >> {}", folder .. ".told") }, _if = any_host(conf) }
"#;

/// Hosts over ssh that are this machine, and a folder of the user's.
struct Stage {
    sshd: Sshd,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(hosts: &[&'static str]) -> Self {
        let sshd = Sshd::start(SshdOptions::default().aliases(hosts.iter().copied())).unwrap_or_else(|error| panic!("{error}"));
        Self { sshd, folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the test's own");
    }

    /// What stands in a file that commands write to; nothing where there is none.
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn deploy(&self, hosts: &str, more: &[&str]) -> Ran {
        let config = format!("ssh_config_file={}", self.sshd.ssh_config().display());
        let folder = format!("folder={}", self.folder.path().display());
        self.run(&[&[hosts, "deploy.lua", "--yes", "--data", &config, "--data", &folder], more].concat())
    }

    fn run(&self, words: &[&str]) -> Ran {
        common::run(self.folder.path(), words)
    }

    /// The names of the runs, the first one first.
    fn runs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path(".local/state/infra/runs")).expect("the journals");
        let name = |file: fs::DirEntry| file.file_name().to_string_lossy().trim_end_matches(".jsonl").to_owned();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.sort_unstable();
        names
    }

    #[track_caller]
    fn nothing_left(&self) {
        common::nothing_left(&self.sshd);
    }
}

#[test]
fn what_is_owed_is_done_and_what_is_done_is_not_done_twice() {
    let stage = Stage::new(&["a", "b", "c"]);
    stage.write("deploy.lua", DEPLOY);
    stage.write("b.broken", "");
    // c is as it should be already: its own file owes nothing, that of the others does.
    stage.write("c.conf", "port = 80\n");
    fs::set_permissions(stage.path("c.conf"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
    stage.write("c.broken", "");
    let ran = stage.deploy("a,b,c", &[]).expect(1);
    let first = stage.runs().pop().expect("a run");
    says(&ran.stderr, &[&format!("To go on from there: infra resume {first}")]);
    assert_eq!((stage.text("a.reloads"), stage.text("b.reloads")), ("reload\n".into(), String::new()));

    // What it would do changes nothing and leaves no journal; from any folder.
    fs::remove_file(stage.path("b.broken")).expect("mended");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut command = infra(stage.folder.path());
    let ran = process::run(command.current_dir(elsewhere.path()).args(["resume", "--dry"]), Duration::from_secs(100)).expect("it ends");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let named = format!("done in run {first}, not run again: «Append» on b, c");
    for said in [&named, "2 hosts: 2 planned: changes", &format!("going on from run {first} (infra a,b,c deploy.lua"), "all is done on a"] {
        assert!(ran.stderr.contains(said), "`{said}` is not in:\n{}", ran.stderr);
    }
    assert_eq!(stage.runs().len(), 1);

    // The first time c is still broken: a run that goes on is gone on from itself, with what both have done.
    let ran = stage.run(&["resume", "--yes", "--json"]).expect(1);
    says(&ran.stderr, &[&named, &format!("changed in run {first}, which counts for what is left: «Configure» on b")]);
    let document = ran.json();
    assert_eq!(states(&document), [("b", "changed"), ("c", "failed")]);
    let done = json!({ "continuation": "done", "run": first, "operation": 1, "hosts": ["b", "c"] });
    let owed = json!({ "continuation": "owed", "run": first, "operation": 0, "hosts": ["b"] });
    assert_eq!(document["plan"]["earlier"], json!([owed, done]));
    let append =
        document["hosts"]["b"]["operations"].as_array().expect("operations").iter().find(|one| one["id"] == 1).expect("it is there");
    assert_eq!((&append["outcome"], &append["changed"], &append["stdout"]), (&json!("earlier"), &json!(true), &json!("token\n")));
    assert_eq!((stage.text("b.log"), stage.text("b.reloads"), stage.text("b.told")), ("line\n".into(), "reload\n".into(), "told\n".into()));
    let second = stage.runs().pop().expect("a run");
    says(&ran.stderr, &[&format!("infra resume {second}")]);

    // Who went on from a run has done more than it knows of.
    let refused = stage.run(&["resume", &first]).expect(2);
    says(&refused.stderr, &[&format!("run {first} was gone on with already, in run {second}"), &format!("hint: infra resume {second}")]);
    fs::remove_file(stage.path("c.broken")).expect("mended");
    let ran = stage.run(&["resume", &second, "--yes", "--json"]).expect(0);
    assert_eq!(states(&ran.json()), [("c", "changed")]);
    assert_eq!((stage.text("c.log"), stage.text("c.reloads"), stage.text("c.told")), ("line\n".into(), String::new(), "told\n".into()));
    assert_eq!((stage.text("a.log"), stage.text("a.told")), ("line\n".into(), "told\n".into()), "a was never touched again");

    // All is done.
    let third = stage.runs().pop().expect("a run");
    let ran = stage.run(&["resume"]).expect(0);
    says(&ran.stderr, &[&format!("run {third} has done all of it on all its hosts, so there is nothing to go on with")]);
    assert_eq!(stage.run(&["resume", "--json"]).expect(0).json()["totals"], json!({ "hosts": 0 }));
    let shown = stage.run(&["runs", "show", &third]).expect(0).stdout;
    assert!(shown.contains(&format!("going on from run {second}")), "{shown}");
    assert_eq!(stage.run(&["runs", "show", "--json"]).expect(0).json()["resumes"], json!(second));
    assert_eq!(stage.runs().len(), 3);
    stage.nothing_left();
}

#[test]
fn what_was_edited_in_between_is_planned_afresh_and_named() {
    let stage = Stage::new(&["a", "b"]);
    stage.write("deploy.lua", DEPLOY);
    stage.write("b.broken", "");
    stage.deploy("a,b", &[]).expect(1);
    fs::remove_file(stage.path("b.broken")).expect("mended");
    stage.write(
        "deploy.lua",
        &format!("{}server.shell {{ name = 'More', commands = {{ 'true' }} }}\n", DEPLOY.replace("echo line", "echo another")),
    );
    let ran = stage.run(&["resume", "--yes"]).expect(0);
    says(
        &ran.stderr,
        &["planned afresh, since it is not what it was: «Append» on b", "planned afresh, since no earlier run had it: «More» on b"],
    );
    assert_eq!((stage.text("b.log"), stage.text("b.reloads")), ("line\nanother\n".into(), "reload\n".into()));
    stage.nothing_left();
}

#[test]
fn options_of_the_run_hold_and_those_of_resume_win() {
    let stage = Stage::new(&["a", "b", "c"]);
    let text = r#"
server.shell { name = "Say", commands = { sh("echo {} >> {}", host.data.word, host.data.folder .. "/said") } }
server.shell { name = "Fail", commands = { sh("test -e {}", host.data.folder .. "/mended") } }
server.shell { name = "Later", commands = { sh("echo {} >> {}", host.data.word, host.data.folder .. "/said") } }
"#;
    stage.write("deploy.lua", text);
    stage.deploy("a,b,c", &["--data", "word=one", "--serial", "--max-fail", "1"]).expect(1);
    assert_eq!(stage.text("said"), "one\none\none\n");
    stage.write("mended", "");
    // Only b for now, and its data says another word: what is done with the old one is another operation.
    let ran = stage.run(&["resume", "--yes", "--limit", "b", "--data", "word=two", "--json"]).expect(0);
    assert_eq!(states(&ran.json()), [("b", "changed")]);
    says(&ran.stderr, &["planned afresh, since it is not what it was: «Say» on b", "Host by host: each goes through all its operations"]);
    assert_eq!(stage.text("said"), "one\none\none\ntwo\ntwo\n");
    // Going on from there, the later word holds, and b is done.
    stage.run(&["resume", "--limit", "b"]).expect(2);
    let ran = stage.run(&["resume", "--yes", "--no-wait", "--data", "word=one", "--json"]).expect(0);
    assert_eq!(states(&ran.json()), [("a", "changed"), ("c", "changed")]);
    says(&ran.stderr, &["No host waits for another", "not run again: «Say» on a, c"]);
    assert_eq!(stage.text("said"), "one\none\none\ntwo\ntwo\none\none\n");
    stage.nothing_left();
}

/// A deploy whose first operation waits at a gate, and the folder that says so.
fn gated(stage: &Stage) {
    let text = r#"
local folder = host.data.folder
server.shell { name = "Before", commands = { sh("echo before >> {}", folder .. "/log") } }
server.shell { name = "Wait", commands = { sh("touch {}; while [ ! -e {} ]; do sleep 0.02; done; echo waited >> {}", folder .. "/begun", folder .. "/gate", folder .. "/log") } }
server.shell { name = "After", commands = { sh("echo after >> {}", folder .. "/log") } }
"#;
    stage.write("deploy.lua", text);
}

fn begin(stage: &Stage) -> Terminal {
    gated(stage);
    let mut command = infra(stage.folder.path());
    command.args(["a", "deploy.lua", "--yes", "--data", &format!("ssh_config_file={}", stage.sshd.ssh_config().display())]);
    command.args(["--data", &format!("folder={}", stage.folder.path().display())]);
    // What a killed run holds, who goes on waits for.
    command.args(["--lock-lease", "2"]);
    let terminal = Terminal::start(command, Elsewhere::default());
    let begun = process::wait_for(DEADLINE, || stage.path("begun").exists().then_some(()));
    assert!(begun.is_some(), "{}", terminal.screen());
    terminal
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    let stage = Stage::new(&["a"]);
    let terminal = begin(&stage);
    let run = stage.runs().pop().expect("a run");
    let refused = stage.run(&["resume"]).expect(2);
    says(&refused.stderr, &[&format!("run {run} has not ended: its process is still at work")]);
    kill(Pid::from_raw(terminal.pid()), Signal::SIGKILL).expect("it runs");
    assert_eq!(terminal.end().signal, Some(9));
    // What was in flight goes on to its end by itself.
    stage.write("gate", "");
    let ended = process::wait_for(DEADLINE, || stage.text("log").contains("waited").then_some(()));
    assert!(ended.is_some(), "{}", stage.text("log"));

    let ran = stage.run(&["resume", "--yes"]).expect(0);
    says(
        &ran.stderr,
        &[&format!("done in run {run}, not run again: «Before» on a"), "run again, since what came of it is not known: «Wait» on a"],
    );
    assert_eq!(stage.text("log"), "before\nwaited\nwaited\nafter\n");
    stage.nothing_left();
}

#[test]
fn a_run_that_was_interrupted_twice_is_gone_on_with() {
    let stage = Stage::new(&["a"]);
    let mut terminal = begin(&stage);
    terminal.press_control_c();
    terminal.wait_for("what is in flight is let finish");
    terminal.press_control_c();
    let ended = terminal.end();
    assert_eq!(ended.code, Some(130), "{}", ended.screen);
    let run = stage.runs().pop().expect("a run");
    assert!(ended.screen.contains(&format!("To go on from there: infra resume {run}")), "{}", ended.screen);
    stage.write("gate", "");
    let ran = stage.run(&["resume", "--yes"]).expect(0);
    says(&ran.stderr, &["not run again: «Before» on a", "run again, since what came of it is not known: «Wait» on a"]);
    assert_eq!(stage.text("log"), "before\nwaited\nafter\n");
    stage.nothing_left();
}

/// The journal of a deploy on this machine alone that failed.
fn failed_here(folder: &Path) -> PathBuf {
    fs::write(
        folder.join("deploy.lua"),
        "server.shell { commands = { 'true' } }\nserver.shell { name = 'Fail', commands = { 'exit 3' } }\n",
    )
    .expect("a deploy");
    common::run(folder, &["@local", "deploy.lua", "--yes"]).expect(1);
    let entry = fs::read_dir(folder.join(".local/state/infra/runs")).expect("the journals").next().expect("a journal");
    entry.expect("an entry").path()
}

#[test]
fn what_cannot_be_gone_on_with_says_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let refused = |words: &[&str], why: &str| {
        let ran = common::run(folder, &[&["resume"], words].concat()).expect(2);
        says(&ran.stderr, &[why]);
    };
    refused(&[], "there is no earlier run in the journal");
    let journal = failed_here(folder);
    let run = journal.file_stem().expect("a name").to_string_lossy().into_owned();
    refused(&["20200101T000000-0000"], "there is no run 20200101T000000-0000 in the journal");
    refused(&["--limit", "other"], "--limit other matches no host");

    // A deploy file that is gone, and a folder.
    fs::rename(folder.join("deploy.lua"), folder.join("deployed.lua")).expect("renamed");
    refused(&["--yes"], "the deploy file deploy.lua does not exist");
    fs::rename(folder.join("deployed.lua"), folder.join("deploy.lua")).expect("renamed");
    let text = fs::read_to_string(&journal).expect("a journal");
    let other = |text: String| fs::write(&journal, text).expect("a journal");
    let here = json!(folder).to_string();
    other(text.replacen(&here, "\"/nowhere/at/all\"", 1));
    refused(&[], "which cannot be entered");
    other(text.replacen("\"version\":1", "\"version\":7", 1));
    refused(&[], "its format has version 7");
    other(text.replacen("\"--yes\"", "\"--of-yesterday\"", 1));
    refused(&[], "is not understood any more: unexpected argument '--of-yesterday' found");
    other(text.replacen("\"version\"", "\"resumes\":\"20190101T000000-0000\",\"version\"", 1));
    refused(&[], "goes on from run 20190101T000000-0000, whose journal cannot be read");
    other("nonsense\n".to_owned());
    refused(&[], "it does not begin with the header of a journal");

    // Cut in its last line, as by a machine that went down: what was begun is not known.
    let last = text.find("\"host-operation-ended\"").expect("an end");
    let second = last + text[last..].find('\n').expect("a line") + 1;
    let cut = second + text[second..].find("\"host-operation-ended\"").expect("an end");
    other(text[..cut].to_owned());
    let ran = common::run(folder, &["resume", "--dry"]).expect(0);
    says(
        &ran.stderr,
        &[
            "run again, since what came of it is not known: «Fail» on @local",
            &format!("done in run {run}, not run again: «server.shell true» on @local"),
        ],
    );

    // An `exec` has no plan.
    common::run(folder, &["@local", "exec", "--", "false"]).expect(1);
    refused(&[], "was an `exec`: it has no plan that could be gone on with");
}
