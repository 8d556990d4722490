//! The small functions that a script has: shell text, strings, JSON, files, templates.

use std::sync::Arc;

use infra_core::command::{Shell, ToShell, quote};
use infra_core::diagnostic::Diagnostic;
use infra_core::secret::MASK;
use infra_core::{Map, Value, template};
use mlua::{Lua, MultiValue, Table, Value as LuaValue};

use crate::convert::{null, to_lua, to_value, type_name};
use crate::evaluation::Evaluation;
use crate::scope;
use crate::secrets::{ALLOWED, as_secret_as, data_to_lua, revealed, secret_of};

/// Adds them to the globals.
pub(crate) fn add_to(lua: &Lua, evaluation: &Arc<Evaluation>, globals: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let print = lua.create_function(move |lua, values: MultiValue| {
        let texts: Vec<String> = values.iter().map(|value| shown(lua, &of, value)).collect::<Result<_, _>>()?;
        of.house.world.log(of.host.as_ref().map(|host| host.name.as_str()), &texts.join("\t"));
        Ok(())
    })?;
    globals.set("print", print)?;
    let of = evaluation.clone();
    let shell = lua.create_function(move |lua, values: MultiValue| shell_text(lua, &of, &values))?;
    globals.set("sh", shell)?;
    let of = evaluation.clone();
    let quote = lua.create_function(move |lua, value: LuaValue| {
        let mut text = String::new();
        word(lua, &of, "quote", &value)?.to_shell(&mut text);
        as_secret_as(lua, &of, [&value], &text)
    })?;
    globals.set("quote", quote)?;
    let of = evaluation.clone();
    let dedented = lua.create_function(move |lua, value: LuaValue| text_of(lua, &of, "dedent", 1, &value).map(|text| dedent(&text)))?;
    globals.set("dedent", dedented)?;
    let of = evaluation.clone();
    let environment = lua.create_function(move |lua, (name, default): (LuaValue, LuaValue)| {
        let name = text_of(lua, &of, "env", 1, &name)?;
        match of.house.world.environment(&name) {
            Some(value) => Ok(LuaValue::String(lua.create_string(value)?)),
            None => Ok(default),
        }
    })?;
    globals.get::<Table>("os")?.raw_set("getenv", environment.clone())?;
    globals.set("env", environment)?;
    let of = evaluation.clone();
    let read_file = lua.create_function(move |lua, path: LuaValue| {
        let path = text_of(lua, &of, "read_file", 1, &path)?;
        let found = of.find(lua, &path).map_err(|places| {
            let wrong = Diagnostic::runtime(format!("there is no file `{path}` to read"));
            of.raise(lua, wrong.hint(format!("looked for {}", places.join(" and "))))
        })?;
        let bytes = of.house.world.read_file(&found).map_err(|error| of.fail(lua, format!("`{path}` cannot be read: {error}")))?;
        lua.create_string(bytes)
    })?;
    globals.set("read_file", read_file)?;
    let of = evaluation.clone();
    globals.set("render", lua.create_function(move |lua, (source, vars): (LuaValue, LuaValue)| render(lua, &of, &source, &vars))?)?;
    globals.set("json", json(lua, evaluation)?)?;
    strings(lua, evaluation, &globals.get::<Table>("string")?)
}

fn shown(lua: &Lua, evaluation: &Evaluation, value: &LuaValue) -> mlua::Result<String> {
    match value {
        LuaValue::String(text) => Ok(text.to_string_lossy()),
        LuaValue::Table(table) if !has_own_text(table) => Ok(match to_value(lua, "value", value) {
            Ok(mut value) => {
                evaluation.house.world.secrets().mask_value(&mut value);
                value.to_string()
            }
            Err(_) => value.to_string()?,
        }),
        secret if secret_of(secret).is_some() => Ok(MASK.to_owned()),
        LuaValue::UserData(data) if data.is::<crate::conditions::ReadCondition>() => Err(evaluation.misuse_with(
            lua,
            "a condition is no text",
            "it is known only when the operations have run: give it to `_if` or to a boolean argument",
        )),
        other => other.to_string(),
    }
}

/// Whether a table says itself how it is shown.
fn has_own_text(table: &Table) -> bool {
    let says = |meta: &Table, key: &str| meta.raw_get::<LuaValue>(key).is_ok_and(|value| !value.is_nil());
    table.metatable().is_some_and(|meta| says(&meta, "__tostring") || says(&meta, "__name"))
}

