//! What only the run can tell: functions, results, `call`, and operations that run elsewhere.

use crate::stage::Stage;

/// `_retry_until`: tried again until its function is content, with what came of each try; used up and still not so, it has failed.
#[test]
fn retry_until() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "local count = 'echo x >>tries.' .. me .. '; wc -l <tries.' .. me
         local waited = server.shell { name = 'Wait', _retries = 3, _retry_delay = 0.1, commands = { count },
           _retry_until = function(result) return tonumber(result.stdout) == (me == 'a' and 3 or 9) end }
         server.shell { name = 'Accepted', commands = { 'exit 7' }, _retry_until = function(result) return result.exit_code == 7 end }
         server.shell { name = 'Then', commands = { come('then') }, _if = waited.did_succeed }",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("then").as_str()), ("a=changed b=failed", "a"));
    let tries = |host: &str| std::fs::read_to_string(ran.folder.join(format!("tries.{host}"))).expect("it tried").lines().count();
    assert_eq!((tries("a"), tries("b")), (3, 4));
    assert_eq!((ran.timeline.retries("Wait", "a").len(), ran.timeline.retries("Wait", "b").len()), (2, 3));
    assert_eq!(ran.timeline.outcome("Accepted", "a"), Some("changed"), "a failure may be what was waited for");
    ran.says(&["[b] Wait: failed: `_retry_until` did not come true"]);
    stage.nothing_left();
}

/// Functions as arguments and as `_if`: *depends on* in the plan, called when the turn of their operation comes, with results of those before.
#[test]
fn functions_as_arguments() {
    let stage = Stage::new(2);
    let text = "
        local token = server.shell { name = 'Token', commands = { 'echo token-of-' .. me .. '; echo aside >&2' } }
        server.shell { name = 'Join', commands = function() return { 'touch ' .. token.stdout .. '.' .. token.stderr .. '.' .. token.exit_code } end }
        files.file { name = 'Argument', path = 'argument.' .. me, present = function() return token.stdout:contains('a') and me == 'a' end }
        server.shell { name = 'Some', commands = { come('some') }, _if = function() return token.stdout:ends_with('a') end }
        server.shell { name = 'List', commands = { come('list') }, _if = { token.did_change, function() return me == 'b' end } }
        files.put { name = 'Wrong', content = function() return {} end, dest = 'wrong', _ignore_errors = true }
        server.shell { name = 'Breaks', commands = function() return nil .. 'x' end, _ignore_errors = true }";
    let planned = stage.deploy(text, &["--dry"]).expect(0);
    assert_eq!(["Join", "Argument", "Some", "List"].map(|name| planned.outlook(name, "a")), ["depends"; 4]);
    let ran = stage.deploy(text, &[]).expect(0);
    assert!(ran.made("token-of-a.aside.0") && ran.made("token-of-b.aside.0"));
    assert_eq!(["argument", "some", "list"].map(|name| ran.made_by(name)), ["a", "a", "b"]);
    ran.says(&[
        "Wrong: failed (ignored): the value of `content` cannot be had: deploy.lua:8: files.put: `content` takes a string, got the list []",
        "Breaks: failed (ignored): the value of `commands` cannot be had: deploy.lua:9: attempt to concatenate a nil value",
    ]);
    stage.nothing_left();
}

/// `call`: Lua in its place, whose operations run at once and whose results are plain values; `fail`; `host:log`. A host that fails in it takes no further part.
#[test]
fn calls() {
    let stage = Stage::new(3);
    let ran = stage.deploy(
        "local before = server.shell { name = 'Before', commands = { 'echo ready-' .. me } }
         local checked = call('Check', function()
           host:log('it says ' .. before.stdout)
           local made = files.put { content = 'x', dest = 'made.' .. me }
           local again = files.put { content = 'x', dest = 'made.' .. me }
           assert(made.did_change and not again.did_change and again.did_succeed)
           assert(host:fact('files.file', { path = 'made.' .. me }), 'a fact in it is the host as it is')
           if me == 'b' then fail('the node is not ready') end
           if me == 'c' then server.shell { name = 'Inner', commands = { 'exit 3' } } end
           server.shell { commands = { come('inside') } }
         end)
         server.shell { name = 'After', commands = { come('after') }, _if = checked.did_change }",
        &[],
    );
    let ran = ran.expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("made").as_str()), ("a=changed b=failed c=failed", "a b c"));
    assert_eq!((ran.made_by("inside").as_str(), ran.made_by("after").as_str()), ("a", "a"));
    ran.says(&[
        "[a] it says ready-a",
        "[b] Check: failed: deploy.lua:9: the node is not ready",
        "[c] Check: failed: «Inner»: exited with 3",
    ]);
    // With `_ignore_errors` the host goes on, and what `pcall` does with `fail` changes nothing.
    let text = "call('Check', { _ignore_errors = true }, function() pcall(fail, 'no'); server.shell { commands = { come('inside') } } end)
                server.shell { name = 'After', commands = { come('after') } }";
    let ran = stage.deploy_on("a", text, &[]).expect(0);
    assert_eq!((ran.made_by("inside").as_str(), ran.made_by("after").as_str()), ("", "a"));
    ran.says(&["[a] Check: failed (ignored): deploy.lua:2: no"]);
    // `fail` while the plan is made.
    let ran = stage.deploy("if me == 'b' then fail('not on this one') end\nserver.shell { commands = { come('a') } }", &[]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("a").as_str()), ("a=changed b=failed c=changed", "a c"));
    ran.says(&["not on this one"]);
    stage.nothing_left();
}

