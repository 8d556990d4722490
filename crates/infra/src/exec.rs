//! What `exec` takes besides a command: from what was typed to what is meant.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use infra_core::diagnostic::Diagnostic;
use infra_core::global_arguments::{GlobalArguments, is_variable};
use tokio::io::{AsyncRead, AsyncWriteExt};

/// The options of `exec`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of exec")]
pub struct ExecOptions {
    /// A command, as shell text, in place of one behind `--`. Repeatable: they run one after the other on each host, up to the first that fails.
    #[arg(short = 'c', long = "command", value_name = "COMMAND")]
    pub commands: Vec<String>,

    /// Run the commands that are left as well when one has failed; its host has failed all the same.
    #[arg(long)]
    pub keep_going: bool,

    /// Upload this program to each host, run it with the words behind `--`, and remove it.
    #[arg(long, value_name = "FILE")]
    pub script: Option<PathBuf>,

    /// Give every host infra's standard input, or with --stdin=FILE a file, to read; otherwise commands read nothing.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub stdin: Option<PathBuf>,

    /// Seconds that each command may take on a host; then it is killed there with all that it started.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub timeout: Option<f64>,

    /// Run in this directory of the hosts.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,

    /// Set a variable of the environment; repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// Show equal outputs once, with their hosts, when all have ended. Beside --diff: how the others differ from what most hosts say.
    #[arg(long)]
    pub gather: bool,

    /// Write the outputs into files HOST.out and HOST.err of this folder, and how it ended into HOST.exit.
    #[arg(long, value_name = "DIR")]
    pub out_dir: Option<PathBuf>,
}

/// What is run, and with what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exec {
    /// What is run.
    pub what: What,
    /// What it reads.
    pub stdin: Option<Input>,
    /// Where and for how long, and whether it goes on after a failure.
    pub globals: GlobalArguments,
    /// Whether equal outputs are shown once.
    pub gather: bool,
    /// Where outputs are written.
    pub out_dir: Option<PathBuf>,
}

/// What is run on each host.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// One word is shell text, several are an argument vector.
    Words(Vec<String>),
    /// Shell texts, one after the other.
    Commands(Vec<String>),
    /// A program of this machine, and its arguments.
    Script(PathBuf, Vec<String>),
}

impl Default for What {
    fn default() -> Self {
        Self::Words(Vec::new())
    }
}

/// What commands read on their standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What infra is given on its own.
    Own,
    /// A file of this machine.
    File(PathBuf),
}

impl Exec {
    /// Whether each host is sent one command and then no more.
    pub fn is_one_command(&self) -> bool {
        !matches!(&self.what, What::Commands(commands) if commands.len() > 1)
    }
}

impl ExecOptions {
    /// The first option that is given, for what has none of them.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            ("-c", !self.commands.is_empty()),
            ("--keep-going", self.keep_going),
            ("--script", self.script.is_some()),
            ("--stdin", self.stdin.is_some()),
            ("--timeout", self.timeout.is_some()),
            ("--cwd", self.cwd.is_some()),
            ("--env", !self.env.is_empty()),
            ("--gather", self.gather),
            ("--out-dir", self.out_dir.is_some()),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// What is meant by them and the words behind `--`.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] for what does not go together.
    pub fn resolve(self, words: Vec<String>) -> Result<Exec, Diagnostic> {
        let misuse = |message: &str, hint: &str| Err(Diagnostic::misuse(message).hint(hint));
        let nothing = words.iter().all(|word| word.trim().is_empty());
        let what = match (self.script, self.commands) {
            (Some(_), commands) if !commands.is_empty() => {
                return misuse("--script and -c exclude each other", "run them one after the other, or call the commands in the script");
            }
            (Some(_), _) if self.stdin.is_some() => {
                return misuse(
                    "--script and --stdin exclude each other: the program is sent where the input would be",
                    "upload the program first (files.put), and run it with exec --stdin",
                );
            }
            (Some(script), _) => What::Script(script, words),
            (None, commands) if commands.iter().any(|command| command.trim().is_empty()) => {
                return misuse("a command of -c is empty", "-c 'systemctl is-active nginx'");
            }
            (None, commands) if !commands.is_empty() && !words.is_empty() => {
                return misuse("there are commands behind -c and one behind `--`", "write all of them behind -c, in their order");
            }
            (None, commands) if !commands.is_empty() => What::Commands(commands),
            _ if nothing => return misuse("exec needs a command", "infra INVENTORY exec -- uptime"),
            _ => What::Words(words),
        };
        if self.keep_going && !matches!(&what, What::Commands(commands) if commands.len() > 1) {
            return misuse(
                "--keep-going has no meaning here: there is one command",
                "several are given with -c; the other hosts go on when one fails, whatever is said",
            );
        }
        let mut env = BTreeMap::new();
        for word in &self.env {
            let Some((name, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return misuse(&format!("--env {word} is no NAME=VALUE"), "--env LANG=C");
            };
            if !is_variable(name) {
                return misuse(&format!("--env {word}: `{name}` cannot be the name of an environment variable"), "--env LANG=C");
            }
            env.insert(name.to_owned(), value.to_owned());
        }
        let globals = GlobalArguments {
            timeout: self.timeout,
            chdir: self.cwd,
            env: (!env.is_empty()).then_some(env),
            continue_on_error: self.keep_going.then_some(true),
            ignore_errors: self.keep_going.then_some(false),
            ..GlobalArguments::default()
        };
        let stdin = self.stdin.map(|file| if file == Path::new("-") { Input::Own } else { Input::File(file) });
        Ok(Exec { what, stdin, globals, gather: self.gather, out_dir: self.out_dir })
    }
}

/// A time limit.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds such as 30".to_owned())?;
    if seconds > 0.0 && seconds.is_finite() { Ok(seconds) } else { Err("expected seconds above 0".to_owned()) }
}

/// An input that all hosts read, each at its own pace. It is a file without a name, so that nothing of it is left however infra ends.
pub struct Spool {
    file: File,
}

impl Spool {
    /// Takes all of an input.
    ///
    /// # Errors
    /// When it cannot be read, or there is no room for it in the folder of temporary files.
    pub async fn of(mut input: impl AsyncRead + Unpin) -> std::io::Result<Self> {
        let file = nameless(&std::env::temp_dir())?;
        let mut writer = tokio::fs::File::from_std(file.try_clone()?);
        tokio::io::copy(&mut input, &mut writer).await?;
        writer.flush().await?;
        Ok(Self { file })
    }

    /// A path that leads this process to it, each time from its beginning.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

fn nameless(folder: &Path) -> std::io::Result<File> {
    let moment = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let path = folder.join(format!(".infra-stdin-{}-{moment}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
