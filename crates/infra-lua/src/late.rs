//! Functions that a script leaves behind for execute: what they were given to, what stands around them, and what they give.

use std::path::PathBuf;
use std::sync::Arc;

use infra_core::arguments;
use infra_core::condition::{CallIndex, Condition, Known};
use infra_core::diagnostic::{Diagnostic, Location, did_you_mean};
use infra_core::global_arguments::GlobalArguments;
use infra_core::late::{CallResult, FunctionId, Place, Purpose, Results};
use infra_core::{Map, Value};
use mlua::{Function, Lua, MultiValue, Table, Value as LuaValue};

use crate::conditions::ReadCondition;
use crate::convert::{to_value, type_name};
use crate::evaluation::{Block, Evaluation, State};
use crate::host_object::host_name;
use crate::operations::{check_late_argument, resolve_local_paths};

/// Where the functions are kept in a Lua state, each at its number and one: a Lua state that were reached from here would never be freed.
pub(crate) const FUNCTIONS: &str = "infra.functions";

/// What stands around a function that is called later.
#[derive(Default)]
pub(crate) struct Surroundings {
    pub blocks: Vec<Block>,
    pub config: Vec<GlobalArguments>,
    pub deploy: u32,
    pub deploy_folder: PathBuf,
    pub chain: Vec<Location>,
}

/// The argument that a function gives the value of.
#[derive(Clone)]
pub(crate) struct LateArgument {
    /// The kind of the operation.
    pub kind: String,
    pub name: String,
    /// The directory that relative paths of the host count from.
    pub chdir: Option<String>,
}

/// A function that the script left behind.
#[derive(Clone)]
pub(crate) struct LeftBehind {
    /// What it was given to, as a person says it: `_if`.
    pub what: String,
    pub argument: Option<LateArgument>,
    pub around: Arc<Surroundings>,
}

/// The function that runs.
pub(crate) struct Running {
    pub left: LeftBehind,
    pub purpose: Purpose,
    pub results: Arc<Results>,
    /// How many operations were called in it so far.
    pub performed: CallIndex,
}

impl Running {
    /// Whether it is the body of a `call`, in which operations run.
    pub fn is_body(&self) -> bool {
        self.purpose == Purpose::Body
    }
}

/// How commands run, without when and on how many hosts: that is said of the operation that a function belongs to.
pub(crate) fn how_commands_run(globals: &GlobalArguments) -> GlobalArguments {
    GlobalArguments {
        run_once: None,
        serial: None,
        max_fail: None,
        parallel: None,
        background: None,
        ignore_errors: None,
        continue_on_error: None,
        retries: None,
        retry_delay: None,
        retry_backoff: None,
        ..globals.clone()
    }
}

fn surroundings(state: &State, own: Option<Block>, chain: Vec<Location>) -> Surroundings {
    let plain = |block: &Block| Block {
        name: block.name.clone(),
        globals: how_commands_run(&block.globals),
        on: block.on,
        when: Vec::new(),
        strategy: None,
        until: None,
    };
    Surroundings {
        blocks: state.blocks.iter().chain(own.as_ref()).map(plain).collect(),
        config: state.config.iter().map(how_commands_run).collect(),
        deploy: state.deploy,
        deploy_folder: state.deploy_folder.clone(),
        chain,
    }
}

/// Keeps a function for execute. `own` is a block around it that is not open: the options of `call`.
pub(crate) fn leave_behind(
    lua: &Lua,
    evaluation: &Evaluation,
    function: &Function,
    what: String,
    argument: Option<LateArgument>,
    own: Option<Block>,
) -> Result<FunctionId, Diagnostic> {
    let chain = evaluation.chain(lua);
    let mut state = evaluation.state();
    if state.once > 0 {
        return Err(Diagnostic::misuse(format!("a function is given to {what} inside `once`, which runs for all hosts")));
    }
    let around = Arc::new(surroundings(&state, own, chain));
    let id = u32::try_from(state.left_behind.len()).unwrap_or(u32::MAX);
    state.left_behind.push(LeftBehind { what, argument, around });
    drop(state);
    keep(lua, id, function).map_err(|error| Diagnostic::runtime(error.to_string()))?;
    Ok(id)
}

