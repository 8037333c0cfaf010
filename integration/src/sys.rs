//! The system calls that no safe wrapper has: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A descriptor for a process (pidfd_open(2)), readable when it has ended.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and no pointer.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the call succeeded, so the number is a new descriptor that nobody else has seen.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The core scheduling cookie of a process, 0 being this one; processes of different cookies never share a core.
///
/// # Errors
/// The kernel has no core scheduling, or the machine no cores with several threads.
pub fn core_cookie(pid: i32) -> io::Result<u64> {
    // <linux/prctl.h>; libc has no names for them.
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_GET: libc::c_ulong = 0;
    const THREAD: libc::c_ulong = 0;
    let mut cookie = 0_u64;
    // SAFETY: the kernel writes eight bytes to the place that the last argument names, which has as many.
    checked(unsafe {
        libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, pid as libc::c_ulong, THREAD, &raw mut cookie).into()
    })?;
    Ok(cookie)
}

/// Lets an event loop wait until the descriptor is readable. Outside of one this panics.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its number until it is dropped, which only the `AsyncFd` does.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// The I/O priority of the calling thread as (class, level) (ioprio_get(2)).
pub fn io_priority() -> io::Result<(i32, i32)> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_get takes two integers and no pointer.
    let value = checked(unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) })? as i32;
    Ok((value >> 13, value & 0x1fff))
}

/// What sched_getattr(2) says of the calling thread: struct sched_attr of 48 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SchedAttr {
    /// Size the kernel filled in.
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds, as the next two.
    pub runtime: u64,
    /// Relative deadline.
    pub deadline: u64,
    /// Period.
    pub period: u64,
}

/// The scheduling attributes of the calling thread.
pub fn sched_attr() -> io::Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    let size = size_of::<SchedAttr>() as u32;
    // SAFETY: the kernel writes at most `size` bytes into `attr`, which has exactly that size, any bytes being valid.
    checked(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    Ok(attr)
}

/// The NUMA policy of the calling thread as (mode with flags, first 1,024 nodes) (get_mempolicy(2)).
pub fn memory_policy() -> io::Result<(i32, Vec<u32>)> {
    let mut mode: libc::c_int = 0;
    let mut mask = [0u64; 16];
    // SAFETY: `mode` is one int, and `mask` has the 1,024 bits the fourth argument names (the kernel's maximum; it wants
    // one more than it uses); address and flags are zero, so it looks at the thread's policy only.
    checked(unsafe {
        libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, mask.as_mut_ptr(), 1024u64, 0usize, 0usize)
    })?;
    let nodes = (0..1024u32).filter(|n| mask[(n / 64) as usize] >> (n % 64) & 1 == 1).collect();
    Ok((mode, nodes))
}

/// Makes a system call with plain numbers and says what the kernel answered: a value, or the error.
/// For seccomp tests; zero pointers only.
pub fn raw_syscall(number: i64, args: [u64; 6]) -> io::Result<i64> {
    // SAFETY: the caller (probe) passes small integers, never an address, so the kernel finds no memory of ours to write;
    // calls that end the process or change its ids are what the test asks for.
    checked(unsafe { libc::syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]) })
}

/// What wait4(2) tells of a child that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// As of wait(2); 0 is success.
    pub status: i32,
    /// Peak memory in KiB. That of a program counts from the process that executed it, so a caller larger than what it
    /// measures sees itself.
    pub peak: i64,
    /// Processor time in milliseconds, with that of the children it has waited for.
    pub processor: f64,
}

/// Waits for a child.
pub fn wait_with_usage(pid: i32) -> io::Result<Usage> {
    let mut status: libc::c_int = 0;
    // SAFETY: rusage is plain numbers, for which zero bytes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types the kernel fills in.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    checked(waited.into())?;
    let milliseconds = |time: libc::timeval| time.tv_sec as f64 * 1000.0 + time.tv_usec as f64 / 1000.0;
    let processor = milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime);
    Ok(Usage { status, peak: usage.ru_maxrss, processor })
}

/// Receives one message of at most 64 KiB, with the descriptors that came with it, up to four.
pub fn receive_fds(stream: impl AsFd) -> io::Result<(Vec<OwnedFd>, Vec<u8>)> {
    let mut bytes = vec![0u8; 65536];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [io::IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(stream.as_fd().as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nobody else owns them.
            received.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    bytes.truncate(length);
    Ok((received, bytes))
}

/// Sets the size of a terminal (TIOCSWINSZ); only processes with it as controlling terminal get SIGWINCH.
pub fn set_window_size(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives until the call returns.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    checked(done.into()).map(drop)
}

/// Takes one notification from a seccomp listener (seccomp_unotify(2)) and answers that call with an error: the call's
/// number on its architecture, and the process that made it.
pub fn refuse_notified(listener: impl AsFd, errno: i32) -> io::Result<(i32, u32)> {
    // SECCOMP_IOCTL_NOTIF_RECV and _SEND: _IOWR('!', 0 and 1) of the two structures.
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    let fd = listener.as_fd().as_raw_fd();
    // SAFETY: seccomp_notif is plain data for which all zeroes is a valid value, and what the kernel asks for.
    let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one seccomp_notif, which `request` is; the size is part of the command's number.
    checked(unsafe { libc::ioctl(fd, RECEIVE as _, &raw mut request) }.into())?;
    let answer = libc::seccomp_notif_resp { id: request.id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the kernel reads one seccomp_notif_resp.
    checked(unsafe { libc::ioctl(fd, SEND as _, &raw const answer) }.into())?;
    Ok((request.data.nr, request.pid))
}
