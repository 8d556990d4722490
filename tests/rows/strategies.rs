//! Who runs when.

use std::fs;

use infra_test::process::Process;

use crate::stage::Stage;

/// (no option): each operation runs on all its hosts at once, and the next begins when it has ended on every one; hosts that do not call it have no part in it.
#[test]
fn the_barrier() {
    let stage = Stage::new(3);
    let ran = stage.deploy(
        "server.shell { name = 'A', commands = { meet('a', 3) } }
         if me == 'b' then server.shell { name = 'B', commands = { 'true' } } end
         server.shell { name = 'C', commands = { meet('c', 3) } }",
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    assert_eq!((timeline.most_at_once(&["A"]), timeline.most_at_once(&["C"])), (3, 3));
    assert!(timeline.all_before(&["A"], &["B", "C"]) && timeline.all_before(&["B"], &["C"]), "{timeline:#?}");
    assert_eq!(timeline.hosts_of("B"), ["b"]);
    stage.nothing_left();
}

/// The first host ends only when the last one has begun: with fixed batches of two, that would never be.
const WINDOW: &str = "commands = { me == 'a' and await('d.is_there') or me == 'd' and 'touch d.is_there' or 'true' }";

/// `--parallel N`: at most so many hosts at work over the whole run, in a window that slides; different operations of a `parallel` block included.
#[test]
fn parallel_on_the_command_line() {
    let stage = Stage::new(4);
    let ran = stage.deploy(
        &format!(
            "server.shell {{ name = 'A', {WINDOW} }}
             parallel(function()
               server.shell {{ name = 'B', commands = {{ 'sleep 0.05' }} }}
               server.shell {{ name = 'C', commands = {{ 'sleep 0.05' }} }}
             end)"
        ),
        &["--parallel", "2"],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    let first = timeline.span("A", "a");
    assert!(["b", "c", "d"].iter().all(|host| first.overlaps(timeline.span("A", host))), "{timeline:#?}");
    assert_eq!(timeline.most_hosts_at_once(&["A"]), 2);
    assert_eq!(timeline.most_hosts_at_once(&["A", "B", "C"]), 2);
    stage.nothing_left();
}

/// `_parallel = N`: the same for one operation; another one of the same run has all hosts at once.
#[test]
fn parallel_of_one_operation() {
    let stage = Stage::new(4);
    let ran = stage.deploy(
        &format!(
            "server.shell {{ name = 'A', _parallel = 2, {WINDOW} }}
             server.shell {{ name = 'B', commands = {{ meet('b', 4) }} }}"
        ),
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    let first = timeline.span("A", "a");
    assert!(["b", "c", "d"].iter().all(|host| first.overlaps(timeline.span("A", host))), "{timeline:#?}");
    assert_eq!((timeline.most_at_once(&["A"]), timeline.most_at_once(&["B"])), (2, 4));
    stage.nothing_left();
}

/// `_serial = true`, `N`, a share (rounded down, at least one host), and a list of sizes: waves in the order of the inventory, and no host of a wave begins before
/// the wave before it has ended.
#[test]
fn serial_operations() {
    let stage = Stage::new(6);
    let ran = stage.deploy(
        "local pair = (me:byte() - 97) // 2
         server.shell { name = 'One', _serial = true, commands = { 'true' } }
         server.shell { name = 'Two', _serial = 2, commands = { meet('two-' .. pair, 2) } }
         server.shell { name = 'Share', _serial = '34%', commands = { meet('share-' .. pair, 2) } }
         server.shell { name = 'Little', _serial = '10%', commands = { 'true' } }
         server.shell { name = 'Growing', _serial = { 1, '50%', '100%' }, commands = { 'true' } }",
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    let one_by_one = [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]].map(|wave| wave.to_vec());
    let pairs = [["a", "b"], ["c", "d"], ["e", "f"]].map(|wave| wave.to_vec());
    let growing = [vec!["a"], vec!["b", "c", "d"], vec!["e", "f"]];
    let wanted = [one_by_one.to_vec(), pairs.to_vec(), pairs.to_vec(), one_by_one.to_vec(), growing.to_vec()];
    assert_eq!(timeline.waves(), wanted.concat());
    for (operation, waves) in ["One", "Two", "Share", "Little", "Growing"].into_iter().zip(&wanted) {
        for pair in waves.windows(2) {
            for (first, second) in pair[0].iter().flat_map(|first| pair[1].iter().map(move |second| (first, second))) {
                assert!(timeline.span(operation, first).before(timeline.span(operation, second)), "{operation}: {first}, {second}");
            }
        }
    }
    let most = ["One", "Two", "Share", "Little"].map(|operation| timeline.most_at_once(&[operation]));
    assert_eq!(most, [1, 2, 2, 1]);
    stage.nothing_left();
}

/// `--serial`: all operations of a host, then the next host.
#[test]
fn host_by_host() {
    let stage = Stage::new(3);
    let ran = stage.deploy(
        "server.shell { name = 'A', commands = { 'true' } }
         server.shell { name = 'B', commands = { 'true' } }",
        &["--serial"],
    );
    let ran = ran.expect(0);
    assert_eq!(ran.timeline.order(), [("A", "a"), ("B", "a"), ("A", "b"), ("B", "b"), ("A", "c"), ("B", "c")]);
    assert_eq!(ran.timeline.most_at_once(&["A", "B"]), 1);
    stage.nothing_left();
}

/// `--no-wait`: no barriers between operations; `_serial` and `rolling` keep their meaning: a host waits there for its turn, in the order of the inventory whoever
/// comes first, and one that failed gives its turn up.
#[test]
fn without_waiting() {
    let stage = Stage::new(3);
    let text = "
        local failing = host:get('failing') == me
        server.shell { name = 'First', commands = { me == 'a' and await('b.was_there') or failing and 'false' or 'true' } }
        server.shell { name = 'Second', commands = { me == 'b' and 'touch b.was_there' or 'true' } }
        server.shell { name = 'Turn', _serial = true, commands = { 'true' } }
        rolling({ batch = 1 }, function()
          server.shell { name = 'Out', commands = { 'true' } }
          server.shell { name = 'In', commands = { 'true' } }
        end)";
    let ran = stage.deploy(text, &["--no-wait"]).expect(0);
    let timeline = &ran.timeline;
    assert!(timeline.span("First", "a").overlaps(timeline.span("Second", "b")), "{timeline:#?}");
    assert_eq!((timeline.hosts_of("Turn"), timeline.most_at_once(&["Turn"])), (vec!["a", "b", "c"], 1));
    assert_eq!((timeline.hosts_of("Out"), timeline.most_hosts_at_once(&["Out", "In"])), (vec!["a", "b", "c"], 1));
    assert!(timeline.span("In", "a").before(timeline.span("Out", "b")) && timeline.span("In", "b").before(timeline.span("Out", "c")));

    let ran = stage.deploy(text, &["--no-wait", "--data", "failing=c"]).expect(1);
    assert_eq!(ran.states(), "a=changed b=changed c=failed");
    assert_eq!((ran.timeline.hosts_of("Turn"), ran.timeline.hosts_of("In")), (vec!["a", "b"], vec!["a", "b"]));
    stage.nothing_left();
}

/// `parallel(fn)`: what is inside runs at the same time, also different operations on one host; what comes after it waits for all of it. `_serial` inside: that
/// operation one host at a time.
#[test]
fn parallel_blocks() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "parallel(function()
           server.shell { name = 'Left', commands = { meet('all', 4, '.left') } }
           server.shell { name = 'Right', commands = { meet('all', 4, '.right') } }
           server.shell { name = 'Turn', _serial = true, commands = { 'sleep 0.05' } }
         end)
         server.shell { name = 'After', commands = { 'true' } }",
        &[],
    );
    let ran = ran.expect(0);
    assert_eq!((ran.timeline.most_at_once(&["Left", "Right"]), ran.timeline.most_at_once(&["Turn"])), (4, 1));
    assert!(ran.timeline.all_before(&["Left", "Right", "Turn"], &["After"]), "{:#?}", ran.timeline);
    stage.nothing_left();
}

