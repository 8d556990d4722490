//! The operation `server.group`.

use std::collections::BTreeMap;

use infra_core::change::Change;
use infra_core::command::Shell;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::accounts::{check_name, missing_tool};
use crate::facts::server::groups::{Group as FoundGroup, Groups};
use crate::facts::server::users::{User, Users};
use crate::facts::server::which::Which;

/// Creates, changes or removes a group.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Group {
    /// The name of the group.
    pub group: String,
    /// Whether it shall be there.
    #[serde(default = "crate::accounts::yes")]
    pub present: bool,
    /// Create it as one of the system's own, with a number from their range. It has no bearing on a group that is there.
    #[serde(default)]
    pub system: bool,
    /// Its number; left to the host where not given.
    pub gid: Option<u32>,
}

impl Operation for Group {
    const NAME: &'static str = "server.group";
    const DOC: &'static str = "Creates a group, gives it the number that is asked for, or removes it.\n\n\
        It changes nothing when the group is there, with the number that was asked for if one was, or not there where `present` is false. When the \
        number of a group changes, files keep the old one. The host needs groupadd(8), groupmod(8) and groupdel(8).";

    fn check(&self) -> Result<(), Misuse> {
        check_name("group", &self.group)
    }

    fn touches(&self) -> Resources {
        let own = (!self.present || self.gid.is_some()).then(|| Resource::group_of(&self.group));
        Resources::only(touched()).and(Resources::only([Resource::nameless_owner()].into_iter().chain(own)))
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let name = &self.group;
        let (mut groups, mut users, tool) = facts.get((&Groups {}, &Users {}, &Which { command: "groupadd".to_owned() }))?;
        // A new number may be that of files which nobody owned.
        let own = groups.contains_key(name).then(|| Resource::group_of(name));
        let renamed = Resources::only([Resource::nameless_owner()].into_iter().filter(|_| self.present).chain(own));
        let change = match (groups.get(name), self.present) {
            (None, false) => return Ok(Change::none(format!("there is no group {name}"))),
            (None, true) => {
                self.free_number(&groups)?;
                let mut words = vec!["groupadd".to_owned()];
                words.extend(self.system.then(|| "-r".to_owned()));
                words.extend(self.gid.iter().flat_map(|gid| ["-g".to_owned(), gid.to_string()]));
                words.extend(["--".to_owned(), name.clone()]);
                groups.insert(name.clone(), FoundGroup { gid: self.gid, members: Vec::new() });
                Change::new("create").run(Shell::argv(words))
            }
            (Some(found), false) => {
                // The numbers are not known of what the plan will make.
                let is_first = |user: &User| user.group == *name || (found.gid.is_some() && user.gid == found.gid);
                if let Some((user, _)) = users.iter().find(|(_, user)| is_first(user)) {
                    return Err(DiffError::refused_with_hint(
                        format!("{name} is the primary group of the user {user}"),
                        "remove the user before, or give it another group: see server.user",
                    ));
                }
                groups.remove(name);
                users.values_mut().for_each(|user| user.groups.retain(|group| group != name));
                Change::new("remove").run(sh!("groupdel -- {}", name))
            }
            (Some(found), true) => {
                let Some(gid) = self.gid.filter(|gid| found.gid != Some(*gid)) else {
                    return Ok(Change::none("already there"));
                };
                self.free_number(&groups)?;
                let old = found.gid.map_or_else(|| "?".to_owned(), |old| old.to_string());
                // groupmod(8) takes along the users whose primary group it is.
                users.values_mut().filter(|user| user.group == *name).for_each(|user| user.gid = Some(gid));
                groups.entry(name.clone()).and_modify(|group| group.gid = Some(gid));
                Change::new(format!("number {old} → {gid}")).run(sh!("groupmod -g {} -- {}", gid, name))
            }
        };
        if tool.is_none() {
            return Err(missing_tool("groupadd"));
        }
        // The users are as they were: without saying so, an operation on a user after this one would depend on it.
        Ok(change.answer(&Groups {}, &groups).answer(&Users {}, &users).touching(Resources::only(touched()).and(renamed)))
    }

