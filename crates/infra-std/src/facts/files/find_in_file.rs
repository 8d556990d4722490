//! The fact `files.find_in_file`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::Text;
use crate::file_status::Found;
use crate::text_edit::{LinePattern, lines};

/// The lines of a file that match a pattern.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FindInFile {
    /// The path on the host; a link is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// What to look for: a regular expression as `files.line` takes it, which matches any part of a line unless it is anchored.
    pub pattern: String,
}

impl FindInFile {
    fn find(&self, text: &str) -> Result<Vec<String>, ParseError> {
        let pattern = LinePattern::new(&self.pattern, false, false).map_err(|error| ParseError::new(error.to_string()))?;
        Ok(lines(text).map(|line| line.body).filter(|body| pattern.matches(body)).map(str::to_owned).collect())
    }
}

impl Fact for FindInFile {
    const NAME: &'static str = "files.find_in_file";
    const DOC: &'static str = "The lines of a file that match a regular expression, in their order and without their endings: `nil` where \
                               there is no file, \
                               `false` where something else is, an empty list where no line matches.\n\nThe lines are matched by infra, \
                               not by the host's grep: the dialect is that of `files.line`, the same on \
                               every host. A pattern that is the whole text of a line matches that line too.";
    const OF_CONTENT: bool = true;
    const TELLS_CONTENT: bool = true;
    const AT_LINK: AtLink = AtLink::Behind;
    type Value = Found<Vec<String>>;

    fn command(&self) -> Command {
        Text::read_command(&self.path)
    }

    fn parse(&self, output: &Output) -> Result<Found<Vec<String>>, ParseError> {
        Ok(match Text::read_bytes(&self.path, output)? {
            Found::Nothing => Found::Nothing,
            Found::Other => Found::Other,
            Found::Is(bytes) => Found::Is(self.find(&String::from_utf8_lossy(bytes))?),
        })
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Found<Vec<String>>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::Directory(_) => Some(Found::Other),
            Node::File(file) => self.find(file.text.as_deref()?).ok().map(Found::Is),
            Node::Link(_) => None,
        }
    }

    fn foresee_link(&self, _: &str, behind: &Found<Vec<String>>) -> Option<Found<Vec<String>>> {
        Some(behind.behind_link())
    }

    fn examples() -> Vec<FactExample> {
        let line = "81a4:0:0:40:3:2:1:root:root\n";
        let question = Self { path: "/etc/ssh/sshd_config".into(), pattern: "^#?Port ".into() };
        let found = Found::Is(vec!["#Port 22".to_owned(), "Port 2222".to_owned()]);
        let mut nothing = FactExample::new(&question, "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/etc/ssh/sshd_config': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&question, &format!("{line}#Port 22\r\nGatewayPorts no\nPort 2222"), found),
            FactExample::new(&question, &format!("{line}UsePAM yes\n"), Found::Is(Vec::new())),
            nothing,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let question = FindInFile { path: "/f".into(), pattern: "a[".into() };
        let error = question.parse(&Output::of("81a4:0:0:40:3:2:1:root:root\nx\n")).expect_err("an open class");
        assert_eq!(error.to_string(), "`a[` is no regular expression: unclosed character class");
    }
}
