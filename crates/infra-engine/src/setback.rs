//! Why an operation does not end well.

use infra_core::connection::Crowded;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Failure, Outcome};

/// Why an operation did not end well.
#[derive(Clone)]
pub(crate) struct Setback {
    pub(crate) failure: Failure,
    pub(crate) kind: SetbackKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetbackKind {
    /// It failed, and `_ignore_errors` may say that this is all right.
    Failed,
    /// It cannot go on, and neither can its host: there is no connection any more, or the run was interrupted.
    Final,
    /// The facts on which it rests may be old, and nothing was done: it is diffed again.
    Moved,
    /// What came of it is not known.
    Indeterminate,
}

impl Setback {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { failure: Failure { message: message.into(), ..Failure::default() }, kind: SetbackKind::Failed }
    }

    pub(crate) fn hinted(message: impl Into<String>, hint: Option<String>) -> Self {
        Self { failure: Failure { message: message.into(), hint, ..Failure::default() }, kind: SetbackKind::Failed }
    }

    pub(crate) fn finally(message: impl Into<String>) -> Self {
        Self { kind: SetbackKind::Final, ..Self::failed(message) }
    }

    /// The host does not bear the block that the operation is in. It cannot go on, whatever its operations ignore.
    pub(crate) fn crowded(crowded: Crowded) -> Self {
        let mut setback = Self::finally(crowded.message);
        setback.failure.hint = crowded.hint;
        setback
    }

    /// What a function of the script said; `what` are words in front of it.
    pub(crate) fn of_function(what: &str, diagnostic: &Diagnostic) -> Self {
        Self::hinted(format!("{what}{diagnostic}"), diagnostic.hint.clone())
    }

    /// The outcome of an operation that ended with it.
    pub(crate) fn outcome(self, ignores_errors: bool) -> Outcome {
        let Self { failure, kind } = self;
        match kind {
            SetbackKind::Failed => Outcome::Failed { failure, ignored: ignores_errors },
            SetbackKind::Final | SetbackKind::Moved => Outcome::Failed { failure, ignored: false },
            SetbackKind::Indeterminate => Outcome::Indeterminate { failure },
        }
    }
}
