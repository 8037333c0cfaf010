//! What a client's string for a stream means. Pure: nothing is opened here.
//!
//! ```text
//! ""                                  no stream
//! /path                               as it is: a fifo, or a file that is there
//! fifo:///path                        a fifo
//! file:///path                        a file that is appended to, made if need be
//! binary:///path?key=value&flag       a logger; it is ready when it closes fd 5
//! binary-v2:///path?...               a logger; it is ready when it has written a byte to fd 5
//! json-file:///path?max-size=10m&...  docker's log, which clients may look on (see the journal)
//! ```

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// One of the process's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdin,
    Stdout,
    Stderr,
}

impl Stream {
    /// Its number as a descriptor.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// Where a stream goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere.
    Null,
    /// A fifo or a file, whichever is there.
    Path(PathBuf),
    /// A fifo that is there.
    Fifo(PathBuf),
    /// A file that may have to be made.
    File(PathBuf),
    /// A program.
    Logger(LoggerTarget),
    /// A log of records.
    Journal(JournalTarget),
}

/// A log in docker's json-file form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalTarget {
    pub(super) path: PathBuf,
    /// In bytes, of each file; 0 is no limit.
    pub(super) max_size: u64,
    /// How many files there may be, with the one that is written.
    pub(super) max_files: u32,
    /// The socket for those who look on.
    pub(super) attach: Option<PathBuf>,
    /// Nothing is taken from the process until somebody looks on, for a while.
    pub(super) wait: bool,
}

/// A binary logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggerTarget {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) handshake: Handshake,
}

/// How a logger says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handshake {
    /// It closes fd 5, perhaps by dying: the older form can't tell these apart.
    Close,
    /// It writes a byte to fd 5.
    Byte,
}

/// Reads what a client gave for this stream.
pub(super) fn parse(stream: Stream, value: &str) -> Result<Target> {
    if value.is_empty() {
        return Ok(Target::Null);
    }
    let Some((scheme, rest)) = split_scheme(value) else {
        return Ok(Target::Path(PathBuf::from(value)));
    };
    let rest = rest.split_once('#').map_or(rest, |(rest, _fragment)| rest);
    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let logger = |handshake| -> Result<Target> {
        Ok(Target::Logger(LoggerTarget {
            program: path(stream, value, location)?,
            arguments: arguments(stream, value, query)?,
            handshake,
        }))
    };
    match scheme.to_ascii_lowercase().as_str() {
        "fifo" => Ok(Target::Fifo(path(stream, value, location)?)),
        "file" => Ok(Target::File(path(stream, value, location)?)),
        "binary" => logger(Handshake::Close),
        "binary-v2" => logger(Handshake::Byte),
        "json-file" => journal(stream, value, path(stream, value, location)?, query).map(Target::Journal),
        scheme => Err(Error::invalid(format!(
            "the scheme {scheme:?} of the {stream} URI {value:?} is not served: give a path, fifo://, file://, binary://, \
             binary-v2:// or json-file://"
        ))),
    }
}

/// `scheme:rest` as RFC 3986 (3.1) has it; what starts otherwise is a path.
fn split_scheme(value: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = value.split_once(':')?;
    let mut characters = scheme.chars();
    let starts = characters.next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (starts && goes_on).then_some((scheme, rest))
}

/// The path of `//host/path` or `/path`.
fn path(stream: Stream, value: &str, location: &str) -> Result<PathBuf> {
    let path = match location.strip_prefix("//") {
        None => location,
        Some(rest) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            // A path with two slashes only would otherwise lose its first part.
            if !host.is_empty() && host != "localhost" {
                return Err(Error::invalid(format!(
                    "the {stream} URI {value:?} names the host {host:?}, not a path: an absolute path follows three slashes"
                )));
            }
            path
        }
    };
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("the {stream} URI {value:?} has no absolute path")));
    }
    decode(path, Plus::Itself)
        .filter(|path| !path.contains(&0))
        .map(|path| PathBuf::from(OsString::from_vec(path)))
        .ok_or_else(|| Error::invalid(format!("the path of the {stream} URI {value:?} is not well percent-encoded")))
}

/// A logger's arguments: each key, then its first value even if that is empty, which is what the loggers that there are
/// were written for. In the order written; a key that comes again adds nothing.
fn arguments(stream: Stream, value: &str, query: &str) -> Result<Vec<OsString>> {
    let mut keys = Vec::new();
    let mut arguments = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, word) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(key), Some(word)) = (decode(key, Plus::Space), decode(word, Plus::Space)) else {
            return Err(Error::invalid(format!("the query of the {stream} URI {value:?} is not well percent-encoded")));
        };
        if key.contains(&0) || word.contains(&0) {
            return Err(Error::invalid(format!("the query of the {stream} URI {value:?} has a NUL in an argument")));
        }
        if keys.contains(&key) {
            continue;
        }
        keys.push(key.clone());
        arguments.push(OsString::from_vec(key));
        arguments.push(OsString::from_vec(word));
    }
    Ok(arguments)
}

