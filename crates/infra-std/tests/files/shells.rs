//! The commands of facts and operations on files, run for real by three shells, with the tools of GNU and of busybox.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use crate::host::{ALL, Host, Tools, is_root, listing};
use crate::wishes::{a_wish, placed};
use infra_core::digest::sha256;
use infra_core::fact::Fact;
use infra_core::facts::{DiffError, Facts};
use infra_core::mode::Mode;
use infra_core::{Value, sh};
use infra_std::facts::files::{directory, file, find_in_file, hard_link, link, sha256 as digest, text, tree_drift};
use infra_std::facts::server::identity::Identity;
use infra_std::file_status::{Found, Status};
use infra_std::file_times::Times;
use proptest::prelude::*;
use serde_json::json;

/// Names that a careless command would stumble over.
const NAMES: &[&str] = &[
    "plain",
    "with space",
    "new\nline",
    "ends with newline\n",
    "-n",
    "--help",
    "quo'te",
    "dou\"ble",
    "$HOME",
    "`id`",
    "*",
    "back\\slash",
    "x: No such file or directory",
    "x: Permission denied",
    "ünï",
    "(",
    "!",
    " ",
];

fn status(found: &std::fs::Metadata) -> Status {
    Status {
        uid: Some(found.uid()),
        gid: Some(found.gid()),
        size: Some(found.size()),
        mtime: Some(found.mtime()),
        ctime: Some(found.ctime()),
        ..Status::foreseen(found.mode() & 0o7777, "", "", None)
    }
}

/// The same without what the standard library of Rust does not know: names, and the time of the last access, which reading may change.
fn plain(status: Status) -> Status {
    Status { user: String::new(), group: String::new(), atime: None, ..status }
}

#[test]
fn facts_agree_with_the_file_system_whatever_the_name() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        for (index, name) in NAMES.iter().enumerate() {
            let path = host.at(name);
            let at = |what: &str| format!("{tools:?}: {what} {name:?}");
            assert_eq!(host.ask(&file::File::at(&path)), Ok(Found::Nothing), "{}", at("nothing"));
            assert_eq!(host.ask(&link::Link::at(&path)), Ok(Found::Nothing), "{}", at("nothing"));
            assert_eq!(host.ask(&text::Text::at(&path)), Ok(Found::Nothing), "{}", at("nothing"));
            let content = format!("line {index}\r\n\n{name}");
            std::fs::write(&path, &content).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640 + index as u32 % 8)).expect("a mode");
            let real = status(&std::fs::metadata(&path).expect("a file"));
            assert_eq!(host.ask(&file::File::at(&path)).map(|found| found.map(plain)), Ok(Found::Is(real.clone())), "{}", at("file"));
            assert_eq!(host.ask(&directory::Directory::at(&path)), Ok(Found::Other), "{}", at("file"));
            assert_eq!(host.ask(&link::Link::at(&path)), Ok(Found::Other), "{}", at("file"));
            assert_eq!(host.ask(&text::Text::at(&path)), Ok(Found::Is(content.clone())), "{}", at("text"));
            assert_eq!(host.ask(&digest::Sha256::at(&path)), Ok(Found::Is(sha256(content.as_bytes()))), "{}", at("digest"));
            let find = find_in_file::FindInFile { path: path.clone(), pattern: r"^line \d".into() };
            assert_eq!(host.ask(&find), Ok(Found::Is(vec![format!("line {index}")])), "{}", at("find"));
            assert_eq!(host.ask(&file::File::at(format!("{path}/below"))), Ok(Found::Nothing), "{}", at("below"));

            let other = host.at("the link");
            symlink(&path, &other).expect("a link");
            let through = Found::Is(Status { link_target: Some(path.clone()), ..real });
            assert_eq!(host.ask(&file::File::at(&other)).map(|found| found.map(plain)), Ok(through), "{}", at("link to"));
            let found = host.ask(&link::Link::at(&other)).expect("a link");
            assert_eq!(found.is().map(|link| link.target.as_str()), Some(path.as_str()), "{}", at("link to"));
            std::fs::remove_file(&path).expect("removed");
            assert_eq!(host.ask(&file::File::at(&other)), Ok(Found::Other), "{}", at("link to nothing, once"));
            assert_eq!(host.ask(&text::Text::at(&other)), Ok(Found::Other), "{}", at("link to nothing, once"));
            assert!(matches!(host.ask(&link::Link::at(&other)), Ok(Found::Is(_))), "{}", at("link to nothing, once"));
            std::fs::remove_file(&other).expect("removed");
        }
    }
}

