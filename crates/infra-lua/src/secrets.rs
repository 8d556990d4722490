//! Secrets as Lua sees them: values that are joined and handed on, and shown by nothing.

use std::path::PathBuf;
use std::sync::Arc;

use infra_core::diagnostic::Diagnostic;
use infra_core::secret::Secret;
use mlua::{Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields, UserDataMethods, Value as LuaValue};

use crate::convert::type_name;
use crate::evaluation::Evaluation;
use crate::once::Kept;
use crate::requests::{Reply, Request, read_command};
use crate::text_functions::text_of;

/// A secret in a script. What is joined with it is a secret as well.
pub(crate) struct SecretText {
    pub secret: Secret,
    evaluation: Arc<Evaluation>,
}

/// What may be done with a secret.
pub(crate) const ALLOWED: &str = "a secret can be joined with `..`, string.format(\"%s\", …), table.concat, sh(…), quote(…) and render(…), and given to operations: content, commands, vars, _env";

impl UserData for SecretText {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        // What Lua's own functions call it that take no secret.
        fields.add_meta_field(MetaMethod::Type, "secret");
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_function(MetaMethod::Concat, |lua, (left, right): (LuaValue, LuaValue)| {
            let evaluation = [&left, &right].into_iter().find_map(evaluation_of);
            let Some(evaluation) = evaluation else { return Err(mlua::Error::runtime("there is no secret to be joined")) };
            let mut joined = String::new();
            for side in [&left, &right] {
                match text_or_secret(side) {
                    Some(text) => joined.push_str(&text),
                    None => return Err(evaluation.fail(lua, format!("a secret cannot be joined with {}", type_name(side)))),
                }
            }
            new(lua, &evaluation, &joined)
        });
        methods.add_meta_function(MetaMethod::Eq, |_, (left, right): (LuaValue, LuaValue)| {
            Ok(secret_of(&left).is_some() && secret_of(&left) == secret_of(&right))
        });
        methods.add_meta_method(MetaMethod::ToString, |lua, this, ()| -> mlua::Result<String> {
            Err(refused(lua, &this.evaluation, "tostring"))
        });
        methods.add_meta_method(MetaMethod::Len, |lua, this, ()| -> mlua::Result<i64> { Err(refused(lua, &this.evaluation, "#")) });
        methods.add_meta_method(MetaMethod::Index, |lua, this, key: LuaValue| -> mlua::Result<LuaValue> {
            let what = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { "[…]".to_owned() };
            Err(refused(lua, &this.evaluation, &what))
        });
        for method in [MetaMethod::Lt, MetaMethod::Le] {
            methods.add_meta_function(method, |lua, (left, right): (LuaValue, LuaValue)| -> mlua::Result<bool> {
                match [&left, &right].into_iter().find_map(evaluation_of) {
                    Some(evaluation) => Err(refused(lua, &evaluation, "<")),
                    None => Ok(false),
                }
            });
        }
    }
}

fn refused(lua: &Lua, evaluation: &Evaluation, what: &str) -> mlua::Error {
    evaluation.misuse_with(lua, format!("`{what}` is not for a secret"), ALLOWED)
}

fn evaluation_of(value: &LuaValue) -> Option<Arc<Evaluation>> {
    let LuaValue::UserData(data) = value else { return None };
    Some(data.borrow::<SecretText>().ok()?.evaluation.clone())
}

/// The secret that a value is; none where it is none.
pub(crate) fn secret_of(value: &LuaValue) -> Option<Secret> {
    let LuaValue::UserData(data) = value else { return None };
    Some(data.borrow::<SecretText>().ok()?.secret.clone())
}

/// The text of a value that is a secret; empty for any other.
pub(crate) fn revealed(value: &LuaValue) -> String {
    secret_of(value).map(|secret| secret.reveal().to_owned()).unwrap_or_default()
}

/// The text of a string, a number or a secret.
fn text_or_secret(value: &LuaValue) -> Option<String> {
    match value {
        LuaValue::String(text) => Some(text.to_string_lossy()),
        LuaValue::Integer(number) => Some(number.to_string()),
        // As Lua joins it.
        LuaValue::Number(_) => value.to_string().ok(),
        other => secret_of(other).map(|secret| secret.reveal().to_owned()),
    }
}

