//! What a failure leads to.

use crate::stage::Stage;

/// Waves stop: when more hosts of a wave are not ok than `_max_fail` (a number or a share; 0) allows, no further wave starts, then the run stops, and the report has
/// the rule, its arithmetic, the hosts not reached, and the command that goes on.
#[test]
fn waves_stop() {
    let stage = Stage::new(4);
    let text = |more: &str| {
        format!(
            "server.shell {{ name = 'A', _serial = 2, {more} commands = {{ me == 'b' and 'exit 3' or 'true' }} }}
             server.shell {{ name = 'B', commands = {{ 'true' }} }}"
        )
    };
    let stopped = "a=not-reached b=failed c=not-reached d=not-reached";
    let went_on = "a=changed b=failed c=changed d=changed";
    for (more, states) in [
        ("", stopped),
        ("_max_fail = 0,", stopped),
        ("_max_fail = '49%',", stopped),
        ("_max_fail = 1,", went_on),
        ("_max_fail = '50%',", went_on),
        ("_max_fail = '100%',", went_on),
    ] {
        let ran = stage.deploy(&text(more), &[]).expect(1);
        assert_eq!(ran.states(), states, "{more}");
        if states == went_on {
            assert!(ran.document["stopped"].is_null(), "{more}");
            continue;
        }
        assert_eq!((ran.timeline.hosts_of("A").len(), ran.timeline.hosts_of("B").len()), (2, 0), "{more}");
        let reason = &ran.document["stopped"];
        assert_eq!((&reason["rule"], &reason["wave"]), (&"wave-failed".into(), &1.into()), "{more}");
        assert_eq!((&reason["not_ok"], &reason["entered"], &reason["allowed"]), (&1.into(), &2.into(), &0.into()), "{more}");
        ran.says(&["of the 2 hosts that entered wave 1 of «A» 1 is not ok, and 0 may be", "not reached: a, c, d"]);
    }
    // Of a whole wave, every host.
    let all = "server.shell { name = 'A', _serial = 2, _max_fail = '100%', commands = { 'exit 3' } }";
    let ran = stage.deploy(all, &[]).expect(1);
    assert_eq!((ran.states().as_str(), ran.timeline.hosts_of("A").len()), ("a=failed b=failed c=failed d=failed", 4));
    stage.nothing_left();
}

/// Waves stop: the hosts that are in a wave go through the block to its end, so that none stays drained; `max_fail` of the block as `_max_fail`.
#[test]
fn waves_go_to_their_end() {
    let stage = Stage::new(4);
    // The first host leaves the block when the second has failed in it: without barriers it would go on if it were faster.
    let text = |options: &str| {
        format!(
            "rolling({{ batch = 2 {options} }}, function()
               server.shell {{ name = 'Out', commands = {{ come('out') }} }}
               server.shell {{ name = 'Restart', commands = {{ me == 'b' and 'touch b.failed; exit 3' or me == 'a' and await('b.failed') or 'true' }} }}
               server.shell {{ name = 'In', commands = {{ come('in') }} }}
             end)
             server.shell {{ name = 'After', commands = {{ come('after') }} }}"
        )
    };
    for words in [vec![], vec!["--no-wait"]] {
        let ran = stage.deploy(&text(""), &words).expect(1);
        assert_eq!((ran.made_by("out").as_str(), ran.made_by("in").as_str(), ran.made_by("after").as_str()), ("a b", "a", ""), "{words:?}");
        assert_eq!(ran.states(), "a=not-reached b=failed c=not-reached d=not-reached");
    }
    for (options, words) in [(", max_fail = 1", vec![]), ("", vec!["--max-fail", "50%"])] {
        let ran = stage.deploy(&text(options), &words).expect(1);
        assert_eq!(ran.states(), "a=changed b=failed c=changed d=changed");
        assert_eq!((ran.made_by("in").as_str(), ran.made_by("after").as_str()), ("a c d", "a c d"));
    }
    stage.nothing_left();
}

