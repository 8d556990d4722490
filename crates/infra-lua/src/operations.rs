//! Operations as Lua calls them: `apt.packages { … }` checks its arguments, notes the call and gives its handle.

use std::sync::{Arc, LazyLock};

use infra_core::arguments::{self, ArgumentError, LOCAL_DESTINATION, LOCAL_PATH, TEMPLATE_SCOPE};
use infra_core::condition::Condition;
use infra_core::diagnostic::{Diagnostic, Location, did_you_mean};
use infra_core::global_arguments::{DEPLOY_ONLY, GlobalArguments, HIDDEN, check_values};
use infra_core::late::{FunctionId, Late, Place};
use infra_core::registry::OperationDefinition;
use infra_core::script::OperationCall;
use infra_core::{Map, Value};
use mlua::{AnyUserData, Function, Lua, MultiValue, Table, Value as LuaValue};

use crate::conditions::{Handle, Of, condition_of};
use crate::convert::{entries, to_value, type_name};
use crate::evaluation::{Block, Evaluation, Made};
use crate::late::{LateArgument, Special, decide, how_commands_run, leave_behind};
use crate::performing::{Slot, Unread, Work, check_place, pend, skipped};
use crate::{performing, scope, strategies};

/// The schema of the arguments that every operation takes, by the names that Lua has for them.
static GLOBALS: LazyLock<(Value, Value)> = LazyLock::new(|| {
    let plain = schemars::schema_for!(GlobalArguments).to_value();
    let mut marked = plain.clone();
    if let Some(Value::Object(properties)) = marked.get_mut("properties") {
        *properties = std::mem::take(properties).into_iter().map(|(name, schema)| (format!("_{name}"), schema)).collect();
    }
    (plain, marked)
});

/// How often an operation with `_retry_until` is tried again where `_retries` is not given.
const UNTIL_RETRIES: u32 = 3;

/// Names of `config` that come later.
const CONFIG_NOT_YET: &[&str] = &["temp_dir", "fail_percent", "require", "parallel"];

/// Global arguments that are no defaults for a whole deploy.
const CONFIG_NEVER: &[(&str, &str)] = &[
    ("background", "it is said of one operation inside parallel(function() … end): _background = true"),
    ("retry_until", "it is said of operations, or of a block: with({ _retry_until = function(result) … end }, function() … end)"),
    ("on", "it is said of operations, or of a block: with({ _on = \"@local\" }, function() … end)"),
];

/// Reads global arguments from a map. `marked` says that their names start with `_`. Passwords among them are secrets from now on, however they were given.
///
/// # Errors
/// A misuse: unknown name, wrong type, or one that comes later.
pub(crate) fn read_globals(evaluation: &Evaluation, given: Map, marked: bool) -> Result<GlobalArguments, Diagnostic> {
    let mark = if marked { "_" } else { "" };
    for text in HIDDEN.iter().filter_map(|name| given.get(&format!("{mark}{name}"))?.as_str()) {
        // What is too short to be found is hidden by its name.
        let _ = evaluation.house.world.secrets().secret(text);
    }
    let schema = if marked { &GLOBALS.1 } else { &GLOBALS.0 };
    for name in given.keys() {
        let plain = if marked { name.strip_prefix('_').unwrap_or(name) } else { name };
        if !marked && CONFIG_NOT_YET.contains(&plain) {
            let instead = match plain {
                "parallel" => Some("give --parallel N on the command line, or _parallel = N to operations"),
                "fail_percent" => Some("give --fail-percent P on the command line"),
                _ => None,
            };
            return Err(Diagnostic::misuse(format!("`{name}` is not available yet")).maybe_hint(instead.map(str::to_owned)));
        }
        if let Some((_, hint)) = CONFIG_NEVER.iter().find(|(never, _)| !marked && *never == plain) {
            return Err(Diagnostic::misuse(format!("`{name}` is no default for all operations")).hint(*hint));
        }
        if DEPLOY_ONLY.contains(&plain) {
            return Err(Diagnostic::misuse(format!("`{name}` is for operations and for blocks around them")));
        }
    }
    strategies::check_sizes(&given, mark).map_err(Diagnostic::misuse)?;
    check_values(&given, mark).map_err(|error| Diagnostic::misuse(error.message).maybe_hint(error.hint))?;
    let checked = arguments::check(schema, given).map_err(|ArgumentError { argument, message, hint }| {
        let unknown = argument.as_deref().filter(|name| !name.contains(['.', '[']) && arguments::property(schema, name).is_none());
        let hint = match unknown {
            Some(name) => {
                let later = DEPLOY_ONLY.iter().map(|later| if marked { format!("_{later}") } else { (*later).to_owned() });
                let known: Vec<String> = arguments::names(schema).into_iter().map(str::to_owned).chain(later).collect();
                did_you_mean(name, known.iter().map(String::as_str)).or(hint)
            }
            None => hint,
        };
        Diagnostic::misuse(message).maybe_hint(hint)
    })?;
    let plain: Map = checked.into_iter().map(|(name, value)| (name.strip_prefix('_').map(str::to_owned).unwrap_or(name), value)).collect();
    let globals: GlobalArguments = serde_json::from_value(Value::Object(plain)).map_err(|error| Diagnostic::misuse(error.to_string()))?;
    strategies::check_globals(&globals, mark).map_err(Diagnostic::misuse)?;
    Ok(globals)
}

