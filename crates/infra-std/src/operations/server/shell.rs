//! The operation `server.shell`.

use infra_core::change::{Action, Change};
use infra_core::command::{self, Command};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Idempotence, Misuse, Operation};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Runs commands.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Shell {
    /// The commands, each a text for `sh`, run one after the other until one fails. `sh("… {}", value)` builds one with quoted values.
    pub commands: Vec<String>,
}

impl Operation for Shell {
    const NAME: &'static str = "server.shell";
    const DOC: &'static str = "Runs commands through `sh`, one after the other until one fails.\n\n\
        Nothing is known of what a command does, so it runs each time and counts as a change each time; give the operation an `_if` where it is \
        wanted only after another one changed something. A state that has an operation of its own is better wished with that.";
    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn check(&self) -> Result<(), Misuse> {
        if self.commands.is_empty() {
            return Err(
                Misuse::new("there is nothing to run: `commands` is empty").hint("write commands = { \"systemctl daemon-reload\" }")
            );
        }
        match self.commands.iter().position(|command| command.trim().is_empty()) {
            Some(at) => Err(Misuse::new(format!("the command number {} is empty", at + 1))),
            None => Ok(()),
        }
    }

    fn diff(&self, _facts: &Facts<'_>) -> Result<Change, DiffError> {
        let run = |text: &String| Action::Run(Command::new(command::Shell::verbatim(text)).leaving_processes());
        let reason = match self.commands.len() {
            1 => "run 1 command".to_owned(),
            count => format!("run {count} commands"),
        };
        Ok(self.commands.iter().map(run).fold(Change::new(reason), Change::then))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new("Run a command", json!({ "commands": "update-ca-certificates" })).steps(["update-ca-certificates"]),
            Example::new(
                "Run two, with what a shell can do",
                json!({ "commands": ["cd /srv/app && ./migrate", "echo done >> /var/log/migrate"] }),
            )
            .steps(["cd /srv/app && ./migrate", "echo done >> /var/log/migrate"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_run_is_misuse() {
        for commands in [vec![], vec!["true".to_owned(), " ".to_owned()]] {
            assert!(Shell { commands }.check().is_err());
        }
    }
}
