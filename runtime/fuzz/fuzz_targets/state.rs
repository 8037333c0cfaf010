//! The files of a container's directory that another version, or a crash, may have written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare::plan::seccomp::Seccomp;
use tare::state::{self, Status};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = state::parse(bytes) {
        let kept = serde_json::to_vec(&state).expect("what was read is written");
        assert_eq!(state::parse(&kept).expect("and read again"), state);
        let _ = state.to_oci_json(Status::Running, Some(1));
    }
    if let Ok(filter) = Seccomp::from_bytes(bytes) {
        assert_eq!(filter.to_bytes(), bytes);
    }
});
