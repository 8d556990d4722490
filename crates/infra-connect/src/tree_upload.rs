//! Files and links of a tree written on a host: one tar stream into private directories beside the destinations, checked, then renamed.
//!
//! Each directory in which something changes gets a private one (`.infra-…`, mode 700) in which the new things are made under their own names; so they have
//! their owner and mode before anybody else sees them, and one `mv` puts all of a directory in place. The stream ends with blocks that are held back until
//! every local file has been found to be what it was when it was read.
//!
//! The format is that of tar(5) as GNU writes it: long names in members of the type `L`, sizes beyond 8 GiB in base 256.

use std::collections::BTreeMap;

use infra_core::change::{Content, TreeEntry, TreeNode, TreeUpload};
use infra_core::command::{Shell, quote};
use infra_core::sh;

use crate::receipts::Tag;
use crate::script::{digest, refuse};

const BLOCK: u64 = 512;
/// Archives end on a multiple of this, so that no tar waits for more.
const RECORD: u64 = 20 * BLOCK;
/// How many bytes of names stand in one command.
const WORDS: usize = 32 * 1024;

/// One file of a stream.
pub(crate) struct Member {
    /// What stands before its content.
    pub(crate) header: Vec<u8>,
    /// What it holds.
    pub(crate) content: Content,
}

impl Member {
    fn new(name: &str, mode: u32, content: Content) -> Self {
        Self { header: header(name.as_bytes(), mode & 0o777, content.size()), content }
    }

    /// How many zeros fill its last block.
    pub(crate) fn padding(&self) -> usize {
        usize::try_from((BLOCK - self.content.size() % BLOCK) % BLOCK).expect("less than a block")
    }
}

/// What is sent for a tree.
pub(crate) struct TreeStream {
    /// The files, the first of which says what to do with the others.
    pub(crate) members: Vec<Member>,
    /// How many zeros end it.
    pub(crate) trailer: usize,
    size: u64,
}

/// A tree, made ready to be written.
pub(crate) struct Written {
    pub(crate) stream: TreeStream,
    pub(crate) script: String,
    pub(crate) cleanup: Shell,
}

/// Makes a tree ready. `name` is that of its private directories.
///
/// # Errors
/// What cannot be written, as a sentence fragment.
pub(crate) fn prepare(tree: &TreeUpload, name: &str, begin: &Tag) -> Result<Written, String> {
    let folders = by_folder(tree)?;
    let control = format!("./{name}.c");
    let places: Vec<String> = folders.keys().map(|folder| format!("./{folder}{name}")).collect();
    let work = place_all(&folders, name)?;
    let mut members = vec![Member::new(&format!("{control}/place"), 0o600, Content::text(work.clone()))];
    for (folder, entries) in &folders {
        for entry in entries {
            if let TreeNode::File { content, mode } = &entry.what {
                members.push(Member::new(&format!("./{folder}{name}/{}", last_name(&entry.path)), *mode, content.clone()));
            }
        }
    }
    let stream = TreeStream::new(members);
    let script = script(&tree.root, &control, &places, stream.size, &infra_core::digest::sha256(work.as_bytes()), begin);
    let away = Shell::join("\n", batches("rm -rf --", places.iter().map(String::as_str).chain([control.as_str()])));
    let cleanup = sh!("( cd -P -- {} && { {}\n} ) >/dev/null 2>&1", rooted(&tree.root), away);
    Ok(Written { stream, script, cleanup })
}

/// A path that is no option and no variable's: with a directory in front.
fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("./{path}") }
}

fn last_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What is written, by the directory that it stands in: empty, or with a slash at its end.
fn by_folder(tree: &TreeUpload) -> Result<BTreeMap<&str, Vec<&TreeEntry>>, String> {
    let mut folders: BTreeMap<&str, Vec<&TreeEntry>> = BTreeMap::new();
    for entry in &tree.entries {
        let path = entry.path.as_str();
        let wrong = path.contains(['\n', '\0']) || path.split('/').any(|name| matches!(name, "" | "." | ".."));
        if wrong {
            return Err(format!("{path:?} is no path below a directory"));
        }
        let cut = path.rfind('/').map_or(0, |at| at + 1);
        folders.entry(&path[..cut]).or_default().push(entry);
    }
    Ok(folders)
}

