//! The fact `files.tree_drift`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::mode::Mode;
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{Kind, is_absence, last_reason, look_at_tree, read_line, unreadable};
use crate::ownership::{Ownership, Permissions};

/// What in a tree has another owner, group or mode than is wished.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TreeDrift {
    /// The directory on the host at the root of the tree; a link to it is followed, links below it are not.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// The owner that all should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group that all should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The mode that all but links should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// How much of a tree is not as wished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How many files, directories and links there are, the root among them.
    pub entries: u64,
    /// How many of them have another owner or group.
    pub owner: u64,
    /// How many of them have another mode.
    pub mode: u64,
}

impl TreeDrift {
    fn count(&self, drift: &mut Drift, now: &Permissions, kind: Kind, umask: u32) {
        let wished = Ownership { user: self.user.as_deref(), group: self.group.as_deref(), mode: self.mode.as_ref() };
        let (owner, mode) = wished.holds(now, kind == Kind::Directory, umask);
        drift.entries += 1;
        drift.owner += u64::from(!owner);
        drift.mode += u64::from(!mode && kind != Kind::Link);
    }
}

impl Fact for TreeDrift {
    const NAME: &'static str = "files.tree_drift";
    const DOC: &'static str = "How much of a directory tree has another owner, group or mode than given: a table of `entries` (the root \
                               and all below it), \
                               `owner` (those with another owner or group) and `mode` (those with another mode), or `nil` where nothing \
                               is. Links have no mode.";
    type Value = Option<Drift>;

    fn command(&self) -> Command {
        sh!("umask && {}", look_at_tree(&self.path)).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<Drift>, ParseError> {
        let text = output.text();
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let umask = u32::from_str_radix(first, 8).map_err(|_| ParseError::new(format!("expected the umask, got `{first}`")))?;
        let mut drift = Drift::default();
        for line in lines {
            let (kind, status) = read_line(line.as_bytes())?;
            self.count(&mut drift, &status.permissions(), kind, umask);
        }
        if output.status != 0 {
            let reason = last_reason(&output.stderr);
            return match drift.entries {
                0 if is_absence(&reason) => Ok(None),
                _ => Err(unreadable("look through", &self.path, output.status, &reason)),
            };
        }
        Ok(Some(drift))
    }

    fn rests_on(&self) -> Resources {
        let names = self.user.as_deref().map(Resource::owner_of).into_iter().chain(self.group.as_deref().map(Resource::group_of));
        Resources::tree(&self.path).and(Resources::only(names))
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Option<Drift>> {
        match node {
            Node::Absent => Some(None),
            // A node says nothing of what the same change, or a later one, puts below it.
            _ => None,
        }
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { path: "/srv/app".into(), user: Some("app".into()), group: None, mode: Some(Mode::Symbolic("go-w".into())) };
        let tree = "0022\n41ed:7:7:4096:3:2:1:app:app\n81b6:7:7:4096:3:2:1:app:app\na1ff:0:0:7:3:2:1:root:root\n";
        let mut nothing = FactExample::new(&question, "0022\n", None).status(1);
        nothing.output.stderr = b"find: '/srv/app': No such file or directory\n".to_vec();
        vec![FactExample::new(&question, tree, Some(Drift { entries: 3, owner: 1, mode: 1 })), nothing]
    }
}
