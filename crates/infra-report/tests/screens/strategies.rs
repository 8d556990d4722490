//! Waves, blocks, retries, and the rules that stop a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use infra_core::event::{Event, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::output::Stream;
use infra_core::plan::{BlockId, OpId, PlannedBlock, PlannedOperation};
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};
use infra_report::{Controls, Journalled, ScreenSettings};
use insta::assert_snapshot;
use serde_json::json;

use crate::bench::*;

fn block(id: u32, kind: BlockKind, title: &str) -> PlannedBlock {
    PlannedBlock { id: BlockId(id), kind, title: title.into(), location: None }
}

fn rolling(batch: Share) -> BlockKind {
    BlockKind::Rolling(Rolling { batch: Batch::of(vec![batch]), max_fail: Some(Share::NONE), pause: 30.0 })
}

fn inside(blocks: &[u32], operation: PlannedOperation) -> PlannedOperation {
    PlannedOperation { blocks: blocks.iter().map(|id| BlockId(*id)).collect(), ..operation }
}

fn wave(of: Waves, wave: usize, waves: usize, hosts: impl IntoIterator<Item = u32>) -> Event {
    Event::WaveStarted { of, wave, waves, hosts: hosts.into_iter().map(HostId).collect() }
}

/// Hosts that go through two operations in waves of half of them; the third host fails.
fn restart(count: u32) -> Run {
    let (drain, start, half) = (OpId(0), OpId(1), count / 2);
    let mut run = Run::fleet(RunKind::Deploy, count).connected();
    run.blocks = vec![block(0, rolling(Share::Percent(5000)), "Restart the app")];
    let all = || (0..count).map(|host| (host, change("run 1 command", &[])));
    let of = Waves::Block(BlockId(0));
    let on = |op, host, result| {
        let host = HostId(host);
        [Event::HostOperationStarted { op, host }, Event::HostOperationEnded { op, host, result: Box::new(result) }]
    };
    run.planned(vec![inside(&[0], operation("Drain", 4, all())), inside(&[0], operation("Start", 5, all())), operation("Say so", 7, all())])
        .then(Event::Executing)
        .then(wave(of, 1, 2, 0..half))
        .then(Event::OperationStarted { op: drain })
        .each((0..half).flat_map(|host| on(drain, host, changed("ran 1 command", 0.0))))
        .then(Event::OperationStarted { op: start })
        .each((0..half).flat_map(|host| on(start, host, changed("ran 1 command", 0.0))))
        .then(wave(of, 2, 2, half..count))
        .each((half..count).flat_map(|host| on(drain, host, changed("ran 1 command", 0.0))))
        .each(on(start, half, failed(exited(3, "app start", &["no port"]), 0.0)))
        .each((half + 1..count).flat_map(|host| on(start, host, changed("ran 1 command", 0.0))))
        .then(Event::Stopped { reason: StopReason::WaveFailed { of, wave: 2, not_ok: 1, entered: (count - half) as usize, allowed: 0 } })
        .then(Event::OperationEnded { op: drain })
        .then(Event::OperationEnded { op: start })
        .ended()
}