fn script(root: &str, control: &str, places: &[String], size: u64, sha256: &str, begin: &Tag) -> String {
    let all = || places.iter().map(String::as_str).chain([control]);
    let make = Shell::join(" && ", batches("mkdir --", all()));
    let away = Shell::join("; ", batches("rm -rf --", all()));
    sh!(
        "{}{}infra_make() { {}; }
infra_begin() { {}; unset infra_r; }
umask 077
cd -P -- {} >/dev/null 2>&1 || infra_no 'there is no such directory'
command -v tar >/dev/null 2>&1 || infra_no 'there is no tar on the host'
trap {} EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 141' PIPE; trap 'exit 143' TERM
infra_make || infra_no 'no directory can be made there'
infra_e=$(head -c {} | tar -x -p -o -m -f - 2>&1) || { printf '%s\\n' \"$infra_e\" | sed '/xiting with failure/d' >&2; case $infra_e in *'rote only'*) head -c 65536 /dev/zero >{};; esac; infra_no 'the content cannot be written'; }
infra_p=$(cat {} && echo x) || infra_no 'what arrived is not what was sent'
infra_p=${infra_p%??}
infra_h=$(printf '%s\\n' \"$infra_p\" | { infra_sum; printf %s \"$infra_h\"; })
[ \"$infra_h\" = {} ] || infra_no 'what arrived is not what was sent'
eval \"$infra_p\"
exit 0",
        refuse(),
        digest(),
        make,
        Shell::verbatim(begin.say("0")),
        rooted(root),
        away.as_str(),
        size,
        // Of a disk that is full tar says only how much of a block it took: one more write has the system's own words.
        format!("{control}/full"),
        format!("{control}/place"),
        sha256
    )
    .to_string()
}

/// The commands that check all that arrived, give it owner and mode, and put it in place; they end with a newline.
fn place_all(folders: &BTreeMap<&str, Vec<&TreeEntry>>, name: &str) -> Result<String, String> {
    let mut text = String::from(
        "infra_check() { if command -v sha256sum >/dev/null 2>&1; then sha256sum -c; elif command -v shasum >/dev/null 2>&1; then shasum -a 256 -c
else busybox sha256sum -c; fi >/dev/null 2>&1; }
infra_in() { cd -P -- \"$1\" && [ -O . ] || infra_no 'what was made for it was moved away'; }\n",
    );
    for (folder, entries) in folders {
        text.push_str(&format!("( infra_in {}\n{}) || exit 1\n", quote(&format!("./{folder}{name}")), make_ready(entries)));
    }
    text.push_str("sync -f . 2>/dev/null || sync\n");
    // From here on something may have changed: what fails is told as the failure of a command that ran.
    text.push_str("infra_begin\ninfra_f=0\n");
    for (folder, entries) in folders {
        let names: Vec<String> = entries.iter().map(|entry| format!("./{}", last_name(&entry.path))).collect();
        let moves = Shell::join(" && ", batches_to("mv -f --", names.iter().map(String::as_str), "../"));
        text.push_str(&format!("( infra_in {} && {{ {moves}; }} </dev/null ) || infra_f=1\n", quote(&format!("./{folder}{name}"))));
    }
    text.push_str("sync -f . 2>/dev/null\n[ \"$infra_f\" = 0 ] || exit 1\n");
    if text.contains('\0') {
        return Err("a name cannot hold a NUL character".to_owned());
    }
    Ok(text)
}

/// The commands for what is new in one directory, within its private one.
fn make_ready(entries: &[&TreeEntry]) -> String {
    let mut text = String::new();
    let mut sums = String::new();
    let mut owners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut modes: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let name = format!("./{}", last_name(&entry.path));
        match &entry.what {
            // A list of digests has backslashes written in ways on which tools differ.
            TreeNode::File { content, .. } if name.contains('\\') => {
                let (name, sha256) = (quote(&name), content.sha256());
                text.push_str(&format!("infra_sum <{name}; [ \"$infra_h\" = {sha256} ] || infra_no 'what arrived is not what was sent'\n"));
            }
            TreeNode::File { content, .. } => sums.push_str(&format!("{}  {name}\n", content.sha256())),
            TreeNode::Link(target) => {
                text.push_str(&format!("ln -s -- {} {} || infra_no 'a link cannot be made'\n", quote(target), quote(&name)));
            }
        }
        if let Some(owner) = &entry.owner {
            owners.entry(owner).or_default().push(name.clone());
        }
        if let TreeNode::File { mode, .. } = entry.what
            && (mode & 0o7000 != 0 || entry.owner.is_some())
        {
            modes.entry(mode).or_default().push(name);
        }
    }
    if !sums.is_empty() {
        text.push_str(&format!("infra_check <<'infra_end' || infra_no 'what arrived is not what was sent'\n{sums}infra_end\n"));
    }
    for (owner, names) in owners {
        // Of a link itself, too; and the set-id bits come behind, as a change of owner takes them.
        for command in batches(&format!("chown -h -- {}", quote(owner)), names.iter().map(String::as_str)) {
            text.push_str(&format!("{command} || infra_no 'they cannot be given that owner or group'\n"));
        }
    }
    for (mode, names) in modes {
        for command in batches(&format!("chmod -- {mode:o}"), names.iter().map(String::as_str)) {
            text.push_str(&format!("{command} || infra_no 'they cannot be given that mode'\n"));
        }
    }
    text
}

/// One command for many words, as several of a length that every system takes.
fn batches<'w>(command: &str, words: impl Iterator<Item = &'w str>) -> Vec<Shell> {
    batches_to(command, words, "")
}

fn batches_to<'w>(command: &str, words: impl Iterator<Item = &'w str>, last: &str) -> Vec<Shell> {
    let mut all: Vec<String> = Vec::new();
    let mut length = usize::MAX;
    for word in words {
        let word = quote(word);
        if length.saturating_add(word.len()) > WORDS {
            all.push(command.to_owned());
            length = 0;
        }
        let open = all.last_mut().expect("one was just begun");
        open.push(' ');
        open.push_str(&word);
        length += word.len() + 1;
    }
    let end = if last.is_empty() { String::new() } else { format!(" {}", quote(last)) };
    all.into_iter().map(|command| Shell::verbatim(command + &end)).collect()
}

