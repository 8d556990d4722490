//! Every deploy in `deploys/` is planned with its inventory; the quickstart does what its plan said, once, for root and for others.

mod common;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use infra_test::process;
use serde_json::Value;

/// A folder with the deploys and inventories of the repository, such as a fresh clone has.
fn clone() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ["deploys", "inventories"] {
        copy(&common::repository().join(part), &folder.path().join(part));
    }
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("a copy");
        }
    }
}

/// What a run with `--json` planned and did: by title, the outlook and the outcome (none with `--dry`).
fn told(document: &Value) -> BTreeMap<String, (String, Option<String>)> {
    let (_, host) = document["hosts"].as_object().and_then(|hosts| hosts.iter().next()).expect("a host");
    let done = host["operations"].as_array().expect("operations");
    let operations = document["plan"]["operations"].as_array().expect("a plan");
    let one = |operation: &Value| {
        let (_, planned) = operation["hosts"].as_object()?.iter().next()?;
        let outcome = done.iter().find(|done| done["id"] == operation["id"]).and_then(|done| done["outcome"].as_str());
        Some((operation["title"].as_str()?.to_owned(), (planned["outlook"].as_str()?.to_owned(), outcome.map(str::to_owned))))
    };
    operations.iter().map(|operation| one(operation).expect("an operation")).collect()
}

/// `--dry`, then the run itself, twice: what is done is what was said before.
fn quickstart(folder: &Path, prepare: impl Fn(&mut Command)) {
    let infra = |word: &str| {
        let mut command = common::infra(folder);
        command.args(["inventories/local.lua", "deploys/quickstart.lua", "--json", word]);
        prepare(&mut command);
        let ran = process::run(&mut command, Duration::from_secs(60)).expect("infra ends");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        serde_json::from_str::<Value>(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
    };
    for (outlook, outcomes, dry_state, state) in [
        ("change", ["changed"; 4], "planned-changes", "changed"),
        ("no-change", ["unchanged", "unchanged", "unchanged", "skipped"], "planned-none", "unchanged"),
    ] {
        let site = folder.join("quickstart-site");
        let before = site.exists();
        let dry = infra("--dry");
        assert_eq!(site.exists(), before, "--dry changes nothing");
        assert_eq!(dry["hosts"]["@local"]["state"], dry_state);
        let forecast: Vec<(String, String)> = told(&dry).into_iter().map(|(title, (outlook, _))| (title, outlook)).collect();
        assert_eq!(forecast.len(), 4);
        assert!(forecast.iter().all(|(_, said)| said == outlook), "{forecast:?}");

        let run = infra("--yes");
        assert_eq!(run["hosts"]["@local"]["state"], state);
        let done = told(&run);
        let planned: Vec<(String, String)> = done.iter().map(|(title, (outlook, _))| (title.clone(), outlook.clone())).collect();
        assert_eq!(planned, forecast, "the plan is the one that --dry showed");
        let mut came: Vec<&str> = done.values().filter_map(|(_, outcome)| outcome.as_deref()).collect();
        came.sort_unstable_by_key(|outcome| *outcome == "skipped");
        assert_eq!(came, outcomes);
    }
    let read = |name: &str| std::fs::read_to_string(folder.join("quickstart-site").join(name)).expect("a file of the site");
    assert!(read("index.html").contains("Made by infra for @local."));
    assert_eq!(read("robots.txt"), "Disallow: /drafts\n");
    assert_eq!(read("words.txt").split_whitespace().next(), Some(read("index.html").split_whitespace().count().to_string().as_str()));
}

#[test]
fn the_quickstart_does_what_its_plan_said() {
    quickstart(clone().path(), |_| {});
}

#[test]
fn the_quickstart_needs_no_privilege() {
    let clone = clone();
    // Whoever runs the tests as root gives the work to nobody; others are unprivileged already.
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("a process")) == 0;
    let nobody = 65534;
    if root {
        std::os::unix::fs::chown(clone.path(), Some(nobody), Some(nobody)).expect("root gives away");
    }
    // The binary may stand where only root may look.
    let program = clone.path().join("infra");
    std::fs::copy(env!("CARGO_BIN_EXE_infra"), &program).expect("a copy");
    quickstart(clone.path(), |command| {
        if root {
            let mut other = Command::new(&program);
            other.args(command.get_args()).current_dir(clone.path()).env_clear().stdin(std::process::Stdio::null());
            other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            other.uid(nobody).gid(nobody);
            *command = other;
        }
    });
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(clone.path().join("quickstart-site")).expect("a site"));
    assert_ne!(owner, 0, "the site belongs to who ran it");
}

/// Each deploy and the inventory that it is for. A deploy that stands nowhere here fails [`every_deploy_is_planned`].
const INVENTORIES: &[(&str, &str)] = &[
    ("experiment.lua", "experiment.lua"),
    ("nginx.lua", "fleet.lua"),
    ("quickstart.lua", "local.lua"),
    ("rolling_restart.lua", "app.lua"),
    ("worker.lua", "fleet.lua"),
];

#[test]
fn every_deploy_is_planned() {
    let names = |folder: &str| -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(common::repository().join(folder))
            .expect("a folder")
            .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
            .filter(|name| name.ends_with(".lua"))
            .collect();
        names.sort();
        names
    };
    let listed: Vec<&str> = INVENTORIES.iter().map(|(deploy, _)| *deploy).collect();
    assert_eq!(names("deploys"), listed, "each deploy names its inventory in this test");
    for inventory in names("inventories") {
        let inventory = format!("inventories/{inventory}");
        let ran = common::run(&common::repository(), &[&inventory, "hosts", "--json"]).expect(0);
        assert!(ran.json().as_object().is_some_and(|hosts| !hosts.is_empty()), "{inventory}");
    }
    // On this machine, under the data and in the groups of the inventory's first host: what a plan needs is there without its machines.
    for (deploy, inventory) in INVENTORIES {
        let clone = clone();
        let ran = common::run(clone.path(), &[&format!("inventories/{inventory}"), "hosts", "--json"]).expect(0).json();
        let (_, first) = ran.as_object().and_then(|hosts| hosts.iter().next()).expect("a host");
        let data = first["data"].as_object().expect("data");
        let lua: Vec<String> = data.iter().map(|(key, value)| format!("{key} = json.decode([==[{value}]==])")).collect();
        let groups = first["groups"].as_array().expect("groups").iter().filter_map(Value::as_str);
        let groups: String = groups.map(|group| format!("{group} = {{ \"@local\" }}\n")).collect();
        std::fs::write(clone.path().join("here.lua"), format!("{groups}here = {{ \"@local\", data = {{ {} }} }}\n", lua.join(", ")))
            .expect("a file");
        let ran = common::run(clone.path(), &["here.lua", &format!("deploys/{deploy}"), "--dry", "--json"]).expect(0).json();
        let planned = ran["plan"]["operations"].as_array().map_or(0, Vec::len);
        assert!(planned > 0, "{deploy}: {ran:#}");
        assert_eq!(ran["misuse"].as_array().map(Vec::len), Some(0));
        let after = std::fs::read_dir(clone.path()).expect("a folder").count();
        assert_eq!(after, 3, "{deploy}: --dry leaves nothing behind");
    }
}
