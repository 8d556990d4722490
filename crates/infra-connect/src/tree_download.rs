//! Files of a tree on a host written below a directory of this machine.
//!
//! The host prints the files one after the other, as many bytes of each as it had when it was looked at: what was appended since is left out. Each is put in
//! place when it has arrived whole. What a host says of its tree is not trusted: no name leads out of the directory, and no link below it is followed.

use std::collections::VecDeque;
use std::fs;
use std::path::{Component, Path, PathBuf};

use infra_core::change::{Download, FetchedFile, TreeDownload};
use infra_core::command::{Command, Shell, quote};
use infra_core::sh;

use crate::download::ArrivingFile;
use crate::incoming::{Arriving, Incoming};

/// A tree that comes in. Dropped before its end, it leaves what was already in place and nothing half.
pub(crate) struct ArrivingTree {
    root: String,
    dest: PathBuf,
    /// The name of the temporary files.
    temporary: String,
    files: VecDeque<FetchedFile>,
    /// The file that comes now, and how many bytes of it are still to come.
    current: Option<(ArrivingFile, FetchedFile, u64)>,
}

impl Arriving for ArrivingTree {
    /// Writes into the files that the bytes belong to.
    fn write(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        loop {
            self.open_next()?;
            let Some((arriving, file, left)) = &mut self.current else { return Ok(()) };
            let wrong = |reason: String| format!("{}: {reason}", file.path);
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            arriving.write(&bytes[..taken]).map_err(wrong)?;
            bytes = &bytes[taken..];
            *left -= taken as u64;
            if *left > 0 {
                return Ok(());
            }
            arriving.finish().map_err(wrong)?;
            self.current = None;
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        match self.current.take() {
            Some((_, file, _)) => Err(format!("{}: it is shorter than it was when it was looked at", file.path)),
            None => Ok(()),
        }
    }
}

impl ArrivingTree {
    fn open_next(&mut self) -> Result<(), String> {
        if self.current.is_some() {
            return Ok(());
        }
        let Some(file) = self.files.pop_front() else { return Ok(()) };
        let wrong = |reason: String| format!("{}: {reason}", file.path);
        let dest = checked(&self.dest, &file.path).map_err(wrong)?;
        if dest.is_symlink() {
            fs::remove_file(&dest).map_err(|error| wrong(format!("a link is in the way: {error}")))?;
        }
        let download = Download {
            src: format!("{}/{}", self.root, file.path),
            dest: dest.to_str().ok_or_else(|| wrong("its path is not UTF-8".to_owned()))?.to_owned(),
            size: Some(file.size),
            sha256: file.sha256.clone(),
            create_dir: false,
        };
        let arriving = ArrivingFile::open(&download, &self.temporary, file.executable).map_err(wrong)?;
        let size = file.size;
        self.current = Some((arriving, file, size));
        Ok(())
    }
}

/// A path below a directory on which no link is followed; the directories on the way are there.
fn checked(root: &Path, path: &str) -> Result<PathBuf, String> {
    let relative = Path::new(path);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.split('/').any(str::is_empty) || path.contains('\0') {
        return Err("this is no path below a directory".to_owned());
    }
    let mut above = root.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        above.push(part);
        let found = fs::symlink_metadata(&above).map_err(|error| format!("{}: {error}", above.display()))?;
        if !found.is_dir() {
            return Err(format!("{} is in the way: it is no directory", above.display()));
        }
    }
    Ok(root.join(relative))
}

/// Makes the directories and links of a tree, and gives the real path of its root.
fn lay_out(tree: &TreeDownload) -> Result<PathBuf, String> {
    let dest = Path::new(&tree.dest);
    if !dest.is_dir() {
        if !tree.create_dir {
            return Err("there is no such directory on this machine, and `create_local_dir` does not say to make it".to_owned());
        }
        fs::create_dir_all(dest).map_err(|error| format!("the directory cannot be made: {error}"))?;
    }
    let root = dest.canonicalize().map_err(|error| error.to_string())?;
    for directory in &tree.directories {
        let path = checked(&root, directory).map_err(|reason| format!("{directory}: {reason}"))?;
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(format!("{} is in the way: it is no directory", path.display())),
            Err(_) => fs::create_dir(&path).map_err(|error| format!("the directory {} cannot be made: {error}", path.display()))?,
        }
    }
    for (link, target) in &tree.links {
        let path = checked(&root, link).map_err(|reason| format!("{link}: {reason}"))?;
        let wrong = |error: std::io::Error| format!("the link {} cannot be made: {error}", path.display());
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(format!("{} is in the way: it is a directory", path.display())),
            Ok(_) => fs::remove_file(&path).map_err(wrong)?,
            Err(_) => {}
        }
        std::os::unix::fs::symlink(target, &path).map_err(wrong)?;
    }
    Ok(root)
}

/// The files of a tree of a host on their way to this machine, where each is written under `name` first.
///
/// # Errors
/// Why the directories and links of the tree cannot be made, as a sentence.
pub(crate) async fn incoming(tree: &TreeDownload, name: &str) -> Result<Incoming<ArrivingTree>, String> {
    let command = printing(tree);
    let not_written = format!("{} was not wholly written from {}", tree.dest, tree.root);
    let (wanted, temporary) = (tree.clone(), name.to_owned());
    let make = move || {
        let dest = lay_out(&wanted)?;
        Ok(ArrivingTree { root: wanted.root, dest, temporary, files: wanted.files.into(), current: None })
    };
    Incoming::open(command, not_written, make).await
}

/// The command that prints the files. With a tool that cannot be told how much to read, a file that grew shows as one that changed.
fn printing(tree: &TreeDownload) -> Command {
    let root = if tree.root.starts_with('/') { tree.root.clone() } else { format!("./{}", tree.root) };
    let files = tree.files.iter().filter(|file| file.size > 0);
    // On one line, which shells take faster than many.
    let reads: Vec<String> = std::iter::once(":".to_owned())
        .chain(files.map(|file| format!("head -c {} {} || exit", file.size, quote(&format!("./{}", file.path)))))
        .collect();
    Command::new(sh!("cd -P -- {} && { {}; }", root, Shell::verbatim(reads.join("; "))))
}
