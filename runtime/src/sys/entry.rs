//! The symbol at which the C library begins the program. A module of the program alone, beside the library's.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

/// What the C library calls. It does not return there: nothing is left to be written out or undone at the end, and what the C
/// library would do for that touches pages which nobody needed until then.
// SAFETY: the C library calls the one symbol of this name, and with these arguments (C11, 5.1.2.2.1).
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: this is the beginning of the program, and these are the arguments of `main`.
    let words = unsafe { tare::sys::begin(count, words) };
    tare::sys::process::exit_now(c_int::from(crate::program(words)))
}
