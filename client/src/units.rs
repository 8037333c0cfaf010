//! Sizes and spans of time, as docker takes and prints them.

use std::time::Duration;

use crate::error::{Error, Result};

/// A number of bytes as in "512m", "1.5g", "64MiB" or "1000": k, m, g, t and p are powers of 1,024, in either case, with b or
/// ib behind them or not.
///
/// # Errors
/// It is none.
pub fn bytes(text: &str) -> Result<i64> {
    let wrong =
        || Error::usage(format!("{text:?} is not a size: give a number of bytes, perhaps with k, m or g behind it"));
    let trimmed = text.trim();
    let digits = trimmed.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor: i64 = match trimmed[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        "p" | "pb" | "pib" => 1 << 50,
        _ => return Err(wrong()),
    };
    let digits = digits.trim_end();
    if let Ok(whole) = digits.parse::<i64>() {
        return whole.checked_mul(factor).filter(|_| !digits.starts_with(['-', '+'])).ok_or_else(wrong);
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    match digits.parse::<f64>() {
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
        Ok(number) if plain && number * (factor as f64) < 9e18 => Ok((number * factor as f64) as i64),
        _ => Err(wrong()),
    }
}

/// Bytes for people, in powers of 1,000 with four significant digits at most: "1.23MB".
#[must_use]
pub fn human_size(bytes: u64) -> String {
    human(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// As [`human_size`] with three digits, as `docker images` has it.
#[must_use]
pub fn human_size_short(bytes: u64) -> String {
    human_digits(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// In powers of 1,024: "1.95GiB".
#[must_use]
pub fn human_memory(bytes: u64) -> String {
    human(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn human(bytes: u64, base: f64, names: &[&str]) -> String {
    human_digits(bytes, base, names, 4)
}

fn human_digits(bytes: u64, base: f64, names: &[&str], digits: usize) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < names.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), names[unit])
}

/// Go's `%.Ng` for numbers from 0 to 1,024: so many significant digits, no zeros at the end.
fn significant(number: f64, digits: usize) -> String {
    let before = format!("{number:.0}").len();
    let text = format!("{number:.*}", digits.saturating_sub(before));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A span as Go writes it: "1h30m", "1.5s", "300ms".
///
/// # Errors
/// It is none.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong = || Error::usage(format!("{text:?} is not a span of time: give one as in 1h30m, 10s or 500ms"));
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanoseconds = 0_f64;
    while !rest.is_empty() {
        let number = rest.find(|it: char| !it.is_ascii_digit() && it != '.').ok_or_else(wrong)?;
        let after = &rest[number..];
        let unit = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let factor = match &after[..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(wrong()),
        };
        nanoseconds += rest[..number].parse::<f64>().map_err(|_| wrong())? * factor;
        rest = &after[unit..];
    }
    if text.is_empty() || nanoseconds > 9.2e18 {
        return Err(wrong());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(Duration::from_nanos(nanoseconds as u64))
}

/// About how long, as docker's tables say it: "Less than a second", "About a minute", "5 days".
#[must_use]
pub fn human_duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours) = (seconds / 60, (span.as_secs_f64() / 3600.0).round());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let hours = hours as u64;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (2..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, 2..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., 2..48) => format!("{hours} hours"),
        (.., 48..336) => format!("{} days", hours / 24),
        (.., 336..1440) => format!("{} weeks", hours / 24 / 7),
        (.., 1440..17_520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("4194304", 4 << 20),
            ("64m", 64 << 20),
            ("64M", 64 << 20),
            ("64mb", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2 k", 2048),
            ("1t", 1 << 40),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "m", "64x", "-1", "+1", "1e3", "0x10", "inf", "nan", "99999999999g", "1.2.3m"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_printed_as_docker_prints_them() {
        for (size, expected) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.235MB"),
            (83_000_000, "83MB"),
            (12_345_678_901, "12.35GB"),
        ] {
            assert_eq!(human_size(size), expected);
        }
        assert_eq!(human_size_short(123_456_789), "123MB");
        assert_eq!(human_size_short(4_261_550), "4.26MB");
        assert_eq!(human_memory(2_097_152), "2MiB");
        assert_eq!(human_memory(1_610_612_736), "1.5GiB");
    }

    #[test]
    fn spans_are_read_as_go_reads_them_and_printed_as_docker_does() {
        for (text, milliseconds) in
            [("1h30m", 5_400_000), ("1.5s", 1_500), ("300ms", 300), ("2m0.5s", 120_500), ("0", 0)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for wrong in ["", "5", "s", "1x", "-1s", "1h1", "1..5s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (86_400, "24 hours"),
            (172_800, "2 days"),
            (1_209_600, "2 weeks"),
            (5_184_000, "2 months"),
            (63_072_000, "2 years"),
        ] {
            assert_eq!(human_duration(Duration::from_secs(seconds)), expected, "{seconds}");
        }
    }
}
