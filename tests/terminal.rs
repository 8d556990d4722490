//! The binary at a terminal: the question before execution, and the screen that it leaves.

mod common;
#[path = "common/terminal.rs"]
mod terminal;

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use terminal::{Elsewhere, Ended, Terminal};

const QUESTION: &str = "Execute this plan? [y/N]";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let deploy = "files.file { name = 'Make a file', path = 'made' }\nserver.shell { name = 'Say it', commands = { 'echo said' } }\n";
        std::fs::write(folder.path().join("deploy.lua"), deploy).expect("a deploy");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn infra(&self, words: &[&str]) -> Command {
        let mut command = common::infra(self.path());
        command.arg("@local").args(words);
        command
    }

    fn ask(&self, elsewhere: Elsewhere) -> Terminal {
        let mut terminal = Terminal::start(self.infra(&["deploy.lua"]), elsewhere);
        terminal.wait_for(QUESTION);
        assert!(!self.made());
        terminal
    }

    fn made(&self) -> bool {
        self.path().join("made").exists()
    }
}

#[track_caller]
fn ended(terminal: Terminal, code: i32) -> Ended {
    let ended = terminal.end();
    assert_eq!((ended.code, ended.signal), (Some(code), None), "{}", ended.screen);
    // No bar is left, the cursor is to be seen, and lines start where lines start.
    for left in ["[=", "[>", "[ "] {
        assert!(!ended.screen.contains(left), "a bar was left:\n{}", ended.screen);
    }
    assert_eq!(ended.raw.matches("\x1b[?25l").count(), ended.raw.matches("\x1b[?25h").count(), "{}", ended.raw);
    ended
}

#[test]
fn only_yes_goes_ahead() {
    let place = Place::new();
    for (keys, goes) in [("\r", false), ("\x04", false), ("\x03", false), ("n\r", false), ("yes please\r", false), ("y\r", true)] {
        let mut terminal = place.ask(Elsewhere::default());
        assert!(terminal.screen().contains("Make a file"), "the plan stands above the question:\n{}", terminal.screen());
        terminal.press(keys);
        let ended = ended(terminal, if goes { 0 } else { 1 });
        assert_eq!(place.made(), goes, "{keys:?}\n{}", ended.screen);
        let wanted = if goes { "1 host: 1 changed" } else { "1 host: 1 not reached" };
        assert!(ended.screen.contains(wanted), "{keys:?}\n{}", ended.screen);
        assert_eq!(ended.screen.contains("Nothing was executed: the question was answered with no."), !goes, "{}", ended.screen);
        // What comes after the question starts on a line of its own.
        let line = ended.screen.lines().find(|line| line.contains(QUESTION)).expect("the question");
        assert!(!line.contains("-->") && !line.contains("host:"), "{keys:?}: {line}\n{}", ended.screen);
    }
}

#[test]
fn differences_of_files_are_offered_at_the_question() {
    let place = Place::new();
    let offer = "(d shows what changes in files)";
    let terminal = place.ask(Elsewhere::default());
    assert!(!terminal.screen().contains(offer), "no text is known to change:\n{}", terminal.screen());
    drop(terminal);
    std::fs::write(place.path().join("deploy.lua"), "files.put { name = 'Write it', dest = 'made', content = 'one\\ntwo\\n' }")
        .expect("a deploy");
    let mut terminal = place.ask(Elsewhere::default());
    assert!(terminal.screen().contains(offer) && !terminal.screen().contains("+two"), "{}", terminal.screen());
    terminal.press("d\r");
    terminal.wait_for("+two");
    terminal.wait_for(&format!("+two\n{QUESTION}"));
    assert!(!place.made());
    terminal.press("y\r");
    let shown = ended(terminal, 0);
    assert!(place.made());
    for line in ["[@local] Write it", "--- made", "+++ made", "@@ -0,0 +1,2 @@", "+one"] {
        assert!(shown.screen.contains(line), "«{line}» is missing:\n{}", shown.screen);
    }
    assert!(shown.raw.contains("\x1b[32m+one"), "what is added is green: {:?}", shown.raw);

    // With --diff they stand above the plan already, and where standard error goes elsewhere the terminal shows them.
    std::fs::remove_file(place.path().join("made")).expect("a file");
    let mut terminal = Terminal::start(place.infra(&["deploy.lua", "--diff"]), Elsewhere::default());
    terminal.wait_for(QUESTION);
    assert!(terminal.screen().contains("+two") && !terminal.screen().contains(offer), "{}", terminal.screen());
    terminal.press("\r");
    ended(terminal, 1);
    let log = Some(Stdio::from(File::create(place.path().join("log")).expect("a log")));
    let mut terminal = place.ask(Elsewhere { stderr: log, ..Elsewhere::default() });
    terminal.press("d\r");
    terminal.wait_for("+two");
    terminal.press("n\r");
    ended(terminal, 1);
    assert!(!place.made());
}

