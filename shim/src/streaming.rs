//! Standard streams over ttrpc, for clients that share no file system with the shim.
//!
//! A client names a stream in a request (`stdout: "ttrpc+unix:///run/containerd/s/…?streaming_id=ID"`) and opens it, before or
//! after, by the streaming service on the shim's socket:
//!
//! ```text
//! client                                  shim
//!   StreamInit{ID}          ---->
//!                           <----  Empty: it is registered
//!   WindowUpdate{n}         ---->  an output: the client says how much it will take, the shim sends no more
//!                           <----  Data{…}
//!                           <----  WindowUpdate{n}: an input, the other way round
//!   Data{…}                 ---->
//! ```
//!
//! Each named stream is a fifo in the bundle, which the process's streams are copied from and to like any other: what a
//! client that went away did not take waits there for the one that opens the stream again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use async_trait::async_trait;
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, read, write};
use tare_proto::any::{Packed, pack, unpack};
use tare_proto::stream::Stream;
use tare_proto::streaming::StreamInit;
use tare_proto::streaming_ttrpc::{Streaming, create_streaming};
use tare_proto::transfer::{Data, WindowUpdate};
use tare_proto::{Any, Empty, Message};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use ttrpc::r#async::{ServerStream, Service, TtrpcContext};

use crate::error::{Context, Error, Kind, Result};
use crate::io::Stdio;
use crate::sys::watch::watch;
use crate::tasks::{Flow, Shim, Tasks};

/// What such a URI begins with, and where its id is.
const SCHEME: &str = "ttrpc+unix://";
const ID_PARAMETER: &str = "streaming_id";
/// The most that one message carries, and what a client may have sent before it is asked to go on: containerd's own numbers.
const CHUNK: usize = 32 * 1024;
const WINDOW: i64 = 2 * CHUNK as i64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToClient,
    FromClient,
}

/// The streams that requests have named.
#[derive(Debug, Default)]
pub struct Streams {
    named: RefCell<HashMap<String, (PathBuf, Direction)>>,
    more: Notify,
}

impl Streams {
    /// The same streams with a fifo in the bundle in the place of each that is to be opened over ttrpc.
    pub fn resolve(self: &Rc<Self>, stdio: &Stdio, bundle: &Path) -> Result<(Stdio, Named)> {
        let mut resolved = stdio.clone();
        let mut named = Named { streams: self.clone(), ids: Vec::new() };
        for (uri, direction) in [
            (&mut resolved.stdin, Direction::FromClient),
            (&mut resolved.stdout, Direction::ToClient),
            (&mut resolved.stderr, Direction::ToClient),
        ] {
            if let Some(id) = streaming_id(uri)? {
                let fifo = self.name(&id, bundle, direction)?;
                named.ids.push(id);
                *uri = fifo.to_string_lossy().into_owned();
            }
        }
        self.more.notify_waiters();
        Ok((resolved, named))
    }

    fn name(&self, id: &str, bundle: &Path, direction: Direction) -> Result<PathBuf> {
        let mut named = self.named.borrow_mut();
        if named.contains_key(id) {
            return Err(Error::new(Kind::AlreadyExists, format!("stream {id} is another process's already")));
        }
        let fifo = bundle.join(format!("stream-{id}"));
        let _ = std::fs::remove_file(&fifo);
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).context(|| format!("make the fifo {}", fifo.display()))?;
        named.insert(id.to_owned(), (fifo.clone(), direction));
        Ok(fifo)
    }

    /// Waits until a request names the stream.
    async fn named(&self, id: &str) -> (PathBuf, Direction) {
        loop {
            let more = self.more.notified();
            if let Some(found) = self.named.borrow().get(id).cloned() {
                return found;
            }
            more.await;
        }
    }
}

