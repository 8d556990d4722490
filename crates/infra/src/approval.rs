//! The question before execution.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::sync::Arc;

use infra_core::BoxFuture;
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
}

impl Approve for Question {
    fn approve(&self, _plan: Arc<Plan>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            if self.skip || !std::io::stdin().is_terminal() {
                return true;
            }
            self.shown.notified().await;
            let (sender, answer) = oneshot::channel();
            // A thread of its own: a read that never ends must not hold up the end of the program.
            std::thread::spawn(move || {
                let _ = sender.send(ask());
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

/// Asks on standard error, or on the terminal itself where standard error goes elsewhere. Only `y` and `yes` mean yes.
fn ask() -> bool {
    const QUESTION: &str = "Execute this plan? [y/N] ";
    let mut answer = String::new();
    let read = if std::io::stderr().is_terminal() {
        let mut out = std::io::stderr();
        let _ = write!(out, "{QUESTION}").and_then(|()| out.flush());
        std::io::stdin().lock().read_line(&mut answer)
    } else {
        let Ok(mut terminal) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty") else { return false };
        let _ = write!(terminal, "{QUESTION}").and_then(|()| terminal.flush());
        BufReader::new(terminal).read_line(&mut answer)
    };
    if !answer.ends_with('\n') {
        end_line();
    }
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Ends the line of the question, where no Enter did.
fn end_line() {
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr());
    } else if let Ok(mut terminal) = std::fs::OpenOptions::new().write(true).open("/dev/tty") {
        let _ = writeln!(terminal);
    }
}
