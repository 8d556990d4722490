//! Trees of files to a host and from it, with the tools of GNU and of busybox.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use infra_connect::Settings;
use infra_core::BoxFuture;
use infra_core::change::{Action, Content, FetchedFile, TreeDownload, TreeEntry, TreeNode, TreeUpload};
use infra_core::connection::{Connection, Ending, Perform, TakeOutput};
use infra_core::digest::sha256;
use infra_core::global_arguments::Context;
use infra_core::output::Stream;
use tempfile::TempDir;

/// Names that a careless command would stumble over.
const NAMES: &[&str] =
    &["plain", "with space", "-n", "--help", "quo'te", "dou\"ble", "$HOME", "`id`", "*", "back\\slash", "ünï", "(", "!", " ", "#"];

/// This machine with the tools of one folder alone.
struct Tools {
    path: String,
}

impl MadeUp for Tools {
    fn shell(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("/usr/bin/env");
        command.arg("-i").arg(format!("PATH={}", self.path)).arg("sh");
        command
    }
}

/// Hosts with the tools of GNU and with those of busybox, and a folder each.
async fn hosts() -> Vec<(&'static str, TempDir, Arc<dyn Connection>)> {
    let mut all: Vec<(&'static str, TempDir, Arc<dyn Connection>)> = Vec::new();
    for name in ["gnu", "busybox"] {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let path = match name {
            "gnu" => "/usr/bin:/bin".to_owned(),
            _ => {
                let installed = std::process::Command::new("busybox").args(["--install", "-s"]).arg(&bin).status();
                assert!(installed.is_ok_and(|status| status.success()), "this test needs busybox: apt-get install busybox");
                bin.display().to_string()
            }
        };
        let host = meet(Arc::new(Settings::new("/nonexistent")), &Arc::new(Tools { path })).await.unwrap();
        all.push((name, folder, Arc::new(host)));
    }
    all
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn file(path: &str, content: impl Into<Vec<u8>>, mode: u32) -> TreeEntry {
    let what = TreeNode::File { content: Content::Bytes(Arc::new(content.into())), mode };
    TreeEntry { path: path.to_owned(), what, owner: None }
}

fn local_file(path: &str, local: &Path, content: &[u8]) -> TreeEntry {
    let content = Content::LocalFile { path: text(local), size: content.len() as u64, sha256: sha256(content) };
    TreeEntry { path: path.to_owned(), what: TreeNode::File { content, mode: 0o644 }, owner: None }
}

fn link(path: &str, target: &str) -> TreeEntry {
    TreeEntry { path: path.to_owned(), what: TreeNode::Link(target.to_owned()), owner: None }
}

async fn write(host: &Arc<dyn Connection>, root: &Path, entries: Vec<TreeEntry>) -> (Ending, Arc<Heard>) {
    perform(host, &Action::UploadTree(TreeUpload { root: text(root), entries })).await
}

/// All paths below a folder, sorted.
fn paths(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            all.push(text(entry.path().strip_prefix(folder).unwrap()));
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    all.sort();
    all
}

fn refusal(ending: Ending) -> String {
    match ending {
        Ending::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_tree_arrives_as_it_is() {
    for (tools, folder, host) in hosts().await {
        let root = folder.path().join("it's the root");
        let long = "n".repeat(140);
        std::fs::create_dir_all(root.join(format!("d/{long}"))).unwrap();
        let mut entries = Vec::new();
        for (at, name) in NAMES.iter().enumerate() {
            entries.push(file(name, [0, 1, 511, 512, 513, 100_000].map(|size| vec![b'x'; size])[at % 6].clone(), 0o640));
            entries.push(link(&format!("d/{name}"), "it's\\not there"));
        }
        entries.push(file(&format!("d/{long}/{long}"), b"long\0", 0o755));
        entries.push(TreeEntry { owner: Some("1:2".into()), ..file("set id", "x", 0o4711) });
        entries.push(TreeEntry { owner: Some("1:2".into()), ..link("owned link", "/nowhere") });
        // A link is replaced, and what it leads to is left alone.
        std::fs::write(folder.path().join("outside"), "outside").unwrap();
        symlink(folder.path().join("outside"), root.join("plain")).unwrap();
        for _ in 0..2 {
            let (ending, heard) = write(&host, &root, entries.clone()).await;
            assert_eq!((ending, heard.stderr().as_str(), heard.stdout().as_str()), (Ending::Exited(0), "", ""), "{tools}");
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("outside")).unwrap(), "outside");
        for entry in &entries {
            let path = root.join(&entry.path);
            let found = std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{tools}: {}: {error}", entry.path));
            match &entry.what {
                TreeNode::File { content: Content::Bytes(bytes), mode } => {
                    assert!(std::fs::read(&path).unwrap() == **bytes, "{tools}: {}", entry.path);
                    assert_eq!(found.mode() & 0o7777, *mode, "{tools}: {}", entry.path);
                }
                TreeNode::Link(target) => assert_eq!(std::fs::read_link(&path).unwrap(), Path::new(target), "{tools}"),
                TreeNode::File { .. } => unreachable!("all content is given"),
            }
            let owner = if entry.owner.is_some() { (1, 2) } else { (0, 0) };
            assert_eq!((found.uid(), found.gid()), owner, "{tools}: {}", entry.path);
        }
        assert_eq!(paths(&root).len(), entries.len() + 2, "{tools}: nothing else is there: {:?}", paths(&root));
        host.close().await;
    }
}

#[tokio::test]
async fn what_cannot_be_written_whole_changes_nothing() {
    for (tools, folder, host) in hosts().await {
        let (root, local) = (folder.path().join("root"), folder.path().join("local"));
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("a"), "old").unwrap();
        let before = paths(&root);
        let other = vec![b'y'; 70_000];
        std::fs::write(&local, &other).unwrap();
        for (entry, wanted) in [
            (local_file("b", &local, &vec![b'x'; 70_000]), "changed after it was read"),
            (local_file("b", &local, &other[..60_000]), "changed after it was read"),
            (local_file("b", &local, &[other.clone(), other.clone()].concat()), "changed after it was read"),
            (local_file("b", &folder.path().join("gone"), b"x"), "cannot be read"),
            (file("no such/b", "x", 0o644), "no directory can be made there"),
            (file("../b", "x", 0o644), "is no path below a directory"),
            (TreeEntry { owner: Some("no such user".into()), ..file("b", "x", 0o644) }, "they cannot be given that owner or group"),
        ] {
            let (ending, _) = write(&host, &root, vec![file("a", "new", 0o644), entry]).await;
            let reason = refusal(ending);
            assert!(reason.contains(wanted), "{tools}: {reason}");
            assert_eq!(
                (paths(&root), std::fs::read_to_string(root.join("a")).unwrap().as_str()),
                (before.clone(), "old"),
                "{tools}: {wanted}"
            );
        }
        let (ending, _) = write(&host, &folder.path().join("none"), vec![file("a", "new", 0o644)]).await;
        assert!(refusal(ending).contains("there is no such directory"), "{tools}");
        // What cannot be put in place is told as the failure of a command that ran.
        std::fs::create_dir_all(root.join("dir/full")).unwrap();
        let (ending, heard) = write(&host, &root, vec![file("a", "new", 0o644), file("dir/full", "x", 0o644)]).await;
        assert_eq!(ending, Ending::Exited(1), "{tools}");
        assert!(heard.stderr().contains("full"), "{tools}: {}", heard.stderr());
        assert_eq!(paths(&root), ["a", "dir", "dir/full"], "{tools}");
        host.close().await;
    }
}

/// Kills all that runs on a connection as soon as something has moved.
struct KillsWhenMoved {
    moved: AtomicU64,
    told: tokio::sync::Notify,
}

impl TakeOutput for KillsWhenMoved {
    fn take(&self, _: Stream, _: &[u8]) {}

    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn moved(&self, bytes: u64) {
        self.moved.store(bytes, Ordering::SeqCst);
        self.told.notify_one();
    }
}

/// A sparse file, which is sent as fast as anything can be.
fn sparse(folder: &Path, size: u64) -> (PathBuf, String) {
    let path = folder.join("sparse");
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let mut digest = infra_core::digest::Sha256Builder::default();
    let zeros = vec![0; 1 << 20];
    (0..size >> 20).for_each(|_| digest.update(&zeros));
    (path, digest.finish())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_tree_leaves_nothing() {
    let here = tempfile::tempdir().unwrap();
    let size = 256 << 20;
    let (path, sha256) = sparse(here.path(), size);
    for (tools, folder, host) in hosts().await {
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let content = Content::LocalFile { path: text(&path), size, sha256: sha256.clone() };
        let large = TreeEntry { path: "large".into(), what: TreeNode::File { content, mode: 0o644 }, owner: None };
        let action = Action::UploadTree(TreeUpload { root: text(&root), entries: vec![file("a", "x", 0o644), large] });
        let sink = Arc::new(KillsWhenMoved { moved: AtomicU64::new(0), told: tokio::sync::Notify::new() });
        let context = Context::default();
        let performing = host.perform(Perform { action: &action, context: &context, timeout: None, as_of: None }, sink.clone());
        let killing = async {
            while sink.moved.load(Ordering::SeqCst) < 1 << 20 {
                sink.told.notified().await;
            }
            host.kill().await;
        };
        let (ending, ()) = tokio::join!(performing, killing);
        assert_eq!(ending, Ending::Killed, "{tools}");
        assert!(sink.moved.load(Ordering::SeqCst) < size, "{tools}: it was killed on the way");
        assert_eq!(paths(&root), [""; 0], "{tools}");
        host.close().await;
    }
}

fn fetched(path: &str, content: &[u8]) -> FetchedFile {
    FetchedFile { path: path.to_owned(), size: content.len() as u64, sha256: sha256(content), executable: path.ends_with(".sh") }
}

fn fetch(root: &Path, dest: &Path, files: Vec<FetchedFile>) -> TreeDownload {
    TreeDownload { root: text(root), dest: text(dest), create_dir: true, directories: Vec::new(), files, links: Vec::new() }
}

#[tokio::test]
async fn a_tree_comes_as_it_is() {
    for (tools, folder, host) in hosts().await {
        let (root, dest) = (folder.path().join("it's the root"), folder.path().join("made/dest"));
        std::fs::create_dir_all(root.join("d")).unwrap();
        let contents: Vec<(String, Vec<u8>)> = NAMES
            .iter()
            .enumerate()
            .flat_map(|(at, name)| [(format!("d/{name}"), vec![b'd'; at * 20_000]), ((*name).to_owned(), Vec::new())])
            .chain([("x.sh".to_owned(), b"#!/bin/sh\n".to_vec())])
            .collect();
        for (name, content) in &contents {
            std::fs::write(root.join(name), content).unwrap();
        }
        let files = contents.iter().map(|(name, content)| fetched(name, content)).collect();
        let links = vec![("d/link".to_owned(), "../plain".to_owned())];
        let tree = TreeDownload { directories: vec!["d".into()], links, ..fetch(&root, &dest, files) };
        for _ in 0..2 {
            assert_eq!(perform(&host, &Action::DownloadTree(tree.clone())).await.0, Ending::Exited(0), "{tools}");
        }
        for (name, content) in &contents {
            assert!(std::fs::read(dest.join(name)).unwrap() == *content, "{tools}: {name}");
        }
        assert_eq!(std::fs::metadata(dest.join("x.sh")).unwrap().permissions().mode() & 0o100, 0o100);
        assert_eq!(std::fs::read_link(dest.join("d/link")).unwrap(), Path::new("../plain"));
        assert_eq!(paths(&dest).len(), contents.len() + 2, "{tools}: {:?}", paths(&dest));

        // What was appended since it was looked at is left out; what is no longer the same is not written, and neither is what comes behind it.
        std::fs::write(root.join("grows"), "one\ntwo\n").unwrap();
        let grows = fetch(&root, &dest, vec![fetched("grows", b"one\n"), fetched("x.sh", b"#!/bin/sh\n")]);
        assert_eq!(perform(&host, &Action::DownloadTree(grows)).await.0, Ending::Exited(0), "{tools}");
        assert_eq!(std::fs::read_to_string(dest.join("grows")).unwrap(), "one\n", "{tools}");
        for (files, wanted) in [
            (vec![fetched("grows", b"ONE\n")], "grows: what arrived is not what was there when it was looked at"),
            (vec![fetched("grows", b"one\ntwo\nthree\n")], "grows: it is shorter than it was when it was looked at"),
            (vec![fetched("gone", b"x")], "No such file or directory"),
        ] {
            let reason = refusal(perform(&host, &Action::DownloadTree(fetch(&root, &dest, files))).await.0);
            assert!(reason.contains(wanted) && reason.contains("was not wholly written from"), "{tools}: {reason}");
            assert_eq!(std::fs::read_to_string(dest.join("grows")).unwrap(), "one\n", "{tools}");
            assert!(!paths(&dest).iter().any(|path| path.contains(".infra-") || path == "gone"), "{tools}: {:?}", paths(&dest));
        }
        host.close().await;
    }
}

/// A host that lies about its tree writes nothing outside of the directory that is its own.
#[tokio::test]
async fn a_host_cannot_write_elsewhere() {
    let host = local().await;
    let folder = tempfile::tempdir().unwrap();
    let (root, dest, outside) = (folder.path().join("root"), folder.path().join("dest"), folder.path().join("outside"));
    for path in [&root, &dest, &outside] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(root.join("x"), "x").unwrap();
    symlink(&outside, dest.join("way")).unwrap();
    std::fs::write(outside.join("file"), "mine").unwrap();
    symlink(outside.join("file"), dest.join("x")).unwrap();
    for path in ["../outside/x", "/outside", "way/x", "a/../../outside/x", "", ".", "a//b"] {
        let tree = fetch(&root, &dest, vec![FetchedFile { path: path.to_owned(), ..fetched("x", b"") }]);
        refusal(perform(&host, &Action::DownloadTree(tree)).await.0);
        let tree = TreeDownload { directories: vec![path.to_owned()], ..fetch(&root, &dest, Vec::new()) };
        refusal(perform(&host, &Action::DownloadTree(tree)).await.0);
        let tree = TreeDownload { links: vec![(path.to_owned(), "t".to_owned())], ..fetch(&root, &dest, Vec::new()) };
        refusal(perform(&host, &Action::DownloadTree(tree)).await.0);
    }
    // A link in the way of a file is replaced.
    let tree = fetch(&root, &dest, vec![fetched("x", b"x")]);
    assert_eq!(perform(&host, &Action::DownloadTree(tree)).await.0, Ending::Exited(0));
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "mine");
    assert_eq!(paths(&outside), ["file"]);
    assert_eq!(std::fs::read_to_string(dest.join("x")).unwrap(), "x");
    host.close().await;
}

#[tokio::test]
async fn a_question_may_be_given_more_time_than_others() {
    let settings = Settings { fact_deadline: Duration::from_millis(300), ..Settings::new("/nonexistent") };
    let host = local_with(settings).await;
    let slow = || question("sleep 1; echo done");
    let patient = infra_core::connection::Question { command: slow().command.taking_up_to(30), ..slow() };
    let answers = host.gather(vec![patient, slow()]).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap().text(), "done\n");
    assert!(answers[1].as_ref().unwrap_err().contains("did not end within 0.3 s"));
    host.close().await;
}
