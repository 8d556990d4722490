//! From lists of hosts with data to an [`Inventory`]: ranges expanded, hosts of several groups made one, data merged.
//!
//! Data of a host, the first match wins: overrides of the command line, the host's own, its groups' (the later group wins; within a group
//! what its `group_data` file says), all hosts'. The time taken is linear in the hosts, their data and their memberships.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::address::{Address, AddressError};
use crate::diagnostic::{Diagnostic, Location};
use crate::host::{Host, HostId};
use crate::inventory::{Group, Inventory};
use crate::nodeset::{self, LIMIT};
use crate::{Map, Value};

/// A host, or a range of them, as it stands in a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEntry {
    /// Its spelling; ranges are expanded.
    pub name: String,
    /// Its own data.
    pub data: Map,
    /// Where it is written, where that is known.
    pub location: Option<Location>,
}

/// What stands in a group.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// A host, or a range of them.
    Host(HostEntry),
    /// Another group: its place in [`InventoryBuilder::groups`].
    Group(usize),
}

/// A list of hosts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupEntry {
    /// Its name; none for a list that is only part of other groups, or the hosts named on a command line.
    pub name: Option<String>,
    /// What stands in it.
    pub members: Vec<Member>,
    /// The data that stands with it.
    pub data: Map,
    /// The data of its `group_data` file.
    pub file_data: Map,
    /// Where it is written, where that is known.
    pub location: Option<Location>,
}

/// Everything an inventory is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InventoryBuilder {
    /// The groups, in their order.
    pub groups: Vec<GroupEntry>,
    /// Data of all hosts.
    pub all_data: Map,
    /// Data from the command line, over everything else.
    pub overrides: Map,
    /// Whether it was read from a file, so that a group it does not name is a mistake.
    pub from_file: bool,
}

impl GroupEntry {
    /// A list of hosts without names or data of its own, as a command line gives it.
    pub fn of_hosts<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let entry = |name: S| Member::Host(HostEntry { name: name.as_ref().to_owned(), ..HostEntry::default() });
        Self { members: names.into_iter().map(entry).collect(), ..Self::default() }
    }
}

struct Found {
    address: Address,
    own: Map,
    groups: Vec<usize>,
}

struct Hosts {
    found: Vec<Found>,
    places: HashMap<String, usize>,
}

impl InventoryBuilder {
    /// The inventory.
    ///
    /// # Errors
    /// A [`Diagnostic`] (misuse), with the place where it is known: a wrong spelling, a host twice in one list, two groups of one name,
    /// groups that hold each other, more than a million hosts.
    pub fn build(self) -> Result<Inventory, Box<Diagnostic>> {
        let Self { groups, all_data, overrides, from_file } = self;
        check_names(&groups)?;
        let mut hosts = Hosts { found: Vec::new(), places: HashMap::new() };
        let own: Vec<Vec<Own>> = groups.iter().map(|group| collect_own(group, &mut hosts)).collect::<Result<_, _>>()?;
        let members = expand_groups(&groups, &own)?;
        for (at, places) in members.iter().enumerate() {
            for place in places {
                hosts.found[*place].groups.push(at);
            }
        }
        // Hosts stand in the order of their first appearance, with groups read where they are named.
        let mut order: Vec<usize> = Vec::with_capacity(hosts.found.len());
        let mut seen = vec![false; hosts.found.len()];
        for place in members.iter().flatten() {
            if !std::mem::replace(&mut seen[*place], true) {
                order.push(*place);
            }
        }
        let mut ids = vec![HostId(0); hosts.found.len()];
        for (id, place) in order.iter().enumerate() {
            ids[*place] = HostId(u32::try_from(id).expect("there are at most a million hosts"));
        }

        let mut data_keys: BTreeSet<String> = BTreeSet::new();
        let mut note = |map: &Map| {
            for key in map.keys() {
                if !data_keys.contains(key) {
                    data_keys.insert(key.clone());
                }
            }
        };
        [&all_data, &overrides].into_iter().for_each(&mut note);
        groups.iter().flat_map(|group| [&group.data, &group.file_data]).for_each(&mut note);

        let mut found: Vec<Option<Found>> = hosts.found.into_iter().map(Some).collect();
        let mut list = Vec::with_capacity(order.len());
        for place in &order {
            let Found { address, own, groups: of } = found[*place].take().expect("each host has one place");
            note(&own);
            let mut data = all_data.clone();
            for at in &of {
                data.extend(groups[*at].data.clone());
                data.extend(groups[*at].file_data.clone());
            }
            if let Some(user) = &address.user {
                data.insert("ssh_user".to_owned(), Value::String(user.clone()));
            }
            if let Some(port) = address.port {
                data.insert("ssh_port".to_owned(), Value::from(port));
            }
            data.extend(own);
            data.extend(overrides.clone());
            list.push(Arc::new(Host {
                id: ids[*place],
                name: address.name,
                connector: address.connector,
                address: address.address,
                groups: of.iter().filter_map(|at| groups[*at].name.clone()).collect(),
                data,
            }));
        }
        let in_order = |places: Vec<usize>| {
            let mut hosts: Vec<HostId> = places.into_iter().map(|place| ids[place]).collect();
            hosts.sort_unstable();
            hosts
        };
        let named = groups.into_iter().zip(members).filter_map(|(group, places)| group.name.map(|name| (name, places)));
        let groups = named.map(|(name, places)| Group { name, hosts: in_order(places) }).collect();
        Ok(Inventory { hosts: list, groups, from_file, data_keys })
    }
}

