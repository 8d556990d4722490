//! What ends the program before a run could begin.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use infra_core::diagnostic::Diagnostic;
use infra_core::secret::Secrets;

/// Why no run began.
#[derive(Debug)]
pub struct Trouble {
    /// What is wrong: never empty.
    diagnostics: Vec<Diagnostic>,
    code: u8,
}

impl Trouble {
    /// Something was written wrongly: exit code 2.
    pub fn misuse(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], code: 2 }
    }

    /// Something does not work that should: exit code 1.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { diagnostics: vec![Diagnostic::runtime(message)], code: 1 }
    }

    /// What was written rightly cannot be done as things stand: exit code 1.
    pub fn refused(diagnostic: Diagnostic) -> Self {
        Self { diagnostics: vec![diagnostic], code: 1 }
    }

    /// The user did not want to wait for a run to begin, while something was done first: exit code 130.
    pub fn interrupted(first: &str) -> Self {
        Self { diagnostics: vec![Diagnostic::runtime(format!("interrupted while {first}: no host was reached"))], code: 130 }
    }

    /// The same without what is secret.
    pub fn masked(mut self, secrets: &Secrets) -> Self {
        self.diagnostics.iter_mut().for_each(|diagnostic| secrets.mask_diagnostic(diagnostic));
        self
    }

    /// Says it on standard error, and with `json` as a document on standard output too.
    pub fn report(self, verbosity: u8, json: bool) -> ExitCode {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // Where an output is gone, the exit code still tells.
        let _ = self.diagnostics.iter().try_for_each(|diagnostic| {
            let text = infra_report::render_diagnostic(diagnostic, verbosity, colour);
            writeln!(std::io::stderr(), "{}", text.trim_end())
        });
        if let (true, Some(first)) = (json, self.diagnostics.first()) {
            let _ = std::io::stdout().write_all(infra_report::misuse_document(first).as_bytes());
        }
        ExitCode::from(self.code)
    }
}

impl From<Diagnostic> for Trouble {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::misuse(diagnostic)
    }
}

impl From<Box<Diagnostic>> for Trouble {
    fn from(diagnostic: Box<Diagnostic>) -> Self {
        Self::misuse(*diagnostic)
    }
}

impl From<Vec<Diagnostic>> for Trouble {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics, code: 2 }
    }
}