/// The options are docker's, and what is none of them is refused: a log without its limit fills a disk.
fn journal(stream: Stream, value: &str, path: PathBuf, query: &str) -> Result<JournalTarget> {
    let wrong = |what: &str| Error::invalid(format!("the {stream} URI {value:?}: {what}"));
    let mut journal = JournalTarget { path, max_size: 0, max_files: 1, attach: None, wait: false };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, word) = pair.split_once('=').unwrap_or((pair, ""));
        let word = decode(word, Plus::Space)
            .filter(|word| !word.contains(&0))
            .ok_or_else(|| wrong(&format!("the value of {key} is not well percent-encoded")))?;
        let text = str::from_utf8(&word).unwrap_or_default();
        match key {
            "max-size" => {
                journal.max_size =
                    size(text).ok_or_else(|| wrong("max-size is a number of bytes, perhaps with k, m or g"))?;
            }
            "max-file" => {
                journal.max_files = text
                    .parse()
                    .ok()
                    .filter(|it| *it > 0)
                    .ok_or_else(|| wrong("max-file is a number of files, from 1"))?;
            }
            "attach" => {
                let socket = PathBuf::from(OsString::from_vec(word));
                if !socket.is_absolute() {
                    return Err(wrong("attach is the absolute path of a socket"));
                }
                journal.attach = Some(socket);
            }
            "wait" => {
                journal.wait = match text {
                    "true" => true,
                    "false" => false,
                    _ => return Err(wrong("wait is true or false")),
                };
            }
            key => return Err(wrong(&format!("there is no option {key:?}: give max-size, max-file, attach or wait"))),
        }
    }
    if journal.wait && journal.attach.is_none() {
        return Err(wrong("to wait for somebody who looks on, it needs attach"));
    }
    Ok(journal)
}

/// A number of bytes, with k, m or g for the powers of 1,024.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// What a plus sign is: a space in a query, itself in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Itself,
    Space,
}

/// None when a percent sign is not followed by two hexadecimal digits.
fn decode(text: &str, plus: Plus) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if plus == Plus::Space => b' ',
            byte => byte,
        });
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn logger(program: &str, arguments: &[&str], handshake: Handshake) -> Target {
        Target::Logger(LoggerTarget {
            program: program.into(),
            arguments: arguments.iter().map(Into::into).collect(),
            handshake,
        })
    }

    fn journal(path: &str, max_size: u64, max_files: u32, attach: Option<&str>) -> Target {
        let attach = attach.map(Into::into);
        Target::Journal(JournalTarget { path: path.into(), max_size, max_files, attach, wait: false })
    }

    #[test]
    fn each_form_has_its_meaning() {
        let table = [
            ("", Target::Null),
            ("/run/a%20b", Target::Path("/run/a%20b".into())),
            ("/run/a:b?c#d", Target::Path("/run/a:b?c#d".into())),
            ("relative", Target::Path("relative".into())),
            ("1:2", Target::Path("1:2".into())),
            ("fifo:///run/f", Target::Fifo("/run/f".into())),
            ("FIFO:///run/f", Target::Fifo("/run/f".into())),
            ("fifo:/run/f", Target::Fifo("/run/f".into())),
            ("file:///var/log/a%20b%2Fc+d.log", Target::File("/var/log/a b/c+d.log".into())),
            ("file://localhost/l", Target::File("/l".into())),
            ("file:///l?level=debug#x", Target::File("/l".into())),
            ("binary:///bin/logger", logger("/bin/logger", &[], Handshake::Close)),
            (
                "binary:///bin/l%6fgger?b=2&a=x+y%3D&&flag&empty=&b=3",
                logger("/bin/logger", &["b", "2", "a", "x y=", "flag", "", "empty", ""], Handshake::Close),
            ),
            ("binary-v2:///bin/logger?a=b=c", logger("/bin/logger", &["a", "b=c"], Handshake::Byte)),
            ("json-file:///l", journal("/l", 0, 1, None)),
            ("json-file:///l?max-size=10m&max-file=3&attach=/run/a%20b", journal("/l", 10 << 20, 3, Some("/run/a b"))),
            ("json-file:///l?max-size=512", journal("/l", 512, 1, None)),
        ];
        for (value, expected) in table {
            assert_eq!(parse(Stream::Stdout, value), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_said() {
        let table = [
            ("https://example.org/log", "the scheme \"https\" of the stdout URI"),
            ("npipe:////./pipe/x", "the scheme \"npipe\""),
            ("file://log.txt", "names the host \"log.txt\""),
            ("file://", "has no absolute path"),
            ("fifo:run", "has no absolute path"),
            ("file:///a%2", "not well percent-encoded"),
            ("file:///a%zz", "not well percent-encoded"),
            ("file:///a%00b", "not well percent-encoded"),
            ("binary:///b?%", "not well percent-encoded"),
            ("binary:///b?a=%00", "a NUL"),
            ("json-file:///l?max-size=10q", "max-size is a number of bytes"),
            ("json-file:///l?max-size=", "max-size is a number of bytes"),
            ("json-file:///l?max-size=99999999999g", "max-size is a number of bytes"),
            ("json-file:///l?max-file=0", "max-file is a number of files"),
            ("json-file:///l?attach=here", "attach is the absolute path"),
            ("json-file:///l?attach=%0", "the value of attach is not well"),
            ("json-file:///l?attach=/a&wait=1", "wait is true or false"),
            ("json-file:///l?wait=true", "it needs attach"),
            ("json-file:///l?compress=true", "there is no option \"compress\""),
        ];
        for (value, expected) in table {
            let error = parse(Stream::Stdout, value).expect_err(value);
            assert_eq!(error.kind, Kind::InvalidArgument, "{value}");
            assert!(error.message.contains(expected), "{value}: {error}");
        }
    }
}
