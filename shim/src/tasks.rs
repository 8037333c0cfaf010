//! The table of containers, and the flows that change it.
//!
//! ```text
//!  service (any task of the runtime, Send)          the shim's thread (LocalSet)
//!    Tasks::run(flow) ---- jobs, in order ----> spawn_local(flow(Rc<Shim>)) ----> runtime, io, exits
//!        <------------- the answer ----------------------+   borrows the table between awaits only
//! ```
//!
//! There is one thread. A request becomes a flow there: a future that looks at the table, awaits the runtime, and looks
//! again. Nothing is locked while it awaits except its own turn with the one container, and looking (state, pids, wait,
//! stats) and `kill` take no turn: they are answered while a runtime hangs.
//!
//! Events have one order by construction, because each flow publishes before it lets the next go on:
//! create is published before the exit is watched, start before the phase leaves `Starting` (an exit waits for that), every
//! exec's exit before the first process's, and delete after the exit.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write as _;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tare_proto::any::{Packed, pack};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::bootstrap::Config;
use crate::container::Container;
use crate::error::{Error, Kind, Result};
use crate::events::Publisher;
use crate::exits::Children;

/// How long a shim without a container stays, so that one whose daemon died between two calls does not stay for ever.
const IDLE: Duration = Duration::from_secs(60);
/// The environment variable that says another time, in seconds.
const IDLE_VARIABLE: &str = "TARE_SHIM_IDLE";

/// A flow: what a request becomes.
pub type Flow<T> = Pin<Box<dyn Future<Output = Result<T>>>>;
type Job = Box<dyn FnOnce(Rc<Shim>) + Send>;

/// Resolves when the client no longer waits for the answer.
pub type GivenUp = Pin<Box<dyn Future<Output = ()>>>;

/// All that the shim holds. It never leaves its thread.
#[derive(Debug)]
pub struct Shim {
    /// What it was started with.
    pub config: Config,
    /// Where events go.
    pub publisher: Publisher,
    /// Who is waited for.
    pub children: Rc<Children>,
    /// The pod, if there is one.
    pub sandbox: crate::sandbox::Slot,
    /// The standard streams that are opened over ttrpc.
    pub streams: Rc<crate::streaming::Streams>,
    containers: RefCell<HashMap<String, Rc<Container>>>,
    /// Those that are being made, and how each is told that it is no longer wanted.
    reserved: RefCell<HashMap<String, Rc<Notify>>>,
    /// A name became free.
    freed: Notify,
    changed: Notify,
    over: Notify,
    /// That it ends is decided; what came now would be left behind.
    ending: Cell<bool>,
}

impl Shim {
    fn new(config: Config, publisher: Publisher, children: Rc<Children>) -> Self {
        Self {
            config,
            publisher,
            children,
            sandbox: crate::sandbox::Slot::default(),
            streams: Rc::default(),
            containers: RefCell::default(),
            reserved: RefCell::default(),
            freed: Notify::new(),
            changed: Notify::new(),
            over: Notify::new(),
            ending: Cell::new(false),
        }
    }

