//! Between Lua's values and those of the JSON data model. All conversion is here, and nothing is dropped silently.

use infra_core::{Map, Value};
use mlua::{Lua, Table, Value as LuaValue};

/// How deep values may nest. A table that holds itself is deeper than any limit.
const DEPTH: usize = 100;

/// The key under which the mark of an empty map is kept in a Lua state.
const EMPTY_MAP: &str = "infra.empty_map";

/// Why a value of Lua is no value of the JSON data model.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub(crate) struct ConvertError {
    /// What is wrong, with the place in the value, as a sentence fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

fn error(message: String, hint: Option<&str>) -> ConvertError {
    ConvertError { message, hint: hint.map(str::to_owned) }
}

/// The value of a Lua value; `place` is its name for messages, such as `vars.port`.
///
/// Whole floats become integers; a map's keys are sorted; an empty table is an empty list unless it came from an empty map, and a schema may
/// still read it as a map.
pub(crate) fn to_value(lua: &Lua, place: &str, value: &LuaValue) -> Result<Value, ConvertError> {
    convert(lua, place, value, 0)
}

fn convert(lua: &Lua, place: &str, value: &LuaValue, depth: usize) -> Result<Value, ConvertError> {
    match value {
        LuaValue::Nil => Ok(Value::Null),
        LuaValue::Boolean(value) => Ok(Value::Bool(*value)),
        LuaValue::LightUserData(pointer) if pointer.0.is_null() => Ok(Value::Null),
        LuaValue::Integer(number) => Ok(Value::from(*number)),
        LuaValue::Number(number) => number_value(place, *number),
        LuaValue::String(text) => match text.to_str() {
            Ok(text) => Ok(Value::String(text.to_string())),
            Err(_) => Err(error(format!("`{place}` is a string that is not UTF-8"), None)),
        },
        LuaValue::Table(table) => {
            if depth >= DEPTH {
                return Err(error(format!("`{}` nests more than {DEPTH} tables, or holds itself", outermost(place)), None));
            }
            table_value(lua, place, table, depth)
        }
        LuaValue::UserData(data) if data.is::<crate::secrets::SecretText>() => Ok(Value::String(crate::secrets::revealed(value))),
        LuaValue::UserData(data) if data.is::<crate::conditions::ReadCondition>() => Err(error(
            format!("`{place}` is a condition, which is known only when the operations have run"),
            Some("conditions are for boolean arguments and `_if`"),
        )),
        LuaValue::UserData(data) if data.is::<crate::conditions::Handle>() => Err(error(
            format!("`{place}` is the handle of an operation"),
            Some(
                "a handle has the conditions did_change, did_not_change, did_succeed and did_error, and in functions of execute stdout, stderr and exit_code",
            ),
        )),
        other => Err(error(format!("`{place}` is {}, which is no data", type_name(other)), None)),
    }
}

/// The name of a value's type as a person says it, with its article.
pub(crate) fn type_name(value: &LuaValue) -> &'static str {
    match value {
        LuaValue::Nil => "nil",
        LuaValue::Boolean(_) => "a boolean",
        LuaValue::Integer(_) | LuaValue::Number(_) => "a number",
        LuaValue::String(_) => "a string",
        LuaValue::Table(_) => "a table",
        LuaValue::Function(_) => "a function",
        LuaValue::Thread(_) => "a coroutine",
        LuaValue::UserData(data) if data.is::<crate::secrets::SecretText>() => "a secret",
        LuaValue::UserData(data) if data.is::<crate::conditions::ReadCondition>() => "a condition",
        LuaValue::UserData(data) if data.is::<crate::conditions::Handle>() => "the handle of an operation",
        _ => "an object of Lua",
    }
}

fn outermost(place: &str) -> &str {
    place.split(['.', '[']).next().unwrap_or(place)
}

fn number_value(place: &str, number: f64) -> Result<Value, ConvertError> {
    if !number.is_finite() {
        return Err(error(format!("`{place}` is {}, which is no number of JSON", if number.is_nan() { "NaN" } else { "infinite" }), None));
    }
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 {
        // Exact: whole, and within what a float holds without gaps.
        return Ok(Value::from(number as i64));
    }
    Ok(Value::from(number))
}

fn table_value(lua: &Lua, place: &str, table: &Table, depth: usize) -> Result<Value, ConvertError> {
    let mut items: Vec<(i64, LuaValue)> = Vec::new();
    let mut names: Vec<(String, LuaValue)> = Vec::new();
    for (key, value) in entries(place, table)? {
        match key {
            LuaValue::Integer(index) => items.push((index, value)),
            LuaValue::String(name) => match name.to_str() {
                Ok(name) => names.push((name.to_string(), value)),
                Err(_) => return Err(error(format!("`{place}` has a name that is not UTF-8"), None)),
            },
            other => {
                return Err(error(format!("`{place}` has {} as a key", type_name(&other)), Some("keys are names, or numbers from 1")));
            }
        }
    }
    if !items.is_empty() && !names.is_empty() {
        names.sort_by(|a, b| a.0.cmp(&b.0));
        return Err(error(
            format!("`{place}` is both a list and a table of names (it has `{}` beside {} items)", names[0].0, items.len()),
            Some("use one table for the list and another for the names"),
        ));
    }
    if !items.is_empty() {
        items.sort_by_key(|(index, _)| *index);
        for (at, (index, _)) in items.iter().enumerate() {
            let wanted = at as i64 + 1;
            if *index != wanted {
                return Err(if items[0].0 < 1 {
                    error(format!("`{place}` is a list with an item at [{}]", items[0].0), Some("lists start at 1"))
                } else {
                    let hint = "an item is nil: often a misspelt name";
                    error(format!("`{place}` is a list with a hole: [{wanted}] is nil"), Some(hint))
                });
            }
        }
        let values = items.iter().map(|(index, value)| convert(lua, &format!("{place}[{index}]"), value, depth + 1));
        return values.collect::<Result<Vec<_>, _>>().map(Value::Array);
    }
    if names.is_empty() {
        return Ok(if is_marked_empty_map(lua, table) { Value::Object(Map::new()) } else { Value::Array(Vec::new()) });
    }
    names.sort_by(|a, b| a.0.cmp(&b.0));
    let mut map = Map::new();
    for (name, value) in names {
        let value = convert(lua, &format!("{place}.{name}"), &value, depth + 1)?;
        map.insert(name, value);
    }
    Ok(Value::Object(map))
}

