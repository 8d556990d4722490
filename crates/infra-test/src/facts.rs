//! Made-up facts: what an operation sees in a test, without a host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use infra_core::Value;
use infra_core::change::{Action, Change};
use infra_core::command::Shell;
use infra_core::digest::sha256;
use infra_core::fact::{Fact, SharedFact, erase, key_of};
use infra_core::facts::{DependsOn, DiffError, FactSource, Facts, LocalFile, LocalLookup, Lookup};
use infra_core::operation::AnyOperation;
use infra_core::tree::{LocalNode, LocalTree, TreeLookup, TreeQuestion};

/// A table of questions and answers, and of files of the controller.
#[derive(Clone, Debug, Default)]
pub struct MadeUp {
    answers: BTreeMap<String, Lookup>,
    locals: BTreeMap<String, LocalLookup>,
}

impl MadeUp {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the answer to a question.
    pub fn fact<F: Fact>(self, question: &F, answer: F::Value) -> Self {
        let answer = serde_json::to_value(answer).expect("answers are data of the JSON model");
        self.entry(question, Lookup::Known(Arc::new(answer)))
    }

    /// With a question that could not be answered, and why.
    pub fn failed<F: Fact>(self, question: &F, message: &str) -> Self {
        self.entry(question, Lookup::Failed(message.to_owned()))
    }

    /// With a question whose answer depends on an earlier operation of this title.
    pub fn unknown<F: Fact>(self, question: &F, operation: &str) -> Self {
        self.entry(question, Lookup::Unknown(DependsOn { call: 0, name: operation.to_owned() }))
    }

    /// With an answer as examples carry it: the fact's name, the question and the answer as JSON.
    pub fn json(mut self, fact: &str, question: &Value, answer: &Value) -> Self {
        self.answers.insert(format!("{fact} {question}"), Lookup::Known(Arc::new(answer.clone())));
        self
    }

    /// With a file of the controller that has the mode 644.
    pub fn local(self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.local_with_mode(path, content, 0o644)
    }

    /// With a file of the controller.
    pub fn local_with_mode(mut self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        let content = content.into();
        let file = LocalFile {
            path: path.to_owned(),
            size: content.len() as u64,
            mode,
            sha256: sha256(&content),
            content: Some(Arc::new(content)),
        };
        self.locals.insert(path.to_owned(), LocalLookup::Known(Arc::new(file)));
        self
    }

    /// With a file of the controller that cannot be read, and why.
    pub fn local_failed(mut self, path: &str, message: &str) -> Self {
        self.locals.insert(path.to_owned(), LocalLookup::Failed(message.to_owned()));
        self
    }

    /// Without a file of the controller.
    pub fn no_local(mut self, path: &str) -> Self {
        self.locals.insert(path.to_owned(), LocalLookup::Absent);
        self
    }

    fn entry<F: Fact>(mut self, question: &F, lookup: Lookup) -> Self {
        self.answers.insert(key_of(&*erase(question.clone())), lookup);
        self
    }
}

/// The table as it stands: what is not in it is missing.
impl FactSource for MadeUp {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        self.answers.get(&key_of(&**fact)).cloned().unwrap_or(Lookup::Missing)
    }

    fn local(&self, path: &str) -> LocalLookup {
        self.locals.get(path).cloned().unwrap_or(LocalLookup::Missing)
    }

    /// The made-up files below its root; the directories that they stand in have the mode 755.
    fn local_tree(&self, question: &TreeQuestion) -> TreeLookup {
        let mut tree = LocalTree { mode: 0o755, ..LocalTree::default() };
        for (path, found) in &self.locals {
            let below = path.strip_prefix(&question.path).and_then(|rest| rest.strip_prefix('/'));
            let (Some(below), LocalLookup::Known(file)) = (below, found) else { continue };
            if question.left_out.covers(below, false) {
                continue;
            }
            for (at, _) in below.match_indices('/') {
                tree.entries.insert(below[..at].to_owned(), LocalNode::Directory { mode: 0o755 });
            }
            let file = LocalNode::File { size: file.size, mode: file.mode, sha256: file.sha256.clone() };
            tree.entries.insert(below.to_owned(), file);
        }
        if tree.entries.is_empty() { TreeLookup::Absent } else { TreeLookup::Known(Arc::new(tree)) }
    }
}

