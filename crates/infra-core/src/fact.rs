//! Facts: something that can be asked of a host.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Value;
use crate::command::Command;
use crate::example::FactExample;
use crate::node::Node;
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

    /// Whether the answer rests on what a file holds and on nothing else of it: then a change of its owner, mode or times leaves the answer as it is.
    const OF_CONTENT: bool = false;

    /// What the answer is about where a link stands at [`path`](Fact::path).
    const AT_LINK: AtLink = AtLink::Both;

    /// The answer, if a link to `target` stood at [`path`](Fact::path), and `behind` were the answer about where that leads: for facts whose answers can be told
    /// from that, which are [`AtLink::Behind`].
    fn foresee_link(&self, target: &str, behind: &Self::Value) -> Option<Self::Value> {
        let _ = (target, behind);
        None
    }

    /// What this answer rests on besides: the names of the owners that it tells.
    fn answer_rests_on(&self, answer: &Self::Value) -> Resources {
        let _ = answer;
        Resources::none()
    }

    /// The links that the output tells of: paths, and where each leads.
    fn links(&self, output: &Output) -> Vec<(String, String)> {
        let _ = output;
        Vec::new()
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

/// What an answer is about where a link stands at the path that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLink {
    /// The link itself, wherever it leads.
    Itself,
    /// What it leads to: [`Fact::foresee_link`] makes the answer of that about where it leads.
    Behind,
    /// It may be about both.
    Both,
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
    /// See [`Fact::OF_CONTENT`].
    fn of_content(&self) -> bool;
    /// See [`Fact::AT_LINK`].
    fn at_link(&self) -> AtLink;
    /// See [`Fact::foresee_link`].
    fn foresee_link(&self, target: &str, behind: &Value) -> Option<Value>;
    /// See [`Fact::answer_rests_on`].
    fn answer_rests_on(&self, answer: &Value) -> Resources;
    /// See [`Fact::links`].
    fn links(&self, output: &Output) -> Vec<(String, String)>;
    /// The same question about another path; none where its path is no argument of that name.
    fn at_path(&self, path: &str) -> Option<SharedFact>;
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

    fn of_content(&self) -> bool {
        F::OF_CONTENT
    }

    fn at_link(&self) -> AtLink {
        F::AT_LINK
    }

    fn foresee_link(&self, target: &str, behind: &Value) -> Option<Value> {
        let behind = serde_json::from_value(behind.clone()).ok()?;
        self.0.foresee_link(target, &behind).map(|answer| serde_json::to_value(answer).expect(JSON))
    }

    fn answer_rests_on(&self, answer: &Value) -> Resources {
        serde_json::from_value(answer.clone()).map_or_else(|_| Resources::none(), |answer| self.0.answer_rests_on(&answer))
    }

    fn links(&self, output: &Output) -> Vec<(String, String)> {
        self.0.links(output)
    }

    fn at_path(&self, path: &str) -> Option<SharedFact> {
        let mut question = self.question();
        let argument = question.get_mut("path").filter(|argument| argument.as_str().is_some() && argument.as_str() == self.0.path())?;
        *argument = Value::from(path);
        serde_json::from_value::<F>(question).ok().map(erase)
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
