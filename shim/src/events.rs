//! Events to the daemon: one queue, strictly in order, kept while the daemon is away.
//!
//! Whoever publishes never waits and never fails: [`Publisher::publish`] stamps the event and appends it. One task takes the
//! first, sends it, and takes the next only when the daemon has it:
//!
//! ```text
//! publish -> [ e5 e4 e3 ] -> in flight: e2 -> daemon
//!                              |  answered, or refused for good: the next
//!                              |  no answer, no connection: a new connection, the same event again, later and later (2 s)
//! ```
//!
//! So nothing is lost and nothing overtaken while the daemon restarts, and an event comes twice only if the daemon took it and
//! died before it said so. A daemon that comes back wants all of them; the queue is bounded at [`LIMIT`] for one that does not:
//! then the oldest go, and how many is logged.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use nix::sys::memfd::{MFdFlags, memfd_create};
use protobuf::{Message, MessageField};
use tare_proto::forward::ForwardRequest;
use tare_proto::forward_ttrpc::EventsClient;
use tare_proto::types::Envelope;
use tare_proto::{Any, Timestamp};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;
use ttrpc::r#async::Client;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::{Code, context};

use crate::error::{Context, Error, Kind, Result};
use crate::exits::Children;
use crate::sys::process::{pidfd_send_signal, spawn_bound};

/// How many events wait for a daemon that is away, before the oldest is dropped.
pub const LIMIT: usize = 2048;
/// How long the daemon may take for one event.
pub const ANSWER: Duration = Duration::from_secs(5);
/// The first wait after a failure; it doubles, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(20);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often an event is offered to a daemon that answers, but with a failure.
const REFUSALS: u32 = 5;
/// After so long without an event, the connection is closed: it costs memory here and a descriptor there.
const LINGER: Duration = Duration::from_secs(5);

/// How the daemon is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daemon {
    /// Its ttrpc socket: `/run/containerd/containerd.sock.ttrpc`, with or without `unix://`.
    Ttrpc(String),
    /// A program, run once for each event: `binary --address ADDRESS publish --topic T --namespace N`, the event on its stdin.
    Binary {
        /// The program.
        binary: PathBuf,
        /// The daemon's gRPC address.
        address: String,
    },
    /// Nobody wants to know.
    Nobody,
}

/// Where events go, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherConfig {
    /// Who is told.
    pub daemon: Daemon,
    /// The namespace in each envelope.
    pub namespace: String,
}

/// The handle: clones share the queue. It belongs to the shim's one thread.
#[derive(Debug, Clone)]
pub struct Publisher {
    /// None when nobody wants to know.
    queue: Option<Rc<Queue>>,
    namespace: Rc<str>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: RefCell<VecDeque<Envelope>>,
    in_flight: Cell<bool>,
    /// Dropped since it was last said.
    dropped: Cell<u64>,
    more: Notify,
    /// Told of each event that is no longer in flight.
    landed: Notify,
}

impl Publisher {
    /// Starts the task that sends. Called inside the LocalSet.
    pub fn new(config: PublisherConfig, children: Rc<Children>) -> Self {
        let namespace = config.namespace.into();
        if config.daemon == Daemon::Nobody {
            return Self { queue: None, namespace };
        }
        let queue = Rc::new(Queue::default());
        tokio::task::spawn_local(send_all(Rc::clone(&queue), Line { daemon: config.daemon, client: None, children }));
        Self { queue: Some(queue), namespace }
    }

    /// Queues an event; its timestamp is now. Never blocks, never fails.
    pub fn publish(&self, topic: &'static str, event: Any) {
        let Some(queue) = &self.queue else { return };
        queue.push(Envelope {
            timestamp: MessageField::some(Timestamp::from(SystemTime::now())),
            namespace: self.namespace.as_ref().to_owned(),
            topic: topic.to_owned(),
            event: MessageField::some(event),
            ..Envelope::default()
        });
    }

    /// Waits until the daemon has everything that was queued, or has taken nothing for this long: a slow one gets all.
    pub async fn flush(&self, patience: Duration) {
        let Some(queue) = &self.queue else { return };
        while queue.length() > 0 {
            if timeout(patience, queue.landed.notified()).await.is_err() {
                tracing::warn!(left = queue.length(), "the daemon takes no more events");
                return;
            }
        }
    }

    /// How many events wait, the one being sent included.
    pub fn queued(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.length())
    }
}

impl Queue {
    fn push(&self, event: Envelope) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= LIMIT {
            waiting.pop_front();
            self.dropped.set(self.dropped.get() + 1);
        }
        waiting.push_back(event);
        self.more.notify_one();
    }

    fn length(&self) -> usize {
        self.waiting.borrow().len() + usize::from(self.in_flight.get())
    }

    /// Takes the oldest out; it is in flight until [`Self::landed`]. An empty queue gives its memory back.
    fn take(&self) -> Option<Envelope> {
        let mut waiting = self.waiting.borrow_mut();
        let event = waiting.pop_front();
        if event.is_none() {
            *waiting = VecDeque::new();
        }
        self.in_flight.set(event.is_some());
        event
    }

    fn landed(&self) {
        self.in_flight.set(false);
        // Who waits looks at the length itself.
        self.landed.notify_waiters();
        let dropped = self.dropped.take();
        if dropped > 0 {
            tracing::error!(dropped, "the daemon was away too long: its oldest events are lost");
        }
    }
}

