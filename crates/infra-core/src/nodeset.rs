//! Ranges in host names: `web-[01-03,07].example.com` stands for four hosts.
//!
//! A range is a pair of brackets with numbers and spans of numbers, separated by commas. A leading zero in the first number of a span sets the
//! width: `[08-10]` is 08, 09, 10. Several ranges in one name are all combined, the last one changing fastest. Brackets around an IPv6
//! address (`[::1]:22`) are no range.

/// How many hosts one name may stand for.
pub const LIMIT: u64 = 1_000_000;

/// Why a name with ranges cannot be expanded.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum NodesetError {
    /// A bracket was opened and not closed, or the other way round.
    #[error("`{0}` has a bracket without its partner")]
    Unbalanced(String),
    /// Between the brackets stands something that is no list of numbers and spans.
    #[error("`[{0}]` is no range: write numbers and spans of numbers, as in [01-20,25]")]
    NoRange(String),
    /// A span whose end comes before its start.
    #[error("the range `{0}` ends before it starts")]
    Backwards(String),
    /// A span whose end is padded to another width than its start.
    #[error("the two ends of the range `{0}` are padded with zeros to different widths")]
    Widths(String),
    /// More hosts than [`LIMIT`].
    #[error("`{0}` stands for more than {LIMIT} hosts")]
    TooMany(String),
}

enum Part<'p> {
    Text(&'p str),
    Range(Vec<Span>),
}

struct Span {
    first: u64,
    last: u64,
    width: usize,
}

/// Whether a name has ranges in it, rightly written or not.
pub fn has_ranges(pattern: &str) -> bool {
    parts(pattern).map_or(true, |parts| parts.iter().any(|part| matches!(part, Part::Range(_))))
}

/// All names that a name with ranges stands for, in order; a name without ranges is itself.
///
/// # Errors
/// [`NodesetError`] when a range is wrongly written, or when it stands for more than [`LIMIT`] hosts.
pub fn expand(pattern: &str) -> Result<Vec<String>, NodesetError> {
    let parts = parts(pattern)?;
    let mut total: u64 = 1;
    for part in &parts {
        if let Part::Range(spans) = part {
            let count = spans.iter().fold(0_u64, |sum, span| sum.saturating_add((span.last - span.first).saturating_add(1)));
            total = total.saturating_mul(count);
        }
    }
    if total > LIMIT {
        return Err(NodesetError::TooMany(pattern.to_owned()));
    }
    let mut names = vec![String::new()];
    for part in &parts {
        match part {
            Part::Text(text) => names.iter_mut().for_each(|name| name.push_str(text)),
            Part::Range(spans) => {
                let mut longer = Vec::new();
                for name in &names {
                    for span in spans {
                        longer.extend((span.first..=span.last).map(|number| format!("{name}{number:0width$}", width = span.width)));
                    }
                }
                names = longer;
            }
        }
    }
    Ok(names)
}

/// The items of a list separated by commas, where commas inside brackets separate nothing. Space around items and empty items are dropped.
pub fn split_list(list: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let mut depth = 0_usize;
    let mut start = 0;
    for (at, c) in list.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    items.into_iter().map(str::trim).filter(|item| !item.is_empty()).collect()
}

