//! What `start` reads: its stdin, and a bundle's config.json. A request or a sentence, never a panic.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tare_shim::args::Args;
use tare_shim::bootstrap::{Environment, group, request};

static BUNDLE: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

fuzz_target!(|bytes: &[u8]| {
    // Short, so that the fuzzer finds parameters that are meant for it.
    let args = Args { namespace: "n".into(), id: "i".into(), ..Args::default() };
    let _ = request(&args, &Environment::default(), bytes);
    std::fs::write(BUNDLE.path().join("config.json"), bytes).unwrap();
    let _ = group(BUNDLE.path(), "i");
});
