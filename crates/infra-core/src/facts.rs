//! What an operation sees of its host while it is diffed.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Deserialize;

use crate::Value;
use crate::fact::{Fact, SharedFact, erase};
use crate::template::InventoryScope;
use crate::tree::{LocalTree, TreeLookup, TreeQuestion};

/// Where the answers come from: the engine's store for one host and one privilege, or a table made up by a test.
pub trait FactSource {
    /// What is known of this question.
    fn lookup(&self, fact: &SharedFact) -> Lookup;
    /// What is known of a file of the controller, by absolute path.
    fn local(&self, path: &str) -> LocalLookup;

    /// What is known of a file of the controller by somebody who does not mind that there is none.
    fn local_if_there(&self, path: &str) -> LocalLookup {
        self.local(path)
    }

    /// What is known of a tree of the controller.
    fn local_tree(&self, question: &TreeQuestion) -> TreeLookup {
        TreeLookup::Failed(format!("the directory {} cannot be read: there is nobody here who could", question.path))
    }
}

/// What is known of a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// The answer.
    Known(Arc<Value>),
    /// Not asked yet.
    Missing,
    /// An earlier operation of the plan touches what it rests on.
    Unknown(DependsOn),
    /// It was asked and there was no answer to be had.
    Failed(String),
}

/// What is known of a file of the controller.
#[derive(Clone, Debug, PartialEq)]
pub enum LocalLookup {
    /// It is there.
    Known(Arc<LocalFile>),
    /// Not read yet.
    Missing,
    /// There is none.
    Absent,
    /// It cannot be read; why.
    Failed(String),
}

/// A file of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Its absolute path.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits.
    pub mode: u32,
    /// The SHA-256 digest of its content.
    pub sha256: String,
    /// Its content, where it is not larger than [`LOCAL_CONTENT_LIMIT`].
    pub content: Option<Arc<Vec<u8>>>,
}

impl LocalFile {
    /// Its content as text; none where it is too large or not UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.content.as_deref()?).ok()
    }
}

/// Files of the controller up to this size, in bytes, are kept in memory while the plan is made.
pub const LOCAL_CONTENT_LIMIT: u64 = 16 * 1024 * 1024;

/// The earlier operation on which an answer depends.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DependsOn {
    /// The call on this host, in the order of its script.
    pub call: u32,
    /// Its name, for people.
    pub name: String,
}

/// Why a diff ended without a change.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// Answers are missing; the questions were noted, and the diff is called again when they are there.
    #[error("facts are still to be gathered")]
    Missing,
    /// An answer depends on an earlier operation of the plan.
    #[error("depends on «{}»", .0.name)]
    Unknown(DependsOn),
    /// A question could not be answered.
    #[error("the fact {fact} cannot be read: {message}")]
    Fact {
        /// The name of the fact.
        fact: String,
        /// Why, as a sentence fragment.
        message: String,
    },
    /// The host is in a state in which the wish cannot be fulfilled, or a local file cannot be read.
    #[error("{message}")]
    Refused {
        /// What is in the way, as a sentence fragment.
        message: String,
        /// What a person can do about it.
        hint: Option<String>,
    },
}

impl DiffError {
    /// The wish cannot be fulfilled as the host stands.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: None }
    }

    /// The same, with what a person can do about it.
    pub fn refused_with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), hint: Some(hint.into()) }
    }
}

/// What a diff noted as missing.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// Questions for the host.
    pub facts: Vec<SharedFact>,
    /// Files of the controller, by absolute path.
    pub locals: Vec<String>,
    /// Trees of the controller.
    pub trees: Vec<TreeQuestion>,
}

impl Noted {
    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.locals.is_empty() && self.trees.is_empty()
    }
}

/// The facts of one host, as an operation sees them.
///
/// What is asked together is gathered together: ask for all that is needed in one tuple.
pub struct Facts<'a> {
    source: &'a dyn FactSource,
    noted: RefCell<Noted>,
    inventory: Option<&'a InventoryScope>,
}

impl<'a> Facts<'a> {
    /// Facts answered by this source.
    pub fn new(source: &'a dyn FactSource) -> Self {
        Self { source, noted: RefCell::default(), inventory: None }
    }

    /// The same, with what templates see of the inventory.
    #[must_use]
    pub fn with_inventory(self, inventory: &'a InventoryScope) -> Self {
        Self { inventory: Some(inventory), ..self }
    }

