//! Chains of wishes about users and groups, and about files in their homes and files that they own, made up at random. They come true in the root of a system that
//! nobody boots, never on this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use crate::world::{Call, Seen, listing};

/// The users that all is about. Each may have a group of its own name.
const USERS: &[&str] = &["u1", "u2", "u3"];

/// The groups that are nobody's own.
const GROUPS: &[&str] = &["g1", "g2"];

/// Where files and directories are: in homes, beside them, and where no user has anything.
const PATHS: &[&str] =
    &["/home/u1/a", "/home/u1/d", "/home/u1/d/a", "/home/u1", "/home/u2", "/home/u2/a", "/srv/h/a", "/srv/t/a", "/srv/t/l", "/srv/t/l/a"];

/// Those of them that are homes.
const HOMES: &[&str] = &["/home/u1", "/home/u2"];

/// Where links lead.
const TARGETS: &[&str] = &["/home/u1", "/home/u2", "/srv/h", "a"];

/// The files in which users and groups stand.
const TABLES: &[&str] = &["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];

const ANN: &str = "ssh-ed25519 AAAAann ann@one";
const BEN: &str = "ssh-ed25519 AAAAben ben@two";

/// What is wished.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// `server.user`
    User(UserWish),
    /// `server.user` that is not to be there
    NoUser(&'static str),
    /// `server.group`
    Group { name: &'static str, present: bool, gid: Option<u32> },
    /// `files.file`, or `files.directory`
    Owned { path: &'static str, directory: bool, owner: Owner, mode: Option<&'static str> },
    /// `files.put`
    Put { path: &'static str, content: &'static str, owner: Owner },
    /// `files.line`
    Line { path: &'static str, line: &'static str },
    /// `files.link`
    Link { path: &'static str, target: &'static str },
    /// `files.file` or `files.directory` that is not to be there
    Gone { path: &'static str, directory: bool },
}

/// What is wished of a user that is to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct UserWish {
    name: &'static str,
    group: Option<&'static str>,
    groups: Option<Vec<&'static str>>,
    append: bool,
    home: Option<&'static str>,
    ensure_home: bool,
    create_home: bool,
    shell: Option<&'static str>,
    uid: Option<u32>,
    keys: Option<Vec<&'static str>>,
    delete_keys: bool,
}

/// Who shall own a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owner {
    user: Option<&'static str>,
    group: Option<&'static str>,
    /// Wished also where nobody has made such a user or group by then.
    careless: bool,
}

/// What stands there before.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Of each user whether it is there, whether its home is, and whether it is in the first group.
    pub users: Vec<(bool, bool, bool)>,
    /// Of each group whether it is there.
    pub groups: Vec<bool>,
    /// Files, with the place of their owner among the users.
    pub files: Vec<(&'static str, usize)>,
}

fn user() -> impl Strategy<Value = &'static str> {
    prop::sample::select(USERS)
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn owner() -> impl Strategy<Value = Owner> {
    let user = prop::option::weighted(0.6, prop_oneof![4 => user(), 1 => Just("root")]);
    let group = prop::option::weighted(0.3, prop::sample::select(vec!["g1", "g2", "u1", "root"]));
    (user, group, prop::bool::weighted(0.05)).prop_map(|(user, group, careless)| Owner { user, group, careless })
}

fn a_user_wish() -> impl Strategy<Value = Wish> {
    let group = prop::option::weighted(0.25, prop::sample::select(vec!["g1", "g2", "u1"]));
    let groups = prop::option::weighted(0.4, prop::sample::subsequence(vec!["g1", "g2"], 0..=2));
    let home = prop::option::weighted(0.25, prop::sample::select(vec!["/srv/h", "/home/u1", "/srv/deep/h"]));
    let keys = prop::option::weighted(0.3, prop::sample::subsequence(vec![ANN, BEN], 0..=2));
    let shell = prop::option::weighted(0.2, prop::sample::select(vec!["/bin/sh", "/bin/bash"]));
    let uid = prop::option::weighted(0.15, prop::sample::select(vec![500, 501]));
    ((user(), group, groups, any::<bool>()), (home, prop::bool::weighted(0.8), rarely()), (shell, uid), (keys, any::<bool>())).prop_map(
        |((name, group, groups, append), (home, ensure_home, create_home), (shell, uid), (keys, delete_keys))| {
            let (append, delete_keys) = (append && groups.is_some(), delete_keys && keys.is_some());
            Wish::User(UserWish { name, group, groups, append, home, ensure_home, create_home, shell, uid, keys, delete_keys })
        },
    )
}

/// One wish.
fn a_wish() -> impl Strategy<Value = Wish> {
    let path = || prop::sample::select(PATHS);
    let file = || path().prop_filter("a home", |path| !HOMES.contains(path));
    let name = prop::sample::select(vec!["g1", "g2", "g1", "g2", "u1"]);
    let gid = prop::option::weighted(0.2, prop::sample::select(vec![700, 701]));
    let group = (name, prop::bool::weighted(0.8), gid).prop_map(|(name, present, gid)| Wish::Group { name, present, gid });
    let mode = prop::sample::select(vec![None, None, Some("755"), Some("750")]);
    let owned = (path(), any::<bool>(), owner(), mode).prop_map(|(path, directory, owner, mode)| Wish::Owned {
        path,
        // A home for some is no file for others.
        directory: directory || HOMES.contains(&path),
        owner,
        mode,
    });
    let content = prop::sample::select(vec!["one\n", "two\n"]);
    let put = (file(), content, owner()).prop_map(|(path, content, owner)| Wish::Put { path, content, owner });
    let line = (file(), prop::sample::select(vec!["one", "two"])).prop_map(|(path, line)| Wish::Line { path, line });
    let link = (prop::sample::select(vec!["/srv/t/l", "/home/u2"]), prop::sample::select(TARGETS))
        .prop_map(|(path, target)| Wish::Link { path, target });
    let gone = (path(), any::<bool>()).prop_map(|(path, directory)| Wish::Gone { path, directory });
    prop_oneof![5 => a_user_wish(), 1 => user().prop_map(Wish::NoUser), 3 => group, 3 => owned, 3 => put, 2 => line, 1 => link, 1 => gone]
}

/// A chain of wishes. An owner is mostly one that is there by then, for what follows a wish that fails halfway is not foretold.
pub fn a_chain() -> impl Strategy<Value = (Ground, Vec<Wish>)> {
    (a_ground(), proptest::collection::vec(a_wish(), 3..10)).prop_map(|(ground, mut wishes)| {
        let mut users: Vec<&str> = USERS.iter().zip(&ground.users).filter(|(_, (there, ..))| *there).map(|(name, _)| *name).collect();
        users.push("root");
        let mut groups = users.clone();
        groups.extend(GROUPS.iter().zip(&ground.groups).filter(|(_, there)| **there).map(|(name, _)| *name));
        for (place, wish) in wishes.iter_mut().enumerate() {
            match wish {
                Wish::User(wish) => {
                    // Now and then a group is wished that nobody has made.
                    if place % 6 != 5 {
                        wish.group = wish.group.filter(|group| groups.contains(group));
                        wish.groups.iter_mut().for_each(|all| all.retain(|group| groups.contains(group)));
                    }
                    users.push(wish.name);
                    groups.extend(wish.group.is_none().then_some(wish.name));
                }
                Wish::NoUser(name) => {
                    users.retain(|other| other != name);
                    groups.retain(|other| other != name);
                }
                Wish::Group { name, present: true, .. } => groups.push(name),
                Wish::Group { name, .. } => groups.retain(|other| other != name),
                Wish::Owned { owner, .. } | Wish::Put { owner, .. } if !owner.careless => {
                    owner.user = owner.user.filter(|user| users.contains(user));
                    owner.group = owner.group.filter(|group| groups.contains(group));
                }
                _ => {}
            }
        }
        (ground, wishes)
    })
}

fn a_ground() -> impl Strategy<Value = Ground> {
    let users = proptest::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), USERS.len());
    let groups = proptest::collection::vec(any::<bool>(), GROUPS.len());
    let files = proptest::collection::vec((prop::sample::select(vec!["/home/u1/a", "/srv/h/a", "/srv/t/a"]), 0..USERS.len()), 0..3);
    (users, groups, files).prop_map(|(users, groups, files)| Ground { users, groups, files })
}

