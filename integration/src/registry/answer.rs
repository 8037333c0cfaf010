//! Answers, and bodies that fail on purpose.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

pub(super) fn with(status: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    let body = Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

pub(super) fn plain(status: StatusCode) -> Answer {
    with(status, Bytes::new())
}

pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Answer {
    let mut answer = with(status, value.to_string());
    answer.headers_mut().insert("content-type", "application/json".parse().unwrap());
    answer
}

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &serde_json::json!({"errors": [{"code": code, "message": message}]}))
}

/// Sets a header.
pub(super) fn set(answer: &mut Answer, name: &'static str, value: &str) {
    answer.headers_mut().insert(name, value.parse().expect("a header's value"));
}

/// Whether everything that was written on a connection has gone out: hyper throws away what has not when a body fails.
#[derive(Default)]
pub(super) struct Flushed(Mutex<(bool, Option<Waker>)>);

impl Flushed {
    /// It has.
    pub(super) fn set(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    fn begin(&self) {
        self.0.lock().unwrap().0 = false;
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// How a body ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// As it should.
    Well,
    /// The connection ends after so many bytes.
    Cut(usize),
    /// Nothing comes after so many bytes.
    Stall(usize),
}

/// A body of these bytes, in pieces.
pub(super) struct Pieces {
    bytes: Bytes,
    sent: usize,
    size: u64,
    end: End,
    /// Size of a piece, and the pause behind each.
    piece: usize,
    pause: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    millis: u64,
    flushed: Arc<Flushed>,
    waits: bool,
}

impl Pieces {
    pub(super) fn new(bytes: Bytes, end: End, slow: Option<(usize, u64)>, flushed: Arc<Flushed>) -> Self {
        let size = bytes.len() as u64;
        let (piece, millis) = slow.unwrap_or((256 << 10, 0));
        Self { bytes, sent: 0, size, end, piece, pause: None, millis, flushed, waits: false }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(std::future::Future::poll(pause.as_mut(), cx));
            self.pause = None;
        }
        let left = match self.end {
            End::Well => usize::MAX,
            End::Cut(most) | End::Stall(most) => most.saturating_sub(self.sent),
        };
        if left == 0 {
            if matches!(self.end, End::Stall(_)) {
                // Whoever waits for this waits for the end of the connection.
                return Poll::Pending;
            }
            if !self.waits {
                self.waits = true;
                self.flushed.begin();
            }
            std::task::ready!(self.flushed.poll(cx));
            return Poll::Ready(Some(Err(io::Error::other("cut off on purpose"))));
        }
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.piece.min(left).min(self.bytes.len());
        let piece = self.bytes.split_to(size);
        self.sent += size;
        // The pace of a slow registry is what this plays, and nobody's way to wait for anything.
        if self.millis > 0 {
            self.pause = Some(Box::pin(tokio::time::sleep(std::time::Duration::from_millis(self.millis))));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.size - self.sent as u64)
    }
}
