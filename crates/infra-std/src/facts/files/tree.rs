//! The fact `files.tree`.

use infra_core::command::{Command, Shell};
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use infra_core::tree::LeftOut;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{FIELDS, Found, Kind, Status, is_absence, last_reason, look_through, read, read_line, unreadable};
use crate::ownership::Permissions;

/// How long all files of a tree may take to be digested, in seconds.
const PATIENCE: u32 = 1800;

/// All that a directory holds, with the digest of each file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Tree {
    /// The directory on the host at the root of the tree; a link to it is followed, links below it are not.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// Patterns of what is not looked at, with all below: held against the name, the path in the tree, and that with `./` in front; `*` matches `/` too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// The same for directories alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_dir: Vec<String>,
}

/// What a tree holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The directory at its root.
    pub root: Status,
    /// All below it, sorted by path.
    pub entries: Vec<Entry>,
    /// The paths of what was left out, without what is below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// How many things have a name that is no line of UTF-8, or lead to such a one, and are not among the entries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strange: u64,
}

/// One thing in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path, relative to the root.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// Its permission bits as octal digits.
    pub mode: infra_core::mode::Mode,
    /// The owner's name; the number where it has none.
    pub user: String,
    /// The group's name; the number where it has none.
    pub group: String,
    /// The owner's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Of a file: its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of a file: the SHA-256 digest of its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Of a link: where it leads, as spelt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

impl Entry {
    /// A thing with this owner and mode, of which nothing is said besides.
    pub fn new(path: impl Into<String>, kind: EntryKind, of: &Permissions) -> Self {
        Self {
            path: path.into(),
            kind,
            mode: infra_core::mode::Mode::Bits(of.mode),
            user: of.user.clone(),
            group: of.group.clone(),
            uid: of.uid,
            gid: of.gid,
            size: None,
            sha256: None,
            target: None,
        }
    }
}

/// The type of a thing in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A socket, a pipe or a device.
    Special,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Tree {
    /// The question about a directory.
    pub fn at(path: impl Into<String>, left_out: &LeftOut) -> Self {
        Self { path: path.into(), exclude: left_out.exclude.clone(), exclude_dir: left_out.exclude_dir.clone() }
    }

    fn find(&self) -> Shell {
        let all = patterns(&self.exclude);
        let directories = patterns(&self.exclude_dir);
        let mut conditions = Vec::new();
        if !all.is_empty() {
            conditions.push(Shell::join(" -o ", all));
        }
        if !directories.is_empty() {
            conditions.push(sh!("-type d '(' {} ')'", Shell::join(" -o ", directories)));
        }
        let left_out = match conditions.is_empty() {
            true => Shell::default(),
            false => sh!("'(' {} ')' -prune -print -o ", Shell::join(" -o ", conditions)),
        };
        let fields = format!("{FIELDS}:%n");
        // Of a link two lines are printed by one process; a line break in where it leads is none.
        let links = sh!(
            "for infra_l; do stat -c {} -- \"$infra_l\" && printf '>%s\\n' \"$(readlink -- \"$infra_l\" | tr '\\n' '\\001')\"; done",
            fields
        );
        // A name with a line break could be taken for an answer, so that none is printed.
        sh!(
            "find . ! -name . '(' -name {} -prune -exec echo '?' ';' -o {}-type l -exec sh -c {} sh {} + -o -exec stat -c {} {} + -type f -exec sha256sum {} + ')'",
            "*\n*",
            left_out,
            links.as_str(),
            Shell::verbatim("{}"),
            fields,
            Shell::verbatim("{}"),
            Shell::verbatim("{}")
        )
    }
}

/// Conditions of find(1) for what a pattern names, as [`LeftOut`] has it.
fn patterns(patterns: &[String]) -> Vec<Shell> {
    let conditions = |pattern: &String| {
        let name = (!pattern.contains('/')).then(|| sh!("-name {}", pattern));
        [Some(sh!("-path {}", format!("./{pattern}"))), Some(sh!("-path {}", pattern)), name]
    };
    patterns.iter().flat_map(conditions).flatten().collect()
}

impl Fact for Tree {
    const NAME: &'static str = "files.tree";
    const DOC: &'static str = "All that a directory holds, read at once: a table of `root` (as files.directory has it), `entries` (a list, sorted by \
                               path, of tables of `path`, `type`, `mode`, `user`, `group`, `uid`, `gid`, and of files `size` and `sha256`, of links \
                               `target`), `excluded` (the paths of what was left out) and `strange` (how many names are no line of UTF-8). It is `nil` \
                               where nothing is, `false` where something else than a directory is. The content of every file is read for it, which \
                               takes its time.";
    const TELLS_CONTENT: bool = true;
    type Value = Found<Contents>;

