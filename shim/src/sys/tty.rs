//! ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

mod ioctl {
    nix::ioctl_write_ptr_bad!(set_window_size, nix::libc::TIOCSWINSZ, nix::libc::winsize);
}

/// Sets the size of a terminal in characters; its foreground process gets SIGWINCH.
pub fn resize(terminal: BorrowedFd<'_>, width: u16, height: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize behind the pointer; it lives until the call returns. Another kind of file refuses.
    unsafe { ioctl::set_window_size(terminal.as_raw_fd(), &raw const size) }.map(drop)
}
