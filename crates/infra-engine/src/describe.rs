//! The words for steps, changes and endings: the one place where they are made.

use std::time::Duration;

use infra_core::change::{Action, Change, Content, Download, ScriptRun, Upload};
use infra_core::connection::Ending;
use infra_core::lock::Locked;
use infra_core::plan::Outlook;

/// A step as it is shown to a person: the command's text, or `upload 1.2 KiB to PATH`.
pub(crate) fn step(action: &Action) -> String {
    match action {
        Action::Run(command) => command.script.as_str().to_owned(),
        Action::Upload(Upload { content, dest, .. }) => format!("upload {} to {dest}", size(content.size())),
        Action::Download(Download { dest, size: Some(bytes), .. }) => format!("download {} to {dest}", size(*bytes)),
        Action::Download(Download { dest, .. }) => format!("download to {dest}"),
        Action::Controller(command) => format!("on the controller: {}", command.script),
        Action::Script(ScriptRun { content, args }) => {
            let name = match content {
                Content::LocalFile { path, .. } => path.rsplit('/').next().unwrap_or(path).to_owned(),
                Content::Bytes(_) => format!("a script of {}", size(content.size())),
            };
            let mut words = vec![format!("run {name}")];
            words.extend(args.iter().map(|arg| infra_core::command::quote(arg)));
            words.join(" ")
        }
    }
}

/// A step that is not done on the host that it is counted for.
pub(crate) fn step_at(place: &str, step: &str) -> String {
    format!("on {place}: {step}")
}

/// What the plan says of a change that is known.
pub(crate) fn outlook(change: &Change) -> Outlook {
    if change.is_none() || !change.changes {
        return Outlook::NoChange { reason: change.reason.clone() };
    }
    Outlook::Change { reason: change.reason.clone(), steps: change.actions.iter().map(step).collect(), texts: change.texts.clone() }
}

/// A change in a few words.
pub(crate) fn summary(change: &Change) -> String {
    if change.is_none() {
        return if change.reason.is_empty() { "nothing".to_owned() } else { format!("nothing: {}", change.reason) };
    }
    if !change.reason.is_empty() {
        return change.reason.clone();
    }
    change.actions.iter().map(step).collect::<Vec<_>>().join("; ")
}

/// A size with a unit of 1024: `512 B`, `1.2 KiB`, `3.0 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = units[0];
    for next in units {
        value /= 1024.0;
        unit = next;
        if value < 1023.95 {
            break;
        }
    }
    format!("{value:.1} {unit}")
}

/// A span of time in seconds, with a fraction where it is short: `5 s`, `0.3 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 10.0 || seconds.fract() < 0.05 { format!("{seconds:.0} s") } else { format!("{seconds:.1} s") }
}

/// Why an ending is a failure, as a sentence fragment.
pub(crate) fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Exited(code) => format!("exited with {}", exit_code(*code)),
        Ending::TimedOut { after, still_running: None } => format!("timed out after {}", seconds(*after)),
        Ending::TimedOut { after, still_running: Some(pid) } => {
            format!("timed out after {} and could not be killed: still running as process group {pid}", seconds(*after))
        }
        Ending::Killed => "was killed because the run was interrupted".to_owned(),
        Ending::Refused(reason) => reason.clone(),
        Ending::Locked(locked) => self::locked(locked),
        Ending::Lost { reason, begun: true } => format!("the connection was lost while it ran, so its outcome is not known: {reason}"),
        Ending::Lost { reason, begun: false } => format!("the connection was lost before it began: {reason}"),
    }
}

/// Why the lock of a host kept a step from being done, as a sentence fragment.
fn locked(locked: &Locked) -> String {
    match locked {
        Locked::Held { holder } => format!("another run changes this host, so nothing was done: {holder}"),
        Locked::Moved { .. } => "the host may have changed since its facts were read, so nothing was done".to_owned(),
        Locked::TakenOver { holder: Some(holder) } => {
            format!("another run took this host over while this one gave no sign of life, so nothing more is done: {holder}")
        }
        Locked::TakenOver { holder: None } => "the lock of this host is gone, so nothing more is done".to_owned(),
        Locked::Unavailable { reason } => format!("no lock can be kept on this host, so nothing was done: {reason}"),
    }
}

/// What to do about an ending.
pub(crate) fn hint(ending: &Ending) -> Option<String> {
    let Ending::Locked(locked) = ending else { return None };
    Some(match locked {
        Locked::Held { .. } => {
            "wait for it with --lock-wait SECONDS; the lock of a run that was killed is free when its lease has run out".to_owned()
        }
        Locked::Moved { .. } | Locked::TakenOver { .. } => "run it again: what is done already is found done".to_owned(),
        Locked::Unavailable { .. } => {
            "name a folder of the user's own in INFRA_LOCK_FOLDER in the environment of its sessions, or leave `--lock required` out"
                .to_owned()
        }
    })
}

/// An exit code; above 128 with the signal it may stand for, which a shell cannot tell apart.
fn exit_code(code: i32) -> String {
    let signals = [(1, "HUP"), (2, "INT"), (3, "QUIT"), (4, "ILL"), (6, "ABRT"), (7, "BUS"), (8, "FPE"), (9, "KILL"), (11, "SEGV")];
    let more = [(13, "PIPE"), (14, "ALRM"), (15, "TERM")];
    match signals.iter().chain(&more).find(|(number, _)| code - 128 == *number) {
        Some((_, name)) => format!("{code} ({name}?)"),
        None => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use infra_core::sh;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1229, "1.2 KiB"), (1024 * 1024, "1.0 MiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn steps_are_shown_as_a_person_would_say_them() {
        let upload = Upload {
            content: Content::text("x".repeat(1229)),
            dest: "/etc/motd".into(),
            mode: None,
            user: None,
            group: None,
            replaces: Default::default(),
        };
        assert_eq!(step(&Action::Upload(upload)), "upload 1.2 KiB to /etc/motd");
        assert_eq!(step(&Action::Run(sh!("echo {}", "a b").into())), "echo 'a b'");
        let content = Content::LocalFile { path: "/srv/set up.sh".into(), size: 1, sha256: String::new() };
        assert_eq!(step(&Action::Script(ScriptRun { content, args: vec!["a b".into()] })), "run set up.sh 'a b'");
    }

    #[test]
    fn endings_are_sentence_fragments() {
        let after = Duration::from_secs(5);
        for (given, text) in [
            (Ending::Exited(2), "exited with 2"),
            (Ending::Exited(137), "exited with 137 (KILL?)"),
            (Ending::TimedOut { after, still_running: None }, "timed out after 5 s"),
            (
                Ending::TimedOut { after, still_running: Some(7) },
                "timed out after 5 s and could not be killed: still running as process group 7",
            ),
        ] {
            assert_eq!(ending(&given), text);
        }
    }
}
