//! Checks arguments against the JSON schema of the struct that takes them, and reads them from words of a command line.
//!
//! The schemas are those that `schemars` derives (JSON Schema 2020-12). What is checked here is what a person gets wrong: unknown names,
//! missing ones, wrong types; `serde` has the last word.

use serde_json::json;

use crate::diagnostic::did_you_mean;
use crate::{Map, Value};

/// What is wrong with arguments.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ArgumentError {
    /// The argument, where one is to blame.
    pub argument: Option<String>,
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl ArgumentError {
    fn new(argument: &str, message: String) -> Self {
        Self { argument: Some(argument.to_owned()), message, hint: None }
    }
}

/// The names of the arguments that a schema takes, in their order.
pub fn names(schema: &Value) -> Vec<&str> {
    properties(schema).map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// The schema of one argument, with references resolved; none where there is no such argument.
pub fn property<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    Some(resolve(schema, properties(schema)?.get(name)?))
}

/// Whether a schema takes values of this JSON type (`boolean`, `array`, …).
pub fn accepts_type(root: &Value, schema: &Value, wanted: &str) -> bool {
    types(root, schema).iter().any(|found| found == wanted)
}

/// Whether a property carries this mark, an extension key such as `x-local-path` set to true.
pub fn is_marked(schema: &Value, name: &str, mark: &str) -> bool {
    let own = properties(schema).and_then(|map| map.get(name)).and_then(|property| property.get(mark));
    own.is_some_and(|value| value == true)
}

/// The mark of an argument that names a file of the controller: relative ones are looked up beside the script.
pub const LOCAL_PATH: &str = "x-local-path";
/// The mark of an argument that names a file of the controller to be written: relative ones are beside the deploy file.
pub const LOCAL_DESTINATION: &str = "x-local-destination";
/// The mark of an argument that names a path on the host: relative ones are joined with `_chdir`.
pub const HOST_PATH: &str = "x-host-path";

/// The mark of an argument that the language fills in by itself with the scope of templates (`host`), captured at the call.
pub const TEMPLATE_SCOPE: &str = "x-template-scope";

/// Joins relative paths of the host among the arguments with the directory that the operation runs in.
///
/// Where that is itself relative it is left out after that, for what has paths of the host: they would count from it a second time.
pub fn join_host_paths(schema: &Value, arguments: &mut Map, directory: &mut Option<String>) {
    let Some(chdir) = directory.clone() else { return };
    if !chdir.starts_with('/') && names(schema).into_iter().any(|name| is_marked(schema, name, HOST_PATH)) {
        *directory = None;
    }
    for (name, value) in arguments.iter_mut() {
        if let (true, Value::String(path)) = (is_marked(schema, name, HOST_PATH), &value)
            && !path.starts_with('/')
        {
            *value = Value::String(format!("{}/{path}", chdir.trim_end_matches('/')));
        }
    }
}

