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

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use tokio::time::timeout;

    use super::*;
    use crate::testing::pty;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(Duration::from_secs(60), test).await.expect("the test ends") });
    }

    /// As a runtime does: connects, sends, closes.
    fn send(path: &Path, descriptors: &[&OwnedFd]) {
        let connection = UnixStream::connect(path).unwrap();
        let raw = descriptors.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(b"/dev/ptmx")], control, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn a_terminal_comes_over_the_socket_and_the_socket_goes() {
        run(async {
            let socket = ConsoleSocket::bind().unwrap();
            let path = socket.path().to_owned();
            let directory = path.parent().unwrap().to_owned();
            assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
            assert!(path.as_os_str().len() <= LONGEST);
            let (pty, slave) = pty();
            send(&path, &[&pty]);
            let master = socket.receive().await.unwrap();
            nix::unistd::write(&slave, b"hello").unwrap();
            let mut buffer = [0; 5];
            assert_eq!(nix::unistd::read(&master, &mut buffer), Ok(5));
            let flags = nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, nix::libc::FD_CLOEXEC);
            assert!(!directory.try_exists().unwrap());
        });
    }

    #[test]
    fn anything_but_one_terminal_is_refused() {
        run(async {
            let (pty, _slave) = pty();
            let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
            let table: [(&[&OwnedFd], &str); 3] = [
                (&[], "sent 0 file descriptors"),
                (&[&pty, &writer], "sent 2 file descriptors"),
                (&[&writer], "not a terminal"),
            ];
            for (descriptors, expected) in table {
                let socket = ConsoleSocket::bind().unwrap();
                send(socket.path(), descriptors);
                let error = socket.receive().await.unwrap_err();
                assert!(error.message.contains(expected), "{error}");
            }
            drop(writer);
            assert_eq!(nix::unistd::read(&reader, &mut [0]), Ok(0), "what was sent has been closed");

            let socket = ConsoleSocket::bind().unwrap();
            drop(UnixStream::connect(socket.path()).unwrap());
            let error = socket.receive().await.unwrap_err();
            assert!(error.message.contains("closed the console socket"), "{error}");
        });
    }

    #[test]
    fn nobody_need_wait_for_a_runtime() {
        run(async {
            let socket = ConsoleSocket::bind().unwrap();
            let directory = socket.path().parent().unwrap().to_owned();
            assert!(timeout(Duration::ZERO, socket.receive()).await.is_err());
            assert!(!directory.try_exists().unwrap());

            let socket = ConsoleSocket::bind().unwrap();
            let directory = socket.path().parent().unwrap().to_owned();
            let _connection = UnixStream::connect(socket.path()).unwrap();
            assert!(timeout(Duration::ZERO, socket.receive()).await.is_err());
            assert!(!directory.try_exists().unwrap());
        });
    }

    #[test]
    fn the_first_place_that_can_hold_it_is_taken() {
        run(async {
            let place = tempfile::tempdir().unwrap();
            let long = place.path().join("x".repeat(LONGEST));
            std::fs::create_dir(&long).unwrap();
            let unusable = [place.path().join("none"), long];
            let socket = ConsoleSocket::bind_below(&[&unusable[..], &[place.path().to_owned()]].concat()).unwrap();
            assert_eq!(socket.path().parent().unwrap().parent().unwrap(), place.path());
            let error = ConsoleSocket::bind_below(&unusable).unwrap_err();
            assert!(error.message.contains("No such file") && error.message.contains("too long"), "{error}");
        });
    }
}
