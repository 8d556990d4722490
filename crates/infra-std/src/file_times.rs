//! Times that a file shall have: how they are written in a deploy, how they are compared and how they are set.

use infra_core::Value;
use infra_core::command::Shell;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::file_status::Status;

/// A time, or `true` for that of the local file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeWish {
    /// Seconds since 1970 (UTC).
    Seconds(i64),
    /// That of the local file, if true; as if not given, if false.
    Local(bool),
}

impl TimeWish {
    /// The seconds since 1970 that are meant; none where nothing is wished.
    pub fn seconds(self) -> Option<i64> {
        match self {
            Self::Seconds(seconds) => Some(seconds),
            Self::Local(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for TimeWish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let read = match &value {
            Value::Bool(local) => Ok(Self::Local(*local)),
            Value::String(text) => read_time(text).map(Self::Seconds),
            other => {
                other.as_i64().ok_or_else(|| format!("{other} is no number of whole seconds")).and_then(within_reach).map(Self::Seconds)
            }
        };
        read.map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for TimeWish {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TimeWish".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer", "boolean"], "format": "file time" })
    }
}

/// The last second of the year 9999.
const LAST: i64 = 253_402_300_799;

fn within_reach(seconds: i64) -> Result<i64, String> {
    let fits = (0..=LAST).contains(&seconds);
    fits.then_some(seconds).ok_or_else(|| format!("{seconds} is no time of a file: those are 0 to {LAST} seconds since 1970"))
}

/// Reads seconds since 1970 (nine digits or more, as words of a command line have them), or a time of ISO 8601 in its extended form with its
/// zone: `2024-05-01T12:00:00Z`, `2024-05-01 14:00+02:00`. A fraction of a second is left out.
///
/// # Errors
/// A sentence fragment that says what is wrong.
fn read_time(text: &str) -> Result<i64, String> {
    if text.len() >= 9 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return within_reach(text.parse().map_err(|_| format!("`{text}` is no time of a file: it is too large"))?);
    }
    let wrong = || format!("`{text}` is no time: write seconds since 1970, or such as 2024-05-01T12:00:00Z");
    let no_zone = || format!("`{text}` has no time zone, which hosts differ in: write such as 2024-05-01T12:00:00Z or …T14:00:00+02:00");
    let (date, clock) = match text.split_once(['T', 't', ' ']) {
        Some(parts) => parts,
        None => return Err(days(text).map_or_else(wrong, |_| no_zone())),
    };
    let days = days(date).ok_or_else(wrong)?;
    let zone = clock.find(['Z', 'z', '+', '-']).unwrap_or(clock.len());
    let (clock, zone) = clock.split_at(zone);
    let of_day = second_of_day(clock).ok_or_else(wrong)?;
    if zone.is_empty() {
        return Err(no_zone());
    }
    within_reach(days * 86_400 + of_day - offset(zone).ok_or_else(wrong)?)
}

