//! Where each host stands at the end, and the exit codes.

use crate::stage::Stage;

/// Cuts the connection that the command came over: kills the nearest sshd above it.
const CUT: &str = "p=$$; until read -r n </proc/$p/comm && case $n in sshd*) true;; *) false;; esac; do p=$(cut -d' ' -f4 /proc/$p/stat); done; kill -9 $p; sleep 1";

/// Each host stands in one place, the first that fits: indeterminate, failed, unreachable, not reached, changed, unchanged; the sum is the number of hosts.
#[test]
fn each_host_stands_in_one_place() {
    let stage = Stage::new(5);
    let text = format!(
        "files.directory {{ name = 'Look', path = '.' }}
         if me == 'a' then server.shell {{ name = 'Cut', commands = {{ [==[{CUT}]==] }} }} end
         if me == 'd' then server.shell {{ name = 'Change', commands = {{ 'true' }} }} end
         if me == 'b' or me == 'c' then server.shell {{ name = 'Wave', _serial = true, commands = {{ 'exit 3' }} }} end"
    );
    let ran = stage.deploy_on("a,b,c,no-such-host.invalid,d,e", &text, &[]).expect(1);
    assert_eq!(ran.states(), "a=indeterminate b=failed c=not-reached no-such-host.invalid=unreachable d=changed e=unchanged");
    ran.says(&["6 hosts: 1 changed, 1 unchanged, 1 indeterminate, 1 failed, 1 unreachable, 1 not reached"]);
    assert_eq!(ran.timeline.outcome("Cut", "a"), Some("indeterminate"));
    // The plan alone: what would change and what would not.
    let ran = stage.deploy_on("d,e", &text, &["--dry"]).expect(0);
    assert_eq!(ran.states(), "d=planned-changes e=planned-none");
    stage.nothing_left();
}

/// Exit codes 0, 1 and 2: all is well; some host is not, or a rule stopped the run; something was written wrongly or no host is meant, and nothing was executed.
/// (The declined question is shown by the tests at a terminal.)
#[test]
fn exit_codes() {
    let stage = Stage::new(2);
    let fine = "server.shell { name = 'A', commands = { come('a') } }";
    stage.deploy(fine, &[]).expect(0);
    stage.deploy("files.directory { path = '.' }", &[]).expect(0);
    stage.deploy(fine, &["--dry"]).expect(0);
    stage.deploy("server.shell { commands = { me == 'a' and 'false' or 'true' } }", &[]).expect(1);
    // A script that fails while it runs fails its host alone, and the run where no host is left.
    assert_eq!(stage.deploy("if me == 'a' then error('no') end", &[]).expect(1).states(), "a=failed b=unchanged");
    stage.deploy("error('no')", &[]).expect(2);
    for (text, words) in [
        ("server.shel { commands = { come('a') } }", vec![]),
        ("server.shell { comands = { come('a') } }", vec![]),
        ("server.shell { commands = { come('a') } ", vec![]),
        (fine, vec!["--limit", "nobody"]),
        (fine, vec!["--limit", "a", "--exclude", "a"]),
    ] {
        let ran = stage.deploy(text, &words);
        assert_eq!(ran.ran.code, Some(2), "{text} {words:?}: {}", ran.ran.stderr);
        assert!(!ran.made("a.a") && ran.document["exit_code"] == 2, "{text} {words:?}");
    }
    stage.nothing_left();
}

/// Exit code 3: with `--detailed-exitcode`, where all is well and there were changes, or the plan holds some or what depends on the run. 1 beats it.
#[test]
fn exit_code_of_changes() {
    let stage = Stage::new(2);
    let (changes, none) = ("server.shell { commands = { 'true' } }", "files.directory { path = '.' }");
    let depends = "local open = call(function() end)\nserver.shell { commands = { 'true' }, _if = open.did_change }";
    let fails = "server.shell { name = 'A', commands = { me == 'a' and 'exit 3' or 'true' } }";
    for (text, words, code) in [
        (changes, vec![], 3),
        (changes, vec!["--dry"], 3),
        (depends, vec!["--dry"], 3),
        (depends, vec![], 0),
        (none, vec![], 0),
        (none, vec!["--dry"], 0),
        (fails, vec![], 1),
        (fails, vec!["--dry"], 3),
        ("server.shel {}", vec![], 2),
    ] {
        let ran = stage.deploy(text, &[&["--detailed-exitcode"], &words[..]].concat());
        assert_eq!((ran.ran.code, &ran.document["exit_code"]), (Some(code), &code.into()), "{text} {words:?}: {}", ran.ran.stderr);
    }
    stage.nothing_left();
}

/// Exit code 130: an interrupt lets what is in flight finish and starts nothing new. Here the first operation sends it, to the process that runs the script.
#[test]
fn exit_code_of_an_interrupt() {
    let stage = Stage::new(2);
    let ran = stage.deploy(
        "local infra = local_command { 'sh', '-c', 'echo $PPID' }:trim()
         if me == 'a' then server.shell { name = 'Interrupt', commands = { 'kill -INT ' .. infra .. '; sleep 0.5', come('finished') } } end
         server.shell { name = 'After', commands = { come('after') } }",
        &["--detailed-exitcode"],
    );
    let ran = ran.expect(130);
    assert_eq!((ran.states().as_str(), ran.made_by("after").as_str()), ("a=not-reached b=not-reached", ""));
    assert!(ran.document["stopped"]["rule"] == "interrupted", "{:#}", ran.document["stopped"]);
    stage.nothing_left();
}