/// The global arguments of an operation's call, with those around it: the call, blocks from the innermost, the host's data, `config`. The data is
/// that of the `other` host, where one is asked.
///
/// # Errors
/// A misuse in the host's data.
pub(crate) fn merge_globals(
    evaluation: &Evaluation,
    own: GlobalArguments,
    other: Option<&infra_core::host::Host>,
) -> Result<GlobalArguments, Diagnostic> {
    let mut data = data_globals(evaluation, other)?;
    let state = evaluation.state();
    if state.running.is_some() {
        data = how_commands_run(&data);
    }
    let mut merged = own;
    for block in state.blocks.iter().rev() {
        merged = merged.or(&block.globals);
    }
    merged = merged.or(&data);
    for config in state.config.iter().rev() {
        merged = merged.or(config);
    }
    Ok(merged)
}

fn data_globals(evaluation: &Evaluation, other: Option<&infra_core::host::Host>) -> Result<GlobalArguments, Diagnostic> {
    let mut given = Map::new();
    let set = if other.is_some() { Map::new() } else { evaluation.state().data.clone() };
    for data in other.or(evaluation.host.as_deref()).iter().map(|host| &host.data).chain([&set]) {
        for (name, value) in data.iter().filter(|(name, _)| name.starts_with('_')) {
            given.insert(name.clone(), value.clone());
        }
    }
    if given.is_empty() {
        return Ok(GlobalArguments::default());
    }
    read_globals(evaluation, given, true).map_err(|mut wrong| {
        wrong.message = format!("in the host's data: {}", wrong.message);
        wrong
    })
}

/// The function of an operation.
pub(crate) fn operation_function(
    lua: &Lua,
    evaluation: &Arc<Evaluation>,
    definition: &OperationDefinition,
) -> mlua::Result<mlua::Function> {
    let evaluation = evaluation.clone();
    let kind = definition.name.clone();
    lua.create_function(move |lua, tables: MultiValue| call(lua, &evaluation, &kind, &tables))
}

/// The names and values of the tables of a call, later ones winning.
fn merge_tables(kind: &str, main: Option<&str>, tables: &MultiValue) -> Result<Vec<(String, LuaValue)>, Diagnostic> {
    let spelling = |value: &LuaValue| match (main, value) {
        (Some(main), LuaValue::String(text)) => format!("write {kind} {{ {main} = \"{}\" }}", text.to_string_lossy()),
        (Some(main), _) => format!("write {kind} {{ {main} = … }}"),
        (None, _) => format!("write {kind} {{}}"),
    };
    let mut merged: Vec<(String, LuaValue)> = Vec::new();
    if tables.is_empty() {
        return Err(Diagnostic::misuse(format!("`{kind}` takes a table of arguments")).hint(spelling(&LuaValue::Nil)));
    }
    for table in tables {
        let LuaValue::Table(table) = table else {
            return Err(Diagnostic::misuse(format!("`{kind}` takes a table of arguments, got {}", type_name(table))).hint(spelling(table)));
        };
        let all = entries(kind, table).map_err(|wrong| Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))?;
        for (key, value) in all {
            match key {
                LuaValue::String(name) => {
                    let name = name.to_string_lossy();
                    match merged.iter_mut().find(|(known, _)| *known == name) {
                        Some(slot) => slot.1 = value,
                        None => merged.push((name, value)),
                    }
                }
                _ => return Err(positional(kind, main, table)),
            }
        }
    }
    merged.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(merged)
}

