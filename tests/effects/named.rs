//! Mistakes that plans have made once, each by its name.

use std::sync::Arc;

use infra_core::Value;
use serde_json::json;
use tempfile::TempDir;

use crate::chains::{Given, lay};
use crate::world::{Call, Done, Look, Seen, Word, listing, run};

use Word::{Change, Depends, Nothing};

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
    let look: Look = Arc::new(move || Seen { listing: listing(&root), ..Seen::default() });
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
fn a_link_leads_to_what_is_made_only_now() {
    let calls = [("files.file", json!({ "path": "R/l/e" })), ("files.directory", json!({ "path": "R/m" }))];
    foretold(&[Given::Link("m", "l")], &calls, &[Change, Nothing]);
}

#[test]
fn a_file_is_put_through_a_link_that_dangles_until_then() {
    // The host was refused: what stood there was no file.
    let calls = [
        ("files.put", json!({ "dest": "R/d/a", "content": "one\n" })),
        ("files.put", json!({ "dest": "R/l", "content": "two\n" })),
        ("files.line", json!({ "path": "R/d/a", "line": "two" })),
        ("files.line", json!({ "path": "R/l", "line": "one", "present": false })),
    ];
    foretold(&[Given::Link("l", "d/a")], &calls, &[Change, Change, Nothing, Nothing]);
}

#[test]
fn a_text_is_known_through_a_change_of_mode() {
    let calls = [
        ("files.file", json!({ "path": "R/a", "mode": "600" })),
        ("files.line", json!({ "path": "R/a", "line": "one" })),
        ("files.line", json!({ "path": "R/a", "line": "two" })),
        ("files.file", json!({ "path": "R/a", "mode": "640" })),
        ("files.put", json!({ "dest": "R/a", "content": "one\ntwo\n", "mode": "640" })),
    ];
    foretold(&[Given::File("a", "one\n", 0o644)], &calls, &[Change, Nothing, Change, Change, Nothing]);
}

#[test]
fn the_time_of_a_file_is_known_through_a_change_of_mode() {
    let put = json!({ "dest": "R/a", "content": "one\n", "mtime": 1_700_000_000 });
    let calls = [("files.put", put.clone()), ("files.file", json!({ "path": "R/a", "mode": "600" })), ("files.put", put)];
    foretold(&[], &calls, &[Change, Change, Nothing]);
}

#[test]
fn what_is_written_through_a_link_is_known_by_its_other_name() {
    let calls = [
        ("files.put", json!({ "dest": "R/l/a", "content": "one\n", "mode": "600" })),
        ("files.put", json!({ "dest": "R/d/a", "content": "one\n", "mode": "600" })),
        ("files.file", json!({ "path": "R/m", "mode": "644" })),
        ("files.file", json!({ "path": "R/d/a", "mode": "644" })),
        ("files.directory", json!({ "path": "R/l", "mode": "750" })),
        ("files.directory", json!({ "path": "R/d", "mode": "750" })),
    ];
    let ground = [Given::Directory("d", 0o755), Given::Link("l", "d"), Given::Link("m", "l/a")];
    foretold(&ground, &calls, &[Change, Nothing, Change, Nothing, Change, Nothing]);
}

#[test]
fn a_link_that_is_turned_leads_elsewhere_for_all_after_it() {
    let calls = [
        ("files.put", json!({ "dest": "R/l/a", "content": "new\n" })),
        ("files.link", json!({ "path": "R/l", "target": "e" })),
        ("files.put", json!({ "dest": "R/l/a", "content": "new\n" })),
        ("files.put", json!({ "dest": "R/d/a", "content": "new\n" })),
        ("files.put", json!({ "dest": "R/e/a", "content": "new\n" })),
        ("files.line", json!({ "path": "R/l/b", "line": "there" })),
    ];
    let ground = [Given::Directory("d", 0o755), Given::Directory("e", 0o755), Given::File("e/b", "there\n", 0o644), Given::Link("l", "d")];
    foretold(&ground, &calls, &[Change, Change, Change, Nothing, Nothing, Nothing]);
}

#[test]
fn what_was_not_there_before_a_link_was_made_is_asked_again_in_the_run() {
    // The answer of before the link was kept, and the file written once more.
    let calls = [
        ("files.put", json!({ "dest": "R/d/e", "content": "one\n" })),
        ("files.link", json!({ "path": "R/l", "target": "d" })),
        ("files.put", json!({ "dest": "R/l/e", "content": "one\n" })),
    ];
    foretold(&[], &calls, &[Change, Change, Nothing]);
}

#[test]
fn two_wishes_that_undo_each_other_both_change_something_at_each_run() {
    let calls = [
        ("files.put", json!({ "dest": "R/a", "content": "one\n" })),
        ("files.line", json!({ "path": "R/a", "line": "two" })),
        ("files.put", json!({ "dest": "R/a", "content": "one\n" })),
        ("files.line", json!({ "path": "R/a", "line": "two" })),
    ];
    foretold(&[], &calls, &[Change, Change, Change, Change]);
    foretold(&[Given::File("a", "one\ntwo\n", 0o644)], &calls, &[Change, Change, Change, Change]);
}

#[test]
fn what_nobody_can_know_depends() {
    let calls = [
        ("files.link", json!({ "path": "R/l", "target": "e" })),
        ("server.shell", json!({ "commands": ["true"] })),
        ("files.line", json!({ "path": "R/l/b", "line": "there" })),
        ("files.put", json!({ "dest": "R/a", "content": "one\n" })),
    ];
    let done = done(&[Given::Directory("e", 0o755), Given::File("e/b", "there\n", 0o644)], &calls);
    assert_eq!(done.iter().map(|one| one.planned.0).collect::<Vec<_>>(), [Change, Change, Depends, Depends]);
    assert_eq!(done.iter().map(|one| one.outcome.0).collect::<Vec<_>>(), [Change, Change, Nothing, Change]);
}

#[test]
fn a_relative_path_is_where_the_session_is() {
    // It might have been the file that is put before, as far as the plan knew.
    let calls = [
        ("files.put", json!({ "dest": "R/a", "content": "one\n" })),
        ("files.file", json!({ "path": "nobody-has-this", "present": false })),
    ];
    foretold(&[], &calls, &[Change, Nothing]);
}
