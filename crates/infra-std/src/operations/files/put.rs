//! The operation `files.put`.

use infra_core::change::{Action, Change, Effect};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::Node;
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, normal_path};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::yes;
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::sha256::Sha256;
use crate::facts::files::text::Text;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::{Destination, ModeWish, NewContent, Standing, digest_of, stand};
use crate::file_status::{Found, Status};
use crate::file_times::{TimeWish, Times};
use crate::ownership::Ownership;
use crate::placement::{Obstacle, check_path};

/// Makes sure that a file holds what a local file, or a text, holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Put {
    /// The local file.
    #[schemars(extend("x-local-path" = true))]
    pub src: Option<String>,
    /// The content itself, in place of `src`.
    pub content: Option<String>,
    /// The path of the file on the host; a link to a file is followed. Where a directory stands, or with a slash at the end, the file of
    /// the name of `src` in it.
    #[schemars(extend("x-host-path" = true))]
    pub dest: String,
    /// The user who shall own it: a name or a number.
    pub user: Option<String>,
    /// The group that shall own it: a name or a number.
    pub group: Option<String>,
    /// Its mode; `true` for that of the local file.
    pub mode: Option<ModeWish>,
    /// The time of its last access: seconds since 1970 (UTC), or a text such as `2024-05-01T12:00:00Z`. It is set when the file is written,
    /// and when the one that is found is earlier; a later one only says that the file was read.
    pub atime: Option<TimeWish>,
    /// The time of the last change of its content, written as `atime`. One that differs by more than a second is set.
    pub mtime: Option<TimeWish>,
    /// For deploys that say so: `src` is looked up beside the script that calls, so `true` has no effect and `false` is refused.
    pub add_deploy_dir: Option<bool>,
    /// For deploys that say so: `src` must be there when the operation is called, so `true` is refused and `false` has no effect.
    #[serde(default)]
    pub assume_exists: bool,
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

impl Put {
    fn obstacle(&self) -> Obstacle<'_> {
        Obstacle { force: self.force, backup: self.force_backup, backup_dir: self.force_backup_dir.as_deref() }
    }

    /// The path in the directory `dest` that bears the name of `src`.
    fn inside(&self) -> Option<String> {
        let name = self.src.as_deref()?.trim_end_matches('/').rsplit('/').next()?;
        Some(normal_path(&format!("{}/{name}", self.dest)))
    }

    /// The path that is meant before anything is known of the host.
    fn path(&self) -> String {
        self.inside().filter(|_| self.dest.ends_with('/')).unwrap_or_else(|| normal_path(&self.dest))
    }

    fn times(&self) -> Times {
        let seconds = |wish: Option<TimeWish>| wish.and_then(TimeWish::seconds);
        Times { atime: seconds(self.atime), mtime: seconds(self.mtime) }
    }

    /// Checks the arguments that have less meaning here than their names say.
    fn check_times_and_source(&self) -> Result<(), Misuse> {
        for (name, wish) in [("atime", self.atime), ("mtime", self.mtime)] {
            if wish == Some(TimeWish::Local(true)) {
                return Err(Misuse::new(format!("`{name} = true`, the time of the local file, is not available yet"))
                    .hint(format!("write the time, such as {name} = \"2024-05-01T12:00:00Z\"")));
            }
        }
        if self.add_deploy_dir == Some(false) {
            return Err(Misuse::new(
                "`add_deploy_dir = false` is not possible: `src` is looked up beside the script, wherever infra is started",
            )
            .hint("leave it out, and give `src` as an absolute path where it is not beside the script"));
        }
        if self.assume_exists {
            return Err(Misuse::new("`assume_exists = true` is not possible: `src` must be there when the operation is called")
                .hint("leave it out, and make the file before the deploy, or give what it shall hold as `content`"));
        }
        Ok(())
    }

    fn destination<'a>(&'a self, path: &'a str, ownership: Ownership<'a>) -> Destination<'a> {
        Destination { path, ownership, create_remote_dir: self.create_remote_dir, obstacle: self.obstacle() }
    }
}