/// Waves stop: `--serial` by the same rule, a wave being one host; `--max-fail` lets it go on.
#[test]
fn serial_runs_stop() {
    let stage = Stage::new(3);
    let text = "server.shell { name = 'A', commands = { me == 'b' and 'exit 3' or 'true' } }";
    let ran = stage.deploy(text, &["--serial"]).expect(1);
    assert_eq!((ran.states().as_str(), &ran.document["stopped"]["rule"]), ("a=changed b=failed c=not-reached", &"wave-failed".into()));
    ran.says(&[
        "of the 1 host that entered wave 2 of the run 1 is not ok, and 0 may be",
        "not reached: c",
        "To go on from there: infra resume ",
    ]);
    let ran = stage.deploy(text, &["--serial", "--max-fail", "100%"]).expect(1);
    assert_eq!(ran.states(), "a=changed b=failed c=changed");
    stage.nothing_left();
}

/// (default): a host that is not ok takes no further part; the others go on.
#[test]
fn the_others_go_on() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "server.shell { name = 'A', commands = { me == 'a' and 'exit 3' or 'true' } }
         server.shell { name = 'B', commands = { come('b') } }",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("b").as_str()), ("a=failed b=changed", "b"));
    assert_eq!(ran.result("A", "a")["failure"]["message"], "exited with 3");
    stage.nothing_left();
}

/// `--fail-fast`: from connecting on, and in execute nothing new is started on any host; what is in flight is let finish; hosts left inside a block are named.
#[test]
fn fail_fast() {
    let stage = Stage::new(3);
    let simple = "server.shell { name = 'A', commands = { come('a') } }";
    let ran = stage.deploy_on("a,no-such-host.invalid", simple, &["--fail-fast"]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("a").as_str()), ("a=not-reached no-such-host.invalid=unreachable", ""));
    assert_eq!(ran.document["stopped"]["rule"], "fail-fast");
    let ran = stage.deploy_on("a,no-such-host.invalid", simple, &[]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("a").as_str()), ("a=changed no-such-host.invalid=unreachable", "a"));

    // The first fails when the second is at it, and the second is let finish.
    let ran = stage.deploy(
        "rolling({ batch = 3 }, function()
           server.shell { name = 'Out', commands = { 'true' } }
           server.shell { name = 'A', commands = { me == 'a' and await('b.is_there') .. '; exit 3'
             or me == 'b' and 'touch b.is_there; sleep 0.5; touch b.has_finished' or 'true' } }
           server.shell { name = 'In', commands = { come('in') } }
         end)",
        &["--fail-fast"],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("in").as_str()), ("a=failed b=not-reached c=not-reached", ""));
    assert!(ran.made("b.has_finished") && ran.timeline.span("A", "a").to < ran.timeline.span("A", "b").to);
    assert_eq!(ran.timeline.outcome("A", "b"), Some("changed"));
    assert_eq!(ran.document["stopped"]["host"], "a");
    ran.says(&["--fail-fast", "not reached: b, c", "left inside «rolling at deploy.lua:2»: a, b, c"]);
    stage.nothing_left();
}

/// `--fail-percent P`: the same as soon as more than P percent of the selected hosts are not ok.
#[test]
fn fail_percent() {
    let stage = Stage::new(4);
    let text = "server.shell { name = 'A', commands = { me < 'c' and 'exit 3' or 'true' } }
                server.shell { name = 'B', commands = { come('b') } }";
    let ran = stage.deploy(text, &["--fail-percent", "49"]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("b").as_str()), ("a=failed b=failed c=not-reached d=not-reached", ""));
    let reason = &ran.document["stopped"];
    assert_eq!((&reason["rule"], &reason["not_ok"], &reason["selected"]), (&"fail-percent".into(), &2.into(), &4.into()));
    let ran = stage.deploy(text, &["--fail-percent", "50"]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("b").as_str()), ("a=failed b=failed c=changed d=changed", "c d"));
    // One that cannot be reached counts alike.
    let ran = stage.deploy_on("a,c,no-such-host.invalid", text, &["--fail-percent", "50"]).expect(1);
    assert_eq!(ran.states(), "a=failed c=not-reached no-such-host.invalid=unreachable");
    stage.nothing_left();
}

