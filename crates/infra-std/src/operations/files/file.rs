//! The operation `files.file`.

use infra_core::change::Change;
use infra_core::command::Shell;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::mode::Mode;
use infra_core::node::{FileNode, Node};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, normal_path};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::yes;
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File as FileFact;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::{digest_of, stand, with_parents};
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Permissions, Target, change_mode};
use crate::placement::{Obstacle, check_path, check_removable, may_touch_parents, parent, place};

/// Makes sure that a file is there, with its owner and mode, or that none is.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct File {
    /// The path of the file on the host; a link to a file is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// Whether the file shall be there.
    #[serde(default = "yes")]
    pub present: bool,
    /// The user who shall own it: a name or a number.
    pub user: Option<String>,
    /// The group that shall own it: a name or a number.
    pub group: Option<String>,
    /// Its mode.
    pub mode: Option<Mode>,
    /// Whether to set its times to now, at every run.
    #[serde(default)]
    pub touch: bool,
    /// Whether to make missing directories on the way; they get the same `user` and `group`.
    #[serde(default = "yes")]
    pub create_remote_dir: bool,
    /// Whether to put something that is no file out of the way.
    #[serde(default)]
    pub force: bool,
    /// Whether to keep what is put out of the way, under its name and the time.
    #[serde(default = "yes")]
    pub force_backup: bool,
    /// The directory on the host to keep it in; beside the path where not given.
    #[schemars(extend("x-host-path" = true))]
    pub force_backup_dir: Option<String>,
}

impl File {
    fn ownership(&self) -> Ownership<'_> {
        Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: self.mode.as_ref() }
    }

    fn obstacle(&self) -> Obstacle<'_> {
        Obstacle { force: self.force, backup: self.force_backup, backup_dir: self.force_backup_dir.as_deref() }
    }

    fn create(&self, facts: &Facts<'_>, path: &str, who: &WhoAsks, above: &Found<Status>, is_other: bool) -> Result<Change, DiffError> {
        let place = place(facts, path, who, above, self.create_remote_dir, &self.ownership())?;
        let mut commands = Vec::new();
        let mut touches = Resources::path(path).and(place.touches());
        if is_other {
            commands.push(self.obstacle().clear(path, "a file")?);
            touches = touches.and(self.obstacle().touches(path));
        }
        commands.extend(place.commands.iter().cloned());
        let fresh = place.maker.file();
        let after = match &self.mode {
            None => {
                let settled = self.ownership().settle(path, &fresh, Target::File, who.umask);
                commands.push(sh!("touch -- {}", path));
                commands.extend(settled.commands);
                settled.after
            }
            Some(mode) => {
                // No one else may open it before it has its mode.
                let bits = mode.apply(fresh.mode, false, who.umask);
                let private = Permissions { mode: 0o600, ..fresh };
                let settled = self.ownership().without_mode().settle(path, &private, Target::File, who.umask);
                commands.push(sh!("(umask 077 && touch -- {})", path));
                commands.extend(settled.commands);
                if bits != private.mode {
                    commands.push(change_mode(bits, path, false));
                }
                Permissions { mode: bits, ..settled.after }
            }
        };
        let node = FileNode { size: Some(0), sha256: Some(digest_of("")), text: Some("".into()), ..after.file_node() };
        let change = Change::new(if is_other { "replace what is no file" } else { "create" }).run(Shell::join(" && ", commands));
        Ok(with_parents(change, &place).node(path, Node::File(node)).touching(touches))
    }
}

