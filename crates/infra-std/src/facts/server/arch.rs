//! The fact `server.arch`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The kind of processor.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Arch {}

impl Fact for Arch {
    const NAME: &'static str = "server.arch";
    const DOC: &'static str = "The kind of processor, as `uname -m` prints it, such as `x86_64`: a string.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = String;

    fn command(&self) -> Command {
        sh!("uname -m").into()
    }

    fn parse(&self, output: &Output) -> Result<String, ParseError> {
        Ok(output.expect_success()?.trim().to_owned())
    }

    fn rests_on(&self) -> Resources {
        Resources::none()
    }

    fn examples() -> Vec<FactExample> {
        vec![FactExample::new(&Self {}, "x86_64\n", "x86_64".to_owned())]
    }
}
