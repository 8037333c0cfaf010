//! A client that knows nothing but our .proto files, in Python.

use std::path::PathBuf;
use std::process::Command;

use integration::skip;
use integration::store::{Daemon, Ran, run};

pub(crate) fn python(store: &Daemon, args: &[&str], input: Option<&[u8]>) -> Ran {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("store-client.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).arg(store.socket()).args(args);
    run(command, input)
}

/// Whether this machine has what the client is made with.
pub(crate) fn able() -> bool {
    let protobuf = Command::new("/usr/bin/python3").args(["-c", "import google.protobuf"]).output();
    integration::in_path("protoc").is_some() && protobuf.is_ok_and(|it| it.status.success())
}

#[test]
fn another_language_needs_the_proto_files_alone() {
    if !able() {
        skip!("there is no protoc, or no protobuf for Python");
    }
    let store = Daemon::start();
    let blob: Vec<u8> = (0..700_000u32).flat_map(u32::to_be_bytes).collect();
    let digest = python(&store, &["put", "from-python"], Some(&blob)).ok().stdout.trim().to_owned();
    assert_eq!(python(&store, &["cat", &digest], None).ok().bytes, blob);
    assert_eq!(store.run(&["content", "get", &digest]).ok().bytes, blob);
    let refused = python(&store, &["cat", "sha256:x"], None).fails();
    assert!(refused.stderr.contains("not a digest") && refused.stderr.contains("(code 3)"), "{}", refused.stderr);

    let archive = super::archives::archive(&store.dir);
    let said = python(&store, &["import", archive.to_str().unwrap(), "from/python"], None).ok();
    let (name, chain) = said.stdout.trim().split_once(' ').unwrap();
    assert_eq!(name, "docker.io/from/python:v1");
    assert!(said.stderr.contains("layer sha256:") && said.stderr.contains(" done "), "{}", said.stderr);
    let seen = store.json(&["inspect", name]);
    assert_eq!(seen["chainId"], chain);
    let root = python(&store, &["root", "from/python:v1", "c"], None).ok().stdout;
    assert!(root.contains("mount overlay overlay") && root.contains("lowerdir="), "{root}");
    assert_eq!(store.json(&["snapshot", "info", "c"])["parent"], chain);

    // Each of containerd's services answers: images above and here, content, snapshots, leases, diff.
    assert_eq!(python(&store, &["names"], None).ok().stdout.trim(), name);
    assert_eq!(python(&store, &["keep", "l", &digest], None).ok().stdout, format!("content {digest}\n"));
    assert_eq!(store.json(&["lease", "resources", "l"])[0]["id"], digest);
    let upper = integration::store::upper(&store.json(&["snapshot", "prepare", "changed"]));
    std::fs::write(upper.join("file"), "text").unwrap();
    let said = python(&store, &["layer", "changed"], None).ok().stdout;
    let (layer, size) = said.trim().split_once(' ').unwrap();
    assert_eq!(store.json(&["content", "info", layer])["size"].to_string(), size);
    store.stop();
}
