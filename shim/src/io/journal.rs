//! A log in docker's json-file form, and whoever looks on meanwhile.
//!
//! ```text
//! json-file:///path?max-size=10m&max-file=3&attach=/run/…/attach
//!
//! the log    {"log":"a line\n","stream":"stdout","time":"2026-01-31T23:59:59.5Z"}         one record a line
//! rotated    path.1 is the last one before path, path.2 the one before that
//! attach     a unix socket; each client gets frames from when it is let in: stream (0 ready, 1 stdout, 2 stderr), three
//!            zero bytes, length (32 bits, big-endian), that many bytes: docker's form of an attached stream
//! ```
//!
//! The log holds whole lines of text (without an end if they are longer than 16 KiB, and what is not UTF-8 replaced); who is attached
//! gets the very bytes at once. An attached client that does not read holds the process up, as a fifo's reader does; one that
//! goes away does not. With `wait=true` nothing is taken from the process until the first is let in (for ten seconds at most): who starts a
//! process and then attaches misses nothing.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{geteuid, read};
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch::Sender;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::copy::Turn;
use super::target::{JournalTarget, Stream};
use crate::error::{Context, Result};
use crate::log::Stamp;

/// What passes through memory at once, and the longest record's text.
const CHUNK: usize = 16 << 10;
/// How long nobody is let in after that failed, for want of descriptors: it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the first client is waited for: it may have been killed.
const FIRST: Duration = Duration::from_secs(10);

/// The log of one process, of both its streams.
#[derive(Debug)]
pub(super) struct Journal {
    target: JournalTarget,
    file: RefCell<File>,
    size: Cell<u64>,
    /// The last write ended within a record.
    torn: Cell<bool>,
    /// Said once for each time that it begins.
    failing: Cell<bool>,
    clients: RefCell<Vec<Rc<UnixStream>>>,
    /// Somebody is looking on, or need not be waited for.
    watched: Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the log, and the socket to attach to. Needs a `LocalSet`.
    pub(super) fn open(target: &JournalTarget) -> Result<Rc<Self>> {
        let (file, size) = open_log(&target.path).context(|| format!("open the log {}", target.path.display()))?;
        let listener = target.attach.as_deref().map(listen).transpose()?;
        Ok(Rc::new_cyclic(|journal| Self {
            target: target.clone(),
            file: RefCell::new(file),
            size: Cell::new(size),
            torn: Cell::new(false),
            failing: Cell::new(false),
            clients: RefCell::default(),
            watched: Sender::new(!target.wait),
            accepting: listener.map(|it| tokio::task::spawn_local(accept(it, journal.clone()))),
        }))
    }

