//! What is written to a `sh` of ours: scripts within scripts, none of which is ever an argument.
//!
//! Each shell runs [`BOOT`](crate::spawn::BOOT) and is given a loader (one line), its script (as many lines as it has) and a random end line.
//! Nothing is run before the end line has come, so half a script is no script. A shell may start another one, which reads its own loader
//! from the same input; what remains after the last of them is the payload of the command.

use infra_core::command::{Shell, quote};

use crate::receipts::{Marks, Tag};
use crate::spawn::BOOT;

/// What the marks of a conversation say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first shell has its script; its process id.
    Up,
    /// The lock of the machine has answered; a number of [`crate::lock_script`].
    Lock,
    /// The shell of the command is there; its process id, which is that of its process group.
    Group,
    /// The command begins: what was printed before is not its output.
    Begin,
    /// The question with this place was answered; the exit status.
    Answer(usize),
    /// The command ended; the exit status.
    End,
    /// The change of user ended; its exit status. Without a [`Mark::Begin`] it never happened.
    Down,
}

/// What a host can do, told by its first shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// There is a setsid(1).
    pub(crate) setsid: bool,
    /// There is the locale `C.UTF-8`.
    pub(crate) utf8: bool,
}

impl Abilities {
    /// From the number of the hello.
    pub(crate) fn from_number(number: i64) -> Self {
        Self { setsid: number & 1 != 0, utf8: number & 2 != 0 }
    }

    /// The locale for what is parsed.
    pub(crate) fn locale(self) -> &'static str {
        if self.utf8 { "C.UTF-8" } else { "C" }
    }
}

/// A script for a shell that runs `BOOT`.
fn load(script: &str) -> String {
    let end = Tag::random();
    let end = end.as_str();
    // The variables are gone before the script runs: `set` in somebody's command must not print our tags.
    format!(
        "infra_n=$(echo;echo x);infra_n=${{infra_n%x}};infra_s=;while IFS= read -r infra_l;do if [ \"$infra_l\" = {end} ];then \
         eval \"unset infra_l infra_n infra_s;$infra_s\";exit;fi;infra_s=$infra_s$infra_l$infra_n;done;exit 125\n{script}\n{end}\n"
    )
}

/// The first words of a host: what it can do. Then it reads until its input ends.
pub(crate) fn hello(marks: &mut Marks<Mark>) -> String {
    let up = marks.add(Mark::Up).print("$infra_c");
    load(&format!(
        "infra_c=0\ncommand -v setsid >/dev/null 2>&1 && infra_c=1\n\
         case $(LC_ALL=C.UTF-8 locale charmap 2>/dev/null) in UTF-8) infra_c=$((infra_c+2));; esac\n{up}\nexec cat >/dev/null 2>&1"
    ))
}

/// What stands before the command in the first shell, which is that of the user who is logged in: the lock, whose status is in `infra_k`. Unless that is
/// `go_on`, nothing more is done.
fn before(marks: &mut Marks<Mark>, lock: Option<&Shell>, go_on: &str) -> String {
    let Some(lock) = lock else { return String::new() };
    let answer = marks.add(Mark::Lock).print("$infra_k");
    format!("{lock}{answer}\ncase $infra_k in {go_on}) ;; *) exit 0;; esac\nunset infra_k\n")
}

/// Everything to be written to have a script of the lock run, and nothing else.
pub(crate) fn lock_alone(marks: &mut Marks<Mark>, lock: &Shell) -> String {
    let up = marks.add(Mark::Up).say("$$");
    load(&format!("{up}\n{}exit 0", before(marks, Some(lock), "0")))
}

/// Everything to be written to have `script` run by a shell in a process group of its own, as `user` where given; after `lock`, where that has nothing against it.
pub(crate) fn command(marks: &mut Marks<Mark>, abilities: Abilities, user: Option<&str>, lock: Option<&Shell>, script: &str) -> String {
    let up = marks.add(Mark::Up).say("$$") + "\n" + before(marks, lock, "0").trim_end();
    let up = up.trim_end();
    let boot = quote(BOOT);
    let start = if abilities.setsid { "setsid sh" } else { "sh" };
    let end = marks.add(Mark::End).say("$?");
    // setsid(1) goes into a session of its own without a fork, as a shell without job control does not make its children group leaders;
    // so the shell waits for the command itself, in the foreground, where no signal is ignored.
    let run = format!("{start} -c {boot}\n{end}");
    let mut text = match user {
        None => load(&format!("{up}\n{run}")),
        Some(user) => {
            let down = marks.add(Mark::Down).say("$?");
            let sudo = crate::privilege::sudo(user);
            // The locale is for sudo's own messages, which are read.
            load(&format!("{up}\nLC_ALL=C {sudo} sh -c {boot}\n{down}")) + &load(&format!("unset LC_ALL\n{run}"))
        }
    };
    let group = if abilities.setsid { marks.add(Mark::Group).say("$$") + ";unset infra_r\n" } else { String::new() };
    text.push_str(&load(&format!("{group}{script}")));
    text
}
