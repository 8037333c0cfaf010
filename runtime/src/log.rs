//! The log: one line a warning or error, in the file `--log` names (or on standard error), as text or JSON.
//!
//! Callers show their user the last `"level":"error"` line, so the final error of the program is exactly one such line.
//! The file is opened once, close-on-exec, before anything can fail; init, which is a copy of the process, keeps it and
//! can warn until it executes the payload. The one global of the program lives here: without it every function that may
//! warn would carry a logger.
//!
//! On disk: `time="2026-01-02T03:04:05Z" level=error msg="…"` or `{"level":"error","msg":"…","time":"…"}`; one write(2)
//! a line in append mode, so that lines of several processes do not mix.

use std::fmt::{Arguments, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli::{Global, LogFormat};
use crate::error::{Context, Error, Result};

static LOG: OnceLock<Log> = OnceLock::new();

/// Where and how lines are written.
#[derive(Debug)]
struct Log {
    /// `None` is standard error.
    file: Option<File>,
    format: LogFormat,
    debug: bool,
}

/// How grave a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Debug,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Opens the log the global flags name. To be called once, before anything is written.
pub fn open(global: &Global) -> Result<()> {
    let file = match &global.log {
        Some(path) => Some(append(path)?),
        None => None,
    };
    // A second call changes nothing: the first log stays.
    let _ = LOG.set(Log { file, format: global.log_format, debug: global.debug });
    Ok(())
}

/// Opens a log file for appending; a fifo nobody reads fails instead of hanging.
fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .on("open the log", path.display())
}

/// Writes a line that only `--debug` asks for.
pub fn debug(text: Arguments<'_>) {
    if LOG.get().is_some_and(|log| log.debug) {
        write(Level::Debug, text);
    }
}

/// Writes a warning: the work goes on, but not quite as asked for.
pub fn warn(text: Arguments<'_>) {
    write(Level::Warning, text);
}

/// Writes the error the program ends with: to the log and, where that is a file, to standard error too, as one line.
pub fn fatal(error: &Error) {
    write(Level::Error, format_args!("{error}"));
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        let mut text = String::new();
        one_line(&mut text, &error.to_string());
        text.push('\n');
        // Nobody is left to tell.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn write(level: Level, text: Arguments<'_>) {
    let (file, format) = match LOG.get() {
        Some(log) => (log.file.as_ref(), log.format),
        None => (None, LogFormat::Text),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let line = render(format, level, &text.to_string(), &rfc3339(now));
    // A log that cannot be written must not stop a container.
    let _ = match file {
        Some(mut file) => file.write_all(line.as_bytes()),
        None => io::stderr().write_all(line.as_bytes()),
    };
}

/// One line with its end.
fn render(format: LogFormat, level: Level, text: &str, time: &str) -> String {
    let level = level.name();
    let mut line = String::with_capacity(text.len() + 64);
    match format {
        LogFormat::Text => {
            let _ = write!(line, "time=\"{time}\" level={level} msg=\"");
            for letter in text.chars() {
                match letter {
                    '"' | '\\' => line.extend(['\\', letter]),
                    other => one_line(&mut line, other.encode_utf8(&mut [0; 4])),
                }
            }
            line.push_str("\"\n");
        }
        LogFormat::Json => {
            let text = serde_json::Value::from(text);
            let _ = writeln!(line, "{{\"level\":\"{level}\",\"msg\":{text},\"time\":\"{time}\"}}");
        }
    }
    line
}

/// Appends `text` with every control character escaped, so that it stays one line and drives no terminal.
fn one_line(line: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '\n' => line.push_str("\\n"),
            other if other.is_control() => line.extend(other.escape_default()),
            other => line.push(other),
        }
    }
}

/// Now as RFC 3339 writes it, in UTC, to the nanosecond.
pub fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = rfc3339(now.as_secs());
    format!("{}.{:09}Z", seconds.trim_end_matches('Z'), now.subsec_nanos())
}

/// A point in time (seconds since 1970, UTC) as RFC 3339 writes it.
pub fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let rest = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The Gregorian date of a day counted from 1970-01-01, by walking whole years and months.
fn date(days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years are always 146,097 days, so that a far date does not walk for long.
    let mut year = 1970 + days / 146_097 * 400;
    let mut rest = days % 146_097;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if rest < length {
            break;
        }
        rest -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let text = "open \"/a\\b\"\nno\u{1b}[31m";
        assert_eq!(
            render(LogFormat::Text, Level::Error, text, "T"),
            "time=\"T\" level=error msg=\"open \\\"/a\\\\b\\\"\\nno\\u{1b}[31m\"\n"
        );
        let json = render(LogFormat::Json, Level::Warning, text, "T");
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value, serde_json::json!({"level": "warning", "msg": text, "time": "T"}));
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (68_169_599, "1972-02-28T23:59:59Z"),
            (68_169_600, "1972-02-29T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (13_569_465_600, "2400-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), expected);
        }
    }
}
