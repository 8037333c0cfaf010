//! Writes the Rust code of `proto/proto/*.proto` into `proto/src/gen`: `cargo run -p tare-proto-generate`.
//!
//! The generators parse the definitions themselves; no protoc is needed. It stands apart from the library, so that it runs
//! also when the library does not compile; its test sees whether the committed code is what the definitions say.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

fn main() -> Result<(), Box<dyn Error>> {
    // All at once, and only when all could be made.
    let fresh = tempfile::tempdir()?;
    generate(fresh.path())?;
    let committed = library().join("src/gen");
    for old in fs::read_dir(&committed)? {
        fs::remove_file(old?.path())?;
    }
    for new in fs::read_dir(fresh.path())? {
        let new = new?;
        fs::copy(new.path(), committed.join(new.file_name()))?;
    }
    Ok(())
}

/// Generates messages without reflection, and services and clients for tokio, into `out`.
fn generate(out: &Path) -> Result<(), Box<dyn Error>> {
    let folder = library().join("proto");
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

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_committed_code_is_what_the_definitions_say() {
        let temporary = tempfile::tempdir().unwrap();
        generate(temporary.path()).unwrap();
        let (fresh, committed) = (files(temporary.path()), files(&library().join("src/gen")));
        let renew = "run `cargo run -p tare-proto-generate` and commit what it writes";
        assert_eq!(fresh.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>(), "other files: {renew}");
        for (name, text) in fresh {
            assert!(text == committed[&name], "proto/src/gen/{name} is stale: {renew}");
        }
    }

    fn files(folder: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        entries.map(|it| (it.file_name().into_string().unwrap(), fs::read_to_string(it.path()).unwrap())).collect()
    }
}
