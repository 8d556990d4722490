//! What stands at a path of a host: the one command that looks, and the reading of what it prints.
//!
//! The command works alike with the `stat` of GNU coreutils and of busybox. It prints numbers first and names last, with a `:` between
//! (no user or group has one in its name: passwd(5)), and never the path, so that no name of a file can be taken for an answer.

use infra_core::command::{Command, Line, Parts, Shell, ToShell};
use infra_core::fact::ParseError;
use infra_core::mode::Mode;
use infra_core::output::Output;
use infra_core::resources::link_leads_to;
use infra_core::sh;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ownership::Permissions;

/// What a fact about one kind of thing found at a path: `nil`, `false` or the thing's own table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Nothing is there: `nil`.
    Nothing,
    /// Something of another type is there: `false`.
    Other,
    /// It is there.
    Is(T),
}

impl<T> Found<T> {
    /// The thing, where it is there.
    pub fn is(&self) -> Option<&T> {
        match self {
            Self::Is(thing) => Some(thing),
            _ => None,
        }
    }

    /// The same, with the thing made into another.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Nothing => Found::Nothing,
            Self::Other => Found::Other,
            Self::Is(thing) => Found::Is(make(thing)),
        }
    }
}

impl<T: Serialize> Serialize for Found<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing => serializer.serialize_none(),
            Self::Other => serializer.serialize_bool(false),
            Self::Is(thing) => thing.serialize(serializer),
        }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Found<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match infra_core::Value::deserialize(deserializer)? {
            infra_core::Value::Null => Ok(Self::Nothing),
            infra_core::Value::Bool(false) => Ok(Self::Other),
            thing => T::deserialize(thing).map(Self::Is).map_err(serde::de::Error::custom),
        }
    }
}

impl<T: Clone> Found<T> {
    /// The same behind a link: what leads to nothing is something of another type.
    pub fn behind_link(&self) -> Self {
        if matches!(self, Self::Nothing) { Self::Other } else { self.clone() }
    }
}

/// A file or a directory, as `files.file` and `files.directory` answer.
///
/// What a plan cannot know of a file that is still to be made is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The permission bits as octal digits: `"644"`, `"4755"`.
    pub mode: Mode,
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
    /// The size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The time of the last access, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atime: Option<i64>,
    /// The time of the last change of the content, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// The time of the last change of the content, the owner or the mode, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctime: Option<i64>,
    /// Where the path leads, as spelt, when it is a symbolic link to the thing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_target: Option<String>,
    /// Of a directory: its path without any link on the way, where that is not the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_path: Option<String>,
}

impl Status {
    /// What a plan knows of a thing with these permissions.
    pub fn foreseen(mode: u32, user: &str, group: &str, size: Option<u64>) -> Self {
        Self {
            mode: Mode::Bits(mode),
            user: user.to_owned(),
            group: group.to_owned(),
            uid: None,
            gid: None,
            size,
            atime: None,
            mtime: None,
            ctime: None,
            link_target: None,
            real_path: None,
        }
    }

    /// Its owner, group and mode.
    pub fn permissions(&self) -> Permissions {
        let mode = match self.mode {
            Mode::Bits(bits) => bits,
            Mode::Symbolic(_) => 0,
        };
        Permissions { mode, user: self.user.clone(), group: self.group.clone(), uid: self.uid, gid: self.gid }
    }
}

/// The type of what stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; when links were to be followed, one that leads nowhere.
    Link,
    /// A socket, a pipe or a device.
    Special,
}

/// The fields that are asked of `stat`: raw mode (hexadecimal), owner, group, size, three times, and the names.
pub const FIELDS: &str = "%f:%u:%g:%s:%X:%Y:%Z:%U:%G";

/// Looks at what the path itself is.
fn look(path: &dyn ToShell) -> Shell {
    sh!("LC_ALL=C stat -c {} -- {}", FIELDS, path)
}

/// Looks at what the path leads to; at the link itself when it leads nowhere.
pub fn look_through(path: &dyn ToShell) -> Shell {
    sh!("{ LC_ALL=C stat -L -c {} -- {} || {}; }", FIELDS, path, look(path))
}

