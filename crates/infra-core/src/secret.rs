//! Values that nobody may read who is not meant to: passwords, tokens, keys.
//!
//! A [`Secret`] travels by its value, since commands and files need it, and is hidden where things are shown or kept: [`Secrets`] knows all secrets of
//! a run and masks them in texts, [events](Secrets::mask_event), [plans](Secrets::masked_plan) and [output as it comes](MaskedOutput). Each is found as
//! it stands, quoted for a shell, escaped for JSON or an address, in base64 (RFC 4648), and line by line where it has several.

mod masking;
mod patterns;
mod stream;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

pub use masking::{WITHHELD, withhold};
pub use stream::MaskedOutput;

use crate::Value;
use crate::digest::{sha256, slow};
use patterns::Searcher;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// A secret has at least so many characters: masking a shorter one would hide much that is none, and it could be guessed from what is left.
pub const SHORTEST: usize = 6;

/// So many hexadecimal digits has a SHA-256 digest.
const DIGITS: usize = 64;

/// Keys of a host's data whose values are secrets however they were given.
pub const SECRET_KEYS: &[&str] =
    &["_sudo_password", "_su_password", "ssh_password", "ssh_key_password", "ssh_passphrase", "ssh_paramiko_connect_password"];

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

/// A text that is too short to be a secret: it has fewer than [`SHORTEST`] characters, without the space around it.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("is too short to be hidden: {0} of at least {SHORTEST} characters")]
pub struct TooShort(pub usize);

/// All secrets of a run. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Shared>);

/// What goes into digests that stand for secrets.
enum Salt {
    /// It is kept apart from them.
    Apart(Vec<u8>),
    /// It stands beside them, so that they must be slow to make.
    Told(String),
}

#[derive(Default)]
struct Shared {
    salt: OnceLock<Salt>,
    some: AtomicBool,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    texts: BTreeMap<Arc<str>, Arc<Single>>,
    /// Made when something is looked for, anew after more secrets came.
    searcher: Option<Arc<Searcher>>,
}

/// What is worked out for one secret when it is asked for.
#[derive(Default)]
struct Single {
    searcher: OnceLock<Searcher>,
    slow: OnceLock<String>,
    /// The SHA-256 digests of files that hold it and nothing else.
    digests: OnceLock<[String; 3]>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// None yet. `salt` goes into the digests that stand for secrets: where it is kept apart from them, no secret can be guessed from its digest.
    pub fn new(salt: Vec<u8>) -> Self {
        let secrets = Self::default();
        secrets.salt_with(salt);
        secrets
    }

    /// Sets the salt, where there is none yet.
    pub fn salt_with(&self, salt: Vec<u8>) {
        // The first one stands: digests that were made with it must not become others.
        let _ = self.0.salt.set(Salt::Apart(salt));
    }

    /// The same for a salt that whoever reads the digests reads as well, such as that of a saved plan: then they are made so that trying out what a secret
    /// may be takes long.
    pub fn salt_openly(&self, salt: impl Into<String>) {
        let _ = self.0.salt.set(Salt::Told(salt.into()));
    }

    /// Takes a text as a secret: from now on it is masked.
    ///
    /// # Errors
    /// [`TooShort`], and it is not masked then.
    pub fn secret(&self, text: &str) -> Result<Secret, TooShort> {
        let length = text.trim().chars().count();
        if length < SHORTEST {
            return Err(TooShort(length));
        }
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if !known.texts.contains_key(text) {
            known.texts.insert(text.into(), Arc::default());
            known.searcher = None;
            self.0.some.store(true, Ordering::Release);
        }
        Ok(Secret::new(text))
    }

