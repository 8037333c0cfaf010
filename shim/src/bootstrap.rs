//! `start`: what the daemon runs to get a shim. It works out the socket, forks the server unless one answers there already, and
//! prints where it listens.

use std::path::PathBuf;

/// What the server process knows about its task from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The namespace of the daemon that everything here belongs to.
    pub namespace: String,
    /// The id of the first task, or of the sandbox.
    pub id: String,
    /// The daemon's gRPC address; what a publish binary is told.
    pub address: String,
    /// The daemon's ttrpc address; events go there. Empty when the daemon has none.
    pub ttrpc_address: String,
    /// The program to publish with when there is no ttrpc address. Empty when there is none.
    pub publish_binary: PathBuf,
    /// Log the details too.
    pub debug: bool,
    /// The bundle that the shim was started in, absolute.
    pub bundle: PathBuf,
    /// The socket that is served.
    pub socket: PathBuf,
}