impl Streams {
    /// Waits until the stream is nobody's any more: its process was deleted.
    async fn gone(&self, id: &str) {
        loop {
            let changed = self.more.notified();
            if !self.named.borrow().contains_key(id) {
                return;
            }
            changed.await;
        }
    }
}

/// The streams of one process; dropped, they are nobody's.
#[derive(Debug)]
pub struct Named {
    streams: Rc<Streams>,
    ids: Vec<String>,
}

impl Drop for Named {
    fn drop(&mut self) {
        for id in &self.ids {
            if let Some((fifo, _)) = self.streams.named.borrow_mut().remove(id) {
                let _ = std::fs::remove_file(fifo);
            }
        }
        self.streams.more.notify_waiters();
    }
}

/// The id in such a URI; None if it is another kind of stream.
fn streaming_id(uri: &str) -> Result<Option<String>> {
    let Some(rest) = uri.strip_prefix(SCHEME) else { return Ok(None) };
    let parameters = rest.split_once('?').map_or("", |(_, it)| it);
    let id = parameters.split('&').find_map(|it| it.strip_prefix(ID_PARAMETER)?.strip_prefix('=')).unwrap_or("");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if id.is_empty() || id.len() > 200 || !id.bytes().all(plain) {
        return Err(Error::invalid(format!("the stream {uri:?} has no {ID_PARAMETER} of letters, digits and _+.-")));
    }
    Ok(Some(id.to_owned()))
}

/// Serves one opened stream until its end or its client's.
async fn serve(shim: Rc<Shim>, mut stream: Stream<Any, Any>) -> Result<()> {
    let mut first = stream.recv().await.map_err(broken)?;
    // containerd's client opens a stream by a request whose payload is empty, and that arrives as a message.
    if first.as_ref().is_some_and(|any| any.type_url.is_empty() && any.value.is_empty()) {
        first = stream.recv().await.map_err(broken)?;
    }
    let Some(StreamInit { id, .. }) = first.as_ref().and_then(|any| unpack(any).ok().flatten()) else {
        return Err(Error::invalid("a stream begins with a StreamInit, which says its id"));
    };
    send_any(
        &stream,
        Any { type_url: "google.protobuf.Empty".into(), value: encode(&Empty::default())?, ..Any::default() },
    )
    .await?;
    // A client may say at once how much it will take, though the process is to be named yet (containerd does, for an exec).
    let mut window: i64 = 0;
    let (fifo, direction) = loop {
        tokio::select! {
            named = shim.streams.named(&id) => break named,
            early = stream.recv() => match early.map_err(broken)? {
                Some(any) => window += allowed(&any)?,
                None => return Ok(()),
            },
        }
    };
    match direction {
        // What the client has room for still goes out when the process is deleted: then its fifo comes to its end.
        Direction::ToClient => send_output(stream, &fifo, window, shim.streams.gone(&id)).await,
        Direction::FromClient => tokio::select! {
            received = receive_input(stream, &fifo) => received,
            () = shim.streams.gone(&id) => Ok(()),
        },
    }
}

/// By how much a client lets the shim send more.
fn allowed(any: &Any) -> Result<i64> {
    expect::<WindowUpdate>(any).map(|it| i64::from(it.update.max(0)))
}

/// Sends what is written, `window` bytes and then as many as the client says.
async fn send_output(
    mut stream: Stream<Any, Any>,
    path: &Path,
    mut window: i64,
    gone: impl Future<Output = ()>,
) -> Result<()> {
    let fifo = open(path, Interest::READABLE)?;
    let mut gone = std::pin::pin!(gone);
    loop {
        tokio::select! {
            update = stream.recv() => match update.map_err(broken)? {
                Some(any) => window += allowed(&any)?,
                None => return Ok(()),
            },
            // Nobody asks for the rest.
            () = &mut gone, if window == 0 => return Ok(()),
            ready = fifo.readable(), if window > 0 => {
                let mut ready = ready.context(|| format!("watch {}", path.display()))?;
                let mut chunk = vec![0; CHUNK.min(usize::try_from(window).unwrap_or(CHUNK))];
                match read(&fifo, &mut chunk) {
                    // All writers are gone, the copier too.
                    Ok(0) => return Ok(()),
                    Ok(count) => {
                        chunk.truncate(count);
                        window -= count as i64;
                        send(&stream, &Data { data: chunk, ..Data::default() }).await?;
                    }
                    Err(Errno::EAGAIN) => ready.clear_ready(),
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno).context(|| format!("read {}", path.display())),
                }
            }
        }
    }
}

