//! What a plan rests on that is not of its hosts: files, the environment and commands of the controller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::salted;
use crate::digest::{sha256, slow};
use crate::secret::{MASK, Secrets};

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
    /// The environment variables that were asked for: digests of their values, or that there was none.
    pub environment: BTreeMap<String, Kept>,
    /// The commands that were run.
    pub commands: Vec<RememberedCommand>,
    /// What was asked of the person who made the plan, and what was typed; nothing where nobody could be asked.
    pub answers: BTreeMap<String, Kept>,
}

/// What is kept of a file or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// All of it.
    Text(String),
    /// Its salted digest ([`content_digest`]): it must be the same when the plan is applied.
    Digest(String),
    /// Its digest where it is a secret or holds one ([`Kept::secret`]): it must be the same as well.
    Secret(String),
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
    /// What tells it from others: a slow digest of its words, its input, its directory and its environment.
    pub key: String,
    /// Its words.
    pub argv: Vec<String>,
    /// The directory that it was run in, where one was given.
    pub chdir: Option<String>,
    /// Whether its words and its directory are all there is to it: it had no input and no environment of its own.
    pub whole: bool,
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

impl CommandAnswer {
    /// Whether it is not known without running the command again.
    pub fn is_digest(&self) -> bool {
        self.stdout.is_digest() || self.stderr.is_digest()
    }

    /// Whether the command gave the same this time.
    pub fn is(&self, salt: &str, status: Option<i32>, stdout: &[u8], stderr: &[u8]) -> bool {
        self.status == status && self.stdout.is(salt, stdout) && self.stderr.is(salt, stderr)
    }
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

    /// What is kept of bytes that are a secret or hold one.
    pub fn secret(salt: &str, bytes: &[u8]) -> Self {
        Self::Secret(slow(salt, bytes))
    }

    /// Whether there is only a digest of it.
    pub fn is_digest(&self) -> bool {
        matches!(self, Self::Digest(_) | Self::Secret(_))
    }

    /// Whether these bytes are what it was.
    pub fn is(&self, salt: &str, bytes: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.as_bytes() == bytes,
            Self::Digest(digest) => *digest == content_digest(salt, &sha256(bytes)),
            Self::Secret(digest) => *digest == slow(salt, bytes),
            Self::Absent | Self::Failed(_) => false,
        }
    }

    /// Keeps a digest of it alone where it holds a secret.
    pub(super) fn hide(&mut self, salt: &str, secret: &Hidden<'_>) {
        if let Self::Text(text) = self
            && secret.is_in(text)
        {
            *self = Self::secret(salt, text.as_bytes());
        }
    }
}

/// What a plan file must not hold: all secrets of the run, and passwords, of whatever length.
pub(super) struct Hidden<'s> {
    pub(super) secrets: &'s Secrets,
    pub(super) passwords: Vec<String>,
}

impl Hidden<'_> {
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.secrets.holds(text) || self.passwords.iter().any(|value| text.contains(value.as_str()))
    }

    pub(super) fn mask(&self, text: &mut String) {
        if !self.is_in(text) {
            return;
        }
        *text = self.secrets.mask(text).into_owned();
        for value in &self.passwords {
            *text = text.replace(value.as_str(), MASK);
        }
    }
}

impl Memory {
    pub(super) fn hide(&mut self, salt: &str, secret: &Hidden<'_>) {
        // What is found by a name that holds one is asked for again.
        self.files.retain(|path, _| !secret.is_in(path));
        self.paths.retain(|path, _| !secret.is_in(path));
        self.folders.retain(|path, _| !secret.is_in(path));
        self.files.values_mut().chain(self.answers.values_mut()).for_each(|kept| kept.hide(salt, secret));
        for command in &mut self.commands {
            for answer in &mut command.answers {
                answer.stdout.hide(salt, secret);
                answer.stderr.hide(salt, secret);
            }
            for word in command.argv.iter_mut().chain(&mut command.chdir) {
                command.whole &= !secret.is_in(word);
                secret.mask(word);
            }
        }
    }
}
