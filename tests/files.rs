//! Files and trees between this machine and hosts, as a user sees it: over real sshd, large ones, and on disks that fail.

mod common;
#[path = "files/disks.rs"]
mod disks;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use infra_test::{Sshd, SshdOptions, process};
use serde_json::Value;

/// Some hosts behind one sshd, each of which works in a folder of its own.
struct Hosts {
    sshd: Sshd,
    folder: tempfile::TempDir,
}

impl Hosts {
    fn start(count: usize) -> Self {
        let names = (1..=count).map(|number| format!("h-{number:02}"));
        let sshd = Sshd::start(SshdOptions::default().aliases(names)).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().expect("a folder");
        let mut inventory = String::from("all_of_them = {\n");
        for (name, _) in sshd.aliases() {
            let home = folder.path().join("hosts").join(name);
            std::fs::create_dir_all(&home).expect("a folder for the host");
            inventory.push_str(&format!("  {{ {name:?}, _chdir = {:?} }},\n", home.display().to_string()));
        }
        inventory.push_str("}\n");
        std::fs::write(folder.path().join("hosts.lua"), inventory).expect("an inventory");
        Self { sshd, folder }
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a host works.
    fn of(&self, host: &str) -> PathBuf {
        self.folder().join("hosts").join(host)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infra"));
        command.current_dir(self.folder()).env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH"));
        command.env("HOME", self.sshd.folder()).env("XDG_RUNTIME_DIR", self.sshd.folder().join("r")).stdin(Stdio::null());
        command.arg("hosts.lua").args(words).arg("--data").arg(format!("ssh_config_file={}", self.sshd.ssh_config().display()));
        command
    }

    fn infra(&self, words: &[&str]) -> common::Ran {
        let ran = common::ran(&mut self.command(words));
        common::nothing_left(&self.sshd);
        ran
    }
}

/// All below a folder: for each path its type and content, or where it leads; in order.
fn listing(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let entry = entry.expect("an entry");
            let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
            let what = if kind.is_dir() {
                open.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("→ {}", std::fs::read_link(&path).expect("a link").display())
            } else {
                digest_of(&path)
            };
            all.push((path.strip_prefix(folder).expect("below").display().to_string(), what));
        }
    }
    all.sort();
    all
}

fn digest_of(path: &Path) -> String {
    infra_core::digest::sha256(&std::fs::read(path).expect("a file"))
}

/// A local tree of some files, with names that a careless command would stumble over.
fn site(folder: &Path) -> PathBuf {
    let site = folder.join("site");
    std::fs::create_dir_all(site.join("css/it's deep/$HOME")).expect("folders");
    for (name, content) in
        [("index.html", "<h1>1</h1>\n"), ("css/a b.css", "a{}\n"), ("css/it's deep/$HOME/-n", "x"), ("empty", ""), ("*", "star")]
    {
        std::fs::write(site.join(name), content).expect("a file");
    }
    std::fs::write(site.join("run.sh"), "#!/bin/sh\n").expect("a file");
    std::fs::set_permissions(site.join("run.sh"), std::fs::Permissions::from_mode(0o750)).expect("a mode");
    symlink("index.html", site.join("home")).expect("a link");
    site
}

fn states(ran: &common::Ran) -> Vec<String> {
    let document = ran.json();
    let hosts = document["hosts"].as_object().expect("hosts");
    hosts.values().map(|host| host["state"].as_str().expect("a state").to_owned()).collect()
}

fn wire(ran: &common::Ran, host: &str) -> Value {
    ran.json()["hosts"][host]["traffic"].clone()
}

