//! What ssh's log says about an attempt to connect: how far it came, and why no further.
//!
//! The lines are those of OpenSSH at `LogLevel DEBUG1`, from 8.0 on.

use infra_core::command::quote;
use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::output::printable;

use super::options::Options;
use super::{Attempt, failed};

/// What the log says in its own words: its last line that is no step of the protocol.
pub(crate) fn last_words(log: &str) -> Option<String> {
    let line = words(log).last()?;
    Some(printable(line))
}

/// Lines for people.
fn words(log: &str) -> impl Iterator<Item = &str> {
    let quiet = ["debug1:", "debug2:", "debug3:", "Authenticated to ", "Transferred:", "Bytes per second:"];
    log.lines().map(str::trim).filter(move |line| !line.is_empty() && !quiet.iter().any(|start| line.starts_with(start)))
}

/// The step in which a log ends.
fn step(log: &str) -> ConnectStep {
    let has = |text: &str| log.contains(text);
    if has("Could not resolve hostname") {
        ConnectStep::Resolve
    } else if has("debug1: Entering interactive session.") || has("Authenticated to ") || has("debug1: Authentication succeeded") {
        ConnectStep::Shell
    } else if has("SSH2_MSG_NEWKEYS received") || has("SSH2_MSG_SERVICE_ACCEPT received") {
        ConnectStep::Authenticate
    } else if has("Remote protocol version") {
        ConnectStep::HostKey
    } else if has("debug1: Connection established.") || has("debug1: Executing proxy command") {
        ConnectStep::Banner
    } else if has("debug1: Connecting to ") {
        ConnectStep::Connect
    } else if has("terminating, ") || has("Bad configuration option") || has("Bad owner or permissions") || has("keyword ") {
        ConnectStep::Settings
    } else {
        // Nothing but its configuration was read: the name is still being looked up.
        ConnectStep::Resolve
    }
}

/// Text between two marks.
fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

/// Why an attempt failed. `stderr` is what ssh and its proxy commands said past the log, `said` what the host's shell said, `late` the deadline
/// in seconds where that ended it.
pub(crate) fn explain(log: &str, stderr: &str, said: &str, late: Option<f64>, options: &Options) -> Attempt {
    let mut step = step(log);
    let mut own = words(log).map(str::to_owned).collect::<Vec<_>>();
    // Where ssh could not even open its log, or a jump host failed, the words stand here.
    own.extend(words(stderr).map(str::to_owned));
    if log.is_empty() && !stderr.trim().is_empty() {
        step = ConnectStep::Settings;
    }
    let last = own.last().map(|line| printable(line.trim_start_matches("ssh: ")));
    let mut turned_away = false;
    let (message, hint) = match step {
        _ if late.is_some() => (in_time(step, late.unwrap_or_default()), None),
        ConnectStep::HostKey if log.contains("ost key") && (log.contains("verification failed") || log.contains("is known for")) => {
            host_key(log, options)
        }
        ConnectStep::Authenticate => authenticate(log, last, options),
        ConnectStep::Shell => {
            let words = if said.is_empty() { last.unwrap_or_else(|| "the host ended the session".to_owned()) } else { said.to_owned() };
            (words, Some(format!("see what `{} true` says", options.by_hand())))
        }
        ConnectStep::Banner | ConnectStep::HostKey => {
            // What is closed behind a jump host is the way to it; only its own words say why.
            turned_away = !log.contains("debug1: Executing proxy command")
                && ["Connection closed", "Connection reset", "closed by remote host", "Broken pipe"].iter().any(|end| log.contains(end));
            let words = last.unwrap_or_else(|| "the server closed the connection".to_owned());
            if turned_away { at_the_door(log, words) } else { (words, None) }
        }
        _ => (last.unwrap_or_else(|| "ssh ended without a word".to_owned()), None),
    };
    let transient = turned_away || late.is_some() || matches!(step, ConnectStep::Resolve | ConnectStep::Connect | ConnectStep::Banner);
    Attempt { error: failed(step, message, hint), turned_away, transient }
}