/// `_background = true`: ended when the other operations of the block have ended, with TERM and then KILL for its whole group, and that counts as ok.
#[test]
fn background_operations() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "parallel(function()
           local deaf = me == 'a' and \"trap '' TERM; \" or ''
           server.shell { name = 'Server', _background = true,
             commands = { deaf .. 'sleep 4321 & echo $$ $! >pids.' .. me .. '; ' .. come('up') .. '; while :; do sleep 0.05; done' } }
           server.shell { name = 'Load', commands = { await('up.' .. me) } }
         end)
         server.shell { name = 'After', commands = { 'true' } }",
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    for host in ["a", "b"] {
        assert!(timeline.span("Load", host).to < timeline.span("Server", host).to, "{timeline:#?}");
        assert_eq!(timeline.outcome("Server", host), Some("changed"));
        let pids = fs::read_to_string(ran.folder.join(format!("pids.{host}"))).expect("it told");
        let found = pids.split_whitespace().filter_map(|pid| Process::of(pid.parse().expect("a pid")));
        let running: Vec<Process> = found.filter(Process::is_running).collect();
        assert!(running.is_empty(), "{running:#?}");
    }
    assert!(timeline.all_before(&["Server"], &["After"]));
    stage.nothing_left();
}

/// `rolling(opts, fn)`: what is inside runs as one block, wave by wave: `batch` as `_serial`, `pause` between two waves, and none after a wave that changed nothing.
#[test]
fn rolling_blocks() {
    let stage = Stage::new(4);
    let ran = stage.deploy(
        "local pair = (me:byte() - 97) // 2
         rolling({ batch = '50%', pause = 0.4 }, function()
           server.shell { name = 'Out', commands = { meet('out-' .. pair, 2) } }
           server.shell { name = 'In', commands = { meet('in-' .. pair, 2) } }
         end)",
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    assert_eq!(timeline.waves(), [["a", "b"], ["c", "d"]]);
    for first in ["a", "b"] {
        for second in ["c", "d"] {
            assert!(timeline.span("In", first).before(timeline.span("Out", second)), "{timeline:#?}");
        }
    }
    assert_eq!((timeline.most_at_once(&["Out"]), timeline.most_at_once(&["In"])), (2, 2));
    let second_wave = timeline.span("Out", timeline.hosts_of("Out")[2]);
    assert!(timeline.gap_before(second_wave) >= 0.4, "{timeline:#?}");

    // Only b changes something, so there is one pause, before c. With those of all waves it would take three minutes.
    let ran = stage.deploy(
        "rolling({ pause = 1 }, function()
           server.shell { name = 'Visit', commands = { 'true' }, _if = me == 'b' }
           files.directory { name = 'Look', path = '.' }
         end)
         rolling({ pause = 60 }, function() files.directory { name = 'Look again', path = '.' } end)",
        &[],
    );
    let ran = ran.expect(0);
    assert_eq!(ran.states(), "a=unchanged b=changed c=unchanged d=unchanged");
    let length = ran.timeline.length();
    assert!((1.0..30.0).contains(&length), "{length}: {:#?}", ran.timeline);
    assert_eq!(ran.timeline.waves().len(), 8);
    stage.nothing_left();
}

