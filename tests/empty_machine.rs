//! A deploy on an empty machine: the plan says what becomes of each operation although nothing of what it stands on is there yet, and the run keeps to it.

mod common;

use std::path::Path;

use infra_test::{Fleet, Machine};
use serde_json::Value;

/// The unit of the deploy, as a template.
const UNIT: &str = "[Unit]\nDescription={{ title }}\n\n[Service]\nUser={{ user }}\nExecStart=/bin/sleep infinity\n\n[Install]\nWantedBy=multi-user.target\n";

/// The same deploy in several ways: with arguments for what is done in the home of the user, with another spelling of its path, and with something before
/// and in the middle of it.
struct Way {
    /// What it is about.
    name: &'static str,
    /// Commands that make the ground it stands on.
    ground: &'static str,
    /// Operations before all others.
    before: &'static str,
    /// The home of the user, as the deploy spells it.
    home: &'static str,
    /// Its real path.
    real: &'static str,
    /// Who shall own what is made in the home, where that is not who makes it.
    owner: &'static str,
    /// As whom things are done in the home.
    inside: &'static str,
    /// An operation between the file and its line.
    middle: &'static str,
    /// What the plan says of each operation.
    plan: &'static [&'static str],
}

const CHANGE: &str = "change";

const OWNER: &str = r#"user = "app", group = "app","#;

/// The plain one.
const PLAIN: Way = Way {
    name: "as root",
    ground: "true",
    before: "",
    home: "/srv/plain",
    real: "/srv/plain",
    owner: OWNER,
    inside: "",
    middle: "",
    plan: &[CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, "depends"],
};

const WAYS: &[Way] = &[
    PLAIN,
    Way {
        name: "as the new user, by sudo",
        home: "/srv/sudo",
        real: "/srv/sudo",
        owner: "",
        inside: r#"_sudo = true, _sudo_user = "app""#,
        ..PLAIN
    },
    Way { name: "as the new user, by su", home: "/srv/su", real: "/srv/su", owner: "", inside: r#"_su_user = "app""#, ..PLAIN },
    Way {
        name: "through a link that is there",
        ground: "mkdir -p /data/old && ln -s /data/old /srv/linked",
        home: "/srv/linked/app",
        real: "/data/old/app",
        ..PLAIN
    },
    Way {
        name: "through a link that the deploy makes, to a directory that it makes",
        before: r#"
            files.directory { name = "Disk", path = "/data/new" }
            files.link { name = "Link", path = "/srv/new", target = "/data/new" }
        "#,
        home: "/srv/new/app",
        real: "/data/new/app",
        plan: &[CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, "depends"],
        ..PLAIN
    },
    Way {
        name: "as the new user, through a link that the deploy makes",
        ground: "mkdir -p /data/both",
        before: r#"files.link { name = "Link", path = "/srv/both", target = "../data/both" }"#,
        home: "/srv/both/app",
        real: "/data/both/app",
        owner: "",
        inside: r#"_sudo = true, _sudo_user = "app""#,
        plan: &[CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, "depends"],
        ..PLAIN
    },
    Way {
        name: "with a command in the middle",
        home: "/srv/middle",
        real: "/srv/middle",
        middle: r#"server.shell { name = "Command", commands = { sh("echo middle >> {}", home .. "/etc/app.conf") } }"#,
        plan: &[CHANGE, CHANGE, CHANGE, CHANGE, CHANGE, "depends", "depends", "depends"],
        ..PLAIN
    },
];

impl Way {
    fn deploy(&self) -> String {
        let Self { before, home, owner, inside, middle, .. } = self;
        format!(
            r#"
            local home = "{home}"
            {before}
            server.user {{ name = "User", user = "app", home = home, shell = "/bin/sh", system = true }}
            files.directory {{ name = "Directory", path = home .. "/etc", mode = "750", {owner} {inside} }}
            files.put {{ name = "Page", content = "I am " .. host.name .. "\n", dest = home .. "/etc/page", mode = "640", {owner} {inside} }}
            files.file {{ name = "File", path = home .. "/etc/app.conf", mode = "640", {owner} {inside} }}
            {middle}
            files.line {{ name = "Line", path = home .. "/etc/app.conf", line = "workers = 4", {inside} }}
            local unit = files.template {{
              name = "Unit", src = "app.service.j2", dest = "/etc/systemd/system/app.service", mode = "644", vars = {{ title = "An app", user = "app" }},
            }}
            systemd.service {{ name = "Service", service = "app", running = true, enabled = true, daemon_reload = unit.did_change }}
            "#
        )
    }
}

fn look(machine: &Machine, command: &str) -> String {
    machine.check(["sh", "-c", command]).unwrap_or_else(|error| panic!("{}: {command}: {error}", machine.name()))
}

/// Each operation of a plan: its title, what is said of it, and what else is in it.
fn planned<'d>(document: &'d Value, host: &str) -> Vec<(&'d str, &'d str, &'d Value)> {
    let operations = document["plan"]["operations"].as_array().unwrap_or_else(|| panic!("a plan in {document:#}"));
    let one = |operation: &'d Value| {
        let said = &operation["hosts"][host];
        (operation["title"].as_str().expect("a title"), said["outlook"].as_str().unwrap_or("none"), said)
    };
    operations.iter().map(one).collect()
}

/// What is shown of a change in a text file.
fn diff<'d>(said: &'d Value, path: &str) -> &'d str {
    let diffs = said["diffs"].as_array().unwrap_or_else(|| panic!("diffs in {said:#}"));
    let of = diffs.iter().find(|diff| diff["path"] == path).unwrap_or_else(|| panic!("a diff of {path} in {said:#}"));
    of["diff"].as_str().expect("a text").split_once("@@\n").expect("a hunk").1
}

