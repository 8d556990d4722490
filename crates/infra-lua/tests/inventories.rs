//! Inventories that are right: hosts, groups and data.
#![allow(missing_docs)]

mod bench;

use std::path::Path;

use bench::world;
use infra_core::inventory::Inventory;
use infra_core::{Map, Value};
use infra_lua::load_inventory;
use serde_json::json;

async fn read(files: &[(&str, &str)], overrides: Value) -> Inventory {
    let Value::Object(overrides) = overrides else { panic!("a map") };
    load_inventory(Path::new("inventory.lua"), world(files), overrides).await.unwrap_or_else(|wrong| panic!("{}", bench::shown(&wrong)))
}

fn names(inventory: &Inventory) -> Vec<&str> {
    inventory.hosts.iter().map(|host| host.name.as_str()).collect()
}

#[tokio::test]
async fn groups_stand_in_the_order_of_the_file() {
    let inventory = read(
        &[
            (
                "inventory.lua",
                r#"
local domain = ".example.com"
_hidden = { "hidden" }
zone = "eu"
staging = {}
web_servers = {
  "web-[01-03]" .. domain,
  { "web-04", ssh_port = 2222, role = "canary" },
  data = { http_port = 80 },
}
db_servers = { { "root@10.0.0.7:22", ssh_user = "admin", _sudo = true } }
staging = { web_servers, "@local", { "extra-1", "extra-2", data = { extra = true } } }
local computed = {}
for i = 1, 2 do computed[i] = "c" .. i end
computed_hosts = computed
from_json = json.decode(read_file("hosts.json"))
from_command = local_command { "echo", "said" }:split(" ")
"#,
            ),
            ("hosts.json", r#"["j1", "web-04"]"#),
        ],
        json!({}),
    )
    .await;
    assert_eq!(
        names(&inventory),
        [
            "web-01.example.com",
            "web-02.example.com",
            "web-03.example.com",
            "web-04",
            "@local",
            "extra-1",
            "extra-2",
            "root@10.0.0.7:22",
            "c1",
            "c2",
            "j1",
            "said"
        ]
    );
    let groups: Vec<&str> = inventory.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, ["staging", "web_servers", "db_servers", "computed_hosts", "from_json", "from_command"]);
    let canary = inventory.host("web-04").expect("a host");
    assert_eq!(canary.groups, ["staging", "web_servers", "from_json"]);
    assert_eq!(Value::Object(canary.data.clone()), json!({ "http_port": 80, "role": "canary", "ssh_port": 2222 }));
    let database = inventory.host("root@10.0.0.7:22").expect("a host");
    assert_eq!(
        (database.address.as_str(), database.text("ssh_user"), database.get("ssh_port")),
        ("10.0.0.7", Some("admin"), Some(&json!(22)))
    );
    assert_eq!(inventory.host("extra-1").expect("a host").get("extra"), Some(&json!(true)));
}

#[tokio::test]
async fn data_files_stand_over_the_inventory_and_under_the_command_line() {
    let files = [
        ("inventory.lua", "web = { { \"a\", own = 1 }, \"b\", data = { port = 1, group = 1, own = 0 } }"),
        ("group_data/all.lua", "return { everyone = true, port = 0, over = 0 }"),
        ("group_data/web.lua", "local port = 1 + 1\nreturn { port = port }"),
        ("group_data/other.lua", "return { nothing = 1 }"),
        ("group_data/notes.txt", "no Lua"),
    ];
    let inventory = read(&files, json!({ "over": 9, "ssh_user": "me" })).await;
    let wanted = json!({ "everyone": true, "port": 2, "over": 9, "group": 1, "own": 1, "ssh_user": "me" });
    assert_eq!(Value::Object(inventory.hosts[0].data.clone()), wanted);
    assert_eq!(inventory.hosts[1].get("own"), Some(&json!(0)));
    assert!(inventory.from_file && !inventory.data_keys.contains("nothing"));
}

#[tokio::test]
async fn data_files_that_are_wrong_are_named() {
    let wrong = async |text: &str| {
        let files = [("inventory.lua", "web = { \"a\" }"), ("group_data/web.lua", text)];
        let wrong = load_inventory(Path::new("inventory.lua"), world(&files), Map::new()).await.expect_err("a mistake");
        bench::shown(&wrong)
    };
    assert_eq!(
        wrong("x = 1").await,
        "misuse: group_data/web.lua: the file gives back nil, not a table of data\n  hint: a file of data ends with return { key = value, … }"
    );
    assert_eq!(wrong("return {\n  port = nope,\n}").await, "misuse: group_data/web.lua:2: there is no global `nope`\n  | port = nope,");
    assert_eq!(
        wrong("return { 1, a = 2 }").await,
        "misuse: group_data/web.lua: `data` is both a list and a table of names (it has `a` beside 1 items)\n  \
         hint: a file of data ends with return { key = value, … }"
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let wrong = load_inventory(Path::new("nothing.lua"), world(&[]), Map::new()).await.expect_err("a mistake");
    assert_eq!(bench::shown(&wrong), "misuse: the file `/deploy/nothing.lua` cannot be read: no such file");
}

#[tokio::test]
async fn a_hundred_thousand_hosts_are_read() {
    let text = r#"
local list = {}
for i = 1, 50000 do list[i] = { string.format("host-%05d", i), rack = i // 40 } end
computed = list
ranged = { "node-[00001-50000]", data = { ranged = true } }
"#;
    let inventory = read(&[("inventory.lua", text)], json!({ "k": 1 })).await;
    assert_eq!(inventory.hosts.len(), 100_000);
    assert_eq!(inventory.hosts[39].get("rack"), Some(&json!(1)));
    assert_eq!(inventory.hosts[99_999].name, "node-50000");
}
