//! Deadlines and limits, and where the sockets of ssh stand.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How the wire behaves. Nothing here is read from the environment: who makes one says it all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a connect may take, from the moment its handshake is allowed to start until `sh` has answered.
    pub connect_deadline: Duration,
    /// How many handshakes may go on at once, over all hosts.
    pub handshakes: usize,
    /// The time between two signs of life that are asked of a silent host.
    pub keepalive: Duration,
    /// How many of these may stay unanswered before the connection counts as lost.
    pub keepalive_tries: u32,
    /// How long the command of one fact may take.
    pub fact_deadline: Duration,
    /// How many bytes the command of one fact may print, on both outputs together.
    pub fact_limit: usize,
    /// How long an upload may stand still.
    pub upload_stall: Duration,
    /// How many files this process may have open, where hosts are to be refused rather than half of them fail for want of more.
    pub open_files: Option<u64>,
    /// Whether each host is sent one command and then no more. The first shell of a connection serves that too, which saves opening another one.
    pub one_command: bool,
    /// A folder of this user's alone for sockets; see [`runtime_folder`]. It is made when it is first needed.
    pub runtime_folder: PathBuf,
}

impl Settings {
    /// The settings as the book states them, with this folder for sockets.
    pub fn new(runtime_folder: impl Into<PathBuf>) -> Self {
        Self {
            connect_deadline: Duration::from_secs(30),
            handshakes: 64,
            keepalive: Duration::from_secs(15),
            keepalive_tries: 3,
            fact_deadline: Duration::from_secs(30),
            fact_limit: 16 << 20,
            upload_stall: Duration::from_secs(60),
            open_files: None,
            one_command: false,
            runtime_folder: runtime_folder.into(),
        }
    }
}

/// The folder for sockets: below `XDG_RUNTIME_DIR` (given as `xdg`) where there is one and it is short enough for a socket's path, else
/// `/tmp/infra-UID`.
pub fn runtime_folder(xdg: Option<&Path>) -> PathBuf {
    xdg.filter(|folder| folder.is_absolute() && folder.as_os_str().len() <= 40)
        .map_or_else(|| PathBuf::from(format!("/tmp/infra-{}", nix::unistd::geteuid())), |folder| folder.join("infra"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_for_sockets_is_short() {
        assert_eq!(runtime_folder(Some(Path::new("/run/user/1000"))), Path::new("/run/user/1000/infra"));
        let own = PathBuf::from(format!("/tmp/infra-{}", nix::unistd::geteuid()));
        assert_eq!(runtime_folder(None), own);
        assert_eq!(runtime_folder(Some(Path::new("relative"))), own);
        assert_eq!(runtime_folder(Some(Path::new(&format!("/{}", "x".repeat(60))))), own);
    }
}
