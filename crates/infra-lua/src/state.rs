//! A Lua state for one evaluation: what is in it, what is not, its limits, and how it is driven.

use std::sync::Arc;

use infra_core::diagnostic::{Diagnostic, Fault, Location};
use infra_core::late::{CallResult, FunctionId, Purpose, Results};
use mlua::chunk::ChunkMode;
use mlua::thread::ThreadStatus;
use mlua::{Function, LightUserData, Lua, LuaOptions, MultiValue, StdLib, Table, Thread, Value as LuaValue};

use crate::conditions::{Handle, Of};
use crate::errors::{Raised, diagnose, diagnose_message};
use crate::evaluation::{Evaluation, Reading};
use crate::globals;
use crate::late::{FUNCTIONS, Running, returned, truth};
use crate::operations::register_read;
use crate::performing::{FunctionPlace, Pending, Slot, Unread, Work, skipped, watch_clock};
use crate::requests::{Reply, Request};
use crate::source::Source;
use crate::{blocks, conditions, requests, secrets, text_functions};

/// Its address marks what the prelude yields: no script can make it.
static REQUEST_MARK: u8 = 0;

fn request_mark() -> LightUserData {
    LightUserData(std::ptr::from_ref(&REQUEST_MARK).cast_mut().cast())
}

/// What a script needs to go on.
pub(crate) enum Need {
    Request(Request),
    /// The script came to its end.
    Done,
    /// A function that it left behind gave this.
    Returned(infra_core::Value),
    Failed(Box<Diagnostic>),
}

/// A script in its Lua state.
pub(crate) struct Machine {
    // The threads and functions are a part of the state, which is dropped after them.
    thread: Thread,
    /// What the thread is started with.
    arguments: Option<MultiValue>,
    /// The body that waits while a function among the arguments of one of its operations is called.
    body: Option<(Thread, Option<MultiValue>)>,
    /// The arguments of that operation, and the place of the function that is called.
    unread: Option<(Unread, FunctionPlace)>,
    /// What the thread gave at its end, when an operation is still to be run.
    last: Option<MultiValue>,
    /// The prelude's way to call a function that was left behind.
    late: Function,
    lua: Lua,
    evaluation: Arc<Evaluation>,
}

/// The function of a Lua file in this state.
pub(crate) fn load(lua: &Lua, source: &Source, environment: &Table) -> mlua::Result<Function> {
    let chunk = lua.load(source.bytecode.as_slice()).set_name(format!("@{}", source.name));
    chunk.set_mode(ChunkMode::Binary).set_environment(environment.clone()).into_function()
}

impl Machine {
    /// A state in which the files of the evaluation's house are about to run.
    pub fn new(evaluation: &Arc<Evaluation>) -> Result<Self, Box<Diagnostic>> {
        build(evaluation).map_err(|error| Box::new(Diagnostic::runtime(format!("the state of the script could not be made: {error}"))))
    }

    /// Starts a function that the script left behind, as it stood where it was given.
    ///
    /// # Errors
    /// When there is no such function, or no memory for a thread.
    pub fn begin(&mut self, function: FunctionId, purpose: Purpose, results: Arc<Results>) -> Result<(), Box<Diagnostic>> {
        let left = self.evaluation.state().left_behind.get(function as usize).cloned();
        let left = left.ok_or_else(|| Box::new(Diagnostic::runtime(format!("the script left no function {function} behind"))))?;
        let until = match &purpose {
            Purpose::Until(result) => Some(result.clone()),
            _ => None,
        };
        {
            let mut state = self.evaluation.state();
            let around = left.around.clone();
            state.blocks.clone_from(&around.blocks);
            state.config.clone_from(&around.config);
            state.deploy = around.deploy;
            state.deploy_folder.clone_from(&around.deploy_folder);
            state.resumers = vec![around.chain.clone()];
            (state.once, state.open_files) = (0, 0);
            (state.misuse, state.failure) = (None, None);
            (state.request, state.reply, state.pending) = (None, None, None);
            state.asked.clear();
            state.running = Some(Running { left, purpose, results, performed: 0 });
        }
        (self.body, self.unread, self.last) = (None, None, None);
        let started = self.function(function).and_then(|function| {
            let mut arguments = vec![LuaValue::Function(function)];
            if let Some(result) = until {
                let of = Of::Now(Slot::new(std::sync::Mutex::new(Some(result))));
                let handle = Handle { of, kind: "the operation".to_owned(), evaluation: self.evaluation.clone() };
                arguments.push(LuaValue::UserData(self.lua.create_userdata(handle)?));
            }
            self.start(arguments)
        });
        started.map_err(|error| diagnose(&error, &self.evaluation.house.sources, Vec::new()))
    }

