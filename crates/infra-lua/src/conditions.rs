//! Handles of operations and the conditions that are read off them.

use std::sync::Arc;

use infra_core::condition::{CallIndex, Condition, Did};
use infra_core::diagnostic::{Diagnostic, did_you_mean};
use infra_core::late::CallResult;
use mlua::{AnyUserData, Function, Lua, MetaMethod, MultiValue, Table, UserData, UserDataFields, UserDataMethods, Value as LuaValue};

use crate::convert::{to_lua, type_name};
use crate::evaluation::{Evaluation, Reading};
use crate::late::{decide, leave_behind, result_of};
use crate::performing::Slot;
use crate::requests::Request;

/// The conditions of a handle by name.
pub(crate) const CONDITIONS: [(&str, Did); 4] =
    [("did_change", Did::Change), ("did_not_change", Did::NotChange), ("did_succeed", Did::Succeed), ("did_error", Did::Error)];

/// What else a handle has, once the operation has run.
const RESULTS: [&str; 3] = ["stdout", "stderr", "exit_code"];

/// Where the function that reads a handle is kept in a Lua state. It is Lua, because `will_change` waits for the plan.
pub(crate) const HANDLE_INDEX: &str = "infra.handle_index";

/// Which operation a handle is of.
#[derive(Clone)]
pub(crate) enum Of {
    /// One of the plan.
    Call(CallIndex),
    /// One that ran at once, inside `call`.
    Now(Slot),
}

/// What an operation gives back.
pub(crate) struct Handle {
    pub of: Of,
    pub kind: String,
    pub evaluation: Arc<Evaluation>,
}

/// A condition that was read off a handle or made of several.
pub(crate) struct ReadCondition {
    pub condition: Condition,
    /// Its place among the readings of the script.
    pub reading: usize,
    pub evaluation: Arc<Evaluation>,
    /// For as long as something can reach it.
    _alive: Arc<()>,
}

impl Handle {
    /// One of its conditions.
    fn condition(&self, did: Did) -> Result<Condition, Diagnostic> {
        match &self.of {
            Of::Call(call) => Ok(Condition::Outcome(*call, did)),
            Of::Now(_) => {
                let result = self.result()?;
                Ok(Condition::Always(match did {
                    Did::Change => result.changed,
                    Did::NotChange => result.succeeded && !result.changed,
                    Did::Succeed => result.succeeded,
                    Did::Error => !result.succeeded,
                }))
            }
        }
    }

    /// What the operation came to.
    fn result(&self) -> Result<Arc<CallResult>, Diagnostic> {
        match &self.of {
            Of::Call(call) => result_of(&self.evaluation, *call),
            Of::Now(slot) => slot.lock().expect("no one panics while holding it").clone().ok_or_else(|| {
                let message =
                    format!("{} cannot run here, inside a function that Lua itself calls (table.sort, gsub, __tostring)", self.kind);
                Diagnostic::misuse(message).hint("call it before, and keep its result in a local")
            }),
        }
    }

    /// Whether results are there: in execute.
    fn has_ended(&self) -> bool {
        matches!(self.of, Of::Now(_)) || self.evaluation.state().running.is_some()
    }

    fn read(&self, lua: &Lua, key: &LuaValue) -> mlua::Result<LuaValue> {
        let key = match key {
            LuaValue::String(text) => text.to_string_lossy(),
            other => format!("[{}]", type_name(other)),
        };
        let evaluation = &self.evaluation;
        let raise = |wrong: Diagnostic| evaluation.raise(lua, wrong);
        if let Some((name, did)) = CONDITIONS.iter().find(|(name, _)| *name == key) {
            return new_condition(lua, evaluation, name, self.condition(*did).map_err(raise)?);
        }
        if RESULTS.contains(&key.as_str()) && !self.has_ended() {
            let message = format!("`{key}` of {} is there only after the operation ran, and the script runs before it", self.kind);
            let hint = "two ways out: a function that is called when the turn comes, as an argument or as _if = function() … end; or Lua that runs \
                        there, call(function() … end)";
            return Err(evaluation.misuse_with(lua, message, hint));
        }
        let text = |text: &str| Ok(LuaValue::String(lua.create_string(text)?));
        match key.as_str() {
            // In the plan it is asked for before; here it is what came of it.
            "will_change" => Ok(LuaValue::Boolean(self.result().map_err(raise)?.changed)),
            "stdout" => text(&self.result().map_err(raise)?.stdout),
            "stderr" => text(&self.result().map_err(raise)?.stderr),
            "exit_code" => Ok(self.result().map_err(raise)?.exit_code.map_or(LuaValue::Nil, |code| LuaValue::Integer(code.into()))),
            "stdout_lines" | "stderr_lines" => {
                let text = key.trim_end_matches("_lines");
                Err(evaluation.misuse_with(lua, format!("a handle has no `{key}`"), format!("write handle.{text}:split(\"\\n\")")))
            }
            "changed" => Err(evaluation.misuse_with(lua, "a handle has no `changed`", "did you mean `did_change`?")),
            _ => {
                let known = CONDITIONS.iter().map(|(name, _)| *name).chain(RESULTS).chain(["will_change"]);
                let hint = did_you_mean(&key, known).unwrap_or_else(|| {
                    "it has did_change, did_not_change, did_succeed, did_error, will_change, stdout, stderr and exit_code".to_owned()
                });
                Err(evaluation.misuse_with(lua, format!("the handle of an operation has no `{key}`"), hint))
            }
        }
    }
}