fn positional(kind: &str, main: Option<&str>, table: &Table) -> Diagnostic {
    let items: Vec<LuaValue> = (1..=table.raw_len()).filter_map(|at| table.raw_get(at).ok()).collect();
    let texts: Option<Vec<String>> = items
        .iter()
        .map(|item| match item {
            LuaValue::String(text) => Some(format!("\"{}\"", text.to_string_lossy())),
            _ => None,
        })
        .collect();
    let shown = texts.filter(|texts| !texts.is_empty() && texts.len() <= 4).map_or_else(|| "…".to_owned(), |texts| texts.join(", "));
    let message = format!("`{kind}` takes names, not items without a name");
    match main {
        Some(main) if items.len() == 1 => Diagnostic::misuse(message).hint(format!("write {main} = {shown}")),
        Some(main) => Diagnostic::misuse(message).hint(format!("write {main} = {{ {shown} }}")),
        None => Diagnostic::misuse(message),
    }
}

struct Given {
    name: Option<String>,
    own: Map,
    conditions: Vec<(String, Condition)>,
    globals: GlobalArguments,
    special: Special,
    /// Arguments that functions give.
    late: Vec<(String, Function)>,
}

/// Splits the values of a call into the operation's own arguments, its conditions, and those that every operation takes.
fn sort_out(
    lua: &Lua,
    evaluation: &Evaluation,
    definition: &OperationDefinition,
    values: Vec<(String, LuaValue)>,
) -> Result<Given, Diagnostic> {
    let mut given = Given {
        name: None,
        own: Map::new(),
        conditions: Vec::new(),
        globals: GlobalArguments::default(),
        special: Special::default(),
        late: Vec::new(),
    };
    let mut globals = Map::new();
    for (name, value) in values {
        if given.special.take(lua, evaluation, &name, &value)? {
            continue;
        }
        let own = arguments::property(&definition.schema, &name);
        if name == "name" && own.is_none() {
            match &value {
                LuaValue::String(text) => given.name = Some(text.to_string_lossy()),
                other => {
                    let hint = other.is_function().then(|| "it is how the operation is known before it runs".to_owned());
                    return Err(Diagnostic::misuse(format!("`name` takes a string, got {}", type_name(other))).maybe_hint(hint));
                }
            }
            continue;
        }
        if name.starts_with('_') {
            globals.insert(name.clone(), data(lua, &name, &value)?);
            continue;
        }
        if let LuaValue::Function(function) = &value {
            match own {
                Some(_) => given.late.push((name, function.clone())),
                // The check of the arguments says that there is none, and which is meant.
                None => {
                    given.own.insert(name, Value::Null);
                }
            }
            continue;
        }
        let conditional = match &value {
            LuaValue::UserData(_) => true,
            // What a list of conditions comes to inside of `call`.
            LuaValue::Table(list) if evaluation.state().running.is_some() => list.raw_len() > 0,
            LuaValue::Table(list) => {
                (1..=list.raw_len()).any(|at| matches!(list.raw_get(at), Ok(LuaValue::UserData(_) | LuaValue::Function(_))))
            }
            _ => false,
        };
        if conditional && takes_conditions(&definition.schema, &name) {
            given.conditions.push((name.clone(), condition_of(lua, evaluation, &name, &value)?));
            given.own.insert(name, Value::Bool(true));
            continue;
        }
        let value = data(lua, &name, &value)?;
        given.own.insert(name, value);
    }
    given.globals = read_globals(evaluation, globals, true)?;
    Ok(given)
}

/// Whether a condition can be the value of this argument. What also takes texts or numbers (a mode) is not decided by one.
fn takes_conditions(schema: &Value, name: &str) -> bool {
    let takes = |kind: &str| arguments::property(schema, name).is_some_and(|own| arguments::accepts_type(schema, own, kind));
    takes("boolean") && !["string", "integer", "number", "array", "object"].into_iter().any(takes)
}

