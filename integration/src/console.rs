//! The other end of `--console-socket`: receives the terminal a runtime sends.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::{Runtime, sys, wait};

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

fn receive_fd(stream: UnixStream) -> (OwnedFd, Vec<u8>) {
    assert!(wait::readable(stream.as_fd(), wait::deadline()), "a connection without a message");
    let (mut received, bytes) = sys::receive_fds(&stream).expect("recvmsg");
    assert_eq!(received.len(), 1, "exactly one descriptor is passed");
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
