//! Shell text, built from typed parts.
//!
//! A command is never made by pasting strings: [`sh!`](crate::sh) takes a literal with holes, and each value that goes into a hole is
//! quoted by its type. The text is POSIX `sh` (IEEE Std 1003.1, *Shell Command Language*).

use serde::{Deserialize, Serialize};

use crate::change::Content;

/// Text for a POSIX shell. Two of them join; a string does not become one by accident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shell(String);

/// A value that can stand in a hole of [`sh!`](crate::sh).
pub trait ToShell {
    /// Appends the value to `out`, quoted as its type demands.
    fn to_shell(&self, out: &mut String);
}

/// Why a text with holes could not be filled: the number of holes and of values differ.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the text has {holes} holes `{{}}` but {values} values were given")]
pub struct HolesError {
    /// How many `{}` the text has.
    pub holes: usize,
    /// How many values were given for them.
    pub values: usize,
}

impl Shell {
    /// Text that a person wrote as shell text, taken as it is.
    ///
    /// This is for what the user of infra gave as a command. Everything else is built with [`sh!`](crate::sh).
    pub fn verbatim(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Fills each `{}` of `text` with the value in its place, quoted by its type.
    ///
    /// Only the two characters `{}` are a hole; `${name}` and other braces pass as they are.
    ///
    /// # Errors
    /// [`HolesError`] when the number of holes is not the number of values.
    pub fn fill(text: &str, values: &[&dyn ToShell]) -> Result<Self, HolesError> {
        let holes = text.matches("{}").count();
        if holes != values.len() {
            return Err(HolesError { holes, values: values.len() });
        }
        let mut out = String::with_capacity(text.len() + 16 * values.len());
        let mut parts = text.split("{}");
        out.push_str(parts.next().unwrap_or_default());
        for (part, value) in parts.zip(values) {
            value.to_shell(&mut out);
            out.push_str(part);
        }
        Ok(Self(out))
    }

    /// Joins shell texts with a separator such as `" && "` or `"\n"`.
    pub fn join(separator: &'static str, parts: impl IntoIterator<Item = Shell>) -> Self {
        let mut out = String::new();
        for (index, part) in parts.into_iter().enumerate() {
            if index > 0 {
                out.push_str(separator);
            }
            out.push_str(&part.0);
        }
        Self(out)
    }

    /// An argument vector as one command: each word quoted as given.
    pub fn argv<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        let quoted: Vec<String> = words.into_iter().map(|word| quote(word.as_ref())).collect();
        Self(quoted.join(" "))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Shell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Builds a [`Shell`] from a literal whose holes `{}` are filled with values quoted by their types.
///
/// ```
/// use infra_core::sh;
/// let path = "/tmp/it's here";
/// assert_eq!(sh!("rm -f -- {}", path).as_str(), r"rm -f -- '/tmp/it'\''s here'");
/// ```
#[macro_export]
macro_rules! sh {
    ($text:literal $(, $value:expr)* $(,)?) => {
        $crate::command::Shell::fill($text, &[$(&$value as &dyn $crate::command::ToShell),*])
            .expect("a literal of sh! has as many holes as values")
    };
}

/// Quotes a string as one word of a POSIX shell (single quotes; *Shell Command Language*, section 2.2.2).
///
/// Words made of letters, digits and `%+,-./:@_` alone are given back as they are; everything else is quoted, also a word with
/// `=` (which could be an assignment) or `~` (which would be expanded).
pub fn quote(word: &str) -> String {
    let plain = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"%+,-./:@_".contains(&b));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

impl ToShell for str {
    fn to_shell(&self, out: &mut String) {
        out.push_str(&quote(self));
    }
}

impl ToShell for String {
    fn to_shell(&self, out: &mut String) {
        self.as_str().to_shell(out);
    }
}

impl<T: ToShell + ?Sized> ToShell for &T {
    fn to_shell(&self, out: &mut String) {
        (**self).to_shell(out);
    }
}

impl ToShell for Shell {
    fn to_shell(&self, out: &mut String) {
        out.push_str(&self.0);
    }
}

/// A list is its items, each quoted, with a space between.
impl<T: ToShell> ToShell for [T] {
    fn to_shell(&self, out: &mut String) {
        for (index, item) in self.iter().enumerate() {
            if index > 0 {
                out.push(' ');
            }
            item.to_shell(out);
        }
    }
}

impl<T: ToShell> ToShell for Vec<T> {
    fn to_shell(&self, out: &mut String) {
        self.as_slice().to_shell(out);
    }
}

macro_rules! numbers_to_shell {
    ($($number:ty),*) => {
        $(impl ToShell for $number {
            fn to_shell(&self, out: &mut String) {
                out.push_str(&self.to_string());
            }
        })*
    };
}
numbers_to_shell!(u8, u16, u32, u64, usize, i32, i64);

/// One step on a host: shell text, and what it reads on its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The text for `sh`.
    pub script: Shell,
    /// Bytes for its standard input; none means `/dev/null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Vec<u8>>,
    /// A file of the controller that it reads on its standard input, in place of bytes. It is sent as it is read, so its size does not matter; changed since
    /// it was looked at, the step fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_file: Option<Content>,
    /// Whether it may leave processes behind (a service start, a user's script), so that a shell it ran in is not used again.
    #[serde(default)]
    pub leaves_processes: bool,
    /// How long it may take where it reads a fact, in seconds; as long as any other where not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patience: Option<u32>,
    /// The same in parts, where one process can do some of them for many commands.
    #[serde(skip)]
    pub parts: Option<Parts>,
}

/// A command that reads a fact about one thing, in parts that are the same for all things: in each of them, `"$1"` is the thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The thing, such as a path.
    pub about: String,
    /// The lines that come first, which a program can print about many things.
    pub lines: Vec<Line>,
    /// What holds, with nothing but the shell itself, where there is no such thing. There the program of the first line says why it prints none, on standard
    /// error, in a line that has the thing between quotes or spaces and a colon behind it; and that is the answer, with the exit status 1.
    pub gone: Shell,
    /// What prints these lines by itself; where it does not end well, nothing more is done.
    pub first: Shell,
    /// What is done after that. It leaves the shell that it runs in as it is.
    pub rest: Shell,
}

