//! The journal from outside: what a run leaves, what `infra runs` makes of it, and going on with `--limit @failed` and its like.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Ran, infra, run};
use infra_test::{Sshd, SshdOptions, process};
use serde_json::{Value, json};

/// One host at a time; it fails on the host that the data names.
const ROLLING: &str = r#"
local broken = host:get("broken") == host.name
server.shell { name = "Restart the app", commands = { broken and "echo no port >&2; exit 3" or "true" }, _serial = true }
"#;

fn journals(folder: &Path) -> PathBuf {
    folder.join(".local/state/infra/runs")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(journals(folder)).expect("the journals");
    let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort_unstable();
    names
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(journals(folder).join(name)).expect("a journal");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The hosts that a run with these words would go to.
fn hosts(ran: &Ran) -> Vec<String> {
    ran.stdout.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

#[test]
fn a_rolling_run_that_stopped_goes_on_where_it_was() {
    let sshd = Sshd::start(SshdOptions::default().aliases(["a", "b", "c", "d"])).expect("sshd");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("rolling.lua"), ROLLING).expect("a deploy");
    let config = format!("ssh_config_file={}", sshd.ssh_config().display());
    let on = |words: &[&str]| run(folder, &[&["a,b,c,d"], words, &["--data", &config]].concat());

    // What only looks leaves no journal, and without one there is no last run.
    on(&["rolling.lua", "--dry"]).expect(0);
    let ran = on(&["rolling.lua", "--yes", "--limit", "@failed"]).expect(2);
    assert!(ran.stderr.contains("--limit @failed: there is no earlier run in the journal"), "{}", ran.stderr);
    assert_eq!(run(folder, &["runs", "--json"]).expect(0).json(), json!({ "version": 1, "runs": [] }));

    let ran = on(&["rolling.lua", "--yes", "--data", "broken=b"]).expect(1);
    assert!(
        ran.stderr.contains("stopped: of the 1 host that entered wave 2 of «Restart the app» 1 is not ok, and 0 may be"),
        "{}",
        ran.stderr
    );
    let [file] = names(folder).try_into().expect("one journal");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&journals(folder)), mode(&journals(folder).join(&file))), (0o700, 0o600));

    // Each command is written before it ends, and no host begins before the one before it has ended well.
    let told: Vec<(String, Value)> = lines(folder, &file)
        .into_iter()
        .map(|line| (line["event"].as_str().expect("an event").to_owned(), line["host"].clone()))
        .filter(|(event, _)| ["host-operation-started", "command-started", "host-operation-ended"].contains(&event.as_str()))
        .collect();
    let of = |host: u32| ["host-operation-started", "command-started", "host-operation-ended"].map(|event| (event.to_owned(), json!(host)));
    assert_eq!(told, [of(0), of(1)].concat());

    let list = run(folder, &["runs", "--json"]).expect(0).json();
    assert_eq!(list["runs"][0]["totals"], json!({ "hosts": 4, "failed": 1, "not-reached": 2, "changed": 1 }));
    let first = list["runs"][0]["run"].as_str().expect("a name").to_owned();
    assert_eq!(file, format!("{first}.jsonl"));
    let shown = run(folder, &["runs", "show"]).expect(0).stdout;
    for part in
        [&first, "[b] Restart the app: failed: exited with 3", "| no port", "not reached: c, d", "stopped: of the 1 host", "infra resume "]
    {
        assert!(shown.contains(part), "{part} in:\n{shown}");
    }
    assert_eq!(run(folder, &["runs", "show", &first]).expect(0).stdout, shown);
    assert_eq!(run(folder, &["runs", "show", &first, "--json"]).expect(0).json()["hosts"]["b"]["state"], "failed");

    for (limit, wanted) in
        [("@failed", vec!["b"]), ("@unreached", vec!["c", "d"]), ("a,@failed", vec!["a", "b"]), ("!@failed", vec!["a", "c", "d"])]
    {
        assert_eq!(hosts(&on(&["hosts", "--limit", limit]).expect(0)), wanted, "{limit}");
    }
    assert_eq!(hosts(&on(&["hosts", "--exclude", "@unreached"]).expect(0)), ["a", "b"]);

    // The rest, with the fault gone.
    let ran = on(&["rolling.lua", "--yes", "--json", "--limit", "@failed,@unreached"]).expect(0);
    assert_eq!(ran.json()["totals"], json!({ "hosts": 3, "changed": 3 }));
    let ran = on(&["rolling.lua", "--yes", "--json", "--limit", "@failed"]).expect(0);
    assert!(ran.stderr.contains("no host failed in run") && ran.stderr.contains("nothing to do"), "{}", ran.stderr);
    assert_eq!(ran.json()["totals"], json!({ "hosts": 0 }));
    assert_eq!(hosts(&on(&["hosts", "--limit", &format!("@{first}:failed,@{first}:unreached")]).expect(0)), ["b", "c", "d"]);
    on(&["hosts", "--limit", "@20200101T000000-0000:failed"]).expect(2);
    let gone = run(folder, &["a,x", "hosts", "--limit", &format!("a,@{first}:failed")]).expect(0);
    assert!(gone.stderr.contains("not in the inventory any more: b"), "{}", gone.stderr);
    assert_eq!(hosts(&gone), ["a"]);
    assert_eq!(names(folder).len(), 2, "a run that had nothing to do leaves no journal");
    common::nothing_left(&sshd);
}

