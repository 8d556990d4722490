//! Where a thing is put: the directories on the way to it, and the owner, group and mode that the host gives to what is made there.

use infra_core::command::Shell;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::{DirectoryNode, Node};
use infra_core::operation::Misuse;
use infra_core::resources::{Resource, Resources, is_within, normal_path, parent_of};
use infra_core::sh;

use crate::facts::files::directory::Directory;
use crate::facts::server::identity::WhoAsks;
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Permissions, Target};

/// What the host gives to things that one user makes in one directory.
#[derive(Clone, Debug)]
pub struct Maker {
    own: Permissions,
    umask: u32,
    /// Whether the directory hands its group on (its set-group-id bit), also to directories made in it.
    hands_on: bool,
}

impl Maker {
    /// For this user in a directory with these permissions.
    pub fn new(who: &WhoAsks, within: &Permissions) -> Self {
        let own = Permissions { mode: 0, user: who.user.clone(), group: who.group.clone(), uid: who.uid, gid: who.gid };
        let hands_on = within.mode & 0o2000 != 0;
        let own = if hands_on { Permissions { group: within.group.clone(), gid: within.gid, ..own } } else { own };
        Self { own, umask: who.umask, hands_on }
    }

    /// A file made there.
    pub fn file(&self) -> Permissions {
        Permissions { mode: 0o666 & !self.umask, ..self.own.clone() }
    }

    /// A directory made there.
    pub fn directory(&self) -> Permissions {
        Permissions { mode: 0o777 & !self.umask | if self.hands_on { 0o2000 } else { 0 }, ..self.own.clone() }
    }

    /// A symbolic link made there.
    pub fn link(&self) -> Permissions {
        Permissions { mode: 0o777, ..self.own.clone() }
    }

    /// Whether the directory hands its group on.
    pub fn hands_on(&self) -> bool {
        self.hands_on
    }
}

/// A place that is there or will be.
#[derive(Clone, Debug)]
pub struct Place {
    /// What is given to things made there.
    pub maker: Maker,
    /// The commands that make the directories on the way.
    pub commands: Vec<Shell>,
    /// The directories that they make, outermost first.
    pub made: Vec<(String, DirectoryNode)>,
}

impl Place {
    /// What the directories on the way touch.
    pub fn touches(&self) -> Resources {
        Resources::only(self.made.iter().map(|(path, _)| Resource::Path(path.clone())))
    }

    /// What will stand at the directories on the way.
    pub fn nodes(&self) -> impl Iterator<Item = (String, Node)> {
        self.made.iter().map(|(path, node)| (path.clone(), Node::Directory(node.clone())))
    }
}

/// The directories above a path, nearest first, up to `/`, or up to `.` for a relative path.
pub fn ancestors(path: &str) -> Vec<String> {
    let path = normal_path(path);
    let top = if path.starts_with('/') { "/" } else { "." };
    let mut all: Vec<String> = std::iter::successors(parent_of(&path), |above| parent_of(above)).collect();
    if all.last().map(String::as_str) != Some(top) {
        all.push(top.to_owned());
    }
    all
}

/// The question about the directory that a path stands in, to be asked together with those about the path.
pub fn parent(path: &str) -> Directory {
    Directory::at(ancestors(path).swap_remove(0))
}

/// What making the directories on the way to a path may touch.
pub fn may_touch_parents(path: &str) -> Resources {
    Resources::only(ancestors(path).into_iter().filter(|above| above != "/" && above != ".").map(Resource::Path))
}

