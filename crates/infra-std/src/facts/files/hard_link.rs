//! The fact `files.hard_link`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{AtLink, Fact, ParseError};
use infra_core::node::Node;
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::file_status::{is_absence, last_reason, unreadable};

/// Whether two paths are one and the same file.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HardLink {
    /// The path on the host; a link there is not followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// The path of the other name on the host.
    #[schemars(extend("x-host-path" = true))]
    pub target: String,
}

impl Fact for HardLink {
    const NAME: &'static str = "files.hard_link";
    const DOC: &'static str = "Whether a path and another one are names of the same file (one inode of one file system): `nil` where \
                               nothing is at the path, \
                               `true` where they are, `false` where they are not.";
    const AT_LINK: AtLink = AtLink::Itself;
    type Value = Option<bool>;

    fn command(&self) -> Command {
        let identity = |path: &str| sh!("LC_ALL=C stat -c %d:%i -- {}", path);
        sh!("{} && { {} || :; }", identity(&self.path), identity(&self.target)).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<bool>, ParseError> {
        if output.status != 0 {
            let reason = last_reason(&output.stderr);
            return if is_absence(&reason) { Ok(None) } else { Err(unreadable("look at", &self.path, output.status, &reason)) };
        }
        let text = output.text();
        let lines: Vec<&str> = text.lines().collect();
        let is_identity = |line: &&str| line.split_once(':').is_some_and(|(a, b)| a.parse::<u64>().is_ok() && b.parse::<u64>().is_ok());
        match lines[..] {
            [path, target] if is_identity(&path) && is_identity(&target) => Ok(Some(path == target)),
            [path] if is_identity(&path) => {
                let reason = last_reason(&output.stderr);
                let absent = is_absence(&reason);
                if absent { Ok(Some(false)) } else { Err(unreadable("look at", &self.target, output.status, &reason)) }
            }
            _ => Err(ParseError::new(format!("expected device and inode of two files, got `{}`", text.trim()))),
        }
    }

    fn rests_on(&self) -> Resources {
        Resources::path(&self.path).and(Resources::path(&self.target))
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Option<bool>> {
        match node {
            Node::Absent => Some(None),
            Node::Directory(_) | Node::Link(_) => Some(Some(false)),
            Node::File(_) => None,
        }
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { path: "/srv/a".into(), target: "/srv/b".into() };
        let mut nothing = FactExample::new(&question, "", None).status(1);
        nothing.output.stderr = b"stat: cannot statx '/srv/a': No such file or directory\n".to_vec();
        let mut alone = FactExample::new(&question, "65025:12\n", Some(false));
        alone.output.stderr = b"stat: cannot statx '/srv/b': No such file or directory\n".to_vec();
        vec![
            FactExample::new(&question, "65025:12\n65025:12\n", Some(true)),
            FactExample::new(&question, "65025:12\n65025:13\n", Some(false)),
            alone,
            nothing,
        ]
    }
}
