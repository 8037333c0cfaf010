//! The beginning of the program: what Rust's own start-up does that this program relies on, and no more.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

use nix::libc;

/// Takes the arguments over from C's `main`, after seeing to it
/// - that the descriptors 0 to 2 are open: what is opened later and got one of these numbers would be written to by whoever
///   means its output, and be handed to the container;
/// - that writing to a pipe nobody reads is an error and not the end.
///
/// # Safety
///
/// To be called with the arguments of `main`, before anything has opened a descriptor.
pub unsafe fn begin(count: c_int, words: *const *const c_char) -> Vec<OsString> {
    for number in 0..=2 {
        // SAFETY: F_GETFD only reads a flag. open(2) reads a string of static lifetime, and gets the lowest free number,
        // which is `number`, since those below it are open. It is meant to stay open, over execve too.
        unsafe {
            if libc::fcntl(number, libc::F_GETFD) == -1 && libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) == -1 {
                libc::abort();
            }
        }
    }
    // SAFETY: SIG_IGN is no handler that could run anything.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller passes what `main` got: `count` pointers to nul-terminated strings, which stay as they are for the
    // life of the program.
    (0..count)
        .map(|index| unsafe { OsStr::from_bytes(CStr::from_ptr(*words.add(index)).to_bytes()).to_owned() })
        .collect()
}
