//! What there is to say about locks.

use std::time::Duration;

use infra_core::connection::Ending;
use infra_core::event::{Event, Failure, RunKind};
use infra_core::host::HostId;
use infra_core::lock::{Holder, LockNews, Locked};
use infra_core::plan::OpId;
use infra_report::Json;
use serde_json::{Value, json};

use crate::bench::*;

fn holder() -> Holder {
    let text = str::to_owned;
    // A host may say what it likes.
    Holder { run: text("R"), user: text("ann\u{1b}[2J"), controller: text("ctl"), since: text("2026-03-01 12:30:00 UTC") }
}

fn run() -> Run {
    let lock = |host, news| Event::Lock { op: OpId(0), host: HostId(host), on: (host == 2).then(|| "balancer".to_owned()), news };
    let failure = Failure { message: "no".into(), ending: Some(Ending::Locked(Locked::Held { holder: holder() })), ..Failure::default() };
    Run::fleet(RunKind::Deploy, 4)
        .connected()
        .planned(vec![operation("Say so", 1, (0..4).map(|host| (host, change("ran 1 command", &[]))))])
        .then(Event::Executing)
        .each([
            lock(0, LockNews::Waiting { holder: holder(), at_most: Duration::from_secs(30) }),
            lock(0, LockNews::Moved),
            lock(1, LockNews::SameMachine { other: "web-01".into() }),
            lock(2, LockNews::Unavailable { reason: "it is full".into() }),
        ])
        .operation(0, [(3, failed(failure, 0.0))])
        .ended()
}

#[test]
fn the_screen_says_each_at_once() {
    let lines = |verbosity| {
        let text = run().human(verbosity);
        let from = text.find("--> Running").expect("it runs");
        text[from..].lines().skip(1).take_while(|line| !line.contains("failed")).map(str::to_owned).collect::<Vec<_>>()
    };
    let waiting =
        "[web-01] waiting up to 30.0 s for another run to end on this host: ann\\u{1b}[2J on ctl, run R, since 2026-03-01 12:30:00 UTC";
    let same = "[web-02] warning: this host and web-01 are the same machine";
    let full = "[web-03] warning: no lock can be kept on balancer, so another run could change it at the same time: it is full";
    assert_eq!(lines(0), [waiting, same, full]);
    let moved = "[web-01] another run may have changed this host since its facts were read: they are read again";
    assert_eq!(lines(1), [waiting, moved, same, full]);
}

#[test]
fn the_document_has_them_by_host() {
    let kept = Kept::default();
    run().give(Json::new(kept.boxed(), None));
    let document: Value = serde_json::from_str(&kept.text()).expect("JSON");
    let of = |host: &str| document["hosts"][host]["lock"].clone();
    let holder = json!({ "run": "R", "user": "ann\u{1b}[2J", "controller": "ctl", "since": "2026-03-01 12:30:00 UTC" });
    assert_eq!(of("web-01"), json!([{ "news": "waiting", "holder": holder, "at_most": 30.0 }, { "news": "moved" }]));
    assert_eq!(of("web-02"), json!([{ "news": "same-machine", "other": "web-01" }]));
    assert_eq!(of("web-03"), json!([{ "news": "unavailable", "reason": "it is full", "on": "balancer" }]));
    assert_eq!(of("web-04"), Value::Null);
    let ending = &document["hosts"]["web-04"]["operations"][0]["failure"]["ending"];
    assert_eq!(*ending, json!({ "how": "locked", "why": { "lock": "held", "holder": holder } }));
}