#[test]
fn a_tree_goes_to_all_hosts_and_comes_back_from_each() {
    let hosts = Hosts::start(6);
    let site = site(hosts.folder());
    // Nothing is done that was only to be shown.
    let dry = hosts.infra(&["copy", "site", "srv", "--dry", "--json"]).expect(0);
    assert_eq!(states(&dry), ["planned-changes"; 6]);
    assert_eq!(listing(&hosts.of("h-01")), []);
    // The directory itself; with a slash, what it holds.
    let copied = hosts.infra(&["copy", "site", "srv", "--json"]).expect(0);
    assert_eq!(states(&copied), ["changed"; 6]);
    hosts.infra(&["copy", "site/", "other", "--limit", "h-02"]).expect(0);
    for host in ["h-01", "h-02", "h-06"] {
        assert_eq!(listing(&hosts.of(host).join("srv/site")), listing(&site), "{host}");
        let mode = |name: &str| std::fs::metadata(hosts.of(host).join("srv/site").join(name)).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode("run.sh"), 0o750);
    }
    assert_eq!(listing(&hosts.of("h-02").join("other")), listing(&site));
    assert!(!hosts.of("h-01").join("other").exists());

    // Again: nothing to do, and the whole of it is found out in one round trip.
    let again = hosts.infra(&["copy", "site", "srv", "--json"]).expect(0);
    assert_eq!(states(&again), ["unchanged"; 6]);
    assert_eq!(wire(&again, "h-03")["round_trips"], 1, "{:#}", again.json()["hosts"]["h-03"]);

    // What one host has changed is put right there alone.
    std::fs::write(hosts.of("h-04").join("srv/site/index.html"), "defaced").expect("a file");
    std::fs::remove_file(hosts.of("h-04").join("srv/site/home")).expect("a link");
    std::fs::write(hosts.of("h-05").join("srv/site/old"), "old").expect("a file");
    let put_right = hosts.infra(&["copy", "site", "srv", "--json"]).expect(0);
    assert_eq!(states(&put_right), ["unchanged", "unchanged", "unchanged", "changed", "unchanged", "unchanged"]);
    assert!(hosts.of("h-05").join("srv/site/old").exists());
    hosts.infra(&["copy", "site", "srv", "delete=true", "--yes"]).expect(0);
    for host in ["h-04", "h-05"] {
        assert_eq!(listing(&hosts.of(host).join("srv/site")), listing(&site), "{host}");
    }

    // Back, into a folder of each host.
    let fetched = hosts.infra(&["fetch", "srv/site", "got", "--json"]).expect(0);
    assert_eq!(states(&fetched), ["changed"; 6]);
    for host in ["h-01", "h-06"] {
        assert_eq!(listing(&hosts.folder().join("got").join(host).join("site")), listing(&site), "{host}");
    }
    assert_eq!(states(&hosts.infra(&["fetch", "srv/site", "got", "--json"]).expect(0)), ["unchanged"; 6]);
    hosts.infra(&["fetch", "srv/site/run.sh", "one", "--limit", "h-01"]).expect(0);
    assert_eq!(listing(&hosts.folder().join("one/h-01")).len(), 1);
    // A host that has not what is wanted fails alone.
    std::fs::remove_dir_all(hosts.of("h-02").join("srv")).expect("removed");
    let part = hosts.infra(&["fetch", "srv/site/", "part"]).expect(1);
    assert!(part.stderr.contains("there is no directory"), "{}", part.stderr);
    assert_eq!(listing(&hosts.folder().join("part/h-03")), listing(&site));
    assert!(!hosts.folder().join("part/h-02").exists());
}

