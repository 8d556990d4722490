//! The arguments that every operation takes. In Lua their names start with `_`, but for `name`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arguments::{self, ArgumentError};
use crate::mode::Mode;
use crate::privilege::{Doas, Privilege, Su, Sudo};
use crate::secret::Secret;
use crate::waves::{Batch, Share};

/// How commands of an operation run on a host: as whom, where, with what environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Context {
    /// As whom.
    pub privilege: Privilege,
    /// The shell that reads the commands, by name or path; `sh` where not given. It understands what POSIX says of `sh`.
    pub shell: Option<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// The directory to run in. Facts do not inherit it, nor what follows.
    pub chdir: Option<String>,
    /// The permission bits that files made by the commands do not get.
    pub umask: Option<u32>,
    /// What commands read on their standard input that have none of their own.
    pub stdin: Option<String>,
    /// Whether the commands run on a terminal of their own.
    pub get_pty: bool,
}

impl Context {
    /// The context in which an operation's facts are read: the same user, shell and environment, and nothing else.
    pub fn for_facts(&self) -> Self {
        Self { privilege: self.privilege.clone(), shell: self.shell.clone(), env: self.env.clone(), ..Self::default() }
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
    /// Run sudo through that user's login shell, with what its start-up files say. It needs `_sudo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo_login: Option<bool>,
    /// Have sudo keep the environment of the user who is logged in, where sudoers allows that. It needs `_sudo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo_preserve_env: Option<bool>,
    /// The password that sudo asks for; what `--ask-sudo-password` was told where not given. It is sent only when sudo asks, and shown nowhere.
    #[serde(skip_serializing, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    pub sudo_password: Option<Secret>,
    /// Run the operation's commands under su as this user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub su_user: Option<String>,
    /// Have su start a log-in, with what that user's start-up files say. It needs `_su_user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub su_login: Option<bool>,
    /// The shell that su starts; `/bin/sh`, or for a log-in that user's own, where not given. It needs `_su_user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub su_shell: Option<String>,
    /// The password that su asks for; what `--ask-su-password` was told where not given. It is sent only when su asks, and shown nowhere.
    #[serde(skip_serializing, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    pub su_password: Option<Secret>,
    /// Run the operation's commands under doas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doas: Option<bool>,
    /// The user that doas changes to; `root` where not given. It needs `_doas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doas_user: Option<String>,
    /// The shell that reads the operation's commands, such as `bash`; `sh` where not given. It must understand what POSIX says of `sh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// The permission bits that files made by the operation's commands do not get, such as `"027"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<Mode>,
    /// What the operation's commands read on their standard input, where they have nothing of their own there: a text, or a list of lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<StandardInput>,
    /// Run the operation's commands on a terminal of their own, which needs script(1) on the host. Both outputs come as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get_pty: Option<bool>,
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
            sudo_login: self.sudo_login.or(outer.sudo_login),
            sudo_preserve_env: self.sudo_preserve_env.or(outer.sudo_preserve_env),
            sudo_password: self.sudo_password.or_else(|| outer.sudo_password.clone()),
            su_user: self.su_user.or_else(|| outer.su_user.clone()),
            su_login: self.su_login.or(outer.su_login),
            su_shell: self.su_shell.or_else(|| outer.su_shell.clone()),
            su_password: self.su_password.or_else(|| outer.su_password.clone()),
            doas: self.doas.or(outer.doas),
            doas_user: self.doas_user.or_else(|| outer.doas_user.clone()),
            shell: self.shell.or_else(|| outer.shell.clone()),
            umask: self.umask.or_else(|| outer.umask.clone()),
            stdin: self.stdin.or_else(|| outer.stdin.clone()),
            get_pty: self.get_pty.or(outer.get_pty),
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
        let user_or_root = |user: &Option<String>| user.clone().unwrap_or_else(|| "root".to_owned());
        let doas = self.doas.unwrap_or(false).then(|| Doas { user: user_or_root(&self.doas_user) });
        let sudo = self.sudo.unwrap_or(false).then(|| Sudo {
            user: user_or_root(&self.sudo_user),
            login: self.sudo_login.unwrap_or(false),
            preserve_env: self.sudo_preserve_env.unwrap_or(false),
            password: self.sudo_password.clone(),
        });
        let su = self.su_user.as_ref().map(|user| Su {
            user: user.clone(),
            login: self.su_login.unwrap_or(false),
            shell: self.su_shell.clone(),
            password: self.su_password.clone(),
        });
        Context {
            privilege: Privilege { doas, sudo, su },
            shell: self.shell.clone(),
            env: self.env.clone().unwrap_or_default(),
            chdir: self.chdir.clone(),
            umask: self.umask.as_ref().and_then(|mode| match mode {
                Mode::Bits(bits) => Some(*bits),
                Mode::Symbolic(_) => None,
            }),
            stdin: self.stdin.as_ref().map(StandardInput::text),
            get_pty: self.get_pty.unwrap_or(false),
        }
    }

