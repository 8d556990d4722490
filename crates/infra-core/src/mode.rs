//! File modes, as people write them.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A file mode: octal digits (`644`, `"0644"`, `"0o644"`, `"4755"`) or a change to it as chmod(1) takes it (`"+x"`, `"u=rw,go-w"`).
///
/// The number 644 means the octal digits 6, 4, 4, as a person writes them, never decimal 644.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The permission bits, 0 to 0o7777.
    Bits(u32),
    /// A symbolic change, checked when it was read.
    Symbolic(String),
}

/// Why a text or number is no file mode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no file mode: write octal digits (\"644\", \"0755\") or a change as chmod takes it (\"+x\", \"u=rw,go=r\")")]
pub struct ModeError(pub String);

impl Mode {
    /// Reads a mode from text.
    ///
    /// # Errors
    /// [`ModeError`] when the text is neither octal digits up to 7777 nor a symbolic change.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        let error = || ModeError(text.to_owned());
        let digits = text.strip_prefix("0o").unwrap_or(text);
        if digits.bytes().all(|b| b.is_ascii_digit()) {
            return match u32::from_str_radix(digits, 8) {
                Ok(bits) if bits <= 0o7777 => Ok(Self::Bits(bits)),
                _ => Err(error()),
            };
        }
        let symbolic = Self::Symbolic(text.to_owned());
        symbolic.try_apply(0, false).map(|_| symbolic.clone()).ok_or_else(error)
    }

    /// The permission bits that a file with `current` bits will have; `umask` limits clauses that name nobody, as chmod does it.
    pub fn apply(&self, current: u32, directory: bool, umask: u32) -> u32 {
        match self {
            Self::Bits(bits) => *bits,
            Self::Symbolic(_) => self.try_apply_with(current, directory, umask).unwrap_or(current),
        }
    }

    fn try_apply(&self, current: u32, directory: bool) -> Option<u32> {
        self.try_apply_with(current, directory, 0o022)
    }

    fn try_apply_with(&self, current: u32, directory: bool, umask: u32) -> Option<u32> {
        let Self::Symbolic(text) = self else { return None };
        let mut mode = current;
        for clause in text.split(',') {
            let at = clause.find(['+', '-', '='])?;
            let (who, mut rest) = clause.split_at(at);
            if !who.chars().all(|c| "ugoa".contains(c)) {
                return None;
            }
            let named = if who.is_empty() || who.contains('a') { "ugo" } else { who };
            let allowed = if who.is_empty() { !umask & 0o777 | 0o7000 } else { 0o7777 };
            while !rest.is_empty() {
                let operator = rest.chars().next()?;
                rest = &rest[1..];
                let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
                let (permissions, next) = rest.split_at(end);
                rest = next;
                let bits = Self::bits(named, permissions, mode, directory)? & allowed;
                let mask = named.chars().fold(0, |mask, c| mask | Self::class(c)) & (allowed | 0o7000);
                mode = match operator {
                    '+' => mode | bits,
                    '-' => mode & !bits,
                    // Of a directory, chmod(1) keeps the set-id bits that are not named.
                    _ => mode & !(if directory { mask & !0o6000 } else { mask }) | bits,
                };
            }
        }
        Some(mode & 0o7777)
    }

    fn class(who: char) -> u32 {
        match who {
            'u' => 0o4700,
            'g' => 0o2070,
            _ => 0o1007,
        }
    }

    fn bits(named: &str, permissions: &str, current: u32, directory: bool) -> Option<u32> {
        let mut triple = 0;
        let mut special = 0;
        for c in permissions.chars() {
            match c {
                'r' => triple |= 4,
                'w' => triple |= 2,
                'x' => triple |= 1,
                'X' if directory || current & 0o111 != 0 => triple |= 1,
                'X' => {}
                's' => {
                    special |= if named.contains('u') { 0o4000 } else { 0 };
                    special |= if named.contains('g') { 0o2000 } else { 0 };
                }
                't' => special |= 0o1000,
                'u' => triple |= current >> 6 & 7,
                'g' => triple |= current >> 3 & 7,
                'o' => triple |= current & 7,
                _ => return None,
            }
        }
        let spread = named.chars().fold(0, |bits, who| match who {
            'u' => bits | triple << 6,
            'g' => bits | triple << 3,
            _ => bits | triple,
        });
        Some(spread | special)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits(bits) => write!(f, "{bits:o}"),
            Self::Symbolic(text) => f.write_str(text),
        }
    }
}

impl crate::command::ToShell for Mode {
    fn to_shell(&self, out: &mut String) {
        self.to_string().to_shell(out);
    }
}

impl Serialize for Mode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u32),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        };
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer"], "format": "file mode" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_people_write_them() {
        for (text, bits) in [("644", 0o644), ("0644", 0o644), ("0o755", 0o755), ("4755", 0o4755), ("0", 0)] {
            assert_eq!(Mode::parse(text), Ok(Mode::Bits(bits)), "{text}");
        }
        assert_eq!(serde_json::from_str::<Mode>("644").expect("a number"), Mode::Bits(0o644));
        for text in ["", "888", "77777", "rw", "u+q", "z+x", "64 4", "-644x"] {
            assert!(Mode::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn symbolic_changes_are_those_of_chmod() {
        for (text, current, directory, wanted) in [
            ("+x", 0o644, false, 0o755),
            ("u+x", 0o644, false, 0o744),
            ("go-rwx", 0o755, false, 0o700),
            ("u=rw,go=r", 0o777, false, 0o644),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o644, true, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("u+s", 0o755, false, 0o4755),
            ("+t", 0o777, true, 0o1777),
            ("o+w", 0o644, false, 0o646),
            ("+w", 0o444, false, 0o644),
            ("u=rwx", 0o7644, false, 0o3744),
            ("g=rx", 0o7644, false, 0o5654),
            ("o=r", 0o7644, false, 0o6644),
            ("a=rx", 0o7644, false, 0o555),
            ("=rx", 0o7755, false, 0o555),
            ("u=rwxs", 0o7755, false, 0o7755),
            ("u=rwx", 0o7755, true, 0o7755),
            ("a=rx", 0o7755, true, 0o6555),
        ] {
            let mode = Mode::parse(text).expect("a symbolic mode");
            assert_eq!(mode.apply(current, directory, 0o022), wanted, "{text} on {current:o}");
        }
    }
}
