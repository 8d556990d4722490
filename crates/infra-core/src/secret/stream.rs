//! Secrets in what comes piece by piece.

use super::{MASK, Secrets};

/// So many bytes are held at most where one secret runs into the next without an end.
const HELD: usize = 64 * 1024;

/// Masks an output as it comes. What may be the beginning of a secret is held back until more has come.
pub struct MaskedOutput {
    secrets: Secrets,
    held: Vec<u8>,
    /// How many of the held bytes belong to what stands masked in the output already.
    covered: usize,
}

impl std::fmt::Debug for MaskedOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaskedOutput(…)")
    }
}

impl MaskedOutput {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, held: Vec::new(), covered: 0 }
    }

    /// Takes the next piece and gives what can be shown by now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        if self.secrets.is_empty() && self.held.is_empty() {
            return bytes.to_vec();
        }
        self.held.extend_from_slice(bytes);
        self.release(false)
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        self.release(true)
    }

    fn release(&mut self, all: bool) -> Vec<u8> {
        let Some(searcher) = self.secrets.searcher() else { return std::mem::take(&mut self.held) };
        let spans = searcher.spans(&self.held);
        let mut until = if all { self.held.len() } else { searcher.begun(&self.held).unwrap_or(self.held.len()) };
        // A secret of which more may belong to the next one is masked with it.
        if let Some((start, _)) = spans.iter().find(|(start, end)| *start < until && until < *end) {
            until = *start;
        }
        if self.held.len() - until > HELD + searcher.longest() {
            until = self.held.len() - searcher.longest();
        }
        let mut out = Vec::with_capacity(until);
        let mut from = self.covered;
        for (start, end) in spans.into_iter().filter(|(start, _)| *start < until) {
            if start >= from {
                out.extend_from_slice(&self.held[from..start]);
                out.extend_from_slice(MASK.as_bytes());
            }
            from = from.max(end);
        }
        if from < until {
            out.extend_from_slice(&self.held[from..until]);
        }
        self.covered = from.saturating_sub(until);
        self.held.drain(..until);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_without_an_end_is_masked_in_bounded_memory() {
        let secrets = Secrets::default();
        drop(secrets.secret("aaaaaaa"));
        let mut output = secrets.output();
        let mut shown = Vec::new();
        for _ in 0..100 {
            shown.extend(output.push(&[b'a'; 10_001]));
            assert!(output.held.len() <= HELD + 20_000);
        }
        shown.extend(output.push(b"\nend"));
        shown.extend(output.finish());
        let text = String::from_utf8(shown).expect("text");
        assert!(!text.contains('a') && text.ends_with("***\nend") && text.len() < 300, "{text}");
    }
}
