//! Blocks around operations (`with`, `deploy`), files that run inside others (`include`, `require`), and `config`.

use std::sync::Arc;

use infra_core::Map;
use infra_core::condition::Condition;
use infra_core::diagnostic::Diagnostic;
use infra_core::global_arguments::GlobalArguments;
use infra_core::secret::Secret;
use mlua::{Function, Lua, MultiValue, Table, Value as LuaValue};

use crate::convert::{to_lua, to_value, type_name};
use crate::evaluation::{Block, Evaluation};
use crate::late::{Special, truth};
use crate::operations::read_globals;
use crate::performing::{check_place, stray_block};
use crate::source::SourceError;
use crate::state::load;
use crate::strategies;

/// How deep files may include each other.
const INCLUDE_DEPTH: u32 = 64;

/// Adds what the prelude needs for blocks and files.
pub(crate) fn add_to(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table, environment: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let enter = lua.create_function(move |lua, (kind, arguments): (String, MultiValue)| {
        let (block, function, functions) = read_block(lua, &of, &kind, &arguments).map_err(|wrong| of.raise(lua, wrong))?;
        let mut state = of.state();
        state.blocks.push(block);
        let depth = state.blocks.len() - 1;
        drop(state);
        Ok((function, depth, functions.map(|functions| lua.create_sequence_from(functions)).transpose()?))
    })?;
    rust.set("enter_block", enter)?;
    let of = evaluation.clone();
    let found = lua.create_function(move |lua, (depth, value): (usize, MultiValue)| {
        let gave = value.front().cloned().unwrap_or(LuaValue::Nil);
        let holds = truth(&of, "`_if`", value.len(), &gave).map_err(|wrong| of.raise(lua, wrong))?;
        if let Some(block) = of.state().blocks.get_mut(depth) {
            block.when.push(Condition::Always(holds));
        }
        Ok(())
    })?;
    rust.set("found_condition", found)?;
    let of = evaluation.clone();
    let leave = lua.create_function(move |_, depth: usize| {
        of.state().blocks.truncate(depth);
        Ok(())
    })?;
    rust.set("leave_block", leave)?;

    let (of, env) = (evaluation.clone(), environment.clone());
    let enter = lua.create_function(move |lua, path: LuaValue| {
        let LuaValue::String(path) = &path else {
            return Err(of.misuse_with(
                lua,
                format!("`include` takes a path, got {}", type_name(&path)),
                "write include(\"tasks/nginx.lua\")",
            ));
        };
        let path = path.to_string_lossy();
        let found = of.find(lua, &path).map_err(|places| {
            of.misuse_with(lua, format!("there is no file `{path}` to include"), format!("looked for {}", places.join(" and ")))
        })?;
        let chunk = open_file(lua, &of, &found, &env)?;
        Ok((chunk, enter_file(lua, &of, &path)?))
    })?;
    rust.set("enter_include", enter)?;

    let (of, env) = (evaluation.clone(), environment.clone());
    let find = lua.create_function(move |lua, name: LuaValue| {
        let LuaValue::String(name) = &name else {
            return Err(of.misuse(lua, format!("`require` takes the name of a module, got {}", type_name(&name))));
        };
        let name = name.to_string_lossy();
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let path = path.strip_suffix(".lua").unwrap_or(&path).to_owned();
        let spellings = [format!("{path}.lua"), format!("{path}/init.lua")];
        let chain = of.chain(lua);
        let found = of.find_from(&chain, &spellings).map_err(|places| {
            of.misuse_with(lua, format!("there is no module `{name}`"), format!("looked for {}", places.join(" and ")))
        })?;
        Ok((open_file(lua, &of, &found, &env)?, found.to_string_lossy().into_owned()))
    })?;
    rust.set("find_module", find)?;
    let of = evaluation.clone();
    rust.set("enter_module", lua.create_function(move |lua, name: String| enter_file(lua, &of, &name))?)?;
    let of = evaluation.clone();
    let leave = lua.create_function(move |_, depth: usize| {
        let mut state = of.state();
        state.config.truncate(depth);
        state.open_files = state.open_files.saturating_sub(1);
        Ok(())
    })?;
    rust.set("leave_file", leave)?;
    let of = evaluation.clone();
    let circular = lua.create_function(move |lua, name: String| -> mlua::Result<()> {
        Err(of.misuse(lua, format!("the module `{name}` requires itself while it is being loaded")))
    })?;
    rust.set("circular", circular)
}

