//! Files and programs brought to a host.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use infra_connect::Settings;
use infra_core::change::{Action, Content, Replaces, ScriptRun, Upload};
use infra_core::connection::{Connection, Ending};
use infra_core::digest::sha256;
use infra_core::global_arguments::Context;

async fn put(host: &Arc<dyn Connection>, upload: Upload) -> Ending {
    perform(host, &Action::Upload(upload)).await.0
}

fn refusal(ending: Ending) -> String {
    let Ending::Refused(reason) = ending else { panic!("{ending:?}") };
    reason
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn local_file(path: &Path, bytes: &[u8]) -> Content {
    std::fs::write(path, bytes).unwrap();
    Content::LocalFile { path: path.to_str().unwrap().to_owned(), size: bytes.len() as u64, sha256: sha256(bytes) }
}

#[tokio::test]
async fn a_file_is_written_with_its_content_mode_and_owner() {
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    let dest = folder.path().join("it's a $file");
    let content: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    for bytes in [content.clone(), Vec::new(), b"one line\n".to_vec()] {
        assert_eq!(put(&host, upload(bytes.clone(), &dest)).await, Ending::Exited(0));
        assert!(std::fs::read(&dest).unwrap() == bytes);
    }
    // The umask of this process holds for a new file.
    let umask = u32::from_str_radix(perform(&host, &run("umask")).await.1.stdout().trim(), 8).unwrap();
    assert_eq!(mode(&dest), 0o666 & !umask);

    for bits in [0o600, 0o4755, 0o444] {
        assert_eq!(put(&host, Upload { mode: Some(bits), ..upload("x", &dest) }).await, Ending::Exited(0));
        assert_eq!(mode(&dest), bits);
    }
    assert_eq!(put(&host, upload("kept", &dest)).await, Ending::Exited(0));
    assert_eq!((mode(&dest), std::fs::read_to_string(&dest).unwrap().as_str()), (0o444, "kept"));
    assert_eq!(names(folder.path()), ["it's a $file"]);
}

#[tokio::test]
async fn owner_and_group_are_given_or_kept() {
    assert!(nix::unistd::geteuid().is_root(), "giving files away takes root");
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    let dest = folder.path().join("owned");
    let owner = |path: &Path| (std::fs::metadata(path).unwrap().uid(), std::fs::metadata(path).unwrap().gid());
    let given = Upload { user: Some("1234".to_owned()), group: Some("4321".to_owned()), ..upload("a", &dest) };
    assert_eq!(put(&host, given).await, Ending::Exited(0));
    assert_eq!(owner(&dest), (1234, 4321));
    assert_eq!(put(&host, upload("b", &dest)).await, Ending::Exited(0));
    assert_eq!(owner(&dest), (1234, 4321));
    assert_eq!(put(&host, Upload { user: Some("0".to_owned()), mode: Some(0o4750), ..upload("c", &dest) }).await, Ending::Exited(0));
    assert_eq!((owner(&dest), mode(&dest)), ((0, 4321), 0o4750));
    let nobody = Upload { user: Some("no-such-user".to_owned()), ..upload("d", &dest) };
    let reason = refusal(put(&host, nobody).await);
    assert!(reason.contains("cannot be given that owner") && reason.contains("no-such-user"), "{reason}");
    assert_eq!((std::fs::read_to_string(&dest).unwrap().as_str(), names(folder.path()).len()), ("c", 1));
}

#[tokio::test]
async fn a_link_is_followed() {
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    let (target, link, far) = (folder.path().join("real/target"), folder.path().join("link"), folder.path().join("far"));
    std::fs::create_dir(folder.path().join("real")).unwrap();
    symlink("real/target", &link).unwrap();
    assert_eq!(put(&host, upload("through a link to nothing", &link)).await, Ending::Exited(0));
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "through a link to nothing");
    assert_eq!(put(&host, upload("again", &link)).await, Ending::Exited(0));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "again");
    symlink("/no/such/folder/at/all", &far).unwrap();
    let reason = refusal(put(&host, upload("x", &far)).await);
    assert!(reason.contains("the link leads nowhere") || reason.contains("there is no directory"), "{reason}");
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_and_nothing_is_left() {
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    std::fs::create_dir(folder.path().join("dir")).unwrap();
    for (dest, words) in [("dir", "there is a directory"), ("none/file", "there is no directory"), ("dir/", "cannot end with a slash")] {
        let reason = refusal(put(&host, upload("x", &folder.path().join(dest))).await);
        assert!(reason.contains(words) && reason.contains(dest), "{reason}");
    }
    let reason = refusal(put(&host, upload("x", Path::new("/dev/null"))).await);
    assert!(reason.contains("not a regular file"), "{reason}");
    let reason = refusal(put(&host, upload("x", Path::new("/proc/nope"))).await);
    assert!(reason.contains("no file can be made there"), "{reason}");
    assert_eq!(names(folder.path()), ["dir"]);
}

