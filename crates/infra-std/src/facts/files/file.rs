//! The fact `files.file`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, Status, link_and_its_end, looking_through, read_found, read_links};

/// A regular file, or what a link to one leads to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// The path on the host; a link is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
}

impl File {
    /// The question about this path.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

impl Fact for File {
    const NAME: &'static str = "files.file";
    const DOC: &'static str = "The regular file at a path, or the one that a link there leads to: `nil` where nothing is, `false` where \
                               something else is (a \
                               directory, a link that leads nowhere), else a table of `mode` (octal digits), `user`, `group`, `uid`, \
                               `gid`, `size` (bytes), `atime`, `mtime`, `ctime` (seconds \
                               since 1970) and, for a link, `link_target`.";
    const FLEETING: &'static [&'static str] = &["atime", "mtime", "ctime"];
    const AT_LINK: AtLink = AtLink::Behind;
    type Value = Found<Status>;

    fn command(&self) -> Command {
        looking_through(&self.path, link_and_its_end())
    }

    fn parse(&self, output: &Output) -> Result<Found<Status>, ParseError> {
        let found = read_found(&self.path, Kind::File, output)?;
        Ok(found.map(|status| Status { real_path: None, ..status }))
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn answer_rests_on(&self, found: &Found<Status>) -> Resources {
        found.is().map_or_else(Resources::none, |status| Resources::owners(&status.user, &status.group))
    }

    fn foresee(&self, node: &Node) -> Option<Found<Status>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::Directory(_) => Some(Found::Other),
            Node::File(file) => {
                let status = Status::foreseen(file.mode?, file.user.as_ref()?, file.group.as_ref()?, file.size);
                Some(Found::Is(Status { mtime: file.mtime, ..status }))
            }
            // Where it leads is another path's matter.
            Node::Link(_) => None,
        }
    }

    fn foresee_link(&self, target: &str, behind: &Found<Status>) -> Option<Found<Status>> {
        Some(behind.behind_link().map(|status| Status { link_target: Some(target.to_owned()), ..status }))
    }

    fn links(&self, output: &Output) -> Vec<(String, String)> {
        read_links(&self.path, output)
    }

    fn examples() -> Vec<FactExample> {
        let status = Status { uid: Some(0), gid: Some(42), ..Status::foreseen(0o640, "root", "shadow", Some(1024)) };
        let status = Status { atime: Some(1_700_000_000), mtime: Some(1_600_000_000), ctime: Some(1_650_000_000), ..status };
        let line = "81a0:0:42:1024:1700000000:1600000000:1650000000:root:shadow\n";
        let shadow = Self::at("/etc/shadow");
        let mut nothing = FactExample::new(&Self::at("/nowhere"), "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/nowhere': No such file or directory\n".to_vec();
        let through = Found::Is(Status { link_target: Some("/etc/shadow".into()), ..status.clone() });
        vec![
            FactExample::new(&shadow, line, Found::Is(status)),
            FactExample::new(&Self::at("/srv/shadow"), &format!("{line}/etc/shadow"), through),
            FactExample::new(&Self::at("/etc"), "41ed:0:0:4096:1:2:3:root:root\n", Found::Other),
            nothing,
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::node::{FileNode, LinkNode};

    use super::*;

    #[test]
    fn a_node_answers_when_it_says_enough() {
        let question = File::at("/f");
        let whole = FileNode { mode: Some(0o600), user: Some("a".into()), group: Some("b".into()), size: Some(3), ..FileNode::default() };
        let answer = Found::Is(Status::foreseen(0o600, "a", "b", Some(3)));
        assert_eq!(question.foresee(&Node::File(whole.clone())), Some(answer));
        assert_eq!(question.foresee(&Node::File(FileNode { mode: None, ..whole })), None);
        assert_eq!(question.foresee(&Node::Absent), Some(Found::Nothing));
        assert_eq!(question.foresee(&Node::Link(LinkNode::default())), None);
    }
}