fn at(diagnostic: Diagnostic, location: Option<&Location>) -> Diagnostic {
    Diagnostic { location: location.cloned(), ..diagnostic }
}

fn check_names(groups: &[GroupEntry]) -> Result<(), Box<Diagnostic>> {
    let mut names = HashSet::new();
    for group in groups {
        let Some(name) = &group.name else { continue };
        if name == "all" {
            let message = "a group cannot be called `all`: that is every host";
            return Err(Box::new(
                at(Diagnostic::misuse(message), group.location.as_ref()).hint("data for all hosts stands in group_data/all.lua"),
            ));
        }
        if !names.insert(name) {
            return Err(Box::new(at(Diagnostic::misuse(format!("there are two groups called `{name}`")), group.location.as_ref())));
        }
    }
    Ok(())
}

/// What stands in a group itself, ranges expanded.
enum Own {
    Host(usize),
    Group(usize),
}

fn collect_own(group: &GroupEntry, hosts: &mut Hosts) -> Result<Vec<Own>, Box<Diagnostic>> {
    let mut own = Vec::with_capacity(group.members.len());
    let mut here = HashMap::new();
    for member in &group.members {
        let entry = match member {
            Member::Group(other) => {
                own.push(Own::Group(*other));
                continue;
            }
            Member::Host(entry) => entry,
        };
        let location = entry.location.as_ref().or(group.location.as_ref());
        let names = nodeset::expand(&entry.name).map_err(|error| at(Diagnostic::misuse(error.to_string()), location))?;
        for name in names {
            let place = match hosts.places.get(&name) {
                Some(place) => *place,
                None => {
                    let address = Address::parse(&name)
                        .map_err(|AddressError { message, hint }| at(Diagnostic::misuse(message), location).maybe_hint(hint))?;
                    if hosts.found.len() as u64 >= LIMIT {
                        return Err(Box::new(at(Diagnostic::misuse(format!("the inventory has more than {LIMIT} hosts")), location)));
                    }
                    hosts.places.insert(name.clone(), hosts.found.len());
                    hosts.found.push(Found { address, own: Map::new(), groups: Vec::new() });
                    hosts.found.len() - 1
                }
            };
            if let Some(first) = here.insert(place, location) {
                let list = group.name.as_ref().map_or_else(|| "the list".to_owned(), |group| format!("the group `{group}`"));
                let error = at(Diagnostic::misuse(format!("the host `{name}` stands twice in {list}")), location);
                let elsewhere = first.filter(|first| Some(*first) != location && first.line > 0);
                return Err(Box::new(error.maybe_hint(elsewhere.map(|first| format!("the first one is at {first}")))));
            }
            hosts.found[place].own.extend(entry.data.clone());
            own.push(Own::Host(place));
        }
    }
    Ok(own)
}

