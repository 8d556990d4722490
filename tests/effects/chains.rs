//! Chains of wishes about files, made up at random: how each is written as a call, and whether it is fulfilled, told by the test itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::json;

use crate::world::Call;

/// The names that all is about: few, so that wishes meet.
const NAMES: &[&str] = &["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "l", "l/a", "l/e", "m", "m/a", "d/k", "d/k/a"];

/// Where links lead: to each other, to files and directories that may be there, and to nowhere.
const TARGETS: &[&str] = &["a", "b", "d", "d/e", "d/a", "l", "m", "nowhere", "../d", "e", "ROOT/d", "ROOT/d/a", "ROOT/l", "ROOT/m/e"];

/// What is wished of a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    /// `files.file`
    File { path: &'static str, present: bool, mode: Option<&'static str>, force: bool },
    /// `files.directory`
    Directory { path: &'static str, present: bool, mode: Option<&'static str>, force: bool },
    /// `files.link`
    Link { path: &'static str, target: &'static str, present: bool, force: bool },
    /// `files.put`, or `files.template` where it is rendered
    Put { path: &'static str, content: &'static str, mode: Option<&'static str>, rendered: bool, force: bool },
    /// `files.line`
    Line { path: &'static str, line: &'static str, replace: Option<&'static str>, present: bool },
}

/// How a path is spelt in a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spelling {
    /// In full.
    Plain,
    /// With slashes and dots that mean nothing.
    Odd,
}

/// What stands in the folder before.
#[derive(Clone, Debug)]
pub enum Given {
    File(&'static str, &'static str, u32),
    Directory(&'static str, u32),
    Link(&'static str, &'static str),
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMES)
}

fn mode() -> impl Strategy<Value = Option<&'static str>> {
    prop::sample::select(vec![None, None, Some("644"), Some("600"), Some("755"), Some("u=rwX,go=")])
}

fn often() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.6)
}

fn mostly() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.75)
}

/// One wish.
pub fn a_wish() -> impl Strategy<Value = (Wish, Spelling)> {
    let file = (name(), mostly(), mode(), often()).prop_map(|(path, present, mode, force)| Wish::File { path, present, mode, force });
    let directory = (name(), mostly(), mode(), often()).prop_map(|(path, present, mode, force)| {
        // Also who is not root goes through it.
        let mode = mode.map(|mode| if mode == "644" || mode == "600" { "750" } else { mode });
        Wish::Directory { path, present, mode, force }
    });
    let link = (name(), prop::sample::select(TARGETS), mostly(), often()).prop_map(|(path, target, present, force)| Wish::Link {
        path,
        target,
        present,
        force,
    });
    let put = (name(), prop::sample::select(vec!["one\n", "two\n", "one\nthree"]), mode(), any::<bool>(), often())
        .prop_map(|(path, content, mode, rendered, force)| Wish::Put { path, content, mode, rendered, force });
    let line = (name(), prop::sample::select(vec!["one", "two", "three"]), prop::option::weighted(0.3, Just("four")), mostly())
        .prop_map(|(path, line, replace, present)| Wish::Line { path, line, replace: replace.filter(|_| present), present });
    let spelling = prop_oneof![4 => Just(Spelling::Plain), 1 => Just(Spelling::Odd)];
    (prop_oneof![2 => file, 2 => directory, 2 => link, 3 => put, 3 => line], spelling)
}

/// What stands there before: what cannot be made, for want of its directory, is left out.
pub fn a_ground() -> impl Strategy<Value = Vec<Given>> {
    let file = (name(), prop::sample::select(vec!["", "one\n", "one\ntwo\n"]), prop::sample::select(vec![0o644, 0o600]))
        .prop_map(|(path, content, mode)| Given::File(path, content, mode));
    let directory = (name(), prop::sample::select(vec![0o755, 0o750])).prop_map(|(path, mode)| Given::Directory(path, mode));
    let link = (name(), prop::sample::select(TARGETS)).prop_map(|(path, target)| Given::Link(path, target));
    proptest::collection::vec(prop_oneof![2 => file, 2 => directory, 3 => link], 0..7)
}

