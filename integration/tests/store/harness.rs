//! A daemon of a test's own, and images made for it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use integration::registry::{Registry, digest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Far above what a start takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A store with directories of its own; its daemon ends with it.
pub(crate) struct Store {
    work: tempfile::TempDir,
    /// Everything that stays.
    pub(crate) root: PathBuf,
    binary: PathBuf,
    daemon: Option<Child>,
    starts: u32,
}

impl Store {
    /// Not started yet. The debug build: it has points to be killed at.
    pub(crate) fn new() -> Self {
        let mut store = Self::at(Path::new(""));
        store.root = store.work.path().join("root");
        store
    }

    /// As [`Store::new`], with its root elsewhere.
    pub(crate) fn at(root: &Path) -> Self {
        let work = tempfile::tempdir().unwrap();
        Self { work, root: root.to_owned(), binary: debug_binary(), daemon: None, starts: 0 }
    }

    /// Started.
    pub(crate) fn running() -> Self {
        let mut store = Self::new();
        store.start();
        store
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]).unwrap_or_else(|error| panic!("the store does not start: {error}"));
    }

    /// Starts the daemon with these variables in its environment, and waits until it serves; or gives what it said when it ended.
    pub(crate) fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<(), String> {
        // Another for each: the waiter for the end of an earlier daemon may still have to say it.
        let ready = self.work.path().join(format!("ready{}", self.starts));
        self.starts += 1;
        let notified = UnixDatagram::bind(&ready).unwrap();
        let log = self.work.path().join("log");
        let mut child = Command::new(&self.binary)
            .arg("--socket")
            .arg(self.socket())
            .args(["serve", "--gc-delay", "never", "--gc-interval", "never", "--log-level", "debug", "--root"])
            .arg(&self.root)
            .env("NOTIFY_SOCKET", &ready)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        // Its end closes nothing that we could wait for: so a second waiter tells it as if it had been ready.
        let pid = Pid::from_raw(child.id() as i32);
        let pidfd = integration::sys::pidfd_open(pid.as_raw()).unwrap();
        let ended = UnixDatagram::unbound().unwrap();
        let (address, waited) = (ready.clone(), pidfd.try_clone().unwrap());
        std::thread::spawn(move || {
            if integration::wait::readable(waited.as_fd(), std::time::Instant::now() + 10 * LONG) {
                let _ = ended.send_to(b"ENDED=1", address);
            }
        });
        let mut message = [0; 64];
        // By poll(2): a read with a time-out ends early when the process is stopped and goes on.
        let said = integration::wait::readable(notified.as_fd(), std::time::Instant::now() + LONG);
        assert!(said, "the daemon says nothing within a minute: {}", self.log());
        let length = notified.recv(&mut message).expect("a word of the daemon");
        if message[..length].starts_with(b"READY=1") {
            self.daemon = Some(child);
            return Ok(());
        }
        let _ = child.wait();
        Err(fs::read_to_string(&log).unwrap())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.work.path().join("run").join("s")
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.work.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        command
    }

    /// What a call prints, when it succeeds; else what it says is wrong.
    pub(crate) fn try_run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}\nthe daemon's log:\n{}", self.log()))
    }

    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).map_or_else(|error| error, |out| panic!("{arguments:?} succeeded: {out}"))
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.run(&[&["--json"], arguments].concat());
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
    }

    /// The names of all images.
    pub(crate) fn images(&self) -> Vec<String> {
        let list = self.json(&["images"]);
        let mut names: Vec<String> =
            list.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Everything is as its digest says, and whole.
    pub(crate) fn is_sound(&self) -> Result<(), String> {
        self.try_run(&["fsck"]).map(drop)
    }

    /// Files and directories of the root of this image, as a container would see them.
    pub(crate) fn tree(&self, image: &str) -> Tree {
        let mut inspected = self.json(&["inspect", image]);
        if inspected["unpacked"] != true {
            self.run(&["unpack", image]);
            inspected = self.json(&["inspect", image]);
        }
        let chain = inspected["chainId"].as_str().unwrap_or_else(|| panic!("{inspected}"));
        let key = format!("view-{}", inspected["config"]["digest"].as_str().unwrap_or("x").len());
        let mounts = self.json(&["snapshot", "view", &key, chain]);
        let tree = merged(&mounts);
        self.run(&["snapshot", "rm", &key]);
        tree
    }

    /// SIGKILL, as a crash.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// SIGTERM; its exit status.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("a daemon");
        kill(Pid::from_raw(daemon.id() as i32), Signal::SIGTERM).unwrap();
        daemon.wait().unwrap()
    }

    /// Whether it was killed at the point it was told to; it still runs if not. After a call that failed its end is waited for a little:
    /// a connection closes before a process has ended.
    pub(crate) fn was_killed(&mut self, failed: bool) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        if failed {
            let pidfd = integration::sys::pidfd_open(daemon.id() as i32).unwrap();
            integration::wait::readable(pidfd.as_fd(), std::time::Instant::now() + Duration::from_secs(2));
        }
        let ended = daemon.try_wait().unwrap();
        if let Some(status) = ended {
            self.daemon = None;
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "the daemon ended otherwise:\n{}", self.log());
        }
        ended.is_some()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the store's log:\n{}", self.log());
        }
    }
}

