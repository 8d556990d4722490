//! Conditions: what is decided in the plan, what is open until execute, and what is misuse.

use crate::stage::Stage;

/// Something that fails, something that changes, something that changes nothing.
const THREE: &str = "
    local broken = server.shell { name = 'Broken', commands = { 'exit 3' }, _ignore_errors = true }
    local changed = files.put { name = 'Changed', content = 'x', dest = 'changed' }
    local same = files.directory { name = 'Same', path = '.' }
    local function try(name, condition) server.shell { name = name, commands = { 'touch ' .. name }, _if = condition } end";

/// `_if`: the four outcomes of a handle, a list (all must hold), `any_changed`, `all_changed` (`nil` did not change), `|`, `&`, `~`, a handle of nothing, true and false.
#[test]
fn conditions() {
    let stage = Stage::new(1);
    let cases = [
        ("changed.did_change", true),
        ("same.did_change", false),
        ("broken.did_change", false),
        ("changed.did_not_change", false),
        ("same.did_not_change", true),
        ("changed.did_succeed", true),
        ("broken.did_succeed", false),
        ("broken.did_error", true),
        ("same.did_error", false),
        ("{ changed.did_change, same.did_not_change }", true),
        ("{ changed.did_change, same.did_change }", false),
        ("any_changed(same, changed, nil)", true),
        ("any_changed(same, nil)", false),
        ("all_changed(changed, changed)", true),
        ("all_changed(changed, same)", false),
        ("all_changed(changed, nil)", false),
        ("any_host(changed)", true),
        ("any_host(same)", false),
        ("same.did_change | changed.did_change", true),
        ("same.did_change & changed.did_change", false),
        ("~same.did_change", true),
        ("true", true),
        ("false", false),
    ];
    let tries: Vec<String> = cases.iter().enumerate().map(|(number, (condition, _))| format!("try('try-{number}', {condition})")).collect();
    let ran = stage.deploy(&format!("{THREE}\n{}", tries.join("\n")), &[]).expect(0);
    for (number, (condition, wanted)) in cases.iter().enumerate() {
        let name = format!("try-{number}");
        assert_eq!(ran.made(&name), *wanted, "{condition}");
        assert_eq!(ran.timeline.outcome(&name, "a"), Some(if *wanted { "changed" } else { "skipped" }), "{condition}");
    }
    stage.nothing_left();
}

/// A condition over planned operations is decided in the plan: `did_change` of one with nothing to do is *no change*, of one that will change it runs; only what rests on
/// an operation whose outcome is not known stays open. The same for boolean arguments.
#[test]
fn conditions_are_decided_in_the_plan() {
    let stage = Stage::new(1);
    let text = "
        local changed = files.put { name = 'Changed', content = 'x', dest = 'changed' }
        local same = files.directory { name = 'Same', path = '.' }
        server.shell { name = 'Runs', commands = { 'true' }, _if = changed.did_change }
        server.shell { name = 'Rests', commands = { 'true' }, _if = same.did_change }
        files.file { name = 'Never', path = 'never', _if = false }";
    let planned = stage.deploy(text, &["--dry"]).expect(0);
    let outlooks = ["Changed", "Same", "Runs", "Rests", "Never"].map(|name| planned.outlook(name, "a").to_owned());
    assert_eq!(outlooks, ["change", "no-change", "change", "no-change", "no-change"]);
    let ran = stage.deploy(text, &[]).expect(0);
    let outcomes = ["Changed", "Same", "Runs", "Rests", "Never"].map(|name| ran.timeline.outcome(name, "a").unwrap_or_default().to_owned());
    assert_eq!(outcomes, ["changed", "unchanged", "changed", "skipped", "skipped"]);

    // As a boolean argument: the file is there exactly where something changed.
    let text = "
        local changed = files.put { name = 'Changed', content = 'x', dest = 'changed' }
        local same = files.directory { name = 'Same', path = '.' }
        files.file { name = 'Wanted', path = 'wanted', present = changed.did_change }
        files.file { name = 'Unwanted', path = 'unwanted', present = same.did_change }";
    let planned = stage.deploy(text, &["--dry"]).expect(0);
    assert_eq!(["Wanted", "Unwanted"].map(|name| planned.outlook(name, "a")), ["change", "no-change"]);
    let ran = stage.deploy(text, &[]).expect(0);
    assert!(ran.made("wanted") && !ran.made("unwanted"));
    stage.nothing_left();
}

