//! Directory trees of the controller: read once per run, each file digested, and looked at again before what was planned from them is done.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::resources::Resources;
use infra_core::tree::{LocalNode, LocalTree, TreeLookup, TreeQuestion};

use crate::local_files::{Stamp, digest_file, on_a_thread};

/// How many bytes of names one tree may have. It is kept in memory, once for all hosts.
const NAMES: usize = 64 << 20;

/// The trees that were read.
#[derive(Default)]
pub(crate) struct LocalTrees {
    read: Mutex<HashMap<TreeQuestion, Kept>>,
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum Kept {
    Tree {
        tree: Arc<LocalTree>,
        /// What the file system said of each file when it was read.
        stamps: Arc<BTreeMap<String, Stamp>>,
    },
    Absent,
    Failed(String),
}

impl LocalTrees {
    /// What is known of a tree.
    pub(crate) fn lookup(&self, question: &TreeQuestion) -> TreeLookup {
        match self.read.lock().unwrap_or_else(PoisonError::into_inner).get(question) {
            Some(Kept::Tree { tree, .. }) => TreeLookup::Known(tree.clone()),
            Some(Kept::Absent) => TreeLookup::Absent,
            Some(Kept::Failed(message)) => TreeLookup::Failed(message.clone()),
            None => TreeLookup::Missing,
        }
    }

    /// Reads those that are not read yet.
    pub(crate) async fn read(&self, questions: impl IntoIterator<Item = TreeQuestion>) {
        let _one_reader = self.reading.lock().await;
        for question in questions {
            if self.lookup(&question) != TreeLookup::Missing {
                continue;
            }
            let kept = on_a_thread(question.clone(), |question| read_tree(&question)).await;
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(question, kept);
        }
    }

    /// Whether a tree is what it was when it was read; a file that looks the same from outside counts as the same.
    ///
    /// # Errors
    /// A sentence fragment that says what is different.
    pub(crate) async fn check(&self, question: &TreeQuestion) -> Result<(), String> {
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(question).cloned();
        let Some(Kept::Tree { tree, stamps }) = kept else { return Ok(()) };
        on_a_thread(question.clone(), move |question| {
            let mut walk = Walk::new(&question);
            let changed = |path: &str| Err(format!("{}/{path} has changed since the plan was made", question.path));
            walk.below("").map_err(|message| format!("{message}, which could be read when the plan was made"))?;
            let gone = tree.entries.keys().find(|path| !walk.found.contains_key(*path));
            if let Some(path) = gone {
                return changed(path);
            }
            for (path, (metadata, target)) in &walk.found {
                let same = match tree.entries.get(path) {
                    Some(LocalNode::File { .. }) => stamps.get(path) == Some(&Stamp::of(metadata)),
                    Some(LocalNode::Directory { mode }) => metadata.is_dir() && metadata.mode() & 0o7777 == *mode,
                    Some(LocalNode::Link(to)) => target.as_ref() == Some(to),
                    None => false,
                };
                if !same {
                    return changed(path);
                }
            }
            Ok(())
        })
        .await
    }

    /// Forgets trees in which an operation on this machine declared to write, so that they are read again.
    pub(crate) fn forget(&self, touched: &Resources) {
        if !touched.is_none() {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.retain(|question, _| !touched.overlaps(&Resources::tree(question.path.as_str())));
        }
    }
}

fn read_tree(question: &TreeQuestion) -> Kept {
    let root = match std::fs::metadata(&question.path) {
        Ok(root) if root.is_dir() => root,
        Ok(_) => return Kept::Failed(format!("{} on this machine is not a directory", question.path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Kept::Absent,
        Err(error) => return Kept::Failed(format!("the directory {} of this machine cannot be read: {error}", question.path)),
    };
    let mut walk = Walk::new(question);
    match walk.below("").and_then(|()| walk.digest()) {
        Ok((entries, stamps)) => Kept::Tree { tree: Arc::new(LocalTree { mode: root.mode() & 0o7777, entries }), stamps: Arc::new(stamps) },
        Err(message) => Kept::Failed(message),
    }
}

/// A walk through a tree that follows no link below its root.
struct Walk<'q> {
    question: &'q TreeQuestion,
    names: usize,
    /// What was found, by relative path: what the file system says of it, and where it leads when it is a link.
    found: BTreeMap<String, (Metadata, Option<String>)>,
}

type Digested = (BTreeMap<String, LocalNode>, BTreeMap<String, Stamp>);

impl<'q> Walk<'q> {
    fn new(question: &'q TreeQuestion) -> Self {
        Self { question, names: 0, found: BTreeMap::new() }
    }

    fn full(&self, path: &str) -> String {
        format!("{}/{path}", self.question.path.trim_end_matches('/'))
    }

    /// Finds all below a directory, given by its relative path with a slash at its end, or empty for the root.
    fn below(&mut self, folder: &str) -> Result<(), String> {
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let full = self.full(&folder);
            let unreadable = |error: std::io::Error| format!("the directory {full} of this machine cannot be read: {error}");
            for entry in std::fs::read_dir(&full).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let metadata = entry.metadata().map_err(unreadable)?;
                let name = entry.file_name();
                let advice = "; leave it out with `exclude`, or give it another name";
                let Some(name) = name.to_str() else { return Err(format!("a name in {full} is not UTF-8: {name:?}{advice}")) };
                let path = format!("{folder}{name}");
                if self.question.left_out.names(&path, metadata.is_dir()) {
                    continue;
                }
                if name.contains('\n') {
                    return Err(format!("a name in {full} has a line break: {name:?}{advice}"));
                }
                self.names += path.len();
                if self.names > NAMES {
                    return Err(format!("the tree {} is too large: its names alone have more than {NAMES} bytes", self.question.path));
                }
                let mut target = None;
                if metadata.is_dir() {
                    open.push(format!("{path}/"));
                } else if metadata.is_symlink() {
                    let to = std::fs::read_link(entry.path()).map_err(unreadable)?;
                    let to = to.to_str().filter(|to| !to.contains('\n'));
                    target = Some(
                        to.ok_or_else(|| format!("the link {} leads to what is no line of UTF-8{advice}", self.full(&path)))?.to_owned(),
                    );
                } else if !metadata.is_file() {
                    return Err(format!("{} is no file, directory or link; leave it out with `exclude`", self.full(&path)));
                }
                self.found.insert(path, (metadata, target));
            }
        }
        Ok(())
    }

