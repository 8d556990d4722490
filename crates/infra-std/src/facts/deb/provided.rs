//! The fact `deb.provided`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, read_packages};

/// The virtual packages that installed ones provide.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Provided {}

impl Fact for Provided {
    const NAME: &'static str = "deb.provided";
    const DOC: &'static str = "The virtual packages that installed ones provide, such as `mail-transport-agent`: a table from each name to the \
                               list of the installed packages that provide it.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, Vec<String>>;

    fn command(&self) -> Command {
        dpkg_query().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let mut provided: Self::Value = BTreeMap::new();
        for package in read_packages(&text)?.iter().filter(|package| package.state == "installed") {
            // Deb-control(5): names separated by commas, each perhaps with `(= version)`.
            for name in package.provides.split(',').filter_map(|one| one.split_whitespace().next()) {
                provided.entry(name.to_owned()).or_default().push(package.name.to_owned());
            }
        }
        Ok(provided)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let of = |list: &[(&str, &str)]| list.iter().map(|(name, by)| ((*name).to_owned(), vec![(*by).to_owned()])).collect();
        let printed = "install\tinstalled\tpostfix\tamd64\t3.7\tdefault-mta, mail-transport-agent (= 1)\n\
                       install\tinstalled\tbash\tamd64\t5.2\t\ndeinstall\tconfig-files\texim4\tall\t4.96\tmail-server\n";
        vec![FactExample::new(&Self {}, printed, of(&[("default-mta", "postfix"), ("mail-transport-agent", "postfix")]))]
    }
}