impl TreeStream {
    fn new(members: Vec<Member>) -> Self {
        let length = |member: &Member| member.header.len() as u64 + member.content.size() + member.padding() as u64;
        let content: u64 = members.iter().map(length).sum();
        let size = (content + 2 * BLOCK).div_ceil(RECORD) * RECORD;
        let trailer = usize::try_from(size - content).expect("little more than a record");
        Self { members, trailer, size }
    }
}

/// The header of a regular file, with one for its name before it where that is long.
fn header(name: &[u8], mode: u32, size: u64) -> Vec<u8> {
    let mut all = Vec::new();
    if name.len() > 100 {
        let long = name.len() as u64 + 1;
        all.extend(block(b"././@LongLink", b'L', 0o644, long));
        all.extend_from_slice(name);
        let filled = (all.len() as u64 + 1).div_ceil(BLOCK) * BLOCK;
        all.resize(usize::try_from(filled).expect("a name fits into memory"), 0);
    }
    all.extend(block(&name[..name.len().min(100)], b'0', mode, size));
    all
}

fn block(name: &[u8], kind: u8, mode: u32, size: u64) -> [u8; BLOCK as usize] {
    let mut block = [0; BLOCK as usize];
    block[..name.len()].copy_from_slice(name);
    let mut octal = |at: usize, digits: usize, value: u64| {
        block[at..at + digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    };
    octal(100, 7, u64::from(mode));
    octal(108, 7, 0);
    octal(116, 7, 0);
    octal(136, 11, 0);
    if size < 1 << 33 {
        octal(124, 11, size);
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_eight_gibibytes_are_binary() {
        let small = block(b"a", b'0', 0o644, 0o1234);
        assert_eq!(&small[124..136], b"00000001234\0");
        let large = block(b"a", b'0', 0o644, 1 << 40);
        assert_eq!((large[124], u64::from_be_bytes(large[128..136].try_into().unwrap())), (0x80, 1 << 40));
        let sum: u32 = large.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
        assert_eq!(&large[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn long_names_stand_before_their_member() {
        for length in [99, 100, 101, 511, 512, 600] {
            let header = header(&vec![b'n'; length], 0o600, 5);
            assert_eq!(header.len() % 512, 0);
            assert_eq!(header.len() > 512, length > 100, "{length}");
        }
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in ["", "/a", "a//b", "..", "a/../b", "a/", "./a", "a\nb"] {
            let entry = TreeEntry { path: path.into(), what: TreeNode::Link("x".into()), owner: None };
            let tree = TreeUpload { root: "/srv".into(), entries: vec![entry] };
            assert!(by_folder(&tree).is_err(), "{path:?}");
        }
    }

    #[test]
    fn many_words_make_several_commands() {
        let words: Vec<String> = (0..5000).map(|n| format!("./a b{n}")).collect();
        let commands = batches_to("mv -f --", words.iter().map(String::as_str), "../");
        assert!(commands.len() > 1 && commands.iter().all(|one| one.as_str().len() < WORDS + 100));
        assert!(commands.iter().all(|one| one.as_str().starts_with("mv -f -- './a b") && one.as_str().ends_with(" ../")));
        let count: usize = commands.iter().map(|one| one.as_str().matches("./a b").count()).sum();
        assert_eq!(count, 5000);
    }
}
