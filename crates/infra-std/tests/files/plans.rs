//! A plan of several operations on files, made before any of them ran, is what then happens.

use crate::host::{ALL, Host, Tools};
use crate::overlay::{Overlay, Planned};
use crate::wishes::{a_wish, placed};
use infra_core::Value;
use infra_core::facts::Facts;
use infra_core::operation::SharedOperation;
use infra_test::facts::steps_of;
use proptest::prelude::*;
use serde_json::json;

fn operation(kind: &str, args: &Value) -> SharedOperation {
    let Value::Object(args) = args.clone() else { panic!("{args} is no map") };
    let registry = infra_std::registry();
    registry.operation(kind).expect("an operation").bind(args).unwrap_or_else(|error| panic!("{kind}: {error}"))
}

/// Plans all, then does each and compares. Gives how many were planned to change, to do nothing or be refused, and to depend.
fn plan_and_do(host: &Host, wishes: &[(&str, Value)]) -> (usize, usize, usize) {
    let operations: Vec<SharedOperation> = wishes.iter().map(|(kind, args)| operation(kind, args)).collect();
    let mut overlay = Overlay::new(host);
    let planned: Vec<Planned> = operations.iter().map(|operation| overlay.plan(&**operation)).collect();
    let mut counts = (0, 0, 0);
    for ((operation, planned), wish) in operations.iter().zip(planned).zip(wishes) {
        let now = operation.diff(&Facts::new(host));
        match (&planned, &now) {
            (Planned::Change(planned), Ok(now)) => {
                assert_eq!(planned.actions, now.actions, "{wish:?}");
                assert_eq!(planned.reason, now.reason, "{wish:?}");
                assert_eq!(planned.texts, now.texts, "{wish:?}");
                counts.0 += usize::from(!now.is_none());
                counts.1 += usize::from(now.is_none());
            }
            (Planned::Refused, Err(_)) => counts.1 += 1,
            (Planned::Depends, _) => counts.2 += 1,
            _ => panic!("{wish:?}: planned {planned:?}, now {now:?}"),
        }
        if let Ok(change) = now {
            host.apply(&change);
        }
    }
    counts
}

#[test]
fn a_site_on_an_empty_folder_is_planned_exactly() {
    for (tools, umask) in [(Tools::Dash, 0o022), (Tools::Bash, 0o077), (Tools::Busybox, 0o002)] {
        let host = Host::new(tools, umask);
        let at = |name: &str| host.at(name);
        let wishes = vec![
            ("files.directory", json!({ "path": at("srv/site"), "mode": "2750" })),
            ("files.template", json!({ "content": "hello {{ who }}\n", "dest": at("srv/site/index.html"), "vars": { "who": "you" } })),
            ("files.line", json!({ "path": at("srv/site/index.html"), "line": "hello", "replace": "bye" })),
            ("files.line", json!({ "path": at("srv/site/index.html"), "line": "^hello", "present": false })),
            ("files.file", json!({ "path": at("srv/site/index.html"), "mode": "604" })),
            ("files.put", json!({ "content": "x", "dest": at("srv/site/a/b/c"), "mode": "600" })),
            ("files.file", json!({ "path": at("srv/site/a/b/c"), "mode": "600" })),
            ("files.directory", json!({ "path": at("srv/site/a/b"), "mode": "711" })),
            ("files.link", json!({ "path": at("srv/current"), "target": "site" })),
            ("files.link", json!({ "path": at("srv/current"), "target": "site" })),
            ("files.directory", json!({ "path": at("srv/site/a"), "present": false })),
            ("files.file", json!({ "path": at("srv/site/a/b/c"), "present": false })),
            ("files.put", json!({ "content": "y", "dest": at("srv/site/a/b/c") })),
        ];
        let changes = wishes.len() - 4;
        assert_eq!(plan_and_do(&host, &wishes), (changes, 4, 0), "{tools:?}");
        assert_eq!(std::fs::read_to_string(at("srv/current/index.html")).ok().as_deref(), Some("bye\n"), "{tools:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_planned_is_what_happens(
        tools in prop::sample::select(ALL.to_vec()),
        umask in prop::sample::select(vec![0o022, 0o077]),
        wishes in proptest::collection::vec(a_wish(false), 1..8),
    ) {
        let host = Host::new(tools, umask);
        let wishes: Vec<_> = wishes.into_iter().filter_map(|(kind, args)| Some((kind, placed(&host, args)?))).collect();
        plan_and_do(&host, &wishes);
    }
}

#[test]
fn steps_are_written_as_examples_write_them() {
    let host = Host::new(Tools::Dash, 0o022);
    let change = operation("files.put", &json!({ "content": "x", "dest": host.at("a b") })).diff(&Facts::new(&host)).expect("a change");
    assert_eq!(steps_of(&change), [format!("upload '{}'", host.at("a b"))]);
}
