//! The committed code is what the definitions say.

#[allow(dead_code)]
#[path = "../examples/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[test]
fn the_generated_code_is_fresh() {
    let temporary = tempfile::tempdir().unwrap();
    generate::generate(temporary.path()).unwrap();
    let (fresh, committed) = (files(temporary.path()), files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen")));
    let renew = "run `cargo run -p tare-proto --example generate` and commit what it writes";
    assert_eq!(fresh.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>(), "other files: {renew}");
    for (name, text) in fresh {
        assert!(text == committed[&name], "proto/src/gen/{name} is stale: {renew}");
    }
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|it| (it.file_name().into_string().unwrap(), fs::read_to_string(it.path()).unwrap())).collect()
}
