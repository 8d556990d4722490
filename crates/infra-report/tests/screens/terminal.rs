//! The terminal: what stands on it after each event, as a terminal shows it.

use std::time::Duration;

use infra_core::event::{Event, Reporter, RunKind};
use infra_core::host::HostId;
use infra_core::output::Stream;
use infra_core::plan::OpId;
use infra_report::{ScreenSettings, screen};
use insta::assert_snapshot;

use crate::bench::*;

/// A terminal of 100 columns that takes what the screen writes. Like a real one in cooked mode it begins a line at its first column.
struct Glass {
    kept: Kept,
    reporter: Box<dyn Reporter>,
}

impl Glass {
    fn new(tick: Option<Duration>) -> Self {
        let kept = Kept::default();
        let settings = ScreenSettings { terminal: true, results_terminal: true, width: 100, tick, ..settings() };
        Self { reporter: screen(settings, kept.boxed(), kept.boxed()), kept }
    }

    fn give(&mut self, run: &Run) {
        run.events.iter().for_each(|event| self.reporter.event(event));
        self.reporter.idle();
    }

    fn contents(&self) -> String {
        let mut parser = vt100::Parser::new(40, 100, 0);
        let text = self.kept.text().replace("\r\n", "\n").replace('\n', "\r\n");
        parser.process(text.as_bytes());
        let rows: Vec<_> = parser.screen().rows(0, 100).map(|row| row.trim_end().to_owned()).collect();
        rows.join("\n").trim_end().to_owned()
    }
}

