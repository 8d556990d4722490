//! What is written to a `sh` of ours: scripts within scripts, none of which is ever an argument.
//!
//! Each shell runs [`BOOT`](crate::spawn::BOOT), which takes one line. A shell that serves commands is given a loop ([`open`]), which takes frames; any other one is
//! given a loader (one line), its script (as many lines as it has) and a random end line. Nothing is run before the end line has come, so half a
//! script is no script. A shell may start another one, which reads its own loader from the same input; what remains after the last of them is the
//! payload of the command.
//!
//! A frame begins with the tag of its shell, which has 128 random bits. Lines that do not are let go: what a command left of its payload is never run.

use infra_core::command::Shell;
use infra_core::privilege::{Privilege, Tool};
use infra_core::sh;

use crate::privilege::{Door, at_a_terminal, shell_is_there};
use crate::receipts::{Marks, Tag};
use crate::spawn::BOOT;

/// What the marks of a conversation say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The shell that changes the user is there; its process id.
    Up,
    /// The lock of the machine has answered; a number of [`crate::lock_script`].
    Lock,
    /// The shell that serves the command takes it; its process id.
    Ready,
    /// The shell of the command is there; its process id, which is that of its process group.
    Group,
    /// The command begins: what was printed before is not its output.
    Begin,
    /// The question with this place was answered; the exit status, and what [`crate::together`] adds to it.
    Answer(usize),
    /// The command ended; the exit status.
    End,
    /// The shell that serves is done with a frame, however that ended; which frame, from 1.
    Over,
    /// The change of user ended; its exit status. Without a [`Mark::Begin`] it never happened.
    Down,
    /// sudo asks for a password: this is its prompt.
    Asks,
    /// What comes next on the second output, and ends within a line, is the prompt of this program.
    Next(Tool),
    /// The shell of another user is there.
    Open,
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

    /// The number of the hello.
    pub(crate) fn number(self) -> i64 {
        i64::from(self.setsid) + 2 * i64::from(self.utf8) + 4 * i64::from(self.serves)
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

/// A script longer than this, in bytes, is read by a process of its own where that reads no more than it is told to: a shell has a system call for each byte.
const LONG: usize = 4096;

/// The same, with a script that may be long.
fn load_long(abilities: Abilities, script: &str) -> String {
    if !abilities.serves || script.len() <= LONG {
        return load(script);
    }
    let end = Tag::random();
    let end = end.as_str();
    let size = script.len() + 1 + end.len();
    format!(
        "infra_s=$(head -c {size});case $infra_s in *{end}) eval \"unset infra_l infra_s;${{infra_s%{end}}}\";exit;;esac;exit 125\n{script}\n{end}"
    )
}

/// How the shell of a command differs from any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dress<'d> {
    /// Which shell it is; `sh` where not given.
    pub(crate) shell: Option<&'d str>,
    /// Whether it has a terminal of its own.
    pub(crate) terminal: bool,
}

/// What makes a shell that runs `BOOT` serve frames with this tag until its input ends.
fn serve(tag: &Tag) -> String {
    let over = tag.say("$infra_k");
    let tag = tag.as_str();
    // Each frame has a subshell: what it sets, and where it ends, is its own. How it ended is known to the next one. Who is not heard any more serves no
    // more: frames may have been sent ahead.
    format!(
        "infra_k=0;infra_o=0;while IFS= read -r infra_l;do case $infra_l in {tag}*)(eval \"${{infra_l#{tag}}}\");infra_o=$?;\
         infra_k=$((infra_k+1));{over}||exit;;esac;done\n"
    )
}

/// The same as somebody else, where a privilege is given. Nothing in it asks for a password: what would, ends.
/// `lock` is what the shell of the user who is logged in does for the lock before it becomes that user's; it never keeps it from that.
pub(crate) fn open(marks: &mut Marks<Mark>, privilege: Option<&Privilege>, tag: &Tag, lock: Option<&Shell>) -> String {
    let Some(privilege) = privilege else { return serve(tag) };
    let (up, down) = (marks.add(Mark::Up).say("$$"), marks.add(Mark::Down).say("$?"));
    let command = crate::privilege::command(privilege, None, false);
    let locking = locking(marks, lock);
    load(&format!("{up}\n{locking}unset infra_k\n{command}\n{down}")) + &enter(tag)
}

