//! Disks that fail: the old file or the new one, never half of one; no temporary file is left, and the message says what was wrong.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use infra_test::process;

use crate::{common, listing};

/// A file system of the test's own, mounted below a folder; unmounted when dropped.
struct Mount {
    path: PathBuf,
}

impl Mount {
    fn new(folder: &Path, words: &[&str]) -> Self {
        let path = folder.join("disk");
        std::fs::create_dir(&path).expect("a place for it");
        run(Command::new("mount").args(words).arg(&path));
        Self { path }
    }

    fn tmpfs(folder: &Path, options: &str) -> Self {
        Self::new(folder, &["-t", "tmpfs", "-o", options, "infra-test"])
    }

    fn ext4(folder: &Path) -> Self {
        let image = folder.join("image");
        std::fs::File::create(&image).expect("an image").set_len(8 << 20).expect("a size");
        run(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image));
        Self::new(folder, &["-o", "loop", image.to_str().expect("UTF-8")])
    }

    /// A btrfs on which nobody, also root, may have more than this. Other file systems have quotas of users and groups, which need a part of the kernel that
    /// not every one has; what is said when a quota is used up is the same.
    fn with_quota(folder: &Path, bytes: &str) -> Self {
        let image = folder.join("image");
        // As small as it can be. It takes no more of the disk than what is written.
        std::fs::File::create(&image).expect("an image").set_len(128 << 20).expect("a size");
        run(Command::new("/usr/sbin/mkfs.btrfs").args(["-q", "-f"]).arg(&image));
        let disk = Self::new(folder, &["-o", "loop", image.to_str().expect("UTF-8")]);
        run(Command::new("/usr/bin/btrfs").args(["quota", "enable"]).arg(&disk.path));
        run(Command::new("/usr/bin/btrfs").args(["qgroup", "limit", bytes]).arg(&disk.path));
        disk
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        for file in ["file", "tree/file"] {
            let _ = Command::new("chattr").arg("-i").arg(self.path.join(file)).stderr(std::process::Stdio::null()).status();
        }
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(command: &mut Command) {
    process::run_well(command, Duration::from_secs(60)).unwrap_or_else(|error| panic!("{error}"));
}

/// A fault: how the disk is made, what is done to it once the old files are there, and what the system says of it.
struct Fault {
    name: &'static str,
    disk: fn(&Path) -> Mount,
    then: fn(&Path),
    says: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault { name: "full", disk: |folder| Mount::tmpfs(folder, "size=128k"), then: |_| {}, says: "No space left on device" },
    Fault {
        name: "no inodes",
        disk: |folder| Mount::tmpfs(folder, "size=8m,nr_inodes=6"),
        then: |disk| {
            for name in 0.. {
                if std::fs::write(disk.join(format!("filler-{name}")), "").is_err() {
                    break;
                }
            }
        },
        says: "No space left on device",
    },
    Fault { name: "quota", disk: |folder| Mount::with_quota(folder, "512k"), then: |_| {}, says: "Disk quota exceeded" },
    Fault {
        name: "read-only",
        disk: |folder| Mount::tmpfs(folder, "size=8m"),
        then: |disk| run(Command::new("mount").args(["-o", "remount,ro"]).arg(disk)),
        says: "Read-only file system",
    },
    Fault {
        name: "immutable",
        disk: Mount::ext4,
        then: |disk| run(Command::new("chattr").arg("+i").args([disk.join("file"), disk.join("tree/file")])),
        says: "Operation not permitted",
    },
];

#[test]
fn a_disk_that_fails_keeps_the_old_file() {
    for fault in FAULTS {
        for towards_host in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path();
            let disk = (fault.disk)(folder);
            let here = folder.join("here");
            std::fs::create_dir_all(here.join("tree")).expect("a folder");
            std::fs::create_dir_all(disk.path.join("tree")).expect("a folder");
            for file in ["file", "tree/file"] {
                std::fs::write(here.join(file), vec![b'n'; 1 << 20]).expect("a new file");
                std::fs::write(disk.path.join(file), "old").expect("an old file");
            }
            (fault.then)(&disk.path);
            let before = listing(&disk.path);
            let disk_path = disk.path.to_str().expect("UTF-8");
            let here = here.to_str().expect("UTF-8");
            for (src, dest) in
                [(format!("{here}/file"), format!("{disk_path}/file")), (format!("{here}/tree/"), format!("{disk_path}/tree"))]
            {
                // To the host, which is this machine; and from it, where the disk is that of the one who fetches.
                let words: Vec<String> = if towards_host {
                    vec!["@local".into(), "copy".into(), src, dest]
                } else {
                    vec!["@local".into(), "files.get".into(), "--yes".into(), format!("src={src}"), format!("dest={dest}")]
                };
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let ran = common::run(folder, &words).expect(1);
                assert!(ran.stderr.contains(fault.says), "{} {words:?}: {}", fault.name, ran.stderr);
                assert_eq!(listing(&disk.path), before, "{} {words:?}", fault.name);
            }
        }
    }
}

/// A change of a few small files that a nearly full disk has room for goes through, whatever else it lacks.
#[test]
fn a_disk_without_execution_takes_scripts_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let disk = Mount::tmpfs(folder, "size=8m,noexec");
    std::fs::write(folder.join("script.sh"), "#!/bin/sh\necho ran > \"$1\"\n").expect("a script");
    std::fs::write(folder.join("file"), "new").expect("a file");
    let environment = format!("_env={{\"TMPDIR\":\"{}\"}}", disk.path.display());
    let made = format!("args={}/made", disk.path.display());
    common::run(folder, &["@local", "server.script", "src=script.sh", &made, &environment, "--yes"]).expect(0);
    common::run(folder, &["@local", "copy", "file", &format!("{}/", disk.path.display())]).expect(0);
    let names: Vec<String> = listing(&disk.path).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["file", "made"]);
    assert_eq!(std::fs::read_to_string(disk.path.join("made")).expect("made"), "ran\n");
}
