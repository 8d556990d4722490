//! The fact `files.sha256`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, digesting, read};

/// The digest of a file's content.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Sha256 {
    /// The path on the host; a link is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
}

impl Sha256 {
    /// The question about this path.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

impl Fact for Sha256 {
    const NAME: &'static str = "files.sha256";
    const DOC: &'static str = "The SHA-256 digest of a regular file's content, as 64 lower-case hexadecimal digits: `nil` where nothing \
                               is, `false` where \
                               something else than a file is.";
    const OF_CONTENT: bool = true;
    const TELLS_CONTENT: bool = true;
    const AT_LINK: AtLink = AtLink::Behind;
    type Value = Found<String>;

    fn command(&self) -> Command {
        digesting(&self.path)
    }

    fn parse(&self, output: &Output) -> Result<Found<String>, ParseError> {
        Ok(match read(&self.path, output)? {
            None => Found::Nothing,
            Some((Kind::File, _, printed)) => {
                let text = String::from_utf8_lossy(printed);
                let digest = text.split_whitespace().next().unwrap_or_default();
                if digest.len() != 64 || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(ParseError::new(format!("expected the digest of {}, got `{}`", self.path, text.trim())));
                }
                Found::Is(digest.to_owned())
            }
            Some(_) => Found::Other,
        })
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Found<String>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::Directory(_) => Some(Found::Other),
            Node::File(file) => file.sha256.clone().map(Found::Is),
            Node::Link(_) => None,
        }
    }

    fn foresee_link(&self, _: &str, behind: &Found<String>) -> Option<Found<String>> {
        Some(behind.behind_link())
    }

    fn examples() -> Vec<FactExample> {
        let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let line = "81a4:0:0:0:3:2:1:root:root\n";
        let mut nothing = FactExample::new(&Self::at("/srv/a"), "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/srv/a': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&Self::at("/srv/empty"), &format!("{line}{digest}  -\n"), Found::Is(digest.to_owned())),
            FactExample::new(&Self::at("/srv"), "41ed:0:0:4096:3:2:1:root:root\n", Found::Other),
            nothing,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let output = Output {
            status: 2,
            stdout: b"8180:0:0:5:3:2:1:root:root\n".to_vec(),
            stderr: b"sh: 1: cannot open /srv/a: Permission denied\n".to_vec(),
        };
        let error = Sha256::at("/srv/a").parse(&output).expect_err("not readable");
        assert_eq!(error.to_string(), "cannot read /srv/a: Permission denied; ask as a user who may, for example with _sudo = true");
        assert!(Sha256::at("/srv/a").parse(&Output::of("8180:0:0:5:3:2:1:root:root\nabc\n")).is_err());
    }
}
