//! Files: writing back early.

use std::os::fd::{AsFd, AsRawFd};

/// Starts to write a range back without waiting for it, so that a later fsync(2) has little left to do: sync_file_range(2). It
/// promises nothing, and so nothing is made of a failure.
pub fn start_writeback(file: impl AsFd, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: plain integers and a descriptor that is borrowed for the call.
    let _ = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}
