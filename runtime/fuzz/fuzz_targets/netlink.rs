//! The kernel's answers about network devices: lengths within lengths.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare::parent::netlink::{Answer, attributes};

fuzz_target!(|bytes: &[u8]| {
    let mut answer = Answer::default();
    let _ = answer.take(bytes, 0);
    for body in answer.bodies() {
        for fixed in [8, 12, 16] {
            let read: usize = attributes(body, fixed).map(|(_, payload)| payload.len()).sum();
            assert!(read <= body.len());
        }
    }
});
