//! `host` and `inventory` as Lua sees them.

use std::sync::Arc;

use infra_core::diagnostic::did_you_mean;
use infra_core::host::{Host, HostId};
use infra_core::inventory::Inventory;
use infra_core::secret::SECRET_KEYS;
use mlua::{Lua, MultiValue, Table, Value as LuaValue};

use crate::convert::{to_value, type_name};
use crate::evaluation::Evaluation;
use crate::secrets::data_to_lua;

/// Where the methods of `host` and of other hosts are kept in a Lua state.
pub(crate) const HOST_METHODS: &str = "infra.host_methods";
const HOST_META: &str = "infra.host_meta";
const OTHER_HOSTS: &str = "infra.other_hosts";

/// The `host` of this evaluation.
pub(crate) fn host_object(lua: &Lua, evaluation: &Arc<Evaluation>, host: &Arc<Host>) -> mlua::Result<Table> {
    let groups = groups_object(lua, evaluation, host)?;
    let data = own_data(lua, evaluation)?;
    object_of(lua, evaluation, &host.name, groups, data)
}

/// A host: empty itself, so that each assignment is noticed.
fn object_of(lua: &Lua, evaluation: &Arc<Evaluation>, name: &str, groups: Table, data: Table) -> mlua::Result<Table> {
    let shared = host_meta(lua, evaluation)?;
    let fields = lua.create_table()?;
    fields.raw_set("name", name)?;
    fields.raw_set("groups", groups)?;
    fields.raw_set("data", data)?;
    fields.set_metatable(Some(shared.clone()))?;
    let meta = lua.create_table()?;
    meta.raw_set("__index", fields)?;
    meta.raw_set("__newindex", shared.raw_get::<LuaValue>("__newindex")?)?;
    meta.raw_set("__name", "host")?;
    meta.raw_set("__metatable", false)?;
    meta.raw_set(HOST_NAME, name)?;
    let object = lua.create_table()?;
    object.set_metatable(Some(meta))?;
    Ok(object)
}

/// Where the metatable of a host has the host's name.
const HOST_NAME: &str = "infra_host";

/// The name of the host that a value is; none where it is no host.
pub(crate) fn host_name(value: &LuaValue) -> Option<String> {
    let LuaValue::Table(table) = value else { return None };
    table.metatable()?.raw_get::<Option<String>>(HOST_NAME).ok()?
}

fn host_meta(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    if let Some(meta) = lua.named_registry_value::<Option<Table>>(HOST_META)? {
        return Ok(meta);
    }
    let methods: Table = lua.named_registry_value(HOST_METHODS)?;
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let found: LuaValue = methods.raw_get(&key)?;
        if !found.is_nil() {
            return Ok(found);
        }
        let LuaValue::String(key) = &key else { return Err(of.misuse(lua, format!("a host has no [{}]", type_name(&key)))) };
        let key = key.to_string_lossy();
        let known = ["name", "groups", "data", "get", "fact", "facts", "log"];
        let hint = if of.house.inventory.data_keys.contains(&key) {
            Some(format!("did you mean host.data.{key}?"))
        } else {
            did_you_mean(&key, known).or_else(|| Some("a host has name, groups, data, get, fact, facts and log".to_owned()))
        };
        let wrong = infra_core::diagnostic::Diagnostic::misuse(format!("a host has no `{key}`")).maybe_hint(hint);
        Err(of.raise(lua, wrong))
    })?;
    meta.set("__index", index)?;
    let of = evaluation.clone();
    let new_index = lua.create_function(move |lua, (_, key, _): (LuaValue, LuaValue, LuaValue)| -> mlua::Result<()> {
        let key = if let LuaValue::String(key) = &key { key.to_string_lossy() } else { "…".to_owned() };
        Err(of.misuse_with(lua, format!("`host.{key}` cannot be assigned"), format!("data is set with host.data.{key} = …")))
    })?;
    meta.set("__newindex", new_index)?;
    lua.set_named_registry_value(HOST_META, meta.clone())?;
    Ok(meta)
}

