//! ioctls of terminals: see ioctl_tty(2) and pts(4).

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// Rows and columns of a terminal.
pub fn size(terminal: impl AsFd) -> Result<(u16, u16), Errno> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns; whoever runs on the terminal gets SIGWINCH if they change.
pub fn set_size(terminal: impl AsFd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Lets the other end of a new pty be opened.
pub fn unlock_peer(master: impl AsFd) -> Result<(), Errno> {
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which lives until the call returns.
    Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }).map(drop)
}

/// Opens the other end of a pty without a path that somebody could have put something else on.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just returned this new fd, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the terminal the controlling terminal of this process, which must lead a session that has none.
pub fn make_controlling(terminal: impl AsFd) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer; 0 does not steal the terminal from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}
