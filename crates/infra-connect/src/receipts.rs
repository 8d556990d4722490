//! Receipts: marks in a host's output that nothing but our own shells can print.
//!
//! A mark is one line: the byte 0x1e, 32 hexadecimal digits (128 random bits, fresh for each mark), a colon, a number, a newline. The digits travel
//! on standard input only and never stand in an argument, a variable or the environment while a command of somebody else runs.

use std::collections::HashMap;
use std::sync::Arc;

/// The byte that a mark starts with. It is rare in output, which makes looking for marks cheap.
const PREFIX: u8 = 0x1e;
const DIGITS: usize = 32;
/// The longest `:NUMBER\n`: a sign and 19 digits.
const LONGEST_NUMBER: usize = 22;

/// The random part of a mark.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tag(String);

impl Tag {
    /// A fresh one.
    pub(crate) fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// Its digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Shell text that prints the mark on both outputs, with the value of `number`, a shell expansion such as `$?`.
    pub(crate) fn say(&self, number: &str) -> String {
        let print = self.print("$infra_r");
        format!("infra_r={number};{print};{print} >&2")
    }

    /// The mark itself with the number 0, without the end of its line: for what is no shell text.
    pub(crate) fn line(&self) -> String {
        format!("{}{}:0", char::from(PREFIX), self.0)
    }

    /// Shell text that prints the mark on standard output alone.
    pub(crate) fn print(&self, number: &str) -> String {
        format!("echo '{}{}:'\"{number}\"", char::from(PREFIX), self.0)
    }
}

/// A shell function of this name that prints a mark on both outputs, given its digits, with the exit status of what was before it. It is done before any other
/// command runs.
pub(crate) fn function(name: &str) -> String {
    let prefix = char::from(PREFIX);
    format!("{name}() {{ infra_r=$?;echo \"{prefix}$1:$infra_r\";echo \"{prefix}$1:$infra_r\" >&2; }}\n")
}

/// The same with so much more than the exit status, and on standard output alone where that is 0.
pub(crate) fn function_once(name: &str, more: i64) -> String {
    let prefix = char::from(PREFIX);
    let say = format!("echo \"{prefix}$1:$infra_r\"");
    format!("{name}() {{ infra_r=$(($?+{more}));{say};case $infra_r in {more});;*) {say} >&2;;esac; }}\n")
}

/// The marks of one conversation: which tag stands for what.
pub(crate) struct Marks<M> {
    known: HashMap<[u8; DIGITS], M>,
}

impl<M> Default for Marks<M> {
    fn default() -> Self {
        Self { known: HashMap::new() }
    }
}

impl<M: Copy> Marks<M> {
    /// No marks yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Has a tag that was there before stand for `mark`.
    pub(crate) fn know(&mut self, tag: &Tag, mark: M) {
        self.known.insert(tag.0.as_bytes().try_into().expect("a tag has 32 digits"), mark);
    }

    /// Knows those of another conversation as well, which is held together with this one.
    pub(crate) fn join(&mut self, other: Self) {
        self.known.extend(other.known);
    }

    /// A fresh tag that stands for `mark`.
    pub(crate) fn add(&mut self, mark: M) -> Tag {
        let tag = Tag::random();
        self.know(&tag, mark);
        tag
    }
}

/// A piece of a host's output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a, M> {
    /// Output of a command, or noise.
    Bytes(&'a [u8]),
    /// One of our marks, and its number.
    Mark(M, i64),
}

/// Finds marks in one stream. It holds back no more bytes than a mark has.
pub(crate) struct Scanner<M> {
    marks: Arc<Marks<M>>,
    held: Vec<u8>,
}

enum Look<M> {
    Found(M, i64, usize),
    Incomplete,
    Nothing,
}

impl<M: Copy> Scanner<M> {
    /// For a stream in which these marks may come.
    pub(crate) fn new(marks: Arc<Marks<M>>) -> Self {
        Self { marks, held: Vec::new() }
    }

