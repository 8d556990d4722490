//! The keys that open a user's account by ssh: the text of `~/.ssh/authorized_keys` (sshd(8)), and the way to it on the host.

use infra_core::change::{Action, Change, Content, Replaces, Upload};
use infra_core::command::Shell;
use infra_core::facts::{DiffError, Facts};
use infra_core::mode::Mode;
use infra_core::node::{DirectoryNode, FileNode, Node};
use infra_core::operation::Misuse;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;

use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::text::Text;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::digest_of;
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Target};
use crate::text_edit::lines;

/// The parts of a line that say what it opens: the options before the key, its type, and the key itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key<'t> {
    options: &'t str,
    kind: &'t str,
    blob: &'t str,
}

/// Where the first word of a text ends; blanks within quotes do not end it.
fn word_end(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            '\\' if quoted && !escaped => {
                escaped = true;
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return at,
            _ => {}
        }
        escaped = false;
    }
    text.len()
}

fn is_kind(word: &str) -> bool {
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];
    known.iter().any(|start| word.starts_with(start)) && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte))
}

/// The key of a line; none for a comment, an empty line and what sshd would pass over.
fn key_of(line: &str) -> Option<Key<'_>> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let (first, rest) = line.split_at(word_end(line));
    let (options, kind, rest) = if is_kind(first) {
        ("", first, rest)
    } else {
        let rest = rest.trim_start();
        let (second, rest) = rest.split_at(word_end(rest));
        (first, second, rest)
    };
    let blob = rest.split_whitespace().next()?;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    (is_kind(kind) && blob.bytes().all(base64)).then_some(Key { options, kind, blob })
}

/// Checks that each text is one line of `authorized_keys` with a key in it.
///
/// # Errors
/// [`Misuse`] that shows the beginning of the text.
pub fn check_keys(argument: &str, keys: &[String]) -> Result<(), Misuse> {
    for (index, key) in keys.iter().enumerate() {
        let shown: String = key.chars().take(40).collect();
        if key.contains("PRIVATE KEY") {
            return Err(Misuse::new(format!("`{argument}` holds a private key"))
                .hint("give the public one: the line in the file that ends in .pub"));
        }
        if key.trim_end().contains(['\n', '\r', '\0']) {
            return Err(Misuse::new(format!(
                "`{argument}` has a text of more than one line: `{}`",
                shown.lines().next().unwrap_or_default()
            ))
            .hint("give each key as a text of its own"));
        }
        let Some(found) = key_of(key) else {
            return Err(Misuse::new(format!("`{argument}` has a text that is no public key: `{shown}`"))
                .hint("give the text of the key, `ssh-ed25519 AAAA… name`; names of files are not read"));
        };
        let same = |other: &String| key_of(other).is_some_and(|other| (other.kind, other.blob) == (found.kind, found.blob));
        if keys[..index].iter().any(same) {
            return Err(
                Misuse::new(format!("`{argument}` has one key twice: `{shown}`")).hint("sshd(8) would go by the first of them alone")
            );
        }
    }
    Ok(())
}

/// The text with these keys in it, and what was done, in a few words; the text as it is where nothing is to be done.
///
/// Without `exactly`, a key that is there keeps its place and its comment. Where its options differ, its line becomes the one that is wished,
/// for sshd goes by the first line that a key is on.
fn edit(before: &str, keys: &[String], exactly: bool) -> (String, Vec<String>) {
    let wished: Vec<&str> = keys.iter().map(|key| key.trim()).collect();
    let count = |count: usize, verb: &str| match count {
        0 => None,
        1 => Some(format!("{verb} 1 key")),
        many => Some(format!("{verb} {many} keys")),
    };
    let holds = |text: &str, key: Key<'_>| lines(text).filter_map(|line| key_of(line.body)).any(|other| other == key);
    let mut after: String;
    if exactly {
        after = wished.iter().map(|key| format!("{key}\n")).collect();
    } else {
        after = String::new();
        for line in lines(before) {
            let found = key_of(line.body);
            let same = |other: &&&str| key_of(other).zip(found).is_some_and(|(a, b)| (a.kind, a.blob) == (b.kind, b.blob));
            match wished.iter().find(same) {
                Some(wish) if key_of(wish) != found => after.push_str(wish),
                _ => after.push_str(line.body),
            }
            after.push_str(line.ending);
        }
        for key in &wished {
            if key_of(key).is_some_and(|found| !holds(&after, found)) {
                if !after.is_empty() && !after.ends_with('\n') {
                    after.push('\n');
                }
                after.push_str(key);
                after.push('\n');
            }
        }
    }
    if after == before {
        return (after, Vec::new());
    }
    let only_in = |one: &str, other: &str| lines(one).filter_map(|line| key_of(line.body)).filter(|key| !holds(other, *key)).count();
    let mut said: Vec<String> =
        [count(only_in(&after, before), "add"), count(only_in(before, &after), "remove")].into_iter().flatten().collect();
    if said.is_empty() {
        said.push("rewrite authorized_keys".to_owned());
    }
    (after, said)
}

