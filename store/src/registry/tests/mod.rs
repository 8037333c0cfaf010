//! The client against a registry that fails on purpose, and against Debian's.

mod auth;
mod debian;
mod hosts;
mod pull;
mod push;
mod search;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use integration::registry::Registry as Served;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::registry::*;

/// Runs on a runtime like the daemon's.
fn run<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(what)
}

/// Short waits, and no proxy of the machine's.
fn config() -> RegistryConfig {
    let second = Duration::from_secs(1);
    RegistryConfig {
        proxies: Proxies::None,
        patience: Patience { connect: second * 5, answer: second * 5, stall: second, commit: second * 5 },
        tries: Tries { most: 3, first_pause: Duration::from_millis(1), longest_pause: second * 2 },
        ..RegistryConfig::default()
    }
}

fn with_hosts(dir: PathBuf) -> RegistryConfig {
    RegistryConfig { hosts_dirs: vec![dir], ..config() }
}

fn user(name: &str, password: &str) -> Access {
    let credentials = Credentials { username: name.into(), password: password.into(), ..Credentials::default() };
    Access { credentials: Some(credentials), ..Access::default() }
}

async fn remote(host: &str, name: &str, access: Access) -> Remote {
    Registry::new(config()).unwrap().remote(&format!("{host}/{name}").parse().unwrap(), access).await.unwrap()
}

/// What each call tells its caller.
fn noticing() -> (Access, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let notice: Notice = Arc::new(move |sentence| hears.lock().unwrap().push(sentence));
    (Access { notice: Some(notice), ..Access::default() }, heard)
}

/// A blob of this size, and what describes it.
fn blob(served: &Served, name: &str, size: usize) -> (Descriptor, Vec<u8>) {
    let bytes: Vec<u8> = (0..size).map(|at| (at * 31 % 251) as u8).collect();
    let digest: Digest = served.blob(name, bytes.clone()).parse().unwrap();
    (Descriptor::new(media::LAYER_GZIP, digest, size as u64), bytes)
}

async fn all(mut stream: BlobStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

async fn fetch(remote: &Remote, blob: &Descriptor, offset: u64) -> Result<Vec<u8>> {
    all(remote.blob(blob, offset).await?).await
}

/// An image of one layer, under a tag: its manifest's descriptor, and its bytes.
fn image(served: &Served, name: &str, tag: &str) -> (Descriptor, Vec<u8>) {
    let (layer, _) = blob(served, name, 1000);
    let config = serde_json::json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]}});
    let config = config.to_string().into_bytes();
    served.blob(name, config.clone());
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": media::MANIFEST,
        "config": Descriptor::new(media::CONFIG, Digest::of(&config), config.len() as u64), "layers": [layer]});
    let manifest = manifest.to_string().into_bytes();
    served.manifest(name, Some(tag), media::MANIFEST, manifest.clone());
    (Descriptor::new(media::MANIFEST, Digest::of(&manifest), manifest.len() as u64), manifest)
}

fn says(error: &Error, parts: &[&str]) {
    for part in parts {
        assert!(error.message.contains(part), "{part:?} is not in: {error}");
    }
    assert!(error.message.len() < 1500, "{error}");
}

/// Flows are spawned: what they hold must be able to move.
#[test]
fn calls_can_be_spawned() {
    fn sendable<T: Send>(_: &T) {}
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Registry>();
    shared::<Remote>();
    let served = Served::start();
    run(async {
        let (descriptor, bytes) = blob(&served, "a", 1000);
        let remote = remote(&served.host(), "a", Access::default()).await;
        let reference: Reference = "a".parse().unwrap();
        let repository = remote.repository().clone();
        let open: Open = Arc::new(move |_| Ok(Box::new(std::io::empty())));
        let registry = Registry::new(config()).unwrap();
        sendable(&remote.resolve(&reference));
        sendable(&remote.manifest(&descriptor));
        sendable(&remote.document(&descriptor, 1));
        sendable(&remote.tags());
        sendable(&remote.referrers(&descriptor.digest, None));
        sendable(&remote.mount(&descriptor, &repository));
        sendable(&remote.upload(&descriptor, open, &|_| {}));
        sendable(&remote.put_manifest(None, media::MANIFEST, &bytes));
        sendable(&registry.login("a", Access::default()));
        sendable(&registry.search("a", "b", 1, Access::default()));
        let stream = remote.blob(&descriptor, 0).await.unwrap();
        sendable(&stream);
        assert_eq!(tokio::spawn(all(stream)).await.unwrap().unwrap(), bytes);
    });
}
