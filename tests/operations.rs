//! Every operation there is, on a real machine: fresh → the plan says *change* → changed → an independent look agrees → the plan says *no change* →
//! nothing is sent → and the same for taking it away.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use infra_test::snapshot::Snapshot;
use infra_test::{Fleet, Machine};
use serde_json::Value;

/// One operation, and how to see from outside that it did what it says.
struct Row {
    /// `module.operation`.
    operation: &'static str,
    /// Commands that make the ground it stands on.
    ground: &'static str,
    /// The call that is made on the fresh machine.
    wanted: &'static str,
    /// A command, and what it prints when the wish is fulfilled. It runs on the machine, for `files.get` beside the deploy.
    look: (&'static str, &'static str),
    /// What a second run does.
    again: Again,
    /// The call that takes it away again, a command, and what that prints then.
    away: Option<(&'static str, &'static str, &'static str)>,
}

#[derive(PartialEq)]
enum Again {
    Nothing,
    /// It is not idempotent and says so.
    Changes,
    /// It changes nothing, also the first time, and is done at every run.
    Waits,
}

const ROWS: &[Row] = &[
    Row {
        operation: "apt.update",
        ground: "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/lib/apt/periodic/*",
        wanted: "apt.update { cache_time = 3600 }",
        look: ("apt-cache policy hello | sed -n 's/ *Candidate: (none)/none/p'; echo known", "known"),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "apt.packages",
        ground: "true",
        wanted: r#"apt.packages { packages = { "hello", "git" } }"#,
        look: ("dpkg-query -W -f '${Package} ${db:Status-Abbrev}\\n' hello git", "git ii \nhello ii"),
        again: Again::Nothing,
        away: Some((r#"apt.packages { packages = "hello", present = false }"#, "test -e /usr/bin/hello || echo gone", "gone")),
    },
    Row {
        operation: "server.group",
        ground: "true",
        wanted: r#"server.group { group = "deployers", gid = 4242 }"#,
        look: ("getent group deployers", "deployers:x:4242:"),
        again: Again::Nothing,
        away: Some((r#"server.group { group = "deployers", present = false }"#, "getent group deployers || echo gone", "gone")),
    },
    Row {
        operation: "server.user",
        ground: "groupadd -g 4300 crew",
        wanted: r#"server.user { user = "alice", uid = 4343, shell = "/bin/bash", groups = { "crew" }, comment = "Alice A", create_home = true,
            public_keys = { "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLEa alice" } }"#,
        look: (
            "getent passwd alice | cut -d: -f3,5-7; id -nG alice; cd /home/alice; stat -c '%U %G %a' .ssh .ssh/authorized_keys; wc -l < .ssh/authorized_keys",
            "4343:Alice A:/home/alice:/bin/bash\nalice crew\nalice alice 700\nalice alice 600\n1",
        ),
        again: Again::Nothing,
        away: Some((r#"server.user { user = "alice", present = false }"#, "getent passwd alice || echo gone", "gone")),
    },
    Row {
        operation: "files.directory",
        ground: "true",
        wanted: r#"files.directory { path = "/srv/a/b c", user = "admin", group = "admin", mode = "2750" }"#,
        look: ("stat -c '%a %U %G %F' '/srv/a/b c' /srv/a", "2750 admin admin directory\n755 admin admin directory"),
        again: Again::Nothing,
        away: Some((r#"files.directory { path = "/srv/a", present = false }"#, "test -e /srv/a || echo gone", "gone")),
    },
    Row {
        operation: "files.file",
        ground: "true",
        wanted: r#"files.file { path = "/srv/flag", user = "admin", mode = "600" }"#,
        look: ("stat -c '%a %U %G %s' /srv/flag", "600 admin root 0"),
        again: Again::Nothing,
        away: Some((r#"files.file { path = "/srv/flag", present = false }"#, "test -e /srv/flag || echo gone", "gone")),
    },
    Row {
        operation: "files.link",
        ground: "true",
        wanted: r#"files.link { path = "/srv/links/host", target = "/etc/hostname" }"#,
        look: ("readlink /srv/links/host", "/etc/hostname"),
        again: Again::Nothing,
        away: Some((r#"files.link { path = "/srv/links/host", present = false }"#, "test -L /srv/links/host || echo gone", "gone")),
    },
    Row {
        operation: "files.put",
        ground: "true",
        wanted: r#"files.put { src = "motd.txt", dest = "/srv/put/it's here.txt", user = "plain", mode = "640" }"#,
        look: (
            "stat -c '%a %U' \"/srv/put/it's here.txt\"; cat \"/srv/put/it's here.txt\"; ls -A /srv/put | wc -l",
            "640 plain\nWelcome.\n1",
        ),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "files.get",
        ground: "printf 'a,b\\nc' > \"/srv/it's a report.csv\"",
        wanted: r#"files.get { src = "/srv/it's a report.csv", dest = "results/" .. host.name .. "/", create_local_dir = true }"#,
        look: ("cat \"results/web-01/it's a report.csv\"; ls -A results/web-01 | wc -l", "a,b\nc1"),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "files.sync",
        ground: "mkdir -p /srv/synced/gone && echo old > /srv/synced/a.txt && echo x > /srv/synced/gone/x && echo kept > /srv/synced/x.log",
        wanted: r#"files.sync { src = "tree", dest = "/srv/synced", user = "plain", mode = "640", dir_mode = "2750", delete = true, exclude = "*.log" }"#,
        look: (
            "cd /srv/synced && find . | LC_ALL=C sort && stat -c '%a %U %N' . a.txt 'sub/it is deep' 'sub/a link' && cat a.txt x.log",
            ".\n./a.txt\n./sub\n./sub/a link\n./sub/it is deep\n./sub/it is deep/b\n./x.log\n2750 plain '.'\n640 plain 'a.txt'\n\
             2750 plain 'sub/it is deep'\n777 plain 'sub/a link' -> '../a.txt'\nnew\nkept",
        ),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "files.template",
        ground: "true",
        wanted: r#"files.template { src = "hello.j2", dest = "/srv/hello.txt", vars = { names = { "a", "b" } } }"#,
        look: ("stat -c '%a %U' /srv/hello.txt; cat /srv/hello.txt", "644 root\na and b on web-01"),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "files.line",
        ground: "printf 'one\\nPermit no\\nlast' > /srv/lines.conf; chmod 640 /srv/lines.conf; chown plain /srv/lines.conf",
        wanted: r#"files.line { path = "/srv/lines.conf", line = "^Permit .*", replace = "Permit yes" }"#,
        look: ("stat -c '%a %U' /srv/lines.conf; cat /srv/lines.conf", "640 plain\none\nPermit yes\nlast"),
        again: Again::Nothing,
        away: Some((
            r#"files.line { path = "/srv/lines.conf", line = "Permit yes", present = false }"#,
            "cat /srv/lines.conf",
            "one\nlast",
        )),
    },
    Row {
        operation: "systemd.service",
        ground: "apt-get -qq install infra-probe >/dev/null 2>&1; systemctl stop infra-probe; systemctl disable infra-probe 2>/dev/null",
        wanted: r#"systemd.service { service = "infra-probe", running = true, enabled = true }"#,
        look: ("systemctl is-active infra-probe; systemctl is-enabled infra-probe", "active\nenabled"),
        again: Again::Nothing,
        away: Some((
            r#"systemd.service { service = "infra-probe", running = false, enabled = false }"#,
            "systemctl is-active infra-probe; systemctl is-enabled infra-probe; true",
            "inactive\ndisabled",
        )),
    },
    Row {
        operation: "server.service",
        ground: "true",
        wanted: r#"server.service { service = "infra-probe", running = true }"#,
        look: ("systemctl is-active infra-probe", "active"),
        again: Again::Nothing,
        away: Some((
            r#"server.service { service = "infra-probe", running = false }"#,
            "systemctl is-active infra-probe || true",
            "inactive",
        )),
    },
    Row {
        operation: "git.repo",
        ground: "git init -q -b main /srv/origin && cd /srv/origin && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first",
        wanted: r#"git.repo { src = "/srv/origin", dest = "/srv/app", branch = "main" }"#,
        look: ("git -C /srv/app log --format=%s", "first"),
        again: Again::Nothing,
        away: None,
    },
    Row {
        operation: "server.shell",
        ground: "true",
        wanted: r#"server.shell { commands = { "echo run >> /srv/shell.log" } }"#,
        look: ("sort -u /srv/shell.log", "run"),
        again: Again::Changes,
        away: None,
    },
    Row {
        operation: "server.script",
        ground: "true",
        wanted: r#"server.script { src = "script.sh", args = { "it's", "a  b" } }"#,
        look: ("sort -u /srv/script.log; find /tmp /var/tmp -name '*infra*' | wc -l", "it's/a  b\n0"),
        again: Again::Changes,
        away: None,
    },
    Row {
        operation: "server.wait",
        ground: "(sleep 3; touch /srv/there) >/dev/null 2>&1 &",
        wanted: r#"server.wait { file = "/srv/there", timeout = 30, interval = 0.2 }"#,
        look: ("ls /srv/there", "/srv/there"),
        again: Again::Waits,
        away: None,
    },
];

/// Several operations that build on each other.
struct Chain {
    /// Commands that make the ground they stand on.
    ground: &'static str,
    /// The deploy.
    deploy: &'static str,
    /// What the plan says of each operation on the fresh machine.
    plan: &'static [&'static str],
    /// A command, and what it prints when all is done.
    look: (&'static str, &'static str),
}

const CHAINS: &[Chain] = &[
    Chain {
        ground: "true",
        deploy: r#"
            server.group { group = "chained", gid = 4500 }
            server.user { user = "chain", group = "chained", groups = { "adm" }, home = "/srv/chain home" }
            files.directory { path = "/srv/chain home/.ssh", user = "chain", group = "chained", mode = "700" }
            local keys = files.put { content = "one\n", dest = "/srv/chain home/.ssh/keys", user = "chain", group = "chained", mode = "600" }
            files.line { path = "/srv/chain home/.ssh/keys", line = "it's $two" }
            server.shell { commands = "echo ran >> /srv/chained", _if = keys.did_change }
        "#,
        plan: &["change", "change", "change", "change", "change", "change"],
        look: (
            "cat '/srv/chain home/.ssh/keys' /srv/chained; stat -c '%a %U %G' '/srv/chain home/.ssh' '/srv/chain home/.ssh/keys'",
            "one\nit's $two\nran\n700 chain chained\n600 chain chained",
        ),
    },
    // What is written through a link is the same file by its real path, and is neither lost nor called unchanged.
    Chain {
        ground: "mkdir -p /srv/alias/real /srv/alias/one && ln -s one /srv/alias/old && echo 0 > /srv/alias/file && ln -s file /srv/alias/link",
        deploy: r#"
            files.put { content = "a\nb\n", dest = "/srv/alias/old/conf" }
            files.line { path = "/srv/alias/one/conf", line = "c" }
            files.link { path = "/srv/alias/new", target = "real" }
            files.put { content = "x\ny\n", dest = "/srv/alias/new/conf" }
            files.line { path = "/srv/alias/real/conf", line = "z" }
            files.put { content = "1\n", dest = "/srv/alias/file" }
            files.line { path = "/srv/alias/link", line = "2" }
        "#,
        plan: &["change", "change", "change", "change", "change", "change", "change"],
        look: ("cat /srv/alias/one/conf /srv/alias/real/conf /srv/alias/file", "a\nb\nc\nx\ny\nz\n1\n2"),
    },
    Chain {
        ground: "mkdir -p /root/site",
        deploy: r#"
            files.file { path = "flag", mode = "600", _chdir = "site" }
            files.directory { path = "sub", _chdir = "site" }
            server.shell { commands = "pwd > here", _chdir = "site" }
        "#,
        plan: &["change", "change", "change"],
        look: ("cd /root/site && ls; cat here", "flag\nhere\nsub\n/root/site"),
    },
];

/// What the plan says of each operation of a run: `change`, `no-change` or `depends`.
fn outlooks(document: &Value) -> Vec<String> {
    let operations = document["plan"]["operations"].as_array().unwrap_or_else(|| panic!("a plan: {document:#}"));
    operations.iter().map(|operation| text(&operation["hosts"]["web-01"]["outlook"], document)).collect()
}

/// How many predictions and outcomes were looked at; each is what it should be, or the test has failed there.
static LOOKED_AT: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];

/// What the plan says of the only operation of a run.
fn outlook(document: &Value) -> String {
    let mut all = outlooks(document);
    assert_eq!(all.len(), 1, "{document:#}");
    LOOKED_AT[0].fetch_add(1, Ordering::Relaxed);
    // A run that departed from its plan says so.
    let departures = document["departures"].as_array().map_or(0, Vec::len);
    assert_eq!(departures, 0, "a disagreement: {document:#}");
    all.remove(0)
}

/// What came of it: `changed`, `unchanged`, …
fn outcome(document: &Value) -> String {
    LOOKED_AT[1].fetch_add(1, Ordering::Relaxed);
    text(&document["hosts"]["web-01"]["operations"][0]["outcome"], document)
}

fn text(value: &Value, document: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not as expected: {document:#}")).to_owned()
}

fn infra(folder: &Path, config: &str, dry: bool) -> Value {
    run(folder, config, &[if dry { "--dry" } else { "--yes" }])
}

/// Runs the deploy, which keeps to its plan.
fn run(folder: &Path, config: &str, way: &[&str]) -> Value {
    let ran = common::run(folder, &[&["web-01", "deploy.lua", "--json", "--data", config], way].concat());
    let document = ran.expect(0).json();
    assert_eq!(document["departures"], Value::Array(Vec::new()), "{document:#}");
    document
}

fn look(machine: &Machine, command: &str) -> String {
    machine.check(["sh", "-c", command]).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// The same in a folder of this machine.
fn look_here(folder: &Path, command: &str) -> String {
    let mut shell = std::process::Command::new("sh");
    let printed = infra_test::process::run_well(shell.args(["-c", command]).current_dir(folder), std::time::Duration::from_secs(20));
    printed.unwrap_or_else(|error| panic!("{command}: {error}")).trim_end().to_owned()
}

/// One direction of a row: predicted, done, seen; and then nothing more to do.
fn direction(folder: &Path, config: &str, machine: &Machine, row: &Row, call: &str, seen: (&str, &str)) {
    std::fs::write(folder.join("deploy.lua"), call).expect("a deploy");
    let operation = row.operation;
    if row.again == Again::Waits {
        let document = infra(folder, config, false);
        assert_eq!((outlook(&document).as_str(), outcome(&document).as_str()), ("no-change", "unchanged"), "{operation}");
        assert_eq!(look(machine, seen.0), seen.1, "{operation} has waited for it");
        return;
    }
    assert_eq!(outlook(&infra(folder, config, true)), "change", "{operation}: the plan on a fresh machine: {call}");
    // It proves itself, with no operation of its kind counted that works at every run.
    let document = run(folder, config, &["--yes", "--prove"]);
    assert_eq!(document["proof"]["holds"], true, "{operation}: {call}");
    assert_eq!(outlook(&document), "change", "{operation}: the plan of the run: {call}");
    assert_eq!(outcome(&document), "changed", "{operation}: {call}");
    let found = if operation == "files.get" { look_here(folder, seen.0) } else { look(machine, seen.0) };
    assert_eq!(found, seen.1, "{operation}: an independent look: {call}");

    let before = machine.snapshot().expect("a snapshot");
    if row.again == Again::Changes {
        assert_eq!(outlook(&infra(folder, config, true)), "change", "{operation} is not idempotent");
        assert_eq!(outcome(&infra(folder, config, false)), "changed", "{operation} is not idempotent");
        return;
    }
    assert_eq!(outlook(&infra(folder, config, true)), "no-change", "{operation}: the plan once it is done: {call}");
    let document = infra(folder, config, false);
    assert_eq!(outcome(&document), "unchanged", "{operation}: again: {call}");
    let after = machine.snapshot().expect("a snapshot");
    let written = Snapshot::difference(&before, &after);
    assert!(written.is_empty(), "{operation} wrote something although nothing was to do: {written:#?}");
}

#[test]
fn every_operation_on_a_real_machine() {
    let fleet = Fleet::boot(&["web-01"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let machine = fleet.machine("web-01");
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("motd.txt"), "Welcome.\n").expect("a file");
    std::fs::create_dir_all(folder.join("tree/sub/it is deep")).expect("a tree");
    std::fs::write(folder.join("tree/a.txt"), "new\n").expect("a file");
    std::fs::write(folder.join("tree/sub/it is deep/b"), "b\n").expect("a file");
    std::os::unix::fs::symlink("../a.txt", folder.join("tree/sub/a link")).expect("a link");
    std::fs::write(folder.join("hello.j2"), "{{ names|join(' and ') }} on {{ host.name }}\n").expect("a template");
    std::fs::write(folder.join("script.sh"), "#!/bin/sh\necho \"$1/$2\" >> /srv/script.log\n").expect("a script");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());

    let mut seen: Vec<&str> = ROWS.iter().map(|row| row.operation).collect();
    seen.sort_unstable();
    let all = infra_std::registry();
    let known: Vec<&str> = all.operations().map(|definition| definition.name.as_str()).collect();
    assert_eq!(seen, known, "every operation has its row");

    for row in ROWS {
        println!("{}", row.operation);
        look(machine, row.ground);
        direction(folder, &config, machine, row, row.wanted, row.look);
        if let Some((call, command, output)) = row.away {
            direction(folder, &config, machine, row, call, (command, output));
        }
    }
    let [predictions, outcomes] = LOOKED_AT.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("{} operations: {predictions} predictions, {outcomes} outcomes, 0 disagreements", ROWS.len());
    for chain in CHAINS {
        look(machine, chain.ground);
        std::fs::write(folder.join("deploy.lua"), chain.deploy).expect("a deploy");
        assert_eq!(outlooks(&infra(folder, &config, true)), chain.plan, "{}", chain.deploy);
        let document = infra(folder, &config, false);
        let outcomes = document["hosts"]["web-01"]["operations"].as_array().expect("operations");
        assert!(outcomes.iter().all(|operation| operation["outcome"] == "changed"), "{}: {document:#}", chain.deploy);
        assert_eq!(look(machine, chain.look.0), chain.look.1, "{}", chain.deploy);
    }
    // What is fetched may be made by the same deploy; and it is waited for from this machine, at the address of the machine.
    let deploy = r#"
        server.shell { commands = "echo made > /srv/made" }
        files.get { src = "/srv/made", dest = "made" }
        server.wait { port = 22, from = "controller", timeout = 30 }
    "#;
    std::fs::write(folder.join("deploy.lua"), deploy).expect("a deploy");
    assert_eq!(outlooks(&infra(folder, &config, true)), ["change", "depends", "no-change"]);
    infra(folder, &config, false);
    assert_eq!(look_here(folder, "cat made"), "made");
    std::fs::write(folder.join("deploy.lua"), r#"server.wait { port = 1, from = "controller", timeout = 1 }"#).expect("a deploy");
    let waited = common::run(folder, &["web-01", "deploy.lua", "--yes", "--data", &config]).expect(1);
    assert!(waited.stderr.contains("gave up waiting after 1 s: not yet that the host takes connections on port 1"), "{}", waited.stderr);
    std::fs::write(folder.join("deploy.lua"), r#"files.get { src = "/srv/none", dest = "none" }"#).expect("a deploy");
    let refused = common::run(folder, &["web-01", "deploy.lua", "--yes", "--data", &config]).expect(1);
    assert!(refused.stderr.contains("there is no file /srv/none on the host"), "{}", refused.stderr);

    // What apt would refuse is refused before anything is done.
    look(machine, "apt-get -qq install infra-probe=1.0 --allow-downgrades >/dev/null 2>&1; apt-mark -qq hold infra-probe");
    for (arguments, message) in [
        (r#"packages = "infra-prob""#, "apt knows no package infra-prob"),
        (r#"packages = "infra-probe=2.0""#, "infra-probe is held"),
        (r#"packages = "infra-probe", present = false"#, "infra-probe is held"),
    ] {
        std::fs::write(folder.join("deploy.lua"), format!("apt.packages {{ {arguments} }}")).expect("a deploy");
        let refused = common::run(folder, &["web-01", "deploy.lua", "--yes", "--data", &config]).expect(1);
        assert!(refused.stderr.contains("cannot be planned") && refused.stderr.contains(message), "{arguments}: {}", refused.stderr);
    }
    drop(fleet);
}