/// The schema with nothing in it that has to be given but what `is_needed` says.
fn with_needs(schema: &Value, is_needed: impl Fn(&str) -> bool) -> Value {
    let mut relaxed = schema.clone();
    if let Some(Value::Array(required)) = relaxed.get_mut("required") {
        required.retain(|name| name.as_str().is_some_and(&is_needed));
    }
    relaxed
}

/// The value that a function gave, in the shape that the operation takes.
///
/// # Errors
/// A failure: a wrong type.
pub(crate) fn check_late_argument(kind: &str, schema: &Value, given: Map) -> Result<Map, Diagnostic> {
    arguments::check(&with_needs(schema, |_| false), given)
        .map_err(|ArgumentError { message, hint, .. }| Diagnostic::runtime(format!("{kind}: {message}")).maybe_hint(hint))
}

fn data(lua: &Lua, name: &str, value: &LuaValue) -> Result<Value, Diagnostic> {
    to_value(lua, name, value).map_err(|wrong| Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))
}

fn call(lua: &Lua, evaluation: &Arc<Evaluation>, kind: &str, tables: &MultiValue) -> mlua::Result<AnyUserData> {
    let chain = evaluation.chain(lua);
    let handle = run_or_register(lua, evaluation, kind, tables, &chain).map_err(|wrong| {
        let mut wrong = evaluation.at_chain(chain, wrong);
        let from_gsub = wrong.source_line.as_ref().is_some_and(|line| line.contains("gsub(")) && wrong.message.contains("got the number");
        if from_gsub {
            wrong.hint = Some("gsub gives two values, the text and a count: put it in parentheses, (text:gsub(…))".to_owned());
        }
        evaluation.keep(&wrong);
        crate::errors::raise(wrong)
    })?;
    lua.create_userdata(handle)
}

/// Registers the operation for the plan; inside a body of `call` it is noted to be run.
fn run_or_register(
    lua: &Lua,
    evaluation: &Arc<Evaluation>,
    kind: &str,
    tables: &MultiValue,
    chain: &[Location],
) -> Result<Handle, Diagnostic> {
    let registry = &evaluation.house.registry;
    let definition = registry.operation(kind).expect("the functions of operations are made from the registry");
    let schema = &definition.schema;
    let lua_failed = |error: mlua::Error| Diagnostic::runtime(error.to_string());
    let handle = |of: Of| Handle { of, kind: kind.to_owned(), evaluation: evaluation.clone() };
    if evaluation.state().once > 0 {
        return Err(Diagnostic::misuse(format!("`{kind}` stands inside `once`, which runs on one host's behalf for all"))
            .hint("give the result of once(…) to an operation after it"));
    }
    check_place(&evaluation.state(), kind)?;
    let main = arguments::names(schema).into_iter().next();
    let values = merge_tables(kind, main, tables)?;
    if evaluation.state().running.is_none() {
        let call = register(lua, evaluation, definition, values, chain)?.expect("nothing is left out while the plan is made");
        return Ok(handle(Of::Call(note(evaluation, call))));
    }
    let conditional = |name: &str| name == "_if" || takes_conditions(schema, name);
    let work = match Unread::of(lua, kind, chain, values, conditional).map_err(lua_failed)? {
        Ok(unread) => Work::Functions(unread),
        Err(values) => match register(lua, evaluation, definition, values, chain)? {
            Some(call) => Work::Ready(Box::new(call)),
            None => return Ok(handle(Of::Now(Slot::new(std::sync::Mutex::new(Some(skipped())))))),
        },
    };
    pend(lua, evaluation, work).map(|slot| handle(Of::Now(slot))).map_err(lua_failed)
}

/// Notes a call for the engine, and gives its number.
pub(crate) fn note(evaluation: &Evaluation, call: OperationCall) -> u32 {
    let mut state = evaluation.state();
    let index = call.call;
    state.made.push(Made { title: call.title(), place: call.location().cloned() });
    if let Some(rolling) = state.rolling().cloned() {
        state.rolling_of.insert(index, rolling);
    }
    state.calls.push(call);
    index
}

