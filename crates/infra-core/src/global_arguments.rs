//! The arguments that every operation takes. In Lua their names start with `_`, but for `name`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arguments::{self, ArgumentError};
use crate::waves::{Batch, Share};

/// How commands of an operation run on a host: as whom, where, with what environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Context {
    /// Run under sudo as this user (`root` where only `_sudo` was given).
    pub sudo: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The directory to run in. Facts do not inherit it.
    pub chdir: Option<String>,
}

impl Context {
    /// The context in which an operation's facts are read: the same user and environment, and nothing else.
    pub fn for_facts(&self) -> Self {
        Self { sudo: self.sudo.clone(), env: self.env.clone(), chdir: None }
    }
}

/// The arguments that every operation takes, as they are checked. The order of merging is: the call, the blocks around it from the innermost,
/// the host's data, the deploy's `config`, the command line's defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GlobalArguments {
    /// Run the operation's commands under sudo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo: Option<bool>,
    /// The user that sudo changes to; `root` where not given. It needs `_sudo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo_user: Option<String>,
    /// Environment variables for the operation's commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// The directory that the operation's commands run in; relative paths in its arguments are joined with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chdir: Option<String>,
    /// Seconds that each command may take; then its process group is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// Exit codes that count as success; `{ 0 }` where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_exit_codes: Option<Vec<i32>>,
    /// A failure of the operation leaves its host ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_errors: Option<bool>,
    /// Run on one host only: the first in inventory order that is alive when the operation starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_once: Option<bool>,
    /// Waves of hosts, in inventory order: `true` for one host at a time, a number, a share such as `"25%"`, or a list of sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Batch>,
    /// How many hosts of a wave may fail before no further wave starts: a number or a share of those that entered it; what `--max-fail`
    /// says where not given, which is 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_fail: Option<Share>,
    /// At most this many hosts at work at once on the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u32>,
    /// As `_ignore_errors`, and the operation's remaining commands run as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<bool>,
    /// How often the operation is diffed and run again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Seconds before it is run again; 5 where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_delay: Option<f64>,
    /// What the delay is multiplied with after each retry; 1 where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_backoff: Option<f64>,
    /// Inside `parallel`: the operation is ended when the block's other operations have ended, and that counts as ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub background: Option<bool>,
}

impl GlobalArguments {
    /// These, with what they leave open taken from `outer`. Environments are merged name by name.
    pub fn or(self, outer: &Self) -> Self {
        let env = match (self.env, &outer.env) {
            (Some(inner), Some(outer)) => {
                let mut merged = outer.clone();
                merged.extend(inner);
                Some(merged)
            }
            (inner, outer) => inner.or_else(|| outer.clone()),
        };
        Self {
            sudo: self.sudo.or(outer.sudo),
            sudo_user: self.sudo_user.or_else(|| outer.sudo_user.clone()),
            env,
            chdir: self.chdir.or_else(|| outer.chdir.clone()),
            timeout: self.timeout.or(outer.timeout),
            success_exit_codes: self.success_exit_codes.or_else(|| outer.success_exit_codes.clone()),
            ignore_errors: self.ignore_errors.or(outer.ignore_errors),
            run_once: self.run_once.or(outer.run_once),
            serial: self.serial.or_else(|| outer.serial.clone()),
            max_fail: self.max_fail.or(outer.max_fail),
            parallel: self.parallel.or(outer.parallel),
            continue_on_error: self.continue_on_error.or(outer.continue_on_error),
            retries: self.retries.or(outer.retries),
            retry_delay: self.retry_delay.or(outer.retry_delay),
            retry_backoff: self.retry_backoff.or(outer.retry_backoff),
            background: self.background.or(outer.background),
        }
    }

    /// How the operation's commands run.
    pub fn context(&self) -> Context {
        let sudo = self.sudo.unwrap_or(false).then(|| self.sudo_user.clone().unwrap_or_else(|| "root".to_owned()));
        Context { sudo, env: self.env.clone().unwrap_or_default(), chdir: self.chdir.clone() }
    }

    /// The waves that its hosts go in, where they go in waves.
    pub fn batch(&self) -> Option<&Batch> {
        self.serial.as_ref().filter(|batch| !batch.is_off())
    }

    /// Whether a failure leaves the host ok. With `_continue_on_error` it does, unless `_ignore_errors` says that it does not.
    pub fn ignores_errors(&self) -> bool {
        self.ignore_errors.unwrap_or(self.continue_on_error.unwrap_or(false))
    }

    /// The exit codes that count as success.
    pub fn is_success(&self, code: i32) -> bool {
        self.success_exit_codes.as_ref().map_or(code == 0, |codes| codes.contains(&code))
    }
}

/// Global arguments of later versions, named so that using one says so rather than *unknown argument*.
pub const NOT_YET: &[&str] = &[
    "sudo_login",
    "sudo_preserve_env",
    "sudo_password",
    "su_user",
    "su_login",
    "su_shell",
    "su_password",
    "doas",
    "doas_user",
    "shell",
    "stdin",
    "get_pty",
    "umask",
];

/// Global arguments that only a deploy can say, because a function or a host of the inventory is their value.
pub const DEPLOY_ONLY: &[&str] = &["retry_until", "on"];

/// The JSON schema of [`GlobalArguments`], their names without the `_`.
pub fn schema() -> crate::Value {
    schemars::schema_for!(GlobalArguments).to_value()
}

