//! What a script waits for: answers of facts, commands of the controller, and what runs once for all hosts.

use std::path::PathBuf;
use std::sync::Arc;

use infra_core::arguments::ArgumentError;
use infra_core::diagnostic::Diagnostic;
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::HostId;
use infra_core::late::Place;
use infra_core::script::FactRequest;
use infra_core::{Map, Value};
use mlua::{Lua, Table, Value as LuaValue};

use crate::convert::{to_lua, to_value, type_name};
use crate::evaluation::Evaluation;
use crate::host_object::host_name;
use crate::once::{Kept, Outcome};
use crate::operations::{merge_globals, read_globals};
use crate::secrets::{data_to_lua, revealed, secret_of};
use crate::text_functions::environment_of;
use crate::unknown_names;
use crate::world::{LocalCommand, normalise};

/// What a script waits for.
pub(crate) enum Request {
    Facts(Vec<FactRequest>),
    Command {
        key: String,
        command: LocalCommand,
        ok: Vec<i32>,
        /// Whether what it prints is secret.
        secret: bool,
    },
    /// The person who started infra is to be asked.
    Ask(crate::secrets::Asking),
    Once {
        key: String,
    },
    OnceDone {
        outcome: Outcome,
    },
    /// What the plan says of this call by now.
    Foresee(infra_core::condition::CallIndex),
    /// This operation is to be run now.
    Perform(Box<infra_core::script::OperationCall>),
}

/// What it is given.
pub(crate) enum Reply {
    Answers(Vec<infra_core::script::Answer>),
    Output(Outcome),
    /// It is this host's turn to run the body of `once`, which was asked for under this key.
    Mine,
    Done(Outcome),
    /// What came of the operation that was to be run.
    Ended(Arc<infra_core::late::CallResult>),
}

/// Adds what the prelude needs to ask.
pub(crate) fn add_to(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let ask = lua.create_function(move |lua, (host, name, arguments): (LuaValue, LuaValue, LuaValue)| {
        let asked = asked_host(lua, &of, &host, "fact")?;
        let fact = fact(lua, &of, asked, &name, &arguments)?;
        of.state().asked = vec![fact];
        of.set_request(None);
        Ok(())
    })?;
    rust.set("ask_fact", ask)?;
    let of = evaluation.clone();
    let ask = lua.create_function(move |lua, (host, questions): (LuaValue, LuaValue)| {
        let other = asked_host(lua, &of, &host, "facts")?;
        let mut asked = Vec::new();
        for (_, question) in named_questions(lua, &of, &questions)? {
            let (name, arguments) = question_parts(lua, &of, &question)?;
            asked.push(fact(lua, &of, other, &name, &arguments)?);
        }
        of.state().asked = asked;
        of.set_request(None);
        Ok(())
    })?;
    rust.set("ask_facts", ask)?;
    let of = evaluation.clone();
    let answer = lua.create_function(move |lua, ()| {
        let (names, answers) = of.take_answers();
        let name = names.first().cloned().unwrap_or_default();
        match answers.into_iter().next() {
            Some(Ok(value)) => to_lua(lua, &value),
            Some(Err(why)) => Err(of.fail(lua, format!("the fact {name} cannot be read: {why}"))),
            None => Err(of.fail(lua, format!("the fact {name} was not answered"))),
        }
    })?;
    rust.set("answer", answer)?;
    let of = evaluation.clone();
    let answers = lua.create_function(move |lua, questions: LuaValue| {
        let (names, answers) = of.take_answers();
        let result = lua.create_table()?;
        for (((key, _), name), answer) in named_questions(lua, &of, &questions)?.into_iter().zip(names).zip(answers) {
            let value = answer.map_err(|why| of.fail(lua, format!("the fact {name} cannot be read: {why}")))?;
            result.raw_set(key, to_lua(lua, &value)?)?;
        }
        Ok(result)
    })?;
    rust.set("answers", answers)?;
    let of = evaluation.clone();
    let not_here = lua.create_function(move |lua, what: String| -> mlua::Result<()> {
        of.set_request(None);
        of.state().asked.clear();
        let hint =
            if what.starts_with("host:") { "read the fact into a local first" } else { "call it before, and keep the result in a local" };
        Err(of.misuse_with(
            lua,
            format!("`{what}` cannot wait here, inside a function that Lua itself calls (table.sort, gsub, __tostring)"),
            hint,
        ))
    })?;
    rust.set("not_here", not_here)?;
    commands(lua, evaluation, rust)?;
    once(lua, evaluation, rust)
}

