//! How a deploy reaches the engine: a script per host that registers operations and asks for facts.
//!
//! The engine knows no Lua. It starts one [`Script`] per host through a [`Language`], resumes it with answers until it is done, and keeps the
//! [`OperationCall`]s that it made.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arguments::ArgumentError;
use crate::condition::{CallIndex, Condition};
use crate::diagnostic::{Diagnostic, Location};
use crate::fact::SharedFact;
use crate::global_arguments::{Context, GlobalArguments};
use crate::host::Host;
use crate::late::{Functions, Late, Place};
use crate::operation::SharedOperation;
use crate::registry::Registry;
use crate::waves::{Batch, Share};
use crate::{BoxFuture, Map, Value};

/// An operation called by one host's script, with its arguments checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationCall {
    /// Its number on this host, from 0, in the order of the script.
    pub call: CallIndex,
    /// `module.operation`.
    pub kind: String,
    /// The `name` that was given to it.
    pub name: Option<String>,
    /// The names of the `deploy` blocks around it, outermost first.
    pub path: Vec<String>,
    /// The `parallel` and `rolling` blocks around it, outermost first.
    #[serde(default)]
    pub blocks: Vec<Block>,
    /// Its own arguments, without those in `conditions`; paths of the controller absolute, paths of the host joined with `_chdir`.
    pub arguments: Map,
    /// Boolean arguments that were given a condition.
    pub conditions: Vec<(String, Condition)>,
    /// `_if` of the call and of the blocks around it: all must hold.
    pub when: Vec<Condition>,
    /// The arguments that every operation takes, merged.
    pub globals: GlobalArguments,
    /// Where it was called: from the deploy file down to the call itself.
    pub chain: Vec<Location>,
    /// The place on the command line of the deploy file that it came from, from 0.
    pub deploy: u32,
    /// What only the run can tell of it.
    #[serde(default)]
    pub late: Late,
    /// Where it runs instead of on its own host, which it is counted for: `_on`.
    #[serde(default)]
    pub on: Option<Place>,
}

/// A block that changes when the operations inside it run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// What it does.
    pub kind: BlockKind,
    /// The name that was given to it.
    pub name: Option<String>,
    /// Where it was called: from the deploy file down to the block.
    pub chain: Vec<Location>,
    /// How often this host has come by this place before, from 0.
    pub turn: u32,
}

/// What a [`Block`] does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockKind {
    /// The operations inside run at the same time.
    Parallel,
    /// The operations inside run wave by wave.
    Rolling(Rolling),
}

/// How a `rolling` block goes through its hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rolling {
    /// The sizes of its waves: a number of hosts, a share such as `"25%"`, or a list of sizes; one host at a time where not given.
    #[serde(default = "Batch::one")]
    pub batch: Batch,
    /// How many hosts of a wave may fail before no further wave starts: a number or a share of those that entered it; what `--max-fail` says where not
    /// given, which is 0.
    #[serde(default)]
    pub max_fail: Option<Share>,
    /// Seconds between two waves, where the first of them changed something.
    #[serde(default)]
    pub pause: f64,
}

impl Default for Rolling {
    fn default() -> Self {
        Self { batch: Batch::one(), max_fail: None, pause: 0.0 }
    }
}

impl OperationCall {
    /// The wish, with each conditional argument set to what `decide` says.
    ///
    /// # Errors
    /// [`ArgumentError`] when the arguments do not fit, which registration has checked.
    pub fn bind(&self, registry: &Registry, decide: impl Fn(&Condition) -> bool) -> Result<SharedOperation, ArgumentError> {
        let definition = registry.operation(&self.kind).ok_or_else(|| ArgumentError {
            argument: None,
            message: format!("there is no operation `{}`", self.kind),
            hint: registry.nearest_operation(&self.kind),
        })?;
        let mut arguments = self.arguments.clone();
        for (name, condition) in &self.conditions {
            arguments.insert(name.clone(), Value::Bool(decide(condition)));
        }
        definition.bind(arguments)
    }

    /// The conditions that decide of it: whether it runs, and its conditional arguments.
    pub fn all_conditions(&self) -> impl Iterator<Item = &Condition> {
        self.when.iter().chain(self.conditions.iter().map(|(_, condition)| condition))
    }

    /// Where the call itself stands.
    pub fn location(&self) -> Option<&Location> {
        self.chain.last()
    }

    /// Its title for people: the blocks around it and its name, or its kind with its first argument.
    pub fn title(&self) -> String {
        let own = self.name.clone().unwrap_or_else(|| {
            let first =
                ["path", "dest", "service", "user", "group", "packages", "src", "commands"].iter().find_map(|key| self.arguments.get(*key));
            let words = match first {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Array(items)) => {
                    items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
                }
                _ => String::new(),
            };
            let line = words.lines().next().unwrap_or_default();
            let short: String = line.chars().take(60).collect();
            let more = if short.len() < words.len() { "…" } else { "" };
            if short.is_empty() { self.kind.clone() } else { format!("{} {short}{more}", self.kind) }
        });
        let mut parts = self.path.clone();
        parts.push(own);
        parts.join(" | ")
    }
}

/// A question that a script asks about its host as it stands now.
#[derive(Clone, Debug)]
pub struct FactRequest {
    /// The question.
    pub fact: SharedFact,
    /// As whom it is asked.
    pub context: Context,
    /// Where it is asked instead of on the script's own host.
    pub on: Option<Place>,
}

/// The answer to a [`FactRequest`]: the value, or why there is none.
pub type Answer = Result<Arc<Value>, String>;

/// What a script did until it needed something.
#[derive(Debug)]
pub struct Step {
    /// The operations it called since it was resumed.
    pub calls: Vec<OperationCall>,
    /// What it needs now.
    pub next: Next,
}

/// What a script needs.
#[derive(Debug)]
pub enum Next {
    /// Answers to these questions, in this order; they are read in one round trip.
    Ask(Vec<FactRequest>),
    /// What the plan says of this call by now: one answer, `true` where it will change something, `false` where it will not, `"unknown"` where that is
    /// open (`will_change`).
    Foresee(CallIndex),
    /// Nothing more: it came to its end.
    Done,
    /// It cannot go on.
    Failed(Box<Diagnostic>),
}

/// One host's evaluation of the deploy.
pub trait Script: Send {
    /// Goes on with the answers to the last questions (none at the first call) until it needs more or ends.
    fn resume(&mut self, answers: Vec<Answer>) -> BoxFuture<'_, Step>;

    /// What is left of a script that came to its end: the functions that it registered, if it did.
    fn functions(self: Box<Self>) -> Option<Box<dyn Functions>> {
        None
    }
}

/// What makes scripts: Lua files, or one operation named on the command line.
pub trait Language: Send + Sync {
    /// The script of one host, not started yet.
    fn script(&self, host: &Arc<Host>) -> Box<dyn Script>;
}