    fn command(&self) -> Command {
        let here = if self.path.starts_with('/') { self.path.clone() } else { format!("./{}", self.path) };
        let script = sh!("{} && if test -d {}; then cd -P -- {} && {}; fi", look_through(&here), here, here, self.find());
        Command::new(script).taking_up_to(PATIENCE)
    }

    fn parse(&self, output: &Output) -> Result<Found<Contents>, ParseError> {
        // What is gone between two looks is none of the tree's.
        let only_gone = output.status != 0 && {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let mut lines = stderr.lines().filter(|line| !line.trim().is_empty()).peekable();
            lines.peek().is_some() && lines.all(|line| is_absence(&last_reason(line.as_bytes())))
        };
        let first = output.stdout.iter().position(|byte| *byte == b'\n');
        let status = if only_gone && first.is_some() { 0 } else { output.status };
        let looked = Output { status, stdout: output.stdout.clone(), stderr: output.stderr.clone() };
        let Some((kind, root, printed)) = read(&self.path, &looked)? else { return Ok(Found::Nothing) };
        if kind != Kind::Directory {
            return Ok(Found::Other);
        }
        let left_out = LeftOut { exclude: self.exclude.clone(), exclude_dir: self.exclude_dir.clone() };
        let contents = parse_entries(root, printed, &left_out)?;
        let unread = contents.entries.iter().find(|entry| entry.kind == EntryKind::File && entry.sha256.is_none());
        match unread {
            Some(entry) if !only_gone => {
                let reason = last_reason(&output.stderr);
                Err(unreadable("read", &format!("{}/{}", self.path, entry.path), output.status, &reason))
            }
            _ => {
                let entries =
                    contents.entries.into_iter().filter(|entry| entry.kind != EntryKind::File || entry.sha256.is_some()).collect();
                Ok(Found::Is(Contents { entries, ..contents }))
            }
        }
    }

    fn rests_on(&self) -> Resources {
        Resources::tree(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Found<Contents>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::File(_) => Some(Found::Other),
            // A node says nothing of what the same change, or a later one, puts below it.
            Node::Directory(_) | Node::Link(_) => None,
        }
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { path: "/srv/site".into(), exclude: vec!["*.log".into()], exclude_dir: Vec::new() };
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let printed = format!(
            "41ed:0:0:4096:3:2:1:root:root\n41ed:7:8:4096:3:2:1:app:www:./a\n81a4:7:8:0:3:2:1:app:www:./a/b: c\n./x.log\n?\n\
             a1ff:0:0:3:3:2:1:root:root:./l\n>a/b: c\x01\n{digest}  ./a/b: c\n"
        );
        let entry = |path: &str, kind, mode, user: &str, group: &str, uid, gid| {
            Entry::new(path, kind, &Permissions { mode, user: user.into(), group: group.into(), uid: Some(uid), gid: Some(gid) })
        };
        let root = Status { uid: Some(0), gid: Some(0), ..Status::foreseen(0o755, "root", "root", Some(4096)) };
        let root = Status { atime: Some(3), mtime: Some(2), ctime: Some(1), ..root };
        let entries = vec![
            entry("a", EntryKind::Directory, 0o755, "app", "www", 7, 8),
            Entry { size: Some(0), sha256: Some(digest.to_owned()), ..entry("a/b: c", EntryKind::File, 0o644, "app", "www", 7, 8) },
            Entry { target: Some("a/b: c".into()), ..entry("l", EntryKind::Link, 0o777, "root", "root", 0, 0) },
        ];
        let contents = Contents { root, entries, excluded: vec!["x.log".into()], strange: 1 };
        let mut nothing = FactExample::new(&question, "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/srv/site': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&question, &printed, Found::Is(contents)),
            FactExample::new(&question, "81a4:0:0:5:3:2:1:root:root\n", Found::Other),
            nothing,
        ]
    }
}

fn parse_entries(root: Status, printed: &[u8], left_out: &LeftOut) -> Result<Contents, ParseError> {
    let mut contents = Contents { root, entries: Vec::new(), excluded: Vec::new(), strange: 0 };
    let mut digests: Vec<(String, String)> = Vec::new();
    let mut lines = printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if line == b"?" {
            contents.strange += 1;
        } else if let Some(path) = line.strip_prefix(b"./") {
            match std::str::from_utf8(path) {
                Ok(path) => contents.excluded.push(path.to_owned()),
                Err(_) => contents.strange += 1,
            }
        } else if let Some((sha256, name)) = digest_line(line) {
            if let Ok(name) = String::from_utf8(name) {
                digests.push((name, sha256));
            }
        } else {
            let mut target = lines.next_if(|next| next.starts_with(b">"));
            match parse_entry(line, target.take())? {
                // What a tool without all the patterns let through is left out all the same.
                Some(entry) if left_out.covers(&entry.path, entry.kind == EntryKind::Directory) => contents.excluded.push(entry.path),
                Some(entry) => contents.entries.push(entry),
                None => contents.strange += 1,
            }
        }
    }
    contents.entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    contents.excluded.sort_unstable();
    for (name, sha256) in digests {
        if let Ok(at) = contents.entries.binary_search_by(|entry| entry.path.as_str().cmp(&name)) {
            contents.entries[at].sha256 = Some(sha256);
        }
    }
    Ok(contents)
}

