//! Holds the store back: ttrpc keeps whatever comes of a stream in memory until it is used, and a pipe that takes an archive may be slow.
//!
//! The connection is read on only while what came since the caller last had nothing to do is little.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// What may have come and not be used yet, in bytes.
const AHEAD: usize = 8 << 20;

/// Counts what came since it was opened last.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    ahead: AtomicUsize,
    reader: Mutex<Option<Waker>>,
}

impl Gate {
    /// What came is used up.
    pub(crate) fn open(&self) {
        self.ahead.store(0, Ordering::Release);
        if let Some(waiting) = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waiting.wake();
        }
    }
}

/// A connection behind a gate.
#[derive(Debug)]
pub(crate) struct Gated {
    stream: UnixStream,
    gate: Arc<Gate>,
}

impl Gated {
    pub(crate) const fn new(stream: UnixStream, gate: Arc<Gate>) -> Self {
        Self { stream, gate }
    }
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
            *self.gate.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.waker().clone());
            // It may have been opened in between.
            if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
                return Poll::Pending;
            }
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buffer);
        self.gate.ahead.fetch_add(buffer.filled().len() - before, Ordering::AcqRel);
        polled
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
