//! One operation from the command line, as a language of its own: `MODULE.OP KEY=VALUE…` and `exec`.

use std::path::Path;
use std::sync::Arc;

use infra_core::arguments::{self, ArgumentError};
use infra_core::command::Shell;
use infra_core::diagnostic::Diagnostic;
use infra_core::fact::SharedFact;
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::Host;
use infra_core::late::Late;
use infra_core::registry::{FactDefinition, Registry};
use infra_core::script::{Answer, FactRequest, Language, Next, OperationCall, Script, Step};
use infra_core::{BoxFuture, Map, Value, template};

use crate::copying::folder_of;
use crate::exec::{Exec, What};

/// The same operation for every host.
pub struct AdHoc {
    kind: String,
    schema: Value,
    arguments: Map,
    name: Option<String>,
    globals: GlobalArguments,
    /// Of a file that each host writes on this machine: what stands in `dest` before and after the folder of the host.
    into_folders: Option<(String, &'static str)>,
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
            let is_local = |mark| arguments::is_marked(&definition.schema, argument, mark);
            if (is_local(arguments::LOCAL_PATH) || is_local(arguments::LOCAL_DESTINATION))
                && let Value::String(path) = value
            {
                *path = folder.join(&*path).to_string_lossy().into_owned();
            }
        }
        let globals = globals_from(kind, &global_words)?;
        let call = Self {
            kind: kind.to_owned(),
            schema: definition.schema.clone(),
            arguments,
            name: names.last().map(|word| word["name=".len()..].to_owned()),
            globals,
            into_folders: None,
        };
        definition.bind(call.arguments.clone()).map_err(wrong)?;
        Ok(call)
    }

    /// Commands or a program: of a command one word is shell text, several are an argument vector, each quoted as given. `stdin` is the absolute path of
    /// what they read; a program is looked up in `folder`.
    ///
    /// # Panics
    /// When the registry has no `server.shell` and no `server.script`, which the standard library does.
    pub fn exec(registry: &Registry, exec: &Exec, stdin: Option<&Path>, folder: &Path) -> Self {
        let shell = |commands: Vec<String>| {
            let name = commands.join("; ");
            let mut arguments = Map::from_iter([("commands".to_owned(), Value::from(commands))]);
            arguments.extend(stdin.map(|path| ("stdin".to_owned(), Value::from(path.to_string_lossy()))));
            ("server.shell", arguments, name)
        };
        let (kind, arguments, name) = match &exec.what {
            What::Words(words) => shell(vec![match words.as_slice() {
                [text] => text.clone(),
                words => Shell::argv(words).to_string(),
            }]),
            What::Commands(commands) => shell(commands.clone()),
            What::Script(path, args) => {
                let src = folder.join(path).to_string_lossy().into_owned();
                let words = std::iter::once(path.to_string_lossy().into_owned()).chain(args.iter().cloned());
                let name = Shell::argv(words).to_string();
                let arguments = [("src".to_owned(), Value::from(src)), ("args".to_owned(), Value::from(args.clone()))];
                ("server.script", Map::from_iter(arguments), name)
            }
        };
        let definition = registry.operation(kind).expect("the standard library has it");
        let (schema, globals) = (definition.schema.clone(), exec.globals.clone());
        Self { kind: kind.to_owned(), schema, arguments, name: Some(name), globals, into_folders: None }
    }

    /// The same under this name, where it has none.
    pub fn titled(mut self, title: String) -> Self {
        self.name.get_or_insert(title);
        self
    }

    /// The same, where `dest` is in a folder of each host's name below `folder`, with `end` behind that.
    pub fn into_folders(mut self, folder: &str, end: &'static str) -> Self {
        self.into_folders = Some((folder.to_owned(), end));
        self
    }

    fn call(&self, host: &Host) -> Result<OperationCall, Diagnostic> {
        let mut globals = self.globals.clone().or(&globals_of(host)?);
        let mut arguments = self.arguments.clone();
        if let Some((folder, end)) = &self.into_folders {
            arguments.insert("dest".to_owned(), format!("{folder}/{}{end}", folder_of(&host.name)).into());
        }
        arguments::join_host_paths(&self.schema, &mut arguments, &mut globals.chdir);
        for name in arguments::names(&self.schema) {
            if arguments::is_marked(&self.schema, name, arguments::TEMPLATE_SCOPE) {
                let scope = Map::from_iter([("host".to_owned(), template::host_scope(&host.name, &host.groups, &host.data))]);
                arguments.insert(name.to_owned(), scope.into());
            }
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
            late: Late::default(),
            on: None,
        })
    }
}