/// Checks what `files.put` and `files.template` take alike.
pub(super) fn check_source(src: Option<&str>, content: Option<&str>, mode: Option<&ModeWish>, dest: &str) -> Result<(), Misuse> {
    check_path("dest", dest)?;
    match (src, content) {
        (Some(_), Some(_)) => return Err(Misuse::new("`src` and `content` are both given").hint("give exactly one of them")),
        (None, None) => return Err(Misuse::new("neither `src` nor `content` is given").hint("give exactly one of them")),
        (None, Some(_)) if dest.ends_with('/') => {
            return Err(
                Misuse::new("`dest` ends with a slash, but content has no name of its own").hint("write the whole path of the file")
            );
        }
        (None, Some(_)) if mode == Some(&ModeWish::Local(true)) => {
            return Err(
                Misuse::new("`mode = true` means the mode of `src`, which is not given").hint("write the mode, such as mode = \"644\"")
            );
        }
        _ => {}
    }
    Ok(())
}

/// Adds what sets the times of a file to what else is done to it, and that they will be so.
fn with_times(change: Change, times: Times, path: &str, standing: &Standing, new: &NewContent<'_>) -> Change {
    let is_written = change.actions.iter().any(|action| matches!(action, Action::Upload(_)));
    let wanting = match &standing.file {
        Found::Is(status) if !is_written => times.wanting(status),
        _ => times,
    };
    let mut change = match (wanting.set(path), &standing.file) {
        (None, _) => change,
        (Some(command), Found::Is(status)) if change.is_none() => {
            let change = Change::new(wanting.names().join(", ")).run(command);
            stand(change, path, status.link_target.as_deref(), new.node(&status.permissions()))
        }
        (Some(command), _) => {
            let reasons: Vec<&str> = std::iter::once(change.reason.as_str()).chain(wanting.names()).collect();
            Change { reason: reasons.join(", "), ..change }.run(command)
        }
    };
    let kept = standing.file.is().filter(|_| !is_written).and_then(|status| status.mtime);
    let mtime = times.mtime.or(kept);
    // That of the last access is not foretold: the next reader changes it.
    for effect in &mut change.effects {
        if let Effect::Node { node: Node::File(node), .. } = effect {
            node.mtime = mtime;
        }
    }
    change
}

impl Operation for Put {
    const NAME: &'static str = "files.put";
    const DOC: &'static str = "Makes sure that a file holds what a local file (`src`) or a text (`content`) holds, with its owner, group \
        and mode, and the times where they are given.\n\n\
        Contents are compared by SHA-256. What differs is written beside the file with its owner and mode, checked, and then renamed over \
        it: a reader sees the old file or the new one, and at no \
        moment may more people read it than asked for. Where only the owner or the mode differs, nothing is uploaded. Text files up to 1 \
        MiB are shown before and after.\n\n\
        Where something that is no file stands, the operation is refused, unless `force` says to put it out of the way; a directory takes \
        the file under the name of `src`.\n\n\
        `mtime` and `atime` are set after the file is written, or alone where nothing else differs. What is already within a second of \
        `mtime` is left. Reading a file moves its \
        time of access on, as the comparing of contents does, so an access later than `atime` is left too.";

    fn check(&self) -> Result<(), Misuse> {
        check_source(self.src.as_deref(), self.content.as_deref(), self.mode.as_ref(), &self.dest)?;
        self.check_times_and_source()?;
        self.obstacle().check("dest", &self.path())
    }