    fn function(&self, id: FunctionId) -> mlua::Result<Function> {
        self.lua.named_registry_value::<Table>(FUNCTIONS)?.raw_get(id + 1)
    }

    fn start(&mut self, arguments: Vec<LuaValue>) -> mlua::Result<()> {
        self.thread = self.lua.create_thread(self.late.clone())?;
        self.arguments = Some(MultiValue::from_vec(arguments));
        Ok(())
    }

    /// Runs on until the script needs something or ends.
    pub fn step(&mut self, reply: Option<Reply>) -> Need {
        match reply {
            Some(Reply::Ended(result)) => self.fill(result),
            reply => self.evaluation.state().reply = reply,
        }
        loop {
            let result = match self.last.take() {
                Some(values) => Ok(values),
                None => self.thread.resume(self.arguments.take().unwrap_or_default()),
            };
            if let Some(misuse) = self.evaluation.state().misuse.clone() {
                return Need::Failed(misuse);
            }
            let need = match result {
                Ok(values) => self.stopped(values),
                Err(error) => Some(Need::Failed(diagnose(&error, &self.evaluation.house.sources, Vec::new()))),
            };
            if let Some(need) = need {
                return need;
            }
        }
    }

    /// What is needed where the thread stopped or ended with these values; nothing where it can go on.
    fn stopped(&mut self, values: MultiValue) -> Option<Need> {
        let is_over = self.thread.status() != ThreadStatus::Resumable;
        if is_over && self.body.is_some() {
            return self.put(&values);
        }
        let work = {
            let mut state = self.evaluation.state();
            match state.pending.as_mut().map(|pending| &mut pending.work) {
                Some(work @ Work::Ready(_)) => Some(std::mem::replace(work, Work::Asked)),
                Some(work @ Work::Functions(_)) => Some(std::mem::replace(work, Work::Calling)),
                _ => None,
            }
        };
        if work.is_some() {
            self.last = is_over.then(|| values.clone());
        }
        match work {
            Some(Work::Ready(call)) => return Some(Need::Request(Request::Perform(call))),
            Some(Work::Functions(unread)) => {
                self.body = Some((self.thread.clone(), self.last.take()));
                return self.call_next(unread);
            }
            _ => {}
        }
        if is_over {
            return Some(self.over(&values));
        }
        let is_request = matches!(values.front(), Some(LuaValue::LightUserData(mark)) if *mark == request_mark());
        match self.evaluation.take_request() {
            Some(request) if is_request => Some(Need::Request(request)),
            // An empty list of questions is answered at once.
            None if is_request => {
                self.evaluation.state().reply = Some(Reply::Answers(Vec::new()));
                None
            }
            _ => Some(Need::Failed(Box::new(Diagnostic::runtime("coroutine.yield stands outside of a coroutine")))),
        }
    }

    /// Fills in what came of the operation that was to be run.
    fn fill(&self, result: Arc<CallResult>) {
        if let Some(pending) = self.evaluation.state().pending.take() {
            *pending.slot.lock().expect("no one panics while holding it") = Some(result);
        }
    }

    /// Puts what a function among the arguments of an operation gave in its place.
    fn put(&mut self, values: &MultiValue) -> Option<Need> {
        let (mut unread, place) = self.unread.take()?;
        if !matches!(values.front(), Some(LuaValue::Boolean(true))) {
            return Some(self.failed(values));
        }
        let mut value = values.get(1).cloned().unwrap_or(LuaValue::Nil);
        if unread.is_condition(&place) {
            match truth(&self.evaluation, &unread.what(&place), values.len() - 1, &value) {
                Ok(holds) => value = LuaValue::Boolean(holds),
                Err(wrong) => return Some(Need::Failed(Box::new(self.evaluation.at_chain(unread.chain, wrong)))),
            }
        }
        match unread.put(&place, value) {
            Ok(()) => self.call_next(unread),
            Err(error) => Some(Need::Failed(diagnose(&error, &self.evaluation.house.sources, Vec::new()))),
        }
    }

    /// Calls the next function among the arguments of an operation; has the operation run where none is left.
    fn call_next(&mut self, mut unread: Unread) -> Option<Need> {
        if let Some(place) = unread.places.pop() {
            let function = LuaValue::Function(place.function.clone());
            self.unread = Some((unread, place));
            let started = self.start(vec![function]);
            return started.err().map(|error| Need::Failed(diagnose(&error, &self.evaluation.house.sources, Vec::new())));
        }
        let (thread, last) = self.body.take()?;
        (self.thread, self.last) = (thread, last);
        match register_read(&self.lua, &self.evaluation, unread) {
            Err(wrong) => Some(Need::Failed(Box::new(wrong))),
            Ok(None) => {
                self.fill(skipped());
                None
            }
            Ok(Some(call)) => {
                if let Some(pending) = &mut self.evaluation.state().pending {
                    pending.work = Work::Asked;
                }
                Some(Need::Request(Request::Perform(Box::new(call))))
            }
        }
    }

