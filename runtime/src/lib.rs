//! Tare: an OCI runtime for Linux that costs what the kernel costs.
//!
//! The library is the program: `main.rs` only hands the arguments over. It is a library so that the fuzz targets and the
//! tests reach its parsers.

pub mod bundle;
pub mod cgroup;
pub mod channel;
pub mod cli;
pub mod criu;
pub mod error;
pub mod events;
pub mod features;
pub mod hooks;
pub mod init;
pub mod intermediate;
pub mod link;
pub mod log;
pub mod lsm;
pub mod message;
pub mod output;
pub mod parent;
pub mod pause;
pub mod plan;
pub mod procfs;
pub mod ps;
pub mod signals;
pub mod spec;
pub mod state;
pub mod sys;
pub mod terminal;
pub mod update;