/// Adds what the prelude needs to read handles.
pub(crate) fn add_to(lua: &Lua, evaluation: &Arc<Evaluation>, rust: &Table) -> mlua::Result<()> {
    let read = lua.create_function(|lua, (handle, key): (AnyUserData, LuaValue)| handle.borrow::<Handle>()?.read(lua, &key))?;
    rust.set("read_handle", read)?;
    let of = evaluation.clone();
    // Whether the plan has to be asked.
    let ask = lua.create_function(move |lua, handle: AnyUserData| {
        let handle = handle.borrow::<Handle>()?;
        let Of::Call(call) = handle.of else { return Ok(false) };
        if of.state().running.is_some() {
            return Ok(false);
        }
        if of.state().once > 0 {
            let message = "`will_change` cannot be asked inside `once`, which runs for all hosts";
            return Err(of.misuse_with(lua, message, "ask it outside"));
        }
        of.set_request(Some(Request::Foresee(call)));
        Ok(true)
    })?;
    rust.set("ask_plan", ask)?;
    let of = evaluation.clone();
    let foreseen = lua.create_function(move |lua, ()| match of.take_answers().1.into_iter().next() {
        Some(Ok(value)) => to_lua(lua, &value),
        Some(Err(why)) => Err(of.fail(lua, format!("`will_change` cannot be told: {why}"))),
        None => Err(of.fail(lua, "`will_change` was not answered")),
    })?;
    rust.set("foreseen", foreseen)
}

impl UserData for Handle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        fields.add_meta_field_with(MetaMethod::Index.name(), |lua| lua.named_registry_value::<Function>(HANDLE_INDEX));
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::NewIndex, |lua, handle, _: (LuaValue, LuaValue)| -> mlua::Result<()> {
            Err(handle.evaluation.misuse(lua, "the handle of an operation cannot be assigned to"))
        });
        methods.add_meta_method(MetaMethod::ToString, |_, handle, ()| Ok(format!("handle of {}", handle.kind)));
    }
}

impl UserData for ReadCondition {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        for (method, sign) in [(MetaMethod::BOr, "|"), (MetaMethod::BAnd, "&")] {
            methods.add_meta_function(method, move |lua, (left, right): (LuaValue, LuaValue)| operate(lua, sign, &[left, right]));
        }
        // Lua gives the operand of `~` twice.
        methods.add_meta_function(MetaMethod::BNot, |lua, (operand, _): (LuaValue, LuaValue)| operate(lua, "~", &[operand]));
        let early = "it is known only when the operations have run: give it to `_if` or to a boolean argument";
        for (method, what) in [
            (MetaMethod::BXor, "takes `~` before it, not between two"),
            (MetaMethod::Index, "has nothing that could be read"),
            (MetaMethod::Call, "cannot be called"),
            (MetaMethod::Concat, "is no text"),
            (MetaMethod::Len, "has no length"),
            (MetaMethod::Lt, "cannot be compared"),
            (MetaMethod::Le, "cannot be compared"),
            (MetaMethod::Eq, "cannot be compared"),
            (MetaMethod::ToString, "is no text"),
        ] {
            methods.add_meta_function(method, move |lua, operands: MultiValue| -> mlua::Result<LuaValue> {
                Err(refuse(lua, &operands, format!("a condition {what}"), early))
            });
        }
    }
}

