//! A podman of the test's own: storage, containers and configuration in a folder that goes with it.
//!
//! Its one image is made of the machine root by `tests/setup`; containers have no network. What a test runs finds this podman, and not that of the user,
//! by two variables of its environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{BenchError, require_root};
use crate::fleet::{fleet_folder, machine_root, setup};
use crate::guardian::{Duty, Guardian};
use crate::leftovers::{self, Leftover};
use crate::process::{program, run_well, wait_for};

/// A podman with one image. Dropping it removes all there was.
pub struct Containers {
    folder: PathBuf,
    guardian: Arc<Guardian>,
}

impl Containers {
    /// The image: Debian with sudo, systemd (which nobody starts) and the users of a machine.
    pub const IMAGE: &str = "localhost/infra-bench:1";

    /// Makes a podman that has no container yet.
    ///
    /// # Errors
    /// When this is not root, or when a program or the image is missing (the hint says how to get it).
    pub fn start() -> Result<Self, BenchError> {
        require_root("running containers")?;
        for needed in ["podman", "runc"] {
            program(needed)?;
        }
        let root = machine_root()?;
        let images = PathBuf::from(run_well(Command::new(setup()).arg("--where-images"), Duration::from_secs(20))?.trim_end());
        if !images.is_dir() {
            return Err(BenchError::NoImage { path: images });
        }
        let guardian = Arc::new(Guardian::start()?);
        let folder = fleet_folder(&root, &guardian)?;
        guardian.take_on(Duty::Containers(&folder))?;
        let at = |part: &str| folder.join(part).display().to_string();
        let write = |name: &str, text: String, mode: u32| {
            let file = folder.join(name);
            let written = fs::write(&file, text).and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(mode)));
            written.map_err(BenchError::file("write", file))
        };
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n[storage.options]\nadditionalimagestores = [{:?}]\n",
            at("graph"),
            at("run"),
            images.display().to_string()
        );
        write("storage.conf", storage, 0o644)?;
        // A container gets no more than a test may give it: not every machine lets root raise the limits. No static_dir: what podman starts when a
        // container ends does not read this file.
        let engine = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nnetns = \"none\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\ntmp_dir = {:?}\n",
            at("tmp")
        );
        write("containers.conf", engine, 0o644)?;
        fs::create_dir(folder.join("bin")).map_err(BenchError::file("create", folder.join("bin")))?;
        // No daemon of docker is needed for this: podman takes its command line.
        write("bin/docker", "#!/bin/sh\nexec podman \"$@\"\n".to_owned(), 0o755)?;
        Ok(Self { folder, guardian })
    }

    /// The variables by which a program finds this podman.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("CONTAINERS_STORAGE_CONF", self.folder.join("storage.conf")), ("CONTAINERS_CONF", self.folder.join("containers.conf"))]
    }

    /// A folder for `PATH` with a `docker` in it that is this podman.
    #[must_use]
    pub fn docker(&self) -> PathBuf {
        self.folder.join("bin")
    }

    /// The folder with all that belongs to it. There is room for a test's own files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs podman with these words and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn podman(&self, words: &[&str]) -> Result<String, BenchError> {
        run_well(Command::new("podman").args(words).envs(self.environment()), Duration::from_secs(60)).map(|text| text.trim().to_owned())
    }

    /// The names of all containers there are, whether they run or not.
    ///
    /// # Errors
    /// When podman fails.
    pub fn names(&self) -> Result<Vec<String>, BenchError> {
        let mut names: Vec<String> = self.podman(&["ps", "--all", "--format", "{{.Names}}"])?.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// What is left of the containers and of their clients, once nothing of it goes away any more by itself, or after so long. It is to be asked when no
    /// container is meant to run.
    #[must_use]
    pub fn leftovers_after(&self, patience: Duration) -> Vec<Leftover> {
        let look = || leftovers::of(&self.folder, &[]);
        wait_for(patience, || look().is_empty().then_some(())).map_or_else(look, |()| Vec::new())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        let left = self.guardian.tidy();
        if !std::thread::panicking() {
            assert!(left.is_empty(), "the bench could not tidy up its containers: {left}");
        }
    }
}
