//! The globals of a script: what is there, what is absent and why, and the guard around them.

use std::sync::Arc;

use infra_core::diagnostic::{Diagnostic, did_you_mean, nearest};
use infra_core::secret::MASK;
use mlua::{Lua, MultiValue, Table, Value as LuaValue};

use crate::call_bodies::register_body;
use crate::convert::{to_value, type_name};
use crate::evaluation::Evaluation;
use crate::hints::foreign_word;
use crate::operations::operation_function;
use crate::secrets::{revealed, secret_of};
use crate::unknown_names;
use crate::{blocks, conditions, host_object, inventory_file};

/// What of Lua's own globals a script has.
const STANDARD: &[&str] = &[
    "assert",
    "error",
    "getmetatable",
    "ipairs",
    "next",
    "pcall",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "select",
    "setmetatable",
    "tonumber",
    "tostring",
    "type",
    "xpcall",
    "_VERSION",
    "collectgarbage",
    "coroutine",
    "table",
    "string",
    "utf8",
    "math",
    "os",
    "io",
];

/// What libraries of Lua lack here: they end infra, wait for a person, or write where results are written.
const ABSENT: &[(&str, &[&str])] = &[
    ("os", &["exit", "execute", "setlocale"]),
    ("io", &["popen", "read", "write", "stdin", "stdout", "stderr", "input", "output", "lines", "close"]),
    ("string", &["dump"]),
];

/// What the language will have.
const NOT_YET: &[&str] = &["operation", "fact", "change", "unchanged", "yaml", "toml", "ini"];

/// What is only there in a deploy.
const DEPLOY_ONLY: &[&str] = &[
    "host",
    "inventory",
    "config",
    "with",
    "deploy",
    "parallel",
    "rolling",
    "call",
    "fail",
    "include",
    "any_changed",
    "all_changed",
    "any_host",
    "once",
    "render",
];

/// Lua's own globals, as far as a script has them.
pub(crate) fn standard(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let globals = lua.create_table()?;
    let all = lua.globals();
    for name in STANDARD {
        globals.raw_set(*name, all.raw_get::<LuaValue>(*name)?)?;
    }
    for (library, names) in ABSENT {
        let table: Table = globals.raw_get(*library)?;
        for name in *names {
            table.raw_set(*name, LuaValue::Nil)?;
        }
        if *library == "string" {
            continue;
        }
        let meta = lua.create_table()?;
        let of = evaluation.clone();
        let (owner, known) = (table.clone(), *names);
        let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| -> mlua::Result<()> {
            let key = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { type_name(&key).to_owned() };
            if known.contains(&key.as_str()) {
                let hint = match key.as_str() {
                    "execute" | "popen" => "commands of this machine are run by local_command { \"git\", \"describe\" }",
                    "read" | "stdin" | "input" => "read a file with read_file(path), or give data with --data",
                    "lines" => "read a file with read_file(path) and split it: text:split(\"\\n\")",
                    "close" => "a file is closed by file:close()",
                    "exit" => "a script ends with its file; fail(\"why\") fails this host",
                    "setlocale" => "the locale is that of C, so that every run reads the same",
                    _ => "write to the log with print(…) or host:log(…), or to a file with io.open(path, \"w\"); commands are local_command { … }",
                };
                return Err(of.misuse_with(lua, format!("`{library}.{key}` is not available in a script"), hint));
            }
            let names: Vec<String> = owner.pairs::<String, LuaValue>().filter_map(|pair| pair.ok().map(|(name, _)| name)).collect();
            let hint = did_you_mean(&key, names.iter().map(String::as_str));
            Err(of.raise(lua, Diagnostic::misuse(format!("`{library}` has no `{key}`")).maybe_hint(hint)))
        })?;
        meta.set("__index", index)?;
        meta.set("__metatable", false)?;
        table.set_metatable(Some(meta))?;
    }
    Ok(globals)
}

