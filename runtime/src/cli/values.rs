//! The values of flags: signals, users, sizes, durations. Each reader is strict and says what it expected.

use std::path::{Component, PathBuf};
use std::time::Duration;

/// The directory of all state, absolute. A container's directory is made and removed in it, so `/` is refused.
pub(super) fn root(path: PathBuf) -> Result<PathBuf, String> {
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let depth = path.components().fold(0_usize, |depth, component| match component {
        Component::Normal(_) => depth + 1,
        Component::ParentDir => depth.saturating_sub(1),
        _ => depth,
    });
    if depth == 0 { Err("the root directory must not be /".to_owned()) } else { Ok(path) }
}

/// A signal by number, or by name with or without `SIG`, in either case; `RTMIN+n` and `RTMAX-n` too.
pub(super) fn signal(text: &str) -> Result<i32, String> {
    let unknown = || "no such signal".to_owned();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // 0 sends nothing and only asks whether the process is there.
        return text.parse().ok().filter(|number| (0..=libc::SIGRTMAX()).contains(number)).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, sign: char, base: i32, direction: i32| {
        let offset = match rest.strip_prefix(sign) {
            Some(digits) => digits.parse::<u8>().ok()?,
            None if rest.is_empty() => 0,
            None => return None,
        };
        let number = base + direction * i32::from(offset);
        (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number)
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(rest, '+', libc::SIGRTMIN(), 1).ok_or_else(unknown);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(rest, '-', libc::SIGRTMAX(), -1).ok_or_else(unknown);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        "UNUSED" => "SYS",
        other => other,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|signal| signal as i32).map_err(|_| unknown())
}

/// `<uid>[:<gid>]`: numbers only, each a u32, nothing else.
pub(super) fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |what: &str, digits: &str| {
        // `parse` would let a sign through.
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| plain).ok_or_else(|| format!("the {what} is not a number from 0 to 4294967295"))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number("uid", uid)?, Some(number("gid", gid)?))),
        None => Ok((number("uid", text)?, None)),
    }
}

/// A size in bytes as go-units reads it: `64m`, `1.5GiB`, `4096`; `-1` is no limit.
pub(super) fn size(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let wrong = || "not a size such as 4096, 64m or 1.5g".to_owned();
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start_matches(' ').to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        "p" | "pb" | "pi" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let factor = 1_i64 << shift;
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor).ok_or_else(|| "too large".to_owned());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor as f64;
    if bytes >= i64::MAX as f64 { Err("too large".to_owned()) } else { Ok(bytes as i64) }
}

/// The time between two reports: without one they would never end.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("the interval must be greater than 0".to_owned()),
        interval => Ok(interval),
    }
}

/// A duration as Go writes it: `5s`, `1m30s`, `500ms`, `1.5h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "not a duration such as 5s, 500ms or 1m30s".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit = &rest[end..];
        let unit = &unit[..unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len())];
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| "too long".to_owned())?;
        total = total.checked_add(part).ok_or_else(|| "too long".to_owned())?;
        rest = &rest[end + unit.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, expected) in [
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("sigkill", Some(9)),
            ("9", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("CLD", Some(17)),
            ("IOT", Some(6)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN-1", None),
            ("RTMIN+31", None),
            ("", None),
            ("SIG", None),
            ("-9", None),
            ("65", None),
            ("9x", None),
        ] {
            assert_eq!(signal(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn sizes_and_durations_are_read_as_go_does() {
        for (text, expected) in [
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("1k", Some(1024)),
            ("1.5GiB", Some(3 << 29)),
            ("64 MB", Some(64 << 20)),
            ("-1", Some(-1)),
            ("-2", None),
            ("", None),
            ("k", None),
            ("1x", None),
            ("1.2.3", None),
            ("9p", Some(9 << 50)),
        ] {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("5s", Some(5000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("0", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5x", None),
            ("1e400s", None),
        ] {
            assert_eq!(duration(text).ok(), expected.map(Duration::from_millis), "{text}");
        }
    }
}
