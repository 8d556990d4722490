//! Owner, group and mode of files and directories: as they are, as they are wished, and the commands from the one to the other.

use infra_core::command::Shell;
use infra_core::mode::Mode;
use infra_core::node::{DirectoryNode, FileNode};
use infra_core::sh;

/// Who owns a thing and what may be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The permission bits, 0 to 0o7777.
    pub mode: u32,
    /// The owner's name.
    pub user: String,
    /// The group's name.
    pub group: String,
    /// The owner's number, where known.
    pub uid: Option<u32>,
    /// The group's number, where known.
    pub gid: Option<u32>,
}

impl Permissions {
    /// The owner's name as a fact will give it; none where a number was asked for, whose name only the host knows.
    pub fn known_user(&self) -> Option<String> {
        known_name(&self.user, self.uid)
    }

    /// The group's name, likewise.
    pub fn known_group(&self) -> Option<String> {
        known_name(&self.group, self.gid)
    }

    /// A directory with these, in which nothing was made by the plan unless `fresh`.
    pub fn directory_node(&self, fresh: bool) -> DirectoryNode {
        DirectoryNode { mode: Some(self.mode), user: self.known_user(), group: self.known_group(), fresh }
    }

    /// A file with these, of which nothing else is known.
    pub fn file_node(&self) -> FileNode {
        FileNode { mode: Some(self.mode), user: self.known_user(), group: self.known_group(), ..FileNode::default() }
    }
}

/// What is wished; what is not given stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ownership<'a> {
    /// The owner: a name, or a number as text.
    pub user: Option<&'a str>,
    /// The group: a name, or a number as text.
    pub group: Option<&'a str>,
    /// The mode.
    pub mode: Option<&'a Mode>,
}

/// The type of the thing, as far as chown(1) and chmod(1) care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link itself, which has an owner but no mode of its own.
    Link,
}

/// The way from how things stand to what is wished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The commands, in order; none when all is as wished.
    pub commands: Vec<Shell>,
    /// What will stand then.
    pub after: Permissions,
    /// What changes, for a person: `mode 600 → 644`.
    pub reasons: Vec<String>,
}

impl Ownership<'_> {
    /// Whether nothing is wished.
    pub fn is_none(&self) -> bool {
        self.user.is_none() && self.group.is_none() && self.mode.is_none()
    }

    /// The wishes about the owner alone, which are those for parents that are made on the way.
    pub fn without_mode(&self) -> Self {
        Self { mode: None, ..*self }
    }

    /// From `now` to what is wished. `umask` limits symbolic changes that name nobody.
    pub fn settle(&self, path: &str, now: &Permissions, target: Target, umask: u32) -> Settled {
        let mut settled = Settled { commands: Vec::new(), after: now.clone(), reasons: Vec::new() };
        let user = self.user.filter(|user| !names(user, &now.user, now.uid));
        let group = self.group.filter(|group| !names(group, &now.group, now.gid));
        if let Some(user) = user {
            settled.after.user = user.to_owned();
            settled.after.uid = None;
            settled.reasons.push(format!("owner {} → {user}", now.user));
        }
        if let Some(group) = group {
            settled.after.group = group.to_owned();
            settled.after.gid = None;
            settled.reasons.push(format!("group {} → {group}", now.group));
        }
        settled.commands.extend(change_owner(user, group, path, target == Target::Link));
        if target == Target::Link {
            return settled;
        }
        let mode = self.mode.map_or(now.mode, |mode| mode.apply(now.mode, target == Target::Directory, umask));
        // The kernel takes these bits from a file that changes hands (chown(2)), also when the mode was not to change.
        let lost = target == Target::File && now.mode & 0o6000 != 0 && !settled.commands.is_empty();
        if mode != now.mode {
            settled.reasons.push(format!("mode {:o} → {mode:o}", now.mode));
        }
        if mode != now.mode || lost {
            settled.after.mode = mode;
            settled.commands.push(change_mode(mode, path, target == Target::Directory && now.mode & 0o6000 & !mode != 0));
        }
        settled
    }

    /// Whether one thing is as wished: first its owner and group, then its mode.
    pub fn holds(&self, now: &Permissions, directory: bool, umask: u32) -> (bool, bool) {
        let owner = self.user.is_none_or(|user| names(user, &now.user, now.uid))
            && self.group.is_none_or(|group| names(group, &now.group, now.gid));
        (owner, self.mode.is_none_or(|mode| mode.apply(now.mode, directory, umask) == now.mode))
    }
}

