//! Operations inside the body of `call`, which run at once.
//!
//! The function of an operation is written in Rust, so that its caller stays in the chain of calls, and such a function cannot wait. So it notes
//! what is to be run and has the hook look at the next instruction: there the body stops until the operation has ended. What the operation gave
//! back is filled in before any instruction can read it.

use std::sync::{Arc, Mutex};

use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::global_arguments::GlobalArguments;
use infra_core::late::CallResult;
use infra_core::script::OperationCall;
use mlua::{Function, HookTriggers, Lua, Table, Value as LuaValue, VmState};

use crate::errors::raise;
use crate::evaluation::{Evaluation, State};

/// How many instructions of Lua run between two looks at the clock.
const HOOK_EVERY: u32 = 10_000;

/// What came of an operation that ran in a body; none until it did.
pub(crate) type Slot = Arc<Mutex<Option<Arc<CallResult>>>>;

/// An operation of a body that has not been run yet.
pub(crate) struct Pending {
    pub work: Work,
    pub slot: Slot,
    /// The address of the coroutine that called it: that one stops, not the one that resumed it, which would take its stop for its end.
    pub coroutine: usize,
}

impl Pending {
    /// Whether the coroutine that called it has to stop for it.
    pub fn waits(&self) -> bool {
        matches!(self.work, Work::Ready(_) | Work::Functions(_))
    }
}

/// What is still to be done for it.
pub(crate) enum Work {
    /// Functions among its arguments are to be called.
    Functions(Unread),
    /// The functions of its arguments are being called.
    Calling,
    /// It is to be run.
    Ready(Box<OperationCall>),
    /// It runs.
    Asked,
}

/// The arguments of an operation, functions among them.
pub(crate) struct Unread {
    pub kind: String,
    pub chain: Vec<Location>,
    pub values: Vec<(String, LuaValue)>,
    /// Where the functions are that were not called yet, the next one last.
    pub places: Vec<FunctionPlace>,
}

/// Where a function stands among the arguments.
pub(crate) struct FunctionPlace {
    /// The argument, by its place.
    pub argument: usize,
    /// The place in the list that it is.
    pub item: Option<(Table, usize)>,
    pub function: Function,
}

impl Unread {
    /// The arguments of an operation, where functions are among them; the arguments back where none is.
    pub fn of(
        lua: &Lua,
        kind: &str,
        chain: &[Location],
        mut values: Vec<(String, LuaValue)>,
        takes_conditions: impl Fn(&str) -> bool,
    ) -> mlua::Result<Result<Self, Vec<(String, LuaValue)>>> {
        let mut places = Vec::new();
        for (argument, (name, value)) in values.iter_mut().enumerate() {
            match value {
                // Those that every operation takes and that are no condition refuse functions by themselves.
                LuaValue::Function(_) if name == "name" || (name.starts_with('_') && name != "_if") => {}
                LuaValue::Function(function) => places.push(FunctionPlace { argument, item: None, function: function.clone() }),
                LuaValue::Table(list) if takes_conditions(name) => {
                    let copy = lua.create_table()?;
                    for item in 1..=list.raw_len() {
                        let one: LuaValue = list.raw_get(item)?;
                        if let LuaValue::Function(function) = &one {
                            places.push(FunctionPlace { argument, item: Some((copy.clone(), item)), function: function.clone() });
                        }
                        copy.raw_set(item, one)?;
                    }
                    if places.last().is_some_and(|place| place.argument == argument) {
                        *list = copy;
                    }
                }
                _ => {}
            }
        }
        if places.is_empty() {
            return Ok(Err(values));
        }
        places.reverse();
        Ok(Ok(Self { kind: kind.to_owned(), chain: chain.to_vec(), values, places }))
    }

    /// Puts what a function gave in its place.
    pub fn put(&mut self, place: &FunctionPlace, value: LuaValue) -> mlua::Result<()> {
        match &place.item {
            Some((list, item)) => list.raw_set(*item, value),
            None => {
                self.values[place.argument].1 = value;
                Ok(())
            }
        }
    }

    /// Whether the function gives a condition, which is true or false.
    pub fn is_condition(&self, place: &FunctionPlace) -> bool {
        place.item.is_some() || self.values[place.argument].0 == "_if"
    }

    /// What the function was given to.
    pub fn what(&self, place: &FunctionPlace) -> String {
        format!("`{}` of {}", self.values[place.argument].0, self.kind)
    }
}

/// What an operation comes to that its conditions leave out.
pub(crate) fn skipped() -> Arc<CallResult> {
    Arc::new(CallResult { succeeded: true, changed_anywhere: Some(false), ..CallResult::default() })
}

