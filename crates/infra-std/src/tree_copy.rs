//! The way from a tree on a host to that of the controller: what `files.sync` does, worked out from both trees alone.

use std::collections::{BTreeMap, BTreeSet};

use infra_core::change::{Action, Change, Content, TreeEntry, TreeNode, TreeUpload};
use infra_core::command::{Command, Shell, quote};
use infra_core::facts::DiffError;
use infra_core::mode::Mode;
use infra_core::node::{LinkNode, Node};
use infra_core::output::size;
use infra_core::sh;
use infra_core::tree::{LocalNode, LocalTree};

use crate::facts::files::tree::{Contents, Entry, EntryKind};
use crate::facts::server::identity::WhoAsks;
use crate::file_content::ModeWish;
use crate::ownership::{Ownership, Permissions, Target, mode_digits};
use crate::placement::Maker;

/// One stream has at most so many bytes of files, unless a single one has more: what is in place is not sent again after the line broke.
const STREAM: u64 = 256 << 20;
/// And at most so many files.
const STREAM_FILES: usize = 2000;
/// How many bytes of words stand in one command.
const WORDS: usize = 32 * 1024;

/// What is wished of a tree beyond its content.
#[derive(Clone, Copy, Debug)]
pub struct Wishes<'a> {
    /// The directory on the host.
    pub dest: &'a str,
    /// The directory of the controller.
    pub src: &'a str,
    /// The owner of all.
    pub user: Option<&'a str>,
    /// The group of all.
    pub group: Option<&'a str>,
    /// The mode of files.
    pub mode: Option<&'a ModeWish>,
    /// The mode of directories.
    pub dir_mode: Option<&'a ModeWish>,
    /// Whether what the controller has not is removed.
    pub delete: bool,
}

/// What is to be done, and what will stand then.
#[derive(Clone, Debug, Default)]
pub struct TreeCopy {
    obstacles: BTreeMap<String, EntryKind>,
    directories: Vec<String>,
    uploads: Vec<TreeEntry>,
    owners: Vec<String>,
    modes: BTreeMap<(u32, bool), Vec<String>>,
    gone: Vec<String>,
    gone_directories: Vec<String>,
    /// How many things only change their owner, group or mode.
    settled: usize,
    /// The root as it will be.
    root: Option<Permissions>,
    after: BTreeMap<String, Entry>,
    changed: BTreeSet<String>,
    /// Whether all names of owners and groups that will stand are known.
    foretold: bool,
}

impl Wishes<'_> {
    fn ownership<'m>(&self, mode: Option<&'m Mode>) -> Ownership<'m>
    where
        Self: 'm,
    {
        Ownership { user: self.user, group: self.group, mode }
    }

    fn owner(&self) -> Option<String> {
        match (self.user, self.group) {
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
            (Some(user), None) => Some(user.to_owned()),
            (None, Some(group)) => Some(format!(":{group}")),
            (None, None) => None,
        }
    }

    fn full(&self, path: &str) -> String {
        if path.is_empty() { self.dest.to_owned() } else { format!("{}/{path}", self.dest.trim_end_matches('/')) }
    }
}

fn resolve(wish: Option<&ModeWish>, local: u32) -> Option<Mode> {
    match wish {
        Some(ModeWish::Mode(mode)) => Some(mode.clone()),
        Some(ModeWish::Local(true)) => Some(Mode::Bits(local)),
        Some(ModeWish::Local(false)) | None => None,
    }
}

impl Entry {
    fn permissions(&self) -> Permissions {
        let mode = if let Mode::Bits(bits) = self.mode { bits } else { 0 };
        Permissions { mode, user: self.user.clone(), group: self.group.clone(), uid: self.uid, gid: self.gid }
    }
}

fn parent_of(path: &str) -> &str {
    path.rfind('/').map_or("", |at| &path[..at])
}

fn spelt(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "a file",
        EntryKind::Directory => "a directory",
        EntryKind::Link => "a link",
        EntryKind::Special => "a socket, pipe or device",
    }
}

