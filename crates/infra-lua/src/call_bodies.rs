//! `call`: a body of Lua that is left behind for execute, in which operations run at once.

use std::sync::Arc;

use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::late::{CALL, Late};
use infra_core::script::OperationCall;
use mlua::{AnyUserData, Lua, MultiValue};

use crate::blocks::{block_options, block_parts};
use crate::conditions::{Handle, Of};
use crate::errors::raise;
use crate::evaluation::{Block, Evaluation};
use crate::late::leave_behind;
use crate::operations::{all_globals, around, call_here, note};
use crate::performing::stray_block;
use crate::strategies;

/// `call([name,] [options,] function)`: registers a body that runs in execute.
pub(crate) fn register_body(lua: &Lua, evaluation: &Arc<Evaluation>, arguments: &MultiValue) -> mlua::Result<AnyUserData> {
    let chain = evaluation.chain(lua);
    let call = body(lua, evaluation, arguments, &chain).map_err(|wrong| {
        let wrong = evaluation.at_chain(chain, wrong);
        evaluation.keep(&wrong);
        raise(wrong)
    })?;
    let of = Of::Call(note(evaluation, call));
    lua.create_userdata(Handle { of, kind: CALL.to_owned(), evaluation: evaluation.clone() })
}

fn body(lua: &Lua, evaluation: &Evaluation, arguments: &MultiValue, chain: &[Location]) -> Result<OperationCall, Diagnostic> {
    {
        let state = evaluation.state();
        if state.once > 0 {
            return Err(Diagnostic::misuse("`call` stands inside `once`, which takes no operations"));
        }
        if let Some(running) = &state.running {
            if !running.is_body() {
                return Err(Diagnostic::misuse(format!(
                    "`call` stands inside the function of {}, which only finds a value",
                    running.left.what
                ))
                .hint("register it in the deploy itself"));
            }
            let (message, hint) = stray_block(CALL);
            return Err(Diagnostic::misuse(message).hint(hint));
        }
    }
    let (name, options, function) = block_parts(CALL, arguments)?;
    let (globals, special) = block_options(lua, evaluation, CALL, options.as_ref())?;
    let (own, inner) = (globals.clone(), special.on);
    let (when, until, _) = around(evaluation, special);
    if until.is_some() {
        return Err(Diagnostic::misuse("`_retry_until` does not go with `call`, which has no result of its own to look at")
            .hint("call fail(message) inside it, and give it `_retries`"));
    }
    // What says how commands run is for the operations inside, and so is `_on`.
    let block = Block { globals: own.clone(), on: inner, ..Block::default() };
    let globals = all_globals(evaluation, CALL, own, false)?;
    let body = leave_behind(lua, evaluation, &function, "`call`".to_owned(), None, Some(block))?;
    let late = Late { body: Some(body), ..Late::default() };
    strategies::check_any_host(&evaluation.state(), when.iter())?;
    Ok(OperationCall { kind: CALL.to_owned(), name, when, globals, chain: chain.to_vec(), late, ..call_here(evaluation) })
}