/// Finds the place for a path whose parent is as `found`. Directories that are missing are made when `create` is set, and given the owner
/// and group of `ownership`, but not its mode.
///
/// # Errors
/// [`DiffError::Refused`] when a directory is missing and none is to be made, or something else is in the way; [`DiffError::Missing`] when
/// directories further up are still to be asked about.
pub fn place(
    facts: &Facts<'_>,
    path: &str,
    who: &WhoAsks,
    found: &Found<Status>,
    create: bool,
    ownership: &Ownership<'_>,
) -> Result<Place, DiffError> {
    let above = ancestors(path);
    let is_no_directory = |path: &str| DiffError::refused(format!("{path} is in the way: it is not a directory"));
    match found {
        Found::Is(status) => return Ok(Place { maker: Maker::new(who, &status.permissions()), commands: Vec::new(), made: Vec::new() }),
        Found::Other => return Err(is_no_directory(&above[0])),
        Found::Nothing if !create => {
            let hint = format!("make it first: files.directory {{ path = \"{}\" }}", above[0]);
            return Err(DiffError::refused_with_hint(format!("the directory {} does not exist", above[0]), hint));
        }
        Found::Nothing => {}
    }
    let questions: Vec<Directory> = above[1..].iter().map(Directory::at).collect();
    let answers = facts.get_all(&questions)?;
    let mut missing = vec![above[0].clone()];
    let mut maker = None;
    for (question, answer) in questions.into_iter().zip(&answers) {
        match answer {
            Found::Is(status) => {
                maker = Some(Maker::new(who, &status.permissions()));
                break;
            }
            Found::Other => return Err(is_no_directory(&question.path)),
            Found::Nothing => missing.push(question.path),
        }
    }
    let mut maker = maker.ok_or_else(|| DiffError::refused(format!("no directory above {path} exists")))?;
    let mut place = Place { maker: maker.clone(), commands: Vec::new(), made: Vec::new() };
    let owner = ownership.without_mode();
    if owner.is_none() {
        place.commands.push(sh!("mkdir -p -- {}", above[0]));
    }
    for (index, directory) in missing.into_iter().enumerate().rev() {
        let mut fresh = maker.directory();
        if owner.is_none() {
            // On the way, mkdir(1) lets its caller into the directories that it makes, whatever the umask.
            fresh.mode |= if index > 0 { 0o300 } else { 0 };
        } else {
            // One by one: each hands on the group that it was given, not the one that it was made with.
            place.commands.push(sh!("mkdir -p -- {}", directory));
        }
        let settled = owner.settle(&directory, &fresh, Target::Directory, who.umask);
        place.commands.extend(settled.commands);
        maker = Maker::new(who, &settled.after);
        place.made.push((directory, settled.after.directory_node(true)));
    }
    place.maker = maker;
    Ok(place)
}

/// Checks that a text is a path on a host.
///
/// # Errors
/// [`Misuse`] when it is empty, holds a NUL, or begins with `~`, which no shell will expand.
pub fn check_path(argument: &str, path: &str) -> Result<(), Misuse> {
    if path.is_empty() {
        return Err(Misuse::new(format!("`{argument}` is empty")).hint("write the path in full"));
    }
    if path.contains('\0') {
        return Err(Misuse::new(format!("`{argument}` holds a NUL, which no path can")));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Misuse::new(format!("`{argument}` begins with ~, which is not expanded on the host"))
            .hint("write the path in full, or build it from the fact server.identity, which has `home`"));
    }
    Ok(())
}

/// Directories without which a machine does not work.
const VITAL: &[&str] = &[
    "/",
    ".",
    "..",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Checks that a path may be removed, moved away or changed as a whole tree.
///
/// # Errors
/// [`Misuse`] when it is one of the directories without which a machine does not work, also when spelt with `..`.
pub fn check_removable(argument: &str, path: &str) -> Result<(), Misuse> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(&last)) if last != ".." => {
                parts.pop();
            }
            ("..", _) if path.starts_with('/') => {}
            _ => parts.push(part),
        }
    }
    let plain = normal_path(&format!("{}{}", if path.starts_with('/') { "/" } else { "" }, parts.join("/")));
    if VITAL.contains(&plain.as_str()) || plain.ends_with("/..") {
        return Err(Misuse::new(format!("`{argument}` is {plain}: infra does not remove it, move it away or change all below it")));
    }
    Ok(())
}

/// What to do about something of another type that stands where a thing shall be.
#[derive(Clone, Copy, Debug)]
pub struct Obstacle<'a> {
    /// Whether to put it out of the way.
    pub force: bool,
    /// Whether to keep it under another name instead of removing it.
    pub backup: bool,
    /// Where to keep it; beside the path where not given.
    pub backup_dir: Option<&'a str>,
}