fn enter_file(lua: &Lua, evaluation: &Arc<Evaluation>, name: &str) -> mlua::Result<usize> {
    let mut state = evaluation.state();
    if state.open_files >= INCLUDE_DEPTH {
        drop(state);
        return Err(evaluation.misuse(lua, format!("files include each other more than {INCLUDE_DEPTH} deep, the last one `{name}`")));
    }
    state.open_files += 1;
    state.config.push(GlobalArguments::default());
    Ok(state.config.len() - 1)
}

fn open_file(lua: &Lua, evaluation: &Arc<Evaluation>, path: &std::path::Path, environment: &Table) -> mlua::Result<Function> {
    let source = evaluation.house.sources.load(path, evaluation.host.is_some()).map_err(|error| match error {
        SourceError::Unreadable(why) => {
            let shown = crate::world::display(&*evaluation.house.world, path);
            evaluation.misuse(lua, format!("`{shown}` cannot be read: {why}"))
        }
        SourceError::Wrong(mut found) => {
            let mut first = found.swap_remove(0);
            first.chain = evaluation.chain(lua);
            evaluation.keep(&first);
            crate::errors::raise(first)
        }
    })?;
    load(lua, &source, environment)
}

/// The parts of `BLOCK([name,] [options,] function)`.
///
/// # Errors
/// A misuse: something else is given, or there is no function.
pub(crate) fn block_parts(kind: &str, arguments: &MultiValue) -> Result<(Option<String>, Option<Table>, Function), Diagnostic> {
    let spelling = strategies::spelling(kind);
    let wrong = |message: String| Diagnostic::misuse(message).hint(spelling);
    let mut name = None;
    let mut options = None;
    let mut function = None;
    for argument in arguments {
        match argument {
            LuaValue::String(text) if name.is_none() && options.is_none() && function.is_none() => name = Some(text.to_string_lossy()),
            LuaValue::Table(table) if options.is_none() && function.is_none() => options = Some(table.clone()),
            LuaValue::Function(body) if function.is_none() => function = Some(body.clone()),
            other => return Err(wrong(format!("`{kind}` does not take {} here", type_name(other)))),
        }
    }
    if kind == "deploy" && name.is_none() {
        if options.is_some() {
            return Err(Diagnostic::misuse("`deploy { … }`, which defines a reusable deploy, is not available yet").hint(spelling));
        }
        return Err(wrong("`deploy` needs a name".to_owned()));
    }
    let function = function.ok_or_else(|| wrong(format!("`{kind}` needs a function as its last argument")))?;
    Ok((name, options, function))
}

/// The options of a block that says arguments for all operations inside.
///
/// # Errors
/// A misuse: an option that there is not, or of a wrong type.
pub(crate) fn block_options(
    lua: &Lua,
    evaluation: &Evaluation,
    kind: &str,
    options: Option<&Table>,
) -> Result<(GlobalArguments, Special), Diagnostic> {
    let wrong = |message: String| Diagnostic::misuse(message).hint(strategies::spelling(kind));
    let mut globals = Map::new();
    let mut special = Special::default();
    for pair in options.iter().flat_map(|options| options.pairs::<LuaValue, LuaValue>()) {
        let (key, value) = pair.map_err(|error| wrong(error.to_string()))?;
        let LuaValue::String(key) = &key else {
            return Err(wrong(format!("the options of `{kind}` have names, such as _sudo = true")));
        };
        let key = key.to_string_lossy();
        if special.take(lua, evaluation, &key, &value)? {
            continue;
        }
        if key.starts_with('_') {
            let value = to_value(lua, &key, &value).map_err(|problem| wrong(problem.message).maybe_hint(problem.hint))?;
            globals.insert(key, value);
        } else {
            let hint = format!("the options are arguments that every operation takes: did you mean `_{key}`?");
            return Err(Diagnostic::misuse(format!("`{kind}` has no option `{key}`")).hint(hint));
        }
    }
    Ok((read_globals(evaluation, globals, true)?, special))
}

