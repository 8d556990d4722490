//! The fact `deb.architecture`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, native_architecture, read_packages};

/// The architecture of the host's own packages.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Architecture {}

impl Fact for Architecture {
    const NAME: &'static str = "deb.architecture";
    const DOC: &'static str = "The architecture of the host's own packages, such as `amd64`; `nil` where there is no dpkg.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = Option<String>;

    fn command(&self) -> Command {
        // Whoever asks for it asks for the packages as well.
        dpkg_query().into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        Ok(native_architecture(&read_packages(&text)?).map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Path("/usr/bin/dpkg-query".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        vec![
            FactExample::new(&Self {}, "install\tinstalled\tdpkg\tamd64\t1.21\t\n", Some("amd64".to_owned())),
            FactExample::new(&Self {}, "", None),
        ]
    }
}
