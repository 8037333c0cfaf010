//! The ttrpc server on the shim's one socket: task v2 and v3, sandbox and streaming side by side.
//!
//! Only peers of the same user are served: the socket's mode says so already, the peer's credentials say it again, for
//! descriptors that were passed on and directories that were opened up. Frames beyond 4 MiB are refused by the crate unread;
//! the rest of what a peer may send, a service must bear.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use futures::Stream;
use tokio::net::UnixStream;
use ttrpc::r#async::{Server, Service};
use ttrpc::asynchronous::transport::Listener;

use crate::error::{Context, Error, Result};

/// How long nobody is accepted after that failed, for want of descriptors or memory: it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How many turns every task gets before the shim ends: a task has an answer, its connection takes it, its socket.
const TURNS: usize = 64;

/// Serves these services on this socket until the future ends; then requests that run get a moment to finish.
///
/// # Errors
/// The socket is no listening one.
pub async fn serve(
    listener: UnixListener,
    services: HashMap<String, Service>,
    until: impl Future<Output = ()>,
) -> Result<()> {
    listener.set_nonblocking(true).context(|| "make the shim's socket non-blocking".to_owned())?;
    let listener = tokio::net::UnixListener::from_std(listener).context(|| "watch the shim's socket".to_owned())?;
    let mut server = Server::new()
        .add_listener(Listener::new(peers(listener, nix::unistd::geteuid().as_raw())))
        .register_service(services);
    server.start().await.map_err(|error| Error::internal(format!("start to serve: {error}")))?;
    until.await;
    server.shutdown().await.map_err(|error| Error::internal(format!("stop serving: {error}")))?;
    // The last answers (to the call that ended the shim, first of all) are with the connections' writers, which tell nobody
    // when they are through. None of them waits for anything but its turn.
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Those who connect and may: processes of the user `us`.
fn peers(listener: tokio::net::UnixListener, us: u32) -> impl Stream<Item = io::Result<UnixStream>> + Send + 'static {
    futures::stream::unfold(listener, move |listener| async move {
        loop {
            match listener.accept().await.and_then(|(peer, _)| Ok((peer.peer_cred()?.uid(), peer))) {
                Ok((uid, peer)) if uid == us => return Some((Ok(peer), listener)),
                Ok((uid, _)) => tracing::warn!(uid, "turned away a client of another user"),
                Err(error) => {
                    tracing::warn!(%error, "accept a client");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Client;

    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn run<F: Future>(what: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, what)
    }

    /// What the server says to a request of a service that it has not: any whole answer shows that it lives.
    async fn answered(path: &std::path::Path) -> bool {
        let client = ttrpc::r#async::Client::connect(&format!("unix://{}", path.display())).await.unwrap();
        let mut request = ttrpc::Request::new();
        request.service = "nothing".into();
        matches!(client.request(request).await, Err(ttrpc::Error::RpcStatus(_)))
    }

    #[test]
    fn serves_until_told_and_not_after() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let server = tokio::task::spawn_local(serve(listener, HashMap::new(), async {
                let _ = stopped.await;
            }));
            assert!(answered(&path).await);
            stop.send(()).unwrap();
            server.await.unwrap().unwrap();
            assert!(Client::connect(&path).is_err());
        });
    }

    #[test]
    fn a_hostile_client_hurts_nobody_but_itself() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let listener = UnixListener::bind(&path).unwrap();
            let server = tokio::task::spawn_local(serve(listener, HashMap::new(), std::future::pending()));
            let frames: &[&[u8]] = &[
                b"",
                b"\0",
                b"GET / HTTP/1.1\r\n\r\n",
                // A frame of 4 GiB, one of 4 MiB that never comes, an even stream, an unknown type, garbage in a request.
                b"\xff\xff\xff\xff\0\0\0\x01\x01\0xxxx",
                b"\0\x40\0\0\0\0\0\x01\x01\0",
                b"\0\0\0\0\0\0\0\x02\x01\0",
                b"\0\0\0\0\0\0\0\x01\x09\xff",
                b"\0\0\0\x04\0\0\0\x01\x01\0\xff\xff\xff\xff",
                b"\0\0\0\0\0\0\0\x01\x03\x05",
            ];
            let mut open = Vec::new();
            for frame in frames {
                let mut client = UnixStream::connect(&path).await.unwrap();
                client.write_all(frame).await.unwrap();
                open.push(client);
            }
            assert!(answered(&path).await);
            for mut client in open {
                client.shutdown().await.unwrap();
                let mut rest = Vec::new();
                client.read_to_end(&mut rest).await.unwrap();
            }
            assert!(answered(&path).await);
            server.abort();
        });
    }

    #[test]
    fn another_user_is_turned_away() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let listener = tokio::net::UnixListener::bind(&path).unwrap();
            // The server is the other one here: to be somebody else takes a process of its own.
            let us = nix::unistd::geteuid().as_raw();
            let mut peers = Box::pin(peers(listener, us + 1));
            let mut client = UnixStream::connect(&path).await.unwrap();
            let mut byte = [0];
            tokio::select! {
                _ = peers.next() => panic!("the stranger got in"),
                read = client.read(&mut byte) => assert_eq!(read.unwrap(), 0),
            }
        });
    }
}
