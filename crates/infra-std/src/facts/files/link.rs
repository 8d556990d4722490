//! The fact `files.link`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Found, Kind, link_target, looking_at, read};

/// A symbolic link itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Link {
    /// The path on the host; a link there is not followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Where it points to, as spelt; bytes that are not UTF-8 are replaced.
    pub target: String,
    /// The owner's name; the number where it has none.
    pub user: String,
    /// The group's name; the number where it has none.
    pub group: String,
    /// The owner's number, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group's number, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Link {
    /// The question about this path.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into() }
    }
}

impl Fact for Link {
    const NAME: &'static str = "files.link";
    const DOC: &'static str = "The symbolic link at a path, whether it leads anywhere or not: `nil` where nothing is, `false` where \
                               something else is, else a \
                               table of `target` (as spelt in the link), `user`, `group`, `uid` and `gid`.";
    const AT_LINK: AtLink = AtLink::Itself;
    type Value = Found<LinkStatus>;

    fn command(&self) -> Command {
        looking_at(&self.path, link_target())
    }

    fn parse(&self, output: &Output) -> Result<Found<LinkStatus>, ParseError> {
        Ok(match read(&self.path, output)? {
            None => Found::Nothing,
            Some((Kind::Link, _, [])) => {
                return Err(ParseError::new(format!("expected the target of the link {}, got nothing", self.path)));
            }
            Some((Kind::Link, status, target)) => Found::Is(LinkStatus {
                target: String::from_utf8_lossy(target).into_owned(),
                user: status.user,
                group: status.group,
                uid: status.uid,
                gid: status.gid,
            }),
            Some(_) => Found::Other,
        })
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn answer_rests_on(&self, found: &Found<LinkStatus>) -> Resources {
        found.is().map_or_else(Resources::none, |status| Resources::owners(&status.user, &status.group))
    }

    fn foresee(&self, node: &Node) -> Option<Found<LinkStatus>> {
        match node {
            Node::Absent => Some(Found::Nothing),
            Node::File(_) | Node::Directory(_) => Some(Found::Other),
            Node::Link(link) => {
                let (user, group) = (link.user.clone()?, link.group.clone()?);
                Some(Found::Is(LinkStatus { target: link.target.clone(), user, group, uid: None, gid: None }))
            }
        }
    }

    fn examples() -> Vec<FactExample> {
        let status = |target: &str| {
            Found::Is(LinkStatus { target: target.to_owned(), user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0) })
        };
        let line = "a1ff:0:0:11:3:2:1:root:root\n";
        let mut nothing = FactExample::new(&Self::at("/srv/current"), "", Found::Nothing).status(1);
        nothing.output.stderr = b"stat: cannot statx '/srv/current': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&Self::at("/srv/current"), &format!("{line}releases/12"), status("releases/12")),
            FactExample::new(&Self::at("/srv/odd"), &format!("{line}two\nlines\n"), status("two\nlines\n")),
            FactExample::new(&Self::at("/srv"), "41ed:0:0:4096:1:2:3:root:root\n", Found::Other),
            nothing,
        ]
    }
}