impl TreeCopy {
    /// Works out what is to be done. `found` is the tree on the host, and none where nothing is; `fresh_root` is what a directory made at the root would be.
    ///
    /// # Errors
    /// [`DiffError::Refused`] when something is in the way that may not be removed.
    pub fn between(
        local: &LocalTree,
        found: Option<&Contents>,
        wishes: &Wishes<'_>,
        who: &WhoAsks,
        fresh_root: &Permissions,
    ) -> Result<Self, DiffError> {
        let there: BTreeMap<&str, &Entry> =
            found.iter().flat_map(|found| &found.entries).map(|entry| (entry.path.as_str(), entry)).collect();
        let mut copy = Self { foretold: true, ..Self::default() };
        let mut folders: BTreeMap<&str, Permissions> = BTreeMap::new();
        let root = copy.directory("", local.mode, found.map(|found| found.root.permissions()), fresh_root.clone(), wishes, who);
        copy.root = Some(root.clone());
        folders.insert("", root);
        for (path, node) in &local.entries {
            let maker = Maker::new(who, &folders[parent_of(path)]);
            let old = there.get(path.as_str()).copied();
            match node {
                LocalNode::Directory { mode } => {
                    let now = old.filter(|entry| entry.kind == EntryKind::Directory).map(Entry::permissions);
                    if let (None, Some(other)) = (&now, old) {
                        copy.obstacles.insert(path.clone(), other.kind);
                    }
                    let after = copy.directory(path, *mode, now, maker.directory(), wishes, who);
                    copy.will_stand(path, EntryKind::Directory, &after);
                    folders.insert(path, after);
                }
                LocalNode::File { size, mode, sha256 } => copy.file(path, (*size, *mode, sha256), old, &maker, wishes, who),
                LocalNode::Link(target) => copy.link(path, target, old, &maker, wishes, who),
            }
        }
        if let Some(found) = found {
            copy.compare_others(local, found, wishes)?;
        }
        copy.check_obstacles(found, wishes)?;
        Ok(copy)
    }

    fn will_stand(&mut self, path: &str, kind: EntryKind, after: &Permissions) -> &mut Entry {
        self.foretold &= after.known_user().is_some() && after.known_group().is_some();
        self.after.insert(path.to_owned(), Entry::new(path, kind, after));
        self.after.get_mut(path).expect("it was just put in")
    }

    /// Notes what owner and mode something is to be given.
    fn settle(
        &mut self,
        path: &str,
        now: &Permissions,
        mode: Option<&Mode>,
        target: Target,
        wishes: &Wishes<'_>,
        who: &WhoAsks,
    ) -> Permissions {
        let is_directory = target == Target::Directory;
        let ownership = wishes.ownership(mode);
        let after = ownership.settle(path, now, target, who.umask).after;
        let (owner, _) = ownership.holds(now, is_directory, who.umask);
        let lost = target == Target::File && !owner && now.mode & 0o6000 != 0;
        if !owner {
            self.owners.push(path.to_owned());
        }
        if target != Target::Link && (after.mode != now.mode || lost) {
            self.modes.entry((after.mode, is_directory)).or_default().push(path.to_owned());
        }
        after
    }

    fn directory(
        &mut self,
        path: &str,
        local: u32,
        now: Option<Permissions>,
        fresh: Permissions,
        wishes: &Wishes<'_>,
        who: &WhoAsks,
    ) -> Permissions {
        let mode = resolve(wishes.dir_mode, local);
        let before = (self.owners.len(), self.modes.values().map(Vec::len).sum::<usize>());
        let is_new = now.is_none();
        let now = now.unwrap_or(fresh);
        // No one else enters a new one before it has its owner and mode.
        let private = is_new && (mode.is_some() || wishes.owner().is_some());
        let after = self.settle(path, &now, mode.as_ref(), Target::Directory, wishes, who);
        if is_new {
            self.directories.push(path.to_owned());
            self.changed.insert(path.to_owned());
        }
        if private && after.mode == now.mode {
            self.modes.entry((after.mode, true)).or_default().push(path.to_owned());
        } else if !is_new && before != (self.owners.len(), self.modes.values().map(Vec::len).sum()) {
            self.settled += 1;
            self.changed.insert(path.to_owned());
        }
        after
    }

