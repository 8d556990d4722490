//! What only the run can tell: open outlooks, and operations in the body of a `call`.

use infra_core::diagnostic::Location;
use infra_core::event::{Event, HostResult, RunKind};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_report::Json;
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::bench::*;

/// An operation in the body of the second operation has ended.
pub fn within(host: u32, title: &str, line: u32, result: HostResult) -> Event {
    Event::WithinCall {
        op: OpId(1),
        host: HostId(host),
        kind: "server.shell".into(),
        title: title.into(),
        location: Some(Location { file: "deploy.lua".into(), line }),
        result: Box::new(result),
    }
}

/// On so many hosts: a token, a call that fails on the first of them, and what comes after it.
pub fn joined(hosts: u32) -> Run {
    let on = |outlook: infra_core::plan::Outlook| (0..hosts).map(move |host| (host, outlook.clone()));
    let op = OpId(1);
    let no_disk = || exited(1, "join --token abc", &["no space left on device"]);
    let inside = exited(1, "join --token abc", &["no space left on device"]);
    let outer = infra_core::event::Failure { message: "«Join»: exited with 1".into(), ..no_disk() };
    let start = |host| Event::HostOperationStarted { op, host: HostId(host) };
    let end = |host, result| Event::HostOperationEnded { op, host: HostId(host), result: Box::new(result) };
    Run::fleet(RunKind::Deploy, hosts)
        .connected()
        .planned(vec![
            operation("Make a token", 3, on(change("run", &["on lb-01: token"]))),
            operation("Join the cluster", 5, on(open())),
            operation("Label the node", 15, on(depends("Join the cluster", None))),
        ])
        .then(Event::Executing)
        .operation(0, (0..hosts).map(|host| (host, changed("run", 0.0))))
        .then(Event::OperationStarted { op })
        .each((0..hosts).map(start))
        .each((0..hosts).map(|host| within(host, "Forget the old one", 6, unchanged("none is there"))))
        .then(within(0, "Join", 8, failed(inside, 0.0)))
        .then(end(0, HostResult { steps_done: 0, ..failed(outer, 2.0) }))
        .each(
            (1..hosts).flat_map(|host| [within(host, "Join", 8, changed("run", 0.0)), end(host, changed("1 of 2 operations in it", 2.0))]),
        )
        .then(Event::OperationEnded { op })
        .operation(2, (1..hosts).map(|host| (host, changed("run", 0.0))))
        .ended()
}

#[test]
fn each_operation_of_a_body_has_a_line() {
    assert_snapshot!(joined(2).human(0), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        operation         change  no change  depends on
        Make a token      2       -          -
        Join the cluster  -       -          2, decided in its turn
        Label the node    -       -          2 on «Join the cluster»

        3 operations on 2 hosts: 2 will change, 2 depending on an earlier one, 2 decided when the turn comes.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 2 hosts
    [web-01] Make a token: changed: run
    [web-02] Make a token: changed: run
    [web-01] Join the cluster › Forget the old one: no change
    [web-02] Join the cluster › Forget the old one: no change
    [web-01] Join the cluster › Join: failed: exited with 1
    [web-01] Join the cluster: failed: «Join»: exited with 1 (2.0 s)
        at deploy.lua:5
        > join --token abc
        | no space left on device
    [web-02] Join the cluster › Join: changed: run
    [web-02] Join the cluster: changed: 1 of 2 operations in it (2.0 s)
    [web-02] Label the node: changed: run
    --> Results
        host    changed  no change  failed  not started  state
        web-01        1          -       1            1  failed
        web-02        3          -       -            -  changed

    2 hosts: 1 changed, 1 failed
        failed: web-01

        To go on from there: infra fleet.lua deploy.lua --limit web-01
    ");
}

#[test]
fn equal_lines_of_bodies_are_folded_in_a_large_fleet() {
    let text = joined(30).human(0);
    let shown: Vec<&str> = text.lines().filter(|line| line.contains('›')).collect();
    assert_snapshot!(shown.join("\n"), @r"
    [web-[01-30]] Join the cluster › Forget the old one: no change (30 hosts)
    [web-01] Join the cluster › Join: failed: exited with 1
    [web-[02-30]] Join the cluster › Join: changed: run (29 hosts)
    ");
}

#[test]
fn the_plan_says_by_what_an_operation_is_open() {
    let text = joined(2).human(1);
    let plan = text.split_once("--> Plan\n").unwrap().1.split_once("--> Running").unwrap().0;
    assert_snapshot!(plan, @r"
    operation         change  no change  depends on
    Make a token      2       -          -
        server.shell, deploy.lua:3
        [web-[01-02]] change: run
            > on lb-01: token
    Join the cluster  -       -          2, decided in its turn
        server.shell, deploy.lua:5
        [web-[01-02]] open: decided by the script when its turn comes
    Label the node    -       -          2 on «Join the cluster»
        server.shell, deploy.lua:15
        [web-[01-02]] depends: on «Join the cluster»

    3 operations on 2 hosts: 2 will change, 2 depending on an earlier one, 2 decided when the turn comes.
    A host that fails takes no further part; the others go on.
    ");
}

#[test]
fn the_document_has_the_body_under_its_call() {
    let kept = Kept::default();
    joined(2).give(Json::new(kept.boxed(), None));
    let document: Value = serde_json::from_str(&kept.text()).unwrap();
    assert_eq!(document["plan"]["operations"][1]["hosts"]["web-01"], json!({ "outlook": "depends", "on": null, "would": null }));
    let operations = &document["hosts"]["web-01"]["operations"];
    let within = operations[1]["within"].as_array().unwrap();
    assert_eq!(within.iter().map(|one| one["title"].as_str().unwrap()).collect::<Vec<_>>(), ["Forget the old one", "Join"]);
    assert_eq!(within[1]["location"], json!({ "file": "deploy.lua", "line": 8 }));
    assert_eq!((&within[1]["operation"], &within[1]["outcome"]), (&json!("server.shell"), &json!("failed")));
    assert_eq!((&within[1]["failure"]["step"], &within[1]["id"]), (&json!("join --token abc"), &Value::Null));
    assert_eq!((&operations[0]["within"], &operations[1]["id"]), (&Value::Null, &json!(1)));
}
