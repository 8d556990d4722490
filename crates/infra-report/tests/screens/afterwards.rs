//! Differences of files, departures from the plan, proofs and counts: on the screen, in the document, and read back from the journal.

use std::sync::Arc;

use infra_core::change::TextChange;
use infra_core::connection::Traffic;
use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::operation::Idempotence;
use infra_core::plan::{OpId, Outlook, Plan, PlannedOperation};
use infra_report::journal::{Record, render_run, render_runs, run_document};
use infra_report::{Json, ScreenSettings, holds_diffs, render_diffs};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::bench::*;

fn plan_of(operations: Vec<PlannedOperation>) -> Arc<Plan> {
    let operations = operations.into_iter().zip(0..).map(|(one, id)| PlannedOperation { id: OpId(id), ..one }).collect();
    Arc::new(Plan { operations, ..Plan::default() })
}

fn motd(host: &str) -> Outlook {
    change_text("content", "/etc/motd", "hello\n", &format!("hello\nthis is {host}\n"))
}

fn page() -> TextChange {
    TextChange { path: "/srv/page".into(), before: "v1\n".into(), after: "v\u{1b}2\n".into(), withheld: None }
}

fn operations() -> Vec<PlannedOperation> {
    vec![
        operation("Motd", 1, [(0, motd("web")), (1, motd("web")), (2, motd("db"))]),
        operation("Page", 2, (0..3).map(|host| (host, depends("Motd", None)))),
        operation("Tool", 3, [(0, none("is there")), (1, none("is there")), (2, none("is there"))]),
    ]
}

fn texts(op: u32, host: u32, texts: Vec<TextChange>) -> Event {
    Event::TextsChanged { op: OpId(op), host: HostId(host), texts: Arc::new(texts) }
}

/// A run with differences in its plan and more of them in the run, which did not keep to its plan, and which a second look does not prove.
fn run() -> Run {
    let planned = |host: usize| match &operations()[0].hosts[host].outlook {
        Outlook::Change { texts, .. } => texts.clone(),
        _ => Vec::new(),
    };
    let shell =
        PlannedOperation { idempotence: Idempotence::NotIdempotent, ..operation("Restart", 4, [(0, change("run 1 command", &["x"]))]) };
    let again = |outlook: fn() -> Outlook| PlannedOperation {
        idempotence: Idempotence::Idempotent,
        ..operation("Motd", 1, (0..2).map(|host| (host, outlook())))
    };
    let left = vec![again(|| change("content", &["upload 8 B to /etc/motd"])), again(|| depends("Restart", Some("create"))), shell];
    let traffic = |host, round_trips, commands| (HostId(host), Traffic { round_trips, commands });
    let started = |op| Event::OperationStarted { op: OpId(op) };
    Run::fleet(RunKind::Deploy, 3)
        .connected()
        .planned(operations())
        .then(Event::Executing)
        .then(started(0))
        .each((0..2).map(|host| texts(0, host, planned(host as usize))))
        .operation(0, [(0, changed("content", 0.0)), (1, changed("content", 0.0)), (2, unchanged("as wished"))])
        .then(started(1))
        .each((0..3).map(|host| texts(1, host, vec![page()])))
        .operation(1, (0..3).map(|host| (host, changed("content", 0.0))))
        .operation(2, [(0, unchanged("is there")), (1, changed("create", 0.0)), (2, changed("create", 0.0))])
        .then(Event::Proving)
        .then(Event::HostPrepared { host: HostId(0), operations: 3 })
        .then(Event::Log { host: HostId(0), text: "said once more".into() })
        .then(Event::Proved { plan: plan_of(left), strict: false })
        .then(Event::Counted { hosts: vec![traffic(0, 9, 2), traffic(1, 7, 1), traffic(2, 12, 4)] })
        .ended()
}

