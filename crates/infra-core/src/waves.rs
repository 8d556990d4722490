//! How many hosts go at once where hosts go in waves, and how many of them may fail.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of hosts, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many hundredths of a percent of the hosts there are: 25 % is 2500. Shares round down.
    Percent(u32),
}

/// The sizes of waves: `true` (one host at a time), `5`, `"25%"`, or a list of sizes of which the last is kept to the end (`{ 1, "10%", "100%" }`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch(Vec<Share>);

/// Why a text or number is no share or batch.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ShareError(String);

impl Share {
    /// No host.
    pub const NONE: Self = Self::Count(0);

    /// Reads `3`, `25%` or `12.5%`.
    ///
    /// # Errors
    /// [`ShareError`] for anything else, and for more than 100 %.
    pub fn parse(text: &str) -> Result<Self, ShareError> {
        let error = || ShareError(format!("`{text}` is neither a number of hosts nor a share such as \"25%\""));
        let Some(percent) = text.trim().strip_suffix('%') else {
            return text.trim().parse().map(Self::Count).map_err(|_| error());
        };
        let percent: f64 = percent.trim().parse().map_err(|_| error())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(error());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10,000")]
        Ok(Self::Percent((percent * 100.0).round() as u32))
    }

    /// The number of hosts that this is of `hosts`, rounded down.
    pub fn of(self, hosts: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(hundredths) => hosts * hundredths as usize / 10_000,
        }
    }
}

impl Batch {
    /// One host at a time.
    pub fn one() -> Self {
        Self(vec![Share::Count(1)])
    }

    /// These sizes, the last of which is kept to the end; none of them means no waves.
    pub fn of(sizes: Vec<Share>) -> Self {
        Self(sizes)
    }

    /// Whether there are no waves at all: all hosts go at once.
    pub fn is_off(&self) -> bool {
        self.0.is_empty()
    }

    /// The sizes of the waves that `hosts` hosts go in; each is at least 1, and they add up to `hosts`.
    pub fn waves(&self, hosts: usize) -> Vec<usize> {
        let mut left = hosts;
        let mut waves = Vec::new();
        let mut sizes = self.0.iter();
        let mut size = Share::Percent(10_000);
        while left > 0 {
            size = sizes.next().copied().unwrap_or(size);
            let wave = size.of(hosts).clamp(1, left);
            waves.push(wave);
            left -= wave;
        }
        waves
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(hundredths) if hundredths % 100 == 0 => write!(f, "{}%", hundredths / 100),
            Self::Percent(hundredths) => write!(f, "{}%", f64::from(*hundredths) / 100.0),
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, share) in self.0.iter().enumerate() {
            write!(f, "{}{share}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Flag(bool),
    Number(u32),
    Text(String),
    List(Vec<Share>),
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self::Count(number)),
            Written::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
            Written::Flag(_) | Written::List(_) => Err(serde::de::Error::custom("expected a number of hosts or a share such as \"25%\"")),
        }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sizes = match Written::deserialize(deserializer)? {
            Written::Flag(true) => return Ok(Self::one()),
            Written::Flag(false) => return Ok(Self(Vec::new())),
            Written::Number(number) => vec![Share::Count(number)],
            Written::Text(text) => vec![Share::parse(&text).map_err(serde::de::Error::custom)?],
            Written::List(sizes) => sizes,
        };
        if sizes.is_empty() || sizes.contains(&Share::Count(0)) {
            return Err(serde::de::Error::custom("a wave has at least one host"));
        }
        Ok(Self(sizes))
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_bool(false),
            [one] => one.serialize(serializer),
            list => list.serialize(serializer),
        }
    }
}

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["integer", "string"] })
    }
}

impl JsonSchema for Batch {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Batch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [
            { "type": ["boolean", "integer", "string"] },
            { "type": "array", "items": { "type": ["integer", "string"] } },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn batch(value: serde_json::Value) -> Batch {
        serde_json::from_value(value).expect("a batch")
    }

    #[test]
    fn waves_are_what_people_write() {
        for (written, hosts, waves) in [
            (json!(true), 3, vec![1, 1, 1]),
            (json!(2), 5, vec![2, 2, 1]),
            (json!("25%"), 8, vec![2, 2, 2, 2]),
            (json!("25%"), 3, vec![1, 1, 1]),
            (json!("30%"), 10, vec![3, 3, 3, 1]),
            (json!([1, "10%", "100%"]), 20, vec![1, 2, 17]),
            (json!([1, 2]), 6, vec![1, 2, 2, 1]),
            (json!(9), 4, vec![4]),
            (json!("12.5%"), 16, vec![2; 8]),
            (json!(true), 0, vec![]),
        ] {
            assert_eq!(batch(written.clone()).waves(hosts), waves, "{written} of {hosts}");
        }
        assert!(batch(json!(false)).is_off());
        assert_eq!(batch(json!(false)).waves(7), [7]);
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        for wrong in [json!(0), json!("x"), json!("101%"), json!([]), json!([0]), json!(-1), json!({})] {
            assert!(serde_json::from_value::<Batch>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_round_down_and_are_written_as_read() {
        for (text, of_seven) in [("0", 0), ("3", 3), ("50%", 3), ("100%", 7), ("10%", 0)] {
            let share = Share::parse(text).expect("a share");
            assert_eq!((share.of(7), share.to_string().as_str()), (of_seven, text));
        }
    }

    proptest::proptest! {
        #[test]
        fn waves_add_up(sizes in proptest::collection::vec(1u32..40, 1..4), hosts in 0usize..200) {
            let waves = Batch::of(sizes.into_iter().map(Share::Count).collect()).waves(hosts);
            proptest::prop_assert_eq!(waves.iter().sum::<usize>(), hosts);
            proptest::prop_assert!(waves.iter().all(|wave| *wave > 0));
        }
    }
}