    /// What the end of the thread means.
    fn over(&self, values: &MultiValue) -> Need {
        if !matches!(values.front(), Some(LuaValue::Boolean(true))) {
            return self.failed(values);
        }
        if self.evaluation.state().running.is_none() {
            return self.end();
        }
        let given: MultiValue = values.iter().skip(1).cloned().collect();
        match returned(&self.lua, &self.evaluation, &given) {
            Ok(value) => Need::Returned(value),
            Err(wrong) => Need::Failed(Box::new(wrong)),
        }
    }

    fn failed(&self, values: &MultiValue) -> Need {
        let kept = self.evaluation.state().failure.take();
        let sources = &self.evaluation.house.sources;
        Need::Failed(kept.unwrap_or_else(|| match values.get(1) {
            Some(LuaValue::Error(error)) => diagnose(error, sources, Vec::new()),
            Some(LuaValue::String(text)) => diagnose_message(&text.to_string_lossy(), sources, Vec::new()),
            _ => Box::new(Diagnostic::runtime("the script failed without a message")),
        }))
    }

    /// The script came to its end: a condition that was read and never used is misuse.
    fn end(&self) -> Need {
        let mut unused = self.unused(|_| true);
        if unused.is_some() && !self.evaluation.state().left_behind.is_empty() {
            // What a function can still reach may be used by it. Twice, because the first round only calls the finalizers of some.
            let collected = self.lua.gc_collect().and_then(|()| self.lua.gc_collect());
            unused = if collected.is_ok() { self.unused(|reading| reading.alive.strong_count() == 0) } else { None };
        }
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

    /// The first condition of these that was never used.
    fn unused(&self, of: impl Fn(&Reading) -> bool) -> Option<(&'static str, Vec<Location>)> {
        let state = self.evaluation.state();
        state.readings.iter().find(|reading| !reading.used && of(reading)).map(|reading| (reading.name, reading.chain.clone()))
    }

    /// The state itself, for what is read off it after its end.
    pub fn lua(&self) -> &Lua {
        &self.lua
    }
}

fn build(evaluation: &Arc<Evaluation>) -> mlua::Result<Machine> {
    let libraries = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::UTF8 | StdLib::MATH | StdLib::OS | StdLib::IO;
    let lua = Lua::new_with(libraries, LuaOptions::new())?;
    let rust = lua.create_table()?;
    let globals = globals::standard(&lua, evaluation)?;
    let environment = globals::environment(&lua, evaluation, &globals)?;
    text_functions::add_to(&lua, evaluation, &globals)?;
    requests::add_to(&lua, evaluation, &rust)?;
    secrets::add_to(&lua, evaluation, &rust, &globals)?;
    blocks::add_to(&lua, evaluation, &rust, &environment)?;
    conditions::add_to(&lua, evaluation, &rust)?;
    let of = evaluation.clone();
    rust.set("is_pending", lua.create_function(move |_, ()| Ok(of.state().pending.as_ref().is_some_and(Pending::waits)))?)?;
    add_running(&lua, evaluation, &rust, &environment)?;
    globals::add_methods(&lua, evaluation, &rust)?;
    let prelude = lua.load(include_str!("prelude.lua")).set_name("=prelude").into_function()?;
    let (run, methods, pairs, handle_index, late): (Function, Table, Function, Function, Function) =
        prelude.call((rust, globals.clone(), environment, request_mark()))?;
    lua.set_named_registry_value(crate::conditions::HANDLE_INDEX, handle_index)?;
    lua.set_named_registry_value(crate::host_object::HOST_METHODS, methods)?;
    lua.set_named_registry_value(crate::host_object::SORTED_PAIRS, pairs)?;
    globals::finish(&lua, evaluation, &globals)?;
    lua.set_named_registry_value(crate::inventory_file::GLOBALS, globals)?;
    lua.set_memory_limit(evaluation.house.limits.memory)?;
    watch_clock(&lua, evaluation)?;
    let thread = lua.create_thread(run)?;
    let files = i64::try_from(evaluation.house.files.len()).unwrap_or(i64::MAX);
    let arguments = Some(MultiValue::from_vec(vec![LuaValue::Integer(files)]));
    Ok(Machine { thread, arguments, body: None, unread: None, last: None, late, lua, evaluation: evaluation.clone() })
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
        // What `fail` says no `pcall` takes back.
        LuaValue::Error(error) if error.downcast_ref::<Raised>().is_some_and(|raised| raised.0.fault == Fault::Host) => {
            Err(error.as_ref().clone())
        }
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