/// A result that is asked for too early says so, and how to do it: while the plan is made (misuse), and in a function before its operation has run (a failure).
#[test]
fn results_too_early() {
    let stage = Stage::new(1);
    let ran = stage.deploy_bare("local token = server.shell { commands = { 'touch ran' } }\nprint(token.stdout)\n", &[]).expect(2);
    ran.says(&[
        "deploy.lua:2: `stdout` of server.shell is there only after the operation ran",
        "_if = function() … end",
        "call(function() … end)",
    ]);
    assert!(!ran.made("ran"));
    let ran = stage.deploy(
        "local later
         call('Early', { _ignore_errors = true }, function() return later.stdout end)
         later = server.shell { name = 'Later', commands = { 'echo x' } }
         parallel(function()
           local one = server.shell { name = 'One', commands = { 'sleep 0.5; echo x' } }
           server.shell { name = 'Two', commands = function() return { one.stdout } end, _ignore_errors = true }
         end)",
        &[],
    );
    let ran = ran.expect(0);
    ran.says(&["there is no result of «Later» (at deploy.lua:4) yet", "there is no result of «One» (at deploy.lua:6) yet", "ask after it"]);
    stage.nothing_left();
}

/// `will_change`: true, false or \"unknown\", while the script runs.
#[test]
fn what_will_change() {
    let stage = Stage::new(1);
    let ran = stage.deploy(
        "local function told(name, handle) server.shell { name = name, commands = { 'touch ' .. name .. '.' .. tostring(handle.will_change) } } end
         local same = files.directory { path = '.' }
         local put = files.put { content = 'x', dest = 'put' }
         local open = files.put { content = function() return 'x' end, dest = 'open' }
         local called = call(function() end)
         told('same', same)
         told('put', put)
         told('open', open)
         told('called', called)",
        &[],
    );
    let ran = ran.expect(0);
    for name in ["put.true", "same.false", "open.unknown", "called.unknown"] {
        assert!(ran.made(name), "{name}: {}", ran.ran.stderr);
    }
    stage.nothing_left();
}

/// `any_host`: whether the operation changed any host, also for hosts where it changed nothing, and in functions.
#[test]
fn any_host_of_several() {
    let stage = Stage::new(3);
    let text = |which: &str| {
        format!(
            "local conf = files.file {{ name = 'Conf', path = me == '{which}' and 'conf' or '.keep', present = me == '{which}' }}
             server.shell {{ name = 'Own', commands = {{ come('own') }}, _if = conf.did_change }}
             server.shell {{ name = 'Any', commands = {{ come('any') }}, _if = any_host(conf) }}
             call('In it', function() if any_host(conf) then server.shell {{ commands = {{ come('in_it') }} }} end end)"
        )
    };
    let ran = stage.deploy(&text("b"), &[]).expect(0);
    assert_eq!(["own", "any", "in_it"].map(|name| ran.made_by(name)), ["b", "a b c", "a b c"]);
    let ran = stage.deploy(&text("nobody"), &[]).expect(0);
    assert_eq!(["own", "any", "in_it"].map(|name| ran.made_by(name)), ["", "", ""]);
    stage.nothing_left();
}

/// Where a command runs, as it is told by ssh: the address of the host, and none on the controller.
const WHERE: &str =
    "local function where(name) return 'touch ' .. name .. '.from-' .. me .. '.at-$(echo $SSH_CONNECTION | cut -d\" \" -f3)' end\n";