#[test]
fn facts_answer_about_everything_that_is_no_file() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        std::fs::create_dir(host.at("d")).expect("a directory");
        std::fs::set_permissions(host.at("d"), std::fs::Permissions::from_mode(0o1770)).expect("a mode");
        symlink("d", host.at("to d")).expect("a link");
        symlink("loop", host.at("loop")).expect("a link");
        symlink("deeper/e", host.at("deeper")).expect("a link");
        assert_eq!(host.run(&sh!("mkfifo {}", host.at("pipe"))).status, 0);
        assert!(std::fs::metadata(host.at("pipe")).is_ok_and(|found| found.file_type().is_fifo()));
        let real = status(&std::fs::metadata(host.at("d")).expect("a directory"));
        let found = host.ask(&directory::Directory::at(host.at("d"))).map(|found| found.map(plain));
        assert_eq!(found, Ok(Found::Is(real.clone())), "{tools:?}");
        let through = host.ask(&directory::Directory::at(host.at("to d"))).map(|found| found.map(plain));
        let leads = |to: &str, real: Status| Found::Is(Status { link_target: Some(to.into()), real_path: Some(host.at(to)), ..real });
        assert_eq!(through, Ok(leads("d", real)), "{tools:?}");
        // Also where the link stands further up, and is not the directory itself.
        std::fs::create_dir(host.at("d/e")).expect("a directory");
        let below = host.ask(&directory::Directory::at(host.at("to d/e")));
        assert!(
            matches!(below, Ok(Found::Is(Status { link_target: None, real_path: Some(real), .. })) if real == host.at("d/e")),
            "{tools:?}"
        );
        let plain = host.ask(&directory::Directory::at(host.at("d/e")));
        assert!(matches!(plain, Ok(Found::Is(Status { real_path: None, .. }))), "{tools:?}");
        for name in ["d", "to d", "loop", "deeper", "pipe"] {
            assert_eq!(host.ask(&file::File::at(host.at(name))), Ok(Found::Other), "{tools:?} {name}");
            assert_eq!(host.ask(&digest::Sha256::at(host.at(name))), Ok(Found::Other), "{tools:?} {name}");
            assert_eq!(host.ask(&text::Text::at(host.at(name))), Ok(Found::Other), "{tools:?} {name}");
        }
        // Relative paths count from where the command runs.
        assert!(matches!(host.ask(&directory::Directory::at("d")), Ok(Found::Is(_))), "{tools:?}");
        std::fs::write(host.at("a"), "a").expect("a file");
        std::fs::hard_link(host.at("a"), host.at("b")).expect("a hard link");
        std::fs::write(host.at("c"), "a").expect("a file");
        for (path, target, wanted) in
            [("a", "b", Some(true)), ("a", "c", Some(false)), ("a", "none", Some(false)), ("none", "a", None), ("to d", "d", Some(false))]
        {
            let question = hard_link::HardLink { path: host.at(path), target: host.at(target) };
            assert_eq!(host.ask(&question), Ok(wanted), "{tools:?} {path} {target}");
        }
    }
}

#[test]
fn what_may_not_be_read_is_an_error_and_not_missing() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        for folder in [host.root().parent().expect("the folder of the host"), &host.root()] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        std::fs::write(host.at("secret"), "x").expect("a file");
        std::fs::set_permissions(host.at("secret"), std::fs::Permissions::from_mode(0o000)).expect("a mode");
        std::fs::create_dir(host.at("closed")).expect("a directory");
        std::fs::write(host.at("closed/f"), "x").expect("a file");
        std::fs::set_permissions(host.at("closed"), std::fs::Permissions::from_mode(0o000)).expect("a mode");
        let asked = |path: &str| {
            let (file, text, digest) = (file::File::at(path), text::Text::at(path), digest::Sha256::at(path));
            [
                file.parse(&host.run_unprivileged(&file.command().script)).map(|_| ()),
                text.parse(&host.run_unprivileged(&text.command().script)).map(|_| ()),
                digest.parse(&host.run_unprivileged(&digest.command().script)).map(|_| ()),
            ]
            .map(|answer| answer.map_err(|error| error.to_string()))
        };
        let advice = "Permission denied; ask as a user who may, for example with _sudo = true";
        let unread = Err(format!("cannot read {}: {advice}", host.at("secret")));
        assert_eq!(asked(&host.at("secret")), [Ok(()), unread.clone(), unread], "{tools:?}");
        for name in ["closed/f", "closed/none"] {
            let unseen = Err(format!("cannot look at {}: {advice}", host.at(name)));
            assert_eq!(asked(&host.at(name)), [unseen.clone(), unseen.clone(), unseen], "{tools:?}");
        }
        std::fs::set_permissions(host.at("closed"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
}

#[test]
fn large_files_and_bytes_are_errors_that_say_so() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        std::fs::write(host.at("bytes"), b"ab\xff").expect("a file");
        let error = host.ask(&text::Text::at(host.at("bytes"))).expect_err("no text");
        assert!(error.ends_with("is not UTF-8 text: the byte at offset 2 is not"), "{tools:?}: {error}");
        let limit = usize::try_from(text::TEXT_LIMIT).expect("it fits");
        std::fs::write(host.at("large"), vec![b'x'; limit]).expect("a file");
        let length = host.ask(&text::Text::at(host.at("large"))).map(|found| found.is().map(String::len));
        assert_eq!(length, Ok(Some(limit)), "{tools:?}");
        std::fs::write(host.at("large"), vec![b'x'; limit + 1]).expect("a file");
        let error = host.ask(&text::Text::at(host.at("large"))).expect_err("too large");
        assert!(error.contains("holds 16773121 bytes"), "{tools:?}: {error}");
    }
}

