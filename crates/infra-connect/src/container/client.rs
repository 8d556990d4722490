//! The user's own docker or podman: the program, what it says, and what that means.

use std::process::Stdio;

use infra_core::connection::{ConnectError, ConnectStep};
use tokio::process::Command;

use crate::child;

/// A client program, found in `PATH`. Its environment is the user's own, so `DOCKER_HOST` and contexts count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) program: &'static str,
}

/// What a container of some name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It runs.
    Running,
    /// It is there and does not run; in which state, in the client's word.
    Idle(String),
    /// There is none.
    Nothing,
}

/// The shortest beginning of an id that is taken for one: shorter ones are words, too.
const SHORTEST_ID: usize = 12;

impl Client {
    /// The program with these words.
    pub(crate) fn command<'w>(self, words: impl IntoIterator<Item = &'w str>) -> Command {
        let mut command = Command::new(self.program);
        command.args(words);
        command
    }

    /// Asks something and gives what was printed. The client is killed when nobody waits any more.
    ///
    /// # Errors
    /// The last words of the client, or why it could not be started.
    pub(crate) async fn ask<'w>(self, words: impl IntoIterator<Item = &'w str>) -> Result<String, Said> {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).kill_on_drop(true);
        child::own_session(&mut command);
        let output = command.output().await.map_err(Said::NotStarted)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(Said::of(&output.stderr, &output.status.to_string()))
    }

    /// Looks for a container by its name, or by its id (at least the first twelve characters).
    pub(crate) async fn find(self, name: &str) -> Result<Found, Said> {
        let wanted = ["container", "inspect", "--format", "{{.Id}} {{.State.Status}} {{.Name}}", name];
        match self.ask(wanted).await {
            Ok(text) => {
                let mut words = text.split_whitespace();
                let (id, status, found) = (words.next().unwrap_or_default(), words.next().unwrap_or_default(), words.next());
                let is_it =
                    found.map(|found| found.trim_start_matches('/')) == Some(name) || (name.len() >= SHORTEST_ID && id.starts_with(name));
                Ok(match status {
                    _ if !is_it => Found::Nothing,
                    "running" => Found::Running,
                    other => Found::Idle(other.to_owned()),
                })
            }
            Err(said) if said.no_such() => Ok(Found::Nothing),
            Err(said) => Err(said),
        }
    }

    /// What to blame when the client could not even be asked, or has nobody to ask.
    pub(crate) fn trouble(self, said: &Said) -> Option<ConnectError> {
        let program = self.program;
        let error = |step, message: String, hint: String| Some(ConnectError { step, message, hint: Some(hint) });
        let text = match said {
            Said::NotStarted(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                let hint = format!(
                    "install {program} (Debian: {}), or put it on your PATH",
                    if program == "docker" { "docker.io" } else { program }
                );
                return error(ConnectStep::Settings, format!("there is no {program} on this machine"), hint);
            }
            Said::NotStarted(cause) => {
                let hint = format!("infra runs the {program} of your PATH: try `{program} ps`");
                return error(ConnectStep::Settings, format!("{program} cannot be started: {cause}"), hint);
            }
            Said::Words(text) => text,
        };
        let low = text.to_ascii_lowercase();
        let said = said.last();
        if low.contains("permission denied") && (low.contains("daemon") || low.contains("socket")) {
            let hint = format!("`{program} ps` must work for the user who runs infra (for docker: a member of the group docker, or root)");
            return error(ConnectStep::Authenticate, format!("{program} may not be used: {said}"), hint);
        }
        let silent = [
            "cannot connect to",
            "is the docker daemon running",
            "connection refused",
            "error during connect",
            "unable to connect to podman",
        ];
        if silent.iter().any(|words| low.contains(words)) && !low.contains("registry") {
            let hint = format!("start its daemon, or say where it is with the environment or a context: `{program} ps` must work first");
            return error(ConnectStep::Connect, format!("{program} has no daemon to talk to: {said}"), hint);
        }
        None
    }
}

/// What a client said instead of doing as it was told.
#[derive(Debug)]
pub(crate) enum Said {
    /// There was nobody to say anything.
    NotStarted(std::io::Error),
    /// Its words on standard error, or how it ended where there were none.
    Words(String),
}

