//! SHA-256 digests (FIPS 180-4), written as 64 lower-case hexadecimal digits: what `sha256sum` prints.

use sha2::{Digest as _, Sha256};

/// The digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A digest made piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Sha256Builder(Sha256);

impl Sha256Builder {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
        let mut builder = Sha256Builder::default();
        builder.update(b"ab");
        builder.update(b"c");
        assert_eq!(builder.finish(), sha256(b"abc"));
    }
}
