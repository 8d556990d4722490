//! What Lua needs from the world outside: handed in by whoever runs it, so that this crate opens nothing by itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use infra_core::BoxFuture;
use infra_core::secret::Secrets;

/// Files, the environment, commands of the controller, and a place to write to.
///
/// All but [`run`](World::run) is called on the threads of the scripts and may block for as long as reading a local file takes.
pub trait World: Send + Sync + 'static {
    /// The content of a file, by absolute path.
    ///
    /// # Errors
    /// As the system says.
    fn read_file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Whether there is something at this absolute path.
    fn exists(&self, path: &Path) -> bool;

    /// The names of what is in a folder, in any order.
    ///
    /// # Errors
    /// As the system says; [`io::ErrorKind::NotFound`] where there is no such folder.
    fn list_folder(&self, path: &Path) -> io::Result<Vec<String>>;

    /// An environment variable of the controller.
    fn environment(&self, name: &str) -> Option<String>;

    /// Runs a command on the controller to its end.
    ///
    /// # Errors
    /// When it could not be started, or its output could not be read.
    fn run(&self, command: LocalCommand) -> BoxFuture<'_, io::Result<LocalOutput>>;

    /// All secrets of the run: what scripts take as one is known there from then on.
    fn secrets(&self) -> &Secrets;

    /// Asks the person who started infra, one question at a time, and gives what was typed; none where there is no terminal to ask at.
    ///
    /// # Errors
    /// When the terminal cannot be used.
    fn ask(&self, question: Question) -> BoxFuture<'_, io::Result<Option<String>>>;

    /// Writes a line to the log, for a host where one is meant.
    fn log(&self, host: Option<&str>, text: &str);

    /// The absolute path of the working directory, from which names of files are shown and found.
    fn working_directory(&self) -> PathBuf;
}

/// A question to the person who started infra.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its text, without a colon at its end.
    pub text: String,
    /// Whether what is typed must not be seen.
    pub hidden: bool,
}

/// A command for the controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalCommand {
    /// The program and its arguments, one word each; never empty.
    pub argv: Vec<String>,
    /// What it reads on its standard input; nothing where not given.
    pub stdin: Option<Vec<u8>>,
    /// The directory to run in; the working directory where not given.
    pub chdir: Option<PathBuf>,
    /// Environment variables besides those that infra has.
    pub env: BTreeMap<String, String>,
}

/// What came of a [`LocalCommand`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalOutput {
    /// The exit code; none when a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// A path with `.` and `..` worked out as far as its spelling allows, below the working directory where it is relative.
pub(crate) fn absolute(world: &dyn World, path: &Path) -> PathBuf {
    normalise(&world.working_directory().join(path))
}

/// The same path without `.` and, where that does not depend on links, without doubled separators.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    // `..` stays: what it means depends on the links before it.
    path.components().filter(|part| !matches!(part, std::path::Component::CurDir)).collect()
}

/// A path as the user would write it: relative to the working directory where it is below it.
pub(crate) fn display(world: &dyn World, path: &Path) -> String {
    path.strip_prefix(world.working_directory()).unwrap_or(path).display().to_string()
}
