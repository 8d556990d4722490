//! The question before execution.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::inventory::Inventory;
use infra_core::plan::Plan;
use infra_engine::Approve;
use tokio::sync::{Notify, oneshot, watch};

/// Asks at a terminal; goes ahead where there is none, or where the user said so beforehand.
pub struct Question {
    /// `--yes`.
    pub skip: bool,
    /// Told when the plan stands on the screen.
    pub shown: Arc<Notify>,
    /// How often the run was interrupted.
    pub interrupts: watch::Receiver<u32>,
    /// The hosts, for their names.
    pub inventory: Arc<Inventory>,
    /// At which verbosity differences of files are offered; not where they have been shown.
    pub diffs: Option<u8>,
}

impl Approve for Question {
    fn asks(&self) -> bool {
        !self.skip && std::io::stdin().is_terminal()
    }

    fn approve(&self, plan: Arc<Plan>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            if !self.asks() {
                return true;
            }
            self.shown.notified().await;
            let (sender, answer) = oneshot::channel();
            let diffs = self.diffs.filter(|_| infra_report::holds_diffs(&plan)).map(|verbosity| (verbosity, self.inventory.clone(), plan));
            // A thread of its own: a read that never ends must not hold up the end of the program.
            std::thread::spawn(move || {
                let differences = diffs.map(|(verbosity, inventory, plan)| move || differences(&plan, &inventory, verbosity));
                let _ = sender.send(ask(differences));
            });
            let mut open = OpenLine(true);
            let mut interrupts = self.interrupts.clone();
            tokio::select! {
                answer = answer => {
                    open.0 = false;
                    answer.unwrap_or(false)
                }
                _ = interrupts.wait_for(|times| *times > 0) => false,
            }
        })
    }
}

/// The line of a question that was not answered: dropped while it is open, it is ended.
struct OpenLine(bool);

impl Drop for OpenLine {
    fn drop(&mut self) {
        if self.0 {
            end_line();
        }
    }
}

/// What the plan changes in files, for a terminal.
fn differences(plan: &Plan, inventory: &Inventory, verbosity: u8) -> String {
    let width = console::Term::stderr().size_checked().map_or(100, |(_, columns)| columns);
    let colour = std::env::var_os("NO_COLOR").is_none();
    infra_report::render_diffs(plan, |host| inventory.by_id(host).name.as_str(), verbosity, width, colour)
}

/// Asks on standard error, or on the terminal itself where standard error goes elsewhere. Only `y` and `yes` mean yes; `d` shows the differences
/// of files, where there are any, and asks again.
fn ask(differences: Option<impl Fn() -> String>) -> bool {
    let question = match differences {
        Some(_) => "Execute this plan? [y/N] (d shows what changes in files) ",
        None => "Execute this plan? [y/N] ",
    };
    if std::io::stderr().is_terminal() {
        return ask_at(std::io::stdin().lock(), std::io::stderr(), question, differences);
    }
    let Ok(terminal) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty") else { return false };
    let Ok(out) = terminal.try_clone() else { return false };
    ask_at(BufReader::new(terminal), out, question, differences)
}

fn ask_at(mut answers: impl BufRead, mut out: impl Write, question: &str, differences: Option<impl Fn() -> String>) -> bool {
    loop {
        let _ = write!(out, "{question}").and_then(|()| out.flush());
        let mut answer = String::new();
        let read = answers.read_line(&mut answer);
        if !answer.ends_with('\n') {
            end_line();
        }
        match (answer.trim().to_lowercase().as_str(), &differences) {
            ("d", Some(differences)) if read.is_ok() => {
                let _ = out.write_all(differences().as_bytes());
            }
            (answer, _) => return read.is_ok() && matches!(answer, "y" | "yes"),
        }
    }
}

/// Ends the line of the question, where no Enter did.
fn end_line() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    } else if let Ok(mut terminal) = std::fs::OpenOptions::new().write(true).open("/dev/tty") {
        let _ = writeln!(terminal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(answers: &str, differences: Option<&str>) -> (bool, String) {
        let mut out = Vec::new();
        let yes = ask_at(answers.as_bytes(), &mut out, "? ", differences.map(|text| move || text.to_owned()));
        (yes, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn differences_are_shown_and_asked_about_again() {
        assert_eq!(asked("d\ny\n", Some("-a\n+b\n")), (true, "? -a\n+b\n? ".to_owned()));
        assert_eq!(asked("D\n\n", Some("-a\n")), (false, "? -a\n? ".to_owned()));
        assert!(asked("YES\n", Some("-a\n")).0);
        assert_eq!(asked("d\ny\n", None), (false, "? ".to_owned()), "where there is nothing to show it is no yes");
    }
}
