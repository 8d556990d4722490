//! Mistakes that plans have made once, each by its name.

use std::sync::Arc;

use infra_core::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::chains::{Given, lay};
use crate::world::{Call, Done, Look, Seen, Word, listing, run};

use Word::{Change, Depends, Failure, Nothing};

/// Plans and runs calls in a folder with this in it. `R` in an argument is that folder.
fn done(ground: &[Given], calls: &[(&str, Value)]) -> Vec<Done> {
    let folder = TempDir::new().expect("a folder");
    let root = folder.path().to_path_buf();
    lay(&root, ground);
    let place = |value: &Value| match value {
        Value::String(text) => Value::String(text.replace("R/", &format!("{}/", root.display()))),
        other => other.clone(),
    };
    let calls: Vec<Call> = calls
        .iter()
        .map(|(kind, args)| {
            let args = args.as_object().expect("a map").iter().map(|(name, value)| (name.clone(), place(value)));
            ((*kind).to_owned(), Value::Object(args.collect()))
        })
        .collect();
    let look: Look = Arc::new(move || Seen { listing: listing(&root), fulfilled: Vec::new() });
    run("@local", &calls, look).expect("a run")
}

/// What the plan says is what happens: word for word, and as it is written here.
#[track_caller]
fn foretold(ground: &[Given], calls: &[(&str, Value)], words: &[Word]) {
    let done = done(ground, calls);
    let planned: Vec<Word> = done.iter().map(|one| one.planned.0).collect();
    let outcomes: Vec<Word> = done.iter().map(|one| one.outcome.0).collect();
    assert_eq!(planned, words, "the plan; {done:#?}");
    assert_eq!(outcomes, words, "the run; {done:#?}");
}

#[test]
fn a_link_to_what_is_made_only_now() {
    foretold(
        &[Given::Link("m", "l")],
        &[("files.file", json!({ "path": "R/l/e" })), ("files.directory", json!({ "path": "R/m" }))],
        &[Change, Nothing],
    );
}