    /// Copies one stream until nobody has its pipe open for writing any more.
    pub(super) async fn copy(&self, from: &AsyncFd<OwnedFd>, stream: Stream) -> io::Result<()> {
        let mut turn = Turn::default();
        let mut line = Vec::new();
        self.until_watched().await;
        loop {
            let mut ready = from.readable().await?;
            match chunk(from.get_ref().as_fd()) {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    if bytes.len() < CHUNK {
                        ready.clear_ready();
                    }
                    self.log(&mut line, &bytes, stream);
                    self.show(&bytes, stream).await;
                    turn.chunk().await;
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if !line.is_empty() {
            self.append(&record(&line, stream));
        }
        Ok(())
    }

    async fn until_watched(&self) {
        let mut watched = self.watched.subscribe();
        if timeout(FIRST, watched.wait_for(|watched| *watched)).await.is_err() {
            // Nor for the other stream.
            self.watched.send_replace(true);
        }
    }

    /// Adds the lines that are whole now; `line` keeps the beginning of the next.
    fn log(&self, line: &mut Vec<u8>, bytes: &[u8], stream: Stream) {
        let mut records = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            while line.len() >= CHUNK {
                let rest = line.split_off(boundary(line));
                self.collect(&mut records, &record(line, stream));
                *line = rest;
            }
            if line.ends_with(b"\n") {
                self.collect(&mut records, &record(line, stream));
                line.clear();
            }
        }
        if line.is_empty() {
            // An idle stream keeps nothing.
            *line = Vec::new();
        }
        self.append(&records);
    }

    /// Puts a record behind others that are still to be written; those are, if with it the file would be too long.
    fn collect(&self, records: &mut Vec<u8>, record: &[u8]) {
        let limit = self.target.max_size;
        if limit > 0 && self.size.get() + (records.len() + record.len()) as u64 > limit {
            self.append(records);
            records.clear();
        }
        records.extend_from_slice(record);
    }

    /// Writes records; the process goes on when that fails.
    fn append(&self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        let limit = self.target.max_size;
        let full = limit > 0 && self.size.get() > 0 && self.size.get() + records.len() as u64 > limit;
        match if full { self.rotate() } else { Ok(()) }.and_then(|()| self.write(records)) {
            Ok(()) => self.failing.set(false),
            Err(error) if !self.failing.replace(true) => {
                warn!(
                    "write the log {}: {error}; output is not logged until it works again",
                    self.target.path.display()
                );
            }
            Err(_) => {}
        }
    }

    fn write(&self, records: &[u8]) -> io::Result<()> {
        let mut file = self.file.borrow_mut();
        if self.torn.get() {
            // The half stays one broken line, and takes no other with it.
            file.write_all(b"\n")?;
            self.size.set(self.size.get() + 1);
            self.torn.set(false);
        }
        let written = file.write_all(records);
        match (&written, file.metadata()) {
            (Err(_), Ok(now)) => {
                self.torn.set(now.len() > self.size.get());
                self.size.set(now.len());
            }
            _ => self.size.set(self.size.get() + records.len() as u64),
        }
        written
    }

    /// Begins a new file. Those before it move on by one, and the oldest goes.
    fn rotate(&self) -> io::Result<()> {
        let (path, files) = (&self.target.path, self.target.max_files);
        if files <= 1 {
            self.file.borrow().set_len(0)?;
        } else {
            let there = |done: io::Result<()>| match done {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done,
            };
            there(fs::remove_file(numbered(path, files - 1)))?;
            // Before anything moves: without room for it each try would push another log out.
            let mut new = path.as_os_str().to_owned();
            new.push(".new");
            let (file, _) = open_log(Path::new(&new))?;
            for number in (1..files).rev() {
                there(fs::rename(numbered(path, number - 1), numbered(path, number)))?;
            }
            fs::rename(&new, path)?;
            *self.file.borrow_mut() = file;
        }
        self.size.set(0);
        self.torn.set(false);
        Ok(())
    }

    /// Sends bytes to all who are attached, and waits until they have taken them.
    async fn show(&self, bytes: &[u8], stream: Stream) {
        // Who comes while others take theirs begins with the next bytes.
        let clients = self.clients.borrow().clone();
        for client in clients {
            if send(&client, stream, bytes).await.is_err() {
                self.forget(&client);
            }
        }
    }

    fn forget(&self, client: &Rc<UnixStream>) {
        self.clients.borrow_mut().retain(|it| !Rc::ptr_eq(it, client));
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        for client in self.clients.get_mut() {
            // Who waits for its end still has it; this is the end for both. Whoever is gone already needs none.
            let _ = shutdown(client.as_fd().as_raw_fd(), Shutdown::Both);
        }
        if let (Some(accepting), Some(path)) = (&self.accepting, &self.target.attach) {
            accepting.abort();
            // Who comes now has come too late, and is told so by there being nothing.
            let _ = fs::remove_file(path);
        }
    }
}

/// Lets clients in, as long as there is a journal.
async fn accept(listener: UnixListener, journal: Weak<Journal>) {
    loop {
        let client = match listener.accept().await.and_then(|(client, _)| Ok((client.peer_cred()?.uid(), client))) {
            Ok((uid, client)) if uid == geteuid().as_raw() => Rc::new(client),
            Ok((uid, _)) => {
                warn!(uid, "turned away another user, who wanted to attach");
                continue;
            }
            Err(error) => {
                warn!("let a client attach: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(open) = journal.upgrade() else { return };
        open.clients.borrow_mut().push(client.clone());
        drop(open);
        let journal = journal.clone();
        tokio::task::spawn_local(async move {
            // It counts on all that is written from this frame on.
            let welcome = send(&client, Stream::Stdin, b"").await;
            if welcome.is_ok() {
                if let Some(journal) = journal.upgrade() {
                    journal.watched.send_replace(true);
                }
                gone(&client).await;
            }
            if let Some(journal) = journal.upgrade() {
                journal.forget(&client);
            }
        });
    }
}

/// Waits until the client has hung up: it has nothing to say.
async fn gone(client: &UnixStream) {
    let mut ignored = [0; 64];
    while client.readable().await.is_ok() {
        match client.try_read(&mut ignored) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Sends one frame whole.
async fn send(client: &UnixStream, stream: Stream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut frame = Vec::with_capacity(8 + bytes.len());
    frame.extend_from_slice(&[stream.number(), 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(bytes);
    let mut rest = &frame[..];
    while !rest.is_empty() {
        client.writable().await?;
        match client.try_write(rest) {
            Ok(taken) => rest = &rest[taken..],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn listen(path: &Path) -> Result<UnixListener> {
    let failed = || format!("make the socket {} to attach to", path.display());
    // A shim that was killed left its own behind; the directory is the caller's, and nobody else's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(failed),
        _ => {}
    }
    let listener = UnixListener::bind(path).context(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).context(failed)?;
    Ok(listener)
}

fn open_log(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // A fifo's reader is not waited for: nobody else would be served.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    if !about.is_file() && !about.file_type().is_char_device() {
        return Err(io::Error::other("it is neither a file nor a device"));
    }
    Ok((file, about.len()))
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// In a function of its own: a buffer in an async function is part of every idle task.
fn chunk(from: BorrowedFd<'_>) -> nix::Result<Vec<u8>> {
    let mut buffer = [0; CHUNK];
    let length = read(from, &mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Where to cut a line that is too long: not within a character.
fn boundary(line: &[u8]) -> usize {
    (CHUNK - 3..=CHUNK).rev().find(|at| line.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(CHUNK)
}

/// One record of the log, now.
fn record(line: &[u8], stream: Stream) -> Vec<u8> {
    #[derive(Serialize)]
    struct Record<'a> {
        log: &'a str,
        stream: &'a str,
        time: &'a str,
    }
    let (log, stream, time) = (String::from_utf8_lossy(line), stream.to_string(), timestamp(SystemTime::now()));
    let record = Record { log: &log, stream: &stream, time: &time };
    let mut bytes = serde_json::to_vec(&record).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// As RFC 3339 has it, in UTC, with as many digits as say something.
fn timestamp(at: SystemTime) -> String {
    let text = Stamp(at).to_string();
    format!("{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn times_are_told_as_date_does() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_800, 500_000_000, "2000-03-01T00:00:00.5Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_798_761_599, 1_000, "2026-12-31T23:59:59.000001Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::new(seconds, nanoseconds)), expected);
        }
    }

    #[test]
    fn a_long_line_is_not_cut_within_a_character() {
        let mut line = vec![b'x'; CHUNK - 1];
        line.extend("ü".as_bytes());
        assert_eq!(boundary(&line), CHUNK - 1);
        assert_eq!(boundary(&vec![b'x'; CHUNK]), CHUNK);
        // Not a character at all.
        assert_eq!(boundary(&vec![0x80; CHUNK + 1]), CHUNK);
    }
}