/// A line of sha256sum(1), as the digest and the path. A line that begins with a backslash has backslashes doubled, as GNU's prints it.
fn digest_line(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let (escaped, line) = line.strip_prefix(b"\\").map_or((false, line), |rest| (true, rest));
    let (digest, rest) = line.split_at_checked(64)?;
    let path = rest.strip_prefix(b"  ./").or_else(|| rest.strip_prefix(b" *./"))?;
    if !digest.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut name = path.to_vec();
    if escaped {
        let mut plain = Vec::with_capacity(name.len());
        let mut bytes = name.iter().copied();
        while let Some(byte) = bytes.next() {
            plain.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
        }
        name = plain;
    }
    Some((String::from_utf8_lossy(digest).into_owned(), name))
}

/// One thing; none where its name, or where it leads, is no line of UTF-8.
fn parse_entry(line: &[u8], target: Option<&[u8]>) -> Result<Option<Entry>, ParseError> {
    let wrong = || ParseError::new(format!("expected a line of stat, got `{}`", String::from_utf8_lossy(&line[..line.len().min(80)])));
    let end = line.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at).nth(8).ok_or_else(wrong)?;
    let (kind, status) = read_line(&line[..end])?;
    let Ok(path) = std::str::from_utf8(&line[end + 1..]) else { return Ok(None) };
    let path = path.strip_prefix("./").ok_or_else(wrong)?;
    let kind = match kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Link => EntryKind::Link,
        Kind::Special => EntryKind::Special,
    };
    let size = status.size.filter(|_| kind == EntryKind::File);
    let mut entry = Entry { size, ..Entry::new(path, kind, &status.permissions()) };
    if kind == EntryKind::Link {
        let target = target.and_then(|target| std::str::from_utf8(&target[1..]).ok());
        // readlink(1) ends it with a line break.
        match target.map(|target| target.strip_suffix('\u{1}').unwrap_or(target)) {
            Some(target) if !target.contains('\u{1}') => entry.target = Some(target.to_owned()),
            _ => return Ok(None),
        }
    }
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_conditions() {
        let tree = Tree { path: "/srv".into(), exclude: vec!["*.log".into()], exclude_dir: vec!["a/it's".into()] };
        let text = tree.find().to_string();
        assert!(text.contains("'(' -path './*.log' -o -path '*.log' -o -name '*.log' -o -type d '('"), "{text}");
        assert!(text.contains(r"-path './a/it'\''s' -o -path 'a/it'\''s' ')' ')' -prune -print -o "), "{text}");
        assert!(!Tree::at("/srv", &LeftOut::default()).find().to_string().contains("-prune -print"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_and_one_that_went_away_is_not() {
        let stdout = "41ed:0:0:4096:3:2:1:root:root\n8180:0:0:5:3:2:1:root:root:./a\n";
        let failed = |stderr: &str| Output { status: 1, stdout: stdout.into(), stderr: stderr.into() };
        let tree = Tree::at("/srv", &LeftOut::default());
        let error = tree.parse(&failed("sha256sum: ./a: Permission denied\n")).expect_err("not readable").to_string();
        assert!(error.contains("Permission denied; ask as a user who may"), "{error}");
        let Ok(Found::Is(contents)) = tree.parse(&failed("sha256sum: ./a: No such file or directory\n")) else { panic!("a tree") };
        assert!(contents.entries.is_empty());
    }

    #[test]
    fn names_with_backslashes_are_read_as_gnu_and_as_busybox_print_them() {
        let digest = "0".repeat(64);
        let of = |line: String| digest_line(line.as_bytes()).map(|(_, name)| String::from_utf8(name).expect("UTF-8"));
        assert_eq!(of(format!("\\{digest}  ./a\\\\b")), Some("a\\b".to_owned()));
        assert_eq!(of(format!("{digest}  ./a\\b")), Some("a\\b".to_owned()));
        assert_eq!(of(format!("{digest}  x")), None);
    }
}