    fn examples() -> Vec<Example> {
        let group = |gid: u32| FoundGroup { gid: Some(gid), members: Vec::new() };
        let found = || BTreeMap::from([("root".to_owned(), group(0)), ("deploy".to_owned(), group(1000))]);
        let users = || {
            let root = User { uid: Some(0), gid: Some(0), group: "root".to_owned(), ..User::default() };
            BTreeMap::from([("root".to_owned(), root)])
        };
        let tool = || Which { command: "groupadd".to_owned() };
        let example = |title, args| {
            let example = Example::new(title, args).fact(&Groups {}, found()).fact(&Users {}, users());
            example.fact(&tool(), Some("/usr/sbin/groupadd".to_owned()))
        };
        vec![
            example("Create a group", json!({ "group": "app", "system": true, "gid": 600 })).steps(["groupadd -r -g 600 -- app"]),
            example("It is there already", json!({ "group": "deploy", "gid": 1000 })).nothing("already there"),
            example("Another number", json!({ "group": "deploy", "gid": 1500 })).steps(["groupmod -g 1500 -- deploy"]),
            example("A number that is taken", json!({ "group": "app", "gid": 1000 }))
                .refused("the number 1000 is that of the group deploy"),
            example("Remove it", json!({ "group": "deploy", "present": false })).steps(["groupdel -- deploy"]),
            example("The group that a user has first", json!({ "group": "root", "present": false }))
                .refused("root is the primary group of the user root"),
            example("It is gone already", json!({ "group": "app", "present": false })).nothing("there is no group app"),
            Example::new("A host that cannot", json!({ "group": "app" }))
                .fact(&Groups {}, found())
                .fact(&Users {}, users())
                .fact(&tool(), None)
                .refused("there is no groupadd"),
        ]
    }
}

impl Group {
    fn free_number(&self, groups: &BTreeMap<String, FoundGroup>) -> Result<(), DiffError> {
        let Some(gid) = self.gid else { return Ok(()) };
        match groups.iter().find(|(name, group)| group.gid == Some(gid) && **name != self.group) {
            Some((other, _)) => Err(DiffError::refused(format!("the number {gid} is that of the group {other}"))),
            None => Ok(()),
        }
    }
}

fn touched() -> [Resource; 5] {
    let files = ["/etc/group", "/etc/gshadow", "/etc/group-", "/etc/gshadow-"].map(|path| Resource::Path(path.to_owned()));
    let [a, b, c, d] = files;
    [Resource::Users, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use infra_core::change::Effect;
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    #[test]
    fn what_becomes_of_the_users_is_foretold() {
        let user = |gid: u32, group: &str, groups: &[&str]| User {
            gid: Some(gid),
            group: group.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        };
        let users = |own: u32, groups: &[&str]| BTreeMap::from([("ann".to_owned(), user(own, "ann", groups))]);
        let group = |gid: u32| FoundGroup { gid: Some(gid), members: Vec::new() };
        let table = MadeUp::new()
            .fact(&Groups {}, BTreeMap::from([("ann".to_owned(), group(1000)), ("adm".to_owned(), group(4))]))
            .fact(&Users {}, users(1000, &["adm"]))
            .fact(&Which { command: "groupadd".to_owned() }, Some("/usr/sbin/groupadd".to_owned()));
        for (args, wanted) in [
            (json!({ "group": "new" }), users(1000, &["adm"])),
            (json!({ "group": "ann", "gid": 1500 }), users(1500, &["adm"])),
            (json!({ "group": "adm", "present": false }), users(1000, &[])),
        ] {
            let wish: Group = serde_json::from_value(args.clone()).expect("arguments");
            let (change, rounds) = diff_fully(&*erase(wish), &table).expect("a change");
            let foretold = change.effects.iter().find_map(|effect| match effect {
                Effect::Answer { fact, answer, .. } if fact == "server.users" => Some(answer.clone()),
                _ => None,
            });
            assert_eq!((foretold, rounds), (Some(json!(wanted)), 1), "{args}");
        }
    }
}