/// Which keys shall open whose account.
#[derive(Clone, Copy, Debug)]
pub struct KeysWish<'a> {
    /// The user.
    pub user: &'a str,
    /// The name of the user's primary group.
    pub group: &'a str,
    /// The user's home directory.
    pub home: &'a str,
    /// The keys: lines of the file.
    pub keys: &'a [String],
    /// Whether no others shall.
    pub exactly: bool,
}

/// How things stand at the keys of a user.
#[derive(Clone, Debug)]
pub struct KeysFound {
    folder: Found<Status>,
    file: Found<Status>,
    text: Found<String>,
    who: WhoAsks,
}

impl KeysFound {
    /// Asks for all of it in one round.
    ///
    /// # Errors
    /// As [`Facts::get`].
    pub fn ask(facts: &Facts<'_>, home: &str) -> Result<Self, DiffError> {
        let path = file_in(home);
        let (folder, file, text, who) = facts.get((&Directory::at(folder_in(home)), &File::at(&path), &Text::at(&path), &Identity {}))?;
        Ok(Self { folder, file, text, who })
    }
}

fn folder_in(home: &str) -> String {
    format!("{}/.ssh", home.trim_end_matches('/'))
}

fn file_in(home: &str) -> String {
    format!("{}/authorized_keys", folder_in(home))
}

/// What becoming the wish may touch.
pub fn keys_touched(home: &str) -> Resources {
    Resources::only([folder_in(home), file_in(home)].map(Resource::Path))
}

