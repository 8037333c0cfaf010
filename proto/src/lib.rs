//! The messages and services between containerd, its shims and their callers.
//!
//! `proto/*.proto` define them, under containerd's packages, names and numbers; `src/gen/` is the Rust code of these
//! definitions, made by `generate/` and committed. Each definition is a module here; one with services has a
//! second, `…_ttrpc`, with their clients and server traits for tokio.
//!
//! The messages have no reflection (rust-protobuf's lite runtime): descriptors would be most of a small program. What a
//! message is called on the wire is therefore said by [`any`], for those that travel in an `Any`.
//!
//! It knows the wire only: no behaviour of a shim or a client belongs here.

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
    /// `runtime.v1`: what a sandbox has to know of the kubelet's pod configuration.
    cri = "gen/cri.rs";
    /// `containerd.events`: what happens to tasks and sandboxes.
    events = "gen/events.rs";
    /// `containerd.services.events.ttrpc.v1`: the request that carries an event to the daemon.
    forward = "gen/forward.rs";
    /// The daemon's service for events.
    forward_ttrpc = "gen/forward_ttrpc.rs";
    /// `containerd.runc.v1`: options of runc and its like.
    runc = "gen/runc.rs";
    /// `runtimeoptions.v1`: options of any other runtime.
    runtimeoptions = "gen/runtimeoptions.rs";
    /// `containerd.runtime.sandbox.v1`: a pod's sandbox.
    sandbox = "gen/sandbox.rs";
    /// The sandbox service.
    sandbox_ttrpc = "gen/sandbox_ttrpc.rs";
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
}

pub mod any;

use std::collections::HashMap;
use std::sync::Arc;

pub use protobuf::well_known_types::{any::Any, empty::Empty, timestamp::Timestamp};
pub use protobuf::{self, EnumOrUnknown, Message, MessageField};
pub use ttrpc;

/// One task service under both its names: containerd 1.x asks for version 2, containerd 2.x for what `start` answered.
pub fn task_services(service: Arc<dyn task_v3_ttrpc::Task + Send + Sync>) -> HashMap<String, ttrpc::r#async::Service> {
    let v2 =
        task_v3_ttrpc::create_task(service.clone()).into_values().map(|it| ("containerd.task.v2.Task".to_owned(), it));
    task_v3_ttrpc::create_task(service).into_iter().chain(v2).collect()
}
