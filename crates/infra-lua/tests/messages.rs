//! Deploys and inventories that are wrong: what a person reads.
#![allow(missing_docs)]

mod bench;

use std::path::Path;

use bench::{shown, world, wrong_with};
use infra_core::Map;
use infra_lua::load_inventory;

async fn deploys(cases: &[&str]) -> String {
    let mut text = String::new();
    for case in cases {
        let case = case.trim_matches('\n');
        let wrong = wrong_with(&[
            ("deploy.lua", case),
            ("templates/wrong.j2", "a\n{% if %}\n"),
            ("templates/missing.j2", "a\n{{ nmae }}\n"),
            ("lib/wrong.lua", "local M = {}\nM.x = apt.pakages\nreturn M\n"),
            ("lib/circle.lua", "return require('lib.circle')\n"),
            ("tasks/syntax.lua", "local x = 1\nif x != 2 then\nend\n"),
            ("tasks/endless.lua", "include('endless.lua')\n"),
        ])
        .await;
        text.push_str(&format!("{case}\n-->\n{wrong}\n\n"));
    }
    text
}

async fn inventories(cases: &[&str]) -> String {
    let mut text = String::new();
    for case in cases {
        let case = case.trim_matches('\n');
        let wrong = match load_inventory(Path::new("inventory.lua"), world(&[("inventory.lua", case)]), Map::new()).await {
            Ok(inventory) => format!("nothing is wrong; {} hosts", inventory.hosts.len()),
            Err(wrong) => shown(&wrong),
        };
        text.push_str(&format!("{case}\n-->\n{wrong}\n\n"));
    }
    text
}