#[test]
fn a_plan_for_an_empty_machine_is_kept_to() {
    let names = ["way-1", "way-2", "way-3", "way-4", "way-5", "way-6", "way-7"];
    assert_eq!(names.len(), WAYS.len(), "a machine for each way");
    let fleet =
        Fleet::boot(&[&names[..], &["worker"]].concat()).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.service.j2"), UNIT).expect("a template");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    for (way, host) in WAYS.iter().zip(names) {
        kept_to(way, host, folder.path(), &config, fleet.machine(host));
    }
    the_deploy_of_the_book(&config, fleet.machine("worker"));
}

/// The deploy that the book shows for this: all is known beforehand but what systemd makes of the unit.
fn the_deploy_of_the_book(config: &str, machine: &Machine) {
    let folder = tempfile::tempdir().expect("a folder");
    let deploy = common::repository().join("deploys/worker.lua").display().to_string();
    let run = |words: &[&str]| common::run(folder.path(), &[&["worker", deploy.as_str(), "--json", "--data", config], words].concat());
    let done = run(&["--yes", "--prove"]).expect(0).json();
    let said: Vec<(&str, &str)> = planned(&done, "worker").into_iter().map(|(title, outlook, _)| (title, outlook)).collect();
    let change = |title| (title, CHANGE);
    let wanted = ["User", "Folder", "Settings", "How many at once", "Unit"].map(|title| format!("Worker | {title}"));
    let wanted: Vec<(&str, &str)> = wanted.iter().map(|title| change(title.as_str())).chain([("Worker | Run", "depends")]).collect();
    assert_eq!(said, wanted);
    assert_eq!((&done["departures"], &done["proof"]["holds"]), (&Value::Array(Vec::new()), &Value::Bool(true)), "{:#}", done["proof"]);
    let seen = "cd /srv/worker/etc && stat -c '%U %G %a' . worker.conf && cat worker.conf && systemctl is-active worker && systemctl is-enabled worker";
    assert_eq!(look(machine, seen), "worker worker 750\nworker worker 640\nat_once = 4\nactive\nenabled");
}

fn kept_to(way: &Way, host: &str, folder: &Path, config: &str, machine: &Machine) {
    let Way { name, home, real, .. } = way;
    std::fs::write(folder.join("deploy.lua"), way.deploy()).expect("a deploy");
    let run = |words: &[&str]| common::run(folder, &[&[host, "deploy.lua", "--json", "--data", config], words].concat());
    look(machine, way.ground);

    let dry = run(&["--dry", "--diff"]).expect(0).json();
    let said = planned(&dry, host);
    assert_eq!(said.iter().map(|(_, outlook, _)| *outlook).collect::<Vec<_>>(), way.plan, "{name}: {said:#?}");
    let of = |title: &str| said.iter().find(|one| one.0 == title).unwrap_or_else(|| panic!("{title} in {said:#?}")).2;
    assert_eq!(diff(of("Page"), &format!("{home}/etc/page")), format!("+I am {host}\n"), "{name}");
    assert_eq!(of("Service")["on"], "Unit", "{name}");
    if way.middle.is_empty() {
        assert_eq!(diff(of("Line"), &format!("{home}/etc/app.conf")), "+workers = 4\n", "{name}");
        let unit: String =
            UNIT.replace("{{ title }}", "An app").replace("{{ user }}", "app").lines().map(|line| format!("+{line}\n")).collect();
        assert_eq!(diff(of("Unit"), "/etc/systemd/system/app.service"), unit, "{name}");
    } else {
        assert_eq!((&of("Line")["on"], &of("Unit")["on"]), (&Value::from("Command"), &Value::from("Command")), "{name}");
    }
    let untouched = format!("getent passwd app; ls -d {real} /etc/systemd/system/app.service 2>/dev/null; echo nothing");
    assert_eq!(look(machine, &untouched), "nothing", "{name}: a plan changes nothing");

    let done = run(&["--yes", "--prove"]).expect(0).json();
    let outlooks =
        |document: &Value| planned(document, host).into_iter().map(|one| (one.0.to_owned(), one.1.to_owned())).collect::<Vec<_>>();
    assert_eq!(outlooks(&done), outlooks(&dry), "{name}: the plan of the run is that of --dry");
    let outcomes = done["hosts"][host]["operations"].as_array().expect("operations");
    assert!(outcomes.iter().all(|one| one["outcome"] == "changed") && outcomes.len() == said.len(), "{name}: {outcomes:#?}");
    assert_eq!(
        (&done["departures"], &done["proof"]["holds"]),
        (&Value::Array(Vec::new()), &Value::Bool(true)),
        "{name}: {:#}",
        done["proof"]
    );

    let seen = format!(
        "cd {real}/etc && stat -c '%n %U %G %a' . page app.conf && cat page app.conf && systemctl is-active app && systemctl is-enabled app"
    );
    let appended = if way.middle.is_empty() { "" } else { "middle\n" };
    assert_eq!(
        look(machine, &seen),
        format!(". app app 750\npage app app 640\napp.conf app app 640\nI am {host}\n{appended}workers = 4\nactive\nenabled"),
        "{name}"
    );
    if way.middle.is_empty() {
        let again = run(&["--dry", "--detailed-exitcode"]).expect(0).json();
        assert!(planned(&again, host).iter().all(|(_, outlook, _)| *outlook == "no-change"), "{name}: {again:#}");
    }
}
