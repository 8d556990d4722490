//! Passwords, asked for at the terminal: without an echo, once per run.

use std::fs::File;
use std::io;

use infra_core::BoxFuture;
use infra_core::diagnostic::Diagnostic;
use infra_core::privilege::{AskPassword, Tool, ways_out};
use infra_core::secret::Secret;
use tokio::sync::{OnceCell, watch};

use crate::questions::{Asked, CLEAR, Echo, Gate, somebody_is_there, terminal};

/// Asks whoever started the run.
pub struct AtTerminal {
    gate: Gate,
    interrupts: watch::Receiver<u32>,
    answers: [OnceCell<Result<Secret, String>>; 3],
}

impl AtTerminal {
    /// Has nothing been asked yet.
    pub fn new(gate: Gate, interrupts: watch::Receiver<u32>) -> Self {
        Self { gate, interrupts, answers: [const { OnceCell::const_new() }; 3] }
    }

    /// Asks now, before there is a host that does: `--ask-sudo-password`. The terminal is that of the session, wherever standard input comes from.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] where there is no terminal, or no answer.
    pub async fn ask_now(&self, tool: Tool) -> Result<(), Diagnostic> {
        let option = format!("--ask-{tool}-password");
        let terminal = terminal()
            .map_err(|_| Diagnostic::misuse(format!("{option} asks at a terminal, and there is none")).hint(without_a_terminal(tool)))?;
        let prompt = format!("Password for {tool} on all hosts: ");
        let answer = self.read(terminal, prompt, false).await;
        let problem = answer.as_ref().err().cloned();
        // Nobody has asked before.
        let _ = self.answers[tool as usize].set(answer);
        problem.map_or(Ok(()), |problem| Err(Diagnostic::misuse(format!("{option}: {problem}"))))
    }

    /// On a screen where something stands already, the line of the question is cleared before and afterwards.
    pub(crate) async fn read(&self, terminal: File, prompt: String, on_screen: bool) -> Result<Secret, String> {
        let (before, after) = if on_screen { (CLEAR, CLEAR) } else { ("", "\n") };
        let asked = Asked { prompt: format!("{before}{prompt}"), echo: Echo::Nothing, answered: after, unanswered: after };
        let mut interrupts = self.interrupts.clone();
        tokio::select! {
            answer = self.gate.ask(terminal, asked) => password(answer),
            _ = interrupts.wait_for(|times| *times > 0) => Err("the run was interrupted before it was given".to_owned()),
        }
    }
}

impl AskPassword for AtTerminal {
    fn password<'a>(&'a self, tool: Tool, why: &'a str) -> BoxFuture<'a, Result<Secret, String>> {
        Box::pin(async move {
            let asking = || async {
                // Where answers come from somewhere else, nobody sits there.
                match terminal().ok().filter(|_| somebody_is_there()) {
                    Some(terminal) => self.read(terminal, format!("{why} (and wherever else {tool} does): "), true).await,
                    None => Err(format!("there is no terminal to ask at: {}", ways_out(tool))),
                }
            };
            self.answers[tool as usize].get_or_init(asking).await.clone()
        })
    }
}

/// What to do instead of asking.
fn without_a_terminal(tool: Tool) -> String {
    match tool {
        Tool::Sudo => "give it as `_sudo_password` in the inventory, or allow sudo without one (NOPASSWD in sudoers)".to_owned(),
        Tool::Su => "give it as `_su_password` in the inventory, or use `_sudo`".to_owned(),
        Tool::Doas => "allow doas without one (nopass in doas.conf)".to_owned(),
    }
}

/// The password in what was typed.
fn password(typed: io::Result<Option<Vec<u8>>>) -> Result<Secret, String> {
    let failed = |why: &dyn std::fmt::Display| format!("the terminal cannot be read: {why}");
    match typed.map_err(|error| failed(&error))? {
        Some(line) if !line.is_empty() => String::from_utf8(line).map(Secret::new).map_err(|_| failed(&"the password is no UTF-8 text")),
        _ => Err("no password was given".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_the_answer() {
        let given = |typed: Option<&[u8]>| password(Ok(typed.map(<[u8]>::to_vec))).map(|secret| secret.reveal().to_owned());
        assert_eq!(given(Some(b"open sesame")), Ok("open sesame".to_owned()));
        assert_eq!(given(Some(b"")), Err("no password was given".to_owned()));
        assert_eq!(given(None), Err("no password was given".to_owned()));
        assert_eq!(given(Some(b"\xff")), Err("the terminal cannot be read: the password is no UTF-8 text".to_owned()));
        let failed = password(Err(io::Error::other("it is gone"))).map(|secret| secret.reveal().to_owned());
        assert_eq!(failed, Err("the terminal cannot be read: it is gone".to_owned()));
    }
}
