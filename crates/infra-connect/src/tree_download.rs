//! Files of a tree on a host written below a directory of this machine.
//!
//! The host prints the files one after the other, as many bytes of each as it had when it was looked at: what was appended since is left out. Each is put in
//! place when it has arrived whole. What a host says of its tree is not trusted: no name leads out of the directory, and no link below it is followed.

use std::collections::VecDeque;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::BoxFuture;
use infra_core::change::{Download, FetchedFile, TreeDownload};
use infra_core::command::{Command, quote};
use infra_core::connection::{Ending, OutputSink, TakeOutput};
use infra_core::output::Stream;
use infra_core::sh;

use crate::download::{Arriving, ENOUGH, WORDS, on_a_thread};

/// A tree that comes in. Dropped before its end, it leaves what was already in place and nothing half.
pub(crate) struct IncomingTree {
    tree: TreeDownload,
    arriving: Arc<Mutex<ArrivingTree>>,
}

struct ArrivingTree {
    root: String,
    dest: PathBuf,
    /// The name of the temporary files.
    temporary: String,
    files: VecDeque<FetchedFile>,
    current: Option<(Arriving, FetchedFile, u64)>,
    waiting: Vec<u8>,
    moved: u64,
    words: Vec<u8>,
    fault: Option<String>,
}

impl ArrivingTree {
    /// Takes what waits into the files that it belongs to.
    fn write(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let mut bytes = &waiting[..];
        while self.fault.is_none() {
            if let Err(fault) = self.open_next() {
                self.fault = Some(fault);
                return;
            }
            let Some((arriving, file, left)) = &mut self.current else { return };
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            arriving.waiting.extend_from_slice(&bytes[..taken]);
            arriving.write();
            bytes = &bytes[taken..];
            *left -= taken as u64;
            if *left > 0 {
                return;
            }
            let (sha256, path) = (file.sha256.clone(), file.path.clone());
            let placed = arriving.put_in_place(&sha256);
            self.current = None;
            self.fault = placed.err().map(|reason| format!("{path}: {reason}"));
        }
    }

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
        let arriving = Arriving::open(&download, &self.temporary, file.executable).map_err(wrong)?;
        let size = file.size;
        self.current = Some((arriving, file, size));
        Ok(())
    }

    /// Whether all files are there, once there is nothing more to come.
    fn finish(&mut self) -> Result<(), String> {
        self.write();
        match (self.fault.take(), self.current.take()) {
            (Some(fault), _) => Err(fault),
            (None, Some((_, file, _))) => Err(format!("{}: it is shorter than it was when it was looked at", file.path)),
            (None, None) => Ok(()),
        }
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

struct Taker {
    arriving: Arc<Mutex<ArrivingTree>>,
    sink: OutputSink,
}

impl TakeOutput for Taker {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        match stream {
            Stream::Stdout => {
                arriving.moved += bytes.len() as u64;
                self.sink.moved(arriving.moved);
                // After a fault the rest is of no use.
                if arriving.fault.is_none() {
                    arriving.waiting.extend_from_slice(bytes);
                }
            }
            Stream::Stderr => {
                arriving.words.extend_from_slice(bytes);
                let excess = arriving.words.len().saturating_sub(WORDS);
                arriving.words.drain(..excess);
                self.sink.take(stream, bytes);
            }
        }
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        let (arriving, sink) = (self.arriving.clone(), self.sink.room());
        let much = arriving.lock().unwrap_or_else(PoisonError::into_inner).waiting.len() >= ENOUGH;
        Box::pin(async move {
            if much {
                on_a_thread(arriving, ArrivingTree::write).await;
            }
            sink.await;
        })
    }
}

impl IncomingTree {
    /// Makes the directories and links.
    ///
    /// # Errors
    /// Why they cannot be made, as a sentence fragment.
    pub(crate) async fn open(tree: &TreeDownload, name: &str) -> Result<Self, String> {
        let wanted = tree.clone();
        let root = tokio::task::spawn_blocking(move || lay_out(&wanted)).await.unwrap_or_else(|error| Err(error.to_string()));
        let dest = root.map_err(|reason| not_written(tree, &reason))?;
        let arriving = ArrivingTree {
            root: tree.root.clone(),
            dest,
            temporary: name.to_owned(),
            files: tree.files.iter().cloned().collect(),
            current: None,
            waiting: Vec::new(),
            moved: 0,
            words: Vec::new(),
            fault: None,
        };
        Ok(Self { tree: tree.clone(), arriving: Arc::new(Mutex::new(arriving)) })
    }

    /// The command that prints the files. With a tool that cannot be told how much to read, a file that grew shows as one that changed.
    pub(crate) fn command(&self) -> Command {
        let root = if self.tree.root.starts_with('/') { self.tree.root.clone() } else { format!("./{}", self.tree.root) };
        let files = self.tree.files.iter().filter(|file| file.size > 0);
        // On one line, which shells take faster than many.
        let reads: Vec<String> = std::iter::once(":".to_owned())
            .chain(files.map(|file| format!("head -c {} {} || exit", file.size, quote(&format!("./{}", file.path)))))
            .collect();
        Command::new(sh!("cd -P -- {} && { {}; }", root, infra_core::command::Shell::verbatim(reads.join("; "))))
    }

    /// What takes the output of that command; the second output goes to `sink`.
    pub(crate) fn sink(&self, sink: OutputSink) -> OutputSink {
        Arc::new(Taker { arriving: self.arriving.clone(), sink })
    }

    /// Whether the command ended well and all that it printed is what was meant. Files that were whole by then are in place.
    pub(crate) async fn end(self, ending: Ending) -> Ending {
        let Ending::Exited(status) = ending else { return ending };
        let words = {
            let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8_lossy(&arriving.words).trim().to_owned()
        };
        let finished = on_a_thread(self.arriving.clone(), ArrivingTree::finish).await;
        let said = words.lines().next_back().map(str::to_owned);
        let reason = match (status, finished) {
            (0, Some(Ok(()))) => return Ending::Exited(0),
            (0, Some(Err(reason))) => reason,
            (0, None) => "writing it came to no end".to_owned(),
            (_, _) => said.unwrap_or_else(|| format!("reading it ended with exit status {status}")),
        };
        Ending::Refused(not_written(&self.tree, &reason))
    }
}

fn not_written(tree: &TreeDownload, reason: &str) -> String {
    format!("{} was not wholly written from {}: {reason}", tree.dest, tree.root)
}
