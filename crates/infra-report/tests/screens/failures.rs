//! Failures, unreachable hosts, and what was written wrongly.

use std::time::Duration;

use infra_core::connection::Ending;
use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Failure, HostResult, RunKind};
use infra_core::host::HostId;
use infra_core::output::Stream;
use infra_core::plan::OpId;
use insta::assert_snapshot;

use crate::bench::*;

fn one(result: HostResult) -> Run {
    Run::fleet(RunKind::Deploy, 1)
        .connected()
        .planned(vec![operation("Install nginx", 12, [(0, change("install", &[]))])])
        .then(Event::Executing)
        .operation(0, [(0, result)])
        .ended()
}

/// The part of the screen that tells of the operation.
fn told(run: &Run, verbosity: u8) -> String {
    let human = run.human(verbosity);
    let (_, rest) = human.split_once("on 1 host\n[").unwrap();
    format!("[{}", rest.split_once("--> Results").unwrap().0)
}

#[test]
fn a_failure_shows_all_that_is_needed() {
    let mut failure = exited(137, "apt-get install \\\n  nginx", &["Reading package lists\x1b[2J", "E: a\tb\nE: c"]);
    failure.hint = Some("is there enough memory?".into());
    let result = HostResult { steps_done: 2, ..failed(failure, 61.0) };
    assert_snapshot!(told(&one(result), 0), @r"
    [web-01] Install nginx: failed: exited with 137 (KILL?), after 2 steps that ended well (1 min 1 s)
        at deploy.lua:12
        > apt-get install \
            nginx
        | Reading package lists\u{1b}[2J
        | E: a	b
        | E: c

        hint: is there enough memory?
    ");
}

#[test]
fn a_time_that_is_up() {
    let failure = Failure {
        message: "timed out after 5 s".into(),
        step: Some("sleep 60".into()),
        ending: Some(Ending::TimedOut { after: Duration::from_secs(5), still_running: Some(4711) }),
        ..Failure::default()
    };
    assert_snapshot!(told(&one(failed(failure, 5.0)), 0), @r"
    [web-01] Install nginx: failed: timed out after 5 s (5.0 s)
        at deploy.lua:12
        > sleep 60
        still running on the host, as process group 4711
    ");
}

#[test]
fn an_outcome_that_is_not_known() {
    let failure = Failure {
        message: "the connection was lost: broken pipe".into(),
        step: Some("apt-get upgrade".into()),
        ending: Some(Ending::Lost { reason: "broken pipe".into(), begun: true }),
        ..Failure::default()
    };
    assert_snapshot!(one(indeterminate(failure, 30.0)).human(0).split_once("on 1 host\n[").unwrap().1, @r"
    web-01] Install nginx: outcome unknown: the connection was lost: broken pipe (30.0 s)
        at deploy.lua:12
        > apt-get upgrade
    --> Results
        host    changed  no change  failed  unknown  state
        web-01        -          -       -        1  indeterminate

    1 host: 1 indeterminate
        indeterminate: web-01
    ");
}

#[test]
fn commands_and_their_output_show_when_asked_for() {
    let run = Run::fleet(RunKind::Deploy, 1)
        .connected()
        .planned(vec![operation("Build", 12, [(0, change("run 1 command", &[]))])])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .then(Event::HostOperationStarted { op: OpId(0), host: HostId(0) })
        .then(Event::CommandStarted { op: OpId(0), host: HostId(0), text: "make\nmake install".into() })
        .then(output(0, Stream::Stdout, b"cc -c a.c"))
        .then(output(0, Stream::Stderr, b"warning: \xff"))
        .then(Event::HostOperationEnded { op: OpId(0), host: HostId(0), result: Box::new(changed("ran 1 command", 0.0)) })
        .then(Event::OperationEnded { op: OpId(0) })
        .ended();
    assert!(!run.human(1).contains("make"));
    let commands = run.human(2);
    assert!(commands.contains("[web-01] > make\n[web-01]   make install\n") && !commands.contains("a.c"), "{commands}");
    assert!(run.human(3).contains("[web-01] | cc -c a.c\n[web-01] | warning: \u{fffd}\n"));
}

#[test]
fn equal_mistakes_on_many_hosts_are_one() {
    let mistake = Diagnostic::misuse("apt.packages has no argument `packges`")
        .at("deploy.lua", 12)
        .source("apt.packages { packges = { \"nginx\" } }")
        .hint("did you mean `packages`?");
    let other = Diagnostic::misuse("there is no group `wbe`").at("deploy.lua", 3);
    let run = Run::fleet(RunKind::Deploy, 40)
        .connected()
        .then(Event::Preparing)
        .each((0..40).map(|host| Event::Misused { host: Some(HostId(host)), diagnostic: Box::new(mistake.clone()) }))
        .then(Event::Misused { host: None, diagnostic: Box::new(other) })
        .ended();
    assert_snapshot!(run.human(0), @r#"
    --> Connecting to 40 hosts
    --> Preparing 40 hosts
    error: deploy.lua:12: apt.packages has no argument `packges`
        |
     12 | apt.packages { packges = { "nginx" } }
        on web-[01-40] (40 hosts)

    hint: did you mean `packages`?

    error: deploy.lua:3: there is no group `wbe`
    --> Nothing was executed.
    "#);
}

#[test]
fn a_script_that_fails_on_some_hosts() {
    let error = Diagnostic::runtime("attempt to index a nil value (field 'x')").at("deploy.lua", 7).source("local y = host.data.x.y");
    let run = Run::fleet(RunKind::Dry, 3)
        .connected()
        .then(Event::Preparing)
        .then(Event::Log { host: HostId(1), text: "two\nlines\x1b[1A".into() })
        .each([0, 2].map(|host| Event::HostFailed { host: HostId(host), diagnostic: Box::new(error.clone()) }))
        .then(Event::HostPrepared { host: HostId(1), operations: 1 })
        .then(Event::PlanReady {
            plan: std::sync::Arc::new(infra_core::plan::Plan {
                blocks: vec![],
                operations: vec![operation("Build", 1, [(1, none("built"))])],
                notes: vec![],
                earlier: vec![],
            }),
        })
        .ended();
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 3 hosts
    --> Preparing 3 hosts
    [web-02] two
    [web-02] lines\u{1b}[1A
    error: deploy.lua:7: attempt to index a nil value (field 'x')
       |
     7 | local y = host.data.x.y
        on web-01, web-03
    --> Plan
        Nothing to change: 1 operation on 1 host, and all is as wished.
    3 hosts: 1 planned: none, 2 failed
        failed: web-01, web-03
    ");
}
