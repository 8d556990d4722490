//! Saved plans from outside, over real ssh: made, shown, applied as they were made, and refused where they do not hold any more.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::{Ran, infra, says, states};
use infra_core::saved_plan;
use infra_test::{Sshd, SshdOptions, process};
use serde_json::{Value, json};
use terminal::{Elsewhere, Terminal};

/// Files from a source and from a template, a line in a file that is there, and a command that follows; all that the controller tells has a part in it.
const DEPLOY: &str = r#"
local folder = host.data.folder .. "/" .. host.name
local stamp = local_command { "sh", "-c", "cat stamp" }
local lib = require("lib")
local conf = files.put { name = "Configure", src = "a.conf", dest = folder .. ".conf" }
files.template { name = "Render", src = "t.j2", dest = folder .. ".page", vars = { stamp = stamp, greeting = lib.greeting } }
files.put { name = "Place", dest = folder .. ".place", content = env("PLACE", "nowhere") .. " " .. host.data.port_of_app .. "\n" }
files.line { name = "Line", path = folder .. ".notes", line = "hello" }
server.shell { name = "Reload", commands = { sh("echo reload >> {}", folder .. ".reloads") }, _if = conf.did_change }
"#;

const INVENTORY: &str = r#"
web = { "a", "b", "c", data = { port_of_app = 80 } }
"#;

/// What a command leaves behind is known only in the run.
const OPEN: &str = r#"
local folder = host.data.folder .. "/" .. host.name
server.shell { name = "Make", commands = { sh("echo made > {}", folder .. ".made") } }
files.line { name = "Follow", path = folder .. ".made", line = "followed" }
call(function() files.line { name = "Inside", path = folder .. ".made", line = read_file("word"):gsub("\n", "") } end)
"#;

/// What is another one each time, on one of the hosts.
const RESTLESS: &str = r#"
local folder = host.data.folder .. "/" .. host.name
local word = host.name == "b" and tostring(math.random(1, 1000000000)) or "same"
local conf = files.put { name = "Word", dest = folder .. ".word", content = word .. "\n" }
server.shell { name = "Once", commands = { sh("echo once >> {}", host.data.folder .. "/once") }, _run_once = true }
server.shell { name = "All", commands = { sh("echo all >> {}", folder .. ".all") }, _if = any_host(conf) }
"#;

/// After a wait that was tried again the host is looked at afresh.
const WAITING: &str = r#"
local folder = host.data.folder .. "/" .. host.name
server.wait { name = "Go", file = folder .. ".go", interval = 0.1, timeout = 1, _retries = 300, _retry_delay = 0.2 }
files.line { name = "First", path = folder .. ".page", line = "first" }
files.line { name = "Second", path = folder .. ".page", line = "second" }
files.line { name = "Third", path = folder .. ".other", line = "third", _ignore_errors = true }
"#;

/// What is done elsewhere for each host: on a host of the plan or on none, and on this machine.
const ELSEWHERE: &str = r#"
local folder = host.data.folder .. "/"
local other = inventory:host("c"):fact("files.file", { path = folder .. "asked" })
files.line { name = "Here", path = folder .. host.name .. ".notes", line = other and "asked" or "not asked" }
files.line { name = "There", path = folder .. "pool", line = host.name, _on = inventory:host("c") }
files.line { name = "This machine", path = folder .. "local", line = host.name, _on = "@local" }
"#;

