//! Judges entries of the registry by their own examples. Each function panics with the name of the entry and what is wrong with it.

use std::sync::Arc;

use infra_core::change::{Change, Effect};
use infra_core::example::{Example, Expected};
use infra_core::facts::DiffError;
use infra_core::operation::{Idempotence, SharedOperation};
use infra_core::registry::{FactDefinition, OperationDefinition, Registry};
use infra_core::resources::{Resource, Resources, is_within};
use infra_core::{Map, Value, arguments};

use crate::facts::{MadeUp, diff_fully, steps_of};

/// The most round trips that an operation may need to know what to do.
pub const MOST_ROUNDS: usize = 2;

/// Runs the examples of an operation and checks what is said of it.
///
/// # Panics
/// When an example does not hold; when there is none with a change, or none without one although the operation is idempotent; when it takes more
/// than [`MOST_ROUNDS`]; when a doc or the description of an argument is missing; when its `touches` do not cover what a change touches.
pub fn check_operation(definition: &OperationDefinition) {
    let name = &definition.name;
    check_docs(name, &definition.doc, &definition.schema);
    assert!(definition.examples.len() >= 2, "{name} has fewer than two examples");
    let expects = |wanted: fn(&Expected) -> bool| definition.examples.iter().any(|example| wanted(&example.expected));
    assert!(expects(|expected| matches!(expected, Expected::Steps(_))), "{name} has no example that changes something");
    if definition.idempotence == Idempotence::Idempotent {
        assert!(expects(|expected| matches!(expected, Expected::Nothing(_))), "{name} has no example that changes nothing");
    }
    for example in &definition.examples {
        check_operation_example(definition, example);
    }
}

fn check_operation_example(definition: &OperationDefinition, example: &Example) {
    let at = format!("{}, example «{}»", definition.name, example.title);
    let operation = bind(definition, example, &at);
    let result = diff_fully(&*operation, &made_up(example));
    match (&example.expected, result) {
        (Expected::Refused(wanted), Err(DiffError::Refused { message, .. })) => {
            assert!(message.contains(wanted), "{at}: expected a refusal with `{wanted}`, got `{message}`");
        }
        (_, Err(error)) => panic!("{at}: expected {:?}, got the error `{error}`", example.expected),
        (Expected::Refused(wanted), Ok((change, _))) => panic!("{at}: expected a refusal with `{wanted}`, got {:?}", steps_of(&change)),
        (Expected::Steps(wanted), Ok((change, rounds))) => {
            assert!(!wanted.is_empty(), "{at}: says no steps; write `nothing` with its reason");
            assert_eq!(&steps_of(&change), wanted, "{at}");
            check_change(&at, &*operation, &change, rounds);
        }
        (Expected::Nothing(wanted), Ok((change, rounds))) => {
            assert!(change.is_none(), "{at}: expected nothing to do, got {:?}", steps_of(&change));
            assert!(change.reason.contains(wanted), "{at}: expected a reason with `{wanted}`, got `{}`", change.reason);
            check_change(&at, &*operation, &change, rounds);
        }
    }
}

fn check_change(at: &str, operation: &dyn infra_core::operation::AnyOperation, change: &Change, rounds: usize) {
    assert!(rounds <= MOST_ROUNDS, "{at}: takes {rounds} rounds of facts, {MOST_ROUNDS} are allowed");
    assert!(!change.reason.trim().is_empty(), "{at}: the change gives no reason");
    if change.is_none() {
        assert!(change.effects.is_empty(), "{at}: nothing is done and yet it has effects");
    }
    let may_touch = operation.touches();
    let touches = change.touches.clone().unwrap_or_else(|| may_touch.clone());
    assert!(covers(&may_touch, &touches), "{at}: the change touches {touches:?}, the operation says it may touch {may_touch:?}");
    for effect in &change.effects {
        if let Effect::Node { path, .. } = effect {
            let path = Resources::Only([Resource::Path(infra_core::resources::normal_path(path))].into());
            assert!(covers(&touches, &path), "{at}: the effect on {path:?} is not among what it touches, {touches:?}");
        }
    }
}

