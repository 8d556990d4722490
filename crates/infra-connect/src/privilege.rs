//! Running as somebody else: the commands that change the user, and what their refusals mean.

use infra_core::command::Shell;
use infra_core::privilege::{Privilege, Tool, ways_out};
use infra_core::sh;

use crate::receipts::Tag;
use crate::spawn::BOOT;

/// [`BOOT`] without a dollar sign: `sudo -i` escapes every other character for the login shell that it goes through, but never that one.
const BOOT_THROUGH_LOGIN: &str = r"IFS= read -r infra_l && eval `printf 'eval \042\044infra_l\042'`";

/// What a shell that runs as somebody else says while it comes up.
pub(crate) struct Door<'t> {
    /// sudo's prompt is this mark, on the second output.
    pub(crate) asks: &'t Tag,
    /// Said on the second output right before su is started: what stands behind it at the end of a line that is still open is su's prompt.
    pub(crate) su: &'t Tag,
    /// Said on both outputs by the shell itself.
    pub(crate) open: &'t Tag,
}

/// A command that runs [`BOOT`] as a privilege says. Without a door nothing in it ever asks for a password: doas and sudo fail where they would.
/// With one, sudo and su ask; doas does so only in [`at_a_terminal`].
pub(crate) fn command(privilege: &Privilege, door: Option<&Door<'_>>, doas_asks: bool) -> Shell {
    let login = privilege.sudo.as_ref().is_some_and(|sudo| sudo.login);
    let mut boot = if login { BOOT_THROUGH_LOGIN } else { BOOT }.to_owned();
    if let Some(door) = door {
        let say = sh!("echo {}", door.open.line());
        boot = format!("{say};{say} >&2;{boot}");
    }
    let mut command = sh!("sh -c {}", boot);
    if let Some(su) = &privilege.su {
        let shell = su.shell.as_deref().or_else(|| (!su.login).then_some("/bin/sh"));
        let options = Shell::join("", [su.login.then(|| sh!("-l ")), shell.map(|shell| sh!("-s {} ", shell))].into_iter().flatten());
        command = sh!("su {}-c {} -- {}", options, format!("exec {command}"), su.user);
        if let Some(door) = door {
            command = sh!("sh -c {}", format!("{};exec {command}", sh!("echo {} >&2", door.su.line())));
        }
    }
    if let Some(sudo) = &privilege.sudo {
        let asks = door.map_or_else(|| sh!("-n"), |door| sh!("-S -p {}", format!("{}\n", door.asks.line())));
        let options = [(sudo.login, "-i "), (sudo.preserve_env, "-E ")].into_iter().filter(|(given, _)| *given);
        let options = Shell::join("", options.map(|(_, option)| Shell::verbatim(option)));
        command = sh!("sudo {} -H {}-u {} -- {}", asks, options, sudo.user, command);
    }
    if let Some(doas) = &privilege.doas {
        let quiet = if doas_asks { sh!("") } else { sh!("-n ") };
        command = sh!("doas {}-u {} -- {}", quiet, doas.user, command);
    }
    // The locale is for the messages of these programs, which are read.
    sh!("LC_ALL=C {}", command)
}

/// Runs such a command at a terminal of its own, which is what doas asks at. Its inputs and outputs are not those of the terminal: only the
/// one line goes there that comes first on the input. `next` is said before it.
pub(crate) fn at_a_terminal(command: &Shell, next: &Tag) -> Shell {
    let inner = format!("exec env {command} <&3 >&4 2>&5 3<&- 4>&- 5>&-");
    sh!(
        "if command -v script >/dev/null 2>&1; then
exec 3<&0 4>&1 5>&2
echo {} >&2
head -n 1 | SHELL=/bin/sh script -q -c {} /dev/null >&5
else echo 'doas asks for a password at a terminal only, and there is no script(1) on the host to make one' >&2
fi",
        next.line(),
        inner
    )
}

/// One command under sudo, for users who may run that one and no shell. It looks first whether it may, and never asks.
pub(crate) fn single(user: &str, words: &[String]) -> Shell {
    sh!("LC_ALL=C sudo -n -H -u {} -- {}", user, Shell::argv(words))
}