/// Checks arguments and brings them to the shape that the struct takes: a single value where a list is meant becomes a list of one,
/// a `null` is an argument not given.
///
/// # Errors
/// [`ArgumentError`] naming the first argument that is unknown, missing or of a wrong type.
pub fn check(schema: &Value, given: Map) -> Result<Map, ArgumentError> {
    let mut checked = Map::new();
    for (name, value) in given {
        let Some(property) = property(schema, &name) else { return Err(unknown(schema, &name)) };
        if value.is_null() {
            continue;
        }
        checked.insert(name.clone(), shape(schema, property, &name, value)?);
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten().filter_map(Value::as_str) {
        if !checked.contains_key(name) {
            let mut error = ArgumentError::new(name, format!("the argument `{name}` is missing"));
            error.hint = property(schema, name).map(|property| format!("write {name} = {}", describe(schema, property)));
            return Err(error);
        }
    }
    Ok(checked)
}

/// Reads `key=value` words of a command line, each value by the type that the schema wants; a list is the key repeated, or JSON.
///
/// # Errors
/// [`ArgumentError`] naming the first word that is no `key=value`, or whose key or value does not fit.
pub fn from_words<S: AsRef<str>>(schema: &Value, words: &[S]) -> Result<Map, ArgumentError> {
    let mut given = Map::new();
    for word in words {
        let word = word.as_ref();
        let Some((name, text)) = word.split_once('=') else {
            return Err(ArgumentError {
                argument: None,
                message: format!("`{word}` is no argument"),
                hint: Some(format!("write NAME=VALUE; the names are {}", names(schema).join(", "))),
            });
        };
        let Some(property) = property(schema, name) else { return Err(unknown(schema, name)) };
        let kinds = types(schema, property);
        let takes = |kind: &str| kinds.iter().any(|found| found == kind);
        let value = if takes("array") && !text.starts_with('[') {
            let item = read_word(&item_types(schema, property), name, text, schema, property)?;
            match given.remove(name) {
                Some(Value::Array(mut items)) => {
                    items.push(item);
                    Value::Array(items)
                }
                _ => Value::Array(vec![item]),
            }
        } else if given.contains_key(name) {
            return Err(ArgumentError::new(name, format!("the argument `{name}` is given twice and takes one value")));
        } else {
            read_word(&kinds, name, text, schema, property)?
        };
        given.insert(name.to_owned(), value);
    }
    Ok(given)
}

fn read_word(kinds: &[String], name: &str, text: &str, root: &Value, property: &Value) -> Result<Value, ArgumentError> {
    let takes = |kind: &str| kinds.iter().any(|found| found == kind);
    let json_text = (takes("array") && text.starts_with('[')) || (takes("object") && text.starts_with('{'));
    if json_text {
        return serde_json::from_str(text).map_err(|error| ArgumentError::new(name, format!("`{name}={text}` is no JSON: {error}")));
    }
    if takes("string") && !(takes("boolean") && matches!(text, "true" | "false")) {
        return Ok(Value::String(text.to_owned()));
    }
    if takes("boolean")
        && let Some(value) = match text {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        }
    {
        return Ok(Value::Bool(value));
    }
    if takes("integer")
        && let Ok(number) = text.parse::<i64>()
    {
        return Ok(json!(number));
    }
    if takes("number")
        && let Ok(number) = text.parse::<f64>()
    {
        return Ok(json!(number));
    }
    if kinds.is_empty() || takes("any") {
        return Ok(serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())));
    }
    Err(ArgumentError::new(name, format!("`{name}` takes {}, got `{text}`", describe(root, property))))
}

/// What kind of value a schema takes, in words: `a string`, `a list of strings`, `true or false`.
pub fn describe(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(values) = enumeration(root, schema) {
        let quoted: Vec<String> = values.iter().map(|value| format!("\"{value}\"")).collect();
        return format!("one of {}", quoted.join(", "));
    }
    if schema.get("format").and_then(Value::as_str) == Some("file mode") {
        return "a file mode such as \"644\"".to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for kind in types(root, schema) {
        let word = match kind.as_str() {
            "null" => continue,
            "string" => "a string".to_owned(),
            "boolean" => "true or false".to_owned(),
            "integer" => "a whole number".to_owned(),
            "number" => "a number".to_owned(),
            "object" => "a table of names and values".to_owned(),
            "array" => {
                let items = item_types(root, schema);
                match items.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                    ["string"] => "a list of strings".to_owned(),
                    ["integer"] => "a list of whole numbers".to_owned(),
                    _ => "a list".to_owned(),
                }
            }
            _ => "a value".to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if words.is_empty() { "a value".to_owned() } else { words.join(" or ") }
}

fn unknown(schema: &Value, name: &str) -> ArgumentError {
    let known = names(schema);
    let mut error = ArgumentError::new(name, format!("there is no argument `{name}`"));
    error.hint = did_you_mean(name, known.iter().copied())
        .or_else(|| (!known.is_empty()).then(|| format!("the arguments are {}", known.join(", "))));
    error
}

fn shape(root: &Value, schema: &Value, path: &str, value: Value) -> Result<Value, ArgumentError> {
    let schema = resolve(root, schema);
    let kinds = types(root, schema);
    let takes = |kind: &str| kinds.iter().any(|found| found == kind);
    if kinds.is_empty() || takes("any") {
        return Ok(value);
    }
    let wrong = |value: &Value| ArgumentError::new(path, format!("`{path}` takes {}, got {}", describe(root, schema), shown(value)));
    if let (Some(allowed), Value::String(text)) = (enumeration(root, schema), &value)
        && !allowed.contains(text)
    {
        let mut error = wrong(&value);
        error.hint = did_you_mean(text, allowed.iter().map(String::as_str));
        return Err(error);
    }
    match value {
        Value::Array(items) if takes("array") => {
            let schema = variant(root, schema, "array");
            let Some(item) = schema.get("items") else { return Ok(Value::Array(items)) };
            let shaped: Result<Vec<Value>, _> =
                items.into_iter().enumerate().map(|(at, one)| shape(root, item, &format!("{path}[{}]", at + 1), one)).collect();
            shaped.map(Value::Array)
        }
        // An empty table is both; the schema decides.
        Value::Array(items) if items.is_empty() && takes("object") => Ok(Value::Object(Map::new())),
        Value::Object(map) if map.is_empty() && takes("array") && !takes("object") => Ok(Value::Array(Vec::new())),
        Value::Object(map) if takes("object") => {
            let schema = variant(root, schema, "object");
            if properties(schema).is_some() {
                return check_nested(root, schema, path, map).map(Value::Object);
            }
            let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) else {
                return Ok(Value::Object(map));
            };
            let shaped: Result<Map, _> =
                map.into_iter().map(|(name, one)| shape(root, each, &format!("{path}.{name}"), one).map(|one| (name, one))).collect();
            shaped.map(Value::Object)
        }
        Value::String(_) if takes("string") => Ok(value),
        Value::Bool(_) if takes("boolean") => Ok(value),
        Value::Number(ref number) if takes("integer") && (number.is_i64() || number.is_u64()) => Ok(value),
        Value::Number(_) if takes("number") => Ok(value),
        Value::Null if takes("null") => Ok(value),
        // A single value is taken where a list is meant.
        single if takes("array") && !single.is_array() && !single.is_null() => {
            let schema = variant(root, schema, "array");
            let item = schema.get("items").ok_or_else(|| wrong(&single))?;
            match shape(root, item, path, single.clone()) {
                Ok(item) => Ok(Value::Array(vec![item])),
                Err(_) => Err(wrong(&single)),
            }
        }
        other => Err(wrong(&other)),
    }
}

fn check_nested(root: &Value, schema: &Value, path: &str, map: Map) -> Result<Map, ArgumentError> {
    let mut checked = Map::new();
    for (name, value) in map {
        let Some(property) = properties(schema).and_then(|all| all.get(&name)) else {
            let mut error = unknown(schema, &name);
            error.message = format!("`{path}` has no key `{name}`");
            return Err(error);
        };
        checked.insert(name.clone(), shape(root, property, &format!("{path}.{name}"), value)?);
    }
    Ok(checked)
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return "nothing".to_owned(),
        Value::Bool(value) => return value.to_string(),
        Value::Number(number) => return format!("the number {number}"),
        Value::String(text) => format!("the string \"{text}\""),
        Value::Array(_) => format!("the list {value}"),
        Value::Object(_) => format!("the table {value}"),
    };
    if text.chars().count() <= 60 { text } else { format!("{}…", text.chars().take(60).collect::<String>()) }
}

