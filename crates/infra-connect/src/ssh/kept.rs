//! Masters that stay between runs: where they are found again, and how they end.
//!
//! Each stands below the runtime folder under a digest of all that leads to it (`Options::digest`): its socket, its log, the name by which people know
//! it, what the host can do, and a lock that one process holds while it looks or brings it up. ssh itself ends a master that nobody used for the time that was asked for.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use infra_core::connection::{ConnectError, ConnectStep};
use nix::fcntl::{Flock, FlockArg};
use tokio::process::Command;

use super::failed;
use super::folder::{LONGEST_SOCKET, Place, private};
use crate::envelope::Abilities;

/// How long a look at a lock that somebody else holds is put off.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long a master may take to end once it has agreed to.
const PATIENCE: Duration = Duration::from_secs(2);

/// The folder of kept masters.
pub(crate) struct Kept(PathBuf);

/// Where one of them stands, or is to stand.
pub(crate) struct Seat {
    folder: PathBuf,
    digest: String,
}

/// Held while a master is looked for or brought up.
pub(crate) struct Held(Flock<File>);

impl Kept {
    /// The folder below `runtime`. It is made, and what dead masters left there is removed.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(crate) fn open(runtime: &Path) -> Result<Self, ConnectError> {
        let folder = runtime.join("kept");
        let wrong = |message: String| {
            let hint = "it is made below XDG_RUNTIME_DIR, else below /tmp; it must belong to you and be closed to others".to_owned();
            failed(ConnectStep::Settings, format!("the folder for connections that are kept cannot be used: {message}"), Some(hint))
        };
        private(runtime).map_err(|error| wrong(format!("{}: {error}", runtime.display())))?;
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(wrong(format!("{}: {error}", folder.display()))),
            _ => {}
        }
        let longest = folder.as_os_str().len() + "/0123456789abcdef.s".len();
        if longest > LONGEST_SOCKET {
            return Err(wrong(format!("{} is too long for a socket's path by {} bytes", folder.display(), longest - LONGEST_SOCKET)));
        }
        let kept = Self(folder);
        for seat in kept.seats() {
            // Who holds the lock is at work there.
            if let Some(_held) = seat.try_lock()
                && !seat.listens()
            {
                seat.remove();
            }
        }
        Ok(kept)
    }

    /// The folder, where there is one already.
    pub(crate) fn existing(runtime: &Path) -> Option<Self> {
        let folder = runtime.join("kept");
        (private(runtime).is_ok() && folder.is_dir()).then_some(Self(folder))
    }

    /// Where the master with this digest stands.
    pub(crate) fn seat(&self, digest: String) -> Seat {
        Seat { folder: self.0.clone(), digest }
    }

    /// All that have left anything there.
    pub(crate) fn seats(&self) -> Vec<Seat> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut digests: Vec<String> = entries
            .filter_map(|entry| entry.file_name().to_str()?.split('.').next().map(str::to_owned))
            .filter(|digest| digest.len() == 16)
            .collect();
        digests.sort_unstable();
        digests.dedup();
        digests.into_iter().map(|digest| self.seat(digest)).collect()
    }
}

impl Seat {
    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.digest))
    }

    /// Its socket and its log; questions are answered at `questions`.
    pub(crate) fn place(&self, questions: PathBuf) -> Place {
        Place { socket: self.file("s"), log: self.file("l"), questions }
    }

    fn try_lock(&self) -> Option<Held> {
        let path = self.file("k");
        let file = File::options().create(true).truncate(false).write(true).open(&path).ok()?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok()?;
        // Whoever had it may have removed it in the meantime: then it is nobody's any more.
        let same = lock.metadata().ok()?.ino() == std::fs::metadata(&path).ok()?.ino();
        same.then_some(Held(lock))
    }

    /// Waits until nobody else is at work there.
    pub(crate) async fn lock(&self) -> Held {
        loop {
            if let Some(held) = self.try_lock() {
                return held;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether a master listens there. One that was killed has left its socket, and nobody listens.
    pub(crate) fn listens(&self) -> bool {
        UnixStream::connect(self.file("s")).is_ok()
    }

    /// Notes the name by which people know the host, and what it can do.
    pub(crate) fn note(&self, name: &str, abilities: Abilities) {
        // Only the words of `infra disconnect` rest on the one, and what is not known of the other is asked again.
        let _ = std::fs::write(self.file("n"), name);
        let _ = std::fs::write(self.file("a"), abilities.number().to_string());
    }

    /// What the host can do. As long as the master lives it is the same host.
    pub(crate) fn abilities(&self) -> Option<Abilities> {
        std::fs::read_to_string(self.file("a")).ok()?.parse().ok().map(Abilities::from_number)
    }

    /// The name by which people know the host.
    pub(crate) fn name(&self) -> String {
        std::fs::read_to_string(self.file("n")).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| self.digest.clone())
    }

    /// Ends the master, where one listens, and removes what it left. Says whether there was one. Whoever calls it holds the lock.
    pub(crate) async fn end(&self, _held: &Held) -> bool {
        let lived = self.listens();
        if lived {
            let mut command = Command::new("ssh");
            command.args(["-F", "/dev/null", "-O", "exit", "-S"]).arg(self.file("s")).args(["--", "kept"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
            let ended = async {
                let _ = command.status().await;
                while self.listens() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            // One that does not answer has no socket any more, and ends when its time is up.
            let _ = tokio::time::timeout(PATIENCE, ended).await;
        }
        self.remove();
        lived
    }

    /// Removes what stands there, without its lock last of all.
    fn remove(&self) {
        for kind in ["s", "l", "n", "a", "k"] {
            let _ = std::fs::remove_file(self.file(kind));
        }
    }

    /// Removes what a dead master left, for the next one.
    pub(crate) fn clear(&self, _held: &Held) {
        for kind in ["s", "l", "n", "a"] {
            let _ = std::fs::remove_file(self.file(kind));
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({:?})", *self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn what_the_dead_left_is_removed_and_what_the_living_have_is_kept() {
        let runtime = tempfile::tempdir().unwrap();
        let runtime = runtime.path().join("run");
        let kept = Kept::open(&runtime).unwrap();
        let [living, dead, busy] = ["1".repeat(16), "2".repeat(16), "3".repeat(16)].map(|digest| kept.seat(digest));
        let _listener = UnixListener::bind(living.file("s")).unwrap();
        drop(UnixListener::bind(dead.file("s")).unwrap());
        let abilities = Abilities { setsid: true, utf8: false, serves: true };
        living.note("web-01", abilities);
        dead.note("web-02", abilities);
        let held = busy.lock().await;
        busy.note("web-03", abilities);
        assert_eq!((living.abilities(), kept.seat("4".repeat(16)).abilities()), (Some(abilities), None));
        assert_eq!((living.listens(), dead.listens(), dead.name().as_str()), (true, false, "web-02"));
        let names = |kept: &Kept| kept.seats().into_iter().map(|seat| seat.digest).collect::<Vec<_>>();
        assert_eq!(names(&Kept::open(&runtime).unwrap()), [living.digest.clone(), busy.digest.clone()]);
        assert!(busy.try_lock().is_none());
        drop(held);
        // The lock of one that was removed is nobody's.
        let held = busy.lock().await;
        assert!(!busy.end(&held).await);
        assert!(busy.try_lock().is_some(), "a new one");
    }
}
