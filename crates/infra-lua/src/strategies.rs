//! Blocks that change when the operations inside them run: `parallel` and `rolling`, and which of them may stand in which.

use std::sync::LazyLock;

use infra_core::arguments::{self, ArgumentError};
use infra_core::condition::Condition;
use infra_core::diagnostic::{Diagnostic, Location};
use infra_core::global_arguments::GlobalArguments;
use infra_core::script::{Block, BlockKind, Rolling};
use infra_core::waves::{Batch, Share};
use infra_core::{Map, Value};
use mlua::{Lua, Table, Value as LuaValue};
use serde::de::DeserializeOwned;

use crate::convert::{entries, to_value};
use crate::evaluation::State;

/// The schema of the options of `rolling`.
static ROLLING: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Rolling).to_value());

/// How a block is written.
pub(crate) fn spelling(kind: &str) -> &'static str {
    match kind {
        "with" => "write with({ _sudo = true }, function() … end)",
        "call" => "write call(function() … end)",
        "parallel" => "write parallel(function() … end)",
        "rolling" => "write rolling({ batch = \"25%\" }, function() … end)",
        _ => "write deploy(\"NAME\", function() … end)",
    }
}

/// What a `parallel` or `rolling` block does.
///
/// # Errors
/// A misuse: options that there are not, or of a wrong type, and a name that was meant as a size of waves.
pub(crate) fn read_kind(lua: &Lua, kind: &str, name: Option<&str>, options: Option<&Table>) -> Result<BlockKind, Diagnostic> {
    if kind == "parallel" {
        return match options {
            None => Ok(BlockKind::Parallel),
            Some(_) => Err(Diagnostic::misuse("`parallel` takes no options")
                .hint("arguments for all operations inside stand in a block around it: with({ _sudo = true }, function() … end)")),
        };
    }
    if let Some(size) = name.filter(|name| Share::parse(name).is_ok()) {
        let message = format!("`rolling` takes the sizes of its waves as an option, and \"{size}\" would be its name");
        return Err(Diagnostic::misuse(message).hint(format!("write rolling({{ batch = \"{size}\" }}, function() … end)")));
    }
    let mut given = Map::new();
    let all = options.map(|options| entries("rolling", options)).transpose();
    for (key, value) in all.map_err(|wrong| Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))?.into_iter().flatten() {
        let LuaValue::String(key) = &key else {
            return Err(Diagnostic::misuse("the options of `rolling` have names, such as batch = 2").hint(spelling(kind)));
        };
        let key = key.to_string_lossy();
        if key.starts_with('_') {
            let hint = format!("arguments for all operations inside stand in a block around it: with({{ {key} = … }}, function() … end)");
            return Err(Diagnostic::misuse(format!("`rolling` has no option `{key}`")).hint(hint));
        }
        let value = to_value(lua, &key, &value).map_err(|wrong| Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint))?;
        given.insert(key, value);
    }
    check_sizes(&given, "").map_err(Diagnostic::misuse)?;
    let unknown = given.keys().find(|key| arguments::property(&ROLLING, key).is_none()).cloned();
    let checked = arguments::check(&ROLLING, given).map_err(|ArgumentError { message, hint, .. }| {
        let message = unknown.map_or(message, |key| format!("`rolling` has no option `{key}`"));
        let hint = hint.map(|hint| hint.replace("the arguments are", "the options are"));
        Diagnostic::misuse(message).maybe_hint(hint)
    })?;
    let rolling: Rolling = serde_json::from_value(Value::Object(checked)).map_err(|error| Diagnostic::misuse(error.to_string()))?;
    at_least_nothing("pause", Some(rolling.pause)).map_err(Diagnostic::misuse)?;
    Ok(BlockKind::Rolling(rolling))
}

/// The block of this kind that is entered now, where it may stand.
///
/// # Errors
/// A misuse: a block inside one that it must not stand in.
pub(crate) fn enter(state: &mut State, kind: BlockKind, name: Option<String>, chain: Vec<Location>) -> Result<Block, Diagnostic> {
    let around = |wanted: fn(&BlockKind) -> bool| state.strategies().find(|block| wanted(&block.kind));
    let in_rolling = state.rolling();
    let in_parallel = around(|kind| matches!(kind, BlockKind::Parallel));
    let wrong = match (&kind, in_rolling, in_parallel) {
        (BlockKind::Rolling(_), Some(outer), _) => {
            Some(("`rolling` stands inside `rolling`", outer, "hosts go through the outer block wave by wave: leave the inner one out"))
        }
        (BlockKind::Rolling(_), _, Some(outer)) => {
            Some(("`rolling` stands inside `parallel`", outer, "turn them around: `parallel` may stand inside `rolling`"))
        }
        (BlockKind::Parallel, _, Some(outer)) => {
            Some(("`parallel` stands inside `parallel`", outer, "what is inside runs at the same time anyway: leave the inner one out"))
        }
        (BlockKind::Parallel, _, None) => None,
        (BlockKind::Rolling(_), None, None) => None,
    };
    if let Some((message, outer, hint)) = wrong {
        let place = outer.chain.last().map(|place| format!(" (at {place})")).unwrap_or_default();
        return Err(Diagnostic::misuse(format!("{message}{place}")).hint(hint));
    }
    let place: Vec<String> = chain.iter().map(ToString::to_string).collect();
    let word = if matches!(kind, BlockKind::Parallel) { "parallel" } else { "rolling" };
    let count = state.turns.entry(format!("{word} {}", place.join(" > "))).or_insert(0);
    let turn = *count;
    *count += 1;
    Ok(Block { kind, name, chain, turn })
}