#[test]
fn a_run_that_was_killed_is_cut_off_and_says_what_was_in_flight() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (begun, gate) = (folder.join("begun"), folder.join("gate"));
    fs::write(&gate, "").expect("a gate");
    let wait = format!("touch {}; while [ -e {} ]; do sleep 0.05; done", begun.display(), gate.display());
    let mut child = infra(folder).args(["@local", "exec", "--", &wait]).stderr(std::process::Stdio::null()).spawn().expect("infra");
    let seen = process::wait_for(Duration::from_secs(60), || begun.exists().then_some(()));
    // As long as its process lives it is not said to be killed.
    let living = (run(folder, &["runs"]), run(folder, &["runs", "show"]), run(folder, &["runs", "show", "--json"]));
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    // What was in flight ends by itself now.
    fs::remove_file(&gate).expect("the gate");
    assert!(seen.is_some(), "the command began");

    let (list, shown, document) = (living.0.expect(0).stdout, living.1.expect(0).stdout, living.2.expect(0).json());
    assert!(list.contains("at work: 1 not reached"), "{list}");
    let said = "at work: the run has not come to its end yet; by now 1 not reached\n    in flight: [@local] ";
    assert!(shown.contains("still at work\n") && shown.contains(said) && !shown.contains("killed"), "{shown}");
    assert_eq!((&document["cut_off"], &document["at_work"], &document["ended"]), (&json!(false), &json!(true), &json!(null)));
    assert_eq!(document["in_flight"][0]["host"], "@local");

    let list = run(folder, &["runs"]).expect(0).stdout;
    assert!(list.contains("cut off: 1 indeterminate"), "{list}");
    let shown = run(folder, &["runs", "show"]).expect(0).stdout;
    assert!(shown.contains("cut off: the journal has no end: infra was killed\n") && !shown.contains("at work:"), "{shown}");
    let document = run(folder, &["runs", "show", "--json"]).expect(0).json();
    assert_eq!((&document["cut_off"], &document["exit_code"], &document["kind"]), (&json!(true), &json!(null), &json!("exec")));
    assert_eq!(document["at_work"], json!(false));
    let flight = &document["in_flight"][0];
    assert_eq!(flight["host"], "@local");
    assert!(flight["step"].as_str().expect("a step").contains("while [ -e "), "{flight}");
    assert_eq!(hosts(&run(folder, &["@local", "hosts", "--limit", "@failed"]).expect(0)), ["@local"]);
}

#[test]
fn a_journal_that_cannot_be_written_holds_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("file"), "").expect("a file");
    let ran = process::run(
        infra(folder).env("XDG_STATE_HOME", folder.join("file")).args(["@local", "exec", "--", "echo it ran"]),
        Duration::from_secs(60),
    )
    .expect("infra ends");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "it ran\n"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("the journal of this run cannot be written").count(), 1, "{}", ran.stderr);
}