async fn send_all(queue: Rc<Queue>, mut line: Line) {
    loop {
        let Some(event) = queue.take() else {
            if timeout(LINGER, queue.more.notified()).await.is_err() {
                line.client = None;
                queue.more.notified().await;
            }
            continue;
        };
        let request = ForwardRequest { envelope: MessageField::some(event), ..ForwardRequest::default() };
        deliver(&request, &mut line).await;
        queue.landed();
    }
}

/// Offers one event until the daemon has it, or has refused it for good.
async fn deliver(request: &ForwardRequest, line: &mut Line) {
    let topic = &request.envelope.topic;
    let (mut wait, mut refusals, mut away) = (FIRST_WAIT, 0, false);
    loop {
        let (refused, error) = match line.send(request).await {
            Ok(()) => {
                if away {
                    tracing::info!(topic, "the daemon takes events again");
                }
                return;
            }
            Err(Failure::Away(error)) => (false, error),
            Err(Failure::Refused(error)) => (true, error),
        };
        if refused {
            refusals += 1;
            // What is wrong with the event stays wrong. Another failure is one of the daemon, which may end.
            if error.kind == Kind::InvalidArgument || refusals == REFUSALS {
                tracing::error!(topic, %error, "the daemon refused an event");
                return;
            }
        } else if !away {
            away = true;
            tracing::warn!(topic, %error, "the daemon is away, events wait");
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// The way to the daemon.
struct Line {
    daemon: Daemon,
    /// The connection, while there is one.
    client: Option<EventsClient>,
    /// Where the programs are waited for.
    children: Rc<Children>,
}

enum Failure {
    /// It did not answer, or is not there.
    Away(Error),
    /// It answered, with this.
    Refused(Error),
}

impl Line {
    async fn send(&mut self, request: &ForwardRequest) -> Result<(), Failure> {
        match &self.daemon {
            Daemon::Ttrpc(address) => forward(address, &mut self.client, request).await,
            Daemon::Binary { binary, address } => publish_with(binary, address, request, &self.children).await,
            Daemon::Nobody => Ok(()),
        }
    }
}

async fn forward(address: &str, place: &mut Option<EventsClient>, request: &ForwardRequest) -> Result<(), Failure> {
    // Taken out: whatever goes wrong, and be it that this future is dropped, the connection is not used again.
    let client = match place.take() {
        Some(client) => client,
        None => connect(address).await.map_err(Failure::Away)?,
    };
    let answer = client.forward(context::with_duration(ANSWER), request).await;
    let what = || format!("send an event to {address}");
    match answer {
        Ok(_) => {
            *place = Some(client);
            Ok(())
        }
        Err(ttrpc::Error::RpcStatus(status)) => {
            *place = Some(client);
            let kind = match status.code.enum_value() {
                Ok(Code::INVALID_ARGUMENT) => Kind::InvalidArgument,
                _ => Kind::Internal,
            };
            Err(Failure::Refused(Error::new(kind, format!("{}: {}", what(), status.message))))
        }
        Err(error) => Err(Failure::Away(Error::internal(format!("{}: {error}", what())))),
    }
}

async fn connect(address: &str) -> Result<EventsClient> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    let stream = timeout(ANSWER, UnixStream::connect(path)).await.unwrap_or_else(|late| Err(late.into()));
    let stream = stream.context(|| format!("connect to the daemon at {address}"))?;
    Ok(EventsClient::new(Client::new(Socket::from(stream))))
}

/// Runs the daemon's program for one event. It is killed when it takes too long.
async fn publish_with(
    binary: &Path,
    address: &str,
    request: &ForwardRequest,
    children: &Children,
) -> Result<(), Failure> {
    let what = || format!("publish an event with {}", binary.display());
    let run = async {
        let mut command = Command::new(binary);
        command.args(["--address", address, "publish"]);
        command.args(["--topic", &request.envelope.topic, "--namespace", &request.envelope.namespace]);
        command.stdin(event_file(&request.envelope.event)?).stdout(Stdio::null()).stderr(Stdio::null());
        let program = spawn_bound(&mut command).context(what)?;
        children.expect(program.pid);
        let killer = program.pidfd.try_clone().context(what)?;
        let mut ended = std::pin::pin!(children.wait(program.pid, program.pidfd));
        match timeout(ANSWER, &mut ended).await {
            Ok(exit) => exit,
            Err(_) => {
                pidfd_send_signal(killer, libc::SIGKILL).context(what)?;
                ended.await
            }
        }
    };
    let exit = run.await.map_err(Failure::Away)?;
    if exit.status == 0 {
        return Ok(());
    }
    // It says no more than this, so it may be that the daemon is away.
    Err(Failure::Away(Error::internal(format!("{}: it ended with status {}", what(), exit.status))))
}

/// The event as a file: a pipe would have to be fed.
fn event_file(event: &Any) -> Result<File> {
    let what = || "put an event into a file in memory".to_owned();
    let bytes = event.write_to_bytes().map_err(|error| Error::internal(format!("{}: {error}", what())))?;
    let mut file = File::from(memfd_create("event", MFdFlags::MFD_CLOEXEC).context(what)?);
    file.write_all(&bytes).and_then(|()| file.rewind()).context(what)?;
    Ok(file)
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
