//! Files of a host that come to this machine, and commands that run on this machine for a host.

mod common;

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use common::*;
use infra_connect::Wire;
use infra_core::change::{Action, Download};
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connect, Connection, Ending};
use infra_core::global_arguments::Context;
use infra_test::{Sshd, SshdOptions};
use proptest::prelude::*;

async fn fetch(host: &std::sync::Arc<dyn Connection>, download: Download) -> Ending {
    perform(host, &Action::Download(download)).await.0
}

fn refusal(ending: Ending) -> String {
    match ending {
        Ending::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

/// The names in a folder: what is left there.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_comes_whole_or_not_at_all() {
    let host = local().await;
    let folder = tempfile::tempdir().unwrap();
    let (src, dest) = (folder.path().join("it's a file"), folder.path().join("out"));
    // What looks like framing, and no newline at the end.
    let mut content: Vec<u8> = (0..3_000_001_u32).map(|n| (n * 7 % 253) as u8).collect();
    content.extend_from_slice(b"\x1e0123456789abcdef0123456789abcdef:0");
    for content in [&content[..], b"", b"\0"] {
        std::fs::write(&src, content).unwrap();
        assert_eq!(fetch(&host, download(&src, content, &dest)).await, Ending::Exited(0));
        assert!(std::fs::read(&dest).unwrap() == content);
    }
    // The mode of what is replaced is kept, and a link is followed.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&dest, &link).unwrap();
    std::fs::set_permissions(&dest, std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::write(&src, "new").unwrap();
    assert_eq!(fetch(&host, download(&src, "new", &link)).await, Ending::Exited(0));
    assert_eq!((std::fs::read_to_string(&dest).unwrap().as_str(), link.is_symlink()), ("new", true));
    assert_eq!(std::fs::metadata(&dest).unwrap().permissions().mode() & 0o777, 0o640);

    let reason = refusal(fetch(&host, download(&src, "other", &dest)).await);
    assert!(reason.contains("out was not written from") && reason.contains("it changed since"), "{reason}");
    let reason = refusal(fetch(&host, download(&folder.path().join("none"), "", &dest)).await);
    assert!(reason.contains("No such file"), "{reason}");
    let reason = refusal(fetch(&host, download(&src, "new", folder.path())).await);
    assert!(reason.contains("there is a directory"), "{reason}");
    let deep = folder.path().join("a/b/out");
    let reason = refusal(fetch(&host, download(&src, "new", &deep)).await);
    assert!(reason.contains("there is no directory") && reason.contains("create_local_dir"), "{reason}");
    assert_eq!(std::fs::read_to_string(&dest).unwrap(), "new");
    assert_eq!(names(folder.path()), ["it's a file", "link", "out"], "nothing is left beside them");
    assert_eq!(fetch(&host, Download { create_dir: true, ..download(&src, "new", &deep) }).await, Ending::Exited(0));
    assert_eq!(std::fs::read_to_string(&deep).unwrap(), "new");
    host.close().await;
}

#[tokio::test]
async fn one_that_stalls_or_is_killed_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let (pipe, dest) = (folder.path().join("pipe"), folder.path().join("out"));
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::write(&dest, "old").unwrap();
    let host = local_with(infra_connect::Settings { upload_stall: Duration::from_millis(300), ..settings(folder.path()) }).await;
    // Somebody holds the pipe open and writes nothing more.
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    std::io::Write::write_all(&mut &writer, b"begin").unwrap();
    let ending = fetch(&host, download(&pipe, "begin", &dest)).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    let host = local().await;
    let running = {
        let (host, wanted) = (host.clone(), download(&pipe, "begin", &dest));
        tokio::spawn(async move { fetch(&host, wanted).await })
    };
    // A file that is not whole has no name, where the file system can do that: nothing is left of it when this process is killed.
    let nameless = std::fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_TMPFILE).open(folder.path()).is_ok();
    let without_name = format!("{}/#", folder.path().display());
    let arriving = || {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let open = open.filter(|path| path.to_string_lossy().starts_with(&without_name)).count();
        if nameless { open } else { names(folder.path()).len() - 2 }
    };
    eventually("the file", || arriving() == 1).await;
    assert_eq!(names(folder.path()).len(), if nameless { 2 } else { 3 });
    host.kill().await;
    let ending = running.await.unwrap();
    assert!(matches!(ending, Ending::Killed | Ending::Refused(_)), "{ending:?}");
    assert_eq!(
        (names(folder.path()), std::fs::read_to_string(&dest).unwrap().as_str()),
        (vec!["out".to_owned(), "pipe".to_owned()], "old")
    );
    eventually("its end", || arriving() == 0).await;
}