    /// The container of this name.
    pub fn container(&self, id: &str) -> Result<Rc<Container>> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("container {id} does not exist in this shim")))
    }

    /// All containers.
    pub fn containers(&self) -> Vec<Rc<Container>> {
        self.containers.borrow().values().cloned().collect()
    }

    /// Keeps the name for a container that is being made, until the result is dropped.
    pub fn reserve(self: &Rc<Self>, id: &str) -> Result<Reserved> {
        self.stays()?;
        let taken = || Error::new(Kind::AlreadyExists, format!("container {id} already exists: delete it first"));
        if self.containers.borrow().contains_key(id) {
            return Err(taken());
        }
        let unwanted = Rc::<Notify>::default();
        match self.reserved.borrow_mut().entry(id.to_owned()) {
            Entry::Occupied(_) => return Err(taken()),
            Entry::Vacant(free) => free.insert(unwanted.clone()),
        };
        self.changed.notify_one();
        Ok(Reserved { shim: self.clone(), id: id.to_owned(), unwanted })
    }

    /// Has the making of a container given up, if one of this name is being made, and returns when it is undone; or when it was done
    /// before that, and the container is known.
    pub async fn give_up(&self, id: &str) {
        loop {
            match self.reserved.borrow().get(id) {
                Some(making) => making.notify_one(),
                None => return,
            }
            self.freed.notified().await;
        }
    }

    /// Refuses what is to be held by a shim that is about to end.
    pub fn stays(&self) -> Result<()> {
        if self.ending.get() { Err(over()) } else { Ok(()) }
    }

    /// Makes the container known.
    pub fn insert(&self, container: Rc<Container>) {
        self.containers.borrow_mut().insert(container.id.clone(), container);
        self.changed.notify_one();
    }

    /// Forgets a deleted container.
    pub fn remove(&self, id: &str) {
        self.containers.borrow_mut().remove(id);
        self.changed.notify_one();
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.containers.borrow().is_empty() && self.reserved.borrow().is_empty() && self.sandbox.is_empty()
    }

    /// The sandbox came or went.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Ends the shim, unless it holds something.
    pub fn shutdown(&self) {
        if self.is_empty() {
            self.ending.set(true);
            self.over.notify_one();
        }
    }

    /// Publishes an event.
    pub fn publish<M: Packed>(&self, topic: &'static str, event: &M) {
        match pack(event) {
            Ok(any) => self.publisher.publish(topic, any),
            Err(error) => tracing::error!("event {topic} cannot be encoded: {error}"),
        }
    }

    /// Resolves when the shim is over: told to end, or empty for a while.
    async fn over(&self, idle: Duration) {
        let empty_for_long = async {
            loop {
                let wait = if self.is_empty() { idle } else { Duration::MAX };
                if tokio::time::timeout(wait, self.changed.notified()).await.is_err() && self.is_empty() {
                    tracing::info!("no container for {} s: the shim ends", idle.as_secs());
                    self.ending.set(true);
                    return;
                }
            }
        };
        tokio::select! {
            () = self.over.notified() => {}
            () = empty_for_long => {}
        }
    }

    /// The table, in lines for the log.
    fn dump(&self) -> String {
        let mut text = format!("events queued: {}", self.publisher.queued());
        for container in self.containers.borrow().values() {
            let _ = write!(
                text,
                "\ncontainer {} frozen={:?} bundle={}",
                container.id,
                container.frozen(),
                container.bundle.display()
            );
            for process in std::iter::once(container.init.clone()).chain(container.execs()) {
                let (phase, pid, exit) = (process.phase(), process.pid(), process.exit());
                let _ =
                    write!(text, "\n  process {} {phase:?} pid={pid} exit={:?}", process.id, exit.map(|it| it.status));
            }
        }
        text
    }
}

fn over() -> Error {
    Error::new(Kind::Unavailable, "the shim is about to end: start another")
}

/// A name that nobody else can take.
#[derive(Debug)]
pub struct Reserved {
    shim: Rc<Shim>,
    id: String,
    unwanted: Rc<Notify>,
}

impl Reserved {
    /// Resolves when somebody deletes what is being made.
    pub async fn unwanted(&self) {
        self.unwanted.notified().await;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shim.reserved.borrow_mut().remove(&self.id);
        self.shim.freed.notify_waiters();
        self.shim.changed.notify_one();
    }
}

/// The way to the table, for any task.
#[derive(Clone)]
pub struct Tasks {
    jobs: mpsc::UnboundedSender<Job>,
}

