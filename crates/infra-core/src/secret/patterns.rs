//! In which forms a secret may stand in a text, and how they are found.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::{MASK, SHORTEST};
use crate::command::quote;

/// So many bytes of the beginning of a secret, cut off with `…`, are taken for one: fewer may be anything.
const TELLING: usize = 3;

const ELLIPSIS: &[u8] = "…".as_bytes();

/// Finds all forms of all secrets.
pub(super) struct Searcher {
    automaton: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    /// The places of the patterns by their first bytes.
    by_first: Vec<Vec<usize>>,
    /// The places of the patterns by their last bytes.
    by_last: Vec<Vec<usize>>,
    longest: usize,
    /// The forms in base64, which programs break into lines wherever one is full.
    broken: AhoCorasick,
}

/// So many characters of base64 at the end of a line may begin a form that goes on in the next: fewer stand there by chance.
const BEGUN: usize = 4;

impl Searcher {
    pub(super) fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let (mut patterns, mut encoded) = (BTreeSet::new(), BTreeSet::new());
        texts.for_each(|text| forms(text, &mut patterns, &mut encoded));
        let encoded: Vec<Vec<u8>> = encoded.into_iter().collect();
        patterns.extend(encoded.iter().cloned());
        let patterns: Vec<Vec<u8>> = patterns.into_iter().collect();
        let build = |patterns: &[Vec<u8>]| {
            let built = AhoCorasick::builder().match_kind(MatchKind::Standard).build(patterns);
            built.expect("the patterns of all secrets of a run are less than two gigabytes")
        };
        let (automaton, broken) = (build(&patterns), build(&encoded));
        let (mut by_first, mut by_last) = (vec![Vec::new(); 256], vec![Vec::new(); 256]);
        for (at, pattern) in patterns.iter().enumerate() {
            by_first[usize::from(pattern[0])].push(at);
            by_last[usize::from(pattern[pattern.len() - 1])].push(at);
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
        Self { automaton, patterns, by_first, by_last, longest, broken }
    }

    /// How many bytes the longest form has.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    pub(super) fn finds(&self, bytes: &[u8]) -> bool {
        self.automaton.is_match(bytes) || !self.broken_spans(bytes).is_empty()
    }

    /// Where forms in base64 stand that are broken into lines.
    fn broken_spans(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        if !bytes.iter().any(is_end_of_line) {
            return Vec::new();
        }
        let (places, joined): (Vec<usize>, Vec<u8>) = joined(bytes).unzip();
        let found = self.broken.find_overlapping_iter(&joined);
        found.map(|one| (places[one.start()], places[one.end() - 1] + 1)).collect()
    }

    /// Where secrets stand, in order; those that overlap are one.
    pub(super) fn spans(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = self.automaton.find_overlapping_iter(bytes).map(|one| (one.start(), one.end())).collect();
        found.append(&mut self.broken_spans(bytes));
        found.sort_unstable();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for (start, end) in found {
            match spans.last_mut() {
                Some(last) if start < last.1 => last.1 = last.1.max(end),
                _ => spans.push((start, end)),
            }
        }
        spans
    }

    /// The bytes with what is found masked; none where nothing is. With `cut` also the beginnings of secrets that were cut off with `…`.
    pub(super) fn masked(&self, bytes: &[u8], cut: bool) -> Option<Vec<u8>> {
        let mut spans = self.spans(bytes);
        if cut {
            for at in positions(bytes, ELLIPSIS) {
                if let Some(start) = self.begun(&bytes[..at]).filter(|start| at - start >= TELLING)
                    && spans.iter().all(|(from, to)| at <= *from || start >= *to)
                {
                    spans.push((start, at));
                }
            }
            spans.sort_unstable();
        }
        if spans.is_empty() {
            return None;
        }
        let mut masked = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for (start, end) in spans {
            masked.extend_from_slice(&bytes[from..start]);
            masked.extend_from_slice(MASK.as_bytes());
            from = end;
        }
        masked.extend_from_slice(&bytes[from..]);
        Some(masked)
    }

    /// Where the longest end of these bytes begins that more bytes may make a secret of.
    pub(super) fn begun(&self, bytes: &[u8]) -> Option<usize> {
        self.begun_in(bytes).into_iter().chain(self.begun_on_lines(bytes)).min()
    }

    fn begun_in(&self, bytes: &[u8]) -> Option<usize> {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (from..bytes.len()).find(|start| {
            let end = &bytes[*start..];
            let begins = |at: &usize| self.patterns[*at].len() > end.len() && self.patterns[*at].starts_with(end);
            self.by_first[usize::from(end[0])].iter().any(begins)
        })
    }

    /// The same of a form in base64 that is broken into lines.
    fn begun_on_lines(&self, bytes: &[u8]) -> Option<usize> {
        let from = bytes.len().saturating_sub(2 * self.longest);
        let end = &bytes[from..];
        if !end.iter().any(is_end_of_line) {
            return None;
        }
        let (places, joined): (Vec<usize>, Vec<u8>) = joined(end).unzip();
        let start = self.begun_in(&joined)?;
        (joined.len() - start >= BEGUN && joined[start..].iter().all(is_in_base64)).then(|| from + places[start])
    }

    /// The bytes without a secret that is begun at their end.
    pub(super) fn without_begun<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[..self.begun(bytes).unwrap_or(bytes.len())]
    }

    /// The bytes without the end of a secret at their beginning.
    pub(super) fn without_ended<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let to = bytes.len().min(self.longest.saturating_sub(1));
        let ended = (1..=to).rev().find(|end| {
            let begin = &bytes[..*end];
            let ends = |at: &usize| self.patterns[*at].len() > begin.len() && self.patterns[*at].ends_with(begin);
            self.by_last[usize::from(begin[end - 1])].iter().any(ends)
        });
        &bytes[ended.unwrap_or_default()..]
    }
}