/// The globals as a script sees them: always empty itself, so that each assignment is noticed.
pub(crate) fn environment(lua: &Lua, evaluation: &Arc<Evaluation>, globals: &Table) -> mlua::Result<Table> {
    let environment = lua.create_table()?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", globals.clone())?;
    let (of, all) = (evaluation.clone(), globals.clone());
    let assign = lua.create_function(move |lua, (_, key, value): (LuaValue, LuaValue, LuaValue)| assign(lua, &of, &all, &key, value))?;
    meta.raw_set("__newindex", assign)?;
    meta.raw_set("__metatable", false)?;
    environment.set_metatable(Some(meta))?;
    globals.raw_set("_G", environment.clone())?;

    let meta = lua.create_table()?;
    let (of, all) = (evaluation.clone(), globals.clone());
    let unknown =
        lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| -> mlua::Result<()> { Err(unknown_global(lua, &of, &all, &key)) })?;
    meta.raw_set("__index", unknown)?;
    globals.set_metatable(Some(meta))?;
    Ok(environment)
}

fn assign(lua: &Lua, evaluation: &Evaluation, globals: &Table, key: &LuaValue, value: LuaValue) -> mlua::Result<()> {
    let LuaValue::String(name) = key else { return globals.raw_set(key, value) };
    let name = name.to_string_lossy();
    let local = format!("write local {name} = …");
    if evaluation.state().own_globals.contains(&name) {
        return Err(evaluation.misuse_with(lua, format!("`{name}` is infra's own and cannot be assigned"), local));
    }
    let in_main = lua.inspect_stack(1, |frame| frame.source().what == "main").unwrap_or(false);
    if !in_main {
        return Err(evaluation.misuse_with(lua, format!("the global `{name}` is assigned inside a function"), local));
    }
    if evaluation.host.is_none() {
        inventory_file::note_group(lua, evaluation, &name);
    }
    globals.raw_set(name, value)
}

fn unknown_global(lua: &Lua, evaluation: &Evaluation, globals: &Table, key: &LuaValue) -> mlua::Error {
    let LuaValue::String(name) = key else { return evaluation.misuse(lua, format!("a global has a name, not {}", type_name(key))) };
    let name = name.to_string_lossy();
    if NOT_YET.contains(&name.as_str()) {
        return evaluation.misuse(lua, format!("`{name}` is not available yet"));
    }
    if evaluation.host.is_none() && (DEPLOY_ONLY.contains(&name.as_str()) || is_module(evaluation, &name)) {
        return evaluation.misuse_with(
            lua,
            format!("`{name}` is there in a deploy, not in an inventory"),
            "an inventory only names hosts and data",
        );
    }
    if let Some(hint) = foreign_word(&name) {
        return evaluation.misuse_with(lua, format!("there is no `{name}` in Lua"), hint);
    }
    let names: Vec<String> = globals.pairs::<LuaValue, LuaValue>().filter_map(|pair| pair.ok()?.0.to_string().ok()).collect();
    let hint = match name.as_str() {
        "dofile" | "loadfile" => Some("files are run with include(\"tasks/x.lua\") or require(\"x\")".to_owned()),
        "debug" | "package" => Some("it could reach around what keeps scripts apart".to_owned()),
        _ if evaluation.house.inventory.group(&name).is_some() => {
            Some(format!("groups are asked for with host.groups.{name} or inventory:group(\"{name}\")"))
        }
        _ if evaluation.house.inventory.data_keys.contains(&name) => Some(format!("data is read with host.data.{name}")),
        _ => {
            let modules = evaluation.house.registry.operations().filter_map(|operation| operation.name.split('.').next());
            nearest(&name, names.iter().map(String::as_str).chain(modules).chain(NOT_YET.iter().copied()))
                .map(|near| format!("did you mean `{near}`?"))
        }
    };
    evaluation.raise(lua, Diagnostic::misuse(format!("there is no global `{name}`")).maybe_hint(hint))
}

