//! What has ever been written on a machine, seen from outside.
//!
//! A machine's root is an overlay: whatever is written on it lands in a folder of its own on the controller. A snapshot
//! lists that folder. Two equal snapshots mean that between them nothing was written, whatever anybody says who was on the
//! machine. The time of the last change of a file's inode (`ctime`) is compared as well: so even `chmod` to the mode that a
//! file has already shows.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::BenchError;

/// What a machine writes by itself, with the reason why it says nothing about a deploy. Also left out are the size and the
/// times of a folder in which one of these stands.
pub const VOLATILE: &[(&str, &str)] = &[
    ("/tmp", "a file system in memory on a booted machine; the folder below it is a mount point"),
    ("/run", "likewise"),
    ("/dev", "likewise"),
    ("/proc", "likewise"),
    ("/sys", "likewise"),
    ("/var/tmp", "systemd makes private folders here for services when they start"),
    ("/var/log", "the journal and log-ins are written all the time"),
    ("/var/lib/systemd/random-seed", "written at boot and at shutdown"),
    ("/var/lib/systemd/timers", "the time at which a timer last went off"),
    ("/var/lib/systemd/timesync", "the clock"),
    ("/var/cache/apt/pkgcache.bin", "apt rebuilds its index when it is only asked something"),
    ("/var/cache/apt/srcpkgcache.bin", "likewise"),
];

/// What kind of thing a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Kind {
    File,
    Folder,
    Link,
    /// It stood in the machine root, and was removed on this machine.
    Removed,
    Device,
    Pipe,
    Socket,
}

/// One thing that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// The owner's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// Bytes of a file; 0 for everything else.
    pub size: u64,
    /// Time of the last change of the content, nanoseconds since 1970.
    pub modified: i128,
    /// Time of the last change of anything, nanoseconds since 1970.
    pub changed: i128,
    /// SHA-256 of a file's content, in hexadecimal.
    pub digest: Option<String>,
    /// Where a link points.
    pub target: Option<PathBuf>,
}

/// Everything that was written on a machine, by its path on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    entries: BTreeMap<PathBuf, Entry>,
}

/// Something that two snapshots do not agree on. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, on the machine.
    pub path: PathBuf,
    /// What happened there: `written`, `gone again`, `content`, `mode 0644 -> 0600`, …
    pub what: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path.display(), self.what.join(", "))
    }
}

impl Snapshot {
    /// Lists the folder that holds a machine's writes.
    ///
    /// # Errors
    /// When something in it cannot be read, except because it has just been removed.
    pub fn of(upper: &Path) -> Result<Self, BenchError> {
        let mut entries = BTreeMap::new();
        list(upper, Path::new("/"), &mut entries)?;
        Ok(Self { entries })
    }

    /// What was written, by path.
    #[must_use]
    pub fn entries(&self) -> &BTreeMap<PathBuf, Entry> {
        &self.entries
    }

    /// What was written between two snapshots of one machine, by path. Nothing, when nothing was.
    #[must_use]
    pub fn difference(before: &Self, after: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (path, entry) in &after.entries {
            let what = match before.entries.get(path) {
                None if entry.kind == Kind::Removed => vec!["removed".to_owned()],
                None => vec!["written".to_owned()],
                Some(former) => changes(former, entry),
            };
            if !what.is_empty() {
                differences.push(Difference { path: path.clone(), what });
            }
        }
        for path in before.entries.keys() {
            if !after.entries.contains_key(path) {
                differences.push(Difference { path: path.clone(), what: vec!["gone again".to_owned()] });
            }
        }
        differences.sort_by(|one, other| one.path.cmp(&other.path));
        differences
    }
}

fn list(upper: &Path, inside: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> Result<(), BenchError> {
    let folder = upper.join(inside.strip_prefix("/").unwrap_or(inside));
    let children = match fs::read_dir(&folder) {
        Ok(children) => children,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BenchError::file("list", folder)(error)),
    };
    for child in children {
        let child = child.map_err(BenchError::file("list", &folder))?;
        let path = inside.join(child.file_name());
        if VOLATILE.iter().any(|(volatile, _)| path == Path::new(volatile)) {
            continue;
        }
        match entry(&child.path(), &path) {
            Ok(entry) => {
                let is_folder = entry.kind == Kind::Folder;
                entries.insert(path.clone(), entry);
                if is_folder {
                    list(upper, &path, entries)?;
                }
            }
            // Gone between listing and looking.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(BenchError::file("read", child.path())(error)),
        }
    }
    Ok(())
}

