//! Examples of operations and facts: one source for the docs and the tests.

use serde_json::json;

use crate::Value;
use crate::fact::Fact;
use crate::output::Output;

/// An operation's arguments, what is found on the host, and what follows.
#[derive(Clone, Debug)]
pub struct Example {
    /// What it shows, such as `Install a package that is missing`.
    pub title: &'static str,
    /// The arguments, as a map.
    pub args: Value,
    /// What is found on the host: name of the fact, question, answer.
    pub facts: Vec<(&'static str, Value, Value)>,
    /// Files of the controller: absolute path and content.
    pub locals: Vec<(&'static str, &'static str)>,
    /// Files of the controller that are not there: absolute paths.
    pub absent_locals: Vec<&'static str>,
    /// What follows.
    pub expected: Expected,
}

/// What follows from an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// These steps, in order; an upload is written as `upload PATH`, a download as `download PATH`, a script as `script ARGS…`.
    Steps(Vec<&'static str>),
    /// Nothing, for a reason that contains this text.
    Nothing(&'static str),
    /// A refusal whose message contains this text.
    Refused(&'static str),
}

impl Example {
    /// An example with these arguments, of which nothing is expected yet.
    pub fn new(title: &'static str, args: Value) -> Self {
        Self { title, args, facts: Vec::new(), locals: Vec::new(), absent_locals: Vec::new(), expected: Expected::Steps(Vec::new()) }
    }

    /// With an answer that is found on the host.
    ///
    /// # Panics
    /// When the fact or its answer cannot be written as JSON, which the facts of the standard library can.
    pub fn fact<F: Fact>(mut self, fact: &F, answer: F::Value) -> Self {
        let json = "facts and their answers are data of the JSON model";
        self.facts.push((F::NAME, serde_json::to_value(fact).expect(json), serde_json::to_value(answer).expect(json)));
        self
    }

    /// With a file of the controller.
    pub fn local(mut self, path: &'static str, content: &'static str) -> Self {
        self.locals.push((path, content));
        self
    }

    /// With a file of the controller that is not there.
    pub fn no_local(mut self, path: &'static str) -> Self {
        self.absent_locals.push(path);
        self
    }

    /// These steps follow: commands as they are run, and `upload PATH`.
    pub fn steps(mut self, steps: impl IntoIterator<Item = &'static str>) -> Self {
        self.expected = Expected::Steps(steps.into_iter().collect());
        self
    }

    /// Nothing follows; the reason contains this text.
    pub fn nothing(mut self, reason: &'static str) -> Self {
        self.expected = Expected::Nothing(reason);
        self
    }

    /// A refusal follows; its message contains this text.
    pub fn refused(mut self, message: &'static str) -> Self {
        self.expected = Expected::Refused(message);
        self
    }
}

/// A question, what its command printed, and the answer.
#[derive(Clone, Debug)]
pub struct FactExample {
    /// The question, as a map.
    pub question: Value,
    /// What the command printed and how it ended.
    pub output: Output,
    /// The answer, as JSON.
    pub answer: Value,
}

impl FactExample {
    /// A question whose command printed this and exited with 0.
    ///
    /// # Panics
    /// When the fact or its answer cannot be written as JSON.
    pub fn new<F: Fact>(fact: &F, stdout: &str, answer: F::Value) -> Self {
        Self { question: json!(fact), output: Output::of(stdout), answer: json!(answer) }
    }

    /// The same, whose command exited with this status.
    pub fn status(mut self, status: i32) -> Self {
        self.output.status = status;
        self
    }
}
