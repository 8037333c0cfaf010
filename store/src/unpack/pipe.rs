//! The bounded pipe between inflating and unpacking: a few buffers that go round, hashed as they arrive.
//!
//! ```text
//!            full (at most BUFFERS)
//!  Producer ------------------------> Received: hash, then hand out in place
//!           <------------------------
//!            empty
//! ```
//!
//! A buffer is a multiple of the archive's block and always full but for the last, so no header lies across two.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use super::Limits;
use super::tar::stream_failed;
use crate::content::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};

/// Small enough for the cache that the two cores share, large enough that handing over costs nothing.
const BUFFER: usize = 256 << 10;
const BUFFERS: usize = 6;
/// From here on the ratio is looked at: small layers of zeros are nobody's harm.
const RATIO_FROM: u64 = 64 << 20;

type Piece = Result<(Box<[u8]>, usize)>;

/// The end that fills.
pub(super) struct Producer {
    full: SyncSender<Piece>,
    empty: Receiver<Box<[u8]>>,
}

/// The end that is read.
pub(super) struct Received {
    full: Receiver<Piece>,
    empty: Sender<Box<[u8]>>,
    current: Option<Box<[u8]>>,
    length: usize,
    at: usize,
    hasher: Hasher,
    total: u64,
}

pub(super) fn pipe() -> (Producer, Received) {
    let (full_in, full_out) = sync_channel(BUFFERS);
    let (empty_in, empty_out) = channel();
    for _ in 0..BUFFERS {
        // The receiver is three lines above.
        let _ = empty_in.send(vec![0; BUFFER].into_boxed_slice());
    }
    let received = Received {
        full: full_out,
        empty: empty_in,
        current: None,
        length: 0,
        at: 0,
        hasher: Algorithm::Sha256.hasher(),
        total: 0,
    };
    (Producer { full: full_in, empty: empty_out }, received)
}

impl Producer {
    /// Fills buffers until the stream ends or fails, or the other end has gone. `read` tells the compressed bytes so far.
    pub(super) fn run(
        self,
        mut stream: impl Read,
        limits: &Limits,
        read: impl Fn() -> u64,
        progress: &(dyn Fn(u64) + Sync),
    ) {
        let mut total = 0;
        while let Ok(mut buffer) = self.empty.recv() {
            let piece = fill(&mut stream, &mut buffer).and_then(|length| {
                total += length as u64;
                check(total, read(), limits).map(|()| length)
            });
            progress(read());
            let end = !matches!(piece, Ok(length) if length == buffer.len());
            if self.full.send(piece.map(|length| (buffer, length))).is_err() || end {
                return;
            }
        }
    }
}

fn fill(stream: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match stream.read(&mut buffer[have..]) {
            Ok(0) => break,
            Ok(length) => have += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(stream_failed(error)),
        }
    }
    Ok(have)
}

fn check(total: u64, read: u64, limits: &Limits) -> Result<()> {
    if total > limits.size {
        return Err(Error::exhausted(format!(
            "the layer has more than {} bytes when inflated, which is the limit",
            limits.size
        )));
    }
    if limits.ratio > 0 && total > RATIO_FROM && total / limits.ratio > read {
        return Err(Error::exhausted(format!(
            "the layer inflates to more than {} times its size ({total} bytes out of {read}), which is the limit",
            limits.ratio
        )));
    }
    Ok(())
}

impl Received {
    /// Digest and length of all that was read.
    pub(super) fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.total)
    }
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(into.len());
        into[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Received {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.length {
            if let Some(buffer) = self.current.take() {
                // Only the end of the stream lets the other side go; then the buffer has served.
                let _ = self.empty.send(buffer);
            }
            self.length = 0;
            self.at = 0;
            match self.full.recv() {
                Ok(Ok((buffer, length))) => {
                    self.hasher.update(&buffer[..length]);
                    self.total += length as u64;
                    self.length = length;
                    self.current = Some(buffer);
                }
                Ok(Err(error)) => return Err(io::Error::other(error)),
                Err(_) => {}
            }
        }
        Ok(self.current.as_ref().map_or(&[], |buffer| &buffer[self.at..self.length]))
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}
