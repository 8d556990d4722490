//! Files of a host written on this machine: beside their destination, checked, then renamed over it.
//!
//! Where the file system can have files without a name (open(2), `O_TMPFILE`), a file gets one when it is whole: so nothing half is left however this
//! process ends.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::BoxFuture;
use infra_core::change::Download;
use infra_core::command::Command;
use infra_core::connection::{Ending, OutputSink, TakeOutput};
use infra_core::digest::Sha256Builder;
use infra_core::output::Stream;
use infra_core::sh;
use nix::fcntl::{AT_FDCWD, AtFlags};

/// How much is kept in memory before it is written.
pub(crate) const ENOUGH: usize = 256 * 1024;
/// How much is kept of what was said on the second output.
pub(crate) const WORDS: usize = 4096;

/// A file that comes in. Dropped before it is in place, it leaves nothing.
pub(crate) struct Incoming {
    download: Download,
    arriving: Arc<Mutex<Arriving>>,
}

pub(crate) struct Arriving {
    file: File,
    /// Where it is written, or gets its first name, and the file that it will replace.
    temporary: PathBuf,
    place: PathBuf,
    /// Whether it has a name.
    named: bool,
    /// The permission bits of the file that it will replace.
    mode: Option<u32>,
    digest: Sha256Builder,
    pub(crate) waiting: Vec<u8>,
    words: Vec<u8>,
    moved: u64,
    fault: Option<String>,
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.named {
            // Whoever removed it before did what we want.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

impl Arriving {
    /// Makes the temporary file; `executable` is for one that replaces none.
    ///
    /// # Errors
    /// Why it cannot be made, as a sentence fragment.
    pub(crate) fn open(download: &Download, name: &str, executable: bool) -> Result<Self, String> {
        let dest = Path::new(&download.dest);
        let place = match std::fs::symlink_metadata(dest) {
            Ok(found) if found.is_symlink() => dest.canonicalize().map_err(|error| format!("the link leads nowhere: {error}"))?,
            _ => dest.to_owned(),
        };
        let old = std::fs::metadata(&place).ok();
        match &old {
            Some(old) if old.is_dir() => return Err("there is a directory".to_owned()),
            Some(old) if !old.is_file() => return Err("there is something that is not a regular file".to_owned()),
            _ => {}
        }
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            if !download.create_dir {
                return Err(format!(
                    "there is no directory {} on this machine, and `create_local_dir` does not say to make it",
                    folder.display()
                ));
            }
            std::fs::create_dir_all(folder).map_err(|error| format!("the directory {} cannot be made: {error}", folder.display()))?;
        }
        let temporary = folder.join(name);
        let fresh = if executable { 0o777 } else { 0o666 };
        let mode = old.map(|old| old.mode() & 0o7777);
        // At no moment may more people read it than may read the file that it replaces.
        let (file, named) = fresh_file(folder, &temporary, mode.unwrap_or(fresh) & 0o777)
            .map_err(|error| format!("no file can be made in {}: {error}", folder.display()))?;
        let digest = Sha256Builder::default();
        Ok(Self { file, temporary, place, named, mode, digest, waiting: Vec::new(), words: Vec::new(), moved: 0, fault: None })
    }

    /// Gives it a name, where it has none.
    fn name(&mut self) -> std::io::Result<()> {
        if !self.named {
            let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            nix::unistd::linkat(AT_FDCWD, own.as_str(), AT_FDCWD, &self.temporary, AtFlags::AT_SYMLINK_FOLLOW)?;
            self.named = true;
        }
        Ok(())
    }

    /// Writes what waits.
    pub(crate) fn write(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.digest.update(&waiting);
        if self.fault.is_none()
            && let Err(error) = self.file.write_all(&waiting)
        {
            self.fault = Some(error.to_string());
        }
    }

    /// Puts the file in place where it is what was meant.
    ///
    /// # Errors
    /// Why it is not in place, as a sentence fragment.
    pub(crate) fn put_in_place(&mut self, sha256: &str) -> Result<(), String> {
        self.write();
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if std::mem::take(&mut self.digest).finish() != sha256 {
            return Err("what arrived is not what was there when it was looked at: it changed since, or changes all the time".to_owned());
        }
        let io = |error: std::io::Error| error.to_string();
        if let Some(mode) = self.mode {
            self.file.set_permissions(Permissions::from_mode(mode)).map_err(io)?;
        }
        self.file.sync_all().map_err(io)?;
        self.name().map_err(io)?;
        std::fs::rename(&self.temporary, &self.place).map_err(io)?;
        self.named = false;
        // The file is there; where its directory cannot be synced, a power cut may take it away again.
        if let Some(folder) = self.place.parent().and_then(|folder| File::open(folder).ok()) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// A new file in a folder with these permission bits, and whether it has the name.
fn fresh_file(folder: &Path, name: &Path, mode: u32) -> std::io::Result<(File, bool)> {
    let nameless = OpenOptions::new().write(true).custom_flags(nix::libc::O_TMPFILE).mode(mode).open(folder);
    // It is named by way of /proc, as this needs no privilege.
    if let Ok(file) = nameless
        && Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())).exists()
    {
        return Ok((file, false));
    }
    // There is no list of what a file system says that cannot do this; one that can do neither says why here.
    OpenOptions::new().write(true).create_new(true).mode(mode).open(name).map(|file| (file, true))
}

/// Takes the content of the file as output of a command.
struct Taker {
    arriving: Arc<Mutex<Arriving>>,
    sink: OutputSink,
}

impl TakeOutput for Taker {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        match stream {
            Stream::Stdout => {
                arriving.waiting.extend_from_slice(bytes);
                arriving.moved += bytes.len() as u64;
                self.sink.moved(arriving.moved);
            }
            Stream::Stderr => {
                arriving.words.extend_from_slice(bytes);
                let excess = arriving.words.len().saturating_sub(WORDS);
                arriving.words.drain(..excess);
                self.sink.take(stream, bytes);
            }
        }
    }