/// A boolean argument that holds an open condition is diffed with true and with false: *depends on* unless both agree. In execute it is what the outcome was.
#[test]
fn open_conditions_are_diffed_both_ways() {
    let stage = Stage::new(2);
    let text = "
        local open = server.shell { name = 'Open', commands = { me == 'a' and 'true' or 'exit 3' }, _ignore_errors = true }
        files.file { name = 'Differs', path = 'differs.' .. me, present = open.did_change }
        server.shell { name = 'Then', commands = { come('then') }, _if = open.did_change }
        server.shell { name = 'Else', commands = { come('else') }, _if = open.did_error }";
    let planned = stage.deploy(text, &["--dry"]).expect(0);
    assert_eq!(planned.outlook("Differs", "a"), "depends");
    let ran = stage.deploy(text, &[]).expect(0);
    assert_eq!(["differs", "then", "else"].map(|name| ran.made_by(name)), ["a", "a", "b"]);

    // Where there is no link that could be in the way, there is nothing to do, whatever the condition comes to.
    let text = "
        local look = files.file { name = 'Look', path = 'changing', touch = true }
        files.link { name = 'Agrees', path = 'no-such-link', target = '/nowhere', present = false, force = look.did_change }";
    let planned = stage.deploy(text, &["--dry"]).expect(0);
    assert_eq!((planned.outlook("Look", "a"), planned.outlook("Agrees", "a")), ("change", "no-change"));
    stage.nothing_left();
}

/// A condition as a truth value would always be true in Lua: it is refused when the file is loaded, with file and line; one that is read and never used too; and so is a
/// result that is read while the script runs, with the way out.
#[test]
fn misuse_of_conditions() {
    let stage = Stage::new(1);
    let made = "local made = server.shell { commands = { 'touch was_here' } }\n";
    let cases = [
        ("if made.did_change then print('x') end", 2),
        ("local x = 1\nwhile made.did_succeed do x = 2 end", 3),
        ("print(not made.did_change)", 2),
        ("local x = made.did_error and 1 or 2", 2),
        ("local x = made.did_change or 2", 2),
        ("local flag = made.did_change\nif flag then print('x') end", 3),
        ("repeat print('x') until made.did_change", 2),
        ("local x\nif true then x = 1 elseif made.did_not_change then x = 2 end", 3),
        ("if any_changed(made) then print('x') end", 2),
        ("local x = made.did_change", 2),
        ("print(made.stdout)", 2),
        ("print(made.exit_code)", 2),
    ];
    std::thread::scope(|scope| {
        for (text, line) in cases {
            let stage = &stage;
            scope.spawn(move || {
                let ran = stage.deploy_bare(&format!("{made}{text}\n"), &[]);
                assert_eq!(ran.ran.code, Some(2), "{text}: {}", ran.ran.stderr);
                ran.says(&[&format!("error: deploy.lua:{line}: "), "hint: "]);
                assert!(!ran.made("was_here"), "{text}");
            });
        }
    });
    stage.nothing_left();
}

/// Conditions combined with `|`, `&`, `~`, `any_changed` and `all_changed`, and functions among them, as boolean arguments: decided in the plan where the plan knows.
#[test]
fn combined_conditions_as_arguments() {
    let stage = Stage::new(1);
    let decided = [
        ("changed.did_change & ~same.did_change", "change", true),
        ("changed.did_change & same.did_change", "no-change", false),
        ("same.did_change | changed.did_change", "change", true),
        ("~changed.did_change", "no-change", false),
        ("any_changed(same, changed)", "change", true),
        ("all_changed(same, changed)", "no-change", false),
        ("any_host(changed)", "change", true),
        ("function() return changed.did_change end", "depends", true),
        ("same.did_change & function() return true end", "depends", false),
    ];
    // After a command that may have touched everything nothing is decided.
    let open = [
        ("broken.did_error & changed.did_change", "depends", true),
        ("broken.did_succeed", "depends", false),
        ("same.did_change | function() return broken.exit_code == 3 end", "depends", true),
    ];
    let cases: Vec<_> = decided.into_iter().chain(open).collect();
    let wish = |(number, (condition, ..)): (usize, &(&str, &str, bool))| {
        format!("files.file {{ name = 'F{number}', path = 'F{number}', present = {condition} }}")
    };
    let mut lines: Vec<String> = cases.iter().enumerate().map(wish).collect();
    lines.insert(
        decided.len(),
        "local broken = server.shell { name = 'Broken', commands = { 'exit 3' }, _ignore_errors = true }".to_owned(),
    );
    let two = "local changed = files.put { name = 'Changed', content = 'x', dest = 'changed' }\nlocal same = files.directory { name = 'Same', path = '.' }";
    let text = format!("{two}\n{}", lines.join("\n"));
    let planned = stage.deploy(&text, &["--dry"]).expect(0);
    for (number, (condition, outlook, _)) in cases.iter().enumerate() {
        assert_eq!(planned.outlook(&format!("F{number}"), "a"), *outlook, "{condition}");
    }
    let ran = stage.deploy(&text, &[]).expect(0);
    for (number, (condition, _, wanted)) in cases.iter().enumerate() {
        assert_eq!(ran.made(&format!("F{number}")), *wanted, "{condition}");
    }
    stage.nothing_left();
}