/// `a | b`, `a & b` and `~a`, where each is a condition or a plain boolean.
fn operate(lua: &Lua, sign: &'static str, operands: &[LuaValue]) -> mlua::Result<LuaValue> {
    let evaluation = operands.iter().find_map(|operand| Some(operand.as_userdata()?.borrow::<ReadCondition>().ok()?.evaluation.clone()));
    let evaluation = evaluation.ok_or_else(|| mlua::Error::runtime(format!("`{sign}` stands without a condition")))?;
    let mut parts = Vec::new();
    for operand in operands {
        let condition = match operand {
            LuaValue::Function(_) => condition_of(lua, &evaluation, sign, operand).map_err(|wrong| evaluation.raise(lua, wrong))?,
            LuaValue::Boolean(_) | LuaValue::UserData(_) => condition_of(lua, &evaluation, sign, operand).map_err(|mut wrong| {
                wrong.message = format!("`{sign}` combines conditions, got {}", type_name(operand));
                wrong.hint = operand.as_userdata().filter(|data| data.is::<Handle>()).map(|_| "write handle.did_change".to_owned());
                evaluation.raise(lua, wrong)
            })?,
            other => {
                let message = format!("`{sign}` combines conditions, got {}", type_name(other));
                return Err(evaluation.misuse_with(lua, message, "its sides are handle.did_change and its like, functions, true or false"));
            }
        };
        parts.push(condition);
    }
    let condition = match sign {
        "|" => Condition::Any(flat(parts, |part| if let Condition::Any(inner) = part { Ok(inner) } else { Err(part) })),
        "&" => Condition::All(flat(parts, |part| if let Condition::All(inner) = part { Ok(inner) } else { Err(part) })),
        _ => Condition::Not(Box::new(parts.swap_remove(0))),
    };
    new_condition(lua, &evaluation, sign, condition)
}

/// The parts, with those of the same kind as the whole opened.
fn flat(parts: Vec<Condition>, open: fn(Condition) -> Result<Vec<Condition>, Condition>) -> Vec<Condition> {
    parts.into_iter().flat_map(|part| open(part).unwrap_or_else(|part| vec![part])).collect()
}

/// `any_host(handle)`: the operation changed something on any of the hosts that have it; `nil` did not.
pub(crate) fn any_host(lua: &Lua, evaluation: &Arc<Evaluation>, handles: &MultiValue) -> mlua::Result<LuaValue> {
    let mut handles = handles.iter();
    let condition = match (handles.next(), handles.next()) {
        (None | Some(LuaValue::Nil), None) => Condition::Always(false),
        (Some(LuaValue::UserData(data)), None) if data.is::<Handle>() => match &data.borrow::<Handle>()?.of {
            Of::Call(call) => Condition::AnyHost(*call),
            Of::Now(_) => {
                let message = "`any_host` asks all hosts, but an operation inside `call` runs on this one";
                return Err(evaluation.misuse_with(lua, message, "ask this host: handle.did_change"));
            }
        },
        (_, Some(_)) => {
            return Err(evaluation.misuse_with(lua, "`any_host` takes one handle", "write any_host(a) | any_host(b)"));
        }
        (Some(other), None) => {
            return Err(evaluation.misuse_with(
                lua,
                format!("`any_host` takes the handle of an operation, got {}", type_name(other)),
                "write any_host(handle), where handle is what an operation gave back",
            ));
        }
    };
    new_condition(lua, evaluation, "any_host", condition)
}

fn refuse(lua: &Lua, operands: &MultiValue, message: String, hint: &str) -> mlua::Error {
    for operand in operands {
        if let LuaValue::UserData(data) = operand
            && let Ok(condition) = data.borrow::<ReadCondition>()
        {
            // The reader is told once, by this message.
            condition.evaluation.state().readings[condition.reading].used = true;
            return condition.evaluation.misuse_with(lua, message, hint);
        }
    }
    mlua::Error::runtime(message)
}

