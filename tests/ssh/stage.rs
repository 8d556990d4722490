//! An sshd, files of ssh that a test writes itself, and the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use infra_test::{Sshd, SshdOptions, process};

use crate::common::{Ran, ran};

/// An sshd and what a user of it would have.
pub struct Stage {
    pub sshd: Sshd,
}

impl Stage {
    /// With an sshd of the usual kind.
    pub fn new() -> Self {
        Self::with(SshdOptions::default())
    }

    /// With this one.
    pub fn with(options: SshdOptions) -> Self {
        Self { sshd: Sshd::start(options).unwrap_or_else(|error| panic!("{error}")) }
    }

    /// A path in the folder of the sshd.
    pub fn path(&self, name: &str) -> PathBuf {
        self.sshd.folder().join(name)
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// The address and the port of the sshd's first name.
    pub fn address(&self) -> std::net::SocketAddrV4 {
        self.sshd.aliases()[0].1
    }

    /// What keeps the tester's own files of ssh out: to stand behind all else, with this as the key.
    pub fn rest(&self, key: Option<&Path>) -> String {
        let key = key.map_or_else(String::new, |key| format!("  IdentityFile {}\n  IdentitiesOnly yes\n", key.display()));
        format!(
            "Host *\n{key}  User {}\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n  UpdateHostKeys no\n  \
             CheckHostIP no\n",
            self.sshd.user(),
            self.sshd.known_hosts().display()
        )
    }

    /// A stanza that leads to the sshd under this name.
    pub fn stanza(&self, name: &str) -> String {
        format!("Host {name}\n  HostName {}\n  Port {}\n", self.address().ip(), self.address().port())
    }

    /// The binary with these words, with this file as the configuration of ssh.
    pub fn command(&self, config: &Path, words: &[&str]) -> Command {
        let mut command = crate::common::infra(self.sshd.folder());
        command.env("XDG_RUNTIME_DIR", self.path("r")).stdin(Stdio::null());
        command.arg("--data").arg(format!("ssh_config_file={}", config.display())).args(words);
        command
    }

    /// Runs it; nothing is left when it has ended.
    pub fn infra(&self, config: &Path, words: &[&str]) -> Ran {
        let ran = ran(&mut self.command(config, words));
        self.nothing_left();
        ran
    }

    /// Fails where a process or a socket is left.
    pub fn nothing_left(&self) {
        crate::common::nothing_left(&self.sshd);
    }
}

/// Runs a tool of ssh's, which must do well.
pub fn tool(program: &str, words: &[&str]) -> String {
    process::run_well(Command::new(program).args(words).env("LC_ALL", "C"), Duration::from_secs(30))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A path as text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
