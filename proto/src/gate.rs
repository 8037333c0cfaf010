//! Holds a server back: ttrpc keeps whatever comes of a stream in memory until it is used, and who uses it, such as a pipe that
//! takes an archive, may be slow.
//!
//! The connection is read on only while what came since the client last had nothing to do is little.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::task::AtomicWaker;
use protobuf::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::asynchronous::{Client, ClientStreamReceiver};

/// What may have come and not be used yet, in bytes.
const AHEAD: usize = 8 << 20;

/// Counts what came since it was opened last.
#[derive(Debug, Default)]
pub struct Gate {
    ahead: AtomicUsize,
    reader: AtomicWaker,
}

impl Gate {
    /// A client behind a gate.
    #[must_use]
    pub fn client(stream: UnixStream) -> (Client, Arc<Self>) {
        let gate = Arc::<Self>::default();
        (Client::new(Socket::new(Gated { stream, gate: Arc::clone(&gate) })), gate)
    }

    /// What came is used up; more may come.
    pub fn open(&self) {
        self.ahead.store(0, Ordering::Release);
        self.reader.wake();
    }

    /// The next message of a stream; `None` at its end. While the caller uses it, no more than a few megabytes come after it.
    ///
    /// # Errors
    /// The server's status, or the connection has ended.
    pub async fn next<M: Message>(&self, stream: &mut ClientStreamReceiver<M>) -> ttrpc::Result<Option<M>> {
        if let Some(message) = stream.recv().now_or_never() {
            return message;
        }
        // All that came is used up.
        self.open();
        stream.recv().await
    }
}

struct Gated {
    stream: UnixStream,
    gate: Arc<Gate>,
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
            self.gate.reader.register(task.waker());
            // It may have been opened in between.
            if self.gate.ahead.load(Ordering::Acquire) > AHEAD {
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buf);
        self.gate.ahead.fetch_add(buf.filled().len() - before, Ordering::AcqRel);
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