    /// Takes in what was made of secrets by something that may have left nothing of them to be found, such as a template: where none can be found in it,
    /// it is a secret itself.
    pub fn derived(&self, text: &str) {
        if !self.holds(text) {
            // What is too short for that says little.
            let _ = self.secret(text);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        !self.0.some.load(Ordering::Acquire)
    }

    fn searcher(&self) -> Option<Arc<Searcher>> {
        if self.is_empty() {
            return None;
        }
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(searcher) = &known.searcher {
            return Some(searcher.clone());
        }
        drop(known);
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        let Known { texts, searcher } = &mut *known;
        Some(searcher.get_or_insert_with(|| Arc::new(Searcher::new(texts.keys().map(|text| &**text)))).clone())
    }

    /// Whether a secret stands in a text.
    pub fn holds(&self, text: &str) -> bool {
        self.searcher().is_some_and(|searcher| searcher.finds(text.as_bytes()))
    }

    /// The same for bytes.
    pub fn holds_bytes(&self, bytes: &[u8]) -> bool {
        self.searcher().is_some_and(|searcher| searcher.finds(bytes))
    }

    /// Whether a secret stands anywhere in a value.
    pub fn holds_in(&self, value: &Value) -> bool {
        !self.is_empty()
            && match value {
                Value::String(text) => self.holds(text),
                Value::Array(items) => items.iter().any(|item| self.holds_in(item)),
                Value::Object(map) => map.iter().any(|(key, item)| self.holds(key) || self.holds_in(item)),
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
            }
    }

    /// The text with all secrets masked, also the beginning of one that was cut off with `…`.
    pub fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.searcher().and_then(|searcher| searcher.masked(text.as_bytes(), true)) {
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// The same for bytes.
    pub fn mask_bytes<'t>(&self, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        match self.searcher().and_then(|searcher| searcher.masked(bytes, true)) {
            Some(masked) => Cow::Owned(masked),
            None => Cow::Borrowed(bytes),
        }
    }

    /// What a host's data or arguments look like to a digest: each text that holds a secret is a salted digest of itself.
    pub fn sealed(&self, value: &Value) -> Value {
        if self.is_empty() {
            return value.clone();
        }
        match value {
            Value::String(text) if self.holds(text) => Value::String(format!("secret {}", self.digest(text))),
            Value::Array(items) => items.iter().map(|item| self.sealed(item)).collect(),
            Value::Object(map) => map.iter().map(|(key, item)| (key.clone(), self.sealed(item))).collect(),
            other => other.clone(),
        }
    }

