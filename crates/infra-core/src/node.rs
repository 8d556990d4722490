//! What the plan knows of a path: the effects of operations on files, and how facts about files are read from them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What stands at a path after an operation, as far as the operation knows. `None` in a field means not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// Nothing; so nothing below it either.
    Absent,
    /// A regular file.
    File(FileNode),
    /// A directory.
    Directory(DirectoryNode),
    /// A symbolic link.
    Link(LinkNode),
}

/// A regular file, as predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNode {
    /// The permission bits, 0 to 0o7777.
    pub mode: Option<u32>,
    /// The name of its owner.
    pub user: Option<String>,
    /// The name of its group.
    pub group: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// The SHA-256 digest of its content.
    pub sha256: Option<String>,
    /// Its content, where it is text.
    pub text: Option<Arc<str>>,
    /// The time of the last change of its content, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// Whether it holds what it held before, whatever that was: its owner, mode or times alone are others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_content: bool,
}

/// A directory, as predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryNode {
    /// The permission bits, 0 to 0o7777.
    pub mode: Option<u32>,
    /// The name of its owner.
    pub user: Option<String>,
    /// The name of its group.
    pub group: Option<String>,
    /// Whether the operation made it, so that it holds nothing yet.
    pub fresh: bool,
}

/// A symbolic link, as predicted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkNode {
    /// What it points to, as spelt.
    pub target: String,
    /// The name of its owner.
    pub user: Option<String>,
    /// The name of its group.
    pub group: Option<String>,
}
