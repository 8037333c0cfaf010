//! What the commands print: tables for people, JSON for programs, and how they fail.

use std::io::{self, Write};
use std::time::SystemTime;

use indicatif::{HumanBytes, HumanDuration};
use serde_json::Value;
use tare_proto::{MessageField, Timestamp};

use crate::error::{Error, Result};
use crate::service::wire;

/// Why a command does not end with 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was called wrongly.
    Usage(String),
    /// It was tried.
    Failed(Error),
    /// It was done, and what it says is that something is wrong.
    Found,
    /// Nobody reads what it prints.
    Closed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// Standard output did not take what was written to it.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(Error::internal(format!("write to standard output: {error}"))),
        }
    }
}

/// How a command ends.
pub(crate) type Done = std::result::Result<(), Failure>;

/// One line on standard output.
pub(crate) fn line(text: &str) -> Done {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(|error| Failure::output(&error))
}

/// One JSON document on standard output: on one line, as `jq` and `read` like it.
pub(crate) fn document(value: &Value) -> Done {
    line(&value.to_string())
}

/// Columns under their names, as wide as they must be.
pub(crate) fn table<const N: usize>(names: [&str; N], rows: &[[String; N]]) -> Done {
    let mut widths = names.map(|name| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: [&str; N]| {
        let mut text = String::new();
        for (n, (cell, width)) in cells.iter().zip(widths).enumerate() {
            text.push_str(cell);
            if n + 1 < N {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
        }
        line(text.trim_end())
    };
    print(names)?;
    for row in rows {
        print(row.each_ref().map(String::as_str))?;
    }
    Ok(())
}

/// "12.34 MiB".
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// "12.34 MiB" of a message's size.
pub(crate) fn size(size: i64) -> String {
    bytes(u64::try_from(size).unwrap_or(0))
}

/// "3 hours ago".
pub(crate) fn ago(time: &MessageField<Timestamp>) -> String {
    match wire::time(time).map(|it| SystemTime::now().duration_since(it)) {
        Some(Ok(since)) => format!("{} ago", HumanDuration(since)),
        Some(Err(_)) => "in the future".to_owned(),
        None => "-".to_owned(),
    }
}

/// RFC 3339, or null.
pub(crate) fn json_time(time: &MessageField<Timestamp>) -> Value {
    let at = time.as_ref().and_then(|it| jiff::Timestamp::new(it.seconds, it.nanos).ok());
    at.map_or(Value::Null, |it| it.to_string().into())
}

/// A digest as people recognise it.
pub(crate) fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// `KEY=VALUE`s.
pub(crate) fn labels(given: &[String]) -> std::result::Result<std::collections::HashMap<String, String>, Failure> {
    let split = |it: &String| match it.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("{it:?} is not a label: write KEY=VALUE"))),
    };
    given.iter().map(split).collect()
}

/// The field mask that changes these labels and no others.
pub(crate) fn label_paths(labels: &std::collections::HashMap<String, String>) -> MessageField<tare_proto::FieldMask> {
    let mut mask = tare_proto::FieldMask::new();
    mask.paths = labels.keys().map(|key| format!("labels.{key}")).collect();
    MessageField::some(mask)
}

/// Runs what may wait for a person or a pipe on a thread of its own.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    crate::store::blocking(work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_pairs() {
        let given = labels(&["a=b".into(), "c=d=e".into(), "f=".into()]).unwrap();
        assert_eq!((given["a"].as_str(), given["c"].as_str(), given["f"].as_str()), ("b", "d=e", ""));
        assert!(matches!(labels(&["x".into()]), Err(Failure::Usage(_))));
        assert!(matches!(labels(&["=x".into()]), Err(Failure::Usage(_))));
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("abc"), "abc");
    }
}
