//! The fact `deb.remains`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, native_architecture, read_packages};

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
        dpkg_query().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let known = read_packages(&text)?;
        let native = native_architecture(&known);
        let remains =
            known.iter().filter(|package| matches!(package.state, CONFIG_FILES | "half-installed" | "unpacked" | "half-configured"));
        Ok(remains.map(|package| (package.name_for(native), package.state.to_owned())).collect())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let of = |list: &[(&str, &str)]| list.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect();
        let printed = "install\tinstalled\tdpkg\tamd64\t1.21\t\ninstall\tinstalled\tlibc6\tamd64\t2.36-9\t\n\
                       deinstall\tconfig-files\tnginx\tall\t1.22.1\thttpd\ninstall\thalf-configured\tbad\ti386\t1\t\nunknown\tnot-installed\told\t\t\t\n";
        vec![FactExample::new(&Self {}, printed, of(&[("nginx", "config-files"), ("bad:i386", "half-configured")]))]
    }
}