#[test]
fn differences_stand_before_the_plan_and_in_the_run_where_the_plan_had_none() {
    let (human, _) = run().shown(ScreenSettings { diff: true, ..settings() });
    assert_snapshot!(human, @r"
    --> Connecting to 3 hosts
    --> Preparing 3 hosts
    --> Differences
        [web-[01-02]] Motd
        --- /etc/motd
        +++ /etc/motd
        @@ -1 +1,2 @@
         hello
        +this is web
        [web-03] Motd
        --- /etc/motd
        +++ /etc/motd
        @@ -1 +1,2 @@
         hello
        +this is db
    --> Plan
        operation  change  no change  depends on
        Motd       3       -          -
        Page       -       -          3 on «Motd»
        Tool       -       3          -

        3 operations on 3 hosts: 3 will change, 3 no change, 3 depending on an earlier one.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 3 hosts
    [web-01] Motd: changed: content
    [web-02] Motd: changed: content
    [web-03] Motd: no change
    [web-01] Page: changed: content
    [web-02] Page: changed: content
    [web-03] Page: changed: content
        [web-[01-03]] Page (3 hosts)
        --- /srv/page
        +++ /srv/page
        @@ -1 +1 @@
        -v1
        +v\u{1b}2
    [web-01] Tool: no change
    [web-02] Tool: changed: create
    [web-03] Tool: changed: create
    --> Preparing 3 hosts again, to prove that nothing is left to do
    --> Results
        host    changed  no change  failed  state
        web-01        2          1       -  changed
        web-02        3          -       -  changed
        web-03        2          1       -  changed

    3 hosts: 3 changed
        not as planned (drift or a defect):
            [web-03] Motd: was to change, and there was nothing to do: as wished
            [web-[02-03]] Tool: was to find nothing to do, and changed: create
        not proved: prepared again, this would change or may:
            [web-[01-02]] Motd: would change: content
            [web-[01-02]] Motd: depends on «Restart» (as the host stands now: create)
        not idempotent by nature, and not counted (--prove=strict counts them):
            [web-01] Restart: would change: run 1 command
    ");
}

#[test]
fn more_is_said_of_the_wire() {
    let human = run().human(1);
    assert!(human.contains("    wire: round trips 7 / 9 / 12, commands 1 / 2 / 4 (min / median / max of a host)\n"), "{human}");
    assert!(human.contains("said once more"), "{human}");
    let (with_diff, _) = run().shown(ScreenSettings { diff: true, verbosity: 1, ..settings() });
    assert_eq!(with_diff.matches("+this is db").count(), 1, "not once more in the details:\n{with_diff}");
    assert_eq!(human.matches("+this is db").count(), 1, "{human}");
}

#[test]
fn a_proof_that_holds_says_so() {
    let run = |strict| {
        let at_rest = plan_of(vec![operation("Motd", 1, [(0, none("as wished"))])]);
        Run::fleet(RunKind::Deploy, 1)
            .connected()
            .planned(vec![operation("Motd", 1, [(0, none("as wished"))])])
            .then(Event::Executing)
            .operation(0, [(0, unchanged("as wished"))])
            .then(Event::Proving)
            .then(Event::Proved { plan: at_rest, strict })
            .ended()
    };
    let human = run(true).human(0);
    assert!(human.contains("--> Preparing 1 host again, to prove that nothing is left to do\n"), "{human}");
    assert!(human.ends_with("1 host: 1 unchanged\n    proved: prepared again, nothing would change\n"), "{human}");
}

#[test]
fn a_second_look_at_the_plan_is_told() {
    let plan = |outlook| plan_of(vec![operation("Motd", 1, [(0, outlook)])]);
    let run = Run::fleet(RunKind::Deploy, 1)
        .connected()
        .planned(vec![operation("Motd", 1, [(0, motd("web"))])])
        .then(Event::Rechecking)
        .then(Event::PlanReady { plan: plan(none("as wished")) })
        .then(Event::Rechecking)
        .then(Event::PlanStands)
        .then(Event::Executing)
        .ended();
    let human = run.human(0);
    let stages: Vec<_> = human.lines().filter(|line| line.starts_with("-->")).collect();
    let again = "--> Preparing 1 host again, since what is known has become old";
    let wanted = ["--> Connecting to 1 host", "--> Preparing 1 host", "--> Plan", again, "--> Plan", again, "--> The plan is still right"];
    assert_eq!(stages[..7], wanted, "{human}");
}

#[test]
fn who_asks_sees_the_differences_of_a_plan() {
    let plan = plan_of(operations());
    let text = render_diffs(&plan, |host| ["web-01", "web-02", "db"][host.0 as usize], 0, 80, false);
    assert!(text.starts_with("--> Differences\n    [web-[01-02]] Motd\n    --- /etc/motd\n") && text.contains("[db] Motd"), "{text}");
    assert!(render_diffs(&plan, |_| "x", 0, 80, true).contains("\u{1b}["));
    assert!(holds_diffs(&plan) && !holds_diffs(&Plan::default()));
    assert_eq!(render_diffs(&Plan::default(), |_| "x", 0, 80, false), "");
}

#[test]
fn the_journal_keeps_it() {
    let record = Record::read(crate::journal::written(&run()).text().as_bytes()).unwrap();
    let shown = render_run(&record, 1, 100, false);
    let human = run().human(1);
    let end = |text: &str| text[text.find("    not as planned").expect("departures")..].to_owned();
    assert_eq!(end(&shown), end(&human));
    assert!(render_runs(std::slice::from_ref(&record), 140, false).contains("3 changed, not proved\n"));
    let document: Value = serde_json::from_str(&run_document(&record)).unwrap();
    let whole = self::document(|writer| Json::new(writer, None));
    for member in ["departures", "traffic"] {
        assert_eq!(document[member], whole[member], "{member}");
    }
    assert_eq!((&document["proof"]["holds"], &document["exit_code"]), (&json!(false), &json!(1)));
    assert!(!crate::journal::written(&run()).text().contains("this is web"), "contents of files have no place in the journal");
}

fn document(reporter: fn(Box<dyn std::io::Write + Send>) -> Box<dyn infra_core::event::Reporter>) -> Value {
    let kept = Kept::default();
    run().give(reporter(kept.boxed()));
    serde_json::from_str(&kept.text()).unwrap()
}

#[test]
fn the_document_has_it_too() {
    let whole = document(|writer| Json::with_diffs(writer, None));
    let diff = "--- /etc/motd\n+++ /etc/motd\n@@ -1 +1,2 @@\n hello\n+this is web\n";
    let motd = json!([{ "path": "/etc/motd", "diff": diff, "withheld": null, "more_lines": 0 }]);
    assert_eq!(whole["plan"]["operations"][0]["hosts"]["web-01"]["diffs"], motd);
    assert_eq!(whole["hosts"]["web-01"]["operations"][0]["diffs"], motd);
    let page = "--- /srv/page\n+++ /srv/page\n@@ -1 +1 @@\n-v1\n+v\\u{1b}2\n";
    assert_eq!(whole["hosts"]["web-03"]["operations"][1]["diffs"][0]["diff"], page);
    assert_eq!(whole["hosts"]["web-03"]["operations"][2]["diffs"], json!([]));
    let departure = |op: u32, host: &str, planned: &str, outcome: &str| json!({ "operation": op, "host": host, "planned": planned, "outcome": outcome });
    let departures = [
        departure(0, "web-03", "change", "unchanged"),
        departure(2, "web-02", "no-change", "changed"),
        departure(2, "web-03", "no-change", "changed"),
    ];
    assert_eq!(whole["departures"], json!(departures));
    assert_eq!((&whole["proof"]["strict"], &whole["proof"]["holds"], &whole["exit_code"]), (&json!(false), &json!(false), &json!(1)));
    let left = whole["proof"]["left"].as_array().unwrap();
    let left: Vec<_> =
        left.iter().map(|one| (one["title"].as_str().unwrap(), one["host"].as_str().unwrap(), one["counts"] == true)).collect();
    let motd = |host| ("Motd", host, true);
    assert_eq!(left, [motd("web-01"), motd("web-02"), motd("web-01"), motd("web-02"), ("Restart", "web-01", false)]);
    assert_eq!(whole["traffic"]["round_trips"], json!({ "min": 7, "median": 9, "max": 12 }));
    assert_eq!(whole["hosts"]["web-03"]["traffic"], json!({ "round_trips": 12, "commands": 4 }));

    let without = document(|writer| Json::new(writer, None));
    assert_eq!(without["hosts"]["web-01"]["operations"][0].get("diffs"), None);
    assert_eq!(without["plan"]["operations"][0]["hosts"]["web-01"].get("diffs"), None);
}
