//! A world of a test's own for `tarectl`: its roots, its store, its network namespace; nothing of it is left when it ends.
//!
//! ```text
//! /var/tmp/tc<pid>-<n>/{root,store,…}     /run/tc<pid>-<n>/     a network namespace, held by a process that ends with the test
//! ```
//!
//! Every process of it carries the name of these directories in its arguments or its environment, every mount below them, and every
//! cgroup a container's id: so that what is left behind is found, be it by other tests at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use integration::{built, store, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What the world's images are called: a static busybox.
pub(crate) const BUSYBOX: &str = "busybox";

/// One instance of everything.
pub(crate) struct World {
    /// `tc<pid>-<n>`: in every path of it.
    pub(crate) tag: String,
    /// Directories that stay.
    pub(crate) dir: PathBuf,
    /// TARECTL_RUN.
    pub(crate) run: PathBuf,
    /// Holds the network namespace; ends with its input.
    netns: Child,
}

/// What a command left.
pub(crate) use integration::store::Ran;

/// The client under test.
pub(crate) fn tarectl() -> PathBuf {
    std::env::var_os("TARECTL_BIN").map_or_else(|| built("tarectl"), PathBuf::from)
}

impl World {
    /// With the image [`BUSYBOX`].
    pub(crate) fn new() -> Self {
        Self::empty().with_image()
    }

    /// The same world with it.
    pub(crate) fn with_image(self) -> Self {
        // Any command that needs the store starts it.
        self.ok(&["images"]);
        let layout = busybox();
        self.ran(self.store(&["-n", "tarectl", "import", layout.to_str().unwrap(), "--name", BUSYBOX]), 0);
        self
    }

    /// Without an image, and without a store that runs.
    pub(crate) fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // It ends with a letter, so that none is the beginning of another: processes and mounts are found by it.
        let tag = format!("tc{}-{}w", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (dir, run) = (Path::new("/var/tmp").join(&tag), Path::new("/run").join(&tag));
        fs::create_dir(&dir).expect("make a directory of the test's own");
        let mut netns = Command::new("unshare");
        netns.args(["--net", "sh", "-c", "ip link set lo up && echo ready && cat"]);
        let mut netns = netns.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("make a network namespace");
        let mut line = String::new();
        BufReader::new(netns.stdout.take().unwrap()).read_line(&mut line).expect("hear of the network namespace");
        assert_eq!(line, "ready\n");
        Self { tag, dir, run, netns }
    }

