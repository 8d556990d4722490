//! The fact `server.kernel`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of the kernel.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Kernel {}

impl Fact for Kernel {
    const NAME: &'static str = "server.kernel";
    const DOC: &'static str = "The name of the kernel, as `uname -s` prints it, such as `Linux`: a string.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = String;

    fn command(&self) -> Command {
        sh!("uname -s").into()
    }

    fn parse(&self, output: &Output) -> Result<String, ParseError> {
        Ok(output.expect_success()?.trim().to_owned())
    }

    fn rests_on(&self) -> Resources {
        Resources::none()
    }

    fn examples() -> Vec<FactExample> {
        vec![FactExample::new(&Self {}, "Linux\n", "Linux".to_owned())]
    }
}
