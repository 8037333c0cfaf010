//! The socket over which a runtime hands out the master of a terminal that it made in a container.
//!
//! On the wire: the runtime connects, sends one message (any bytes) with one fd in SCM_RIGHTS, and closes.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::unistd::isatty;
use tokio::io::Interest;
use tokio::net::UnixListener;
use tracing::warn;

use crate::error::{Context, Error, Result};
use crate::sys::scm;

/// What an address of a Unix socket can hold, without the NUL at its end (unix(7)).
const LONGEST: usize = 107;

/// A listening socket in a 0700 directory of its own; both are removed on drop.
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    socket: PathBuf,
    _directory: Directory,
}

impl ConsoleSocket {
    /// Makes the directory and listens. Needs a tokio runtime around it.
    pub fn bind() -> Result<Self> {
        Self::bind_below(&places())
    }

    /// Below the first of these directories that lets us.
    fn bind_below(places: &[PathBuf]) -> Result<Self> {
        let directory = Directory::make(places)?;
        let socket = directory.0.join("s");
        let listener =
            UnixListener::bind(&socket).context(|| format!("listen on the console socket {}", socket.display()))?;
        Ok(Self { listener, socket, _directory: directory })
    }

    /// For the runtime's `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.socket
    }

    /// Waits for the runtime and takes the terminal's master from it. A runtime that never connects keeps it waiting: the
    /// future may be dropped at any time.
    pub async fn receive(self) -> Result<OwnedFd> {
        let failed = || "receive a terminal from the runtime".to_owned();
        let (connection, _) = self.listener.accept().await.context(failed)?;
        let message = connection
            .async_io(Interest::READABLE, || scm::receive(connection.as_fd()).map_err(io::Error::from))
            .await
            .context(failed)?;
        // More than one are all closed: which of them would be the terminal?
        let [master] = <[OwnedFd; 1]>::try_from(message.descriptors).map_err(|descriptors| {
            Error::internal(if message.length == 0 {
                "the runtime closed the console socket without sending a terminal".to_owned()
            } else {
                format!("the runtime sent {} file descriptors over the console socket, not one", descriptors.len())
            })
        })?;
        if !isatty(&master).context(failed)? {
            return Err(Error::internal("what the runtime sent over the console socket is not a terminal"));
        }
        Ok(master)
    }
}

/// Removed with the socket in it on drop.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make(places: &[PathBuf]) -> Result<Self> {
        // Names need not be secret: mkdir takes none that is there, and nobody else enters what it made. A shim that was
        // killed may have left some.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut refused = String::new();
        for place in places {
            loop {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let path = place.join(format!("tare-console-{}-{number}", std::process::id()));
                if path.as_os_str().as_bytes().len() + "/s".len() > LONGEST {
                    refused.push_str(&format!("; {} is too long for the address of a socket", path.display()));
                    break;
                }
                match DirBuilder::new().mode(0o700).create(&path) {
                    Ok(()) => return Ok(Self(path)),
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        refused.push_str(&format!("; {}: {error}", path.display()));
                        break;
                    }
                }
            }
        }
        Err(Error::internal(format!("no directory can be made for the console socket{refused}")))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for result in [std::fs::remove_file(self.0.join("s")), std::fs::remove_dir(&self.0)] {
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => warn!("remove the console socket's directory {}: {error}", self.0.display()),
            }
        }
    }
}

/// Where sockets of this user may lie: their paths are short, and they are gone after a reboot.
fn places() -> Vec<PathBuf> {
    let users = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    users.into_iter().chain(["/run".into(), "/tmp".into()]).collect()
}