#[test]
fn where_standard_error_goes_elsewhere_the_terminal_is_asked() {
    let place = Place::new();
    let log = || Some(Stdio::from(File::create(place.path().join("log")).expect("a log")));
    let mut terminal = place.ask(Elsewhere { stderr: log(), ..Elsewhere::default() });
    terminal.press("y\r");
    ended(terminal, 0);
    assert!(place.made());
    let log = std::fs::read_to_string(place.path().join("log")).expect("the log");
    assert!(log.contains("1 host: 1 changed") && !log.contains('\x1b') && !log.contains(QUESTION), "{log:?}");
}

#[test]
fn without_a_terminal_on_standard_input_nothing_is_asked() {
    let place = Place::new();
    let terminal = Terminal::start(place.infra(&["deploy.lua"]), Elsewhere { stdin: Some(Stdio::null()), ..Elsewhere::default() });
    assert!(!ended(terminal, 0).screen.contains(QUESTION));
    assert!(place.made());
}

#[test]
fn what_changes_nothing_and_what_was_asked_for_by_hand_is_not_asked() {
    let place = Place::new();
    std::fs::write(place.path().join("deploy.lua"), "files.directory { path = '.' }").expect("a deploy");
    for words in [&["deploy.lua"][..], &["exec", "--", "true"], &["fact", "server.hostname"], &["deploy.lua", "--dry"]] {
        assert!(!ended(Terminal::start(place.infra(words), Elsewhere::default()), 0).screen.contains(QUESTION), "{words:?}");
    }
}

#[test]
fn a_slow_operation_leaves_no_bar_behind() {
    let place = Place::new();
    let deploy = "server.shell { name = 'Slow', commands = { 'sleep 0.6; echo working' } }\nserver.shell { name = 'Bad', commands = { 'echo no good; exit 3' } }";
    std::fs::write(place.path().join("deploy.lua"), deploy).expect("a deploy");
    let mut terminal = Terminal::start(place.infra(&["deploy.lua", "--yes"]), Elsewhere::default());
    terminal.wait_for("0/1");
    let ended = ended(terminal, 1);
    for line in ["[@local] Slow: changed", "[@local] Bad: failed: ", "| no good", "1 host: 1 failed"] {
        assert!(ended.screen.contains(line), "«{line}» is missing:\n{}", ended.screen);
    }
}

#[test]
fn output_of_a_host_cannot_move_the_cursor() {
    let place = Place::new();
    let evil = r"printf 'a\033[2J\033[1;1Hb\rc\007\n'; printf 'bad \377 byte\n'; printf '\033]0;title\007last, no newline'";
    let terminal = Terminal::start(place.infra(&["exec", "--", evil]), Elsewhere::default());
    let ended = ended(terminal, 0);
    assert!(!ended.raw.contains("\x1b[2J") && !ended.raw.contains("\x1b]0;"), "{:?}", ended.raw);
    assert!(ended.screen.contains("last, no newline"), "{}", ended.screen);
}
