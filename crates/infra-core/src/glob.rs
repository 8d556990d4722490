//! Patterns with stars: those that choose hosts, and those of fnmatch(3).

/// Whether a text fits a glob in which `*` stands for any text and `?` for one character.
pub fn matches(glob: &str, text: &str) -> bool {
    fits(glob, text, |glob, at, character| matches!(glob.get(at), Some(part) if *part == '?' || *part == character).then_some(at + 1))
}

/// Whether a text matches a pattern of fnmatch(3), without flags.
pub fn fnmatch(pattern: &str, text: &str) -> bool {
    fits(pattern, text, one)
}

/// Whether a text fits a pattern in which `*` stands for any text; `one` tells where the pattern goes on when its part at this place takes a
/// character. The time is at most that of each character with each place.
fn fits(pattern: &str, text: &str, one: impl Fn(&[char], usize, char) -> Option<usize>) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut from) = (0, 0);
    // Where the last star stands and how much of the text it takes: where what follows it does not fit, one more character belongs to it. What stars
    // before it take need not be tried again.
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, from));
            at += 1;
        } else if let Some(next) = one(&pattern, at, text[from]) {
            at = next;
            from += 1;
        } else if let Some((place, taken)) = star {
            star = Some((place, taken + 1));
            at = place + 1;
            from = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&left| left == '*')
}

/// Where the pattern goes on when its next part takes this character.
fn one(pattern: &[char], at: usize, character: char) -> Option<usize> {
    match *pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' if at + 1 < pattern.len() => (pattern[at + 1] == character).then_some(at + 2),
        '[' => match set(&pattern[at + 1..], character) {
            Some((holds, length)) => holds.then_some(at + 1 + length),
            // Without an end it is a character like any other.
            None => (character == '[').then_some(at + 1),
        },
        literal => (literal == character).then_some(at + 1),
    }
}

/// Whether a set, given from behind its `[`, holds a character, and how long it is with its `]`.
fn set(pattern: &[char], character: char) -> Option<(bool, usize)> {
    let negated = matches!(pattern.first(), Some('!' | '^'));
    let first = usize::from(negated);
    let (mut at, mut holds) = (first, false);
    loop {
        let mut low = *pattern.get(at)?;
        if low == ']' && at > first {
            return Some((holds != negated, at + 1));
        }
        if low == '\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        let mut high = low;
        if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|end| *end != ']') {
            high = pattern[at + 2];
            at += 2;
        }
        holds |= (low..=high).contains(&character);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, fits) in [
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "axbxbxc", true),
            ("*.x", "a.y.x", true),
        ] {
            assert_eq!(matches(glob, name), fits, "{glob} {name}");
        }
    }

    #[test]
    fn patterns_match_as_fnmatch_has_it() {
        for (pattern, text, wanted) in [
            ("*.pyc", "a/b.pyc", true),
            ("*.pyc", "b.pyx", false),
            ("a?c", "a/c", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("[a-]", "-", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
            ("*", "", true),
            ("**a", "xa", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxc", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(fnmatch(pattern, text), wanted, "{pattern} {text}");
        }
    }

    /// What a glob means, spelt out: a star takes nothing, or one character more.
    fn meant(glob: &[char], text: &[char]) -> bool {
        match (glob.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some(('*', rest)), None) => meant(rest, text),
            (Some(('*', rest)), Some((_, shorter))) => meant(rest, text) || meant(glob, shorter),
            (Some((part, rest)), Some((first, shorter))) => (*part == '?' || part == first) && meant(rest, shorter),
            (Some(_), None) => false,
        }
    }

    /// Each character as fnmatch(3) takes it for itself.
    fn escaped(text: &str) -> String {
        text.chars().flat_map(|character| ['\\', character]).collect()
    }

    proptest! {
        #[test]
        fn a_glob_matches_what_it_means(glob in "[abé*?]{0,10}", text in "[abé]{0,12}") {
            let (parts, characters): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&glob, &text), meant(&parts, &characters));
            prop_assert_eq!(fnmatch(&glob, &text), meant(&parts, &characters));
        }

        #[test]
        fn a_text_that_was_made_from_a_pattern_matches_it(parts in prop::collection::vec(("[ab*?\\[\\]\\\\!-]{0,4}", "[ab/*\\[\\]é]{0,4}"), 0..5)) {
            let pattern: String = parts.iter().map(|(literal, _)| escaped(literal) + "*").collect();
            let text: String = parts.iter().map(|(literal, taken)| literal.clone() + taken).collect();
            prop_assert!(fnmatch(&pattern, &text), "{} {}", pattern, text);
            prop_assert!(!fnmatch(&(pattern + "\\#"), &text));
        }

        #[test]
        fn a_set_takes_one_of_its_characters(low in proptest::char::range('a', 'z'), high in proptest::char::range('a', 'z'), character in proptest::char::range('a', 'z')) {
            let holds = (low..=high).contains(&character);
            let text = character.to_string();
            prop_assert_eq!(fnmatch(&format!("[{low}-{high}]"), &text), holds);
            prop_assert_eq!(fnmatch(&format!("*[!{low}-{high}]"), &text), !holds);
        }

        #[test]
        fn any_pattern_has_an_answer(pattern in "[\\[\\]!^*?a\\\\-]{0,12}", text in "[\\[\\]!^a\\\\-]{0,12}") {
            let _ = fnmatch(&pattern, &text);
            prop_assert!(fnmatch(&escaped(&text), &text));
        }
    }
}
