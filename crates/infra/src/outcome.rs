//! What ends the program before a run could begin.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use infra_core::diagnostic::Diagnostic;

/// Why no run began.
#[derive(Debug)]
pub struct Trouble {
    diagnostic: Box<Diagnostic>,
    code: u8,
}

impl Trouble {
    /// Something was written wrongly: exit code 2.
    pub fn misuse(diagnostic: Diagnostic) -> Self {
        Self { diagnostic: Box::new(diagnostic), code: 2 }
    }

    /// Something does not work that should: exit code 1.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { diagnostic: Box::new(Diagnostic::runtime(message)), code: 1 }
    }

    /// Says it on standard error.
    pub fn report(self, verbosity: u8) -> ExitCode {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let text = infra_report::render_diagnostic(&self.diagnostic, verbosity, colour);
        // Where standard error is gone, the exit code still tells.
        let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
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