impl Tasks {
    /// Runs a flow on the shim's thread. It goes on when the client no longer waits: a request is never done by half.
    pub async fn run<T: Send + 'static>(&self, flow: impl FnOnce(Rc<Shim>) -> Flow<T> + Send + 'static) -> Result<T> {
        self.run_until_given_up(|shim, _| flow(shim)).await
    }

    /// As [`run`](Self::run), for a flow that wants to know when the client no longer waits.
    pub async fn run_until_given_up<T: Send + 'static>(
        &self,
        flow: impl FnOnce(Rc<Shim>, GivenUp) -> Flow<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let (waiting, gone) = oneshot::channel::<()>();
        let job: Job = Box::new(move |shim| {
            let given_up: GivenUp = Box::pin(async move {
                let _ = gone.await;
            });
            let flow = flow(shim, given_up);
            tokio::task::spawn_local(async move {
                let _ = reply.send(flow.await);
            });
        });
        self.jobs.send(job).map_err(|_| over())?;
        let answer = answer.await.map_err(|_| Error::internal("the shim ended before it had an answer"))?;
        // Held until here: dropped earlier, with this future, it says that nobody waits.
        drop(waiting);
        answer
    }

    /// Ends the shim, unless it holds something.
    pub async fn shutdown(&self) {
        let flow = |shim: Rc<Shim>| -> Flow<()> {
            Box::pin(async move {
                shim.shutdown();
                Ok(())
            })
        };
        let _ = self.run(flow).await;
    }

    /// Writes the table and the queue to the log.
    pub async fn dump(&self) {
        let flow = |shim: Rc<Shim>| -> Flow<()> {
            Box::pin(async move {
                for line in shim.dump().lines() {
                    tracing::info!("{line}");
                }
                Ok(())
            })
        };
        let _ = self.run(flow).await;
    }
}

/// Starts the owner of the table on this thread, which must be inside a `LocalSet`; the second part ends when the shim is over.
pub fn spawn(config: Config, publisher: Publisher, children: Rc<Children>) -> (Tasks, impl Future<Output = ()>) {
    let shim = Rc::new(Shim::new(config, publisher, children));
    let (jobs, mut arriving) = mpsc::unbounded_channel::<Job>();
    let owner = shim.clone();
    tokio::task::spawn_local(async move {
        while let Some(job) = arriving.recv().await {
            job(owner.clone());
        }
    });
    let reaper = shim.clone();
    tokio::task::spawn_local(async move { reaper.children.reap_at_signals().await });
    (Tasks { jobs }, async move { shim.over(idle()).await })
}

fn idle() -> Duration {
    std::env::var(IDLE_VARIABLE).ok().and_then(|text| text.parse().ok()).map_or(IDLE, Duration::from_secs)
}

/// A name as it may appear in a path: that of a container or an exec.
pub fn plain_name(name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if name.is_empty() || name.len() > 255 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "{name:?} is no id: letters, digits and _+.- are, not beginning with a dot, 255 at most"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Daemon, PublisherConfig};

    fn shim() -> Rc<Shim> {
        let config = Config {
            namespace: "ns".into(),
            id: "first".into(),
            address: String::new(),
            ttrpc_address: String::new(),
            publish_binary: "".into(),
            debug: false,
            bundle: "/".into(),
            socket: "/".into(),
        };
        let nobody = PublisherConfig { daemon: Daemon::Nobody, namespace: "ns".into() };
        let children = Rc::<Children>::default();
        Rc::new(Shim::new(config, Publisher::new(nobody, children.clone()), children))
    }

    #[test]
    fn a_shim_that_ends_takes_no_container() {
        let shim = shim();
        let held = shim.reserve("a").unwrap();
        shim.shutdown();
        shim.reserve("b").expect("it holds something and stays");
        drop(held);
        shim.shutdown();
        let error = shim.reserve("c").unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (Kind::Unavailable, "the shim is about to end: start another")
        );
    }

    #[test]
    fn nor_does_one_that_ends_because_it_was_empty_for_long() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let shim = shim();
        runtime.block_on(shim.over(Duration::from_millis(1)));
        assert!(shim.reserve("a").is_err());
    }
}