/// Which of its limits an sshd turned us away by: it says so in place of its greeting, where it is new enough. `words` are ssh's own.
fn at_the_door(log: &str, words: String) -> (String, Option<String>) {
    // Being refused adds nothing to a penalty, so that asking again later is no harm.
    if log.contains("banner line 0: Not allowed at this time") {
        let hint = "its sshd holds failed log-ins from this address against all who come from it (`PerSourcePenalties`): wait until the penalty \
                    is over, mend the log-in that failed (the log of its sshd says `penalty:` and what for), or have this address in its \
                    `PerSourcePenaltyExemptList`";
        return ("the server takes nobody from our address for now (\"Not allowed at this time\")".to_owned(), Some(hint.to_owned()));
    }
    if log.contains("banner line 0: Exceeded MaxStartups") {
        let hint = "allow more log-ins at a time (`MaxStartups` in its sshd_config), or take fewer hosts behind it at once";
        return ("the server has too many log-ins under way (\"Exceeded MaxStartups\")".to_owned(), Some(hint.to_owned()));
    }
    let hint = "a server that has too many connections under way closes new ones (`MaxStartups`, `PerSourcePenalties` in its sshd_config)";
    (words, Some(hint.to_owned()))
}

fn in_time(step: ConnectStep, seconds: f64) -> String {
    let what = match step {
        ConnectStep::Resolve | ConnectStep::Settings => "no address was found for its name",
        ConnectStep::Connect => "no connection was made",
        ConnectStep::Banner => "the server did not say that it speaks ssh",
        ConnectStep::HostKey => "no keys were agreed on",
        ConnectStep::Authenticate => "nobody was let in",
        ConnectStep::Shell => "sh did not answer",
    };
    format!("{what} within {seconds} s")
}

/// The host's key is unknown, or not the known one.
fn host_key(log: &str, options: &Options) -> (String, Option<String>) {
    let certificate = || between(log, "debug1: Server host certificate: ", ",");
    let key = between(log, "debug1: Server host key: ", "\n").or_else(certificate).map(str::trim);
    let (kind, fingerprint) = key.and_then(|key| key.split_once(' ')).unwrap_or(("a key", "of no fingerprint"));
    let name = key_name(log);
    if log.contains("REVOKED HOST KEY") {
        return (format!("the key of {name} ({kind} {fingerprint}) is marked as revoked"), None);
    }
    if let Some(why) = between(log, "Certificate invalid: ", "\n") {
        return (format!("the certificate of {name} is not valid: {}", why.trim()), None);
    }
    let file = options.known_hosts_file().map_or_else(String::new, |file| format!(" -f {}", quote(file)));
    if log.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let place = log.lines().find_map(|line| line.trim().strip_prefix("Offending ")).map_or_else(String::new, |offending| {
            let place = offending.split_once(" key in ").map_or(offending, |(_, place)| place);
            format!(", which stands in {place}")
        });
        let message = format!("the key of {name} is not the known one{place}; it is now {kind} {fingerprint}");
        let hint = format!(
            "if the host was set up again: `ssh-keygen{file} -R {}`, then compare the fingerprint in `{}`",
            quote(&name),
            options.by_hand()
        );
        return (message, Some(hint));
    }
    let message = format!("the key of {name} is not known; it is {kind} {fingerprint}");
    let hint = format!(
        "log in once with `{}` and compare the fingerprint, or add the line of `{}` to {} when you have compared it",
        options.by_hand(),
        key_scan(log, &name),
        options.known_hosts_file().unwrap_or("~/.ssh/known_hosts (or the file that your ssh configuration names instead)")
    );
    (message, Some(hint))
}

/// The name under which ssh looked for the host's key.
fn key_name(log: &str) -> String {
    if let Some(alias) = between(log, "using hostkeyalias: ", "\n") {
        return alias.trim().to_owned();
    }
    if let Some(name) = between(log, "host key is known for ", " and you have requested") {
        return name.to_owned();
    }
    match between(log, "debug1: Authenticating to ", " as '").and_then(|target| target.rsplit_once(':')) {
        Some((name, "22")) => name.to_owned(),
        Some((name, port)) => format!("[{name}]:{port}"),
        None => "the host".to_owned(),
    }
}

