//! What came of an operation on a host, in a line, or in a block where it failed.

use infra_core::connection::Ending;
use infra_core::event::{Failure, HostResult, Outcome};
use infra_core::plan::PlannedOperation;

use crate::text::{Page, count, one_line, slow, time};

/// What came of it, as the words after the title. `elsewhere` is the name of the host of [`Outcome::Elsewhere`].
pub(crate) fn words(result: &HostResult, elsewhere: &str, page: Page) -> String {
    let reason = |reason: &str, from: u8| match one_line(reason) {
        text if text.is_empty() || page.verbosity < from => String::new(),
        text => format!(": {text}"),
    };
    match &result.outcome {
        Outcome::Changed { reason: why } => format!("{}{}", page.change("changed"), reason(why, 0)),
        Outcome::Unchanged { reason: why } => format!("{}{}", page.good("no change"), reason(why, 1)),
        Outcome::Skipped { reason: why } => format!("{}{}", page.dim("skipped"), reason(why, 1)),
        Outcome::Failed { failure, ignored } => {
            let word = if *ignored { page.change("failed (ignored)") } else { page.bad("failed") };
            let done =
                if result.steps_done > 0 { format!(", after {} that ended well", count(result.steps_done, "step")) } else { String::new() };
            format!("{word}: {}{done}", message(failure))
        }
        Outcome::Indeterminate { failure } => format!("{}: {}", page.bad("outcome unknown"), message(failure)),
        Outcome::Earlier { run, .. } => page.dim(&format!("done in run {}, not run again", one_line(run))),
        Outcome::Elsewhere { changed, ok, .. } => {
            let what = match (ok, changed) {
                (false, _) => page.bad("failed"),
                (true, true) => page.change("changed"),
                (true, false) => page.good("no change"),
            };
            format!("{what} {}", page.dim(&format!("(it ran on {elsewhere})")))
        }
    }
}

/// How often it was tried again and how long it took, where that is worth a word.
pub(crate) fn took(result: &HostResult) -> String {
    match result.retries {
        0 => slow(result.took),
        1 => format!(" (after 1 retry, {})", time(result.took)),
        retries => format!(" (after {retries} retries, {})", time(result.took)),
    }
}

/// The failure in a result, where there is one.
pub(crate) fn failure(outcome: &Outcome) -> Option<&Failure> {
    match outcome {
        Outcome::Failed { failure, .. } | Outcome::Indeterminate { failure } => Some(failure),
        _ => None,
    }
}

/// What stands below the line of a failure: place, step, last output, and the hint after an empty line. `with_output` is false where
/// the output was shown as it came.
pub(crate) fn block(failure: &Failure, operation: Option<&PlannedOperation>, with_output: bool, page: Page) -> String {
    let mut text = String::new();
    if let Some(location) = operation.and_then(|operation| operation.location.as_ref()) {
        text.push_str(&format!("    {}\n", page.dim(&format!("at {}", one_line(&location.to_string())))));
    }
    if let Some(step) = &failure.step {
        text.push_str(&self::step(step, "    "));
    }
    if let Some(Ending::TimedOut { still_running: Some(group), .. }) = &failure.ending {
        text.push_str(&format!("    {} on the host, as process group {group}\n", page.bad("still running")));
    }
    if with_output {
        for line in failure.last_output.iter().flat_map(|lines| lines.trim_end_matches('\n').split('\n')) {
            text.push_str(&format!("    {} {}\n", page.dim("|"), crate::text::output_line(line.as_bytes())));
        }
    }
    text.push_str(&page.hint(failure.hint.as_deref(), "    "));
    text
}

/// A command or upload, as it is shown: each of its lines behind a mark of its own.
pub(crate) fn step(step: &str, indent: &str) -> String {
    let mut text = String::new();
    for (index, line) in step.trim_end().split('\n').enumerate() {
        let mark = if index == 0 { '>' } else { ' ' };
        text.push_str(&format!("{indent}{mark} {}\n", one_line(line)));
    }
    text
}

/// What failed, with the signal that an exit status above 128 may stand for.
pub(crate) fn message(failure: &Failure) -> String {
    let text = one_line(&failure.message);
    let Some(Ending::Exited(status)) = failure.ending else { return text };
    let Some(signal) = signal(status) else { return text };
    let bare = status.to_string();
    match text.split_once(&bare) {
        // Said already, or a number that is another one.
        Some((_, rest)) if rest.starts_with(" (") || rest.starts_with(|c: char| c.is_ascii_digit()) => text,
        Some((before, rest)) => format!("{before}{bare} ({signal}?){rest}"),
        None => text,
    }
}

/// The name of the signal that an exit status above 128 may stand for: a shell cannot tell the two apart (signal(7), Linux on x86 and ARM).
pub(crate) fn signal(status: i32) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    NAMES.get(usize::try_from(status.checked_sub(129)?).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(message: &str, status: i32) -> String {
        message_of(Failure { message: message.into(), ending: Some(Ending::Exited(status)), ..Failure::default() })
    }

    fn message_of(failure: Failure) -> String {
        message(&failure)
    }

    #[test]
    fn a_status_above_128_may_be_a_signal() {
        assert_eq!(exited("exited with 137", 137), "exited with 137 (KILL?)");
        assert_eq!(exited("exited with 143, where 0 is a success", 143), "exited with 143 (TERM?), where 0 is a success");
        assert_eq!(exited("exited with 137 (KILL?)", 137), "exited with 137 (KILL?)");
        assert_eq!(exited("exited with 2", 2), "exited with 2");
        assert_eq!(exited("exited with 255", 255), "exited with 255");
        assert_eq!(exited("the file is gone", 137), "the file is gone");
        assert_eq!(signal(i32::MIN), None);
    }
}
