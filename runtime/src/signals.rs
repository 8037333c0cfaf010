//! Signals as messages: from here on none interrupts this program, each waits to be read from a descriptor.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Context, Result};
use crate::sys::signals::default_child_signal;

/// All signals that can be held back.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Holds back every signal from now on. Called before the child is made, so that none is lost in between.
    pub fn hold() -> Result<Self> {
        // Ignored, as a caller may leave it, SIGCHLD would let the kernel reap our child before we know how it ended.
        default_child_signal();
        let mut all = SigSet::all();
        // SIGPIPE is ignored from the beginning, which a blocked signal would not be: writing to an output that nobody reads
        // would send it to the container.
        all.remove(Signal::SIGPIPE);
        all.thread_block().on("hold back", "signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&all, flags).map(Self).on("open", "a descriptor for signals")
    }

    /// The number of the next signal that waits, if one does.
    pub fn next(&self) -> Result<Option<i32>> {
        loop {
            match self.0.read_signal() {
                Err(Errno::EINTR) => {}
                read => {
                    return Ok(read.on("read", "signals")?.map(|info| info.ssi_signo as i32));
                }
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
