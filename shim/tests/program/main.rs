//! The built program, called as daemons call it: what it prints, what it leaves running, what it leaves behind.

#![allow(clippy::disallowed_methods)]

mod bundle;
mod delete;
mod short;
mod start;
