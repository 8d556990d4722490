//! Operations: a wish about a host.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::change::Change;
use crate::example::Example;
use crate::facts::{DiffError, Facts};
use crate::resources::Resources;

/// A wish about a host. The value of `self` is its arguments.
///
/// An operation is a pure function from arguments and facts to a change. It never talks to a host, so it may be diffed as often as wanted.
pub trait Operation: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Its name, `module.operation`: `apt.packages`.
    const NAME: &'static str;
    /// What it does, when it changes nothing, and what it cannot know: Markdown, for people.
    const DOC: &'static str;
    /// Whether running it twice is the same as running it once; `server.shell` is not.
    const IDEMPOTENCE: Idempotence = Idempotence::Idempotent;

    /// Checks what the types of the arguments cannot say, such as *exactly one of `src` and `content`*.
    ///
    /// # Errors
    /// [`Misuse`] with what is wrong and what to write.
    fn check(&self) -> Result<(), Misuse> {
        Ok(())
    }

    /// What it may touch, from the arguments alone.
    fn touches(&self) -> Resources {
        Resources::everything()
    }

    /// From the facts to what is to be done, or why nothing is.
    ///
    /// # Errors
    /// [`DiffError::Missing`] through `?` where facts are still to be gathered; the others as they say.
    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError>;

    /// Arguments, facts and the commands that follow: shown by the docs, run by the tests.
    fn examples() -> Vec<Example>;
}

/// Whether a second run is the same as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Idempotence {
    /// When the host is as wished it does nothing.
    Idempotent,
    /// It does its work at every run.
    NotIdempotent,
}

/// Arguments that fit their types but not each other.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Misuse {
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Misuse {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A wish with its type erased: one built in, or one written in Lua.
pub trait AnyOperation: Send + Sync + fmt::Debug {
    /// `module.operation`.
    fn name(&self) -> &str;
    /// See [`Operation::IDEMPOTENCE`].
    fn idempotence(&self) -> Idempotence;
    /// See [`Operation::touches`].
    fn touches(&self) -> Resources;
    /// See [`Operation::diff`].
    ///
    /// # Errors
    /// As [`Operation::diff`].
    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError>;
}

/// A wish that can be shared and kept.
pub type SharedOperation = Arc<dyn AnyOperation>;

struct Typed<O>(O);

impl<O: Operation> fmt::Debug for Typed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(O::NAME)
    }
}

impl<O: Operation> AnyOperation for Typed<O> {
    fn name(&self) -> &str {
        O::NAME
    }

    fn idempotence(&self) -> Idempotence {
        O::IDEMPOTENCE
    }

    fn touches(&self) -> Resources {
        self.0.touches()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        self.0.diff(facts)
    }
}

/// Erases the type of an operation whose arguments were checked.
pub fn erase<O: Operation>(operation: O) -> SharedOperation {
    Arc::new(Typed(operation))
}