/// The hosts of each group with those of the groups in it, each once, in the order in which they are named.
fn expand_groups(groups: &[GroupEntry], own: &[Vec<Own>]) -> Result<Vec<Vec<usize>>, Box<Diagnostic>> {
    let mut done: Vec<Option<Vec<usize>>> = vec![None; groups.len()];
    for start in 0..groups.len() {
        // Depth first with a stack of its own, so that no depth of nesting overflows the program's.
        let mut open = vec![(start, 0)];
        let mut on_path = HashSet::from([start]);
        while let Some((at_group, next)) = open.last_mut() {
            let at_group = *at_group;
            if done[at_group].is_some() {
                open.pop();
                on_path.remove(&at_group);
                continue;
            }
            let waiting = own[at_group].iter().enumerate().skip(*next).find_map(|(place, member)| match member {
                Own::Group(other) if done[*other].is_none() => Some((place, *other)),
                _ => None,
            });
            if let Some((place, other)) = waiting {
                *next = place;
                if on_path.contains(&other) {
                    let name = |place: usize| groups[place].name.as_deref().unwrap_or("a list without a name");
                    let message = format!("the groups `{}` and `{}` hold each other", name(other), name(at_group));
                    return Err(Box::new(at(Diagnostic::misuse(message), groups[at_group].location.as_ref())));
                }
                on_path.insert(other);
                open.push((other, 0));
                continue;
            }
            let mut seen = HashSet::new();
            let mut hosts = Vec::new();
            for member in &own[at_group] {
                match member {
                    Own::Host(place) => {
                        if seen.insert(*place) {
                            hosts.push(*place);
                        }
                    }
                    Own::Group(other) => {
                        let inner = done[*other].as_ref().expect("inner groups are done first");
                        hosts.extend(inner.iter().filter(|place| seen.insert(**place)));
                    }
                }
            }
            done[at_group] = Some(hosts);
        }
    }
    Ok(done.into_iter().map(|hosts| hosts.expect("every group was started")).collect())
}