/// A secret for Lua. Its text may hold more than what was secret at first.
fn new(lua: &Lua, evaluation: &Arc<Evaluation>, text: &str) -> mlua::Result<LuaValue> {
    evaluation.house.world.secrets().derived(text);
    let secret = SecretText { secret: Secret::new(text), evaluation: evaluation.clone() };
    Ok(LuaValue::UserData(lua.create_userdata(secret)?))
}

/// The text for Lua: a secret where one of these values is one.
pub(crate) fn as_secret_as<'v>(
    lua: &Lua,
    evaluation: &Arc<Evaluation>,
    values: impl IntoIterator<Item = &'v LuaValue>,
    text: &str,
) -> mlua::Result<LuaValue> {
    match values.into_iter().any(|value| holds_secret(value, 0)) {
        true => new(lua, evaluation, text),
        false => Ok(LuaValue::String(lua.create_string(text)?)),
    }
}

/// Whether a value is a secret, or a table with one in it.
fn holds_secret(value: &LuaValue, depth: usize) -> bool {
    match value {
        LuaValue::UserData(data) => data.is::<SecretText>(),
        LuaValue::Table(table) if depth < 100 => {
            let mut found = false;
            // It stops at the first.
            let _ = table.for_each(|_: LuaValue, item: LuaValue| {
                found |= holds_secret(&item, depth + 1);
                if found { Err(mlua::Error::runtime("found")) } else { Ok(()) }
            });
            found
        }
        _ => false,
    }
}

/// Data for Lua: texts in which a secret stands are secrets again.
pub(crate) fn data_to_lua(lua: &Lua, evaluation: &Arc<Evaluation>, value: &infra_core::Value) -> mlua::Result<LuaValue> {
    let secrets = evaluation.house.world.secrets();
    if !secrets.holds_in(value) {
        return crate::convert::to_lua(lua, value);
    }
    match value {
        infra_core::Value::String(text) if secrets.holds(text) => new(lua, evaluation, text),
        infra_core::Value::Array(items) => {
            let table = lua.create_table()?;
            for (at, item) in items.iter().enumerate() {
                let item = if item.is_null() { crate::convert::null() } else { data_to_lua(lua, evaluation, item)? };
                table.raw_set(at + 1, item)?;
            }
            Ok(LuaValue::Table(table))
        }
        infra_core::Value::Object(map) => {
            let table = lua.create_table()?;
            for (key, item) in map {
                table.raw_set(key.as_str(), data_to_lua(lua, evaluation, item)?)?;
            }
            Ok(LuaValue::Table(table))
        }
        other => crate::convert::to_lua(lua, other),
    }
}

/// A text as a secret.
fn take(lua: &Lua, evaluation: &Arc<Evaluation>, what: &str, text: &str) -> mlua::Result<LuaValue> {
    let known = evaluation.house.world.secrets().secret(text);
    let secret = known.map_err(|short| {
        let hint = "a shorter one stands in too many places by chance, and could be guessed from what is left";
        evaluation.misuse_with(lua, format!("{what} {short}"), hint)
    })?;
    Ok(LuaValue::UserData(lua.create_userdata(SecretText { secret, evaluation: evaluation.clone() })?))
}

/// What is asked of the person who started infra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    pub text: String,
    /// Whether what is typed is not shown.
    pub hidden: bool,
    /// What is taken where nobody can be asked, or nothing is typed.
    pub default: Option<String>,
}

