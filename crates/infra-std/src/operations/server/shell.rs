//! The operation `server.shell`.

use infra_core::change::{Action, Change, Content};
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
    /// A file of the controller that each of the commands reads on its standard input. It is sent as it is read, so it may be of any size.
    #[schemars(extend("x-local-path" = true))]
    pub stdin: Option<String>,
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

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let file = self.stdin.as_ref().map(|path| facts.local(path)).transpose()?;
        let input = file.map(|file| Content::LocalFile { path: file.path.clone(), size: file.size, sha256: file.sha256.clone() });
        let run = |text: &String| {
            let command = Command::new(command::Shell::verbatim(text)).leaving_processes();
            Action::Run(input.iter().cloned().fold(command, Command::with_stdin_file))
        };
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
            Example::new("Give it a file of this machine to read", json!({ "commands": "psql app", "stdin": "/deploys/files/schema.sql" }))
                .local("/deploys/files/schema.sql", "create table t (n int);\n")
                .steps(["psql app"]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_run_is_misuse() {
        for commands in [vec![], vec!["true".to_owned(), " ".to_owned()]] {
            assert!(Shell { commands, stdin: None }.check().is_err());
        }
    }
}
