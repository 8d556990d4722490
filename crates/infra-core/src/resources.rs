//! What an operation may touch and what a fact rests on, so that a touched fact is known to be stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Directories that are also known by another path, because a link stands on the way: from the path as spelt to the real one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, String>);

impl Aliases {
    /// Notes where a path leads; of `.`, the directory that a session is in. Sessions of different users may be in different ones: then it is not known any
    /// more which of them a relative path counts from.
    pub fn add(&mut self, path: &str, real: &str) {
        let (path, real) = (normal_path(path), normal_path(real));
        if path == "." && self.0.get(&path).is_some_and(|known| *known != real) {
            self.0.insert(path, String::new());
        } else if path != real {
            self.0.insert(path, real);
        }
    }

    /// The directory that relative paths count from, where that is known.
    pub fn working_directory(&self) -> Option<&str> {
        self.0.get(".").map(String::as_str).filter(|known| known.starts_with('/'))
    }

    /// Where this very path leads, where that is known.
    pub fn leads(&self, path: &str) -> Option<String> {
        if let Some(leads) = self.0.get(path) {
            return Some(leads.clone());
        }
        // It may have been asked about by the way from the working directory.
        let within = self.working_directory()?;
        let leads = self.0.get(path.strip_prefix(within)?.strip_prefix('/')?)?;
        Some(if leads.starts_with('/') { leads.clone() } else { format!("{within}/{leads}") })
    }

    /// The same but for these paths themselves.
    pub fn without(&self, paths: &[&str]) -> Self {
        let mut left = self.clone();
        left.0.retain(|path, _| !paths.iter().any(|out| normal_path(out) == *path));
        left
    }

    /// The real path of a path, as far as it is known; none where that is as spelt.
    pub fn real(&self, path: &str) -> Option<String> {
        // A link may lead through another one; links in a circle end somewhere.
        const LINKS: usize = 8;
        let mut real = normal_path(path);
        let mut found = false;
        if let (false, Some(within)) = (real.starts_with('/'), self.working_directory()) {
            real = normal_path(&format!("{within}/{real}"));
            found = true;
        }
        for _ in 0..LINKS {
            let above =
                std::iter::successors(Some(real.clone()), |path| parent_of(path)).find_map(|above| Some((self.leads(&above)?, above)));
            let Some((leads, spelt)) = above else { break };
            real = normal_path(&format!("{leads}/{}", &real[spelt.len()..]));
            found = true;
        }
        found.then_some(real)
    }
}

/// One part of a host that can change.
///
/// Paths are as spelt, with `.` and doubled slashes removed; a relative path is compared with an absolute one as if both could be the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// One path: the file, link or directory itself, not what a directory holds.
    Path(String),
    /// A path and all below it.
    Tree(String),
    /// Installed packages.
    Packages,
    /// Services, their state and whether they start at boot.
    Services,
    /// Users and groups.
    Users,
    /// The names of those who own files, as `owner_of` and `group_of` spell them: what is known of the owner of a file does not hold any more, though nobody
    /// touched the file.
    Owner(String),
    /// What a login session has: its groups, limits, environment.
    Session,
    /// What the sessions of this user alone have.
    SessionOf(String),
    /// Kernel settings and modules.
    Kernel,
    /// Network settings and listeners.
    Network,
}

/// A set of [`Resource`]s, or everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resources {
    /// Everything: the answer of all that does not know better.
    Everything,
    /// Just these.
    Only(BTreeSet<Resource>),
}

impl Resources {
    /// Everything there is.
    pub fn everything() -> Self {
        Self::Everything
    }

    /// Nothing at all: a fact that no change can make stale, an operation that touches nothing.
    pub fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Just these, and the spaces that paths among them stand for (the table of this module says which).
    pub fn only(resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut set = BTreeSet::new();
        for resource in resources {
            let resource = resource.normal();
            if let Resource::Path(path) | Resource::Tree(path) = &resource {
                set.extend(spaces_of(path, matches!(resource, Resource::Tree(_))));
            }
            set.insert(resource);
        }
        Self::Only(set)
    }

    /// One path.
    pub fn path(path: impl Into<String>) -> Self {
        Self::only([Resource::Path(path.into())])
    }

    /// A path and all below it.
    pub fn tree(path: impl Into<String>) -> Self {
        Self::only([Resource::Tree(path.into())])
    }