    fn file(
        &mut self,
        path: &str,
        (size, mode, sha256): (u64, u32, &str),
        old: Option<&Entry>,
        maker: &Maker,
        wishes: &Wishes<'_>,
        who: &WhoAsks,
    ) {
        let mode = resolve(wishes.mode, mode);
        let fresh = maker.file();
        let old_file = old.filter(|entry| entry.kind == EntryKind::File);
        let after = match old_file {
            Some(file) if file.sha256.as_deref() == Some(sha256) => {
                let (owners, now) = (self.owners.len(), file.permissions());
                let after = self.settle(path, &now, mode.as_ref(), Target::File, wishes, who);
                if after != now || self.owners.len() > owners {
                    self.settled += 1;
                    self.changed.insert(path.to_owned());
                }
                after
            }
            _ => {
                self.displace(path, old);
                let now = old_file.map_or_else(|| fresh.clone(), Entry::permissions);
                let after = wishes.ownership(mode.as_ref()).settle(path, &now, Target::File, who.umask).after;
                let same_owner = (&after.user, &after.group) == (&fresh.user, &fresh.group);
                let number = |id: Option<u32>, name: &str| id.map_or_else(|| name.to_owned(), |id| id.to_string());
                let owner = format!("{}:{}", number(after.uid, &after.user), number(after.gid, &after.group));
                let content =
                    Content::LocalFile { path: format!("{}/{path}", wishes.src.trim_end_matches('/')), size, sha256: sha256.to_owned() };
                self.uploads.push(TreeEntry {
                    path: path.to_owned(),
                    what: TreeNode::File { content, mode: after.mode },
                    owner: (!same_owner).then_some(owner),
                });
                self.changed.insert(path.to_owned());
                after
            }
        };
        let entry = self.will_stand(path, EntryKind::File, &after);
        (entry.size, entry.sha256) = (Some(size), Some(sha256.to_owned()));
    }

    /// What stands where a file or a link is to be written. One of those two is replaced as it is.
    fn displace(&mut self, path: &str, old: Option<&Entry>) {
        if let Some(other) = old.filter(|entry| matches!(entry.kind, EntryKind::Directory | EntryKind::Special)) {
            self.obstacles.insert(path.to_owned(), other.kind);
        }
    }

    fn link(&mut self, path: &str, target: &str, old: Option<&Entry>, maker: &Maker, wishes: &Wishes<'_>, who: &WhoAsks) {
        let after = match old {
            Some(link) if link.kind == EntryKind::Link && link.target.as_deref() == Some(target) => {
                let now = link.permissions();
                let after = self.settle(path, &now, None, Target::Link, wishes, who);
                if after != now {
                    self.settled += 1;
                    self.changed.insert(path.to_owned());
                }
                after
            }
            _ => {
                self.displace(path, old);
                self.uploads.push(TreeEntry { path: path.to_owned(), what: TreeNode::Link(target.to_owned()), owner: wishes.owner() });
                self.changed.insert(path.to_owned());
                wishes.ownership(None).settle(path, &maker.link(), Target::Link, who.umask).after
            }
        };
        self.will_stand(path, EntryKind::Link, &after).target = Some(target.to_owned());
    }

