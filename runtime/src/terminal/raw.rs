//! The caller's terminal in raw mode, put back on every way out.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, Once, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Context, Result};

/// The modes of standard input while they are changed: a panic ends the program without a destructor.
static AT_PANIC: Mutex<Option<libc::termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

/// A terminal that passes every key on. Dropping it restores the modes it had.
#[derive(Debug)]
pub(super) struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    original: Termios,
}

impl<'a> RawMode<'a> {
    /// Sets raw mode; `None` where `terminal` is not a terminal.
    pub(super) fn enter(terminal: BorrowedFd<'a>) -> Result<Option<Self>> {
        let original = match tcgetattr(terminal) {
            Err(Errno::ENOTTY | Errno::ENODEV | Errno::EINVAL | Errno::EIO) => return Ok(None),
            modes => modes.on("read the modes of", "the terminal")?,
        };
        HOOK.call_once(restore_at_panic);
        *AT_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(original.clone().into());
        let raw = Self { terminal, original };
        raw.again()?;
        Ok(Some(raw))
    }

    /// Sets raw mode again: a shell that stopped and continued us has put its own modes in place.
    pub(super) fn again(&self) -> Result<()> {
        let mut modes = self.original.clone();
        cfmakeraw(&mut modes);
        // Output is left as it was: the container's pty does not turn "\n" into "\r\n", so this terminal has to.
        modes.output_flags = self.original.output_flags;
        tcsetattr(self.terminal, SetArg::TCSANOW, &modes).on("set raw mode on", "the terminal")
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(self.terminal, SetArg::TCSANOW, &self.original);
        *AT_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn restore_at_panic() {
    let next = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Ok(Some(modes)) = AT_PANIC.try_lock().map(|mut modes| modes.take()) {
            let _ = tcsetattr(crate::sys::fds::standard(0).as_fd(), SetArg::TCSANOW, &modes.into());
        }
        next(info);
    }));
}
