//! Bodies: what is sent, and what comes, with an end to each wait and to each size.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;

/// Why what is sent ended early.
pub(super) type SendError = Box<dyn std::error::Error + Send + Sync>;

/// What is sent.
pub(super) enum Outgoing {
    /// A document, or nothing.
    Whole(Option<Bytes>),
    /// A blob, as it is read; so many bytes are still to come.
    Pieces { from: mpsc::Receiver<Result<Bytes, SendError>>, left: u64 },
}

impl Outgoing {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = SendError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, SendError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Pieces { left: 0, .. } => Poll::Ready(None),
            Self::Pieces { from, left } => match from.poll_recv(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) => {
                    *left = left.saturating_sub(bytes.len() as u64);
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => Poll::Ready(Some(Err("the blob ends before its size".into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Pieces { left: 0, .. })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Whole(bytes) => bytes.as_ref().map_or(0, |it| it.len() as u64),
            Self::Pieces { left, .. } => *left,
        })
    }
}

/// The next bytes of what comes; nothing at its end. An error is a sentence's end: "it was cut off".
pub(super) async fn piece(body: &mut Incoming, patience: Duration) -> Result<Option<Bytes>, String> {
    loop {
        let next = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx));
        match tokio::time::timeout(patience, next).await {
            Err(_) => return Err(format!("nothing came for {patience:?}")),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(format!("it was cut off: {}", crate::registry::http::root(&error))),
            Ok(Some(Ok(frame))) => {
                // Trailers say nothing here.
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}

/// All of it, if it is no larger than this.
pub(super) async fn whole(body: &mut Incoming, limit: u64, patience: Duration) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(bytes) = piece(body, patience).await? {
        if (all.len() + bytes.len()) as u64 > limit {
            return Err(format!("it is larger than {limit} bytes"));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// As much of it as is worth showing, whatever happens.
pub(super) async fn beginning(body: &mut Incoming, limit: usize, patience: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < limit
        && let Ok(Some(bytes)) = piece(body, patience).await
    {
        all.extend_from_slice(&bytes);
    }
    all.truncate(limit);
    all
}
