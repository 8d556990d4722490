//! The fact `deb.packages`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::packaging::{dpkg_query, native_architecture, read_packages};

/// The packages that are installed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Packages {}

impl Fact for Packages {
    const NAME: &'static str = "deb.packages";
    const DOC: &'static str = "The packages that are installed: a table from each name to the list of its versions. A package of a foreign \
                               architecture stands under `name:architecture`. Packages that were removed, or are left half-way, are not in it; \
                               where there is no dpkg it is empty.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, Vec<String>>;

    fn command(&self) -> Command {
        dpkg_query().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let known = read_packages(&text)?;
        let native = native_architecture(&known);
        let mut packages: Self::Value = BTreeMap::new();
        // Waiting for triggers is a state that dpkg leaves by itself; the files of the package are in place.
        for package in known.iter().filter(|package| matches!(package.state, "installed" | "triggers-awaited" | "triggers-pending")) {
            packages.entry(package.name_for(native)).or_default().push(package.version.to_owned());
        }
        Ok(packages)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let of = |list: &[(&str, &str)]| list.iter().map(|(name, version)| ((*name).to_owned(), vec![(*version).to_owned()])).collect();
        let printed = "install\tinstalled\tdpkg\tamd64\t1.21\t\ninstall\tinstalled\tlibc6\tamd64\t2.36-9\t\n\
                       install\tinstalled\tlibc6\ti386\t2.36-9\t\ndeinstall\tconfig-files\tnginx\tall\t1.22.1\thttpd\n\
                       install\ttriggers-pending\tman-db\tamd64\t2.11\tman\ninstall\thalf-configured\tbad\tamd64\t1\t\n";
        vec![
            FactExample::new(&Self {}, printed, of(&[("dpkg", "1.21"), ("libc6", "2.36-9"), ("libc6:i386", "2.36-9"), ("man-db", "2.11")])),
            FactExample::new(&Self {}, "", BTreeMap::new()),
        ]
    }
}
