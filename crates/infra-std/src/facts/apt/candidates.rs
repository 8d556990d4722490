//! The fact `apt.candidates`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What apt would install today.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Candidates {
    /// The names of the packages.
    pub packages: Vec<String>,
}

/// What apt-cache(8) says of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The version that is installed.
    pub installed: Option<String>,
    /// The version that would be installed.
    pub candidate: Option<String>,
}

impl Fact for Candidates {
    const NAME: &'static str = "apt.candidates";
    const DOC: &'static str = "What apt would install today, by the package index as it lies on the host: a table from each name to `installed` and \
                               `candidate`, two versions of which each may be `nil`. A name that apt does not know is not in it.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, Candidate>;

    fn command(&self) -> Command {
        sh!("if command -v apt-cache >/dev/null 2>&1; then apt-cache policy -- {}; fi", self.packages).into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let mut candidates: Self::Value = BTreeMap::new();
        let mut current: Option<&mut Candidate> = None;
        for line in text.lines() {
            let version = |text: &str| Some(text.trim()).filter(|version| *version != "(none)").map(str::to_owned);
            if let (false, Some(name)) = (line.starts_with(' '), line.strip_suffix(':')) {
                let nothing = Candidate { installed: None, candidate: None };
                current = Some(candidates.entry(name.to_owned()).or_insert(nothing));
            } else if let (Some(package), Some((key, value))) = (current.as_mut(), line.split_once(": ")) {
                match key.trim() {
                    "Installed" => package.installed = version(value),
                    "Candidate" => package.candidate = version(value),
                    _ => {}
                }
            }
        }
        Ok(candidates)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Packages, Resource::Tree("/var/lib/apt/lists".to_owned()), Resource::Tree("/etc/apt".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        let printed = "bash:\n  Installed: 5.2.15-2+b8\n  Candidate: 5.2.15-2+b13\n  Version table:\n     5.2.15-2+b13 500\n        500 \
                       http://deb.example.com bookworm/main amd64 Packages\n *** 5.2.15-2+b8 100\nmail-server:\n  Installed: (none)\n  Candidate: \
                       (none)\n  Version table:\n";
        let bash = Candidate { installed: Some("5.2.15-2+b8".to_owned()), candidate: Some("5.2.15-2+b13".to_owned()) };
        let neither = Candidate { installed: None, candidate: None };
        let question = Self { packages: vec!["bash".to_owned(), "mail-server".to_owned(), "nosuch".to_owned()] };
        vec![FactExample::new(&question, printed, BTreeMap::from([("bash".to_owned(), bash), ("mail-server".to_owned(), neither)]))]
    }
}