/// What has been gathered so far, as the engine's store holds it.
struct Gathered<'t> {
    table: &'t MadeUp,
    keys: BTreeSet<String>,
    paths: BTreeSet<String>,
    trees: BTreeSet<TreeQuestion>,
}

impl FactSource for Gathered<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        match self.table.lookup(fact) {
            // What an earlier operation touches is known to be unknown before anything is asked.
            unknown @ Lookup::Unknown(_) => unknown,
            known if self.keys.contains(&key_of(&**fact)) => known,
            _ => Lookup::Missing,
        }
    }

    fn local(&self, path: &str) -> LocalLookup {
        if self.paths.contains(path) { self.table.local(path) } else { LocalLookup::Missing }
    }

    fn local_tree(&self, question: &TreeQuestion) -> TreeLookup {
        if self.trees.contains(question) { self.table.local_tree(question) } else { TreeLookup::Missing }
    }
}

/// Diffs as the engine does: what is missing is answered from the table, all of it at once, and the diff is called again.
///
/// Gives the change and the number of round trips to the host that it took.
///
/// # Errors
/// [`DiffError`] as the operation gave it, never [`DiffError::Missing`].
///
/// # Panics
/// When the operation asks what is not in the table, naming the question; when it says that facts are missing without asking for any; when it
/// asks without end.
pub fn diff_fully(operation: &dyn AnyOperation, table: &MadeUp) -> Result<(Change, usize), DiffError> {
    let mut gathered = Gathered { table, keys: BTreeSet::new(), paths: BTreeSet::new(), trees: BTreeSet::new() };
    let mut rounds = 0;
    for _ in 0..100 {
        let facts = Facts::new(&gathered);
        let result = operation.diff(&facts);
        let noted = facts.into_noted();
        match result {
            Err(DiffError::Missing) => {}
            Ok(change) => {
                assert!(noted.is_empty(), "{} gave a change although facts are missing: {noted:?}", operation.name());
                return Ok((change, rounds));
            }
            Err(error) => return Err(error),
        }
        assert!(!noted.is_empty(), "{} says that facts are missing but asked for none", operation.name());
        rounds += usize::from(!noted.facts.is_empty());
        for fact in noted.facts {
            let key = key_of(&*fact);
            let known: Vec<&String> = table.answers.keys().collect();
            assert!(table.answers.contains_key(&key), "{} asks {key}, which is not among the made-up facts {known:#?}", operation.name());
            gathered.keys.insert(key);
        }
        gathered.trees.extend(noted.trees);
        for path in noted.locals {
            assert!(
                table.locals.contains_key(&path),
                "{} reads the local file {path}, which is not among the made-up ones",
                operation.name()
            );
            gathered.paths.insert(path);
        }
    }
    panic!("{} asks for facts without end", operation.name());
}

/// The steps of a change as examples write them: a command is its text, an upload `upload PATH`, a download `download PATH`, a script
/// `script ARGS…`, a command on the controller its text after `on the controller: `.
pub fn steps_of(change: &Change) -> Vec<String> {
    let step = |action: &Action| match action {
        Action::Run(command) => command.script.to_string(),
        Action::Upload(upload) => Shell::argv(["upload", upload.dest.as_str()]).to_string(),
        Action::Download(download) => Shell::argv(["download", download.dest.as_str()]).to_string(),
        Action::UploadTree(tree) => {
            let paths = tree.entries.iter().map(|entry| entry.path.as_str());
            Shell::argv(["upload", tree.root.as_str()].into_iter().chain(paths)).to_string()
        }
        Action::DownloadTree(tree) => {
            let paths = tree.files.iter().map(|file| file.path.as_str()).chain(tree.links.iter().map(|(path, _)| path.as_str()));
            Shell::argv(["download", tree.dest.as_str()].into_iter().chain(paths)).to_string()
        }
        Action::Controller(command) => format!("on the controller: {}", command.script),
        Action::Script(script) => Shell::argv(std::iter::once("script").chain(script.args.iter().map(String::as_str))).to_string(),
    };
    change.actions.iter().map(step).collect()
}
