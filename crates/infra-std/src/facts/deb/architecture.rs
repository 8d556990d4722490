//! The fact `deb.architecture`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The architecture of the host's own packages.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Architecture {}

impl Fact for Architecture {
    const NAME: &'static str = "deb.architecture";
    const DOC: &'static str = "The architecture of the host's own packages, such as `amd64`; `nil` where there is no dpkg.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = Option<String>;

    fn command(&self) -> Command {
        // The dpkg of busybox cannot say; and dpkg-query reads all that there is about packages to say it.
        sh!(
            "if command -v dpkg-query >/dev/null 2>&1; then dpkg --print-architecture 2>/dev/null || dpkg-query -W -f {} dpkg; fi",
            "${Architecture}\\n"
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        Ok(Some(text.trim()).filter(|name| !name.is_empty()).map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Path("/usr/bin/dpkg-query".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        vec![FactExample::new(&Self {}, "amd64\n", Some("amd64".to_owned())), FactExample::new(&Self {}, "", None)]
    }
}