impl Obstacle<'_> {
    /// Checks that what stands at `path`, the value of `argument`, may be put out of the way, where that is asked for.
    ///
    /// # Errors
    /// [`Misuse`] as [`check_removable`]; and when it would be kept below itself.
    pub fn check(&self, argument: &str, path: &str) -> Result<(), Misuse> {
        if !self.force {
            return Ok(());
        }
        check_removable(argument, path)?;
        match self.backup_dir {
            Some(dir) if is_within(&normal_path(dir), &normal_path(path)) => {
                Err(Misuse::new(format!("`force_backup_dir` is {dir}, which is below {path} itself")).hint("keep it somewhere else"))
            }
            Some(dir) => check_path("force_backup_dir", dir),
            None => Ok(()),
        }
    }

    /// The command that puts it out of the way. `wanted` says what shall be there, such as `a file`.
    ///
    /// # Errors
    /// [`DiffError::Refused`] without `force`.
    pub fn clear(&self, path: &str, wanted: &str) -> Result<Shell, DiffError> {
        if !self.force {
            let hint = "give force = true to put it out of the way; it is kept under another name unless force_backup = false";
            return Err(DiffError::refused_with_hint(format!("{path} exists and is not {wanted}"), hint));
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        Ok(match (self.backup, self.backup_dir.map(normal_path)) {
            (false, _) => sh!("rm -rf -- {}", path),
            (true, None) => set_aside(sh!("mv"), path, path),
            (true, Some(dir)) => {
                let kept = format!("{}/{name}", dir.trim_end_matches('/'));
                sh!("mkdir -p -- {} && {}", dir, set_aside(sh!("mv"), path, &kept))
            }
        })
    }

    /// What putting it out of the way touches.
    pub fn touches(&self, path: &str) -> Resources {
        match (self.force, self.backup_dir) {
            (false, _) => Resources::none(),
            (true, None) => Resources::tree(path),
            (true, Some(dir)) => Resources::tree(path).and(Resources::tree(dir)).and(may_touch_parents(dir)),
        }
    }
}

/// Moves or copies (`how`) something to a name made of `base` and the time, one that is not taken.
pub fn set_aside(how: Shell, path: &str, base: &str) -> Shell {
    sh!(
        "kept={}.$(date +%Y%m%d%H%M%S) && while test -e \"$kept\" || test -L \"$kept\"; do kept=$kept~; done && {} -- {} \"$kept\"",
        base,
        how,
        path
    )
}

#[cfg(test)]
mod tests {
    use infra_test::facts::MadeUp;

    use super::*;

    fn who() -> WhoAsks {
        WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/home/me".into() }
    }

    fn there(mode: u32) -> Found<Status> {
        Found::Is(Status::foreseen(mode, "root", "www", None))
    }

    #[test]
    fn ancestors_are_nearest_first() {
        for (path, wanted) in
            [("/a/b/c", vec!["/a/b", "/a", "/"]), ("/a", vec!["/"]), ("/", vec!["/"]), ("a/b", vec!["a", "."]), ("a", vec!["."])]
        {
            assert_eq!(ancestors(path), wanted, "{path}");
        }
    }

    #[test]
    fn missing_parents_are_made_with_what_they_inherit() {
        let table = MadeUp::new().fact(&Directory::at("/a"), Found::Nothing).fact(&Directory::at("/"), there(0o2755));
        let wishes = Ownership { user: Some("app"), ..Ownership::default() };
        let place = place(&Facts::new(&table), "/a/b/f", &who(), &Found::Nothing, true, &wishes).expect("a place");
        assert_eq!(
            Shell::join(" && ", place.commands).as_str(),
            "mkdir -p -- /a && chown -- app /a && mkdir -p -- /a/b && chown -- app /a/b"
        );
        let node = DirectoryNode { mode: Some(0o2750), user: Some("app".into()), group: Some("www".into()), fresh: true };
        assert_eq!(place.made, [("/a".to_owned(), node.clone()), ("/a/b".to_owned(), node)]);
        let file = place.maker.file();
        assert_eq!((file.mode, file.user.as_str(), file.group.as_str()), (0o640, "me", "www"));
    }

    #[test]
    fn a_place_that_cannot_be_is_refused() {
        let table = MadeUp::new().fact(&Directory::at("/a"), Found::Other).fact(&Directory::at("/"), there(0o755));
        for (found, create, wanted) in [
            (Found::Other, true, "/a/b is in the way: it is not a directory"),
            (Found::Nothing, false, "the directory /a/b does not exist"),
            (Found::Nothing, true, "/a is in the way: it is not a directory"),
        ] {
            let error = place(&Facts::new(&table), "/a/b/f", &who(), &found, create, &Ownership::default()).expect_err(wanted);
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn vital_directories_are_not_removed() {
        for path in ["/", "//", "/etc/", "/usr/./lib", "/srv/../etc", "/..", ".", "./", "..", "a/..", "../..", "/a/../../var"] {
            assert!(check_removable("path", path).is_err(), "{path}");
        }
        for path in ["/srv/app", "/etc/motd", "a", "../a", "/etc/../srv/a", "...", "/usr/lib/app"] {
            assert!(check_removable("path", path).is_ok(), "{path}");
        }
    }

    #[test]
    fn paths_that_are_none_are_misuse() {
        for path in ["", "a\0b", "~", "~/x"] {
            assert!(check_path("path", path).is_err(), "{path}");
        }
        for path in ["a", "/~", "./~", "~x"] {
            assert!(check_path("path", path).is_ok(), "{path}");
        }
    }
}