/// `_run_once = true`: on the first host that is alive when the operation starts; what it came to counts for all that call it.
#[test]
fn run_once() {
    let stage = Stage::new(3);
    let text = "
        if me == 'a' and host:get('break') then server.shell { name = 'Break', commands = { 'false' } } end
        local once = server.shell { name = 'Once', _run_once = true, commands = { come('once') } }
        server.shell { name = 'Then', _if = once.did_change, commands = { come('then') } }";
    let ran = stage.deploy(text, &[]).expect(0);
    assert_eq!((ran.made_by("once"), ran.made_by("then")), ("a".to_owned(), "a b c".to_owned()));
    assert_eq!(ran.timeline.outcome("Once", "c"), Some("elsewhere"));
    assert!(ran.timeline.all_before(&["Once"], &["Then"]));
    // The first one has failed before.
    let ran = stage.deploy(text, &["--data", "break=true"]).expect(1);
    assert_eq!((ran.made_by("once"), ran.made_by("then")), ("b".to_owned(), "b c".to_owned()));
    assert_eq!(ran.states(), "a=failed b=changed c=changed");

    // Inside `rolling` it runs once for the whole block, in its first wave.
    let ran = stage.deploy(
        "rolling({ batch = 1 }, function()
           server.shell { name = 'Once', _run_once = true, commands = { come('once') } }
           server.shell { name = 'Each', commands = { 'true' } }
         end)",
        &[],
    );
    let ran = ran.expect(0);
    assert_eq!((ran.timeline.hosts_of("Once"), ran.timeline.hosts_of("Each")), (vec!["a"], vec!["a", "b", "c"]));
    stage.nothing_left();
}

/// `_run_once = true` that fails: every host that calls it stops there, *not reached*, in any strategy; hosts that do not call it go on. With `_ignore_errors` all do.
#[test]
fn run_once_that_fails() {
    let stage = Stage::new(3);
    let text = "
        if me ~= 'c' then
          server.shell { name = 'Once', _run_once = true, commands = { await('c.was_there'), 'exit 3' }, _ignore_errors = host:get('ignore', false) }
        end
        server.shell { name = 'After', commands = { me == 'c' and 'touch c.was_there' or come('after') } }";
    for (words, code, states, after) in [
        (vec!["--no-wait"], 1, "a=failed b=not-reached c=changed", ""),
        (vec!["--no-wait", "--data", "ignore=true"], 0, "a=changed b=changed c=changed", "a b"),
    ] {
        let ran = stage.deploy(text, &words).expect(code);
        assert_eq!((ran.states(), ran.made_by("after")), (states.to_owned(), after.to_owned()), "{words:?}");
        // The third went on while the first was at it, and the second did not.
        assert!(ran.timeline.span("Once", "a").overlaps(ran.timeline.span("After", "c")));
        let went_on: Vec<_> = ran.timeline.of(&["After"]).into_iter().filter(|span| span.host != "c").collect();
        assert!(went_on.iter().all(|span| ran.timeline.span("Once", "a").before(span)));
    }
    let ran = stage.deploy(text.replace("await('c.was_there'), ", "").as_str(), &[]).expect(1);
    assert_eq!((ran.states(), ran.made_by("after")), ("a=failed b=not-reached c=changed".to_owned(), String::new()));
    stage.nothing_left();
}

