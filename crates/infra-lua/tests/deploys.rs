//! Deploys that are right: what their scripts do.
#![allow(missing_docs)]

mod bench;

use bench::{calls, load, load_with, run, run_script};
use infra_core::condition::{Condition, Did};
use infra_lua::Limits;
use serde_json::json;

#[tokio::test]
async fn operations_are_registered_in_order() {
    let calls = calls(
        r#"
local common = { update = true, packages = "curl" }
if host.groups.web_servers then
  apt.packages(common, { name = "Install nginx", packages = { "nginx" }, cache_time = 3600.0 })
end
local conf = files.template { content = "port {{ http_port }}\n", dest = "/etc/x", mode = 644, vars = host.data }
systemd.service { service = "nginx", running = true, reloaded = conf.did_change, _sudo = true }
server.shell { commands = "true", _if = { conf.did_change, any_changed(conf, nil) } }
"#,
    )
    .await;
    assert_eq!(calls.len(), 4);
    assert_eq!(calls[0].name.as_deref(), Some("Install nginx"));
    assert_eq!(json!(calls[0].arguments), json!({ "cache_time": 3600, "packages": ["nginx"], "update": true }));
    assert_eq!(calls[0].chain[0].to_string(), "deploy.lua:4");
    assert_eq!(calls[1].arguments["vars"], json!({ "http_port": 80 }));
    assert_eq!(calls[1].arguments["scope"]["host"]["name"], json!("web-1"));
    assert!(calls[1].arguments["scope"].get("inventory").is_none());
    assert_eq!(calls[2].conditions, [("reloaded".to_owned(), Condition::Outcome(1, Did::Change))]);
    assert!(!calls[2].arguments.contains_key("reloaded"));
    assert_eq!(calls[2].globals.sudo, Some(true));
    let any = Condition::Any(vec![Condition::Outcome(1, Did::Change), Condition::Always(false)]);
    assert_eq!(calls[3].when, [Condition::All(vec![Condition::Outcome(1, Did::Change), any])]);
}

