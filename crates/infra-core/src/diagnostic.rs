//! What a person reads when something they wrote is wrong.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a file that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Location {
    /// The file, as the user would write it: relative to the working directory where it is below it.
    pub file: String,
    /// The line, from 1; 0 where only the file is known.
    pub line: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// Whose fault it is, and so how far it reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// Something written wrongly: it stops the run before anything is executed (exit code 2).
    Misuse,
    /// A script that failed while it ran on one host: it fails that host alone.
    Runtime,
    /// The host, not what was written: a fact that cannot be read, a connection that broke. It fails that host alone.
    Host,
}

/// One thing that is wrong: what, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How far it reaches.
    pub fault: Fault,
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// Where.
    pub location: Option<Location>,
    /// The line itself, without the space around it.
    pub source_line: Option<String>,
    /// What to do about it; shown apart from the message.
    pub hint: Option<String>,
    /// The calls that led there, outermost first; shown at `-v`.
    pub chain: Vec<Location>,
}

impl Diagnostic {
    /// Something written wrongly.
    pub fn misuse(message: impl Into<String>) -> Self {
        Self { fault: Fault::Misuse, message: message.into(), location: None, source_line: None, hint: None, chain: Vec::new() }
    }

    /// A script that failed while it ran.
    pub fn runtime(message: impl Into<String>) -> Self {
        Self { fault: Fault::Runtime, ..Self::misuse(message) }
    }

    /// Something about a host.
    pub fn host(message: impl Into<String>) -> Self {
        Self { fault: Fault::Host, ..Self::misuse(message) }
    }

    /// With a place.
    pub fn at(mut self, file: impl Into<String>, line: u32) -> Self {
        self.location = Some(Location { file: file.into(), line });
        self
    }

    /// With the line itself.
    pub fn source(mut self, line: impl AsRef<str>) -> Self {
        self.source_line = Some(line.as_ref().trim().to_owned());
        self
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what to do about it, if there is something.
    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// The nearest of the known names, where one is near enough to be meant.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, candidate)| (*distance, *candidate))
        .map(|(_, candidate)| candidate)
}

/// `` did you mean `x`? `` for the nearest of the known names.
pub fn did_you_mean<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    nearest(name, known).map(|candidate| format!("did you mean `{candidate}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["packages", "present", "latest", "update"];
        assert_eq!(nearest("package", known), Some("packages"));
        assert_eq!(nearest("Presnet", known), Some("present"));
        assert_eq!(nearest("zzz", known), None);
    }
}