/// The call of an operation of a body whose functions were called; none where its conditions leave it out.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn register_read(lua: &Lua, evaluation: &Evaluation, unread: Unread) -> Result<Option<OperationCall>, Diagnostic> {
    let Unread { kind, chain, values, .. } = unread;
    let definition = evaluation.house.registry.operation(&kind).expect("the functions of operations are made from the registry");
    register(lua, evaluation, definition, values, &chain).map_err(|wrong| evaluation.at_chain(chain, wrong))
}

/// Checks what the types of an operation's global arguments cannot say, and merges them with those around it.
pub(crate) fn all_globals(evaluation: &Evaluation, kind: &str, own: GlobalArguments, until: bool) -> Result<GlobalArguments, Diagnostic> {
    let mut globals = merge_globals(evaluation, own.clone(), None)?;
    if until {
        globals.retries.get_or_insert(UNTIL_RETRIES);
    }
    let state = evaluation.state();
    if state.running.is_some() {
        performing::check_globals(kind, &globals)?;
    }
    strategies::check_call(&state, &own, &globals)?;
    if let Some((name, needs, write)) = own.lonely(&globals) {
        return Err(Diagnostic::misuse(format!("`{name}` is given without `{needs}`")).hint(format!("write {write} beside it")));
    }
    Ok(globals)
}

/// The conditions of the blocks around a call and its own, the function of its `_retry_until`, and where it runs.
pub(crate) fn around(evaluation: &Evaluation, mut special: Special) -> (Vec<Condition>, Option<FunctionId>, Option<Place>) {
    let state = evaluation.state();
    let mut when: Vec<Condition> = state.blocks.iter().flat_map(|block| block.when.iter().cloned()).collect();
    when.append(&mut special.when);
    let inner = |of: fn(&Block) -> Option<u32>| state.blocks.iter().rev().find_map(of);
    let until = special.until.or_else(|| inner(|block| block.until));
    let on = special.on.or_else(|| state.blocks.iter().rev().find_map(|block| block.on));
    let own = evaluation.host.as_ref().map(|host| Place::Host(host.id));
    (when, until, on.filter(|place| Some(*place) != own))
}

/// The call of an operation: its arguments checked, all but those that functions give. None where its conditions leave it out, which only execute
/// can tell.
fn register(
    lua: &Lua,
    evaluation: &Evaluation,
    definition: &OperationDefinition,
    values: Vec<(String, LuaValue)>,
    chain: &[Location],
) -> Result<Option<OperationCall>, Diagnostic> {
    let (kind, schema) = (definition.name.as_str(), &definition.schema);
    let Given { name, own, mut conditions, globals, special, late } = sort_out(lua, evaluation, definition, values)?;
    let (mut when, until, on) = around(evaluation, special);
    let mut globals = all_globals(evaluation, kind, globals, until.is_some())?;
    let is_late = |name: &str| late.iter().any(|(late, _)| late == name);
    let wrong = |ArgumentError { message, hint, .. }: ArgumentError| {
        let hint = hint.or_else(|| global_hint(schema, &message));
        Diagnostic::misuse(format!("{kind}: {message}")).maybe_hint(hint)
    };
    let needed = (!late.is_empty()).then(|| with_needs(schema, |name| !is_late(name)));
    let mut arguments = arguments::check(needed.as_ref().unwrap_or(schema), own).map_err(|error| {
        let hint = error.argument.as_deref().and_then(|argument| meant_global(schema, argument));
        let error = wrong(error);
        error.maybe_hint(hint)
    })?;
    resolve_local_paths(evaluation, chain, schema, &mut arguments)
        .map_err(|problem| Diagnostic { message: format!("{kind}: {}", problem.message), ..problem })?;
    let chdir = globals.chdir.clone();
    arguments::join_host_paths(schema, &mut arguments, &mut globals.chdir);
    scope::fill_in(evaluation, schema, &mut arguments)?;
    let in_body = evaluation.state().running.is_some();
    if in_body {
        // Here everything is known.
        for (argument, condition) in std::mem::take(&mut conditions) {
            arguments.insert(argument, Value::Bool(decide(evaluation, &condition)?));
        }
    }
    if late.is_empty() {
        definition.bind(arguments.clone()).map_err(wrong)?;
    }
    for (argument, _) in &conditions {
        arguments.remove(argument);
    }
    if in_body {
        for condition in std::mem::take(&mut when) {
            if !decide(evaluation, &condition)? {
                return Ok(None);
            }
        }
    }
    let mut functions = Late { until, ..Late::default() };
    for (name, function) in &late {
        let argument = LateArgument { kind: kind.to_owned(), name: name.clone(), chdir: chdir.clone() };
        let id = leave_behind(lua, evaluation, function, format!("`{name}` of {kind}"), Some(argument), None)?;
        functions.arguments.push((name.clone(), id));
    }
    let call = OperationCall {
        kind: kind.to_owned(),
        name,
        arguments,
        conditions,
        when,
        globals,
        chain: chain.to_vec(),
        late: functions,
        on,
        ..call_here(evaluation)
    };
    strategies::check_any_host(&evaluation.state(), call.all_conditions())?;
    Ok(Some(call))
}