#[tokio::test]
async fn what_changed_since_it_was_read_is_left_alone() {
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    let dest = folder.path().join("file");
    let replacing = |old: &str| Upload { replaces: Replaces::Digest(sha256(old.as_bytes())), ..upload("new", &dest) };
    assert!(refusal(put(&host, replacing("old")).await).contains("it is gone since it was read"));
    std::fs::write(&dest, "other").unwrap();
    assert!(refusal(put(&host, replacing("old")).await).contains("it changed after it was read"));
    assert_eq!(std::fs::read_to_string(&dest).unwrap(), "other");
    assert_eq!(put(&host, replacing("other")).await, Ending::Exited(0));
    assert_eq!((std::fs::read_to_string(&dest).unwrap().as_str(), names(folder.path()).len()), ("new", 1));
}

#[tokio::test]
async fn a_local_file_is_sent_as_it_was_read_or_not_at_all() {
    let (host, folder, here) = (local().await, tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dest, source) = (folder.path().join("file"), here.path().join("source"));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 253) as u8).collect();
    let content = local_file(&source, &bytes);
    assert_eq!(put(&host, Upload { content: content.clone(), ..upload("", &dest) }).await, Ending::Exited(0));
    assert!(std::fs::read(&dest).unwrap() == bytes);
    let mut changed = bytes.clone();
    changed[5] ^= 1;
    for now in [&changed[..], &bytes[..100], &[&bytes[..], b"more"].concat()] {
        std::fs::write(&source, now).unwrap();
        let reason = refusal(put(&host, Upload { content: content.clone(), ..upload("", &dest) }).await);
        assert!(reason.contains("changed after it was read"), "{reason}");
    }
    std::fs::remove_file(&source).unwrap();
    let reason = refusal(put(&host, Upload { content, ..upload("", &dest) }).await);
    assert!(reason.contains("cannot be read"), "{reason}");
    assert!(std::fs::read(&dest).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["file"]);
}

#[tokio::test]
async fn an_upload_that_stands_still_is_ended_and_was_private_all_along() {
    let (here, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut settings = Settings::new(here.path());
    settings.upload_stall = Duration::from_millis(1500);
    let host = local_with(settings).await;
    // A pipe that nobody closes is a local file that never comes to its end.
    let source = here.path().join("pipe");
    nix::unistd::mkfifo(&source, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let feeding = source.clone();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let feeder = std::thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(feeding).unwrap();
        std::io::Write::write_all(&mut pipe, &[b'x'; 50_000]).unwrap();
        wait.recv().unwrap();
    });
    let content = Content::LocalFile { path: source.to_str().unwrap().to_owned(), size: 1_000_000, sha256: sha256(b"never") };
    let dest = folder.path().join("file");
    let action = Action::Upload(Upload { content, mode: Some(0o666), ..upload("", &dest) });
    let watching = async {
        let mut sizes = 0;
        eventually("the temporary file grows", || {
            let found = names(folder.path());
            for name in &found {
                assert!(name.starts_with(".infra-"), "{name}");
                assert_eq!(mode(&folder.path().join(name)), 0o600);
                sizes = std::fs::metadata(folder.path().join(name)).unwrap().len();
            }
            sizes >= 32_768
        })
        .await;
    };
    let ((ending, _), ()) = tokio::join!(perform(&host, &action), watching);
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert_eq!(names(folder.path()), Vec::<String>::new());
    done.send(()).unwrap();
    feeder.join().unwrap();
}

