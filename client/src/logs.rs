//! `logs`: what a container wrote, out of the log that its shim writes, and what it goes on writing.
//!
//! ```text
//! <id>-json.log.2  <id>-json.log.1  <id>-json.log      oldest first, one record a line: {"log":"a line\n","stream":"stdout","time":"…"}
//! ```

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::client::Client;
use crate::error::{Context, Error, Kind, Result};
use crate::record::Status;
use crate::time::Time;
use crate::watch::Watch;
use crate::{records, truth};

/// What is shown, and how.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Go on as long as the container runs.
    pub follow: bool,
    /// So many of the last lines; None: all.
    pub tail: Option<usize>,
    /// Nothing from before.
    pub since: Option<Time>,
    /// Nothing from after.
    pub until: Option<Time>,
    /// With the time before each line.
    pub timestamps: bool,
    /// With what was given by `--log-opt labels` and `env`: nothing here, but a space, as docker.
    pub details: bool,
}

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: Time,
}

/// Shows a container's log: what it wrote to standard output on `out`, the rest on `err`.
///
/// # Errors
/// There is no such container, it has no log, or one of the outputs cannot be written to.
pub async fn logs(
    client: &Client,
    name: &str,
    options: &Options,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<()> {
    let record = truth::find(client, name).await?;
    if record.host_config.log_config.kind == "none" {
        return Err(Error::failed(format!("container {} has no log: it was made with --log-driver none", record.name)));
    }
    let mut shown = Shown { options, out, err };
    let path = client.paths.log(&record.id);
    // Before anything is read: what comes meanwhile is seen.
    let mut changes = if options.follow { Some(Watch::new(&client.paths.container(&record.id))?) } else { None };
    let mut reader = Reader::open(&path)?;
    let told = if options.tail == Some(0) { reader.pass().map(|()| true) } else { shown.first(&mut reader) };
    let mut goes_on = told?;
    while let Some(changes) = changes.as_mut().filter(|_| goes_on) {
        // Asked before the log is read again: when its shim is done with it, all that it wrote is there.
        let runs = match records::load(client, &record.id) {
            Err(error) if error.kind == Kind::NotFound => false,
            now => {
                let state = now?.state;
                !state.shim.is_empty() || state.status == Status::Restarting
            }
        };
        while let Some(line) = reader.next()? {
            goes_on &= shown.line(&line)?;
        }
        shown.flush()?;
        if !runs {
            break;
        }
        changes.changed().await?;
    }
    shown.flush()
}

/// Where lines go.
struct Shown<'a> {
    options: &'a Options,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Shown<'_> {
    /// Shows what there is now; false if nothing after it can be wanted.
    fn first(&mut self, reader: &mut Reader) -> Result<bool> {
        let mut last = VecDeque::new();
        let mut goes_on = true;
        while let Some(line) = reader.next()? {
            match self.options.tail {
                None => goes_on &= self.line(&line)?,
                Some(most) => {
                    if self.is_wanted(&line) {
                        last.push_back(line);
                    }
                    if last.len() > most {
                        last.pop_front();
                    }
                }
            }
        }
        for line in &last {
            goes_on &= self.line(line)?;
        }
        self.flush()?;
        Ok(goes_on)
    }

    fn is_wanted(&self, line: &Line) -> bool {
        self.options.since.is_none_or(|it| line.time >= it) && self.options.until.is_none_or(|it| line.time <= it)
    }

    /// Shows one line, if it is wanted; false if it is later than any that is.
    fn line(&mut self, line: &Line) -> Result<bool> {
        if !self.is_wanted(line) {
            return Ok(self.options.until.is_none_or(|it| line.time <= it));
        }
        let to = if line.stream == "stderr" { &mut self.err } else { &mut self.out };
        let before = match (self.options.timestamps, self.options.details) {
            (true, true) => format!("{}  ", padded(line.time)),
            (true, false) => format!("{} ", padded(line.time)),
            (false, true) => " ".to_owned(),
            (false, false) => String::new(),
        };
        to.write_all(before.as_bytes()).and_then(|()| to.write_all(line.log.as_bytes())).map_err(unwritten)?;
        Ok(true)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().and_then(|()| self.err.flush()).map_err(unwritten)
    }
}

fn unwritten(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // Who reads no more, as behind `| head`, ends it without a word.
        return Error::failed("");
    }
    Error::failed(format!("show the log: {error}"))
}

/// With nine digits of the second, as docker shows it: columns stay columns.
fn padded(time: Time) -> String {
    let text = time.to_string();
    let (whole, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), ""));
    format!("{whole}.{fraction:0<9}Z")
}

