//! Facts: something that can be asked of a host.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Value;
use crate::command::Command;
use crate::example::FactExample;
use crate::node::{LinkNode, Node};
use crate::output::Output;
use crate::resources::Resources;

/// Something that can be asked of a host. The value of `self` is the question.
///
/// A missing tool, path or user is an answer (`None`), not an error.
pub trait Fact: Clone + Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// Its name, `module.fact`: `systemd.status`.
    const NAME: &'static str;
    /// What it does, for people: the doc comment's first sentence and the shape of the answer.
    const DOC: &'static str;
    /// The answer.
    type Value: Serialize + DeserializeOwned + Clone + Send + Sync + 'static;

    /// From the question to a command. It changes nothing on the host and reads nothing from its standard input.
    fn command(&self) -> Command;

    /// From the command's output to the answer.
    ///
    /// # Errors
    /// [`ParseError`] when the output is not what the command prints. It never panics, whatever the output.
    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError>;

    /// What makes the answer change.
    fn rests_on(&self) -> Resources {
        Resources::everything()
    }

    /// Members of the answer that change although what is asked about stays as it is, such as the time of the last access: that they are others now makes no
    /// saved plan stale.
    const FLEETING: &'static [&'static str] = &[];

    /// Whether the answer is not to be read by whoever reads a plan: then a saved plan has its digest alone.
    const CONFIDENTIAL: bool = false;

    /// Whether the answer is what a file holds, or is made of that, such as a digest: where the file holds a secret, a saved plan has nothing of it.
    const TELLS_CONTENT: bool = false;

    /// Whether the answer is the same for every user of the host.
    const SCOPE: Scope = Scope::Privilege;

    /// The path on the host that the question is about, for facts that can be read off a [`Node`].
    fn path(&self) -> Option<&str> {
        None
    }

    /// The answer, if this stood at [`path`](Fact::path); none where the node does not say enough.
    fn foresee(&self, node: &Node) -> Option<Self::Value> {
        let _ = node;
        None
    }

    /// The answer where this link stands at [`path`](Fact::path), made of the answer about what it leads to; none where one does not say the other.
    fn through(&self, link: &LinkNode, answer: Self::Value) -> Option<Self::Value> {
        let _ = (link, answer);
        None
    }

    /// Where [`path`](Fact::path) really is, without a link on the way, when the answer tells that this is not where it is spelt.
    fn real_path(&self, answer: &Self::Value) -> Option<String> {
        let _ = answer;
        None
    }

    /// Questions, outputs and answers: shown by the docs, run by the tests.
    fn examples() -> Vec<FactExample>;
}

/// For whom an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The same for everyone on the host: packages, users, the operating system. Read once, as the user who is logged in.
    Everyone,
    /// It depends on who asks, with what environment and shell.
    Privilege,
}

/// Why an output is no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ParseError(String);

impl ParseError {
    /// With this message, a sentence fragment such as ``expected a number of seconds, got `x` ``.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A question with its type erased: one built in, or one written in Lua.
pub trait AnyFact: Send + Sync + fmt::Debug {
    /// `module.fact`.
    fn name(&self) -> &str;
    /// Its arguments.
    fn question(&self) -> Value;
    /// See [`Fact::command`].
    fn command(&self) -> Command;
    /// See [`Fact::parse`].
    ///
    /// # Errors
    /// When the output is not what the command prints.
    fn parse(&self, output: &Output) -> Result<Value, ParseError>;
    /// See [`Fact::rests_on`].
    fn rests_on(&self) -> Resources;
    /// See [`Fact::FLEETING`].
    fn fleeting(&self) -> &'static [&'static str];
    /// See [`Fact::CONFIDENTIAL`].
    fn confidential(&self) -> bool;
    /// See [`Fact::TELLS_CONTENT`].
    fn tells_content(&self) -> bool;
    /// See [`Fact::SCOPE`].
    fn scope(&self) -> Scope;
    /// See [`Fact::path`].
    fn path(&self) -> Option<&str>;
    /// See [`Fact::foresee`].
    fn foresee(&self, node: &Node) -> Option<Value>;
    /// See [`Fact::through`].
    fn through(&self, link: &LinkNode, answer: &Value) -> Option<Value>;
    /// The same question about another path; none where it is about no path.
    fn about(&self, path: &str) -> Option<SharedFact>;
    /// See [`Fact::real_path`].
    fn real_path(&self, answer: &Value) -> Option<String>;
    /// The typed question, for those who know the type.
    fn as_any(&self) -> &dyn Any;
}

/// A question that can be shared and kept.
pub type SharedFact = Arc<dyn AnyFact>;

struct Typed<F>(F);

impl<F: Fact> fmt::Debug for Typed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", F::NAME, self.question())
    }
}

const JSON: &str = "facts and their answers are data of the JSON model";

impl<F: Fact> AnyFact for Typed<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn question(&self) -> Value {
        serde_json::to_value(&self.0).expect(JSON)
    }

    fn command(&self) -> Command {
        self.0.command()
    }

    fn parse(&self, output: &Output) -> Result<Value, ParseError> {
        self.0.parse(output).map(|answer| serde_json::to_value(answer).expect(JSON))
    }

    fn rests_on(&self) -> Resources {
        self.0.rests_on()
    }

    fn fleeting(&self) -> &'static [&'static str] {
        F::FLEETING
    }

    fn confidential(&self) -> bool {
        F::CONFIDENTIAL
    }

    fn tells_content(&self) -> bool {
        F::TELLS_CONTENT
    }

    fn scope(&self) -> Scope {
        F::SCOPE
    }

    fn path(&self) -> Option<&str> {
        self.0.path()
    }

    fn foresee(&self, node: &Node) -> Option<Value> {
        self.0.foresee(node).map(|answer| serde_json::to_value(answer).expect(JSON))
    }

    fn through(&self, link: &LinkNode, answer: &Value) -> Option<Value> {
        let answer = self.0.through(link, serde_json::from_value(answer.clone()).ok()?)?;
        Some(serde_json::to_value(answer).expect(JSON))
    }

    fn about(&self, path: &str) -> Option<SharedFact> {
        let own = self.0.path()?;
        let mut question = self.question();
        let members = question.as_object_mut()?.values_mut();
        members.filter(|value| value.as_str() == Some(own)).for_each(|value| *value = Value::from(path));
        let other: F = serde_json::from_value(question).ok()?;
        (other.path() == Some(path)).then(|| erase(other))
    }

    fn real_path(&self, answer: &Value) -> Option<String> {
        self.0.real_path(&serde_json::from_value(answer.clone()).ok()?)
    }

    fn as_any(&self) -> &dyn Any {
        &self.0
    }
}

/// Erases the type of a question.
pub fn erase<F: Fact>(fact: F) -> SharedFact {
    Arc::new(Typed(fact))
}

/// The text that tells two questions apart: the name and the arguments as JSON.
pub fn key_of(fact: &dyn AnyFact) -> String {
    format!("{} {}", fact.name(), fact.question())
}
