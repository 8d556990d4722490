//! The example of this crate, run: what a program that uses it does.

#[path = "../examples/many_hosts.rs"]
mod many_hosts;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use infra_core::Map;
use infra_core::change::Content;
use infra_test::{Sshd, SshdOptions};
use many_hosts::{Work, many_hosts};

#[tokio::test]
async fn many_hosts_get_a_file_and_run_a_command() {
    let sshd = Sshd::start(SshdOptions::default().aliases(["one", "two"])).unwrap_or_else(|error| panic!("{error:?}"));
    let out = Arc::new(Mutex::new(Vec::new()));
    // All of them are this machine: each in its turn replaces the file, and never leaves half of one to the others.
    let dest = sshd.folder().join("copy").display().to_string();
    let work = Work {
        content: Content::text("first\nsecond\n"),
        command: format!("cat {dest}; printf 'no end of line' >&2; [ \"$SSH_CONNECTION\" ] || exit 3"),
        dest,
    };
    let data = Map::from_iter([("ssh_config_file".to_owned(), sshd.ssh_config().display().to_string().into())]);
    let sockets = sshd.folder().join("sockets");
    let wrong = many_hosts(&sockets, "one,two,@local,@chroot/nowhere/at/all", data, &work, out.clone()).await.expect("hosts");

    let text = String::from_utf8(std::mem::take(&mut *out.lock().expect("no holder panics"))).expect("text");
    for host in ["one", "two", "@local"] {
        let mut lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(host)?.strip_prefix(": ")).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["first", "no end of line", "second"], "{host}:\n{text}");
    }
    let [(nowhere, why), (local, code)] = wrong.as_slice() else { panic!("{wrong:?}") };
    assert_eq!((nowhere.as_str(), local.as_str(), code.as_str()), ("@chroot/nowhere/at/all", "@local", "exited with 3"));
    assert!(why.starts_with("unreachable (connect): /nowhere/at/all cannot be entered"), "{why}");
    let left = sshd.leftovers_after(Duration::from_secs(20));
    assert!(left.is_empty(), "{left:#?}");
}
