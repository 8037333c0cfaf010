//! `tarectl` as a person uses it, from end to end: with the store, shims, the runtime, the kernel and CNI's plugins.
//!
//! Each test has a world of its own (see [`harness`]), and each is a leak test: nothing of its world may be left when it ends.

// clippy.toml says what the runtime must not do; tests may make files, wait and exit as they like.
#![allow(clippy::disallowed_methods)]

mod apparmor;
mod commits;
mod damaged;
mod dockers;
mod execs;
mod face;
mod files;
mod full;
mod harness;
mod images;
mod killed;
mod lifecycle;
mod network;
mod restarts;
mod said;
mod seen;
mod starts;
mod terminal;
mod together;
mod wrong;
