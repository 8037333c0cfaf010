//! Writes the Rust code of `proto/*.proto` into a directory: `cargo run --example generate -p tare-proto` renews `src/gen`.
//!
//! The generators parse the definitions themselves; no protoc is needed. `tests/fresh.rs` uses the same function to see
//! whether the committed code is what the definitions say.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    for old in fs::read_dir(&out)? {
        fs::remove_file(old?.path())?;
    }
    generate(&out)
}

/// Generates messages without reflection, and services and clients for tokio, into `out`.
pub(crate) fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    Codegen::new()
        .out_dir(out)
        .inputs(&files)
        .include(&folder)
        .rust_protobuf()
        // Reflection would carry each file's descriptor in the program, and the code that reads it.
        .rust_protobuf_customize(ProtobufCustomize::default().lite_runtime(true).gen_mod_rs(false))
        .customize(Customize { async_all: true, ..Default::default() })
        .run()?;
    Ok(())
}
