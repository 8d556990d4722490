//! The way from a tree on the controller to that of a host: what `files.get` does with a directory.

use infra_core::change::{Action, Change, FetchedFile, TreeDownload};
use infra_core::mode::Mode;
use infra_core::output::size;
use infra_core::tree::{LocalNode, LocalTree};

use crate::facts::files::tree::{Contents, Entry, EntryKind};

/// One stream has at most so many bytes of files, unless a single one has more.
const STREAM: u64 = 256 << 20;
/// And at most so many files.
const STREAM_FILES: usize = 1000;

/// What is to be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// The directory on the host.
    pub src: &'a str,
    /// The directory of the controller.
    pub dest: &'a str,
    /// Whether to make `dest`.
    pub create_dir: bool,
    /// Whether to fetch also what is the same.
    pub force: bool,
}

impl Fetch<'_> {
    /// The change that makes the local tree hold what the host's holds.
    pub fn change(&self, found: &Contents, local: Option<&LocalTree>) -> Change {
        let here = |path: &str| local.and_then(|local| local.entries.get(path));
        let mut directories = Vec::new();
        let mut files = Vec::new();
        let mut links = Vec::new();
        let mut skipped = 0;
        for entry in &found.entries {
            match entry.kind {
                EntryKind::Directory => {
                    if !matches!(here(&entry.path), Some(LocalNode::Directory { .. })) {
                        directories.push(entry.path.clone());
                    }
                }
                EntryKind::File => {
                    let (Some(size), Some(sha256)) = (entry.size, &entry.sha256) else { continue };
                    let same = matches!(here(&entry.path), Some(LocalNode::File { sha256: local, .. }) if local == sha256);
                    if !same || self.force {
                        let executable = matches!(entry.mode, Mode::Bits(bits) if bits & 0o100 != 0);
                        files.push(FetchedFile { path: entry.path.clone(), size, sha256: sha256.clone(), executable });
                    }
                }
                EntryKind::Link => match entry.target.as_deref().filter(|_| stays_within(entry)) {
                    Some(target) if !matches!(here(&entry.path), Some(LocalNode::Link(local)) if local == target) => {
                        links.push((entry.path.clone(), target.to_owned()));
                    }
                    Some(_) => {}
                    None => skipped += 1,
                },
                EntryKind::Special => skipped += 1,
            }
        }
        let left = [
            (skipped, "links that lead out of it, and what is no file"),
            (found.strange, "names that are no line of UTF-8, and links that lead to one"),
        ];
        let left = left.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} left out: {what}"));
        let left = match left.collect::<Vec<_>>() {
            none if none.is_empty() => String::new(),
            some => format!(" ({})", some.join("; ")),
        };
        if directories.is_empty() && files.is_empty() && links.is_empty() && (local.is_some()) {
            return Change::none(format!("{} holds the same{left}", self.dest));
        }
        let bytes: u64 = files.iter().map(|file| file.size).sum();
        let count = files.len() + links.len();
        let noun = if count == 1 { "file" } else { "files" };
        let change = Change::new(format!("fetch {count} {noun} ({}) to {}{left}", size(bytes), self.dest));
        self.streams(directories, files, links).into_iter().fold(change, |change, tree| change.then(Action::DownloadTree(tree)))
    }

    /// What is fetched, in as many streams as it takes.
    fn streams(&self, directories: Vec<String>, files: Vec<FetchedFile>, links: Vec<(String, String)>) -> Vec<TreeDownload> {
        let empty = || TreeDownload {
            root: self.src.to_owned(),
            dest: self.dest.to_owned(),
            create_dir: self.create_dir,
            directories: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
        };
        let mut all = vec![TreeDownload { directories, links, ..empty() }];
        let mut bytes = 0;
        for file in files {
            let open = all.last().map_or(0, |open| open.files.len());
            if open > 0 && (bytes + file.size > STREAM || open == STREAM_FILES) {
                all.push(empty());
                bytes = 0;
            }
            bytes += file.size;
            if let Some(open) = all.last_mut() {
                open.files.push(file);
            }
        }
        all
    }
}

/// Whether a link leads to a place in its own tree, by its spelling: what is fetched from a host shall not lead to other files of this machine.
fn stays_within(link: &Entry) -> bool {
    let Some(target) = link.target.as_deref().filter(|target| !target.starts_with('/') && !target.is_empty()) else { return false };
    let mut depth = link.path.matches('/').count();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if depth == 0 => return false,
            ".." => depth -= 1,
            _ => depth += 1,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::Permissions;

    #[test]
    fn links_that_lead_out_are_told_from_others() {
        let of = Permissions { mode: 0o777, user: "a".into(), group: "a".into(), uid: None, gid: None };
        let link = |path: &str, target: &str| Entry { target: Some(target.into()), ..Entry::new(path, EntryKind::Link, &of) };
        for (path, target, wanted) in [
            ("l", "a", true),
            ("l", "../a", false),
            ("d/l", "../a", true),
            ("d/l", "../../a", false),
            ("d/l", "x/../../..", false),
            ("l", "/etc/passwd", false),
            ("l", "a/./b", true),
            ("l", "", false),
        ] {
            assert_eq!(stays_within(&link(path, target)), wanted, "{path} → {target}");
        }
    }
}