/// What a shell of another user is told once it is there.
pub(crate) fn enter(tag: &Tag) -> String {
    format!("unset LC_ALL;{}", serve(tag))
}

/// What makes a shell that runs `BOOT` start one of somebody else, with the marks that tell what is asked meanwhile. That shell waits for
/// [`enter`], which is not sent before it has said that it is there.
pub(crate) fn knock(marks: &mut Marks<Mark>, privilege: &Privilege, doas_asks: bool) -> String {
    let (up, down) = (marks.add(Mark::Up).say("$$"), marks.add(Mark::Down).say("$?"));
    let (asks, su, open) = (marks.add(Mark::Asks), marks.add(Mark::Next(Tool::Su)), marks.add(Mark::Open));
    let mut command = crate::privilege::command(privilege, Some(&Door { asks: &asks, su: &su, open: &open }), doas_asks);
    if doas_asks {
        command = at_a_terminal(&command, &marks.add(Mark::Next(Tool::Doas)));
    }
    load(&format!("{up}\n{command}\n{down}"))
}

/// Starts a shell on a terminal of its own, whose script and payload come from where those of any other shell do.
fn on_a_terminal(shell: &str) -> Shell {
    // Marks are lines, which a terminal would end in its own way; and it would show what we send.
    let inner = sh!("stty -onlcr -echo && exec {} -c {} <&3 3<&-", shell, BOOT);
    let message = "there is no script(1) on the host, which `_get_pty` needs";
    sh!(
        "{ command -v script >/dev/null 2>&1 || { printf '%s\\n' {}; false; }; } && SHELL=/bin/sh script -q -e -c {} /dev/null 3<&0 </dev/null",
        message,
        inner.as_str()
    )
}

/// A frame. What the one before left of a line is ended first. One that is `after` another is done only where that ended well, and otherwise let go, line
/// by line, and so is every one that is after it.
fn frame(tag: &Tag, after: bool, script: &str) -> String {
    let condition = if after { "case $infra_o in 0);;*)exit \"$infra_o\";;esac;" } else { "" };
    // Twice, since bash(1) in a UTF-8 locale takes a newline behind half a character into it.
    format!("\n\n{}{condition}{}", tag.as_str(), load(script))
}

/// The first words of a host: what it can do, which may be known from an earlier run.
pub(crate) fn hello(marks: &mut Marks<Mark>, tag: &Tag, known: Option<Abilities>) -> String {
    if let Some(known) = known {
        return frame(tag, false, &marks.add(Mark::Up).print(&known.number().to_string()));
    }
    let up = marks.add(Mark::Up).print("$infra_c");
    // A tool that reads ahead takes what is meant for the next one: the loop would wait for ever.
    frame(
        tag,
        false,
        &format!(
            "infra_c=0\ncommand -v setsid >/dev/null 2>&1 && infra_c=1\n\
             case $(LC_ALL=C.UTF-8 locale charmap 2>/dev/null) in UTF-8) infra_c=$((infra_c+2));; esac\n\
             infra_x=$(printf 'l\\na\\0\\377bX\\n' | {{ IFS= read -r infra_y; head -c 4 | od -An -tx1; IFS= read -r infra_y && echo \"$infra_y\"; }} 2>/dev/null)\n\
             case $infra_x in *61*00*ff*62*X) infra_c=$((infra_c+4));; esac\n{up}\nunset infra_c infra_r infra_x infra_y"
        ),
    )
}

/// What stands before a command in the shell that serves it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Before<'b> {
    /// What concerns the lock, with its status in `infra_k`; unless that is 0, the command is not run.
    pub(crate) lock: Option<&'b Shell>,
    /// As whom this command alone runs.
    pub(crate) privilege: Option<&'b Privilege>,
    /// Whether the command is not run unless the one before it ended with 0.
    pub(crate) after: bool,
}

/// A script of the lock, and what tells its answer.
fn locking(marks: &mut Marks<Mark>, lock: Option<&Shell>) -> String {
    lock.map_or_else(String::new, |lock| format!("{lock}{}\n", marks.add(Mark::Lock).print("$infra_k")))
}

