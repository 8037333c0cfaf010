//! How a shim comes to be: the fork, and what it does to itself then.

use std::io;

use nix::unistd::ForkResult;

/// Which side of the fork this is.
pub(crate) enum Side {
    /// The one that was called.
    Caller,
    /// The new process.
    New,
}

/// Forks. The new process goes on in this same program, with all of its memory.
///
/// # Errors
/// The host can't give a process, or this one has several threads: a lock held by another would stay locked in the new one.
pub(crate) fn fork() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task")?.take(2).count();
    if threads > 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: after fork the child may do only what is async-signal-safe if the parent had other threads; it has none, as was
    // just counted, and only a thread could start another in between.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => Ok(Side::Caller),
        ForkResult::Child => Ok(Side::New),
    }
}

/// Closes everything above the three standard streams: what a careless caller let us inherit.
pub(crate) fn close_inherited() {
    // SAFETY: called first in main, when nothing of this process has opened a descriptor that somebody owns.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Gives the process group a core scheduling cookie of its own, so that no other group runs on a sibling of its cores.
pub(crate) fn schedule_core() -> io::Result<()> {
    // <linux/prctl.h>; libc has no names for them.
    const PR_SCHED_CORE: libc::c_int = 62;
    const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
    const PROCESS_GROUP: libc::c_ulong = 2;
    const NONE: libc::c_ulong = 0;
    // SAFETY: PR_SCHED_CORE takes integers only; pid 0 is the caller, and the last argument must be 0.
    let done = unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, NONE, PROCESS_GROUP, NONE) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces the arguments that ps shows. They must fit where the old ones are; what does not fit is cut.
pub(crate) fn replace_arguments(words: &[&str]) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let unreadable = || io::Error::from(io::ErrorKind::InvalidData);
    // The second field is the program's name in parentheses and may hold anything; arg_start and arg_end are fields 48 and 49.
    let (_, rest) = stat.rsplit_once(')').ok_or_else(unreadable)?;
    let mut fields = rest.split_ascii_whitespace().skip(48 - 3);
    let mut field = || fields.next().and_then(|field| field.parse::<usize>().ok()).ok_or_else(unreadable);
    let (start, end) = (field()?, field()?);
    if start == 0 || end <= start {
        return Err(unreadable());
    }
    let title = words.join("\0").into_bytes();
    // The last byte stays zero: the kernel takes any other for a title that goes on in the environment.
    let room = end - start - 1;
    let length = title.len().min(room);
    // SAFETY: the kernel says that start..end is where it put this process's arguments: on the stack, writable, never moved.
    // Rust's std has only pointers to them, which it reads as bytes ending in a zero; the last byte is zero still.
    unsafe {
        let place = start as *mut u8;
        std::ptr::copy_nonoverlapping(title.as_ptr(), place, length);
        std::ptr::write_bytes(place.add(length), 0, room - length);
    }
    Ok(())
}
