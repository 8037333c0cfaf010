//! The ttrpc server on the shim's one socket: task v2 and v3, sandbox and streaming side by side.
//!
//! Only peers of the same user are served: the socket's mode says so already, the peer's credentials say so again for the time
//! before and for descriptors passed on.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;

use ttrpc::r#async::{Server, Service};
use ttrpc::asynchronous::transport::Listener;

use crate::error::{Context, Error, Result};

/// Serves these services on this socket until the future ends; then connections get a moment to finish.
pub async fn serve(
    listener: UnixListener,
    services: HashMap<String, Service>,
    until: impl Future<Output = ()>,
) -> Result<()> {
    listener.set_nonblocking(true).context(|| "make the shim's socket non-blocking".to_owned())?;
    let listener = tokio::net::UnixListener::from_std(listener).context(|| "watch the shim's socket".to_owned())?;
    let mut server = Server::new().add_listener(Listener::from(listener)).register_service(services);
    server.start().await.map_err(|error| Error::internal(format!("start to serve: {error}")))?;
    until.await;
    server.shutdown().await.map_err(|error| Error::internal(format!("stop serving: {error}")))
}
