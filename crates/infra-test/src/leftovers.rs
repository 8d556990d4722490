//! What a test may leave behind: processes that still speak of its folders, and sockets in them.

use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::process::{self, Process};

/// Something that is still there and should not be. Prints as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// A process with a path of ours among its arguments or in its environment: an ssh master, a helper of one, or what a
    /// command on a host left running.
    Process(Process),
    /// A socket file, whether somebody listens on it or not.
    Socket(PathBuf),
    /// A listening socket of which the file has been removed (or was never there): proc_net(5), `unix`.
    Listening(String),
}

impl fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => write!(formatter, "process {} (parent {}): {}", process.pid, process.parent, process.command),
            Self::Socket(path) => write!(formatter, "socket {}", path.display()),
            Self::Listening(name) => write!(formatter, "a listener on {name}"),
        }
    }
}

/// What still refers to `folder` or stands in it, leaving out the process that asks and those in `expected`.
///
/// A process is found by `folder` in its arguments or its environment, so an ssh client that was given our `ssh_config` is
/// found wherever it keeps its sockets, and whoever is its parent now.
#[must_use]
pub fn of(folder: &Path, expected: &[Process]) -> Vec<Leftover> {
    let ours = std::process::id().cast_signed();
    let mut left: Vec<Leftover> = process::all()
        .into_iter()
        .filter(|process| process.pid != ours)
        .filter(|process| !expected.iter().any(|known| known.pid == process.pid && known.started == process.started))
        .filter(|process| process.mentions(folder.as_os_str()))
        .map(Leftover::Process)
        .collect();
    let mut files = Vec::new();
    sockets_in(folder, &mut files);
    left.extend(listeners(folder, &files).into_iter().map(Leftover::Listening));
    left.extend(files.into_iter().map(Leftover::Socket));
    left
}

/// The socket files in a folder and in all folders in it. A folder that does not exist has none.
fn sockets_in(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(children) = std::fs::read_dir(folder) else {
        return;
    };
    for child in children.flatten() {
        match child.file_type() {
            Ok(kind) if kind.is_socket() => found.push(child.path()),
            Ok(kind) if kind.is_dir() => sockets_in(&child.path(), found),
            _ => {}
        }
    }
}

/// The names below `folder` that the kernel knows as sockets, without those of `files`.
fn listeners(folder: &Path, files: &[PathBuf]) -> Vec<String> {
    let Some(prefix) = folder.to_str() else {
        return Vec::new();
    };
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut names: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|name| Path::new(name).starts_with(prefix))
        .filter(|name| !files.iter().any(|file| file == Path::new(name)))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn processes_and_sockets_of_a_folder_are_found_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of(folder.path(), &[]), []);

        let socket = folder.path().join("master.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut child = Command::new("sleep").arg("60").env("OF", folder.path()).spawn().unwrap();
        let pid = child.id().cast_signed();
        // Until the child has become `sleep`, its environment is that of this process.
        let found = process::wait_for(std::time::Duration::from_secs(10), || Some(of(folder.path(), &[])).filter(|found| found.len() == 2))
            .expect("both are found");
        assert!(matches!(&found[0], Leftover::Process(process) if process.pid == pid), "{found:?}");
        assert_eq!(found[1], Leftover::Socket(socket.clone()));
        assert_eq!(of(folder.path(), &[Process::of(pid).unwrap()]), found[1..]);

        child.kill().unwrap();
        child.wait().unwrap();
        std::fs::remove_file(&socket).unwrap();
        assert_eq!(of(folder.path(), &[]), [Leftover::Listening(socket.display().to_string())]);
        drop(listener);
        assert_eq!(of(folder.path(), &[]), []);
    }
}
