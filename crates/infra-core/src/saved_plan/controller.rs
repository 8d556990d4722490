//! What a plan rests on that is not of its hosts: files, the environment and commands of the controller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::salted;
use crate::digest::sha256;

/// Text files up to this size, in bytes, are carried inside the plan; larger ones and those that are no text stand there by their digest.
pub const CARRIED_LIMIT: u64 = 1024 * 1024;

/// What the scripts of a plan learned of the controller, by absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The files that were read, sources among them.
    pub files: BTreeMap<String, Kept>,
    /// The paths that were looked for, and whether something was there.
    pub paths: BTreeMap<String, bool>,
    /// The folders that were listed; none where there is no such folder.
    pub folders: BTreeMap<String, Option<Vec<String>>>,
    /// The environment variables that were asked for, each with the salted digest of its value; none where it was not set.
    pub environment: BTreeMap<String, Option<String>>,
    /// The commands that were run.
    pub commands: Vec<RememberedCommand>,
}

/// What is kept of a file or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// All of it.
    Text(String),
    /// Its salted digest ([`content_digest`]): it must be the same when the plan is applied.
    Digest(String),
    /// There was none.
    Absent,
    /// It could not be had; why.
    Failed(String),
}

/// A file of the controller that operations were planned from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalBasis {
    /// Its absolute path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// What is kept of it.
    pub kept: Kept,
}

/// A command of the controller and what it gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedCommand {
    /// What tells it from others: the digest of its words, its input, its directory and its environment.
    pub key: String,
    /// Its words, for people.
    pub argv: Vec<String>,
    /// What it gave, each time in turn.
    pub answers: Vec<CommandAnswer>,
}

/// What a command of the controller gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// Its exit code; none where a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to standard output. Where only a digest of it is kept, it is run again.
    pub stdout: Kept,
    /// What it wrote to standard error.
    pub stderr: Kept,
}

/// The salted digest of what has this SHA-256 digest.
pub fn content_digest(salt: &str, sha256: &str) -> String {
    salted(salt, sha256)
}

impl Kept {
    /// What is kept of these bytes.
    pub fn of(salt: &str, bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if bytes.len() as u64 <= CARRIED_LIMIT => Self::Text(text.to_owned()),
            _ => Self::Digest(content_digest(salt, &sha256(bytes))),
        }
    }

    /// Whether these bytes are what it was.
    pub fn is(&self, salt: &str, bytes: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == bytes,
            Self::Digest(digest) => *digest == content_digest(salt, &sha256(bytes)),
            Self::Absent | Self::Failed(_) => false,
        }
    }

    /// Keeps a digest of it alone where it holds one of these.
    pub(super) fn hide(&mut self, salt: &str, values: &[String]) {
        if let Self::Text(text) = self
            && values.iter().any(|value| text.contains(value.as_str()))
        {
            *self = Self::Digest(content_digest(salt, &sha256(text.as_bytes())));
        }
    }
}

impl Memory {
    pub(super) fn hide(&mut self, salt: &str, values: &[String]) {
        self.files.values_mut().for_each(|file| file.hide(salt, values));
        for command in &mut self.commands {
            for answer in &mut command.answers {
                answer.stdout.hide(salt, values);
                answer.stderr.hide(salt, values);
            }
            for word in &mut command.argv {
                if values.iter().any(|value| word.contains(value.as_str())) {
                    super::HIDDEN.clone_into(word);
                }
            }
        }
    }
}
