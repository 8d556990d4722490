//! From what Lua raises to what a person reads.

use std::sync::Arc;

use infra_core::diagnostic::{Diagnostic, Fault, Location};

use crate::source::Sources;

/// A diagnostic on its way through Lua.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", self.0.message)]
pub(crate) struct Raised(pub Box<Diagnostic>);

/// A diagnostic as an error that Lua can carry.
pub(crate) fn raise(diagnostic: Diagnostic) -> mlua::Error {
    mlua::Error::ExternalError(Arc::new(Raised(Box::new(diagnostic))))
}

/// What Lua's own errors say, without the words that mlua puts around them.
fn plain_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => plain_message(cause),
        mlua::Error::BadArgument { cause, .. } => plain_message(cause),
        mlua::Error::RuntimeError(message) | mlua::Error::SyntaxError { message, .. } => message.clone(),
        mlua::Error::MemoryError(_) => "not enough memory".to_owned(),
        other => other.to_string(),
    }
}

/// The diagnostic of an error of Lua. `chain` is where it was raised, where that is known.
pub(crate) fn diagnose(error: &mlua::Error, sources: &Sources, chain: Vec<Location>) -> Box<Diagnostic> {
    if let Some(Raised(diagnostic)) = error.downcast_ref::<Raised>() {
        return diagnostic.clone();
    }
    diagnose_message(&plain_message(error), sources, chain)
}

/// The diagnostic of a text that Lua raised.
pub(crate) fn diagnose_message(message: &str, sources: &Sources, chain: Vec<Location>) -> Box<Diagnostic> {
    let message = message.split("\nstack traceback:").next().unwrap_or_default();
    let (named, rest) = sources.split_location(message);
    // Of functions that call each other without end, the innermost calls say enough.
    let chain = chain[chain.len().saturating_sub(CHAIN)..].to_vec();
    let location = named.or_else(|| chain.last().cloned());
    let source_line = location.as_ref().and_then(|location| sources.line(location));
    let mut diagnostic = Diagnostic { location, source_line, chain, ..Diagnostic::runtime(sentence(rest)) };
    diagnostic.hint = crate::hints::runtime_hint(&diagnostic.message, diagnostic.source_line.as_deref().unwrap_or_default());
    Box::new(diagnostic)
}

/// Some of Lua's messages, said for a person who is no programmer of Lua.
fn sentence(message: &str) -> String {
    if message == "not enough memory" {
        return "the script needs more memory than its limit allows".to_owned();
    }
    if message.starts_with("stack overflow") {
        return "functions call each other without end (stack overflow)".to_owned();
    }
    message.trim_end().to_owned()
}

/// How many calls a diagnostic names.
const CHAIN: usize = 64;

/// Whether it stops the run.
pub(crate) fn is_misuse(diagnostic: &Diagnostic) -> bool {
    diagnostic.fault == Fault::Misuse
}
