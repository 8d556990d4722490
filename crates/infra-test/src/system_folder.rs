//! A folder with a whole Debian in it that nobody boots: for `chroot`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{BenchError, require_root};
use crate::fleet::{fleet_folder, machine_root};
use crate::guardian::{Duty, Guardian};
use crate::process::run_well;

/// An overlay on the machine root. Dropping it removes all there was.
pub struct SystemFolder {
    folder: PathBuf,
    root: PathBuf,
    guardian: Arc<Guardian>,
}

impl SystemFolder {
    /// Makes one, fresh.
    ///
    /// # Errors
    /// When this is not root, or when the machine root is missing (the hint says how to get it).
    pub fn create() -> Result<Self, BenchError> {
        require_root("mounting an overlay")?;
        let lower = machine_root()?;
        let guardian = Arc::new(Guardian::start()?);
        let folder = fleet_folder(&lower, &guardian)?;
        let [upper, work, root] = ["upper", "work", "root"].map(|part| folder.join(part));
        for made in [&upper, &work, &root] {
            fs::create_dir(made).map_err(BenchError::file("create", made))?;
        }
        // The overlay's root takes its mode from here.
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(BenchError::file("open", &upper))?;
        guardian.take_on(Duty::Mount(&root))?;
        let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        run_well(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay"]).arg(&root), Duration::from_secs(20))?;
        Ok(Self { folder, root, guardian })
    }

    /// The root of the system.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder beside it, with room for a test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for SystemFolder {
    fn drop(&mut self) {
        let left = self.guardian.tidy();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "the bench could not tidy up its folder: {left}");
        }
    }
}
