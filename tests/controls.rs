//! The controls of operations on a real machine: as whom, where, for how long, and what counts as a success.

mod common;

use common::says;
use infra_test::Fleet;

/// Deploys this text as this user of the machine, and gives what was said.
fn deploy(fleet: &Fleet, user: &str, text: &str, code: i32) -> String {
    std::fs::write(fleet.folder().join("deploy.lua"), text).expect("a deploy");
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    let ran = common::run(fleet.folder(), &["box", "deploy.lua", "--user", user, "-vvv", "--data", &config]).expect(code);
    ran.stderr
}

#[test]
fn controls_on_a_real_machine() {
    let fleet = Fleet::boot(&["box"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let machine = fleet.machine("box");
    let run = |command: &str| machine.run(["sh", "-c", command]).expect("the machine answers").stdout.trim().to_owned();

    let said = deploy(
        &fleet,
        "admin",
        r#"
        local who = "echo $(id -un) in $(pwd) has $A"
        server.shell { name = "as oneself", commands = { who }, _env = { A = "it's $HOME" }, _chdir = "/srv" }
        server.shell { name = "as root", commands = { who }, _env = { A = "2" }, _sudo = true }
        server.shell { name = "as another", commands = { who }, _env = { A = "3" }, _chdir = "/", _sudo = true, _sudo_user = "plain" }
        server.shell { name = "three is fine", commands = { "exit 3" }, _success_exit_codes = { 0, 3 } }
        server.shell { name = "ignored", commands = { "echo why; exit 4", "touch /tmp/never" }, _ignore_errors = true }
        server.shell { name = "nowhere", commands = { "touch /tmp/never" }, _chdir = "/no/such", _ignore_errors = true }
        server.shell { name = "killed", commands = { "kill -9 $$" }, _ignore_errors = true }
        server.shell { name = "zero is not fine", commands = { "true" }, _success_exit_codes = { 3 } }
        server.shell { name = "never", commands = { "touch /tmp/never" } }
        "#,
        1,
    );
    says(
        &said,
        &[
            "| admin in /srv has it's $HOME",
            "| root in ",
            "| plain in / has 3",
            "three is fine: changed",
            "ignored: failed (ignored): exited with 4",
            "nowhere: failed (ignored): the directory /no/such cannot be entered",
            "killed: failed (ignored): exited with 137 (KILL?)",
            "zero is not fine: failed: exited with 0",
            "1 host: 1 failed",
        ],
    );
    assert_eq!(run("ls /tmp/never 2>/dev/null || echo none"), "none");

    let said = deploy(&fleet, "plain", "server.shell { commands = { 'true' }, _sudo = true }", 1);
    says(&said, &["sudo asks for a password to become root; there is no terminal to ask at: give it with --ask-sudo-password"]);

    // Past its time the whole group goes, under sudo too, also what takes no notice of TERM and what went into the background.
    for sudo in ["false", "true"] {
        let text = format!(
            "server.shell {{ name = 'long', commands = {{ [[trap '' TERM; sleep 4321 & echo last words; while :; do sleep 4322; done]] }}, _timeout = 1, _sudo = {sudo} }}"
        );
        let said = deploy(&fleet, "admin", &text, 1);
        says(&said, &["long: failed: timed out after 1 s", "| last words"]);
        assert!(!said.contains("still running"), "{said}");
        assert_eq!(run("ps -eo args | grep -c '[s]leep 432'"), "0", "_sudo = {sudo}");
    }

    // A full disk leaves the old file, and nothing beside it.
    run("mkdir /srv/full && mount -t tmpfs -o size=64k tmpfs /srv/full && echo old >/srv/full/file");
    let said = deploy(&fleet, "root", "files.put { content = string.rep('0123456789', 20000), dest = '/srv/full/file' }", 1);
    says(&said, &["/srv/full/file was not written: ", "No space left on device"]);
    assert_eq!(run("cat /srv/full/*; ls -A /srv/full"), "old\nfile");
    let left = fleet.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}

/// A shell that serves many commands has the groups of the moment in which it was opened: after a change to users, or a command that may have been one, others are
/// opened.
#[test]
fn a_user_who_was_put_into_a_group_is_in_it() {
    let fleet = Fleet::boot(&["box"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    // Directories that only a group may look into: who is not in it is told that nothing is there, or that it cannot be seen.
    let text = r#"
        local function sees(path) return pcall(function()
          assert(host:fact("files.file", { path = path, _sudo = true, _sudo_user = "plain" }))
        end) end
        call("Groups", { _sudo = true }, function()
          for _, group in ipairs { "one", "two" } do
            server.group { group = group }
            server.shell { commands = {
              sh("mkdir -m 750 /srv/{}", group),
              sh("cd /srv/{} && chgrp {} . && touch before after", group, group),
            } }
            host:log(group .. " before: " .. tostring(sees("/srv/" .. group .. "/before")))
          end
          server.user { user = "plain", groups = { "one" } }
          host:log("one after: " .. tostring(sees("/srv/one/after")))
          server.shell { commands = { "usermod -aG two plain" } }
          host:log("two after: " .. tostring(sees("/srv/two/after")))
        end)"#;
    let said = deploy(&fleet, "admin", text, 0);
    says(&said, &["one before: false", "two before: false", "one after: true", "two after: true"]);
    let left = fleet.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}