/// A line that a program prints about a thing. Asked about many, it prints one for each, in their order, and ends each of them with the thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The program, and all that stands before the things.
    pub program: Shell,
    /// What stands before the thing at the end of a line.
    pub separator: &'static str,
    /// What holds, with nothing but the shell itself, where the program has a line about the thing `"$1"`.
    pub given: Shell,
    /// How long the program may take, in seconds, where it reads more than what stands about the thing.
    pub patience: Option<u32>,
}

impl Command {
    /// A command with nothing on its standard input.
    pub fn new(script: Shell) -> Self {
        Self { script, stdin: None, stdin_file: None, leaves_processes: false, patience: None, parts: None }
    }

    /// The same command, marked as one that may leave processes behind.
    pub fn leaving_processes(mut self) -> Self {
        self.leaves_processes = true;
        self
    }

    /// The same command, which may take this many seconds where it reads a fact: one that reads whole files.
    pub fn taking_up_to(mut self, seconds: u32) -> Self {
        self.patience = Some(seconds);
        self
    }

    /// A command that reads a fact about one thing.
    pub fn in_parts(parts: Parts) -> Self {
        let mut command = Self::new(crate::sh!("set -- {}\n{ {}\n} && { {}\n}", parts.about, parts.first, parts.rest));
        command.parts = parts.is_one_line().then_some(parts);
        command
    }

    /// The same command, reading this file of the controller on its standard input.
    pub fn with_stdin_file(mut self, file: Content) -> Self {
        self.stdin_file = Some(file);
        self
    }

    /// The same command, reading these bytes on its standard input.
    pub fn with_stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }
}

impl Parts {
    /// Whether the thing can be told at the end of a line. Programs escape a backslash in a name, each in its own way, and a `-` would be the standard input.
    fn is_one_line(&self) -> bool {
        !matches!(self.about.as_str(), "" | "-") && !self.about.contains(['\n', '\r', '\0', '\\'])
    }
}

impl From<Shell> for Command {
    fn from(script: Shell) -> Self {
        Self::new(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_needed() {
        for (word, quoted) in [
            ("plain", "plain"),
            ("", "''"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("~root", "'~root'"),
            ("a=b", "'a=b'"),
            ("$HOME", "'$HOME'"),
            ("é", "'é'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    #[test]
    fn holes_are_filled_by_type() {
        let inner = sh!("echo {}", "a b");
        assert_eq!(sh!("sh -c {}", inner.as_str()).as_str(), r"sh -c 'echo '\''a b'\'''");
        assert_eq!(sh!("{} | wc -l", inner).as_str(), "echo 'a b' | wc -l");
        assert_eq!(sh!("kill -{} {}", 9, vec!["1", "2 3"]).as_str(), "kill -9 1 '2 3'");
        assert_eq!(sh!("echo ${x:-1}").as_str(), "echo ${x:-1}");
    }

    #[test]
    fn a_wrong_number_of_values_is_an_error() {
        assert_eq!(Shell::fill("{} {}", &[&"a"]), Err(HolesError { holes: 2, values: 1 }));
    }

    #[test]
    fn an_argv_keeps_its_words() {
        assert_eq!(Shell::argv(["echo", "a   b"]).as_str(), "echo 'a   b'");
    }
}
