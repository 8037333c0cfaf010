//! The client of criu, the program that saves processes into files and makes them again.
//!
//! One `criu swrk` process is started for each request, found through PATH and spoken to over a socket it inherits
//! ([`rpc`] has the messages). It must not know what a container is: `checkpoint` and `restore` fill the options in and
//! answer the notifications.

mod client;
mod log;
pub mod rpc;

pub use client::{Conversation, Notification, Stdio};
pub use log::errors;
