//! Calls of operations on files, made up at random.

use infra_core::Value;
use proptest::prelude::*;
use serde_json::json;

use crate::host::{Host, is_root};

fn a_path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b c", "d", "d/e", "d/e/f", "d/$x\n'", "l", "l/under", "d/.."])
        .prop_filter("names a thing", |path| *path != "d/..")
}

fn an_owner(numbers: bool) -> impl Strategy<Value = Option<&'static str>> {
    let mut names = if is_root() { vec![None, Some("daemon"), Some("root")] } else { vec![None] };
    if numbers && is_root() {
        names.push(Some("1"));
    }
    prop::sample::select(names)
}

fn a_mode() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![
        None,
        Some("644"),
        Some("600"),
        Some("755"),
        Some("2775"),
        Some("4711"),
        Some("+x"),
        Some("go-w"),
        Some("u=rwX,g=u,o="),
    ])
}

/// A call of an operation on files, with paths below the root of a host; owners by number as well, if `numbers`. A plan cannot know that
/// the
/// number 1 is the user daemon, whom an earlier call named.
pub fn a_wish(numbers: bool) -> impl Strategy<Value = (&'static str, Value)> {
    let common = (a_path(), an_owner(numbers), an_owner(numbers), a_mode(), any::<[bool; 5]>(), a_path(), 0..6_usize);
    common.prop_map(|(path, user, group, mode, [present, force, backup, create, extra], other, kind)| {
        let owned = json!({ "path": path, "user": user, "group": group, "present": present || extra, "force": force, "force_backup": backup });
        let with = |more: Value| {
            let (Value::Object(mut all), Value::Object(more)) = (owned.clone(), more) else { panic!("maps") };
            all.extend(more);
            Value::Object(all)
        };
        match kind {
            0 => ("files.file", with(json!({ "mode": mode, "create_remote_dir": create }))),
            1 => {
                let recursive = extra && (user.is_some() || group.is_some() || mode.is_some());
                // Whoever is not root must not lock themselves out.
                let mode = match mode {
                    Some("644" | "600") if !is_root() => Some("700"),
                    mode => mode,
                };
                ("files.directory", with(json!({ "mode": mode, "recursive": recursive })))
            }
            2 => ("files.link", with(json!({ "target": other, "create_remote_dir": create }))),
            3 => ("files.link", with(json!({ "target": other, "create_remote_dir": create, "symbolic": false }))),
            4 => {
                let content = if extra { "a\nb\n" } else { "c" };
                let put = json!({ "dest": path, "content": content, "user": user, "group": group, "mode": mode, "force": force, "create_remote_dir": create });
                ("files.put", put)
            }
            _ => ("files.line", json!({ "path": path, "line": if extra { "a" } else { "x+" }, "present": present })),
        }
    })
}

/// The same with the paths of a host; none where the arguments exclude each other.
pub fn placed(host: &Host, mut args: Value) -> Option<Value> {
    for name in ["path", "dest"] {
        if let Some(path) = args.get(name).and_then(Value::as_str).map(|path| host.at(path)) {
            args[name] = Value::String(path);
        }
    }
    if args.get("symbolic") == Some(&Value::Bool(false)) {
        args["target"] = Value::String(host.at(args["target"].as_str()?));
        let (path, target) = (args["path"].as_str()?, args["target"].as_str()?);
        if target == path || target.starts_with(&format!("{path}/")) {
            return None;
        }
    }
    let Value::Object(mut all) = args else { return None };
    all.retain(|_, value| !value.is_null());
    Some(Value::Object(all))
}
