//! Functions that scripts leave behind, called as execute calls them.
#![allow(missing_docs)]

mod bench;

use std::sync::Arc;

use bench::{Ran, call_function, changed, load, prepare, shown};
use infra_core::condition::{CallIndex, Condition, Did};
use infra_core::host::HostId;
use infra_core::late::{CALL, CallResult, Functions, Place, Purpose, Results};
use infra_core::script::OperationCall;
use serde_json::{Value, json};

/// A host's script after its end.
struct Left {
    calls: Vec<OperationCall>,
    functions: Box<dyn Functions>,
    results: Results,
    trace: Vec<String>,
    log: Arc<bench::Memory>,
}

impl Left {
    async fn of(deploy: &str) -> Self {
        Self::with(&[("deploy.lua", deploy)]).await
    }

    async fn with(files: &[(&str, &str)]) -> Self {
        let (log, inventory, deploy) = load(files).await.unwrap_or_else(|wrong| panic!("{}", shown(&wrong[0])));
        let (Ran { calls, failed, .. }, functions) = prepare(&deploy, &inventory, 0).await;
        if let Some(wrong) = failed {
            panic!("{}", shown(&wrong));
        }
        Self { calls, functions: functions.expect("functions"), results: Results::new(), trace: Vec::new(), log }
    }

    /// Has a call ended like this.
    fn ended(&mut self, call: CallIndex, result: CallResult) -> &mut Self {
        self.results.insert(call, Arc::new(result));
        self
    }

    async fn give(&mut self, function: u32, purpose: Purpose, perform: fn(&OperationCall) -> Option<CallResult>) -> Result<Value, String> {
        let value = call_function(&mut *self.functions, function, purpose, &self.results, &mut self.trace, perform).await;
        value.map_err(|wrong| shown(&wrong))
    }

    async fn argument(&mut self, function: u32, name: &str) -> Result<Value, String> {
        self.give(function, Purpose::Argument { name: name.to_owned() }, |_| None).await
    }

    async fn condition(&mut self, function: u32) -> Result<Value, String> {
        self.give(function, Purpose::Condition, |_| None).await
    }

    /// Runs a body in which all operations change something and print their first argument.
    async fn body(&mut self, function: u32) -> Result<Value, String> {
        self.give(function, Purpose::Body, said).await
    }
}