fn keep(lua: &Lua, id: FunctionId, function: &Function) -> mlua::Result<()> {
    let known = match lua.named_registry_value::<Option<Table>>(FUNCTIONS)? {
        Some(known) => known,
        None => {
            let known = lua.create_table()?;
            lua.set_named_registry_value(FUNCTIONS, known.clone())?;
            known
        }
    };
    known.raw_set(id + 1, function)
}

/// What the arguments say that every operation takes and that are no data.
#[derive(Default)]
pub(crate) struct Special {
    pub when: Vec<Condition>,
    pub until: Option<FunctionId>,
    pub on: Option<Place>,
}

impl Special {
    /// Takes the argument if it is one of them.
    ///
    /// # Errors
    /// A misuse: a value of a wrong type, and a function for another argument that every operation takes.
    pub fn take(&mut self, lua: &Lua, evaluation: &Evaluation, name: &str, value: &LuaValue) -> Result<bool, Diagnostic> {
        match (name, value) {
            ("_if" | "_retry_until" | "_on", LuaValue::Nil) => {}
            ("_if", value) => self.when.push(crate::conditions::condition_of(lua, evaluation, "_if", value)?),
            ("_retry_until", LuaValue::Function(function)) => {
                if evaluation.state().running.is_some()
                    && let Some((message, hint)) = crate::performing::stray_argument(name)
                {
                    return Err(Diagnostic::misuse(message).hint(hint));
                }
                self.until = Some(leave_behind(lua, evaluation, function, "`_retry_until`".to_owned(), None, None)?);
            }
            ("_retry_until", other) => {
                return Err(Diagnostic::misuse(format!("`_retry_until` takes a function, got {}", type_name(other)))
                    .hint("write _retry_until = function(result) return result.stdout == \"ready\" end"));
            }
            ("_on", value) => self.on = Some(place_of(evaluation, value)?),
            (name, LuaValue::Function(_)) if name.starts_with('_') => {
                return Err(Diagnostic::misuse(format!("`{name}` takes no function: it has to be known before the run"))
                    .hint("functions are for an operation's own arguments, for `_if` and for `_retry_until`"));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// `_on`: a host of the inventory, its name, or `"@local"`.
fn place_of(evaluation: &Evaluation, value: &LuaValue) -> Result<Place, Diagnostic> {
    let house = &evaluation.house;
    let name = match value {
        LuaValue::String(text) => text.to_string_lossy(),
        other => host_name(other).ok_or_else(|| {
            Diagnostic::misuse(format!("`_on` takes a host, got {}", type_name(other)))
                .hint("write _on = inventory:host(\"lb-01\"), or _on = \"@local\" for this machine")
        })?,
    };
    if name == "@local" {
        return Ok(Place::Controller);
    }
    house.by_name.get(&name).map(|id| Place::Host(*id)).ok_or_else(|| {
        let known = house.by_name.keys().map(String::as_str).chain(["@local"]);
        Diagnostic::misuse(format!("`_on`: the inventory has no host `{name}`")).maybe_hint(did_you_mean(&name, known))
    })
}

/// What a call came to by now.
///
/// # Errors
/// A failure that names the call, where it has not ended on this host.
pub(crate) fn result_of(evaluation: &Evaluation, call: CallIndex) -> Result<Arc<CallResult>, Diagnostic> {
    let state = evaluation.state();
    if let Some(result) = state.running.as_ref().and_then(|running| running.results.get(&call)) {
        return Ok(result.clone());
    }
    let made = state.made.get(call as usize);
    let title = made.map(|made| made.title.as_str()).unwrap_or_default();
    let place = made.and_then(|made| made.place.as_ref()).map(|place| format!(" (at {place})")).unwrap_or_default();
    Err(Diagnostic::runtime(format!("there is no result of «{title}»{place} yet: it has not run on this host"))
        .hint("operations run in the order of the deploy, those of one `parallel` block at the same time: ask after it"))
}

/// Whether a condition holds, as a function asks that runs in execute.
///
/// # Errors
/// A failure, where it asks for an operation that has not run.
pub(crate) fn decide(evaluation: &Evaluation, condition: &Condition) -> Result<bool, Diagnostic> {
    if !condition.functions().is_empty() {
        return Err(Diagnostic::misuse("a condition that was combined with a function is asked for in execute")
            .hint("call the function there: changed or is_new()"));
    }
    let known = |call| match result_of(evaluation, call) {
        Ok(result) => Known {
            changed: Some(result.changed),
            succeeded: Some(result.succeeded),
            // What happened here has happened on one of them.
            changed_anywhere: result.changed.then_some(true).or(result.changed_anywhere),
        },
        Err(_) => Known::OPEN,
    };
    if let Some(decided) = condition.decide(&known) {
        return Ok(decided);
    }
    for call in condition.calls() {
        result_of(evaluation, call)?;
    }
    Err(Diagnostic::runtime("`any_host` is asked while other hosts may still run the operation").hint("ask this host: handle.did_change"))
}

/// What a function gave, as the engine takes it.
///
/// # Errors
/// What is wrong with it, at the place where the function was given.
pub(crate) fn returned(lua: &Lua, evaluation: &Evaluation, given: &MultiValue) -> Result<Value, Diagnostic> {
    let (left, purpose) = {
        let state = evaluation.state();
        let Some(running) = &state.running else { return Ok(Value::Null) };
        (running.left.clone(), running.purpose.clone())
    };
    let value = given.front().cloned().unwrap_or(LuaValue::Nil);
    let read = match purpose {
        Purpose::Body => Ok(Value::Null),
        Purpose::Condition | Purpose::Until(_) => truth(evaluation, &left.what, given.len(), &value).map(Value::Bool),
        Purpose::Argument { name } => {
            let argument = left.argument.clone().unwrap_or(LateArgument { kind: String::new(), name, chdir: None });
            argument_value(lua, evaluation, &argument, &left.around.chain, &value)
        }
    };
    read.map_err(|wrong| evaluation.at_chain(left.around.chain.clone(), wrong))
}

/// The boolean that a condition's function gave.
pub(crate) fn truth(evaluation: &Evaluation, what: &str, count: usize, value: &LuaValue) -> Result<bool, Diagnostic> {
    match value {
        LuaValue::Boolean(value) => Ok(*value),
        LuaValue::UserData(data) if data.is::<ReadCondition>() => {
            let condition = data.borrow::<ReadCondition>().map_err(|error| Diagnostic::runtime(error.to_string()))?;
            decide(evaluation, &condition.condition)
        }
        other => {
            let gave = if count == 0 { "nothing" } else { type_name(other) };
            let hint = if count == 0 { "it ends with return …" } else { "compare it: return value ~= nil, return text == \"ready\"" };
            Err(Diagnostic::runtime(format!("the function of {what} gave {gave}, not true or false")).hint(hint))
        }
    }
}

fn argument_value(
    lua: &Lua,
    evaluation: &Evaluation,
    argument: &LateArgument,
    chain: &[Location],
    value: &LuaValue,
) -> Result<Value, Diagnostic> {
    let LateArgument { kind, name, chdir } = argument;
    let Some(definition) = evaluation.house.registry.operation(kind) else { return Ok(Value::Null) };
    let schema = &definition.schema;
    let value = match value {
        LuaValue::UserData(data) if data.is::<ReadCondition>() => truth(evaluation, name, 1, value).map(Value::Bool)?,
        _ => {
            to_value(lua, name, value).map_err(|wrong| Diagnostic::runtime(format!("{kind}: {}", wrong.message)).maybe_hint(wrong.hint))?
        }
    };
    let mut given = check_late_argument(kind, schema, Map::from_iter([(name.clone(), value)]))?;
    resolve_local_paths(evaluation, chain, schema, &mut given)
        .map_err(|problem| Diagnostic { message: format!("{kind}: {}", problem.message), ..problem })?;
    arguments::join_host_paths(schema, &mut given, &mut chdir.clone());
    Ok(given.remove(name).unwrap_or_default())
}
