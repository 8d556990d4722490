//! What an operation would do to a host, and what will be true afterwards.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Value;
use crate::command::{Command, Shell};
use crate::node::Node;
use crate::resources::Resources;

/// The answer of an operation's diff: what to do, or why nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The steps, in order. None of them means that the host is as wished.
    pub actions: Vec<Action>,
    /// Whether the steps change the host. Steps that only wait for something do not: they are done at each run, the plan counts them as no change, and
    /// so does the outcome when they ended well.
    #[serde(default = "changes")]
    pub changes: bool,
    /// Why there is nothing to do (`already at 1.2`), or in a few words what is done (`create`, `mode 600 → 644`).
    pub reason: String,
    /// Text files before and after, to be shown to a person.
    pub texts: Vec<TextChange>,
    /// What this change touches, where that is less than the operation's arguments alone can say.
    pub touches: Option<Resources>,
    /// What will be true afterwards.
    pub effects: Vec<Effect>,
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Run this on the host.
    Run(Command),
    /// Write a file on the host: beside its destination, checked by digest, then renamed over it.
    Upload(Upload),
    /// Upload a file to a private temporary place, run it with these arguments, and remove it on every path.
    Script(ScriptRun),
    /// Read a file of the host into one of the controller: written beside its destination, checked by digest, then renamed over it.
    Download(Download),
    /// Write files and links of a tree on a host, all of them in one stream: each beside its destination, checked by digest; and when all are there, renamed.
    UploadTree(TreeUpload),
    /// Read files of a tree on a host into one of the controller, all of them in one stream.
    DownloadTree(TreeDownload),
    /// Run this on the controller. It finds the address at which infra reaches the host in the environment variable `INFRA_ADDRESS`. Of the context only
    /// the environment counts: it runs as who started infra.
    Controller(Command),
}

/// A file to be written on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upload {
    /// What it will hold.
    pub content: Content,
    /// Where; a link there is followed.
    pub dest: String,
    /// Its permission bits; those of the old file, or what the umask leaves, where not given.
    pub mode: Option<u32>,
    /// Its owner; that of the old file where not given.
    pub user: Option<String>,
    /// Its group; that of the old file where not given.
    pub group: Option<String>,
    /// What must be there now, checked in the same command that writes.
    pub replaces: Replaces,
}

/// A file to be fetched from a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Its path on the host.
    pub src: String,
    /// The absolute path on the controller; a link there is followed.
    pub dest: String,
    /// Its size in bytes when it was looked at, for people.
    pub size: Option<u64>,
    /// Its SHA-256 digest when it was looked at: with another one nothing is written.
    pub sha256: String,
    /// Whether to make the missing directories of `dest`.
    pub create_dir: bool,
}

/// Files and links of a tree to be written on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeUpload {
    /// The directory on the host at the root of the tree, which is there.
    pub root: String,
    /// What is written. The directories that it stands in are there.
    pub entries: Vec<TreeEntry>,
}

/// A file or a link of a tree to be written on a host; what stands there is replaced, a link itself and not what it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Its path, relative to the root of the tree. No name in it is `.` or `..`, and none has a line break.
    pub path: String,
    /// What it is.
    pub what: TreeNode,
    /// Its owner as chown(1) takes it, such as `app:www` or `:www`; what any new file gets where not given.
    pub owner: Option<String>,
}

/// What is written at a path of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeNode {
    /// A regular file.
    File {
        /// What it will hold.
        content: Content,
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link, and where it leads, as spelt.
    Link(String),
}

impl TreeUpload {
    /// The size of all its files, in bytes.
    pub fn size(&self) -> u64 {
        let size = |entry: &TreeEntry| if let TreeNode::File { content, .. } = &entry.what { content.size() } else { 0 };
        self.entries.iter().map(size).sum()
    }
}

/// Files of a tree to be fetched from a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDownload {
    /// The directory on the host at the root of the tree.
    pub root: String,
    /// The absolute path of the directory on the controller that shall hold the same; a link to it is followed, links below it are not.
    pub dest: String,
    /// Whether to make `dest` where it is missing.
    pub create_dir: bool,
    /// The directories that shall be there, by path relative to the root, each before what it holds.
    pub directories: Vec<String>,
    /// The files that are fetched.
    pub files: Vec<FetchedFile>,
    /// Symbolic links to be made: the path, and where each leads, as spelt.
    pub links: Vec<(String, String)>,
}

/// One file of a tree that is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedFile {
    /// Its path, relative to the root of the tree.
    pub path: String,
    /// Its size in bytes when it was looked at: as much of it is read.
    pub size: u64,
    /// The SHA-256 digest of that: with another one it is not written.
    pub sha256: String,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl TreeDownload {
    /// The size of all its files, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// A local program to be run on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptRun {
    /// The program; its first line says what runs it.
    pub content: Content,
    /// Its arguments, one word each.
    pub args: Vec<String>,
}