struct Stage {
    sshd: Sshd,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let sshd = Sshd::start(SshdOptions::default().aliases(["a", "b", "c"])).unwrap_or_else(|error| panic!("{error}"));
        let stage = Self { sshd, folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir(stage.path("out")).expect("a folder of the hosts");
        for (name, text) in [
            ("inventory.lua", INVENTORY),
            ("deploy.lua", DEPLOY),
            ("open.lua", OPEN),
            ("restless.lua", RESTLESS),
            ("waiting.lua", WAITING),
            ("elsewhere.lua", ELSEWHERE),
            ("lib.lua", "return { greeting = 'hello' }\n"),
            ("a.conf", "port = 80\n"),
            ("t.j2", "{{ greeting }} {{ stamp }}\n"),
            ("stamp", "one\n"),
            ("word", "word\n"),
        ] {
            stage.write(name, text);
        }
        for host in ["a", "b", "c"] {
            stage.write(&format!("out/{host}.notes"), "first\n");
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file of the test's own");
    }

    /// What stands in a file; nothing where there is none.
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// What a run would leave on a host.
    fn made(&self, host: &str) -> [String; 5] {
        ["conf", "page", "place", "notes", "reloads"].map(|name| self.text(&format!("out/{host}.{name}")))
    }

    /// The words that make a plan.
    fn planning<'w>(&self, deploy: &'w str, more: &[&'w str]) -> Vec<String> {
        let config = format!("ssh_config_file={}", self.sshd.ssh_config().display());
        let folder = format!("folder={}", self.path("out").display());
        let words = [&["inventory.lua", deploy, "--data", &config, "--data", &folder, "--plan", "p.json"], more].concat();
        words.into_iter().map(str::to_owned).collect()
    }

    fn plan(&self, deploy: &str, more: &[&str]) -> Ran {
        let words = self.planning(deploy, more);
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run(&self, words: &[&str]) -> Ran {
        common::run(self.folder.path(), words)
    }

    fn apply(&self, more: &[&str]) -> Ran {
        self.run(&[&["apply", "p.json", "--yes"], more].concat())
    }

    /// Changes all that the plan was made of.
    fn edit_sources(&self) {
        for name in ["inventory.lua", "deploy.lua", "lib.lua"] {
            self.write(name, "error('this is not what was planned')\n");
        }
        for name in ["a.conf", "t.j2", "stamp"] {
            self.write(name, "something else\n");
        }
    }

    #[track_caller]
    fn nothing_left(&self) {
        common::nothing_left(&self.sshd);
    }
}

fn done() -> [String; 5] {
    ["port = 80\n", "hello one\n", "nowhere 80\n", "first\nhello\n", "reload\n"].map(str::to_owned)
}

fn untouched() -> [String; 5] {
    ["", "", "", "first\n", ""].map(str::to_owned)
}

#[test]
fn a_plan_is_applied_as_it_was_made_whatever_has_become_of_its_sources() {
    let stage = Stage::new();
    let ran = stage.plan("deploy.lua", &["--detailed-exitcode", "--json"]).expect(3);
    says(&ran.stderr, &["the plan is written: `infra show p.json` prints it, `infra apply p.json` does it"]);
    assert_eq!(stage.made("a"), untouched(), "a plan changes nothing");
    let mode = fs::metadata(stage.path("p.json")).expect("a plan").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);

    // It is shown as it was when it was made, without a connection.
    stage.edit_sources();
    let shown: Value = stage.run(&["show", "p.json", "--json"]).expect(0).json();
    assert_eq!(shown["plan"], ran.json()["plan"]);
    let shown = stage.run(&["show", "p.json", "--diff"]).expect(0).stdout;
    for said in ["infra inventory.lua deploy.lua --data", "[b] Line", "+hello", "5 operations on 3 hosts: 15 will change."] {
        assert!(shown.contains(said), "`{said}` is not in:\n{shown}");
    }

    // On some of its hosts, and then on the others.
    let ran = stage.apply(&["--limit", "a", "--detailed-exitcode", "--json"]).expect(3);
    let document = ran.json();
    assert_eq!((states(&document), &document["departures"]), (vec![("a", "changed")], &json!([])));
    assert_eq!((stage.made("a"), stage.made("b")), (done(), untouched()));
    // Opening the shell, all facts in one request, and the changes; a command that may leave something behind has a shell of its own.
    let traffic = &document["hosts"]["a"]["traffic"];
    let trips = traffic["round_trips"].as_u64().expect("a number");
    assert_eq!((&traffic["commands"], trips <= 2 + 5 + 1), (&json!(5), true), "{traffic}");

    let ran = stage.apply(&["--exclude", "a"]).expect(0);
    says(&ran.stderr, &["2 hosts: 2 changed"]);
    assert_eq!((stage.made("b"), stage.made("c")), (done(), done()));

    // What was applied is not applied again.
    let ran = stage.apply(&[]).expect(1);
    says(&ran.stderr, &["stale: what the plan rests on has changed", "(of «Configure»)", "stopped: no host is left that is ok"]);
    assert_eq!(stage.made("a"), done());
    let runs = stage.run(&["runs"]).expect(0).stdout;
    assert!(runs.contains("apply p.json --yes --exclude a"), "{runs}");
    stage.nothing_left();
}

#[test]
fn a_host_that_was_edited_in_between_is_refused_and_the_others_are_done() {
    let stage = Stage::new();
    stage.plan("deploy.lua", &[]).expect(0);
    stage.write("out/b.notes", "first\nsecond\n");
    // That a file was looked at, or touched, is no change of it.
    let touched = process::run(std::process::Command::new("touch").arg(stage.path("out/c.notes")), Duration::from_secs(10));
    assert_eq!(touched.expect("touch ends").code, Some(0));

    // First with a rule that stops everything at the first host that is not ok.
    let ran = stage.apply(&["--fail-fast", "--json"]).expect(1);
    assert_eq!(states(&ran.json()), [("a", "not-reached"), ("b", "failed"), ("c", "not-reached")]);
    assert_eq!((stage.made("a"), stage.made("c")), (untouched(), untouched()));

    let ran = stage.apply(&["--json"]).expect(1);
    let document = ran.json();
    assert_eq!(states(&document), [("a", "changed"), ("b", "failed"), ("c", "changed")]);
    let why = format!(
        "stale: what the plan rests on has changed: files.file path={} (of «Line»): size was 6 and is 13",
        stage.path("out/b.notes").display()
    );
    let told = document["hosts"]["b"].to_string();
    assert!(told.contains(&why), "`{why}` is not in {told}");
    assert_eq!((stage.made("a"), stage.made("c")), (done(), done()));
    assert_eq!(stage.made("b"), ["", "", "", "first\nsecond\n", ""].map(str::to_owned));

    // Another plan has what is left, and the run itself is not gone on with.
    let ran = stage.run(&["resume"]).expect(2);
    says(&ran.stderr, &["applied the saved plan p.json, which is not gone on with", "make another plan with --plan"]);
    stage.plan("deploy.lua", &[]).expect(0);
    let ran = stage.apply(&["--json"]).expect(0);
    assert_eq!(states(&ran.json()), [("a", "unchanged"), ("b", "changed"), ("c", "unchanged")]);
    stage.nothing_left();
}

#[test]
fn a_plan_rests_on_the_places_where_it_has_something_to_do() {
    let stage = Stage::new();
    stage.write("out/pool", "first\n");
    stage.write("out/local", "first\n");
    stage.plan("elsewhere.lua", &["--limit", "a"]).expect(0);
    let plan: Value = serde_json::from_str(&stage.text("p.json")).expect("JSON");
    let basis = &plan["plan"]["basis"];
    assert_eq!(basis["hosts"]["a"]["elsewhere"], json!(["@local", "c"]));
    let facts = |place: &str| -> Vec<(&str, &Value)> {
        let facts = basis["places"][place].as_array().unwrap_or_else(|| panic!("{place} in {basis:#}"));
        facts.iter().map(|fact| (fact["fact"].as_str().expect("a name"), &fact["operations"])).collect()
    };
    assert!(facts("c").contains(&("files.text", &json!(["There"]))), "{basis:#}");
    assert!(facts("c").contains(&("files.file", &json!([]))), "what the script asks: {basis:#}");
    assert!(facts("@local").contains(&("files.text", &json!(["This machine"]))), "{basis:#}");

    // What was edited there makes it stale, wherever it was.
    for (file, before, said) in [
        ("out/pool", "first\n", "stale: what the plan rests on has changed: on c: files.file path="),
        ("out/local", "first\n", "stale: what the plan rests on has changed: on @local: files.file path="),
        ("out/asked", "", "stale: what the plan rests on has changed: on c: files.file path="),
    ] {
        stage.write(file, "edited\n");
        let ran = stage.apply(&["--json"]).expect(1);
        says(&ran.stderr, &[said]);
        assert_eq!((states(&ran.json()), stage.text("out/a.notes")), (vec![("a", "failed")], "first\n".to_owned()));
        match before {
            "" => fs::remove_file(stage.path(file)).expect("a file of the test's own"),
            before => stage.write(file, before),
        }
    }
    stage.apply(&[]).expect(0);
    let made = ["out/a.notes", "out/pool", "out/local"].map(|name| stage.text(name));
    assert_eq!(made, ["first\nnot asked\n", "first\na\n", "first\na\n"]);

    // A host of the plan is such a place as well, also where the plan is not applied to it.
    stage.plan("elsewhere.lua", &["--limit", "b,c"]).expect(0);
    let plan: Value = serde_json::from_str(&stage.text("p.json")).expect("JSON");
    assert_eq!(
        plan["plan"]["basis"]["places"].as_object().map(|places| places.keys().collect::<Vec<_>>()),
        Some(vec![&"@local".to_owned()])
    );
    stage.write("out/pool", "edited\n");
    let ran = stage.apply(&["--limit", "b"]).expect(1);
    says(&ran.stderr, &["on c: files.text"]);
    stage.nothing_left();
}

#[test]
fn a_file_that_is_not_the_plan_that_was_written_is_refused() {
    let stage = Stage::new();
    stage.plan("deploy.lua", &[]).expect(0);
    let text = fs::read(stage.path("p.json")).expect("a plan");
    let plan = saved_plan::read(&text, env!("CARGO_PKG_VERSION")).expect("a plan");

    let at = text.windows(9).position(|window| window == b"port = 80").expect("the source") + 7;
    let mut changed = text.clone();
    changed[at] = b'9';
    let newer = saved_plan::SavedPlan { program: "9.9.9".to_owned(), ..plan };
    for (bytes, why) in [
        (changed, "the plan file p.json is refused: it was changed since it was written"),
        (text[..text.len() - 2].to_vec(), "the plan file p.json is refused: it was changed since it was written"),
        (saved_plan::write(&newer).into_bytes(), "the plan file p.json is refused: it was made by infra 9.9.9 (format 2)"),
        (b"{}\n".to_vec(), "the plan file p.json is refused: it is no plan file of infra"),
    ] {
        fs::write(stage.path("p.json"), bytes).expect("a plan");
        for words in [&["apply", "p.json", "--yes"][..], &["show", "p.json"]] {
            let ran = stage.run(words).expect(1);
            says(&ran.stderr, &[why, "make the plan again with --plan"]);
            assert!(!ran.stderr.contains("Connecting"), "{}", ran.stderr);
        }
    }
    // What is no plan is not written over.
    let ran = stage.plan("deploy.lua", &[]).expect(2);
    says(&ran.stderr, &["--plan p.json: the file is there and is no plan, so it is left alone"]);
    assert_eq!(stage.text("p.json"), "{}\n");
    says(&stage.run(&["apply", "q.json"]).expect(2).stderr, &["there is no plan file q.json"]);
    says(&stage.run(&["apply", "q.json", "--user", "x"]).expect(2).stderr, &["apply has no --user: that was decided with the plan"]);
    assert_eq!(stage.made("a"), untouched());
    stage.nothing_left();
}

#[test]
fn what_the_plan_has_only_a_digest_of_must_be_as_it_was() {
    let stage = Stage::new();
    let planning = stage.planning("deploy.lua", &[]);
    let with_place = |words: &[String], place: &str| common::ran(infra(stage.folder.path()).args(words).env("PLACE", place));
    // Bytes that are no text are not carried.
    fs::write(stage.path("a.conf"), b"port\xff\n").expect("a source");
    with_place(&planning, "Paris").expect(0);
    let apply = ["apply", "p.json", "--yes"].map(str::to_owned);
    let plan = stage.text("p.json");
    let carried = plan.matches("Paris").count();
    says(&with_place(&apply, "Rome").expect(1).stderr, &["the environment variable PLACE is not what it was when the plan was made"]);
    says(&stage.apply(&[]).expect(1).stderr, &["the environment variable PLACE is not set, and it was when the plan was made"]);
    fs::write(stage.path("a.conf"), b"port\xfe\n").expect("a source");
    says(&with_place(&apply, "Paris").expect(1).stderr, &["/a.conf is not what it was when the plan was made"]);
    assert_eq!(stage.made("a"), untouched());
    fs::write(stage.path("a.conf"), b"port\xff\n").expect("a source");
    with_place(&apply, "Paris").expect(0);
    assert_eq!(stage.text("out/a.place"), "Paris 80\n");
    assert_eq!(fs::read(stage.path("out/c.conf")).expect("it is there"), b"port\xff\n");
    // It stands in the diffs of the three hosts, and nowhere as what the variable holds.
    assert_eq!(carried, 3);
    stage.nothing_left();
}

#[test]
fn what_depends_is_applied_only_where_that_is_allowed() {
    let stage = Stage::new();
    stage.plan("open.lua", &[]).expect(0);
    let ran = stage.apply(&["--json"]).expect(1);
    says(
        &ran.stderr,
        &[
            "the saved plan is refused: what these operations do is known only when their turn comes: «Follow», «call»",
            "hint: infra apply p.json --allow-depends",
        ],
    );
    assert!(!ran.stderr.contains("Connecting") && stage.text("out/a.made").is_empty(), "{}", ran.stderr);
    assert_eq!(ran.json()["misuse"].as_array().map(Vec::len), Some(1));

    stage.write("open.lua", "error('this is not what was planned')\n");
    let ran = stage.apply(&["--allow-depends"]).expect(0);
    let said = ran.stderr.find("«Follow», «call» (--allow-depends)").expect("it is said");
    assert!(said < ran.stderr.find("Connecting").expect("it begins"), "{}", ran.stderr);
    for host in ["a", "b", "c"] {
        assert_eq!(stage.text(&format!("out/{host}.made")), "made\nfollowed\nword\n");
    }
    stage.nothing_left();
}

#[test]
fn a_host_on_which_the_sources_come_to_something_else_is_refused() {
    let stage = Stage::new();
    stage.plan("restless.lua", &[]).expect(0);
    let ran = stage.apply(&["--json"]).expect(1);
    let document = ran.json();
    assert_eq!(states(&document), [("a", "changed"), ("b", "failed"), ("c", "changed")]);
    let why = "stale: the same sources and facts come to something else now: «Word» has other arguments than in the plan";
    assert_eq!(document["hosts"]["b"]["failed"]["message"], json!(why));
    // The way on is another plan, for the hosts that are left.
    says(&ran.stderr, &["applying the plan that was made ", "--plan p.json --limit b"]);
    assert!(!ran.stderr.contains("infra resume"), "{}", ran.stderr);
    let left = ["out/once", "out/a.all", "out/b.all", "out/c.all", "out/b.word"].map(|name| stage.text(name));
    assert_eq!(left, ["once\n", "all\n", "", "all\n", ""]);
    let shown = stage.run(&["runs", "show"]).expect(0).stdout;
    assert!(shown.contains(why) && !shown.contains("infra resume"), "{shown}");
    stage.nothing_left();
}

#[test]
fn what_would_be_something_else_in_the_run_is_not_done() {
    let stage = Stage::new();
    for (name, text) in [("out/a.page", "second\n"), ("out/a.other", "")] {
        stage.write(name, text);
    }
    stage.plan("waiting.lua", &["--limit", "a"]).expect(0);
    let mut command = infra(stage.folder.path());
    command.args(["apply", "p.json", "--yes"]);
    let mut terminal = Terminal::start(command, Elsewhere::default());
    terminal.wait_for("again in");
    // Behind infra's back somebody does what one operation was to do, undoes what another found, and edits the file of the third.
    stage.write("out/a.page", "first\n");
    stage.write("out/a.other", "zeroth\n");
    stage.write("out/a.go", "");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(1), "{}", ended.screen);
    for said in
        ["[a] Second: failed: stale: the saved plan has no change here, and now there would be one (append 1 line)", "1 host: 1 failed"]
    {
        assert!(ended.screen.contains(said), "«{said}» is not in:\n{}", ended.screen);
    }
    assert_eq!((stage.text("out/a.page"), stage.text("out/a.other")), ("first\n".into(), "zeroth\n".into()));

    // The other way round: it would do something else, which is no failure that may be ignored.
    fs::remove_file(stage.path("out/a.go")).expect("it was there");
    stage.write("out/a.page", "second\n");
    stage.write("out/a.other", "");
    stage.plan("waiting.lua", &["--limit", "a"]).expect(0);
    let mut command = infra(stage.folder.path());
    command.args(["apply", "p.json", "--yes"]);
    let mut terminal = Terminal::start(command, Elsewhere::default());
    terminal.wait_for("again in");
    stage.write("out/a.other", "zeroth\n");
    stage.write("out/a.go", "");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(1), "{}", ended.screen);
    let said = "[a] Third: failed: stale: it would do something else now than in the saved plan (append 1 line)";
    assert!(ended.screen.contains(said), "{}", ended.screen);
    assert_eq!((stage.text("out/a.page"), stage.text("out/a.other")), ("second\nfirst\n".into(), "zeroth\n".into()));
    stage.nothing_left();
}