fn commands(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let ask = lua.create_function(move |lua, arguments: LuaValue| {
        let (command, ok) = read_command(lua, &arguments).map_err(|wrong| of.raise(lua, wrong))?;
        let key = of.once_key(lua, &format!("{command:?}"));
        of.set_request(Some(Request::Command { key, command, ok, secret: false }));
        Ok(())
    })?;
    rust.set("ask_command", ask)?;
    let of = evaluation.clone();
    let output = lua.create_function(move |lua, ()| match of.take_reply() {
        Some(Reply::Output(Ok(Kept::Output(bytes)))) => lua.create_string(&*bytes),
        Some(Reply::Output(Err(why))) => Err(of.fail(lua, why)),
        _ => Err(of.fail(lua, "the command gave no output")),
    })?;
    rust.set("output", output)
}

fn once(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let of = evaluation.clone();
    let ask = lua.create_function(move |lua, body: LuaValue| {
        if !body.is_function() {
            return Err(of.misuse_with(
                lua,
                format!("`once` takes a function, got {}", type_name(&body)),
                "write local v = once(function() return … end)",
            ));
        }
        let key = of.once_key(lua, "once");
        of.set_request(Some(Request::Once { key }));
        Ok(())
    })?;
    rust.set("ask_once", ask)?;
    let of = evaluation.clone();
    let turn = lua.create_function(move |lua, ()| match of.take_reply() {
        Some(Reply::Mine) => Ok((true, LuaValue::Nil)),
        Some(Reply::Done(Ok(Kept::Data(value)))) => Ok((false, data_to_lua(lua, &of, &value)?)),
        Some(Reply::Done(Err(why))) => Err(of.fail(lua, format!("once: {why}"))),
        _ => Err(of.fail(lua, "`once` gave nothing")),
    })?;
    rust.set("turn", turn)?;
    let of = evaluation.clone();
    let enter = lua.create_function(move |_, ()| {
        of.state().once += 1;
        Ok(())
    })?;
    rust.set("enter_once", enter)?;
    let of = evaluation.clone();
    rust.set(
        "leave_once",
        lua.create_function(move |_, _: LuaValue| {
            of.state().once -= 1;
            Ok(())
        })?,
    )?;
    let of = evaluation.clone();
    let tell = lua.create_function(move |lua, (ok, value): (bool, LuaValue)| {
        let outcome = if ok {
            match to_value(lua, "the result of once", &value) {
                Ok(value) => Ok(Kept::Data(Arc::new(value))),
                Err(wrong) => {
                    of.set_request(None);
                    return Err(of.raise(lua, Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint)));
                }
            }
        } else {
            let text = match &value {
                LuaValue::Error(error) => crate::errors::diagnose(error, &of.house.sources, Vec::new()).to_string(),
                other => other.to_string()?,
            };
            Err(text)
        };
        of.set_request(Some(Request::OnceDone { outcome }));
        Ok(())
    })?;
    rust.set("tell_once", tell)
}

/// The host that is asked, where it is another one.
fn asked_host(lua: &Lua, evaluation: &Evaluation, host: &LuaValue, method: &str) -> mlua::Result<Option<HostId>> {
    let name = host_name(host).ok_or_else(|| {
        let message = format!("`host.{method}` is called without its host");
        evaluation.misuse_with(lua, message, format!("write host:{method}(…), with a colon"))
    })?;
    let is_own = evaluation.host.as_ref().is_some_and(|own| own.name == name);
    let other = if is_own { None } else { evaluation.house.by_name.get(&name).copied() };
    if evaluation.state().once > 0 {
        return Err(evaluation.misuse_with(lua, "a fact cannot be read inside `once`, which runs for all hosts", "read it outside"));
    }
    Ok(other)
}

