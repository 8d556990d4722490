//! The fact `server.which`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a command is found.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Which {
    /// The name of the command.
    pub command: String,
}

impl Fact for Which {
    const NAME: &'static str = "server.which";
    const DOC: &'static str =
        "Where a command is found: its path, or its name alone where the shell itself knows it; `nil` where it is not found.";
    type Value = Option<String>;

    fn command(&self) -> Command {
        sh!("command -v {} || :", self.command).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        Ok(text.lines().next().filter(|path| !path.is_empty()).map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        // A new program of another name in one of these folders changes nothing.
        let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"];
        let places = folders.map(|folder| Resource::Path(format!("{folder}/{}", self.command)));
        Resources::only(places.into_iter().chain([Resource::Session]))
    }

    fn examples() -> Vec<FactExample> {
        vec![
            FactExample::new(&Self { command: "git".to_owned() }, "/usr/bin/git\n", Some("/usr/bin/git".to_owned())),
            FactExample::new(&Self { command: "nosuch".to_owned() }, "", None),
        ]
    }
}