/// The command whose output is a line for known_hosts, in which the key stands under `name`.
fn key_scan(log: &str, name: &str) -> String {
    let (scan, scanned) = match between(log, "debug1: Authenticating to ", " as '").and_then(|target| target.rsplit_once(':')) {
        Some((host, "22")) => (format!("ssh-keyscan {}", quote(host)), host.to_owned()),
        Some((host, port)) => (format!("ssh-keyscan -p {port} {}", quote(host)), format!("[{host}]:{port}")),
        None => return "ssh-keyscan HOST".to_owned(),
    };
    if scanned == name { scan } else { format!("{scan} | sed {}", quote(&format!("s|^[^ ]*|{name}|"))) }
}

/// The host did not let us in.
fn authenticate(log: &str, last: Option<String>, options: &Options) -> (String, Option<String>) {
    let Some(ways) = between(log, ": Permission denied (", ")") else {
        let message = last.unwrap_or_else(|| "the server closed the connection".to_owned());
        let hint = message
            .contains("Too many authentication failures")
            .then(|| "the agent holds more keys than the server wants to see: name one with `ssh_key`".to_owned());
        return (message, hint);
    };
    let user = between(log, " as '", "'").unwrap_or("the user");
    let mut keys: Vec<&str> = Vec::new();
    let mut missing: Vec<&str> = Vec::new();
    for line in log.lines().map(str::trim) {
        if let Some(offered) = line.strip_prefix("debug1: Offering public key: ") {
            keys.push(offered.split(" SHA256:").next().unwrap_or(offered));
        } else if let Some((_, path)) = line.split_once("no such identity: ") {
            missing.push(path.rsplit_once(": ").map_or(path, |(path, _)| path));
        }
    }
    let tried = match (keys.is_empty(), missing.is_empty()) {
        (false, _) => format!("keys tried: {}", keys.join(", ")),
        (true, false) => format!("there is no key file {}", missing.join(", ")),
        (true, true) => "there was no key to try".to_owned(),
    };
    // The host took a key, and then no signature of it came.
    let accepted = log.lines().rev().find_map(|line| line.trim().strip_prefix("debug1: Server accepts key: "));
    if let Some(key) = accepted.map(|key| key.split(" SHA256:").next().unwrap_or(key)) {
        let path = key.rsplit_once(' ').map_or(key, |(path, _)| path);
        let (why, hint) = if options.opens(path) {
            ("`ssh_key_password` is not its passphrase".to_owned(), "set the passphrase of the key in `ssh_key_password`".to_owned())
        } else {
            let hint = format!(
                "it may be encrypted: add it to your ssh agent (`ssh-add {}`), set `ssh_key_password`, or run this at a terminal",
                quote(path)
            );
            ("it could not be used".to_owned(), hint)
        };
        return (format!("the host would let {user} in with the key {path}, and {why}"), Some(hint));
    }
    let with_password = ["password", "keyboard-interactive"].iter().any(|way| log.contains(&format!("Next authentication method: {way}")));
    if options.password.is_some() && with_password {
        let message = format!("the host did not let {user} in (it takes {ways}); it did not take the password in `ssh_password`");
        return (message, Some(format!("try `{}`; the user is named by `ssh_user`", options.by_hand())));
    }
    let message = format!("the host did not let {user} in (it takes {ways}); {tried}");
    let hint = format!("try `{}`; the user is named by `ssh_user`, the key by `ssh_key` or your ssh agent", options.by_hand());
    (message, Some(hint))
}

