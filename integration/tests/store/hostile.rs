//! Images that are made to harm, from a registry and as archives: an error, bounded memory, nothing left.

use std::io::Write as _;
use std::process::Stdio;

use integration::registry::{Registry, digest};
use integration::store::Daemon;
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// As much as a document claims, and would bring.
const HUGE: u64 = 2 << 30;
/// Far above what the store needs for anything, far below what is offered to it.
const MOST_KIB: u64 = 64 << 10;

/// A header of a tar archive, in the form of 1988: of a file.
fn header(name: &str, size: u64) -> [u8; 512] {
    header_of(b'0', name, size)
}

fn header_of(kind: u8, name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|it| u32::from(*it)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

/// A small file, as it lies in an archive.
fn file(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut all = header(name, bytes.len() as u64).to_vec();
    all.extend_from_slice(bytes);
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Imports what is begun so and then goes on with spaces, as long as anybody takes them; what is said of it.
fn import(store: &Daemon, begin: &[u8], spaces: u64) -> String {
    let mut command = store.command(&["import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    let feeding = begin.to_owned();
    let feeder = std::thread::spawn(move || {
        let piece = vec![b' '; 1 << 20];
        let mut sent = 0;
        let mut all = to.write_all(&feeding);
        while all.is_ok() && sent < spaces {
            all = to.write_all(&piece);
            sent += piece.len() as u64;
        }
        sent
    });
    let output = child.wait_with_output().unwrap();
    let sent = feeder.join().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(sent < HUGE / 4, "{sent} bytes were taken: {said}");
    said
}

fn nothing_is_left(store: &Daemon) {
    assert_eq!(store.json(&["images"]), json!([]));
    store.run(&["gc"]).ok();
    assert_eq!(store.json(&["snapshot", "ls"]), json!([]));
    assert!(store.peak_kib() < MOST_KIB, "{} KiB", store.peak_kib());
}

/// CVE-2023-25153 of containerd, and CVE-2026-47262, CVE-2026-61801: a huge file of an image is read into memory.
#[test]
fn cve_2023_25153_and_2026_47262_and_2026_61801_huge_documents_of_archives() {
    let store = Daemon::start();
    let layout = file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for name in ["index.json", "manifest.json", "oci-layout", "repositories"] {
        let before = if name == "oci-layout" { Vec::new() } else { layout.clone() };
        let said = import(&store, &[before, header(name, HUGE).to_vec()].concat(), HUGE);
        assert!(said.contains(name) && said.contains("at most"), "{name}: {said}");
    }
    // What only the archive's reader sees: a long name, and records before an entry.
    for kind in [b'L', b'K', b'x', b'g'] {
        let said = import(&store, &header_of(kind, "long", HUGE), HUGE);
        assert!(said.contains("limit"), "{}: {said}", char::from(kind));
    }
    nothing_is_left(&store);
    store.stop();
}

/// The same, with documents that are blobs: what a descriptor claims is refused before any of it is read.
#[test]
fn cve_2023_25153_huge_documents_behind_descriptors() {
    let store = Daemon::start();
    let absent = digest(b"absent");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": absent, "size": HUGE}, "layers": []})
    .to_string();
    for (what, target, size) in
        [("manifest", absent.clone(), HUGE), ("configuration", digest(manifest.as_bytes()), manifest.len() as u64)]
    {
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": target, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": "example.org/huge:1"}}]});
        let hex = |digest: &str| format!("blobs/{}", digest.replacen(':', "/", 1));
        let begin = [
            file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            file("index.json", index.to_string().as_bytes()),
            file(&hex(&digest(manifest.as_bytes())), manifest.as_bytes()),
            file(&hex(&absent), b"small"),
            vec![0; 1024],
        ]
        .concat();
        let said = import(&store, &begin, 0);
        assert!(said.contains("limit") || said.contains("bytes"), "{what}: {said}");
    }
    nothing_is_left(&store);
    store.stop();
}

/// The same from a registry, whether it says how long its answer is or not.
#[test]
fn cve_2023_25153_huge_documents_of_registries() {
    let (store, registry) = (Daemon::start(), Registry::start());
    let huge = vec![b' '; 96 << 20];
    registry.manifest("app", Some("huge"), MANIFEST, huge.clone());
    let config = registry.blob("app", huge);
    let claims = |size: u64| {
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": size}})
        .to_string()
    };
    registry.manifest("app", Some("honest"), MANIFEST, claims(96 << 20));
    registry.manifest("app", Some("lying"), MANIFEST, claims(1000));
    for tag in ["huge", "honest", "lying"] {
        let ran = store.run(&["pull", "-q", &format!("{}/app:{tag}", registry.host())]).fails();
        assert_eq!(ran.stderr.lines().count(), 1, "{tag}: {}", ran.stderr);
        assert!(ran.stderr.contains("bytes"), "{tag}: {}", ran.stderr);
    }
    nothing_is_left(&store);
    store.stop();
}
