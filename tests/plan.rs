//! Whether runs keep to their plans, and proofs that nothing is left to do: on real machines, against changes behind infra's back.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::path::Path;

use infra_test::{Fleet, Machine};
use serde_json::{Value, json};
use terminal::{Elsewhere, Terminal};

const DEPLOY: &str = r#"
server.group { name = "Group", group = "site" }
server.user { name = "User", user = "site", group = "site", home = "/srv/site", shell = "/bin/sh" }
files.directory { name = "Folder", path = "/srv/site/pages", user = "site", group = "site", mode = "750" }
local page = files.put { name = "Page", dest = "/srv/site/pages/index", content = "hello\n", user = "site", group = "site", mode = "640" }
files.file { name = "Notes", path = "/srv/site/notes", user = "site", group = "site" }
files.line { name = "Line", path = "/srv/site/notes", line = "from " .. host.name }
files.link { name = "Link", path = "/srv/index", target = "/srv/site/pages/index" }
if host:get("undone") == host.name then
  server.shell { name = "Undo", commands = { "chmod 600 /srv/site/pages/index" } }
end
server.shell { name = "Tell", commands = { "echo told >> /srv/told" }, _if = page.did_change }
"#;

/// A wait that is tried again, after which the host is looked at afresh, stands between the plan and what was planned.
const PAGE: &str = r#"
server.wait { name = "Go", file = "/srv/go", interval = 0.1, timeout = 1, _retries = 300, _retry_delay = 0.2 }
files.line { name = "First", path = "/srv/page", line = "first" }
files.line { name = "Second", path = "/srv/page", line = "second" }
files.line { name = "Third", path = "/srv/page", line = "third" }
"#;

struct Site {
    fleet: Fleet,
    folder: tempfile::TempDir,
    config: String,
}

impl Site {
    fn boot(names: &[&str]) -> Self {
        let fleet = Fleet::boot(names).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("site.lua"), DEPLOY).expect("a deploy");
        std::fs::write(folder.path().join("page.lua"), PAGE).expect("a deploy");
        let config = format!("ssh_config_file={}", fleet.ssh_config().display());
        Self { fleet, folder, config }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, words: &[&str]) -> common::Ran {
        common::run(self.path(), &[words, &["--json", "--data", &self.config]].concat())
    }
}

fn look(machine: &Machine, command: &str) -> String {
    machine.check(["sh", "-c", command]).unwrap_or_else(|error| panic!("{}: {command}: {error}", machine.name()))
}

/// What is left to do: title, host, and whether it counts.
fn left(document: &Value) -> Vec<(String, String, bool)> {
    let left = document["proof"]["left"].as_array().unwrap_or_else(|| panic!("a proof in {document:#}"));
    let word = |one: &Value, member: &str| one[member].as_str().expect("text").to_owned();
    left.iter().map(|one| (word(one, "title"), word(one, "host"), one["counts"] == true)).collect()
}

#[test]
fn a_run_is_proved_and_what_undoes_it_is_named() {
    let site = Site::boot(&["web-1", "web-2"]);
    let hosts = "web-1,web-2";

    // On empty machines, with everything counted.
    let ran = site.run(&[hosts, "site.lua", "--prove=strict", "--detailed-exitcode", "-v"]).expect(3);
    let document = ran.json();
    assert_eq!((&document["proof"]["holds"], left(&document)), (&json!(true), vec![]));
    assert_eq!(document["departures"], json!([]), "the plan was right");
    assert!(ran.stderr.contains("proved: prepared again, nothing would change"), "{}", ran.stderr);
    for machine in site.fleet.machines() {
        assert_eq!(
            look(machine, "stat -c '%U %a' /srv/site/pages/index; cat /srv/index /srv/site/notes /srv/told"),
            format!("site 640\nhello\nfrom {}\ntold", machine.name())
        );
    }
    // The work cost round trips, and a run that finds nothing to do sends no command.
    let commands = |document: &Value| document["hosts"]["web-1"]["traffic"]["commands"].as_u64().expect("a number");
    assert!(commands(&document) >= 7 && ran.stderr.contains("wire: round trips"), "{}", document["traffic"]);
    let ran = site.run(&[hosts, "site.lua", "--prove=strict", "--detailed-exitcode"]);
    let again = ran.expect(0).json();
    assert_eq!((commands(&again), &again["proof"]["holds"]), (0, &json!(true)));

    // One host has an operation that undoes another.
    let ran = site.run(&[hosts, "site.lua", "--prove", "--data", "undone=web-2"]).expect(1);
    let document = ran.json();
    let word = str::to_owned;
    assert_eq!(
        left(&document),
        [(word("Page"), word("web-2"), true), (word("Undo"), word("web-2"), false), (word("Tell"), word("web-2"), false)]
    );
    assert_eq!((&document["hosts"]["web-2"]["state"], &document["exit_code"]), (&json!("changed"), &json!(1)));
    for said in [
        "not proved: prepared again, this would change or may:",
        "[web-2] Page: would change: mode 600 → 640",
        "[web-2] Undo: would change",
    ] {
        assert!(ran.stderr.contains(said), "«{said}» is not in:\n{}", ran.stderr);
    }
    let shown = common::run(site.path(), &["runs", "show"]).expect(0).stdout;
    assert!(shown.contains("[web-2] Page: would change: mode 600 → 640"), "{shown}");
    assert_eq!(look(site.fleet.machine("web-2"), "stat -c %a /srv/site/pages/index"), "600", "a proof changes nothing");
}

#[test]
fn drift_between_the_plan_and_the_run_is_named() {
    let site = Site::boot(&["box"]);
    let machine = site.fleet.machine("box");
    look(machine, "printf 'second\\n' > /srv/page; chmod 644 /srv/page");
    let mut command = common::infra(site.path());
    command.args(["box", "page.lua", "--yes", "--diff", "--data", &site.config]);
    let mut terminal = Terminal::start(command, Elsewhere::default());
    terminal.wait_for("again in");
    // Behind infra's back somebody does what one operation was to do, and undoes what another one found.
    look(machine, "printf 'first\\n' > /srv/page; touch /srv/go");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(0), "{}", ended.screen);
    for said in [
        "not as planned (drift or a defect):",
        "[box] First: was to change, and there was nothing to do: the line is there",
        "[box] Second: was to find nothing to do, and changed: append 1 line",
        "1 host: 1 changed",
    ] {
        assert!(ended.screen.contains(said), "«{said}» is not in:\n{}", ended.screen);
    }
    assert!(!ended.screen.contains("Third: was to") && !ended.screen.contains("Go: was to"), "{}", ended.screen);
    // The plan had shown another difference for the third than the one that came of it, and none for the second.
    let run = ended.screen.split("--> Running").nth(1).expect("the run");
    assert_eq!((run.matches("+second").count(), run.matches("+third").count(), run.matches("+first").count()), (1, 1, 0), "{run}");
    assert_eq!(look(machine, "cat /srv/page"), "first\nsecond\nthird");
    let document = common::run(site.path(), &["runs", "show", "--json"]).expect(0).json();
    let departure = |operation: u32, planned: &str, outcome: &str| json!({ "operation": operation, "host": "box", "planned": planned, "outcome": outcome });
    assert_eq!(document["departures"], json!([departure(1, "change", "unchanged"), departure(2, "no-change", "changed")]));
}
