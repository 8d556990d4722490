//! The fact `files.directory`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, Status, link_target, looking_through, read_found, read_links, real_path};

/// A directory, or what a link to one leads to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Directory {
    /// The path on the host; a link is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
}

impl Directory {
    /// The question about this path.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

impl Fact for Directory {
    const NAME: &'static str = "files.directory";
    const DOC: &'static str = "The directory at a path, or the one that a link there leads to: `nil` where nothing is, `false` where \
                               something else is, else a \
                               table as `files.file` gives it; its `size` is that of the directory's own list and says nothing of what it \
                               holds. `real_path` is there when a link stands on the way.";
    const FLEETING: &'static [&'static str] = &["size", "atime", "mtime", "ctime"];
    const AT_LINK: AtLink = AtLink::Behind;
    type Value = Found<Status>;

    fn command(&self) -> Command {
        looking_through(&self.path, sh!("{} && {}", link_target(), real_path()))
    }

    fn parse(&self, output: &Output) -> Result<Found<Status>, ParseError> {
        read_found(&self.path, Kind::Directory, output)
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
            Node::File(_) => Some(Found::Other),
            Node::Directory(node) => Some(Found::Is(Status::foreseen(node.mode?, node.user.as_ref()?, node.group.as_ref()?, None))),
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
        let status = Status { uid: Some(1000), gid: Some(50), ..Status::foreseen(0o2775, "admin", "staff", Some(4096)) };
        let status = Status { atime: Some(3), mtime: Some(2), ctime: Some(1), ..status };
        let through = Status { link_target: Some("rel/1".into()), real_path: Some("/srv/rel/1".into()), ..status.clone() };
        let mut nothing = FactExample::new(&Self::at("/srv/site"), "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: can't stat '/srv/site': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&Self::at("/srv/site"), "45fd:1000:50:4096:3:2:1:admin:staff\n", Found::Is(status)),
            FactExample::new(&Self::at("/srv/current"), "45fd:1000:50:4096:3:2:1:admin:staff\nrel/1\0/srv/rel/1", Found::Is(through)),
            FactExample::new(&Self::at("/etc/passwd"), "81a4:0:0:1024:3:2:1:root:root\n", Found::Other),
            nothing,
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::node::{DirectoryNode, FileNode, LinkNode};

    use super::*;

    #[test]
    fn a_node_answers_when_it_says_enough() {
        let question = Directory::at("/d");
        let whole = DirectoryNode { mode: Some(0o755), user: Some("a".into()), group: Some("b".into()), fresh: true };
        assert_eq!(question.foresee(&Node::Directory(whole.clone())), Some(Found::Is(Status::foreseen(0o755, "a", "b", None))));
        assert_eq!(question.foresee(&Node::Directory(DirectoryNode { user: None, ..whole })), None);
        assert_eq!(question.foresee(&Node::File(FileNode::default())), Some(Found::Other));
        assert_eq!(question.foresee(&Node::Link(LinkNode::default())), None);
    }
}
