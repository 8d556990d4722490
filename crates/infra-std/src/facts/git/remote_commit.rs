//! The fact `git.remote_commit`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::{git, trusting};

/// What a branch or a tag is on a remote repository.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RemoteCommit {
    /// The address of the remote repository.
    pub src: String,
    /// A branch or a tag; the branch that the remote itself has checked out where not given.
    pub branch: Option<String>,
    /// Ask a host that is reached by ssh also where its key is not known yet, which is neither checked nor remembered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trust_unknown_host: bool,
}

/// A branch or a tag of a remote repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRef {
    /// Its name.
    pub name: String,
    /// Whether it is a tag.
    pub tag: bool,
    /// The commit, as its whole digest; that behind an annotated tag.
    pub commit: String,
}

impl Fact for RemoteCommit {
    const NAME: &'static str = "git.remote_commit";
    const DOC: &'static str = "What a branch or a tag is on a remote repository: a table of `name`, `tag` (whether it is one) and `commit`; `nil` where the \
                               remote has neither of that name, and where there is no git on the host. A branch wins over a tag of its name.";
    type Value = Option<RemoteRef>;

    fn command(&self) -> Command {
        let wanted: Vec<String> = match &self.branch {
            None => vec!["HEAD".to_owned()],
            Some(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}"), format!("refs/tags/{name}^{{}}")],
        };
        let trust = if self.trust_unknown_host { trusting() } else { sh!("") };
        sh!("if command -v git >/dev/null 2>&1; then {}{} ls-remote --symref -- {} {}; fi", trust, git(), self.src, wanted).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<RemoteRef>, ParseError> {
        if output.status != 0 {
            return Err(ParseError::new(format!("{} cannot be read: {}", self.src, complaint(&String::from_utf8_lossy(&output.stderr)))));
        }
        let text = output.text();
        let lines: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('\t')).collect();
        let commit_of = |reference: &str| {
            let found = lines.iter().find(|(left, right)| *right == reference && !left.starts_with("ref: "));
            found.map(|(left, _)| (*left).to_owned())
        };
        let Some(name) = &self.branch else {
            let symbolic = lines.iter().find_map(|(left, right)| left.strip_prefix("ref: refs/heads/").filter(|_| *right == "HEAD"));
            let named = |commit| symbolic.map(|name| RemoteRef { name: name.to_owned(), tag: false, commit });
            return Ok(commit_of("HEAD").and_then(named));
        };
        let tag = format!("refs/tags/{name}");
        let branch = commit_of(&format!("refs/heads/{name}")).map(|commit| RemoteRef { name: name.clone(), tag: false, commit });
        let peeled = || commit_of(&format!("{tag}^{{}}")).or_else(|| commit_of(&tag));
        Ok(branch.or_else(|| peeled().map(|commit| RemoteRef { name: name.clone(), tag: true, commit })))
    }

    fn rests_on(&self) -> Resources {
        let local = self.src.strip_prefix("file://").unwrap_or(&self.src);
        if local.starts_with('/') {
            return Resources::only([Resource::Tree(local.to_owned()), Resource::Packages]);
        }
        // Keys, known hosts, names and proxies: a change anywhere may make the remote readable.
        Resources::everything()
    }

    fn examples() -> Vec<FactExample> {
        let ask = |branch: Option<&str>| Self {
            src: "https://git.example.com/app".to_owned(),
            branch: branch.map(str::to_owned),
            trust_unknown_host: false,
        };
        let (a, b) = ("2fd4e1c67a2d28fced849ee1bb76e7391b93eb12", "de9f2c7fd25e1b3afad3e85a0bd17d9b100db4b3");
        let found = |name: &str, tag: bool, commit: &str| Some(RemoteRef { name: name.to_owned(), tag, commit: commit.to_owned() });
        let head = format!("ref: refs/heads/main\tHEAD\n{a}\tHEAD\n");
        let tag = format!("{a}\trefs/tags/v1\n{b}\trefs/tags/v1^{{}}\n");
        vec![
            FactExample::new(&ask(None), &head, found("main", false, a)),
            FactExample::new(&ask(Some("main")), &format!("{a}\trefs/heads/main\n"), found("main", false, a)),
            FactExample::new(&ask(Some("v1")), &tag, found("v1", true, b)),
            FactExample::new(&ask(Some("nosuch")), "", None),
        ]
    }
}

/// What git and ssh say first that says why, without the advice that follows.
fn complaint(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !["warning:", "Warning: Permanently added"].iter().any(|start| line.starts_with(start)));
    let telling: Vec<&str> = lines.take_while(|line| !line.starts_with("Please make sure")).take(3).collect();
    if telling.is_empty() { "git gave no reason".to_owned() } else { telling.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_the_reason() {
        let stderr = "Warning: Permanently added 'git.example.com' (ED25519) to the list of known hosts.\r\ngit@git.example.com: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease make sure you \
                      have the correct access rights\nand the repository exists.\n";
        let output = Output { status: 128, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() };
        let question = RemoteCommit { src: "git@git.example.com:app".to_owned(), branch: None, trust_unknown_host: false };
        let error = question.parse(&output).expect_err("status 128").to_string();
        let wanted = "git@git.example.com:app cannot be read: git@git.example.com: Permission denied (publickey).; fatal: Could not read from \
                      remote repository.";
        assert_eq!(error, wanted);
    }

    #[test]
    fn only_an_unknown_host_that_is_trusted_is_asked_without_its_key() {
        for trust_unknown_host in [false, true] {
            let question = RemoteCommit { src: "git@git.example.com:app".to_owned(), branch: None, trust_unknown_host };
            assert_eq!(question.command().script.as_str().contains("accept-new"), trust_unknown_host);
        }
    }
}
