//! Secrets as scripts have them: where they come from, what keeps the type, and what refuses them.
#![allow(missing_docs)]

mod bench;

use bench::{load, run, run_script, wrong_with};
use infra_lua::Question;
use serde_json::json;

/// The commands that a deploy gives to its one operation.
async fn commands(deploy: &str) -> serde_json::Value {
    let ran = run(&[("deploy.lua", deploy), ("key.txt", "canary-of-file\n"), ("t.j2", "<{{ p }}>")]).await.expect("a deploy");
    assert_eq!(ran.failed, None);
    ran.calls[0].arguments["commands"].clone()
}

#[tokio::test]
async fn they_come_from_four_places_and_from_texts() {
    let deploy = r#"
local all = {
  secret.env("TOKEN"), secret.file("key.txt"), secret.command { "echo", "canary-of", "command" }, secret("canary-of-text"), secret(1234567),
}
assert(secret(all[1]) == all[1] and all[1] == secret("canary-of-env") and all[1] ~= all[2])
server.shell { commands = all }
"#;
    let wanted = json!(["canary-of-env", "canary-of-file", "canary-of command", "canary-of-text", "1234567"]);
    assert_eq!(commands(deploy).await, wanted);
}

#[tokio::test]
async fn what_is_made_of_one_is_one() {
    let deploy = r#"
local s = secret("hunter2-and-more")
local made = {
  "a " .. s, s .. 1, s .. s, string.format("%d %s", 5, s), ("%s"):format(s), table.concat({ "x", s }, ","), sh("login {}", s), quote(s .. " x"),
  render("<{{ p }}>", { p = s }), render("t.j2", { p = s }), render("{{ p | upper }}", { p = s }), json.encode { p = { s } }, secret(s),
}
for _, one in ipairs(made) do
  assert(type(one) == "userdata")
  local fine, message = pcall(string.upper, one)
  assert(not fine and message:find("got secret", 1, true), message)
end
assert(type(render("{{ p }}", { p = "plain" })) == "string" and type(table.concat { "a", "b" }) == "string")
server.shell { commands = made }
"#;
    let s = "hunter2-and-more";
    let wanted = json!([
        format!("a {s}"),
        format!("{s}1"),
        format!("{s}{s}"),
        format!("5 {s}"),
        s,
        format!("x,{s}"),
        format!("login {s}"),
        format!("'{s} x'"),
        format!("<{s}>"),
        format!("<{s}>"),
        "HUNTER2-AND-MORE",
        format!("{{\"p\":[\"{s}\"]}}"),
        s
    ]);
    assert_eq!(commands(deploy).await, wanted);
}

#[tokio::test]
async fn the_type_outlives_data_and_once() {
    let deploy = r#"
host.data.token = "Bearer " .. secret("hunter2-and-more")
local kept = once(function() return { token = secret("another-canary"), plain = "x" } end)
assert(type(host.data.token) == "userdata" and type(host:get("token")) == "userdata")
assert(type(kept.token) == "userdata" and type(kept.plain) == "string")
for key, value in pairs(host.data) do assert(key ~= "token" or type(value) == "userdata") end
print("it is", host.data.token, { token = host.data.token })
host:log(host.data.token)
server.shell { commands = { host.data.token, kept.token } }
"#;
    let (world, inventory, deploy) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
    for host in 0..2 {
        let ran = run_script(&deploy, &inventory, host).await;
        assert_eq!(ran.failed, None);
        assert_eq!(ran.calls[0].arguments["commands"], json!(["Bearer hunter2-and-more", "another-canary"]));
    }
    let log = world.log.lock().expect("a lock").join("\n");
    assert!(log.contains(r#"it is	***	{"token":"Bearer ***"}"#) && log.contains(": ***") && !log.contains("hunter2"), "{log}");
}

#[tokio::test]
async fn the_person_is_asked_once_for_all_hosts() {
    let deploy = r#"
local password, version = secret.prompt("Vault password"), ask("Which version?", "1.2")
assert(secret.prompt("Vault password") == password)
server.shell { commands = { password, version } }
"#;
    let (world, inventory, deploy) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
    *world.typed.lock().expect("a lock") = Some("typed-by-hand".to_owned());
    for host in 0..2 {
        let ran = run_script(&deploy, &inventory, host).await;
        assert_eq!(ran.calls[0].arguments["commands"], json!(["typed-by-hand", "typed-by-hand"]));
    }
    let asked = |text: &str, hidden| Question { text: text.to_owned(), hidden };
    assert_eq!(*world.asked.lock().expect("a lock"), [asked("Vault password", true), asked("Which version?", false)]);
}

#[tokio::test]
async fn where_nobody_is_the_default_is_taken() {
    let ran = run(&[("deploy.lua", "server.shell { commands = ask('Which version?', '1.2') }")]).await.expect("a deploy");
    assert_eq!(ran.calls[0].arguments["commands"], json!(["1.2"]));
}

#[tokio::test]
async fn an_environment_and_an_input_take_one_and_words_of_commands_do_not() {
    let deploy = r#"
local s = secret("hunter2-and-more")
local_command { "echo", "x", stdin = s, env = { TOKEN = s } }
"#;
    let (world, inventory, deploy) = load(&[("deploy.lua", deploy)]).await.expect("a deploy");
    assert_eq!(run_script(&deploy, &inventory, 0).await.failed, None);
    let ran = world.ran.lock().expect("a lock");
    assert_eq!((ran[0].stdin.as_deref(), ran[0].env["TOKEN"].as_str()), (Some(&b"hunter2-and-more"[..]), "hunter2-and-more"));
}

#[tokio::test]
async fn mistakes_say_what_may_be_done() {
    let mut text = String::new();
    for line in [
        r#"local x = tostring(secret("hunter2-and-more"))"#,
        r#"local x = #secret("hunter2-and-more")"#,
        r#"local x = secret("hunter2-and-more"):upper()"#,
        r#"local x = string.upper(secret("hunter2-and-more"))"#,
        r#"local x = dedent(secret("hunter2-and-more"))"#,
        r#"local x = ("%.3s"):format(secret("hunter2-and-more"))"#,
        r#"local x = secret("a") .. {}"#,
        r#"local x = secret("hunter2-and-more") .. {}"#,
        r#"local x = secret("hunter2-and-more") < secret("hunter3-and-more")"#,
        r#"local x = secret.env("SHORT")"#,
        r#"local x = secret.env("NOTHING")"#,
        r#"local x = secret.file("nothing.txt")"#,
        r#"local x = secret.command { "false" }"#,
        r#"local x = secret.prompt("Vault password")"#,
        r#"local x = secret.prompt()"#,
        r#"local x = ask("Which version?")"#,
        r#"local x = secret(nil)"#,
        r#"local x = secret.vault("x")"#,
        r#"local_command { "login", secret("hunter2-and-more") }"#,
        r#"server.shell { name = secret("hunter2-and-more"), commands = "true" }"#,
    ] {
        text.push_str(&format!("{line}\n{}\n", wrong_with(&[("deploy.lua", line)]).await));
    }
    insta::assert_snapshot!(text);
}
