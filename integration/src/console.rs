//! The other end of `--console-socket`: receives the terminal a runtime sends.

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::{Runtime, wait};

/// A listening console socket. Also serves `--pidfd-socket` and a seccomp `listenerPath`, which pass a descriptor alike.
pub struct Console {
    path: PathBuf,
    listener: UnixListener,
}

impl Console {
    /// Listens on a fresh path.
    pub fn listen(runtime: &Runtime) -> Console {
        let path = runtime.fresh_path("sock");
        let listener = UnixListener::bind(&path).unwrap_or_else(|e| panic!("listen on {}: {e}", path.display()));
        Console { path, listener }
    }

    /// What to pass as `--console-socket`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the connection, and returns the descriptor and the bytes that came with it.
    pub fn accept(&self) -> (OwnedFd, Vec<u8>) {
        assert!(wait::readable(self.listener.as_fd(), wait::deadline()), "nobody connected to {}", self.path.display());
        let (stream, _) = self.listener.accept().expect("accept");
        receive_fd(stream)
    }
}

#[allow(unsafe_code)]
fn receive_fd(stream: UnixStream) -> (OwnedFd, Vec<u8>) {
    assert!(wait::readable(stream.as_fd(), wait::deadline()), "a connection without a message");
    let mut bytes = vec![0u8; 65536];
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).expect("recvmsg");
    let length = message.bytes;
    let mut received = Vec::new();
    for control in message.cmsgs().expect("control messages") {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nobody else owns them.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    assert_eq!(received.len(), 1, "exactly one descriptor is passed");
    bytes.truncate(length);
    (received.remove(0), bytes)
}

impl Console {
    /// Reads from a terminal's master until its text satisfies `enough` or the other side is gone.
    pub fn read_until(master: &OwnedFd, enough: impl Fn(&str) -> bool) -> String {
        let mut file = std::fs::File::from(master.try_clone().expect("dup"));
        let until = wait::deadline();
        let mut text = Vec::new();
        loop {
            let so_far = String::from_utf8_lossy(&text).into_owned();
            if enough(&so_far) {
                return so_far;
            }
            assert!(wait::readable(master.as_fd(), until), "the terminal went silent after {so_far:?}");
            let mut chunk = [0u8; 4096];
            match file.read(&mut chunk) {
                // A pty answers EIO, not end-of-file, once the last slave is closed.
                Ok(0) | Err(_) => return so_far,
                Ok(n) => text.extend_from_slice(&chunk[..n]),
            }
        }
    }
}
