//! Where the shim's own words go: the fifo `log` in the bundle, which the daemon copies to its own log.
//!
//! ```text
//! time="2024-05-17T09:30:00.123456789Z" level=warning msg="read the exit of process 12" error="..." container=abc
//! ```
//!
//! A daemon that does not read, or is not there, must not stop the shim: nothing here ever waits. The fifo is opened for reading
//! too, so that there is always a reader, and what is written while the daemon is away waits in it, as much as it holds. A
//! line for which there is no room is dropped; the next that fits says how many were. A line is at most what a pipe takes in one
//! piece, so lines never mix.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::error::{Context, Error, Result};

/// What a pipe takes whole or not at all (PIPE_BUF).
const LONGEST: usize = 4096;

/// Sends all logging of this process to the bundle's `log`. Without such a fifo there is no log, and no failure.
pub fn to_bundle(bundle: &Path, debug: Level) -> Result<()> {
    let path = bundle.join("log");
    let opened =
        OpenOptions::new().read(true).append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(&path);
    let file = match opened {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        opened => opened.context(|| format!("open {}", path.display()))?,
    };
    let kind = file.metadata().context(|| format!("look at {}", path.display()))?.file_type();
    if !kind.is_fifo() && !kind.is_file() {
        return Err(Error::invalid(format!("log to {}: it is neither a fifo nor a file", path.display())));
    }
    install(Sink::new(file, debug))
}

/// Sends it to stderr, for what a daemon runs and waits for.
pub fn to_stderr(most: Level) -> Result<()> {
    install(Sink::new(std::io::stderr(), most))
}

fn install<W: std::io::Write + Send + 'static>(sink: Sink<W>) -> Result<()> {
    tracing::subscriber::set_global_default(sink)
        .map_err(|_| Error::internal("set up the log: this process has one already"))
}

struct Sink<W> {
    most: Level,
    out: Mutex<Out<W>>,
}

struct Out<W> {
    to: W,
    dropped: u64,
}

impl<W: std::io::Write> Sink<W> {
    fn new(to: W, most: Level) -> Self {
        Self { most, out: Mutex::new(Out { to, dropped: 0 }) }
    }
}

impl<W: std::io::Write> Out<W> {
    fn line(&mut self, line: &str) {
        if self.dropped > 0 {
            let said = format!(
                "time={:?} level=warning msg=\"the log was full\" dropped={}\n",
                Stamp(SystemTime::now()).to_string(),
                self.dropped
            );
            if self.to.write_all(said.as_bytes()).is_ok() {
                self.dropped = 0;
            }
        }
        if self.to.write_all(line.as_bytes()).is_err() {
            self.dropped += 1;
        }
    }
}

impl<W: std::io::Write + Send + 'static> Subscriber for Sink<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.most))
    }

    // Spans are never enabled.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::new(SystemTime::now(), *event.metadata().level());
        event.record(&mut line);
        let line = line.finish();
        if let Ok(mut out) = self.out.lock() {
            out.line(&line);
        }
    }
}

/// One line in the making: the message stands before the fields, whatever their order.
struct Line {
    head: String,
    message: String,
    fields: String,
}

impl Line {
    fn new(at: SystemTime, level: Level) -> Self {
        // logrus's names.
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        Self { head: format!("time=\"{}\" level={level}", Stamp(at)), message: String::new(), fields: String::new() }
    }

    fn finish(self) -> String {
        let mut line = format!("{} msg={:?}{}", self.head, self.message, self.fields);
        if line.len() >= LONGEST {
            line.truncate(line.floor_char_boundary(LONGEST - 4));
            line.push_str("...");
        }
        line.push('\n');
        line
    }

    fn field(&mut self, field: &Field, value: &dyn fmt::Display) {
        if field.name() == "message" {
            self.message = value.to_string();
            return;
        }
        let value = value.to_string();
        let plain =
            !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte));
        // A String takes whatever is written to it.
        let _ = match plain {
            true => write!(self.fields, " {}={value}", field.name()),
            false => write!(self.fields, " {}={value:?}", field.name()),
        };
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field, &format_args!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.field(field, &value);
    }
}

/// A time as RFC 3339 has it, in UTC, with nine digits of a second.
pub(crate) struct Stamp(pub(crate) SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
    }
}

/// Year, month and day of this many days after the first of January 1970.
///
/// Counted in years that begin in March, so that the day added in a leap year is the last one; 400 of them always have 146,097
/// days, and the first of March of year 0 is 719,468 days before 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn times() {
        let cases = [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (951_868_799, 999_999_999, "2000-02-29T23:59:59.999999999Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000000Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
        ];
        for (seconds, nanos, text) in cases {
            assert_eq!(Stamp(UNIX_EPOCH + Duration::new(seconds, nanos)).to_string(), text);
        }
    }

    fn logged(what: impl FnOnce()) -> String {
        let (mut reader, writer) = std::io::pipe().unwrap();
        tracing::subscriber::with_default(Sink::new(writer, Level::INFO), what);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_line() {
        let text = logged(|| {
            tracing::debug!("not asked for");
            let error = Error::internal("no \"such\"\nthing");
            tracing::warn!(container = "a-1", count = 3, %error, empty = "", "it {}", "failed");
        });
        let (time, rest) = text.split_once(" level=").unwrap();
        assert!(time.starts_with("time=\"2") && time.ends_with("Z\""), "{time}");
        assert_eq!(
            rest,
            "warning msg=\"it failed\" container=a-1 count=3 error=\"no \\\"such\\\"\\nthing\" empty=\"\"\n"
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let text = logged(|| tracing::info!("{}", "ä".repeat(LONGEST)));
        assert!(text.len() <= LONGEST && text.ends_with("...\n"), "{}", text.len());
    }

    /// The fifo as `to_bundle` opens it, and nobody reads.
    fn fifo(dir: &Path) -> (File, std::path::PathBuf) {
        let path = dir.join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let file = OpenOptions::new().read(true).append(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        (file, path)
    }

    #[test]
    fn a_full_fifo_drops_and_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (file, path) = fifo(dir.path());
        let mut out = Out { to: file, dropped: 0 };
        let line = format!("{}\n", "x".repeat(1023));
        let mut written = 0;
        while out.dropped == 0 {
            out.line(&line);
            written += 1;
            assert!(written < 2048, "a pipe of 2 MiB, or lines that are not counted");
        }
        out.line(&line);
        assert_eq!(out.dropped, 2);
        let mut reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut text = vec![0; line.len() * (written - 1)];
        reader.read_exact(&mut text).unwrap();
        out.line("after\n");
        let mut text = [0; 200];
        let length = reader.read(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..length]);
        assert!(text.ends_with("dropped=2\nafter\n"), "{text}");
        assert_eq!(out.dropped, 0);
    }

    #[test]
    fn the_log_of_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        to_bundle(dir.path(), Level::INFO).unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        assert!(to_bundle(dir.path(), Level::INFO).is_err());
    }
}