/// A command that looks at what the path itself is, and then does the rest.
pub fn looking_at(path: &str, rest: Shell) -> Command {
    let line = Line {
        program: sh!("LC_ALL=C stat -c {} --", format!("{FIELDS}:%n")),
        separator: ":",
        given: sh!("test -e \"$1\" || test -L \"$1\""),
        patience: None,
    };
    about(path, vec![line], look(&it()), rest)
}

/// A command that looks at what the path leads to, and then does the rest.
pub fn looking_through(path: &str, rest: Shell) -> Command {
    about(path, vec![line_through()], look_through(&it()), rest)
}

/// How long a file may take to be digested, in seconds: several gigabytes take minutes on a slow disk.
const PATIENCE: u32 = 1800;

/// A command that looks at what the path leads to, and digests the content where that is a file.
pub fn digesting(path: &str) -> Command {
    let digest = Line { program: sh!("sha256sum --"), separator: "  ", given: sh!("test -f \"$1\""), patience: Some(PATIENCE) };
    let first = sh!("{} && if test -f \"$1\"; then sha256sum <\"$1\"; fi", look_through(&it()));
    about(path, vec![line_through(), digest], first, sh!(":")).taking_up_to(PATIENCE)
}

fn about(path: &str, lines: Vec<Line>, first: Shell, rest: Shell) -> Command {
    // A `-` alone is something else to many programs.
    let about = if path == "-" { "./-".to_owned() } else { path.to_owned() };
    Command::in_parts(Parts { about, lines, gone: sh!("! test -e \"$1\" && ! test -L \"$1\""), first, rest })
}

/// What prints the line of [`look_through`], where something is there that is no link that leads nowhere.
fn line_through() -> Line {
    let program = sh!("LC_ALL=C stat -L -c {} --", format!("{FIELDS}:%n"));
    Line { program, separator: ":", given: sh!("test -e \"$1\""), patience: None }
}

/// The path that the parts of a command are about.
fn it() -> Shell {
    sh!("\"$1\"")
}

/// Prints where the path leads when it is a link, right after the line about it.
pub fn link_target() -> Shell {
    sh!("if test -L \"$1\"; then LC_ALL=C readlink -n -- \"$1\"; fi")
}

/// Prints where the path leads when it is a link, and after a NUL where it leads in the end, through whatever other links.
pub fn link_and_its_end() -> Shell {
    // One that leads into itself (`d -> d/e`) is followed by readlink(1) of GNU for as long as it has memory; the system gives up at once, in these words.
    sh!("if test -L \"$1\"; then LC_ALL=C readlink -n -- \"$1\" && printf '\\000' && \
         case $(LC_ALL=C stat -L -- \"$1\" 2>&1 >/dev/null) in *'oo many levels'*|*'ink loop'*) ;; \
         *) LC_ALL=C readlink -f -- \"$1\" 2>/dev/null || :;; esac; fi")
}

/// Prints where a directory really is when that is not where it is spelt, after a NUL and whatever was printed before.
pub fn real_path() -> Shell {
    // A path without a link on its way is where it is spelt; only one with a link takes a shell that goes there.
    sh!("infra_p=$1; case $1/ in [!/]*|*//*|*/./*|*/../*) ;; *) until [ -L \"$infra_p\" ]; do infra_p=${infra_p%/*}; [ -n \"$infra_p\" ] || break; done;; esac
case $infra_p in '') ;; *) (CDPATH= cd -P -- \"$1\" 2>/dev/null && test \"$PWD\" != \"$1\" && printf '\\000%s' \"$PWD\") || :;; esac; unset infra_p")
}

/// Looks at what every path of a tree is, one line each.
pub fn look_at_tree(path: &str) -> Shell {
    sh!("LC_ALL=C find {} -exec stat -c {} {} +", tree_root(path), FIELDS, "{}")
}

