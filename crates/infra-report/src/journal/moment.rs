//! Moments as names and as people read them, in UTC.

use std::time::Duration;

/// Year, month, day, hour, minute, second of a moment, in UTC: the proleptic Gregorian calendar.
fn civil(since_1970: Duration) -> [u64; 6] {
    let seconds = since_1970.as_secs();
    let (mut day, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
    let mut year = 1970;
    loop {
        let days = 365 + u64::from(leap(year));
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    [year, month, day + 1, rest / 3600, rest / 60 % 60, rest % 60]
}

/// The name of a run that began at this moment: `20261121T001530-ab12`. The last four digits are the fraction of the second in 65,536ths, so that
/// names sort by time.
pub fn run_name(since_1970: Duration) -> String {
    let [year, month, day, hour, minute, second] = civil(since_1970);
    let fraction = u64::from(since_1970.subsec_nanos()) * 65_536 / 1_000_000_000;
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}-{fraction:04x}")
}

/// Whether a text has the shape of a run's name.
pub fn is_run_name(text: &str) -> bool {
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split_once('T')
        .and_then(|(day, rest)| Some((day, rest.split_once('-')?)))
        .is_some_and(|(day, (time, fraction))| digits(day, 8) && digits(time, 6) && hexadecimal(fraction))
}

/// A moment for people, in UTC: `2026-11-21 00:15:30`.
pub fn readable(since_1970: f64) -> String {
    let [year, month, day, hour, minute, second] = civil(Duration::try_from_secs_f64(since_1970).unwrap_or_default());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_said_in_utc() {
        // From date -u -d @N.
        for (seconds, said) in [
            (0.0, "1970-01-01 00:00:00"),
            (951_782_399.0, "2000-02-28 23:59:59"),
            (951_868_799.9, "2000-02-29 23:59:59"),
            (1_795_220_130.5, "2026-11-21 00:15:30"),
            (4_107_542_400.0, "2100-03-01 00:00:00"),
            (1_798_761_599.0, "2026-12-31 23:59:59"),
        ] {
            assert_eq!(readable(seconds), said);
        }
    }

    #[test]
    fn names_of_runs_sort_by_time() {
        let at = |nanos: u64| run_name(Duration::from_nanos(nanos));
        assert_eq!(at(1_795_220_130_500_000_000), "20261121T001530-8000");
        let moments = [0, 999_999_999, 1_000_000_000, 1_795_220_130_100_000_000, 1_795_220_130_200_000_000, 1_795_220_190_000_000_000];
        assert!(moments.map(at).is_sorted());
        assert!(moments.map(at).iter().all(|name| is_run_name(name)));
        for other in ["", "local", "20261121T001530", "20261121T001530-ab1", "2026112xT001530-ab12", "20261121T001530-ab12x"] {
            assert!(!is_run_name(other), "{other}");
        }
    }
}
