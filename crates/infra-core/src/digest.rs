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

/// How often [`slow`] makes a digest of the last one, written so many times in a row: some tens of milliseconds.
const ROUNDS: u32 = 100;
const REPEATED: usize = 2048;

/// A salted digest of `bytes` that takes its time, so that what they are is not found out by trying all that they may be.
pub fn slow(salt: &str, bytes: &[u8]) -> String {
    let first = Sha256::new().chain_update(salt.as_bytes()).chain_update([0]).chain_update(bytes).finalize();
    hex(&(0..ROUNDS).fold(first, |last, _| Sha256::digest(last.repeat(REPEATED))))
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
        // sha256sum of "salt", a NUL and "abc", and then a hundred times of its 32 bytes, 2048 times in a row.
        assert_eq!(slow("salt", b"abc"), "7416952b9e47748d25a0c5280a7bb8f24e1887910a5c03eac0f76074119dc306");
        assert_ne!(slow("other", b"abc"), slow("salt", b"abc"));
    }
}
