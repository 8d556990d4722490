//! sudo, su and doas as they are, on real machines: with passwords and without, and where they refuse.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::path::Path;

use common::{Ran, says};
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

/// Whether a text stands in a file of a folder, but for the scripts that gave it.
fn holds(folder: &Path, text: &str) -> Vec<String> {
    let found = infra_test::process::run(
        std::process::Command::new("grep")
            .args(["-rlaF", "--exclude=*.lua", "--exclude-dir=upper", "--exclude-dir=root", "--exclude-dir=work", text])
            .arg(folder),
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
    on(machine, "SHOWN=the-canary-of-the-watcher sh -c 'until [ -s /root/seen ]; do sleep 0.05; done'");
    // The round in which that was seen is over, and a whole one since.
    on(machine, "n=$(wc -l </root/rounds); until [ $(wc -l </root/rounds) -gt $((n + 1)) ]; do sleep 0.05; done; : >/root/seen");

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

#[test]
fn who_wants_no_password_is_never_given_one() {
    let fleet = boot(&["box"]);
    let machine = fleet.machine("box");
    // Writes down what sudo reads.
    on(
        machine,
        "printf '#!/bin/sh\\necho \"$(id -un) $*\" >>/tmp/words\\ntee -a /tmp/read | /usr/bin/sudo \"$@\"\\n' >/usr/local/bin/sudo",
    );
    on(machine, "chmod 755 /usr/local/bin/sudo; touch /tmp/read /tmp/words; chmod 666 /tmp/read /tmp/words");
    let text = format!(
        r#"
        server.shell {{ name = "one", commands = {{ "id -un" }}, _sudo = true, _sudo_password = "{PLAIN}" }}
        files.put {{ name = "two", content = host.name, dest = "/etc/of-root", _sudo = true, _sudo_password = "{PLAIN}" }}
        "#
    );
    // Without a password by sudoers.
    says(&deploy(&fleet, "admin", &text).expect(0).stderr, &["| root", "two: changed"]);
    assert_eq!(on(machine, "grep -c 'admin -n -H' /tmp/words >/dev/null && grep -c canary /tmp/read || true"), "0");

    // With one, which sudo remembers: it is read once, and no other time.
    on(machine, "echo 'Defaults timestamp_type=global' >/etc/sudoers.d/global; : >/tmp/read");
    says(&deploy(&fleet, "plain", &text).expect(0).stderr, &["| root", "two: no change"]);
    assert_eq!(on(machine, "grep -c canary /tmp/read"), "1");
    says(&deploy(&fleet, "plain", &text).expect(0).stderr, &["| root"]);
    assert_eq!(on(machine, "grep -c canary /tmp/read"), "1");
}

#[test]
fn a_wrong_password_reaches_one_host() {
    let fleet = boot(&["one", "two", "three"]);
    let tried = || -> usize {
        let count = "journalctl -q --no-pager -t sudo -t su -t doas | grep -c 'authentication failure;' || true";
        fleet.machines().iter().map(|machine| on(machine, count).parse::<usize>().expect("a number")).sum()
    };
    let wrong = r#"server.shell { name = "as root", commands = { "touch /wrong" }, _sudo = true, _sudo_password = "not-the-password" }"#;
    let ran = deploy(&fleet, "plain", wrong).expect(1);
    says(
        &ran.stderr,
        &["sudo does not take the password; it is not tried again", "did not take the one there is; it is tried on no other host"],
    );
    says(&ran.stderr, &["3 hosts: 3 failed"]);
    assert_eq!(tried(), 1, "{}", ran.stderr);
    let wrong = r#"server.shell { name = "as root", commands = { "touch /wrong" }, _su_user = "root", _su_password = "not-the-password" }"#;
    says(&deploy(&fleet, "plain", wrong).expect(1).stderr, &["su does not take the password", "3 hosts: 3 failed"]);
    assert_eq!(tried(), 2);
    // The right one goes to all of them.
    let right =
        format!(r#"server.shell {{ name = "as root", commands = {{ "touch /right" }}, _sudo = true, _sudo_password = "{PLAIN}" }}"#);
    deploy(&fleet, "plain", &right).expect(0);
    for machine in fleet.machines() {
        assert_eq!(on(machine, "ls -d /right /wrong 2>/dev/null || true"), "/right");
    }
    assert_eq!(tried(), 2);
}

#[test]
fn it_is_asked_for_at_the_terminal_once() {
    let fleet = boot(&["one", "two"]);
    let command = |what: &[&str]| {
        let mut command = common::infra(fleet.folder());
        command.args(words(&fleet, "plain", what));
        command
    };
    let shell = |own: &str| {
        let text = format!("server.shell {{ name = 'who', commands = {{ 'echo it is $(id -un)' }}, {own} }}");
        std::fs::write(fleet.folder().join("deploy.lua"), text).expect("a deploy");
    };
    for (own, option, prompt, password) in [
        ("_sudo = true", Some("--ask-sudo-password"), "Password for sudo on all hosts: ", PLAIN),
        ("_sudo = true", None, "asks for a password to become root (and wherever else sudo does): ", PLAIN),
        ("_doas = true", Some("--ask-doas-password"), "Password for doas on all hosts: ", PLAIN),
        (
            "_doas = true, _doas_user = 'admin', _sudo = true",
            None,
            "asks for a password to become admin (and wherever else doas does): ",
            PLAIN,
        ),
        ("_su_user = 'root'", Some("--ask-su-password"), "Password for su on all hosts: ", ROOT),
        ("_su_user = 'root'", None, "asks for a password to become root (and wherever else su does): ", ROOT),
    ] {
        shell(own);
        let mut terminal =
            Terminal::start(command(&[&["deploy.lua", "--yes", "-vvv"][..], option.as_slice()].concat()), Elsewhere::default());
        terminal.wait_for(prompt);
        terminal.press(&format!("{password}\r"));
        let ended = terminal.end();
        assert_eq!(ended.code, Some(0), "{own}: {}", ended.screen);
        assert_eq!(ended.screen.matches("| it is root").count(), 2, "{own}: {}", ended.screen);
        assert!(!ended.raw.contains("canary"), "{own}: {}", ended.screen);
        assert_eq!(ended.raw.matches(prompt).count(), 1, "{own}: {}", ended.raw);
    }
    // No answer is an answer, and Ctrl-C ends the run; the terminal shows again what is typed.
    shell("_sudo = true");
    let mut terminal = Terminal::start(command(&["deploy.lua", "--yes"]), Elsewhere::default());
    terminal.wait_for("asks for a password to become root");
    terminal.press("\r");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(1), "{}", ended.screen);
    says(&ended.screen, &["no password was given"]);
    let mut terminal = Terminal::start(command(&["deploy.lua", "--yes"]), Elsewhere::default());
    terminal.wait_for("asks for a password to become root");
    terminal.press_control_c();
    assert_eq!(terminal.end().code, Some(130));
}

#[test]
fn refusals_are_told_apart() {
    let fleet = boot(&["box"]);
    let machine = fleet.machine("box");
    let refused = |user: &str, own: &str, wanted: &str| {
        let ran = deploy(&fleet, user, &format!("server.shell {{ name = 'who', commands = {{ 'id -un; true' }}, {own} }}")).expect(1);
        assert!(ran.stderr.contains(wanted), "{own}: «{wanted}» is missing:\n{}", ran.stderr);
    };
    let given = format!("_sudo = true, _sudo_password = '{PLAIN}'");
    refused(
        "plain",
        "_sudo = true",
        "sudo asks for a password to become root; there is no terminal to ask at: give it with --ask-sudo-password",
    );
    refused(
        "plain",
        "_doas = true",
        "doas asks for a password to become root; there is no terminal to ask at: give it with --ask-doas-password",
    );
    refused(
        "plain",
        "_su_user = 'root'",
        "su asks for a password to become root; there is no terminal to ask at: give it with --ask-su-password",
    );
    refused("plain", &format!("{given}, _sudo_user = 'nobody-known'"), "sudo knows no user nobody-known on the host");
    refused("admin", "_sudo = true, _su_user = 'nobody-known'", "su knows no user nobody-known on the host");
    refused("admin", "_doas = true, _doas_user = 'nobody-known'", "doas knows no user nobody-known on the host");

    on(machine, "echo 'Defaults requiretty' >/etc/sudoers.d/zz");
    refused("plain", &given, "sudo wants a terminal; take `requiretty` out of sudoers");
    on(machine, "echo 'Defaults lecture=always, passwd_tries=1' >/etc/sudoers.d/zz");
    deploy(&fleet, "plain", &format!("server.shell {{ commands = 'true', {given} }}")).expect(0);
    refused("plain", "_sudo = true, _sudo_password = 'not-this-one'", "sudo does not take the password");
    on(machine, "rm /etc/sudoers.d/zz; chage -d 2020-01-01 -M 30 plain");
    refused("admin", "_sudo = true, _sudo_user = 'plain', _su_user = 'plain'", "asks for a password to become plain");
    on(machine, "chage -d 2099-01-01 plain; chage -E 2020-01-01 root");
    refused("plain", &format!("_su_user = 'root', _su_password = '{ROOT}'"), "su says that the account or its password has expired");
    on(machine, "chage -E -1 root; rm /etc/sudoers.d/plain");
    refused("plain", &given, "sudo does not let this user become root; allow it in sudoers");
    on(
        machine,
        "echo 'auth required pam_wheel.so' >/etc/pam.d/su-l; cat /etc/pam.d/su >>/etc/pam.d/su-l; sed -i '1i auth required pam_wheel.so' /etc/pam.d/su",
    );
    refused("plain", &format!("_su_user = 'root', _su_password = '{ROOT}'"), "su does not let this user become root");
    on(machine, "echo 'permit nopass admin' >/etc/doas.conf");
    refused("plain", "_doas = true", "doas does not let this user become root; permit it in doas.conf");
    on(machine, "mv /usr/bin/sudo /usr/bin/not-sudo; mv /usr/bin/doas /usr/bin/not-doas; mv /usr/bin/su /usr/bin/not-su");
    for tool in ["sudo", "doas"] {
        refused("plain", &format!("_{tool} = true"), &format!("there is no {tool} on the host; install it"));
    }
    refused("plain", "_su_user = 'root'", "there is no su on the host; install it");
    assert!(fleet.leftovers().is_empty(), "{:?}", fleet.leftovers());
}

#[test]
fn single_commands_and_how_commands_run() {
    let fleet = boot(&["box"]);
    let machine = fleet.machine("box");
    on(machine, "echo 'plain ALL=(root) NOPASSWD: /usr/bin/id, /usr/bin/touch /srv/*' >/etc/sudoers.d/plain");
    let ran = deploy(
        &fleet,
        "plain",
        r#"
        server.shell { name = "may", commands = { "id -un", "touch '/srv/made'" }, _sudo = true }
        server.shell { name = "status", commands = { "touch /srv/no/such" }, _sudo = true, _ignore_errors = true }
        server.shell { name = "may not", commands = { "touch /etc/made" }, _sudo = true, _ignore_errors = true }
        server.shell { name = "needs a shell", commands = { "id -un | cat" }, _sudo = true, _ignore_errors = true }
        "#,
    )
    .expect(0);
    says(&ran.stderr, &["| root", "may: changed", "status: failed (ignored): exited with 1"]);
    let why = "failed (ignored): sudo asks for a password to become root";
    says(&ran.stderr, &[&format!("may not: {why}"), &format!("needs a shell: {why}")]);
    says(&ran.stderr, &["where it lets this user run single commands only, infra runs those that are a program and its words"]);
    assert_eq!(on(machine, "ls -d /srv/made /etc/made 2>/dev/null || true"), "/srv/made");

    let ran = deploy(
        &fleet,
        "admin",
        r#"
        server.shell { name = "another shell", commands = { "echo ${BASH_VERSION:+bash} $(id -un)" }, _shell = "bash", _sudo = true }
        server.shell { name = "no such shell", commands = { "true" }, _shell = "no-such-shell", _ignore_errors = true }
        server.shell { name = "input", commands = { "tr a-z A-Z", "wc -l" }, _stdin = { "one", "two" } }
        server.shell { name = "mask", commands = { "touch /tmp/masked" }, _umask = "027" }
        server.shell { name = "no terminal", commands = { "tty" }, _success_exit_codes = { 1 } }
        server.shell { name = "terminal", commands = { "test -t 0 && test -t 1 && test -t 2 && stty size >/dev/null && echo on $(tty) as $(id -un)" }, _get_pty = true, _sudo = true }
        server.shell { name = "status", commands = { "echo said; exit 3" }, _get_pty = true, _success_exit_codes = { 3 } }
        server.shell { name = "ends", commands = { "cat" }, _get_pty = true, _timeout = 20 }
        server.shell { name = "slow", commands = { "sleep 4713" }, _get_pty = true, _timeout = 1, _ignore_errors = true }
        "#,
    )
    .expect(0);
    says(
        &ran.stderr,
        &[
            "| bash root",
            "no such shell: failed (ignored): there is no shell no-such-shell on the host, which `_shell` asks for",
            "| TWO",
            "| 2",
            "| not a tty",
            "| on /dev/tty as root",
            "| said",
            "ends: changed",
            "slow: failed (ignored): timed out after 1 s",
        ],
    );
    assert_eq!(
        on(machine, "stat -c %a /tmp/masked; pgrep -fc '[s]leep 4713' || true"),
        "640
0"
    );
}