/// The arguments that every operation takes, from their words.
fn globals_from(what: &str, words: &[&String]) -> Result<GlobalArguments, Diagnostic> {
    if let Some(word) = words.iter().find(|word| word.starts_with("_if=")) {
        return Err(Diagnostic::misuse(format!("`{word}` has no meaning here: there is no earlier operation to ask about")));
    }
    let globals = GlobalArguments::from_words(words).map_err(|error| blame(what, error))?;
    if let Some((name, needs, write)) = globals.lonely(&globals) {
        let write = write.replace(" = ", "=").replace('"', "");
        return Err(Diagnostic::misuse(format!("{what}: `{name}` is given without `{needs}`")).hint(format!("write {write} beside it")));
    }
    Ok(globals)
}

/// One question from the command line: `fact NAME KEY=VALUE…`.
pub struct Question<'r> {
    definition: &'r FactDefinition,
    question: Map,
    globals: GlobalArguments,
}

/// The global arguments that mean something to a fact.
const OF_FACTS: &[&str] = &[
    "_sudo",
    "_sudo_user",
    "_sudo_login",
    "_sudo_preserve_env",
    "_su_user",
    "_su_login",
    "_su_shell",
    "_doas",
    "_doas_user",
    "_shell",
    "_env",
    "_chdir",
];

impl<'r> Question<'r> {
    /// A fact and the words of its question. Words that start with `_` are global arguments.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] that names the nearest right name.
    pub fn read(registry: &'r Registry, name: &str, words: &[String]) -> Result<Self, Diagnostic> {
        let definition = registry
            .fact(name)
            .ok_or_else(|| Diagnostic::misuse(format!("there is no fact `{name}`")).maybe_hint(registry.nearest_fact(name)))?;
        let (global_words, own): (Vec<&String>, Vec<&String>) = words.iter().partition(|word| word.starts_with('_'));
        let globals = globals_from(name, &global_words)?;
        let stray = global_words.iter().map(|word| word.split_once('=').map_or(word.as_str(), |(key, _)| key));
        if let Some(key) = stray.into_iter().find(|key| !OF_FACTS.contains(key)) {
            let message = format!("{name}: `{key}` means nothing to a fact");
            return Err(Diagnostic::misuse(message).hint(format!("a fact takes {}", OF_FACTS.join(", "))));
        }
        let question = arguments::from_words(&definition.schema, &own).map_err(|error| blame(name, error))?;
        let read = Self { definition, question, globals };
        read.bind(&read.globals).map_err(|error| blame(name, error))?;
        Ok(read)
    }

    fn bind(&self, globals: &GlobalArguments) -> Result<SharedFact, ArgumentError> {
        let mut question = self.question.clone();
        // Facts run in no directory of their own, so nothing is left over of a relative one.
        arguments::join_host_paths(&self.definition.schema, &mut question, &mut globals.chdir.clone());
        self.definition.bind(question)
    }