/// The keys and values of a table as `pairs` gives them. What a metatable would add without `pairs` seeing it is refused, not dropped.
pub(crate) fn entries(place: &str, table: &Table) -> Result<Vec<(LuaValue, LuaValue)>, ConvertError> {
    let unreadable = |problem: mlua::Error| error(format!("`{place}` cannot be read: {problem}"), None);
    let Some(meta) = table.metatable() else { return table.pairs().collect::<Result<_, _>>().map_err(unreadable) };
    match meta.raw_get::<LuaValue>("__pairs").map_err(unreadable)? {
        LuaValue::Function(pairs) => {
            let (next, state, mut key): (mlua::Function, LuaValue, LuaValue) = pairs.call(table).map_err(unreadable)?;
            let mut all = Vec::new();
            loop {
                let (found, value): (LuaValue, LuaValue) = next.call((&state, &key)).map_err(unreadable)?;
                if found.is_nil() {
                    return Ok(all);
                }
                all.push((found.clone(), value));
                key = found;
            }
        }
        _ if !meta.raw_get::<LuaValue>("__index").map_err(unreadable)?.is_nil() => {
            let message = format!("`{place}` is an object: a table whose metatable has an `__index`");
            Err(error(message, Some("give a plain table with what is meant")))
        }
        _ => table.pairs().collect::<Result<_, _>>().map_err(unreadable),
    }
}

fn is_marked_empty_map(lua: &Lua, table: &Table) -> bool {
    let mark = lua.named_registry_value::<Option<Table>>(EMPTY_MAP).ok().flatten();
    mark.is_some() && table.metatable() == mark
}

/// A Lua value of a value. A `null` in a map is a name that is absent; in a list it is `json.null`, so that no hole is made.
pub(crate) fn to_lua(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(value) => LuaValue::Boolean(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => LuaValue::Integer(whole),
            (None, float) => LuaValue::Number(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for (at, item) in items.iter().enumerate() {
                let item = if item.is_null() { null() } else { to_lua(lua, item)? };
                table.raw_set(at + 1, item)?;
            }
            LuaValue::Table(table)
        }
        Value::Object(map) => LuaValue::Table(map_to_lua(lua, map)?),
    })
}

/// `json.null`.
pub(crate) fn null() -> LuaValue {
    LuaValue::LightUserData(mlua::LightUserData(std::ptr::null_mut()))
}

/// A Lua table of a map.
pub(crate) fn map_to_lua(lua: &Lua, map: &Map) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, map.len())?;
    for (name, item) in map {
        table.raw_set(name.as_str(), to_lua(lua, item)?)?;
    }
    if map.is_empty() {
        let mark = match lua.named_registry_value::<Option<Table>>(EMPTY_MAP)? {
            Some(mark) => mark,
            None => {
                let mark = lua.create_table()?;
                lua.set_named_registry_value(EMPTY_MAP, mark.clone())?;
                mark
            }
        };
        table.set_metatable(Some(mark))?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Value, String> {
        let lua = Lua::new();
        let value: LuaValue = lua.load(text).eval().expect("an expression");
        to_value(&lua, "x", &value).map_err(|error| error.message)
    }

    #[test]
    fn tables_are_lists_or_maps() {
        for (text, wanted) in [
            ("{}", json!([])),
            ("{ 1, 'a', true }", json!([1, "a", true])),
            ("{ b = 1, a = { c = 2.0 } }", json!({ "a": { "c": 2 }, "b": 1 })),
            ("{ [1.0] = 'one' }", json!(["one"])),
            ("1.5", json!(1.5)),
            ("2^53", json!(9_007_199_254_740_992.0)),
            ("nil", json!(null)),
        ] {
            assert_eq!(read(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_data_is_named() {
        for (text, message) in [
            ("{ 5, a = 1 }", "`x` is both a list and a table of names (it has `a` beside 1 items)"),
            ("{ 1, nil, 3 }", "`x` is a list with a hole: [2] is nil"),
            ("{ [0] = 1 }", "`x` is a list with an item at [0]"),
            ("{ a = { [true] = 1 } }", "`x.a` has a boolean as a key"),
            ("{ { print } }", "`x[1][1]` is a function, which is no data"),
            ("setmetatable({}, { __index = { a = 1 } })", "`x` is an object: a table whose metatable has an `__index`"),
            ("0/0", "`x` is NaN, which is no number of JSON"),
            ("{ a = 1/0 }", "`x.a` is infinite, which is no number of JSON"),
            ("'\\xff'", "`x` is a string that is not UTF-8"),
            ("(function() local t = {} t.t = t return t end)()", "`x` nests more than 100 tables, or holds itself"),
        ] {
            assert_eq!(read(text), Err(message.to_owned()), "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(|number| if number.fract() == 0.0 { Value::from(number as i64) } else { Value::from(number) }),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[a-z0-9_ ]{0,6}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(value in values()) {
            let lua = Lua::new();
            let there = to_lua(&lua, &value).expect("a value");
            prop_assert_eq!(to_value(&lua, "x", &there), Ok(value));
        }
    }
}
