//! The only unsafe code of the shim: what has no safe call in `nix` or the standard library.
//!
//! Each submodule is one subject. Descriptors come in borrowed and go out owned, and are closed on exec.
#![allow(unsafe_code)]

pub mod holder;
pub mod loopdev;
pub mod memory;
pub mod mount;
pub mod process;
pub mod scm;
pub mod spawn;
pub(crate) mod start;
pub mod tty;
pub mod userns;
pub mod watch;
