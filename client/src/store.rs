//! The store, as a client: it is started when it does not run, and called over ttrpc in the namespace `tarectl`.
//!
//! ```text
//! connect to its socket ── nobody there ──> lock RUN/store.lock, look again, start it, wait until it says READY=1, connect
//! ```
//!
//! A store that tarectl started ends by itself when nobody has called it for a while, and one that died meanwhile is
//! started again by the next call: it keeps nothing that matters in memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tare_proto::gate::Gate;
use tare_proto::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use tare_proto::ttrpc::{
    self,
    asynchronous::ClientStreamReceiver,
    context::{self, Context as CallContext},
};
use tare_proto::types::Mount;
use tare_proto::{Message, content_ttrpc, diff_ttrpc, images_ttrpc, leases_ttrpc, snapshots_ttrpc, store_ttrpc};
use tokio::net::{UnixDatagram, UnixStream};

use crate::disk;
use crate::error::{Context, Error, Kind, Result};

/// Whose things ours are, at the store and at shims.
pub const NAMESPACE: &str = "tarectl";
/// How long a store may take until it serves: it may have much to recover.
const START: Duration = Duration::from_secs(60);
/// After so long without a client a store that we started ends: what runs does not need it, and it starts in some milliseconds.
const IDLE: &str = "30s";

/// The way to the store.
#[derive(Debug)]
pub struct Store {
    socket: PathBuf,
    program: PathBuf,
    run: PathBuf,
    connection: RefCell<Option<Connection>>,
}

#[derive(Clone)]
struct Connection(ttrpc::asynchronous::Client, Arc<Gate>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connected")
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $module:ident::$client:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// The store does not run and cannot be started.
            pub async fn $name(&self) -> Result<$module::$client> {
                Ok($module::$client::new(self.connect().await?))
            }
        )*
    };
}

impl Store {
    /// Not connected yet.
    #[must_use]
    pub fn new(socket: PathBuf, program: PathBuf, run: PathBuf) -> Self {
        Self { socket, program, run, connection: RefCell::new(None) }
    }

    services! {
        /// Blobs.
        content: content_ttrpc::ContentClient;
        /// Names of images.
        images: images_ttrpc::ImagesClient;
        /// Root file systems.
        snapshots: snapshots_ttrpc::SnapshotsClient;
        /// What is not to be collected.
        leases: leases_ttrpc::LeasesClient;
        /// Layers and differences.
        diff: diff_ttrpc::DiffClient;
        /// Whole images.
        store: store_ttrpc::StoreClient;
    }

    /// What goes with each call. Calls have no deadline: a person can interrupt them.
    #[must_use]
    pub fn context(&self) -> CallContext {
        self.used();
        context::with_metadata(HashMap::from([("containerd-namespace-ttrpc".to_owned(), vec![NAMESPACE.to_owned()])]))
    }

    /// The same for a call that adds to a lease what it makes.
    #[must_use]
    pub fn context_with_lease(&self, lease: &str) -> CallContext {
        self.used();
        context::with_metadata(HashMap::from([
            ("containerd-namespace-ttrpc".to_owned(), vec![NAMESPACE.to_owned()]),
            ("containerd-lease".to_owned(), vec![lease.to_owned()]),
        ]))
    }

    /// The next message of a stream; None at its end. While the caller uses it, no more than a few megabytes come after it.
    ///
    /// # Errors
    /// The store's sentence, or it went away.
    pub async fn next<M: Message>(&self, stream: &mut ClientStreamReceiver<M>) -> Result<Option<M>> {
        // Without a connection the stream's is broken, and it says so.
        let connection = self.connection.borrow().clone();
        let received = match &connection {
            Some(Connection(_, gate)) => gate.next(stream).await,
            None => stream.recv().await,
        };
        received.context(|| self.call("hear the store out"))
    }

    /// What came so far is used up; more may come. For who reads a stream in another way than by [`Self::next`].
    pub fn used(&self) {
        if let Some(Connection(_, gate)) = &*self.connection.borrow() {
            gate.open();
        }
    }

    /// Whether it runs; it is not started for the question.
    pub async fn is_running(&self) -> bool {
        self.connection.borrow().is_some() || UnixStream::connect(&self.socket).await.is_ok()
    }

