//! Text files before and after, as unified diffs: each once, with the hosts on which it is the same.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use infra_core::Value;
use infra_core::change::TextChange;
use infra_core::host::HostId;
use infra_core::output::printable;
use infra_core::plan::{Outlook, Plan};
use serde_json::json;
use similar::{ChangeTag, TextDiff};

use crate::nodeset;
use crate::text::{Page, Paint, bare, count, one_line};

/// So many lines of one file's diff are shown.
const FILE_LINES: usize = 200;

/// So many lines of diffs are shown in all.
const ALL_LINES: usize = 2000;

/// So many characters of one line are shown.
const LINE_CHARS: usize = 1000;

/// How much of the diffs is shown, and what was left out by now.
pub(crate) struct Bounds {
    file: usize,
    left: usize,
    files_cut: usize,
    lines_cut: usize,
}

/// A file that changes in the same way on these hosts.
struct Shared<'t> {
    title: &'t str,
    text: &'t TextChange,
    hosts: Vec<HostId>,
}

impl Bounds {
    /// What is shown where nothing else is asked for; from verbosity 2 on, all.
    pub(crate) fn new(verbosity: u8) -> Self {
        let (file, left) = if verbosity >= 2 { (usize::MAX, usize::MAX) } else { (FILE_LINES, ALL_LINES) };
        Self { file, left, files_cut: 0, lines_cut: 0 }
    }

    /// No more than so many lines of one file.
    pub(crate) fn of_file(verbosity: u8, lines: usize) -> Self {
        let file = if verbosity >= 2 { usize::MAX } else { lines };
        Self { file, ..Self::new(2) }
    }

    /// How many of a file's lines may be shown.
    fn take(&mut self, lines: usize) -> usize {
        let shown = lines.min(self.file).min(self.left);
        if shown == 0 && lines > 0 {
            self.files_cut += 1;
            self.lines_cut += lines;
        }
        self.left -= shown;
        shown
    }

    /// Whether nothing more is shown.
    fn used_up(&self) -> bool {
        self.left == 0
    }

    /// What was left out, where something was.
    fn cut(&self) -> Option<String> {
        let (files, lines) = (count(self.files_cut, "more file"), count(self.lines_cut, "line"));
        (self.files_cut > 0).then(|| format!("… and {files} with {lines} (-vv shows them)"))
    }
}

/// The diffs of a plan, as `d` at the question shows them: a stage of their own. Nothing where no text file will change.
///
/// `name` gives the names of hosts, and `width` is how many columns there are.
pub fn render_diffs<'n>(plan: &Plan, name: impl Fn(HostId) -> &'n str, verbosity: u8, width: u16, colour: bool) -> String {
    of_plan(plan, name, Page { colour, width: usize::from(width.max(48)), verbosity })
}

pub(crate) fn of_plan<'n>(plan: &Plan, name: impl Fn(HostId) -> &'n str, page: Page) -> String {
    let texts = plan.operations.iter().flat_map(|operation| {
        operation.hosts.iter().flat_map(|host| {
            let texts = match &host.outlook {
                Outlook::Change { texts, .. } => &texts[..],
                _ => &[],
            };
            texts.iter().map(|text| ((operation.id.index(), operation.title.as_str()), text, host.host))
        })
    });
    let text = stage(share(texts), name, &mut Bounds::new(page.verbosity), page);
    if text.is_empty() { text } else { format!("{} Differences\n{text}", page.stage("-->")) }
}

/// What an operation has changed on hosts.
pub(crate) fn of_operation<'n, 't>(
    title: &'t str,
    texts: impl IntoIterator<Item = (&'t TextChange, HostId)>,
    name: impl Fn(HostId) -> &'n str,
    bounds: &mut Bounds,
    page: Page,
) -> String {
    if bounds.used_up() {
        return String::new();
    }
    stage(share(texts.into_iter().map(|(text, host)| ((0, title), text, host))), name, bounds, page)
}

/// Equal changes of an operation together, in the order of the first of each.
fn share<'t>(texts: impl Iterator<Item = ((usize, &'t str), &'t TextChange, HostId)>) -> Vec<Shared<'t>> {
    let mut shared: Vec<Shared<'t>> = Vec::new();
    let mut places = HashMap::new();
    for ((operation, title), text, host) in texts.filter(|(_, text, _)| text.withheld.is_some() || text.before != text.after) {
        let TextChange { path, before, after, withheld } = text;
        let place = *places.entry((operation, path, before, after, withheld)).or_insert(shared.len());
        match shared.get_mut(place) {
            Some(known) => known.hosts.push(host),
            None => shared.push(Shared { title, text, hosts: vec![host] }),
        }
    }
    shared
}

