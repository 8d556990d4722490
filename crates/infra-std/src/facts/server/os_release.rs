//! The fact `server.os_release`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operating system says of itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct OsRelease {}

impl Fact for OsRelease {
    const NAME: &'static str = "server.os_release";
    const DOC: &'static str = "What the operating system says of itself in os-release(5): a table with the names in lower case, such as `id`, \
                               `version_id`, `version_codename` and `pretty_name`. It is empty where there is no such file.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, String>;

    fn command(&self) -> Command {
        sh!("if [ -r /etc/os-release ]; then cat /etc/os-release; elif [ -r /usr/lib/os-release ]; then cat /usr/lib/os-release; fi").into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let assignment = |line: &str| {
            let (name, value) = line.trim().split_once('=')?;
            let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            plain.then(|| (name.to_lowercase(), unquote(value)))
        };
        Ok(text.lines().filter_map(assignment).collect())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Path("/etc/os-release".to_owned()), Resource::Path("/usr/lib/os-release".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        let of = |list: &[(&str, &str)]| list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let printed = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n# a comment\nVERSION_ID=\"12\"\nID=debian\nNOTE='it'\\''s'\n\n";
        let wanted = of(&[("pretty_name", "Debian GNU/Linux 12 (bookworm)"), ("version_id", "12"), ("id", "debian"), ("note", "it's")]);
        vec![FactExample::new(&Self {}, printed, wanted), FactExample::new(&Self {}, "", BTreeMap::new())]
    }
}

/// A value as a shell would read it, without expansions, which the format does not have.
fn unquote(value: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"') | None, '\\') => out.extend(chars.next()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (_, c) => out.push(c),
        }
    }
    out
}