#[test]
fn drift_below_a_directory_is_found_and_put_right() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        std::fs::create_dir_all(host.at("real/sub")).expect("directories");
        symlink("real", host.at("tree")).expect("a link to the tree");
        for name in ["sub/right", "sub/new\nline", "wrong"] {
            std::fs::write(host.at(&format!("real/{name}")), "x").expect("a file");
            let mode = if name == "wrong" { 0o666 } else { 0o755 };
            std::fs::set_permissions(host.at(&format!("real/{name}")), std::fs::Permissions::from_mode(mode)).expect("a mode");
        }
        std::fs::write(host.at("outside"), "x").expect("a file");
        symlink("../outside", host.at("real/link")).expect("a link out of the tree");
        let outside = std::fs::metadata(host.at("outside")).expect("a file").mode();
        let question = tree_drift::TreeDrift { path: host.at("tree"), user: None, group: None, mode: Some(Mode::Bits(0o755)) };
        assert_eq!(host.ask(&question), Ok(Some(tree_drift::Drift { entries: 6, owner: 0, mode: 1 })), "{tools:?}");
        let right = std::fs::metadata(host.at("real/sub/right")).expect("a file").ctime_nsec();
        for mode in ["755", "u=rwX,go=rX", "g-x,o=", "+X"] {
            change(&host, "files.directory", &json!({ "path": host.at("tree"), "mode": mode, "recursive": true }));
            if mode == "755" {
                assert_eq!(std::fs::metadata(host.at("real/sub/right")).expect("a file").ctime_nsec(), right, "{tools:?}: left alone");
            }
        }
        assert_eq!(std::fs::metadata(host.at("outside")).expect("a file").mode(), outside, "{tools:?}: links are not followed");
        let nothing = tree_drift::TreeDrift { path: host.at("none"), ..question };
        assert_eq!(host.ask(&nothing), Ok(None), "{tools:?}");
        if is_root() {
            change(&host, "files.directory", &json!({ "path": host.at("tree"), "user": "daemon", "group": "1", "recursive": true }));
            let owner = |name: &str| std::fs::symlink_metadata(host.at(name)).map(|found| (found.uid(), found.gid())).ok();
            for name in ["real", "real/link", "real/sub/new\nline"] {
                assert_eq!(owner(name), Some((1, 1)), "{tools:?} {name}");
            }
            assert_eq!((owner("tree"), owner("outside")), (Some((0, 0)), Some((0, 0))), "{tools:?}");
        }
    }
}

#[test]
fn what_is_in_the_way_is_kept_under_a_free_name() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        for round in 0..3 {
            std::fs::create_dir(host.at("f")).expect("a directory");
            std::fs::write(host.at("f/inside"), format!("{round}")).expect("a file");
            change(&host, "files.file", &json!({ "path": host.at("f"), "force": true }));
            change(&host, "files.directory", &json!({ "path": host.at("f"), "force": true, "force_backup_dir": host.at("kept/here") }));
            std::fs::remove_dir(host.at("f")).expect("an empty directory");
        }
        let beside = std::fs::read_dir(host.root()).expect("a folder").filter(|entry| {
            entry.as_ref().is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("f.") && entry.path().join("inside").is_file())
        });
        assert_eq!(beside.count(), 3, "{tools:?}");
        assert_eq!(std::fs::read_dir(host.at("kept/here")).expect("a folder").count(), 3, "{tools:?}");
        std::fs::write(host.at("conf"), "a\n").expect("a file");
        change(&host, "files.line", &json!({ "path": host.at("conf"), "line": "b", "backup": true }));
        let kept = std::fs::read_dir(host.root())
            .expect("a folder")
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().starts_with("conf."));
        assert_eq!(kept.and_then(|entry| std::fs::read_to_string(entry.path()).ok()).as_deref(), Some("a\n"), "{tools:?}");
    }
}

