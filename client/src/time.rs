//! Moments, as docker writes and takes them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A moment in UTC, to the nanosecond. What has not come yet is docker's (Go's) zero time, `0001-01-01T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(Option<i128>);

const DAY: i128 = 86_400;
const NANO: i128 = 1_000_000_000;

impl Time {
    /// It has not come.
    pub const NEVER: Self = Self(None);

    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Seconds and nanoseconds since 1970.
    #[must_use]
    pub fn since_epoch(seconds: i64, nanoseconds: u32) -> Self {
        Self(Some(i128::from(seconds) * NANO + i128::from(nanoseconds)))
    }

    /// Nanoseconds since 1970; none for what has not come.
    #[must_use]
    pub const fn nanoseconds(self) -> Option<i128> {
        self.0
    }

    /// Whether it has come at all.
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0.is_none()
    }

    /// How long it is ago; nothing for the future and for what has not come.
    #[must_use]
    pub fn ago(self) -> Duration {
        let (Some(then), Some(now)) = (self.0, Self::now().0) else { return Duration::ZERO };
        Duration::from_nanos(u64::try_from(now - then).unwrap_or(0))
    }

    /// A point in time as people give it: RFC 3339 (also a date alone, and without a zone: UTC), seconds since 1970 with a fraction, or
    /// how long ago as in "10m" or "1h30m".
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(time) = rfc3339(text) {
            return Ok(time);
        }
        if let Some(time) = seconds(text) {
            return Ok(time);
        }
        let ago = crate::units::duration(text).map_err(|_| {
            Error::usage(format!(
                "{text:?} is not a time: give 2026-01-31T23:59:59Z, seconds since 1970, or how long ago, as in 10m"
            ))
        })?;
        let now = Self::now().0.unwrap_or(0);
        Ok(Self(Some(now - i128::try_from(ago.as_nanos()).unwrap_or(0))))
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        let signed = |it: Duration| i128::try_from(it.as_nanos()).unwrap_or(i128::MAX);
        Self(Some(time.duration_since(UNIX_EPOCH).map_or_else(|before| -signed(before.duration()), signed)))
    }
}

/// Digits with an optional fraction.
fn seconds(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |it: &str| !it.is_empty() && it.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Some(Time::since_epoch(whole.parse().ok()?, nanoseconds))
}

/// RFC 3339, and what docker takes beside it: the time of the day and the zone may be left out.
fn rfc3339(text: &str) -> Option<Time> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let at = |index: usize, expected: &[u8]| text.as_bytes().get(index).is_some_and(|it| expected.contains(it));
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if !at(4, b"-") || !at(7, b"-") || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if year == 1 && text == "0001-01-01T00:00:00Z" {
        return Some(Time::NEVER);
    }
    let mut nanoseconds = i128::from(days(year, month, day)) * DAY * NANO;
    if text.len() == 10 {
        return Some(Time(Some(nanoseconds)));
    }
    let (hour, minute) = (number(11..13)?, number(14..16)?);
    if !at(10, b"Tt ") || !at(13, b":") || hour > 23 || minute > 59 {
        return None;
    }
    nanoseconds += i128::from(hour * 3600 + minute * 60) * NANO;
    let mut rest = &text[16..];
    if let Some(after) = rest.strip_prefix(':') {
        let second: i128 = after.get(..2)?.parse().ok()?;
        nanoseconds += second * NANO;
        rest = &after[2..];
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || digits > 9 {
                return None;
            }
            nanoseconds += format!("{:0<9}", &after[..digits]).parse::<i128>().ok()?;
            rest = &after[digits..];
        }
    }
    let offset = match rest {
        "" | "Z" | "z" => 0,
        zone => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
            sign * (hours.parse::<i128>().ok()? * 3600 + minutes.parse::<i128>().ok()? * 60)
        }
    };
    Some(Time(Some(nanoseconds - offset * NANO)))
}

/// Days from 1970-01-01 to this date of the proleptic Gregorian calendar, in years that begin in March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse of [`days`].
fn date(days: i128) -> (i128, i128, i128) {
    let day = days + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + i128::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

impl fmt::Display for Time {
    /// RFC 3339 with as many digits as say something, as Go's `RFC3339Nano`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(nanoseconds) = self.0 else { return f.write_str("0001-01-01T00:00:00Z") };
        let (seconds, fraction) = (nanoseconds.div_euclid(NANO), nanoseconds.rem_euclid(NANO));
        let (year, month, day) = date(seconds.div_euclid(DAY));
        let second = seconds.rem_euclid(DAY);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if fraction > 0 {
            f.write_str(format!(".{fraction:09}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time of RFC 3339")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_alike() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2000-02-29T23:59:59.5Z",
            "2026-11-29T05:15:08.000000001Z",
            "1969-12-31T23:59:59Z",
            "0001-01-01T00:00:00Z",
            "2100-03-01T00:00:00Z",
        ] {
            assert_eq!(rfc3339(text).unwrap().to_string(), text);
        }
        assert_eq!(Time::since_epoch(951_868_799, 500_000_000).to_string(), "2000-02-29T23:59:59.5Z");
    }

    #[test]
    fn people_give_times_in_several_ways() {
        let read = |text: &str| Time::parse(text).unwrap().to_string();
        assert_eq!(read("2026-01-31"), "2026-01-31T00:00:00Z");
        assert_eq!(read("2026-01-31T10:00"), "2026-01-31T10:00:00Z");
        assert_eq!(read("2026-01-31T10:00:00+02:00"), "2026-01-31T08:00:00Z");
        assert_eq!(read("2026-01-31T10:00:00.25-01:30"), "2026-01-31T11:30:00.25Z");
        assert_eq!(read("1.5"), "1970-01-01T00:00:01.5Z");
        let ago = Time::parse("1h30m").unwrap().ago().as_secs();
        assert!((5400..5410).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "2026-13-01", "2026-01-31T25:00:00Z", "1.", "-5", "2026-01-31T10:00:00.Z"] {
            assert!(Time::parse(wrong).is_err(), "{wrong}");
        }
    }
}