/// Whether base64 may be made of it, in either alphabet.
fn is_in_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte)
}

fn is_end_of_line(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The bytes without the ends of lines, each with its place.
fn joined(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    bytes.iter().copied().enumerate().filter(|(_, byte)| !is_end_of_line(byte))
}

fn positions<'b>(bytes: &'b [u8], part: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    bytes.windows(part.len()).enumerate().filter(move |(_, window)| *window == part).map(|(at, _)| at)
}

/// All forms in which a secret may stand somewhere, and those of its lines; those in base64 apart.
fn forms(text: &str, forms: &mut BTreeSet<Vec<u8>>, encoded: &mut BTreeSet<Vec<u8>>) {
    let whole = text.trim();
    forms_of_one(whole, forms);
    in_base64(whole, encoded);
    let plain = whole.as_bytes();
    // As it stands alone, with and without the newline that files and `echo` end with.
    for alone in [plain.to_vec(), [plain, b"\n"].concat()] {
        let alone = base64(&alone);
        encoded.insert(url_safe(&alone).into_bytes());
        encoded.insert(alone.into_bytes());
    }
    for line in whole.lines().map(str::trim).filter(|line| line.chars().count() >= SHORTEST && line.len() < whole.len()) {
        forms_of_one(line, forms);
        in_base64(line, encoded);
    }
}

fn forms_of_one(text: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let mut add = |form: String| {
        if form.len() >= SHORTEST {
            forms.insert(form.into_bytes());
        }
    };
    add(text.to_owned());
    // Each level of quoting makes more of a quote; what stands around it belongs to the whole word.
    let once = within_quotes(text);
    add(within_quotes(&once));
    add(once.clone());
    // As `set` of some shells shows it.
    add(text.replace('\'', "'\"'\"'"));
    add(text.chars().fold(String::new(), |mut quoted, c| {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
        quoted
    }));
    let json = |text: &str| serde_json::to_string(text).map(|json| json[1..json.len() - 1].to_owned()).unwrap_or_default();
    add(json(text));
    add(json(&once));
    add(text.escape_debug().collect());
    add(crate::output::printable(text));
    for lower in [false, true] {
        add(percent(text, lower));
    }
}

/// A text in base64 in the middle of more bytes, where it begins at one of three places of a group of three.
fn in_base64(text: &str, forms: &mut BTreeSet<Vec<u8>>) {
    for before in 0..3usize {
        let encoded = base64(&[&vec![0; before][..], text.as_bytes()].concat());
        let encoded = encoded.trim_end_matches('=');
        // The characters at both ends are shared with the neighbours.
        let from = [0, 2, 3][before];
        let to = (before + text.len()) * 8 / 6;
        if let Some(inner) = encoded.get(from..to).filter(|inner| inner.len() >= SHORTEST) {
            forms.insert(url_safe(inner).into_bytes());
            forms.insert(inner.as_bytes().to_vec());
        }
    }
}

/// A text as it stands between single quotes of a shell.
fn within_quotes(text: &str) -> String {
    let quoted = quote(text);
    match quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => inner.to_owned(),
        None => quoted,
    }
}

/// A text in an address (RFC 3986, section 2.1).
fn percent(text: &str, lower: bool) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ if lower => out.push_str(&format!("%{byte:02x}")),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// Base64 with the alphabet and the padding of RFC 4648, section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            match at <= group.len() {
                true => out.push(char::from(ALPHABET[(number >> (18 - 6 * at) & 63) as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

/// The same with the alphabet of section 5.
fn url_safe(encoded: &str) -> String {
    encoded.replace('+', "-").replace('/', "_")
}
