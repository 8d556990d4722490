//! Plans, runs and their ends.

use std::time::Duration;

use infra_core::event::{Event, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_report::{Controls, ScreenSettings};
use insta::assert_snapshot;

use crate::bench::*;

/// One host, three operations: one of each outlook, all of which end well.
fn quickstart() -> Run {
    Run::on(RunKind::Deploy, ["@local"])
        .connected()
        .planned(vec![
            operation("Create the site's folder", 3, [(0, change("create", &["mkdir -p site"]))]),
            operation("Write the page", 5, [(0, none("already as wished"))]),
            operation("Count the pages", 9, [(0, depends("Create the site's folder", Some("run 1 command")))]),
        ])
        .then(Event::Executing)
        .operation(0, [(0, changed("create", 0.02))])
        .operation(1, [(0, unchanged("already as wished"))])
        .operation(2, [(0, changed("ran 1 command", 3.21))])
        .ended()
}

#[test]
fn one_host() {
    assert_snapshot!(quickstart().human(0), @r"
    --> Connecting to 1 host
    --> Preparing 1 host
    --> Plan
        operation                 change  no change  depends on
        Create the site's folder  1       -          -
        Write the page            -       1          -
        Count the pages           -       -          1 on «Create the site's folder»

        3 operations on 1 host: 1 will change, 1 no change, 1 depending on an earlier one.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 1 host
    [@local] Create the site's folder: changed: create
    [@local] Write the page: no change
    [@local] Count the pages: changed: ran 1 command (3.2 s)
    --> Results
        host    changed  no change  failed  state
        @local        2          1       -  changed

    1 host: 1 changed
    ");
}

#[test]
fn one_host_with_reasons() {
    assert_snapshot!(quickstart().human(1), @r"
    --> Connecting to 1 host
    [@local] connected
    --> Preparing 1 host
    [@local] 3 operations
    --> Plan
        operation                 change  no change  depends on
        Create the site's folder  1       -          -
            server.shell, deploy.lua:3
            [@local] change: create
                > mkdir -p site
        Write the page            -       1          -
            server.shell, deploy.lua:5
            [@local] no change: already as wished
        Count the pages           -       -          1 on «Create the site's folder»
            server.shell, deploy.lua:9
            [@local] depends: on «Create the site's folder» (as the host stands now: run 1 command)

        3 operations on 1 host: 1 will change, 1 no change, 1 depending on an earlier one.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 1 host
    [@local] Create the site's folder: changed: create
    [@local] Write the page: no change: already as wished
    [@local] Count the pages: changed: ran 1 command (3.2 s)
    --> Results
        host    changed  no change  failed  state
        @local        2          1       -  changed

    1 host: 1 changed
    ");
}

#[test]
fn nothing_to_change() {
    let run = Run::on(RunKind::Deploy, ["@local"])
        .connected()
        .planned(vec![operation("Write the page", 5, [(0, none("already as wished"))])])
        .then(Event::Executing)
        .operation(0, [(0, unchanged("already as wished"))])
        .ended();
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 1 host
    --> Preparing 1 host
    --> Plan
        Nothing to change: 1 operation on 1 host, and all is as wished.
    --> Running 1 operation on 1 host
    [@local] Write the page: no change
    --> Results
        host    changed  no change  failed  state
        @local        -          1       -  unchanged

    1 host: 1 unchanged
    ");
}

/// Five hosts, of which one is unreachable, one is of another group, and one fails.
fn fleet() -> Run {
    let failure = exited(100, "apt-get install -y nginx", &["E: Unable to locate package nginx"]);
    Run::on(RunKind::Deploy, ["web-01", "web-02", "web-03", "db-01", "db-02"])
        .connected_but(&[4])
        .then(refused(4))
        .planned_with(
            vec![
                operation(
                    "Install nginx",
                    12,
                    [
                        (0, change("install nginx", &["apt-get install -y nginx"])),
                        (1, change("install nginx", &["apt-get install -y nginx"])),
                        (2, none("nginx 1.22 is there")),
                    ],
                ),
                operation(
                    "Upload the configuration of *",
                    20,
                    [
                        (0, change_text("content", "/etc/nginx/nginx.conf", "a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD\ne\nf\n")),
                        (1, change_text("content", "/etc/nginx/nginx.conf", "a\nb\nc\nd\ne\nf\n", "a\nb\nc\nD\ne\nf\n")),
                        (2, none("already as wished")),
                        (3, none("already as wished")),
                    ],
                ),
                operation("Run nginx", 31, (0..3).map(|host| (host, depends("Install nginx", None)))),
            ],
            vec!["web-01 and web-02 call «a» and «b» in opposite orders: «a» was split".into()],
        )
        .then(Event::Executing)
        .operation(0, [(2, unchanged("nginx 1.22 is there")), (0, changed("install nginx", 12.5)), (1, failed(failure, 2.0))])
        .operation(1, [(0, changed("content", 0.1)), (2, unchanged("already as wished")), (3, unchanged("already as wished"))])
        .operation(2, [(0, changed("start", 0.3)), (2, skipped("«Install nginx» changed nothing"))])
        .ended()
}

#[test]
fn five_hosts() {
    assert_snapshot!(fleet().human(0), @r"
    --> Connecting to 5 hosts
    [db-02] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 4 hosts
    --> Plan
        operation                      change         no change        depends on
        Install nginx                  2 web-[01-02]  1 web-03         -
        Upload the configuration of *  2 web-[01-02]  2 web-03, db-01  -
        Run nginx                      -              -                3 on «Install nginx»

        3 operations on 4 hosts: 4 will change, 3 no change, 3 depending on an earlier one.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 4 hosts
    [web-03] Install nginx: no change
    [web-01] Install nginx: changed: install nginx (12.5 s)
    [web-02] Install nginx: failed: exited with 100 (2.0 s)
        at deploy.lua:12
        > apt-get install -y nginx
        | E: Unable to locate package nginx
    [web-01] Upload the configuration of *: changed: content
    [web-03] Upload the configuration of *: no change
    [db-01] Upload the configuration of *: no change
    [web-01] Run nginx: changed: start
    [web-03] Run nginx: skipped
    --> Results
        host    changed  no change  skipped  failed  not started  state
        web-01        3          -        -       -            -  changed
        web-02        -          -        -       1            2  failed
        web-03        -          2        1       -            -  unchanged
        db-01         -          1        -       -            -  unchanged
        db-02         -          -        -       -            -  unreachable

    5 hosts: 1 changed, 2 unchanged, 1 failed, 1 unreachable
        failed: web-02
        unreachable: db-02

        To go on from there: infra fleet.lua deploy.lua --limit web-02,db-02
    ");
}

#[test]
fn five_hosts_with_reasons() {
    assert_snapshot!(fleet().human(1), @r"
    --> Connecting to 5 hosts
    [web-01] connected
    [web-02] connected
    [web-03] connected
    [db-01] connected
    [db-02] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 4 hosts
    [web-01] 3 operations
    [web-02] 3 operations
    [web-03] 3 operations
    [db-01] 1 operation
    --> Plan
        operation                      change         no change        depends on
        Install nginx                  2 web-[01-02]  1 web-03         -
            server.shell, deploy.lua:12
            [web-[01-02]] change: install nginx
                > apt-get install -y nginx
            [web-03] no change: nginx 1.22 is there
        Upload the configuration of *  2 web-[01-02]  2 web-03, db-01  -
            server.shell, deploy.lua:20
            [web-[01-02]] change: content
                > write /etc/nginx/nginx.conf
                --- /etc/nginx/nginx.conf
                +++ /etc/nginx/nginx.conf
                @@ -1,6 +1,6 @@
                 a
                 b
                 c
                -d
                +D
                 e
                 f
            [web-03, db-01] no change: already as wished
        Run nginx                      -              -                3 on «Install nginx»
            server.shell, deploy.lua:31
            [web-[01-03]] depends: on «Install nginx»

        3 operations on 4 hosts: 4 will change, 3 no change, 3 depending on an earlier one.
        A host that fails takes no further part; the others go on.
        note: web-01 and web-02 call «a» and «b» in opposite orders: «a» was split
    --> Running 3 operations on 4 hosts
    [web-03] Install nginx: no change: nginx 1.22 is there
    [web-01] Install nginx: changed: install nginx (12.5 s)
    [web-02] Install nginx: failed: exited with 100 (2.0 s)
        at deploy.lua:12
        > apt-get install -y nginx
        | E: Unable to locate package nginx
    [web-01] Upload the configuration of *: changed: content
    [web-03] Upload the configuration of *: no change: already as wished
    [db-01] Upload the configuration of *: no change: already as wished
    [web-01] Run nginx: changed: start
    [web-03] Run nginx: skipped: «Install nginx» changed nothing
    --> Results
        host    changed  no change  skipped  failed  not started  state
        web-01        3          -        -       -            -  changed
        web-02        -          -        -       1            2  failed
        web-03        -          2        1       -            -  unchanged
        db-01         -          1        -       -            -  unchanged
        db-02         -          -        -       -            -  unreachable

    5 hosts: 1 changed, 2 unchanged, 1 failed, 1 unreachable
        failed: web-02
        unreachable: db-02

        To go on from there: infra fleet.lua deploy.lua --limit web-02,db-02
    ");
}

#[test]
fn five_hosts_on_a_narrow_screen() {
    let (human, _) = fleet().shown(ScreenSettings { width: 60, ..settings() });
    assert_snapshot!(human, @r"
    --> Connecting to 5 hosts
    [db-02] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 4 hosts
    --> Plan
        operation        change  no change  depends on
        Install nginx    2       1          -
        Upload the con…  2       2          -
        Run nginx        -       -          3 on «Install nginx»

        3 operations on 4 hosts: 4 will change, 3 no change, 3 depending on an earlier one.
        A host that fails takes no further part; the others go on.
    --> Running 3 operations on 4 hosts
    [web-03] Install nginx: no change
    [web-01] Install nginx: changed: install nginx (12.5 s)
    [web-02] Install nginx: failed: exited with 100 (2.0 s)
        at deploy.lua:12
        > apt-get install -y nginx
        | E: Unable to locate package nginx
    [web-01] Upload the configuration of *: changed: content
    [web-03] Upload the configuration of *: no change
    [db-01] Upload the configuration of *: no change
    [web-01] Run nginx: changed: start
    [web-03] Run nginx: skipped
    --> Results
        host    changed  no change  skipped  failed  not started  state
        web-01        3          -        -       -            -  changed
        web-02        -          -        -       1            2  failed
        web-03        -          2        1       -            -  unchanged
        db-01         -          1        -       -            -  unchanged
        db-02         -          -        -       -            -  unreachable

    5 hosts: 1 changed, 2 unchanged, 1 failed, 1 unreachable
        failed: web-02
        unreachable: db-02

        To go on from there: infra fleet.lua deploy.lua --limit web-02,db-02
    ");
}

#[test]
fn a_dry_run() {
    let run = Run::fleet(RunKind::Dry, 2)
        .connected()
        .planned(vec![operation("Write the page", 5, [(0, change("create", &[])), (1, none(""))])])
        .ended();
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        operation       change    no change  depends on
        Write the page  1 web-01  1 web-02   -

        1 operation on 2 hosts: 1 will change, 1 no change.
    2 hosts: 1 planned: changes, 1 planned: none
    ");
}

#[test]
fn a_declined_run() {
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected()
        .planned(vec![operation("Write the page", 5, [(0, change("create", &[])), (1, none(""))])])
        .then(Event::Declined)
        .ended();
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        operation       change    no change  depends on
        Write the page  1 web-01  1 web-02   -

        1 operation on 2 hosts: 1 will change, 1 no change.
        A host that fails takes no further part; the others go on.
    2 hosts: 2 not reached
        not reached: web-[01-02]
        Nothing was executed: the question was answered with no.
    ");
}

#[test]
fn no_operation_at_all() {
    assert_snapshot!(Run::fleet(RunKind::Dry, 2).connected().planned(vec![]).ended().human(0), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        The deploy registers no operation on any host.
    2 hosts: 2 planned: none
    ");
}

/// A thousand hosts: most change alike, two are unreachable for the same reason, two hundred fail alike.
fn thousand() -> Run {
    let dead = [7, 8];
    let alive = || (0..1000).filter(|id| !dead.contains(id));
    let failure = || exited(1, "systemctl start nginx", &["Job for nginx.service failed."]);
    Run::fleet(RunKind::Deploy, 1000)
        .connected_but(&dead)
        .each(dead.map(refused))
        .planned(vec![
            operation("Install nginx", 12, alive().map(|host| (host, if host < 900 { change("install", &[]) } else { none("there") }))),
            operation("Run nginx", 31, alive().map(|host| (host, change("start", &[])))),
        ])
        .then(Event::Executing)
        .operation(0, alive().rev().map(|host| (host, if host < 900 { changed("install", 3.0) } else { unchanged("there") })))
        .operation(1, alive().map(|host| (host, if host < 800 { changed("start", 1.0) } else { failed(failure(), 0.5) })))
        .ended()
}

#[test]
fn a_thousand_hosts() {
    assert_snapshot!(thousand().human(0), @r"
    --> Connecting to 1000 hosts
    [web-[0008-0009]] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 998 hosts
    --> Plan
        operation      change  no change            depends on
        Install nginx  898     100 web-[0901-1000]  -
        Run nginx      998     -                    -

        2 operations on 998 hosts: 1896 will change, 100 no change.
        A host that fails takes no further part; the others go on.
    --> Running 2 operations on 998 hosts
    --> Install nginx on 998 hosts (1 of 2)
    [web-[0901-1000]] Install nginx: no change (100 hosts)
    [web-[0001-0007], web-[0010-0900]] Install nginx: changed: install (898 hosts)
    --> Run nginx on 998 hosts (2 of 2)
    [web-0801] Run nginx: failed: exited with 1
        at deploy.lua:31
        > systemctl start nginx
        | Job for nginx.service failed.
    [web-[0001-0007], web-[0010-0800]] Run nginx: changed: start (798 hosts)
    [web-[0802-1000]] Run nginx: failed: exited with 1 (as on web-0801) (199 hosts)
    --> Results
        host                              hosts  changed  no change  failed  state
        web-[0001-0007], web-[0010-0800]    798        2          -       -  changed
        web-[0008-0009]                       2        -          -       -  unreachable
        web-[0801-0900]                     100        1          -       1  failed
        web-[0901-1000]                     100        -          1       1  failed

    1000 hosts: 798 changed, 200 failed, 2 unreachable
        failed: web-[0801-1000]
        unreachable: web-[0008-0009]

        To go on from there: infra fleet.lua deploy.lua --limit 'web-[0008-0009],web-[0801-1000]'
    ");
}

#[test]
fn a_thousand_hosts_have_a_line_each_with_v() {
    let human = thousand().human(1);
    assert!(human.contains("[web-0431] Install nginx: changed: install (3.0 s)\n"));
    assert!(human.contains("[web-0950] Install nginx: no change: there\n"));
    assert!(human.contains("[web-0950] Run nginx: failed: exited with 1 (as on web-0801)\n"));
}

#[test]
fn operations_with_nothing_to_do_are_counted_in_a_long_plan() {
    let outlook = |index: u32| if index == 7 { change("create", &[]) } else { none("") };
    let operations = (0..30).map(|index| operation(&format!("Step {index}"), index, [(0, outlook(index))])).collect();
    assert_snapshot!(Run::fleet(RunKind::Dry, 1).connected().planned(operations).ended().human(0), @r"
    --> Connecting to 1 host
    --> Preparing 1 host
    --> Plan
        operation  change  no change  depends on
        Step 7     1       -          -
        … and 29 operations with nothing to do (-v shows them)

        30 operations on 1 host: 1 will change, 29 no change.
    1 host: 1 planned: changes
    ");
}

#[test]
fn once_for_all_and_ignored_failures() {
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected()
        .planned(vec![
            operation("Migrate", 3, (0..2).map(|host| (host, change("run 1 command", &[])))),
            operation("Warm the cache", 5, (0..2).map(|host| (host, change("run 1 command", &[])))),
        ])
        .then(Event::Executing)
        .operation(0, [(0, changed("ran 1 command", 0.0)), (1, elsewhere(0, true))])
        .operation(1, [(0, ignored(exited(1, "warm", &["no route"]))), (1, changed("ran 1 command", 0.0))])
        .ended();
    assert_snapshot!(run.human(0), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        operation       change  no change  depends on
        Migrate         2       -          -
        Warm the cache  2       -          -

        2 operations on 2 hosts: 4 will change.
        A host that fails takes no further part; the others go on.
    --> Running 2 operations on 2 hosts
    [web-01] Migrate: changed: ran 1 command
    [web-02] Migrate: changed (it ran on web-01)
    [web-01] Warm the cache: failed (ignored): exited with 1
        at deploy.lua:5
        > warm
        | no route
    [web-02] Warm the cache: changed: ran 1 command
    --> Results
        host    changed  no change  failed  ignored  state
        web-01        1          -       -        1  changed
        web-02        2          -       -        -  changed

    2 hosts: 2 changed
    ");
}

/// A wave that fails, and what was not reached because of it.
fn stopped(reason: StopReason, words: &str) -> String {
    let run = Run::fleet(RunKind::Deploy, 4)
        .connected()
        .planned(vec![operation("Restart the app", 3, (0..4).map(|host| (host, change("restart", &[]))))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .then(Event::HostOperationStarted { op: OpId(0), host: HostId(0) })
        .then(Event::HostOperationEnded { op: OpId(0), host: HostId(0), result: Box::new(changed("restart", 0.0)) })
        .then(Event::HostOperationStarted { op: OpId(0), host: HostId(1) })
        .then(Event::HostOperationEnded { op: OpId(0), host: HostId(1), result: Box::new(failed(exited(3, "app restart", &[]), 0.0)) })
        .then(Event::Stopped { reason })
        .then(Event::OperationEnded { op: OpId(0) })
        .ended();
    let settings = ScreenSettings { invocation: crate::bench::words(words), ..settings() };
    let (human, _) = run.shown(settings);
    human.split_once("app restart\n").unwrap().1.to_owned()
}

#[test]
fn a_wave_that_failed_stops_the_run() {
    let reason = StopReason::WaveFailed { of: Waves::Operation(OpId(0)), wave: 1, not_ok: 1, entered: 1, allowed: 0 };
    assert_snapshot!(stopped(reason, "infra fleet.lua deploy.lua --limit web --yes"), @r"
    stopping: of the 1 host that entered wave 1 of «Restart the app» 1 is not ok, and 0 may be; nothing new is started
    --> Results
        host    changed  no change  failed  not started  state
        web-01        1          -       -            -  changed
        web-02        -          -       1            -  failed
        web-03        -          -       -            1  not reached
        web-04        -          -       -            1  not reached

    4 hosts: 1 changed, 1 failed, 2 not reached
        failed: web-02
        not reached: web-[03-04]
        stopped: of the 1 host that entered wave 1 of «Restart the app» 1 is not ok, and 0 may be

        To go on from there: infra fleet.lua deploy.lua --yes --limit web-02,web-03,web-04
    ");
}

#[test]
fn fail_fast_stops_the_run() {
    let reason = StopReason::FailFast { host: HostId(1) };
    assert_snapshot!(stopped(reason, "infra fleet.lua --limit=web -- it's"), @r"
    stopping: web-02 is not ok, and --fail-fast allows no such host; nothing new is started
    --> Results
        host    changed  no change  failed  not started  state
        web-01        1          -       -            -  changed
        web-02        -          -       1            -  failed
        web-03        -          -       -            1  not reached
        web-04        -          -       -            1  not reached

    4 hosts: 1 changed, 1 failed, 2 not reached
        failed: web-02
        not reached: web-[03-04]
        stopped: web-02 is not ok, and --fail-fast allows no such host

        To go on from there: infra fleet.lua --limit web-02,web-03,web-04 -- 'it'\''s'
    ");
}

#[test]
fn an_operation_that_runs_once_stops_the_run() {
    let human = stopped(StopReason::RunOnceFailed { op: OpId(0), host: HostId(1) }, "infra");
    assert!(human.contains("stopped: «Restart the app», which runs once for all its hosts, failed on web-02\n"), "{human}");
    assert!(stopped(StopReason::NoHostLeft, "infra").contains("stopped: no host is left that is ok\n"));
}

#[test]
fn an_interrupted_run_says_what_is_in_flight() {
    let in_flight = || vec![(OpId(0), HostId(0), Duration::from_secs(75)), (OpId(0), HostId(1), Duration::from_millis(300))];
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected()
        .planned(vec![operation("Build", 3, (0..2).map(|host| (host, change("run", &[]))))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: OpId(0) })
        .each((0..2).map(|host| Event::HostOperationStarted { op: OpId(0), host: HostId(host) }))
        .then(Event::Interrupted { times: 1, in_flight: in_flight() })
        .then(Event::Stopped { reason: StopReason::Interrupted })
        .then(Event::Interrupted { times: 2, in_flight: in_flight() })
        .then(Event::Interrupted { times: 3, in_flight: in_flight() })
        .then(Event::RunEnded);
    let human = run.human(0);
    assert_snapshot!(human.split_once("ones go on.\n").map_or(human.as_str(), |(_, rest)| rest), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Plan
        operation  change  no change  depends on
        Build      2       -          -

        1 operation on 2 hosts: 2 will change.
        A host that fails takes no further part; the others go on.
    --> Running 1 operation on 2 hosts
    interrupted: nothing new is started; what is in flight is let finish (once more to kill it)
        [web-01] Build, for 1 min 15 s
        [web-02] Build, for 0.3 s
    interrupted: what is in flight is killed on the hosts (once more to leave at once)
        [web-01] Build, for 1 min 15 s
        [web-02] Build, for 0.3 s
    interrupted: leaving at once; this may still be running:
        [web-01] Build, for 1 min 15 s
        [web-02] Build, for 0.3 s
    --> Results
        host    changed  no change  failed  not started  state
        web-01        -          -       -            1  not reached
        web-02        -          -       -            1  not reached

    2 hosts: 2 not reached
        not reached: web-[01-02]
        stopped: interrupted
    ");
}

#[test]
fn colours_add_nothing_but_colours() {
    for verbosity in 0..=3 {
        let (coloured, _) = fleet().shown(ScreenSettings { verbosity, colour: true, ..settings() });
        assert!(coloured.contains("\u{1b}["), "verbosity {verbosity}");
        assert_eq!(console::strip_ansi_codes(&coloured), fleet().human(verbosity));
    }
}

#[test]
fn no_line_of_a_plan_is_wider_than_the_screen() {
    for width in [48, 60, 80] {
        let (human, _) = fleet().shown(ScreenSettings { width, ..settings() });
        let plan = human.split_once("Plan\n").unwrap().1.split_once("\n\n").unwrap().0;
        for line in plan.lines() {
            assert!(console::measure_text_width(line) <= usize::from(width), "{width}: {line}");
        }
    }
}

#[test]
fn the_time_of_a_run_shows_where_its_start_is_known() {
    let (human, _) = quickstart().shown(ScreenSettings { started: Some(std::time::Instant::now()), ..settings() });
    assert!(human.contains("\n1 host: 1 changed (in "), "{human}");
}

#[test]
fn what_a_failure_leads_to_is_said_before() {
    let (human, _) = quickstart().shown(ScreenSettings { controls: Controls { fail_fast: true, ..Controls::default() }, ..settings() });
    assert!(human.contains("    At the first host that is not ok nothing new is started on any host (--fail-fast).\n"), "{human}");
}
