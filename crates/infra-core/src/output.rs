//! What a command printed, as bytes, and how it ended.

use serde::{Deserialize, Serialize};

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The whole answer of a short command, such as one that reads a fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The exit status; above 128 by convention a signal's number plus 128.
    pub status: i32,
    /// Standard output, complete.
    pub stdout: Vec<u8>,
    /// Standard error, complete.
    pub stderr: Vec<u8>,
}

impl Output {
    /// An output with this standard output and status 0, for tests and examples.
    pub fn of(stdout: impl Into<Vec<u8>>) -> Self {
        Self { status: 0, stdout: stdout.into(), stderr: Vec::new() }
    }

    /// Standard output as text, with invalid UTF-8 replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard output as text, where anything but exit status 0 is an error that carries the standard error.
    ///
    /// # Errors
    /// [`ParseError`](crate::fact::ParseError) with the status and the end of the standard error.
    pub fn expect_success(&self) -> Result<std::borrow::Cow<'_, str>, crate::fact::ParseError> {
        if self.status == 0 {
            return Ok(self.text());
        }
        let stderr = String::from_utf8_lossy(&self.stderr);
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
        Err(crate::fact::ParseError::new(format!("the command exited with {}: {last}", self.status)))
    }
}

/// A size with a unit of 1024: `512 B`, `1.2 KiB`, `3.0 GiB`.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = units[0];
    for next in units {
        value /= 1024.0;
        unit = next;
        if value < 1023.95 {
            break;
        }
    }
    format!("{value:.1} {unit}")
}

/// How many bytes of a stream are kept from its beginning, and how many from its end.
pub const KEPT: usize = 64 * 1024;

/// A bounded record of a stream: its head and its tail are kept, what was between them is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    /// How many bytes of the middle were let go.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// What was kept, with a line in the middle that counts what was not.
    pub fn text(&self) -> String {
        self.text_of_ends(|head| head, |tail| tail)
    }

    /// The same of what the two functions leave of the head and of the tail.
    pub(crate) fn text_of_ends(&self, head: impl for<'b> Fn(&'b [u8]) -> &'b [u8], tail: impl for<'b> Fn(&'b [u8]) -> &'b [u8]) -> String {
        let end: Vec<u8> = self.tail.iter().copied().collect();
        let (mut bytes, end) = (head(&self.head).to_vec(), tail(&end));
        if self.dropped > 0 {
            bytes.extend_from_slice(format!("\n… {} bytes not kept …\n", self.dropped).as_bytes());
        }
        bytes.extend_from_slice(end);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Makes text from a host safe to show: control characters but tab and newline are escaped, so that nothing moves the user's cursor.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' | '\n' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1229, "1.2 KiB"), (1024 * 1024, "1.0 MiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_capture_keeps_head_and_tail() {
        let mut capture = Capture::default();
        capture.push(b"begin");
        for _ in 0..40 {
            capture.push(&[b'x'; 10_000]);
        }
        capture.push(b"end");
        let text = capture.text();
        assert!(text.starts_with("begin") && text.ends_with("end"));
        assert_eq!(capture.dropped(), 400_008 - 2 * KEPT as u64);
        assert!(text.contains(&format!("… {} bytes not kept …", capture.dropped())));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\x1b[2Jb\r\tc\n"), "a\\u{1b}[2Jb\\r\tc\n");
    }
}
