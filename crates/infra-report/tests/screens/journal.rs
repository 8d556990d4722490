//! The journal: what is written when, and that it is read back as it was meant, also where it was cut.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::{Bucket, RunState};
use infra_report::journal::{Header, Paper, ReadError, Record, Recorder, VERSION, render_run, render_runs, run_document, runs_document};
use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::bench::*;

/// A file that is one in memory: what was written, how often it was synced, and when it is full.
#[derive(Clone, Default)]
pub struct Sheet(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    opened: bool,
    synced: usize,
    full_at: Option<usize>,
}

impl Sheet {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().bytes.clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sheet = self.0.lock().unwrap();
        if sheet.full_at.is_some_and(|most| sheet.bytes.len() + bytes.len() > most) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        sheet.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper for Sheet {
    fn sync(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().synced += 1;
        Ok(())
    }
}

fn header() -> Header {
    Header {
        version: VERSION,
        run: "20261121T001530-8000".into(),
        program: "0.1.0".into(),
        invocation: words("infra fleet.lua deploy.lua --yes"),
        inventory: "fleet.lua".into(),
        folder: "/srv/site".into(),
        kind: RunKind::Deploy,
        resumes: None,
        hosts: vec![],
    }
}

fn recorder(sheet: &Sheet) -> Recorder {
    let sheet = sheet.clone();
    Recorder::new(
        header(),
        Box::new(move || {
            sheet.0.lock().unwrap().opened = true;
            Ok(Box::new(sheet))
        }),
    )
}

/// The moment of an event: one second after another, from 2026-11-21 00:15:30.
fn moment(at: usize) -> Duration {
    Duration::from_secs(1_795_220_130 + at as u64)
}

pub fn written(run: &Run) -> Sheet {
    let sheet = Sheet::default();
    let mut recorder = recorder(&sheet);
    for (at, event) in run.events.iter().enumerate() {
        recorder.record(event, moment(at)).unwrap();
    }
    sheet
}

/// Five hosts: changed, failed, unreachable, failed outside of operations, and one whose second operation is at work at the end.
fn up_to_the_middle() -> Run {
    let (first, second) = (OpId(0), OpId(1));
    let on = |hosts: [u32; 3]| hosts.map(|host| (host, change_text("content", "/etc/motd", "the old", "the new")));
    Run::fleet(RunKind::Deploy, 5)
        .connected_but(&[2])
        .then(refused(2))
        .then(Event::HostFailed { host: HostId(3), diagnostic: Box::new(Diagnostic::host("no such user").at("deploy.lua", 3)) })
        .planned(vec![operation("Install nginx", 12, on([0, 1, 4])), operation("Run nginx", 20, on([0, 1, 4]))])
        .then(Event::Executing)
        .then(Event::WaveStarted { of: Waves::Run, wave: 1, waves: 1, hosts: vec![HostId(0)] })
        .operation(
            0,
            [
                (0, infra_core::event::HostResult { stdout: "much output".into(), ..changed("install nginx", 2.0) }),
                (1, failed(exited(100, "apt-get install -y nginx", &["E: Unable to locate package nginx"]), 1.5)),
                (4, changed("install nginx", 2.5)),
            ],
        )
        .then(Event::OperationStarted { op: second })
        .then(Event::HostOperationStarted { op: second, host: HostId(0) })
        .then(Event::HostOperationStarted { op: second, host: HostId(4) })
        .then(Event::CommandStarted { op: second, host: HostId(4), text: "systemctl start nginx".into() })
        .then(Event::HostOperationEnded { op: second, host: HostId(0), result: Box::new(changed("start", 1.0)) })
        .then(output(4, infra_core::output::Stream::Stdout, b"not kept"))
        .then(Event::OperationStarted { op: first })
}

fn to_the_end() -> Run {
    let op = OpId(1);
    up_to_the_middle()
        .then(Event::HostOperationEnded { op, host: HostId(4), result: Box::new(unchanged("runs already")) })
        .then(Event::OperationEnded { op })
        .then(Event::Stopped { reason: StopReason::FailPercent { not_ok: 3, selected: 5, allowed: 50.0 } })
        .ended()
}

#[test]
fn what_is_written_is_read_back() {
    let run = to_the_end();
    let record = Record::read(written(&run).text().as_bytes()).unwrap();
    let mut state = RunState::default();
    run.events.iter().for_each(|event| state.fold(event));
    assert_eq!(record.state.account(), state.account());
    assert_eq!(record.exit_code, Some(state.exit_code()));
    assert_eq!(record.state.stopped, state.stopped);
    assert_eq!((record.failed(), record.unreached()), (vec!["web-02", "web-03", "web-04"], vec![]));
    assert_eq!((record.header.hosts.len(), record.header.kind), (5, RunKind::Deploy));
    assert!(record.in_flight.is_empty() && !record.cut_off());
    let text = written(&run).text();
    // What a command of a deploy printed is there for a run that goes on from this one, and for nobody else.
    let whole = Record::read_with_outputs(text.as_bytes()).unwrap();
    let stdout = |record: &Record| record.state.hosts[&HostId(0)].results[&OpId(0)].stdout.clone();
    assert_eq!((stdout(&whole), stdout(&record)), ("much output".to_owned(), String::new()));
    for absent in ["the old", "the new", "not kept"] {
        assert!(!text.contains(absent), "{absent} has no place in a journal");
    }
}

#[test]
fn a_line_is_there_before_anything_follows_and_is_synced_when_an_operation_ends() {
    let (sheet, run) = (Sheet::default(), to_the_end());
    let mut recorder = recorder(&sheet);
    let mut synced = 0;
    for (at, event) in run.events.iter().enumerate() {
        recorder.record(event, moment(at)).unwrap();
        let executing = run.events[..=at].contains(&Event::Executing);
        assert_eq!((recorder.begun(), sheet.0.lock().unwrap().opened), (executing, executing));
        match event {
            Event::CommandStarted { text, .. } => assert_eq!(sheet.lines().last().unwrap()["text"], json!(text)),
            Event::HostOperationEnded { op, .. } => assert_eq!(sheet.lines().last().unwrap()["op"], json!(op)),
            Event::OperationEnded { .. } | Event::RunEnded => synced += 1,
            _ => {}
        }
        assert_eq!(sheet.0.lock().unwrap().synced, synced);
    }
    let lines = sheet.lines();
    assert_eq!((&lines[0]["event"], &lines[0]["version"], &lines[0]["folder"]), (&json!("run-started"), &json!(1), &json!("/srv/site")));
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("run-ended"), &json!(1)));
    assert_eq!(last["hosts"][0], json!([0, "changed"]));
    assert_eq!(last["at"], json!(moment(run.events.len() - 1).as_secs_f64()));
}

