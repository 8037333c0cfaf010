//! Signal dispositions: rt_sigaction(2).

use nix::libc;

/// The kernel's `struct sigaction` with the default disposition is all zeroes in this many bytes on every architecture.
const ACTION: usize = 64;

/// Every signal that can be caught gets its default disposition again, also those that libc keeps for itself.
///
/// execve resets handlers but leaves ignored signals ignored: what our caller or we ignore (SIGPIPE) would be ignored
/// in the container.
pub fn reset_all() {
    let default = [0u64; ACTION / size_of::<u64>()];
    let old = std::ptr::null_mut::<u64>();
    for signal in 1..=64 {
        // SAFETY: the kernel reads one sigaction (at most 32 bytes with its mask) from the 64 zero bytes: SIG_DFL, no flags,
        // no mask. No handler of ours is relied on afterwards: the caller is about to execve. SIGKILL and SIGSTOP give
        // EINVAL, which changes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, 8) };
    }
}

/// SIGCHLD gets its default disposition: with SIG_IGN, which is inherited, ended children would vanish unseen (wait(2)).
pub fn default_child_signal() {
    let default = [0u64; ACTION / size_of::<u64>()];
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: as in reset_all; this program sets no handler for SIGCHLD.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, libc::SIGCHLD, default.as_ptr(), old, 8) };
}

/// Lets `command` start with no signal blocked: the mask of a foreground `run`, which holds all signals back, is inherited.
pub fn unblock_in(command: &mut std::process::Command) {
    let unblock = || {
        let empty = nix::sys::signal::SigSet::empty();
        nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&empty), None)?;
        Ok(())
    };
    // SAFETY: what runs between fork and exec is one system call on a value of its own stack: async-signal-safe.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, unblock) };
}
