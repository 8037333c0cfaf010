//! The store as its users meet it: the real program, its socket and its command line, real registries, and everything that can go
//! wrong round it.
//!
//! What needs no daemon of its own is tested in `store/` itself.
#![allow(clippy::disallowed_methods)]

mod archives;
mod cli;
mod commit;
mod conditions;
mod crash;
mod credentials;
mod daemon;
mod harness;
mod hostile;
mod others;
mod power;
mod proxies;
mod pulls;
mod python;
mod registry;
mod repair;
mod rootless;
mod trees;
