//! A world in memory, a few operations and facts, and runs of scripts without an engine.
#![allow(dead_code, missing_docs)]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use infra_core::change::Change;
use infra_core::command::Command;
use infra_core::diagnostic::{Diagnostic, Fault};
use infra_core::example::{Example, FactExample};
use infra_core::fact::{Fact, ParseError};
use infra_core::facts::{DiffError, Facts};
use infra_core::inventory::Inventory;
use infra_core::late::{CallResult, FunctionId, Functions, LateReply, LateStep, Purpose, Results};
use infra_core::operation::{Misuse, Operation};
use infra_core::output::Output;
use infra_core::registry::{FactDefinition, OperationDefinition, Registry};
use infra_core::script::{Answer, FactRequest, Language, Next, OperationCall};
use infra_core::secret::Secrets;
use infra_core::{BoxFuture, Map, Value, sh};
use infra_lua::{Deploy, Limits, LocalCommand, LocalOutput, Question, World, load_inventory};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! toy {
    ($(#[$meta:meta])* $name:ident, $lua:literal, { $($(#[$field:meta])* $argument:ident: $kind:ty),* $(,)? } $(, $check:expr)?) => {
        $(#[$meta])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[allow(dead_code)]
        struct $name { $($(#[$field])* $argument: $kind),* }

        impl Operation for $name {
            const NAME: &'static str = $lua;
            const DOC: &'static str = "A toy.";
            fn check(&self) -> Result<(), Misuse> { $(let check: fn(&Self) -> Result<(), Misuse> = $check; check(self)?;)? Ok(()) }
            fn diff(&self, _: &Facts<'_>) -> Result<Change, DiffError> { Ok(Change::none("a toy")) }
            fn examples() -> Vec<Example> { Vec::new() }
        }
    };
}

toy!(Packages, "apt.packages", {
    #[serde(default)] packages: Vec<String>,
    #[serde(default)] present: Option<bool>,
    #[serde(default)] update: bool,
    cache_time: Option<u32>,
});
toy!(Service, "systemd.service", {
    service: String,
    running: Option<bool>,
    #[serde(default)] restarted: bool,
    #[serde(default)] reloaded: bool,
    enabled: Option<bool>,
});
toy!(Shell, "server.shell", { commands: Vec<String> });
toy!(Wait, "server.wait", { port: Option<u16>, http: Option<String>, command: Option<String>, timeout: Option<f64> });
toy!(Template, "files.template", {
    #[schemars(extend("x-local-path" = true))] src: Option<String>,
    content: Option<String>,
    #[schemars(extend("x-host-path" = true))] dest: String,
    mode: Option<infra_core::mode::Mode>,
    #[serde(default)] vars: Map,
    #[schemars(extend("x-template-scope" = true))] #[serde(default)] scope: Value,
}, |template| match (&template.src, &template.content) {
    (Some(_), None) | (None, Some(_)) => Ok(()),
    _ => Err(Misuse::new("exactly one of `src` and `content` is needed").hint("write src = \"templates/x.j2\"")),
});
toy!(Put, "files.put", {
    #[schemars(extend("x-local-path" = true))] src: String,
    #[schemars(extend("x-host-path" = true))] dest: String,
    user: Option<String>,
});

macro_rules! toy_fact {
    ($name:ident, $lua:literal, { $($(#[$mark:meta])* $argument:ident: $kind:ty),* }) => {
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        struct $name { $($(#[$mark])* $argument: $kind),* }

        impl Fact for $name {
            const NAME: &'static str = $lua;
            const DOC: &'static str = "A toy.";
            type Value = Value;
            fn command(&self) -> Command { Command::new(sh!("true")) }
            fn parse(&self, _: &Output) -> Result<Value, ParseError> { Ok(Value::Null) }
            fn examples() -> Vec<FactExample> { Vec::new() }
        }
    };
}

toy_fact!(Hostname, "server.hostname", {});
toy_fact!(FileFact, "files.file", { #[schemars(extend("x-host-path" = true))] path: String });

pub fn registry() -> Arc<Registry> {
    let mut registry = Registry::default();
    registry.add_operation(OperationDefinition::of::<Packages>());
    registry.add_operation(OperationDefinition::of::<Service>());
    registry.add_operation(OperationDefinition::of::<Shell>());
    registry.add_operation(OperationDefinition::of::<Wait>());
    registry.add_operation(OperationDefinition::of::<Template>());
    registry.add_operation(OperationDefinition::of::<Put>());
    registry.add_fact(FactDefinition::of::<Hostname>());
    registry.add_fact(FactDefinition::of::<FileFact>());
    Arc::new(registry)
}

/// Files below `/deploy`, which is the working directory.
#[derive(Default)]
pub struct Memory {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    pub log: Mutex<Vec<String>>,
    pub ran: Mutex<Vec<LocalCommand>>,
    pub secrets: Secrets,
    /// What a person types who is asked; nobody is there where there is none.
    pub typed: Mutex<Option<String>>,
    pub asked: Mutex<Vec<Question>>,
}

impl World for Memory {
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    fn list_folder(&self, path: &Path) -> io::Result<Vec<String>> {
        let names: Vec<String> = self
            .files
            .keys()
            .filter(|file| file.parent() == Some(path))
            .filter_map(|file| Some(file.file_name()?.to_str()?.to_owned()))
            .collect();
        if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names) }
    }

    fn environment(&self, name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/toy".to_owned()),
            "TOKEN" => Some("canary-of-env".to_owned()),
            "SHORT" => Some("tiny".to_owned()),
            _ => None,
        }
    }

    /// Commands are toys as well: `echo` says its words, `false` fails.
    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>> {
        Box::pin(async move {
            self.ran.lock().expect("a lock").push(command.clone());
            match command.argv[0].as_str() {
                "echo" => {
                    let stdout = format!("{}\n", command.argv[1..].join(" ")).into_bytes();
                    Ok(LocalOutput { status: Some(0), stdout, stderr: Vec::new() })
                }
                "false" => Ok(LocalOutput { status: Some(1), stdout: Vec::new(), stderr: b"it is false\n".to_vec() }),
                _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such program")),
            }
        })
    }

    fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>> {
        self.asked.lock().expect("a lock").push(question);
        Box::pin(std::future::ready(Ok(self.typed.lock().expect("a lock").clone())))
    }

    fn log(&self, host: Option<&str>, text: &str) {
        self.log.lock().expect("a lock").push(format!("{}: {text}", host.unwrap_or("-")));
    }

    fn working_directory(&self) -> PathBuf {
        PathBuf::from("/deploy")
    }
}

/// A world with these files.
pub fn world(files: &[(&str, &str)]) -> Arc<Memory> {
    let files = files.iter().map(|(path, text)| (Path::new("/deploy").join(path), text.as_bytes().to_vec())).collect();
    Arc::new(Memory { files, ..Memory::default() })
}

/// What one host's script did.
#[derive(Debug, Default)]
pub struct Ran {
    pub calls: Vec<OperationCall>,
    pub asked: Vec<Vec<String>>,
    pub contexts: Vec<infra_core::global_arguments::Context>,
    pub failed: Option<Box<Diagnostic>>,
}

fn question(request: &FactRequest) -> String {
    let on = request.on.map(|place| format!(" on {place:?}")).unwrap_or_default();
    format!("{:?}{on}", request.fact)
}

/// Answers questions: the host's name, and a map for files; `files.file` of `/broken` fails, of `/missing` is null.
fn answer(host: &str, request: &FactRequest) -> Answer {
    match request.fact.name() {
        "server.hostname" => Ok(Arc::new(Value::from(host))),
        _ => match request.fact.question()["path"].as_str() {
            Some("/broken") => Err("permission denied".to_owned()),
            Some("/missing") => Ok(Arc::new(Value::Null)),
            path => Ok(Arc::new(serde_json::json!({ "path": path, "size": 12 }))),
        },
    }
}

pub async fn run_script(deploy: &Deploy, inventory: &Inventory, host: usize) -> Ran {
    prepare(deploy, inventory, host).await.0
}

/// Runs a script to its end, and gives the functions that it left behind. What the plan says of a call: the first will change something, the second
/// will not, the others are open.
pub async fn prepare(deploy: &Deploy, inventory: &Inventory, host: usize) -> (Ran, Option<Box<dyn Functions>>) {
    let host = &inventory.hosts[host];
    let mut script = deploy.script(host);
    let mut ran = Ran::default();
    let mut answers = Vec::new();
    loop {
        let step = script.resume(answers).await;
        ran.calls.extend(step.calls);
        match step.next {
            Next::Ask(asked) => {
                ran.asked.push(asked.iter().map(question).collect());
                ran.contexts.extend(asked.iter().map(|request| request.context.clone()));
                answers = asked.iter().map(|request| answer(&host.name, request)).collect();
            }
            Next::Foresee(call) => {
                assert!(ran.calls.iter().any(|known| known.call == call), "the plan is asked for what it has");
                let foreseen = [Value::from(true), Value::from(false)].get(call as usize).cloned();
                answers = vec![Ok(Arc::new(foreseen.unwrap_or_else(|| Value::from("unknown"))))];
            }
            Next::Done => return (ran, script.functions()),
            Next::Failed(diagnostic) => {
                ran.failed = Some(diagnostic);
                return (ran, script.functions());
            }
        }
    }
}

/// Calls a function and answers all it needs; `perform` runs its operations, and none ends it.
pub async fn call_function(
    functions: &mut dyn Functions,
    function: FunctionId,
    purpose: Purpose,
    results: &Results,
    trace: &mut Vec<String>,
    perform: fn(&OperationCall) -> Option<CallResult>,
) -> Result<Value, Box<Diagnostic>> {
    let mut step = functions.begin(function, purpose, Arc::new(results.clone())).await;
    loop {
        let reply = match step {
            LateStep::Ask(asked) => {
                trace.push(format!("ask {}", asked.iter().map(question).collect::<Vec<_>>().join(", ")));
                LateReply::Answers(asked.iter().map(|request| answer("web-1", request)).collect())
            }
            LateStep::Perform(call) => {
                let on = call.on.map(|place| format!(" on {place:?}")).unwrap_or_default();
                let sudo = call.globals.sudo.map(|_| " sudo").unwrap_or_default();
                trace.push(format!("run {} {} {}{sudo}{on}", call.call, call.title(), Value::from(call.arguments.clone())));
                match perform(&call) {
                    Some(result) => LateReply::Ended(Arc::new(result)),
                    None => return Ok(Value::from("given up")),
                }
            }
            LateStep::Returned(value) => return Ok(value),
            LateStep::Failed(wrong) => return Err(wrong),
        };
        step = functions.resume(reply).await;
    }
}

/// What came of an operation that changed something.
pub fn changed(stdout: &str) -> CallResult {
    CallResult { changed: true, succeeded: true, stdout: stdout.to_owned(), exit_code: Some(0), ..CallResult::default() }
}

pub const INVENTORY: &str = r#"
web_servers = { "web-1", { "web-2", role = "canary" }, data = { http_port = 80 } }
db_servers = { "db-1" }
"#;

/// Reads the inventory of these files, or a small one where there is none, and loads `deploy.lua`.
pub async fn load(files: &[(&str, &str)]) -> Result<(Arc<Memory>, Arc<Inventory>, Deploy), Vec<Diagnostic>> {
    let limits = Limits { memory: 32 * 1024 * 1024, running_time: std::time::Duration::from_secs(20) };
    load_with(files, &["deploy.lua"], limits).await
}

/// The same with these deploy files and limits.
pub async fn load_with(
    files: &[(&str, &str)],
    deploys: &[&str],
    limits: Limits,
) -> Result<(Arc<Memory>, Arc<Inventory>, Deploy), Vec<Diagnostic>> {
    let mut all = vec![("inventory.lua", INVENTORY)];
    all.extend_from_slice(files);
    let world = world(&all);
    let inventory = load_inventory(Path::new("inventory.lua"), world.clone(), Map::new()).await.map_err(|wrong| vec![*wrong])?;
    let inventory = Arc::new(inventory);
    let deploys: Vec<PathBuf> = deploys.iter().map(PathBuf::from).collect();
    let deploy = Deploy::load(&deploys, inventory.clone(), registry(), world.clone(), limits)?;
    Ok((world, inventory, deploy))
}

/// Runs `deploy.lua` on the first host.
pub async fn run(files: &[(&str, &str)]) -> Result<Ran, Vec<Diagnostic>> {
    let (_, inventory, deploy) = load(files).await?;
    Ok(run_script(&deploy, &inventory, 0).await)
}

/// The calls of a deploy that comes to its end.
pub async fn calls(deploy: &str) -> Vec<OperationCall> {
    let ran = run(&[("deploy.lua", deploy)]).await.unwrap_or_else(|wrong| panic!("{}", shown(&wrong[0])));
    if let Some(wrong) = ran.failed {
        panic!("{}", shown(&wrong));
    }
    ran.calls
}

/// What a person reads.
pub fn shown(diagnostic: &Diagnostic) -> String {
    let mut text = match diagnostic.fault {
        Fault::Misuse => "misuse: ".to_owned(),
        Fault::Runtime | Fault::Host => "runtime: ".to_owned(),
    };
    text.push_str(&diagnostic.to_string());
    if let Some(line) = &diagnostic.source_line {
        text.push_str(&format!("\n  | {line}"));
    }
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

/// What a person reads of a deploy that is wrong.
pub async fn wrong_with(files: &[(&str, &str)]) -> String {
    match run(files).await {
        Err(wrong) => wrong.iter().map(shown).collect::<Vec<_>>().join("\n"),
        Ok(Ran { failed: Some(wrong), .. }) => shown(&wrong),
        Ok(ran) => format!("nothing is wrong; {} calls", ran.calls.len()),
    }
}