/// Makes what stands there before.
pub fn lay(root: &Path, ground: &[Given]) {
    for given in ground {
        // Another thing may be in the way; what is there then is ground as well.
        match given {
            Given::File(path, content, mode) => {
                let path = root.join(path);
                if fs::symlink_metadata(&path).is_err() && fs::write(&path, content).is_ok() {
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("a mode");
                }
            }
            Given::Directory(path, mode) => {
                let path = root.join(path);
                if fs::create_dir(&path).is_ok() {
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).expect("a mode");
                }
            }
            Given::Link(path, target) => drop(symlink(target_in(root, target), root.join(path))),
        }
    }
}

fn target_in(root: &Path, target: &str) -> String {
    target.replace("ROOT", root.to_str().expect("UTF-8"))
}

/// How deploys write a wish about a folder whose path on the host is `root`.
pub fn call_of(root: &str, (wish, spelling): &(Wish, Spelling)) -> Call {
    let at = |path: &str| match spelling {
        Spelling::Plain => format!("{root}/{path}"),
        Spelling::Odd => format!("{root}//./{}", path.replace('/', "/.//")),
    };
    let (kind, mut arguments) = match wish {
        Wish::File { path, present, mode, force } => {
            ("files.file", json!({ "path": at(path), "present": present, "mode": mode, "force": force, "force_backup": false }))
        }
        Wish::Directory { path, present, mode, force } => {
            ("files.directory", json!({ "path": at(path), "present": present, "mode": mode, "force": force, "force_backup": false }))
        }
        Wish::Link { path, target, present, force } => {
            let target = target.replace("ROOT", root);
            ("files.link", json!({ "path": at(path), "target": target, "present": present, "force": force, "force_backup": false }))
        }
        Wish::Put { path, content, mode, rendered, force } => {
            let kind = if *rendered { "files.template" } else { "files.put" };
            (kind, json!({ "dest": at(path), "content": content, "mode": mode, "force": force, "force_backup": false }))
        }
        Wish::Line { path, line, replace, present } => {
            ("files.line", json!({ "path": at(path), "line": line, "replace": replace, "present": present }))
        }
    };
    arguments.as_object_mut().expect("a map").retain(|_, value| !value.is_null());
    (kind.to_owned(), arguments)
}

/// Whether a mode is as wished: digits as they are, and the one symbolic mode of these chains for files and directories.
fn mode_holds(path: &PathBuf, mode: Option<&str>) -> bool {
    let found = fs::metadata(path).expect("it is there");
    let bits = found.permissions().mode() & 0o7777;
    match mode {
        None => true,
        Some("u=rwX,go=") => bits == if found.is_dir() || bits & 0o111 != 0 { 0o700 } else { 0o600 },
        Some(digits) => bits == u32::from_str_radix(digits, 8).expect("octal digits"),
    }
}

/// Whether a wish is fulfilled, as the file system of the test itself has it.
pub fn is_fulfilled(root: &Path, wish: &Wish) -> bool {
    let at = |path: &str| root.join(path);
    let is_gone = |path: &str| fs::symlink_metadata(at(path)).is_err();
    match wish {
        Wish::File { path, present: false, .. }
        | Wish::Directory { path, present: false, .. }
        | Wish::Link { path, present: false, .. } => is_gone(path),
        Wish::File { path, mode, .. } => at(path).is_file() && mode_holds(&at(path), *mode),
        Wish::Directory { path, mode, .. } => at(path).is_dir() && mode_holds(&at(path), *mode),
        Wish::Link { path, target, .. } => fs::read_link(at(path)).is_ok_and(|found| found == Path::new(&target_in(root, target))),
        Wish::Put { path, content, mode, .. } => {
            fs::read_to_string(at(path)).is_ok_and(|text| text == *content) && mode_holds(&at(path), *mode)
        }
        Wish::Line { path, line, replace, present } => {
            let text = fs::read_to_string(at(path));
            let has = |wanted: &str| text.as_ref().is_ok_and(|text| text.lines().any(|found| found == wanted));
            match (replace, present) {
                (Some(replace), _) => has(replace) && !has(line),
                (None, true) => has(line),
                (None, false) => !has(line) && (text.is_ok() || is_gone(path)),
            }
        }
    }
}