fn entry(file: &Path, path: &Path) -> std::io::Result<Entry> {
    let metadata = fs::symlink_metadata(file)?;
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Folder
    } else if kind.is_symlink() {
        Kind::Link
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        // How overlayfs marks what is gone.
        Kind::Removed
    } else if kind.is_fifo() {
        Kind::Pipe
    } else if kind.is_socket() {
        Kind::Socket
    } else {
        Kind::Device
    };
    let holds_volatile = kind == Kind::Folder && VOLATILE.iter().any(|(volatile, _)| Path::new(volatile).parent() == Some(path));
    let time = |seconds: i64, nanoseconds: i64| match holds_volatile {
        true => 0,
        false => i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds),
    };
    Ok(Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: if kind == Kind::File { metadata.size() } else { 0 },
        modified: time(metadata.mtime(), metadata.mtime_nsec()),
        changed: time(metadata.ctime(), metadata.ctime_nsec()),
        digest: if kind == Kind::File { Some(digest(file)?) } else { None },
        target: if kind == Kind::Link { Some(fs::read_link(file)?) } else { None },
    })
}

fn digest(file: &Path) -> std::io::Result<String> {
    let mut file = File::open(file)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => sum.update(&buffer[..count]),
        }
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn changes(former: &Entry, now: &Entry) -> Vec<String> {
    let mut what = Vec::new();
    if former.kind != now.kind {
        what.push(format!("{:?} -> {:?}", former.kind, now.kind));
    }
    if former.digest != now.digest {
        what.push(format!("content ({} -> {} bytes)", former.size, now.size));
    }
    if former.target != now.target {
        let target = |entry: &Entry| entry.target.clone().unwrap_or_default().display().to_string();
        what.push(format!("target {} -> {}", target(former), target(now)));
    }
    if former.mode != now.mode {
        what.push(format!("mode {:04o} -> {:04o}", former.mode, now.mode));
    }
    if (former.uid, former.gid) != (now.uid, now.gid) {
        what.push(format!("owner {}:{} -> {}:{}", former.uid, former.gid, now.uid, now.gid));
    }
    if what.is_empty() && former.modified != now.modified {
        what.push("written again, the same".to_owned());
    }
    if what.is_empty() && former.changed != now.changed {
        what.push("touched (inode changed, nothing else to be seen)".to_owned());
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn lines(differences: &[Difference]) -> Vec<String> {
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_way_of_writing_shows_and_volatile_folders_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("etc/app")).unwrap();
        fs::create_dir_all(at("var/log")).unwrap();
        for file in ["same", "content", "mode", "gone", "again", "touched"] {
            fs::write(at("etc/app").join(file), "first").unwrap();
        }
        symlink("one", at("etc/link")).unwrap();
        let before = Snapshot::of(folder.path()).unwrap();
        assert_eq!(before, Snapshot::of(folder.path()).unwrap());
        assert_eq!(
            before.entries()[Path::new("/etc/app/same")].digest.as_deref(),
            Some("a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e")
        );

        fs::write(at("etc/app/content"), "second").unwrap();
        fs::write(at("etc/app/again"), "first").unwrap();
        fs::set_permissions(at("etc/app/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        let mode = fs::metadata(at("etc/app/touched")).unwrap().permissions();
        fs::set_permissions(at("etc/app/touched"), mode).unwrap();
        fs::remove_file(at("etc/app/gone")).unwrap();
        fs::remove_file(at("etc/link")).unwrap();
        symlink("two", at("etc/link")).unwrap();
        fs::write(at("etc/new"), "").unwrap();
        fs::write(at("var/log/syslog"), "a line").unwrap();
        let after = Snapshot::of(folder.path()).unwrap();
        assert_eq!(
            lines(&Snapshot::difference(&before, &after)),
            [
                "/etc: written again, the same",
                "/etc/app: written again, the same",
                "/etc/app/again: written again, the same",
                "/etc/app/content: content (5 -> 6 bytes)",
                "/etc/app/gone: gone again",
                "/etc/app/mode: mode 0644 -> 0600",
                "/etc/app/touched: touched (inode changed, nothing else to be seen)",
                "/etc/link: target one -> two",
                "/etc/new: written",
            ]
        );
    }
}