#[tokio::test]
async fn operations_and_arguments() {
    let text = deploys(&[
        r#"apt.pakages { packages = "nginx" }"#,
        r#"atp.packages { packages = "nginx" }"#,
        r#"server.hostname { }"#,
        r#"apt.packages { pakages = { "nginx" } }"#,
        r#"apt.packages { "nginx" }"#,
        r#"apt.packages { "nginx", "curl", update = true }"#,
        r#"apt.packages("nginx")"#,
        r#"apt.packages()"#,
        r#"apt { }"#,
        r#"systemd.service { running = true }"#,
        r#"systemd.service { service = "nginx", running = "yes" }"#,
        r#"apt.packages { packages = { "nginx", 5 } }"#,
        r#"apt.packages { packages = { "nginx", nil, "curl" } }"#,
        r#"apt.packages { packages = { a = 1, "curl" } }"#,
        r#"apt.packages { packages = { ("a-b"):gsub("-", "_") } }"#,
        r#"apt.packages { cache_time = 1.5 }"#,
        r#"apt.packages { cache_time = 0/0 }"#,
        r#"apt.packages { name = 5 }"#,
        r#"files.put { src = "nothing.conf", dest = "/etc/x" }"#,
        r#"files.template { src = "templates/wrong.j2", dest = "/etc/x" }"#,
        r#"files.template { dest = "/etc/x" }"#,
        r#"files.template { content = "x", dest = "/etc/x", mode = "rw" }"#,
        r#"files.template { content = "x", dest = "/etc/x", vars = { f = print } }"#,
        r#"apt.packages { packages = { function() return "x" end } }"#,
        r#"apt.packages { pakages = function() return "x" end }"#,
        r#"systemd.service { running = function() return true end }"#,
        r#"systemd.service { service = function() return "x" end, running = "yes" }"#,
        r#"files.template { content = "x", dest = "/etc/x", vars = { host = host } }"#,
        r#"apt.packages(setmetatable({}, { __index = { packages = "x" } }))"#,
        r#"apt.packages = 1"#,
        r#"apt = 1"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn arguments_of_every_operation() {
    let text = deploys(&[
        r#"server.shell { commands = "x", _suod = true }"#,
        r#"server.shell { commands = "x", sudo = true }"#,
        r#"server.shell { commands = "x", _sudo = "yes" }"#,
        r#"server.shell { commands = "x", _retries = "often" }"#,
        r#"server.shell { commands = "x", _retries = -1 }"#,
        r#"server.shell { commands = "x", _retry = 3 }"#,
        r#"server.shell { commands = "x", _retry_until = true }"#,
        r#"server.shell { commands = "x", _sudo = function() return true end }"#,
        r#"server.shell { name = function() return "x" end, commands = "x" }"#,
        r#"server.shell { commands = "x", _on = "web-11" }"#,
        r#"server.shell { commands = "x", _on = inventory:host("web-11") }"#,
        r#"server.shell { commands = "x", _on = 5 }"#,
        r#"with({ _on = "@locla" }, function() end)"#,
        r#"with({ _sudo = function() end }, function() end)"#,
        r#"config.on = "@local""#,
        r#"config.retry_until = true"#,
        r#"host:fact("server.hostname", { _on = "web-2" })"#,
        r#"host.data._on = "@local"
server.shell { commands = "x" }"#,
        r#"host.data._retry_until = function() end"#,
        r#"server.shell { commands = "x", _retries = 1, _retry_delay = -1 }"#,
        r#"server.shell { commands = "x", _retries = 1, _retry_backoff = 0.5 }"#,
        r#"server.shell { commands = "x", _retry_delay = 1 }"#,
        r#"server.shell { commands = "x", _serial = 0 }"#,
        r#"server.shell { commands = "x", _serial = -1 }"#,
        r#"server.shell { commands = "x", _serial = 2.5 }"#,
        r#"server.shell { commands = "x", _serial = "a quarter" }"#,
        r#"server.shell { commands = "x", _serial = "125%" }"#,
        r#"server.shell { commands = "x", _serial = {} }"#,
        r#"server.shell { commands = "x", _serial = { 1, "x" } }"#,
        r#"server.shell { commands = "x", _serial = { 1, 0 } }"#,
        r#"server.shell { commands = "x", _serial = { first = 1 } }"#,
        r#"server.shell { commands = "x", _serial = true, _max_fail = "all" }"#,
        r#"server.shell { commands = "x", _serial = true, _max_fail = true }"#,
        r#"server.shell { commands = "x", _max_fail = 1 }"#,
        r#"server.shell { commands = "x", _parallel = 0 }"#,
        r#"server.shell { commands = "x", _parallel = "50%" }"#,
        r#"server.shell { commands = "x", _background = true }"#,
        r#"rolling({ batch = 2 }, function() server.shell { commands = "x", _background = true } end)"#,
        r#"server.shell { commands = "x", _continue_on_error = 1 }"#,
        r#"server.shell { commands = "x", _env = { A = 1 } }"#,
        r#"server.shell { commands = "x", _timeout = -1 }"#,
        r#"server.shell { commands = "x", _sudo_user = "www" }"#,
        r#"server.shell { commands = "x", if = true }"#,
        r#"server.shell { commands = "x", _if = "yes" }"#,
        r#"with({ sudo = true }, function() end)"#,
        r#"with({ _sudo = true })"#,
        r#"deploy({ name = "nginx" })"#,
        r#"deploy(function() end)"#,
        r#"config.suod = true"#,
        r#"config.retries = "3""#,
        r#"config.serial = 0"#,
        r#"config.parallel = 3"#,
        r#"config.fail_percent = 3"#,
        r#"config.background = true"#,
        r#"config._sudo = true"#,
        r#"host.data._suod = true
server.shell { commands = "x" }"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn blocks_that_are_wrong() {
    let text = deploys(&[
        r#"rolling({ bacth = 2 }, function() end)"#,
        r#"rolling({ batch = 0 }, function() end)"#,
        r#"rolling({ batch = "some" }, function() end)"#,
        r#"rolling({ batch = function() end }, function() end)"#,
        r#"rolling({ max_fail = true }, function() end)"#,
        r#"rolling({ pause = -1 }, function() end)"#,
        r#"rolling({ pause = "1m" }, function() end)"#,
        r#"rolling({ 2 }, function() end)"#,
        r#"rolling({ _sudo = true }, function() end)"#,
        r#"rolling("25%", function() end)"#,
        r#"rolling(2, function() end)"#,
        r#"rolling({ batch = 2 })"#,
        r#"parallel()"#,
        r#"parallel({ batch = 2 }, function() end)"#,
        r#"parallel { function() end }"#,
        r#"
rolling({ batch = 2 }, function()
  server.shell { commands = "x" }
  deploy("App", function()
    rolling({ batch = 1 }, function() end)
  end)
end)"#,
        r#"
parallel(function()
  pcall(rolling, function() end)
end)"#,
        r#"rolling(function() parallel(function() parallel(function() end) end) end)"#,
        r#"
rolling(function()
  local conf = server.shell { commands = "x" }
  with({ _if = conf.did_change | ~any_host(conf) }, function()
    server.shell { commands = "y" }
  end)
end)"#,
        r#"once(function() parallel(function() end) end)"#,
        r#"once(function() call(function() end) end)"#,
        r#"once(function() local a = server.shell { commands = function() end } end)"#,
        r#"call()"#,
        r#"call({ sudo = true }, function() end)"#,
        r#"call({ _sudo = "yes" }, function() end)"#,
        r#"call({ commands = function() end }, function() end)"#,
        r#"call({ _retry_until = function() return true end }, function() end)"#,
        r#"with({ _retry_until = function() return true end }, function() call(function() end) end)"#,
        r#"call({ _background = true }, function() end)"#,
        r#"
call(function()
  deploy("App", function()
    rolling({ batch = 1 }, function() server.shell { commands = "x" } end)
  end)
end)"#,
        r#"
local function body() parallel(function() server.shell { commands = "x" } end) end
call("App", body)"#,
        r#"call(function() call(function() end) end)"#,
        r#"call(function() server.shell { commands = "x", _serial = "25%" } end)"#,
        r#"call(function() with({ _run_once = true }, function() server.shell { commands = "x" } end) end)"#,
        r#"call(function() server.shell { commands = "x", _retry_until = function() return true end } end)"#,
        r#"rolling(function() error("not today") end)"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn conditions_and_results() {
    let text = deploys(&[
        r#"
local conf = server.shell { commands = "x" }
if conf.did_change then server.shell { commands = "y" } end"#,
        r#"
local conf = server.shell { commands = "x" }
local changed = conf.did_change"#,
        r#"
local conf = server.shell { commands = "x" }
local t = { changed = conf.did_change }
if t.changed then server.shell { commands = "y" } end"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = conf.stdout }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf.did_change | conf }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf.did_change & 5 }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = "yes" | conf.did_change }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf.did_change ~ conf.did_error }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = ~true & conf.did_change }"#,
        r#"
local conf = server.shell { commands = "x" }
if conf.did_change | conf.did_error then end"#,
        r#"
local conf = server.shell { commands = "x" }
local odd = ~conf.did_change & conf.did_succeed
while odd do end"#,
        r#"
local conf = server.shell { commands = "x" }
local odd = ~conf.did_change"#,
        r#"
local conf = server.shell { commands = "x" }
local t = { odd = ~conf.did_change }"#,
        r#"
local conf = server.shell { commands = "x" }
local t = { odd = conf.did_change | false }"#,
        r#"
local conf = server.shell { commands = "x" }
if not any_host(conf) then end"#,
        r#"any_host(server.shell { commands = "x" })"#,
        r#"server.shell { commands = "y", _if = any_host("conf") }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = any_host(conf, conf) }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = any_host(conf.did_change) }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf.did_chnage }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "y", _if = conf.changed }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = "changed: " .. conf.did_change }"#,
        r#"
local conf = server.shell { commands = "x" }
server.shell { commands = { conf.did_change } }"#,
        r#"
local conf = server.shell { commands = "x" }
if conf.will_change then end"#,
        r#"
local conf = server.shell { commands = "x" }
local plan = conf.will_change
if plan ~= "unknown" and not plan then end"#,
        r#"once(function() return server.shell { commands = "x" }.will_change end)"#,
        r#"
local conf = server.shell { commands = "x" }
once(function() return conf.will_change end)"#,
        r#"
local conf = server.shell { commands = "x" }
if conf.exit_code == 0 then end"#,
        r#"
local conf = server.shell { commands = "x" }
print(conf.stderr)"#,
        r#"
local conf = server.shell { commands = "x" }
print(conf.stdot)"#,
        r#"
local conf = server.shell { commands = "x" }
local function install() if conf.did_change then server.shell { commands = "y" } end end
deploy("x", install)
call(function() if conf.did_change then server.shell { commands = "y" } end end)"#,
        r#"
local conf = server.shell { commands = "x" }
local function install() if conf.did_change then server.shell { commands = "y" } end end
local function both(body) body() call(body) end
both(install)"#,
        r#"
local conf = server.shell { commands = "x" }
local changed = conf.did_change
call(function() if changed then server.shell { commands = "y" } end end)"#,
        r#"server.shell { commands = "x", _if = { function() return true end, "yes" } }"#,
        r#"any_changed(function() return true end)"#,
        r#"server.shell { commands = "y", _if = any_changed("conf") }"#,
        r#"any_changed(server.shell { commands = "x" })"#,
        r#"local v = host.name == "web-1" and false or true"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn names_data_and_facts() {
    let text = deploys(&[
        r#"if hots.name then end"#,
        r#"local x = True"#,
        r#"local x = None"#,
        r#"local n = len(host.groups)"#,
        r#"local x = web_servers"#,
        r#"local x = http_port"#,
        r#"if host.groups.web_server then end"#,
        r#"local x = host.data.htpp_port"#,
        r#"local x = host.http_port"#,
        r#"local x = inventory:host("web-11")"#,
        r#"local x = inventory:group("webservers")"#,
        r#"local x = inventory.host_list"#,
        r#"host.name = "x""#,
        r#"host.groups.db_servers = true"#,
        r#"host.data.list = { 1 }
table.insert(host.data.list, 2)"#,
        r#"host.log("x")"#,
        r#"local function f() count = 1 end
f()"#,
        r#"host.fact("server.hostname")"#,
        r#"host:fact("server.hostnam")"#,
        r#"host:fact("files.file", { pth = "/etc/x" })"#,
        r#"host:fact("files.file", "/etc/x")"#,
        r#"host:fact("files.file", { path = "/broken" })"#,
        r#"
local names = { "b", "a" }
table.sort(names, function(a, b) return host:fact("server.hostname") < b end)"#,
        r#"local s = ("x"):gsub("x", function() return host:fact("server.hostname") end)"#,
        r#"inventory:host("web-2"):fact("server.hostnam")"#,
        r#"inventory:host("web-2").fact("server.hostname")"#,
        r#"once(function() inventory:host("web-2"):fact("server.hostname") end)"#,
        r#"once(function() return host:fact("server.hostname") end)"#,
        r#"once(function() server.shell { commands = "x" } end)"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn what_is_absent_or_comes_later() {
    let text = deploys(&[
        r#"os.execute("ls")"#,
        r#"os.exit(1)"#,
        r#"io.popen("ls")"#,
        r#"io.read()"#,
        r#"io.write("x")"#,
        r#"os.setlocale("de")"#,
        r#"os.tiem()"#,
        r#"debug.getinfo(1)"#,
        r#"dofile("x.lua")"#,
        r#"local op = operation { name = "x" }"#,
        r#"local y = yaml.decode("a: 1")"#,
        r#"assert(load("\27Lua"))"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn files_and_runtime_errors() {
    let text = deploys(&[
        r#"include("tasks/nothing.lua")"#,
        r#"include("tasks/syntax.lua")"#,
        r#"include("tasks/endless.lua")"#,
        r#"require("lib.nothing")"#,
        r#"require("lib.wrong")"#,
        r#"require("lib.circle")"#,
        r#"read_file("nothing.txt")"#,
        r#"render("templates/missing.j2", { name = 1 })"#,
        r#"render("{{ x }} {{ y }}", { x = 1 })"#,
        r#"local x = nil
print(x.y)"#,
        r#"local list = {}
print(list[0].name)"#,
        r#"for x in { 1, 2 } do print(x) end"#,
        r#"local x = "a" + 1"#,
        r#"error("the disk is on fire")"#,
        r#"fail("the disk is on fire")"#,
        r#"pcall(fail, "the disk is on fire")
print("never")"#,
        r#"fail()"#,
        r#"error({ code = 5 })"#,
        r#"local function f() return f() + 1 end
f()"#,
        r#"local t = {}
for i = 1, 1e9 do t[i] = ("x"):rep(1000) .. i end"#,
        r#"coroutine.yield(1)"#,
        r#"sh("echo {} {}", 1)"#,
        r#"sh("echo {}", nil)"#,
        r#"local_command { "false" }"#,
        r#"local_command { "nothing", 1 }"#,
        r#"local_command("ls")"#,
        r#"local_command { "echo", stdinn = "x" }"#,
        r#"once(function() error("not today") end)"#,
        r#"json.decode("{")"#,
        r#"json.encode({ 1, a = 2 })"#,
        r#"("x"):split("")"#,
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn syntax_of_other_languages() {
    let text = deploys(&[
        "if host.name != \"x\" then\nend",
        "local x = 1\nx += 1",
        "if a then\nelse if b then\nend",
        "if host.name:\n  x()",
        "local mode = 0o644",
        "local t = {\"a\": 1}",
        "# a comment",
        "local x = [[ [[:space:]] ]]",
        "def f():\n  pass",
        "import os",
        "for x in list:\n  x()",
        "local x = !y",
        "if a && b then end",
        "local t = { a = 1 b = 2 }",
        "if a = 1 then end",
        "local x = f\"{name}\"",
        "if a then",
        "local x = \"open",
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn inventories_that_are_wrong() {
    let text = inventories(&[
        "web = {\n  \"web-1\",\n  \"web-[1-3]\",\n}",
        "web = { \"web[a]\" }",
        "web = { \"@dokcer/app\" }",
        "web = { \"@lcoal\" }",
        "web = { \"web:ssh\" }",
        "web = { \"web 1\" }",
        "web = { { ssh_port = 22 } }",
        "web = { \"web-1\", http_port = 80 }",
        "web = { \"web-1\", data = 80 }",
        "web = { \"web-1\", data = { f = print } }",
        "web = { \"web-1\", nil, \"web-3\" }",
        "web = { \"web-1\", 5 }",
        "settings = { http_port = 80 }",
        "all = { \"web-1\" }",
        "a = { \"x\" }\nb = { a, \"y\" }\ntable.insert(a, b)",
        "web = { \"web-1\" }\nif host.name then end",
        "web = { \"web-[0-9999999]\" }",
        "web = { web_list }",
        "web = { \"web-1\" \"web-2\" }",
        "local_command { \"false\" }",
        "local function f() web = { \"x\" } end\nf()",
        "apt.packages {}",
        "rolling(function() end)",
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn names_in_bodies_of_call() {
    let text = deploys(&[
        "call(function()\n  if host.name == 'nobody' then apt.pakages { packages = 'nginx' } end\nend)",
        "call(function() apt.packages { pakages = 'nginx', sudo = true } end)",
        "call(function() apt.packages({}, { _suod = true }) end)",
        "local function body() server.hostname {} end call('named', {}, function() body() end)\ncall(body)",
        "call(function() return host:fact('server.hostnmae') end)",
        "call(function() with({}, function() host:fact(\"apt.packages\") end) end)",
    ])
    .await;
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn what_only_looks_like_a_name_in_a_body_is_let_be() {
    for text in [
        "call(function() apt.packages { name = 'x', packages = 'nginx', _sudo = true, _if = function() return true end, _on = '@local' } end)",
        "call(function() local apt = { pakages = function() end } apt.pakages { x = 1 } end)",
        "call(function() local host = { fact = function() end } host:fact('no.such') end)",
        "call(function(apt) apt.pakages {} end)",
        "local name = 'server.hostname' call(function() host:fact(name) host:fact('server.hostname') end)",
    ] {
        assert!(wrong_with(&[("deploy.lua", text)]).await.starts_with("nothing is wrong"), "{text}");
    }
}