#[test]
fn a_thousand_unchanged_files_are_one_round_trip_and_ten_thousand_are_read() {
    let hosts = Hosts::start(1);
    let tree = hosts.folder().join("tree");
    for folder in 0..100 {
        let folder = tree.join(format!("a folder of some length {folder}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in 0..100 {
            std::fs::write(folder.join(format!("a file with a name of some length, number {file}")), format!("{file}")).expect("a file");
        }
    }
    let copied = hosts.infra(&["copy", "tree", "srv", "--json"]).expect(0);
    assert_eq!(states(&copied), ["changed"]);
    assert_eq!(listing(&hosts.of("h-01").join("srv/tree")), listing(&tree));
    let again = hosts.infra(&["copy", "tree", "srv", "--json"]).expect(0);
    assert_eq!((states(&again), &wire(&again, "h-01")["round_trips"]), (vec!["unchanged".to_owned()], &Value::from(1)));
    let fetched = hosts.infra(&["fetch", "srv/tree/a folder of some length 7/", "got", "--json"]).expect(0);
    assert_eq!(states(&fetched), ["changed"]);
    assert_eq!(listing(&hosts.folder().join("got/h-01")), listing(&tree.join("a folder of some length 7")));
}

#[test]
fn the_operation_takes_owners_modes_and_what_is_left_out() {
    let hosts = Hosts::start(1);
    let site = site(hosts.folder());
    std::fs::create_dir_all(site.join(".git/objects")).expect("a folder");
    std::fs::write(site.join(".git/objects/x"), "x").expect("a file");
    std::fs::write(site.join("css/debug.log"), "x").expect("a file");
    let home = hosts.of("h-01").join("app");
    std::fs::create_dir_all(home.join("logs")).expect("a folder");
    std::fs::create_dir_all(home.join("stale/deeper")).expect("a folder");
    std::fs::write(home.join("logs/kept.log"), "kept").expect("a file");
    std::fs::write(home.join("stale/deeper/file"), "stale").expect("a file");
    symlink("/etc/passwd", home.join("index.html")).expect("a link in the way");
    let deploy = r#"
        local s = files.sync { src = "site", dest = "app", user = "daemon", group = "sys", mode = "640", dir_mode = "750", delete = true,
            exclude = "*.log", exclude_dir = { ".git" } }
        files.line { path = "app/empty", line = "made known by the plan" }
        server.shell { commands = "echo changed > flag", _if = s.did_change }
    "#;
    std::fs::write(hosts.folder().join("deploy.lua"), deploy).expect("a deploy");
    let ran = hosts.infra(&["deploy.lua", "--yes", "--json"]).expect(0);
    assert_eq!(ran.json()["departures"], Value::Array(Vec::new()), "{:#}", ran.json());
    let found: Vec<String> = listing(&home).into_iter().map(|(path, _)| path).collect();
    let wanted = [
        "*",
        "css",
        "css/a b.css",
        "css/it's deep",
        "css/it's deep/$HOME",
        "css/it's deep/$HOME/-n",
        "empty",
        "home",
        "index.html",
        "logs",
        "logs/kept.log",
        "run.sh",
    ];
    assert_eq!(found, wanted);
    let look = r#"cd "$1" && stat -c '%U:%G %a' . css run.sh index.html && stat -c '%U:%G' home && cat empty ../flag && readlink home"#;
    let printed = process::run_well(Command::new("sh").args(["-c", look, "sh"]).arg(&home), Duration::from_secs(20)).expect("a look");
    assert_eq!(
        printed,
        "daemon:sys 750\ndaemon:sys 750\ndaemon:sys 640\ndaemon:sys 640\ndaemon:sys\nmade known by the plan\nchanged\nindex.html\n"
    );
    assert!(!std::fs::read_to_string("/etc/passwd").expect("a file").contains("<h1>"), "no link is written through");
    // What another operation of the deploy has changed is a change again; without it there is none.
    std::fs::write(hosts.folder().join("deploy.lua"), deploy.replace("files.line", "-- files.line")).expect("a deploy");
    hosts.infra(&["deploy.lua", "--yes"]).expect(0);
    let ran = hosts.infra(&["deploy.lua", "--yes", "--json", "--prove"]).expect(0);
    assert_eq!(states(&ran), ["unchanged"]);

    // In the way, and nothing says that it may go.
    std::fs::remove_file(home.join("empty")).expect("a file");
    std::fs::create_dir(home.join("empty")).expect("a folder");
    let refused = hosts.infra(&["copy", "site/", "app", "exclude=*.log"]).expect(1);
    assert!(refused.stderr.contains("app/empty is in the way: it is a directory on the host"), "{}", refused.stderr);
    // The source is looked at again before anything is sent.
    let missing = hosts.infra(&["files.sync", "src=nowhere", "dest=x", "--yes"]).expect(1);
    assert!(missing.stderr.contains("there is no directory") && missing.stderr.contains("nowhere on this machine"), "{}", missing.stderr);
}

/// Runs infra and gives the most memory that it had at once, in KiB.
fn most_memory(command: &mut Command) -> u64 {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("infra starts");
    let mut most = 0;
    let ended = process::wait_for(Duration::from_secs(280), || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(most);
        child.try_wait().expect("a child of ours")
    });
    if ended.is_none() {
        let _ = child.kill();
    }
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
    most
}

#[test]
fn large_files_are_not_held_in_memory() {
    const SIZE: u64 = 768 << 20;
    const MOST: u64 = 128 << 10;
    let hosts = Hosts::start(1);
    let local = hosts.folder().join("large");
    std::fs::create_dir(&local).expect("a folder");
    std::fs::File::create(local.join("file")).expect("a file").set_len(SIZE).expect("a sparse file");
    let size = |path: PathBuf| std::fs::metadata(path).expect("there").len();
    for (words, made) in [
        (["copy", "large/file", "one"], hosts.of("h-01").join("one")),
        (["copy", "large/", "tree"], hosts.of("h-01").join("tree/file")),
        (["fetch", "one", "got"], hosts.folder().join("got/h-01/one")),
        (["fetch", "tree/", "gots"], hosts.folder().join("gots/h-01/file")),
    ] {
        let memory = most_memory(&mut hosts.command(&words));
        assert!(memory < MOST, "{words:?}: {memory} KiB");
        assert_eq!(size(made.clone()), SIZE, "{words:?}");
        if words[0] == "fetch" {
            std::fs::remove_file(made).expect("removed");
        }
    }
}
