//! A small library of operations and one fact, for a host that is a map of paths.

use infra_core::change::{Action, Change, Content, Replaces, Upload};
use infra_core::command::{Command, Shell};
use infra_core::example::{Example, FactExample};
use infra_core::fact::{Fact, ParseError};
use infra_core::facts::{DiffError, Facts};
use infra_core::node::{DirectoryNode, FileNode, Node};
use infra_core::operation::{Idempotence, Operation};
use infra_core::output::Output;
use infra_core::registry::{FactDefinition, OperationDefinition, Registry};
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The text at a path; none where nothing is there.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TextAt {
    pub path: String,
}

impl Fact for TextAt {
    const NAME: &'static str = "made.text_at";
    const DOC: &'static str = "The text at a path.";
    type Value = Option<String>;

    fn command(&self) -> Command {
        sh!("read {}", self.path).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        match output.status {
            0 => Ok(Some(output.text().into_owned())),
            1 => Ok(None),
            other => Err(ParseError::new(format!("expected 0 or 1, got {other}"))),
        }
    }

    fn rests_on(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<Option<String>> {
        match node {
            Node::Absent => Some(None),
            Node::File(FileNode { text: Some(text), .. }) => Some(Some(text.to_string())),
            Node::Directory(_) => Some(Some("directory".into())),
            _ => None,
        }
    }

    fn examples() -> Vec<FactExample> {
        Vec::new()
    }
}

macro_rules! operation {
    ($(#[$meta:meta])* $name:ident $text:literal { $($(#[$field_meta:meta])* $field:ident : $kind:ty),* } $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind),* }

        impl Operation for $name {
            const NAME: &'static str = $text;
            const DOC: &'static str = $text;
            $($rest)*
            fn examples() -> Vec<Example> {
                Vec::new()
            }
        }
    };
}

operation! {
    /// A text file, known to the last letter.
    Write "made.write" { path: String, text: String }

    fn touches(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        if facts.get(&TextAt { path: self.path.clone() })?.as_deref() == Some(self.text.as_str()) {
            return Ok(Change::none("is as wished"));
        }
        let node = Node::File(FileNode { text: Some(self.text.as_str().into()), ..FileNode::default() });
        Ok(Change::new("write").run(sh!("write {} {}", self.path, self.text)).node(&self.path, node))
    }
}

operation! {
    /// A directory.
    MakeDirectory "made.directory" { path: String }

    fn touches(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        if facts.get(&TextAt { path: self.path.clone() })?.is_some() {
            return Ok(Change::none("is there"));
        }
        let node = Node::Directory(DirectoryNode { fresh: true, ..DirectoryNode::default() });
        Ok(Change::new("create").run(sh!("write {} directory", self.path)).node(&self.path, node))
    }
}

operation! {
    /// Nothing at a path.
    Remove "made.remove" { path: String }

    fn touches(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        if facts.get(&TextAt { path: self.path.clone() })?.is_none() {
            return Ok(Change::none("is not there"));
        }
        Ok(Change::new("remove").run(sh!("remove {}", self.path)).node(&self.path, Node::Absent))
    }
}

operation! {
    /// A command that may do anything.
    RunShell "made.shell" { command: String }

    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn diff(&self, _: &Facts<'_>) -> Result<Change, DiffError> {
        Ok(Change::new("run").run(Shell::verbatim(self.command.as_str())))
    }
}

operation! {
    /// Commands that touch nothing that a fact rests on.
    Touchless "made.touchless" { commands: Vec<String> }

    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn touches(&self) -> Resources {
        Resources::none()
    }

    fn diff(&self, _: &Facts<'_>) -> Result<Change, DiffError> {
        Ok(self.commands.iter().fold(Change::new("run"), |change, command| change.run(Shell::verbatim(command.as_str()))))
    }
}

operation! {
    /// A command that changes nothing.
    Check "made.check" { command: String }

    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn touches(&self) -> Resources {
        Resources::none()
    }

    fn diff(&self, _: &Facts<'_>) -> Result<Change, DiffError> {
        Ok(Change { changes: false, ..Change::new("look").run(Shell::verbatim(self.command.as_str())) })
    }
}

operation! {
    /// A service that is restarted when asked.
    Restart "made.restart" { service: String, #[serde(default)] restarted: bool, #[serde(default)] reloaded: bool }

    fn touches(&self) -> Resources {
        Resources::only([Resource::Services])
    }

    fn diff(&self, _: &Facts<'_>) -> Result<Change, DiffError> {
        Ok(match (self.restarted, self.reloaded) {
            (true, _) => Change::new("restart").run(sh!("restart {}", self.service)),
            (_, true) => Change::new("reload").run(sh!("reload {}", self.service)),
            _ => Change::none("is running"),
        })
    }
}

operation! {
    /// Copies a path of the host to another: its questions come in two rounds.
    CopyText "made.copy" { from: String, to: String }

    fn touches(&self) -> Resources {
        Resources::path(self.to.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let Some(text) = facts.get(&TextAt { path: self.from.clone() })? else {
            return Err(DiffError::refused_with_hint(format!("there is no {}", self.from), "create it first"));
        };
        if facts.get(&TextAt { path: self.to.clone() })?.as_deref() == Some(text.as_str()) {
            return Ok(Change::none("is the same"));
        }
        let node = Node::File(FileNode { text: Some(text.as_str().into()), ..FileNode::default() });
        Ok(Change::new("copy").run(sh!("write {} {}", self.to, text)).node(&self.to, node))
    }
}

operation! {
    /// Asks for one more fact in every round.
    Greedy "made.greedy" { }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        for number in 0.. {
            facts.get(&TextAt { path: format!("/greedy/{number}") })?;
        }
        Ok(Change::none("never"))
    }
}

operation! {
    /// Panics.
    Broken "made.broken" { path: String }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        match facts.get(&TextAt { path: self.path.clone() })? {
            Some(text) => panic!("the text is {text}"),
            None => Ok(Change::none("nothing is there")),
        }
    }
}

operation! {
    /// A file of the controller.
    Put "made.put" { src: String, dest: String }

    fn touches(&self) -> Resources {
        Resources::path(self.dest.as_str())
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let file = facts.local(&self.src)?;
        let content = Content::text(file.text().unwrap_or_default());
        let upload =
            Upload { content, dest: self.dest.clone(), mode: None, user: None, group: None, replaces: Replaces::Anything };
        Ok(Change::new("upload").then(Action::Upload(upload)))
    }
}

pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_fact(FactDefinition::of::<TextAt>());
    registry.add_operation(OperationDefinition::of::<Write>());
    registry.add_operation(OperationDefinition::of::<MakeDirectory>());
    registry.add_operation(OperationDefinition::of::<Remove>());
    registry.add_operation(OperationDefinition::of::<RunShell>());
    registry.add_operation(OperationDefinition::of::<Touchless>());
    registry.add_operation(OperationDefinition::of::<Check>());
    registry.add_operation(OperationDefinition::of::<Restart>());
    registry.add_operation(OperationDefinition::of::<CopyText>());
    registry.add_operation(OperationDefinition::of::<Greedy>());
    registry.add_operation(OperationDefinition::of::<Broken>());
    registry.add_operation(OperationDefinition::of::<Put>());
    registry
}
