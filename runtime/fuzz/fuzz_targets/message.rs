//! What comes over the channel from init, which a container may have taken over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare::channel::decode;
use tare::error::Error;
use tare::message::{Reply, Request};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<Request>(bytes);
    let _ = decode::<Reply>(bytes);
    if let Ok(error) = decode::<Error>(bytes) {
        let _ = (error.to_string(), error.errno());
    }
});
