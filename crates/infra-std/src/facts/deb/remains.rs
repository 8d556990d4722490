//! The fact `deb.remains`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, name_of, native_architecture};

/// The packages that are not installed and not gone either.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Remains {}

/// The state of a package whose configuration files are all that is left.
pub const CONFIG_FILES: &str = "config-files";

impl Fact for Remains {
    const NAME: &'static str = "deb.remains";
    const DOC: &'static str = "The packages that are not installed and not gone either: a table from each name to its state, which is \
                               `config-files` for one that was removed but not purged, and `half-installed`, `unpacked` or `half-configured` for \
                               one that was left half-way.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, String>;

    fn command(&self) -> Command {
        dpkg_query("${db:Status-Status}\\t${Package}\\t${Architecture}\\n").into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let native = native_architecture(&text);
        let mut remains = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split('\t');
            let (Some(status), Some(name), Some(architecture), None) = (fields.next(), fields.next(), fields.next(), fields.next()) else {
                return Err(ParseError::new(format!("expected status, name and architecture, got `{line}`")));
            };
            if matches!(status, CONFIG_FILES | "half-installed" | "unpacked" | "half-configured") {
                remains.insert(name_of(name, architecture, native), status.to_owned());
            }
        }
        Ok(remains)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let of = |list: &[(&str, &str)]| list.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
        let printed = "installed\tdpkg\tamd64\ninstalled\tlibc6\tamd64\nconfig-files\tnginx\tall\nhalf-configured\tbad\ti386\nnot-installed\told\tall\n";
        vec![FactExample::new(&Self {}, printed, of(&[("nginx", "config-files"), ("bad:i386", "half-configured")]))]
    }
}