#[tokio::test]
async fn a_full_disk_leaves_the_old_file() {
    assert!(nix::unistd::geteuid().is_root(), "mounting takes root");
    let (host, folder) = (local().await, tempfile::tempdir().unwrap());
    let mount = |args: &[&str]| {
        let done = std::process::Command::new("mount").args(args).arg(folder.path()).status().unwrap();
        assert!(done.success());
    };
    mount(&["-t", "tmpfs", "-o", "size=256k,noexec", "tmpfs"]);
    let _unmount = Unmount(folder.path());
    let dest = folder.path().join("file");
    assert_eq!(put(&host, upload("old", &dest)).await, Ending::Exited(0));
    let reason = refusal(put(&host, upload(vec![b'x'; 1_000_000], &dest)).await);
    assert!(reason.contains("No space left on device") && reason.contains("file was not written"), "{reason}");
    assert_eq!((std::fs::read_to_string(&dest).unwrap().as_str(), names(folder.path()).len()), ("old", 1));
    // A program is read by its interpreter, so `noexec` does not stop it.
    let context = environment(&[]);
    let action = script("#!/bin/sh\necho \"ran with $1\"\n", &["an argument"]);
    let place = run(&format!("export TMPDIR={}; env | grep TMPDIR", folder.path().display()));
    assert_eq!(perform(&host, &place).await.0, Ending::Exited(0));
    let (ending, heard) = perform_in(&host, &action, &context, None).await;
    assert_eq!((ending, heard.stdout().as_str()), (Ending::Exited(0), "ran with an argument\n"));

    mount(&["-o", "remount,ro"]);
    let reason = refusal(put(&host, upload("new", &dest)).await);
    assert!(reason.contains("Read-only file system"), "{reason}");
}

struct Unmount<'p>(&'p Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn programs_run_by_their_first_line_and_leave_nothing() {
    let host = local().await;
    let folder = tempfile::tempdir().unwrap();
    let context = Context { chdir: Some(folder.path().to_str().unwrap().to_owned()), ..environment(&[("GREETING", "hello")]) };
    let temporary = |heard: &Heard| heard.stdout().lines().last().unwrap_or_default().to_owned();
    for (text, status) in [
        ("#!/bin/bash\n[[ -n $BASH_VERSION ]] && echo \"$GREETING $1 $(pwd)\"; stat -c %a \"$0\"; echo \"$0\"; exit 3\n", 3),
        ("echo \"$GREETING $1 $(pwd)\"; stat -c %a \"$0\"; echo \"$0\"", 0),
        ("#!/usr/bin/env -S sh -u\necho \"$GREETING $1 $(pwd)\"; stat -c %a \"$0\"; echo \"$0\"", 0),
    ] {
        let (ending, heard) = perform_in(&host, &script(text, &["it's me"]), &context, None).await;
        assert_eq!(ending, Ending::Exited(status), "{}", heard.stderr());
        let lines: Vec<String> = heard.stdout().lines().map(str::to_owned).collect();
        assert_eq!(lines[..2], [format!("hello it's me {}", folder.path().display()), "600".to_owned()]);
        assert!(!Path::new(&lines[2]).exists() && lines[2].contains("/.infra-"), "{lines:?}");
    }
    let (ending, _) = perform_in(&host, &script("#!/no/such/interpreter\n", &[]), &context, None).await;
    assert!(refusal(ending).contains("there is no /no/such/interpreter on the host"));
    let binary = ScriptRun { content: Content::Bytes(Arc::new(b"\x7fELF\0\0\0".to_vec())), args: Vec::new() };
    assert!(refusal(perform(&host, &Action::Script(binary)).await.0).contains("it is no script"));

    // Killed, it is gone as well: by TERM, and where it does not obey, by KILL.
    for text in ["echo \"$0\"; sleep 611", "trap '' TERM; echo \"$0\"; while :; do sleep 611; done"] {
        let (ending, heard) = perform_in(&host, &script(text, &[]), &context, Some(Duration::from_millis(400))).await;
        assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
        let path = temporary(&heard);
        assert!(path.contains("/.infra-") && !Path::new(&path).exists(), "{path}");
    }
}
