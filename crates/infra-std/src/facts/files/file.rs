//! The fact `files.file`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::node::{LinkNode, Node};
use infra_core::output::Output;
use infra_core::resources::{Resources, link_leads_to};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, Status, link_target, look_through, read_found};

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
    type Value = Found<Status>;

    fn command(&self) -> Command {
        sh!("{} && {}", look_through(&self.path), link_target(&self.path)).into()
    }

    fn parse(&self, output: &Output) -> Result<Found<Status>, ParseError> {
        read_found(&self.path, Kind::File, output)
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Found<Status>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::Directory(_) => Some(Found::Other),
            Node::File(file) => Some(Found::Is(Status::foreseen(file.mode?, file.user.as_ref()?, file.group.as_ref()?, file.size))),
            // Where it leads is another path's matter.
            Node::Link(_) => None,
        }
    }

    fn through(&self, link: &LinkNode, answer: Found<Status>) -> Option<Found<Status>> {
        Some(match answer {
            Found::Is(status) => Found::Is(Status { link_target: Some(link.target.clone()), ..status }),
            // Then the link leads nowhere, or to something else.
            Found::Nothing | Found::Other => Found::Other,
        })
    }

    fn real_path(&self, answer: &Found<Status>) -> Option<String> {
        Some(link_leads_to(&self.path, answer.is()?.link_target.as_ref()?))
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
    use infra_core::node::FileNode;

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