async fn receive_input(mut stream: Stream<Any, Any>, path: &Path) -> Result<()> {
    let fifo = open(path, Interest::WRITABLE)?;
    let mut window: i64 = 0;
    loop {
        if window < WINDOW {
            send(&stream, &WindowUpdate { update: WINDOW as i32, ..WindowUpdate::default() }).await?;
            window += WINDOW;
        }
        let Some(any) = stream.recv().await.map_err(broken)? else { return Ok(()) };
        let Data { data, .. } = expect(&any)?;
        window -= data.len() as i64;
        let mut rest = data.as_slice();
        while !rest.is_empty() {
            let mut ready = fifo.writable().await.context(|| format!("watch {}", path.display()))?;
            match write(&fifo, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                // The process has closed its input.
                Err(Errno::EPIPE) => return Ok(()),
                Err(errno) => return Err(errno).context(|| format!("write {}", path.display())),
            }
        }
    }
}

/// Opens one end; the process's streams have the other open.
fn open(path: &Path, interest: Interest) -> Result<AsyncFd<OwnedFd>> {
    let mut options = OpenOptions::new();
    options.read(interest.is_readable()).write(interest.is_writable()).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path).context(|| format!("open {}", path.display()))?;
    watch(file.into(), interest).context(|| format!("watch {}", path.display()))
}

async fn send<M: Packed>(stream: &Stream<Any, Any>, message: &M) -> Result<()> {
    send_any(stream, pack(message).map_err(broken)?).await
}

async fn send_any(stream: &Stream<Any, Any>, any: Any) -> Result<()> {
    stream.send(&any).await.map_err(broken)
}

fn expect<M: Packed>(any: &Any) -> Result<M> {
    let found = unpack(any).ok().flatten();
    found.ok_or_else(|| Error::invalid(format!("the stream was sent a {} instead of a {}", any.type_url, M::TYPE_URL)))
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("the stream is broken: {error}"))
}

/// The streaming service of a shim with this table.
pub fn services(tasks: Tasks) -> HashMap<String, Service> {
    create_streaming(Arc::new(StreamingService { tasks }))
}

struct StreamingService {
    tasks: Tasks,
}

#[async_trait]
impl Streaming for StreamingService {
    async fn stream(&self, _: &TtrpcContext, stream: ServerStream<Any, Any>) -> ttrpc::Result<()> {
        let stream = stream.into();
        let flow = |shim| -> Flow<()> { Box::pin(serve(shim, stream)) };
        Ok(self.tasks.run(flow).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uris_of_streams_are_streams() {
        let id = |uri| streaming_id(uri).map_err(|error| error.kind);
        assert_eq!(id("/run/x/stdout"), Ok(None));
        assert_eq!(id("file:///x?streaming_id=a"), Ok(None));
        assert_eq!(id("ttrpc+unix:///run/s?streaming_id=c-stdout"), Ok(Some("c-stdout".to_owned())));
        assert_eq!(id("ttrpc+unix:///run/s?a=b&streaming_id=c"), Ok(Some("c".to_owned())));
        for wrong in ["ttrpc+unix:///run/s", "ttrpc+unix:///run/s?streaming_id=", "ttrpc+unix:///s?streaming_id=../x"] {
            assert_eq!(id(wrong), Err(Kind::InvalidArgument), "{wrong}");
        }
    }
}
