//! The operation `server.script`.

use infra_core::change::{Action, Change, Content, ScriptRun};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Idempotence, Operation};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Runs a program of the controller on the host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Script {
    /// The program, a file of the controller. Its first line says what runs it, such as `#!/bin/sh`.
    #[schemars(extend("x-local-path" = true))]
    pub src: String,
    /// Its arguments, one word each; nothing in them is special to a shell.
    #[serde(default)]
    pub args: Vec<String>,
}

impl Operation for Script {
    const NAME: &'static str = "server.script";
    const DOC: &'static str = "Uploads a program to a private temporary place on the host, runs it, and removes it again however it ended.\n\n\
        Nothing is known of what the program does, so it runs each time and counts as a change each time; give the operation an `_if` where it is \
        wanted only after another one changed something.";
    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let file = facts.local(&self.src)?;
        if file.size == 0 {
            return Err(DiffError::refused(format!("{} is empty, there is nothing to run", self.src)));
        }
        let name = self.src.rsplit('/').next().unwrap_or(&self.src);
        let content = Content::LocalFile { path: file.path.clone(), size: file.size, sha256: file.sha256.clone() };
        let script = ScriptRun { content, args: self.args.clone() };
        Ok(Change::new(format!("run {name}")).then(Action::Script(script)))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new("Run a script", json!({ "src": "/deploys/files/migrate.sh" }))
                .local("/deploys/files/migrate.sh", "#!/bin/sh\necho migrated\n")
                .steps(["script"]),
            Example::new("Give it arguments", json!({ "src": "/deploys/files/greet.sh", "args": ["hello world", "$HOME"] }))
                .local("/deploys/files/greet.sh", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
                .steps(["script 'hello world' '$HOME'"]),
            Example::new("A file with nothing in it", json!({ "src": "/deploys/files/empty.sh" }))
                .local("/deploys/files/empty.sh", "")
                .refused("there is nothing to run"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let operation = erase(Script { src: "/deploys/gone.sh".to_owned(), args: Vec::new() });
        let table = MadeUp::new().local_failed("/deploys/gone.sh", "/deploys/gone.sh: no such file");
        let error = diff_fully(&*operation, &table).expect_err("it is not there");
        assert_eq!(error.to_string(), "/deploys/gone.sh: no such file");
    }
}
