//! Words and columns: colours, counts, times, and lines that fit.

use std::time::Duration;

use console::{Style, measure_text_width};
use infra_core::output::printable;

/// What the text is written for: the colours there are, the columns there are, and how much is to be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub colour: bool,
    pub width: usize,
    pub verbosity: u8,
}

impl Page {
    fn paint(self, style: Style, text: &str) -> String {
        style.force_styling(self.colour).apply_to(text).to_string()
    }

    pub fn stage(self, text: &str) -> String {
        self.paint(Style::new().cyan().bold(), text)
    }

    pub fn bold(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    pub fn dim(self, text: &str) -> String {
        self.paint(Style::new().dim(), text)
    }

    pub fn good(self, text: &str) -> String {
        self.paint(Style::new().green(), text)
    }

    pub fn change(self, text: &str) -> String {
        self.paint(Style::new().yellow(), text)
    }

    pub fn open(self, text: &str) -> String {
        self.paint(Style::new().magenta(), text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint(Style::new().red().bold(), text)
    }

    /// `hint: …` after an empty line, or nothing.
    pub fn hint(self, hint: Option<&str>, indent: &str) -> String {
        let Some(hint) = hint else { return String::new() };
        let mut lines = hint.lines();
        let mut text = format!("\n{indent}{} {}\n", self.stage("hint:"), one_line(lines.next().unwrap_or_default()));
        for line in lines {
            text.push_str(&format!("{indent}      {}\n", one_line(line)));
        }
        text
    }
}

/// Text from anywhere as one line that is safe to show.
pub(crate) fn one_line(text: &str) -> String {
    printable(text.trim_end()).replace('\n', " ⏎ ").replace('\t', "    ")
}

/// A line of output from a host, safe to show.
pub(crate) fn output_line(line: &[u8]) -> String {
    printable(String::from_utf8_lossy(line).strip_suffix('\r').map_or(&String::from_utf8_lossy(line), |line| line))
}

pub(crate) use infra_core::output::size;

/// `1 host`, `2 hosts`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A time as a person says it: `0.3 s`, `2 min 5 s`, `1 h 2 min`.
pub(crate) fn time(took: Duration) -> String {
    let seconds = took.as_secs();
    match seconds {
        // Cut, not rounded: nothing took 60.0 s that did not. What is much shorter is not nothing.
        0 if took.as_millis() < 100 => format!("{:.2} s", (took.as_millis() / 10) as f64 / 100.0),
        0..60 => format!("{:.1} s", (took.as_millis() / 100) as f64 / 10.0),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// ` (3.2 s)` for what took a second or longer; nothing for the rest.
pub(crate) fn slow(took: Duration) -> String {
    if took < Duration::from_secs(1) { String::new() } else { format!(" ({})", time(took)) }
}

/// The text, cut to a number of columns, with `…` where something is left out. It holds no colours.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    console::truncate_str(text, width, "…").into_owned()
}

/// A table: the first column cut so that a row fits, the others as wide as they need to be, with two columns between them.
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
    right: Vec<bool>,
    last_gives_way: bool,
}

/// A cell: its text, and the colour it gets after it was cut and padded.
pub(crate) type Cell = (String, Paint);

/// A colour: a method of the page.
pub(crate) type Paint = fn(Page, &str) -> String;

impl Table {
    /// A table with this heading; a heading that starts with `>` has its column aligned to the right.
    pub fn new(heading: &[&str]) -> Self {
        let right = heading.iter().map(|title| title.starts_with('>')).collect();
        let cells = heading.iter().map(|title| (title.trim_start_matches('>').to_owned(), Page::bold as Paint));
        Self { rows: vec![cells.collect()], right, last_gives_way: false }
    }

    /// The same, with a last column that is cut as well where cutting the first one is not enough.
    pub fn last_gives_way(self) -> Self {
        Self { last_gives_way: true, ..self }
    }

    /// One more row; it has as many cells as the heading.
    pub fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.right.len());
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let columns = 0..self.right.len();
        columns.map(|column| self.rows.iter().map(|row| measure_text_width(&row[column].0)).max().unwrap_or_default()).collect()
    }

    /// How wide it is when its first column is cut to `first` columns.
    pub fn width_with(&self, first: usize) -> usize {
        let widths = self.widths();
        widths[0].min(first) + widths[1..].iter().map(|width| width + 2).sum::<usize>()
    }

    /// Its lines, each indented by four columns, fitting the page: the first column gives way, down to 12 columns, then the last where it may.
    /// A table that is still too wide has lines that are: a number that is cut would be another number.
    pub fn lines(&self, page: Page) -> Vec<String> {
        let mut widths = self.widths();
        let room = page.width.saturating_sub(4);
        let excess = |widths: &[usize]| (widths.iter().sum::<usize>() + 2 * (widths.len() - 1)).saturating_sub(room);
        widths[0] -= excess(&widths).min(widths[0].saturating_sub(12));
        if self.last_gives_way {
            let last = widths.len() - 1;
            widths[last] -= excess(&widths).min(widths[last].saturating_sub(6));
        }
        let line = |row: &Vec<Cell>| {
            let cells = row.iter().zip(&widths).zip(&self.right).map(|(((text, paint), width), right)| {
                let text = cut(text, *width);
                let space = " ".repeat(width.saturating_sub(measure_text_width(&text)));
                if *right { format!("{space}{}", paint(page, &text)) } else { format!("{}{space}", paint(page, &text)) }
            });
            format!("    {}", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        self.rows.iter().map(line).collect()
    }
}

/// Text as it is, for cells without a colour.
pub(crate) fn bare(_: Page, text: &str) -> String {
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_two_units() {
        for (seconds, said) in [
            (0.0, "0.00 s"),
            (0.04, "0.04 s"),
            (0.1, "0.1 s"),
            (3.25, "3.2 s"),
            (59.99, "59.9 s"),
            (125.0, "2 min 5 s"),
            (3725.0, "1 h 2 min"),
        ] {
            assert_eq!(time(Duration::from_secs_f64(seconds)), said);
        }
    }

    #[test]
    fn a_table_fits_its_page_whatever_the_script() {
        let mut table = Table::new(&["title", ">n"]);
        table.row(vec![("日本語のとても長いタイトル、画面より広い".into(), bare), ("12".into(), bare)]);
        table.row(vec![("short".into(), bare), ("3".into(), bare)]);
        let lines = table.lines(Page { colour: false, width: 30, verbosity: 0 });
        assert_eq!(lines, ["    title                    n", "    日本語のとても長いタ…   12", "    short                    3"]);
        assert!(lines.iter().all(|line| measure_text_width(line) <= 30));
    }

    #[test]
    fn lines_of_hosts_are_safe() {
        assert_eq!(output_line(b"50%\r"), "50%");
        assert_eq!(output_line(b"a\x1b[2Jb\xff"), "a\\u{1b}[2Jb\u{fffd}");
        assert_eq!(one_line("a\nb\tc\n"), "a ⏎ b    c");
    }
}
