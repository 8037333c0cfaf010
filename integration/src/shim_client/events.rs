//! The daemon's side of the events.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use tare_proto::any::{Packed, unpack};
use tare_proto::forward::ForwardRequest;
use tare_proto::forward_ttrpc::{Events, create_events};
use tare_proto::ttrpc::asynchronous::{Server, TtrpcContext};
use tare_proto::{Any, Empty, events};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, block_on};
use crate::wait;

/// An event as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Whose.
    pub namespace: String,
    /// Its topic, such as `/tasks/exit`.
    pub topic: String,
    /// What happened.
    pub event: Any,
}

impl Event {
    /// What happened, when it is of the type asked for.
    pub fn get<M: Packed>(&self) -> Option<M> {
        unpack(&self.event).ok().flatten()
    }

    /// In a line: what happened, to which container, to which exec of it, and the status where one belongs to it.
    pub fn line(&self) -> String {
        let join = |what: &str, container: &str, rest: &[&str]| {
            let words = [what, container].into_iter().chain(rest.iter().copied()).filter(|it| !it.is_empty());
            words.collect::<Vec<_>>().join(" ")
        };
        // The first process has its container's id.
        let exec = |id: &str, container: &str| if id == container { String::new() } else { id.to_owned() };
        if let Some(it) = self.get::<events::TaskCreate>() {
            join("create", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskStart>() {
            join("start", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskExit>() {
            join("exit", &it.container_id, &[&exec(&it.id, &it.container_id), &it.exit_status.to_string()])
        } else if let Some(it) = self.get::<events::TaskDelete>() {
            join("delete", &it.container_id, &[&exec(&it.id, &it.container_id), &it.exit_status.to_string()])
        } else if let Some(it) = self.get::<events::TaskExecAdded>() {
            join("exec-added", &it.container_id, &[&it.exec_id])
        } else if let Some(it) = self.get::<events::TaskExecStarted>() {
            join("exec-started", &it.container_id, &[&it.exec_id])
        } else if let Some(it) = self.get::<events::TaskOOM>() {
            join("oom", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskPaused>() {
            join("paused", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskResumed>() {
            join("resumed", &it.container_id, &[])
        } else if let Some(it) = self.get::<events::TaskCheckpointed>() {
            join("checkpointed", &it.container_id, &[])
        } else {
            format!("{} {}", self.topic, self.event.type_url)
        }
    }
}

/// The daemon's side of the events, on a thread of its own: so it takes them while a test waits for something. Dropped, it is
/// a daemon that was killed, its connections with it; bound again, one that came back.
pub struct EventSink {
    path: PathBuf,
    events: mpsc::UnboundedReceiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EventSink {
    /// Listens at the path, where a socket may have been left.
    ///
    /// # Panics
    /// If it cannot.
    pub async fn bind(path: &Path) -> EventSink {
        let _ = fs::remove_file(path);
        let (sender, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, listens) = oneshot::channel();
        let address = format!("unix://{}", path.display());
        let serve = async move {
            let mut server = Server::new()
                .bind(&address)
                .unwrap_or_else(|e| panic!("listen at {address}: {e}"))
                .register_service(create_events(Arc::new(Forwarder(sender))));
            server.start().await.expect("serve events");
            let _ = ready.send(());
            let _ = stopped.await;
        };
        // With its event loop end all that the server has begun.
        let thread = std::thread::spawn(move || block_on(serve));
        listens.await.expect("the thread of the events listens");
        EventSink { path: path.to_owned(), events, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends as if killed; the lines that it had taken and nobody has read.
    pub fn kill(mut self) -> Vec<String> {
        self.end();
        self.so_far()
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next event.
    ///
    /// # Panics
    /// If none comes before the deadline.
    pub async fn next(&mut self) -> Event {
        let until = tokio::time::Instant::from_std(wait::deadline());
        let next = tokio::time::timeout_at(until, self.events.recv()).await;
        next.expect("no event came before the deadline").expect("the server has the other end")
    }

    /// The events up to the first whose line begins with these words, in lines.
    ///
    /// # Panics
    /// If it does not come before the deadline.
    pub async fn until(&mut self, beginning: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.next().await.line();
            let last = line.starts_with(beginning);
            lines.push(line);
            if last {
                return lines;
            }
        }
    }

    /// The events that have come, in lines, without waiting.
    pub fn so_far(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_recv().ok()).map(|it| it.line()).collect()
    }
}

impl Drop for EventSink {
    fn drop(&mut self) {
        self.end();
    }
}

struct Forwarder(mpsc::UnboundedSender<Event>);

#[async_trait::async_trait]
impl Events for Forwarder {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> Answer<Empty> {
        let envelope = request.envelope.unwrap_or_default();
        let event = envelope.event.unwrap_or_default();
        // Whoever holds the other end waits for this thread before.
        let _ = self.0.send(Event { namespace: envelope.namespace, topic: envelope.topic, event });
        Ok(Empty::new())
    }
}