impl Operation for File {
    const NAME: &'static str = "files.file";
    const DOC: &'static str = "Makes sure that a file is there, with its owner, group and mode, or with `present = false` that none is.\n\n\
        A new file is empty; what is in a file is never changed. A mode such as `\"+x\"` is computed from the mode that is there. Nothing \
        is changed when \
        the file is as wished, unless `touch` is given, which sets its times at every run.\n\n\
        Where something of another type stands, the operation is refused, unless `force` says to put it out of the way. ACLs are not \
        looked at, and a default ACL of the directory is \
        not foreseen.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("path", &self.path)?;
        self.obstacle().check("path", &self.path)?;
        if !self.present {
            check_removable("path", &self.path)?;
        }
        if self.path.ends_with('/') {
            return Err(
                Misuse::new("`path` ends with a slash, so it names a directory").hint("use files.directory, or leave the slash out")
            );
        }
        Ok(())
    }

    fn touches(&self) -> Resources {
        let parents = if self.create_remote_dir && self.present { may_touch_parents(&self.path) } else { Resources::none() };
        Resources::path(&self.path).and(parents).and(self.obstacle().touches(&self.path))
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = &normal_path(&self.path);
        if !self.present {
            // The parent says by which other path the file is known.
            return Ok(match facts.get((&FileFact::at(path), &parent(path)))?.0 {
                Found::Nothing => Change::none("there is no such file"),
                Found::Is(_) => {
                    Change::new("remove").run(sh!("rm -f -- {}", path)).node(path, Node::Absent).touching(Resources::path(path))
                }
                Found::Other => Change::new("remove what is no file")
                    .run(self.obstacle().clear(path, "a file")?)
                    .node(path, Node::Absent)
                    .touching(self.obstacle().touches(path)),
            });
        }
        let (file, above, who): (Found<Status>, Found<Status>, WhoAsks) =
            facts.get((&FileFact::at(path), &parent(path) as &Directory, &Identity {}))?;
        let status = match &file {
            Found::Is(status) => status,
            missing => return self.create(facts, path, &who, &above, *missing == Found::Other),
        };
        let settled = self.ownership().settle(path, &status.permissions(), Target::File, who.umask);
        let mut reasons = settled.reasons;
        let mut commands = Vec::new();
        if self.touch {
            reasons.insert(0, "touch".to_owned());
            commands.push(sh!("touch -- {}", path));
        }
        commands.extend(settled.commands);
        if commands.is_empty() {
            return Ok(Change::none("the file is as wished"));
        }
        let node =
            FileNode { size: status.size, mtime: status.mtime.filter(|_| !self.touch), same_content: true, ..settled.after.file_node() };
        let change = Change::new(reasons.join(", ")).run(Shell::join(" && ", commands));
        Ok(stand(change, path, status.link_target.as_deref(), node))
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let directory = || Found::Is(Status::foreseen(0o755, "root", "root", None));
        let file = |mode, user: &str| Found::Is(Status::foreseen(mode, user, user, Some(12)));
        let log = || FileFact::at("/var/log/app.log");
        let parent = || Directory::at("/var/log");
        let with = |title, args, found| {
            Example::new(title, args).fact(&log(), found).fact(&parent(), directory()).fact(&Identity {}, root.clone())
        };
        let wish = json!({ "path": "/var/log/app.log", "user": "app", "group": "app", "mode": "640" });
        vec![
            with("Make a file", wish.clone(), Found::Nothing)
                .steps(["(umask 077 && touch -- /var/log/app.log) && chown -- app:app /var/log/app.log && chmod -- 640 /var/log/app.log"]),
            with("Leave a file that is as wished", wish.clone(), file(0o640, "app")).nothing("as wished"),
            with("Change the owner and the mode", wish.clone(), file(0o644, "root"))
                .steps(["chown -- app:app /var/log/app.log && chmod -- 640 /var/log/app.log"]),
            with("Refuse to touch a directory", wish, Found::Other).refused("/var/log/app.log exists and is not a file"),
            with("Move something else away", json!({ "path": "/var/log/app.log", "force": true }), Found::Other)
                .steps(["kept=/var/log/app.log.$(date +%Y%m%d%H%M%S) && while test -e \"$kept\" || test -L \"$kept\"; do kept=$kept~; done && mv -- /var/log/app.log \"$kept\" && touch -- /var/log/app.log"]),
            with("Make it executable", json!({ "path": "/var/log/app.log", "mode": "+x" }), file(0o755, "root")).nothing("as wished"),
            with("Remove a file", json!({ "path": "/var/log/app.log", "present": false }), file(0o644, "root"))
                .steps(["rm -f -- /var/log/app.log"]),
            with("Nothing to remove", json!({ "path": "/var/log/app.log", "present": false }), Found::Nothing)
                .nothing("no such file"),
            Example::new("Make the directories on the way", json!({ "path": "/srv/app/run/pid", "user": "app" }))
                .fact(&FileFact::at("/srv/app/run/pid"), Found::Nothing)
                .fact(&Directory::at("/srv/app/run"), Found::Nothing)
                .fact(&Directory::at("/srv/app"), Found::Nothing)
                .fact(&Directory::at("/srv"), directory())
                .fact(&Directory::at("/"), directory())
                .fact(&Identity {}, root.clone())
                .steps(["mkdir -p -- /srv/app && chown -- app /srv/app && mkdir -p -- /srv/app/run && chown -- app /srv/app/run && touch -- /srv/app/run/pid && \
                         chown -- app /srv/app/run/pid"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    fn file(args: infra_core::Value) -> File {
        serde_json::from_value(args).expect("arguments")
    }

    #[test]
    fn what_will_stand_is_foretold() {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/".into() };
        let table = MadeUp::new()
            .fact(&FileFact::at("/d/f"), Found::Nothing)
            .fact(&Directory::at("/d"), Found::Is(Status::foreseen(0o2775, "root", "www", None)))
            .fact(&Identity {}, who);
        let (change, _) = diff_fully(&*erase(file(json!({ "path": "/d//f", "mode": "u+x" }))), &table).expect("a change");
        let infra_core::change::Effect::Node { path, node: Node::File(node) } = &change.effects[0] else { panic!("a node: {change:?}") };
        assert_eq!((path.as_str(), node.mode, node.user.as_deref(), node.group.as_deref()), ("/d/f", Some(0o740), Some("me"), Some("www")));
        assert_eq!((node.size, node.text.as_deref()), (Some(0), Some("")));
    }

    #[test]
    fn a_link_stays_a_link() {
        let status = Status { link_target: Some("../real".into()), ..Status::foreseen(0o600, "root", "root", Some(1)) };
        let who = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/".into() };
        let table =
            MadeUp::new().fact(&FileFact::at("/d/f"), Found::Is(status)).fact(&Directory::at("/d"), Found::Nothing).fact(&Identity {}, who);
        let (change, _) = diff_fully(&*erase(file(json!({ "path": "/d/f", "mode": 644 }))), &table).expect("a change");
        let nodes = change.effects.iter().map(|effect| match effect {
            infra_core::change::Effect::Node { path, .. } => path.as_str(),
            infra_core::change::Effect::Answer { .. } => "an answer",
        });
        assert_eq!(nodes.collect::<Vec<_>>(), ["/real"]);
        assert!(change.touches.is_some_and(|touches| touches.overlaps(&Resources::path("/real"))));
    }

    #[test]
    fn misuse_is_named() {
        for args in [
            json!({ "path": "/etc", "present": false }),
            json!({ "path": "/srv/a/" }),
            json!({ "path": "~/.profile" }),
            json!({ "path": "/srv/a", "force": true, "force_backup_dir": "/srv/a/old" }),
        ] {
            assert!(file(args.clone()).check().is_err(), "{args}");
        }
    }
}