    /// What templates see of the inventory, where there is one.
    pub fn inventory(&self) -> Option<&'a InventoryScope> {
        self.inventory
    }

    /// The answers to one question or to several at once: `facts.get((&A {}, &B {}))`.
    ///
    /// # Errors
    /// [`DiffError::Missing`] when any is missing (all missing ones are noted), else the first that failed or is unknown.
    pub fn get<Q: Questions>(&self, questions: Q) -> Result<Q::Answers, DiffError> {
        questions.ask(self)
    }

    /// The answers to many questions of one kind, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_all<F: Fact>(&self, questions: &[F]) -> Result<Vec<F::Value>, DiffError> {
        let answers: Vec<_> = questions.iter().map(|question| self.one(question)).collect();
        self.first_error(answers.iter().filter_map(|answer| answer.as_ref().err()))?;
        answers.into_iter().collect()
    }

    /// A file of the controller, by absolute path.
    ///
    /// # Errors
    /// [`DiffError::Missing`] when it is not read yet, [`DiffError::Refused`] when it cannot be read.
    pub fn local(&self, path: &str) -> Result<Arc<LocalFile>, DiffError> {
        match self.source.local(path) {
            LocalLookup::Known(file) => Ok(file),
            LocalLookup::Missing => {
                self.noted.borrow_mut().locals.push(path.to_owned());
                Err(DiffError::Missing)
            }
            LocalLookup::Absent => Err(DiffError::refused(format!("there is no file {path} on this machine"))),
            LocalLookup::Failed(message) => Err(DiffError::refused(message)),
        }
    }

    /// A file of the controller, by absolute path; none where there is no such file.
    ///
    /// # Errors
    /// As [`local`](Self::local), but for a file that is not there.
    pub fn local_if_there(&self, path: &str) -> Result<Option<Arc<LocalFile>>, DiffError> {
        match self.source.local_if_there(path) {
            LocalLookup::Absent => Ok(None),
            LocalLookup::Known(file) => Ok(Some(file)),
            LocalLookup::Missing => {
                self.noted.borrow_mut().locals.push(path.to_owned());
                Err(DiffError::Missing)
            }
            LocalLookup::Failed(message) => Err(DiffError::refused(message)),
        }
    }

    /// A tree of the controller; none where nothing is at its root.
    ///
    /// # Errors
    /// [`DiffError::Missing`] when it is not read yet, [`DiffError::Refused`] when it cannot be read.
    pub fn local_tree(&self, question: &TreeQuestion) -> Result<Option<Arc<LocalTree>>, DiffError> {
        match self.source.local_tree(question) {
            TreeLookup::Known(tree) => Ok(Some(tree)),
            TreeLookup::Absent => Ok(None),
            TreeLookup::Missing => {
                self.noted.borrow_mut().trees.push(question.clone());
                Err(DiffError::Missing)
            }
            TreeLookup::Failed(message) => Err(DiffError::refused(message)),
        }
    }

    /// What was noted as missing so far. Kept here and not in the error, which a caller may swallow.
    pub fn into_noted(self) -> Noted {
        self.noted.into_inner()
    }

    fn one<F: Fact>(&self, question: &F) -> Result<F::Value, DiffError> {
        let fact = erase(question.clone());
        match self.source.lookup(&fact) {
            Lookup::Known(value) => {
                F::Value::deserialize(&*value).map_err(|error| DiffError::Fact { fact: F::NAME.to_owned(), message: error.to_string() })
            }
            Lookup::Missing => {
                self.noted.borrow_mut().facts.push(fact);
                Err(DiffError::Missing)
            }
            Lookup::Unknown(depends_on) => Err(DiffError::Unknown(depends_on)),
            Lookup::Failed(message) => Err(DiffError::Fact { fact: F::NAME.to_owned(), message }),
        }
    }

    fn first_error<'e>(&self, errors: impl Iterator<Item = &'e DiffError>) -> Result<(), DiffError> {
        let missing = errors.into_iter().any(|error| matches!(error, DiffError::Missing));
        if missing { Err(DiffError::Missing) } else { Ok(()) }
    }
}

/// One question or a tuple of them.
pub trait Questions {
    /// The answers, in the shape of the questions.
    type Answers;

    /// Asks all of them before it gives up on any.
    ///
    /// # Errors
    /// As [`Facts::get`].
    fn ask(self, facts: &Facts<'_>) -> Result<Self::Answers, DiffError>;
}

impl<F: Fact> Questions for &F {
    type Answers = F::Value;

    fn ask(self, facts: &Facts<'_>) -> Result<F::Value, DiffError> {
        facts.one(self)
    }
}

macro_rules! questions_for_tuples {
    ($(($($name:ident $index:tt),+)),+) => {
        $(impl<'q, $($name: Fact),+> Questions for ($(&'q $name,)+) {
            type Answers = ($($name::Value,)+);

            fn ask(self, facts: &Facts<'_>) -> Result<Self::Answers, DiffError> {
                let answers = ($(facts.one(self.$index),)+);
                facts.first_error([$(answers.$index.as_ref().err()),+].into_iter().flatten())?;
                Ok(($(answers.$index?,)+))
            }
        })+
    };
}
questions_for_tuples!(
    (A 0),
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, G 5),
    (A 0, B 1, C 2, D 3, E 4, G 5, H 6),
    (A 0, B 1, C 2, D 3, E 4, G 5, H 6, I 7)
);
