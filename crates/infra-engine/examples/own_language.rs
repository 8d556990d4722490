//! A run without the binary: hosts, one operation, one fact, a language and a wire, all of one's own.
//!
//! ```sh
//! cargo run -p infra-engine --example own_language -- /tmp/one /tmp/two
//! ```
//!
//! A program that reaches real hosts takes its wire from `infra-connect`, and its operations from `infra-std`.

use std::process::Stdio;
use std::sync::Arc;

use infra_core::change::{Action, Change};
use infra_core::command::Command;
use infra_core::connection::{Connect, ConnectError, Connection, Ending, Lost, OutputSink, Perform, Question};
use infra_core::diagnostic::Location;
use infra_core::event::{Event, Outcome};
use infra_core::example::{Example, FactExample};
use infra_core::fact::{Fact, ParseError};
use infra_core::facts::{DiffError, Facts};
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::Host;
use infra_core::inventory_builder::from_host_list;
use infra_core::late::Late;
use infra_core::operation::Operation;
use infra_core::output::{Output, Stream};
use infra_core::plan::Plan;
use infra_core::registry::{FactDefinition, OperationDefinition, Registry};
use infra_core::resources::Resources;
use infra_core::run_state::RunState;
use infra_core::script::{Answer, Language, Next, OperationCall, Script, Step};
use infra_core::{BoxFuture, Map, Value, sh};
use infra_engine::{Approve, Run, Settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

/// Whether there is a folder at a path.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct IsFolder {
    /// The path.
    path: String,
}

impl Fact for IsFolder {
    const NAME: &'static str = "own.is_folder";
    const DOC: &'static str = "Whether there is a folder at a path.";
    type Value = bool;

    fn command(&self) -> Command {
        sh!("test -d {}", self.path).into()
    }

    fn parse(&self, output: &Output) -> Result<bool, ParseError> {
        match output.status {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(ParseError::new(format!("test exited with {other}"))),
        }
    }

    fn rests_on(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn examples() -> Vec<FactExample> {
        Vec::new()
    }
}

/// A folder at a path.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
struct Folder {
    /// The path.
    path: String,
}

impl Operation for Folder {
    const NAME: &'static str = "own.folder";
    const DOC: &'static str = "Makes a folder.";

    fn touches(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let there = IsFolder { path: self.path.clone() };
        if facts.get(&there)? {
            return Ok(Change::none("is there"));
        }
        Ok(Change::new("create").run(sh!("mkdir {}", self.path)).answer(&there, &true))
    }

    fn examples() -> Vec<Example> {
        Vec::new()
    }
}

/// A language in which one can only say that there are to be folders.
struct Folders(Vec<String>);

impl Language for Folders {
    fn script(&self, _: &Arc<Host>) -> Box<dyn Script> {
        let call = |(line, path): (usize, &String)| OperationCall {
            call: u32::try_from(line).expect("a short list"),
            kind: Folder::NAME.to_owned(),
            name: None,
            path: Vec::new(),
            blocks: Vec::new(),
            arguments: Map::from_iter([("path".to_owned(), Value::from(path.as_str()))]),
            conditions: Vec::new(),
            when: Vec::new(),
            globals: GlobalArguments::default(),
            // The same place on several hosts is the same operation.
            chain: vec![Location { file: "folders".to_owned(), line: u32::try_from(line + 1).expect("a short list") }],
            deploy: 0,
            late: Late::default(),
            on: None,
        };
        Box::new(Said(self.0.iter().enumerate().map(call).collect()))
    }
}

struct Said(Vec<OperationCall>);

impl Script for Said {
    fn resume(&mut self, _: Vec<Answer>) -> BoxFuture<'_, Step> {
        Box::pin(std::future::ready(Step { calls: std::mem::take(&mut self.0), next: Next::Done }))
    }
}

/// A wire that reaches nothing but this machine, and knows no privilege, no deadline and no upload.
struct Here;

impl Connect for Here {
    fn connect<'a>(&'a self, _: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(std::future::ready(Ok(Arc::new(Self) as Arc<dyn Connection>)))
    }
}

async fn run_here(command: &Command) -> Result<Output, String> {
    let shell = tokio::process::Command::new("sh").arg("-c").arg(command.script.as_str()).stdin(Stdio::null()).output().await;
    let output = shell.map_err(|error| error.to_string())?;
    let status = output.status.code().ok_or("a signal ended it")?;
    Ok(Output { status, stdout: output.stdout, stderr: output.stderr })
}

impl Connection for Here {
    fn gather(&self, questions: Vec<Question>) -> BoxFuture<'_, Result<Vec<Result<Output, String>>, Lost>> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for question in questions {
                answers.push(run_here(&question.command).await);
            }
            Ok(answers)
        })
    }

    fn perform<'a>(&'a self, step: Perform<'a>, sink: OutputSink) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            let Action::Run(command) = step.action else { return Ending::Refused("this wire runs commands alone".to_owned()) };
            match run_here(command).await {
                Ok(output) => {
                    sink.take(Stream::Stdout, &output.stdout);
                    sink.take(Stream::Stderr, &output.stderr);
                    Ending::Exited(output.status)
                }
                Err(reason) => Ending::Lost { reason, begun: true },
            }
        })
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// Nobody is asked.
struct Yes;

impl Approve for Yes {
    fn approve(&self, _: Arc<Plan>) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(true))
    }
}

/// Sees to it that there are these folders. Gives the record of the run, and a line for each operation.
pub async fn own_language(folders: Vec<String>) -> (RunState, Vec<String>) {
    let inventory = Arc::new(from_host_list("@local", Map::new()).expect("@local is a host"));
    let mut registry = Registry::default();
    registry.add_fact(FactDefinition::of::<IsFolder>());
    registry.add_operation(OperationDefinition::of::<Folder>());
    let (events, mut told) = mpsc::channel(64);
    // Who wants to end a run sends how often that was said: 1 lets what is in flight end.
    let (_interrupt, interrupts) = watch::channel(0);
    let run = Run {
        hosts: inventory.hosts.iter().map(|host| host.id).collect(),
        inventory,
        registry: Arc::new(registry),
        language: Arc::new(Folders(folders)),
        connect: Arc::new(Here),
        settings: Settings::default(),
        approve: Arc::new(Yes),
        interrupts,
        events,
        journal: None,
    };
    let listening = tokio::spawn(async move {
        let mut lines = Vec::new();
        let mut plan: Option<Arc<Plan>> = None;
        while let Some(event) = told.recv().await {
            match event {
                Event::PlanReady { plan: made } => plan = Some(made),
                Event::HostOperationEnded { op, result, .. } => {
                    let title = plan.as_ref().map(|plan| plan.operations[op.index()].title.clone()).unwrap_or_default();
                    let outcome = match &result.outcome {
                        Outcome::Changed { reason } => format!("changed: {reason}"),
                        Outcome::Unchanged { reason } => format!("unchanged: {reason}"),
                        Outcome::Failed { failure, .. } => format!("failed: {}", failure.message),
                        other => format!("{other:?}"),
                    };
                    lines.push(format!("{title}: {outcome}"));
                }
                _ => {}
            }
        }
        lines
    });
    let state = run.deploy().await;
    (state, listening.await.expect("it does not panic"))
}

#[allow(dead_code, reason = "the tests take the rest of this file as a module")]
#[tokio::main]
async fn main() -> std::process::ExitCode {
    let (state, lines) = own_language(std::env::args().skip(1).collect()).await;
    for line in lines {
        println!("{line}");
    }
    std::process::ExitCode::from(state.exit_code())
}
