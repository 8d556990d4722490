//! The operation `files.get`.

use infra_core::change::{Action, Change, Download};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, normal_path};
use infra_core::tree::{LeftOut, TreeQuestion};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::files::file::File;
use crate::facts::files::sha256::Sha256;
use crate::facts::files::tree::{Contents, Entry, EntryKind, Tree};
use crate::file_content::digest_of;
use crate::file_status::{Found, Status};
use crate::ownership::Permissions;
use crate::placement::check_path;
use crate::tree_fetch::Fetch;

/// Makes sure that a file or a directory of the machine infra runs on holds what one of the host holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Get {
    /// The path of the file or the directory on the host; a link to one is followed.
    #[schemars(extend("x-host-path" = true))]
    pub src: String,
    /// The file on the machine that infra runs on; a relative path is beside the deploy file. With a slash at the end, what has the name of
    /// `src` in that directory; of a `src` with a slash at its end, the directory itself. Hosts must not share one: `dest = "results/" .. host.name .. "/out.csv"`.
    #[schemars(extend("x-local-destination" = true))]
    pub dest: String,
    /// For deploys that say so: a relative `dest` is beside the deploy file, so `true` has no effect and `false` is refused.
    pub add_deploy_dir: Option<bool>,
    /// Whether to make the missing directories of `dest`.
    #[serde(default)]
    pub create_local_dir: bool,
    /// Whether to fetch it also when the local file holds the same.
    #[serde(default)]
    pub force: bool,
}

impl Get {
    /// The local path, of the file itself.
    fn path(&self) -> String {
        let name = self.src.rsplit('/').next().unwrap_or_default();
        if self.dest.ends_with('/') { normal_path(&format!("{}{name}", self.dest)) } else { normal_path(&self.dest) }
    }
}

impl Get {
    fn fetch_tree(&self, facts: &Facts<'_>, path: &str) -> Result<Change, DiffError> {
        let src = normal_path(&self.src);
        let local = facts.local_tree(&TreeQuestion { path: path.to_owned(), left_out: LeftOut::default() });
        let found = facts.get(&Tree::at(&src, &LeftOut::default()));
        let found = match found? {
            Found::Is(found) => found,
            Found::Nothing => return Err(DiffError::refused(format!("there is no directory {src} on the host"))),
            Found::Other => return Err(DiffError::refused(format!("{src} is neither a file nor a directory"))),
        };
        let local = local?;
        let fetch = Fetch { src: &src, dest: path, create_dir: self.create_local_dir, force: self.force };
        Ok(fetch.change(&found, local.as_deref()))
    }
}