fn is_module(evaluation: &Evaluation, name: &str) -> bool {
    evaluation.house.registry.operations().any(|operation| operation.name.split('.').next() == Some(name))
}

/// Adds the functions of `host` that the prelude hands on.
pub(crate) fn add_methods(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let own_pairs = lua.create_function(|_, table: Table| match table.metatable() {
        Some(meta) => meta.raw_get::<LuaValue>("__pairs"),
        None => Ok(LuaValue::Nil),
    })?;
    rust.set("own_pairs", own_pairs)?;
    let of = evaluation.clone();
    let get = lua.create_function(move |lua, (host, key, default): (LuaValue, LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else {
            return Err(of.misuse_with(lua, "`get` takes the name of the data", "write host:get(\"http_port\", 80), with a colon"));
        };
        let key = key.to_string_lossy();
        let Some(name) = host_object::host_name(&host) else {
            return Err(of.misuse_with(lua, "`host.get` is called without its host", "write host:get(…), with a colon"));
        };
        let value = if of.host.as_ref().is_some_and(|own| own.name == name) {
            of.data().remove(&key)
        } else {
            of.house.by_name.get(&name).and_then(|id| of.house.inventory.by_id(*id).data.get(&key).cloned())
        };
        match value {
            Some(value) if !value.is_null() => crate::secrets::data_to_lua(lua, &of, &value),
            _ => Ok(default),
        }
    })?;
    rust.set("host_get", get)?;
    let of = evaluation.clone();
    let log = lua.create_function(move |lua, (host, text): (LuaValue, LuaValue)| {
        if host_object::host_name(&host).is_none() {
            return Err(of.misuse_with(lua, "`host.log` is called without its host", "write host:log(…), with a colon"));
        }
        let text = match &text {
            secret if secret_of(secret).is_some() => MASK.to_owned(),
            text => text.to_string()?,
        };
        of.house.world.log(of.host.as_ref().map(|host| host.name.as_str()), &text);
        Ok(())
    })?;
    rust.set("host_log", log)
}

/// Adds what the evaluation is about, and notes which names are infra's own.
pub(crate) fn finish(lua: &Lua, evaluation: &Arc<Evaluation>, globals: &Table) -> mlua::Result<()> {
    if let Some(host) = &evaluation.host {
        let host = host_object::host_object(lua, evaluation, host)?;
        globals.raw_set("host", host)?;
        globals.raw_set("inventory", host_object::inventory_object(lua, evaluation)?)?;
        globals.raw_set("config", blocks::config_object(lua, evaluation)?)?;
        for name in ["any_changed", "all_changed"] {
            let of = evaluation.clone();
            let combine = lua.create_function(move |lua, handles: MultiValue| conditions::combine(lua, &of, name, &handles))?;
            globals.raw_set(name, combine)?;
        }
        let of = evaluation.clone();
        let any_host = lua.create_function(move |lua, handles: MultiValue| conditions::any_host(lua, &of, &handles))?;
        globals.raw_set("any_host", any_host)?;
        let of = evaluation.clone();
        let call = lua.create_function(move |lua, arguments: MultiValue| register_body(lua, &of, &arguments))?;
        globals.raw_set("call", call)?;
        let of = evaluation.clone();
        let fail = lua.create_function(move |lua, message: LuaValue| -> mlua::Result<()> {
            let text = match &message {
                LuaValue::String(text) => text.to_string_lossy(),
                LuaValue::Integer(_) | LuaValue::Number(_) => message.to_string()?,
                // It is masked where it is told.
                message if secret_of(message).is_some() => revealed(message),
                other => {
                    let wrong = format!("`fail` takes the message, got {}", type_name(other));
                    return Err(of.misuse_with(lua, wrong, "write fail(\"the disk is full\")"));
                }
            };
            Err(of.raise(lua, Diagnostic::host(text)))
        })?;
        globals.raw_set("fail", fail)?;
        add_modules(lua, evaluation, globals)?;
    } else {
        for name in DEPLOY_ONLY {
            globals.raw_set(*name, LuaValue::Nil)?;
        }
    }
    let mut names: Vec<String> = Vec::new();
    for pair in globals.pairs::<String, LuaValue>() {
        names.push(pair?.0);
    }
    evaluation.state().own_globals = names;
    Ok(())
}

