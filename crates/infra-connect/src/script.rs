//! The scripts of commands: what stands in the shell of a command before the command itself, and how a program of the user's is run.

use infra_core::change::{Content, ScriptRun};
use infra_core::command::{Command, Shell, quote};
use infra_core::global_arguments::{Context, is_variable};
use infra_core::sh;

use crate::receipts::Tag;

/// A shell function that says why nothing is done, and ends.
pub(crate) fn refuse() -> Shell {
    sh!("infra_no() { printf '%s\\n' \"$1\"; exit 1; }\n")
}

/// Shell functions for temporary files: `infra_sum` puts the SHA-256 digest of its input into `infra_h`.
pub(crate) fn digest() -> Shell {
    sh!("infra_sum() { if command -v sha256sum >/dev/null 2>&1; then infra_h=$(sha256sum)
elif command -v shasum >/dev/null 2>&1; then infra_h=$(shasum -a 256)
elif command -v busybox >/dev/null 2>&1; then infra_h=$(busybox sha256sum)
elif command -v openssl >/dev/null 2>&1; then infra_h=$(openssl dgst -sha256 -r)
else infra_no 'there is no sha256sum on the host'; fi; infra_h=${infra_h%% *}; }
")
}

/// Makes the file `$infra_t` of this content from the input, for this user alone, and removes it on every way out.
pub(crate) fn receive(content: &Content, bounded: bool) -> Shell {
    // From a shell that serves other commands after this one, no more is read than there is.
    let read = match (bounded, content.size()) {
        (false, _) => sh!("cat"),
        (true, 0) => sh!(":"),
        (true, size) => sh!("head -c {}", size),
    };
    sh!(
        "trap 'rm -f -- \"$infra_t\"' EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 141' PIPE; trap 'exit 143' TERM
( set -C; : >\"$infra_t\" ) || infra_no 'no file can be made there'
{} >\"$infra_t\" || infra_no 'the content cannot be written'
infra_sum <\"$infra_t\"
[ \"$infra_h\" = {} ] || infra_no 'what arrived is not what was sent'
",
        read,
        content.sha256()
    )
}

/// Sets the environment. A variable is set in the shell and never stands in an argument.
///
/// # Errors
/// When a name cannot be that of a variable, as a sentence fragment.
pub(crate) fn environment<'e>(variables: impl IntoIterator<Item = (&'e String, &'e String)>) -> Result<Shell, String> {
    let mut lines = Vec::new();
    for (name, value) in variables {
        if !is_variable(name) {
            return Err(format!("`{name}` cannot be the name of an environment variable"));
        }
        lines.push(sh!("export {}={}\n", Shell::verbatim(name.as_str()), value));
    }
    Ok(Shell::join("", lines))
}

/// Goes to the directory of a context, if it names one.
pub(crate) fn directory(context: &Context) -> Shell {
    match &context.chdir {
        None => Shell::default(),
        Some(folder) => {
            let message = format!("the directory {folder} cannot be entered");
            sh!("cd -- {} >/dev/null || infra_no {}\n", folder, message)
        }
    }
}

/// The script of one command.
///
/// # Errors
/// What cannot be said to a shell, as a sentence fragment.
pub(crate) fn run(command: &Command, context: &Context, begin: &Tag) -> Result<String, String> {
    let environment = environment(&context.env)?;
    let input = match (command.stdin.is_some() || command.stdin_file.is_some(), context.get_pty) {
        (true, _) => "",
        (false, true) => "exec </dev/tty\n",
        (false, false) => "exec </dev/null\n",
    };
    Ok(format!(
        "{}{}unset -f infra_no\n{input}{};unset infra_r\n{environment}{}",
        refuse(),
        directory(context),
        begin.say("0"),
        evaluate(&command.script)
    ))
}

/// A command whose syntax errors are its own.
pub(crate) fn evaluate(script: &Shell) -> String {
    // The space keeps text that begins with a dash from being an option.
    format!("eval {}", quote(&format!(" {script}")))
}

/// What runs a program, as its first line says: the interpreter and its one argument.
///
/// # Errors
/// When it is no text that something could interpret, as a sentence fragment.
pub(crate) fn interpreter(first_bytes: &[u8]) -> Result<Vec<String>, String> {
    let line = first_bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.contains(&0) {
        return Err("it is no script: its first line holds NUL bytes".to_owned());
    }
    let Some(words) = line.strip_prefix(b"#!") else { return Ok(vec!["sh".to_owned()]) };
    let words = std::str::from_utf8(words).map_err(|_| "its first line is not UTF-8".to_owned())?.trim();
    // As the kernel reads it (execve(2)): one path, and all of the rest is one argument.
    let (path, argument) = words.split_once([' ', '\t']).unwrap_or((words, ""));
    if path.is_empty() {
        return Err("its first line names no interpreter".to_owned());
    }
    Ok([path, argument.trim()].into_iter().filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

/// The first bytes of a content, enough for a first line.
///
/// # Errors
/// When the local file cannot be read, as a sentence fragment.
pub(crate) async fn first_bytes(content: &Content) -> Result<Vec<u8>, String> {
    const ENOUGH: usize = 4096;
    match content {
        Content::Bytes(bytes) => Ok(bytes[..bytes.len().min(ENOUGH)].to_vec()),
        Content::LocalFile { path, .. } => {
            use tokio::io::AsyncReadExt;
            let mut bytes = Vec::new();
            let read = async { tokio::fs::File::open(path).await?.take(ENOUGH as u64).read_to_end(&mut bytes).await };
            read.await.map_err(|error| format!("the local file {path} cannot be read: {error}"))?;
            Ok(bytes)
        }
    }
}

/// Sets `infra_t` to the place of a program that is run once.
pub(crate) fn place(name: &str) -> Shell {
    sh!("case ${TMPDIR:-} in /*) infra_t=$TMPDIR;; *) infra_t=/tmp;; esac; infra_t=$infra_t/{}", name)
}

/// The script that receives a program, runs it and removes it. It is read by its interpreter, never executed, so `noexec` does not matter.
///
/// # Errors
/// What cannot be said to a shell, as a sentence fragment.
pub(crate) fn program(
    program: &ScriptRun,
    interpreter: &[String],
    place: &Shell,
    context: &Context,
    begin: &Tag,
    bounded: bool,
) -> Result<String, String> {
    let missing = format!("there is no {} on the host, which its first line asks for", interpreter[0]);
    let head = sh!(
        "{}{}infra_m=$(umask); umask 077\n{}\n{}umask \"$infra_m\"\nexec </dev/null\n",
        refuse(),
        digest(),
        place,
        receive(&program.content, bounded)
    );
    let check = sh!("command -v {} >/dev/null 2>&1 || infra_no {}\n", interpreter[0], missing);
    let run = sh!("{} \"$infra_t\" {}", interpreter.to_vec(), program.args);
    // In a shell of its own, so that the environment is not that of the `rm` which follows.
    Ok(format!(
        "{head}( {}{check}{};unset infra_r\n{}exec {run} )\nexit $?",
        directory(context),
        begin.say("0"),
        environment(&context.env)?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        for (text, wanted) in [
            ("#!/bin/sh\necho", vec!["/bin/sh"]),
            ("#! /usr/bin/env  python3 -u \nx", vec!["/usr/bin/env", "python3 -u"]),
            ("#!/bin/bash -eu", vec!["/bin/bash", "-eu"]),
            ("echo hi\n", vec!["sh"]),
            ("", vec!["sh"]),
        ] {
            assert_eq!(interpreter(text.as_bytes()), Ok(wanted.into_iter().map(str::to_owned).collect()), "{text}");
        }
        for bytes in [&b"\x7fELF\x02\x01\x01\0\0"[..], b"#!\n", b"#!/bin/\xff\n"] {
            assert!(interpreter(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn names_of_variables_are_checked() {
        for name in ["", "A-B", "1A", "A B", "é", "A=B"] {
            assert!(environment([(&name.to_owned(), &String::new())]).is_err(), "{name}");
        }
        let script = environment([(&"A_1".to_owned(), &"it's".to_owned())]);
        assert_eq!(script.expect("a good name").as_str(), "export A_1='it'\\''s'\n");
    }
}