/// Checks what the types of global arguments cannot say. `mark` stands before their names.
///
/// # Errors
/// What is wrong, as a sentence fragment.
pub(crate) fn check_globals(globals: &GlobalArguments, mark: &str) -> Result<(), String> {
    at_least_nothing(&format!("{mark}retry_delay"), globals.retry_delay)?;
    if let Some(seconds) = globals.timeout.filter(|seconds| !(*seconds > 0.0 && seconds.is_finite())) {
        return Err(format!("`{mark}timeout` takes seconds above 0, got {seconds}"));
    }
    if let Some(factor) = globals.retry_backoff.filter(|factor| !(*factor >= 1.0 && factor.is_finite())) {
        return Err(format!("`{mark}retry_backoff` takes a factor of at least 1, got {factor}"));
    }
    if globals.parallel == Some(0) {
        return Err(format!("`{mark}parallel` takes a number of hosts, at least 1"));
    }
    Ok(())
}

/// Checks numbers of hosts, waves and retries one by one, before their schema, whose words for their many shapes say little.
///
/// # Errors
/// What is wrong, as a sentence fragment.
pub(crate) fn check_sizes(given: &Map, mark: &str) -> Result<(), String> {
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let plain = name.strip_prefix('_').unwrap_or(name);
        let problem = match plain {
            "serial" | "batch" => problem::<Batch>(value, "takes true, a number of hosts, a share such as \"25%\", or a list of these"),
            "max_fail" => problem::<Share>(value, "takes a number of hosts or a share such as \"25%\""),
            "parallel" => problem::<u32>(value, "takes a number of hosts, at least 1"),
            "retries" => problem::<u32>(value, "takes how often to try again, a whole number from 0"),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(format!("`{mark}{plain}` {problem}"));
        }
    }
    Ok(())
}

fn problem<T: DeserializeOwned>(value: &Value, takes: &str) -> Option<String> {
    let message = serde_json::from_value::<T>(value.clone()).err()?.to_string();
    // What serde says of a type that comes in several shapes is no help.
    let own = ["a wave has", "is neither a number"].iter().any(|known| message.contains(known));
    Some(if own { format!("{takes}: {message}") } else { format!("{takes}, got {value}") })
}

fn at_least_nothing(name: &str, seconds: Option<f64>) -> Result<(), String> {
    match seconds {
        Some(seconds) if !(seconds >= 0.0 && seconds.is_finite()) => Err(format!("`{name}` takes seconds, at least 0, got {seconds}")),
        _ => Ok(()),
    }
}

/// Checks that arguments of a call have what they need around them.
///
/// # Errors
/// A misuse: `_background` outside of `parallel`; one that does nothing without another.
pub(crate) fn check_call(state: &State, own: &GlobalArguments, merged: &GlobalArguments) -> Result<(), Diagnostic> {
    if merged.background == Some(true) && !state.strategies().any(|block| block.kind == BlockKind::Parallel) {
        return Err(Diagnostic::misuse("`_background` stands outside of `parallel`")
            .hint("it ends an operation when the others of its block have ended: parallel(function() … end)"));
    }
    let lonely = [
        ("_max_fail", own.max_fail.is_some() && merged.batch().is_none(), "_serial", "_serial = true"),
        ("_retry_delay", own.retry_delay.is_some() && merged.retries.is_none(), "_retries", "_retries = 3"),
        ("_retry_backoff", own.retry_backoff.is_some() && merged.retries.is_none(), "_retries", "_retries = 3"),
    ];
    match lonely.into_iter().find(|(_, is_lonely, ..)| *is_lonely) {
        Some((name, _, needs, write)) => {
            Err(Diagnostic::misuse(format!("`{name}` is given without `{needs}`")).hint(format!("write {write} beside it")))
        }
        None => Ok(()),
    }
}

/// Checks that no operation in `rolling` waits for hosts of later waves, which wait for it.
///
/// # Errors
/// A misuse: `any_host` of an operation in the same block.
pub(crate) fn check_any_host<'c>(state: &State, conditions: impl Iterator<Item = &'c Condition>) -> Result<(), Diagnostic> {
    let Some(rolling) = state.rolling() else { return Ok(()) };
    let mut asked = conditions.flat_map(Condition::any_host_calls);
    if asked.any(|call| state.rolling_of.get(&call).is_some_and(|of| of.chain == rolling.chain && of.turn == rolling.turn)) {
        return Err(Diagnostic::misuse("`any_host` asks all hosts, but those of later waves come by only when this one is through")
            .hint("ask this host, handle.did_change, or use `any_host` after the block"));
    }
    Ok(())
}
