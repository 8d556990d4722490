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
    /// What tells this run from every other one where it claims a machine: 128 random bits, the same for all its hosts.
    pub run_key: String,
    /// The program that ssh starts to ask a question; see [`askpass`](crate::askpass). Without one ssh asks nothing, and a host whose data has a
    /// password cannot be reached.
    pub askpass: Option<PathBuf>,
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
            run_key: format!("{:032x}", rand::random::<u128>()),
            askpass: None,
        }
    }
}

/// The folder for sockets: below `XDG_RUNTIME_DIR` (given as `xdg`) where there is one and it is short enough for a socket's path, else
/// `/tmp/infra-UID`.
pub fn runtime_folder(xdg: Option<&Path>) -> PathBuf {
    xdg.filter(|folder| folder.is_absolute() && folder.as_os_str().len() <= 40)
        .map_or_else(|| PathBuf::from(format!("/tmp/infra-{}", nix::unistd::geteuid())), |folder| folder.join("infra"))
}

/// Reads a time as ssh_config(5) spells it: `90`, `90s`, `10m`, `1h30m`, `2d`, `1w`. At most a year.
///
/// # Errors
/// When it is no such time, as a sentence fragment.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time such as 90s, 10m or 1h30m");
    let mut seconds: u64 = 0;
    let mut rest = text;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut after = rest[digits..].chars();
        let unit = match after.next().map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            Some('w') => 604_800,
            Some(_) => return Err(wrong()),
        };
        seconds = number.checked_mul(unit).and_then(|part| part.checked_add(seconds)).ok_or_else(wrong)?;
        rest = after.as_str();
    }
    if seconds > 366 * 86_400 { Err(format!("`{text}` is more than a year")) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_ssh_reads_them() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1H", 3600), ("2d", 172_800), ("1w", 604_800)]
        {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "m", "-1", "10 m", "1.5h", "10x", "99999999999999999999", "9999999999999999999w", "1000w"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_folder_for_sockets_is_short() {
        assert_eq!(runtime_folder(Some(Path::new("/run/user/1000"))), Path::new("/run/user/1000/infra"));
        let own = PathBuf::from(format!("/tmp/infra-{}", nix::unistd::geteuid()));
        assert_eq!(runtime_folder(None), own);
        assert_eq!(runtime_folder(Some(Path::new("relative"))), own);
        assert_eq!(runtime_folder(Some(Path::new(&format!("/{}", "x".repeat(60))))), own);
    }
}
