//! A Lua state for one evaluation: what is in it, what is not, its limits, and how it is driven.

use std::sync::Arc;

use infra_core::diagnostic::Diagnostic;
use mlua::chunk::ChunkMode;
use mlua::thread::ThreadStatus;
use mlua::{Function, HookTriggers, LightUserData, Lua, LuaOptions, MultiValue, StdLib, Table, Thread, Value as LuaValue, VmState};

use crate::errors::{diagnose, diagnose_message, raise};
use crate::evaluation::Evaluation;
use crate::globals;
use crate::pool::Clock;
use crate::requests::{Reply, Request};
use crate::source::Source;
use crate::{blocks, requests, text_functions};

/// How many instructions of Lua run between two looks at the clock.
const HOOK_EVERY: u32 = 10_000;

/// Its address marks what the prelude yields: no script can make it.
static REQUEST_MARK: u8 = 0;

fn request_mark() -> LightUserData {
    LightUserData(std::ptr::from_ref(&REQUEST_MARK).cast_mut().cast())
}

/// What a script needs to go on.
pub(crate) enum Need {
    Request(Request),
    Done,
    Failed(Box<Diagnostic>),
}

/// A script in its Lua state.
pub(crate) struct Machine {
    // The thread is a part of the state, which is dropped after it.
    thread: Thread,
    lua: Lua,
    evaluation: Arc<Evaluation>,
    started: bool,
}

/// The function of a Lua file in this state.
pub(crate) fn load(lua: &Lua, source: &Source, environment: &Table) -> mlua::Result<Function> {
    let chunk = lua.load(source.bytecode.as_slice()).set_name(format!("@{}", source.name));
    chunk.set_mode(ChunkMode::Binary).set_environment(environment.clone()).into_function()
}

impl Machine {
    /// A state in which the files of the evaluation's house are about to run.
    pub fn new(evaluation: &Arc<Evaluation>, clock: &Arc<Clock>) -> Result<Self, Box<Diagnostic>> {
        build(evaluation, clock)
            .map_err(|error| Box::new(Diagnostic::runtime(format!("the state of the script could not be made: {error}"))))
    }

    /// Runs on until the script needs something or ends.
    pub fn step(&mut self, reply: Option<Reply>) -> Need {
        self.evaluation.state().reply = reply;
        let result: mlua::Result<MultiValue> = if self.started {
            self.thread.resume(())
        } else {
            self.started = true;
            self.thread.resume(self.evaluation.house.files.len())
        };
        if let Some(misuse) = self.evaluation.state().misuse.clone() {
            return Need::Failed(misuse);
        }
        let sources = &self.evaluation.house.sources;
        let values = match result {
            Ok(values) => values,
            Err(error) => return Need::Failed(diagnose(&error, sources, Vec::new())),
        };
        if self.thread.status() == ThreadStatus::Resumable {
            let is_request = matches!(values.front(), Some(LuaValue::LightUserData(mark)) if *mark == request_mark());
            return match self.evaluation.take_request() {
                Some(request) if is_request => Need::Request(request),
                // An empty list of questions is answered at once.
                None if is_request => self.step(Some(Reply::Answers(Vec::new()))),
                _ => Need::Failed(Box::new(Diagnostic::runtime("coroutine.yield stands outside of a coroutine"))),
            };
        }
        match values.front() {
            Some(LuaValue::Boolean(true)) => self.end(),
            _ => {
                let kept = self.evaluation.state().failure.take();
                Need::Failed(kept.unwrap_or_else(|| match values.get(1) {
                    Some(LuaValue::Error(error)) => diagnose(error, sources, Vec::new()),
                    Some(LuaValue::String(text)) => diagnose_message(&text.to_string_lossy(), sources, Vec::new()),
                    _ => Box::new(Diagnostic::runtime("the script failed without a message")),
                }))
            }
        }
    }

    /// The script came to its end: a condition that was read and never used is misuse.
    fn end(&self) -> Need {
        let unused = {
            let state = self.evaluation.state();
            state.readings.iter().find(|reading| !reading.used).map(|reading| (reading.name, reading.chain.clone()))
        };
        let Some((name, chain)) = unused else { return Need::Done };
        let (shown, spelling) = match name {
            "|" | "&" => (format!("a {name} b"), format!("a.did_change {name} b.did_change")),
            "~" => ("~a".to_owned(), "~handle.did_change".to_owned()),
            name if name.starts_with("did_") => (name.to_owned(), format!("handle.{name}")),
            name => (name.to_owned(), format!("{name}(…)")),
        };
        let wrong = Diagnostic::misuse(format!("the condition `{shown}` is read and never used"))
            .hint(format!("give it to `_if` or to a boolean argument where it is read: _if = {spelling}"));
        Need::Failed(Box::new(self.evaluation.at_chain(chain, wrong)))
    }