fn stage<'n>(shared: Vec<Shared<'_>>, name: impl Fn(HostId) -> &'n str, bounds: &mut Bounds, page: Page) -> String {
    let mut text = String::new();
    for Shared { title, text: change, mut hosts } in shared {
        let lines = lines(change);
        let shown = bounds.take(lines.len());
        if shown == 0 {
            continue;
        }
        hosts.sort_unstable();
        let names = nodeset::fold_within(hosts.iter().map(|host| name(*host)), 60);
        let total = if hosts.len() > 2 { format!(" ({} hosts)", hosts.len()) } else { String::new() };
        text.push_str(&format!("    [{names}] {}{total}\n", page.bold(&one_line(title))));
        text.push_str(&block(&lines, shown, "    ", page));
    }
    text.push_str(&bounds.cut().map(|cut| format!("    {}\n", page.dim(&cut))).unwrap_or_default());
    bounds.files_cut = 0;
    bounds.lines_cut = 0;
    text
}

/// What changes in a file, below the plan's row of an operation.
pub(crate) fn inline(change: &TextChange, bounds: &mut Bounds, indent: &str, page: Page) -> String {
    let lines = lines(change);
    let shown = bounds.take(lines.len());
    block(&lines, shown, indent, page)
}

fn block(lines: &[(Paint, String)], shown: usize, indent: &str, page: Page) -> String {
    let mut text: String = lines[..shown].iter().map(|(paint, line)| format!("{indent}{}\n", paint(page, line))).collect();
    if shown < lines.len() {
        let more = count(lines.len() - shown, "more line");
        text.push_str(&format!("{indent}{}\n", page.dim(&format!("… {more} of this file (-vv shows them)"))));
    }
    text
}

/// A file before and after, for the JSON document: the diff as text, or why there is none, and how many lines were left out.
pub(crate) fn value(change: &TextChange, bounds: &mut Bounds) -> Value {
    if let Some(why) = &change.withheld {
        return json!({ "path": change.path, "diff": null, "withheld": why, "more_lines": 0 });
    }
    let lines = lines(change);
    let shown = bounds.take(lines.len());
    let text: String = lines[..shown].iter().map(|(_, line)| format!("{line}\n")).collect();
    json!({ "path": change.path, "diff": text, "withheld": null, "more_lines": lines.len() - shown })
}

/// The lines of a unified diff, with three lines around each change, and their colours.
pub(crate) fn lines(change: &TextChange) -> Vec<(Paint, String)> {
    let path = one_line(&change.path);
    let mut lines: Vec<(Paint, String)> = vec![(Page::bold, format!("--- {path}")), (Page::bold, format!("+++ {path}"))];
    if let Some(why) = &change.withheld {
        lines.push((Page::dim, format!("not shown: {}", one_line(why))));
        return lines;
    }
    let (before, after) = (visible(&change.before), visible(&change.after));
    // Past this time the rest of a large file is shown as replaced, rather than that the plan is waited for.
    let diff = TextDiff::configure().timeout(Duration::from_millis(500)).diff_lines(&*before, &*after);
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        lines.push((Page::dim, hunk.header().to_string()));
        for change in hunk.iter_changes() {
            let (paint, sign) = match change.tag() {
                ChangeTag::Delete => (Page::bad as Paint, '-'),
                ChangeTag::Insert => (Page::good as Paint, '+'),
                ChangeTag::Equal => (bare as Paint, ' '),
            };
            lines.push((paint, format!("{sign}{}", line(change.value()))));
            if change.missing_newline() {
                lines.push((Page::dim, "\\ No newline at end of file".to_owned()));
            }
        }
    }
    lines
}

