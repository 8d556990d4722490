//! The operation `files.directory`.

use infra_core::change::Change;
use infra_core::command::Shell;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::mode::Mode;
use infra_core::node::Node;
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, link_leads_to, normal_path};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::yes;
use crate::facts::files::directory::Directory as DirectoryFact;
use crate::facts::files::tree_drift::{Drift, TreeDrift};
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::with_parents;
use crate::file_status::{Found, Status, tree_root};
use crate::ownership::{Ownership, Permissions, Target, change_mode, mode_digits};
use crate::placement::{Obstacle, check_path, check_removable, may_touch_parents, parent, place};

/// Makes sure that a directory is there, with its owner and mode, or that none is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Directory {
    /// The path of the directory on the host; a link to a directory is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// Whether the directory shall be there.
    #[serde(default = "yes")]
    pub present: bool,
    /// The user who shall own it, and the missing directories on the way to it: a name or a number.
    pub user: Option<String>,
    /// The group that shall own it, and the missing directories on the way to it: a name or a number.
    pub group: Option<String>,
    /// Its mode.
    pub mode: Option<Mode>,
    /// Whether all that it holds shall have this owner, group and mode as well.
    #[serde(default)]
    pub recursive: bool,
    /// Whether to put something that is no directory out of the way.
    #[serde(default)]
    pub force: bool,
    /// Whether to keep what is put out of the way, under its name and the time.
    #[serde(default = "yes")]
    pub force_backup: bool,
    /// The directory on the host to keep it in; beside the path where not given.
    #[schemars(extend("x-host-path" = true))]
    pub force_backup_dir: Option<String>,
}

impl Directory {
    fn ownership(&self) -> Ownership<'_> {
        Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: self.mode.as_ref() }
    }

    fn obstacle(&self) -> Obstacle<'_> {
        Obstacle { force: self.force, backup: self.force_backup, backup_dir: self.force_backup_dir.as_deref() }
    }

    fn remove(&self, facts: &Facts<'_>, path: &str) -> Result<Change, DiffError> {
        // The parent says by which other path the directory is known.
        let (command, reason) = match facts.get((&DirectoryFact::at(path), &parent(path)))?.0 {
            Found::Nothing => return Ok(Change::none("there is no such directory")),
            Found::Is(_) => (sh!("rm -rf -- {}", path), "remove with all it holds"),
            Found::Other => (self.obstacle().clear(path, "a directory")?, "remove what is no directory"),
        };
        let touches = Resources::tree(path).and(self.obstacle().touches(path));
        Ok(Change::new(reason).run(command).node(path, Node::Absent).touching(touches))
    }

    fn create(&self, facts: &Facts<'_>, path: &str, who: &WhoAsks, above: &Found<Status>, is_other: bool) -> Result<Change, DiffError> {
        let place = place(facts, path, who, above, true, &self.ownership())?;
        let mut commands = Vec::new();
        let mut touches = Resources::path(path).and(place.touches());
        if is_other {
            commands.push(self.obstacle().clear(path, "a directory")?);
            touches = touches.and(self.obstacle().touches(path));
        }
        commands.extend(place.commands.iter().cloned());
        let fresh = place.maker.directory();
        let after = match &self.mode {
            None => {
                let settled = self.ownership().settle(path, &fresh, Target::Directory, who.umask);
                commands.push(sh!("mkdir -- {}", path));
                commands.extend(settled.commands);
                settled.after
            }
            Some(mode) => {
                // No one else may enter it before it has its owner and mode.
                let bits = mode.apply(fresh.mode, true, who.umask);
                let settled = self.ownership().without_mode().settle(path, &fresh, Target::Directory, who.umask);
                commands.push(sh!("mkdir -m 700 -- {}", path));
                commands.extend(settled.commands);
                if bits != 0o700 || place.maker.hands_on() {
                    commands.push(change_mode(bits, path, place.maker.hands_on() && bits & 0o2000 == 0));
                }
                Permissions { mode: bits, ..settled.after }
            }
        };
        let change = Change::new(if is_other { "replace what is no directory" } else { "create" }).run(Shell::join(" && ", commands));
        Ok(with_parents(change, &place).node(path, Node::Directory(after.directory_node(true))).touching(touches))
    }

    fn drift_question(&self, path: &str) -> TreeDrift {
        TreeDrift { path: path.to_owned(), user: self.user.clone(), group: self.group.clone(), mode: self.mode.clone() }
    }

    fn settle_tree(&self, path: &str, status: &Status, drift: &Drift, umask: u32) -> Change {
        let mut commands = Vec::new();
        let mut reasons = Vec::new();
        if drift.owner > 0 {
            commands.extend(self.change_owners(path));
            reasons.push(format!("owner of {} of {}", drift.owner, drift.entries));
        }
        // A change of owner takes the set-id bits, so that modes which have them may drift by it.
        let sets_ids = matches!(&self.mode, Some(Mode::Bits(bits)) if bits & 0o6000 != 0);
        if drift.mode > 0 || (sets_ids && drift.owner > 0) {
            commands.extend(self.change_modes(path));
            reasons.push(format!("mode of {} of {}", drift.mode, drift.entries));
        }
        if commands.is_empty() {
            return Change::none("the directory and all it holds are as wished");
        }
        let after = self.ownership().settle(path, &status.permissions(), Target::Directory, umask).after;
        let change = Change::new(reasons.join(", ")).run(Shell::join(" && ", commands)).touching(Resources::tree(path));
        let change = match status.link_target {
            None => change.node(path, Node::Directory(after.directory_node(false))),
            Some(_) => change,
        };
        change.answer(&self.drift_question(path), &Some(Drift { entries: drift.entries, owner: 0, mode: 0 }))
    }

    fn change_owners(&self, path: &str) -> Option<Shell> {
        let root = tree_root(path);
        Some(match (self.user.as_deref(), self.group.as_deref()) {
            (Some(user), Some(group)) => sh!(
                "find {} '(' ! -user {} -o ! -group {} ')' -exec chown -h -- {} {} +",
                root,
                user,
                group,
                format!("{user}:{group}"),
                "{}"
            ),
            (Some(user), None) => sh!("find {} ! -user {} -exec chown -h -- {} {} +", root, user, user, "{}"),
            (None, Some(group)) => sh!("find {} ! -group {} -exec chgrp -h -- {} {} +", root, group, group, "{}"),
            (None, None) => return None,
        })
    }

    fn change_modes(&self, path: &str) -> Option<Shell> {
        let root = tree_root(path);
        Some(match self.mode.as_ref()? {
            Mode::Bits(bits) => {
                sh!("find {} ! -type l ! -perm {} -exec chmod -- {} {} +", root, mode_digits(*bits, false), mode_digits(*bits, true), "{}")
            }
            symbolic => sh!("find {} ! -type l -exec chmod -- {} {} +", root, symbolic, "{}"),
        })
    }
}