/// What a call has from where it stands: its number and the blocks around it.
pub(crate) fn call_here(evaluation: &Evaluation) -> OperationCall {
    let mut state = evaluation.state();
    let call = match &mut state.running {
        None => u32::try_from(state.made.len()).unwrap_or(u32::MAX),
        Some(running) => {
            running.performed += 1;
            running.performed - 1
        }
    };
    OperationCall {
        call,
        kind: String::new(),
        name: None,
        path: state.blocks.iter().filter_map(|block| block.name.clone()).collect(),
        blocks: state.strategies().cloned().collect(),
        arguments: Map::new(),
        conditions: Vec::new(),
        when: Vec::new(),
        globals: GlobalArguments::default(),
        chain: Vec::new(),
        deploy: state.deploy,
        late: Late::default(),
        on: None,
    }
}

fn global_hint(schema: &Value, message: &str) -> Option<String> {
    let name = message.strip_prefix("there is no argument `")?.strip_suffix('`')?;
    meant_global(schema, name)
}

/// Whether every operation takes it, by its name without the `_`.
pub(crate) fn is_global_argument(name: &str) -> bool {
    name == "if" || arguments::property(&GLOBALS.0, name).is_some() || DEPLOY_ONLY.contains(&name)
}

/// The names of the arguments that every operation takes.
pub(crate) fn global_arguments() -> Vec<&'static str> {
    arguments::names(&GLOBALS.1)
}

/// `sudo = true` for `_sudo = true`.
fn meant_global(schema: &Value, name: &str) -> Option<String> {
    (is_global_argument(name) && arguments::property(schema, name).is_none()).then(|| format!("did you mean `_{name}`?"))
}

/// Makes the paths of files of the controller among the arguments absolute, seen from the end of a chain.
///
/// # Errors
/// A misuse: no such file, or a template that is wrong.
pub(crate) fn resolve_local_paths(
    evaluation: &Evaluation,
    chain: &[Location],
    schema: &Value,
    arguments: &mut Map,
) -> Result<(), Diagnostic> {
    for (name, value) in arguments.iter_mut() {
        if let (true, Value::String(path)) = (arguments::is_marked(schema, name, LOCAL_DESTINATION), &value) {
            let into = if path.ends_with('/') { "/" } else { "" };
            *value = Value::String(format!("{}{into}", evaluation.beside_deploy(path).to_string_lossy()));
        }
        if !arguments::is_marked(schema, name, LOCAL_PATH) {
            continue;
        }
        let paths: Vec<&mut Value> = match value {
            Value::Array(items) => items.iter_mut().collect(),
            one => vec![one],
        };
        for value in paths {
            let Value::String(path) = &value else { continue };
            let found = evaluation.find_from(chain, std::slice::from_ref(path)).map_err(|places| {
                Diagnostic::misuse(format!("`{name}`: there is no file `{path}`")).hint(format!("looked for {}", places.join(" and ")))
            })?;
            *value = Value::String(found.to_string_lossy().into_owned());
        }
    }
    let template = arguments::names(schema).into_iter().any(|name| arguments::is_marked(schema, name, TEMPLATE_SCOPE));
    if template { scope::check_templates(evaluation, schema, arguments) } else { Ok(()) }
}
