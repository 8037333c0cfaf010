//! The socket, and a small server for each connection to it.
//!
//! Each connection has a ttrpc server of its own, so that its handlers know their connection ([`Session`]): of a stream's handler
//! the crate does not say that its client is gone. Only peers of the same user are served: the socket's mode says so, and the
//! peer's credentials again.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use ttrpc::r#async::Server;
use ttrpc::asynchronous::transport::Listener;

use super::services;
use super::session::{End, Session};
use crate::error::{Context, Error, Result};
use crate::fs::private_dir;
use crate::service::Shared;

/// How long nobody is accepted after that failed, for want of descriptors or memory: it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How many turns every task gets at the end, so that the last answers reach their sockets.
const TURNS: usize = 64;

/// The first descriptor that a service manager passes on (sd_listen_fds(3)).
const FIRST_PASSED: i32 = 3;

/// Makes the socket, 0600 in a directory of our own, or takes the one that a service manager made.
///
/// # Errors
/// Another daemon listens there, the path is too long for a socket, or something else is in the way.
pub fn listen(path: &Path) -> Result<UnixListener> {
    if let Some(passed) = passed()? {
        return Ok(passed);
    }
    let shown = path.display();
    let dir = path.parent().filter(|it| !it.as_os_str().is_empty());
    private_dir(dir.ok_or_else(|| Error::invalid(format!("socket {shown}: give it with its directory")))?)?;
    // Who holds the root's lock is the only daemon; a socket that answers belongs to one with another root.
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(Error::precondition(format!(
                "another daemon listens on {shown}: stop it, or use another --socket"
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) if path.symlink_metadata().is_ok_and(|it| it.file_type().is_socket()) => {
            std::fs::remove_file(path).context(|| format!("remove the old socket {shown}"))?;
        }
        Err(error) => return Err(error).context(|| format!("look for a daemon on {shown}")),
    }
    let listener = UnixListener::bind(path).context(|| format!("make the socket {shown}"))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).context(|| format!("shut {shown} for others"))?;
    Ok(listener)
}

/// A listening socket from systemd or its like (`LISTEN_PID`, `LISTEN_FDS`).
fn passed() -> Result<Option<UnixListener>> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        None | Some(0) => Ok(None),
        Some(1) => {
            let listener = UnixListener::from(crate::sys::passed::take(FIRST_PASSED)?);
            listener.local_addr().context(|| "use the socket of the service manager".to_owned())?;
            Ok(Some(listener))
        }
        Some(n) => Err(Error::invalid(format!("the service manager passes {n} sockets: one is needed"))),
    }
}

/// Serves until the future ends; then calls that run are ended, and what they answer is sent.
///
/// # Errors
/// The socket is no listening one.
pub async fn serve(listener: UnixListener, shared: &Shared, until: impl Future<Output = ()>) -> Result<()> {
    listener.set_nonblocking(true).context(|| "make the socket non-blocking".to_owned())?;
    let listener = tokio::net::UnixListener::from_std(listener).context(|| "watch the socket".to_owned())?;
    let us = nix::unistd::geteuid().as_raw();
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut alone_since = Instant::now();
    tokio::pin!(until);
    loop {
        let patience = shared.store.config.idle.filter(|_| connections.is_empty());
        let idle = async {
            match patience {
                Some(patience) => tokio::time::sleep_until(alone_since + patience).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut until => break,
            // Before the end for want of clients, so that none waits in vain.
            peer = accept(&listener, us) => {
                if let Some(peer) = peer {
                    connections.spawn(connection(peer, shared.clone(), stopping.clone()));
                }
            }
            () = idle => {
                tracing::info!("no client for a while: the daemon ends");
                break;
            }
            Some(_) = connections.join_next() => alone_since = Instant::now(),
        }
    }
    drop(listener);
    // No connection is left to hear it: that is well too.
    let _ = stop.send(true);
    while connections.join_next().await.is_some() {}
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// The next who connects, if it may.
async fn accept(listener: &tokio::net::UnixListener, us: u32) -> Option<UnixStream> {
    match listener.accept().await.and_then(|(peer, _)| Ok((peer.peer_cred()?.uid(), peer))) {
        Ok((uid, peer)) if uid == us => Some(peer),
        Ok((uid, _)) => {
            tracing::warn!(uid, "turned away a client of another user");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "accept a client");
            tokio::time::sleep(PAUSE).await;
            None
        }
    }
}

/// One connection, from its beginning to its end.
async fn connection(peer: UnixStream, shared: Shared, mut stopping: watch::Receiver<bool>) {
    let (end, mut ended) = watch::channel(End::Not);
    let session =
        Session { store: shared.store, collector: shared.collector, running: shared.running, end: ended.clone() };
    let stop = end.clone();
    let peer = Watched { peer, end };
    // Not only the one: a listener that has ended cannot be stopped any more.
    let one = futures::stream::once(async { io::Result::Ok(peer) }).chain(futures::stream::pending());
    let mut server = Server::new().add_listener(Listener::new(one)).register_service(services(session));
    if let Err(error) = server.start().await {
        tracing::warn!(%error, "serve a client");
        return;
    }
    // Nothing of a watched value may be held over an await.
    let gone = async {
        let _ = ended.wait_for(|it| *it == End::Gone).await;
    };
    let stopped = async {
        let _ = stopping.wait_for(|it| *it).await;
    };
    tokio::select! {
        () = gone => {}
        () = stopped => {
            stop.send_if_modified(|it| std::mem::replace(it, End::Stopping) == End::Not);
            // Waits for calls that run; those with streams have just heard that they end.
            if let Err(error) = server.shutdown().await {
                tracing::warn!(%error, "stop serving a client");
            }
        }
    }
}

/// A client's socket that says when the client has gone.
struct Watched {
    peer: UnixStream,
    end: watch::Sender<End>,
}

impl Watched {
    fn gone(&self) {
        self.end.send_if_modified(|it| std::mem::replace(it, End::Gone) == End::Not);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.gone();
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let polled = Pin::new(&mut self.peer).poll_read(waker, buf);
        match &polled {
            Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == before => self.gone(),
            Poll::Ready(Err(_)) => self.gone(),
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, waker: &mut Waker<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.peer).poll_write(waker, bytes);
        if matches!(polled, Poll::Ready(Err(_))) {
            self.gone();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.peer).poll_flush(waker)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.peer).poll_shutdown(waker)
    }
}
