//! How many handshakes may go on through one jump host.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many at once: each way through a jump host is a stranger at its sshd's door, too, which turns some away from the tenth on (MaxStartups).
const AT_ONCE: usize = 8;

/// The jump hosts that are known by now.
#[derive(Default)]
pub(crate) struct Jumps {
    gates: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Whether a configuration names any.
    named: Mutex<HashMap<Option<PathBuf>, bool>>,
}

impl Jumps {
    /// Whether a host may lie behind a jump host, as far as that can be told without asking ssh for each one: its configuration speaks of none.
    pub(crate) fn may_be(&self, config: Option<PathBuf>) -> bool {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        *named.entry(config).or_insert_with_key(|config| match config {
            Some(file) => speaks_of_jumps(file, None),
            None => {
                let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir.join(".ssh/config"));
                let machine = Path::new("/etc/ssh/ssh_config");
                user.is_none_or(|file| speaks_of_jumps(&file, None)) || speaks_of_jumps(machine, Some(Path::new("/etc/ssh/ssh_config.d")))
            }
        })
    }

    /// The gates of these jump hosts, always in the same order, so that two who wait do not wait for each other.
    pub(crate) fn gates(&self, jumps: &[&str]) -> Vec<Arc<Semaphore>> {
        let mut names = jumps.to_vec();
        names.sort_unstable();
        names.dedup();
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        names.into_iter().map(|name| gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone()).collect()
    }
}

/// Waits until each gate lets one more through.
pub(crate) async fn pass(gates: &[Arc<Semaphore>]) -> Vec<OwnedSemaphorePermit> {
    let mut permits = Vec::new();
    for gate in gates {
        permits.push(gate.clone().acquire_owned().await.expect("nobody closes it"));
    }
    permits
}

/// Whether a file of ssh's names a jump host, or includes files that may; those of `folder` are looked at.
fn speaks_of_jumps(file: &Path, folder: Option<&Path>) -> bool {
    // What cannot be read ssh cannot read either.
    let Ok(text) = std::fs::read(file) else { return false };
    let text = String::from_utf8_lossy(&text).to_lowercase();
    let words = |line: &str| line.split(|c: char| c.is_whitespace() || c == '=').map(str::to_owned).collect::<Vec<_>>();
    let known = folder.map(|folder| PathBuf::from(folder.to_string_lossy().to_lowercase()));
    text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')).map(words).any(|words| match words[0].as_str() {
        "proxyjump" => true,
        "include" => match folder {
            Some(folder) if words[1..].iter().filter(|word| !word.is_empty()).all(|word| Path::new(word).parent() == known.as_deref()) => {
                let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
                found.into_iter().any(|entry| speaks_of_jumps(&entry.path(), None))
            }
            _ => true,
        },
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_speaks_of_jump_hosts_or_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let parts = folder.path().join("parts");
        std::fs::create_dir(&parts).unwrap();
        let include = format!("Include {}/*.conf\n", parts.display());
        for (text, part, wanted) in [
            ("Host *\n  User root\n", "", false),
            ("Host *\n  # ProxyJump bastion\n", "", false),
            ("Host *\n  ProxyJump bastion\n", "", true),
            ("proxyjump=bastion\n", "", true),
            ("Include other\n", "", true),
            (&include, "Host *\n", false),
            (&include, "Host *\n\tPROXYJUMP b\n", true),
        ] {
            std::fs::write(&file, text).unwrap();
            std::fs::write(parts.join("one.conf"), part).unwrap();
            assert_eq!(speaks_of_jumps(&file, Some(&parts)), wanted, "{text} {part}");
        }
        assert!(!speaks_of_jumps(Path::new("/nonexistent"), None));
    }

    #[tokio::test]
    async fn a_gate_lets_so_many_through_at_once() {
        let jumps = Jumps::default();
        let gates = jumps.gates(&["b", "a", "b"]);
        assert_eq!(gates.len(), 2);
        let mut passed = Vec::new();
        for _ in 0..AT_ONCE {
            passed.push(pass(&gates).await);
        }
        assert_eq!(jumps.gates(&["a"])[0].available_permits(), 0);
        passed.pop();
        assert_eq!(jumps.gates(&["b"])[0].available_permits(), 1);
    }
}
