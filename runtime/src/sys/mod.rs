//! System calls that nix does not wrap: the only unsafe code of the runtime. (`entry.rs` is a module of the program, not of
//! the library.)
//!
//! One file a subject. Borrowed fds go in, owned fds come out, close-on-exec is always set here, and an error is the bare
//! `Errno`: the caller says what it was about.
#![allow(unsafe_code)]

pub mod bpf;
pub mod cred;
pub mod exe;
pub mod fds;
pub mod keyring;
pub mod mount;
pub mod net;
pub mod process;
pub mod sched;
pub mod scm;
pub mod seccomp;
pub mod shared;
pub mod signals;
pub mod start;
pub mod through;
pub mod tty;

pub use start::begin;
