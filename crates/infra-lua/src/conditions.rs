//! Handles of operations and the conditions that are read off them.

use std::sync::Arc;

use infra_core::condition::{CallIndex, Condition, Did};
use infra_core::diagnostic::{Diagnostic, did_you_mean};
use mlua::{AnyUserData, Lua, MetaMethod, MultiValue, UserData, UserDataMethods, Value as LuaValue};

use crate::convert::type_name;
use crate::evaluation::{Evaluation, Reading};

/// The conditions of a handle by name.
pub(crate) const CONDITIONS: [(&str, Did); 4] =
    [("did_change", Did::Change), ("did_not_change", Did::NotChange), ("did_succeed", Did::Succeed), ("did_error", Did::Error)];

/// What an operation gives back.
pub(crate) struct Handle {
    pub call: CallIndex,
    pub kind: String,
    pub evaluation: Arc<Evaluation>,
}

/// A condition that was read off a handle or made of several.
pub(crate) struct ReadCondition {
    pub condition: Condition,
    /// Its place among the readings of the script.
    pub reading: usize,
    pub evaluation: Arc<Evaluation>,
}

impl UserData for Handle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::Index, |lua, handle, key: LuaValue| {
            let key = match &key {
                LuaValue::String(text) => text.to_string_lossy(),
                other => format!("[{}]", type_name(other)),
            };
            let evaluation = &handle.evaluation;
            if let Some((name, did)) = CONDITIONS.iter().find(|(name, _)| *name == key) {
                return new_condition(lua, evaluation, name, Condition::Outcome(handle.call, *did));
            }
            Err(match key.as_str() {
                "stdout" | "stderr" | "stdout_lines" | "stderr_lines" | "exit_code" => evaluation.misuse_with(
                    lua,
                    format!("`{key}` of {} is there only after the operation ran, and the script runs before it", handle.kind),
                    "say what depends on it with `_if = handle.did_change`; reading results with `call(function() … end)` is not available yet",
                ),
                "will_change" => evaluation.misuse_with(
                    lua,
                    "`will_change` is not available yet",
                    "give `handle.did_change` to `_if` or to a boolean argument: it is decided in the plan",
                ),
                "changed" => evaluation.misuse_with(lua, "a handle has no `changed`", "did you mean `did_change`?"),
                _ => {
                    let known = CONDITIONS.iter().map(|(name, _)| *name);
                    let hint = did_you_mean(&key, known)
                        .unwrap_or_else(|| "it has did_change, did_not_change, did_succeed and did_error".to_owned());
                    evaluation.misuse_with(lua, format!("the handle of an operation has no `{key}`"), hint)
                }
            })
        });
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
fn operate(lua: &Lua, sign: &'static str, operands: &[LuaValue]) -> mlua::Result<AnyUserData> {
    let evaluation = operands.iter().find_map(|operand| Some(operand.as_userdata()?.borrow::<ReadCondition>().ok()?.evaluation.clone()));
    let evaluation = evaluation.ok_or_else(|| mlua::Error::runtime(format!("`{sign}` stands without a condition")))?;
    let mut parts = Vec::new();
    for operand in operands {
        let condition = match operand {
            LuaValue::Boolean(_) | LuaValue::UserData(_) => condition_of(sign, operand).map_err(|mut wrong| {
                wrong.message = format!("`{sign}` combines conditions, got {}", type_name(operand));
                wrong.hint = operand.as_userdata().filter(|data| data.is::<Handle>()).map(|_| "write handle.did_change".to_owned());
                evaluation.raise(lua, wrong)
            })?,
            other => {
                let message = format!("`{sign}` combines conditions, got {}", type_name(other));
                return Err(evaluation.misuse_with(lua, message, "its sides are handle.did_change and its like, true or false"));
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
pub(crate) fn any_host(lua: &Lua, evaluation: &Arc<Evaluation>, handles: &MultiValue) -> mlua::Result<AnyUserData> {
    let mut handles = handles.iter();
    let condition = match (handles.next(), handles.next()) {
        (None | Some(LuaValue::Nil), None) => Condition::Always(false),
        (Some(LuaValue::UserData(data)), None) if data.is::<Handle>() => Condition::AnyHost(data.borrow::<Handle>()?.call),
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

/// A condition as a value of Lua, noted as read.
pub(crate) fn new_condition(
    lua: &Lua,
    evaluation: &Arc<Evaluation>,
    name: &'static str,
    condition: Condition,
) -> mlua::Result<AnyUserData> {
    let chain = evaluation.chain(lua);
    let reading = {
        let mut state = evaluation.state();
        state.readings.push(Reading { name, chain, used: false });
        state.readings.len() - 1
    };
    lua.create_userdata(ReadCondition { condition, reading, evaluation: evaluation.clone() })
}

/// What a value says as a condition; `what` names the argument.
///
/// # Errors
/// The message and the hint of a misuse.
pub(crate) fn condition_of(what: &str, value: &LuaValue) -> Result<Condition, Diagnostic> {
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
                all.push(condition_of(what, &one)?);
                count += 1;
            }
            if count != list.raw_len() {
                return Err(Diagnostic::misuse(format!("`{what}` takes a list of conditions without holes or names")));
            }
            Ok(Condition::All(all))
        }
        LuaValue::Function(_) => Err(Diagnostic::misuse(format!("a function as `{what}` is not available yet"))
            .hint("conditions are handle.did_change and its like, combined with |, & and ~, lists of them, any_changed(…), all_changed(…) and any_host(…)")),
        other => Err(Diagnostic::misuse(format!("`{what}` takes a condition, true or false, got {}", type_name(other)))),
    }
}

/// `any_changed(a, b)` and `all_changed(a, b)`: handles, lists of them; `nil` did not change.
pub(crate) fn combine(lua: &Lua, evaluation: &Arc<Evaluation>, name: &'static str, handles: &MultiValue) -> mlua::Result<AnyUserData> {
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
            parts.push(Condition::Outcome(handle.call, Did::Change));
        }
        LuaValue::UserData(data) if data.is::<ReadCondition>() => {
            parts.push(condition_of(name, value).map_err(|wrong| evaluation.raise(lua, wrong))?);
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