/// What must be at the destination of an upload when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Replaces {
    /// Whatever is there.
    #[default]
    Anything,
    /// A file with this SHA-256 digest; another one fails the upload and is left alone.
    Digest(String),
}

/// The content of a file to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// These bytes.
    Bytes(Arc<Vec<u8>>),
    /// A file of the controller; changed since it was read, the upload fails.
    LocalFile {
        /// Its absolute path.
        path: String,
        /// Its size in bytes when it was read.
        size: u64,
        /// Its SHA-256 digest when it was read.
        sha256: String,
    },
}

impl Content {
    /// This text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Bytes(Arc::new(text.into().into_bytes()))
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::LocalFile { size, .. } => *size,
        }
    }

    /// Its SHA-256 digest.
    pub fn sha256(&self) -> String {
        match self {
            Self::Bytes(bytes) => crate::digest::sha256(bytes),
            Self::LocalFile { sha256, .. } => sha256.clone(),
        }
    }
}

/// A text file before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextChange {
    /// Its path on the host.
    pub path: String,
    /// What it holds now; empty where there is no file.
    pub before: String,
    /// What it will hold.
    pub after: String,
    /// Why its content is not here, as a sentence fragment: `the new content is not UTF-8 text`. Then both texts are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<String>,
}

/// Something that will be true after a change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// This stands at this path.
    Node {
        /// The path on the host.
        path: String,
        /// What is there.
        node: Node,
    },
    /// This question has this answer.
    Answer {
        /// The name of the fact, such as `systemd.status`.
        fact: String,
        /// The question: the fact's arguments.
        question: Value,
        /// The answer.
        answer: Value,
        /// For whom it holds: whoever runs as this user. None where it holds for everyone who asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
}

fn changes() -> bool {
    true
}

impl Default for Change {
    fn default() -> Self {
        Self { actions: Vec::new(), changes: true, reason: String::new(), texts: Vec::new(), touches: None, effects: Vec::new() }
    }
}

impl Change {
    /// Nothing to do, and why.
    pub fn none(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), touches: Some(Resources::none()), ..Self::default() }
    }

    /// A change that has no steps yet; `reason` says in a few words what it does.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// Steps that change nothing on the host, such as waiting; `reason` says in a few words what they do.
    pub fn idle(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), changes: false, ..Self::default() }
    }

    /// With one more command.
    pub fn run(mut self, script: Shell) -> Self {
        self.actions.push(Action::Run(Command::new(script)));
        self
    }

    /// With one more step.
    pub fn then(mut self, action: Action) -> Self {
        self.actions.push(action);
        self
    }

    /// With one more thing that will be true.
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// With what will stand at a path.
    pub fn node(self, path: impl Into<String>, node: Node) -> Self {
        self.effect(Effect::Node { path: path.into(), node })
    }

    /// With the answer that a fact will have.
    ///
    /// # Panics
    /// When the fact or its answer cannot be written as JSON, which the facts of the standard library can.
    pub fn answer<F: crate::fact::Fact>(self, fact: &F, answer: &F::Value) -> Self {
        self.answer_to(None, fact, answer)
    }

    /// With the answer that a fact will have for who asks as this user; for everyone where none is given.
    ///
    /// # Panics
    /// As [`answer`](Self::answer).
    pub fn answer_to<F: crate::fact::Fact>(self, user: Option<&str>, fact: &F, answer: &F::Value) -> Self {
        let json = "facts and their answers are data of the JSON model";
        self.effect(Effect::Answer {
            fact: F::NAME.to_owned(),
            question: serde_json::to_value(fact).expect(json),
            answer: serde_json::to_value(answer).expect(json),
            user: user.map(str::to_owned),
        })
    }

    /// Touching no more than this.
    pub fn touching(mut self, touches: Resources) -> Self {
        self.touches = Some(touches);
        self
    }

    /// With a text file before and after.
    pub fn text(mut self, path: impl Into<String>, before: impl Into<String>, after: impl Into<String>) -> Self {
        self.texts.push(TextChange { path: path.into(), before: before.into(), after: after.into(), withheld: None });
        self
    }

    /// With a file whose content changes and is not shown, and why, as a sentence fragment.
    pub fn withheld(mut self, path: impl Into<String>, why: impl Into<String>) -> Self {
        self.texts.push(TextChange { path: path.into(), before: String::new(), after: String::new(), withheld: Some(why.into()) });
        self
    }

    /// Whether there is nothing to do.
    pub fn is_none(&self) -> bool {
        self.actions.is_empty()
    }
}