/// The groups of a host: a list, and a set by name.
fn groups_object(lua: &Lua, evaluation: &Arc<Evaluation>, host: &Host) -> mlua::Result<Table> {
    let groups = lua.create_table()?;
    for (at, name) in host.groups.iter().enumerate() {
        groups.raw_set(at + 1, name.as_str())?;
    }
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let own: Vec<String> = host.groups.clone();
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        if key == "all" || own.contains(&key) {
            return Ok(LuaValue::Boolean(true));
        }
        let inventory = &of.house.inventory;
        if inventory.from_file && inventory.group(&key).is_none() {
            return Err(unknown_group(lua, &of, &key));
        }
        Ok(LuaValue::Boolean(false))
    })?;
    meta.set("__index", index)?;
    meta.set("__newindex", refuse_assignment(lua, evaluation, "the groups of a host cannot be changed by a deploy")?)?;
    meta.set("__metatable", false)?;
    groups.set_metatable(Some(meta))?;
    Ok(groups)
}

fn refuse_assignment(lua: &Lua, evaluation: &Arc<Evaluation>, message: &'static str) -> mlua::Result<mlua::Function> {
    let of = evaluation.clone();
    lua.create_function(move |lua, _: MultiValue| -> mlua::Result<()> { Err(of.misuse(lua, message)) })
}

fn unknown_group(lua: &Lua, evaluation: &Evaluation, name: &str) -> mlua::Error {
    let inventory = &evaluation.house.inventory;
    let names = inventory.groups.iter().map(|group| group.name.as_str());
    let hint = did_you_mean(name, names.clone()).or_else(|| {
        let all: Vec<&str> = names.take(12).collect();
        (!all.is_empty()).then(|| format!("the groups are {}", all.join(", ")))
    });
    let wrong = infra_core::diagnostic::Diagnostic::misuse(format!("the inventory has no group `{name}`")).maybe_hint(hint);
    evaluation.raise(lua, wrong)
}

fn unknown_key(lua: &Lua, evaluation: &Evaluation, key: &str) -> mlua::Error {
    let keys = evaluation.house.inventory.data_keys.iter().map(String::as_str);
    let hint = did_you_mean(key, keys).unwrap_or_else(|| format!("host:get(\"{key}\", default) gives a default where there is no data"));
    evaluation.misuse_with(lua, format!("no host and no group has the data `{key}`"), hint)
}

/// Data as Lua sees it. Its tables are copies, so that adding to one, which would be lost, is refused.
fn frozen(lua: &Lua, evaluation: &Arc<Evaluation>, key: &str, value: &infra_core::Value) -> mlua::Result<LuaValue> {
    let value = data_to_lua(lua, evaluation, value)?;
    if let LuaValue::Table(table) = &value {
        let of = evaluation.clone();
        let key = key.to_owned();
        let refuse = lua.create_function(move |lua, _: MultiValue| -> mlua::Result<()> {
            let hint = format!("make a new table, and set it with host.data.{key} = …");
            Err(of.misuse_with(lua, format!("the data `{key}` cannot be changed in place"), hint))
        })?;
        let meta = lua.create_table()?;
        meta.raw_set("__newindex", refuse)?;
        freeze(table, &meta)?;
    }
    Ok(value)
}

fn freeze(table: &Table, meta: &Table) -> mlua::Result<()> {
    table.for_each(|_: LuaValue, inner: LuaValue| match inner {
        LuaValue::Table(inner) => freeze(&inner, meta),
        _ => Ok(()),
    })?;
    // An empty map keeps the mark that says so.
    if table.metatable().is_none() { table.set_metatable(Some(meta.clone())) } else { Ok(()) }
}

