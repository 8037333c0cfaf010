//! Stores side by side: ours, Debian's containerd, podman and umoci, pulling the same image from the same registry on loopback;
//! and what the parts of a pull cost when nothing else is done.
//!
//! The image is the layout that `TARE_IMAGE` names (`integration/image-setup` makes it). Everything is measured twice: with the
//! stores' roots in memory, where it counts what a store itself costs, and on the disk of the work directory, where the disk does.

mod parts;

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use integration::shim_client::block_on;
use integration::{in_path, sys, wait};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};
use tare_proto::{images, images_ttrpc, snapshots, snapshots_ttrpc, types};

use crate::table::Table;

/// The columns of these figures.
pub(crate) const CONTENDERS: [&str; 4] = ["tare", "containerd", "podman", "umoci"];
const PULL: &str = "pull";
/// Snapshots that are prepared and removed one after the other: so many that what is put off for later counts too.
const SNAPSHOTS: usize = 10_000;
/// Images of which a list is asked.
const IMAGES: usize = 10_000;

/// A place for the roots of stores.
#[derive(Clone, Copy)]
enum Place {
    Memory,
    Disk,
}

/// What is pulled, and from where.
struct Source {
    registry: Server,
    port: u16,
    layout: PathBuf,
    work: PathBuf,
}

impl Source {
    fn reference(&self) -> String {
        format!("127.0.0.1:{}/debian:latest", self.port)
    }
}

/// A server of ours that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// What one pull took.
struct Pulled {
    /// Until the command said that it is done, in milliseconds.
    said: f64,
    /// Until it is on the disk as well.
    durable: f64,
    /// Processor time of all who worked on it, in milliseconds.
    cpu: f64,
    /// The most memory that one of them had, in KiB.
    memory: f64,
}

/// Pulls by all of them, and the parts alone.
pub(crate) fn pull(rounds: usize, table: &mut Table) {
    let Some(source) = source() else { return };
    for (place, name) in [(Place::Memory, "in memory"), (Place::Disk, "on disk")] {
        let mut samples: [Vec<Vec<f64>>; 4] = std::array::from_fn(|_| vec![Vec::new(); CONTENDERS.len()]);
        for _ in 0..rounds {
            for (column, contender) in CONTENDERS.iter().enumerate() {
                let Some(pulled) = with_place(place, &source.work, |root| one_pull(contender, &source, root)) else {
                    continue;
                };
                let figures = [pulled.said, pulled.durable, pulled.cpu, pulled.memory];
                for (samples, figure) in samples.iter_mut().zip(figures) {
                    samples[column].push(figure);
                }
            }
        }
        let [said, durable, cpu, memory] = samples;
        table.add(&format!("{PULL} {name}: said to be done"), "ms", &said);
        table.add(&format!("{PULL} {name}: and synced"), "ms", &durable);
        table.add(&format!("{PULL} {name}: processor time"), "ms", &cpu);
        table.add(&format!("{PULL} {name}: peak of one process"), "KiB", &memory);
    }
    parts::all(&source, rounds, table);
}

