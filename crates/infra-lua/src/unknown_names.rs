//! Names of operations, their arguments and facts that do not exist, and what may have been meant.

use infra_core::arguments;
use infra_core::diagnostic::{Diagnostic, did_you_mean, nearest};
use infra_core::registry::Registry;

use crate::operations::{global_arguments, is_global_argument};

/// Of all names with this beginning, what follows it.
fn within<'r>(names: impl Iterator<Item = &'r str>, module: &str) -> Vec<&'r str> {
    names.filter_map(|name| name.strip_prefix(module)?.strip_prefix('.')).collect()
}

/// Whether this is the name of a module of operations.
pub(crate) fn is_module(registry: &Registry, name: &str) -> bool {
    !within(registry.operations().map(|operation| &*operation.name), name).is_empty()
}

/// There is no operation `module.key`.
pub(crate) fn operation(registry: &Registry, module: &str, key: &str) -> Diagnostic {
    let kind = format!("{module}.{key}");
    let inside = within(registry.operations().map(|operation| &*operation.name), module);
    let hint = nearest(key, inside.iter().copied())
        .map(|near| format!("did you mean `{module}.{near}`?"))
        .or_else(|| registry.nearest_operation(&kind))
        .or_else(|| registry.fact(&kind).map(|_| format!("it is a fact: write host:fact(\"{kind}\", {{ … }})")))
        .unwrap_or_else(|| format!("`{module}` has {}", inside.join(", ")));
    Diagnostic::misuse(format!("there is no operation `{kind}`")).hint(hint)
}

/// There is no fact with this name.
pub(crate) fn fact(registry: &Registry, name: &str) -> Diagnostic {
    let inside = || {
        let (module, _) = name.split_once('.')?;
        let inside = within(registry.facts().map(|fact| &*fact.name), module);
        (!inside.is_empty()).then(|| format!("the facts of `{module}` are {}", inside.join(", ")))
    };
    let is_operation = || registry.operation(name).map(|_| format!("it is an operation: write {name} {{ … }}"));
    let hint = registry.nearest_fact(name).or_else(is_operation).or_else(inside);
    Diagnostic::misuse(format!("there is no fact `{name}`")).maybe_hint(hint)
}

/// Why an operation has no argument with this name; none where it has one.
pub(crate) fn argument(registry: &Registry, kind: &str, name: &str) -> Option<Diagnostic> {
    let schema = &registry.operation(kind)?.schema;
    let plain = name.strip_prefix('_');
    if name == "name" || arguments::property(schema, name).is_some() || plain.is_some_and(is_global_argument) {
        return None;
    }
    let known = arguments::names(schema);
    let hint = did_you_mean(name, known.iter().copied().chain(global_arguments()))
        .or_else(|| is_global_argument(name).then(|| format!("did you mean `_{name}`?")))
        .unwrap_or_else(|| format!("the arguments of {kind} are {}", known.join(", ")));
    Some(Diagnostic::misuse(format!("{kind}: there is no argument `{name}`")).hint(hint))
}
