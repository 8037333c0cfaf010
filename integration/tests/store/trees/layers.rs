//! An image in which is what layers can hold.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use integration::registry::digest;
use serde_json::{Value, json};

/// Makes the image below `dir`, as an OCI layout: the first so many of the layers.
pub(super) fn layout(dir: &Path, count: usize) -> PathBuf {
    let work = dir.join("layers");
    fs::create_dir(&work).unwrap();
    let made = Command::new("sh").args(["-c", include_str!("layers.sh")]).current_dir(&work).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let layout = dir.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |media_type: &str, bytes: &[u8]| -> Value {
        let digest = digest(bytes);
        fs::write(layout.join("blobs").join(digest.replacen(':', "/", 1)), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for n in 1..=count {
        let tar = fs::read(work.join(format!("layer{n}.tar"))).unwrap();
        diff_ids.push(digest(&tar));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        layers.push(put("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().unwrap()));
    }
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers});
    let mut manifest = put(manifest_type, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": super::TAG});
    manifest["platform"] = json!({"os": "linux", "architecture": architecture});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::remove_dir_all(work).unwrap();
    layout
}
