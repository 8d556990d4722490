//! `infra runs`: what the journal knows of earlier runs.

use std::io::{IsTerminal, Write};

use infra_core::diagnostic::Diagnostic;
use infra_report::journal::{render_run, render_runs, run_document, runs_document};

use crate::arguments::{Runs, RunsVerb};
use crate::journal::Folder;
use crate::outcome::Trouble;

/// Prints what is asked for on standard output.
///
/// # Errors
/// [`Trouble`] when there is no such run, or the journal cannot be read.
pub fn tell(asked: &Runs) -> Result<(), Trouble> {
    let folder = Folder::of_user().map_err(|error| Diagnostic::misuse(format!("there is no journal: {error}")))?;
    let terminal = std::io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    // What is read by a program or kept in a file is not cut to a screen.
    let width = console::Term::stdout().size_checked().filter(|_| terminal).map_or(200, |(_, columns)| columns);
    let text = match &asked.what {
        Some(RunsVerb::Show { run, verbose, .. }) => {
            let record = folder.find(run.as_deref())?;
            if asked.json() { run_document(&record) } else { render_run(&record, *verbose, width, colour) }
        }
        None => {
            let names = folder.names().map_err(|error| Trouble::failure(format!("the journal cannot be read: {error}")))?;
            let mut records = Vec::new();
            for name in names {
                match folder.read(&name) {
                    Ok(record) => records.push(record),
                    Err(error) => {
                        let _ = writeln!(std::io::stderr(), "infra: the journal of run {name} is left out: {error}");
                    }
                }
            }
            if records.is_empty() && !asked.json {
                let _ = writeln!(std::io::stderr(), "infra: there is no run in the journal");
                return Ok(());
            }
            if asked.json { runs_document(&records) } else { render_runs(&records, width, colour) }
        }
    };
    // A reader that has gone away, such as `head`, has read what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
