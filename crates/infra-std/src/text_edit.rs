//! Edits of text line by line, as `files.line` makes them and `files.find_in_file` searches.
//!
//! # The dialect
//!
//! Patterns are regular expressions of the `regex` crate, much like those of `grep -E` with Perl's classes (`\d`, `\w`, `\s`, `\b`); there
//! are no
//! look-arounds and no back references within a pattern. A pattern is looked for in each line without its ending; it matches a line when it
//! matches any part of it, unless it is anchored with `^` or `$`.
//!
//! In a replacement `$1` to `$9`, `${1}` and `${name}` stand for groups *that the pattern has*. All else is text as it stands, so
//! `PATH=$PATH:/opt/bin` needs no escaping; where a pattern has groups and `$1` is meant as text, write the group as `(?:…)`.
//!
//! A line ends with `\n` or `\r\n`, and keeps its ending; a last line without one stays without, unless a line is appended.

use regex::{Captures, Regex, RegexBuilder};

/// Why a text is no pattern.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{pattern}` is no regular expression: {message}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it, on one line.
    pub message: String,
}

/// Why an edit was not made.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the replacement never settles: `{first}` would become `{second}` at the next run")]
pub struct UnsettledError {
    /// A line as the edit would leave it.
    pub first: String,
    /// The same line as the same edit would leave it then.
    pub second: String,
}

/// A line of text and how it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'t> {
    /// The line without its ending.
    pub body: &'t str,
    /// `\n`, `\r\n`, or nothing for a last line without one.
    pub ending: &'t str,
}

/// The lines of a text; joined again they are the text.
pub fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.split_inclusive('\n').map(|line| {
        let end = line.strip_suffix("\r\n").or_else(|| line.strip_suffix('\n')).unwrap_or(line).len();
        Line { body: &line[..end], ending: &line[end..] }
    })
}

/// What to look for in lines.
#[derive(Clone, Debug)]
pub struct LinePattern {
    text: String,
    regex: Regex,
}

impl LinePattern {
    /// Reads a pattern; with `literal` each character stands for itself.
    ///
    /// # Errors
    /// [`PatternError`] when it is no regular expression.
    pub fn new(text: &str, literal: bool, ignore_case: bool) -> Result<Self, PatternError> {
        let pattern = if literal { regex::escape(text) } else { text.to_owned() };
        let regex = RegexBuilder::new(&pattern).case_insensitive(ignore_case).build().map_err(|error| {
            let shown = error.to_string();
            let last = shown.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it cannot be read");
            PatternError { pattern: text.to_owned(), message: last.trim().trim_start_matches("error: ").to_owned() }
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// Whether a line without its ending matches. The pattern's own text, as a whole line, always does: a line that was appended
    /// because nothing matched must be found at the next run, whatever characters are in it.
    pub fn matches(&self, body: &str) -> bool {
        self.regex.is_match(body) || body == self.text
    }
}

/// The text that takes the place of a line, with its references to groups.
struct Replacement<'r> {
    parts: Vec<Part<'r>>,
}

enum Part<'r> {
    Text(&'r str),
    Group(usize),
}

impl<'r> Replacement<'r> {
    fn new(text: &'r str, regex: &Regex) -> Self {
        let mut parts = Vec::new();
        let mut from = 0;
        let mut at = 0;
        while let Some(found) = text[at..].find('$') {
            let dollar = at + found;
            match Self::reference(&text[dollar + 1..], regex) {
                Some((group, length)) => {
                    parts.push(Part::Text(&text[from..dollar]));
                    parts.push(Part::Group(group));
                    from = dollar + 1 + length;
                    at = from;
                }
                None => at = dollar + 1,
            }
        }
        parts.push(Part::Text(&text[from..]));
        Self { parts }
    }

    /// The group that stands after a `$` and how many bytes name it; none where that is plain text.
    fn reference(after: &str, regex: &Regex) -> Option<(usize, usize)> {
        let exists = |group: usize| (group > 0 && group < regex.captures_len()).then_some(group);
        if let Some(rest) = after.strip_prefix('{') {
            let name = &rest[..rest.find('}')?];
            let named = regex.capture_names().position(|known| known == Some(name));
            return named.or_else(|| exists(name.parse().ok()?)).map(|group| (group, name.len() + 2));
        }
        let digit = after.chars().next()?.to_digit(10)?;
        exists(digit as usize).map(|group| (group, 1))
    }

    fn has_groups(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Group(_)))
    }

    fn expand(&self, captures: Option<&Captures<'_>>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(group) => out.push_str(captures.and_then(|found| found.get(*group)).map_or("", |found| found.as_str())),
            }
        }
        // A carriage return at the end of a line would be taken for part of its ending at the next reading.
        out.truncate(out.trim_end_matches('\r').len());
        out
    }
}