/// The inventory of hosts named on a command line: a list separated by commas, with ranges.
///
/// # Errors
/// As [`InventoryBuilder::build`].
pub fn from_host_list(list: &str, overrides: Map) -> Result<Inventory, Box<Diagnostic>> {
    let group = GroupEntry::of_hosts(nodeset::split_list(list));
    InventoryBuilder { groups: vec![group], overrides, ..InventoryBuilder::default() }.build()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map {
        let Value::Object(map) = value else { panic!("a map") };
        map
    }

    fn host(name: &str, data: Value, line: u32) -> Member {
        let location = Some(Location { file: "inventory.lua".to_owned(), line });
        Member::Host(HostEntry { name: name.to_owned(), data: map(data), location })
    }

    fn group(name: &str, members: Vec<Member>, data: Value) -> GroupEntry {
        GroupEntry { name: Some(name.to_owned()), members, data: map(data), ..GroupEntry::default() }
    }

    #[test]
    fn the_first_match_of_the_data_wins() {
        let key = |at: usize, value: &str| -> Value {
            let keys = ["override", "own", "later_file", "later", "earlier_file", "earlier", "all"];
            keys[..=at].iter().map(|key| ((*key).to_owned(), json!(value))).collect::<Map>().into()
        };
        let mut web = group("web", vec![host("admin@web-1:2222", json!({}), 1), host("db", json!({}), 2)], key(5, "earlier"));
        web.file_data = map(key(4, "earlier_file"));
        let mut late = group("late", vec![host("admin@web-1:2222", key(1, "own"), 3)], key(3, "later"));
        late.file_data = map(key(2, "later_file"));
        let builder =
            InventoryBuilder { groups: vec![web, late], all_data: map(key(6, "all")), overrides: map(key(0, "override")), from_file: true };
        let inventory = builder.build().expect("an inventory");
        let first = &inventory.hosts[0];
        for (key, value) in &first.data {
            if !key.starts_with("ssh_") {
                assert_eq!(key, value.as_str().expect("a text"));
            }
        }
        assert_eq!((first.get("ssh_user"), first.get("ssh_port")), (Some(&json!("admin")), Some(&json!(2222))));
        assert_eq!(first.groups, ["web", "late"]);
        assert_eq!(inventory.hosts[1].text("later"), Some("earlier_file"));
        assert!(inventory.data_keys.contains("later_file") && inventory.from_file);
    }

    #[test]
    fn groups_hold_groups_and_hosts_keep_their_first_place() {
        let staging = group("staging", vec![Member::Group(1), host("@local", json!({}), 1)], json!({ "stage": true }));
        let web = group("web", vec![host("web-[1-2]", json!({}), 2)], json!({}));
        let inventory = InventoryBuilder { groups: vec![staging, web], ..InventoryBuilder::default() }.build().expect("an inventory");
        let names: Vec<&str> = inventory.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["web-1", "web-2", "@local"]);
        assert_eq!(inventory.hosts[0].groups, ["staging", "web"]);
        assert_eq!(inventory.hosts[0].get("stage"), Some(&json!(true)));
        assert_eq!(inventory.group("web").expect("a group").hosts, [HostId(0), HostId(1)]);
        assert!(inventory.hosts.iter().enumerate().all(|(at, host)| host.id.index() == at));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = |groups: Vec<GroupEntry>| {
            let error = InventoryBuilder { groups, ..InventoryBuilder::default() }.build().expect_err("a mistake");
            format!("{error}{}", error.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default())
        };
        let twice = group("web", vec![host("web-[1-3]", json!({}), 2), host("web-2", json!({}), 3)], json!({}));
        let wanted = "inventory.lua:3: the host `web-2` stands twice in the group `web` | the first one is at inventory.lua:2";
        assert_eq!(error(vec![twice]), wanted);
        let cycle = vec![group("a", vec![Member::Group(1)], json!({})), group("b", vec![Member::Group(0)], json!({}))];
        assert_eq!(error(cycle), "the groups `a` and `b` hold each other");
        assert_eq!(error(vec![group("a", vec![Member::Group(0)], json!({}))]), "the groups `a` and `a` hold each other");
        assert_eq!(
            error(vec![group("a", vec![host("@lcoal", json!({}), 7)], json!({}))]),
            "inventory.lua:7: there is no connector `@lcoal` | did you mean `local`?"
        );
    }

    #[test]
    fn a_list_of_the_command_line_is_an_inventory() {
        let inventory = from_host_list("web-[01-02],root@[::1]:22,@local", map(json!({ "k": 1 }))).expect("an inventory");
        let names: Vec<&str> = inventory.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["web-01", "web-02", "root@[::1]:22", "@local"]);
        assert!(inventory.groups.is_empty() && !inventory.from_file);
        assert_eq!(from_host_list("a,a", Map::new()).expect_err("twice").message, "the host `a` stands twice in the list");
    }

    #[test]
    fn a_hundred_thousand_hosts_in_two_groups() {
        let wide = |name: &str| group(name, vec![host("n[000000-099999]", json!({}), 1)], json!({ name: true }));
        let inventory = InventoryBuilder { groups: vec![wide("a"), wide("b")], ..InventoryBuilder::default() }.build().expect("hosts");
        assert_eq!(inventory.hosts.len(), 100_000);
        assert_eq!(inventory.hosts[99_999].groups, ["a", "b"]);
    }
}
