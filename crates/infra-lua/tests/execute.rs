//! Functions that scripts leave behind, called as execute calls them.
#![allow(missing_docs)]

mod bench;

use std::sync::Arc;

use bench::{Ran, call_function, changed, load, prepare, shown};
use infra_core::condition::{CallIndex, Condition, Did};
use infra_core::late::{CALL, CallResult, Functions, LateReply, LateStep, Place, Purpose, Results};
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
        r#"run 8 App | server.shell in pcall {"commands":["in pcall"]} sudo"#,
        r#"run 9 App | server.shell tail {"commands":["tail"]} sudo"#,
        r#"run 10 App | server.shell task 1 {"commands":["task 1"]} sudo"#,
        r#"run 11 App | server.shell task 2 {"commands":["task 2"]} sudo"#,
        r#"run 12 App | server.shell here {"commands":["here"]} sudo"#,
    ];
    assert_eq!(left.trace, ran);
    left.ended(1, changed(""));
    assert_eq!(left.argument(1, "commands").await, Ok(json!(["tokentrue"])));
}
