//! `containerd-shim-tare-v2`: one process that holds the containers of a pod, between a daemon that may go away and a runtime
//! that only runs for an instant.
//!
//! ```text
//! daemon --starts--> bootstrap (start) --forks--> server: one thread, one tokio runtime
//!   |                                               |
//!   +------------------- ttrpc ------------------> service --sends--> tasks (owns the table)
//!   <--- events (ordered queue, retried) ----------------------------/   |      |
//!                                                    runtime (executes `tare`)  io, console, exits, oom, stats, mounts
//! ```
//!
//! The shim executes a runtime, it never links one.

pub mod bootstrap;
pub mod cgroup;
pub mod console;
pub mod error;
pub mod events;
pub mod io;
pub mod mounts;
pub mod oom;
pub mod server;
pub mod stats;