impl Said {
    /// From standard error, with how the client ended.
    pub(crate) fn of(stderr: &[u8], ended: &str) -> Self {
        let text = infra_core::output::printable(String::from_utf8_lossy(stderr).trim());
        Self::Words(if text.is_empty() { ended.to_owned() } else { text })
    }

    /// Whether it knows nothing of that name.
    pub(crate) fn no_such(&self) -> bool {
        let Self::Words(text) = self else { return false };
        let text = text.to_ascii_lowercase();
        ["no such container", "no such object", "no such image", "no container with", "image not known"]
            .iter()
            .any(|words| text.contains(words))
    }

    /// Whether the program that a container was to run is not in it.
    pub(crate) fn no_program(&self) -> bool {
        let Self::Words(text) = self else { return false };
        no_program(text)
    }

    /// The last line, without what every line begins with.
    pub(crate) fn last(&self) -> String {
        match self {
            Self::NotStarted(error) => error.to_string(),
            Self::Words(text) => {
                let last = text.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with("See '")).unwrap_or_default().trim();
                let last = last.strip_prefix("docker: ").unwrap_or(last);
                let last = last.strip_prefix("Error response from daemon: ").unwrap_or(last);
                last.strip_prefix("Error: ").unwrap_or(last).trim_end_matches('.').to_owned()
            }
        }
    }
}

/// Whether the words of a client, or of the runtime below it, say that a program is not there.
pub(crate) fn no_program(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("executable file") && text.contains("not found") || text.contains("exec") && text.contains("no such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: Client = Client { program: "docker" };

    fn said(text: &str) -> Said {
        Said::of(text.as_bytes(), "exit status: 1")
    }

    #[test]
    fn what_is_not_there_is_told_from_what_cannot_be_asked() {
        for text in [
            "Error: No such container: web",
            "Error response from daemon: No such container: web",
            "Error: inspecting object: no such container web",
            "Error: No such object: web",
            "Error: inspecting object: web: image not known",
            "Error response from daemon: No such image: web:latest",
        ] {
            assert!(said(text).no_such(), "{text}");
            assert!(DOCKER.trouble(&said(text)).is_none(), "{text}");
        }
        for (text, step) in [
            ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", ConnectStep::Connect),
            (
                "error during connect: Get \"http://10.0.0.1:2375/v1.24/containers/web/json\": dial tcp 10.0.0.1:2375: i/o timeout",
                ConnectStep::Connect,
            ),
            (
                "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
                ConnectStep::Authenticate,
            ),
        ] {
            assert!(!said(text).no_such(), "{text}");
            let error = DOCKER.trouble(&said(text)).expect(text);
            assert_eq!(error.step, step, "{text}");
            assert!(error.hint.is_some_and(|hint| hint.contains("docker ps")), "{text}");
        }
        let missing = Said::NotStarted(std::io::Error::from(std::io::ErrorKind::NotFound));
        let error = DOCKER.trouble(&missing).expect("no docker");
        assert_eq!((error.step, error.message.as_str()), (ConnectStep::Settings, "there is no docker on this machine"));
    }

    #[test]
    fn last_words_are_those_of_the_daemon() {
        for (text, wanted) in [
            (
                "Unable to find image 'x:latest' locally\ndocker: Error response from daemon: pull access denied for x.\nSee 'docker run --help'.",
                "pull access denied for x",
            ),
            ("Error: short-name \"x\" did not resolve to an alias", "short-name \"x\" did not resolve to an alias"),
            ("", "exit status: 1"),
        ] {
            assert_eq!(said(text).last(), wanted);
        }
    }

    #[test]
    fn a_missing_program_is_known_by_the_words_of_each_runtime() {
        for text in [
            "Error: runc: runc create failed: unable to start container process: exec: \"sh\": executable file not found in $PATH: OCI runtime attempted to invoke a command that was not found",
            "Error: crun: executable file `sh` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found",
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"sh\": executable file not found in $PATH: unknown",
        ] {
            assert!(said(text).no_program(), "{text}");
        }
        assert!(!said("Error: the container name \"web\" is already in use").no_program());
    }
}