#[tokio::test]
async fn a_disk_that_is_full_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let mount = |program: &str, args: &[&str]| {
        let status = std::process::Command::new(program).args(args).arg(&small).status().unwrap();
        assert!(status.success(), "{program} {args:?}");
    };
    mount("mount", &["-t", "tmpfs", "-o", "size=64k", "none"]);
    let (src, dest) = (folder.path().join("big"), small.join("out"));
    std::fs::write(&dest, "old").unwrap();
    let content = vec![b'x'; 1_000_000];
    std::fs::write(&src, &content).unwrap();
    let host = local().await;
    let reason = refusal(fetch(&host, download(&src, &content, &dest)).await);
    let left = (names(&small), std::fs::read_to_string(&dest).unwrap());
    mount("umount", &[]);
    assert!(reason.contains("No space left"), "{reason}");
    assert_eq!(left, (vec!["out".to_owned()], "old".to_owned()));
}

#[tokio::test]
async fn over_ssh_and_for_a_host_on_this_machine() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let wire = Wire::new(settings(sshd.folder()));
    let mut data = infra_core::Map::new();
    data.insert("ssh_config_file".to_owned(), sshd.ssh_config().to_str().unwrap().into());
    let host = std::sync::Arc::new(infra_core::host::Host {
        connector: infra_core::host::Connector::Ssh,
        name: "sshd-01".to_owned(),
        address: "sshd-01".to_owned(),
        data,
        ..(*local_host()).clone()
    });
    let connection = wire.connect(&host).await.unwrap();
    let (src, dest) = (sshd.folder().join("src"), sshd.folder().join("dest"));
    std::fs::write(&src, "over ssh").unwrap();
    assert_eq!(fetch(&connection, download(&src, "over ssh", &dest)).await, Ending::Exited(0));
    assert_eq!(std::fs::read_to_string(&dest).unwrap(), "over ssh");

    // A command for the host that runs here knows where the host is; it needs no privilege and no folder of the host.
    let controller = |script: &str| Action::Controller(Command::new(Shell::verbatim(script)));
    let mut context = Context {
        privilege: infra_core::privilege::Privilege::sudo("nobody-there"),
        chdir: Some("/nowhere".to_owned()),
        ..Context::default()
    };
    context.env.insert("GREETING".to_owned(), "hello".to_owned());
    let (ending, heard) =
        perform_in(&connection, &controller("echo \"$GREETING $INFRA_ADDRESS\"; exit 3"), &context, Some(Duration::from_secs(10))).await;
    let address = sshd.aliases()[0].1.ip();
    assert_eq!((ending, heard.stdout()), (Ending::Exited(3), format!("hello {address}\n")));
    let sessions = sshd.sessions();
    perform(&connection, &controller("true")).await;
    assert_eq!(sshd.sessions(), sessions, "nothing goes to the host");
    let ending = perform_in(&connection, &controller("sleep 60"), &Context::default(), Some(Duration::from_millis(100))).await.0;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    let mark = sshd.folder().join("begun");
    let waiting = {
        let (connection, action) = (connection.clone(), controller(&format!("echo >{}; sleep 60", mark.display())));
        tokio::spawn(async move { perform(&connection, &action).await.0 })
    };
    eventually("the command", || mark.exists()).await;
    connection.kill().await;
    assert_eq!(waiting.await.unwrap(), Ending::Killed);
    connection.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_come_as_they_are(content in prop::collection::vec(any::<u8>(), 0..100_000)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let host = local().await;
            let folder = tempfile::tempdir().unwrap();
            let (src, dest) = (folder.path().join("src"), folder.path().join("dest"));
            std::fs::write(&src, &content).unwrap();
            assert_eq!(fetch(&host, download(&src, &content, &dest)).await, Ending::Exited(0));
            assert!(std::fs::read(&dest).unwrap() == content);
            host.close().await;
        });
    }
}
