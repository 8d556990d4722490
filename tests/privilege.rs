//! sudo, su and doas as they are, on real machines: with passwords and without, and where they refuse.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::path::Path;

use common::Ran;
use infra_test::{Fleet, Machine};
use terminal::{Elsewhere, Terminal};

/// Passwords of the machines' people, which must never be seen.
const PLAIN: &str = "canary-of-plain-7243";
const ROOT: &str = "canary-of-root-7243";

/// Machines on which `plain` has to give a password to sudo and doas, and root to su.
fn boot(names: &[&str]) -> Fleet {
    let fleet = Fleet::boot(names).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    for machine in fleet.machines() {
        on(machine, &format!("printf 'plain:{PLAIN}\\nroot:{ROOT}\\n' | chpasswd"));
        on(machine, "echo 'plain ALL=(ALL:ALL) ALL' >/etc/sudoers.d/plain && chmod 440 /etc/sudoers.d/plain");
        on(machine, "printf 'permit plain\\npermit nopass admin\\n' >/etc/doas.conf && chmod 600 /etc/doas.conf");
    }
    fleet
}

/// What a command of root's prints on a machine.
#[track_caller]
fn on(machine: &Machine, command: &str) -> String {
    machine.check(["sh", "-c", command]).unwrap_or_else(|error| panic!("{command}: {error}")).trim().to_owned()
}

/// Runs a deploy on all machines, as this user.
fn deploy(fleet: &Fleet, user: &str, text: &str) -> Ran {
    std::fs::write(fleet.folder().join("deploy.lua"), text).expect("a deploy");
    common::run(fleet.folder(), &words(fleet, user, &["deploy.lua", "-vvv"]).iter().map(String::as_str).collect::<Vec<_>>())
}

fn words(fleet: &Fleet, user: &str, what: &[&str]) -> Vec<String> {
    let hosts = fleet.machines().iter().map(Machine::name).collect::<Vec<_>>().join(",");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    let own = [hosts.as_str()].into_iter().chain(what.iter().copied()).chain(["--user", user, "--data", &config]);
    own.map(str::to_owned).collect()
}

#[track_caller]
fn says(text: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(text.contains(line), "«{line}» is missing:\n{text}");
    }
}

/// Whether a text stands in a file of a folder, but for the scripts that gave it.
fn holds(folder: &Path, text: &str) -> Vec<String> {
    let found = infra_test::process::run(
        std::process::Command::new("grep").args(["-rlaF", "--exclude=*.lua", "--exclude-dir=upper", "--exclude-dir=root", "--exclude-dir=work", text]).arg(folder),
        std::time::Duration::from_secs(60),
    );
    found.expect("grep").stdout.lines().map(str::to_owned).collect()
}

#[test]
fn with_passwords_that_nobody_sees() {
    let fleet = boot(&["box"]);
    let machine = fleet.machine("box");
    // Looks at every process of the machine, again and again, for what must not stand there; and once on itself, to show that it looks.
    on(machine, "printf 'canary\\n' >/root/what && touch /root/watch");
    on(
        machine,
        "setsid sh -c 'cd /proc; while [ -e /root/watch ]; do grep -laf /root/what [0-9]*/cmdline [0-9]*/environ >>/root/seen 2>/dev/null; echo >>/root/rounds; done' >/dev/null 2>&1 &",
    );
    on(machine, "SHOWN=the-canary-of-the-watcher sh -c 'until [ -s /root/seen ]; do sleep 0.05; done'; : >/root/seen; sleep 0.3; : >/root/seen");

    let ran = deploy(
        &fleet,
        "plain",
        &format!(
            r#"
            local who = "echo $(id -un) $HOME $A"
            server.shell {{ name = "sudo", commands = {{ who }}, _env = {{ A = "1" }}, _sudo = true, _sudo_password = "{PLAIN}" }}
            server.shell {{ name = "sudo again", commands = {{ who }}, _sudo = true, _sudo_password = "{PLAIN}" }}
            server.shell {{ name = "sudo admin", commands = {{ who }}, _sudo = true, _sudo_user = "admin", _sudo_password = "{PLAIN}" }}
            server.shell {{ name = "log-in", commands = {{ "echo $(id -un) $PWD $0" }}, _sudo = true, _sudo_login = true, _sudo_password = "{PLAIN}" }}
            server.shell {{ name = "su", commands = {{ who }}, _su_user = "root", _su_password = "{ROOT}" }}
            server.shell {{ name = "su log-in", commands = {{ who, "echo $LOGNAME" }}, _su_user = "root", _su_login = true, _su_password = "{ROOT}" }}
            server.shell {{ name = "su shell", commands = {{ "echo $(id -un) $SHELL" }}, _su_user = "root", _su_shell = "/bin/bash", _su_password = "{ROOT}" }}
            server.shell {{ name = "both", commands = {{ who }}, _sudo = true, _sudo_password = "{PLAIN}", _su_user = "admin" }}
            files.put {{ name = "a file of root's", content = "of root\n", dest = "/etc/of-root", mode = "600", _sudo = true, _sudo_password = "{PLAIN}" }}
            files.put {{ name = "the same", content = "of root\n", dest = "/etc/of-root", mode = "600", _su_user = "root", _su_password = "{ROOT}" }}
            server.shell {{ name = "slow", commands = {{ "sleep 4711" }}, _timeout = 1, _sudo = true, _sudo_password = "{PLAIN}", _ignore_errors = true }}
            "#
        ),
    )
    .expect(0);
    says(
        &ran.stderr,
        &[
            "| root /root 1",
            "| admin /home/admin",
            "| root /root sh",
            "| root /bin/bash",
            "a file of root's: changed",
            "the same: no change",
            "slow: failed (ignored): timed out after 1 s",
        ],
    );
    assert!(!ran.stderr.contains("still running"), "{}", ran.stderr);
    assert_eq!(on(machine, "stat -c '%U %a' /etc/of-root; pgrep -fc '[s]leep 4711' || true"), "root 600\n0");

    on(machine, "rm /root/watch");
    assert!(on(machine, "wc -l </root/rounds").parse::<u32>().expect("a number") > 20);
    assert_eq!(on(machine, "sort -u /root/seen"), "");
    assert_eq!(on(machine, "grep -rlaF canary /tmp /var/tmp /home /run /var/log --exclude-dir=journal 2>/dev/null | sort"), "");
    assert!(!ran.stderr.contains("canary") && !ran.stdout.contains("canary"), "{}", ran.stderr);
    let text = common::run(fleet.folder(), &["runs", "show", "--json"]).expect(0).stdout;
    assert!(text.contains("a file of root's") && !text.contains("canary"), "{text}");
    assert_eq!(holds(fleet.folder(), "canary-of"), Vec::<String>::new());
}