    /// The state itself, for what is read off it after its end.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }
}

fn build(evaluation: &Arc<Evaluation>, clock: &Arc<Clock>) -> mlua::Result<Machine> {
    let libraries = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::UTF8 | StdLib::MATH | StdLib::OS | StdLib::IO;
    let lua = Lua::new_with(libraries, LuaOptions::new())?;
    let rust = lua.create_table()?;
    let globals = globals::standard(&lua, evaluation)?;
    let environment = globals::environment(&lua, evaluation, &globals)?;
    text_functions::add_to(&lua, evaluation, &globals)?;
    requests::add_to(&lua, evaluation, &rust)?;
    blocks::add_to(&lua, evaluation, &rust, &environment)?;
    add_running(&lua, evaluation, &rust, &environment)?;
    globals::add_methods(&lua, evaluation, &rust)?;
    let prelude = lua.load(include_str!("prelude.lua")).set_name("=prelude").into_function()?;
    let (run, methods, pairs): (Function, Table, Function) = prelude.call((rust, globals.clone(), environment, request_mark()))?;
    lua.set_named_registry_value(crate::host_object::HOST_METHODS, methods)?;
    lua.set_named_registry_value(crate::host_object::SORTED_PAIRS, pairs)?;
    globals::finish(&lua, evaluation, &globals)?;
    lua.set_named_registry_value(crate::inventory_file::GLOBALS, globals)?;
    lua.set_memory_limit(evaluation.house.limits.memory)?;
    let clock = clock.clone();
    let of = evaluation.clone();
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(HOOK_EVERY), move |lua, _| {
        if clock.is_over() {
            let seconds = clock.limit().as_secs_f64();
            let over = Diagnostic::runtime(format!("the script ran for more than {seconds} s")).hint("look for a loop that does not end");
            let over = of.at_line(lua, over);
            return Err(raise(over));
        }
        Ok(VmState::Continue)
    })?;
    let thread = lua.create_thread(run)?;
    Ok(Machine { thread, lua, evaluation: evaluation.clone(), started: false })
}

/// Adds what the prelude needs to run the files, and the script's own coroutines.
fn add_running(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table, environment: &Table) -> mlua::Result<()> {
    let (of, env) = (evaluation.clone(), environment.clone());
    let start = lua.create_function(move |lua, at: usize| {
        let source = of.house.files[at - 1].clone();
        let mut state = of.state();
        state.deploy = u32::try_from(at - 1).unwrap_or(u32::MAX);
        state.deploy_folder = source.folder().to_owned();
        state.config.clear();
        state.config.push(infra_core::global_arguments::GlobalArguments::default());
        drop(state);
        Ok((load(lua, &source, &env)?, 0))
    })?;
    rust.set("start_file", start)?;
    let of = evaluation.clone();
    let end = lua.create_function(move |lua, (at, value): (usize, LuaValue)| globals::end_file(lua, &of, at, &value))?;
    rust.set("end_file", end)?;
    let of = evaluation.clone();
    let on_error = lua.create_function(move |lua, error: LuaValue| {
        let chain = of.chain(lua);
        let sources = &of.house.sources;
        let diagnostic = match &error {
            LuaValue::Error(error) => diagnose(error, sources, chain),
            LuaValue::String(text) => diagnose_message(&text.to_string_lossy(), sources, chain),
            other => {
                let text = match other {
                    LuaValue::Table(table) => table.raw_get::<Option<String>>("message").ok().flatten(),
                    _ => None,
                };
                let shown = text.unwrap_or_else(|| format!("the script raised {} as its error", crate::convert::type_name(other)));
                diagnose_message(&shown, sources, chain)
            }
        };
        of.state().failure = Some(diagnostic);
        Ok(LuaValue::Nil)
    })?;
    rust.set("on_error", on_error)?;
    let of = evaluation.clone();
    let error_text = lua.create_function(move |lua, error: LuaValue| match &error {
        LuaValue::Error(error) => Ok(LuaValue::String(lua.create_string(diagnose(error, &of.house.sources, Vec::new()).to_string())?)),
        _ => Ok(error),
    })?;
    rust.set("error_text", error_text)?;
    let of = evaluation.clone();
    let enter = lua.create_function(move |lua, ()| {
        let chain = of.chain(lua);
        let mut state = of.state();
        state.resumers.push(chain);
        Ok(state.resumers.len() - 1)
    })?;
    rust.set("enter_coroutine", enter)?;
    let of = evaluation.clone();
    let leave = lua.create_function(move |_, depth: usize| {
        of.state().resumers.truncate(depth);
        Ok(())
    })?;
    rust.set("leave_coroutine", leave)
}