impl Operation for Get {
    const NAME: &'static str = "files.get";
    const DOC: &'static str = "Makes sure that a file or a directory of the machine infra runs on holds what one of the host holds.\n\n\
        Contents are compared by SHA-256: what is the same is not fetched. What differs is written beside `dest`, checked, and then renamed over it, \
        so that a reader sees the old file or the new one. The new file has the mode of the one that it replaces, else that of any new file of the \
        user who runs infra. Nothing on the host changes.\n\n\
        Two hosts that would write one file are refused before anything runs. A file that an earlier operation of the deploy writes may be missing \
        when the plan is made: then the plan says that it depends on that operation. One that changes while it is fetched is an error, and the old \
        local file is left.\n\n\
        Of a directory all files are fetched that differ, as one stream of at most 256 MiB or 1000 files at a time, each put in place when it has arrived \
        whole; of a file that grows meanwhile as much as there was. Files that the host has not are left. Links are made as they are, but for those that \
        lead out of the directory: these, sockets, pipes and devices, and names that are no line of UTF-8, are left out, which the plan counts. No link in the local directory is followed.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("src", &self.src)?;
        if self.dest.is_empty() || self.dest.contains('\0') {
            return Err(Misuse::new("`dest` is empty or holds a NUL character"));
        }
        if self.add_deploy_dir == Some(false) {
            return Err(Misuse::new(
                "`add_deploy_dir = false` is not possible: `dest` is beside the deploy file, wherever infra is started",
            )
            .hint("leave it out, and give `dest` as an absolute path where it is not beside the deploy file"));
        }
        Ok(())
    }

    /// Where the host is the machine that infra runs on, the path is one of the host.
    fn touches(&self) -> Resources {
        Resources::tree(self.path())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = self.path();
        // Both are noted as missing before either is given up.
        if self.src.ends_with('/') {
            return self.fetch_tree(facts, &path);
        }
        let local = facts.local_if_there(&path);
        let (file, sha256) = facts.get((&File::at(&self.src), &Sha256::at(&self.src)))?;
        if (&file, &sha256) == (&Found::Other, &Found::Other) {
            return self.fetch_tree(facts, &path);
        }
        let local = local?;
        let (file, sha256) = match (file, sha256) {
            (Found::Is(file), Found::Is(sha256)) => (file, sha256),
            (Found::Nothing, _) | (_, Found::Nothing) => {
                return Err(DiffError::refused(format!("there is no file {} on the host", self.src)));
            }
            _ => return Err(DiffError::refused(format!("{} was just replaced by something else", self.src))),
        };
        let reason = match &local {
            Some(local) if local.sha256 == sha256 && !self.force => return Ok(Change::none(format!("{path} holds the same"))),
            Some(local) if local.sha256 == sha256 => format!("fetch {path} again"),
            Some(_) => format!("fetch {path} anew"),
            None => format!("fetch {path}"),
        };
        let download = Download { src: self.src.clone(), dest: path, size: file.size, sha256, create_dir: self.create_local_dir };
        Ok(Change::new(reason).then(Action::Download(download)).touching(Resources::path(self.path())))
    }

    fn examples() -> Vec<Example> {
        let found = |example: Example| {
            example
                .fact(&File::at("/srv/out.csv"), Found::Is(Status::foreseen(0o644, "root", "root", Some(6))))
                .fact(&Sha256::at("/srv/out.csv"), Found::Is(digest_of("a,b,c\n")))
        };
        let is = |title, answer: fn() -> (Found<Status>, Found<String>)| {
            let example = Example::new(title, json!({ "src": "/srv/out.csv", "dest": "/deploy/results/web-01/out.csv" }));
            let (file, sha256) = answer();
            example
                .fact(&File::at("/srv/out.csv"), file)
                .fact(&Sha256::at("/srv/out.csv"), sha256)
                .no_local("/deploy/results/web-01/out.csv")
        };
        let tree = || {
            let entry = |path: &str, kind, content: Option<&str>| Entry {
                size: content.map(|content| content.len() as u64),
                sha256: content.map(digest_of),
                ..Entry::new(path, kind, &of_root())
            };
            let entries = vec![
                entry("a", EntryKind::File, Some("new")),
                entry("b", EntryKind::Directory, None),
                entry("b/c", EntryKind::File, Some("")),
                Entry { target: Some("/etc".into()), ..entry("out", EntryKind::Link, None) },
            ];
            Found::Is(Contents { root: Status::foreseen(0o755, "root", "root", None), entries, excluded: Vec::new(), strange: 0 })
        };
        let dest = "/deploy/results/web-01/out.csv";
        let wish = json!({ "src": "/srv/out.csv", "dest": dest, "create_local_dir": true });
        vec![
            found(Example::new("Fetch a file into a folder of its host", wish.clone()))
                .no_local(dest)
                .steps(["download /deploy/results/web-01/out.csv"]),
            found(Example::new("Fetch it anew", wish.clone())).local(dest, "old\n").steps(["download /deploy/results/web-01/out.csv"]),
            found(Example::new("Leave it", wish)).local(dest, "a,b,c\n").nothing("holds the same"),
            found(Example::new("Fetch it always", json!({ "src": "/srv/out.csv", "dest": dest, "force": true })))
                .local(dest, "a,b,c\n")
                .steps(["download /deploy/results/web-01/out.csv"]),
            found(Example::new("Fetch it into a directory, under its name", json!({ "src": "/srv/out.csv", "dest": "/deploy/results/" })))
                .no_local("/deploy/results/out.csv")
                .steps(["download /deploy/results/out.csv"]),
            is("A file that is not there", || (Found::Nothing, Found::Nothing)).refused("there is no file /srv/out.csv on the host"),
            Example::new("Fetch a directory", json!({ "src": "/srv/out/", "dest": "/deploy/results/web-01", "create_local_dir": true }))
                .fact(&Tree::at("/srv/out", &LeftOut::default()), tree())
                .steps(["download /deploy/results/web-01 a b/c"]),
            Example::new("Fetch of a directory what differs", json!({ "src": "/srv/out/", "dest": "/deploy/out" }))
                .fact(&Tree::at("/srv/out", &LeftOut::default()), tree())
                .local("/deploy/out/a", "old")
                .local("/deploy/out/b/c", "")
                .steps(["download /deploy/out a"]),
        ]
    }
}

