//! `exec` and `fact`: results on their own writer.

use std::io::{self, Write};
use std::sync::Arc;

use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::output::Stream;
use infra_core::plan::OpId;
use infra_report::{ScreenSettings, screen};
use insta::assert_snapshot;
use serde_json::json;

use crate::bench::*;

fn exec(hosts: u32) -> Run {
    let all = move || 0..hosts;
    Run::fleet(RunKind::Exec, hosts)
        .connected()
        .planned(vec![operation("uname -s", 0, all().map(|host| (host, change("", &[]))))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .each(all().map(|host| Event::HostOperationStarted { op: OpId(0), host: HostId(host) }))
        .each(all().map(|host| output(host, Stream::Stdout, b"Linux \xff\x1b[2J")))
        .then(output(0, Stream::Stderr, b"warning\x07"))
        .then(Event::HostOperationEnded { op: OpId(0), host: HostId(0), result: Box::new(changed("", 0.0)) })
        .each((1..hosts).map(|host| Event::HostOperationEnded {
            op: OpId(0),
            host: HostId(host),
            result: Box::new(failed(exited(2, "uname -s", &["Linux"]), 0.0)),
        }))
        .then(Event::OperationEnded { op: OpId(0) })
        .ended()
}

#[test]
fn output_of_one_host_is_as_it_is() {
    let (human, results) = exec(1).shown(settings());
    assert_eq!(results, b"Linux \xff\x1b[2J\n");
    assert_snapshot!(human, @r"
    --> Connecting to 1 host
    --> Preparing 1 host
    --> Running on 1 host
    warning\u{7}
    1 host: 1 ok
    ");
}

/// Of several commands the one that failed is named.
#[test]
fn one_of_several_commands_failed() {
    let ended = |host: u32, result| Event::HostOperationEnded { op: OpId(0), host: HostId(host), result: Box::new(result) };
    let run = Run::fleet(RunKind::Exec, 4)
        .connected()
        .planned(vec![operation("uname; false; true", 0, (0..4).map(|host| (host, change("", &["uname", "false", "true"]))))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .each((0..4).map(|host| Event::HostOperationStarted { op: OpId(0), host: HostId(host) }))
        .then(ended(0, changed("", 0.0)))
        .each((1..3).map(|host| ended(host, failed(exited(1, "false", &["Linux"]), 0.0))))
        .then(ended(3, failed(exited(1, "uname", &[]), 0.0)))
        .then(Event::OperationEnded { op: OpId(0) })
        .ended();
    let (human, _) = run.shown(ScreenSettings { invocation: words("infra web exec -c uname -c false -c true"), ..settings() });
    assert_snapshot!(human, @r"
    --> Connecting to 4 hosts
    --> Preparing 4 hosts
    --> Running on 4 hosts
    [web-[02-03]] exited with 1
        > false
    [web-04] exited with 1
        > uname
    4 hosts: 1 ok, 3 failed
        failed: web-[02-04]

        To go on from there: infra web exec -c uname -c false -c true --limit web-02,web-03,web-04
    ");
}

#[test]
fn output_of_several_hosts_says_whose_it_is() {
    let (human, results) = exec(3).shown(ScreenSettings { invocation: words("infra web exec -- uname -s"), ..settings() });
    assert_eq!(results, b"[web-01] Linux \xff\x1b[2J\n[web-02] Linux \xff\x1b[2J\n[web-03] Linux \xff\x1b[2J\n");
    assert_snapshot!(human, @r"
    --> Connecting to 3 hosts
    --> Preparing 3 hosts
    --> Running on 3 hosts
    [web-01] warning\u{7}
    [web-[02-03]] exited with 2
    3 hosts: 1 ok, 2 failed
        failed: web-[02-03]

        To go on from there: infra web exec --limit web-02,web-03 -- uname -s
    ");
}

#[test]
fn a_terminal_is_safe_from_the_output_of_hosts() {
    let (_, results) = exec(1).shown(ScreenSettings { results_terminal: true, ..settings() });
    assert_eq!(results, "Linux \u{fffd}\\u{1b}[2J\n".as_bytes());
}

fn fact(host: u32, answer: Result<serde_json::Value, String>) -> Event {
    Event::FactAnswered { host: HostId(host), fact: "server.hostname".into(), question: json!({}), answer: answer.map(Arc::new) }
}

#[test]
fn facts_are_one_document() {
    let run = Run::fleet(RunKind::Fact, 4)
        .connected_but(&[3])
        .then(refused(3))
        .then(fact(1, Ok(json!("two"))))
        .then(fact(0, Ok(json!({ "name": "one" }))))
        .then(fact(2, Err("the command exited with 1: no such\nthing".into())))
        .ended();
    let (human, results) = run.shown(settings());
    assert_snapshot!(String::from_utf8(results).unwrap(), @r#"
    {
      "web-01": {
        "server.hostname": {
          "name": "one"
        }
      },
      "web-02": {
        "server.hostname": "two"
      }
    }
    "#);
    assert_snapshot!(human, @r"
    --> Connecting to 4 hosts
    [web-04] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    [web-03] server.hostname cannot be read: the command exited with 1: no such ⏎ thing
    4 hosts: 2 ok, 1 failed, 1 unreachable
        failed: web-03
        unreachable: web-04
    ");
}

#[test]
fn a_mistake_leaves_the_results_empty() {
    let diagnostic = infra_core::diagnostic::Diagnostic::misuse("there is no fact `server.hostnam`");
    let run = Run::fleet(RunKind::Fact, 1).then(Event::Misused { host: None, diagnostic: Box::new(diagnostic) }).ended();
    let (human, results) = run.shown(settings());
    assert!(results.is_empty());
    assert!(human.contains("error: there is no fact `server.hostnam`\n"), "{human}");
}

/// A pipe whose reader has gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn results_that_cannot_be_written_are_told_once() {
    let human = Kept::default();
    exec(3).give(screen(settings(), human.boxed(), Box::new(Broken)));
    assert_eq!(human.text().matches("error: the results cannot be written: no space left on device\n").count(), 1);
    // A human output that is gone is no reason to stop.
    exec(3).give(screen(settings(), Box::new(Broken), Box::new(Broken)));
}

/// Who was written to and what, in the order of the writes.
type Writes = Arc<std::sync::Mutex<Vec<(&'static str, String)>>>;

struct Noted(&'static str, Writes);

impl Write for Noted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.lock().unwrap().push((self.0, String::from_utf8(bytes.to_vec()).unwrap()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn lines_that_come_together_are_written_together_and_in_their_order() {
    let writes = Writes::default();
    let mut reporter = screen(settings(), Box::new(Noted("human", writes.clone())), Box::new(Noted("results", writes.clone())));
    let run = Run::fleet(RunKind::Exec, 1)
        .connected()
        .planned(vec![operation("seq", 0, [(0, change("", &[]))])])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .then(Event::HostOperationStarted { op: OpId(0), host: HostId(0) });
    run.events.iter().for_each(|event| reporter.event(event));
    writes.lock().unwrap().clear();
    let line = format!("{}\n", "x".repeat(999));
    for _ in 0..100 {
        reporter.event(&output(0, Stream::Stdout, line.trim_end().as_bytes()));
    }
    reporter.event(&output(0, Stream::Stderr, b"one"));
    reporter.event(&output(0, Stream::Stderr, b"two"));
    reporter.event(&output(0, Stream::Stdout, b"the end"));
    reporter.idle();
    reporter.idle();
    let written = std::mem::take(&mut *writes.lock().unwrap());
    let (first, last) = written.split_at(written.len() - 2);
    assert!(first.len() < 5 && first.iter().all(|(to, _)| *to == "results"), "{} writes", first.len());
    assert_eq!(first.iter().map(|(_, text)| text.as_str()).collect::<String>(), line.repeat(100));
    assert_eq!(last, [("human", "one\ntwo\n".to_owned()), ("results", "the end\n".to_owned())]);
    // What follows on output that is still held comes behind it.
    reporter.event(&output(0, Stream::Stdout, b"more"));
    reporter.event(&Event::Retrying {
        op: OpId(0),
        host: HostId(0),
        retry: 1,
        retries: 2,
        after: std::time::Duration::ZERO,
        failure: Box::default(),
    });
    let written = writes.lock().unwrap();
    assert_eq!(written[0], ("results", "more\n".to_owned()));
    assert!(written.len() > 1 && written[1..].iter().all(|(to, _)| *to == "human"), "{written:?}");
}
