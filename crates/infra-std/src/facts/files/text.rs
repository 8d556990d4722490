//! The fact `files.text`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, looking_through, read};

/// The most that is read of a file, in bytes: 16 MiB less 4 KiB, since the line about the file has to fit into the 16 MiB of a fact as
/// well.
pub const TEXT_LIMIT: u64 = 16 * 1024 * 1024 - 4096;

/// The content of a text file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Text {
    /// The path on the host; a link is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
}

impl Text {
    /// The question about this path.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }

    /// Prints the content after the line about the file, and one byte more than the limit where there is more.
    pub(super) fn read_command(path: &str) -> Command {
        looking_through(path, sh!("if test -f \"$1\"; then head -c {} <\"$1\"; fi", TEXT_LIMIT + 1))
    }

    /// The content that [`read_command`](Self::read_command) printed.
    pub(super) fn read_bytes<'o>(path: &str, output: &'o Output) -> Result<Found<&'o [u8]>, ParseError> {
        Ok(match read(path, output)? {
            None => Found::Nothing,
            Some((Kind::File, status, bytes)) => {
                if bytes.len() as u64 > TEXT_LIMIT {
                    let size = status.size.unwrap_or_default();
                    return Err(ParseError::new(format!("{path} holds {size} bytes, and text is read up to {TEXT_LIMIT} (nearly 16 MiB)")));
                }
                Found::Is(bytes)
            }
            Some(_) => Found::Other,
        })
    }
}

impl Fact for Text {
    const NAME: &'static str = "files.text";
    const DOC: &'static str = "The content of a text file, every byte of it: `nil` where nothing is, `false` where something else than a \
                               file is. A file of \
                               more than 16 MiB (less 4 KiB), and one that is not UTF-8, is an error that says so.";
    const OF_CONTENT: bool = true;
    const TELLS_CONTENT: bool = true;
    const AT_LINK: AtLink = AtLink::Behind;
    type Value = Found<String>;

    fn command(&self) -> Command {
        Self::read_command(&self.path)
    }

    fn parse(&self, output: &Output) -> Result<Found<String>, ParseError> {
        Ok(match Self::read_bytes(&self.path, output)? {
            Found::Nothing => Found::Nothing,
            Found::Other => Found::Other,
            Found::Is(bytes) => Found::Is(std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| {
                ParseError::new(format!("{} is not UTF-8 text: the byte at offset {} is not", self.path, error.valid_up_to()))
            })?),
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
            Node::File(file) => file.text.as_deref().map(|text| Found::Is(text.to_owned())),
            Node::Link(_) => None,
        }
    }

    fn foresee_link(&self, _: &str, behind: &Found<String>) -> Option<Found<String>> {
        Some(behind.behind_link())
    }

    fn examples() -> Vec<FactExample> {
        let line = "81a4:0:0:7:3:2:1:root:root\n";
        let mut nothing = FactExample::new(&Self::at("/etc/motd"), "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/etc/motd': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&Self::at("/etc/motd"), &format!("{line}\nhi\n\n"), Found::Is("\nhi\n\n".to_owned())),
            FactExample::new(&Self::at("/etc/empty"), line, Found::Is(String::new())),
            FactExample::new(&Self::at("/etc"), "41ed:0:0:4096:3:2:1:root:root\n", Found::Other),
            nothing,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_an_error_that_says_so() {
        let mut bytes = b"81a4:0:0:7:3:2:1:root:root\n".to_vec();
        let line = bytes.len();
        bytes.extend(b"ab\xff");
        let error = Text::at("/f").parse(&Output::of(bytes.clone())).expect_err("not UTF-8");
        assert_eq!(error.to_string(), "/f is not UTF-8 text: the byte at offset 2 is not");
        bytes.resize(line + TEXT_LIMIT as usize + 1, b'x');
        let error = Text::at("/f").parse(&Output::of(bytes)).expect_err("too large");
        assert_eq!(error.to_string(), "/f holds 7 bytes, and text is read up to 16773120 (nearly 16 MiB)");
    }
}