    /// What the owner and the group of a file rest on: that a user and a group go on having these names. Who has a number for a name has none, and may get one
    /// when a user or a group is made.
    pub fn owners(user: &str, group: &str) -> Self {
        Self::only([Resource::owner_of(user), Resource::group_of(group)])
    }

    /// These and those.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut a), Self::Only(b)) => {
                a.extend(b);
                Self::Only(a)
            }
            _ => Self::Everything,
        }
    }

    /// The same, with the paths by which its paths are known as well. Of a relative path of which it is known where it is, only that counts.
    pub fn with_real_paths(&self, aliases: &Aliases) -> Self {
        let Self::Only(set) = self else { return Self::Everything };
        let mut all = BTreeSet::new();
        let mut real = Vec::new();
        for resource in set {
            let (path, make): (&String, fn(String) -> Resource) = match resource {
                Resource::Path(path) => (path, Resource::Path),
                Resource::Tree(path) => (path, Resource::Tree),
                other => {
                    all.insert(other.clone());
                    continue;
                }
            };
            let leads = aliases.real(path);
            let is_placed = !path.starts_with('/') && leads.as_ref().is_some_and(|leads| leads.starts_with('/'));
            real.extend(leads.map(make));
            if !is_placed {
                all.insert(resource.clone());
            }
        }
        Self::Only(all).and(Self::only(real))
    }

    /// Whether there is nothing in it.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::Only(set) if set.is_empty())
    }

    /// Whether a change to the one may be a change to the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, other) | (other, Self::Everything) => !other.is_none(),
            (Self::Only(a), Self::Only(b)) => a.iter().any(|x| b.iter().any(|y| x.overlaps(y))),
        }
    }
}

impl Resource {
    /// The name of a user; all numbers that nobody has for a name are one.
    pub fn owner_of(user: &str) -> Self {
        if is_number(user) { Self::nameless_owner() } else { Self::Owner(user.to_owned()) }
    }

    /// The name of a group, likewise.
    pub fn group_of(group: &str) -> Self {
        if is_number(group) { Self::nameless_owner() } else { Self::Owner(format!(":{group}")) }
    }

    /// The numbers that no user or no group has, which may become somebody's when one is made.
    pub fn nameless_owner() -> Self {
        Self::Owner(String::new())
    }

