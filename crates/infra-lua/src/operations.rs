//! Operations as Lua calls them: `apt.packages { … }` checks its arguments, notes the call and gives its handle.

use std::sync::{Arc, LazyLock};

use infra_core::arguments::{self, ArgumentError, LOCAL_DESTINATION, LOCAL_PATH, TEMPLATE_SCOPE};
use infra_core::condition::Condition;
use infra_core::diagnostic::{Diagnostic, Location, did_you_mean};
use infra_core::global_arguments::{GlobalArguments, NOT_YET};
use infra_core::late::Late;
use infra_core::registry::OperationDefinition;
use infra_core::script::OperationCall;
use infra_core::{Map, Value};
use mlua::{AnyUserData, Lua, MultiValue, Table, Value as LuaValue};

use crate::conditions::{Handle, condition_of};
use crate::convert::{entries, to_value, type_name};
use crate::evaluation::Evaluation;
use crate::{scope, strategies};

/// The schema of the arguments that every operation takes, by the names that Lua has for them.
static GLOBALS: LazyLock<(Value, Value)> = LazyLock::new(|| {
    let plain = schemars::schema_for!(GlobalArguments).to_value();
    let mut marked = plain.clone();
    if let Some(Value::Object(properties)) = marked.get_mut("properties") {
        *properties = std::mem::take(properties).into_iter().map(|(name, schema)| (format!("_{name}"), schema)).collect();
    }
    (plain, marked)
});

/// Names of `config` that come later.
const CONFIG_NOT_YET: &[&str] = &["temp_dir", "fail_percent", "require", "parallel"];

/// Global arguments that are no defaults for a whole deploy.
const CONFIG_NEVER: &[(&str, &str)] =
    &[("background", "it is said of one operation inside parallel(function() … end): _background = true")];