pub(crate) fn text_of(lua: &Lua, evaluation: &Evaluation, function: &str, place: usize, value: &LuaValue) -> mlua::Result<String> {
    match value {
        LuaValue::String(text) => match text.to_str() {
            Ok(text) => Ok(text.to_string()),
            Err(_) => Err(evaluation.fail(lua, format!("`{function}` takes UTF-8, got other bytes"))),
        },
        LuaValue::Integer(number) => Ok(number.to_string()),
        LuaValue::Number(number) => Ok(number.to_string()),
        secret if secret_of(secret).is_some() => Err(evaluation.misuse_with(lua, format!("`{function}` is not for a secret"), ALLOWED)),
        other => Err(evaluation.fail(lua, format!("`{function}` takes a string as argument {place}, got {}", type_name(other)))),
    }
}

fn word(lua: &Lua, evaluation: &Evaluation, function: &str, value: &LuaValue) -> mlua::Result<Vec<String>> {
    match value {
        value if secret_of(value).is_some() => Ok(vec![revealed(value)]),
        LuaValue::String(_) | LuaValue::Integer(_) => Ok(vec![text_of(lua, evaluation, function, 1, value)?]),
        LuaValue::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => Ok(vec![format!("{number:.0}")]),
        LuaValue::Number(number) => Ok(vec![number.to_string()]),
        LuaValue::Table(list) if list.raw_len() > 0 || list.is_empty() => {
            let mut words = Vec::new();
            for at in 1..=list.raw_len() {
                words.append(&mut word(lua, evaluation, function, &list.raw_get(at)?)?);
            }
            Ok(words)
        }
        other => Err(evaluation.misuse_with(
            lua,
            format!("`{function}` takes strings, numbers and lists of them, got {}", type_name(other)),
            "a missing value is often a misspelt name",
        )),
    }
}

fn shell_text(lua: &Lua, evaluation: &Arc<Evaluation>, all: &MultiValue) -> mlua::Result<LuaValue> {
    let mut values = all.iter();
    let text = match values.next() {
        Some(LuaValue::String(text)) => text.to_string_lossy(),
        Some(first) if secret_of(first).is_some() => revealed(first),
        _ => return Err(evaluation.misuse_with(lua, "`sh` takes a text with holes first", "write sh(\"rm -f -- {}\", path)")),
    };
    let words: Vec<Vec<String>> = values.map(|value| word(lua, evaluation, "sh", value)).collect::<Result<_, _>>()?;
    let holes: Vec<&dyn ToShell> = words.iter().map(|words| words as &dyn ToShell).collect();
    let filled = Shell::fill(&text, &holes).map_err(|error| evaluation.misuse(lua, format!("sh: {error}")))?;
    as_secret_as(lua, evaluation, all, filled.as_str())
}

/// The text without the indentation that all its lines share, without a first line that is empty, and without what is before a closing bracket.
fn dedent(text: &str) -> String {
    let text = text.strip_prefix('\n').unwrap_or(text);
    let indent = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start_matches([' ', '\t']).len())
        .min()
        .unwrap_or(0);
    let mut lines: Vec<&str> = text.split('\n').map(|line| if line.trim().is_empty() { "" } else { &line[indent..] }).collect();
    if lines.len() > 1 && text.rsplit('\n').next().is_some_and(|last| last.trim().is_empty()) {
        lines.pop();
        lines.push("");
    }
    lines.join("\n")
}

fn render(lua: &Lua, evaluation: &Arc<Evaluation>, given: &LuaValue, given_vars: &LuaValue) -> mlua::Result<LuaValue> {
    let source = match secret_of(given) {
        Some(secret) => secret.reveal().to_owned(),
        None => text_of(lua, evaluation, "render", 1, given)?,
    };
    let vars = given_vars;
    let is_text = source.contains('\n') || source.contains("{{") || source.contains("{%") || source.is_empty();
    let (name, text) = if is_text {
        ("text".to_owned(), source)
    } else {
        let found = evaluation.find(lua, &source).map_err(|places| {
            evaluation.misuse_with(lua, format!("there is no template `{source}`"), format!("looked for {}", places.join(" and ")))
        })?;
        let bytes = evaluation
            .house
            .world
            .read_file(&found)
            .map_err(|error| evaluation.fail(lua, format!("`{source}` cannot be read: {error}")))?;
        (found.to_string_lossy().into_owned(), String::from_utf8_lossy(&bytes).into_owned())
    };
    let vars =
        to_value(lua, "vars", vars).map_err(|wrong| evaluation.raise(lua, Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint)))?;
    let mut whole = scope::scope(evaluation);
    match vars {
        Value::Object(vars) => whole.extend(vars),
        Value::Null => {}
        Value::Array(items) if items.is_empty() => {}
        _ => return Err(evaluation.misuse(lua, "`render` takes a table of names and values as its second argument")),
    }
    let loader = |path: &str| {
        let bytes =
            evaluation.house.world.read_file(std::path::Path::new(path)).map_err(|error| format!("the template {path}: {error}"))?;
        String::from_utf8(bytes).map_err(|_| format!("the template {path} is not UTF-8"))
    };
    let rendered = template::render(&name, &text, &Value::Object(whole), Some(&evaluation.house.inventory_scope), &loader)
        .map_err(|error| evaluation.raise(lua, scope::wrong_template(evaluation, &error)))?;
    // Of what the host's data holds, it may have used none.
    match evaluation.house.world.secrets().holds(&rendered) {
        true => data_to_lua(lua, evaluation, &Value::String(rendered)),
        false => as_secret_as(lua, evaluation, [given, given_vars], &rendered),
    }
}

