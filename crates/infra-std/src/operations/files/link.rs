//! The operation `files.link`.

use infra_core::change::Change;
use infra_core::command::Shell;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::{FileNode, LinkNode, Node};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, is_within, normal_path};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::yes;
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::hard_link::HardLink;
use crate::facts::files::link::{Link as LinkFact, LinkStatus};
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::with_parents;
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Permissions, Settled, Target};
use crate::placement::{Obstacle, Place, check_path, check_removable, may_touch_parents, parent, place};

/// Makes sure that a link is there and leads where it should, or that none is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Link {
    /// The path of the link on the host.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// Where it leads. A symbolic link keeps it as spelt, and a relative one counts from the directory of the link; a hard link takes an
    /// absolute path.
    pub target: Option<String>,
    /// Whether the link shall be there.
    #[serde(default = "yes")]
    pub present: bool,
    /// The user who shall own the link itself (of a hard link: the file): a name or a number.
    pub user: Option<String>,
    /// The group that shall own the link itself (of a hard link: the file): a name or a number.
    pub group: Option<String>,
    /// Whether it is a symbolic link, or else a hard one.
    #[serde(default = "yes")]
    pub symbolic: bool,
    /// Whether to make missing directories on the way; they get the same `user` and `group`.
    #[serde(default = "yes")]
    pub create_remote_dir: bool,
    /// Whether to put something that is no such link out of the way.
    #[serde(default)]
    pub force: bool,
    /// Whether to keep what is put out of the way, under its name and the time.
    #[serde(default = "yes")]
    pub force_backup: bool,
    /// The directory on the host to keep it in; beside the path where not given.
    #[schemars(extend("x-host-path" = true))]
    pub force_backup_dir: Option<String>,
}

