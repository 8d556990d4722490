//! The JSON document, and that the book shows the real one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use infra_core::connection::{Ending, Traffic};
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Failure, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{OpId, PlannedOperation};
use infra_report::{Json, VERSION, misuse_document, several};
use serde_json::{Value, json};

use crate::bench::*;

fn document(run: &Run) -> Value {
    let kept = Kept::default();
    run.give(Json::new(kept.boxed(), None));
    serde_json::from_str(&kept.text()).unwrap()
}

/// The run that the book shows.
fn shown() -> Run {
    let failure = exited(100, "apt-get install -y nginx", &["E: Unable to locate package nginx"]);
    let install = operation("Install nginx", 12, (0..2).map(|host| (host, change("install nginx", &["apt-get install -y nginx"]))));
    Run::fleet(RunKind::Deploy, 3)
        .connected_but(&[2])
        .then(refused(2))
        .planned(vec![PlannedOperation { kind: "apt.packages".into(), ..install }])
        .then(Event::Executing)
        .operation(0, [(0, changed("install nginx", 12.5)), (1, failed(failure, 2.0))])
        .then(Event::Counted {
            hosts: vec![(HostId(0), Traffic { round_trips: 6, commands: 1 }), (HostId(1), Traffic { round_trips: 4, commands: 1 })],
        })
        .ended()
}

#[test]
fn the_book_shows_the_real_document() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/json.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example = page.split_once("```json\n").and_then(|(_, rest)| rest.split_once("```")).expect("the page has an example").0;
    let kept = Kept::default();
    shown().give(Json::new(kept.boxed(), None));
    assert_eq!(example, kept.text());
}

#[test]
fn a_document_says_why_and_how() {
    let lost = Failure {
        message: "the connection was lost: broken pipe".into(),
        ending: Some(Ending::Lost { reason: "broken pipe".into(), begun: true }),
        ..Failure::default()
    };
    let late = Failure {
        message: "timed out after 1.5 s".into(),
        ending: Some(Ending::TimedOut { after: Duration::from_millis(1500), still_running: None }),
        ..Failure::default()
    };
    let run = Run::fleet(RunKind::Deploy, 4)
        .connected()
        .then(Event::HostFailed { host: HostId(3), diagnostic: Box::new(Diagnostic::runtime("no").at("deploy.lua", 3)) })
        .planned(vec![operation("Migrate", 3, (0..3).map(|host| (host, depends("Install", Some("run")))))])
        .then(Event::Executing)
        .operation(0, [(0, indeterminate(lost, 0.0)), (1, ignored(late)), (2, elsewhere(0, false))])
        .then(Event::Stopped {
            reason: StopReason::WaveFailed { of: Waves::Operation(OpId(0)), wave: 1, not_ok: 1, entered: 3, allowed: 0 },
        })
        .ended();
    let document = document(&run);
    let on = |host: &str| &document["hosts"][host]["operations"][0];
    assert_eq!(on("web-01")["outcome"], "indeterminate");
    assert_eq!(on("web-01")["failure"]["ending"], json!({ "how": "lost", "reason": "broken pipe", "begun": true }));
    assert_eq!(on("web-02")["ignored"], true);
    assert_eq!(on("web-02")["failure"]["ending"], json!({ "how": "timed-out", "after": 1.5, "still_running": null }));
    assert_eq!((&on("web-03")["outcome"], &on("web-03")["host"]), (&json!("elsewhere"), &json!("web-01")));
    assert_eq!(document["hosts"]["web-04"]["failed"]["location"], json!({ "file": "deploy.lua", "line": 3 }));
    assert_eq!(
        document["stopped"],
        json!({ "rule": "wave-failed", "operation": 0, "block": null, "wave": 1, "not_ok": 1, "entered": 3, "allowed": 0 })
    );
    assert_eq!(document["plan"]["operations"][0]["hosts"]["web-02"], json!({ "outlook": "depends", "on": "Install", "would": "run" }));
    assert_eq!(document["totals"], json!({ "hosts": 4, "indeterminate": 1, "failed": 1, "unchanged": 2 }));
    assert_eq!(document["exit_code"], 1);
}

#[test]
fn facts_keep_their_questions_and_errors() {
    let fact = |host, answer| Event::FactAnswered {
        host: HostId(host),
        fact: "server.which".into(),
        question: json!({ "command": "sh" }),
        answer,
    };
    let run = Run::fleet(RunKind::Fact, 2)
        .connected()
        .then(fact(0, Ok(Arc::new(json!("/bin/sh")))))
        .then(fact(1, Err("no answer".into())))
        .ended();
    let document = document(&run);
    let question = json!({ "command": "sh" });
    assert_eq!(
        document["hosts"]["web-01"],
        json!({
            "state": "ok",
            "facts": [{ "fact": "server.which", "question": question, "answer": "/bin/sh" }],
        })
    );
    assert_eq!(document["hosts"]["web-02"]["facts"], json!([{ "fact": "server.which", "question": question, "error": "no answer" }]));
    assert_eq!(document["plan"], Value::Null);
}

#[test]
fn mistakes_are_in_the_document() {
    let mistake = Diagnostic::misuse("there is no operation `apt.package`").at("deploy.lua", 2).hint("did you mean `apt.packages`?");
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected()
        .then(Event::Preparing)
        .each((0..2).map(|host| Event::Misused { host: Some(HostId(host)), diagnostic: Box::new(mistake.clone()) }))
        .ended();
    let inside = document(&run);
    assert_eq!(inside["misuse"].as_array().unwrap().len(), 1);
    assert_eq!(inside["misuse"][0]["hosts"], json!(["web-01", "web-02"]));
    assert_eq!(inside["exit_code"], 2);

    let before: Value = serde_json::from_str(&misuse_document(&mistake)).unwrap();
    assert_eq!(before["misuse"][0]["hint"], "did you mean `apt.packages`?");
    assert_eq!((&before["version"], &before["hosts"], &before["exit_code"]), (&json!(VERSION), &json!({}), &json!(2)));
    let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&before), members(&inside));
}

#[test]
fn reporters_stand_side_by_side() {
    let (first, second) = (Kept::default(), Kept::default());
    shown().give(several(vec![Json::new(first.boxed(), None), Json::new(second.boxed(), None)]));
    assert!(!first.text().is_empty());
    assert_eq!(first.text(), second.text());
}