/// Whether sudo lets the user run this one command, as it says without being asked for a password.
pub(crate) fn may_run(user: &str, words: &[String]) -> Shell {
    sh!("sudo -n -l -u {} -- {} >/dev/null 2>&1", user, Shell::argv(words))
}

/// A shell command that is a program and its words, with nothing in it that only a shell understands.
pub(crate) fn simple(script: &str) -> Option<Vec<String>> {
    const BUILT_IN: &[&str] = &[
        "cd", "export", "unset", "eval", "exec", "exit", "set", "umask", "ulimit", "trap", "read", "wait", "return", "shift", "alias",
        "if", "while", "for", "until", "case", "source", ".", ":", "command", "type",
    ];
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = script.trim().chars();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            letter if letter.is_alphanumeric() || "%+,-./:@_=".contains(letter) => word.get_or_insert_default().push(letter),
            _ => return None,
        }
    }
    words.extend(word);
    let first = words.first()?;
    (!first.is_empty() && !first.contains('=') && !BUILT_IN.contains(&first.as_str())).then_some(words)
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This program asks for a password and had none.
    Needed(Tool),
    /// The password was wrong.
    Wrong(Tool),
    /// sudo does not let this user run a shell, or anything.
    NotAllowed,
    /// Anything else.
    Other,
}

/// Why a user could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What it is about.
    pub(crate) kind: Kind,
    /// Why and what to do, as there is no other place for that: a sentence fragment.
    pub(crate) message: String,
}

/// What was asked and cannot be answered.
pub(crate) fn needed(privilege: &Privilege, tool: Tool, why: &str) -> Refused {
    let user = privilege.user_of(tool).unwrap_or("root");
    Refused { kind: Kind::Needed(tool), message: format!("{tool} asks for a password to become {user}; {why}") }
}

/// Whether the password of somebody must be changed or the account is no longer valid: that is no question that we answer.
pub(crate) fn is_expired(printed: &str) -> bool {
    ["expired", "account validation failure", "equired to change", "no longer valid", "account is locked"]
        .iter()
        .any(|words| printed.contains(words))
}

/// Why a privilege could not be had, from the exit status of its command and what was printed.
pub(crate) fn refusal(privilege: &Privilege, status: i32, printed: &str) -> Refused {
    let says = |words: &str| printed.contains(words);
    let other = |message: String| Refused { kind: Kind::Other, message };
    let user = |tool| privilege.user_of(tool).unwrap_or("root").to_owned();
    let there = [Tool::Doas, Tool::Sudo, Tool::Su].into_iter().filter(|tool| privilege.user_of(*tool).is_some());
    for tool in there.clone() {
        let missing = ["not found", "command not found", "No such file", "inaccessible or not found"].iter();
        if missing.into_iter().any(|words| says(&format!("{tool}: {words}")) || says(&format!("'{tool}': {words}"))) {
            let instead = if tool == Tool::Su { "`_su_user`".to_owned() } else { format!("`_{tool}`") };
            return other(format!(
                "there is no {tool} on the host; install it, or log in as the user that is needed and leave {instead} out"
            ));
        }
    }
    if let (true, Some(tool)) = (is_expired(printed), there.clone().next_back()) {
        return other(format!(
            "{tool} says that the account or its password has expired: {}; log in once by hand and renew it, or have it renewed (chage(1))",
            last_line(printed).unwrap_or_default()
        ));
    }
    let of_sudo = Tool::Sudo;
    if says("incorrect password attempt") || says("Sorry, try again") || says("no password was provided") {
        return wrong(of_sudo);
    }
    if says("sudo: a password is required")
        || says("sudo: a terminal is required")
        || says("no askpass")
        || says("interactive authentication is required")
    {
        return needed(privilege, of_sudo, ways_out(of_sudo));
    }
    if says("not in the sudoers") || says("is not allowed to") || says("may not run sudo") {
        let user = user(of_sudo);
        let message = format!("sudo does not let this user become {user}; allow it in sudoers, or log in as {user}");
        return Refused { kind: Kind::NotAllowed, message };
    }
    if says("not allowed to preserve the environment") || says("not allowed to set the following environment") {
        return other(
            "sudo does not let this user keep the environment; leave `_sudo_preserve_env` out, or allow it (SETENV in sudoers)".to_owned(),
        );
    }
    if says("sudo: unknown user") || says("unknown uid") {
        return other(format!("sudo knows no user {} on the host", user(of_sudo)));
    }
    if says("must have a tty") {
        return other("sudo wants a terminal; take `requiretty` out of sudoers for this user".to_owned());
    }
    if says("no new privileges") || says("nosuid") || says("must be owned by uid 0") {
        return other(format!(
            "{} cannot change users where it runs: {}",
            there.clone().next().unwrap_or(of_sudo),
            last_line(printed).unwrap_or_default()
        ));
    }
    if says("doas: Authentication required") || says("doas: a tty is required") {
        return needed(privilege, Tool::Doas, ways_out(Tool::Doas));
    }
    if says("doas: Authentication fail") || says("doas: Authorization failed") {
        return wrong(Tool::Doas);
    }
    if says("doas: Operation not permitted") || says("doas is not enabled") || says("doas: not permitted") {
        let user = user(Tool::Doas);
        return other(format!("doas does not let this user become {user}; permit it in doas.conf, or log in as {user}"));
    }
    if says("doas: unknown user") {
        return other(format!("doas knows no user {} on the host", user(Tool::Doas)));
    }
    if says("su: Authentication fail") || says("su: incorrect password") || says("su: Authentication token") {
        return wrong(Tool::Su);
    }
    if says("su: user ") && says("does not exist") || says("su: unknown user") || says("su: unknown id") || says("No passwd entry for") {
        return other(format!("su knows no user {} on the host", user(Tool::Su)));
    }
    if says("su: Permission denied") || says("su: permission denied") || says("su: must be suid") {
        let user = user(Tool::Su);
        return other(format!("su does not let this user become {user}; look at pam_wheel in /etc/pam.d/su, or log in as {user}"));
    }
    if says("account is currently not available") {
        let user = user(Tool::Su);
        return other(format!("{user} may not log in on the host; leave `_su_login` out, or give `_su_shell`"));
    }
    let tool = there.clone().next().unwrap_or(of_sudo);
    let user = privilege.user().unwrap_or("root");
    other(match last_line(printed) {
        Some(line) => format!("{tool} could not become {user} (exit status {status}): {line}"),
        None => format!("{tool} could not become {user} (exit status {status})"),
    })
}