/// So many digits as a number.
fn digits(text: &str, count: usize) -> Option<i64> {
    let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Days from 1970-01-01 to a date `YYYY-MM-DD` of the Gregorian calendar; none where there is no such day.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (digits(parts.next()?, 4)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    if parts.next().is_some() || !(1..=*lengths.get(before)?).contains(&day) {
        return None;
    }
    // Leap days up to the end of the year before, counted from the year 0 of this calendar, which is one.
    let leap_days = |year: i64| if year == 0 { 0 } else { 1 + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400 };
    let years = (year - 1970) * 365 + leap_days(year) - leap_days(1970);
    Some(years + lengths[..before].iter().sum::<i64>() + day - 1)
}

/// The second of the day of `HH:MM`, `HH:MM:SS` or `HH:MM:SS.FFF`.
fn second_of_day(clock: &str) -> Option<i64> {
    let (whole, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut parts = whole.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = match parts.next() {
        Some(second) => digits(second, 2)?,
        None if whole.len() == clock.len() => 0,
        None => return None,
    };
    let fits = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    fits.then_some(hour * 3600 + minute * 60 + second)
}

/// The seconds that a zone is ahead of UTC: `Z`, `+02:00`, `-0530`, `+02`.
fn offset(zone: &str) -> Option<i64> {
    if matches!(zone, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        2 => (rest, "00"),
        4 => rest.split_at_checked(2)?,
        _ => rest.split_once(':')?,
    };
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// The times that one file shall have, in seconds since 1970; what is not given stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// That of the last access.
    pub atime: Option<i64>,
    /// That of the last change of the content.
    pub mtime: Option<i64>,
}

/// File systems and tools round, so times that are as near as this, in seconds, are the same.
const TOLERANCE: i64 = 1;

impl Times {
    /// Those that a file with this status has not, so that they are to be set.
    ///
    /// Every reader moves the time of the last access on, and looking at the digest reads the file. So a later one only says that the file was
    /// read since it was set.
    #[must_use]
    pub fn wanting(self, status: &Status) -> Self {
        Self {
            atime: self.atime.filter(|wished| status.atime.is_some_and(|found| found.saturating_add(TOLERANCE) < *wished)),
            mtime: self.mtime.filter(|wished| status.mtime.is_none_or(|found| found.abs_diff(*wished) > TOLERANCE.unsigned_abs())),
        }
    }

    /// Their names, for people.
    pub fn names(self) -> Vec<&'static str> {
        [self.mtime.map(|_| "mtime"), self.atime.map(|_| "atime")].into_iter().flatten().collect()
    }

    /// The command that sets them on what is there; none where there is nothing to set.
    pub fn set(self, path: &str) -> Option<Shell> {
        let at = |seconds: i64| format!("@{seconds}");
        Some(match (self.mtime, self.atime) {
            (None, None) => return None,
            (Some(mtime), None) => sh!("touch -c -m -d {} -- {}", at(mtime), path),
            (None, Some(atime)) => sh!("touch -c -a -d {} -- {}", at(atime), path),
            (Some(mtime), Some(atime)) if mtime == atime => sh!("touch -c -d {} -- {}", at(mtime), path),
            (Some(mtime), Some(atime)) => {
                sh!("touch -c -m -d {} -- {} && touch -c -a -d {} -- {}", at(mtime), path, at(atime), path)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read() {
        for (value, wanted) in [
            (json!(0), 0),
            (json!(1_700_000_000), 1_700_000_000),
            (json!("1700000000"), 1_700_000_000),
            (json!("1970-01-01T00:00:00Z"), 0),
            (json!("2000-02-29T23:59:59Z"), 951_868_799),
            (json!("2000-03-01 00:00z"), 951_868_800),
            (json!("2023-11-14T22:13:20.999Z"), 1_700_000_000),
            (json!("2023-11-15T00:13:20+02:00"), 1_700_000_000),
            (json!("2023-11-14T16:43:20-0530"), 1_700_000_000),
            (json!("2023-11-14t23:13:20+01"), 1_700_000_000),
            (json!("2100-03-01T00:00:00Z"), 4_107_542_400),
            (json!("9999-12-31T23:59:59Z"), LAST),
        ] {
            let read: TimeWish = serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{value}: {error}"));
            assert_eq!(read, TimeWish::Seconds(wanted), "{value}");
        }
        for local in [true, false] {
            assert_eq!(serde_json::from_value::<TimeWish>(json!(local)).ok(), Some(TimeWish::Local(local)));
        }
    }

    #[test]
    fn what_is_no_time_is_named() {
        for value in [
            json!(-1),
            json!(1.5),
            json!(LAST + 1),
            json!(""),
            json!("now"),
            json!("20240501"),
            json!("99999999999999999999"),
            json!("2023-02-29T00:00:00Z"),
            json!("2023-00-01T00:00:00Z"),
            json!("2023-13-01T00:00:00Z"),
            json!("2023-01-01-01T00:00:00Z"),
            json!("2023-01-01T24:00:00Z"),
            json!("2023-01-01T00:00.5Z"),
            json!("2023-01-01T00:00:00.Z"),
            json!("2023-01-01T00:00:00+2"),
            json!("2023-01-01T00:00:00+ü0"),
            json!("2023-01-01T00:00:00Zulu"),
            json!("1969-12-31T23:59:59Z"),
            json!("0000-01-01T00:00:00Z"),
            json!([1]),
        ] {
            assert!(serde_json::from_value::<TimeWish>(value.clone()).is_err(), "{value}");
        }
        for text in ["2023-01-01", "2023-01-01T00:00:00"] {
            let error = read_time(text).expect_err("no zone");
            assert!(error.contains("has no time zone"), "{error}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut expected = days("1968-01-01").expect("a day");
        assert_eq!(days("1970-01-01"), Some(0));
        for year in 1968..2405 {
            for (month, day) in (1..=12).flat_map(|month| (1..=31).map(move |day| (month, day))) {
                if let Some(found) = days(&format!("{year:04}-{month:02}-{day:02}")) {
                    assert_eq!(found, expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn times_near_enough_are_left_and_a_later_access_is_a_reader() {
        let status = Status { atime: Some(100), mtime: Some(100), ..Status::foreseen(0o644, "a", "b", None) };
        for (wish, wanted) in [(98, (None, Some(98))), (99, (None, None)), (101, (None, None)), (102, (Some(102), Some(102)))] {
            let wanting = Times { atime: Some(wish), mtime: Some(wish) }.wanting(&status);
            assert_eq!((wanting.atime, wanting.mtime), wanted, "{wish}");
        }
        assert_eq!(Times::default().wanting(&status), Times::default());
        let unknown = Status { atime: None, mtime: None, ..status };
        let wanting = Times { atime: Some(1), mtime: Some(2) }.wanting(&unknown);
        assert_eq!(wanting, Times { atime: None, mtime: Some(2) });
    }

    #[test]
    fn what_is_wanting_is_set() {
        for (atime, mtime, wanted) in [
            (None, None, None),
            (None, Some(5), Some("touch -c -m -d @5 -- /f")),
            (Some(5), None, Some("touch -c -a -d @5 -- /f")),
            (Some(5), Some(5), Some("touch -c -d @5 -- /f")),
            (Some(5), Some(6), Some("touch -c -m -d @6 -- /f && touch -c -a -d @5 -- /f")),
        ] {
            let set = Times { atime, mtime }.set("/f");
            assert_eq!(set.as_ref().map(Shell::as_str), wanted);
        }
    }
}