/// Checks an operation's examples against the facts of a registry: the questions are known ones, and what a change foretells is touched by it.
///
/// # Panics
/// When a question of an example or of an effect does not bind, or a change foretells the answer of a fact that it does not touch.
pub fn check_operation_against(definition: &OperationDefinition, registry: &Registry) {
    for example in &definition.examples {
        let at = format!("{}, example «{}»", definition.name, example.title);
        let ask = |fact: &str, question: &Value| {
            let found = registry.fact(fact).unwrap_or_else(|| panic!("{at}: there is no fact {fact}"));
            let Value::Object(question) = question.clone() else { panic!("{at}: the question {question} of {fact} is no map") };
            found.bind(question).unwrap_or_else(|error| panic!("{at}: {fact}: {error}"))
        };
        for (fact, question, _) in &example.facts {
            ask(fact, question);
        }
        let operation = bind(definition, example, &at);
        let Ok((change, _)) = diff_fully(&*operation, &made_up(example)) else { continue };
        let touches = change.touches.clone().unwrap_or_else(|| operation.touches());
        for effect in &change.effects {
            // Who cannot ask yet has no answer that could change.
            if let Effect::Answer { fact, question, user: None, .. } = effect {
                let rests_on = ask(fact, question).rests_on();
                assert!(touches.overlaps(&rests_on), "{at}: foretells {fact} {question} but does not touch what it rests on, {rests_on:?}");
            }
        }
    }
}

/// Runs the examples of a fact and checks what is said of it.
///
/// # Panics
/// When an example does not hold, there is none, or a doc or the description of an argument is missing.
pub fn check_fact(definition: &FactDefinition) {
    let name = &definition.name;
    check_docs(name, &definition.doc, &definition.schema);
    assert!(!definition.examples.is_empty(), "{name} has no example");
    for example in &definition.examples {
        let Value::Object(question) = example.question.clone() else { panic!("{name}: the question {} is no map", example.question) };
        let fact = definition.bind(question).unwrap_or_else(|error| panic!("{name}: the question {} is none: {error}", example.question));
        assert_eq!(fact.question(), example.question, "{name}: the question does not survive being read");
        assert!(fact.command().stdin.is_none(), "{name}: a fact reads nothing from its standard input");
        assert!(!fact.command().script.as_str().trim().is_empty(), "{name}: the command is empty");
        match fact.parse(&example.output) {
            Ok(answer) => assert_eq!(answer, example.answer, "{name}: asked {}", example.question),
            Err(error) => panic!("{name}: asked {}: {error}", example.question),
        }
    }
}

fn check_docs(name: &str, doc: &str, schema: &Value) {
    assert!(!doc.trim().is_empty(), "{name} has no doc");
    assert!(doc.trim_end().ends_with('.'), "{name}: the doc does not end in a full stop: {doc}");
    for argument in arguments::names(schema) {
        let own = schema.get("properties").and_then(|all| all.get(argument)).and_then(|property| property.get("description"));
        let resolved = arguments::property(schema, argument).and_then(|property| property.get("description"));
        let text = own.or(resolved).and_then(Value::as_str).unwrap_or_default();
        assert!(!text.trim().is_empty(), "{name}: the argument `{argument}` has no description");
        assert!(text.trim_end().ends_with('.'), "{name}: the description of `{argument}` does not end in a full stop: {text}");
    }
}

fn bind(definition: &OperationDefinition, example: &Example, at: &str) -> SharedOperation {
    let Value::Object(args) = example.args.clone() else { panic!("{at}: the arguments are no map") };
    let args: Map = args;
    match definition.bind(args) {
        Ok(operation) => Arc::clone(&operation),
        Err(error) => panic!("{at}: the arguments do not fit: {error}"),
    }
}

fn made_up(example: &Example) -> MadeUp {
    let table = example.facts.iter().fold(MadeUp::new(), |table, (fact, question, answer)| table.json(fact, question, answer));
    let table = example.absent_locals.iter().fold(table, |table, path| table.no_local(path));
    example.locals.iter().fold(table, |table, (path, content)| table.local(path, *content))
}

/// Whether all of `inner` is within `outer`.
fn covers(outer: &Resources, inner: &Resources) -> bool {
    let (Resources::Only(outer), Resources::Only(inner)) = (outer, inner) else { return *outer == Resources::Everything };
    inner.iter().all(|resource| {
        outer.iter().any(|wider| match (wider, resource) {
            (Resource::Tree(tree), Resource::Path(path) | Resource::Tree(path)) => is_within(path, tree),
            _ => wider == resource,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_covers_what_is_below_it() {
        assert!(covers(&Resources::tree("/srv"), &Resources::path("/srv/a")));
        assert!(covers(&Resources::Everything, &Resources::tree("/")));
        assert!(covers(&Resources::path("/a"), &Resources::none()));
        assert!(!covers(&Resources::path("/srv"), &Resources::path("/srv/a")));
        assert!(!covers(&Resources::tree("/srv"), &Resources::Everything));
        assert!(!covers(&Resources::none(), &Resources::path("/a")));
    }
}
