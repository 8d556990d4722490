//! What is wrong with something that a person wrote, as they read it.

use infra_core::connection::ConnectError;
use infra_core::diagnostic::Diagnostic;
use infra_core::output::printable;

use crate::nodeset;
use crate::text::{Page, one_line};

/// A diagnostic as a person reads it, ending with a newline: `error:`, the place, the message, the line itself behind a gutter, and the
/// hint after an empty line. From verbosity 1 on also the calls that led there.
///
/// It is for errors that show before a run begins; those of a run are shown by its reporter in the same way.
pub fn render_diagnostic(diagnostic: &Diagnostic, verbosity: u8, colour: bool) -> String {
    on_hosts(diagnostic, &[], Page { colour, width: 100, verbosity })
}

/// The same, with the hosts on which it came to light; none are named where there are none.
pub(crate) fn on_hosts(diagnostic: &Diagnostic, hosts: &[&str], page: Page) -> String {
    let mut lines = diagnostic.message.lines();
    let place = diagnostic.location.as_ref().map(|location| format!("{}: ", one_line(&location.to_string()))).unwrap_or_default();
    let message = printable(lines.next().unwrap_or_default());
    let mut text = format!("{} {}\n", page.bad("error:"), page.bold(&format!("{place}{message}")));
    for line in lines {
        text.push_str(&format!("    {}\n", printable(line)));
    }
    if let Some(source) = &diagnostic.source_line {
        let number = diagnostic.location.as_ref().map(|location| location.line).filter(|line| *line > 0);
        let number = number.map(|line| line.to_string()).unwrap_or_default();
        let (bar, space) = (page.stage("|"), " ".repeat(number.len()));
        text.push_str(&format!(" {space} {bar}\n {} {bar} {}\n", page.stage(&number), one_line(source)));
    }
    if !hosts.is_empty() {
        let names = nodeset::fold_within(hosts.iter().copied(), page.width.saturating_sub(16).max(24));
        let total = if hosts.len() > 2 { format!(" ({} hosts)", hosts.len()) } else { String::new() };
        text.push_str(&format!("    on {names}{total}\n"));
    }
    if page.verbosity > 0 && !diagnostic.chain.is_empty() {
        text.push_str("    by way of\n");
        for location in &diagnostic.chain {
            text.push_str(&format!("        {}\n", one_line(&location.to_string())));
        }
    }
    text.push_str(&page.hint(diagnostic.hint.as_deref(), ""));
    text
}

/// Why hosts could not be reached: one line, and the hint after an empty one.
pub(crate) fn unreachable(error: &ConnectError, hosts: &[&str], page: Page) -> String {
    let names = if hosts.len() == 1 { hosts[0].to_owned() } else { nodeset::fold_within(hosts.iter().copied(), 60) };
    // The message of the error says the word and the step itself.
    let what = one_line(&error.to_string());
    let what = what.strip_prefix("unreachable").map_or_else(|| what.clone(), |rest| format!("{}{rest}", page.bad("unreachable")));
    format!("[{names}] {what}\n{}", page.hint(error.hint.as_deref(), "    "))
}

#[cfg(test)]
mod tests {
    use infra_core::diagnostic::Location;
    use insta::assert_snapshot;

    use super::*;

    fn misspelt() -> Diagnostic {
        let mut diagnostic = Diagnostic::misuse("apt.packages has no argument `packges`").at("deploy.lua", 12);
        diagnostic.chain = vec![Location { file: "site.lua".into(), line: 3 }, Location { file: "deploy.lua".into(), line: 12 }];
        diagnostic.source("  apt.packages { packges = { \"nginx\" } }").hint("did you mean `packages`?")
    }

    #[test]
    fn a_misspelt_argument() {
        assert_snapshot!(render_diagnostic(&misspelt(), 0, false), @r#"
        error: deploy.lua:12: apt.packages has no argument `packges`
            |
         12 | apt.packages { packges = { "nginx" } }

        hint: did you mean `packages`?
        "#);
    }

    #[test]
    fn the_calls_that_led_there_show_with_v() {
        assert_snapshot!(render_diagnostic(&misspelt(), 1, false), @r#"
        error: deploy.lua:12: apt.packages has no argument `packges`
            |
         12 | apt.packages { packges = { "nginx" } }
            by way of
                site.lua:3
                deploy.lua:12

        hint: did you mean `packages`?
        "#);
    }

    #[test]
    fn colours_are_there_when_asked_for() {
        let text = render_diagnostic(&misspelt(), 0, true);
        assert!(text.contains("\u{1b}[31m\u{1b}[1merror:\u{1b}[0m"), "{text:?}");
        assert_eq!(console::strip_ansi_codes(&text), render_diagnostic(&misspelt(), 0, false));
    }

    #[test]
    fn a_message_alone_and_one_of_several_lines() {
        assert_snapshot!(render_diagnostic(&Diagnostic::misuse("there is no file fleet.lua"), 0, false), @"error: there is no file fleet.lua");
        let several = Diagnostic::runtime("template index.j2: unexpected end\nexpected `}}`\x1b[2J").at("index.j2", 0).source("{{ name");
        assert_snapshot!(on_hosts(&several, &["web-01", "web-02", "db"], Page { colour: false, width: 80, verbosity: 0 }), @r"
        error: index.j2: template index.j2: unexpected end
            expected `}}`\u{1b}[2J
          |
          | {{ name
            on web-[01-02], db (3 hosts)
        ");
    }
}