#[tokio::test]
async fn facts_are_asked_and_answered() {
    let deploy = r#"
local name = host:fact("server.hostname")
local all = host:facts { conf = { "files.file", path = "/etc/x" }, gone = { "files.file", { path = "/missing", _sudo = true } } }
assert(all.gone == nil and all.conf.size == 12)
local wrapped = coroutine.wrap(function()
  coroutine.yield(1)
  coroutine.yield(host:fact("server.hostname"))
end)
assert(wrapped() == 1)
server.shell { commands = { name, all.conf.path, wrapped() } }
"#;
    let ran = run(&[("deploy.lua", deploy)]).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    assert_eq!(ran.calls[0].arguments["commands"], json!(["web-1", "/etc/x", "web-1"]));
    assert_eq!(ran.asked[1], [r#"files.file {"path":"/etc/x"}"#, r#"files.file {"path":"/missing"}"#]);
    assert_eq!((ran.asked.len(), ran.contexts[2].privilege.user()), (3, Some("root")));
}

#[tokio::test]
async fn a_fact_finds_the_file_that_an_operation_names() {
    let deploy = r#"
with({ _chdir = "/srv/app/" }, function()
  host:fact("files.file", { path = "conf" })
  host:fact("files.file", { path = "/etc/x" })
end)
host:fact("files.file", { path = "conf", _chdir = "/opt" })
"#;
    let ran = run(&[("deploy.lua", deploy)]).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    let asked = [r#"files.file {"path":"/srv/app/conf"}"#, r#"files.file {"path":"/etc/x"}"#, r#"files.file {"path":"/opt/conf"}"#];
    assert_eq!(ran.asked.concat(), asked);
}

#[tokio::test]
async fn blocks_files_and_functions_are_in_the_chain() {
    let files = [
        (
            "deploy.lua",
            r#"config.sudo = true
local tools = require("lib.tools")
with({ _env = { A = "1" }, _if = true }, function()
  deploy("nginx", { _env = { B = "2" } }, function()
    tools.install("nginx")
    assert(include("tasks/site.lua", { port = 80 }) == "done")
  end)
end)
server.shell { commands = "after" }
local co = coroutine.wrap(function() tools.install("x") end)
co()
"#,
        ),
        ("lib/tools.lua", "local M = {}\nfunction M.install(p)\n  return apt.packages { packages = p }\nend\nreturn M\n"),
        (
            "tasks/site.lua",
            "local data = ...\nconfig.timeout = data.port\nfiles.put { src = \"site.conf\", dest = \"site.conf\", _chdir = \"/etc\" }\nreturn \"done\"\n",
        ),
        ("tasks/site.conf", "x"),
    ];
    let ran = run(&files).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    let chain = |at: usize| ran.calls[at].chain.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(chain(0), "deploy.lua:3 deploy.lua:4 deploy.lua:5 lib/tools.lua:3");
    assert_eq!(chain(1), "deploy.lua:3 deploy.lua:4 deploy.lua:6 tasks/site.lua:3");
    assert_eq!(chain(3), "deploy.lua:11 deploy.lua:10 lib/tools.lua:3");
    assert_eq!(ran.calls[0].path, ["nginx"]);
    let env: Vec<(&str, &str)> = ran.calls[0].globals.env.iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(env, [("A", "1"), ("B", "2")]);
    assert_eq!((ran.calls[1].globals.timeout, ran.calls[1].globals.sudo), (Some(80.0), Some(true)));
    assert_eq!(ran.calls[1].arguments["src"], json!("/deploy/tasks/site.conf"));
    assert_eq!(ran.calls[1].arguments["dest"], json!("/etc/site.conf"));
    assert_eq!((ran.calls[2].globals.timeout, ran.calls[2].path.len()), (None, 0));
}

#[tokio::test]
async fn what_runs_once_runs_once_for_all_hosts() {
    let deploy = r#"
local a = local_command { "echo", "a", 1 }
local b = once(function() return { a, local_command { "echo", "b" } } end)
for _ = 1, 2 do local_command { "echo", "again" } end
local ok, why = pcall(local_command, { "false" })
server.shell { commands = { a, b[2], tostring(ok), why } }
"#;
    let (world, inventory, deploy) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
    let (one, two, three) =
        tokio::join!(run_script(&deploy, &inventory, 0), run_script(&deploy, &inventory, 1), run_script(&deploy, &inventory, 2));
    for ran in [one, two, three] {
        assert_eq!(ran.failed, None);
        let why = "deploy.lua:5: local_command: `false` exited with 1: it is false";
        assert_eq!(ran.calls[0].arguments["commands"], json!(["a 1", "b", "false", why]));
    }
    assert_eq!(world.ran.lock().expect("a lock").len(), 5);
}

#[tokio::test]
async fn hosts_and_groups_are_what_the_inventory_says() {
    let deploy = r#"
assert(host.name == "web-1" and host.groups[1] == "web_servers" and #host.groups == 1)
assert(host.groups.db_servers == false)
assert(host.data.http_port == 80 and host.data.role == nil)
assert(host:get("none", 7) == 7)
host.data.http_port = 8080
assert(host.data.http_port == 8080)
assert(inventory:host("web-2").data.role == "canary" and inventory:host("web-2").data.http_port == 80)
local names = {}
for _, other in ipairs(inventory.hosts) do names[#names + 1] = other.name end
assert(table.concat(names, " ") == "web-1 web-2 db-1")
assert(#inventory:group("web_servers") == 2 and inventory.groups.db_servers[1].name == "db-1" and #inventory:group("all") == 3)
local keys = {}
for key in pairs({ b = 1, a = 2, [10] = 3, [2] = 4 }) do keys[#keys + 1] = tostring(key) end
assert(table.concat(keys, " ") == "2 10 a b")
for key, value in pairs(host.data) do keys[#keys + 1] = key .. "=" .. value end
assert(keys[5] == "http_port=8080")
print("hello", 1, { 1 })
host:log("there")
assert(render("{{ host.name }} {{ x }} {{ host.data.http_port }}\n", { x = 1 }) == "web-1 1 8080\n")
assert(render("{% for h in inventory.groups.db_servers %}{{ h.name }}{% endfor %}") == "db-1")
assert(sh("rm {} {}", "a b", { 1, "c d" }) == "rm 'a b' 1 'c d'" and quote("x y") == "'x y'")
assert(("a,b"):split(",")[2] == "b" and (" x "):trim() == "x" and ("a.b"):replace(".", "-") == "a-b")
assert(("abc"):contains("b") and ("abc"):starts_with("ab") and not ("abc"):ends_with("b"))
assert(json.encode(json.decode('{"a":[],"b":{},"c":[1,null]}')) == '{"a":[],"b":{},"c":[1,null]}')
assert(env("HOME") == "/home/toy" and env("NOPE", "x") == "x" and os.getenv("HOME") == "/home/toy")
assert(load("return 1 + 1")() == 2)
assert(read_file("data.txt") == "data\n")
Version = "1.0"
assert(Version == "1.0")
"#;
    let (world, inventory, deploy) = load(&[("deploy.lua", deploy), ("data.txt", "data\n")]).await.expect("a deploy");
    let ran = run_script(&deploy, &inventory, 0).await;
    assert_eq!(ran.failed, None);
    assert_eq!(*world.log.lock().expect("a lock"), ["web-1: hello\t1\t[1]", "web-1: there"]);
}

#[tokio::test]
async fn arguments_of_every_operation_are_merged_from_the_inside_out() {
    let deploy = r#"
config.timeout = 1
config.chdir = "/from/config"
host.data._chdir = "/from/data"
with({ _env = { A = "outer", B = "outer" }, _sudo = true, _if = false }, function()
  with({ _env = { B = "inner", C = "inner" } }, function()
    files.put { src = "x", dest = "there", _env = { C = "call" }, _sudo = false }
  end)
end)
config.timeout = nil
server.shell { commands = "true" }
assert(config.timeout == nil and config.chdir == "/from/config")
"#;
    let ran = run(&[("deploy.lua", deploy), ("x", "")]).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    let globals = &ran.calls[0].globals;
    assert_eq!(json!(globals.env), json!({ "A": "outer", "B": "inner", "C": "call" }));
    assert_eq!((globals.sudo, globals.timeout, globals.chdir.as_deref()), (Some(false), Some(1.0), Some("/from/data")));
    assert_eq!(ran.calls[0].arguments["dest"], json!("/from/data/there"));
    assert_eq!(ran.calls[0].when, [Condition::Always(false)]);
    assert_eq!((ran.calls[1].globals.timeout, ran.calls[1].when.len()), (None, 0));
}

#[tokio::test]
async fn several_deploy_files_run_in_turn() {
    let all = [
        ("one.lua", "config.sudo = true\nShared = 5\nserver.shell { commands = 'one' }"),
        (
            "two/deploy.lua",
            "assert(Shared == 5)\nfiles.put { src = 'x', dest = '/x' }\nlocal ok, why = pcall(error, { code = 7 })\nassert(why.code == 7)",
        ),
        ("two/x", ""),
    ];
    let (_, inventory, deploy) = load_with(&all, &["one.lua", "two/deploy.lua"], Limits::default()).await.expect("two deploys");
    assert_eq!(deploy.files(), ["one.lua", "two/deploy.lua"]);
    for host in 0..3 {
        let ran = run_script(&deploy, &inventory, host).await;
        assert_eq!(ran.failed, None);
        assert_eq!((ran.calls[0].deploy, ran.calls[1].deploy), (0, 1));
        assert_eq!((ran.calls[0].globals.sudo, ran.calls[1].globals.sudo), (Some(true), None));
        assert_eq!(ran.calls[1].arguments["src"], json!("/deploy/two/x"));
    }
}

#[tokio::test]
async fn scripts_that_do_not_end_are_ended() {
    let ended = async |deploy: &str| {
        let limits = Limits { running_time: std::time::Duration::from_millis(50), ..Limits::default() };
        let (_, inventory, deploy) = load_with(&[("deploy.lua", deploy)], &["deploy.lua"], limits).await.expect("a deploy");
        bench::shown(&run_script(&deploy, &inventory, 0).await.failed.expect("a failure"))
    };
    let shown = ended("local n = 0\nwhile true do n = n + 1 end").await;
    assert_eq!(
        shown,
        "runtime: deploy.lua:2: the script ran for more than 0.05 s\n  | while true do n = n + 1 end\n  hint: look for a loop that does not end"
    );
    assert!(ended("while true do pcall(function() while true do end end) end").await.contains("ran for more than 0.05 s"));
    assert!(ended("coroutine.wrap(function() while true do end end)()").await.contains("ran for more than 0.05 s"));
    // No hook is called inside one function of C, so this one is left behind. Its thread ends with the process.
    let long = r#"local s = ("a"):rep(60) .. "b"
s:find((".-"):rep(20) .. "c")"#;
    assert!(ended(long).await.contains("was left behind"));
}

#[tokio::test]
async fn what_a_loop_calls_is_told_apart_by_the_engine() {
    let calls = calls("for _, name in ipairs({ 'a', 'b' }) do server.shell { name = name, commands = name } end").await;
    assert_eq!((calls[0].chain.clone(), calls[0].call, calls[1].call), (calls[1].chain.clone(), 0, 1));
    assert_eq!(calls[1].name.as_deref(), Some("b"));
}

#[tokio::test]
async fn templates_see_the_host_as_it_is_at_the_call_and_share_the_inventory() {
    let files = [
        (
            "deploy.lua",
            "files.template { src = 'hosts.j2', dest = '/etc/hosts' }\nhost.data.x = 1\nfiles.template { src = 'plain.j2', dest = '/etc/x' }",
        ),
        ("hosts.j2", "{% for h in inventory.hosts %}{{ h.name }}\n{% endfor %}"),
        ("plain.j2", "{{ host.data.x }}"),
    ];
    let ran = run(&files).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    assert_eq!(ran.calls[0].arguments["scope"]["host"]["data"].get("x"), None);
    assert_eq!(ran.calls[1].arguments["scope"]["host"]["data"]["x"], json!(1));
    for call in &ran.calls {
        assert_eq!(call.arguments["scope"].get("inventory"), None, "a copy for each host would fill the memory");
    }
}

#[tokio::test]
async fn endless_recursion_is_ended_and_its_chain_is_short() {
    let all = [("deploy.lua", "local function f(n) return f(n + 1) + 1 end\nf(1)")];
    let (_, inventory, deploy) = load_with(&all, &["deploy.lua"], Limits::default()).await.expect("a deploy");
    let wrong = run_script(&deploy, &inventory, 0).await.failed.expect("a failure");
    assert_eq!(wrong.message, "functions call each other without end (stack overflow)");
    assert_eq!((wrong.location.clone().map(|location| location.line), wrong.chain.len()), (Some(1), 64));
}

#[tokio::test]
async fn blocks_end_with_their_errors_and_tail_calls_are_marked() {
    let deploy = r#"
local ok = pcall(function()
  with({ _sudo = true }, function() error("no") end)
end)
local inside = coroutine.create(function()
  with({ _sudo = true }, function()
    server.shell { commands = "in" }
    coroutine.yield()
  end)
end)
local function install() server.shell { commands = "out" } end
local function outer() return install() end
outer()
assert(coroutine.resume(inside) and coroutine.resume(inside))
local none = host:facts {}
assert(next(none) == nil)
"#;
    let calls = calls(deploy).await;
    assert_eq!((calls[0].globals.sudo, calls[1].globals.sudo), (None, Some(true)));
    let chain: Vec<String> = calls[0].chain.iter().map(ToString::to_string).collect();
    assert_eq!(chain, ["deploy.lua:13", "?", "deploy.lua:11"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hosts_run_at_once() {
    let deploy = r#"
local shared = once(function() return local_command { "echo", "shared" } end)
server.shell { commands = { shared, host:fact("server.hostname"), local_command { "echo", "again" } } }
"#;
    let all = [("inventory.lua", "many = { \"h[01-64]\" }"), ("deploy.lua", deploy)];
    let (world, inventory, deploy) = load_with(&all, &["deploy.lua"], Limits::default()).await.expect("a deploy");
    let deploy = std::sync::Arc::new(deploy);
    let mut tasks = tokio::task::JoinSet::new();
    for host in 0..64 {
        let (deploy, inventory) = (deploy.clone(), inventory.clone());
        tasks.spawn(async move { (host, run_script(&deploy, &inventory, host).await) });
    }
    while let Some(ended) = tasks.join_next().await {
        let (host, ran) = ended.expect("a task that ends");
        assert_eq!(ran.failed, None);
        assert_eq!(ran.calls[0].arguments["commands"], json!(["shared", inventory.hosts[host].name, "again"]));
    }
    assert_eq!(world.ran.lock().expect("a lock").len(), 2);
}
