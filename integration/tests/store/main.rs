//! The store as its users meet it: the real program, its socket and its command line.
//!
//! What needs no daemon of its own is tested in `store/` itself.

#![allow(clippy::disallowed_methods)]

mod archives;
mod cli;
mod daemon;
mod python;