impl Link {
    fn ownership(&self) -> Ownership<'_> {
        Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: None }
    }

    fn obstacle(&self) -> Obstacle<'_> {
        Obstacle { force: self.force, backup: self.force_backup, backup_dir: self.force_backup_dir.as_deref() }
    }

    fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }

    /// The way to a free path in a directory that is there: the commands and what they touch.
    fn clear_way(&self, path: &str, place: &Place, in_the_way: Option<&str>) -> Result<(Vec<Shell>, Resources), DiffError> {
        let mut commands = Vec::new();
        let mut touches = Resources::path(path).and(place.touches());
        if let Some(wanted) = in_the_way {
            commands.push(self.obstacle().clear(path, wanted)?);
            touches = touches.and(self.obstacle().touches(path));
        }
        commands.extend(place.commands.iter().cloned());
        Ok((commands, touches))
    }

    fn symbolic(&self, facts: &Facts<'_>, path: &str) -> Result<Change, DiffError> {
        let (link, above, who): (_, _, WhoAsks) = facts.get((&LinkFact::at(path), &parent(path), &Identity {}))?;
        let node = |settled: &Settled| {
            let (user, group) = (settled.after.known_user(), settled.after.known_group());
            Node::Link(LinkNode { target: self.target().to_owned(), user, group })
        };
        match link {
            Found::Is(link) if link.target == self.target() => {
                let settled = self.ownership().settle(path, &permissions(&link), Target::Link, who.umask);
                if settled.commands.is_empty() {
                    return Ok(Change::none("the link is as wished"));
                }
                let change = Change::new(settled.reasons.join(", ")).run(Shell::join(" && ", settled.commands.clone()));
                Ok(change.node(path, node(&settled)).touching(Resources::tree(path)))
            }
            Found::Is(link) => {
                let place = place(facts, path, &who, &above, false, &self.ownership())?;
                let settled = self.ownership().settle(path, &place.maker.link(), Target::Link, who.umask);
                let mut commands = vec![sh!("ln -sfn -- {} {}", self.target(), path)];
                commands.extend(settled.commands.iter().cloned());
                let change = Change::new(format!("target {} → {}", link.target, self.target())).run(Shell::join(" && ", commands));
                Ok(change.node(path, node(&settled)).touching(Resources::tree(path)))
            }
            missing => {
                let place = place(facts, path, &who, &above, self.create_remote_dir, &self.ownership())?;
                let in_the_way = matches!(missing, Found::Other).then_some("a symbolic link");
                let (mut commands, touches) = self.clear_way(path, &place, in_the_way)?;
                let settled = self.ownership().settle(path, &place.maker.link(), Target::Link, who.umask);
                commands.push(sh!("ln -s -- {} {}", self.target(), path));
                commands.extend(settled.commands.iter().cloned());
                let change = with_parents(Change::new("create").run(Shell::join(" && ", commands)), &place);
                // Nothing was to be seen below it before.
                Ok(change.node(path, node(&settled)).touching(touches.and(Resources::tree(path))))
            }
        }
    }

    fn hard(&self, facts: &Facts<'_>, path: &str) -> Result<Change, DiffError> {
        let question = HardLink { path: path.to_owned(), target: self.target().to_owned() };
        let (link, target, above, who): (_, Found<Status>, _, WhoAsks) =
            facts.get((&question, &File::at(self.target()), &parent(path), &Identity {}))?;
        let status = match &target {
            Found::Is(status) => status,
            Found::Nothing => return Err(DiffError::refused(format!("the target {} of the hard link does not exist", self.target()))),
            Found::Other => return Err(DiffError::refused(format!("the target {} of the hard link is not a file", self.target()))),
        };
        let settled = self.ownership().settle(path, &status.permissions(), Target::File, who.umask);
        let node = Node::File(FileNode { size: status.size, ..settled.after.file_node() });
        let both = Resources::path(path).and(Resources::path(self.target()));
        if link == Some(true) {
            if settled.commands.is_empty() {
                return Ok(Change::none("the link is as wished"));
            }
            let change = Change::new(settled.reasons.join(", ")).run(Shell::join(" && ", settled.commands));
            return Ok(change.node(path, node).answer(&question, &Some(true)).touching(both));
        }
        let place = place(facts, path, &who, &above, self.create_remote_dir, &self.ownership())?;
        let in_the_way = link.is_some().then(|| format!("a hard link to {}", self.target()));
        let (mut commands, touches) = self.clear_way(path, &place, in_the_way.as_deref())?;
        commands.push(sh!("ln -- {} {}", self.target(), path));
        let touches = if settled.commands.is_empty() { touches } else { touches.and(both) };
        commands.extend(settled.commands);
        let change = with_parents(Change::new("create").run(Shell::join(" && ", commands)), &place);
        Ok(change.node(path, node).answer(&question, &Some(true)).touching(touches))
    }

    fn remove(&self, facts: &Facts<'_>, path: &str) -> Result<Change, DiffError> {
        // A hard link is a file like any other: its name is removed, the file lives on under its other names.
        // The parent says by which other path it is known.
        let found = match self.symbolic {
            true => facts.get((&LinkFact::at(path), &parent(path)))?.0.map(|_| ()),
            false => facts.get((&File::at(path), &parent(path)))?.0.map(|_| ()),
        };
        let wanted = if self.symbolic { "a symbolic link" } else { "a file" };
        let (command, touches) = match found {
            Found::Nothing => return Ok(Change::none("there is no such link")),
            Found::Is(()) => (sh!("rm -f -- {}", path), Resources::tree(path)),
            Found::Other => (self.obstacle().clear(path, wanted)?, self.obstacle().touches(path)),
        };
        Ok(Change::new("remove").run(command).node(path, Node::Absent).touching(touches))
    }
}

fn permissions(link: &LinkStatus) -> Permissions {
    Permissions { mode: 0o777, user: link.user.clone(), group: link.group.clone(), uid: link.uid, gid: link.gid }
}