fn named_questions(lua: &Lua, evaluation: &Evaluation, questions: &LuaValue) -> mlua::Result<Vec<(LuaValue, LuaValue)>> {
    let LuaValue::Table(table) = questions else {
        return Err(evaluation.misuse_with(
            lua,
            format!("`host:facts` takes a table of questions, got {}", type_name(questions)),
            "write host:facts { os = \"server.os_release\", conf = { \"files.file\", path = \"/etc/x\" } }",
        ));
    };
    let mut all: Vec<(LuaValue, LuaValue)> = table.pairs().collect::<Result<_, _>>()?;
    // The order is that of the keys, so that the same questions are asked in the same order every run.
    all.sort_by_key(|(key, _)| match key {
        LuaValue::Integer(index) => (0, *index, String::new()),
        other => (1, 0, other.to_string().unwrap_or_default()),
    });
    Ok(all)
}

fn question_parts(lua: &Lua, evaluation: &Evaluation, question: &LuaValue) -> mlua::Result<(LuaValue, LuaValue)> {
    let LuaValue::Table(table) = question else { return Ok((question.clone(), LuaValue::Nil)) };
    let name: LuaValue = table.raw_get(1)?;
    let arguments = match table.raw_get::<LuaValue>(2)? {
        LuaValue::Table(arguments) => arguments,
        LuaValue::Nil => {
            let arguments = lua.create_table()?;
            for pair in table.pairs::<LuaValue, LuaValue>() {
                let (key, value) = pair?;
                if key.is_string() {
                    arguments.raw_set(key, value)?;
                }
            }
            arguments
        }
        other => return Err(evaluation.misuse(lua, format!("the arguments of a fact are a table, got {}", type_name(&other)))),
    };
    Ok((name, LuaValue::Table(arguments)))
}

fn fact(lua: &Lua, evaluation: &Evaluation, other: Option<HostId>, name: &LuaValue, arguments: &LuaValue) -> mlua::Result<FactRequest> {
    let LuaValue::String(name) = name else {
        return Err(evaluation.misuse_with(
            lua,
            format!("a fact is named by a string, got {}", type_name(name)),
            "write host:fact(\"server.hostname\")",
        ));
    };
    let name = name.to_string_lossy();
    let raise = |wrong: Diagnostic| evaluation.raise(lua, wrong);
    let registry = &evaluation.house.registry;
    let definition = registry.fact(&name).ok_or_else(|| raise(unknown_names::fact(registry, &name)))?;
    let given = match arguments {
        LuaValue::Nil => Map::new(),
        LuaValue::Table(_) => match to_value(lua, &name, arguments) {
            Ok(Value::Object(map)) => map,
            Ok(Value::Array(items)) if items.is_empty() => Map::new(),
            Ok(_) => {
                let names = infra_core::arguments::names(&definition.schema).join(", ");
                return Err(raise(Diagnostic::misuse(format!("the fact {name} takes names: {names}"))));
            }
            Err(wrong) => return Err(raise(Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))),
        },
        other => {
            let hint = match (infra_core::arguments::names(&definition.schema).first(), other) {
                (Some(first), LuaValue::String(text)) => {
                    format!("write host:fact(\"{name}\", {{ {first} = \"{}\" }})", text.to_string_lossy())
                }
                _ => format!("write host:fact(\"{name}\", {{ … }})"),
            };
            return Err(raise(
                Diagnostic::misuse(format!("the arguments of the fact {name} are a table, got {}", type_name(other))).hint(hint),
            ));
        }
    };
    let (globals, mut own): (Map, Map) = given.into_iter().partition(|(key, _)| key.starts_with('_'));
    if globals.contains_key("_on") {
        let wrong = Diagnostic::misuse("`_on` is for operations and for blocks around them");
        return Err(raise(wrong.hint("facts of another host are read with inventory:host(name):fact(…)")));
    }
    let of = other.map(|id| &**evaluation.house.inventory.by_id(id));
    let mut globals = read_globals(evaluation, globals, true)
        .and_then(|globals: GlobalArguments| merge_globals(evaluation, globals, of))
        .map_err(raise)?;
    // A file that an operation in the same block names is the same file for a fact.
    infra_core::arguments::join_host_paths(&definition.schema, &mut own, &mut globals.chdir);
    let fact = definition
        .bind(own)
        .map_err(|ArgumentError { message, hint, .. }| raise(Diagnostic::misuse(format!("{name}: {message}")).maybe_hint(hint)))?;
    Ok(FactRequest { fact, context: globals.context().for_facts(), on: other.map(Place::Host) })
}