    /// The question as this host is asked it: as the user and with the environment that the words and its data say.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] in the host's data.
    pub fn of(&self, host: &Host) -> Result<FactRequest, Diagnostic> {
        let globals = self.globals.clone().or(&globals_of(host)?);
        let fact = self.bind(&globals).map_err(|error| blame(&self.definition.name, error))?;
        Ok(FactRequest { fact, context: globals.context().for_facts(), on: None })
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

#[cfg(test)]
mod tests {
    use infra_core::host::{Connector, HostId};
    use serde_json::json;

    use super::*;

    fn asked(words: &[&str], data: Value) -> Result<(String, Value), String> {
        let registry = infra_std::registry();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let data = data.as_object().cloned().expect("a map");
        let host = Host { data, ..Host::new(HostId(0), "web", Connector::Ssh, "web") };
        let request = Question::read(&registry, "files.file", &words).and_then(|question| question.of(&host));
        let request = request.map_err(|wrong| format!("{wrong} | {}", wrong.hint.as_deref().unwrap_or_default()))?;
        let context = serde_json::to_value(&request.context).expect("data");
        Ok((
            request.fact.question()["path"].as_str().expect("a path").to_owned(),
            json!([context["privilege"]["sudo"]["user"], context["env"]]),
        ))
    }

    #[test]
    fn a_host_is_asked_as_its_data_says_and_as_the_words_say_first() {
        let text = str::to_owned;
        assert_eq!(asked(&["path=x"], json!({})), Ok((text("x"), json!([null, {}]))));
        let data = json!({ "_sudo": true, "_sudo_user": "www", "_env": { "A": "1" }, "_chdir": "/srv", "_serial": true });
        assert_eq!(asked(&["path=x"], data.clone()), Ok((text("/srv/x"), json!(["www", { "A": "1" }]))));
        assert_eq!(asked(&["path=/x", "_sudo=false"], data.clone()), Ok((text("/x"), json!([null, { "A": "1" }]))));
        let words = ["path=x", "_sudo=true", "_sudo_user=db", "_env={\"B\":\"2\"}", "_chdir=/var"];
        assert_eq!(asked(&words, data), Ok((text("/var/x"), json!(["db", { "A": "1", "B": "2" }]))));
    }

    #[test]
    fn wrong_words_of_a_question_are_named() {
        let wrong = |words: &[&str]| asked(words, json!({})).expect_err("wrong words");
        assert_eq!(wrong(&["path=x", "_sudo_user=db"]), "files.file: `_sudo_user` is given without `_sudo` | write _sudo=true beside it");
        assert_eq!(
            wrong(&["path=x", "_timeout=5"]),
            "files.file: `_timeout` means nothing to a fact | a fact takes _sudo, _sudo_user, _sudo_login, _sudo_preserve_env, _su_user, _su_login, _su_shell, _doas, _doas_user, _shell, _env, _chdir"
        );
        assert_eq!(wrong(&["path=x", "_suod=true"]), "files.file: there is no argument `_suod` | did you mean `_sudo`?");
        assert_eq!(wrong(&["pth=x"]), "files.file: there is no argument `pth` | did you mean `path`?");
        let wrong = asked(&["path=x"], json!({ "_sudo": "yes" })).expect_err("wrong data");
        assert_eq!(wrong, "the data of web: `_sudo` takes true or false, got the string \"yes\" | ");
    }

    #[test]
    fn global_arguments_of_an_operation_are_checked() {
        let registry = infra_std::registry();
        let wrong = |word: &str| {
            let words = ["commands=true".to_owned(), word.to_owned()];
            AdHoc::operation(&registry, "server.shell", &words, Path::new("/")).err().expect("a wrong word").to_string()
        };
        assert_eq!(wrong("_timeout=-1"), "server.shell: `_timeout` takes seconds above 0, got -1");
        assert_eq!(wrong("_sudo_user=db"), "server.shell: `_sudo_user` is given without `_sudo`");
        assert_eq!(wrong("_doas_user=db"), "server.shell: `_doas_user` is given without `_doas`");
        assert!(wrong("_sudo_password=hunter2").starts_with("server.shell: `_sudo_password` stands on the command line"));
        assert_eq!(wrong("_if=true"), "`_if=true` has no meaning here: there is no earlier operation to ask about");
    }
}
