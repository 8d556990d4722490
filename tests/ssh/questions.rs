//! What ssh asks where somebody sits at a terminal.

use infra_test::{HostKey, SshdOptions};

use crate::stage::{Stage, text, tool};
use crate::terminal::{Elsewhere, Terminal};

fn start(stage: &Stage, config: &std::path::Path, words: &[&str]) -> Terminal {
    Terminal::start(stage.command(config, words), Elsewhere { stdin: None, ..Elsewhere::default() })
}

/// The command of the stage with the terminal as its standard input.
fn at_terminal(stage: &Stage, config: &std::path::Path, words: &[&str]) -> Terminal {
    start(stage, config, words)
}

#[test]
fn an_unknown_host_is_asked_about() {
    let stage = Stage::with(SshdOptions::default().host_key(HostKey::Unknown));
    let rest = stage.rest(Some(stage.sshd.user_key())).replace("StrictHostKeyChecking yes", "StrictHostKeyChecking ask");
    let config = stage.write("config", &(stage.stanza("web") + &rest));
    let words = ["web", "exec", "--", "echo in there"];
    for (answer, code) in [("no\n", 1), ("\n", 1), ("yes\n", 0)] {
        let mut terminal = at_terminal(&stage, &config, &words);
        terminal.wait_for("Are you sure you want to continue connecting");
        assert!(terminal.screen().contains("[web] The authenticity of host"), "{}", terminal.screen());
        terminal.press(answer);
        let ended = terminal.end();
        assert_eq!(ended.code, Some(code), "{}", ended.screen);
        assert_eq!(ended.screen.contains("\nin there"), code == 0, "{}", ended.screen);
        assert_eq!(ended.screen.contains("unreachable (host key)"), code == 1, "{}", ended.screen);
    }
    // It is known now.
    let ended = at_terminal(&stage, &config, &words).end();
    assert!(ended.code == Some(0) && !ended.screen.contains("authenticity"), "{}", ended.screen);
    stage.nothing_left();
}

#[test]
fn a_passphrase_is_asked_for_once_however_many_hosts_take_the_key() {
    let stage = Stage::with(SshdOptions::default().aliases(["h-1", "h-2", "h-3"]));
    tool("ssh-keygen", &["-q", "-p", "-P", "", "-N", "open-sesame-please", "-f", text(stage.sshd.user_key())]);
    let config = stage.write("config", &(stage.stanza("h-*") + &stage.rest(Some(stage.sshd.user_key()))));
    let words = ["h-[1-3]", "exec", "--", "echo in there"];
    let mut terminal = at_terminal(&stage, &config, &words);
    terminal.wait_for("Enter passphrase for key");
    terminal.press("not the right one\n");
    // The one that was wrong is asked about again; nobody else is.
    infra_test::process::wait_for(std::time::Duration::from_secs(20), || {
        (terminal.screen().matches("Enter passphrase for key").count() == 2).then_some(())
    })
    .unwrap_or_else(|| panic!("{}", terminal.screen()));
    terminal.press("open-sesame-please\n");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(0), "{}", ended.screen);
    assert_eq!(ended.screen.matches("] in there").count(), 3, "{}", ended.screen);
    assert!(!ended.raw.contains("open-sesame") && !ended.raw.contains("not the right"), "{}", ended.raw);
    stage.nothing_left();
}

#[test]
fn a_question_outlasts_the_connect_deadline_and_ends_with_the_run() {
    let stage = Stage::new();
    tool("ssh-keygen", &["-q", "-p", "-P", "", "-N", "open-sesame-please", "-f", text(stage.sshd.user_key())]);
    let config = stage.write("config", &(stage.stanza("web") + &stage.rest(Some(stage.sshd.user_key()))));
    let words = ["web", "exec", "--data", "late=true", "--", "echo in there"];
    let inventory = stage.write("inventory.lua", "all_of = { { 'web', ssh_connect_timeout = 4 } }\n");
    let mut slow = words;
    slow[0] = text(&inventory);
    let mut terminal = at_terminal(&stage, &config, &slow);
    terminal.wait_for("Enter passphrase for key");
    // Longer than the whole deadline: a person may think.
    std::thread::sleep(std::time::Duration::from_secs(5));
    terminal.press("open-sesame-please\n");
    let ended = terminal.end();
    assert_eq!(ended.code, Some(0), "{}", ended.screen);

    let mut terminal = at_terminal(&stage, &config, &words);
    terminal.wait_for("Enter passphrase for key");
    terminal.press_control_c();
    let ended = terminal.end();
    assert_eq!(ended.code, Some(130), "{}", ended.screen);
    stage.nothing_left();
}