/// A system whose users and groups can be put back to what they were.
pub struct System {
    folder: infra_test::SystemFolder,
    tables: Vec<(PathBuf, String)>,
}

/// A user as passwd(5) has it.
struct Account {
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// Where a path of the system is on this machine; a link on the way leads to where it leads within the system.
fn within(root: &Path, path: &str) -> PathBuf {
    let mut real = root.to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        real.push(part);
        // No chain makes a link behind which a link is needed.
        if let Ok(target) = fs::read_link(&real) {
            real.pop();
            real = target.strip_prefix("/").map_or_else(|_| real.join(&target), |target| root.join(target));
        }
    }
    real
}

impl System {
    /// A fresh one.
    pub fn new() -> Self {
        let folder = infra_test::SystemFolder::create().unwrap_or_else(|error| panic!("{error:?}"));
        let tables = TABLES.iter().map(|name| folder.root().join("etc").join(name));
        let tables = tables.map(|path| (path.clone(), fs::read_to_string(path).expect("a table"))).collect();
        Self { folder, tables }
    }

    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// Puts all back, and then lays the ground of a chain.
    pub fn lay(&self, ground: &Ground) {
        let root = self.root();
        for folder in ["home", "srv"].map(|name| root.join(name)) {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir(&folder).expect("a folder");
        }
        fs::create_dir(root.join("srv/t")).expect("a folder");
        fs::create_dir(root.join("srv/h")).expect("a folder");
        let mut tables: Vec<String> = self.tables.iter().map(|(_, text)| text.clone()).collect();
        let mut members = Vec::new();
        for (place, (there, home, member)) in ground.users.iter().enumerate().filter(|(_, (there, ..))| *there) {
            let (name, id) = (USERS[place], 1001 + place);
            assert!(*there);
            tables[0] += &format!("{name}:x:{id}:{id}::/home/{name}:/bin/sh\n");
            tables[1] += &format!("{name}:!:19700:0:99999:7:::\n");
            tables[2] += &format!("{name}:x:{id}:\n");
            tables[3] += &format!("{name}:!::\n");
            if *home {
                let home = root.join("home").join(name);
                fs::create_dir(&home).expect("a home");
                chown(&home, Some(id as u32), Some(id as u32)).expect("root");
            }
            members.extend(member.then_some(name));
        }
        for (place, _) in ground.groups.iter().enumerate().filter(|(_, there)| **there) {
            let members = if place == 0 { members.join(",") } else { String::new() };
            tables[2] += &format!("{}:x:{}:{members}\n", GROUPS[place], 1501 + place);
            tables[3] += &format!("{}:!::{members}\n", GROUPS[place]);
        }
        for ((path, _), text) in self.tables.iter().zip(tables) {
            fs::write(path, text).expect("root");
        }
        for (path, owner) in &ground.files {
            let path = root.join(&path[1..]);
            if fs::write(&path, "one\n").is_ok() {
                chown(&path, Some(1001 + *owner as u32), Some(1001 + *owner as u32)).expect("root");
            }
        }
    }