    /// The connection; the store is started if need be.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn connect(&self) -> Result<ttrpc::asynchronous::Client> {
        if let Some(Connection(client, _)) = &*self.connection.borrow() {
            return Ok(client.clone());
        }
        let stream = match UnixStream::connect(&self.socket).await {
            Ok(stream) => stream,
            Err(error) if is_absent(&error) => self.start().await?,
            Err(error) => return Err(error).context(|| format!("connect to the store at {}", self.socket.display())),
        };
        let (client, gate) = Gate::client(stream);
        *self.connection.borrow_mut() = Some(Connection(client.clone(), gate));
        Ok(client)
    }

    /// The connection is of no use any more; the next call makes another.
    pub fn disconnect(&self) {
        self.connection.borrow_mut().take();
    }

    /// A snapshot to be written to, for a container, on top of the image's `chain_id`; what is to be mounted for it.
    ///
    /// # Errors
    /// There is no such parent, or the store failed.
    pub async fn prepare(&self, key: &str, chain_id: &str) -> Result<Vec<Mount>> {
        let request =
            PrepareSnapshotRequest { key: key.into(), parent: chain_id.into(), ..PrepareSnapshotRequest::default() };
        let (again, prepared) = match self.snapshots().await?.prepare(self.context(), &request).await {
            Err(error) if is_broken(&error) => {
                self.disconnect();
                (true, self.snapshots().await?.prepare(self.context(), &request).await)
            }
            prepared => (false, prepared),
        };
        match prepared.context(|| self.call("prepare a snapshot")) {
            Ok(prepared) => Ok(prepared.mounts),
            // The first try had been done when the store went away.
            Err(error) if again && error.kind == Kind::Conflict => self.mounts(key).await,
            Err(error) => Err(error),
        }
    }

    /// What is to be mounted for a snapshot.
    ///
    /// # Errors
    /// There is none, or the store failed.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let request = MountsRequest { key: key.into(), ..MountsRequest::default() };
        let mounts = match self.snapshots().await?.mounts(self.context(), &request).await {
            Err(error) if is_broken(&error) => {
                self.disconnect();
                self.snapshots().await?.mounts(self.context(), &request).await
            }
            mounts => mounts,
        };
        Ok(mounts.context(|| self.call("ask for a snapshot's mounts"))?.mounts)
    }

    /// Removes a snapshot; that there is none is as well.
    ///
    /// # Errors
    /// The store failed.
    pub async fn remove_snapshot(&self, key: &str) -> Result<()> {
        let request = RemoveSnapshotRequest { key: key.into(), ..RemoveSnapshotRequest::default() };
        let removed = match self.snapshots().await?.remove(self.context(), &request).await {
            Err(error) if is_broken(&error) => {
                self.disconnect();
                self.snapshots().await?.remove(self.context(), &request).await
            }
            removed => removed,
        };
        match removed.context(|| self.call("remove a snapshot")) {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What was tried, for the sentence about a call that was cut off.
    #[must_use]
    pub fn call(&self, what: &str) -> String {
        format!(
            "{what}: the store at {} went away; try again (its log: {})",
            self.socket.display(),
            self.log().display()
        )
    }

    fn log(&self) -> PathBuf {
        self.run.join("store.log")
    }

    /// Starts it, unless another command has meanwhile.
    async fn start(&self) -> Result<UnixStream> {
        disk::make_private(&self.run)?;
        let lock = disk::flock(&self.run.join("store.lock"))?;
        match UnixStream::connect(&self.socket).await {
            Err(error) if is_absent(&error) => {}
            connected => {
                return connected.context(|| format!("connect to the store at {}", self.socket.display()));
            }
        }
        let told = self.run.join(format!("store-ready.{}", std::process::id()));
        remove_if_there(&told).context(|| format!("remove {}", told.display()))?;
        let ready = UnixDatagram::bind(&told).context(|| format!("make the socket {}", told.display()))?;
        let started = self.serve(&told, &ready).await;
        // Nobody hears it any more.
        let _ = std::fs::remove_file(&told);
        started?;
        drop(lock);
        UnixStream::connect(&self.socket).await.context(|| format!("connect to the store at {}", self.socket.display()))
    }

    /// Runs the daemon, and returns when it serves.
    async fn serve(&self, told: &Path, ready: &UnixDatagram) -> Result<()> {
        let program = self.program.display();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(self.log())
            .context(|| format!("open the store's log {}", self.log().display()))?;
        let mut command = tokio::process::Command::new(&self.program);
        command.arg("serve").arg("--socket").arg(&self.socket).env("NOTIFY_SOCKET", told);
        if std::env::var_os("TARE_STORE_IDLE").is_none() {
            command.args(["--idle", IDLE]);
        }
        let errors = log.try_clone().context(|| format!("share the store's log {}", self.log().display()))?;
        // A group of its own: what a terminal sends to this command is not for the store.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0).current_dir("/");
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::failed(format!(
                "start the store: there is no program {program}: install tare-store, or name it with TARECTL_STORE_PROGRAM"
            )),
            _ => Error::failed(format!("start the store {program}: {error}")),
        })?;
        let mut word = [0; 64];
        tokio::select! {
            told = ready.recv(&mut word) => told.map(drop).context(|| "hear that the store serves".to_owned()),
            ended = child.wait() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(Error::failed(format!("start the store {program}: it ended ({status}): {}", self.last_words())))
            }
            () = tokio::time::sleep(START) => Err(Error::failed(format!(
                "start the store {program}: it does not serve after {} s: see {}", START.as_secs(), self.log().display()
            ))),
        }
    }

    /// The last line of its log.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        text.lines().next_back().unwrap_or("it said nothing").to_owned()
    }
}

/// Nobody listens.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// The other side is gone, as against: it said no.
#[must_use]
pub fn is_broken(error: &ttrpc::Error) -> bool {
    !matches!(error, ttrpc::Error::RpcStatus(_))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