    /// `tarectl` with these arguments, in this world.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(&tarectl());
        command.args(args);
        command
    }

    /// Any program, in this world's network and with its roots.
    pub(crate) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.netns.id())).arg("--").arg(program);
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        command.env_remove("NOTIFY_SOCKET").current_dir(&self.dir);
        command
    }

    /// Does something in a thread that is in this world's network: sockets that it makes, and programs that it starts, are there.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.netns.id())).expect("open the world's network");
        let inside = || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the world's network");
            act()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("it does not panic"))
    }

    /// What makes a `tarectl` one of this world.
    pub(crate) fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("TARECTL_ROOT", self.dir.join("root")),
            ("TARECTL_RUN", self.run.clone()),
            ("TARE_STORE_SOCKET", self.run.join("store/ttrpc.sock")),
            ("TARE_STORE_ROOT", self.dir.join("store")),
            ("TARE_STORE_HOSTS_DIR", PathBuf::from("/none")),
            ("DOCKER_CONFIG", self.dir.join("docker")),
            ("TARECTL_RUNTIME_PROGRAM", integration::under_test()),
            (
                "TARECTL_SHIM_PROGRAM",
                std::env::var_os("SHIM_BIN").map_or_else(|| built("containerd-shim-tare-v2"), Into::into),
            ),
            ("TARECTL_STORE_PROGRAM", store::under_test()),
        ]
    }

    /// `tare-store` as a client of this world's.
    pub(crate) fn store(&self, args: &[&str]) -> Command {
        let mut command = self.program(&store::under_test());
        command.args(args);
        command
    }

    /// What the store says of what `tarectl` keeps there.
    #[track_caller]
    pub(crate) fn stored(&self, args: &[&str]) -> String {
        self.ran(self.store(&[&["-n", "tarectl"], args].concat()), 0).stdout
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        store::run(self.command(args), None)
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn fed(&self, args: &[&str], input: &str) -> Ran {
        store::run(self.command(args), Some(input.as_bytes()))
    }

    /// Runs a command that succeeds; what it wrote, without the last line's end.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.code(args, 0).stdout.trim_end().to_owned()
    }

    /// Runs a command that ends with this status.
    #[track_caller]
    pub(crate) fn code(&self, args: &[&str], expected: i32) -> Ran {
        self.ran(self.command(args), expected)
    }

    /// Runs a command that fails with one sentence and 125; the sentence.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let ran = self.code(args, 125);
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{args:?}: {}", ran.stderr);
        ran.stderr
    }

    #[track_caller]
    fn ran(&self, command: Command, expected: i32) -> Ran {
        let shown = format!("{:?}", command.get_args().skip(3).collect::<Vec<_>>());
        let ran = store::run(command, None);
        assert_eq!(ran.code, Some(expected), "{shown}\n{}{}{}", ran.stdout, ran.stderr, self.log());
        ran
    }

    /// Starts a command that goes on beside the test.
    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("start tarectl")
    }

    /// What is known of a container, as `inspect` shows it.
    #[track_caller]
    pub(crate) fn inspect(&self, name: &str) -> Value {
        let text = self.ok(&["inspect", name]);
        let list: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        list.into_iter().next().expect("one")
    }

    /// A field of it, as in `-f {{.State.Status}}`.
    #[track_caller]
    pub(crate) fn field(&self, name: &str, field: &str) -> String {
        self.ok(&["inspect", "-f", &format!("{{{{{field}}}}}"), name])
    }

    /// Waits until a container's field has this value.
    #[track_caller]
    pub(crate) fn until(&self, name: &str, field: &str, value: &str) {
        wait::until(&format!("{field} of {name} is {value}"), || self.field(name, field) == value);
    }

    /// The process of the shim of this container.
    pub(crate) fn shim(&self, id: &str) -> Pid {
        let words = ["containerd-shim-tare-v2", id, self.run.to_str().unwrap()];
        self.processes_with(&words).into_iter().next().unwrap_or_else(|| panic!("no shim of {id}"))
    }

    /// The processes whose arguments hold all of these.
    pub(crate) fn processes_with(&self, words: &[&str]) -> Vec<Pid> {
        let holds = |text: &str| words.iter().all(|word| text.contains(word));
        processes().into_iter().filter(|pid| holds(&arguments(*pid))).map(Pid::from_raw).collect()
    }

    /// What shims run at events.
    pub(crate) fn publishers(&self) -> Vec<Pid> {
        let ours = |pid: &Pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|it| String::from_utf8_lossy(&it).contains(&self.tag))
        };
        self.processes_with(&["publish", "--namespace tarectl"]).into_iter().filter(ours).collect()
    }

    /// Kills the store, if it runs.
    pub(crate) fn kill_store(&self) {
        for pid in self.processes_with(&["tare-store", "serve", self.run.to_str().unwrap()]) {
            let _ = kill(pid, Signal::SIGKILL);
            until_gone(pid);
        }
    }

    /// What the store logged, for a test that fails.
    fn log(&self) -> String {
        let text = fs::read_to_string(self.run.join("store.log")).unwrap_or_default();
        text.lines().rev().take(10).collect::<Vec<_>>().join("\n")
    }

    /// Nothing runs and nothing is held for containers: what must hold whenever none is running.
    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        wait::until("no process of a container is left", || self.left_over_processes().is_empty());
        let none = |what: &str, path: PathBuf| {
            let names: Vec<_> = fs::read_dir(&path).into_iter().flatten().flatten().map(|it| it.file_name()).collect();
            assert!(names.is_empty(), "{what} left in {}: {names:?}", path.display());
        };
        none("a running directory", self.run.join("containers"));
        none("a network namespace", self.run.join("netns"));
        none("a shim's socket", self.run.join("shims"));
        none("a state", self.run.join("runtime/tarectl"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&self.tag)).collect();
        assert!(left.is_empty(), "mounts left: {left:#?}");
        self.until_no_veth();
        let mut leased = files(&self.run.join("network/addresses"));
        // host-local's own, which stay.
        leased.retain(|it| !it.ends_with("lock") && !it.to_string_lossy().contains("last_reserved_ip"));
        assert!(leased.is_empty(), "addresses left: {leased:?}");
        let cgroups = self.cgroups();
        assert!(cgroups.is_empty(), "cgroups left: {cgroups:?}");
    }

    /// Nothing is kept of containers either.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        self.assert_idle();
        for kind in ["containers", "names"] {
            let left: Vec<_> = fs::read_dir(self.dir.join("root").join(kind)).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{kind} left: {left:?}");
        }
        let snapshots = self.stored(&["snapshot", "ls"]);
        let active: Vec<&str> = snapshots.lines().filter(|line| line.contains("active")).collect();
        assert!(active.is_empty(), "snapshots left: {active:?}");
    }

    /// Waits until the kernel has removed the host's ends of what led to containers, some time after their namespaces.
    pub(crate) fn until_no_veth(&self) {
        wait::until("no veth is left", || self.in_network(&["ip", "-o", "link", "show", "type", "veth"]).is_empty());
    }

    /// The world's network namespace.
    pub(crate) fn network(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.netns.id()))
    }

    /// A program's output in the world's network.
    pub(crate) fn in_network(&self, words: &[&str]) -> String {
        let mut command = self.program(Path::new(words[0]));
        command.args(&words[1..]);
        let ran = store::run(command, None);
        assert_eq!(ran.code, Some(0), "{words:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Processes of this world, but for its store and the holder of its network.
    fn left_over_processes(&self) -> Vec<(i32, String)> {
        let of_store = |text: &str| text.contains("tare-store") && text.contains("serve");
        let all = processes().into_iter().filter(|pid| *pid != self.netns.id().cast_signed());
        all.filter(|pid| self.is_ours(*pid)).map(|pid| (pid, arguments(pid))).filter(|(_, it)| !of_store(it)).collect()
    }

    fn is_ours(&self, pid: i32) -> bool {
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()).into_owned()
        };
        let zombie = read("stat").rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        let ids = self.ids();
        let cgroup = read("cgroup");
        !zombie
            && pid != std::process::id().cast_signed()
            && (read("cmdline").contains(&self.tag)
                || read("environ").contains(&self.tag)
                || ids.iter().any(|id| cgroup.contains(id)))
    }

    /// Every container that there ever was, as far as the events tell.
    fn ids(&self) -> BTreeSet<String> {
        let events = fs::read_to_string(self.dir.join("root/events.log")).unwrap_or_default();
        let lines = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|it| it["Type"] == "container").filter_map(|it| it["id"].as_str().map(str::to_owned)).collect()
    }

    /// Removes its containers' cgroups, which a boot would have left nothing of.
    pub(crate) fn sweep_cgroups(&self) {
        for cgroup in self.cgroups() {
            wait::until("a cgroup is empty", || fs::remove_dir(&cgroup).is_ok());
        }
    }

    /// Cgroups of its containers.
    fn cgroups(&self) -> Vec<PathBuf> {
        let ids = self.ids();
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|it| it.is_dir()) {
                    if ids.iter().any(|id| entry.file_name().to_string_lossy().contains(id.as_str())) {
                        found.push(entry.path());
                    } else {
                        open.push(entry.path());
                    }
                }
            }
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if !failed {
            for id in self.run(&["ps", "-aq", "--no-trunc"]).stdout.lines() {
                self.run(&["rm", "-f", "-v", id]);
            }
            self.assert_empty();
        } else {
            eprintln!("{}: {:#?}", self.tag, self.left_over_processes());
        }
        self.kill_store();
        for (pid, _) in self.left_over_processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            until_gone(Pid::from_raw(pid));
        }
        drop(self.netns.stdin.take());
        let _ = self.netns.wait();
        // What a failed test left mounted would go with its directories.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter(|it| it.contains(&self.tag)).filter_map(|it| it.split(' ').nth(4));
        for point in points.collect::<Vec<_>>().into_iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.run);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The image's layout, made once.
fn busybox() -> PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    let made = || {
        let top = Path::new(env!("CARGO_MANIFEST_DIR"));
        let place = top.join("../target/image-busybox");
        let mut command = Command::new(top.join("image-setup"));
        command.arg(&place).arg("busybox");
        let ran = store::run(command, None);
        assert_eq!(ran.code, Some(0), "make an image: {}", ran.stderr);
        place.canonicalize().expect("the image is there")
    };
    MADE.get_or_init(made).clone()
}

/// Waits until a process is gone; one that is not a child of ours.
pub(crate) fn until_gone(pid: Pid) {
    wait::until(&format!("process {pid} is gone"), || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    });
}

/// The whole output of a command that was started beside the test, and its status.
pub(crate) fn finish(mut child: Child) -> (i32, String, String) {
    drop(child.stdin.take());
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| stderr.read_to_string(&mut err).expect("read standard error"));
        stdout.read_to_string(&mut out).expect("read standard output");
    });
    let status = wait::child(&mut child);
    (status.code().unwrap_or(-1), out, err)
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("read /proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn arguments(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}
