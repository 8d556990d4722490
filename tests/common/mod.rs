//! Runs the binary from outside, as a user would.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use infra_test::{Sshd, process};
use serde_json::Value;

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The binary, in a folder, with a clean environment and nothing on its standard input.
pub fn infra(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infra"));
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").expect("a PATH")).env("HOME", folder);
    for given in ["TMPDIR", "XDG_RUNTIME_DIR"] {
        if let Some(value) = std::env::var_os(given) {
            command.env(given, value);
        }
    }
    if folder != repository() {
        // A machine of the test's own, as far as locks on this machine are concerned.
        command.env("INFRA_LOCK_FOLDER", folder);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the binary with these words and waits for its end.
pub fn run(folder: &Path, words: &[&str]) -> Ran {
    ran(infra(folder).args(words))
}

/// Runs a program to its end, which comes in good time.
#[track_caller]
pub fn ran(command: &mut Command) -> Ran {
    let process::Outcome { code, stdout, stderr } = process::run(command, Duration::from_secs(300)).expect("it ends");
    Ran { code, stdout, stderr }
}

impl Ran {
    /// The same, where the exit code must be this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; stderr:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        self
    }

    /// The JSON document on standard output.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// Each of these stands in the text.
#[track_caller]
pub fn says(text: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(text.contains(line), "«{line}» is missing:\n{text}");
    }
}

/// Each host of a document and where it stands.
pub fn states(document: &Value) -> Vec<(&str, &str)> {
    let hosts = document["hosts"].as_object().expect("hosts");
    hosts.iter().map(|(name, host)| (name.as_str(), host["state"].as_str().expect("a state"))).collect()
}

/// Fails where a process or a socket of an sshd's hosts is left.
#[track_caller]
pub fn nothing_left(sshd: &Sshd) {
    let left = sshd.leftovers_after(Duration::from_secs(20));
    assert!(left.is_empty(), "{left:#?}");
}