/// The debug build of the store, which `integration/test` makes.
pub(crate) fn debug_binary() -> PathBuf {
    integration::built_for_debugging("tare-store")
}

/// What is in a tree: by path, what it is.
pub(crate) type Tree = BTreeMap<PathBuf, String>;

/// The tree that these mounts give, without mounting them: the layers one over the other.
pub(crate) fn merged(mounts: &Value) -> Tree {
    let mount = &mounts.as_array().unwrap_or_else(|| panic!("{mounts}"))[0];
    let option = |name: &str| {
        let options = mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str);
        options.filter_map(|it| it.strip_prefix(name)).next().map(str::to_owned)
    };
    let layers: Vec<PathBuf> = if mount["type"] == "bind" {
        vec![mount["source"].as_str().unwrap().into()]
    } else {
        let lowers = option("lowerdir=").unwrap_or_else(|| panic!("{mounts}"));
        option("upperdir=").into_iter().chain(lowers.split(':').map(str::to_owned)).map(PathBuf::from).collect()
    };
    let mut tree = Tree::new();
    for layer in layers.iter().rev() {
        lay_over(layer, Path::new(""), &mut tree);
    }
    tree
}

fn lay_over(layer: &Path, below: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(layer.join(below)).unwrap() {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        let meta = entry.metadata().unwrap();
        let whiteout = meta.rdev() == 0 && meta.mode() & 0o170_000 == 0o020_000;
        if whiteout || !meta.is_dir() {
            tree.retain(|it, _| !it.starts_with(&path));
        }
        if whiteout {
            continue;
        }
        let what = if meta.is_dir() {
            if opaque(&layer.join(&path)) {
                tree.retain(|it, _| !it.starts_with(&path) || *it == path);
            }
            "directory".to_owned()
        } else if meta.is_symlink() {
            format!("link to {}", fs::read_link(layer.join(&path)).unwrap().display())
        } else {
            digest(&fs::read(layer.join(&path)).unwrap())
        };
        tree.insert(path.clone(), format!("{what} {:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
        if meta.is_dir() {
            lay_over(layer, &path, tree);
        }
    }
}

fn opaque(directory: &Path) -> bool {
    let out = Command::new("getfattr").args(["-n", "trusted.overlay.opaque", "--only-values"]).arg(directory).output();
    out.is_ok_and(|out| out.stdout.starts_with(b"y"))
}

/// A layer to be made: files by path, with their contents. A name that ends with `/` is a directory, contents that begin with `-> ` make a
/// link.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
        match contents.strip_prefix(b"-> ") {
            _ if name.ends_with('/') => {}
            Some(target) => symlink(std::str::from_utf8(target).unwrap(), path).unwrap(),
            None => fs::write(path, contents).unwrap(),
        }
    }
    let tar = Command::new("tar")
        .args(["--sort=name", "--numeric-owner", "--owner=0", "--group=0", "--mtime=@1700000000", "-cf", "-", "-C"])
        .arg(directory.path())
        .arg(".")
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

/// Bytes without a pattern that a compressor finds, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(length + 8).collect();
    bytes.truncate(length);
    bytes
}

/// Puts an image of these layers (uncompressed tars) into a registry; gives its reference.
pub(crate) fn publish(registry: &Registry, repository: &str, tag: &str, layers: &[Vec<u8>]) -> String {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    publish_for(registry, repository, tag, architecture, layers);
    format!("{}/{repository}:{tag}", registry.host())
}

/// The same for a machine; gives the manifest's descriptor, as it stands in an index.
pub(crate) fn publish_for(
    registry: &Registry,
    repository: &str,
    tag: &str,
    architecture: &str,
    layers: &[Vec<u8>],
) -> Value {
    let mut descriptors = Vec::new();
    for tar in layers {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(tar).unwrap();
        let blob = gzip.finish().unwrap();
        let size = blob.len();
        descriptors.push(json!({"mediaType": LAYER, "digest": registry.blob(repository, blob), "size": size}));
    }
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": [format!("TAG={tag}")]},
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>()},
    })
    .to_string();
    let size = config.len();
    let config = json!({"mediaType": CONFIG, "digest": registry.blob(repository, config), "size": size});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors});
    let manifest = manifest.to_string();
    let size = manifest.len();
    let digest = registry.manifest(repository, Some(tag), MANIFEST, manifest);
    let platform = json!({"os": "linux", "architecture": architecture});
    json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
}