    /// Reads the content of all files.
    fn digest(&mut self) -> Result<Digested, String> {
        let (mut entries, mut stamps) = (BTreeMap::new(), BTreeMap::new());
        for (path, (metadata, target)) in std::mem::take(&mut self.found) {
            let mode = metadata.mode() & 0o7777;
            let node = match target {
                Some(target) => LocalNode::Link(target),
                None if metadata.is_dir() => LocalNode::Directory { mode },
                None => {
                    let full = self.full(&path);
                    let read = digest_file(Path::new(&full));
                    let (sha256, size, stamp) = read.map_err(|error| format!("the file {full} of this machine cannot be read: {error}"))?;
                    stamps.insert(path.clone(), stamp);
                    LocalNode::File { size, mode, sha256 }
                }
            };
            entries.insert(path, node);
        }
        Ok((entries, stamps))
    }
}

#[cfg(test)]
mod tests {
    use infra_core::digest::sha256;
    use infra_core::tree::LeftOut;

    use super::*;

    fn question(folder: &Path) -> TreeQuestion {
        let left_out = LeftOut { exclude: vec!["*.log".into()], exclude_dir: vec![".git".into()] };
        TreeQuestion { path: folder.to_str().unwrap().to_owned(), left_out }
    }

    async fn read(trees: &LocalTrees, question: &TreeQuestion) -> TreeLookup {
        trees.read([question.clone()]).await;
        trees.lookup(question)
    }

    #[tokio::test]
    async fn a_tree_is_read_once_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site");
        let (trees, question) = (LocalTrees::default(), question(&root));
        assert_eq!(trees.lookup(&question), TreeLookup::Missing);
        assert_eq!(read(&trees, &question).await, TreeLookup::Absent);
        trees.forget(&Resources::path(question.path.as_str()));

        std::fs::create_dir_all(root.join("a/.git")).unwrap();
        std::fs::write(root.join("a/.git/x"), "x").unwrap();
        std::fs::write(root.join("a/one"), "one").unwrap();
        std::fs::write(root.join("a/two.log"), "two").unwrap();
        std::os::unix::fs::symlink("a/one", root.join("link")).unwrap();
        let TreeLookup::Known(tree) = read(&trees, &question).await else { panic!("it is there") };
        let names: Vec<&str> = tree.entries.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "a/one", "link"]);
        assert!(matches!(&tree.entries["a/one"], LocalNode::File { size: 3, sha256: digest, .. } if *digest == sha256(b"one")));
        assert_eq!(tree.entries["link"], LocalNode::Link("a/one".to_owned()));
        assert_eq!(trees.check(&question).await, Ok(()));

        std::fs::write(root.join("a/two.log"), "other").unwrap();
        assert_eq!(trees.check(&question).await, Ok(()), "what is left out may change");
        std::fs::write(root.join("a/one"), "other").unwrap();
        assert_eq!(trees.check(&question).await, Err(format!("{}/a/one has changed since the plan was made", question.path)));
        trees.forget(&Resources::path(format!("{}/a/one", question.path)));
        read(&trees, &question).await;
        std::fs::write(root.join("new"), "").unwrap();
        assert!(trees.check(&question).await.unwrap_err().ends_with("/new has changed since the plan was made"));
        std::fs::remove_dir_all(&root).unwrap();
        assert!(trees.check(&question).await.unwrap_err().contains("cannot be read"));
    }

    #[tokio::test]
    async fn what_cannot_be_copied_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let trees = LocalTrees::default();
        let fails = async |name: &str, wanted: &str| {
            let root = folder.path().join(name);
            let TreeLookup::Failed(message) = read(&trees, &question(&root)).await else { panic!("{name}") };
            assert!(message.contains(wanted), "{message}");
        };
        for name in ["line", "socket", "file"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("line/a\nb"), "").unwrap();
        fails("line", "a name in").await;
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket/s")).unwrap();
        fails("socket", "/s is no file, directory or link; leave it out with `exclude`").await;
        std::fs::write(folder.path().join("file/f"), "").unwrap();
        fails("file/f", "is not a directory").await;
    }
}