/// Text of a file as a person may see it. All that is shown of files goes through here, on the screen and in documents: the place to
/// hide what is secret.
fn visible(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// A line, safe to show: control characters are escaped, and what is longer than anyone reads is counted.
fn line(text: &str) -> String {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let safe = |text: &str| printable(text).replace('\t', "    ");
    let mut chars = text.char_indices();
    match chars.nth(LINE_CHARS) {
        Some((end, _)) => format!("{}… ({} in this line)", safe(&text[..end]), count(chars.count() + 1, "more character")),
        None => safe(text),
    }
}

/// Whether there is anything that [`render_diffs`] would show of this plan.
pub fn holds_diffs(plan: &Plan) -> bool {
    let mut outlooks = plan.operations.iter().flat_map(|operation| &operation.hosts).map(|host| &host.outlook);
    outlooks.any(|outlook| matches!(outlook, Outlook::Change { texts, .. } if !texts.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page { colour: false, width: 100, verbosity: 0 };

    fn change(before: &str, after: &str) -> TextChange {
        TextChange { path: "/etc/motd".into(), before: before.into(), after: after.into(), withheld: None }
    }

    fn shown(changes: &[(&TextChange, u32)], bounds: &mut Bounds) -> String {
        let names = ["a", "b", "c"];
        let texts = changes.iter().map(|(change, host)| (*change, HostId(*host)));
        of_operation("Motd", texts, |host| names[host.0 as usize], bounds, PAGE)
    }

    #[test]
    fn equal_diffs_are_shown_once() {
        let (one, other) = (change("old\nkept\n", "new\nkept\n"), change("", "new\nkept"));
        let text = shown(&[(&one, 1), (&other, 2), (&one, 0)], &mut Bounds::new(0));
        let wanted = "    [a, b] Motd\n    --- /etc/motd\n    +++ /etc/motd\n    @@ -1,2 +1,2 @@\n    -old\n    +new\n     kept\n    \
            [c] Motd\n    --- /etc/motd\n    +++ /etc/motd\n    @@ -0,0 +1,2 @@\n    +new\n    +kept\n    \\ No newline at end of file\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn what_is_cut_is_counted() {
        let long: String = (0..300).map(|number| format!("{number}\n")).collect();
        let text = shown(&[(&change("", &long), 0)], &mut Bounds::new(0));
        assert!(text.ends_with("    +196\n    … 103 more lines of this file (-vv shows them)\n"), "{text}");
        assert_eq!(shown(&[(&change("", &long), 0)], &mut Bounds::new(2)).lines().count(), 304);
        // Only so many lines in all, over all files.
        let files: Vec<TextChange> = (0..12).map(|number| TextChange { path: format!("/{number}"), ..change("", &long) }).collect();
        let all: Vec<_> = files.iter().map(|file| (file, 0)).collect();
        let mut bounds = Bounds::new(0);
        let text = shown(&all, &mut bounds);
        assert!(text.ends_with("    … and 2 more files with 606 lines (-vv shows them)\n"), "{text}");
        assert!(text.contains("/9\n") && !text.contains("/10\n"));
        assert_eq!(shown(&all, &mut bounds), "", "it was said that there is more");
        let wide = change("", &"x".repeat(1500));
        assert!(
            shown(&[(&wide, 0)], &mut Bounds::new(0)).contains(&format!("+{}… (500 more characters in this line)\n", "x".repeat(1000)))
        );
    }

    #[test]
    fn what_is_no_text_is_said_and_what_moves_cursors_is_escaped() {
        let withheld = TextChange { withheld: Some("it is larger than 1 MiB".into()), ..change("", "") };
        let text = shown(&[(&withheld, 0)], &mut Bounds::new(0));
        assert_eq!(text, "    [a] Motd\n    --- /etc/motd\n    +++ /etc/motd\n    not shown: it is larger than 1 MiB\n");
        let text = shown(&[(&change("a\u{1b}[2J\r\n", "b\tc\n"), 0)], &mut Bounds::new(0));
        assert!(text.contains("    -a\\u{1b}[2J\\r\n    +b    c\n"), "{text}");
        assert_eq!(shown(&[(&change("same", "same"), 0)], &mut Bounds::new(0)), "");
    }

    #[test]
    fn documents_count_what_they_leave_out() {
        let long: String = (0..300).map(|number| format!("{number}\n")).collect();
        let one = value(&change("", &long), &mut Bounds::new(0));
        assert_eq!((&one["path"], &one["more_lines"], &one["withheld"]), (&json!("/etc/motd"), &json!(103), &Value::Null));
        assert!(one["diff"].as_str().is_some_and(|diff| diff.starts_with("--- /etc/motd\n+++ /etc/motd\n@@ -0,0 +1,300 @@\n+0\n")));
        let none = value(&TextChange { withheld: Some("x".into()), ..change("", "") }, &mut Bounds::new(0));
        assert_eq!(none, json!({ "path": "/etc/motd", "diff": null, "withheld": "x", "more_lines": 0 }));
    }
}