/// The root of a tree as find(1) takes it: with a `.` below it, so that a link to the root is followed and not changed itself, and never
/// beginning like a condition (`-`, `(`, `!`).
pub fn tree_root(path: &str) -> String {
    let here = if path.starts_with('/') || path.starts_with("./") { "" } else { "./" };
    format!("{here}{}/.", path.trim_end_matches('/'))
}

/// What was looked at: the type, the status and what was printed after it. None where there is nothing.
pub type Looked<'o> = Option<(Kind, Status, &'o [u8])>;

/// Reads the line that a look printed.
///
/// # Errors
/// [`ParseError`] when it is not known what is there (permission denied, no `stat` on the host), or when a command after the look failed.
pub fn read<'o>(path: &str, output: &'o Output) -> Result<Looked<'o>, ParseError> {
    let failed = output.status != 0;
    let why = || last_reason(&output.stderr);
    let Some(end) = output.stdout.iter().position(|byte| *byte == b'\n') else {
        return match why() {
            reason if failed && is_absence(&reason) => Ok(None),
            reason if failed => Err(unreadable("look at", path, output.status, &reason)),
            _ => Err(ParseError::new(format!("expected a line about {path}, got `{}`", shown(&output.stdout)))),
        };
    };
    let (kind, status) = read_line(&output.stdout[..end])?;
    if failed {
        return Err(unreadable("read", path, output.status, &why()));
    }
    Ok(Some((kind, status, &output.stdout[end + 1..])))
}

/// Reads one line of `stat`.
///
/// # Errors
/// [`ParseError`] when it has not the fields that were asked for.
pub fn read_line(line: &[u8]) -> Result<(Kind, Status), ParseError> {
    let wrong = || ParseError::new(format!("expected the fields {FIELDS} of stat, got `{}`", shown(line)));
    let text = std::str::from_utf8(line).map_err(|_| wrong())?;
    let fields: Vec<&str> = text.split(':').collect();
    let [raw, uid, gid, size, atime, mtime, ctime, user, group] = fields[..] else { return Err(wrong()) };
    let raw = u32::from_str_radix(raw, 16).map_err(|_| wrong())?;
    // Where an id has no name, GNU and busybox print a word, newer busybox the number itself.
    let named = |name: &str, id: &str| if name == "UNKNOWN" || name.is_empty() { id.to_owned() } else { name.to_owned() };
    let number = |text: &str| text.parse().map_err(|_| wrong());
    let time = |text: &str| text.parse().map(Some).map_err(|_| wrong());
    let status = Status {
        mode: Mode::Bits(raw & 0o7777),
        user: named(user, uid),
        group: named(group, gid),
        uid: Some(number(uid)?),
        gid: Some(number(gid)?),
        size: Some(size.parse().map_err(|_| wrong())?),
        atime: time(atime)?,
        mtime: time(mtime)?,
        ctime: time(ctime)?,
        link_target: None,
        real_path: None,
    };
    let kind = match raw & 0o170_000 {
        0o100_000 => Kind::File,
        0o040_000 => Kind::Directory,
        0o120_000 => Kind::Link,
        _ => Kind::Special,
    };
    Ok((kind, status))
}

/// Reads the answer about a thing of one type, and where the link led that it was found through.
///
/// # Errors
/// As [`read`].
pub fn read_found(path: &str, wanted: Kind, output: &Output) -> Result<Found<Status>, ParseError> {
    Ok(match read(path, output)? {
        None => Found::Nothing,
        Some((kind, status, target)) if kind == wanted => {
            let mut parts = target.splitn(2, |byte| *byte == 0);
            let mut next = || parts.next().filter(|part| !part.is_empty()).map(|part| String::from_utf8_lossy(part).into_owned());
            let (link_target, real_path) = (next(), next());
            Found::Is(Status { link_target, real_path, ..status })
        }
        Some(_) => Found::Other,
    })
}

