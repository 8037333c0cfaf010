//! Tells when something in a directory is written, comes or goes: a record is replaced, a log grows.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::{Context, Result};
use crate::sys::watch::watch;

/// A watched directory.
#[derive(Debug)]
pub(crate) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// From now on.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let what = || format!("watch {}", directory.display());
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).context(what)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(directory, flags).context(what)?;
        watch(OwnedFd::from(inotify), Interest::READABLE).map(Self).context(what)
    }

    /// Waits until something has changed since the last time. May be dropped while it waits.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        let what = || "watch a directory".to_owned();
        loop {
            let mut ready = self.0.readable().await.context(what)?;
            match nix::unistd::read(ready.get_inner(), &mut [0; 4096]) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(what),
            }
        }
    }
}