#[test]
fn the_last_hundred_runs_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::create_dir_all(journals(folder)).expect("a folder");
    for number in 0..105 {
        fs::write(journals(folder).join(format!("20200101T000000-{number:04x}.jsonl")), "").expect("a journal");
    }
    fs::write(journals(folder).join("notes.txt"), "not ours").expect("a file");
    run(folder, &["@local", "exec", "--", "true"]).expect(0);
    let left = names(folder);
    assert_eq!(left.len(), 101);
    assert_eq!(left[0], "20200101T000000-0006.jsonl");
    assert!(left.contains(&"notes.txt".to_owned()));
    // Files that are no journals are said, and in nobody's way.
    let list = run(folder, &["runs", "--json"]).expect(0);
    assert_eq!(list.json()["runs"].as_array().expect("runs").len(), 1);
    assert!(list.stderr.contains("20200101T000000-0006 is left out"), "{}", list.stderr);
    run(folder, &["runs", "show", "20200101T000000-0006"]).expect(2);
}

/// Two operations; the first fails on the host that the data names.
const TWO: &str = r#"
server.shell { name = "First", commands = { host:get("broken") == host.name and "exit 3" or "true" } }
server.shell { name = "Second", commands = { "true" } }
"#;

/// The first host's first operation ends when the second host's second one has begun.
const CROSSED: &str = r#"
local gate = host:get("gate")
server.shell { name = "First", commands = { host.name == "a" and sh("while [ ! -e {} ]; do sleep 0.05; done", gate) or "true" }, _timeout = 30 }
server.shell { name = "Second", commands = { host.name == "b" and sh("touch {}", gate) or "true" } }
"#;

#[test]
fn the_strategies_of_the_command_line_are_those_of_the_run() {
    let sshd = Sshd::start(SshdOptions::default().aliases(["a", "b"])).expect("sshd");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    fs::write(folder.join("two.lua"), TWO).expect("a deploy");
    fs::write(folder.join("crossed.lua"), CROSSED).expect("a deploy");
    let config = format!("ssh_config_file={}", sshd.ssh_config().display());
    let on = |words: &[&str]| run(folder, &[&["a,b", "--yes", "--json", "--data", &config], words].concat());
    // Which host begins, in the order of the last journal.
    let begun = || -> Vec<u64> {
        let last = names(folder).pop().expect("a journal");
        let started = lines(folder, &last).into_iter().filter(|line| line["event"] == "host-operation-started");
        started.map(|line| line["host"].as_u64().expect("a host")).collect()
    };

    on(&["two.lua", "--serial"]).expect(0);
    assert_eq!(begun(), [0, 0, 1, 1]);
    let stopped = on(&["two.lua", "--serial", "--data", "broken=a"]).expect(1).json();
    assert_eq!((&stopped["stopped"]["rule"], &stopped["hosts"]["b"]["state"]), (&json!("wave-failed"), &json!("not-reached")));
    let went_on = on(&["two.lua", "--serial", "--max-fail", "1", "--data", "broken=a"]).expect(1).json();
    assert_eq!((&went_on["stopped"], &went_on["hosts"]["b"]["state"]), (&json!(null), &json!("changed")));

    let stopped = on(&["two.lua", "--fail-percent", "49", "--data", "broken=a"]).expect(1).json();
    assert_eq!(stopped["stopped"], json!({ "rule": "fail-percent", "not_ok": 1, "selected": 2, "allowed": 49.0 }));
    let went_on = on(&["two.lua", "--fail-percent", "50", "--data", "broken=a"]).expect(1).json();
    assert_eq!((&went_on["stopped"], &went_on["hosts"]["b"]["state"]), (&json!(null), &json!("changed")));

    let gate = format!("gate={}", folder.join("gate").display());
    let crossed = on(&["crossed.lua", "--no-wait", "--data", &gate]).expect(0);
    assert_eq!(crossed.json()["totals"], json!({ "hosts": 2, "changed": 2 }));
    on(&["two.lua", "--serial", "--no-wait"]).expect(2);
    common::nothing_left(&sshd);
}
