//! Memory that is free, given back.

/// Returns whole free pages of the heap to the kernel, in the middle of it too; free() does so only at its end.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim takes an integer, locks the heap as malloc does, and touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