/// Adds `secret` and what the prelude needs for it and for `ask`.
pub(crate) fn add_to(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table, globals: &Table) -> mlua::Result<()> {
    let table = lua.create_table()?;
    let of = evaluation.clone();
    let env = lua.create_function(move |lua, name: LuaValue| {
        let name = text_of(lua, &of, "secret.env", 1, &name)?;
        match of.house.world.environment(&name) {
            Some(text) => take(lua, &of, &format!("the environment variable {name}"), &text),
            None => {
                let hint = format!("set it where infra is started: {name}=… infra …");
                Err(of.misuse_with(lua, format!("secret.env: the environment variable {name} is not set"), hint))
            }
        }
    })?;
    table.raw_set("env", env)?;
    let of = evaluation.clone();
    let file = lua.create_function(move |lua, path: LuaValue| {
        let path = text_of(lua, &of, "secret.file", 1, &path)?;
        let found = if path.starts_with('/') { Ok(PathBuf::from(&path)) } else { of.find(lua, &path) };
        let found = found.map_err(|places| {
            of.misuse_with(lua, format!("secret.file: there is no file `{path}`"), format!("looked for {}", places.join(" and ")))
        })?;
        let bytes =
            of.house.world.read_file(&found).map_err(|error| of.misuse(lua, format!("secret.file: `{path}` cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| of.misuse(lua, format!("secret.file: `{path}` is not UTF-8")))?;
        take(lua, &of, &format!("the secret in `{path}`"), text.trim_end_matches(['\n', '\r']))
    })?;
    table.raw_set("file", file)?;
    globals.raw_set("secret", table.clone())?;
    let of = evaluation.clone();
    let value = lua.create_function(move |lua, (_, value): (LuaValue, LuaValue)| match &value {
        LuaValue::UserData(data) if data.is::<SecretText>() => Ok(value.clone()),
        LuaValue::String(_) | LuaValue::Integer(_) => {
            let text = text_of(lua, &of, "secret", 1, &value)?;
            take(lua, &of, "the secret", &text)
        }
        other => Err(of.misuse_with(
            lua,
            format!("`secret` takes a text, got {}", type_name(other)),
            "write secret(host.data.token), secret.env(\"NAME\"), secret.file(\"PATH\"), secret.command { … } or secret.prompt(\"…\")",
        )),
    })?;
    let meta = lua.create_table()?;
    meta.raw_set("__call", value)?;
    let of = evaluation.clone();
    let unknown = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| -> mlua::Result<()> {
        let key = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { type_name(&key).to_owned() };
        let hint = infra_core::diagnostic::did_you_mean(&key, ["env", "file", "command", "prompt"]);
        let hint = hint.or_else(|| Some("it has env, file, command and prompt, and secret(text) takes a text as one".to_owned()));
        Err(of.raise(lua, Diagnostic::misuse(format!("`secret` has no `{key}`")).maybe_hint(hint)))
    })?;
    meta.raw_set("__index", unknown)?;
    let of = evaluation.clone();
    let assigned = lua.create_function(move |lua, _: MultiValue| -> mlua::Result<()> {
        Err(of.misuse(lua, "`secret` is infra's own and cannot be changed"))
    })?;
    meta.raw_set("__newindex", assigned)?;
    meta.raw_set("__metatable", false)?;
    // The prelude fills in what waits before this guards it.
    rust.set("guard_secret", lua.create_function(move |_, ()| table.set_metatable(Some(meta.clone())))?)?;
    ask(lua, evaluation, rust)?;
    joining(lua, evaluation, globals)
}

fn ask(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let command = lua.create_function(move |lua, arguments: LuaValue| {
        let (command, ok) = read_command(lua, &arguments)
            .map_err(|wrong| of.raise(lua, Diagnostic { message: wrong.message.replace("local_command", "secret.command"), ..wrong }))?;
        // Wherever it is asked for, it is asked once.
        let key = format!("secret.command {command:?}");
        of.set_request(Some(Request::Command { key, command, ok, secret: true }));
        Ok(())
    })?;
    rust.set("ask_secret_command", command)?;
    let of = evaluation.clone();
    let answer = lua.create_function(move |lua, ()| match of.take_reply() {
        Some(Reply::Output(Ok(Kept::Output(bytes)))) => {
            let text = String::from_utf8(bytes.to_vec()).map_err(|_| of.fail(lua, "secret.command: what it printed is not UTF-8"))?;
            take(lua, &of, "what secret.command printed", &text)
        }
        Some(Reply::Output(Err(why))) => Err(of.fail(lua, why)),
        _ => Err(of.fail(lua, "secret.command: the command gave no output")),
    })?;
    rust.set("secret_output", answer)?;
    let of = evaluation.clone();
    let question = lua.create_function(move |lua, (hidden, text, default): (bool, LuaValue, LuaValue)| {
        let function = if hidden { "secret.prompt" } else { "ask" };
        let LuaValue::String(_) = &text else {
            let spelling = if hidden { "write secret.prompt(\"Vault password\")" } else { "write ask(\"Which version?\", \"1.2\")" };
            return Err(of.misuse_with(lua, format!("`{function}` takes the text of the question, got {}", type_name(&text)), spelling));
        };
        let text = text_of(lua, &of, function, 1, &text)?;
        let default = match &default {
            LuaValue::Nil => None,
            default => Some(text_of(lua, &of, function, 2, default)?),
        };
        of.set_request(Some(Request::Ask(Asking { text, hidden, default })));
        Ok(())
    })?;
    rust.set("ask_person", question)?;
    let of = evaluation.clone();
    let answer = lua.create_function(move |lua, hidden: bool| match of.take_reply() {
        Some(Reply::Output(Ok(Kept::Output(bytes)))) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match hidden {
                true => take(lua, &of, "what was typed", &text),
                false => Ok(LuaValue::String(lua.create_string(text)?)),
            }
        }
        // Nobody is there for any host: the run is to be started otherwise.
        Some(Reply::Output(Err(why))) => Err(of.misuse(lua, why)),
        _ => Err(of.fail(lua, "the question was not answered")),
    })?;
    rust.set("person_answer", answer)
}

/// Has Lua's own functions that join texts keep the type.
fn joining(lua: &Lua, evaluation: &Arc<Evaluation>, globals: &Table) -> mlua::Result<()> {
    let string: Table = globals.get("string")?;
    let raw: mlua::Function = string.raw_get("format")?;
    let of = evaluation.clone();
    let format = lua.create_function(move |lua, values: MultiValue| {
        if !values.iter().any(|value| secret_of(value).is_some()) {
            return raw.call::<LuaValue>(values);
        }
        let pattern = match values.front() {
            Some(LuaValue::String(pattern)) => pattern.to_string_lossy(),
            _ => return Err(refused(lua, &of, "string.format")),
        };
        let mut shown = MultiValue::new();
        let specifications = specifications(&pattern);
        for (at, value) in values.iter().enumerate() {
            match secret_of(value) {
                Some(_) if at == 0 => return Err(refused(lua, &of, "string.format")),
                // Any other one would cut it or change it, so that it could not be found any more.
                Some(_) if specifications.get(at - 1).is_some_and(|one| one != "%s") => {
                    return Err(of.misuse_with(
                        lua,
                        format!("string.format: `{}` is not for a secret", specifications[at - 1]),
                        "write %s",
                    ));
                }
                Some(secret) => shown.push_back(LuaValue::String(lua.create_string(secret.reveal())?)),
                None => shown.push_back(value.clone()),
            }
        }
        let text: mlua::LuaString = raw.call(shown)?;
        new(lua, &of, &text.to_string_lossy())
    })?;
    string.raw_set("format", format)?;
    let table: Table = globals.get("table")?;
    let raw: mlua::Function = table.raw_get("concat")?;
    let of = evaluation.clone();
    let concat = lua.create_function(move |lua, values: MultiValue| {
        let separator_is_secret = values.get(1).is_some_and(|one| secret_of(one).is_some());
        let Some(LuaValue::Table(list)) = values.front() else { return raw.call::<LuaValue>(values) };
        let secret = (1..=list.raw_len()).any(|at| list.raw_get::<LuaValue>(at).is_ok_and(|item| secret_of(&item).is_some()));
        if !secret && !separator_is_secret {
            return raw.call::<LuaValue>(values);
        }
        let plain = lua.create_table()?;
        for at in 1..=list.raw_len() {
            let item: LuaValue = list.raw_get(at)?;
            plain.raw_set(at, as_plain(lua, &item)?)?;
        }
        let mut shown = MultiValue::from_vec(vec![LuaValue::Table(plain)]);
        for value in values.iter().skip(1) {
            shown.push_back(as_plain(lua, value)?);
        }
        let text: mlua::LuaString = raw.call(shown)?;
        new(lua, &of, &text.to_string_lossy())
    })?;
    table.raw_set("concat", concat)
}

fn as_plain(lua: &Lua, value: &LuaValue) -> mlua::Result<LuaValue> {
    Ok(match secret_of(value) {
        Some(secret) => LuaValue::String(lua.create_string(secret.reveal())?),
        None => value.clone(),
    })
}

/// The specifications of a pattern of string.format, in their order.
fn specifications(pattern: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            continue;
        }
        if rest.next_if_eq(&'%').is_some() {
            continue;
        }
        let mut one = String::from("%");
        for c in rest.by_ref() {
            one.push(c);
            if c.is_ascii_alphabetic() {
                break;
            }
        }
        all.push(one);
    }
    all
}