/// The modules of operations. Their functions are made when they are asked for.
fn add_modules(lua: &Lua, evaluation: &Arc<Evaluation>, globals: &Table) -> mlua::Result<()> {
    let mut modules: Vec<String> = Vec::new();
    for operation in evaluation.house.registry.operations() {
        let parts: Vec<&str> = operation.name.split('.').collect();
        for end in 1..parts.len() {
            let module = parts[..end].join(".");
            if !modules.contains(&module) {
                modules.push(module);
            }
        }
    }
    // A module stands before those inside it.
    modules.sort_by_key(|module| module.matches('.').count());
    for module in modules {
        let table = module_table(lua, evaluation, &module)?;
        match module.rsplit_once('.') {
            None => globals.raw_set(module.as_str(), table)?,
            Some((outer, name)) => {
                let mut owner = globals.clone();
                for part in outer.split('.') {
                    owner = owner.raw_get(part)?;
                }
                owner.raw_set(name, table)?;
            }
        }
    }
    Ok(())
}

fn module_table(lua: &Lua, evaluation: &Arc<Evaluation>, module: &str) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let meta = lua.create_table()?;
    let (of, name) = (evaluation.clone(), module.to_owned());
    let index = lua.create_function(move |lua, (table, key): (Table, LuaValue)| {
        let key = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { type_name(&key).to_owned() };
        let registry = of.house.registry.clone();
        let kind = format!("{name}.{key}");
        if let Some(definition) = registry.operation(&kind) {
            let function = operation_function(lua, &of, definition)?;
            table.raw_set(key, function.clone())?;
            return Ok(function);
        }
        Err(of.raise(lua, unknown_names::operation(&registry, &name, &key)))
    })?;
    meta.set("__index", index)?;
    let (of, name) = (evaluation.clone(), module.to_owned());
    let new_index = lua.create_function(move |lua, (_, key, _): (LuaValue, LuaValue, LuaValue)| -> mlua::Result<()> {
        let key = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { type_name(&key).to_owned() };
        Err(of.misuse(lua, format!("`{name}.{key}` cannot be assigned: `{name}` is infra's own")))
    })?;
    meta.set("__newindex", new_index)?;
    let (of, name) = (evaluation.clone(), module.to_owned());
    let call = lua.create_function(move |lua, _: MultiValue| -> mlua::Result<()> {
        Err(of.misuse_with(lua, format!("`{name}` is a module of operations, not an operation"), format!("write {name}.OPERATION {{ … }}")))
    })?;
    meta.set("__call", call)?;
    meta.set("__metatable", false)?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

/// What a file gave back at its end: only files of data give something.
pub(crate) fn end_file(lua: &Lua, evaluation: &Evaluation, at: usize, value: &LuaValue) -> mlua::Result<()> {
    if evaluation.host.is_some() || at == 1 {
        return Ok(());
    }
    let file = &evaluation.house.files[at - 1].name;
    let wrong = |message: String| {
        let wrong = Diagnostic::misuse(message).at(file.clone(), 0).hint("a file of data ends with return { key = value, … }");
        evaluation.keep(&wrong);
        crate::errors::raise(wrong)
    };
    let read = to_value(lua, "data", value).map_err(|problem| wrong(problem.message))?;
    let map = match read {
        infra_core::Value::Object(map) => map,
        infra_core::Value::Array(items) if items.is_empty() && value.is_table() => infra_core::Map::new(),
        _ => return Err(wrong(format!("the file gives back {}, not a table of data", type_name(value)))),
    };
    evaluation.state().file_data.push((at - 1, map));
    Ok(())
}