    /// Takes the next bytes and gives what is certain to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Piece<'_, M>)) {
        let mut joined = std::mem::take(&mut self.held);
        let text = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let mut start = 0;
        let mut from = 0;
        while let Some(at) = text[from..].iter().position(|byte| *byte == PREFIX).map(|at| from + at) {
            match self.look(&text[at..]) {
                Look::Found(mark, number, length) => {
                    if start < at {
                        each(Piece::Bytes(&text[start..at]));
                    }
                    each(Piece::Mark(mark, number));
                    start = at + length;
                    from = start;
                }
                Look::Incomplete => {
                    if start < at {
                        each(Piece::Bytes(&text[start..at]));
                    }
                    self.held = text[at..].to_vec();
                    return;
                }
                Look::Nothing => from = at + 1,
            }
        }
        if start < text.len() {
            each(Piece::Bytes(&text[start..]));
        }
    }

    /// Whether nothing is held back.
    pub(crate) fn is_clear(&self) -> bool {
        self.held.is_empty()
    }

    /// The stream is at its end: what was held back was no mark.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Piece<'_, M>)) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            each(Piece::Bytes(&held));
        }
    }

    fn look(&self, text: &[u8]) -> Look<M> {
        let end = text.len().min(1 + DIGITS);
        let digits = &text[1..end];
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Look::Nothing;
        }
        let Ok(tag) = <[u8; DIGITS]>::try_from(digits) else { return Look::Incomplete };
        let Some(mark) = self.marks.known.get(&tag) else { return Look::Nothing };
        let rest = &text[end..];
        let window = &rest[..rest.len().min(LONGEST_NUMBER)];
        match window.iter().position(|byte| *byte == b'\n') {
            Some(newline) => {
                let number = window[..newline].strip_prefix(b":").and_then(|number| std::str::from_utf8(number).ok());
                match number.and_then(|number| number.parse().ok()) {
                    Some(number) => Look::Found(*mark, number, end + newline + 1),
                    None => Look::Nothing,
                }
            }
            None if window.len() < LONGEST_NUMBER => Look::Incomplete,
            None => Look::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a scanner makes of a stream that comes in pieces of these sizes: bytes and marks in order.
    fn scan(marks: &Arc<Marks<u32>>, stream: &[u8], sizes: &[usize]) -> (Vec<u8>, Vec<(usize, u32, i64)>) {
        let mut scanner = Scanner::new(marks.clone());
        let (mut bytes, mut found) = (Vec::new(), Vec::new());
        let mut take = |piece: Piece<'_, u32>| match piece {
            Piece::Bytes(piece) => bytes.extend_from_slice(piece),
            Piece::Mark(mark, number) => found.push((bytes.len(), mark, number)),
        };
        let mut rest = stream;
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let (piece, next) = rest.split_at(rest.len().min(*sizes.next().expect("a cycle")));
            scanner.push(piece, &mut take);
            assert!(scanner.held.len() <= 1 + DIGITS + LONGEST_NUMBER);
            rest = next;
        }
        scanner.finish(take);
        (bytes, found)
    }

    proptest! {
        #[test]
        fn bytes_and_marks_come_apart_however_they_are_cut(
            before in prop::collection::vec(prop_oneof![Just(PREFIX), Just(b'a'), Just(b'\n'), any::<u8>()], 0..80),
            after in prop::collection::vec(any::<u8>(), 0..80),
            sizes in prop::collection::vec(1_usize..50, 1..6),
            status in any::<i64>(),
        ) {
            let mut marks = Marks::new();
            let tag = marks.add(7);
            let other = Tag::random();
            let marks = Arc::new(marks);
            let mut stream = before.clone();
            // A mark of somebody else's, and the beginning of ours without its end, are output.
            let foreign = [&[PREFIX], other.as_str().as_bytes(), b":0\n", &[PREFIX], &tag.as_str().as_bytes()[..20], b"\n"].concat();
            stream.extend_from_slice(&foreign);
            stream.extend_from_slice(format!("\x1e{}:{status}\n", tag.as_str()).as_bytes());
            stream.extend_from_slice(&after);
            let (bytes, found) = scan(&marks, &stream, &sizes);
            prop_assert_eq!(&found, &vec![(before.len() + foreign.len(), 7, status)]);
            prop_assert_eq!(bytes, [before, foreign, after].concat());
        }
    }
}