/// `_on`: on a host that is selected, on one that is not, and on the controller; alone, in a `call`, and for facts. It counts for the host that asked.
#[test]
fn on_other_places() {
    let stage = Stage::new(3);
    let text = format!(
        "{WHERE}
         server.shell {{ name = 'Selected', commands = {{ where('selected') }}, _on = 'b' }}
         server.shell {{ name = 'Outside', commands = {{ where('outside') }}, _on = inventory:host('c') }}
         local token = server.shell {{ name = 'Controller', commands = {{ where('controller'), 'echo token-' .. me }}, _on = '@local' }}
         server.shell {{ name = 'Own', commands = function() return {{ where('own') .. '.' .. token.stdout }} end }}
         call('Called', function()
           server.shell {{ commands = {{ where('called') }}, _on = 'c' }}
           server.shell {{ commands = {{ where('here') }} }}
         end)"
    );
    let ran = stage.deploy(&text, &["--limit", "a,b"]).expect(0);
    assert_eq!(ran.states(), "a=changed b=changed");
    let at = |name: &str| stage.address(name);
    for host in ["a", "b"] {
        for (name, place) in
            [("selected", at("b")), ("outside", at("c")), ("controller", String::new()), ("called", at("c")), ("here", at(host))]
        {
            let file = format!("{name}.from-{host}.at-{place}");
            assert!(ran.made(&file), "{file}: {}", ran.ran.stderr);
        }
        assert!(ran.made(&format!("own.from-{host}.at-{}.token-{host}", at(host))));
    }
    // A place that fails, or cannot be reached, fails the host that asked, and no other.
    let text = "server.shell { name = 'There', commands = { me == 'a' and 'exit 3' or 'true' }, _on = 'c' }
                server.shell { name = 'After', commands = { come('after') } }";
    let ran = stage.deploy(text, &["--limit", "a,b"]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("after").as_str()), ("a=failed b=changed", "b"));
    let text = "if me == 'a' then server.shell { name = 'There', commands = { 'true' }, _on = 'no-such-host.invalid' } end
                server.shell { name = 'After', commands = { come('after') } }";
    let ran = stage.deploy_on("a,b,no-such-host.invalid", text, &["--limit", "a,b"]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("after").as_str()), ("a=failed b=changed", "b"));
    ran.says(&["no-such-host.invalid, where «There» is to run (`_on`), is unreachable (resolve)"]);
    stage.nothing_left();
}

/// `_on` in a rolling restart: the hosts of a wave drain and join at one load balancer at the same time, more of them than one connection has sessions; the one that
/// does not come back stays drained, and the rest is left alone.
#[test]
fn drained_at_the_load_balancer() {
    let stage = Stage::new(12);
    let text = "
        local lb = inventory:host('l')
        rolling({ batch = 10 }, function()
          server.shell { name = 'Drain', _on = lb, commands = { come('drained') .. '; ' .. wait_for('[ $(ls drained.* | wc -l) -ge ' .. (me == 'k' and 11 or 2) .. ' ]') } }
          server.shell { name = 'Restart', commands = { me == 'c' and 'exit 3' or 'true' } }
          server.shell { name = 'Join', _on = lb, commands = { come('joined') } }
        end)";
    let ran = stage.deploy(text, &["--limit", "a,b,c,d,e,f,g,h,i,j,k"]).expect(1);
    assert_eq!((ran.made_by("drained").as_str(), ran.made_by("joined").as_str()), ("a b c d e f g h i j", "a b d e f g h i j"));
    assert!(ran.timeline.most_at_once(&["Drain"]) >= 2 && ran.timeline.all_before(&["Drain"], &["Restart"]));
    ran.says(&["of the 10 hosts that entered wave 1", "1 is not ok, and 0 may be"]);
    let ran = stage.deploy(text, &["--limit", "a,b,c,d,e,f,g,h,i,j,k", "--max-fail", "1"]).expect(1);
    assert_eq!((ran.made_by("drained").as_str(), ran.made_by("joined").as_str()), ("a b c d e f g h i j k", "a b d e f g h i j k"));
    stage.nothing_left();
}

/// Functions in a run that goes on from an earlier one: results of what was done before are there, and what is owed is told to them as to conditions.
#[test]
fn functions_go_on_from_an_earlier_run() {
    let stage = Stage::new(2);
    let text = "
        local token = server.shell { name = 'Token', commands = { 'echo x >>tokens; echo token-of-' .. me } }
        local once = server.shell { name = 'Once', commands = { 'echo x >>onces; echo once' }, _run_once = true }
        local conf = files.file { name = 'Conf', path = me == 'a' and 'conf' or '.keep', present = me == 'a' }
        local own = files.put { name = 'Own', content = 'x', dest = 'own.' .. me }
        server.shell { name = 'Gate', commands = { me == 'b' and 'test -e mended' or 'true' } }
        server.shell { name = 'Join', commands = function() return { 'touch joined.' .. token.stdout .. '.' .. once.stdout } end }
        call('Reload', function()
          if own.did_change then server.shell { commands = { 'echo x >>reloads.' .. me } } end
          if any_host(conf) then server.shell { commands = { come('any') } } end
        end)";
    let ran = stage.deploy(text, &[]).expect(1);
    assert_eq!((ran.states().as_str(), ran.made_by("any").as_str()), ("a=changed b=failed", "a"));
    std::fs::write(ran.folder.join("mended"), "").expect("a file");
    let ran = stage.resume(&ran, &[]).expect(0);
    assert_eq!((ran.states().as_str(), ran.made_by("reloads").as_str()), ("b=changed", "b"), "{}", ran.ran.stderr);
    assert!(ran.made("joined.token-of-b.once") && ran.made("any.b"), "{}", ran.ran.stderr);
    let lines = |name: &str| std::fs::read_to_string(ran.folder.join(name)).unwrap_or_default().lines().count();
    assert_eq!((lines("tokens"), lines("onces"), lines("reloads.a"), lines("reloads.b")), (2, 1, 1, 1));
    stage.nothing_left();
}