/// The password was not taken.
pub(crate) fn wrong(tool: Tool) -> Refused {
    let message =
        format!("{tool} does not take the password; it is not tried again, so as to lock nobody out: run again with the right one");
    Refused { kind: Kind::Wrong(tool), message }
}

fn last_line(printed: &str) -> Option<&str> {
    printed.lines().rev().map(str::trim).find(|line| !line.is_empty())
}

/// Says that a shell is missing, in a frame, before it is started.
pub(crate) fn shell_is_there(shell: &str) -> Shell {
    let message = format!("there is no shell {shell} on the host, which `_shell` asks for");
    sh!("command -v {} >/dev/null 2>&1 || { printf '%s\\n' {}; false; }", shell, message)
}

#[cfg(test)]
mod tests {
    use infra_core::command::quote;
    use infra_core::privilege::{Doas, Su, Sudo};

    use super::*;

    fn all() -> Privilege {
        Privilege {
            doas: Some(Doas { user: "one".to_owned() }),
            sudo: Some(Sudo { user: "two".to_owned(), login: false, preserve_env: true, password: None }),
            su: Some(Su { user: "three".to_owned(), login: false, shell: None, password: None }),
        }
    }

    #[test]
    fn the_ways_in_which_they_refuse_are_told_apart() {
        let su = Privilege { doas: None, sudo: None, ..all() };
        let doas = Privilege { doas: all().doas, ..Privilege::default() };
        let sudo = Privilege::sudo("root");
        for (privilege, status, printed, kind, wanted) in [
            (&sudo, 127, "sh: 2: sudo: not found\n", Kind::Other, "there is no sudo on the host; install it"),
            (&sudo, 1, "sudo: a password is required\n", Kind::Needed(Tool::Sudo), "sudo asks for a password to become root; give it"),
            (
                &sudo,
                1,
                "sudo: a terminal is required to read the password; either use …\n",
                Kind::Needed(Tool::Sudo),
                "sudo asks for a password",
            ),
            (&sudo, 1, "bob is not in the sudoers file.\n", Kind::NotAllowed, "sudo does not let this user become root"),
            (
                &sudo,
                1,
                "Sorry, user bob is not allowed to execute '/bin/sh' as root on web.\n",
                Kind::NotAllowed,
                "sudo does not let this user",
            ),
            (&sudo, 1, "sudo: unknown user nobdy\nsudo: error initializing audit plugin\n", Kind::Other, "sudo knows no user root"),
            (&sudo, 1, "sudo: sorry, you must have a tty to run sudo\n", Kind::Other, "sudo wants a terminal"),
            (
                &sudo,
                1,
                "Sorry, try again.\nsudo: 1 incorrect password attempt\n",
                Kind::Wrong(Tool::Sudo),
                "sudo does not take the password",
            ),
            (
                &sudo,
                1,
                "sudo: Account or password is expired, reset your password\n",
                Kind::Other,
                "sudo says that the account or its password has",
            ),
            (&sudo, 1, "sudo: sorry, you are not allowed to preserve the environment\n", Kind::Other, "sudo does not let this user keep"),
            (&sudo, 1, "something\nsudo: new trouble\n", Kind::Other, "sudo could not become root (exit status 1): sudo: new trouble"),
            (&sudo, 3, "", Kind::Other, "sudo could not become root (exit status 3)"),
            (&su, 1, "Password: su: Authentication failure\n", Kind::Wrong(Tool::Su), "su does not take the password"),
            (
                &su,
                1,
                "su: user three does not exist or the user entry does not contain all the required fields\n",
                Kind::Other,
                "su knows no user three",
            ),
            (&su, 1, "su: Permission denied\n", Kind::Other, "su does not let this user become three; look at pam_wheel"),
            (&su, 1, "This account is currently not available.\n", Kind::Other, "three may not log in on the host"),
            (&su, 127, "sh: 1: su: not found\n", Kind::Other, "there is no su on the host"),
            (&doas, 1, "doas: Authentication required\n", Kind::Needed(Tool::Doas), "doas asks for a password to become one"),
            (&doas, 1, "doas: Authentication failed\n", Kind::Wrong(Tool::Doas), "doas does not take the password"),
            (&doas, 1, "doas: Operation not permitted\n", Kind::Other, "doas does not let this user become one"),
            (
                &doas,
                1,
                "doas: doas is not enabled, /etc/doas.conf: No such file or directory\n",
                Kind::Other,
                "doas does not let this user",
            ),
            (&doas, 127, "sh: 1: doas: not found\n", Kind::Other, "there is no doas on the host"),
        ] {
            let refused = refusal(privilege, status, printed);
            assert!(refused.message.starts_with(wanted) && refused.kind == kind, "{refused:?}");
        }
    }