fn properties(schema: &Value) -> Option<&Map> {
    schema.get("properties").and_then(Value::as_object)
}

fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix("#/$defs/"));
    match target.and_then(|name| root.get("$defs").and_then(|defs| defs.get(name))) {
        Some(found) => resolve(root, found),
        None => schema,
    }
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|key| schema.get(key).and_then(Value::as_array)).flatten()
}

fn variant<'s>(root: &'s Value, schema: &'s Value, kind: &str) -> &'s Value {
    alternatives(schema).map(|one| resolve(root, one)).find(|one| types(root, one).iter().any(|found| found == kind)).unwrap_or(schema)
}

fn types(root: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(root, schema);
    if schema == &Value::Bool(true) {
        return vec!["any".to_owned()];
    }
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ if schema.get("const").is_some_and(Value::is_string) || schema.get("enum").is_some() => vec!["string".to_owned()],
        _ => {
            let mut all: Vec<String> = Vec::new();
            for kind in alternatives(schema).flat_map(|one| types(root, one)) {
                if !all.contains(&kind) {
                    all.push(kind);
                }
            }
            all
        }
    }
}

fn item_types(root: &Value, schema: &Value) -> Vec<String> {
    variant(root, schema, "array").get("items").map(|items| types(root, items)).unwrap_or_default()
}