/// What is wished of the lines that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineWish<'w> {
    /// At least one is there; else this is appended.
    Present(&'w str),
    /// Each of them reads like this; where none matches and no line reads so, it is appended.
    Replaced(&'w str),
    /// None is there.
    Absent,
}

/// What an edit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text after it.
    pub text: String,
    /// How many lines were appended: 0 or 1.
    pub appended: usize,
    /// How many lines were replaced by another text.
    pub replaced: usize,
    /// How many lines were removed.
    pub removed: usize,
}

/// Edits a text so that its lines are as wished. Doing it again changes nothing.
///
/// With `ensure_newline` the last line is ended as well.
///
/// # Errors
/// [`UnsettledError`] when the replacement, through its groups, would be replaced by yet another text at the next run.
pub fn edit_lines(text: &str, pattern: &LinePattern, wish: LineWish<'_>, ensure_newline: bool) -> Result<Edited, UnsettledError> {
    let mut edited = Edited { text: String::with_capacity(text.len()), appended: 0, replaced: 0, removed: 0 };
    let ending = lines(text).filter(|line| !line.ending.is_empty()).last().map_or("\n", |line| line.ending);
    let mut append = None;
    match wish {
        LineWish::Present(line) => {
            edited.text.push_str(text);
            append = (!lines(text).any(|found| pattern.matches(found.body))).then(|| line.to_owned());
        }
        LineWish::Absent => {
            for line in lines(text) {
                if pattern.matches(line.body) {
                    edited.removed += 1;
                } else {
                    edited.text.extend([line.body, line.ending]);
                }
            }
        }
        LineWish::Replaced(with) => {
            let replacement = Replacement::new(with, &pattern.regex);
            let mut matched = false;
            for line in lines(text) {
                let new = replaced(line.body, pattern, &replacement)?;
                matched |= new.is_some();
                edited.replaced += usize::from(new.as_deref().is_some_and(|new| new != line.body));
                edited.text.push_str(new.as_deref().unwrap_or(line.body));
                // A last line that is empty is a line only when it is ended.
                let ends = if new.as_deref() == Some("") && line.ending.is_empty() { ending } else { line.ending };
                edited.text.push_str(ends);
            }
            // What groups would hold is not known where nothing matched, so there is nothing to append then.
            if !matched && !replacement.has_groups() && !lines(text).any(|line| line.body == with) {
                append = Some(with.to_owned());
            }
        }
    }
    let open = !edited.text.is_empty() && !edited.text.ends_with('\n');
    if open && (append.is_some() || ensure_newline) {
        edited.text.push_str(ending);
    }
    if let Some(line) = append {
        edited.appended = 1;
        edited.text.extend([line.as_str(), ending]);
    }
    Ok(edited)
}

