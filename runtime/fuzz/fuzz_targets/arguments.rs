//! The command line, one argument a line: an answer or an error, never a panic.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use libfuzzer_sys::fuzz_target;
use tare::cli::{Asked, globals};

fuzz_target!(|bytes: &[u8]| {
    let words = bytes.split(|&byte| byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    let args: Vec<OsString> = std::iter::once("tare".into()).chain(words).collect();
    if let Ok(Asked::For(line)) = globals(args) {
        let _ = line.command();
    }
});