    /// What waits is written on a thread that may wait for a disk.
    fn room(&self) -> BoxFuture<'static, ()> {
        let (arriving, sink) = (self.arriving.clone(), self.sink.room());
        let much = arriving.lock().unwrap_or_else(PoisonError::into_inner).waiting.len() >= ENOUGH;
        Box::pin(async move {
            if much {
                on_a_thread(arriving, Arriving::write).await;
            }
            sink.await;
        })
    }
}

/// Does what may wait for a disk where that holds up nobody else.
pub(crate) async fn on_a_thread<A: Send + 'static, T: Send + 'static>(
    arriving: Arc<Mutex<A>>,
    work: impl FnOnce(&mut A) -> T + Send + 'static,
) -> Option<T> {
    let work = move || work(&mut arriving.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(work).await.ok()
}

impl Incoming {
    /// Makes the file that will be renamed over the destination.
    ///
    /// # Errors
    /// Why it cannot be made, as a sentence fragment.
    pub(crate) async fn open(download: &Download, name: &str) -> Result<Self, String> {
        let (wanted, temporary) = (download.clone(), name.to_owned());
        let opened = tokio::task::spawn_blocking(move || Arriving::open(&wanted, &temporary, false)).await;
        match opened.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(arriving) => Ok(Self { download: download.clone(), arriving: Arc::new(Mutex::new(arriving)) }),
            Err(reason) => Err(not_written(download, &reason)),
        }
    }

    /// The command that prints the file.
    pub(crate) fn command(&self) -> Command {
        // So that it is no option, also where cat(1) knows no `--`.
        let src = if self.download.src.starts_with('/') { self.download.src.clone() } else { format!("./{}", self.download.src) };
        Command::new(sh!("exec cat {}", src))
    }

    /// What takes the output of that command; the second output goes to `sink`.
    pub(crate) fn sink(&self, sink: OutputSink) -> OutputSink {
        Arc::new(Taker { arriving: self.arriving.clone(), sink })
    }

    /// Puts the file in place where the command ended well and the file is what was meant.
    pub(crate) async fn end(self, ending: Ending) -> Ending {
        let Ending::Exited(status) = ending else { return ending };
        if status != 0 {
            let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            let words = String::from_utf8_lossy(&arriving.words).trim().to_owned();
            let last = words.lines().next_back().map_or_else(|| format!("reading it ended with exit status {status}"), str::to_owned);
            return Ending::Refused(not_written(&self.download, &last));
        }
        let sha256 = self.download.sha256.clone();
        match on_a_thread(self.arriving.clone(), move |arriving| arriving.put_in_place(&sha256)).await {
            Some(Ok(())) => Ending::Exited(0),
            Some(Err(reason)) => Ending::Refused(not_written(&self.download, &reason)),
            None => Ending::Refused(not_written(&self.download, "writing it came to no end")),
        }
    }
}

fn not_written(download: &Download, reason: &str) -> String {
    format!("{} was not written from {}: {reason}", download.dest, download.src)
}