/// The links that the output of [`looking_through`], with [`link_target`] and [`real_path`], tells of, also of a link that leads nowhere or to something of another
/// type: paths, and where each leads.
pub fn read_links(path: &str, output: &Output) -> Vec<(String, String)> {
    let mut links = Vec::new();
    let Ok(Some((_, _, told))) = read(path, output) else { return links };
    let mut parts = told.splitn(2, |byte| *byte == 0).map(String::from_utf8_lossy);
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let mut at = path.to_owned();
    if let Some(target) = next() {
        let leads = link_leads_to(path, &target);
        links.push((at, leads.clone()));
        at = leads;
    }
    // There may be further links on the way.
    if let Some(real) = next() {
        links.push((at, real.strip_suffix('\n').unwrap_or(&real).to_owned()));
    }
    links
}

/// The message for something that could not be looked at or read.
pub fn unreadable(what: &str, path: &str, status: i32, reason: &str) -> ParseError {
    let reason = if reason.is_empty() { format!("the command exited with {status}") } else { reason.to_owned() };
    let advice = if reason == "Permission denied" { "; ask as a user who may, for example with _sudo = true" } else { "" };
    ParseError::new(format!("cannot {what} {path}: {reason}{advice}"))
}

/// The last part of the last line of an error output: what the system said, without the name of the tool and the path.
pub fn last_reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    last.rsplit(": ").next().unwrap_or_default().trim().to_owned()
}

/// Whether the system said that nothing is there: the path itself is missing, a part of it is no directory, or links on the way lead in a
/// circle (in the words of glibc and of musl).
pub fn is_absence(reason: &str) -> bool {
    matches!(reason, "No such file or directory" | "Not a directory" | "Too many levels of symbolic links" | "Symbolic link loop")
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failed(stderr: &str) -> Output {
        Output { status: 1, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() }
    }

    #[test]
    fn absence_and_refusal_are_told_apart() {
        for stderr in [
            "stat: cannot statx '/a': No such file or directory\n",
            "stat: can't stat '/a/b': Not a directory\n",
            "stat: cannot statx '/a'$'\\n''b: c': No such file or directory\n\n",
        ] {
            assert_eq!(read("/a", &failed(stderr)), Ok(None), "{stderr}");
        }
        let error = read("/a", &failed("stat: cannot statx '/a': Permission denied\n")).expect_err("it is not known what is there");
        assert_eq!(error.to_string(), "cannot look at /a: Permission denied; ask as a user who may, for example with _sudo = true");
        let error = read("/a", &failed("sh: 1: stat: not found\n")).expect_err("no stat");
        assert_eq!(error.to_string(), "cannot look at /a: not found");
        assert!(read("/a", &failed("")).is_err());
        assert!(read("/a", &Output::of("")).is_err());
    }

    #[test]
    fn a_line_is_read_field_by_field() {
        let (kind, status) = read_line(b"81ed:0:4711:12:1:2:3:root:UNKNOWN").expect("a line");
        assert_eq!(kind, Kind::File);
        assert_eq!(
            json!(status),
            json!({ "mode": "755", "user": "root", "group": "4711", "uid": 0, "gid": 4711, "size": 12, "atime": 1, "mtime": 2, "ctime": 3 })
        );
        for (line, kind) in
            [("41ed:0:0:1:1:1:1:r:r", Kind::Directory), ("a1ff:0:0:1:1:1:1:r:r", Kind::Link), ("c1ff:0:0:1:1:1:1:r:r", Kind::Special)]
        {
            assert_eq!(read_line(line.as_bytes()).map(|(kind, _)| kind), Ok(kind));
        }
        for line in ["", "81ed", "xyz:0:0:1:1:1:1:r:r", "81ed:0:0:1:1:1:1:r:r:r", "81ed:-1:0:1:1:1:1:r:r"] {
            assert!(read_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn what_is_found_is_nil_false_or_a_table() {
        for (found, text) in [(Found::Nothing, "null"), (Found::Other, "false"), (Found::Is("x".to_owned()), "\"x\"")] {
            assert_eq!(serde_json::to_string(&found).expect("JSON"), text);
            assert_eq!(serde_json::from_str::<Found<String>>(text).expect("JSON"), found);
        }
        assert!(serde_json::from_str::<Found<String>>("true").is_err());
    }
}