/// Notes an operation that is to be run before the body goes on.
pub(crate) fn pend(lua: &Lua, evaluation: &Arc<Evaluation>, work: Work) -> mlua::Result<Slot> {
    let slot = Slot::default();
    {
        let coroutine = lua.current_thread().to_pointer() as usize;
        evaluation.state().pending = Some(Pending { work, slot: slot.clone(), coroutine });
    }
    watch(lua, evaluation, 1)?;
    Ok(slot)
}

/// Has the hook look at each so many instructions of the coroutine that runs, and of those that are made from here on.
pub(crate) fn watch(lua: &Lua, evaluation: &Arc<Evaluation>, every: u32) -> mlua::Result<()> {
    let of = evaluation.clone();
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(every), move |lua, _| {
        let clock = &of.clock;
        if clock.is_over() {
            let seconds = clock.limit().as_secs_f64();
            let over = Diagnostic::runtime(format!("the script ran for more than {seconds} s")).hint("look for a loop that does not end");
            let over = of.at_line(lua, over);
            return Err(raise(over));
        }
        let waits = of.state().pending.as_ref().filter(|pending| pending.waits()).map(|pending| pending.coroutine);
        match waits {
            // Where nothing can wait this goes on, until something can.
            Some(coroutine) if coroutine == lua.current_thread().to_pointer() as usize => return Ok(VmState::Yield),
            Some(_) => {}
            None => watch(lua, &of, HOOK_EVERY)?,
        }
        Ok(VmState::Continue)
    })
}

/// Has the hook look at the clock.
pub(crate) fn watch_clock(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<()> {
    watch(lua, evaluation, HOOK_EVERY)
}

/// Checks that an operation may run where the script is in execute.
///
/// # Errors
/// A misuse: an operation in a function that is no body of `call`, and where nothing can wait.
pub(crate) fn check_place(state: &State, kind: &str) -> Result<(), Diagnostic> {
    let Some(running) = &state.running else { return Ok(()) };
    let in_argument = match &state.pending {
        Some(Pending { work: Work::Calling, .. }) => true,
        Some(_) => {
            let message = format!("`{kind}` cannot wait here, inside a function that Lua itself calls (table.sort, gsub, __tostring)");
            return Err(Diagnostic::misuse(message).hint("call operations one after the other"));
        }
        None => false,
    };
    if in_argument || !running.is_body() {
        let what = if in_argument { "an argument" } else { &running.left.what };
        return Err(Diagnostic::misuse(format!("`{kind}` stands inside the function of {what}, which only finds a value"))
            .hint("operations run in execute inside call(function() … end)"));
    }
    Ok(())
}

/// Checks that an operation of a body has no strategy of its own: the body runs on one host.
///
/// # Errors
/// A misuse.
pub(crate) fn check_globals(kind: &str, globals: &GlobalArguments) -> Result<(), Diagnostic> {
    let given = [
        ("_serial", globals.batch().is_some()),
        ("_parallel", globals.parallel.is_some()),
        ("_run_once", globals.run_once == Some(true)),
        ("_max_fail", globals.max_fail.is_some()),
        ("_background", globals.background == Some(true)),
    ];
    let stray = given.into_iter().find(|(_, is_given)| *is_given).and_then(|(name, _)| stray_argument(name));
    stray.map_or(Ok(()), |(message, hint)| Err(Diagnostic::misuse(format!("{kind}: {message}")).hint(hint)))
}

/// Why an argument does not stand inside `call`, and what to do; none where it does.
pub(crate) fn stray_argument(name: &str) -> Option<(String, String)> {
    match name {
        "_serial" | "_parallel" | "_run_once" | "_max_fail" | "_background" => Some((
            format!("`{name}` stands inside `call`, whose operations run at once on one host"),
            format!("give it to `call` itself: call({{ {name} = … }}, function() … end)"),
        )),
        "_retry_until" => Some((
            "`_retry_until` stands inside `call`, whose operations run at once".to_owned(),
            "call the operation in a loop, or give `_retries` to it".to_owned(),
        )),
        _ => None,
    }
}

/// Why a block does not stand inside `call`, and what to do.
pub(crate) fn stray_block(kind: &str) -> (String, String) {
    if kind == "call" {
        return ("`call` stands inside `call`".to_owned(), "what is inside runs at once anyway: leave it out".to_owned());
    }
    let message = format!("`{kind}` stands inside `call`, whose operations run at once on one host");
    (message, format!("turn them around: `call` may stand inside `{kind}`"))
}
