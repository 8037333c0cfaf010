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
pub mod container;
pub mod create;
pub mod ends;
pub mod error;
pub mod events;
pub mod exits;
pub mod io;
mod mountinfo;
pub mod mounts;
pub mod oom;
pub mod operations;
pub mod options;
pub mod process;
pub mod runtime;
pub mod sandbox;
pub mod server;
pub mod service;
pub mod start;
pub mod stats;
pub mod streaming;
pub mod sys;
pub mod tasks;
#[cfg(test)]
mod testing;
