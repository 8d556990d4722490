//! Running as somebody else.

use infra_core::command::Shell;
use infra_core::sh;

/// The words before `sh` that make it run as `user`. They never ask for a password.
pub(crate) fn sudo(user: &str) -> Shell {
    sh!("sudo -n -H -u {} --", user)
}

/// Why `user` could not be had, from sudo's exit status and what it printed; with what to do, as there is no other place for it.
pub(crate) fn refusal(user: &str, status: i32, printed: &str) -> String {
    let says = |words: &str| printed.contains(words);
    if status == 127 && (says("not found") || says("No such file")) {
        return "there is no sudo on the host; install it, or log in as the user that is needed and leave `_sudo` out".to_owned();
    }
    if says("a password is required") || says("a terminal is required") || says("no askpass") {
        return format!("sudo asks for a password to become {user}; allow it without one (NOPASSWD in sudoers), or log in as {user}");
    }
    if says("not in the sudoers") || says("is not allowed to") || says("may not run sudo") {
        return format!("sudo does not let this user become {user}; allow it in sudoers, or log in as {user}");
    }
    if says("unknown user") || says("unknown uid") {
        return format!("sudo knows no user {user} on the host");
    }
    if says("must have a tty") {
        return "sudo wants a terminal; take `requiretty` out of sudoers for this user".to_owned();
    }
    let last = printed.lines().rev().map(str::trim).find(|line| !line.is_empty());
    match last {
        Some(line) => format!("sudo could not become {user} (exit status {status}): {line}"),
        None => format!("sudo could not become {user} (exit status {status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_in_which_sudo_refuses_are_told_apart() {
        for (status, printed, wanted) in [
            (127, "sh: 2: sudo: not found\n", "there is no sudo on the host"),
            (1, "sudo: a password is required\n", "sudo asks for a password to become root"),
            (1, "sudo: a terminal is required to read the password; either use …\n", "sudo asks for a password"),
            (1, "bob is not in the sudoers file.\n", "sudo does not let this user become root"),
            (1, "Sorry, user bob is not allowed to execute '/bin/sh' as root on web.\n", "sudo does not let this user"),
            (1, "sudo: unknown user nobdy\nsudo: error initializing audit plugin sudoers_audit\n", "sudo knows no user root"),
            (1, "sudo: sorry, you must have a tty to run sudo\n", "sudo wants a terminal"),
            (1, "something\nsudo: new trouble\n", "sudo could not become root (exit status 1): sudo: new trouble"),
            (3, "", "sudo could not become root (exit status 3)"),
        ] {
            let message = refusal("root", status, printed);
            assert!(message.starts_with(wanted), "{message}");
        }
    }

    #[test]
    fn a_strange_user_name_stays_one_word() {
        assert_eq!(sudo("a b;reboot").as_str(), "sudo -n -H -u 'a b;reboot' --");
    }
}
