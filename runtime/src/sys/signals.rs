//! Signal dispositions: rt_sigaction(2).

use nix::libc;

/// The kernel's `struct sigaction` with the default disposition is all zeroes in this many bytes on every architecture.
const ACTION: usize = 64;

/// Every signal that can be caught gets its default disposition again, also those that libc keeps for itself.
///
/// execve resets handlers but leaves ignored signals ignored: what our caller or Rust's start-up ignores (SIGPIPE) would
/// be ignored in the container.
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