/// Reads a log over its rotations.
struct Reader {
    path: PathBuf,
    /// Older files that are still to be read, the oldest last.
    older: Vec<PathBuf>,
    file: Option<BufReader<File>>,
    /// A record that is not whole yet.
    begun: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> Result<Self> {
        let numbered = |number: u32| {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let older = (1..).map(numbered).take_while(|it| it.is_file()).collect();
        let mut reader = Self { path: path.to_owned(), older, file: None, begun: Vec::new() };
        reader.turn()?;
        Ok(reader)
    }

    /// Opens the next file; false when there is none yet.
    fn turn(&mut self) -> Result<bool> {
        let path = self.older.pop().unwrap_or_else(|| self.path.clone());
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file = None,
            file => self.file = Some(BufReader::new(file.context(|| format!("open the log {}", path.display()))?)),
        }
        Ok(self.file.is_some())
    }

    /// Passes over what there is now.
    fn pass(&mut self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// The next record, if there is one by now.
    fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let Some(file) = &mut self.file else {
                if self.turn()? {
                    continue;
                }
                return Ok(None);
            };
            let what = || format!("read the log {}", self.path.display());
            let read = file.read_until(b'\n', &mut self.begun).context(what)?;
            if self.begun.ends_with(b"\n") {
                let line = serde_json::from_slice(&self.begun);
                self.begun.clear();
                match line {
                    Ok(line) => return Ok(Some(line)),
                    // Of a disk that was full, or a host that lost its power: what follows is whole again.
                    Err(_) => continue,
                }
            }
            if read == 0 && !self.has_moved_on()? {
                return Ok(None);
            }
            if read == 0 {
                self.begun.clear();
                self.turn()?;
            }
        }
    }

    /// Whether what is read is no longer the file that is written.
    fn has_moved_on(&self) -> Result<bool> {
        if !self.older.is_empty() {
            return Ok(true);
        }
        let Some(file) = &self.file else { return Ok(false) };
        let what = || format!("look at the log {}", self.path.display());
        let ours = file.get_ref().metadata().context(what)?;
        match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            now => Ok((ours.dev(), ours.ino()) != now.map(|it| (it.dev(), it.ino())).context(what)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(text: &str, stream: &str, second: i64) -> String {
        let time = Time::since_epoch(second, 500_000_000);
        format!("{}\n", serde_json::json!({ "log": text, "stream": stream, "time": time }))
    }

    fn shown(path: &Path, options: &Options) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut reader = Reader::open(path).unwrap();
        Shown { options, out: &mut out, err: &mut err }.first(&mut reader).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn who_reads_no_more_is_told_nothing() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, record("a\n", "stdout", 1)).unwrap();
        for (kind, sentence) in
            [(io::ErrorKind::BrokenPipe, ""), (io::ErrorKind::StorageFull, "show the log: no storage space")]
        {
            let (options, mut out, mut err) = (Options::default(), Fails(kind), Vec::new());
            let mut reader = Reader::open(&path).unwrap();
            let ended = Shown { options: &options, out: &mut out, err: &mut err }.first(&mut reader);
            assert_eq!(ended.unwrap_err().message, sentence);
        }
    }

    #[test]
    fn all_files_of_a_log_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(dir.path().join("log.2"), record("a\n", "stdout", 1)).unwrap();
        fs::write(dir.path().join("log.1"), record("b\n", "stderr", 2)).unwrap();
        fs::write(&path, record("c\n", "stdout", 3) + "torn\n" + &record("d", "stdout", 4) + "{\"log\":\"half")
            .unwrap();
        assert_eq!(shown(&path, &Options::default()), ("a\nc\nd".to_owned(), "b\n".to_owned()));
        let tail = Options { tail: Some(2), ..Options::default() };
        assert_eq!(shown(&path, &tail).0, "c\nd");
        let between = Options {
            since: Some(Time::since_epoch(2, 0)),
            until: Some(Time::since_epoch(4, 0)),
            ..Options::default()
        };
        assert_eq!(shown(&path, &between), ("c\n".to_owned(), "b\n".to_owned()));
        let times = Options { timestamps: true, tail: Some(1), ..Options::default() };
        assert_eq!(shown(&path, &times).0, "1970-01-01T00:00:04.500000000Z d");
        assert_eq!(shown(&dir.path().join("none"), &Options::default()), (String::new(), String::new()));
    }

    #[test]
    fn a_reader_goes_on_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, record("a\n", "stdout", 1)).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().log, "a\n");
        assert_eq!(reader.next().unwrap(), None);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        fs::write(&path, record("b\n", "stdout", 2)).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().log, "b\n");
    }
}