#[test]
fn times_are_set_and_left_whatever_reads_the_file() {
    for tools in ALL {
        let host = Host::new(tools, 0o022);
        for name in ["f", "-n", "new\nline"] {
            let dest = host.at(name);
            let times = || std::fs::metadata(&dest).map(|found| (found.mtime(), found.mtime_nsec())).expect("a file");
            let put = |more: Value| {
                let mut args = json!({ "dest": dest, "content": "a\n" });
                args.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
                change(&host, "files.put", &args)
            };
            assert_eq!(put(json!({ "mtime": "2023-11-14T22:13:20Z", "atime": 1_600_000_000 })), Some(2), "{tools:?}: made");
            assert_eq!(times(), (1_700_000_000, 0), "{tools:?}");
            assert_eq!(put(json!({ "mtime": 1_700_000_001 })), Some(0), "{tools:?}: near enough");
            assert_eq!(put(json!({ "mtime": 1_500_000_000 })), Some(1), "{tools:?}: set alone");
            assert_eq!(times(), (1_500_000_000, 0), "{tools:?}");
            assert_eq!(put(json!({ "mtime": 1_500_000_000, "mode": "600" })), Some(1), "{tools:?}: a mode leaves it");
            assert_eq!(put(json!({ "mtime": 1_500_000_000, "content": "b\n" })), Some(2), "{tools:?}: written anew");
            assert_eq!(times(), (1_500_000_000, 0), "{tools:?}");
            // Of the time of access only: the other one stays.
            assert_eq!(host.run(&sh!("touch -d @1000 -- {}", dest)).status, 0, "{tools:?}");
            let seconds = Times { atime: Some(2000), mtime: None };
            assert_eq!(host.run(&seconds.set(&dest).expect("a command")).status, 0, "{tools:?}");
            let found = std::fs::metadata(&dest).expect("a file");
            assert_eq!((found.atime(), found.mtime()), (2000, 1000), "{tools:?}");
        }
        symlink("f", host.at("to f")).expect("a link");
        let through = json!({ "dest": host.at("to f"), "content": "b\n", "mtime": 1_400_000_000 });
        assert_eq!(change(&host, "files.put", &through), Some(1), "{tools:?}: through a link");
        assert_eq!(std::fs::metadata(host.at("f")).map(|found| found.mtime()).ok(), Some(1_400_000_000), "{tools:?}");
    }
}

/// Diffs and applies an operation, then holds the host against what was foretold, and a second diff against there being nothing left to do.
/// Gives the steps that were taken; none when the operation was refused.
fn change(host: &Host, kind: &str, args: &Value) -> Option<usize> {
    let registry = infra_std::registry();
    let Value::Object(given) = args.clone() else { panic!("{args} is no map") };
    let operation = registry.operation(kind).expect("an operation").bind(given).unwrap_or_else(|error| panic!("{kind} {args}: {error}"));
    let before = listing(&host.root());
    let change = match operation.diff(&Facts::new(host)) {
        Ok(change) => change,
        Err(DiffError::Refused { .. }) => {
            assert_eq!(before, listing(&host.root()), "{kind} {args} was refused and changed something");
            return None;
        }
        Err(error) => panic!("{kind} {args}: {error}"),
    };
    host.apply(&change);
    host.check_effects(&registry, &change);
    let after = listing(&host.root());
    assert_eq!(change.is_none(), before == after, "{kind} {args}: {change:?}");
    let again = operation.diff(&Facts::new(host)).unwrap_or_else(|error| panic!("{kind} {args}, again: {error}"));
    assert!(again.is_none(), "{kind} {args}, again: {again:?}");
    assert_eq!(after, listing(&host.root()), "{kind} {args}: asking changed something");
    Some(change.actions.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_wished_comes_true_and_was_foretold(
        tools in prop::sample::select(ALL.to_vec()),
        umask in prop::sample::select(vec![0o022, 0o077, 0o002]),
        hands_on: bool,
        wishes in proptest::collection::vec(a_wish(true), 1..10),
    ) {
        let host = Host::new(tools, umask);
        let mode = if hands_on { 0o2775 } else { 0o755 };
        std::fs::set_permissions(host.root(), std::fs::Permissions::from_mode(mode)).expect("a mode");
        if hands_on && is_root() {
            std::os::unix::fs::chown(host.root(), None, Some(2)).expect("a group");
        }
        for (kind, args) in wishes {
            if let Some(args) = placed(&host, args) {
                change(&host, kind, &args);
            }
        }
    }
}

#[test]
fn the_one_who_asks_is_known_with_these_tools() {
    for tools in [Tools::Dash, Tools::Busybox] {
        let who = Host::new(tools, 0o027).ask(&Identity {}).expect("someone");
        assert_eq!(who.umask, 0o027, "{tools:?}");
    }
}