fn known_name(name: &str, id: Option<u32>) -> Option<String> {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    (id.is_some() || !is_number).then(|| name.to_owned())
}

/// Whether a wished user or group, a name or a number, is the one that is there.
fn names(wished: &str, name: &str, id: Option<u32>) -> bool {
    wished == name || (id.is_some() && wished.parse().ok() == id)
}

fn change_owner(user: Option<&str>, group: Option<&str>, path: &str, link: bool) -> Option<Shell> {
    match (user, group, link) {
        (Some(user), Some(group), false) => Some(sh!("chown -- {} {}", format!("{user}:{group}"), path)),
        (Some(user), Some(group), true) => Some(sh!("chown -h -- {} {}", format!("{user}:{group}"), path)),
        (Some(user), None, false) => Some(sh!("chown -- {} {}", user, path)),
        (Some(user), None, true) => Some(sh!("chown -h -- {} {}", user, path)),
        (None, Some(group), false) => Some(sh!("chgrp -- {} {}", group, path)),
        (None, Some(group), true) => Some(sh!("chgrp -h -- {} {}", group, path)),
        (None, None, _) => None,
    }
}

/// The command that sets a mode; `clears` when it takes set-id bits from a directory.
pub fn change_mode(mode: u32, path: &str, clears: bool) -> Shell {
    sh!("chmod -- {} {}", mode_digits(mode, clears), path)
}

/// The digits of a mode for chmod(1). GNU's keeps the set-id bits of a directory unless there are five digits.
pub fn mode_digits(mode: u32, clears: bool) -> String {
    if clears { format!("{mode:05o}") } else { format!("{mode:o}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(mode: u32) -> Permissions {
        Permissions { mode, user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0) }
    }

    fn steps(user: Option<&str>, group: Option<&str>, mode: Option<&str>, now: u32, target: Target) -> (String, u32) {
        let mode = mode.map(|text| Mode::parse(text).expect("a mode"));
        let settled = Ownership { user, group, mode: mode.as_ref() }.settle("/p", &root(now), target, 0o022);
        (Shell::join(" && ", settled.commands).to_string(), settled.after.mode)
    }

    #[test]
    fn the_name_of_a_number_is_not_foretold() {
        let settled = Ownership { user: Some("4711"), ..Ownership::default() }.settle("/p", &root(0o644), Target::File, 0o022);
        assert_eq!((settled.after.known_user(), settled.after.known_group().as_deref()), (None, Some("root")));
        let nameless = Permissions { user: "4711".into(), uid: Some(4711), ..root(0o644) };
        assert_eq!(nameless.known_user().as_deref(), Some("4711"));
    }

    #[test]
    fn only_what_differs_is_changed() {
        use Target::{Directory, File, Link};
        for (user, group, mode, now, target, wanted, after) in [
            (None, None, None, 0o644, File, "", 0o644),
            (Some("root"), Some("0"), Some("644"), 0o644, File, "", 0o644),
            (Some("app"), None, Some("644"), 0o600, File, "chown -- app /p && chmod -- 644 /p", 0o644),
            (Some("app"), Some("www data"), None, 0o600, File, "chown -- 'app:www data' /p", 0o600),
            (None, Some("app"), None, 0o2755, Directory, "chgrp -- app /p", 0o2755),
            (None, None, Some("+x"), 0o644, File, "chmod -- 755 /p", 0o755),
            (None, None, Some("+x"), 0o755, File, "", 0o755),
            (Some("app"), None, None, 0o4755, File, "chown -- app /p && chmod -- 4755 /p", 0o4755),
            (None, None, Some("755"), 0o2755, Directory, "chmod -- 00755 /p", 0o755),
            (Some("app"), Some("app"), None, 0o777, Link, "chown -h -- app:app /p", 0o777),
        ] {
            assert_eq!(steps(user, group, mode, now, target), (wanted.to_owned(), after), "{user:?} {group:?} {mode:?} {now:o}");
        }
    }
}