/// Who has the things of the examples.
fn of_root() -> Permissions {
    Permissions { mode: 0o644, user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0) }
}

#[cfg(test)]
mod tests {
    use infra_core::registry::OperationDefinition;
    use infra_test::facts::{MadeUp, diff_fully};
    use serde_json::Value;

    use super::*;

    fn bind(args: Value) -> Result<infra_core::operation::SharedOperation, String> {
        let args = args.as_object().expect("a map").clone();
        OperationDefinition::of::<Get>().bind(args).map_err(|error| error.message)
    }

    #[test]
    fn what_does_not_fit_is_misuse() {
        for (args, message) in [
            (json!({ "src": "/srv/a", "dest": "" }), "`dest` is empty or holds a NUL character"),
            (
                json!({ "src": "/srv/a", "dest": "/x", "add_deploy_dir": false }),
                "`add_deploy_dir = false` is not possible: `dest` is beside the deploy file, wherever infra is started",
            ),
        ] {
            assert_eq!(bind(args).map(|_| ()), Err(message.to_owned()));
        }
        assert!(bind(json!({ "src": "/srv/a", "dest": "/x", "add_deploy_dir": true })).is_ok());
    }

    #[test]
    fn a_file_that_an_earlier_operation_writes_is_waited_for() {
        let table = MadeUp::new()
            .unknown(&File::at("/srv/a"), "Make the results")
            .unknown(&Sha256::at("/srv/a"), "Make the results")
            .no_local("/deploy/a");
        let operation = bind(json!({ "src": "/srv/a", "dest": "/deploy/a" })).expect("right arguments");
        assert_eq!(diff_fully(&*operation, &table).expect_err("not known").to_string(), "depends on «Make the results»");
    }

    #[test]
    fn what_is_left_out_of_a_tree_is_counted_with_its_reason() {
        let root = Status::foreseen(0o755, "root", "root", None);
        let pipe = Entry::new("pipe", EntryKind::Special, &of_root());
        let (pipes, names) = ("1 left out: links that lead out of it, and what is no file", "2 left out: names that are no line of UTF-8");
        for (entries, strange, wanted) in [
            (vec![pipe.clone()], 0, format!("({pipes})")),
            (Vec::new(), 2, format!("({names}, and links that lead to one)")),
            (vec![pipe], 2, format!("({pipes}; {names}, and links that lead to one)")),
        ] {
            let found = Contents { root: root.clone(), entries, excluded: Vec::new(), strange };
            let table = MadeUp::new().fact(&Tree::at("/srv/out", &LeftOut::default()), Found::Is(found)).no_local("/deploy/out");
            let operation = bind(json!({ "src": "/srv/out/", "dest": "/deploy/out" })).expect("right arguments");
            let (change, _) = diff_fully(&*operation, &table).expect("a change");
            assert!(change.reason.ends_with(&wanted), "{}", change.reason);
        }
    }

    #[test]
    fn the_digest_and_the_size_come_from_the_host() {
        let table = MadeUp::new()
            .fact(&File::at("/srv/a"), Found::Is(Status::foreseen(0o600, "root", "root", Some(3))))
            .fact(&Sha256::at("/srv/a"), Found::Is(digest_of("abc")))
            .no_local("/deploy/a");
        let operation = bind(json!({ "src": "/srv/a", "dest": "/deploy/a" })).expect("right arguments");
        let (change, rounds) = diff_fully(&*operation, &table).expect("a change");
        let wanted =
            Download { src: "/srv/a".into(), dest: "/deploy/a".into(), size: Some(3), sha256: digest_of("abc"), create_dir: false };
        assert_eq!((change.actions, rounds), (vec![Action::Download(wanted)], 1));
    }
}
