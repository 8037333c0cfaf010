//! Images that other programs make come in, and what leaves is read by other programs: skopeo, umoci, buildah, podman.

use std::path::Path;
use std::process::Command;

use integration::report_skip;

use crate::archive_tests::{ns, read, store};
use crate::documents::Wanted;
use crate::export::{self, Target};
use crate::import::{self, Imported, Source};
use crate::metadata::Labels;
use crate::progress::Progress;
use crate::store::Store;

/// Runs a program; its output. The words are separated by spaces.
fn run(dir: &Path, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).current_dir(dir).env("HOME", dir);
    let output = command.output().unwrap_or_else(|error| panic!("{line}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether they are all installed.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |name: &str| std::env::split_paths(&path).any(|it| it.join(name).is_file());
    let missing: Vec<_> = programs.iter().filter(|it| !there(it)).collect();
    if !missing.is_empty() {
        report_skip(&format!("not installed: {missing:?}"));
    }
    missing.is_empty()
}

/// A root with a shell.
fn rootfs(dir: &Path) {
    std::fs::create_dir_all(dir.join("rootfs/bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.join("rootfs/bin/busybox")).unwrap();
    std::os::unix::fs::symlink("busybox", dir.join("rootfs/bin/sh")).unwrap();
    std::fs::write(dir.join("rootfs/said"), "by another").unwrap();
    std::fs::create_dir_all(dir.join("policy")).unwrap();
    std::fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
}

async fn import(store: &Store, path: &Path, name: Option<&str>) -> Vec<Imported> {
    let request = import::Request {
        source: Source::Path(path.to_owned()),
        name: name.map(str::to_owned),
        wanted: None,
        unpack: Some(String::new()),
        labels: Labels::new(),
    };
    import::import(store, &ns(), request, &Progress::silent())
        .await
        .unwrap_or_else(|it| panic!("{}: {it}", path.display()))
}

async fn export(store: &Store, name: &str, target: Target) {
    let request = export::Request { images: vec![name.to_owned()], wanted: Some(Wanted::All), oci_only: false, target };
    export::export(store, &ns(), request, &Progress::silent()).await.unwrap();
}

/// An OCI layout with one image, tag `a`, made by umoci.
fn made_by_umoci(dir: &Path) {
    rootfs(dir);
    run(dir, "umoci init --layout layout");
    run(dir, "umoci new --image layout:a");
    run(dir, "umoci insert --image layout:a rootfs /");
    run(dir, "umoci config --image layout:a --architecture amd64 --os linux --config.cmd /bin/sh");
}

#[tokio::test]
async fn images_of_others_come_in() {
    if !has(&["umoci", "skopeo", "buildah", "busybox"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (dir, store) = (dir.path(), store(dir.path()));
    made_by_umoci(dir);
    for to in ["oci-archive:oci.tar:b", "docker-archive:docker.tar:example.org/app:c", "dir:plain"] {
        run(dir, &format!("skopeo --policy policy.json copy oci:layout:a {to}"));
    }
    let buildah = "buildah --root containers --runroot run --storage-driver vfs";
    let container = run(dir, &format!("{buildah} from scratch"));
    run(dir, &format!("{buildah} copy {} rootfs /", container.trim()));
    for (format, to) in
        [("oci", "oci-archive:buildah-oci.tar:d"), ("docker", "docker-archive:buildah-docker.tar:example.org/app:e")]
    {
        run(
            dir,
            &format!("{buildah} commit --signature-policy policy.json --format {format} {} {to}", container.trim()),
        );
    }
    for (path, name) in [
        ("layout", "example.org/app:a"),
        ("oci.tar", "example.org/app:b"),
        ("docker.tar", "example.org/app:c"),
        ("buildah-oci.tar", "example.org/app:d"),
        ("buildah-docker.tar", "example.org/app:e"),
    ] {
        let imported = import(&store, &dir.join(path), Some("example.org/app")).await;
        assert_eq!(imported.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), [name], "{path}");
        let chain = imported[0].images[0].chain_id().unwrap();
        assert_eq!(read(&store, chain, "said").as_deref(), Some("by another"), "{path}");
    }
}

#[tokio::test]
async fn what_leaves_is_read_by_others_and_runs_there() {
    if !has(&["umoci", "skopeo", "podman", "runc", "busybox"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (dir, store) = (dir.path(), store(dir.path()));
    made_by_umoci(dir);
    let imported = import(&store, &dir.join("layout"), Some("example.org/app")).await;
    let digest = imported[0].target.digest.to_string();
    export(&store, "example.org/app:a", Target::File(dir.join("ours.tar"))).await;
    export(&store, "example.org/app:a", Target::Directory(dir.join("ours"))).await;

    let inspected = run(dir, "skopeo --policy policy.json inspect oci-archive:ours.tar");
    assert!(inspected.contains(&digest), "{inspected}");
    run(dir, "skopeo --policy policy.json copy oci-archive:ours.tar oci:again:a");
    run(dir, "skopeo --policy policy.json copy docker-archive:ours.tar dir:plain");
    run(dir, "umoci unpack --image ours:a bundle");
    assert_eq!(std::fs::read_to_string(dir.join("bundle/rootfs/said")).unwrap(), "by another");

    let podman = "podman --root containers --runroot run --storage-driver vfs --cgroup-manager cgroupfs --events-backend none --runtime runc";
    run(dir, &format!("{podman} load --signature-policy policy.json -i ours.tar"));
    let options = "--rm --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096";
    let said = run(dir, &format!("{podman} run {options} example.org/app:a /bin/busybox cat /said"));
    assert_eq!(said, "by another");
}
