//! The process of an exec (`--process FILE`), to its plan.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare::bundle::parse_process;
use tare::plan::process::{self, Call, Keyring};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(process) = parse_process(bytes) {
        let call = Call { container: "c", keyring: Keyring::New, preserve_fds: 0, listen_fds: 0 };
        let _ = process::lower(&process, None, &call);
    }
});