    /// How things stand, and for each wish whether it is fulfilled.
    pub fn look(root: &Path, wishes: &[Wish]) -> Seen {
        let mut all: Vec<String> = ["home", "srv"].iter().flat_map(|name| listing(&root.join(name))).collect();
        for name in TABLES {
            all.extend(
                fs::read_to_string(root.join("etc").join(name))
                    .expect("a table")
                    .lines()
                    .rev()
                    .take(8)
                    .map(|line| format!("{name}: {line}")),
            );
        }
        let view = View { root };
        Seen {
            listing: all,
            fulfilled: wishes.iter().map(|wish| view.is_fulfilled(wish)).collect(),
            ownerless: wishes.iter().map(|wish| view.is_ownerless(wish)).collect(),
        }
    }
}

/// The system as the test itself reads it.
struct View<'a> {
    root: &'a Path,
}

impl View<'_> {
    fn table(&self, name: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.root.join("etc").join(name)).expect("a table");
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect()
    }

    fn account(&self, name: &str) -> Option<Account> {
        let fields = self.table("passwd").into_iter().find(|fields| fields[0] == name)?;
        let number = |place: usize| fields[place].parse().expect("a number");
        Some(Account { uid: number(2), gid: number(3), home: fields[5].clone(), shell: fields[6].clone() })
    }

    fn group(&self, name: &str) -> Option<(u32, Vec<String>)> {
        let fields = self.table("group").into_iter().find(|fields| fields[0] == name)?;
        let members = fields[3].split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        Some((fields[2].parse().expect("a number"), members))
    }

    fn is_owned(&self, at: &Path, owner: &Owner) -> bool {
        let found = fs::metadata(at).expect("it is there");
        owner.user.is_none_or(|user| self.account(user).is_some_and(|user| user.uid == found.uid()))
            && owner.group.is_none_or(|group| self.group(group).is_some_and(|(gid, _)| gid == found.gid()))
    }

    /// Whether a file is wished to be owned by somebody who is not there.
    fn is_ownerless(&self, wish: &Wish) -> bool {
        match wish {
            Wish::Owned { owner, .. } | Wish::Put { owner, .. } => {
                owner.user.is_some_and(|user| self.account(user).is_none()) || owner.group.is_some_and(|group| self.group(group).is_none())
            }
            _ => false,
        }
    }

    fn is_fulfilled(&self, wish: &Wish) -> bool {
        let at = |path: &str| within(self.root, path);
        let spelt = |path: &str| {
            let (above, name) = path.rsplit_once('/').expect("a path from the root");
            at(above).join(name)
        };
        match wish {
            Wish::User(wish) => self.is_user(wish),
            Wish::NoUser(name) => self.account(name).is_none(),
            Wish::Group { name, present, gid } => match self.group(name) {
                Some((found, _)) => *present && gid.is_none_or(|gid| gid == found),
                None => !present,
            },
            Wish::Owned { path, directory, owner, mode } => {
                let at = at(path);
                let there = if *directory { at.is_dir() } else { at.is_file() };
                let bits = |mode: &str| u32::from_str_radix(mode, 8).expect("octal digits");
                let is_mode = |mode: &str| fs::metadata(&at).expect("it is there").mode() & 0o7777 == bits(mode);
                there && self.is_owned(&at, owner) && mode.is_none_or(is_mode)
            }
            Wish::Put { path, content, owner } => {
                let at = at(path);
                fs::read_to_string(&at).is_ok_and(|text| text == *content) && self.is_owned(&at, owner)
            }
            Wish::Line { path, line } => fs::read_to_string(at(path)).is_ok_and(|text| text.lines().any(|found| found == *line)),
            Wish::Link { path, target } => fs::read_link(spelt(path)).is_ok_and(|found| found == Path::new(target)),
            Wish::Gone { path, .. } => fs::symlink_metadata(spelt(path)).is_err(),
        }
    }

    fn is_user(&self, wish: &UserWish) -> bool {
        let Some(found) = self.account(wish.name) else { return false };
        let lists = |group: &str| self.group(group).is_some_and(|(_, members)| members.iter().any(|member| member == wish.name));
        let at = |path: &str| within(self.root, path);
        let home = wish.home.map_or_else(|| format!("/home/{}", wish.name), str::to_owned);
        let groups = wish.groups.as_ref().is_none_or(|groups| {
            groups.iter().all(|group| lists(group))
                && (wish.append || self.table("group").iter().all(|fields| groups.contains(&fields[0].as_str()) || !lists(&fields[0])))
        });
        let keys = wish.keys.as_ref().filter(|keys| wish.delete_keys || !keys.is_empty()).is_none_or(|keys| {
            let (folder, file) = (at(&format!("{}/.ssh", found.home)), at(&format!("{}/.ssh/authorized_keys", found.home)));
            let text = fs::read_to_string(&file);
            if keys.is_empty() && text.is_err() {
                return !file.exists();
            }
            let holds = |text: &String| {
                if wish.delete_keys {
                    text.lines().eq(keys.iter().copied())
                } else {
                    keys.iter().all(|key| text.lines().any(|line| line == *key))
                }
            };
            let is_theirs = |path: &Path, mode: u32| {
                fs::metadata(path).is_ok_and(|status| (status.uid(), status.gid(), status.mode() & 0o7777) == (found.uid, found.gid, mode))
            };
            text.is_ok_and(|text| holds(&text)) && is_theirs(&folder, 0o700) && is_theirs(&file, 0o600)
        });
        wish.group.is_none_or(|group| self.group(group).is_some_and(|(gid, _)| gid == found.gid))
            && groups
            && wish.home.is_none_or(|home| home == found.home)
            && (!wish.ensure_home || found.home != home || at(&home).is_dir())
            && wish.shell.is_none_or(|shell| shell == found.shell)
            && wish.uid.is_none_or(|uid| uid == found.uid)
            && keys
    }
}