impl Operation for Link {
    const NAME: &'static str = "files.link";
    const DOC: &'static str = "Makes sure that a link is there and leads where it should, or with `present = false` that none is.\n\n\
        A symbolic link is as wished when its text is `target`, character by character, whether anything is there or not. A hard link \
        (`symbolic = false`) is as wished \
        when both paths are the same file. A symbolic link that leads elsewhere is changed; anything else at the path is refused, unless \
        `force` says to put it out of the way.\n\n\
        `user` and `group` are those of a symbolic link itself, never of what it leads to.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("path", &self.path)?;
        self.obstacle().check("path", &self.path)?;
        if !self.present {
            check_removable("path", &self.path)?;
        }
        match (&self.target, self.present, self.symbolic) {
            (None, true, _) => {
                Err(Misuse::new("the argument `target` is missing").hint("write target = \"/where/it/leads\", or present = false"))
            }
            (Some(target), true, _) if target.is_empty() => Err(Misuse::new("`target` is empty")),
            (Some(target), true, false) if !target.starts_with('/') => {
                Err(Misuse::new("the `target` of a hard link is relative").hint("write the path in full"))
            }
            (Some(target), true, false) if is_within(&normal_path(target), &normal_path(&self.path)) => {
                Err(Misuse::new(format!("the hard link {} and its `target` {target} are one path, or the target is below it", self.path)))
            }
            (Some(target), true, _) => check_path("target", target),
            _ => Ok(()),
        }
    }

    fn touches(&self) -> Resources {
        let parents = if self.create_remote_dir && self.present { may_touch_parents(&self.path) } else { Resources::none() };
        // What stands below a link changes with where it leads.
        let own = Resources::tree(&self.path).and(parents).and(self.obstacle().touches(&self.path));
        match &self.target {
            Some(target) if !self.symbolic => own.and(Resources::path(target)),
            _ => own,
        }
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = normal_path(&self.path);
        match (self.present, self.symbolic) {
            (false, _) => self.remove(facts, &path),
            (true, true) => self.symbolic(facts, &path),
            (true, false) => self.hard(facts, &path),
        }
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let link = |target: &str| {
            Found::Is(LinkStatus { target: target.into(), user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0) })
        };
        let srv = || Found::Is(Status::foreseen(0o755, "root", "root", None));
        let file = || Found::Is(Status::foreseen(0o644, "root", "root", Some(5)));
        let base = |title, args| Example::new(title, args).fact(&Directory::at("/srv"), srv()).fact(&Identity {}, root.clone());
        let current = LinkFact::at("/srv/current");
        let wish = json!({ "path": "/srv/current", "target": "releases/12" });
        let hard = HardLink { path: "/srv/b".into(), target: "/srv/a".into() };
        let hard_wish = json!({ "path": "/srv/b", "target": "/srv/a", "symbolic": false });
        vec![
            base("Make a link", wish.clone()).fact(&current, Found::Nothing).steps(["ln -s -- releases/12 /srv/current"]),
            base("Lead it elsewhere", wish.clone()).fact(&current, link("releases/11")).steps(["ln -sfn -- releases/12 /srv/current"]),
            base("Leave it", wish.clone()).fact(&current, link("releases/12")).nothing("as wished"),
            base("Give it to a user", json!({ "path": "/srv/current", "target": "releases/12", "user": "app" }))
                .fact(&current, link("releases/12"))
                .steps(["chown -h -- app /srv/current"]),
            base("Refuse to replace a directory", wish)
                .fact(&current, Found::Other)
                .refused("/srv/current exists and is not a symbolic link"),
            base("Make a hard link", hard_wish.clone()).fact(&hard, None).fact(&File::at("/srv/a"), file()).steps(["ln -- /srv/a /srv/b"]),
            base("Leave a hard link", hard_wish.clone()).fact(&hard, Some(true)).fact(&File::at("/srv/a"), file()).nothing("as wished"),
            base("A hard link to nothing", hard_wish).fact(&hard, None).fact(&File::at("/srv/a"), Found::Nothing).refused("does not exist"),
            base("Remove a link", json!({ "path": "/srv/current", "present": false }))
                .fact(&current, link("releases/12"))
                .steps(["rm -f -- /srv/current"]),
            base("Nothing to remove", json!({ "path": "/srv/current", "present": false }))
                .fact(&current, Found::Nothing)
                .nothing("no such link"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misuse_is_named() {
        for args in [
            json!({ "path": "/srv/a" }),
            json!({ "path": "/srv/a", "target": "" }),
            json!({ "path": "/srv/a", "target": "b", "symbolic": false }),
            json!({ "path": "/srv/a", "target": "~/b" }),
            json!({ "path": "/lib", "present": false }),
            json!({ "path": "/srv/a", "target": "/srv/a/b", "symbolic": false }),
        ] {
            let wish: Link = serde_json::from_value(args.clone()).expect("arguments");
            assert!(wish.check().is_err(), "{args}");
        }
    }
}
