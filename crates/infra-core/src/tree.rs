//! Directory trees: those of the controller as they were read, and what is left out of one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::glob::fnmatch;

/// What of a tree is left out, on both sides: it is neither compared nor copied nor removed.
///
/// Patterns are those of fnmatch(3) without flags: `*` and `?` match any characters, also `/`; `[a-z]` and `[!a-z]` one of a set; `\` takes the next
/// character as it is. Each is held against the name of a thing, its path in the tree, and that path with `./` in front.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeftOut {
    /// Patterns for things of any type; of a directory all below it is left out too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Patterns for directories alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_dir: Vec<String>,
}

impl LeftOut {
    /// Whether a thing is left out by its own name or path; what is above it is not looked at. `path` is relative to the root of the tree.
    pub fn names(&self, path: &str, is_directory: bool) -> bool {
        let matches = |pattern: &String| is_match(pattern, path);
        self.exclude.iter().any(matches) || (is_directory && self.exclude_dir.iter().any(matches))
    }

    /// Whether a thing is left out, by itself or with a directory above it.
    pub fn covers(&self, path: &str, is_directory: bool) -> bool {
        let above = path.match_indices('/').any(|(at, _)| self.names(&path[..at], true));
        above || self.names(path, is_directory)
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.exclude.is_empty() && self.exclude_dir.is_empty()
    }
}

fn is_match(pattern: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    fnmatch(pattern, path) || fnmatch(pattern, &format!("./{path}")) || (!pattern.contains('/') && fnmatch(pattern, name))
}

/// A tree of the controller that is to be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeQuestion {
    /// The absolute path of the directory at its root; a link to it is followed.
    pub path: String,
    /// What of it is not read.
    pub left_out: LeftOut,
}

/// A tree of the controller, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalTree {
    /// The permission bits of the directory at its root.
    pub mode: u32,
    /// All below it by path relative to the root, with `/` between the names; each directory before what it holds.
    pub entries: BTreeMap<String, LocalNode>,
}

/// One thing in a tree of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalNode {
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Its permission bits.
        mode: u32,
        /// The SHA-256 digest of its content.
        sha256: String,
    },
    /// A directory.
    Directory {
        /// Its permission bits.
        mode: u32,
    },
    /// A symbolic link, and where it leads, as spelt.
    Link(String),
}

/// What is known of a tree of the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum TreeLookup {
    /// It is there.
    Known(std::sync::Arc<LocalTree>),
    /// Not read yet.
    Missing,
    /// Nothing is at its root.
    Absent,
    /// It cannot be read; why.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_left_out_with_all_below() {
        let left_out = LeftOut { exclude: vec!["*.log".into(), "*/secret".into()], exclude_dir: vec![".git".into(), "a/tmp".into()] };
        for (path, directory, wanted) in [
            ("x.log", false, true),
            ("a/x.log", false, true),
            ("secret", false, true),
            (".git", true, true),
            (".git", false, false),
            ("a/.git/config", false, true),
            ("a/tmp/x", false, true),
            ("tmp/x", false, false),
            ("a", true, false),
        ] {
            assert_eq!(left_out.covers(path, directory), wanted, "{path}");
        }
        assert!(LeftOut::default().is_empty() && !left_out.is_empty());
    }
}