    fn normal(self) -> Self {
        match self {
            Self::Path(path) => Self::Path(normal_path(&path)),
            Self::Tree(path) => Self::Tree(normal_path(&path)),
            other => other,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(a), Self::Path(b)) => a == b || may_be(a, b) || may_be(b, a),
            (Self::Tree(tree), Self::Path(path)) | (Self::Path(path), Self::Tree(tree)) => {
                is_within(path, tree) || may_be_within(path, tree)
            }
            (Self::Tree(a), Self::Tree(b)) => [(a, b), (b, a)].into_iter().any(|(a, b)| is_within(a, b) || may_be_within(a, b)),
            _ => self == other,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Tree(path) => write!(f, "{}/**", path.trim_end_matches('/')),
            Self::SessionOf(user) => write!(f, "session of {user}"),
            Self::Owner(name) if name.is_empty() => f.write_str("owners without a name"),
            Self::Owner(name) => write!(f, "owner {name}"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

/// A path as it is compared: no doubled slashes, no `.`, no slash at the end. `..` stays, for only the host knows where it leads.
pub fn normal_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let joined = parts.join("/");
    match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// Whether `path` is `tree` or stands below it; both in the form of [`normal_path`].
pub fn is_within(path: &str, tree: &str) -> bool {
    if tree == "/" {
        return path.starts_with('/');
    }
    if tree == "." {
        return !path.starts_with('/');
    }
    path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The directory that holds a path, in the form of [`normal_path`]; none for `/` and for a relative path of one part.
pub fn parent_of(path: &str) -> Option<String> {
    let path = normal_path(path);
    match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/".to_owned()),
        Some(0) | None => None,
        Some(at) => Some(path[..at].to_owned()),
    }
}

/// Where a link at this path with this target leads, as far as that can be said without the host: through no other link.
pub fn link_leads_to(path: &str, target: &str) -> String {
    let whole = match parent_of(path) {
        Some(above) if !target.starts_with('/') => format!("{above}/{target}"),
        _ => target.to_owned(),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && !matches!(parts.last(), None | Some(&"..")) {
            parts.pop();
        } else if part != ".." || !whole.starts_with('/') {
            parts.push(part);
        }
    }
    format!("{}{}", if whole.starts_with('/') { "/" } else { "" }, parts.join("/"))
}

/// Whether only the host knows where a path leads.
fn goes_up(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

/// Whether a relative path may be an absolute one: only the host knows its working directory, but then that is how the absolute one ends.
fn may_be(relative: &str, absolute: &str) -> bool {
    let ends_like_it = || relative == "." || absolute.strip_suffix(relative).is_some_and(|above| above.ends_with('/'));
    goes_up(relative) || goes_up(absolute) || (!relative.starts_with('/') && absolute.starts_with('/') && ends_like_it())
}

/// Whether a path may stand in a tree that is spelt the other way.
fn may_be_within(path: &str, tree: &str) -> bool {
    goes_up(path)
        || goes_up(tree)
        || match (path.starts_with('/'), tree.starts_with('/')) {
            // The working directory may stand there.
            (false, true) => true,
            (true, false) => {
                tree == "." || std::iter::successors(Some(path.to_owned()), |path| parent_of(path)).any(|above| may_be(tree, &above))
            }
            _ => false,
        }
}

/// Which spaces a change below a path is also a change of. The table of the house: one place, tested.
const SPACES: &[(&str, Resource)] = &[
    ("/etc/passwd", Resource::Users),
    ("/etc/shadow", Resource::Users),
    ("/etc/group", Resource::Users),
    ("/etc/gshadow", Resource::Users),
    ("/etc/nsswitch.conf", Resource::Users),
    ("/etc/security", Resource::Session),
    ("/etc/environment", Resource::Session),
    ("/etc/profile", Resource::Session),
    ("/etc/profile.d", Resource::Session),
    ("/etc/pam.d", Resource::Session),
    ("/etc/systemd", Resource::Services),
    ("/etc/init.d", Resource::Services),
    ("/etc/rc.d", Resource::Services),
    ("/etc/runit", Resource::Services),
    ("/lib/systemd", Resource::Services),
    ("/usr/lib/systemd", Resource::Services),
    ("/usr/local/lib/systemd", Resource::Services),
    ("/run/systemd", Resource::Services),
    ("/var/lib/dpkg", Resource::Packages),
    ("/var/lib/rpm", Resource::Packages),
    ("/lib/apk", Resource::Packages),
    ("/etc/sysctl.conf", Resource::Kernel),
    ("/etc/sysctl.d", Resource::Kernel),
    ("/etc/modules-load.d", Resource::Kernel),
    ("/etc/modprobe.d", Resource::Kernel),
    ("/proc/sys", Resource::Kernel),
    ("/etc/network", Resource::Network),
    ("/etc/netplan", Resource::Network),
    ("/etc/resolv.conf", Resource::Network),
    ("/etc/hosts", Resource::Network),
    ("/etc/hostname", Resource::Network),
];

fn spaces_of(path: &str, tree: bool) -> impl Iterator<Item = Resource> {
    SPACES.iter().filter(move |(root, _)| is_within(path, root) || (tree && is_within(root, path))).map(|(_, space)| space.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_in_one_form() {
        for (path, normal) in [("/a//b/./c/", "/a/b/c"), ("a/b/", "a/b"), ("./a", "a"), ("/", "/"), (".", "."), ("", ".")] {
            assert_eq!(normal_path(path), normal);
        }
        for (path, parent) in [("/a/b", Some("/a")), ("/a", Some("/")), ("/", None), ("a", None), ("a/b", Some("a"))] {
            assert_eq!(parent_of(path).as_deref(), parent, "{path}");
        }
    }

    #[test]
    fn overlaps_follow_the_tree() {
        let overlap = |a: &Resources, b: &Resources| {
            assert_eq!(a.overlaps(b), b.overlaps(a), "{a:?} {b:?}");
            a.overlaps(b)
        };
        assert!(overlap(&Resources::tree("/srv"), &Resources::path("/srv/a")));
        assert!(!overlap(&Resources::tree("/srv"), &Resources::path("/srvx")));
        assert!(!overlap(&Resources::path("/srv"), &Resources::path("/srv/a")));
        assert!(overlap(&Resources::path("a/b"), &Resources::path("a//b")));
        assert!(overlap(&Resources::path("a"), &Resources::path("/root/a")));
        assert!(overlap(&Resources::Everything, &Resources::path("/x")));
        assert!(!overlap(&Resources::Everything, &Resources::none()));
    }

    #[test]
    fn links_lead_where_their_targets_say() {
        for (path, target, leads) in [
            ("/srv/current", "rel/1", "/srv/rel/1"),
            ("/srv/current", "../opt/./app/", "/opt/app"),
            ("/srv/current", "/opt/app", "/opt/app"),
            ("/a", "../../b", "/b"),
            ("site/now", "../rel", "rel"),
            ("now", "../rel", "../rel"),
        ] {
            assert_eq!(link_leads_to(path, target), leads, "{path} {target}");
        }
    }

    #[test]
    fn a_relative_path_may_be_the_end_of_an_absolute_one() {
        let path = |path: &str| Resources::path(path);
        for (relative, absolute, may) in [
            (path("made"), path("/srv/made"), true),
            (path("made"), path("/srv/made/put"), false),
            (path("made"), path("/srv/unmade"), false),
            (path("a/made"), path("/srv/made"), false),
            (path("."), path("/srv"), true),
            (path("../made"), path("/srv/put"), true),
            (Resources::tree("made"), path("/srv/made/put"), true),
            (Resources::tree("made"), path("/srv/other/put"), false),
            (path("made"), Resources::tree("/srv"), true),
            (Resources::tree("made"), Resources::tree("/srv"), true),
        ] {
            assert_eq!((relative.overlaps(&absolute), absolute.overlaps(&relative)), (may, may), "{relative:?} and {absolute:?}");
        }
    }

    #[test]
    fn a_path_is_known_by_its_real_one() {
        let mut aliases = Aliases::default();
        aliases.add("/srv/current", "/srv/rel/1");
        aliases.add("/www", "/srv/current/");
        aliases.add("/same", "/same/");
        aliases.add("site", "/root/site");
        aliases.add("now", "rel/1");
        assert_eq!(aliases.working_directory(), None);
        for (path, real) in [
            ("/srv/current", Some("/srv/rel/1")),
            ("/www/a/b", Some("/srv/rel/1/a/b")),
            ("/same/a", None),
            ("/srv/currently", None),
            ("site/a", Some("/root/site/a")),
            ("now/a", Some("rel/1/a")),
            ("/srv/rel/1/a", None),
        ] {
            assert_eq!(aliases.real(path).as_deref(), real, "{path}");
        }
        let there = Resources::path("/srv/rel/1/conf");
        assert!(Resources::path("/www/conf").with_real_paths(&aliases).overlaps(&there));
        assert!(Resources::tree("/srv/current").with_real_paths(&aliases).overlaps(&there));
        assert!(!Resources::path("/www/other").with_real_paths(&aliases).overlaps(&there));
        assert!(!Resources::path("site/a").with_real_paths(&aliases).overlaps(&Resources::path("/elsewhere")));
        assert!(Resources::path("other").with_real_paths(&aliases).overlaps(&Resources::path("/else/other")));
        aliases.add(".", "/root");
        assert_eq!(aliases.real("now/a").as_deref(), Some("/root/rel/1/a"));
        assert_eq!(aliases.real("/root/now/a").as_deref(), Some("/root/rel/1/a"));
        assert!(!Resources::path("other").with_real_paths(&aliases).overlaps(&Resources::path("/else/other")));
        assert!(Resources::path("other").with_real_paths(&aliases).overlaps(&Resources::path("/root/other")));
        aliases.add(".", "/home/ann");
        assert_eq!((aliases.real("other"), aliases.working_directory()), (None, None), "there are two of them");
        aliases.add("/circle/a", "/circle/b");
        aliases.add("/circle/b", "/circle/a");
        assert!(aliases.real("/circle/a/x").is_some());
    }

    #[test]
    fn paths_stand_for_their_spaces() {
        let users = Resources::only([Resource::Users]);
        let services = Resources::only([Resource::Services]);
        assert!(Resources::path("/etc/passwd").overlaps(&users));
        assert!(Resources::tree("/etc").overlaps(&users));
        assert!(Resources::path("/etc/systemd/system/a.service").overlaps(&services));
        assert!(!Resources::path("/etc/motd").overlaps(&users));
        assert!(!Resources::path("/etc").overlaps(&users));
    }
}