/// `host.data`: read with its rules, and written for this script alone.
fn own_data(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let data = lua.create_table()?;
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        let set = of.state().data.get(&key).cloned();
        let value = set.or_else(|| of.host.as_ref().and_then(|host| host.data.get(&key).cloned()));
        match value {
            Some(value) => frozen(lua, &of, &key, &value),
            None if of.house.inventory.data_keys.contains(&key) => Ok(LuaValue::Nil),
            None => Err(unknown_key(lua, &of, &key)),
        }
    })?;
    meta.set("__index", index)?;
    let of = evaluation.clone();
    let new_index = lua.create_function(move |lua, (_, key, value): (LuaValue, LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Err(of.misuse(lua, "data has names, such as host.data.role = \"web\"")) };
        let key = key.to_string_lossy();
        let value = to_value(lua, &format!("host.data.{key}"), &value)
            .map_err(|wrong| of.raise(lua, infra_core::diagnostic::Diagnostic::misuse(wrong.message).maybe_hint(wrong.hint)))?;
        if let Some(text) = value.as_str().filter(|_| SECRET_KEYS.contains(&key.as_str())) {
            // What is too short to be found is hidden by its key.
            let _ = of.house.world.secrets().secret(text);
        }
        of.state().data.insert(key, value);
        Ok(())
    })?;
    meta.set("__newindex", new_index)?;
    let of = evaluation.clone();
    let pairs = lua.create_function(move |lua, _: LuaValue| sorted(lua, &of, &infra_core::Value::Object(of.data())))?;
    meta.set("__pairs", pairs)?;
    meta.set("__metatable", false)?;
    data.set_metatable(Some(meta))?;
    Ok(data)
}

/// What `pairs` gives for a value: names in order.
fn sorted(lua: &Lua, evaluation: &Arc<Evaluation>, value: &infra_core::Value) -> mlua::Result<MultiValue> {
    let LuaValue::Table(table) = data_to_lua(lua, evaluation, value)? else { return Ok(MultiValue::new()) };
    let pairs: mlua::Function = lua.named_registry_value(SORTED_PAIRS)?;
    pairs.call(table)
}

/// Where the sorted `pairs` is kept in a Lua state.
pub(crate) const SORTED_PAIRS: &str = "infra.sorted_pairs";

/// Another host: its name, its groups and its data as loaded.
fn other_host(lua: &Lua, evaluation: &Arc<Evaluation>, id: HostId) -> mlua::Result<Table> {
    let known: Table = match lua.named_registry_value::<Option<Table>>(OTHER_HOSTS)? {
        Some(known) => known,
        None => {
            let known = lua.create_table()?;
            lua.set_named_registry_value(OTHER_HOSTS, known.clone())?;
            known
        }
    };
    if let Some(host) = known.raw_get::<Option<Table>>(id.0)? {
        return Ok(host);
    }
    let host = evaluation.house.inventory.by_id(id).clone();
    let data = lua.create_table()?;
    let meta = lua.create_table()?;
    let (of, owner) = (evaluation.clone(), host.clone());
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        match owner.data.get(&key) {
            Some(value) => frozen(lua, &of, &key, value),
            None if of.house.inventory.data_keys.contains(&key) => Ok(LuaValue::Nil),
            None => Err(unknown_key(lua, &of, &key)),
        }
    })?;
    meta.set("__index", index)?;
    meta.set("__newindex", refuse_assignment(lua, evaluation, "the data of another host cannot be set")?)?;
    let (of, owner) = (evaluation.clone(), host.clone());
    let pairs = lua.create_function(move |lua, _: LuaValue| sorted(lua, &of, &infra_core::Value::Object(owner.data.clone())))?;
    meta.set("__pairs", pairs)?;
    meta.set("__metatable", false)?;
    data.set_metatable(Some(meta))?;
    let groups = groups_object(lua, evaluation, &host)?;
    let object = object_of(lua, evaluation, &host.name, groups, data)?;
    known.raw_set(id.0, object.clone())?;
    Ok(object)
}

fn list_of(lua: &Lua, evaluation: &Arc<Evaluation>, hosts: impl Iterator<Item = HostId>) -> mlua::Result<Table> {
    let list = lua.create_table()?;
    for (at, id) in hosts.enumerate() {
        list.raw_set(at + 1, other_host(lua, evaluation, id)?)?;
    }
    Ok(list)
}

fn members(inventory: &Inventory, name: &str) -> Option<Vec<HostId>> {
    if name == "all" {
        return Some(inventory.hosts.iter().map(|host| host.id).collect());
    }
    inventory.group(name).map(|group| group.hosts.clone())
}