/// The host asked for something, and there was no answer, or a wrong one: why, as a sentence fragment.
pub(crate) fn refused(log: &str, why: &str, options: &Options) -> ConnectError {
    let user = between(log, " as '", "'").unwrap_or("the user");
    let hint = format!("try `{}`; the password is set by `ssh_password`, a key by `ssh_key`", options.by_hand());
    failed(ConnectStep::Authenticate, format!("the host did not let {user} in: {why}"), Some(hint))
}

/// The address that ssh connected to at last: `Connecting to NAME [ADDRESS] port 22.` None where a proxy did so.
pub(crate) fn address(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| line.starts_with("debug1: Connecting to ") && line.contains("] port "))?;
    let (before, _) = line.rsplit_once("] port ")?;
    let (_, address) = before.rsplit_once('[')?;
    (!address.is_empty()).then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use infra_core::host::{Connector, Host, HostId};

    const UP_TO_CONNECT: &str = "debug1: Reading configuration data /etc/ssh/ssh_config\ndebug1: Connecting to web [10.0.0.1] port 22.\r\n";

    fn explained(log: &str, stderr: &str, said: &str, late: Option<f64>) -> Attempt {
        let host = Host::new(HostId(0), "web", Connector::Ssh, "web");
        explain(log, stderr, said, late, &Options::of(&host).unwrap())
    }

    #[test]
    fn the_step_and_the_words_are_read_off_the_log() {
        let established = format!("{UP_TO_CONNECT}debug1: Connection established.\r\n");
        let spoken = format!(
            "{established}debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2p1\ndebug1: Authenticating to web:22 as 'root'\n"
        );
        let keyed = format!("{spoken}debug1: Server host key: ssh-ed25519 SHA256:abc\ndebug1: SSH2_MSG_NEWKEYS received\n");
        let inside = format!("{keyed}Authenticated to web ([10.0.0.1]:22) using \"publickey\".\ndebug1: Entering interactive session.\n");
        for (log, stderr, said, late, step, message) in [
            (
                "ssh: Could not resolve hostname web: Name or service not known\n".to_owned(),
                "",
                "",
                None,
                ConnectStep::Resolve,
                "Could not resolve hostname web: Name or service not known",
            ),
            (
                format!("{UP_TO_CONNECT}ssh: connect to host web port 22: Connection refused\r\n"),
                "",
                "",
                None,
                ConnectStep::Connect,
                "connect to host web port 22: Connection refused",
            ),
            (UP_TO_CONNECT.to_owned(), "", "", Some(30.0), ConnectStep::Connect, "no connection was made within 30 s"),
            (established.clone(), "", "", Some(0.5), ConnectStep::Banner, "the server did not say that it speaks ssh within 0.5 s"),
            (
                format!("{established}kex_exchange_identification: Connection closed by remote host\r\n"),
                "",
                "",
                None,
                ConnectStep::Banner,
                "kex_exchange_identification: Connection closed by remote host",
            ),
            (
                format!("{spoken}Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found.\n"),
                "",
                "",
                None,
                ConnectStep::HostKey,
                "Unable to negotiate with 10.0.0.1 port 22: no matching key exchange method found.",
            ),
            (
                format!("{keyed}root@web: Permission denied (publickey,password).\n"),
                "",
                "",
                None,
                ConnectStep::Authenticate,
                "the host did not let root in (it takes publickey,password); there was no key to try",
            ),
            (inside, "", "This account is not available.", None, ConnectStep::Shell, "This account is not available."),
            (
                String::new(),
                "/cfg: line 1: Bad configuration option: foo\n",
                "",
                None,
                ConnectStep::Settings,
                "/cfg: line 1: Bad configuration option: foo",
            ),
        ] {
            let attempt = explained(&log, stderr, said, late);
            assert_eq!((attempt.error.step, attempt.error.message.as_str()), (step, message), "{log}");
        }
    }

    #[test]
    fn the_line_for_known_hosts_has_the_name_that_ssh_looks_for() {
        let log = |alias: &str, port: &str| {
            format!(
                "{UP_TO_CONNECT}debug1: Connection established.\ndebug1: Remote protocol version 2.0\ndebug1: Authenticating to 10.0.0.1:{port} as \
                 'root'\n{alias}debug1: Server host key: ssh-ed25519 SHA256:abc\nHost key verification failed.\n"
            )
        };
        for (alias, port, wanted) in [
            ("", "22", "`ssh-keyscan 10.0.0.1`"),
            ("", "2222", "`ssh-keyscan -p 2222 10.0.0.1`"),
            ("debug1: using hostkeyalias: web\n", "22", "`ssh-keyscan 10.0.0.1 | sed 's|^[^ ]*|web|'`"),
            ("debug1: using hostkeyalias: [web]:2222\n", "2222", "`ssh-keyscan -p 2222 10.0.0.1 | sed 's|^[^ ]*|[web]:2222|'`"),
        ] {
            let hint = explained(&log(alias, port), "", "", None).error.hint.expect("a hint");
            assert!(hint.contains(wanted), "{hint}");
        }
    }

    #[test]
    fn only_a_server_without_time_is_asked_again() {
        let log = format!("{UP_TO_CONNECT}debug1: Connection established.\nkex_exchange_identification: read: Connection reset by peer\n");
        assert!(explained(&log, "", "", None).turned_away);
        assert!(!explained(&log, "", "", Some(30.0)).turned_away);
        assert!(!explained(UP_TO_CONNECT, "", "", None).turned_away);
        let log =
            "debug1: Executing proxy command: exec ssh -W '[web]:22' jump\nkex_exchange_identification: Connection closed by remote host\n";
        let attempt = explained(log, "me@jump: Permission denied (publickey).\r\n", "", None);
        assert!(!attempt.turned_away);
        assert_eq!((attempt.error.step, attempt.error.message.as_str()), (ConnectStep::Banner, "me@jump: Permission denied (publickey)."));
    }

    #[test]
    fn the_limit_that_turned_us_away_is_named() {
        // The lines of ssh 9.2 before an sshd 10.0 with a penalty, and before an sshd 9.2 with a crowd.
        for (said, message, limit, other) in [
            (
                "debug1: kex_exchange_identification: banner line 0: Not allowed at this time\n",
                "from our address",
                "Penalties",
                "MaxStartups",
            ),
            (
                "debug1: kex_exchange_identification: banner line 0: Exceeded MaxStartups\n",
                "too many log-ins",
                "`MaxStartups`",
                "Penalties",
            ),
            ("", "Connection closed by 10.0.0.1 port 22", "`MaxStartups`, `PerSourcePenalties`", "`PerSourcePenaltyExemptList`"),
        ] {
            let log = format!(
                "{UP_TO_CONNECT}debug1: Connection established.\ndebug1: Local version string SSH-2.0-OpenSSH_9.2p1\n{said}\
                 kex_exchange_identification: Connection closed by remote host\nConnection closed by 10.0.0.1 port 22\n"
            );
            let attempt = explained(&log, "", "", None);
            assert!(attempt.turned_away && attempt.error.step == ConnectStep::Banner, "{log}");
            assert!(attempt.error.message.contains(message), "{}", attempt.error.message);
            let hint = attempt.error.hint.expect("a hint");
            assert!(hint.contains(limit) && !hint.contains(other), "{hint}");
        }
        // A banner of the host's own that says the same words later is none of it.
        let late =
            format!("{UP_TO_CONNECT}debug1: Connection established.\nNot allowed at this time\nConnection closed by 10.0.0.1 port 22\n");
        assert!(explained(&late, "", "", None).error.message.contains("Connection closed"));
    }

    #[test]
    fn the_address_is_that_of_the_last_attempt() {
        let log = "debug1: Connecting to web [192.0.2.7] port 22.\ndebug1: connect to address 192.0.2.7 port 22: Connection refused\n\
                   debug1: Connecting to web [2001:db8::7] port 22.\ndebug1: Connection established.\n";
        assert_eq!(address(log).as_deref(), Some("2001:db8::7"));
        assert_eq!(address("debug1: Executing proxy command: exec nc web 22\n"), None);
    }
}
