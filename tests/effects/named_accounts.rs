//! Mistakes that plans about users and groups have made once, each by its name.

use std::sync::Arc;

use infra_core::Value;
use serde_json::json;

use crate::accounts::{Ground, System};
use crate::world::{Call, Look, Word, run};

use Word::{Change, Depends, Nothing};

/// Plans and runs calls in a system of its own, which has these users (with their homes), the group g1 where that is wished, and files of the first user's number.
#[track_caller]
fn comes_to(ground: &Ground, calls: &[(&str, Value)], planned: &[Word], outcomes: &[Word]) {
    let system = System::new();
    system.lay(ground);
    let calls: Vec<Call> = calls.iter().map(|(kind, arguments)| ((*kind).to_owned(), arguments.clone())).collect();
    let root = system.root().to_owned();
    let look: Look = Arc::new(move || System::look(&root, &[]));
    let done = run(&format!("@chroot{}", system.root().display()), &calls, look).expect("a run");
    assert_eq!(done.iter().map(|one| one.planned.0).collect::<Vec<_>>(), planned, "the plan; {done:#?}");
    assert_eq!(done.iter().map(|one| one.outcome.0).collect::<Vec<_>>(), outcomes, "the run; {done:#?}");
}

fn ground(users: &[bool], file: Option<&'static str>) -> Ground {
    let users = users.iter().map(|there| (*there, *there, false)).collect();
    Ground { users, groups: vec![true, false], files: file.map(|path| (path, 0)).into_iter().collect() }
}

#[test]
fn a_file_is_not_its_owners_any_more_when_the_owner_has_another_number() {
    // Nothing was done about the file, and it went on being the old number's.
    let calls = [("server.user", json!({ "user": "u1", "uid": 500 })), ("files.file", json!({ "path": "/srv/t/a", "user": "u1" }))];
    comes_to(&ground(&[true], Some("/srv/t/a")), &calls, &[Change, Depends], &[Change, Change]);
    let owned = json!({ "path": "/srv/t/a", "group": "g1" });
    let calls = [("files.file", owned.clone()), ("server.group", json!({ "group": "g1", "gid": 700 })), ("files.file", owned)];
    comes_to(&ground(&[true], None), &calls, &[Change, Change, Depends], &[Change, Change, Change]);
}

#[test]
fn a_file_without_an_owner_may_be_that_of_a_user_who_is_made() {
    // The file was said to change hands, and it had not to.
    let calls = [("server.user", json!({ "user": "u1", "uid": 1001 })), ("files.file", json!({ "path": "/srv/t/a", "user": "u1" }))];
    comes_to(&ground(&[false], Some("/srv/t/a")), &calls, &[Change, Depends], &[Change, Nothing]);
    // One that has an owner is not asked about again.
    let calls = [("server.user", json!({ "user": "u2" })), ("files.file", json!({ "path": "/srv/t/a", "user": "u1" }))];
    comes_to(&ground(&[true], Some("/srv/t/a")), &calls, &[Change, Nothing], &[Change, Nothing]);
}

#[test]
fn what_becomes_of_another_user_changes_nothing_for_who_works() {
    // All that came after it was said to depend on it.
    let calls = [
        ("server.user", json!({ "user": "u1", "groups": ["g1"], "shell": "/bin/bash" })),
        ("files.put", json!({ "dest": "/home/u1/a", "content": "one\n", "user": "u1" })),
        ("server.group", json!({ "group": "g2" })),
    ];
    comes_to(&ground(&[true], None), &calls, &[Change, Change, Change], &[Change, Change, Change]);
}

#[test]
fn the_group_of_a_user_goes_with_the_user() {
    let calls = [
        ("server.user", json!({ "user": "u1", "create_home": true })),
        ("server.user", json!({ "user": "u1", "present": false })),
        ("server.group", json!({ "group": "u1", "present": false })),
        ("server.user", json!({ "user": "u2", "group": "g1" })),
        ("server.user", json!({ "user": "u2", "present": false })),
        ("server.group", json!({ "group": "u2", "present": false })),
    ];
    let words = [Change, Change, Nothing, Change, Change, Change];
    comes_to(&ground(&[false, true], None), &calls, &words, &words);
}

#[test]
fn a_group_that_a_new_user_has_first_is_not_removed() {
    // The plan compared numbers, which it does not know, and said that the group goes.
    let calls = [("server.user", json!({ "user": "u1" })), ("server.group", json!({ "group": "u1", "present": false }))];
    comes_to(&ground(&[false], None), &calls, &[Change, Depends], &[Change, Word::Failure]);
}
