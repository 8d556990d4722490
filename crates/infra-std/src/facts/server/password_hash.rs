//! The fact `server.password_hash`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The hash of a user's password.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PasswordHash {
    /// The name of the user.
    pub user: String,
}

impl Fact for PasswordHash {
    const NAME: &'static str = "server.password_hash";
    const DOC: &'static str = "The hash of a user's password as shadow(5) has it, such as `$y$…`, or `!` for none; `nil` where there is no such user and \
                               where the one who asks may not read it.";
    const CONFIDENTIAL: bool = true;
    type Value = Option<String>;

    fn command(&self) -> Command {
        // Nobody else's entry leaves the host.
        sh!(
            "getent shadow {} 2>/dev/null || if [ -r /etc/shadow ]; then
  while IFS= read -r entry; do case $entry in {}:*) printf '%s\\n' \"$entry\" ;; esac; done </etc/shadow
fi",
            self.user,
            self.user
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        let mut entries = text.lines().map(|line| line.split(':'));
        let own = entries.find_map(|mut fields| (fields.next() == Some(self.user.as_str())).then(|| fields.next()).flatten());
        Ok(own.map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Users])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { user: "deploy".to_owned() };
        vec![
            FactExample::new(&question, "deploy:$y$j9T$salt$hash:19700:0:99999:7:::\n", Some("$y$j9T$salt$hash".to_owned())),
            FactExample::new(&question, "root:*:19700:0:99999:7:::\n", None),
            FactExample::new(&question, "", None),
        ]
    }
}