    /// An argument of these that means nothing without another one, which `merged` has not: both names, and how the other one is written in Lua
    /// (`_sudo = true`), all with their `_`.
    pub fn lonely(&self, merged: &Self) -> Option<(&'static str, &'static str, &'static str)> {
        let of_sudo = [
            ("_sudo_user", self.sudo_user.is_some()),
            ("_sudo_login", self.sudo_login.is_some()),
            ("_sudo_preserve_env", self.sudo_preserve_env.is_some()),
            ("_sudo_password", self.sudo_password.is_some()),
        ];
        let of_su =
            [("_su_login", self.su_login.is_some()), ("_su_shell", self.su_shell.is_some()), ("_su_password", self.su_password.is_some())];
        let of_doas = [("_doas_user", self.doas_user.is_some())];
        let families = [
            (&of_sudo[..], merged.sudo.is_some(), "_sudo", "_sudo = true"),
            (&of_su, merged.su_user.is_some(), "_su_user", "_su_user = \"root\""),
            (&of_doas, merged.doas.is_some(), "_doas", "_doas = true"),
        ];
        families.into_iter().filter(|(_, is_there, ..)| !is_there).find_map(|(names, _, needs, write)| {
            let (name, _) = names.iter().find(|(_, given)| *given)?;
            Some((*name, needs, write))
        })
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

/// What commands read on their standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StandardInput {
    /// A text, as it is.
    Text(String),
    /// Lines, each of which is ended.
    Lines(Vec<String>),
}

impl StandardInput {
    /// The text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Lines(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
        }
    }
}

/// The names of global arguments whose values are shown nowhere.
pub const HIDDEN: &[&str] = &["sudo_password", "su_password"];

/// Whether the value of this key of a host's data is shown nowhere.
pub fn is_hidden(key: &str) -> bool {
    key.strip_prefix('_').is_some_and(|name| HIDDEN.contains(&name))
}

/// Reads a secret, and says nothing of its value where that is none.
fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(from).map_err(|_| serde::de::Error::custom("a password is a string"))?;
    Ok(text.map(Secret::new))
}

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
            return Err(elsewhere(name));
        }
        check_values(&given, "").map_err(with_underscore)?;
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
        for name in names {
            if is_elsewhere(name) {
                return Err(elsewhere(name));
            }
            if HIDDEN.contains(&name) {
                return Err(no_password_in_words(name));
            }
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
    DEPLOY_ONLY.contains(&name)
}

fn elsewhere(name: &str) -> ArgumentError {
    let message = format!("the global argument `_{name}` is for the operations of a deploy");
    ArgumentError { argument: Some(format!("_{name}")), message, hint: None }
}

/// The hint that keeps a password off command lines.
fn no_password_in_words(name: &str) -> ArgumentError {
    let option = name.replace('_', "-");
    ArgumentError {
        argument: Some(format!("_{name}")),
        message: format!("`_{name}` stands on the command line, which every user of this machine can read"),
        hint: Some(format!("have it asked for with --ask-{option}, or let the inventory read it from somewhere")),
    }
}

/// Whether this can be the name of an environment variable that a shell sets.
pub fn is_variable(name: &str) -> bool {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    letters && !name.is_empty() && !name.starts_with(|first: char| first.is_ascii_digit())
}

/// Checks what the schema cannot say of passwords, whose values no message shows, of the names in `env`, and of `umask`. `mark` stands before their names.
///
/// # Errors
/// [`ArgumentError`] naming the argument.
pub fn check_values(given: &crate::Map, mark: &str) -> Result<(), ArgumentError> {
    for name in HIDDEN {
        let name = format!("{mark}{name}");
        let problem = match given.get(&name) {
            None | Some(crate::Value::Null) => continue,
            Some(crate::Value::String(text)) if text.is_empty() => "is empty",
            Some(crate::Value::String(text)) if text.contains(['\n', '\r', '\0']) => {
                "holds a line break or a NUL character, which nobody can type"
            }
            Some(crate::Value::String(_)) => continue,
            Some(_) => "takes a string",
        };
        return Err(ArgumentError { message: format!("`{name}` {problem}"), argument: Some(name), hint: None });
    }
    let env = format!("{mark}env");
    if let Some(crate::Value::Object(variables)) = given.get(&env)
        && let Some(name) = variables.keys().find(|name| !is_variable(name))
    {
        let message = format!("`{env}`: {name:?} cannot be the name of an environment variable");
        return Err(ArgumentError { message, argument: Some(env), hint: None });
    }
    let name = format!("{mark}umask");
    match given.get(&name).map(|value| serde_json::from_value::<Mode>(value.clone())) {
        Some(Ok(Mode::Bits(bits))) if bits <= 0o777 => Ok(()),
        None => Ok(()),
        Some(_) if given[&name].is_null() => Ok(()),
        Some(_) => Err(ArgumentError {
            message: format!("`{name}` takes the bits that files do not get as octal digits, such as \"027\", got {}", given[&name]),
            argument: Some(name),
            hint: None,
        }),
    }
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
        assert_eq!(globals.context().privilege.user(), Some("root"));
        let message = |value| GlobalArguments::of_data(&data(value)).expect_err("wrong data").message;
        assert_eq!(message(json!({ "_sudo_password": 12345678 })), "`_sudo_password` takes a string");
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
        assert!(wrong("_umask=u=rwx").0.starts_with("`_umask` takes the bits that files do not get"), "{:?}", wrong("_umask=u=rwx"));
        assert_eq!(GlobalArguments::from_words(&["_umask=027"]).expect("right").context().umask, Some(0o027));
        assert!(wrong("_su_password=hunter2-and-more").0.starts_with("`_su_password` stands on the command line"));
        assert_eq!(wrong("_timeout=-1").0, "`_timeout` takes seconds above 0, got -1");
        assert!(wrong("_zzzzzzzz=1").1.expect("a hint").starts_with("the arguments are _sudo, _sudo_user, _sudo_login, "));
    }

    #[test]
    fn a_variable_has_a_name_that_shells_know() {
        let error = GlobalArguments::from_words(&["_env={\"A\":\"1\",\"env b\":\"2\"}"]).expect_err("no shell sets that");
        assert_eq!(error.message, "`_env`: \"env b\" cannot be the name of an environment variable");
        for (name, can) in [("A", true), ("_a9", true), ("", false), ("9a", false), ("A-B", false), ("A=B", false), ("ä", false)] {
            assert_eq!(is_variable(name), can, "{name}");
        }
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
