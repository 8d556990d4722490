//! Values that nobody may read who is not meant to: passwords, tokens, keys.

use std::fmt;
use std::sync::Arc;

/// A secret text. It has no [`Display`](fmt::Display) and is not serialised; [`Debug`] shows that there is one. Whoever needs the value says so
/// ([`reveal`](Self::reveal)), and hands it to nothing that shows, keeps or passes it as an argument.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// This text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_is_shown_by_nothing() {
        let secret = Secret::new("hunter2-and-more");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(secret.reveal(), "hunter2-and-more");
    }
}
