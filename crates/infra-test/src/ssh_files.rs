//! The files that an ssh client is given: a key pair, `known_hosts` (sshd(8)) and `ssh_config` (ssh_config(5)).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::error::BenchError;
use crate::process::run_well;

/// The files of one bench, all in its folder. The folder's path holds no white space (see [`usable_folder`]).
#[derive(Debug, Clone)]
pub(crate) struct SshFiles {
    pub(crate) config: PathBuf,
    pub(crate) known_hosts: PathBuf,
    pub(crate) user_key: PathBuf,
    /// The user's public key as one line of `authorized_keys`.
    pub(crate) public_key: String,
}

/// One host that an ssh client can be told to go to.
pub(crate) struct Target<'a> {
    pub(crate) name: &'a str,
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) user: &'a str,
    /// `ssh-ed25519 AAAA…`; `None` leaves the host unknown.
    pub(crate) host_key: Option<String>,
}

impl SshFiles {
    /// Makes the user's key pair; the other two files come with [`SshFiles::write_targets`].
    pub(crate) fn create(folder: &Path) -> Result<Self, BenchError> {
        let user_key = folder.join("id_ed25519");
        let public_key = generate_key(&user_key, "infra-test")?;
        Ok(Self { config: folder.join("ssh_config"), known_hosts: folder.join("known_hosts"), user_key, public_key })
    }

    /// Writes `ssh_config` and `known_hosts` for these hosts.
    pub(crate) fn write_targets(&self, targets: &[Target<'_>]) -> Result<(), BenchError> {
        let mut config = String::new();
        let mut known_hosts = String::new();
        for target in targets {
            let Target { name, address, port, user, host_key } = target;
            let _ = writeln!(config, "Host {name}\n  HostName {address}\n  Port {port}\n  User {user}");
            if let Some(key) = host_key {
                let line = match port {
                    22 => format!("{address} {key}\n"),
                    port => format!("[{address}]:{port} {key}\n"),
                };
                // Several names may stand for one address.
                if !known_hosts.contains(&line) {
                    known_hosts.push_str(&line);
                }
            }
        }
        // The user's own files, keys and agent have no part in a test.
        let _ = write!(
            config,
            "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  CheckHostIP no\n",
            self.user_key.display(),
            self.known_hosts.display(),
        );
        fs::write(&self.config, config).map_err(BenchError::file("write", &self.config))?;
        fs::write(&self.known_hosts, known_hosts).map_err(BenchError::file("write", &self.known_hosts))
    }
}

/// Makes a key pair without a passphrase at `file` and `file.pub`. Gives the public half: type, key and `comment`.
pub(crate) fn generate_key(file: &Path, comment: &str) -> Result<String, BenchError> {
    run_well(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"]).arg(file), Duration::from_secs(30))?;
    let public = file.with_extension("pub");
    fs::read_to_string(&public).map(|line| line.trim().to_owned()).map_err(BenchError::file("read", public))
}

/// Type and key of a public key line, without its comment.
pub(crate) fn without_comment(public_key: &str) -> String {
    public_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Refuses a folder whose path would have to be quoted in the files of ssh or in mount options.
pub(crate) fn usable_folder(folder: &Path) -> Result<(), BenchError> {
    let odd = |text: &str| text.chars().any(|c| c.is_whitespace() || c.is_control() || ":,\"'\\%".contains(c));
    match folder.to_str() {
        Some(text) if folder.is_absolute() && !odd(text) => Ok(()),
        _ => Err(BenchError::Argument(format!(
            "the folder {} cannot be used: its path must be absolute and free of spaces, colons, commas, quotes and percent signs",
            folder.display()
        ))),
    }
}

/// Refuses what is no host name of letters, digits, dots and dashes, and names given twice.
pub(crate) fn usable_names(names: &[String]) -> Result<(), BenchError> {
    for (position, name) in names.iter().enumerate() {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || name.len() > 40 || !name.chars().all(plain) || name.starts_with(['-', '.']) {
            return Err(BenchError::Argument(format!("'{name}' is no host name of letters, digits, dots and dashes")));
        }
        if names[..position].contains(name) {
            return Err(BenchError::Argument(format!("the name '{name}' is given twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_folders_that_would_need_quoting_are_refused() {
        let names = |names: &[&str]| usable_names(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(names(&["web-01", "db.example.com"]).is_ok());
        for bad in [&["a b"][..], &[""], &["-x"], &["a", "b", "a"], &["ä"]] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
        assert!(usable_folder(Path::new("/tmp/x-1_2.y")).is_ok());
        for bad in ["relative", "/a b", "/a:b", "/a,b", "/a\nb"] {
            assert!(usable_folder(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
