//! One operation from the command line, as a language of its own: `MODULE.OP KEY=VALUE…` and `exec`.

use std::path::Path;
use std::sync::Arc;

use infra_core::arguments::{self, ArgumentError};
use infra_core::command::Shell;
use infra_core::diagnostic::Diagnostic;
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::Host;
use infra_core::registry::Registry;
use infra_core::script::{Answer, Language, Next, OperationCall, Script, Step};
use infra_core::{BoxFuture, Map, Value};

/// The same operation for every host.
pub struct AdHoc {
    kind: String,
    schema: Value,
    arguments: Map,
    name: Option<String>,
    globals: GlobalArguments,
}

impl AdHoc {
    /// An operation and the words of its arguments. Words that start with `_` are global arguments; files are looked up in `folder`.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] that names the nearest right name.
    pub fn operation(registry: &Registry, kind: &str, words: &[String], folder: &Path) -> Result<Self, Diagnostic> {
        let definition = registry
            .operation(kind)
            .ok_or_else(|| Diagnostic::misuse(format!("there is no operation `{kind}`")).maybe_hint(registry.nearest_operation(kind)))?;
        let wrong = |error| blame(kind, error);
        let is_name = |word: &&String| word.starts_with("name=") && arguments::property(&definition.schema, "name").is_none();
        let (global_words, own): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.starts_with('_'));
        let (names, own): (Vec<&String>, Vec<&String>) = own.into_iter().partition(is_name);
        let mut arguments = arguments::from_words(&definition.schema, &own).map_err(wrong)?;
        for (argument, value) in &mut arguments {
            if arguments::is_marked(&definition.schema, argument, arguments::LOCAL_PATH)
                && let Value::String(path) = value
            {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        }
        let stripped: Vec<&str> = global_words.iter().map(|word| &word[1..]).collect();
        if let Some(word) = stripped.iter().find(|word| word.starts_with("if=")) {
            return Err(Diagnostic::misuse(format!("`_{word}` has no meaning here: there is no earlier operation to ask about")));
        }
        let globals = arguments::from_words(&infra_core::global_arguments::schema(), &stripped)
            .and_then(GlobalArguments::read)
            .map_err(|error| blame("global argument", error))?;
        let call = Self {
            kind: kind.to_owned(),
            schema: definition.schema.clone(),
            arguments,
            name: names.last().map(|word| word["name=".len()..].to_owned()),
            globals,
        };
        definition.bind(call.arguments.clone()).map_err(wrong)?;
        Ok(call)
    }

    /// A command: one word is shell text, several are an argument vector, each quoted as given.
    ///
    /// # Panics
    /// When the registry has no `server.shell`, which the standard library does.
    pub fn exec(registry: &Registry, words: &[String]) -> Self {
        let command = match words {
            [text] => text.clone(),
            words => Shell::argv(words).to_string(),
        };
        let kind = "server.shell";
        let definition = registry.operation(kind).expect("the standard library has server.shell");
        Self {
            kind: kind.to_owned(),
            schema: definition.schema.clone(),
            arguments: Map::from_iter([("commands".to_owned(), Value::from(vec![command.clone()]))]),
            name: Some(command),
            globals: GlobalArguments::default(),
        }
    }

    fn call(&self, host: &Host) -> Result<OperationCall, Diagnostic> {
        let globals = self.globals.clone().or(&globals_of(host)?);
        let mut arguments = self.arguments.clone();
        if let Some(chdir) = &globals.chdir {
            arguments::join_host_paths(&self.schema, &mut arguments, chdir);
        }
        Ok(OperationCall {
            call: 0,
            kind: self.kind.clone(),
            name: self.name.clone(),
            path: Vec::new(),
            blocks: Vec::new(),
            arguments,
            conditions: Vec::new(),
            when: Vec::new(),
            globals,
            chain: Vec::new(),
            deploy: 0,
        })
    }
}

/// The global arguments that a host's data holds, such as `_sudo = true`.
///
/// # Errors
/// A misuse [`Diagnostic`] that names the host and the key.
pub fn globals_of(host: &Host) -> Result<GlobalArguments, Diagnostic> {
    GlobalArguments::of_data(&host.data).map_err(|error| blame(&format!("the data of {}", host.name), error))
}

fn blame(what: &str, error: ArgumentError) -> Diagnostic {
    Diagnostic::misuse(format!("{what}: {}", error.message)).maybe_hint(error.hint)
}

impl Language for AdHoc {
    fn script(&self, host: &Arc<Host>) -> Box<dyn Script> {
        Box::new(OneCall(Some(self.call(host))))
    }
}

/// A language in which nothing is said, for runs that read facts alone.
pub struct Nothing;

impl Language for Nothing {
    fn script(&self, _host: &Arc<Host>) -> Box<dyn Script> {
        Box::new(OneCall(None))
    }
}

struct OneCall(Option<Result<OperationCall, Diagnostic>>);

impl Script for OneCall {
    fn resume(&mut self, _answers: Vec<Answer>) -> BoxFuture<'_, Step> {
        let step = match self.0.take() {
            Some(Ok(call)) => Step { calls: vec![call], next: Next::Done },
            Some(Err(diagnostic)) => Step { calls: Vec::new(), next: Next::Failed(Box::new(diagnostic)) },
            None => Step { calls: Vec::new(), next: Next::Done },
        };
        Box::pin(std::future::ready(step))
    }
}
