//! Tare: an OCI runtime for Linux that costs what the kernel costs.
//!
//! The library is the program: `main.rs` only hands the arguments over. It is a library so that the fuzz targets and the
//! tests reach its parsers.

pub mod bundle;
pub mod cgroup;
pub mod channel;
pub mod checkpoint;
pub mod cli;
pub mod create;
pub mod criu;
pub mod dbus;
pub mod delete;
pub mod error;
pub mod events;
pub mod exec;
pub mod features;
pub mod hooks;
pub mod init;
pub mod intermediate;
pub mod join;
pub mod json_path;
pub mod kill;
pub mod link;
pub mod list;
pub mod log;
pub mod lsm;
pub mod message;
pub mod notify;
pub mod output;
pub mod parent;
pub mod pause;
pub mod plan;
pub mod procfs;
pub mod ps;
pub mod restore;
pub mod run;
pub mod selfexe;
pub mod signals;
pub mod spec;
pub mod start;
pub mod state;
pub mod state_cmd;
mod strict_json;
pub mod sys;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod update;