    fn touches(&self) -> Resources {
        let of = |path: &str| self.destination(path, Ownership::default()).may_touch();
        let own = of(&self.path());
        self.inside().map_or(own.clone(), |inside| own.and(of(&inside)))
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let mut path = self.path();
        // Both are noted as missing before either is given up.
        let local = self.src.as_deref().map(|src| facts.local(src));
        let standing = Standing::ask(facts, &path);
        let local = local.transpose()?;
        let mut standing = standing?;
        let mut new = match &local {
            Some(file) => NewContent::of_local(file),
            None => NewContent::of_text(self.content.as_deref().unwrap_or_default()),
        };
        if let (Found::Other, Some(inside)) = (&standing.file, self.inside().filter(|inside| *inside != path)) {
            let questions = (&Directory::at(&path), &File::at(&inside), &Sha256::at(&inside));
            if let (parent @ Found::Is(_), file, sha256) = facts.get(questions)? {
                standing = Standing { file, sha256, parent, who: standing.who };
                path = inside;
                // The old text would take a third round to read.
                new.shown = new.shown && standing.file == Found::Nothing;
            }
        }
        let mode = ModeWish::resolve(self.mode.as_ref(), local.as_deref());
        let ownership = Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: mode.as_ref() };
        let change = self.destination(&path, ownership).write(facts, &standing, new.clone())?;
        Ok(with_times(change, self.times(), &path, &standing, &new))
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let etc = || Found::Is(Status::foreseen(0o755, "root", "root", None));
        let file = |mode| Found::Is(Status::foreseen(mode, "root", "root", Some(6)));
        let base = |title, args| {
            Example::new(title, args).fact(&Directory::at("/etc"), etc()).fact(&Identity {}, root.clone()).local("/deploy/motd", "hello\n")
        };
        let dated = |mtime| Found::Is(Status { mtime: Some(mtime), ..Status::foreseen(0o644, "root", "root", Some(6)) });
        let motd = File::at("/etc/motd");
        let digest = Sha256::at("/etc/motd");
        let wish = json!({ "src": "/deploy/motd", "dest": "/etc/motd", "mode": "644" });
        vec![
            base("Write a file", wish.clone()).fact(&motd, Found::Nothing).fact(&digest, Found::Nothing).steps(["upload /etc/motd"]),
            base("Write it anew", wish.clone())
                .fact(&motd, file(0o644))
                .fact(&digest, Found::Is(digest_of("old\n")))
                .fact(&Text::at("/etc/motd"), Found::Is("old\n".into()))
                .steps(["upload /etc/motd"]),
            base("Leave it", wish.clone()).fact(&motd, file(0o644)).fact(&digest, Found::Is(digest_of("hello\n"))).nothing("as wished"),
            base("Change the mode alone", wish.clone())
                .fact(&motd, file(0o600))
                .fact(&digest, Found::Is(digest_of("hello\n")))
                .steps(["chmod -- 644 /etc/motd"]),
            base("Write a text", json!({ "content": "hello\n", "dest": "/etc/motd" }))
                .fact(&motd, file(0o644))
                .fact(&digest, Found::Is(digest_of("hello\n")))
                .nothing("as wished"),
            base("Write a file with its time", json!({ "src": "/deploy/motd", "dest": "/etc/motd", "mtime": "2023-11-14T22:13:20Z" }))
                .fact(&motd, Found::Nothing)
                .fact(&digest, Found::Nothing)
                .steps(["upload /etc/motd", "touch -c -m -d @1700000000 -- /etc/motd"]),
            base("Change the time alone", json!({ "src": "/deploy/motd", "dest": "/etc/motd", "mtime": 1_700_000_000 }))
                .fact(&motd, dated(1_600_000_000))
                .fact(&digest, Found::Is(digest_of("hello\n")))
                .steps(["touch -c -m -d @1700000000 -- /etc/motd"]),
            base("Leave the time", json!({ "src": "/deploy/motd", "dest": "/etc/motd", "mtime": 1_700_000_000 }))
                .fact(&motd, dated(1_700_000_001))
                .fact(&digest, Found::Is(digest_of("hello\n")))
                .nothing("as wished"),
            base("Put it into a directory", json!({ "src": "/deploy/motd", "dest": "/etc" }))
                .fact(&Directory::at("/"), etc())
                .fact(&File::at("/etc"), Found::Other)
                .fact(&Sha256::at("/etc"), Found::Other)
                .fact(&motd, Found::Nothing)
                .fact(&digest, Found::Nothing)
                .steps(["upload /etc/motd"]),
            base("Refuse to replace what is no file", json!({ "content": "x", "dest": "/etc/motd" }))
                .fact(&motd, Found::Other)
                .fact(&digest, Found::Other)
                .refused("/etc/motd exists and is not a file"),
            Example::new("Make the directory", json!({ "content": "x", "dest": "/etc/app/conf", "user": "app" }))
                .fact(&File::at("/etc/app/conf"), Found::Nothing)
                .fact(&Sha256::at("/etc/app/conf"), Found::Nothing)
                .fact(&Directory::at("/etc/app"), Found::Nothing)
                .fact(&Directory::at("/etc"), etc())
                .fact(&Directory::at("/"), etc())
                .fact(&Identity {}, root.clone())
                .steps(["mkdir -p -- /etc/app && chown -- app /etc/app", "upload /etc/app/conf"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::Value;
    use infra_core::fact::Fact;
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    fn put(args: infra_core::Value) -> Put {
        serde_json::from_value(args).expect("arguments")
    }

    fn table() -> MadeUp {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/".into() };
        MadeUp::new()
            .fact(&Directory::at("/d"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
            .fact(&Identity {}, who)
            .local_with_mode("/l/run.sh", "new\n", 0o755)
    }

    #[test]
    fn the_mode_of_the_local_file_is_taken() {
        let table = table().fact(&File::at("/d/run.sh"), Found::Nothing).fact(&Sha256::at("/d/run.sh"), Found::Nothing);
        let wish = put(json!({ "src": "/l/run.sh", "dest": "/d/", "mode": true, "user": "app" }));
        let (change, rounds) = diff_fully(&*erase(wish), &table).expect("a change");
        assert_eq!(rounds, 1);
        let Action::Upload(upload) = &change.actions[0] else { panic!("an upload: {change:?}") };
        assert_eq!(
            (upload.dest.as_str(), upload.mode, upload.user.as_deref(), upload.group.as_deref()),
            ("/d/run.sh", Some(0o755), Some("app"), None)
        );
        let Effect::Node { node: Node::File(node), .. } = &change.effects[0] else { panic!("a node: {change:?}") };
        assert_eq!((node.mode, node.user.as_deref(), node.group.as_deref()), (Some(0o755), Some("app"), Some("us")));
        assert_eq!(node.text.as_deref(), Some("new\n"));
        assert_eq!((change.texts[0].before.as_str(), change.texts[0].after.as_str()), ("", "new\n"));
    }

    /// Where a file will stand, and the answer about it that a change foretells.
    fn foretold(change: &Change) -> Option<(&str, Value)> {
        change.effects.iter().find_map(|effect| match effect {
            Effect::Node { path, node } => Some((path.as_str(), json!(File::at(path).foresee(node)))),
            Effect::Answer { .. } => None,
        })
    }

    #[test]
    fn times_are_foretold_as_far_as_they_last() {
        let status = Status { atime: Some(9), mtime: Some(9), ..Status::foreseen(0o600, "you", "them", Some(3)) };
        let linked = Status { link_target: Some("real".into()), ..status.clone() };
        for (status, real) in [(status, "/d/f"), (linked, "/d/real")] {
            let table = table().fact(&File::at("/d/f"), Found::Is(status)).fact(&Sha256::at("/d/f"), Found::Is(digest_of("new")));
            let change = |more: Value| {
                let mut args = json!({ "content": "new", "dest": "/d/f" });
                args.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
                diff_fully(&*erase(put(args)), &table).expect("a change").0
            };
            let both = change(json!({ "mtime": 5, "atime": 50 }));
            let Action::Run(command) = &both.actions[0] else { panic!("a command: {both:?}") };
            assert_eq!(command.script.as_str(), "touch -c -m -d @5 -- /d/f && touch -c -a -d @50 -- /d/f");
            assert_eq!((both.reason.as_str(), both.actions.len()), ("mtime, atime", 1));
            let (at, answer) = foretold(&both).expect("an answer");
            assert_eq!((at, &answer["mtime"], answer.get("atime")), (real, &json!(5), None));
            assert!(both.touches.as_ref().is_some_and(|touches| touches.overlaps(&Resources::path(real))));

            let mode = change(json!({ "mtime": 10, "mode": "644" }));
            assert_eq!((mode.reason.as_str(), mode.actions.len()), ("mode 600 → 644", 1));
            assert_eq!(foretold(&mode).expect("an answer").1["mtime"], json!(10));
            let mode = change(json!({ "mtime": 11, "mode": "644" }));
            assert_eq!((mode.reason.as_str(), mode.actions.len()), ("mode 600 → 644, mtime", 2));
            assert!(change(json!({ "mtime": 9, "atime": 4 })).is_none());
        }
    }

    #[test]
    fn an_old_file_that_is_no_text_is_replaced_and_not_shown() {
        let table = table()
            .fact(&File::at("/d/f"), Found::Is(Status::foreseen(0o600, "you", "them", Some(3))))
            .fact(&Sha256::at("/d/f"), Found::Is(digest_of("old")))
            .failed(&Text::at("/d/f"), "/d/f is not UTF-8 text");
        let (change, rounds) = diff_fully(&*erase(put(json!({ "content": "new", "dest": "/d/f" }))), &table).expect("a change");
        assert_eq!((rounds, change.actions.len()), (2, 1));
        let [text] = &change.texts[..] else { panic!("what is not shown is said: {change:?}") };
        assert_eq!(text.withheld.as_deref(), Some("what stands there now cannot be read as UTF-8 text"));
        let Effect::Node { node: Node::File(node), .. } = &change.effects[0] else { panic!("a node: {change:?}") };
        assert_eq!((node.mode, node.user.as_deref(), node.group.as_deref()), (Some(0o600), Some("you"), Some("them")));
    }

    #[test]
    fn a_local_file_that_cannot_be_read_is_refused() {
        let table = table().local_failed("/l/none", "there is no file /l/none");
        let table = table.fact(&File::at("/d/f"), Found::Nothing).fact(&Sha256::at("/d/f"), Found::Nothing);
        let error = diff_fully(&*erase(put(json!({ "src": "/l/none", "dest": "/d/f" }))), &table).expect_err("no file");
        assert_eq!(error.to_string(), "there is no file /l/none");
    }

    #[test]
    fn misuse_is_named() {
        for args in [
            json!({ "dest": "/a" }),
            json!({ "dest": "/a", "src": "/b", "content": "c" }),
            json!({ "dest": "/a/", "content": "c" }),
            json!({ "dest": "/a", "content": "c", "mode": true }),
            json!({ "dest": "~/a", "content": "c" }),
            json!({ "dest": "/etc", "content": "c", "force": true }),
            json!({ "dest": "/a", "src": "/b", "mtime": true }),
            json!({ "dest": "/a", "src": "/b", "atime": true }),
            json!({ "dest": "/a", "src": "/b", "add_deploy_dir": false }),
            json!({ "dest": "/a", "src": "/b", "assume_exists": true }),
        ] {
            assert!(put(args.clone()).check().is_err(), "{args}");
        }
        let harmless = json!({ "dest": "/a", "src": "/b", "mtime": false, "add_deploy_dir": true, "assume_exists": false });
        assert_eq!(put(harmless).check(), Ok(()));
    }
}