impl Operation for Directory {
    const NAME: &'static str = "files.directory";
    const DOC: &'static str = "Makes sure that a directory is there, with its owner, group and mode, or with `present = false` that none \
        is.\n\n\
        Missing directories on the way are made. With `recursive`, all below it gets the same owner, group and mode: each thing is looked \
        at, so drift below a directory that \
        is itself as wished is found and put right, and what is right is left alone. A mode such as `\"u=rwX,go=rX\"` suits files and \
        directories alike. Links below are not followed; set-user-id \
        bits of files that change their owner are lost, as chown(1) has it, unless the mode sets them.\n\n\
        `present = false` removes it with all that it holds; of a link to a directory it removes the link alone. The directories without \
        which a machine does not work are refused. Where something \
        of another type stands, the operation is refused, unless `force` says to put it out of the way.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("path", &self.path)?;
        self.obstacle().check("path", &self.path)?;
        if !self.present || self.recursive {
            check_removable("path", &self.path)?;
        }
        if self.recursive && self.present && self.ownership().is_none() {
            return Err(
                Misuse::new("`recursive` has nothing to do without `user`, `group` or `mode`").hint("give one of them, or leave it out")
            );
        }
        Ok(())
    }

    fn touches(&self) -> Resources {
        let own = if self.recursive || !self.present { Resources::tree(&self.path) } else { Resources::path(&self.path) };
        let parents = if self.present { may_touch_parents(&self.path) } else { Resources::none() };
        own.and(parents).and(self.obstacle().touches(&self.path))
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = &normal_path(&self.path);
        if !self.present {
            return self.remove(facts, path);
        }
        let questions = (&DirectoryFact::at(path), &parent(path), &Identity {});
        let (directory, above, who, drift) = if self.recursive {
            let (directory, above, who, drift) = facts.get((questions.0, questions.1, questions.2, &self.drift_question(path)))?;
            (directory, above, who, drift)
        } else {
            let (directory, above, who) = facts.get(questions)?;
            (directory, above, who, None)
        };
        let status = match &directory {
            Found::Is(status) => status,
            missing => return self.create(facts, path, &who, &above, *missing == Found::Other),
        };
        if self.recursive {
            return Ok(self.settle_tree(path, status, &drift.unwrap_or_default(), who.umask));
        }
        let settled = self.ownership().settle(path, &status.permissions(), Target::Directory, who.umask);
        if settled.commands.is_empty() {
            return Ok(Change::none("the directory is as wished"));
        }
        // A link stays a link: the directory stands where it leads.
        let real = status.link_target.as_ref().map_or_else(|| path.clone(), |target| link_leads_to(path, target));
        let touches = Resources::path(real.as_str());
        let change = Change::new(settled.reasons.join(", ")).run(Shell::join(" && ", settled.commands)).touching(touches);
        Ok(change.node(real, Node::Directory(settled.after.directory_node(false))))
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let directory = |mode, user: &str| Found::Is(Status::foreseen(mode, user, user, None));
        let app = || DirectoryFact::at("/srv/app");
        let with = |title, args, found| {
            Example::new(title, args)
                .fact(&app(), found)
                .fact(&DirectoryFact::at("/srv"), directory(0o755, "root"))
                .fact(&Identity {}, root.clone())
        };
        let drift = TreeDrift { path: "/srv/app".into(), user: Some("app".into()), group: None, mode: Some(Mode::Bits(0o750)) };
        let recursive = json!({ "path": "/srv/app", "user": "app", "mode": "750", "recursive": true });
        vec![
            with("Make a directory", json!({ "path": "/srv/app" }), Found::Nothing).steps(["mkdir -- /srv/app"]),
            with("Make a private one", json!({ "path": "/srv/app", "user": "app", "mode": "750" }), Found::Nothing)
                .steps(["mkdir -m 700 -- /srv/app && chown -- app /srv/app && chmod -- 750 /srv/app"]),
            with("Leave one that is as wished", json!({ "path": "/srv/app/", "mode": 755 }), directory(0o755, "root")).nothing("as wished"),
            with("Change the mode", json!({ "path": "/srv/app", "mode": "g+ws" }), directory(0o755, "root"))
                .steps(["chmod -- 2775 /srv/app"]),
            with("Find what has drifted below", recursive.clone(), directory(0o750, "app"))
                .fact(&drift, Some(Drift { entries: 40, owner: 2, mode: 1 }))
                .steps(["find /srv/app/. ! -user app -exec chown -h -- app '{}' + && find /srv/app/. ! -type l ! -perm 750 -exec chmod -- 00750 \
                         '{}' +"]),
            with("Leave a tree that is as wished", recursive, directory(0o750, "app"))
                .fact(&drift, Some(Drift { entries: 40, owner: 0, mode: 0 }))
                .nothing("all it holds are as wished"),
            with("Refuse to replace a file", json!({ "path": "/srv/app" }), Found::Other).refused("/srv/app exists and is not a directory"),
            with("Replace a file", json!({ "path": "/srv/app", "force": true, "force_backup_dir": "/var/old" }), Found::Other)
                .steps(["mkdir -p -- /var/old && kept=/var/old/app.$(date +%Y%m%d%H%M%S) && while test -e \"$kept\" || test -L \"$kept\"; do kept=$kept~; done && mv -- /srv/app \"$kept\" && mkdir -- /srv/app"]),
            with("Remove a directory", json!({ "path": "/srv/app", "present": false }), directory(0o755, "root"))
                .steps(["rm -rf -- /srv/app"]),
            with("Nothing to remove", json!({ "path": "/srv/app", "present": false }), Found::Nothing)
                .nothing("no such directory"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::change::Effect;
    use infra_core::node::DirectoryNode;
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully, steps_of};

    use super::*;

    #[test]
    fn all_that_is_made_is_foretold() {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o077, home: "/".into() };
        let table = MadeUp::new()
            .fact(&DirectoryFact::at("/a/b/c"), Found::Nothing)
            .fact(&DirectoryFact::at("/a/b"), Found::Nothing)
            .fact(&DirectoryFact::at("/a"), Found::Is(Status::foreseen(0o2755, "root", "www", None)))
            .fact(&DirectoryFact::at("/"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
            .fact(&Identity {}, who);
        let wish: Directory = serde_json::from_value(json!({ "path": "/a/b/c", "mode": "755" })).expect("arguments");
        let (change, rounds) = diff_fully(&*erase(wish), &table).expect("a change");
        assert_eq!(rounds, 2);
        assert_eq!(steps_of(&change), ["mkdir -p -- /a/b && mkdir -m 700 -- /a/b/c && chmod -- 00755 /a/b/c"]);
        let node =
            |mode| Node::Directory(DirectoryNode { mode: Some(mode), user: Some("me".into()), group: Some("www".into()), fresh: true });
        let wanted = [("/a/b", node(0o2700)), ("/a/b/c", node(0o755))];
        assert_eq!(change.effects, wanted.map(|(path, node)| Effect::Node { path: path.into(), node }));
    }

    #[test]
    fn misuse_is_named() {
        for args in [
            json!({ "path": "/", "present": false }),
            json!({ "path": "/etc", "recursive": true, "mode": "755" }),
            json!({ "path": "/srv/a", "recursive": true }),
        ] {
            let wish: Directory = serde_json::from_value(args.clone()).expect("arguments");
            assert!(wish.check().is_err(), "{args}");
        }
    }
}