    /// What belongs into a digest of these texts, so that no secret in them can be guessed from it where its salt is [told](Self::salt_openly): a slow digest of
    /// each of those secrets. It is empty where there is none, and where no digest is told to anybody. A SHA-256 digest counts as the secret that it is of.
    pub fn guard<'b>(&self, parts: impl IntoIterator<Item = &'b [u8]>) -> String {
        let (Some(Salt::Told(salt)), Some(searcher)) = (self.0.salt.get(), self.searcher()) else { return String::new() };
        let may_be_digest = |part: &[u8]| part.len() == DIGITS;
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| may_be_digest(part) || searcher.finds(part)).collect();
        if parts.is_empty() {
            return String::new();
        }
        let all: Vec<(Arc<str>, Arc<Single>)> = {
            let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
            known.texts.iter().map(|(text, single)| (text.clone(), single.clone())).collect()
        };
        let found = all.iter().filter(|(text, single)| {
            let searcher = single.searcher.get_or_init(|| Searcher::new(std::iter::once(&**text)));
            let is_digest = |part: &[u8]| {
                let of_files = || ["", "\n", "\r\n"].map(|end| sha256(format!("{text}{end}").as_bytes()));
                may_be_digest(part) && single.digests.get_or_init(of_files).iter().any(|digest| digest.as_bytes() == part)
            };
            parts.iter().any(|part| is_digest(part) || searcher.finds(part))
        });
        found.map(|(text, single)| single.slow.get_or_init(|| slow(salt, text.as_bytes())).as_str()).collect()
    }

    /// The salted digest of a text.
    pub fn digest(&self, text: &str) -> String {
        let salt = match self.0.salt.get() {
            Some(Salt::Apart(salt)) => salt.as_slice(),
            Some(Salt::Told(salt)) => return sha256(format!("{salt}\n{}\n{text}", self.guard([text.as_bytes()])).as_bytes()),
            None => &[],
        };
        let inner = sha256(&[salt, text.as_bytes()].concat());
        sha256(&[salt, inner.as_bytes()].concat())
    }

    /// Masks an output as it comes, in pieces of any size.
    pub fn output(&self) -> MaskedOutput {
        MaskedOutput::new(self.clone())
    }

    /// The text of what was kept of an output whose middle was let go, without pieces of secrets that were cut there. Whole ones stand in it.
    pub fn text_of(&self, capture: &crate::output::Capture) -> String {
        match self.searcher() {
            Some(searcher) if capture.dropped() > 0 => {
                capture.text_of_ends(|head| searcher.without_begun(head), |tail| searcher.without_ended(tail))
            }
            _ => capture.text(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(texts: &[&str]) -> Secrets {
        let secrets = Secrets::new(b"salt".to_vec());
        texts.iter().for_each(|text| drop(secrets.secret(text).expect("long enough")));
        secrets
    }

    #[test]
    fn a_secret_is_shown_by_nothing() {
        let secret = Secret::new("hunter2-and-more");
        assert_eq!(format!("{secret:?} {:?}", of(&["hunter2-and-more"])), "Secret(…) Secrets(…)");
        assert_eq!(secret.reveal(), "hunter2-and-more");
    }

    #[test]
    fn one_that_is_too_short_is_refused() {
        let secrets = Secrets::default();
        assert_eq!(secrets.secret("12345 "), Err(TooShort(5)));
        assert_eq!(secrets.secret("12345 ").unwrap_err().to_string(), "is too short to be hidden: 5 of at least 6 characters");
        assert!(secrets.is_empty() && secrets.secret("äöüäöü").is_ok() && !secrets.is_empty());
    }

    #[test]
    fn each_form_is_masked() {
        let secrets = of(&["it's \"so\" $ecret/?"]);
        for (text, wanted) in [
            ("a it's \"so\" $ecret/? b", "a *** b"),
            (r#"echo 'it'\''s "so" $ecret/?'"#, "echo '***'"),
            (r#"{"a":"it's \"so\" $ecret/?"}"#, r#"{"a":"***"}"#),
            (r#"x="it's \"so\" \$ecret/?""#, r#"x="***""#),
            ("/?p=it%27s%20%22so%22%20%24ecret%2F%3F&x", "/?p=***&x"),
            ("aXQncyAic28iICRlY3JldC8/", "***"),
            ("aXQncyAic28iICRlY3JldC8_", "***"),
            ("nothing of it", "nothing of it"),
        ] {
            assert_eq!(secrets.mask(text), wanted, "{text}");
        }
        assert!(matches!(secrets.mask("nothing"), Cow::Borrowed(_)));
    }

    #[test]
    fn lines_of_a_secret_are_secrets_where_they_are_long_enough() {
        let secrets = of(&["-----BEGIN-----\nabcdefgh\nxyz\n"]);
        assert_eq!(secrets.mask("got abcdefgh and xyz"), "got *** and xyz");
        assert_eq!(secrets.mask("> -----BEGIN-----\nabcdefgh\nxyz <"), "> *** <");
    }

    #[test]
    fn what_was_cut_off_is_masked_as_far_as_it_goes() {
        let secrets = of(&["hunter2-and-more"]);
        assert_eq!(secrets.mask("server.shell login hunter2-a…"), "server.shell login ***…");
        assert_eq!(secrets.mask("the hu…"), "the hu…", "too little to be told from anything else");
        assert_eq!(secrets.mask("hunter2-a"), "hunter2-a");
    }

    #[test]
    fn base64_that_is_broken_into_lines_is_found_across_them() {
        let secrets = of(&["hunter2-and-more-of-it"]);
        let encoded = patterns::base64(b"password: hunter2-and-more-of-it!");
        for at in 16..encoded.len() - 8 {
            let broken = format!("{}\r\n{}\n", &encoded[..at], &encoded[at..]);
            let masked = secrets.mask(&broken).into_owned();
            assert!(masked.contains(MASK) && masked.len() < 30, "{masked}");
            let mut output = secrets.output();
            let mut pieces = Vec::new();
            broken.as_bytes().chunks(5).for_each(|piece| pieces.extend(output.push(piece)));
            pieces.extend(output.finish());
            let pieces = String::from_utf8(pieces).expect("text");
            assert!(pieces.matches(char::is_alphanumeric).count() <= 22, "{pieces} of {broken}");
        }
    }

    #[test]
    fn overlapping_secrets_are_masked_as_one() {
        assert_eq!(of(&["abcdef", "defghi"]).mask("xabcdefghix"), "x***x");
    }

    #[test]
    fn digests_are_salted_and_stand_for_whole_texts() {
        let secrets = of(&["hunter2-and-more"]);
        let sealed = secrets.sealed(&json!({ "a": ["say hunter2-and-more", 1], "b": "plain" }));
        let text = sealed["a"][0].as_str().expect("a text");
        assert!(text.starts_with("secret ") && !text.contains("hunter2") && text.len() == 71, "{text}");
        assert_eq!((&sealed["a"][1], &sealed["b"]), (&json!(1), &json!("plain")));
        let other = Secrets::new(b"other".to_vec());
        drop(other.secret("hunter2-and-more"));
        assert_ne!(other.sealed(&json!("say hunter2-and-more")), sealed["a"][0]);
    }

    #[test]
    fn a_digest_whose_salt_is_told_is_slow_to_try_out() {
        let told = |texts: &[&str]| {
            let secrets = Secrets::default();
            secrets.salt_openly("salt");
            texts.iter().for_each(|text| drop(secrets.secret(text).expect("long enough")));
            secrets
        };
        let (text, one) = ("say hunter2-and-more", slow("salt", b"hunter2-and-more"));
        assert_eq!(told(&["hunter2-and-more", "another one"]).guard([text.as_bytes()]), one);
        assert_eq!(told(&["hunter2-and-more", "another one"]).guard([b"plain".as_slice(), b"eA=="]), "");
        assert_eq!(told(&["hunter2-and-more"]).guard([b"plain".as_slice(), b"'hunter2-and-more'"]), one);
        assert_eq!(told(&["hunter2-and-more"]).guard([sha256(b"hunter2-and-more\n").as_bytes(), sha256(b"x").as_bytes()]), one);
        assert_eq!(told(&["hunter2-and-more"]).guard([sha256(b"x").as_bytes()]), "");
        assert_eq!(of(&["hunter2-and-more"]).guard([text.as_bytes()]), "", "nobody is told the salt");
        // It is no digest of the text and the salt alone.
        let digest = told(&["hunter2-and-more"]).digest(text);
        assert_eq!(digest, sha256(format!("salt\n{one}\n{text}").as_bytes()));
        assert_ne!(digest, told(&[]).digest(text));
        // Other secrets of the run have no part in it.
        assert_eq!(digest, told(&["hunter2-and-more", "another one"]).digest(text));
    }

    #[test]
    fn what_was_made_of_a_secret_is_one_where_nothing_of_it_is_left() {
        let secrets = of(&["hunter2-and-more"]);
        secrets.derived("x hunter2-and-more x");
        secrets.derived("HUNTER2-AND-MORE");
        assert_eq!(secrets.mask("x hunter2-and-more x, HUNTER2-AND-MORE"), "x *** x, ***");
    }

    #[test]
    fn a_capture_ends_its_parts_without_pieces_of_secrets() {
        let secrets = of(&["hunter2-and-more"]);
        let mut capture = crate::output::Capture::default();
        capture.push(&[b'x'; crate::output::KEPT - 7]);
        capture.push(b"hunter2-and-more");
        capture.push(&[b'y'; 5]);
        capture.push(b"hunter2-and-more");
        capture.push(&[b'z'; crate::output::KEPT - 4]);
        let text = secrets.text_of(&capture);
        assert!(text.starts_with("xxx") && text.ends_with("zzz"));
        assert!(!text.contains("hunter2") && !text.contains("more"), "{}", &text[65_500..65_600]);
    }

    proptest! {
        /// Whatever stands around it, and whatever it is made of, it is not to be found.
        #[test]
        fn no_secret_is_left(secret in "[ -~äß\n]{6,20}", before in "[ -~\n]{0,12}", after in "[ -~\n]{0,12}") {
            prop_assume!(secret.trim() == secret && !secret.contains('*'));
            let secrets = of(&[&secret]);
            let core = secret.as_str();
            let text = format!("{before}{secret}{after} {}", crate::command::quote(&format!("{before}{secret}{after}")));
            prop_assert!(!secrets.mask(&text).contains(core));
            prop_assert!(!secrets.mask(&serde_json::to_string(&text).unwrap()).contains(&serde_json::to_string(core).unwrap().trim_matches('"').to_owned()));
            let encoded = patterns::base64(format!("{before}{secret}{after}").as_bytes());
            let masked = secrets.mask(&encoded);
            prop_assert!(masked.contains(MASK), "{encoded}");
            // No more than what the neighbours share of the first and the last character is left.
            let expected = (before.len() * 8).div_ceil(6) + (after.len() * 8).div_ceil(6) + MASK.len() + 8;
            prop_assert!(masked.len() <= expected, "{masked} of {encoded}");
        }

        /// In whatever pieces an output comes, it is masked as if it had come at once.
        #[test]
        fn pieces_are_masked_like_the_whole(
            parts in proptest::collection::vec(prop_oneof![Just("abcabcabd".to_owned()), Just("bcabca\nxyzxyz".to_owned()), "[abcxyz\n]{0,8}"], 0..12),
            size in 1usize..9,
        ) {
            let secrets = of(&["abcabcabd", "bcabca\nxyzxyz"]);
            let whole = parts.concat();
            let mut output = secrets.output();
            let mut masked = Vec::new();
            for piece in whole.as_bytes().chunks(size) {
                masked.extend(output.push(piece).iter());
            }
            masked.extend(output.finish());
            prop_assert_eq!(String::from_utf8(masked).unwrap(), secrets.mask(&whole).into_owned());
        }
    }
}