#[test]
fn what_changed_nothing_is_synced_with_what_comes_next() {
    let on = |hosts: [u32; 2]| hosts.map(|host| (host, change_text("content", "/etc/motd", "the old", "the new")));
    let plan = vec![operation("Install nginx", 12, on([0, 1])), operation("Run nginx", 20, on([0, 1]))];
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected_but(&[])
        .planned(plan)
        .then(Event::Executing)
        .operation(0, [(0, unchanged("installed already")), (1, unchanged("installed already"))])
        .operation(1, [(0, unchanged("runs already")), (1, changed("start", 1.0))])
        .ended();
    let (sheet, mut synced) = (Sheet::default(), Vec::new());
    let mut recorder = recorder(&sheet);
    for (at, event) in run.events.iter().enumerate() {
        recorder.record(event, moment(at)).unwrap();
        if matches!(event, Event::OperationEnded { .. } | Event::RunEnded) {
            synced.push(sheet.0.lock().unwrap().synced);
        }
    }
    assert_eq!(synced, [0, 1, 2]);
}

#[test]
fn a_run_that_executes_nothing_leaves_none() {
    let sheet = written(
        &Run::fleet(RunKind::Deploy, 1)
            .connected()
            .planned(vec![operation("Write", 5, [(0, change("create", &[]))])])
            .then(Event::Declined)
            .ended(),
    );
    assert!(!sheet.0.lock().unwrap().opened);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_whole_lines() {
    let sheet = Sheet::default();
    sheet.0.lock().unwrap().full_at = Some(written(&to_the_end()).text().len() - 300);
    let mut recorder = recorder(&sheet);
    let failed = to_the_end().events.iter().enumerate().any(|(at, event)| recorder.record(event, moment(at)).is_err());
    assert!(failed);
    assert!(Record::read(sheet.text().as_bytes()).unwrap().cut_off());
}

#[test]
fn a_journal_that_was_cut_says_what_was_in_flight() {
    let record = Record::read(written(&up_to_the_middle()).text().as_bytes()).unwrap();
    assert!(record.cut_off());
    let [flight] = record.in_flight.as_slice() else { panic!("{:?}", record.in_flight) };
    assert_eq!((flight.op, flight.host, flight.step.as_deref()), (OpId(1), HostId(4), Some("systemctl start nginx")));
    let accounting = record.state.account();
    assert_eq!(accounting.hosts[4], (HostId(4), Bucket::Indeterminate));
    assert_eq!(record.failed(), ["web-02", "web-03", "web-04", "web-05"]);
}

#[test]
fn a_run_that_lives_is_at_work_until_its_end() {
    let (middle, whole) = (written(&up_to_the_middle()).text(), written(&to_the_end()).text());
    let record = Record::read_living(middle.as_bytes()).unwrap();
    assert!(record.at_work() && !record.cut_off() && record.in_flight.len() == 1);
    assert_eq!(record.state.account().hosts[4], (HostId(4), Bucket::NotReached), "nothing is said of what is in flight");
    // It may come to its end while somebody looks.
    let ended = Record::read_living(whole.as_bytes()).unwrap();
    assert!(!ended.at_work() && !ended.cut_off() && ended.exit_code.is_some());
}

#[test]
fn a_journal_may_be_cut_anywhere_and_hold_anything() {
    let text = written(&to_the_end()).text();
    let whole = Record::read(text.as_bytes()).unwrap();
    let first = text.find('\n').unwrap();
    for end in 0..text.len() {
        match Record::read(&text.as_bytes()[..end]) {
            Ok(record) => {
                assert!(end >= first, "no header before byte {first}");
                assert_eq!(record.header, whole.header);
                record.state.account();
                // The last line is whole also where its newline is missing.
                assert_eq!(record.cut_off(), end < text.len() - 1, "at byte {end}");
            }
            Err(error) => assert_eq!((error, end < first), (ReadError::NoHeader, true)),
        }
    }
    let strange = "\n{\"at\":1.0,\"event\":\"of-a-later-infra\",\"what\":[1]}\n[]\nnonsense\n\u{0}\n{\"at\":1.0,\"event\":\"host-operation-ended\"}\n";
    let mixed = text.replacen('\n', strange, 1).replace("\"event\":\"executing\"", "\"event\":\"executing\",\"later\":true");
    assert_eq!(Record::read(mixed.as_bytes()).unwrap().state.account(), whole.state.account());
    let later = text.replacen("\"version\":1", "\"version\":2", 1);
    assert_eq!(Record::read(later.as_bytes()).unwrap_err(), ReadError::Later { version: 2 });
    assert_eq!(Record::read(b"\xff\xfe").unwrap_err(), ReadError::NoHeader);
}

#[test]
fn runs_are_listed() {
    let records: Vec<_> =
        [to_the_end(), up_to_the_middle()].iter().map(|run| Record::read(written(run).text().as_bytes()).unwrap()).collect();
    assert_snapshot!(render_runs(&records, 140, false), @r"
    what                  hosts  run                   when (UTC)           kind    result
    fleet.lua deploy.lu…      5  20261121T001530-8000  2026-11-21 00:15:30  deploy  2 changed, 2 failed, 1 unreachable
    fleet.lua deploy.lu…      5  20261121T001530-8000  2026-11-21 00:15:30  deploy  cut off: 1 changed, 1 indeterminate, 2 failed, 1 unreachable
    ");
    assert!(render_runs(&records, 80, true).contains("\u{1b}["));
    let document: Value = serde_json::from_str(&runs_document(&records)).unwrap();
    assert_eq!(document["runs"][0]["totals"], json!({ "hosts": 5, "failed": 2, "unreachable": 1, "changed": 2 }));
    assert_eq!((&document["runs"][0]["exit_code"], &document["runs"][0]["cut_off"]), (&json!(1), &json!(false)));
    assert_eq!((&document["runs"][1]["exit_code"], &document["runs"][1]["ended"]), (&json!(null), &json!(null)));
}

#[test]
fn a_run_is_shown() {
    let shown = |run: &Run| render_run(&Record::read(written(run).text().as_bytes()).unwrap(), 0, 100, false);
    assert_snapshot!(shown(&to_the_end()), @r"
    20261121T001530-8000 (deploy), begun 2026-11-21 00:15:30 UTC, took 34.0 s
        infra fleet.lua deploy.lua --yes
        in /srv/site
    [web-03] unreachable (connect): connection refused by 10.0.0.7 port 22
    [web-04] deploy.lua:3: no such user
    [web-02] Install nginx: failed: exited with 100
        at deploy.lua:12
        > apt-get install -y nginx
        | E: Unable to locate package nginx
    --> Results
        host    changed  no change  failed  not started  state
        web-01        2          -       -            -  changed
        web-02        -          -       1            1  failed
        web-03        -          -       -            -  unreachable
        web-04        -          -       -            -  failed
        web-05        1          1       -            -  changed

    5 hosts: 2 changed, 2 failed, 1 unreachable (in 34.0 s)
        failed: web-02, web-04
        unreachable: web-03
        stopped: of the 5 selected hosts 3 are not ok, which is 60 %, and --fail-percent allows 50 %
        not as planned (drift or a defect):
            [web-05] Run nginx: was to change, and there was nothing to do: runs already

        To go on from there: infra resume 20261121T001530-8000
    ");
    assert_snapshot!(shown(&up_to_the_middle()), @r"
    20261121T001530-8000 (deploy), begun 2026-11-21 00:15:30 UTC, cut off 30.0 s later
        infra fleet.lua deploy.lua --yes
        in /srv/site
    [web-03] unreachable (connect): connection refused by 10.0.0.7 port 22
    [web-04] deploy.lua:3: no such user
    [web-02] Install nginx: failed: exited with 100
        at deploy.lua:12
        > apt-get install -y nginx
        | E: Unable to locate package nginx
    [web-05] Run nginx: outcome unknown: the run was cut off while it was at work
        at deploy.lua:20
        > systemctl start nginx
    cut off: the journal has no end: infra was killed
        in flight: [web-05] Run nginx
    --> Results
        host    changed  no change  failed  unknown  not started  state
        web-01        2          -       -        -            -  changed
        web-02        -          -       1        -            1  failed
        web-03        -          -       -        -            -  unreachable
        web-04        -          -       -        -            -  failed
        web-05        1          -       -        1            -  indeterminate

    5 hosts: 1 changed, 1 indeterminate, 2 failed, 1 unreachable (in 30.0 s)
        indeterminate: web-05
        failed: web-02, web-04
        unreachable: web-03

        To go on from there: infra resume 20261121T001530-8000
    ");
}

#[test]
fn a_run_is_a_document() {
    let record = Record::read(written(&up_to_the_middle()).text().as_bytes()).unwrap();
    let document: Value = serde_json::from_str(&run_document(&record)).unwrap();
    assert_eq!(
        (&document["run"], &document["cut_off"], &document["exit_code"]),
        (&json!("20261121T001530-8000"), &json!(true), &json!(null))
    );
    assert_eq!(document["in_flight"][0]["step"], "systemctl start nginx");
    assert_eq!(document["in_flight"][0]["host"], "web-05");
    assert_eq!(document["hosts"]["web-02"]["operations"][0]["failure"]["last_output"], json!(["E: Unable to locate package nginx"]));
    assert_eq!(document["hosts"]["web-03"]["unreachable"]["step"], "connect");
    assert_eq!(document["hosts"]["web-04"]["failed"]["location"]["line"], 3);
    assert_eq!(document["hosts"]["web-05"]["state"], "indeterminate");
}

#[test]
fn what_ended_in_a_call_is_kept_and_shown() {
    let record = Record::read(written(&crate::calls::joined(2)).text().as_bytes()).unwrap();
    let text = render_run(&record, 1, 100, false);
    let shown: Vec<&str> = text.lines().filter(|line| line.contains('›')).collect();
    assert_snapshot!(shown.join("\n"), @r"
    [web-01] Join the cluster › Forget the old one: no change: none is there
    [web-01] Join the cluster › Join: failed: exited with 1
    [web-02] Join the cluster › Forget the old one: no change: none is there
    [web-02] Join the cluster › Join: changed: run
    ");
    assert!(!render_run(&record, 0, 100, false).contains('›'));
    let document: Value = serde_json::from_str(&run_document(&record)).unwrap();
    let within = &document["hosts"]["web-02"]["operations"][1]["within"];
    assert_eq!((&within[1]["title"], &within[1]["location"]["line"]), (&"Join".into(), &8.into()));
}