/// A directory of its own there, which goes again.
fn with_place<T>(place: Place, work: &Path, then: impl FnOnce(&Path) -> Option<T>) -> Option<T> {
    let root = work.join("root");
    fs::create_dir(&root).expect("make a root");
    if matches!(place, Place::Memory) {
        mount(Some("store"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=80%")).expect("mount a tmpfs");
    } else {
        sync(work);
    }
    let result = then(&root);
    // Whatever a store mounted in it goes first.
    unmount_below(&root);
    if matches!(place, Place::Memory) {
        umount2(&root, MntFlags::MNT_DETACH).expect("unmount the tmpfs");
    }
    fs::remove_dir_all(&root).expect("remove the root");
    result
}

fn unmount_below(root: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let points: Vec<PathBuf> = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect();
    for point in points.iter().rev().filter(|it| it.starts_with(root) && *it != root) {
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

/// Everything of this file system is on its disk when this returns.
fn sync(path: &Path) {
    assert!(Command::new("sync").arg("-f").arg(path).status().expect("sync").success());
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn one_pull(contender: &str, source: &Source, root: &Path) -> Option<Pulled> {
    match contender {
        "tare" => {
            let store = TareStore::start(root)?;
            let mut command = Command::new(store_binary()?);
            command.arg("--socket").arg(&store.socket).args(["pull", "--quiet", &source.reference()]);
            Some(timed(vec![command], root, Some(&store.server)))
        }
        "containerd" => {
            let (daemon, socket) = containerd(root)?;
            let mut command = Command::new("ctr");
            command.arg("-a").arg(socket).args(["images", "pull", "--plain-http", &source.reference()]);
            Some(timed(vec![command], root, Some(&daemon)))
        }
        "podman" => {
            in_path("podman")?;
            let mut command = Command::new("podman");
            command.arg("--root").arg(root.join("storage")).arg("--runroot").arg(root.join("run")).args([
                "--storage-driver",
                "overlay",
                "pull",
                "--quiet",
                "--tls-verify=false",
                &source.reference(),
            ]);
            Some(timed(vec![command], root, None))
        }
        _ => {
            in_path("umoci").and(in_path("skopeo"))?;
            let layout = root.join("layout");
            let mut copy = Command::new("skopeo");
            copy.args(["copy", "--quiet", "--src-tls-verify=false"])
                .arg(format!("docker://{}", source.reference()))
                .arg(format!("oci:{}:latest", layout.display()));
            let mut unpack = Command::new("umoci");
            unpack.arg("unpack").arg("--image").arg(format!("{}:latest", layout.display())).arg(root.join("bundle"));
            Some(timed(vec![copy, unpack], root, None))
        }
    }
}

/// Runs these to their ends, and adds what their daemon did meanwhile.
fn timed(commands: Vec<Command>, root: &Path, daemon: Option<&Server>) -> Pulled {
    let before = daemon.map_or(0.0, |it| cpu_of(it.0.id()));
    let (mut cpu, mut memory) = (0.0, 0.0_f64);
    let begin = Instant::now();
    for mut command in commands {
        #[expect(clippy::zombie_processes, reason = "waited for by wait4, which tells its memory and processor time")]
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start");
        let pid = child.id() as i32;
        let errors = child.stderr.map(|it| io::read_to_string(it).unwrap_or_default()).unwrap_or_default();
        let usage = sys::wait_with_usage(pid).expect("wait4");
        assert!(usage.status == 0, "{command:?}: {errors}");
        cpu += usage.processor;
        memory = memory.max(usage.peak as f64);
    }
    let said = milliseconds(begin);
    sync(root);
    let durable = milliseconds(begin);
    if let Some(daemon) = daemon {
        cpu += cpu_of(daemon.0.id()) - before;
        memory = memory.max(peak_of(daemon.0.id()));
    }
    Pulled { said, durable, cpu, memory }
}

/// Its processor time so far, with that of its children that were waited for, in milliseconds (proc_pid_stat(5)).
fn cpu_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read a process's statistics");
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|it| it.parse().ok())
        .collect();
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
    fields.iter().sum::<f64>() * 1000.0 / ticks
}

/// Its peak of resident memory, in KiB.
fn peak_of(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read a process's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn store_binary() -> Option<PathBuf> {
    std::env::var_os("STORE_BIN").map(PathBuf::from)
}

/// A daemon of ours.
struct TareStore {
    server: Server,
    socket: PathBuf,
}

impl TareStore {
    fn start(root: &Path) -> Option<Self> {
        let socket = root.join("run").join("s");
        let child = Command::new(store_binary()?)
            .arg("--socket")
            .arg(&socket)
            .args(["serve", "--log-level", "warn", "--gc-delay", "never", "--root"])
            .arg(root.join("data"))
            .stdin(Stdio::null())
            .spawn()
            .expect("start tare-store");
        let server = Server(child);
        answers(&socket);
        Some(Self { server, socket })
    }

    async fn client(&self) -> tare_proto::ttrpc::asynchronous::Client {
        tare_proto::ttrpc::asynchronous::Client::connect(&format!("unix://{}", self.socket.display()))
            .await
            .expect("connect to tare-store")
    }
}

fn containerd(root: &Path) -> Option<(Server, PathBuf)> {
    in_path("containerd").and(in_path("ctr"))?;
    let (socket, config) = (root.join("c.sock"), root.join("config.toml"));
    let text = format!(
        "version = 2\nroot = \"{root}/root\"\nstate = \"{root}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{root}/c.sock\"\n[ttrpc]\naddress = \"{root}/t.sock\"\n",
        root = root.display()
    );
    fs::write(&config, text).expect("write containerd's configuration");
    let child = Command::new("containerd")
        .arg("--config")
        .arg(&config)
        .args(["--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start containerd");
    let server = Server(child);
    answers(&socket);
    Some((server, socket))
}

/// Waits until somebody listens on this socket.
fn answers(socket: &Path) {
    let listens = || std::os::unix::net::UnixStream::connect(socket).is_ok();
    wait::until(&format!("somebody listens on {}", socket.display()), listens);
}

/// A registry on loopback with the image in it.
fn source() -> Option<Source> {
    let Some(layout) = std::env::var_os("TARE_IMAGE").map(PathBuf::from) else {
        eprintln!("no image to pull (TARE_IMAGE): pulls are not measured");
        return None;
    };
    let work = std::env::temp_dir().join(format!("tare-bench-stores-{}", std::process::id()));
    fs::create_dir(&work).expect("make a work directory");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let config = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {work}/registry}}}}\n\
         http: {{addr: \"127.0.0.1:{port}\"}}\n",
        work = work.display()
    );
    let path = work.join("registry.yml");
    fs::write(&path, config).expect("write the registry's configuration");
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start docker-registry");
    let registry = Server(child);
    wait::until("the registry listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let source = Source { registry, port, layout, work };
    let pushed = Command::new("skopeo")
        .args(["copy", "--quiet", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:latest", source.layout.display()))
        .arg(format!("docker://{}", source.reference()))
        .status()
        .expect("start skopeo");
    assert!(pushed.success(), "the image could not be pushed");
    Some(source)
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.registry.0.id() as i32), Signal::SIGTERM);
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// Snapshots one after the other, and long lists, over ttrpc.
pub(crate) fn calls(rounds: usize, table: &mut Table) {
    let work = std::env::temp_dir().join(format!("tare-bench-calls-{}", std::process::id()));
    fs::create_dir(&work).expect("make a work directory");
    let Some(store) = TareStore::start(&work) else { return };
    block_on(async {
        let client = store.client().await;
        let context = tare_proto::ttrpc::context::with_timeout(120_000_000_000);
        let snapshots = snapshots_ttrpc::SnapshotsClient::new(client.clone());
        let (mut rates, mut gone) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let begin = Instant::now();
            for number in 0..SNAPSHOTS {
                let key = format!("bench-{number}");
                let prepare = snapshots::PrepareSnapshotRequest { key: key.clone(), ..Default::default() };
                snapshots.prepare(context.clone(), &prepare).await.expect("prepare a snapshot");
                let remove = snapshots::RemoveSnapshotRequest { key, ..Default::default() };
                snapshots.remove(context.clone(), &remove).await.expect("remove a snapshot");
            }
            rates.push(SNAPSHOTS as f64 / begin.elapsed().as_secs_f64());
            // Waits for the removal of what is left of them.
            snapshots.cleanup(context.clone(), &snapshots::CleanupRequest::default()).await.expect("clean up");
            gone.push(SNAPSHOTS as f64 / begin.elapsed().as_secs_f64());
        }
        table.add("snapshots prepared and removed", "/s", &[rates]);
        table.add("snapshots prepared and removed, until their directories are gone", "/s", &[gone]);

        let service = images_ttrpc::ImagesClient::new(client);
        let target = types::Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: format!("sha256:{}", "0".repeat(64)),
            size: 1000,
            ..Default::default()
        };
        for number in 0..IMAGES {
            let image = images::Image {
                name: format!("registry.example/team/image-{number}:latest"),
                target: Some(target.clone()).into(),
                ..Default::default()
            };
            let create = images::CreateImageRequest { image: Some(image).into(), ..Default::default() };
            service.create(context.clone(), &create).await.expect("make an image");
        }
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begin = Instant::now();
            let list = service.list(context.clone(), &images::ListImagesRequest::default()).await.expect("list images");
            assert_eq!(list.images.len(), IMAGES);
            times.push(milliseconds(begin));
        }
        table.add("list of 10,000 images", "ms", &[times]);
    });
    drop(store);
    let _ = fs::remove_dir_all(&work);
}
