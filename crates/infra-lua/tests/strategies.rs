//! Blocks, waves, retries and combined conditions, as the engine is given them.
#![allow(missing_docs)]

mod bench;

use std::rc::Rc;

use bench::{calls, load, run_script};
use infra_core::condition::{Condition, Did, Known};
use infra_core::script::{BlockKind, OperationCall};
use serde_json::json;

fn blocks(call: &OperationCall) -> Vec<String> {
    let one = |block: &infra_core::script::Block| {
        let chain: Vec<String> = block.chain.iter().map(|place| place.line.to_string()).collect();
        format!("{} {} @{} #{}", json!(block.kind), block.name.as_deref().unwrap_or("-"), chain.join(","), block.turn)
    };
    call.blocks.iter().map(one).collect()
}

#[tokio::test]
async fn calls_know_the_blocks_around_them() {
    let calls = calls(
        r#"server.shell { commands = "before" }
local function both(what)
  return parallel(function()
    server.shell { commands = what }
    return what, 7
  end)
end
deploy("App", function()
  local a, b, c = rolling("Restart", { batch = { 1, "25%" }, max_fail = "10%", pause = 0.5 }, function()
    server.shell { commands = "drain" }
    for at = 1, 2 do both("at " .. at) end
    with({ _env = { A = "1" } }, function() server.shell { commands = "join" } end)
    return 1, nil, both("x")
  end)
  assert(a == 1 and b == nil and c == "x")
end)
rolling(function() server.shell { commands = "one by one" } end)
local ok = pcall(function() rolling({ batch = false }, function() error("no") end) end)
assert(not ok)
assert(select('#', both('y')) == 2)
"#,
    )
    .await;
    let rolling = r#"{"rolling":{"batch":[1,"25%"],"max_fail":"10%","pause":0.5}} Restart @8,9 #0"#;
    // The tail call in `both` has lost its line.
    let both = |line: u32, turn: u32| format!("\"parallel\" - @8,9,{line},0 #{turn}");
    let found: Vec<Vec<String>> = calls.iter().map(blocks).collect();
    assert_eq!(found[0], Vec::<String>::new());
    assert_eq!(found[1], [rolling]);
    assert_eq!(found[2], [rolling, &both(11, 0)]);
    assert_eq!(found[3], [rolling, &both(11, 1)]);
    assert_eq!(found[4], [rolling]);
    assert_eq!(found[5], [rolling, &both(13, 0)]);
    assert_eq!(found[6], [r#"{"rolling":{"batch":1,"max_fail":null,"pause":0.0}} - @17 #0"#]);
    assert_eq!(found[7], ["\"parallel\" - @20,0 #0"]);
    assert_eq!((calls[4].path.clone(), calls[4].globals.env.is_some()), (vec!["App".to_owned()], true));
    assert_eq!(calls[2].chain.iter().map(|place| place.line).collect::<Vec<_>>(), [8, 9, 11, 0, 4]);
}

#[tokio::test]
async fn a_host_comes_by_a_block_again_and_facts_are_read_inside() {
    let deploy = r#"
for _, name in ipairs({ "a", "b" }) do
  rolling({ batch = "50%" }, function()
    server.shell { commands = { name, host:fact("server.hostname") } }
    parallel("At once", function() server.shell { commands = host:fact("server.hostname"), _background = true } end)
  end)
end
"#;
    let (_, inventory, deploy) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
    for host in 0..3 {
        let ran = run_script(&deploy, &inventory, host).await;
        assert_eq!(ran.failed, None);
        let turns: Vec<Vec<u32>> = ran.calls.iter().map(|call| call.blocks.iter().map(|block| block.turn).collect()).collect();
        assert_eq!(turns, [vec![0], vec![0, 0], vec![1], vec![1, 1]]);
        assert_eq!(ran.calls[1].blocks[1].kind, BlockKind::Parallel);
        assert_eq!((ran.calls[1].blocks[1].name.as_deref(), ran.calls[1].globals.background), (Some("At once"), Some(true)));
        assert_eq!(ran.calls[0].arguments["commands"][1], json!(inventory.hosts[host].name));
    }
}

#[tokio::test]
async fn arguments_of_strategies_are_typed_and_merged() {
    let calls = calls(
        r#"
server.shell { commands = "x", _serial = true }
server.shell { commands = "x", _serial = 3, _max_fail = 1 }
server.shell { commands = "x", _serial = "25%", _max_fail = "12.5%" }
server.shell { commands = "x", _serial = { 1, "10%", "100%" }, _parallel = 4 }
server.shell { commands = "x", _retries = 3, _retry_delay = 0.5, _retry_backoff = 2, _continue_on_error = true }
config.retries = 2
config.serial = 5
server.shell { commands = "x", _serial = false, _retry_delay = 1 }
host.data._parallel = 2
with({ _max_fail = "100%" }, function() server.shell { commands = "x" } end)
"#,
    )
    .await;
    let globals: Vec<_> = calls.iter().map(|call| json!(call.globals)).collect();
    assert_eq!(globals[0], json!({ "serial": 1 }));
    assert_eq!(globals[1], json!({ "serial": 3, "max_fail": 1 }));
    assert_eq!(globals[2], json!({ "serial": "25%", "max_fail": "12.5%" }));
    assert_eq!(globals[3], json!({ "serial": [1, "10%", "100%"], "parallel": 4 }));
    assert_eq!(globals[4], json!({ "retries": 3, "retry_delay": 0.5, "retry_backoff": 2.0, "continue_on_error": true }));
    assert_eq!(globals[5], json!({ "serial": false, "retries": 2, "retry_delay": 1.0 }));
    assert!(calls[5].globals.batch().is_none());
    assert_eq!(globals[6], json!({ "serial": 5, "retries": 2, "parallel": 2, "max_fail": "100%" }));
}

#[tokio::test]
async fn conditions_combine() {
    let calls = calls(
        r#"
local a = server.shell { commands = "a" }
local b = server.shell { commands = "b" }
local either = a.did_change | b.did_change | true
server.shell { commands = "c", _if = either }
systemd.service { service = "x", restarted = ~a.did_change & (b.did_succeed | false), reloaded = { true, any_host(b) }, _if = { true & any_host(a) } }
with({ _if = ~any_changed(a, b) }, function() server.shell { commands = "d", _if = any_host(nil) } end)
local there = either ~= nil and a.did_error
server.shell { commands = "e", _if = there }
"#,
    )
    .await;
    let did = Condition::Outcome;
    let not = |condition| Condition::Not(Box::new(condition));
    let always = Condition::Always;
    assert_eq!(calls[2].when, [Condition::Any(vec![did(0, Did::Change), did(1, Did::Change), always(true)])]);
    let restarted = Condition::All(vec![not(did(0, Did::Change)), Condition::Any(vec![did(1, Did::Succeed), always(false)])]);
    let reloaded = Condition::All(vec![always(true), Condition::AnyHost(1)]);
    assert_eq!(calls[3].conditions, [("reloaded".to_owned(), reloaded), ("restarted".to_owned(), restarted)]);
    assert_eq!(calls[3].when, [Condition::All(vec![Condition::All(vec![always(true), Condition::AnyHost(0)])])]);
    let neither = not(Condition::Any(vec![did(0, Did::Change), did(1, Did::Change)]));
    assert_eq!(calls[4].when, [neither, always(false)]);
    assert_eq!(calls[5].when, [did(0, Did::Error)]);
}

#[tokio::test]
async fn any_host_is_asked_before_and_after_a_block() {
    let deploy = r#"
local before = server.shell { commands = "before" }
local inside
for _ = 1, 2 do
  rolling(function()
    local earlier = inside
    inside = server.shell { commands = "inside", _if = any_host(before) }
    if earlier then server.shell { commands = "again", _if = any_host(earlier) } end
  end)
end
server.shell { commands = "after", _if = any_host(inside) }
"#;
    let calls = calls(deploy).await;
    let asked: Vec<Vec<u32>> = calls.iter().map(|call| call.when.iter().flat_map(Condition::calls).collect()).collect();
    assert_eq!(asked, [vec![], vec![0], vec![0], vec![1], vec![2]]);
}

#[tokio::test]
async fn the_rolling_restart_that_is_shipped_is_made_of_data() {
    let deploy = include_str!("../../../deploys/rolling_restart.lua");
    let inventory = include_str!("../../../inventories/app.lua");
    let (_, inventory, loaded) = load(&[("inventory.lua", inventory), ("deploy.lua", deploy)]).await.expect("the deploy");
    assert_eq!(inventory.hosts.len(), 6);
    for host in 0..6 {
        let ran = run_script(&loaded, &inventory, host).await;
        assert_eq!(ran.failed, None);
        let titles: Vec<String> = ran.calls.iter().map(OperationCall::title).collect();
        assert_eq!(titles, ["Leave the load balancer", "Restart", "Wait until it is well", "Join the load balancer"]);
        assert_eq!(json!(ran.calls[2].arguments), json!({ "http": "http://localhost:8080/health", "timeout": 30 }));
        let rolling = r#"{"rolling":{"batch":[1,"25%"],"max_fail":0,"pause":0.0}} Restart myapp"#;
        assert!(ran.calls.iter().all(|call| call.blocks.len() == 1 && blocks(call)[0].starts_with(rolling)));
    }
    let least = "web = { \"web-1\", data = { service = \"it's\" } }";
    let (_, inventory, loaded) = load(&[("inventory.lua", least), ("deploy.lua", deploy)]).await.expect("the deploy");
    let ran = run_script(&loaded, &inventory, 0).await;
    assert_eq!(ran.failed, None);
    assert_eq!(ran.calls.iter().map(OperationCall::title).collect::<Vec<_>>(), ["Restart", "Wait until it is well"]);
    assert_eq!(json!(ran.calls[1].arguments), json!({ "command": r"systemctl is-active --quiet 'it'\''s'", "timeout": 60 }));
    let without = load(&[("deploy.lua", deploy)]).await.expect("the deploy");
    let failed = run_script(&without.2, &without.1, 0).await.failed.expect("misuse");
    assert_eq!(failed.message, "no host and no group has the data `service`");
}

/// What is written, and what it comes to when the operations `a` and `b` changed something or not.
type Written = (String, Rc<dyn Fn([bool; 2]) -> bool>);

/// Conditions with up to this many operators one inside the other, and some without parentheses.
fn written(depth: u32) -> Vec<Written> {
    let simple: Vec<Written> = vec![
        ("a.did_change".to_owned(), Rc::new(|[a, _]| a)),
        ("b.did_not_change".to_owned(), Rc::new(|[_, b]| !b)),
        ("any_host(b)".to_owned(), Rc::new(|[_, b]| b)),
        ("~a.did_change & b.did_not_change | true & any_host(b)".to_owned(), Rc::new(|[a, b]| !a & !b | b)),
        ("false | a.did_change & ~any_host(b)".to_owned(), Rc::new(|[a, b]| a & !b)),
    ];
    if depth == 0 {
        return simple;
    }
    let mut all: Vec<Written> = simple.clone();
    for (text, value) in written(depth - 1) {
        let inner = value.clone();
        all.push((format!("~({text})"), Rc::new(move |changed| !inner(changed))));
        for (other, right) in &simple {
            let (left, right) = (value.clone(), right.clone());
            let (also_left, also_right) = (left.clone(), right.clone());
            all.push((format!("({text}) | ({other})"), Rc::new(move |changed| left(changed) | right(changed))));
            all.push((format!("({other}) & ({text})"), Rc::new(move |changed| also_right(changed) & also_left(changed))));
        }
    }
    all
}

#[tokio::test]
async fn conditions_come_to_what_is_written() {
    let all = written(2);
    let mut deploy = "local a, b = server.shell { commands = 'a' }, server.shell { commands = 'b' }\n".to_owned();
    for (text, _) in &all {
        deploy.push_str(&format!("server.shell {{ commands = 'x', _if = {text} }}\n"));
    }
    let calls = calls(&deploy).await;
    assert_eq!(calls.len(), all.len() + 2);
    for ((text, value), call) in all.iter().zip(&calls[2..]) {
        for changed in [[false, false], [false, true], [true, false], [true, true]] {
            let known = |call: u32| Known {
                changed: Some(changed[call as usize]),
                succeeded: Some(true),
                changed_anywhere: Some(changed[call as usize]),
            };
            assert_eq!(call.when[0].decide(&known), Some(value(changed)), "{text} with {changed:?}");
        }
    }
}