impl KeysWish<'_> {
    /// Adds the steps to a change, after which the user and the home directory are there; gives what they do, in a few words, which is nothing
    /// where all is as wished.
    ///
    /// # Errors
    /// [`DiffError::Refused`] when something is in the way. A link is: the user could lead root with it to any file.
    pub fn fulfil(&self, mut change: Change, found: &KeysFound) -> Result<(Change, Vec<String>), DiffError> {
        let (folder, path) = (folder_in(self.home), file_in(self.home));
        let before = match &found.text {
            Found::Is(text) => text.as_str(),
            Found::Nothing => "",
            Found::Other => return Err(DiffError::refused(format!("{path} exists and is not a file"))),
        };
        for (status, path) in [(&found.folder, &folder), (&found.file, &path)] {
            if status.is().is_some_and(|status| status.link_target.is_some()) {
                let message = format!("{path} is a link, which is not followed: {} could lead it to any file", self.user);
                return Err(DiffError::refused_with_hint(message, "put a real one in its place, or keep the keys with files.line"));
            }
        }
        let (after, mut said) = edit(before, self.keys, self.exactly);
        if found.file == Found::Nothing && after.is_empty() {
            return Ok((change, Vec::new()));
        }
        let mode = Mode::Bits(0o700);
        let ownership = Ownership { user: Some(self.user), group: Some(self.group), mode: Some(&mode) };
        match &found.folder {
            Found::Is(status) => {
                let settled = ownership.settle(&folder, &status.permissions(), Target::Directory, found.who.umask);
                if !settled.commands.is_empty() {
                    said.extend(settled.reasons.iter().map(|reason| format!("{folder}: {reason}")));
                    change = change.run(Shell::join(" && ", settled.commands));
                    change = change.node(&folder, Node::Directory(settled.after.directory_node(false)));
                }
            }
            Found::Other => return Err(DiffError::refused(format!("{folder} exists and is not a directory"))),
            Found::Nothing => {
                let (user, group) = (Some(self.user.to_owned()), Some(self.group.to_owned()));
                change = change.run(sh!("install -d -m 700 -o {} -g {} -- {}", self.user, self.group, folder));
                change = change.node(&folder, Node::Directory(DirectoryNode { mode: Some(0o700), user, group, fresh: true }));
            }
        }
        let mode = Mode::Bits(0o600);
        let ownership = Ownership { mode: Some(&mode), ..ownership };
        let node = FileNode {
            mode: Some(0o600),
            user: Some(self.user.to_owned()),
            group: Some(self.group.to_owned()),
            size: Some(after.len() as u64),
            sha256: Some(digest_of(&after)),
            text: Some(after.as_str().into()),
            ..FileNode::default()
        };
        match &found.file {
            Found::Is(status) if after == before => {
                let settled = ownership.settle(&path, &status.permissions(), Target::File, found.who.umask);
                if !settled.commands.is_empty() {
                    said.extend(settled.reasons.iter().map(|reason| format!("{path}: {reason}")));
                    change = change.run(Shell::join(" && ", settled.commands)).node(&path, Node::File(node));
                }
            }
            _ => {
                let replaces = if found.text == Found::Nothing { Replaces::Anything } else { Replaces::Digest(digest_of(before)) };
                let upload = Upload {
                    content: Content::text(&after),
                    dest: path.clone(),
                    mode: Some(0o600),
                    user: Some(self.user.to_owned()),
                    group: Some(self.group.to_owned()),
                    replaces,
                };
                change = change.then(Action::Upload(upload)).node(&path, Node::File(node)).text(&path, before, after);
            }
        }
        Ok((change, said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAa ann@one";
    const B: &str = "ecdsa-sha2-nistp256 AAAAb";

    fn keys(keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn what_is_no_key_is_misuse() {
        let twice = format!("{A}2");
        for wrong in [
            &["id_ed25519.pub"][..],
            &["/home/ann/.ssh/id.pub"],
            &[""],
            &["# ssh-ed25519 AAAA"],
            &["ssh-ed25519"],
            &["ssh-ed25519 a:b"],
            &["ssh-ed25519 AAAA\nssh-ed25519 BBBB"],
            &["-----BEGIN OPENSSH PRIVATE KEY-----"],
            &[A, &twice],
        ] {
            assert!(check_keys("public_keys", &keys(wrong)).is_err(), "{wrong:?}");
        }
        let options = "command=\"echo \\\"a b\\\"\",restrict ssh-rsa AAAA== x y";
        assert!(check_keys("public_keys", &keys(&[A, B, options, "sk-ssh-ed25519@openssh.com AAAAs\n"])).is_ok());
        let key = key_of(options).expect("a key");
        assert_eq!((key.options, key.kind, key.blob), ("command=\"echo \\\"a b\\\"\",restrict", "ssh-rsa", "AAAA=="));
    }

    #[test]
    fn keys_are_added_once_and_others_stay_unless_exactly_these_are_wished() {
        let restricted = format!("restrict {A}");
        for (before, wished, exactly, wanted, said) in [
            ("", &[A][..], false, format!("{A}\n"), "add 1 key"),
            ("# mine\nssh-rsa AAAAx", &[A, B], false, format!("# mine\nssh-rsa AAAAx\n{A}\n{B}\n"), "add 2 keys"),
            ("ssh-ed25519 AAAAa other comment\r\n", &[A], false, "ssh-ed25519 AAAAa other comment\r\n".to_owned(), ""),
            (
                "ssh-ed25519 AAAAa\nssh-rsa AAAAx\n",
                &[&restricted],
                false,
                format!("{restricted}\nssh-rsa AAAAx\n"),
                "add 1 key, remove 1 key",
            ),
            ("#ssh-ed25519 AAAAa\n", &[A], false, format!("#ssh-ed25519 AAAAa\n{A}\n"), "add 1 key"),
            ("# mine\nssh-rsa AAAAx\n", &[A], true, format!("{A}\n"), "add 1 key, remove 1 key"),
            ("ssh-ed25519 AAAAa\n", &[A], true, format!("{A}\n"), "rewrite authorized_keys"),
            ("ssh-rsa AAAAx\n", &[], true, String::new(), "remove 1 key"),
        ] {
            let wished = keys(wished);
            let (after, done) = edit(before, &wished, exactly);
            assert_eq!((after.as_str(), done.join(", ").as_str()), (wanted.as_str(), said), "{before:?}");
            assert_eq!(edit(&after, &wished, exactly), (after.clone(), Vec::new()), "{before:?}, again");
        }
    }
}