#[test]
fn a_rolling_block_that_stops() {
    assert_snapshot!(restart(4).human(0), @r"
    --> Connecting to 4 hosts
    --> Preparing 4 hosts
    --> Plan
        operation  change  no change  depends on
        Restart the app (rolling, waves of 50%, 30 s between them)
          Drain    4       -          -
          Start    4       -          -
        Say so     4       -          -

        3 operations on 4 hosts: 12 will change.
        A host that fails takes no further part; the others go on.
        After a wave in which more hosts are not ok than it allows no further wave starts, and the run stops.
    --> Running 3 operations on 4 hosts
    --> Wave 1 of 2 of «Restart the app»: web-[01-02]
    [web-01] Drain: changed: ran 1 command
    [web-02] Drain: changed: ran 1 command
    [web-01] Start: changed: ran 1 command
    [web-02] Start: changed: ran 1 command
    --> Wave 2 of 2 of «Restart the app»: web-[03-04]
    [web-03] Drain: changed: ran 1 command
    [web-04] Drain: changed: ran 1 command
    [web-03] Start: failed: exited with 3
        at deploy.lua:5
        > app start
        | no port
    [web-04] Start: changed: ran 1 command
    stopping: of the 2 hosts that entered wave 2 of «Restart the app» 1 is not ok, and 0 may be; nothing new is started
    --> Results
        host    changed  no change  failed  not started  state
        web-01        2          -       -            1  not reached
        web-02        2          -       -            1  not reached
        web-03        1          -       1            1  failed
        web-04        2          -       -            1  not reached

    4 hosts: 1 failed, 3 not reached
        failed: web-03
        not reached: web-[01-02], web-04
        stopped: of the 2 hosts that entered wave 2 of «Restart the app» 1 is not ok, and 0 may be
    ");
}

#[test]
fn a_wave_of_a_large_fleet_is_folded_and_told_before_the_next() {
    let human = restart(24).human(0);
    assert_snapshot!(human.split_once("--> Running").unwrap().1.split_once("--> Results").unwrap().0, @r"
     3 operations on 24 hosts
    --> Wave 1 of 2 of «Restart the app»: web-[01-12] (12 hosts)
    --> Drain on 24 hosts (1 of 3)
    --> Start on 24 hosts (2 of 3)
    [web-[01-12]] Drain: changed: ran 1 command (12 hosts)
    [web-[01-12]] Start: changed: ran 1 command (12 hosts)
    --> Wave 2 of 2 of «Restart the app»: web-[13-24] (12 hosts)
    [web-13] Start: failed: exited with 3
        at deploy.lua:5
        > app start
        | no port
    stopping: of the 12 hosts that entered wave 2 of «Restart the app» 1 is not ok, and 0 may be; nothing new is started
    [web-[13-24]] Drain: changed: ran 1 command (12 hosts)
    [web-[14-24]] Start: changed: ran 1 command (11 hosts)
    ");
}

/// Two operations on each of two hosts at the same time.
fn beside() -> Run {
    let mut run = Run::fleet(RunKind::Deploy, 2).connected();
    run.blocks = vec![block(0, BlockKind::Parallel, "parallel at deploy.lua:3")];
    let both = || (0..2).map(|host| (host, change("run 1 command", &[])));
    let started = |op, host| Event::HostOperationStarted { op: OpId(op), host: HostId(host) };
    let output = |op, host, line: &[u8]| {
        let (op, host, stream, line) = (OpId(op), HostId(host), Stream::Stdout, line.to_vec());
        Event::Output { op, host, stream, line, newline: true }
    };
    run.planned(vec![inside(&[0], operation("Server", 4, both())), inside(&[0], operation("Load", 5, both()))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .then(started(0, 0))
        .then(started(0, 1))
        .then(Event::CommandStarted { op: OpId(0), host: HostId(0), text: "serve".into() })
        .then(Event::OperationStarted { op: OpId(1) })
        .then(started(1, 0))
        .then(output(0, 0, b"listening"))
        .then(output(1, 0, b"sending"))
}

#[test]
fn operations_at_the_same_time_are_told_apart() {
    let human = beside().human(3);
    assert!(human.contains("\n    parallel at deploy.lua:3\n      Server "), "{human}");
    assert_snapshot!(human.split_once("--> Running").unwrap().1, @r"
     2 operations on 2 hosts
    --> Server on 2 hosts (1 of 2)
    [web-01] Server > serve
    --> Load on 2 hosts (2 of 2)
    [web-01] Server | listening
    [web-01] Load | sending
    ");
}

#[test]
fn a_failure_that_is_tried_again() {
    let failure = exited(7, "curl -f http://localhost", &["refused"]);
    let retrying =
        Event::Retrying { op: OpId(0), host: HostId(0), retry: 1, retries: 3, after: Duration::from_secs(5), failure: Box::new(failure) };
    let run = Run::fleet(RunKind::Deploy, 1)
        .connected()
        .planned(vec![operation("Wait", 3, [(0, change("wait", &[]))])])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .then(Event::HostOperationStarted { op: OpId(0), host: HostId(0) })
        .then(retrying);
    let ended = |retries| {
        let result = infra_core::event::HostResult { retries, ..changed("waited", 6.0) };
        Event::HostOperationEnded { op: OpId(0), host: HostId(0), result: Box::new(result) }
    };
    let run = run.then(ended(1)).then(ended(2));
    let told = |verbosity| run.human(verbosity).split_once("on 1 host\n[").unwrap().1.to_owned();
    assert_snapshot!(told(0), @r"
    web-01] Wait: failed: exited with 7; again in 5.0 s (1 of 3)
    [web-01] Wait: changed: waited (after 1 retry, 6.0 s)
    [web-01] Wait: changed: waited (after 2 retries, 6.0 s)
    ");
    assert!(told(1).contains("    > curl -f http://localhost\n    | refused\n"), "{}", told(1));
}

#[test]
fn blocks_waves_and_retries_are_in_the_document() {
    let kept = Kept::default();
    restart(4).give(infra_report::Json::new(kept.boxed(), None));
    let document: serde_json::Value = serde_json::from_str(&kept.text()).unwrap();
    let block =
        json!({ "id": 0, "title": "Restart the app", "location": null, "kind": "rolling", "batch": "50%", "max_fail": 0, "pause": 30.0 });
    assert_eq!(document["plan"]["blocks"], json!([block]));
    assert_eq!((&document["plan"]["operations"][1]["blocks"], &document["plan"]["operations"][2]["blocks"]), (&json!([0]), &json!([])));
    let stopped = json!({
        "rule": "wave-failed", "operation": null, "block": 0, "wave": 2, "not_ok": 1, "entered": 2, "allowed": 0,
    });
    assert_eq!(document["stopped"], stopped);
    assert_eq!(document["hosts"]["web-01"]["operations"][0]["retries"], 0);

    let kept = Kept::default();
    let serial = PlannedOperation { serial: Some(Batch::of(vec![Share::Count(1), Share::Percent(2500)])), ..operation("Write", 5, []) };
    let reason = StopReason::FailPercent { not_ok: 2, selected: 12, allowed: 12.5 };
    beside().planned(vec![serial]).then(Event::Stopped { reason }).ended().give(infra_report::Json::new(kept.boxed(), None));
    let document: serde_json::Value = serde_json::from_str(&kept.text()).unwrap();
    assert_eq!(document["plan"]["operations"][0]["serial"], json!([1, "25%"]));
    assert_eq!(document["plan"]["blocks"][0]["kind"], "parallel");
    assert_eq!(document["stopped"], json!({ "rule": "fail-percent", "not_ok": 2, "selected": 12, "allowed": 12.5 }));
}

#[test]
fn the_rules_are_said_before() {
    let rules = |controls: Controls| {
        let run = Run::fleet(RunKind::Deploy, 10).connected().planned(vec![operation("Write", 5, [(0, change("create", &[]))])]);
        let (human, _) = run.shown(ScreenSettings { controls, ..settings() });
        human.split_once("will change.\n").unwrap().1.to_owned()
    };
    let serial = Controls { serial: true, max_fail: Share::Percent(2000), parallel: Some(1), ..Controls::default() };
    assert_snapshot!(rules(serial), @r"
    Host by host: each goes through all its operations before the next begins (--serial).
    At most 1 host at work at once (--parallel).
    A host that fails takes no further part; the others go on.
    When a host is not ok, the hosts after it are not begun, and the run stops.
    ");
    let on = rules(Controls { max_fail: Share::Count(1), ..serial });
    assert!(on.contains("A host that is not ok does not hold back those after it (--max-fail).\n"), "{on}");
    assert_snapshot!(rules(Controls { no_wait: true, fail_percent: Some(12.5), ..Controls::default() }), @r"
    No host waits for another between operations (--no-wait).
    A host that fails takes no further part; the others go on.
    When more than 12.5 % of the 10 hosts are not ok, nothing new is started (--fail-percent).
    ");
    assert_snapshot!(rules(Controls { serial: true, fail_fast: true, ..Controls::default() }), @r"
    Host by host: each goes through all its operations before the next begins (--serial).
    At the first host that is not ok nothing new is started on any host (--fail-fast).
    When a host is not ok, the hosts after it are not begun, and the run stops.
    ");
}

#[test]
fn the_arithmetic_of_a_share() {
    let run = Run::fleet(RunKind::Deploy, 12)
        .connected()
        .planned(vec![operation("Write", 5, (0..12).map(|host| (host, change("create", &[]))))])
        .then(Event::Executing)
        .then(Event::Stopped { reason: StopReason::FailPercent { not_ok: 2, selected: 12, allowed: 12.5 } })
        .ended();
    let human = run.human(0);
    let wanted = "stopped: of the 12 selected hosts 2 are not ok, which is 16.7 %, and --fail-percent allows 12.5 %\n";
    assert!(human.contains(wanted), "{human}");
    let run = Run::fleet(RunKind::Deploy, 3)
        .then(Event::Stopped { reason: StopReason::WaveFailed { of: Waves::Run, wave: 2, not_ok: 1, entered: 1, allowed: 0 } })
        .ended();
    assert!(run.human(0).contains("stopped: of the 1 host that entered wave 2 of the run 1 is not ok, and 0 may be\n"), "{}", run.human(0));
}

#[test]
fn the_way_on_refers_to_the_journal_where_it_is_whole() {
    let whole = Arc::new(AtomicBool::new(false));
    let journal = Some(Journalled { run: "20261121T001530-ab12".into(), whole: whole.clone() });
    let failing = |kind| {
        Run::fleet(kind, 50)
            .connected()
            .planned(vec![operation("Write", 5, (0..50).map(|host| (host, change("create", &[]))))])
            .then(Event::Executing)
            .operation(0, (0..48).map(|host| (host, if host < 24 { changed("create", 0.0) } else { failed(exited(1, "write", &[]), 0.0) })))
            .ended()
    };
    let way_on = |kind, journal| {
        let (human, _) = failing(kind).shown(ScreenSettings { journal, ..settings() });
        human.split_once("To go on from there: ").unwrap().1.trim_end().to_owned()
    };
    assert_eq!(way_on(RunKind::Deploy, journal.clone()), "infra fleet.lua deploy.lua --limit 'web-[25-50]'");
    whole.store(true, Ordering::SeqCst);
    assert_eq!(way_on(RunKind::Deploy, journal.clone()), "infra resume 20261121T001530-ab12");
    // There is nothing of an `exec` to go on from but its hosts.
    let limit = "infra fleet.lua deploy.lua --limit @20261121T001530-ab12:failed,@20261121T001530-ab12:unreached";
    assert_eq!(way_on(RunKind::Exec, journal), limit);
}

#[test]
fn what_earlier_runs_have_done_is_named_before_the_question() {
    use infra_core::earlier::{Continuation, EarlierNote};
    let done = || Continuation::Done { run: "20261121T001530-ab12".into() };
    let note = |op, what, hosts: &[u32]| EarlierNote { op: OpId(op), what, hosts: hosts.iter().map(|host| HostId(*host)).collect() };
    let operations = ["Configure", "Append", "Wait", "More"].iter().zip(3..);
    let operations = operations.map(|(title, line)| operation(title, line, (0..3).map(|host| (host, none("is as wished"))))).collect();
    let notes = vec![
        note(0, Continuation::Edited, &[2]),
        note(1, done(), &[0, 1]),
        note(2, Continuation::Indeterminate, &[0]),
        note(3, Continuation::New, &[0, 1]),
        note(3, Continuation::Owed { run: "20261121T001530-ab12".into() }, &[2]),
    ];
    let mut run = Run::fleet(RunKind::Dry, 3).connected().planned(operations);
    let planned = |notes: &[EarlierNote]| {
        let notes = notes.to_vec();
        move |event: &mut Event| {
            if let Event::PlanReady { plan } = event {
                Arc::make_mut(plan).earlier = notes;
            }
        }
    };
    run.events.iter_mut().for_each(|event| planned(&notes)(event));
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 3 hosts
    --> Preparing 3 hosts
    --> Plan
        Nothing to change: 4 operations on 3 hosts, and all is as wished.
        planned afresh, since it is not what it was: «Configure» on web-03
        done in run 20261121T001530-ab12, not run again: «Append» on web-[01-02]
        run again, since what came of it is not known: «Wait» on web-01
        planned afresh, since no earlier run had it: «More» on web-[01-02]
        changed in run 20261121T001530-ab12, which counts for what is left: «More» on web-03
    ");
    // Very many are counted, where no more is asked for.
    let many: Vec<EarlierNote> = (0..12).map(|op| note(op % 4, Continuation::New, &[0])).collect();
    run.events.iter_mut().for_each(|event| planned(&many)(event));
    assert!(run.human(0).contains("planned afresh, since no earlier run had them: 12 operations (-v names them)"), "{}", run.human(0));
    assert_eq!(run.human(1).matches("planned afresh, since no earlier run had it: «").count(), 12);
}
