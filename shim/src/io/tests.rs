//! With real fifos, pipes, ptys and programs; client, process and shim take turns on one thread.

mod inputs;
mod journals;
mod loggers;
mod outputs;
mod terminals;

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::{ChildStdio, Io, LoggerNames, Stdio, nonblocking};
use crate::error::{Error, Result};
use crate::sys::watch::watch;

/// Far above what a test takes on a busy machine.
const LONG: Duration = Duration::from_secs(120);

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(LONG, test).await.expect("the test ends") })
}

/// Lets the shim see all that has happened, and act on it.
async fn settle() {
    for _ in 0..3 {
        // Whatever happened before this is reported with it, or before.
        let (reader, writer) = std::io::pipe().unwrap();
        nix::unistd::write(&writer, b"x").unwrap();
        End::of(reader.into()).exactly(1).await;
        tokio::task::yield_now().await;
    }
}

/// Whether it does not come from what has happened.
async fn pending(future: impl Future<Output = ()>) -> bool {
    settle().await;
    timeout(Duration::ZERO, future).await.is_err()
}

/// A directory with the three fifos that a client makes.
struct Client {
    directory: tempfile::TempDir,
    stdio: Stdio,
}

impl Client {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fifo = |name: &str| {
            let path = directory.path().join(name);
            mkfifo(&path, Mode::S_IRWXU).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let stdio = Stdio { stdin: fifo("stdin"), stdout: fifo("stdout"), stderr: fifo("stderr"), terminal: false };
        Self { directory, stdio }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Output only.
    fn outputs(stdout: impl Into<String>, stderr: impl Into<String>) -> Stdio {
        Stdio { stdin: String::new(), stdout: stdout.into(), stderr: stderr.into(), terminal: false }
    }

    async fn open(&self) -> (Io, ChildStdio) {
        open(&self.stdio).await.unwrap()
    }
}

async fn open(stdio: &Stdio) -> Result<(Io, ChildStdio)> {
    let names = LoggerNames { id: "the-id".to_owned(), namespace: "the-namespace".to_owned() };
    Io::open(stdio, &names, None).await
}

async fn refused(stdio: &Stdio) -> Error {
    open(stdio).await.expect_err("this cannot be opened")
}

/// An end of a pipe, a fifo or a pty that somebody else than the shim holds.
struct End(AsyncFd<OwnedFd>);

impl End {
    fn of(fd: OwnedFd) -> Self {
        Self(watch(nonblocking(fd).unwrap(), Interest::READABLE | Interest::WRITABLE).unwrap())
    }

    /// The client's reading end of a fifo; the shim has it open already.
    fn reader(path: impl AsRef<Path>) -> Self {
        let fifo = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
        Self(watch(fifo.into(), Interest::READABLE).unwrap())
    }

    fn writer(path: impl AsRef<Path>) -> Self {
        let fifo = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap();
        Self(watch(fifo.into(), Interest::WRITABLE).unwrap())
    }

    /// Some bytes; none at the end of the file, which a hung-up terminal has too.
    async fn some(&self, buffer: &mut [u8]) -> usize {
        loop {
            match nix::unistd::read(self.0.get_ref(), buffer) {
                Ok(length) => return length,
                Err(Errno::EIO) => return 0,
                // Only after a read: of a fifo that no writer opens there never is an event.
                Err(Errno::EAGAIN) => self.0.readable().await.unwrap().clear_ready(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn exactly(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut have = 0;
        while have < length {
            match self.some(&mut bytes[have..]).await {
                0 => panic!("the end after {have} of {length} bytes"),
                some => have += some,
            }
        }
        bytes
    }

    async fn all(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.some(&mut buffer).await {
                0 => return bytes,
                some => bytes.extend_from_slice(&buffer[..some]),
            }
        }
    }

    async fn text(&self) -> String {
        String::from_utf8(self.all().await).unwrap()
    }

    async fn write(&self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes.as_ref()).await.unwrap();
    }

    async fn try_write(&self, mut bytes: &[u8]) -> nix::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await.unwrap();
            match nix::unistd::write(self.0.get_ref(), bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As much as there is room for.
    fn fill(&self) -> usize {
        let mut filled = 0;
        loop {
            match nix::unistd::write(self.0.get_ref(), &[b'x'; 4096]) {
                Ok(length) => filled += length,
                Err(Errno::EAGAIN) => return filled,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn again(&self) -> Self {
        Self::of(self.0.get_ref().as_fd().try_clone_to_owned().unwrap())
    }
}

fn stdin(child: &mut ChildStdio) -> End {
    End::of(child.stdin.take().unwrap())
}

fn stdout(child: &mut ChildStdio) -> End {
    End::of(child.stdout.take().unwrap())
}

fn stderr(child: &mut ChildStdio) -> End {
    End::of(child.stderr.take().unwrap())
}