/// Reads global arguments from a map. `marked` says that their names start with `_`.
///
/// # Errors
/// A misuse: unknown name, wrong type, or one that comes later.
pub(crate) fn read_globals(given: Map, marked: bool) -> Result<GlobalArguments, Diagnostic> {
    let schema = if marked { &GLOBALS.1 } else { &GLOBALS.0 };
    for name in given.keys() {
        let plain = if marked { name.strip_prefix('_').unwrap_or(name) } else { name };
        if NOT_YET.contains(&plain) || (!marked && CONFIG_NOT_YET.contains(&plain)) {
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
    }
    let mark = if marked { "_" } else { "" };
    strategies::check_sizes(&given, mark).map_err(Diagnostic::misuse)?;
    let checked = arguments::check(schema, given).map_err(|ArgumentError { argument, message, hint }| {
        let unknown = argument.as_deref().filter(|name| !name.contains(['.', '[']) && arguments::property(schema, name).is_none());
        let hint = match unknown {
            Some(name) => {
                let later = NOT_YET.iter().map(|later| if marked { format!("_{later}") } else { (*later).to_owned() });
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

/// The global arguments of an operation's call, with those around it: the call, blocks from the innermost, the host's data, `config`.
///
/// # Errors
/// A misuse in the host's data.
pub(crate) fn merge_globals(evaluation: &Evaluation, own: GlobalArguments) -> Result<GlobalArguments, Diagnostic> {
    let data = data_globals(evaluation)?;
    let state = evaluation.state();
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

fn data_globals(evaluation: &Evaluation) -> Result<GlobalArguments, Diagnostic> {
    let mut given = Map::new();
    let set = evaluation.state().data.clone();
    for data in evaluation.host.iter().map(|host| &host.data).chain([&set]) {
        for (name, value) in data.iter().filter(|(name, _)| name.starts_with('_')) {
            given.insert(name.clone(), value.clone());
        }
    }
    if given.is_empty() {
        return Ok(GlobalArguments::default());
    }
    read_globals(given, true).map_err(|mut wrong| {
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
    when: Vec<Condition>,
}

/// Splits the values of a call into the operation's own arguments, its conditions, and those that every operation takes.
fn sort_out(lua: &Lua, definition: &OperationDefinition, values: Vec<(String, LuaValue)>) -> Result<Given, Diagnostic> {
    let mut given = Given { name: None, own: Map::new(), conditions: Vec::new(), globals: GlobalArguments::default(), when: Vec::new() };
    let mut globals = Map::new();
    for (name, value) in values {
        if let LuaValue::Function(_) = value
            && name != "_if"
        {
            return Err(Diagnostic::misuse(format!("a function as the argument `{name}` is not available yet")));
        }
        if name == "_if" {
            if !value.is_nil() {
                given.when.push(condition_of("_if", &value)?);
            }
            continue;
        }
        let own = arguments::property(&definition.schema, &name);
        if name == "name" && own.is_none() {
            match &value {
                LuaValue::String(text) => given.name = Some(text.to_string_lossy()),
                other => return Err(Diagnostic::misuse(format!("`name` takes a string, got {}", type_name(other)))),
            }
            continue;
        }
        if name.starts_with('_') {
            globals.insert(name.clone(), data(lua, &name, &value)?);
            continue;
        }
        // What also takes texts or numbers (a mode) is not decided by a condition.
        let takes = |kind: &str| own.is_some_and(|own| arguments::accepts_type(&definition.schema, own, kind));
        let boolean = takes("boolean") && !["string", "integer", "number", "array", "object"].into_iter().any(takes);
        let conditional = match &value {
            LuaValue::UserData(_) => true,
            LuaValue::Table(list) => (1..=list.raw_len()).any(|at| matches!(list.raw_get(at), Ok(LuaValue::UserData(_)))),
            _ => false,
        };
        if boolean && conditional {
            given.conditions.push((name.clone(), condition_of(&name, &value)?));
            given.own.insert(name, Value::Bool(true));
            continue;
        }
        let value = data(lua, &name, &value)?;
        given.own.insert(name, value);
    }
    given.globals = read_globals(globals, true)?;
    Ok(given)
}

fn data(lua: &Lua, name: &str, value: &LuaValue) -> Result<Value, Diagnostic> {
    to_value(lua, name, value).map_err(|wrong| Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))
}

fn call(lua: &Lua, evaluation: &Arc<Evaluation>, kind: &str, tables: &MultiValue) -> mlua::Result<AnyUserData> {
    let chain = evaluation.chain(lua);
    let made = register(lua, evaluation, kind, tables, chain.clone());
    let call = made.map_err(|wrong| {
        let mut wrong = evaluation.at_chain(chain, wrong);
        let from_gsub = wrong.source_line.as_ref().is_some_and(|line| line.contains("gsub(")) && wrong.message.contains("got the number");
        if from_gsub {
            wrong.hint = Some("gsub gives two values, the text and a count: put it in parentheses, (text:gsub(…))".to_owned());
        }
        evaluation.keep(&wrong);
        crate::errors::raise(wrong)
    })?;
    let index = call.call;
    evaluation.state().calls.push(call);
    lua.create_userdata(Handle { call: index, kind: kind.to_owned(), evaluation: evaluation.clone() })
}

fn register(
    lua: &Lua,
    evaluation: &Arc<Evaluation>,
    kind: &str,
    tables: &MultiValue,
    chain: Vec<Location>,
) -> Result<OperationCall, Diagnostic> {
    let registry = &evaluation.house.registry;
    let definition = registry.operation(kind).expect("the functions of operations are made from the registry");
    let schema = &definition.schema;
    if evaluation.state().once > 0 {
        return Err(Diagnostic::misuse(format!("`{kind}` stands inside `once`, which runs on one host's behalf for all"))
            .hint("give the result of once(…) to an operation after it"));
    }
    let main = arguments::names(schema).into_iter().next();
    let values = merge_tables(kind, main, tables)?;
    let Given { name, own, conditions, globals, mut when } = sort_out(lua, definition, values)?;
    let own_globals = globals.clone();
    let mut globals = merge_globals(evaluation, globals)?;
    strategies::check_call(&evaluation.state(), &own_globals, &globals)?;
    if own_globals.sudo_user.is_some() && globals.sudo.is_none() {
        return Err(Diagnostic::misuse("`_sudo_user` is given without `_sudo`").hint("write _sudo = true beside it"));
    }
    let wrong = |ArgumentError { message, hint, .. }: ArgumentError| {
        let hint = hint.or_else(|| global_hint(schema, &message));
        Diagnostic::misuse(format!("{kind}: {message}")).maybe_hint(hint)
    };
    let mut arguments = arguments::check(schema, own).map_err(|error| {
        let hint = error.argument.as_deref().and_then(|argument| meant_global(schema, argument));
        let error = wrong(error);
        error.maybe_hint(hint)
    })?;
    resolve_local_paths(evaluation, &chain, schema, &mut arguments)
        .map_err(|problem| Diagnostic { message: format!("{kind}: {}", problem.message), ..problem })?;
    arguments::join_host_paths(schema, &mut arguments, &mut globals.chdir);
    scope::fill_in(evaluation, schema, &mut arguments)?;
    definition.bind(arguments.clone()).map_err(wrong)?;
    for (argument, _) in &conditions {
        arguments.remove(argument);
    }
    let mut state = evaluation.state();
    let mut around: Vec<Condition> = state.blocks.iter().flat_map(|block| block.when.iter().cloned()).collect();
    around.append(&mut when);
    strategies::check_any_host(&state, around.iter().chain(conditions.iter().map(|(_, condition)| condition)))?;
    let call = state.next_call;
    state.next_call += 1;
    if let Some(rolling) = state.rolling().cloned() {
        state.rolling_of.insert(call, rolling);
    }
    let path = state.blocks.iter().filter_map(|block| block.name.clone()).collect();
    let blocks = state.strategies().cloned().collect();
    let deploy = state.deploy;
    let kind = kind.to_owned();
    Ok(OperationCall {
        call,
        kind,
        name,
        path,
        blocks,
        arguments,
        conditions,
        when: around,
        globals,
        chain,
        deploy,
        late: Late::default(),
        on: None,
    })
}

fn global_hint(schema: &Value, message: &str) -> Option<String> {
    let name = message.strip_prefix("there is no argument `")?.strip_suffix('`')?;
    meant_global(schema, name)
}

/// `sudo = true` for `_sudo = true`.
fn meant_global(schema: &Value, name: &str) -> Option<String> {
    let is_global = arguments::property(&GLOBALS.0, name).is_some() || NOT_YET.contains(&name);
    (is_global && arguments::property(schema, name).is_none()).then(|| format!("did you mean `_{name}`?"))
}

fn resolve_local_paths(evaluation: &Evaluation, chain: &[Location], schema: &Value, arguments: &mut Map) -> Result<(), Diagnostic> {
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