/// `inventory`.
pub(crate) fn inventory_object(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let object = lua.create_table()?;
    let of = evaluation.clone();
    let group = lua.create_function(move |lua, (_, name): (LuaValue, LuaValue)| {
        let LuaValue::String(name) = &name else {
            return Err(of.misuse_with(lua, "`inventory:group` takes a name", "write inventory:group(\"web_servers\")"));
        };
        let name = name.to_string_lossy();
        match members(&of.house.inventory, &name) {
            Some(hosts) => list_of(lua, &of, hosts.into_iter()),
            None if of.house.inventory.from_file => Err(unknown_group(lua, &of, &name)),
            // A list of hosts on the command line knows no groups, so that no host is in any.
            None => lua.create_table(),
        }
    })?;
    object.raw_set("group", group)?;
    let of = evaluation.clone();
    let host = lua.create_function(move |lua, (_, name): (LuaValue, LuaValue)| {
        let LuaValue::String(name) = &name else {
            return Err(of.misuse_with(lua, "`inventory:host` takes a name", "write inventory:host(\"web-01\")"));
        };
        let name = name.to_string_lossy();
        match of.house.by_name.get(&name) {
            Some(id) => other_host(lua, &of, *id),
            None => {
                let hint = did_you_mean(&name, of.house.by_name.keys().map(String::as_str));
                let wrong = infra_core::diagnostic::Diagnostic::misuse(format!("the inventory has no host `{name}`")).maybe_hint(hint);
                Err(of.raise(lua, wrong))
            }
        }
    })?;
    object.raw_set("host", host)?;
    let groups = groups_of_inventory(lua, evaluation)?;
    object.raw_set("groups", groups)?;
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let index = lua.create_function(move |lua, (object, key): (Table, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        if key == "hosts" {
            // Made when it is asked for: most scripts never do, and the fleet may be large.
            let list = list_of(lua, &of, of.house.inventory.hosts.iter().map(|host| host.id))?;
            object.raw_set("hosts", list.clone())?;
            return Ok(LuaValue::Table(list));
        }
        let hint = did_you_mean(&key, ["hosts", "groups", "group", "host"])
            .unwrap_or_else(|| "it has hosts, groups, group(name) and host(name)".to_owned());
        Err(of.misuse_with(lua, format!("`inventory` has no `{key}`"), hint))
    })?;
    meta.set("__index", index)?;
    meta.set("__newindex", refuse_assignment(lua, evaluation, "`inventory` cannot be changed by a deploy")?)?;
    meta.set("__metatable", false)?;
    object.set_metatable(Some(meta))?;
    Ok(object)
}

fn groups_of_inventory(lua: &Lua, evaluation: &Arc<Evaluation>) -> mlua::Result<Table> {
    let groups = lua.create_table()?;
    let meta = lua.create_table()?;
    let of = evaluation.clone();
    let index = lua.create_function(move |lua, (_, key): (LuaValue, LuaValue)| {
        let LuaValue::String(key) = &key else { return Ok(LuaValue::Nil) };
        let key = key.to_string_lossy();
        match members(&of.house.inventory, &key) {
            Some(hosts) => Ok(LuaValue::Table(list_of(lua, &of, hosts.into_iter())?)),
            None if of.house.inventory.from_file => Err(unknown_group(lua, &of, &key)),
            None => Ok(LuaValue::Table(lua.create_table()?)),
        }
    })?;
    meta.set("__index", index)?;
    meta.set("__newindex", refuse_assignment(lua, evaluation, "the groups of the inventory cannot be changed by a deploy")?)?;
    let of = evaluation.clone();
    let pairs = lua.create_function(move |lua, _: LuaValue| {
        let all = lua.create_table()?;
        for group in &of.house.inventory.groups {
            all.raw_set(group.name.as_str(), list_of(lua, &of, group.hosts.iter().copied())?)?;
        }
        let pairs: mlua::Function = lua.named_registry_value(SORTED_PAIRS)?;
        pairs.call::<MultiValue>(all)
    })?;
    meta.set("__pairs", pairs)?;
    meta.set("__metatable", false)?;
    groups.set_metatable(Some(meta))?;
    Ok(groups)
}