/// The texts that an enumeration allows; none where the schema takes more than such texts.
fn enumeration(root: &Value, schema: &Value) -> Option<Vec<String>> {
    let schema = resolve(root, schema);
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    }
    if let Some(value) = schema.get("const").and_then(Value::as_str) {
        return Some(vec![value.to_owned()]);
    }
    let mut all = Vec::new();
    let mut any = false;
    for one in alternatives(schema) {
        any = true;
        if types(root, one) == ["null"] {
            continue;
        }
        all.extend(enumeration(root, one)?);
    }
    (any && !all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;

    use super::*;
    use crate::mode::Mode;

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    #[allow(dead_code)]
    enum Kind {
        Alpha,
        Beta,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Wish {
        #[serde(default)]
        packages: Vec<String>,
        path: String,
        mode: Option<Mode>,
        count: Option<u32>,
        kind: Option<Kind>,
        #[serde(default)]
        latest: bool,
        #[serde(default)]
        env: std::collections::BTreeMap<String, String>,
        vars: Option<Value>,
    }

    fn schema() -> Value {
        schemars::schema_for!(Wish).to_value()
    }

    fn check_json(value: Value) -> Result<Value, String> {
        let Value::Object(map) = value else { panic!("a map") };
        check(&schema(), map)
            .map(Value::Object)
            .map_err(|error| format!("{}{}", error.message, error.hint.map(|hint| format!(" | {hint}")).unwrap_or_default()))
    }

    #[test]
    fn words_that_may_be_a_text_or_a_truth_value_are_told_apart() {
        let schema = json!({ "properties": { "running": { "type": ["string", "boolean"] }, "line": { "type": "string" } } });
        for (word, value) in [
            ("running=false", json!({ "running": false })),
            ("running=unchanged", json!({ "running": "unchanged" })),
            ("line=true", json!({ "line": "true" })),
        ] {
            assert_eq!(from_words(&schema, &[word]).map(Value::Object), Ok(value), "{word}");
        }
    }

    #[test]
    fn a_relative_directory_counts_once() {
        let path = json!({ "type": "string", "x-host-path": true });
        let schema = json!({ "properties": { "dest": path, "src": { "type": "string" } } });
        let plain = json!({ "properties": { "src": { "type": "string" } } });
        for (schema, chdir, dest, left) in
            [(&schema, "/srv/", "/srv/a", Some("/srv/")), (&schema, "site", "site/a", None), (&plain, "site", "a", Some("site"))]
        {
            let mut arguments = Map::from_iter([("dest".to_owned(), json!("a")), ("src".to_owned(), json!("b"))]);
            let mut directory = Some(chdir.to_owned());
            join_host_paths(schema, &mut arguments, &mut directory);
            assert_eq!((&arguments["dest"], &arguments["src"], directory.as_deref()), (&json!(dest), &json!("b"), left), "{chdir}");
        }
    }

    #[test]
    fn right_arguments_are_shaped() {
        let shaped = check_json(json!({ "path": "/a", "packages": "nginx", "mode": 644, "env": [], "latest": null, "vars": { "a": [1] } }));
        assert_eq!(shaped, Ok(json!({ "path": "/a", "packages": ["nginx"], "mode": 644, "env": {}, "vars": { "a": [1] } })));
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (given, wanted) in [
            (json!({}), "the argument `path` is missing | write path = a string"),
            (json!({ "path": 1 }), "`path` takes a string, got the number 1"),
            (json!({ "path": "/a", "pakages": [] }), "there is no argument `pakages` | did you mean `packages`?"),
            (json!({ "path": "/a", "packages": [1] }), "`packages[1]` takes a string, got the number 1"),
            (json!({ "path": "/a", "packages": true }), "`packages` takes a list of strings, got true"),
            (json!({ "path": "/a", "latest": "yes" }), "`latest` takes true or false, got the string \"yes\""),
            (
                json!({ "path": "/a", "kind": "bta" }),
                "`kind` takes one of \"alpha\", \"beta\", got the string \"bta\" | did you mean `beta`?",
            ),
            (json!({ "path": "/a", "count": 1.5 }), "`count` takes a whole number, got the number 1.5"),
        ] {
            assert_eq!(check_json(given.clone()), Err(wanted.to_owned()), "{given}");
        }
    }

    #[test]
    fn words_are_typed_by_the_schema() {
        let words = ["path=true", "packages=a", "packages=b=c", "count=3", "latest=true", "env={\"A\": \"1\"}", "mode=0644"];
        let read = from_words(&schema(), &words).map(Value::Object);
        let wanted = json!({ "path": "true", "packages": ["a", "b=c"], "count": 3, "latest": true, "env": { "A": "1" }, "mode": "0644" });
        assert_eq!(read, Ok(wanted));
        assert_eq!(from_words(&schema(), &["packages=[\"a\", \"b\"]"]).map(Value::Object), Ok(json!({ "packages": ["a", "b"] })));
        let message = |words: &[&str]| from_words(&schema(), words).expect_err("an error").message;
        assert_eq!(message(&["count=x"]), "`count` takes a whole number, got `x`");
        assert_eq!(message(&["latest=maybe"]), "`latest` takes true or false, got `maybe`");
        assert_eq!(message(&["path=a", "path=b"]), "the argument `path` is given twice and takes one value");
        assert_eq!(message(&["nginx"]), "`nginx` is no argument");
    }
}