/// A command of the controller. A secret may stand on its input and in its environment; everyone on this machine can read its words.
pub(crate) fn read_command(lua: &Lua, arguments: &LuaValue) -> Result<(LocalCommand, Vec<i32>), Diagnostic> {
    let spelling = "write local_command { \"git\", \"rev-parse\", \"HEAD\" }";
    let wrong = |message: String| Diagnostic::misuse(format!("local_command: {message}")).hint(spelling);
    let LuaValue::Table(table) = arguments else {
        return Err(wrong(format!("the command is a table of words, got {}", type_name(arguments))));
    };
    let mut command = LocalCommand::default();
    let mut ok = vec![0];
    let mut words = lua.create_table().map_err(|error| wrong(error.to_string()))?;
    let mut names = Map::new();
    for pair in table.pairs::<LuaValue, LuaValue>() {
        let (key, value) = pair.map_err(|error| wrong(error.to_string()))?;
        match &key {
            LuaValue::String(name) => {
                let name = name.to_string_lossy();
                if name == "stdin" {
                    match &value {
                        LuaValue::String(text) => command.stdin = Some(text.as_bytes().to_vec()),
                        value if secret_of(value).is_some() => command.stdin = Some(revealed(value).into_bytes()),
                        other => return Err(wrong(format!("`stdin` takes a string, got {}", type_name(other)))),
                    }
                    continue;
                }
                let value = to_value(lua, &name, &value).map_err(|problem| wrong(problem.message))?;
                names.insert(name, value);
            }
            _ if secret_of(&value).is_some() => {
                return Err(Diagnostic::misuse(
                    "local_command: a word is a secret, which the list of processes would show to everyone on this machine",
                )
                .hint("give it on the input, stdin = secret, or in the environment, env = { NAME = secret }"));
            }
            _ => words.raw_set(key, value).map_err(|error| wrong(error.to_string()))?,
        }
    }
    let list =
        to_value(lua, "words", &LuaValue::Table(std::mem::replace(&mut words, table.clone()))).map_err(|problem| wrong(problem.message))?;
    for word in list.as_array().into_iter().flatten() {
        command.argv.push(match word {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(wrong(format!("a word is a string or a number, got {other}"))),
        });
    }
    if command.argv.is_empty() {
        return Err(wrong("the command has no words".to_owned()));
    }
    for (name, value) in names {
        match (name.as_str(), value) {
            ("chdir", Value::String(path)) => command.chdir = Some(normalise(&PathBuf::from(path))),
            ("env", Value::Object(map)) => command.env = environment_of(&map).map_err(wrong)?,
            ("env", Value::Array(items)) if items.is_empty() => {}
            ("ok", Value::Array(codes)) if codes.iter().all(Value::is_i64) => {
                ok = codes.iter().filter_map(Value::as_i64).filter_map(|code| i32::try_from(code).ok()).collect();
            }
            ("ok", Value::Number(code)) => ok = code.as_i64().and_then(|code| i32::try_from(code).ok()).into_iter().collect(),
            ("chdir", _) => return Err(wrong("`chdir` takes a path".to_owned())),
            ("env", _) => return Err(wrong("`env` takes a table of names and values".to_owned())),
            ("ok", _) => return Err(wrong("`ok` takes a list of exit codes".to_owned())),
            (other, _) => {
                let hint = infra_core::diagnostic::did_you_mean(other, ["stdin", "chdir", "env", "ok"]);
                return Err(wrong(format!("there is no argument `{other}`")).maybe_hint(hint));
            }
        }
    }
    Ok((command, ok))
}