    /// What the host has and the controller has not: it goes, or stays.
    fn compare_others(&mut self, local: &LocalTree, found: &Contents, wishes: &Wishes<'_>) -> Result<(), DiffError> {
        if wishes.delete && found.strange > 0 {
            let message = format!("{} below {} have a name, or lead to one, that is no line of UTF-8", found.strange, wishes.dest);
            return Err(DiffError::refused_with_hint(message, "rename or remove them, or leave `delete` out"));
        }
        let within_obstacle = |copy: &Self, path: &str| path.match_indices('/').any(|(at, _)| copy.obstacles.contains_key(&path[..at]));
        let holds_excluded = |path: &str| found.excluded.iter().any(|one| one.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
        for entry in found.entries.iter().filter(|entry| !local.entries.contains_key(&entry.path)) {
            if within_obstacle(self, &entry.path) {
                continue;
            }
            let is_directory = entry.kind == EntryKind::Directory;
            if !wishes.delete || (is_directory && holds_excluded(&entry.path)) {
                self.after.insert(entry.path.clone(), entry.clone());
            } else if is_directory {
                self.gone_directories.push(entry.path.clone());
            } else {
                self.gone.push(entry.path.clone());
            }
        }
        // What a directory holds goes before it.
        self.gone_directories.reverse();
        Ok(())
    }

    fn check_obstacles(&self, found: Option<&Contents>, wishes: &Wishes<'_>) -> Result<(), DiffError> {
        let Some((path, kind)) = self.obstacles.iter().next() else { return Ok(()) };
        if !wishes.delete {
            let message =
                format!("{} is in the way: it is {} on the host, and something else in {}", wishes.full(path), spelt(*kind), wishes.src);
            return Err(DiffError::refused_with_hint(
                message,
                "remove it, or give delete = true, which removes all that the source has not",
            ));
        }
        let excluded = found.iter().flat_map(|found| &found.excluded);
        for one in excluded {
            if let Some(above) =
                self.obstacles.keys().find(|path| one.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/')))
            {
                let message = format!("{} is in the way and holds {}, which is left out", wishes.full(above), wishes.full(one));
                return Err(DiffError::refused_with_hint(message, "move it away by hand"));
            }
        }
        Ok(())
    }

    /// Whether the host is as wished.
    pub fn is_none(&self) -> bool {
        self.changed.is_empty() && self.gone.is_empty() && self.gone_directories.is_empty() && self.obstacles.is_empty()
    }

    /// How many things will stand in the tree.
    pub fn count(&self) -> usize {
        self.after.len()
    }

    /// The change, with what will stand below `dest`; `before` are commands that make the directories above it.
    pub fn change(&self, wishes: &Wishes<'_>, before: Vec<Shell>) -> Change {
        let mut change = Change::new(self.reason());
        let full = |paths: &[String]| paths.iter().map(|path| wishes.full(path)).collect::<Vec<_>>();
        let mut commands: Vec<Shell> = before;
        let obstacles: Vec<String> = self.obstacles.keys().cloned().collect();
        commands.extend(batches("rm -rf --", &full(&obstacles)));
        let private = wishes.dir_mode.is_some_and(|mode| *mode != ModeWish::Local(false)) || wishes.owner().is_some();
        commands.extend(batches(if private { "mkdir -m 700 --" } else { "mkdir --" }, &full(&self.directories)));
        change = run_all(change, commands);
        for entries in self.streams() {
            change = change.then(Action::UploadTree(TreeUpload { root: wishes.dest.to_owned(), entries }));
        }
        let mut commands = Vec::new();
        if let Some(owner) = wishes.owner() {
            commands.extend(batches(&format!("chown -h -- {}", quote(&owner)), &full(&self.owners)));
        }
        // What a directory holds comes before it: its new mode may keep us out.
        for ((mode, is_directory), paths) in self.modes.iter().rev() {
            let mut paths = full(paths);
            paths.reverse();
            commands.extend(batches(&format!("chmod -- {}", mode_digits(*mode, *is_directory)), &paths));
        }
        commands.extend(batches("rm -f --", &full(&self.gone)));
        commands.extend(batches("rmdir --", &full(&self.gone_directories)));
        change = run_all(change, commands);
        let written = self.uploads.iter().filter(|entry| matches!(entry.what, TreeNode::File { .. })).take(LISTED);
        let why = "files of a tree are not shown";
        change = written.fold(change, |change, entry| change.withheld(wishes.full(&entry.path), why));
        self.effects(change, wishes)
    }

    /// What is written, in as many streams as it takes.
    fn streams(&self) -> Vec<Vec<TreeEntry>> {
        let mut all: Vec<Vec<TreeEntry>> = Vec::new();
        let mut bytes = 0;
        for entry in &self.uploads {
            let size = if let TreeNode::File { content, .. } = &entry.what { content.size() } else { 0 };
            match all.last_mut() {
                Some(open) if bytes + size <= STREAM && open.len() < STREAM_FILES => open.push(entry.clone()),
                _ => {
                    all.push(vec![entry.clone()]);
                    bytes = 0;
                }
            }
            bytes += size;
        }
        all
    }

    fn reason(&self) -> String {
        let count = |number: usize, one: &str, many: &str| match number {
            0 => None,
            1 => Some(format!("1 {one}")),
            number => Some(format!("{number} {many}")),
        };
        let written: u64 = TreeUpload { root: String::new(), entries: self.uploads.clone() }.size();
        let parts = [
            count(self.directories.len(), "new directory", "new directories"),
            count(self.uploads.len(), "file written", "files written").map(|text| format!("{text} ({})", size(written))),
            count(self.settled, "owner or mode set", "owners or modes set"),
            count(self.gone.len() + self.gone_directories.len() + self.obstacles.len(), "removed", "removed"),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    fn effects(&self, mut change: Change, wishes: &Wishes<'_>) -> Change {
        for path in self.gone.iter().chain(&self.gone_directories) {
            change = change.node(wishes.full(path), Node::Absent);
        }
        for path in &self.changed {
            let is_new = self.directories.contains(path);
            let node = match self.after.get(path) {
                None => self.root.as_ref().map(|root| Node::Directory(root.directory_node(is_new))),
                Some(entry) => {
                    let after = entry.permissions();
                    Some(match entry.kind {
                        EntryKind::Directory => Node::Directory(after.directory_node(is_new)),
                        EntryKind::File => {
                            Node::File(infra_core::node::FileNode { size: entry.size, sha256: entry.sha256.clone(), ..after.file_node() })
                        }
                        _ => Node::Link(LinkNode {
                            target: entry.target.clone().unwrap_or_default(),
                            user: after.known_user(),
                            group: after.known_group(),
                        }),
                    })
                }
            };
            change = node.into_iter().fold(change, |change, node| change.node(wishes.full(path), node));
        }
        change
    }

    /// The tree as it will be found, where that is known; `old` is that of before.
    pub fn contents(&self, old: Option<&Contents>) -> Option<Contents> {
        let root = self.root.as_ref().filter(|root| self.foretold && root.known_user().is_some() && root.known_group().is_some())?;
        let status = crate::file_status::Status {
            uid: root.uid,
            gid: root.gid,
            link_target: old.and_then(|old| old.root.link_target.clone()),
            ..crate::file_status::Status::foreseen(root.mode, &root.user, &root.group, None)
        };
        let (excluded, strange) = old.map(|old| (old.excluded.clone(), old.strange)).unwrap_or_default();
        Some(Contents { root: status, entries: self.after.values().cloned().collect(), excluded, strange })
    }
}

/// How many files a plan names at the most.
const LISTED: usize = 100;

/// One command for many paths, as several of a length that every system takes.
fn batches(command: &str, paths: &[String]) -> Vec<Shell> {
    let mut all: Vec<(String, usize)> = Vec::new();
    for path in paths {
        let word = quote(path);
        match all.last_mut() {
            Some((open, length)) if *length + word.len() <= WORDS => {
                open.push(' ');
                open.push_str(&word);
                *length += word.len() + 1;
            }
            _ => all.push((format!("{command} {word}"), word.len())),
        }
    }
    all.into_iter().map(|(text, _)| Shell::verbatim(text)).collect()
}

/// Adds commands as few steps of a length that a shell takes well.
fn run_all(mut change: Change, commands: Vec<Shell>) -> Change {
    let mut open: Option<Shell> = None;
    for command in commands {
        open = Some(match open {
            Some(before) if before.as_str().len() + command.as_str().len() <= 2 * WORDS => sh!("{} && {}", before, command),
            Some(before) => {
                change = change.then(Action::Run(Command::new(before)));
                command
            }
            None => command,
        });
    }
    match open {
        Some(command) => change.then(Action::Run(Command::new(command))),
        None => change,
    }
}