    #[test]
    fn the_programs_stand_in_their_order_and_strange_names_stay_one_word() {
        let quiet = command(&all(), None, false);
        let boot = quote(&format!("exec sh -c {}", quote(BOOT)));
        assert_eq!(quiet.as_str(), format!("LC_ALL=C doas -n -u one -- sudo -n -H -E -u two -- su -s /bin/sh -c {boot} -- three"));
        let strange = command(&Privilege::sudo("a b;reboot"), None, false);
        assert!(strange.as_str().starts_with("LC_ALL=C sudo -n -H -u 'a b;reboot' -- sh -c "), "{strange}");
        let mut login = Privilege::sudo("root");
        login.sudo.as_mut().expect("sudo").login = true;
        let through = command(&login, None, false);
        assert!(!through.as_str().contains('$') && through.as_str().contains(" -i "), "{through}");
    }

    #[test]
    fn only_a_program_and_its_words_are_simple() {
        for (script, wanted) in [
            ("systemctl restart nginx", Some(vec!["systemctl", "restart", "nginx"])),
            (" /usr/bin/id  -u ", Some(vec!["/usr/bin/id", "-u"])),
            ("echo 'a b;c' d''e", Some(vec!["echo", "a b;c", "de"])),
            ("a; b", None),
            ("a | b", None),
            ("a $HOME", None),
            ("a *", None),
            ("A=1 b", None),
            ("cd /", None),
            ("a 'b", None),
            ("a \"b\"", None),
            ("", None),
            ("a\nb", None),
        ] {
            assert_eq!(simple(script), wanted.map(|words| words.into_iter().map(str::to_owned).collect()), "{script}");
        }
    }
}
