//! The fact `apt.upgrades`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `apt-get upgrade` would do today.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Upgrades {}

impl Fact for Upgrades {
    const NAME: &'static str = "apt.upgrades";
    const DOC: &'static str = "What `apt-get upgrade` would do today, by the package index as it lies on the host: a table from the name of each \
                               package to its new version. Packages that are held back are not in it.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, String>;

    fn command(&self) -> Command {
        sh!("if command -v apt-get >/dev/null 2>&1; then apt-get -s -o Debug::NoLocking=true upgrade; fi").into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        // `Inst NAME [OLD] (NEW SOURCE [ARCHITECTURE])`
        let upgrade = |line: &str| {
            let rest = line.strip_prefix("Inst ")?;
            let name = rest.split_whitespace().next()?;
            let version = rest.split_once('(')?.1.split_whitespace().next()?;
            Some((name.to_owned(), version.to_owned()))
        };
        Ok(text.lines().filter_map(upgrade).collect())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages, Resource::Tree("/var/lib/apt/lists".to_owned()), Resource::Tree("/etc/apt".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        let printed = "Reading package lists...\nThe following packages have been kept back:\n  linux-image-amd64\nInst bash [5.2.15-2+b8] \
                       (5.2.15-2+b13 Debian:12.12/stable [amd64])\nConf bash (5.2.15-2+b13 Debian:12.12/stable [amd64])\n";
        vec![FactExample::new(&Self {}, printed, BTreeMap::from([("bash".to_owned(), "5.2.15-2+b13".to_owned())]))]
    }
}
