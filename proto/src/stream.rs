//! A stream on which the client sends too, as its handler holds it.
//!
//! ttrpc's server forgets a stream as soon as its handler lets go of what the client sends, and only then sends how the handler
//! ended. Data that come in between are answered too, by a status that speaks of no active stream, and every client takes the
//! first status for the stream's end. So what the client sends is taken and thrown away until the handler's own word is out:
//!
//! ```text
//! client                 server                           the stream is known for
//!   data        ---->    the handler, which fails         the handler
//!   data        ---->    nobody                           [`Incoming`], dropped by the handler
//!               <----    the handler's status
//!   its end, or time passes                               nobody
//! ```
//!
//! A handler therefore drops its [`Incoming`] last, and discards from it what it has no use for while it still runs.

use std::time::Duration;

use protobuf::Message;
use ttrpc::asynchronous::{SSReceiver, SSSender, ServerStream};

/// How long a stream is still known when its handler has let go, if the client does not end it. By far more than a status waits
/// to be sent, which nobody is told of; whatever the client does, each stream costs its memory that much longer and no more.
const LINGER: Duration = Duration::from_secs(2);

/// Both directions.
#[derive(Debug)]
pub struct Stream<P, Q: Message> {
    /// To the client.
    pub out: SSSender<P>,
    /// From the client.
    pub incoming: Incoming<Q>,
}

impl<P: Message, Q: Message> From<ServerStream<P, Q>> for Stream<P, Q> {
    fn from(stream: ServerStream<P, Q>) -> Self {
        let (out, incoming) = stream.split();
        Self { out, incoming: Incoming(Some(incoming)) }
    }
}

impl<P: Message, Q: Message> Stream<P, Q> {
    /// Sends a message.
    ///
    /// # Errors
    /// The connection has ended, or the message is too long.
    pub async fn send(&self, message: &P) -> ttrpc::Result<()> {
        self.out.send(message).await
    }

    /// What the client sends next; `None` after its end.
    ///
    /// # Errors
    /// It is no such message.
    pub async fn recv(&mut self) -> ttrpc::Result<Option<Q>> {
        self.incoming.recv().await
    }
}

/// What the client sends. Dropped, it is received a little longer.
#[derive(Debug)]
pub struct Incoming<Q: Message>(Option<SSReceiver<Q>>);

impl<Q: Message> Incoming<Q> {
    /// The next message; `None` after the client's end.
    ///
    /// # Errors
    /// It is no such message.
    pub async fn recv(&mut self) -> ttrpc::Result<Option<Q>> {
        let Some(incoming) = &mut self.0 else { return Ok(None) };
        let message = incoming.recv().await?;
        if message.is_none() {
            self.0 = None;
        }
        Ok(message)
    }

    /// Takes all that the client sends up to its end, and throws it away.
    pub async fn discard(&mut self) {
        if let Some(incoming) = &mut self.0 {
            discard(incoming).await;
            self.0 = None;
        }
    }
}

impl<Q: Message> Drop for Incoming<Q> {
    fn drop(&mut self) {
        // Without a runtime there is no connection any more either.
        if let (Some(mut incoming), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { tokio::time::timeout(LINGER, discard(&mut incoming)).await });
        }
    }
}

async fn discard<Q: Message>(incoming: &mut SSReceiver<Q>) {
    // What is no such message is thrown away as well.
    while !matches!(incoming.recv().await, Ok(None) | Err(ttrpc::Error::RemoteClosed)) {}
}