/// What becomes of a line: none where it is not one of those to be replaced.
fn replaced(body: &str, pattern: &LinePattern, replacement: &Replacement<'_>) -> Result<Option<String>, UnsettledError> {
    let Some(captures) = pattern.regex.captures(body) else {
        return Ok((body == pattern.text && !replacement.has_groups()).then(|| replacement.expand(None)));
    };
    let first = replacement.expand(Some(&captures));
    if let Some(again) = pattern.regex.captures(&first) {
        let second = replacement.expand(Some(&again));
        if second != first {
            return Err(UnsettledError { first, second });
        }
    }
    Ok(Some(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edit(text: &str, line: &str, wish: LineWish<'_>) -> String {
        let pattern = LinePattern::new(line, false, false).expect("a pattern");
        edit_lines(text, &pattern, wish, false).expect("a settled edit").text
    }

    #[test]
    fn lines_are_appended_where_none_matches() {
        for (text, line, wanted) in [
            ("", "a", "a\n"),
            ("b\n", "a", "b\na\n"),
            ("b", "a", "b\na\n"),
            ("b\r\nc", "a", "b\r\nc\r\na\r\n"),
            ("xax\n", "a", "xax\n"),
            ("xax", "a", "xax"),
            ("b\n", "cost (in $)", "b\ncost (in $)\n"),
            ("cost (in $)\n", "cost (in $)", "cost (in $)\n"),
            ("a\n\n", "b", "a\n\nb\n"),
        ] {
            assert_eq!(edit(text, line, LineWish::Present(line)), wanted, "{text:?} {line:?}");
        }
    }

    #[test]
    fn lines_are_removed() {
        for (text, line, wanted) in [
            ("a\nb\n", "a", "b\n"),
            ("a\nba\n", "^a$", "ba\n"),
            ("a\nb", "b", "a\n"),
            ("a\n", "x", "a\n"),
            ("a\r\nb\r\n", "^a$", "b\r\n"),
            ("a", "a", ""),
            ("one\ntwo\nthree\n", "one|two", "three\n"),
        ] {
            assert_eq!(edit(text, line, LineWish::Absent), wanted, "{text:?} {line:?}");
        }
    }

    #[test]
    fn lines_are_replaced_whole() {
        for (text, line, with, wanted) in [
            ("#Port 22\nx\n", "^#?Port ", "Port 2222", "Port 2222\nx\n"),
            ("Port 22\r\nx", "^Port", "Port 1", "Port 1\r\nx"),
            ("Port 22", "Port", "Port 1", "Port 1"),
            ("x\n", "^Port", "Port 1", "x\nPort 1\n"),
            ("x\nPort 1\n", "^NoSuch", "Port 1", "x\nPort 1\n"),
            ("a=1\na=2\n", "^a=", "a=3", "a=3\na=3\n"),
            ("user: me\n", r"^user: (\w+)", "name: $1", "name: me\n"),
            ("user: me\n", r"^user: (?P<who>\w+)", "name: ${who}!", "name: me!\n"),
            ("a 12 b\n", r"(\d+)", "n=$1", "n=12\n"),
            ("PATH=x\n", "^PATH=(.*)", "PATH=$PATH:$0:${HOME}:$2", "PATH=$PATH:$0:${HOME}:$2\n"),
            ("x\n", r"^user: (\w+)", "name: $1", "x\n"),
            ("f(x)\n", "f(x)", "g", "g\n"),
            ("a", "a", "", "\n"),
        ] {
            assert_eq!(edit(text, line, LineWish::Replaced(with)), wanted, "{text:?} {line:?} {with:?}");
        }
    }

    #[test]
    fn a_replacement_that_never_settles_is_an_error() {
        let pattern = LinePattern::new("^n=(.*)", false, false).expect("a pattern");
        let error = edit_lines("n=1\n", &pattern, LineWish::Replaced("n=0$1"), false).expect_err("it grows");
        assert_eq!((error.first.as_str(), error.second.as_str()), ("n=01", "n=001"));
    }

    #[test]
    fn patterns_are_literal_or_without_case_when_asked() {
        assert!(LinePattern::new("a.c", true, false).is_ok_and(|p| p.matches("xa.cx") && !p.matches("abc")));
        assert!(LinePattern::new("abc", false, true).is_ok_and(|p| p.matches("ABC")));
        let error = LinePattern::new("a(b", false, false).expect_err("an open group");
        assert_eq!(error.to_string(), "`a(b` is no regular expression: unclosed group");
    }

    #[test]
    fn a_newline_at_the_end_is_made_sure_of_only_when_asked() {
        let pattern = LinePattern::new("a", false, false).expect("a pattern");
        let text = |ensure| edit_lines("x\r\na", &pattern, LineWish::Present("a"), ensure).expect("settled").text;
        assert_eq!((text(false).as_str(), text(true).as_str()), ("x\r\na", "x\r\na\r\n"));
    }

    fn a_text() -> impl Strategy<Value = String> {
        let line = prop_oneof!["[ab(.+$1 ]{0,5}", "\\PC{0,6}"];
        let ending = prop_oneof![Just("\n"), Just("\r\n"), Just("")];
        (proptest::collection::vec((line, Just("\n").prop_union(Just("\r\n"))), 0..6), "[ab]{0,3}", ending).prop_map(
            |(lines, last, ending)| {
                let mut text: String = lines.into_iter().map(|(body, ending)| format!("{body}{ending}")).collect();
                text.push_str(&last);
                text.push_str(ending);
                text
            },
        )
    }

    proptest! {
        #[test]
        fn lines_joined_are_the_text(text in "[a\r\n]{0,12}") {
            let joined: String = lines(&text).flat_map(|line| [line.body, line.ending]).collect();
            prop_assert_eq!(joined, text);
        }

        #[test]
        fn twice_is_once(
            text in a_text(), line in "[ab(.+)*$|^ ]{1,6}", with in "[ab$1{}( ]{0,6}", literal: bool, ensure: bool, kind in 0..3,
        ) {
            let Ok(pattern) = LinePattern::new(&line, literal, false) else { return Ok(()) };
            let wish = match kind {
                0 => LineWish::Present(&line),
                1 => LineWish::Replaced(&with),
                _ => LineWish::Absent,
            };
            let Ok(once) = edit_lines(&text, &pattern, wish, ensure) else { return Ok(()) };
            let twice = edit_lines(&once.text, &pattern, wish, ensure).expect("what settled once has settled");
            prop_assert_eq!(&twice.text, &once.text);
            prop_assert_eq!((twice.appended, twice.replaced, twice.removed), (0, 0, 0));
            if wish == LineWish::Absent {
                prop_assert!(!lines(&once.text).any(|line| pattern.matches(line.body)));
            }
            if once.appended + once.replaced + once.removed == 0 && !ensure {
                prop_assert_eq!(once.text, text);
            }
        }
    }
}
