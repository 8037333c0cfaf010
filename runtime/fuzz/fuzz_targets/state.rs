//! The files of a container's directory that another version, or a crash, may have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare::plan::seccomp::Seccomp;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(filter) = Seccomp::from_bytes(bytes) {
        assert_eq!(filter.to_bytes(), bytes);
    }
});
