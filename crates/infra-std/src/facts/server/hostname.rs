//! The fact `server.hostname`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name that the host has for itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Hostname {}

impl Fact for Hostname {
    const NAME: &'static str = "server.hostname";
    const DOC: &'static str = "The name that the host has for itself, as `uname -n` prints it: a string.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = String;

    fn command(&self) -> Command {
        sh!("uname -n").into()
    }

    fn parse(&self, output: &Output) -> Result<String, ParseError> {
        Ok(output.expect_success()?.trim().to_owned())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Network, Resource::Kernel])
    }

    fn examples() -> Vec<FactExample> {
        vec![FactExample::new(&Self {}, "web-01\n", "web-01".to_owned())]
    }
}