fn parts(pattern: &str) -> Result<Vec<Part<'_>>, NodesetError> {
    let unbalanced = || NodesetError::Unbalanced(pattern.to_owned());
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find('[') {
        let close = rest[open..].find(']').ok_or_else(unbalanced)? + open;
        let inside = &rest[open + 1..close];
        let before = &rest[..open];
        if before.contains(']') {
            return Err(unbalanced());
        }
        if inside.contains(':') {
            parts.push(Part::Text(&rest[..=close]));
        } else {
            parts.push(Part::Text(before));
            parts.push(Part::Range(spans(inside)?));
        }
        rest = &rest[close + 1..];
    }
    if rest.contains(']') {
        return Err(unbalanced());
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

fn spans(inside: &str) -> Result<Vec<Span>, NodesetError> {
    let no_range = || NodesetError::NoRange(inside.to_owned());
    let number = |text: &str| -> Result<u64, NodesetError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse().map_err(|_| no_range()) } else { Err(no_range()) }
    };
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    inside
        .split(',')
        .map(|item| {
            let item = item.trim();
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let span = Span { first: number(first)?, last: number(last)?, width: if padded(first) { first.len() } else { 1 } };
            if (padded(first) && last.len() < first.len()) || (padded(last) && last.len() != first.len()) {
                return Err(NodesetError::Widths(item.to_owned()));
            }
            if span.last < span.first { Err(NodesetError::Backwards(item.to_owned())) } else { Ok(span) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(pattern: &str) -> Result<String, String> {
        expand(pattern).map(|names| names.join(" ")).map_err(|error| error.to_string())
    }

    #[test]
    fn ranges_stand_for_their_names() {
        for (pattern, names) in [
            ("web-01", "web-01"),
            ("web[01-03].example.com", "web01.example.com web02.example.com web03.example.com"),
            ("web-[01-03,07]", "web-01 web-02 web-03 web-07"),
            ("[8-11]", "8 9 10 11"),
            ("[098-101]", "098 099 100 101"),
            ("[98-100]x", "98x 99x 100x"),
            ("[09-10]-[1-2]", "09-1 09-2 10-1 10-2"),
            ("[08-100]", &(8..=100).map(|n| format!("{n:02}")).collect::<Vec<_>>().join(" ")),
            ("[::1]:22", "[::1]:22"),
            ("root@[fe80::1]", "root@[fe80::1]"),
        ] {
            assert_eq!(expanded(pattern).as_deref(), Ok(names), "{pattern}");
        }
    }

    #[test]
    fn wrong_ranges_are_named() {
        for (pattern, message) in [
            ("web[1-3", "`web[1-3` has a bracket without its partner"),
            ("web1]", "`web1]` has a bracket without its partner"),
            ("web[a-c]", "`[a-c]` is no range: write numbers and spans of numbers, as in [01-20,25]"),
            ("web[]", "`[]` is no range: write numbers and spans of numbers, as in [01-20,25]"),
            ("web[3-1]", "the range `3-1` ends before it starts"),
            ("web[01-5]", "the two ends of the range `01-5` are padded with zeros to different widths"),
            ("web[1-005]", "the two ends of the range `1-005` are padded with zeros to different widths"),
            ("web[0-1000000]", "`web[0-1000000]` stands for more than 1000000 hosts"),
            ("[0-99999][0-99999]", "`[0-99999][0-99999]` stands for more than 1000000 hosts"),
            ("[0-18446744073709551615]", "`[0-18446744073709551615]` stands for more than 1000000 hosts"),
        ] {
            assert_eq!(expanded(pattern), Err(message.to_owned()), "{pattern}");
        }
    }

    #[test]
    fn a_hundred_thousand_hosts() {
        let names = expand("node[000000-099999]").expect("a range");
        assert_eq!((names.len(), names[99_999].as_str()), (100_000, "node099999"));
    }

    #[test]
    fn lists_are_split_outside_of_brackets() {
        assert_eq!(split_list("web-[1,2], db ,,[::1]:22"), ["web-[1,2]", "db", "[::1]:22"]);
    }

    proptest! {
        #[test]
        fn any_text_expands_or_is_refused(pattern in "[a-b0-3\\[\\],:@-]{0,12}") {
            if let Ok(names) = expand(&pattern) {
                prop_assert!(!names.is_empty());
                prop_assert_eq!(!has_ranges(&pattern), names == [pattern]);
            }
        }

        #[test]
        fn a_span_has_as_many_names_as_numbers(first in 0_u64..500, more in 0_u64..500, width in 1_usize..6) {
            let last = first + more;
            let names = expand(&format!("h[{first:0width$}-{last:0width$}]")).expect("a range");
            prop_assert_eq!(names.len() as u64, more + 1);
            let back: Vec<u64> = names.iter().map(|name| name[1..].parse().expect("digits")).collect();
            prop_assert_eq!(back, (first..=last).collect::<Vec<_>>());
        }
    }
}
