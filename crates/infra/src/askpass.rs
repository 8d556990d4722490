//! What ssh starts this program for when it has a question: to ask the run that started ssh.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use infra_connect::askpass::{self, Answer};

/// Answers ssh's question, where this process was started for that: the environment says where to ask. The exit code is all that is left to do then.
pub fn answer() -> Option<ExitCode> {
    let socket = std::env::var_os(askpass::SOCKET)?;
    let mut words = std::env::args_os().skip(1);
    // ssh gives one argument. Whatever else was started with this environment is no question.
    let (Some(prompt), None) = (words.next(), words.next()) else { return None };
    let kind = std::env::var(askpass::KIND).ok();
    Some(match askpass::ask(Path::new(&socket), &prompt.to_string_lossy(), kind.as_deref()) {
        Ok(Answer::Say(secret)) => match writeln!(std::io::stdout(), "{}", secret.reveal()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Answer::Refuse) | Err(_) => ExitCode::FAILURE,
    })
}