/// `BLOCK([name,] [options,] function)`: the block, its body, and in execute the functions of its `_if` that are to be called.
fn read_block(
    lua: &Lua,
    evaluation: &Evaluation,
    kind: &str,
    arguments: &MultiValue,
) -> Result<(Block, Function, Option<Vec<Function>>), Diagnostic> {
    let (name, options, function) = block_parts(kind, arguments)?;
    let is_strategy = matches!(kind, "parallel" | "rolling");
    let in_execute = {
        let state = evaluation.state();
        if state.once > 0 {
            return Err(Diagnostic::misuse(format!("`{kind}` stands inside `once`, which takes no operations")));
        }
        if is_strategy {
            check_place(&state, kind)?;
        }
        state.running.is_some()
    };
    if is_strategy {
        if in_execute {
            let (message, hint) = stray_block(kind);
            return Err(Diagnostic::misuse(message).hint(hint));
        }
        let strategy = strategies::read_kind(lua, kind, name.as_deref(), options.as_ref())?;
        let chain = evaluation.chain(lua);
        let strategy = Some(strategies::enter(&mut evaluation.state(), strategy, name, chain)?);
        return Ok((Block { strategy, ..Block::default() }, function, None));
    }
    let (options, functions) = if in_execute { without_functions(lua, options)? } else { (options, None) };
    let (globals, special) = block_options(lua, evaluation, kind, options.as_ref())?;
    let Special { when, until, on } = special;
    Ok((Block { name, globals, when, until, on, strategy: None }, function, functions))
}

/// The options without the functions of their `_if`, and these.
fn without_functions(lua: &Lua, options: Option<Table>) -> Result<(Option<Table>, Option<Vec<Function>>), Diagnostic> {
    let Some(options) = options else { return Ok((None, None)) };
    let failed = |error: mlua::Error| Diagnostic::runtime(error.to_string());
    let given: LuaValue = options.raw_get("_if").map_err(failed)?;
    let (rest, functions) = match &given {
        LuaValue::Function(function) => (LuaValue::Nil, vec![function.clone()]),
        LuaValue::Table(list) => {
            let all: Vec<LuaValue> = list.sequence_values().collect::<Result<_, _>>().map_err(failed)?;
            let (functions, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(LuaValue::is_function);
            let functions = functions.into_iter().filter_map(|one| one.as_function().cloned()).collect();
            (LuaValue::Table(lua.create_sequence_from(rest).map_err(failed)?), functions)
        }
        _ => return Ok((Some(options), None)),
    };
    let copy = lua.create_table().map_err(failed)?;
    for pair in options.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair.map_err(failed)?;
        copy.raw_set(key, value).map_err(failed)?;
    }
    copy.raw_set("_if", rest).map_err(failed)?;
    Ok((Some(copy), Some(functions)))
}

/// `config`: what is set counts from its line to the end of its file.
pub(crate) fn config_object(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let config = lua.create_table()?;
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let set = lua.create_function(move |lua, (_, key, value): (LuaValue, LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Err(of.misuse(lua, "`config` has names, such as config.sudo = true")) };
        let key = key.to_string_lossy();
        if let Some(plain) = key.strip_prefix('_') {
            return Err(of.misuse_with(lua, format!("`config` has no `{key}`"), format!("write config.{plain}")));
        }
        let value = to_value(lua, &format!("config.{key}"), &value)
            .map_err(|wrong| of.raise(lua, Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint)))?;
        let read = read_globals(&of, Map::from_iter([(key.clone(), value.clone())]), false).map_err(|mut wrong| {
            wrong.message = format!("config.{key}: {}", wrong.message);
            of.raise(lua, wrong)
        })?;
        let mut state = of.state();
        if let Some(here) = state.config.last_mut() {
            if value.is_null() {
                unset(here, &key);
            } else {
                // Over what the file itself said before; an environment is merged, as everywhere.
                *here = read.or(here);
            }
        }
        Ok(())
    })?;
    meta.set("__newindex", set)?;
    let of = evaluation.clone();
    let get = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        // Whether there is such a name is decided as for an assignment of nothing.
        read_globals(&of, Map::from_iter([(key.clone(), infra_core::Value::Null)]), false).map_err(|wrong| of.raise(lua, wrong))?;
        let merged = of.state().config.iter().rev().fold(GlobalArguments::default(), |inner, outer| inner.or(outer));
        let all = serde_json::to_value(&merged).unwrap_or_default();
        to_lua(lua, all.get(&key).unwrap_or(&infra_core::Value::Null))
    })?;
    meta.set("__index", get)?;
    meta.set("__metatable", false)?;
    config.set_metatable(Some(meta))?;
    Ok(config)
}

fn unset(config: &mut GlobalArguments, key: &str) {
    let mut all = serde_json::to_value(&*config).unwrap_or_default();
    if let Some(map) = all.as_object_mut() {
        map.remove(key);
    }
    if let Ok(rest) = serde_json::from_value::<GlobalArguments>(all) {
        // Passwords are in no JSON.
        let kept = |name: &str, password: &Option<Secret>| password.clone().filter(|_| key != name);
        let (sudo_password, su_password) = (kept("sudo_password", &config.sudo_password), kept("su_password", &config.su_password));
        *config = GlobalArguments { sudo_password, su_password, ..rest };
    }
}
