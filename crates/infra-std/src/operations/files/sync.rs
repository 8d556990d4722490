//! The operation `files.sync`.

use infra_core::change::Change;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, link_leads_to, normal_path};
use infra_core::tree::{LeftOut, TreeQuestion};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::files::tree::{Contents, Entry, EntryKind, Tree};
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::{ModeWish, digest_of, with_parents};
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Permissions};
use crate::placement::{Maker, Place, check_path, check_removable, may_touch_parents, parent, place};
use crate::tree_copy::{TreeCopy, Wishes};

/// Makes sure that a directory holds what a local directory holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Sync {
    /// The local directory. Links in it are copied as links.
    #[schemars(extend("x-local-path" = true))]
    pub src: String,
    /// The directory on the host that shall hold the same; a link to a directory is followed.
    #[schemars(extend("x-host-path" = true))]
    pub dest: String,
    /// The user who shall own all of it: a name or a number.
    pub user: Option<String>,
    /// The group that shall own all of it: a name or a number.
    pub group: Option<String>,
    /// The mode of the files; `true` for that of each local file.
    pub mode: Option<ModeWish>,
    /// The mode of the directories; `true` for that of each local directory.
    pub dir_mode: Option<ModeWish>,
    /// Whether to remove what the local directory has not.
    #[serde(default)]
    pub delete: bool,
    /// Patterns of what is left alone on both sides, with all below it: held against the name, the path in the tree, and that with `./` in front; `*`
    /// matches `/` too.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The same for directories alone.
    #[serde(default)]
    pub exclude_dir: Vec<String>,
    /// For deploys that say so: `src` is looked up beside the script that calls, so `true` has no effect and `false` is refused.
    pub add_deploy_dir: Option<bool>,
}

impl Sync {
    fn left_out(&self) -> LeftOut {
        LeftOut { exclude: self.exclude.clone(), exclude_dir: self.exclude_dir.clone() }
    }

    fn dest(&self) -> String {
        normal_path(&self.dest)
    }
}

