//! The hosts of an inventory: names, groups and data.

use infra_core::global_arguments::is_hidden;
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::{Map, Value};
use serde_json::json;

use crate::text::one_line;

/// The selected hosts as text, a line each: name, groups, data as `key=value` with values as JSON. It ends with a newline.
///
/// # Panics
/// When an id is of another inventory.
pub fn render_hosts(inventory: &Inventory, hosts: &[HostId]) -> String {
    let rows: Vec<[String; 3]> = hosts
        .iter()
        .map(|id| {
            let host = inventory.by_id(*id);
            let groups = if host.groups.is_empty() { "-".to_owned() } else { host.groups.join(",") };
            let data: Vec<_> = shown(&host.data).iter().map(|(key, value)| format!("{key}={value}")).collect();
            [one_line(&host.name), one_line(&groups), one_line(&data.join(" "))]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| console::measure_text_width(&row[column])).max().unwrap_or_default();
    let widths = [width(0), width(1)];
    let line = |row: &[String; 3]| {
        let padded = |column: usize| console::pad_str(&row[column], widths[column], console::Alignment::Left, None).into_owned();
        format!("{}  {}  {}", padded(0), padded(1), row[2]).trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The selected hosts as one JSON document, hosts by name: `{ "web-01": { "groups": [...], "data": {...} } }`. It ends with a newline.
///
/// # Panics
/// When an id is of another inventory.
pub fn hosts_document(inventory: &Inventory, hosts: &[HostId]) -> String {
    let hosts: Map = hosts
        .iter()
        .map(|id| {
            let host = inventory.by_id(*id);
            (host.name.clone(), json!({ "connector": host.connector, "groups": host.groups, "data": shown(&host.data) }))
        })
        .collect();
    serde_json::to_string_pretty(&Value::Object(hosts)).expect("a value is JSON") + "\n"
}

/// Data without the values that are shown nowhere.
fn shown(data: &Map) -> Map {
    let one = |(key, value): (&String, &Value)| (key.clone(), if is_hidden(key) { json!("(hidden)") } else { value.clone() });
    data.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use infra_core::host::{Connector, Host};
    use insta::assert_snapshot;

    use super::*;

    fn inventory() -> Inventory {
        let host = |id: u32, name: &str, groups: &[&str], data: Value| Host {
            id: HostId(id),
            name: name.into(),
            connector: if name == "@local" { Connector::Local } else { Connector::Ssh },
            address: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            data: data.as_object().cloned().unwrap_or_default(),
        };
        let hosts = vec![
            host(0, "web-01.example.com", &["web_servers", "staging"], json!({ "role": "canary\n", "ports": [80, 443] })),
            host(1, "@local", &[], json!({})),
            host(2, "db", &["db_servers"], json!({ "_sudo": true, "_sudo_password": "canary" })),
        ];
        Inventory { hosts: hosts.into_iter().map(Arc::new).collect(), ..Inventory::default() }
    }

    #[test]
    fn hosts_are_lines() {
        assert_snapshot!(render_hosts(&inventory(), &[HostId(0), HostId(1), HostId(2)]), @r#"
        web-01.example.com  web_servers,staging  role="canary\n" ports=[80,443]
        @local              -
        db                  db_servers           _sudo=true _sudo_password="(hidden)"
        "#);
        assert_eq!(render_hosts(&inventory(), &[]), "");
    }

    #[test]
    fn hosts_are_json_by_name() {
        assert_snapshot!(hosts_document(&inventory(), &[HostId(1), HostId(2)]), @r#"
        {
          "@local": {
            "connector": "local",
            "groups": [],
            "data": {}
          },
          "db": {
            "connector": "ssh",
            "groups": [
              "db_servers"
            ],
            "data": {
              "_sudo": true,
              "_sudo_password": "(hidden)"
            }
          }
        }
        "#);
    }
}