fn said(call: &OperationCall) -> Option<CallResult> {
    let text = call.arguments.get("commands").map(|commands| commands[0].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
    if text == "fail" {
        return call.globals.ignores_errors().then(|| CallResult { exit_code: Some(3), ..CallResult::default() });
    }
    let changed = text != "nothing";
    Some(CallResult { changed, succeeded: true, stdout: text, exit_code: changed.then_some(0), ..CallResult::default() })
}

#[tokio::test]
async fn arguments_are_what_functions_give() {
    let mut left = Left::of(
        r#"
local token = server.shell { name = "Make a token", commands = "token" }
server.shell { commands = function() return { "join " .. token.stdout, host:fact("server.hostname") } end }
systemd.service { service = "x", restarted = function() return token.did_change and token.exit_code == 0 end }
with({ _chdir = "/srv" }, function()
  files.put { src = function() return "site.conf" end, dest = function() return "etc/" .. token.stdout end }
end)
systemd.service { service = function() return nil end, running = function() return token end, enabled = function() return 5 end }
server.shell { commands = function() return "one" end }
"#,
    )
    .await;
    let late: Vec<Vec<(&str, u32)>> =
        left.calls.iter().map(|call| call.late.arguments.iter().map(|(name, function)| (name.as_str(), *function)).collect()).collect();
    assert_eq!(late[1..3], [vec![("commands", 0)], vec![("restarted", 1)]]);
    assert_eq!(late[3..], [vec![("dest", 2), ("src", 3)], vec![("enabled", 4), ("running", 5), ("service", 6)], vec![("commands", 7)]]);
    assert_eq!((json!(left.calls[1].arguments), json!(left.calls[2].arguments)), (json!({}), json!({ "service": "x" })));
    left.ended(0, changed("abc"));
    assert_eq!(left.argument(0, "commands").await, Ok(json!(["join abc", "web-1"])));
    assert_eq!(left.trace, ["ask server.hostname {}"]);
    assert_eq!(left.argument(1, "restarted").await, Ok(json!(true)));
    assert_eq!(left.argument(2, "dest").await, Ok(json!("/srv/etc/abc")));
    let missing = left.argument(3, "src").await.expect_err("no such file");
    assert!(missing.contains("files.put: `src`: there is no file `site.conf`"), "{missing}");
    assert_eq!(left.argument(7, "commands").await, Ok(json!(["one"])));
    let wrong = left.argument(4, "enabled").await.expect_err("a number");
    assert_eq!(
        wrong,
        "runtime: deploy.lua:8: systemd.service: `enabled` takes true or false, got the number 5\n  | systemd.service { service = function() return nil \
         end, running = function() return token end, enabled = function() return 5 end }"
    );
    assert!(left.argument(5, "running").await.expect_err("a handle").contains("`running` is the handle of an operation"));
    assert_eq!(left.argument(6, "service").await, Ok(Value::Null));
}

#[tokio::test]
async fn what_only_functions_know_leaves_the_rest_checked() {
    let wrong = bench::wrong_with(&[("deploy.lua", "systemd.service { service = function() end, running = 5 }")]).await;
    assert!(wrong.contains("`running` takes true or false"), "{wrong}");
    let wrong = bench::wrong_with(&[("deploy.lua", "systemd.service { servic = function() end }")]).await;
    assert!(wrong.contains("there is no argument `servic`") || wrong.contains("`servic` is a function"), "{wrong}");
    let wrong = bench::wrong_with(&[("deploy.lua", "systemd.service { running = function() end }")]).await;
    assert!(wrong.contains("the argument `service` is missing"), "{wrong}");
}

#[tokio::test]
async fn conditions_are_what_functions_give() {
    let mut left = Left::of(
        r#"
local a = server.shell { commands = "a" }
local b = server.shell { commands = "b" }
server.shell { commands = "c", _if = function() return a.stdout == "x" end }
server.shell { commands = "c", _if = { a.did_change, function() return any_changed(a, b) end } }
server.shell { commands = "c", _if = b.did_change | function() return all_changed({ a, b }) and not b.did_error end }
systemd.service { service = "x", reloaded = { function() return any_host(b) end } }
with({ _if = function() return a.did_not_change and b.did_succeed end }, function() server.shell { commands = "d" } end)
local changed = b.did_change
server.shell { commands = "e", _if = function() return changed end }
server.shell { commands = "f", _if = function() return any_changed(a.did_change, changed) end }
"#,
    )
    .await;
    let did = Condition::Outcome;
    assert_eq!(left.calls[2].when, [Condition::Function(0)]);
    assert_eq!(left.calls[3].when, [Condition::All(vec![did(0, Did::Change), Condition::Function(1)])]);
    assert_eq!(left.calls[4].when, [Condition::Any(vec![did(1, Did::Change), Condition::Function(2)])]);
    assert_eq!(left.calls[5].conditions, [("reloaded".to_owned(), Condition::All(vec![Condition::Function(3)]))]);
    assert_eq!(left.calls[6].when, [Condition::Function(4)]);
    left.ended(0, changed("x")).ended(1, CallResult { succeeded: true, changed_anywhere: Some(true), ..CallResult::default() });
    for (function, holds) in [(0, true), (1, true), (2, false), (3, true), (4, false), (5, false), (6, true)] {
        assert_eq!(left.condition(function).await, Ok(json!(holds)), "{function}");
    }
    left.ended(0, CallResult { succeeded: true, ..CallResult::default() });
    assert_eq!(left.condition(4).await, Ok(json!(true)));
}

#[tokio::test]
async fn tries_are_looked_at() {
    let mut left = Left::of(
        r#"
server.shell { commands = "x", _retry_until = function(result)
  assert(result.did_succeed and not result.did_error and result.did_change and not result.did_not_change and result.stderr == "")
  return result.stdout == "ready" and result.exit_code == 0
end }
with({ _retry_until = function() return true end, _retries = 9 }, function()
  server.shell { commands = "y" }
  server.shell { commands = "z", _retries = 2, _retry_delay = 1, _retry_until = function(result) return result.output == 1 end }
end)
server.shell { commands = "x", _retry_delay = 0.1, _retry_until = function(result) return result.exit_code end }
"#,
    )
    .await;
    let tried: Vec<_> = left.calls.iter().map(|call| (call.late.until, call.globals.retries)).collect();
    assert_eq!(tried, [(Some(0), Some(3)), (Some(1), Some(9)), (Some(2), Some(2)), (Some(3), Some(3))]);
    let until = |stdout: &str| Purpose::Until(Arc::new(changed(stdout)));
    assert_eq!(left.give(0, until("wait"), |_| None).await, Ok(json!(false)));
    assert_eq!(left.give(0, until("ready"), |_| None).await, Ok(json!(true)));
    assert_eq!(left.give(1, until(""), |_| None).await, Ok(json!(true)));
    let wrong = left.give(2, until(""), |_| None).await.expect_err("no such name");
    assert!(wrong.contains("has no `output`"), "{wrong}");
    let wrong = left.give(3, until(""), |_| None).await.expect_err("a number");
    assert!(wrong.contains("the function of `_retry_until` gave a number, not true or false"), "{wrong}");
}

#[tokio::test]
async fn operations_of_a_body_run_at_once() {
    let mut left = Left::with(&[
        (
            "deploy.lua",
            r#"
config.retries = 4
local before = server.shell { commands = "before" }
local inside
local made = with({ _sudo = true, _ignore_errors = true }, function()
  return deploy("App", function()
    return call("Join", { _env = { A = "1" }, _serial = 2, _if = before.did_change }, function()
      inside = server.shell { name = "Token", commands = "token" }
      assert(inside.did_change and inside.did_succeed and not inside.did_error and not inside.did_not_change)
      assert(inside.stdout == "token" and inside.exit_code == 0 and inside.stderr == "" and before.did_change and inside.will_change)
      local again = server.shell { commands = { "join " .. inside.stdout, host:fact("server.hostname") } }
      if again.did_change and any_changed(inside, nil) and not all_changed(again, nil) then
        with({ _chdir = "/srv", _if = inside.did_change }, function()
          deploy("Deep", function() files.put { src = "x", dest = "there", _if = { true, again.did_succeed } } end)
        end)
      end
      local out = server.shell { commands = "left out", _if = again.did_error }
      assert(out.stdout == "" and out.exit_code == nil and not out.did_change and out.did_succeed)
      with({ _if = function() return host:fact("server.hostname") ~= "web-1" end }, function() server.shell { commands = "never" } end)
      local failed = server.shell { commands = "fail", _ignore_errors = true }
      assert(failed.did_error and failed.exit_code == 3)
      local late = server.shell {
        commands = function() return { "late", host:fact("server.hostname") } end,
        _if = { true, function() return host:fact("files.file", { path = "/missing" }) == nil end },
      }
      assert(late.stdout == "late")
      systemd.service { service = "x", restarted = late.did_change, reloaded = { late.did_change, function() return false end } }
      local co = coroutine.wrap(function()
        local one = server.shell { commands = "one" }
        coroutine.yield(one.stdout)
        return server.shell { commands = "two" }.stdout
      end)
      assert(co() == "one" and co() == "two")
      local direct = coroutine.wrap(server.shell)({ commands = "direct" })
      local there = host:fact("server.hostname")
      assert(direct.stdout == "direct" and there == "web-1")
      local ok, value = pcall(server.shell, { commands = "in pcall" })
      assert(ok and value.stdout == "in pcall")
      local function tail() return server.shell { commands = "tail" } end
      assert(tail().stdout == "tail")
      for at = 1, 2 do include("tasks.lua", at) end
      local echoed = local_command { "echo", "here" }
      server.shell { commands = echoed }
      return "nothing of it is seen outside"
    end)
  end)
end)
server.shell { commands = function() return inside.stdout .. tostring(made.did_change) end }
"#,
        ),
        ("tasks.lua", "local at = ...\nserver.shell { commands = 'task ' .. at }"),
        ("x", ""),
    ])
    .await;
    let call = left.calls[1].clone();
    assert_eq!((call.kind.as_str(), call.title(), call.late.body), (CALL, "App | Join".to_owned(), Some(0)));
    assert_eq!(call.when, [Condition::Outcome(0, Did::Change)]);
    assert_eq!(json!(call.globals), json!({ "sudo": true, "env": { "A": "1" }, "ignore_errors": true, "serial": 2, "retries": 4 }));
    left.ended(0, changed(""));
    assert_eq!(left.body(0).await, Ok(Value::Null));
    let ran = [
        r#"run 0 App | Token {"commands":["token"]} sudo"#,
        "ask server.hostname {}",
        r#"run 1 App | server.shell join token, web-1 {"commands":["join token","web-1"]} sudo"#,
        r#"run 2 App | Deep | files.put /srv/there {"dest":"/srv/there","src":"/deploy/x"} sudo"#,
        "ask server.hostname {}",
        r#"run 3 App | server.shell fail {"commands":["fail"]} sudo"#,
        r#"ask files.file {"path":"/missing"}"#,
        "ask server.hostname {}",
        r#"run 4 App | server.shell late, web-1 {"commands":["late","web-1"]} sudo"#,
        r#"run 5 App | systemd.service x {"reloaded":false,"restarted":true,"service":"x"} sudo"#,
        r#"run 6 App | server.shell one {"commands":["one"]} sudo"#,
        r#"run 7 App | server.shell two {"commands":["two"]} sudo"#,
        r#"run 8 App | server.shell direct {"commands":["direct"]} sudo"#,
        "ask server.hostname {}",
        r#"run 9 App | server.shell in pcall {"commands":["in pcall"]} sudo"#,
        r#"run 10 App | server.shell tail {"commands":["tail"]} sudo"#,
        r#"run 11 App | server.shell task 1 {"commands":["task 1"]} sudo"#,
        r#"run 12 App | server.shell task 2 {"commands":["task 2"]} sudo"#,
        r#"run 13 App | server.shell here {"commands":["here"]} sudo"#,
    ];
    assert_eq!(left.trace, ran);
    left.ended(1, changed(""));
    assert_eq!(left.argument(1, "commands").await, Ok(json!(["tokentrue"])));
}

#[tokio::test]
async fn a_body_may_fail_and_be_called_again() {
    let mut left = Left::of(
        r#"
Count = { n = 0 }
call(function()
  Count.n = Count.n + 1
  with({ _sudo = true }, function()
    server.shell { commands = Count.n == 1 and "fail" or "try " .. Count.n }
    if Count.n == 2 then fail("the token is old") end
    pcall(fail, "swallowed? " .. Count.n)
    print("never")
  end)
end)
call(function()
  host:log("it is " .. Count.n)
  local ok, why = pcall(error, "plain")
  assert(not ok and why:ends_with("plain"))
  server.shell { commands = "end" }
end)
"#,
    )
    .await;
    assert_eq!(left.body(0).await, Ok(json!("given up")));
    let failed = "runtime: deploy.lua:7: the token is old\n  | if Count.n == 2 then fail(\"the token is old\") end";
    assert_eq!(left.body(0).await, Err(failed.to_owned()));
    let failed = "runtime: deploy.lua:8: swallowed? 3\n  | pcall(fail, \"swallowed? \" .. Count.n)";
    assert_eq!(left.body(0).await, Err(failed.to_owned()));
    assert_eq!(left.body(1).await, Ok(Value::Null));
    assert_eq!(left.trace.last().map(String::as_str), Some(r#"run 0 server.shell end {"commands":["end"]}"#));
    assert_eq!(*left.log.log.lock().expect("a lock"), ["web-1: it is 3"]);
}

#[tokio::test]
async fn operations_run_on_other_hosts_and_facts_are_theirs() {
    let files = [
        ("inventory.lua", "web = { \"web-1\", { \"web-2\", _sudo = true } }\nlb = { \"lb-1\" }"),
        (
            "deploy.lua",
            r#"
server.shell { commands = "a", _on = inventory:host("lb-1") }
server.shell { commands = "b", _on = "lb-1" }
server.shell { commands = "c", _on = "@local" }
server.shell { commands = "d", _on = host }
with({ _on = "@local" }, function()
  server.shell { commands = "e" }
  server.shell { commands = "f", _on = "web-2" }
  server.shell { commands = "g", _on = host }
  call({ _on = "lb-1", _sudo = true }, function()
    server.shell { commands = "h" }
    server.shell { commands = "i", _on = "@local", _sudo = false }
    local other = inventory:host("web-2"):fact("server.hostname")
  end)
end)
local other = inventory:host("web-2"):facts { name = "server.hostname", file = { "files.file", path = "/etc/x" } }
host:fact("server.hostname")
assert(other.name == "web-1" and other.file.size == 12)
"#,
        ),
    ];
    let (_, inventory, deploy) = load(&files).await.expect("a deploy");
    let (ran, functions) = prepare(&deploy, &inventory, 0).await;
    assert_eq!(ran.failed, None);
    let (lb, local) = (Some(Place::Host(HostId(2))), Some(Place::Controller));
    let places: Vec<Option<Place>> = ran.calls.iter().map(|call| call.on).collect();
    assert_eq!(places, [lb, lb, local, None, local, Some(Place::Host(HostId(1))), None, None]);
    let asked = [
        vec!["files.file {\"path\":\"/etc/x\"} on Host(HostId(1))".to_owned(), "server.hostname {} on Host(HostId(1))".to_owned()],
        vec!["server.hostname {}".to_owned()],
    ];
    assert_eq!(ran.asked, asked);
    let sudo: Vec<Option<&str>> = ran.contexts.iter().map(|context| context.privilege.user()).collect();
    assert_eq!(sudo, [Some("root"), Some("root"), None]);
    let mut functions = functions.expect("a body");
    let mut trace = Vec::new();
    let done = call_function(&mut *functions, 0, Purpose::Body, &Results::new(), &mut trace, said).await;
    assert_eq!(done, Ok(Value::Null));
    let ran = [
        r#"run 0 server.shell h {"commands":["h"]} sudo on Host(HostId(2))"#,
        r#"run 1 server.shell i {"commands":["i"]} sudo on Controller"#,
        "ask server.hostname {} on Host(HostId(1))",
    ];
    assert_eq!(trace, ran);
}

#[tokio::test]
async fn the_plan_is_asked_what_will_change() {
    let calls = bench::calls(
        r#"
local a = server.shell { commands = "a" }
local b = server.shell { commands = "b" }
local c = server.shell { commands = "c" }
local function told(handle) return handle.will_change end
local co = coroutine.wrap(function() return a.will_change end)
server.shell { commands = { tostring(co()), tostring(told(b)), tostring(told(c)) } }
if a.will_change == true and b.will_change ~= true then server.shell { commands = "d" } end
"#,
    )
    .await;
    assert_eq!(calls[3].arguments["commands"], json!(["true", "false", "unknown"]));
    assert_eq!(calls.len(), 5);
}

#[tokio::test]
async fn a_state_is_kept_for_functions_alone() {
    for (deploy, is_left) in [
        ("server.shell { commands = 'x' }", false),
        ("server.shell { commands = function() return 'x' end }", true),
        ("local f = function() end", false),
        ("call(function() end) fail('no')", false),
    ] {
        let (_, inventory, loaded) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
        let (_, functions) = prepare(&loaded, &inventory, 0).await;
        assert_eq!(functions.is_some(), is_left, "{deploy}");
    }
}

#[tokio::test]
async fn conditions_that_a_function_can_reach_are_no_misuse() {
    let mut left = Left::of(
        r#"
local a = server.shell { commands = "a" }
local all = { changed = a.did_change | a.did_error }
call(function()
  server.shell { commands = "b", _if = all.changed }
  server.shell { commands = "c", _if = { all.changed, not a.did_error } }
end)
"#,
    )
    .await;
    left.ended(0, changed(""));
    assert_eq!(left.body(0).await, Ok(Value::Null));
    assert_eq!(left.trace.len(), 2);
    let unused = "local a = server.shell { commands = 'a' }\ndo local t = { a.did_change } end\ncall(function() return a.did_change end)";
    let wrong = bench::wrong_with(&[("deploy.lua", unused)]).await;
    assert!(wrong.starts_with("misuse: deploy.lua:2: the condition `did_change` is read and never used"), "{wrong}");
}

#[tokio::test]
async fn functions_share_the_limits_of_the_script() {
    let all = async |running_time: u64, memory: usize, deploy: &str| {
        let limits = infra_lua::Limits { running_time: std::time::Duration::from_millis(running_time), memory };
        let (_, inventory, deploy) = bench::load_with(&[("deploy.lua", deploy)], &["deploy.lua"], limits).await.expect("a deploy");
        let (ran, functions) = prepare(&deploy, &inventory, 0).await;
        let mut functions = functions.expect("bodies");
        let mut shown = Vec::new();
        for function in ran.calls.iter().filter_map(|call| call.late.body) {
            let done = call_function(&mut *functions, function, Purpose::Body, &Results::new(), &mut Vec::new(), said).await;
            shown.push(done.map_or_else(|wrong| wrong.message, |value| value.to_string()));
        }
        shown
    };
    let deploy = r#"
call(function() local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end end)
call(function() server.shell { commands = "x" } end)
"#;
    assert_eq!(all(20_000, 8 << 20, deploy).await, ["the script needs more memory than its limit allows", "null"]);
    let deploy = r#"
call(function() server.shell { commands = "x" } while true do end end)
call(function() for i = 1, 1e6 do end end)
"#;
    assert_eq!(all(600, 32 << 20, deploy).await, ["the script ran for more than 0.6 s"; 2]);
}

/// What a person reads of functions that go wrong: those of each call in turn, after the first call changed something.
async fn wrong(cases: &[&str]) -> String {
    let mut text = String::new();
    for case in cases {
        let case = case.trim_matches('\n');
        let mut said = Vec::new();
        let mut left = Left::with(&[("deploy.lua", case), ("tasks.lua", "rolling(function() end)")]).await;
        left.ended(0, changed("out"));
        for call in left.calls.clone() {
            let conditions = call.all_conditions().flat_map(Condition::functions);
            let arguments = call.late.arguments.iter().map(|(name, function)| (*function, Purpose::Argument { name: name.clone() }));
            let body = call.late.body.map(|function| (function, Purpose::Body));
            let all: Vec<_> = conditions.map(|function| (function, Purpose::Condition)).chain(arguments).chain(body).collect();
            for (function, purpose) in all {
                said.push(match left.give(function, purpose, self::said).await {
                    Ok(value) => format!("nothing is wrong; it gave {value}"),
                    Err(wrong) => wrong,
                });
            }
        }
        text.push_str(&format!("{case}\n-->\n{}\n\n", said.join("\n")));
    }
    text
}

#[tokio::test]
async fn what_goes_wrong_in_execute() {
    let text = wrong(&[
        r#"
call("First", function() error("not today") end)"#,
        r#"
call(function() fail("the disk is full") end)"#,
        r#"
call(function() fail({}) end)"#,
        r#"
local a = server.shell { commands = "a" }
local b = server.shell { name = "Make it", commands = function() return b.stdout end }"#,
        r#"
local later
server.shell { commands = "x", _if = function() return later.stdout == "x" end }
server.shell { commands = "x", _if = function() return later.did_change end }
server.shell { commands = "x", _if = function() return any_host(later) end }
server.shell { commands = "x", _if = function() return any_changed({ later }) end }
later = server.shell { name = "Later", commands = "y" }"#,
        r#"
local a = server.shell { commands = "x" }
server.shell { commands = "x", _if = function() return a.stdou end }
server.shell { commands = "x", _if = function() return a.stdout_lines end }
server.shell { commands = "x", _if = function() end }
server.shell { commands = "x", _if = function() return nil end }
server.shell { commands = "x", _if = function() return a.stdout:find("o") end }
server.shell { commands = "x", _if = function() server.shell { commands = "y" } end }
server.shell { commands = "x", _if = function() call(function() end) end }
server.shell { commands = "x", _if = function() with({}, function() rolling(function() end) end) end }"#,
        r#"
server.shell { commands = "x" }
server.shell { commands = function() return { 5, true } end }
server.shell { commands = function() return { "a", nil, "b" } end }
server.shell { commands = function() return print end }
server.shell { commands = function() return server.shell { commands = "y" } end }"#,
        r#"
local function spread(block) block(function() end) end
call(function() spread(parallel) end)
call(function() spread(rolling) end)
call(function() spread(call) end)
call(function() include("tasks.lua") end)"#,
        r#"
local function run(arguments) server.shell({ commands = "x" }, arguments) end
call(function() run { _serial = true } end)
call(function() run { _serial = false, _run_once = false } end)
local more = { _parallel = 2 }
call(function() with(more, function() run {} end) end)
host.data._serial = 5
local until_true = { _retry_until = function() return true end }
call(function() run(until_true) end)"#,
        r#"
local given = { comands = "x" } call(function() server.shell(given) end)
call(function() pcall(function() sever.shell { commands = "x" } end) end)
call(function() server.shell { commands = function() return 5 end } end)
call(function() server.shell { commands = "x", _if = function() return "yes" end } end)
call(function() server.shell { commands = "x", _if = "yes" } end)
call(function() server.shell { commands = "x", _sudo = function() end } end)
call(function() server.shell { commands = function() server.shell { commands = "y" } end } end)
call(function() server.shell { commands = function() fail("no token") end } end)
call(function() server.shell { commands = "x", _on = "web-11" } end)"#,
        r#"
call(function()
  local list = { "b", "a", "c" }
  table.sort(list, function(a, b)
    server.shell { commands = a }
    return a < b
  end)
end)
call(function() return ("x"):gsub("x", function() return server.shell { commands = "y" }.stdout end) end)
call(function() table.sort({ "b", "a" }, function() return host:fact("server.hostname") == "x" end) end)"#,
        r#"
local a = server.shell { commands = "x" }
local changed = a.did_change
server.shell { commands = "y", _if = changed }
call(function() server.shell { commands = "x", _if = changed | function() return true end } end)
call(function() return a.did_change | true end)
call(function() a.did_change = true end)
call(function() return any_host(server.shell { commands = "z" }) end)
call(function() return any_changed("a") end)"#,
        r#"
call(function() host:fact("files.file", { path = "/broken" }) end)
call(function() return json.decode("{") end)
call(function() Count = 1 end)
call(function() coroutine.yield(1) end)
call(function() local_command { "false" } end)"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn operations_stop_whatever_called_them() {
    let mut left = Left::of(
        r#"
call(function()
  -- Nothing can wait inside of gsub; it runs as soon as something can.
  local replaced = ("x"):gsub("x", function() server.shell { commands = "in gsub" } end)
  local sum = 0
  for at in coroutine.wrap(function()
    for at = 1, 100 do
      coroutine.yield(#server.shell { commands = ("x"):rep(at) }.stdout)
    end
  end) do
    sum = sum + at
  end
  local shape = setmetatable({}, {
    __index = function(_, key) return server.shell { commands = key }.stdout end,
    __call = function(_, text) return server.shell { commands = text } end,
    __add = function(a, b) return server.shell { commands = "sum" }.stdout .. b end,
  })
  assert(shape.key == "key" and shape("called").stdout == "called" and shape + 1 == "sum1")
  do
    local guard <close> = setmetatable({}, { __close = function() server.shell { commands = "closing" } end })
  end
  local nested = coroutine.wrap(function()
    return coroutine.wrap(function() return pcall(function() return server.shell { commands = "deep" }.stdout end) end)()
  end)
  local ok, deep = nested()
  assert(ok and deep == "deep")
  server.shell { commands = tostring(sum) }
end)
"#,
    )
    .await;
    assert_eq!(left.body(0).await, Ok(Value::Null));
    let ran: Vec<&str> = left.trace.iter().map(|line| line.split('"').nth(3).expect("a command")).collect();
    assert_eq!((ran.len(), ran[0], ran[100].len()), (107, "in gsub", 100));
    assert_eq!(ran[101..], ["key", "called", "sum", "closing", "deep", "5050"], "{ran:?}");
}
