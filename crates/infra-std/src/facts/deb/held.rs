//! The fact `deb.held`.

use std::collections::BTreeSet;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, read_packages};

/// The packages that are held at their version.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Held {}

impl Fact for Held {
    const NAME: &'static str = "deb.held";
    const DOC: &'static str = "The packages that are held at their version (apt-mark(8)): a list of names, in order.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeSet<String>;

    fn command(&self) -> Command {
        dpkg_query().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let held = read_packages(&text)?.into_iter().filter(|package| package.wanted == "hold");
        Ok(held.map(|package| package.name.to_owned()).collect())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        vec![FactExample::new(
            &Self {},
            "install\tinstalled\tbash\tamd64\t5.2\t\nhold\tinstalled\tlinux-image-amd64\tamd64\t6.1\t\n",
            BTreeSet::from(["linux-image-amd64".to_owned()]),
        )]
    }
}
