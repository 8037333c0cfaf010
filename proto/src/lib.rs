//! The messages and services between containerd, its shims and their callers.
//!
//! `proto/*.proto` define them, under containerd's packages, names and numbers; `src/gen/` is the Rust code of these
//! definitions, made by `generate/` and committed. Each definition is a module here; one with services has a
//! second, `…_ttrpc`, with their clients and server traits for tokio.
//!
//! The messages have no reflection (rust-protobuf's lite runtime): descriptors would be most of a small program. What a
//! message is called on the wire is therefore said by [`any`], for those that travel in an `Any`.
//!
//! # What a shim meets on the wire
//!
//! - `start` has [`bootstrap::BootstrapParams`] on its standard input since containerd 2.3, before that its options as an `Any`
//!   or nothing. An `Any` may parse as parameters too (its type URL as the id), so that parameters count only with the id and
//!   namespace of the command line. The options may be a `google.protobuf.Empty`. `-info` has the bare `Any` in all versions.
//! - To parameters, `start` answers with [`bootstrap::BootstrapResult`]; otherwise with an address, bare or, since 1.7, within
//!   JSON. JSON with version 3 is refused by containerd 1.7, whose environment is that of 2.0 to 2.2.
//! - `delete` answers with [`task_v3::DeleteResponse`]. The daemon runs it after each task, also after one that was deleted.
//! - A time that has not come is not left out by containerd's own shim, but Go's zero time: -62,135,596,800 seconds.
//! - Refusals are codes; what containerd takes for a missing container is NOT_FOUND alone.
//!
//! # What ttrpc's server and client do (0.10)
//!
//! - They start no threads. On a current-thread runtime the handlers of one connection begin in the order of the requests and
//!   run up to their first `await` before the next begins.
//! - A handler is dropped where it waits when its client hangs up, and when the request's timeout is over. What must be
//!   finished belongs to a task of its own, of which the handler only awaits the answer.
//! - A method that a server does not implement answers NOT_FOUND, and a service that is not registered INVALID_ARGUMENT: implement
//!   and register all.
//! - A message is at most 4 MiB. A stream whose receiver is slow is not held back: what comes in waits in memory ([`gate`]).
//! - A server forgets a stream before it says how that ended, and answers data that still come ([`stream`]).
//! - A failing accept (no more descriptors) is tried again at once and without end. `Listener::new` takes any stream of
//!   connections, such as one that waits in between.
//! - `Client::connect` blocks the thread while the listener's queue is full. `Client::new` takes a tokio `UnixStream` through
//!   `Socket::from`.
//!
//! It knows the wire only: no behaviour of a shim or a client belongs here. What those have in common that a person calls, docker's
//! config.json, is a feature of its own, `login`.

// Generated files allow themselves what generated code does; the compiler's and clippy's remaining lints are lifted here.
macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* #[path = $path] #[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)] pub mod $name;)*
    };
}