/// A frame that begins with this mark: `run`, which starts another shell, unless the lock is against it. It ends as that does.
fn guarded(marks: &mut Marks<Mark>, [first, last]: [Mark; 2], tag: &Tag, before: Before<'_>, run: &str) -> String {
    let first = marks.add(first).say("$$");
    let locking = locking(marks, before.lock);
    let run = match before.lock {
        Some(_) => format!("case $infra_k in 0) unset infra_k\n{run}\n;; *) (exit 255);; esac"),
        None => run.to_owned(),
    };
    let last = marks.add(last).say("$?");
    // The lines of the other shell are let go where it was not started.
    frame(tag, before.after, &format!("{first}\n{locking}{run}\n{last}\nexit \"$infra_r\""))
}

/// Everything to be written to a shell that serves frames with this tag to have a script of the lock run, and nothing else.
pub(crate) fn lock_alone(marks: &mut Marks<Mark>, tag: &Tag, lock: &Shell) -> String {
    guarded(marks, [Mark::Ready, Mark::End], tag, Before { lock: Some(lock), ..Before::default() }, ":")
}

/// Everything to be written to a shell that serves frames with this tag to have `script` run in a process group of its own.
pub(crate) fn command(
    marks: &mut Marks<Mark>,
    abilities: Abilities,
    tag: &Tag,
    before: Before<'_>,
    dress: Dress<'_>,
    script: &str,
) -> String {
    let shell = dress.shell.unwrap_or("sh");
    // setsid(1) goes into a session of its own without a fork, as a shell without job control does not make its children group leaders;
    // so the shell waits for the command itself, in the foreground, where no signal is ignored.
    let start = if abilities.setsid { sh!("exec setsid {} -c {}", shell, BOOT) } else { sh!("exec {} -c {}", shell, BOOT) };
    let start = if dress.terminal { on_a_terminal(shell) } else { start };
    let check = dress.shell.map_or_else(Shell::default, |shell| sh!("{} && ", shell_is_there(shell)));
    // A shell says of a command that was killed that it was (`Terminated`); these are no words of the command. The `:` keeps dash(1) from taking the subshell
    // for the whole group: then it would say so after the group.
    let start = format!("{check}{{ :;( exec 2>&9 9>&-;{start} );}} 9>&2 2>/dev/null");
    let mut text = match before.privilege {
        None => guarded(marks, [Mark::Ready, Mark::End], tag, before, &start),
        Some(privilege) => {
            let change = crate::privilege::command(privilege, None, false);
            let outer = guarded(marks, [Mark::Up, Mark::Down], tag, before, change.as_str());
            let (ready, end) = (marks.add(Mark::Ready).say("$$"), marks.add(Mark::End).say("$?"));
            outer + &load(&format!("unset LC_ALL\n{ready}\n{start}\n{end}\nexit \"$infra_r\""))
        }
    };
    let group = if abilities.setsid || dress.terminal { marks.add(Mark::Group).say("$$") + ";unset infra_r\n" } else { String::new() };
    text.push_str(&load_long(abilities, &format!("{group}{script}")));
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// What a shell prints and how it ends that is given this text and no more.
    fn given(text: &[u8]) -> (String, Option<i32>) {
        let mut shell = Command::new("sh");
        let mut shell = shell.args(["-c", BOOT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        // It may end before it has read everything.
        let _ = shell.stdin.take().expect("its input").write_all(text);
        let output = shell.wait_with_output().expect("a shell");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }

    #[test]
    fn a_script_is_run_whole_or_not_at_all() {
        let abilities = Abilities { setsid: true, utf8: true, serves: true };
        for padding in [0, LONG] {
            let script = format!("echo begun\n: {}\ncat; echo \"[${{infra_s-}}]\"; exit 7", "x".repeat(padding));
            let mut text = load_long(abilities, &script);
            for cut in [1, text.len() / 4, text.len() / 2, text.len() - 40, text.len() - 2] {
                let (said, status) = given(&text.as_bytes()[..cut]);
                assert!(said.is_empty() && status != Some(7), "{cut} of {} bytes: {said} {status:?}", text.len());
            }
            text.push_str("the rest\n");
            assert_eq!(given(text.as_bytes()), ("begun\nthe rest\n[]\n".to_owned(), Some(7)));
        }
    }
}