/// `_ignore_errors = true`: the failure leaves the host ok and is shown as ignored, and the remaining commands are left out. `_continue_on_error = true`: they run too.
#[test]
fn errors_that_are_ignored() {
    let stage = Stage::new(1);
    let ran = stage.deploy(
        "server.shell { name = 'Ignored', _ignore_errors = true, commands = { come('first'), 'exit 3', come('rest') } }
         server.shell { name = 'Continued', _continue_on_error = true, commands = { 'exit 4', come('more') } }
         server.shell { name = 'After', commands = { come('after') } }",
        &[],
    );
    let ran = ran.expect(0);
    let made = ["first", "rest", "more", "after"].map(|name| ran.made_by(name));
    assert_eq!(made, ["a", "", "a", "a"]);
    ran.says(&["Ignored: failed (ignored): exited with 3", "Continued: failed (ignored): exited with 4"]);
    assert_eq!((&ran.result("Ignored", "a")["ignored"], ran.states().as_str()), (&true.into(), "a=changed"));
    stage.nothing_left();
}

/// `_retries`, `_retry_delay`, `_retry_backoff`: planned and run again, up to so many times more, each time so much later; it counts as changed.
#[test]
fn retries() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "local tries = 'echo x >>tries.' .. me .. '; [ $(wc -l <tries.' .. me .. ') -ge ' .. (me == 'a' and 3 or 9) .. ' ]'
         local tried = server.shell { name = 'Try', _retries = 2, _retry_delay = 0.2, _retry_backoff = 3, commands = { tries } }
         server.shell { name = 'Then', _if = tried.did_change, commands = { come('then') } }",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("then").as_str()), ("a=changed b=failed", "a"));
    for host in ["a", "b"] {
        let retries = ran.timeline.retries("Try", host);
        // With what lets hosts that failed together not try again together.
        let [first, second] = retries[..] else { panic!("{retries:?}") };
        assert!((0.17..0.23).contains(&first.after) && (0.53..0.67).contains(&second.after), "{retries:?}");
        assert!(second.at - first.at >= first.after, "{retries:?}");
        assert!(ran.timeline.span("Try", host).ended - second.at >= second.after, "{retries:?}");
        assert_eq!(ran.result("Try", host)["retries"], 2);
        let tries = std::fs::read_to_string(ran.folder.join(format!("tries.{host}"))).expect("it tried");
        assert_eq!(tries.lines().count(), 3);
    }
    stage.nothing_left();
}

/// `_timeout = s`: for each command; the whole process group is killed on the host, also what takes no notice of TERM.
#[test]
fn timeouts() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "server.shell { name = 'Each', _timeout = 2, commands = { 'sleep 0.1', 'sleep 0.1' } }
         server.shell { name = 'Long', _timeout = 0.3, commands = { me == 'a' and [[trap '' TERM; sleep 4321 & while :; do sleep 4321; done]] or 'true' } }
         server.shell { name = 'After', commands = { come('after') } }",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("after").as_str()), ("a=failed b=changed", "b"));
    ran.says(&["[a] Long: failed: timed out after 0.3 s"]);
    let span = ran.timeline.span("Long", "a");
    assert!((0.3..20.0).contains(&(span.ended - span.began)), "{span:?}");
    assert!(!ran.ran.stderr.contains("still running"), "{}", ran.ran.stderr);
    stage.nothing_left();
}

/// `_success_exit_codes`: what counts as success; a code above 128 is shown with the signal that it may be, and is a success only where it is listed.
#[test]
fn success_exit_codes() {
    let stage = Stage::new(3);
    let ran = stage.deploy(
        "server.shell { name = 'Two', _success_exit_codes = { 0, 2 }, commands = { 'exit 2', 'exit 0' } }
         if me == 'a' then server.shell { name = 'Killed', commands = { 'kill -9 $$' } } end
         if me == 'b' then server.shell { name = 'Listed', _success_exit_codes = { 137 }, commands = { 'kill -9 $$' } } end
         if me == 'c' then server.shell { name = 'Not listed', _success_exit_codes = { 137 }, commands = { 'true' } } end",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!(ran.states(), "a=failed b=changed c=failed");
    ran.says(&["[a] Killed: failed: exited with 137 (KILL?)", "[c] Not listed: failed: exited with 0"]);
    stage.nothing_left();
}

/// An operation that changed something and then failed reports what it did.
#[test]
fn what_was_done_before_a_failure() {
    let stage = Stage::new(1);
    let ran = stage.deploy("server.shell { name = 'A', commands = { come('one'), come('two'), 'exit 3', come('four') } }", &["-v"]);
    let ran = ran.expect(1);
    assert_eq!((&ran.result("A", "a")["steps_done"], ran.made_by("four").as_str()), (&2.into(), ""));
    ran.says(&["exited with 3, after 2 steps that ended well"]);
    stage.nothing_left();
}