/// Nesting: `with` and `deploy` are transparent, `parallel` may stand in `rolling`, and `_serial` in `rolling` goes one by one within the wave.
#[test]
fn blocks_in_blocks() {
    let stage = Stage::new(4);
    let ran = stage.deploy(
        "local pair = (me:byte() - 97) // 2
         rolling({ batch = 2 }, function()
           with({ _ignore_errors = true }, function()
             deploy('Inner', function()
               parallel(function()
                 server.shell { name = 'Left', commands = { meet('all-' .. pair, 4, '.left') } }
                 server.shell { name = 'Right', commands = { meet('all-' .. pair, 4, '.right') } }
               end)
               server.shell { name = 'Turn', _serial = true, commands = { 'true' } }
             end)
           end)
         end)",
        &[],
    );
    let ran = ran.expect(0);
    let timeline = &ran.timeline;
    let titles = ["Inner | Left", "Inner | Right", "Inner | Turn"];
    assert_eq!((timeline.most_at_once(&titles[..2]), timeline.most_at_once(&titles[2..])), (4, 1));
    assert_eq!(timeline.hosts_of("Inner | Turn"), ["a", "b", "c", "d"]);
    for first in timeline.of(&titles).iter().filter(|span| ["a", "b"].contains(&span.host.as_str())) {
        assert!(timeline.of(&titles).iter().filter(|span| ["c", "d"].contains(&span.host.as_str())).all(|second| first.before(second)));
    }
    stage.nothing_left();
}

/// Nesting: what may not stand in what, and hosts that disagree, are misuse with file and line, and nothing is executed.
#[test]
fn misuse_of_blocks() {
    let stage = Stage::new(2);
    let touch = "server.shell { commands = { 'touch was_here' } }";
    let cases = [
        (
            "\nrolling({ batch = 1 }, function()\n  rolling({ batch = 1 }, function() TOUCH end)\nend)",
            3,
            "`rolling` stands inside `rolling`",
        ),
        ("parallel(function()\n  rolling({ batch = 1 }, function() TOUCH end)\nend)", 2, "`rolling` stands inside `parallel`"),
        ("rolling({ batch = host.name == 'a' and 1 or 2 }, function() TOUCH end)", 1, "`batch` of `rolling` is 1 on a and 2 on b"),
        ("rolling({ max_fail = host.name == 'a' and 1 or 2 }, function() TOUCH end)", 1, "`max_fail` of `rolling` is 1 on a and 2 on b"),
        (
            "\n\nserver.shell { commands = { 'touch was_here' }, _serial = host.name == 'a' and 1 or 2 }",
            3,
            "`_serial` is 1 on a and 2 on b",
        ),
        (
            "server.shell { commands = { 'touch was_here' }, _parallel = host.name == 'a' and 1 or 2 }",
            1,
            "`_parallel` is 1 on a and 2 on b",
        ),
        ("server.shell { commands = { 'touch was_here' }, _run_once = host.name == 'a' }", 1, "`_run_once` is true on a and false on b"),
        ("server.shell { commands = { 'touch was_here' }, _background = true }", 1, "`_background` stands outside of `parallel`"),
        ("rolling({ batch = 0 }, function() TOUCH end)", 1, "a wave has at least one host"),
        ("rolling({ bach = 1 }, function() TOUCH end)", 1, "`rolling` has no option `bach`"),
        ("rolling('25%', function() TOUCH end)", 1, "`rolling` takes the sizes of its waves as an option"),
        ("server.shell { commands = { 'touch was_here' }, _max_fail = 1 }", 1, "`_max_fail` is given without `_serial`"),
    ];
    std::thread::scope(|scope| {
        for (text, line, message) in cases {
            let stage = &stage;
            scope.spawn(move || {
                let ran = stage.deploy_bare(&text.replace("TOUCH", touch), &[]).expect(2);
                ran.says(&[message, &format!("error: deploy.lua:{line}: ")]);
                assert!(!ran.made("was_here"), "{text}");
                assert_eq!(ran.document["misuse"][0]["location"]["line"], line, "{text}");
            });
        }
    });
    stage.nothing_left();
}
