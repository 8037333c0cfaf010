//! The socket over which a runtime hands out the master of a terminal that it made in a container.
//!
//! On the wire: the runtime connects, sends one message (any bytes) with one fd in SCM_RIGHTS, and closes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// A listening socket in a 0700 directory of its own; both are removed on drop.
#[derive(Debug)]
pub struct ConsoleSocket {
    path: PathBuf,
}

impl ConsoleSocket {
    /// Makes the directory and listens. Needs a tokio runtime around it.
    pub fn bind() -> Result<Self> {
        Err(Error::new(Kind::Unimplemented, "Terminals are not served yet."))
    }

    /// For the runtime's `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the runtime and takes the terminal's master from it. A runtime that never connects keeps it waiting: the
    /// future may be dropped at any time.
    pub async fn receive(self) -> Result<OwnedFd> {
        Err(Error::new(Kind::Unimplemented, "Terminals are not served yet."))
    }
}
