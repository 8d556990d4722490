//! Lists of hosts, folded for people: `web-[01-20], db-01`.

use std::collections::HashMap;

use console::measure_text_width;

/// A name with one run of digits taken out of it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Pattern<'n> {
    before: &'n str,
    after: &'n str,
}

/// Folds names into parts, each a name or a range; the ranges expand to exactly the names.
///
/// A part stands where the first of its names stood. Numbers keep their width: `[08-11]` is 08, 09, 10, 11. A name that holds
/// brackets or commas of its own is left as it is.
pub fn fold_parts<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<String> {
    let names: Vec<&str> = names.into_iter().collect();
    let mut popular: HashMap<Pattern, usize> = HashMap::new();
    for name in &names {
        for (pattern, _) in patterns(name) {
            *popular.entry(pattern).or_default() += 1;
        }
    }
    // Names that share a pattern stand together, in the order of the first of each.
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<Pattern, usize> = HashMap::new();
    for name in &names {
        // Of equally popular ones the rightmost wins: it is the host's own number more often than a site's or a rack's.
        let best = patterns(name).into_iter().max_by_key(|(pattern, _)| popular[pattern]);
        match best {
            Some((pattern, number)) => {
                let place = *places.entry(pattern.clone()).or_insert_with(|| {
                    groups.push(Group::Numbered(pattern, Vec::new()));
                    groups.len() - 1
                });
                if let Group::Numbered(_, numbers) = &mut groups[place] {
                    numbers.push(number);
                }
            }
            None => groups.push(Group::Plain(name)),
        }
    }
    groups.into_iter().flat_map(Group::parts).collect()
}

/// Folds names into one text: `web-[01-20], db-01`.
pub fn fold<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    fold_parts(names).join(", ")
}

/// The same, as long as it is no wider than `width` columns; else as many parts as fit, and how many names are left out.
pub fn fold_within<'n>(names: impl IntoIterator<Item = &'n str>, width: usize) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let whole = fold(names.iter().copied());
    if measure_text_width(&whole) <= width {
        return whole;
    }
    let (mut shown, mut text) = (0, String::new());
    // Names are added one by one, so that the number of those left out is known; past a hundred the text is as long as a screen.
    for end in 1..=names.len().min(100) {
        let candidate = fold(names[..end].iter().copied());
        let rest = format!("{candidate} and {} more", names.len() - end);
        if measure_text_width(&rest) <= width {
            (shown, text) = (end, rest);
        }
    }
    if shown == 0 { format!("{} hosts", names.len()) } else { text }
}

enum Group<'n> {
    Plain(&'n str),
    Numbered(Pattern<'n>, Vec<&'n str>),
}

impl Group<'_> {
    fn parts(self) -> Vec<String> {
        let (pattern, mut numbers) = match self {
            Self::Plain(name) => return vec![name.to_owned()],
            Self::Numbered(pattern, numbers) => (pattern, numbers),
        };
        let value = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
        numbers.sort_by_key(|text| (value(text), text.len()));
        let mut parts = Vec::new();
        let mut rest = numbers.as_slice();
        while let Some(first) = rest.first() {
            let width = first.len();
            let follows = |index: &usize| {
                let next = value(first).saturating_add(*index as u64);
                rest.get(*index).is_some_and(|text| **text == format!("{next:0width$}"))
            };
            let length = 1 + (1..).take_while(follows).count();
            let Pattern { before, after } = &pattern;
            parts.push(match length {
                1 => format!("{before}{first}{after}"),
                _ => format!("{before}[{first}-{}]{after}", rest[length - 1]),
            });
            rest = &rest[length..];
        }
        parts
    }
}

/// The ways to take one run of digits out of a name, from the left. Runs that are no number of 64 bits are left in.
fn patterns(name: &str) -> Vec<(Pattern<'_>, &str)> {
    if name.contains(['[', ']', ',']) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut start = None;
    for (index, byte) in name.bytes().chain([b'.']).enumerate() {
        match (byte.is_ascii_digit(), start) {
            (true, None) => start = Some(index),
            (false, Some(begin)) => {
                let number = &name[begin..index];
                if number.len() < 19 {
                    found.push((Pattern { before: &name[..begin], after: &name[index..] }, number));
                }
                start = None;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The names that a folded part stands for, written apart from the folding.
    fn unfold(part: &str) -> Vec<String> {
        let Some((before, rest)) = part.split_once('[') else { return vec![part.to_owned()] };
        let (range, after) = rest.split_once(']').expect("a bracket that opens is closed");
        let (first, last) = range.split_once('-').expect("a range has two ends");
        let width = first.len();
        let numbers = first.parse::<u64>().expect("a number")..=last.parse().expect("a number");
        numbers.map(|number| format!("{before}{number:0width$}{after}")).collect()
    }

    #[test]
    fn names_are_folded() {
        for (names, folded) in [
            (&["web-01", "web-02", "web-03"][..], "web-[01-03]"),
            (&["web-09", "web-10", "web-11"], "web-[09-11]"),
            (&["web-9", "web-10"], "web-[9-10]"),
            (&["web-09", "web-9"], "web-9, web-09"),
            (&["web-1", "web-3", "db"], "web-1, web-3, db"),
            (&["web-1", "db-1", "web-2", "db-2"], "web-[1-2], db-[1-2]"),
            (&["r1-n1", "r1-n2", "r2-n1"], "r1-n[1-2], r2-n1"),
            (&["a1.eu1", "a2.eu1", "a3.eu1"], "a[1-3].eu1"),
            (&["10.0.0.7", "10.0.0.8"], "10.0.0.[7-8]"),
            (&["[::1]:22", "@local"], "[::1]:22, @local"),
            (&["x99999999999999999999", "x99999999999999999998"], "x99999999999999999999, x99999999999999999998"),
            (&[], ""),
        ] {
            assert_eq!(fold(names.iter().copied()), folded);
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let names = ["alpha", "beta", "gamma", "delta"];
        assert_eq!(fold_within(names, 40), "alpha, beta, gamma, delta");
        assert_eq!(fold_within(names, 22), "alpha, beta and 2 more");
        assert_eq!(fold_within(names, 5), "4 hosts");
    }

    #[test]
    fn a_large_fleet_is_folded_at_once() {
        let names: Vec<String> = (0..100_000).map(|n| format!("node-{n:06}.example.com")).collect();
        assert_eq!(fold(names.iter().map(String::as_str)), "node-[000000-099999].example.com");
    }

    proptest! {
        #[test]
        fn folding_loses_and_adds_nothing(names in proptest::collection::btree_set("[a-c]{0,1}[-.]{0,1}[0-2]{0,3}(x[0-9]{1,2}){0,1}", 0..60)) {
            let parts = fold_parts(names.iter().map(String::as_str));
            let again: Vec<String> = parts.iter().flat_map(|part| unfold(part)).collect();
            prop_assert_eq!(again.len(), names.len());
            prop_assert_eq!(again.into_iter().collect::<BTreeSet<_>>(), names);
        }

        #[test]
        fn neighbours_become_one_range(first in 0u64..2000, count in 2u64..50, width in 1usize..6) {
            let names: Vec<String> = (first..first + count).map(|n| format!("n{n:0width$}.x")).collect();
            prop_assert_eq!(fold_parts(names.iter().map(String::as_str)).len(), 1);
        }

        #[test]
        fn a_folded_list_keeps_to_its_width(names in proptest::collection::btree_set("[a-f]{1,8}[0-9]{0,2}", 1..60), width in 10usize..80) {
            prop_assert!(measure_text_width(&fold_within(names.iter().map(String::as_str), width)) <= width);
        }
    }
}