impl GlobalArguments {
    /// Reads them from a map whose names have no `_`.
    ///
    /// # Errors
    /// [`ArgumentError`] naming the first that is unknown, not available yet, or of a wrong type.
    pub fn read(given: crate::Map) -> Result<Self, ArgumentError> {
        if let Some(name) = given.keys().find(|name| is_elsewhere(name)) {
            return Err(not_yet(name));
        }
        let checked = arguments::check(&schema(), given).map_err(with_underscore)?;
        let read: Self = serde_json::from_value(crate::Value::Object(checked)).map_err(|error| ArgumentError {
            argument: None,
            message: error.to_string(),
            hint: None,
        })?;
        match read.timeout {
            Some(seconds) if !(seconds > 0.0 && seconds.is_finite()) => Err(ArgumentError {
                argument: Some("_timeout".to_owned()),
                message: format!("`_timeout` takes seconds above 0, got {seconds}"),
                hint: None,
            }),
            _ => Ok(read),
        }
    }

    /// Reads them from `_key=value` words of a command line.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_words<S: AsRef<str>>(words: &[S]) -> Result<Self, ArgumentError> {
        let plain: Vec<&str> = words.iter().map(|word| word.as_ref().strip_prefix('_').unwrap_or(word.as_ref())).collect();
        let names = plain.iter().map(|word| word.split_once('=').map_or(*word, |(name, _)| name));
        if let Some(name) = names.into_iter().find(|name| is_elsewhere(name)) {
            return Err(not_yet(name));
        }
        arguments::from_words(&schema(), &plain).map_err(with_underscore).and_then(Self::read)
    }

    /// Those that a host's data holds, such as `_sudo = true`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of_data(data: &crate::Map) -> Result<Self, ArgumentError> {
        Self::read(data.iter().filter_map(|(key, value)| Some((key.strip_prefix('_')?.to_owned(), value.clone()))).collect())
    }
}

/// Whether it is no argument of the command line or of data.
fn is_elsewhere(name: &str) -> bool {
    NOT_YET.contains(&name) || DEPLOY_ONLY.contains(&name)
}

fn not_yet(name: &str) -> ArgumentError {
    let message = if DEPLOY_ONLY.contains(&name) {
        format!("the global argument `_{name}` is for the operations of a deploy")
    } else {
        format!("the global argument `_{name}` is not available yet")
    };
    ArgumentError { argument: Some(format!("_{name}")), message, hint: None }
}

/// The schema's names have no `_`; those that people write do.
fn with_underscore(error: ArgumentError) -> ArgumentError {
    let names = arguments::names(&schema()).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let Some(name) = error.argument else { return error };
    let mark = |text: String| text.replace(&format!("`{name}"), &format!("`_{name}"));
    let hint = error.hint.map(|hint| match hint.strip_prefix("the arguments are ") {
        Some(_) => format!("the arguments are {}", names.iter().map(|name| format!("_{name}")).collect::<Vec<_>>().join(", ")),
        None => hint.replace("did you mean `", "did you mean `_"),
    });
    ArgumentError { message: mark(error.message), hint, argument: Some(format!("_{name}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn data_holds_global_arguments() {
        let data = |value: crate::Value| value.as_object().cloned().expect("a map");
        let globals = GlobalArguments::of_data(&data(json!({ "_sudo": true, "port": 80 }))).expect("right data");
        assert_eq!(globals.context().sudo.as_deref(), Some("root"));
        let message = |value| GlobalArguments::of_data(&data(value)).expect_err("wrong data").message;
        assert_eq!(message(json!({ "_doas": true })), "the global argument `_doas` is not available yet");
        assert_eq!(message(json!({ "_sudo": "yes" })), "`_sudo` takes true or false, got the string \"yes\"");
    }

    #[test]
    fn words_are_read_and_blamed_by_the_names_that_people_write() {
        let read = GlobalArguments::from_words(&["_sudo=true", "_env={\"A\":\"1\"}"]).expect("right words");
        assert_eq!((read.sudo, read.env), (Some(true), Some(BTreeMap::from([("A".to_owned(), "1".to_owned())]))));
        let wrong = |word: &str| {
            let error = GlobalArguments::from_words(&[word]).expect_err("a wrong word");
            (error.message, error.hint)
        };
        assert_eq!(wrong("_sudo=maybe"), ("`_sudo` takes true or false, got `maybe`".to_owned(), None));
        assert_eq!(wrong("_suod=true"), ("there is no argument `_suod`".to_owned(), Some("did you mean `_sudo`?".to_owned())));
        assert_eq!(wrong("_on=@local").0, "the global argument `_on` is for the operations of a deploy");
        assert_eq!(wrong("_doas=true").0, "the global argument `_doas` is not available yet");
        assert_eq!(wrong("_timeout=-1").0, "`_timeout` takes seconds above 0, got -1");
        assert!(wrong("_zzzzzzzz=1").1.expect("a hint").starts_with("the arguments are _sudo, _sudo_user, "));
    }

    #[test]
    fn the_inner_wins_and_environments_merge() {
        let read = |value: crate::Value| GlobalArguments::read(value.as_object().cloned().expect("a map")).expect("right arguments");
        let inner = read(json!({ "sudo": false, "env": { "A": "1" } }));
        let outer = read(json!({ "sudo": true, "env": { "A": "0", "B": "2" }, "timeout": 5 }));
        let merged = inner.or(&outer);
        assert_eq!(merged, read(json!({ "sudo": false, "env": { "A": "1", "B": "2" }, "timeout": 5.0 })));
    }
}