/// A condition as a value of Lua, noted as read; what it comes to, where a function asks in execute.
pub(crate) fn new_condition(lua: &Lua, evaluation: &Arc<Evaluation>, name: &'static str, condition: Condition) -> mlua::Result<LuaValue> {
    if evaluation.state().running.is_some() {
        return decide(evaluation, &condition).map(LuaValue::Boolean).map_err(|wrong| evaluation.raise(lua, wrong));
    }
    let chain = evaluation.chain(lua);
    let alive = Arc::new(());
    let reading = {
        let mut state = evaluation.state();
        state.readings.push(Reading { name, chain, used: false, alive: Arc::downgrade(&alive) });
        state.readings.len() - 1
    };
    let read = lua.create_userdata(ReadCondition { condition, reading, evaluation: evaluation.clone(), _alive: alive })?;
    Ok(LuaValue::UserData(read))
}

/// What a value says as a condition; `what` names the argument.
///
/// # Errors
/// The message and the hint of a misuse.
pub(crate) fn condition_of(lua: &Lua, evaluation: &Evaluation, what: &str, value: &LuaValue) -> Result<Condition, Diagnostic> {
    match value {
        LuaValue::Boolean(value) => Ok(Condition::Always(*value)),
        LuaValue::UserData(data) => {
            if let Ok(condition) = data.borrow::<ReadCondition>() {
                condition.evaluation.state().readings[condition.reading].used = true;
                return Ok(condition.condition.clone());
            }
            if data.is::<Handle>() {
                return Err(Diagnostic::misuse(format!("`{what}` takes a condition, got the handle of an operation"))
                    .hint(format!("write {what} = handle.did_change")));
            }
            Err(Diagnostic::misuse(format!("`{what}` takes a condition, got {}", type_name(value))))
        }
        LuaValue::Table(list) => {
            let mut all = Vec::new();
            let mut count = 0;
            for pair in list.pairs::<LuaValue, LuaValue>() {
                let Ok((_, one)) = pair else { break };
                all.push(condition_of(lua, evaluation, what, &one)?);
                count += 1;
            }
            if count != list.raw_len() {
                return Err(Diagnostic::misuse(format!("`{what}` takes a list of conditions without holes or names")));
            }
            Ok(Condition::All(all))
        }
        LuaValue::Function(_) if evaluation.state().running.is_some() => {
            Err(Diagnostic::misuse(format!("a function is given to `{what}` where it can be called at once")).hint("call it: is_new()"))
        }
        LuaValue::Function(function) => {
            let what = if ["|", "&"].contains(&what) { "a condition".to_owned() } else { format!("`{what}`") };
            leave_behind(lua, evaluation, function, what, None, None).map(Condition::Function)
        }
        other => Err(Diagnostic::misuse(format!("`{what}` takes a condition, true or false, got {}", type_name(other)))),
    }
}

/// `any_changed(a, b)` and `all_changed(a, b)`: handles, lists of them; `nil` did not change.
pub(crate) fn combine(lua: &Lua, evaluation: &Arc<Evaluation>, name: &'static str, handles: &MultiValue) -> mlua::Result<LuaValue> {
    let mut parts = Vec::new();
    for handle in handles {
        collect(lua, evaluation, name, handle, &mut parts)?;
    }
    let condition = if name == "any_changed" { Condition::Any(parts) } else { Condition::All(parts) };
    new_condition(lua, evaluation, name, condition)
}

fn collect(lua: &Lua, evaluation: &Arc<Evaluation>, name: &'static str, value: &LuaValue, parts: &mut Vec<Condition>) -> mlua::Result<()> {
    match value {
        LuaValue::Nil => parts.push(Condition::Always(false)),
        LuaValue::UserData(data) if data.is::<Handle>() => {
            let handle = data.borrow::<Handle>()?;
            parts.push(handle.condition(Did::Change).map_err(|wrong| evaluation.raise(lua, wrong))?);
        }
        // What a condition comes to inside of functions.
        LuaValue::Boolean(value) if evaluation.state().running.is_some() => parts.push(Condition::Always(*value)),
        LuaValue::UserData(data) if data.is::<ReadCondition>() => {
            parts.push(condition_of(lua, evaluation, name, value).map_err(|wrong| evaluation.raise(lua, wrong))?);
        }
        LuaValue::Table(list) => {
            for at in 1..=list.raw_len() {
                collect(lua, evaluation, name, &list.raw_get(at)?, parts)?;
            }
        }
        other => {
            return Err(evaluation.misuse_with(
                lua,
                format!("`{name}` takes handles of operations, got {}", type_name(other)),
                format!("write {name}(a, b), where a and b are what operations gave back"),
            ));
        }
    }
    Ok(())
}