generated! {
    /// `containerd.runtime.bootstrap.v1`: what `start` reads and answers since containerd 2.3.
    bootstrap = "gen/bootstrap.rs";
    /// `io.containerd.cgroups.v1`: statistics of a host with cgroup v1.
    cgroups_v1 = "gen/cgroups_v1.rs";
    /// `io.containerd.cgroups.v2`: statistics of a host with cgroup v2.
    cgroups_v2 = "gen/cgroups_v2.rs";
    /// `containerd.services.content.v1`: blobs by their digest, and those that are still coming.
    content = "gen/content.rs";
    /// The service of blobs.
    content_ttrpc = "gen/content_ttrpc.rs";
    /// `runtime.v1`: what a sandbox has to know of the kubelet's pod configuration, and the calls of a test.
    cri = "gen/cri.rs";
    /// `containerd.services.diff.v1`: layers from trees of files, and back.
    diff = "gen/diff.rs";
    /// The service of layers.
    diff_ttrpc = "gen/diff_ttrpc.rs";
    /// `containerd.events`: what happens to tasks and sandboxes.
    events = "gen/events.rs";
    /// `containerd.services.events.ttrpc.v1`: the request that carries an event to the daemon.
    forward = "gen/forward.rs";
    /// The daemon's service for events.
    forward_ttrpc = "gen/forward_ttrpc.rs";
    /// `containerd.services.images.v1`: names of images.
    images = "gen/images.rs";
    /// The service of images' names.
    images_ttrpc = "gen/images_ttrpc.rs";
    /// `containerd.services.leases.v1`: what is not to be collected.
    leases = "gen/leases.rs";
    /// The service of leases.
    leases_ttrpc = "gen/leases_ttrpc.rs";
    /// `containerd.linux.runc`: earlier options of runc, which containerd 1.x still sends.
    linux_runc = "gen/linux_runc.rs";
    /// `containerd.services.namespaces.v1`: namespaces.
    namespaces = "gen/namespaces.rs";
    /// The service of namespaces.
    namespaces_ttrpc = "gen/namespaces_ttrpc.rs";
    /// `containerd.runc.v1`: options of runc and its like.
    runc = "gen/runc.rs";
    /// `runtimeoptions.v1`: options of any other runtime.
    runtimeoptions = "gen/runtimeoptions.rs";
    /// `containerd.runtime.sandbox.v1`: a pod's sandbox.
    sandbox = "gen/sandbox.rs";
    /// The sandbox service.
    sandbox_ttrpc = "gen/sandbox_ttrpc.rs";
    /// `containerd.services.snapshots.v1`: root file systems in layers.
    snapshots = "gen/snapshots.rs";
    /// The service of snapshots.
    snapshots_ttrpc = "gen/snapshots_ttrpc.rs";
    /// `tare.store.v1`: images as a whole: pull, push, import, export, commit, collect, check.
    store = "gen/store.rs";
    /// The store's own service.
    store_ttrpc = "gen/store_ttrpc.rs";
    /// `containerd.services.streaming.v1`: streams of bytes.
    streaming = "gen/streaming.rs";
    /// The streaming service.
    streaming_ttrpc = "gen/streaming_ttrpc.rs";
    /// `containerd.v1.types`: processes and their status.
    task_types = "gen/task_types.rs";
    /// The task service under its earlier name, with the messages of [`task_v3`].
    task_v2_ttrpc = "gen/task_v2_ttrpc.rs";
    /// `containerd.task.v3`: tasks and their processes.
    task_v3 = "gen/task_v3.rs";
    /// The task service.
    task_v3_ttrpc = "gen/task_v3_ttrpc.rs";
    /// `containerd.types.transfer`: what an open stream carries.
    transfer = "gen/transfer.rs";
    /// `containerd.types`: what several of these speak of.
    types = "gen/types.rs";
    /// `containerd.services.version.v1`: which program answers.
    version = "gen/version.rs";
    /// The service of the version.
    version_ttrpc = "gen/version_ttrpc.rs";
}

pub mod any;
pub mod gate;
#[cfg(feature = "login")]
pub mod login;
pub mod stream;

use std::collections::HashMap;
use std::sync::Arc;

pub use protobuf::well_known_types::{any::Any, empty::Empty, field_mask::FieldMask, timestamp::Timestamp};
pub use protobuf::{self, EnumOrUnknown, Message, MessageField};
pub use ttrpc;

/// One task service under both its names: containerd 1.x asks for version 2, containerd 2.x for what `start` answered.
pub fn task_services(service: Arc<dyn task_v3_ttrpc::Task + Send + Sync>) -> HashMap<String, ttrpc::r#async::Service> {
    let v2 =
        task_v3_ttrpc::create_task(service.clone()).into_values().map(|it| ("containerd.task.v2.Task".to_owned(), it));
    task_v3_ttrpc::create_task(service).into_iter().chain(v2).collect()
}