/// How deploys write a wish.
pub fn call_of(wish: &Wish) -> Call {
    let (kind, mut arguments) = match wish {
        Wish::User(wish) => (
            "server.user",
            json!({
                "user": wish.name, "group": wish.group, "groups": wish.groups, "append": wish.append, "home": wish.home, "ensure_home": wish.ensure_home,
                "create_home": wish.create_home, "shell": wish.shell, "uid": wish.uid, "public_keys": wish.keys, "delete_keys": wish.delete_keys,
            }),
        ),
        Wish::NoUser(name) => ("server.user", json!({ "user": name, "present": false })),
        Wish::Group { name, present, gid } => ("server.group", json!({ "group": name, "present": present, "gid": gid })),
        Wish::Owned { path, directory, owner, mode } => {
            let kind = if *directory { "files.directory" } else { "files.file" };
            (kind, json!({ "path": path, "user": owner.user, "group": owner.group, "mode": mode, "force": true, "force_backup": false }))
        }
        Wish::Put { path, content, owner } => (
            "files.put",
            json!({ "dest": path, "content": content, "user": owner.user, "group": owner.group, "force": true, "force_backup": false }),
        ),
        Wish::Line { path, line } => ("files.line", json!({ "path": path, "line": line })),
        Wish::Link { path, target } => ("files.link", json!({ "path": path, "target": target, "force": true, "force_backup": false })),
        Wish::Gone { path, directory } => (
            if *directory { "files.directory" } else { "files.file" },
            json!({ "path": path, "present": false, "force": true, "force_backup": false }),
        ),
    };
    arguments.as_object_mut().expect("a map").retain(|_, value| !value.is_null());
    (kind.to_owned(), arguments)
}