impl Operation for Sync {
    const NAME: &'static str = "files.sync";
    const DOC: &'static str = "Makes sure that a directory holds what a local directory holds: directories, files and links.\n\n\
        The whole tree of the host is read in one round trip, contents are compared by SHA-256, and only what differs is sent, as one stream of at most \
        256 MiB or 2000 files at a time. Each file is written into a private directory beside its destination with its owner and mode, checked, and then \
        renamed over it; a link that stands where a file shall be is replaced. What is not asked for stays as it is: the owner, group and mode of what is \
        there; new things get those of any new file. Where only owner or mode differ, nothing is sent.\n\n\
        What the source has not is left alone, unless `delete` says to remove it; of a directory that holds something left out by `exclude`, that and \
        the directory stay. Something of another type in the way is refused, or removed with `delete`.\n\n\
        Sockets, pipes and devices in the source, and names that are no line of UTF-8, are refused unless they are left out. Times of change, hard links \
        and extended attributes are not copied.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("dest", &self.dest)?;
        if self.delete {
            check_removable("dest", &self.dest)?;
        }
        for (name, patterns) in [("exclude", &self.exclude), ("exclude_dir", &self.exclude_dir)] {
            if let Some(pattern) = patterns.iter().find(|pattern| pattern.is_empty() || pattern.contains(['\n', '\0'])) {
                return Err(Misuse::new(format!("{pattern:?} in `{name}` is no pattern of a name")));
            }
            if let Some(pattern) = patterns.iter().find(|pattern| pattern.starts_with('/') || pattern.ends_with('/')) {
                return Err(Misuse::new(format!("`{pattern}` in `{name}` begins or ends with a slash, so it can match nothing"))
                    .hint("patterns are held against the path in the tree, such as `cache` or `a/cache`"));
            }
        }
        if self.add_deploy_dir == Some(false) {
            return Err(Misuse::new(
                "`add_deploy_dir = false` is not possible: `src` is looked up beside the script, wherever infra is started",
            )
            .hint("leave it out, and give `src` as an absolute path where it is not beside the script"));
        }
        Ok(())
    }

    fn touches(&self) -> Resources {
        Resources::tree(self.dest()).and(may_touch_parents(&self.dest))
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let dest = self.dest();
        let src = normal_path(&self.src);
        let question = Tree::at(&dest, &self.left_out());
        // All are noted as missing before any is given up.
        let local = facts.local_tree(&TreeQuestion { path: src.clone(), left_out: self.left_out() });
        let found = facts.get((&question, &Identity {}, &parent(&dest)));
        let local = local?.ok_or_else(|| DiffError::refused(format!("there is no directory {src} on this machine")))?;
        let (found, who, above) = found?;
        let ownership = Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: None };
        let (found, place) = match found {
            Found::Is(found) => (Some(found), None),
            Found::Other => return Err(DiffError::refused(format!("{dest} is in the way: it is not a directory"))),
            Found::Nothing => (None, Some(place(facts, &dest, &who, &above, true, &ownership)?)),
        };
        let wishes = Wishes {
            dest: &dest,
            src: &src,
            user: self.user.as_deref(),
            group: self.group.as_deref(),
            mode: self.mode.as_ref(),
            dir_mode: self.dir_mode.as_ref(),
            delete: self.delete,
        };
        let fresh = fresh_root(place.as_ref(), found.as_ref(), &who);
        let copy = TreeCopy::between(&local, found.as_ref(), &wishes, &who, &fresh)?;
        if copy.is_none() {
            return Ok(Change::none(format!("all {} are as wished", copy.count())));
        }
        let change = copy.change(&wishes, place.iter().flat_map(|place| place.commands.clone()).collect());
        let mut touches = Resources::tree(&dest);
        let mut change = match &place {
            Some(place) => {
                touches = touches.and(place.touches());
                with_parents(change, place)
            }
            None => change,
        };
        // Through a link another path is the real one, of which nothing can be foretold here.
        let is_link = found.as_ref().is_some_and(|found| found.root.link_target.is_some());
        match copy.contents(found.as_ref()) {
            Some(contents) if !is_link => change = change.answer(&question, &Found::Is(contents)),
            _ => {}
        }
        if let Some(target) = found.as_ref().and_then(|found| found.root.link_target.as_deref()) {
            change.effects.clear();
            touches = touches.and(Resources::tree(link_leads_to(&dest, target)));
        }
        Ok(change.touching(touches))
    }

    fn examples() -> Vec<Example> {
        let digest = || Some(digest_of("one\n"));
        let root = || Status { uid: Some(0), gid: Some(0), ..Status::foreseen(0o755, "root", "root", Some(4096)) };
        let entry = |path: &str, kind, mode| Entry::new(path, kind, &Permissions { mode, ..root().permissions() });
        let file = |path: &str, sha256: Option<String>| Entry { size: Some(4), sha256, ..entry(path, EntryKind::File, 0o644) };
        let who = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let tree = |entries| Found::Is(Contents { root: root(), entries, excluded: Vec::new(), strange: 0 });
        let on = |example: Example, found| {
            example
                .local("/deploy/site/index.html", "one\n")
                .local("/deploy/site/css/a.css", "one\n")
                .fact(&Tree::at("/srv/site", &LeftOut::default()), found)
                .fact(&Identity {}, who.clone())
                .fact(&parent("/srv/site"), Found::Is(root()))
        };
        let wish = json!({ "src": "/deploy/site", "dest": "/srv/site" });
        let same = || vec![entry("css", EntryKind::Directory, 0o755), file("css/a.css", digest()), file("index.html", digest())];
        let stale = || {
            let mut entries = same();
            entries.push(file("old.html", digest()));
            entries
        };
        vec![
            on(Example::new("Copy a directory", wish.clone()), Found::Nothing)
                .steps(["mkdir -- /srv/site /srv/site/css", "upload /srv/site css/a.css index.html"]),
            on(
                Example::new("Send only what differs", wish.clone()),
                tree(vec![
                    entry("css", EntryKind::Directory, 0o755),
                    file("css/a.css", digest()),
                    file("index.html", Some("0".repeat(64))),
                ]),
            )
            .steps(["upload /srv/site index.html"]),
            on(Example::new("Leave what is the same", wish.clone()), tree(same())).nothing("all 3 are as wished"),
            on(Example::new("Leave what the source has not", wish.clone()), tree(stale())).nothing("all 4 are as wished"),
            on(
                Example::new("Remove what the source has not", json!({ "src": "/deploy/site", "dest": "/srv/site", "delete": true })),
                tree(stale()),
            )
            .steps(["rm -f -- /srv/site/old.html"]),
            on(
                Example::new("Set owner and mode", json!({ "src": "/deploy/site", "dest": "/srv/site", "user": "www", "mode": "640" })),
                tree(same()),
            )
            .steps(["chown -h -- www /srv/site /srv/site/css /srv/site/css/a.css /srv/site/index.html && \
                 chmod -- 640 /srv/site/index.html /srv/site/css/a.css"]),
            on(
                Example::new("A directory where a file shall be", wish),
                tree(vec![entry("css", EntryKind::Directory, 0o755), entry("index.html", EntryKind::Directory, 0o755)]),
            )
            .refused("/srv/site/index.html is in the way: it is a directory on the host"),
        ]
    }
}

/// What a directory made at the root would be; where one is there, it is not asked for.
fn fresh_root(place: Option<&Place>, found: Option<&Contents>, who: &WhoAsks) -> crate::ownership::Permissions {
    match (place, found) {
        (Some(place), _) => place.maker.directory(),
        (None, Some(found)) => found.root.permissions(),
        (None, None) => Maker::new(who, &Status::foreseen(0o755, &who.user, &who.group, None).permissions()).directory(),
    }
}