#[test]
fn a_bar_stands_below_the_lines_and_goes_when_its_stage_ends() {
    let mut glass = Glass::new(None);
    glass.give(&Run::fleet(RunKind::Deploy, 5).connected_but(&[1, 3, 4]).then(refused(3)));
    assert_snapshot!(glass.contents(), @r"
    --> Connecting to 5 hosts
    [web-04] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
        connecting [============>       ] 3/5  web-02, web-05
    ");

    let mut rest = Run::fleet(RunKind::Deploy, 5);
    rest.events.clear();
    let planned = rest
        .then(Event::HostConnected { host: HostId(1), took: Duration::ZERO })
        .then(Event::HostConnected { host: HostId(4), took: Duration::ZERO })
        .planned(vec![operation("Install {nginx}", 12, [0, 1, 2, 4].map(|host| (host, change("install", &[]))))]);
    glass.give(&planned);
    assert!(!glass.contents().contains("preparing"), "no bar is in the way of the question");

    let mut rest = Run::fleet(RunKind::Deploy, 5);
    rest.events.clear();
    let op = OpId(0);
    let at_work = rest
        .then(Event::Executing)
        .then(Event::OperationStarted { op })
        .each([0, 1, 2, 4].map(|host| Event::HostOperationStarted { op, host: HostId(host) }))
        .then(Event::HostOperationEnded { op, host: HostId(1), result: Box::new(changed("install", 0.0)) })
        .then(output(0, Stream::Stdout, b"not shown"));
    glass.give(&at_work);
    assert_snapshot!(glass.contents(), @r"
    --> Connecting to 5 hosts
    [web-04] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 4 hosts
    --> Plan
        operation        change  no change  depends on
        Install {nginx}  4       -          -

        1 operation on 4 hosts: 4 will change.
        A host that fails takes no further part; the others go on.
    --> Running 1 operation on 4 hosts
    [web-02] Install {nginx}: changed: install
        Install {nginx} [=====>              ] 1/4  web-01, web-03, web-05
    ");

    let mut rest = Run::fleet(RunKind::Deploy, 5);
    rest.events.clear();
    let ended = rest
        .each([0, 2, 4].map(|host| Event::HostOperationEnded { op, host: HostId(host), result: Box::new(changed("install", 0.0)) }))
        .then(Event::OperationEnded { op })
        .ended();
    glass.give(&ended);
    assert_snapshot!(glass.contents(), @r"
    --> Connecting to 5 hosts
    [web-04] unreachable (connect): connection refused by 10.0.0.7 port 22

        hint: is sshd running there?
    --> Preparing 4 hosts
    --> Plan
        operation        change  no change  depends on
        Install {nginx}  4       -          -

        1 operation on 4 hosts: 4 will change.
        A host that fails takes no further part; the others go on.
    --> Running 1 operation on 4 hosts
    [web-02] Install {nginx}: changed: install
    [web-01] Install {nginx}: changed: install
    [web-03] Install {nginx}: changed: install
    [web-05] Install {nginx}: changed: install
    --> Results
        host    changed  no change  failed  state
        web-01        1          -       -  changed
        web-02        1          -       -  changed
        web-03        1          -       -  changed
        web-04        -          -       -  unreachable
        web-05        1          -       -  changed

    5 hosts: 4 changed, 1 unreachable
        unreachable: web-04

        To go on from there: infra fleet.lua deploy.lua --limit web-04
    ");
}

#[test]
fn results_pass_above_the_bar() {
    let op = OpId(0);
    let run = Run::fleet(RunKind::Exec, 2)
        .connected()
        .planned(vec![operation("uname", 0, (0..2).map(|host| (host, change("", &[]))))])
        .then(Event::Executing)
        .then(Event::OperationStarted { op })
        .each((0..2).map(|host| Event::HostOperationStarted { op, host: HostId(host) }))
        .then(output(0, Stream::Stdout, b"Linux"))
        .then(output(1, Stream::Stderr, b"warning"));
    let mut glass = Glass::new(None);
    glass.give(&run);
    assert_snapshot!(glass.contents(), @r"
    --> Connecting to 2 hosts
    --> Preparing 2 hosts
    --> Running on 2 hosts
    [web-01] Linux
    [web-02] warning
        uname [                    ] 0/2  web-01, web-02
    ");
}

#[test]
fn the_terminal_says_what_the_lines_say() {
    let run = Run::fleet(RunKind::Deploy, 3)
        .connected_but(&[2])
        .then(refused(2))
        .planned(vec![operation("Install nginx", 12, (0..2).map(|host| (host, change("install", &[]))))])
        .then(Event::Executing)
        .operation(0, [(0, changed("install", 0.0)), (1, failed(exited(1, "apt-get install nginx", &["E: no"]), 0.0))])
        .ended();
    // With bars that are drawn by the clock as well as with those that are not: what is left in the end is the same.
    for tick in [None, Some(Duration::from_millis(50))] {
        let mut glass = Glass::new(tick);
        glass.give(&run);
        let (lines, _) = run.shown(ScreenSettings { width: 100, ..settings() });
        assert_eq!(glass.contents(), lines.trim_end());
    }
}

#[test]
fn a_screen_that_is_dropped_in_the_middle_leaves_no_bar() {
    let mut glass = Glass::new(None);
    glass.give(&Run::fleet(RunKind::Deploy, 2).connected_but(&[1]));
    assert!(glass.contents().contains("1/2  web-02"));
    let Glass { kept, reporter } = glass;
    drop(reporter);
    let left = Glass { kept, reporter: screen(settings(), Box::new(std::io::sink()), Box::new(std::io::sink())) };
    assert_eq!(left.contents(), "--> Connecting to 2 hosts");
}

#[test]
fn operations_at_the_same_time_share_a_bar() {
    let (first, second) = (OpId(0), OpId(1));
    let at = |op, host| Event::HostOperationStarted { op, host: HostId(host) };
    let done = |op, host| Event::HostOperationEnded { op, host: HostId(host), result: Box::new(changed("ran", 0.0)) };
    let both = || (0..2).map(|host| (host, change("run", &[])));
    let run = Run::fleet(RunKind::Deploy, 2)
        .connected()
        .planned(vec![operation("Serve", 4, both()), operation("Load", 5, both())])
        .then(Event::Executing)
        .then(Event::OperationStarted { op: first })
        .each([at(first, 0), at(first, 1)])
        .then(Event::OperationStarted { op: second })
        .each([at(second, 0), done(first, 0)]);
    let mut glass = Glass::new(None);
    glass.give(&run);
    let bar = |glass: &Glass| glass.contents().lines().last().unwrap().split_once("] ").unwrap().1.to_owned();
    assert_eq!(bar(&glass), "1/4  web-02, web-01");
    // The first ends for both; the second host never came to the second.
    glass.reporter.event(&Event::OperationEnded { op: first });
    assert_eq!(bar(&glass), "2/4  web-01");
    glass.reporter.event(&done(second, 0));
    glass.reporter.event(&Event::OperationEnded { op: second });
    assert!(!glass.contents().contains("2 operations ["), "{}", glass.contents());
}

#[test]
fn files_on_their_way_are_counted_in_bytes_over_all_hosts() {
    let mut glass = Glass::new(None);
    let op = OpId(0);
    let moved = |host, bytes| Event::Moved { op, host: HostId(host), bytes, total: 4 << 20 };
    glass.give(
        &Run::fleet(RunKind::Deploy, 3)
            .connected_but(&[])
            .planned(vec![operation("copy", 12, [0, 1, 2].map(|host| (host, change("copy", &[]))))])
            .then(Event::Executing)
            .then(Event::OperationStarted { op })
            .each([0, 1, 2].map(|host| Event::HostOperationStarted { op, host: HostId(host) }))
            .then(moved(0, 1 << 20))
            .then(moved(1, 2 << 20)),
    );
    let bar = |glass: &Glass| glass.contents().lines().last().unwrap_or_default().trim().to_owned();
    assert!(bar(&glass).ends_with("0/3  3.0 MiB of 8.0 MiB; web-01 (25 %), web-02 (50 %), web-03"), "{}", bar(&glass));

    // A host that is done leaves its bytes in the sum, and one that begins anew does not take them away.
    let mut rest = Run::fleet(RunKind::Deploy, 3);
    rest.events.clear();
    let done = Event::HostOperationEnded { op, host: HostId(1), result: Box::new(changed("copy", 0.0)) };
    glass.give(&rest.then(done).then(moved(0, 4 << 20)));
    assert!(bar(&glass).contains("1/3  "), "{}", bar(&glass));
    assert!(bar(&glass).contains("web-01 (100 %)"), "{}", bar(&glass));
}