fn json(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let json = lua.create_table()?;
    let of = evaluation.clone();
    let decode = lua.create_function(move |lua, text: LuaValue| {
        let text = text_of(lua, &of, "json.decode", 1, &text)?;
        let value: Value = serde_json::from_str(&text).map_err(|error| of.fail(lua, format!("json.decode: {error}")))?;
        if value.is_null() { Ok(null()) } else { to_lua(lua, &value) }
    })?;
    json.set("decode", decode)?;
    let of = evaluation.clone();
    let encode = lua.create_function(move |lua, (given, options): (LuaValue, Option<Table>)| {
        let value = to_value(lua, "value", &given)
            .map_err(|wrong| of.raise(lua, Diagnostic::runtime(format!("json.encode: {}", wrong.message)).maybe_hint(wrong.hint)))?;
        let pretty = options.is_some_and(|options| options.raw_get("pretty").unwrap_or(false));
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let text = text.map_err(|error| of.fail(lua, format!("json.encode: {error}")))?;
        as_secret_as(lua, &of, [&given], &text)
    })?;
    json.set("encode", encode)?;
    json.set("null", null())?;
    Ok(json)
}

type TextFunction = fn(&str, &[String]) -> Result<Value, String>;

/// The functions of strings: plain texts, never patterns.
const STRINGS: [(&str, usize, TextFunction); 6] = [
    ("split", 1, |text, given| match given.first().map(String::as_str) {
        Some("") => Err("the separator is empty".to_owned()),
        Some(separator) => Ok(text.split(separator).collect::<Vec<_>>().into()),
        None => Ok(text.split_whitespace().collect::<Vec<_>>().into()),
    }),
    ("trim", 0, |text, _| Ok(text.trim().into())),
    ("contains", 1, |text, given| needed(given, 0).map(|part| text.contains(part).into())),
    ("starts_with", 1, |text, given| needed(given, 0).map(|part| text.starts_with(part).into())),
    ("ends_with", 1, |text, given| needed(given, 0).map(|part| text.ends_with(part).into())),
    ("replace", 2, |text, given| {
        let (part, with) = (needed(given, 0)?, needed(given, 1)?);
        if part.is_empty() { Err("the text to replace is empty".to_owned()) } else { Ok(text.replace(part, with).into()) }
    }),
];

fn needed(given: &[String], at: usize) -> Result<&str, String> {
    given.get(at).map(String::as_str).ok_or_else(|| "an argument is missing".to_owned())
}

fn strings(lua: &Lua, evaluation: &Arc<Evaluation>, table: &Table) -> mlua::Result<()> {
    for (name, takes, function) in STRINGS {
        let of = evaluation.clone();
        let added = lua.create_function(move |lua, values: MultiValue| {
            let mut texts = Vec::new();
            for (at, value) in values.iter().enumerate() {
                texts.push(text_of(lua, &of, name, at, value)?);
            }
            let Some((text, given)) = texts.split_first() else {
                return Err(of.misuse_with(lua, format!("`{name}` is called on a string"), format!("write text:{name}(…)")));
            };
            if given.len() > takes {
                return Err(of.misuse(lua, format!("`{name}` takes {takes} arguments, got {}", given.len())));
            }
            let value = function(text, given).map_err(|message| of.fail(lua, format!("{name}: {message}")))?;
            to_lua(lua, &value)
        })?;
        table.raw_set(name, added)?;
    }
    Ok(())
}

/// The words of an `env = { … }` of a local command.
pub(crate) fn environment_of(map: &Map) -> Result<std::collections::BTreeMap<String, String>, String> {
    map.iter()
        .map(|(name, value)| match value {
            Value::String(text) => Ok((name.clone(), text.clone())),
            Value::Number(number) => Ok((name.clone(), number.to_string())),
            _ => Err(format!("`env.{name}` takes a string")),
        })
        .collect()
}

/// Quotes an argument vector for a message.
pub(crate) fn shown_command(argv: &[String]) -> String {
    argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::dedent;

    #[test]
    fn indentation_that_all_share_is_dropped() {
        for (text, wanted) in [
            ("\n    a\n      b\n\n    c\n  ", "a\n  b\n\nc\n"),
            ("a\n b", "a\n b"),
            ("  one", "one"),
            ("", ""),
            ("\n\ta\n\t\tb\n", "a\n\tb\n"),
        ] {
            assert_eq!(dedent(text), wanted, "{text:?}");
        }
    }
}
