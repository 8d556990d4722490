//! The private folder in which the sockets and logs of ssh stand while this process lives.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use infra_core::connection::{ConnectError, ConnectStep};
use nix::fcntl::{Flock, FlockArg};

/// A socket's path has 107 bytes at most (unix(7)), and while ssh makes one it appends 17 to its name.
pub(super) const LONGEST_SOCKET: usize = 107 - 17;

/// How long after its end a killed master may still make a file.
const LAST_FILES: Duration = Duration::from_millis(500);

/// The folder of one process below the runtime folder. It goes with the value.
pub(crate) struct Folder {
    path: PathBuf,
    /// Held as long as this process lives: so others see that the folder is not stale.
    _lock: Flock<File>,
}

/// Where one master has its socket and its log.
#[derive(Clone)]
pub(crate) struct Place {
    /// The socket.
    pub(crate) socket: PathBuf,
    /// The log.
    pub(crate) log: PathBuf,
    /// Where ssh's questions are answered while it connects.
    pub(crate) questions: PathBuf,
}

impl Place {
    /// Removes what stands there.
    pub(crate) fn clear(&self) {
        // They are gone already in the ordinary case, or were never made.
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(&self.log);
    }
}

impl Folder {
    /// Makes a folder below `runtime`, and removes those of processes that are no more.
    pub(crate) async fn open(runtime: &Path) -> Result<Arc<Self>, ConnectError> {
        let runtime = runtime.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(&runtime)).await;
        let message = match opened {
            Ok(Ok(folder)) => return Ok(Arc::new(folder)),
            Ok(Err(message)) => message,
            Err(error) => format!("making it came to no end: {error}"),
        };
        Err(ConnectError {
            step: ConnectStep::Settings,
            message: format!("the folder for ssh's sockets cannot be used: {message}"),
            hint: Some("it is made below XDG_RUNTIME_DIR, else below /tmp; it must belong to you and be closed to others".to_owned()),
        })
    }

    /// The place of the master with this number.
    pub(crate) fn place(&self, number: u64) -> Place {
        let of = |kind: &str| self.path.join(format!("{number}.{kind}"));
        Place { socket: of("s"), log: of("l"), questions: of("q") }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A master that was killed a moment ago may still finish the system call that makes its log or its socket; then the folder is not empty when it
        // should go. Nobody does so for long.
        let until = Instant::now() + LAST_FILES;
        while let Err(error) = std::fs::remove_dir_all(&self.path) {
            if error.kind() == std::io::ErrorKind::NotFound || Instant::now() >= until {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn open(runtime: &Path) -> Result<Folder, String> {
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |error: std::io::Error| format!("{path}: {error}")
    };
    private(runtime).map_err(named(runtime))?;
    // Two processes that start at once must not take each other's new folders for stale ones.
    let gate = runtime.join("lock");
    let _gate = Flock::lock(File::create(&gate).map_err(named(&gate))?, FlockArg::LockExclusive).map_err(|(_, error)| error.to_string())?;
    sweep(runtime);
    let path = runtime.join(format!("{:08x}", rand::random::<u32>()));
    let longest = path.as_os_str().len() + "/1000000.s".len();
    if longest > LONGEST_SOCKET {
        return Err(format!("{} is too long for a socket's path by {} bytes", runtime.display(), longest - LONGEST_SOCKET));
    }
    DirBuilder::new().mode(0o700).create(&path).map_err(named(&path))?;
    let lock = path.join("lock");
    let lock =
        Flock::lock(File::create(&lock).map_err(named(&lock))?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.to_string())?;
    Ok(Folder { path, _lock: lock })
}

/// Makes sure that a folder is there, ours, and closed to others.
pub(super) fn private(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    let found = std::fs::symlink_metadata(folder)?;
    let refuse = |reason: &str| Err(std::io::Error::other(reason.to_owned()));
    if !found.is_dir() {
        return refuse("it is not a directory");
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("it belongs to somebody else");
    }
    if found.mode() & 0o077 != 0 {
        return refuse("others may look into it (chmod 700 mends that)");
    }
    if folder.to_str().is_none_or(|path| path.contains(['%', '\n', '"', ' '])) {
        return refuse("ssh would read its path as something else");
    }
    Ok(())
}

/// Removes the folders of processes that are no more. Their masters have ended, or do so with the commands in flight.
fn sweep(runtime: &Path) {
    let Ok(folders) = std::fs::read_dir(runtime) else { return };
    for folder in folders.flatten().map(|entry| entry.path()) {
        let Ok(lock) = File::open(folder.join("lock")) else { continue };
        if let Ok(lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            let _ = std::fs::remove_dir_all(&folder);
            drop(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_kept() {
        let runtime = tempfile::tempdir().unwrap();
        let runtime = runtime.path().join("run");
        let living = open(&runtime).unwrap();
        let dead = runtime.join("0000dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("lock"), "").unwrap();
        std::fs::write(dead.join("1.s"), "").unwrap();
        let second = open(&runtime).unwrap();
        assert!(!dead.exists());
        assert!(living.path.is_dir() && second.path.is_dir());
        assert_eq!(std::fs::metadata(&runtime).unwrap().permissions().mode() & 0o777, 0o700);
        let paths = [living.path.clone(), second.path.clone()];
        drop((living, second));
        assert!(paths.iter().all(|path| !path.exists()));
    }

    #[test]
    fn a_folder_goes_also_while_a_dying_master_makes_its_files() {
        let runtime = tempfile::tempdir().unwrap();
        let runtime = runtime.path().join("run");
        for _ in 0..20 {
            let folder = open(&runtime).unwrap();
            let path = folder.path.clone();
            let (begun, has_begun) = std::sync::mpsc::channel();
            let dying = std::thread::spawn(move || {
                let until = Instant::now() + Duration::from_millis(20);
                for number in 0.. {
                    // Once the folder is gone, there is nowhere to make one.
                    let made = std::fs::write(path.join(number.to_string()), "");
                    let _ = begun.send(());
                    if made.is_err() || Instant::now() > until {
                        return path;
                    }
                }
                unreachable!("it counts for ever")
            });
            has_begun.recv().unwrap();
            drop(folder);
            assert!(!dying.join().unwrap().exists());
        }
    }

    #[test]
    fn a_folder_that_others_may_see_is_refused() {
        let runtime = tempfile::tempdir().unwrap();
        std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open(runtime.path()).err().unwrap().contains("others may look into it"));
        let long = tempfile::tempdir().unwrap();
        assert!(open(&long.path().join("x".repeat(80))).err().unwrap().contains("too long"));
    }
}
