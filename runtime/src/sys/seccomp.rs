//! Loading a filter: seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use seccompiler::sock_filter;

/// struct sock_fprog of linux/filter.h.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const sock_filter,
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER: from here on `program` judges each system call of this thread and of what it
/// forks and executes. With SECCOMP_FILTER_FLAG_NEW_LISTENER in `flags` the listener is returned, close-on-exec.
///
/// It takes CAP_SYS_ADMIN or no_new_privs. SECCOMP_FILTER_FLAG_TSYNC is not meant for this: its failure is a thread id.
pub fn load(program: &[sock_filter], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    let program = Program { length, instructions: program.as_ptr() };
    // SAFETY: `program` points to `length` instructions of the kernel's layout (seccompiler's type is repr(C)), which live
    // until the call returns: the kernel copies and checks them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::c_ulong::from(flags),
            &raw const program,
        )
    };
    let done = Errno::result(done)?;
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: the call succeeded with NEW_LISTENER, so it returned a new fd that nobody else owns; it is O_CLOEXEC.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(done as libc::c_int) }))
}

/// Whether the kernel knows all of these flags. Loads nothing.
pub fn supports(flags: u32) -> bool {
    // SAFETY: the kernel judges the flags first (EINVAL) and then finds no program at the null pointer (EFAULT).
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::c_ulong::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::c_ulong::from(flags),
            std::ptr::null::<Program>(),
        )
    };
    Errno::result(done) == Err(Errno::EFAULT)
}
