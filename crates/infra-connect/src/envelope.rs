//! What is written to a `sh` of ours: scripts within scripts, none of which is ever an argument.
//!
//! Each shell runs [`BOOT`](crate::spawn::BOOT), which takes one line. A shell that serves commands is given a loop ([`open`]), which takes frames; any other one is
//! given a loader (one line), its script (as many lines as it has) and a random end line. Nothing is run before the end line has come, so half a
//! script is no script. A shell may start another one, which reads its own loader from the same input; what remains after the last of them is the
//! payload of the command.
//!
//! A frame begins with the tag of its shell, which has 128 random bits. Lines that do not are let go: what a command left of its payload is never run.

use infra_core::command::quote;

use crate::receipts::{Marks, Tag};
use crate::spawn::BOOT;

/// What the marks of a conversation say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The shell that changes the user is there; its process id.
    Up,
    /// The shell that serves the command takes it; its process id.
    Ready,
    /// The shell of the command is there; its process id, which is that of its process group.
    Group,
    /// The command begins: what was printed before is not its output.
    Begin,
    /// The question with this place was answered; the exit status.
    Answer(usize),
    /// The command ended; the exit status.
    End,
    /// The shell that serves is done with a frame, however that ended; which frame, from 1.
    Over,
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
    /// Its tools read no more of their input than they are told to, so that one shell can serve many commands.
    pub(crate) serves: bool,
}

impl Abilities {
    /// From the number of the hello.
    pub(crate) fn from_number(number: i64) -> Self {
        Self { setsid: number & 1 != 0, utf8: number & 2 != 0, serves: number & 4 != 0 }
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

/// What makes a shell that runs `BOOT` serve frames with this tag until its input ends, as `user` where given.
pub(crate) fn open(marks: &mut Marks<Mark>, user: Option<&str>, tag: &Tag) -> String {
    let over = tag.say("$infra_k");
    let tag = tag.as_str();
    // Each frame has a subshell: what it sets, and where it ends, is its own. How it ended is known to the next one. Who is not heard any more serves no
    // more: frames may have been sent ahead.
    let serve = format!(
        "infra_k=0;infra_o=0;while IFS= read -r infra_l;do case $infra_l in {tag}*)(eval \"${{infra_l#{tag}}}\");infra_o=$?;\
         infra_k=$((infra_k+1));{over}||exit;;esac;done\n"
    );
    let Some(user) = user else { return serve };
    let (up, down) = (marks.add(Mark::Up).say("$$"), marks.add(Mark::Down).say("$?"));
    let (sudo, boot) = (crate::privilege::sudo(user), quote(BOOT));
    // The locale is for sudo's own messages, which are read.
    load(&format!("{up}\nLC_ALL=C {sudo} sh -c {boot}\n{down}")) + "unset LC_ALL;" + &serve
}

/// A frame. What the one before left of a line is ended first; twice, for bash(1) in a UTF-8 locale takes a newline behind half a character into it.
fn frame(tag: &Tag, script: &str) -> String {
    format!("\n\n{}{}", tag.as_str(), load(script))
}

/// A frame that is done only where the command of the one before ended with one of these statuses. Otherwise it is let go, line by line, and so is every
/// one behind it that has such a condition.
fn frame_after(tag: &Tag, good: &[i32], script: &str) -> String {
    let good: Vec<String> = good.iter().map(i32::to_string).collect();
    format!("\n\n{}case $infra_o in {});;*)exit \"$infra_o\";;esac;{}", tag.as_str(), good.join("|"), load(script))
}

/// The first words of a host: what it can do.
pub(crate) fn hello(marks: &mut Marks<Mark>, tag: &Tag) -> String {
    let up = marks.add(Mark::Up).print("$infra_c");
    // A tool that reads ahead takes what is meant for the next one: the loop would wait for ever.
    frame(
        tag,
        &format!(
            "infra_c=0\ncommand -v setsid >/dev/null 2>&1 && infra_c=1\n\
             case $(LC_ALL=C.UTF-8 locale charmap 2>/dev/null) in UTF-8) infra_c=$((infra_c+2));; esac\n\
             infra_x=$(printf 'l\\na\\0\\377bX' | {{ IFS= read -r infra_y; head -c 4 | od -An -tx1 | tr -d ' \\n'; cat; }} 2>/dev/null)\n\
             [ \"$infra_x\" = 6100ff62X ] && infra_c=$((infra_c+4))\n{up}\nunset infra_c infra_r infra_x infra_y"
        ),
    )
}

/// Everything to be written to a shell that serves frames with this tag to have `script` run in a process group of its own; where given, only after a
/// command that ended with one of these statuses.
pub(crate) fn command(marks: &mut Marks<Mark>, abilities: Abilities, tag: &Tag, script: &str, after: Option<&[i32]>) -> String {
    let ready = marks.add(Mark::Ready).say("$$");
    let boot = quote(BOOT);
    let start = if abilities.setsid { "setsid sh" } else { "sh" };
    let end = marks.add(Mark::End).say("$?");
    // setsid(1) goes into a session of its own without a fork, as a shell without job control does not make its children group leaders;
    // so the shell waits for the command itself, in the foreground, where no signal is ignored.
    let serve = format!("{ready}\n{start} -c {boot}\n{end}\nexit \"$infra_r\"");
    let mut text = after.map_or_else(|| frame(tag, &serve), |good| frame_after(tag, good, &serve));
    let group = if abilities.setsid { marks.add(Mark::Group).say("$$") + ";unset infra_r\n" } else { String::new() };
    text.push_str(&load(&format!("{group}{script}")));
    text
}
