//! Files of a host written on this machine: beside their destination, checked, then renamed over it.
//!
//! Where the file system can have files without a name (open(2), `O_TMPFILE`), a file gets one when it is whole: so nothing half is left however this
//! process ends.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use infra_core::change::Download;
use infra_core::command::Command;
use infra_core::digest::Sha256Builder;
use infra_core::sh;
use nix::fcntl::{AT_FDCWD, AtFlags};

use crate::incoming::{Arriving, Incoming};

/// A file that comes in. Dropped before it is in place, it leaves nothing.
pub(crate) struct ArrivingFile {
    file: File,
    /// Where it is written, or gets its first name, and the file that it will replace.
    temporary: PathBuf,
    place: PathBuf,
    /// Whether it stands there.
    named: bool,
    /// The permission bits of the file that it will replace.
    mode: Option<u32>,
    /// Of what was written, and of what is to be.
    digest: Sha256Builder,
    sha256: String,
}

impl Drop for ArrivingFile {
    fn drop(&mut self) {
        if self.named {
            // Whoever removed it before did what we want.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

impl ArrivingFile {
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
        let (digest, sha256) = (Sha256Builder::default(), download.sha256.clone());
        Ok(Self { file, temporary, place, named, mode, digest, sha256 })
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

impl Arriving for ArrivingFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.digest.update(bytes);
        self.file.write_all(bytes).map_err(|error| error.to_string())
    }

    fn finish(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.digest).finish() != self.sha256 {
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

/// The file of a host on its way to this machine, beside whose destination it is written under `name`.
///
/// # Errors
/// Why it cannot be written there, as a sentence.
pub(crate) async fn incoming(download: &Download, name: &str) -> Result<Incoming<ArrivingFile>, String> {
    // So that it is no option, also where cat(1) knows no `--`.
    let src = if download.src.starts_with('/') { download.src.clone() } else { format!("./{}", download.src) };
    let command = Command::new(sh!("exec cat {}", src));
    let not_written = format!("{} was not written from {}", download.dest, download.src);
    let (wanted, temporary) = (download.clone(), name.to_owned());
    Incoming::open(command, not_written, move || ArrivingFile::open(&wanted, &temporary, false)).await
}
