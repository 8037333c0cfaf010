//! The built program, called as daemons call it: what it prints, what it leaves running, what it leaves behind.

#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use protobuf::{EnumOrUnknown, Message, MessageField};
use tare_proto::any::pack;
use tare_proto::bootstrap::{BootstrapParams, BootstrapResult, Extension, LogLevel};
use tare_proto::runc;
use tare_proto::task_v3::{ConnectRequest, DeleteResponse, ShutdownRequest};
use tare_proto::task_v3_ttrpc::TaskClient;
use tare_proto::types::RuntimeInfo;
use tare_shim::command::wait;
use tare_shim::sys::process::pidfd_open;
use ttrpc::context;

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-tare-v2");
/// Long enough for any machine; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bundle of its own, with a log, and a directory for sockets; what was started in it ends with it.
struct Bundle {
    dir: tempfile::TempDir,
    /// Unlike that of any other test, so that processes are told apart by it.
    id: String,
}

impl Bundle {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("t{}", dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        let bundle = Self { dir, id };
        fs::create_dir(bundle.path()).unwrap();
        mkfifo(&bundle.path().join("log"), Mode::S_IRWXU).unwrap();
        bundle.write("config.json", "{}");
        bundle
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn sockets(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Called as a daemon does that knows no BootstrapParams. The address is this test's own, so the socket is, too.
    fn shim(&self, action: &str) -> Command {
        let mut command = Command::new(SHIM);
        command.current_dir(self.path()).args(["-namespace", "ns", "-id", &self.id]);
        command.arg("-address").arg(self.dir.path()).args(["-publish-binary", "/bin/false", action]);
        command.env_remove("MAX_SHIM_VERSION").env_remove("TTRPC_ADDRESS").stdin(Stdio::null());
        command
    }

    fn params(&self) -> BootstrapParams {
        BootstrapParams {
            instance_id: self.id.clone(),
            namespace: "ns".into(),
            socket_dir: Some(self.sockets().display().to_string()),
            ..Default::default()
        }
    }

    /// Starts with these parameters and returns the path of the socket.
    fn start(&self, params: &BootstrapParams) -> PathBuf {
        let output = fed(self.shim("start"), &params.write_to_bytes().unwrap());
        let result = BootstrapResult::parse_from_bytes(&succeeded(&output)).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        result.address.strip_prefix("unix://").unwrap().into()
    }

    /// The processes that serve this bundle's container.
    fn servers(&self) -> Vec<u32> {
        let mark = format!("\0-id\0{}\0", self.id);
        let processes = fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(&mark) && !line.contains("\0start\0") && !line.contains("\0delete\0")
        })
        .collect()
    }

    /// The one process that serves it. A start answers before its new process has named itself, which it does when it is ready.
    fn server(&self) -> Server {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let [pid] = self.servers()[..] {
                return Server { pid, process: pidfd_open(pid).unwrap() };
            }
            assert!(Instant::now() < deadline, "{:?} serve {}", self.servers(), self.id);
            std::thread::yield_now();
        }
    }

    /// The log from its beginning.
    fn log(&self) -> impl BufRead + use<> {
        BufReader::new(File::open(self.path().join("log")).unwrap())
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for pid in self.servers() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

struct Server {
    pid: u32,
    process: OwnedFd,
}

impl Server {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).unwrap();
    }

    fn ends(&self) {
        assert!(wait(&self.process, PATIENCE).unwrap(), "process {} does not end", self.pid);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }
}

/// Runs it to the end of its output, which comes only when nobody holds these pipes any more.
fn fed(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn succeeded(output: &Output) -> Vec<u8> {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{}: {words}", output.status);
    output.stdout.clone()
}

/// Whether tests of starts can run here.
fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Prints why a test cannot run here, and appends it to the file `TARE_SKIPS` names, where it is counted.
fn skip(why: &str) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn versions_and_mistakes() {
    let run = |words: &[&str]| Command::new(SHIM).args(words).stdin(Stdio::null()).output().unwrap();
    for flag in ["-v", "--version"] {
        let said = String::from_utf8(succeeded(&run(&[flag]))).unwrap();
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    }
    let cases: [(&[&str], i32, &str); 5] = [
        (&["-nope"], 2, "flag provided but not defined: -nope"),
        (&["-id"], 2, "flag needs an argument: -id"),
        (&["-id", "x", "start"], 1, "start needs -namespace"),
        (&["-namespace", "n", "-id", "x"], 1, "say what to do: start or delete"),
        (&["-namespace", "n", "-id", "x", "stop"], 1, "there is no action \"stop\": say start or delete"),
    ];
    for (words, status, sentence) in cases {
        let output = run(words);
        assert_eq!(output.status.code(), Some(status), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("containerd-shim-tare-v2: {sentence}\n"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn old_daemons_get_their_answers() {
    if !root() {
        return;
    }
    for versioned in [false, true] {
        let bundle = Bundle::new();
        let mut command = bundle.shim("start");
        if versioned {
            command.env("MAX_SHIM_VERSION", "2");
        }
        let options = runc::Options { shim_cgroup: String::new(), ..Default::default() };
        let said =
            String::from_utf8(succeeded(&fed(command, &pack(&options).unwrap().write_to_bytes().unwrap()))).unwrap();
        let address = if versioned {
            let json: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!((&json["version"], &json["protocol"]), (&2.into(), &"ttrpc".into()));
            json["address"].as_str().unwrap().to_owned()
        } else {
            said
        };
        assert_eq!(fs::read_to_string(bundle.path().join("address")).unwrap(), address);
        let socket = Path::new(address.strip_prefix("unix:///run/containerd/s/").map(|_| &address[7..]).unwrap());
        UnixStream::connect(socket).unwrap();
        let server = bundle.server();
        server.signal(Signal::SIGTERM);
        server.ends();
        assert!(!socket.try_exists().unwrap(), "the socket is left");
    }
}

#[test]
fn one_shim_for_a_group() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let socket = bundle.start(&bundle.params());
    assert_eq!(socket.parent(), Some(bundle.sockets().as_path()));
    assert_eq!(fs::read_link(bundle.path().join("s")).unwrap(), bundle.sockets());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&bundle.sockets()), mode(&socket)), (0o700, 0o600));
    let first = bundle.server();
    // Again, and another container of its group: the same socket, and no process more.
    assert_eq!(bundle.start(&bundle.params()), socket);
    let member = Bundle::new();
    for annotation in ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"] {
        member.write("config.json", &format!(r#"{{"annotations":{{"{annotation}":"{}"}}}}"#, bundle.id));
        let params = BootstrapParams {
            containerd_grpc_address: bundle.dir.path().display().to_string(),
            socket_dir: bundle.params().socket_dir,
            ..member.params()
        };
        assert_eq!(member.start(&params), socket);
    }
    assert_eq!((bundle.server().pid, member.servers()), (first.pid, vec![]));
    // One that is dead is replaced.
    first.signal(Signal::SIGKILL);
    first.ends();
    assert!(socket.try_exists().unwrap());
    assert_eq!(bundle.start(&bundle.params()), socket);
    UnixStream::connect(&socket).unwrap();
    assert_ne!(bundle.server().pid, first.pid);
}

#[test]
fn starts_at_once_end_in_one_shim() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let barrier = Barrier::new(8);
    let sockets: BTreeSet<PathBuf> = std::thread::scope(|scope| {
        let start = || {
            barrier.wait();
            bundle.start(&bundle.params())
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(sockets.len(), 1);
    let server = bundle.server();
    server.signal(Signal::SIGTERM);
    server.ends();
    assert_eq!(bundle.servers(), Vec::<u32>::new());
}

#[test]
fn the_process_that_stays() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let options = runc::Options { shim_cgroup: "/no/such/cgroup".into(), ..Default::default() };
    let params = BootstrapParams {
        log_level: EnumOrUnknown::new(LogLevel::LOG_LEVEL_DEBUG),
        extensions: vec![Extension { value: MessageField::some(pack(&options).unwrap()), ..Default::default() }],
        ..bundle.params()
    };
    // Through a shell that leaves descriptor 7, the pipe of the answer, open: the answer ends all the same.
    let mut command = Command::new("sh");
    let inner = bundle.shim("start");
    command.args(["-c", "exec \"$0\" \"$@\" 7>&1"]).arg(SHIM).args(inner.get_args()).current_dir(bundle.path());
    succeeded(&fed(command, &params.write_to_bytes().unwrap()));
    let server = bundle.server();
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{}/fd/{fd}", server.pid)).unwrap(), Path::new("/dev/null"));
    }
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", server.pid)).unwrap(), bundle.path().canonicalize().unwrap());
    let title: Vec<String> = server.read("cmdline").split('\0').map(str::to_owned).collect();
    assert_eq!(title[..5], [SHIM, "-namespace", "ns", "-id", &bundle.id]);
    // Session and process group are its own.
    let stat = server.read("stat");
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (server.pid.to_string().as_str(), server.pid.to_string().as_str()));
    assert_eq!(
        server.read("status").lines().filter(|line| line.starts_with("Threads:")).collect::<String>(),
        "Threads:\t1"
    );
    let score = |text: String| text.trim().parse::<i32>().unwrap();
    let ours = score(fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    assert_eq!(score(server.read("oom_score_adj")), (ours + 1).min(1000));
    // What could not be done is told, as is what is held, on request.
    let mut log = bundle.log().lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("level=warning msg=\"join the shim's cgroup\"")), "no word of the cgroup");
    assert!(log.any(|line| line.contains("msg=\"the shim serves\"")), "no word of its begin");
    server.signal(Signal::SIGUSR1);
    assert!(log.any(|line| line.contains("events queued: 0")), "no word of the queue");
}

#[test]
fn a_shim_that_is_told_to_end_says_yes_first() {
    if !root() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The answer and the end are a race: one round proves little.
    for _ in 0..20 {
        let bundle = Bundle::new();
        let socket = bundle.start(&bundle.params());
        let server = bundle.server();
        runtime.block_on(async {
            let client = ttrpc::r#async::Client::connect(&format!("unix://{}", socket.display())).await.unwrap();
            let tasks = TaskClient::new(client);
            let connected = tasks.connect(context::with_duration(PATIENCE), &ConnectRequest::default()).await.unwrap();
            assert_eq!(connected.shim_pid, server.pid);
            tasks.shutdown(context::with_duration(PATIENCE), &ShutdownRequest::default()).await.unwrap();
        });
        server.ends();
        assert!(!socket.try_exists().unwrap(), "the socket is left");
    }
}

#[test]
fn nobody_reads_the_log() {
    if !root() {
        return;
    }
    // Full before it begins, or not there at all.
    for full in [true, false] {
        let bundle = Bundle::new();
        let path = bundle.path().join("log");
        let fifo = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        if full {
            while (&fifo).write(&[b'x'; 4096]).is_ok() {}
        } else {
            fs::remove_file(&path).unwrap();
        }
        let params = BootstrapParams { log_level: EnumOrUnknown::new(LogLevel::LOG_LEVEL_DEBUG), ..bundle.params() };
        let socket = bundle.start(&params);
        UnixStream::connect(socket).unwrap();
        let server = bundle.server();
        server.signal(Signal::SIGTERM);
        server.ends();
    }
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("config.json", "{");
    let output = fed(bundle.shim("start"), &bundle.params().write_to_bytes().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("config.json") && words.lines().count() == 1 && output.stdout.is_empty(), "{words}");
    bundle.write("config.json", "{}");
    // Nowhere to write the address to.
    fs::create_dir(bundle.path().join("address")).unwrap();
    let output = fed(bundle.shim("start"), b"");
    assert!(!output.status.success());
    assert_eq!(bundle.servers(), Vec::<u32>::new());
}

/// A runtime that notes its arguments, then does this.
fn runtime(bundle: &Bundle, script: &str) -> PathBuf {
    let path = bundle.path().join("fake-runtime");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" >>'{}/calls'\n{script}\n", bundle.path().display())).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Its answer and its warnings.
fn deleted(bundle: &Bundle) -> (DeleteResponse, String) {
    let output = bundle.shim("delete").output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{words}");
    let response = DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.seconds > 1_700_000_000);
    (response, words)
}

#[test]
fn delete_asks_the_runtime_that_made_it() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let path = runtime(&bundle, "");
    bundle.write("options.json", &format!(r#"{{"binary_name":"{}","root":"/the/root"}}"#, path.display()));
    bundle.write("init.pid", "4194303");
    for _ in 0..2 {
        let (response, warnings) = deleted(&bundle);
        assert_eq!((response.pid, warnings.as_str()), (4_194_303, ""));
    }
    let log = bundle.path().join("log.json");
    let call = format!("--root /the/root/ns --log {} --log-format json delete --force {}\n", log.display(), bundle.id);
    assert_eq!(fs::read_to_string(bundle.path().join("calls")).unwrap(), call.repeat(2));
}

#[test]
fn delete_goes_on_whatever_fails() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let set = |script: &str| {
        let path = runtime(&bundle, script);
        bundle.write("options.json", &format!(r#"{{"binary_name":"{}"}}"#, path.display()));
    };
    set("echo no idea >&2; exit 1");
    assert!(deleted(&bundle).1.contains("no idea"));
    set("exec sleep 600");
    let warnings = deleted(&bundle).1;
    // The rest takes no time; the daemon gives five seconds to all.
    assert!(warnings.contains("was killed, it did not end within 3000 ms"), "{warnings}");
    bundle.write("options.json", r#"{"binary_name":"/no/such/runtime"}"#);
    assert!(deleted(&bundle).1.contains("/no/such/runtime"));
    bundle.write("options.json", "{");
    bundle.write("runtime", "/no/other/runtime");
    bundle.write("init.pid", "soon");
    let (response, warnings) = deleted(&bundle);
    assert_eq!(response.pid, 0);
    assert!(warnings.contains("options.json") && warnings.contains("init.pid"), "{warnings}");
    // A bundle with nothing in it, and none.
    for entry in fs::read_dir(bundle.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mut command = bundle.shim("delete");
    deleted(&bundle);
    fs::remove_dir(bundle.path()).unwrap();
    command.current_dir("/");
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut command = Command::new(SHIM);
    command.arg("-bundle").arg(bundle.path()).args(words).current_dir("/");
    assert!(command.output().unwrap().status.success());
}

#[test]
fn delete_kills_what_the_runtime_left() {
    if !root() {
        return;
    }
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.is_file())
    else {
        return skip("needs busybox");
    };
    let bundle = Bundle::new();
    bundle.write("runtime", "/no/such/runtime");
    let rootfs = bundle.path().join("rootfs");
    fs::create_dir(&rootfs).unwrap();
    fs::copy(busybox, rootfs.join("busybox")).unwrap();
    let sleeper = |command: &mut Command| command.args(["sleep", "600"]).stdout(Stdio::null()).spawn().unwrap();
    // It is no container's first process: its number was used again.
    let mut stranger = sleeper(&mut Command::new(busybox));
    bundle.write("init.pid", &stranger.id().to_string());
    deleted(&bundle);
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let mut chroot = Command::new("chroot");
    let mut init = sleeper(chroot.arg(&rootfs).arg("/busybox"));
    let root = PathBuf::from(format!("/proc/{}/root", init.id()));
    let deadline = Instant::now() + PATIENCE;
    while fs::read_link(&root).unwrap() != rootfs.canonicalize().unwrap() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    bundle.write("init.pid", &init.id().to_string());
    let (response, warnings) = deleted(&bundle);
    assert_eq!(response.pid, init.id());
    assert!(warnings.contains("it is killed"), "{warnings}");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&init.wait().unwrap()), Some(9));
}

#[test]
fn delete_unmounts() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("runtime", "/bin/true");
    fs::create_dir(bundle.path().join("rootfs")).unwrap();
    let script = "mount -t tmpfs one rootfs && mkdir rootfs/sub && mount -t tmpfs two rootfs/sub || exit 9
                  \"$0\" \"$@\" && ! grep \" $PWD/rootfs\" /proc/self/mounts";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, SHIM]).args(bundle.shim("delete").get_args()).current_dir(bundle.path());
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn delete_removes_the_socket_of_a_dead_shim_only() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write("runtime", "/bin/true");
    let socket = bundle.start(&bundle.params());
    deleted(&bundle);
    assert!(socket.try_exists().unwrap(), "a living shim lost its socket");
    let server = bundle.server();
    server.signal(Signal::SIGKILL);
    server.ends();
    deleted(&bundle);
    assert!(!socket.try_exists().unwrap(), "the socket is left");
    // A link that leads to nowhere.
    fs::remove_file(bundle.path().join("s")).unwrap();
    symlink("/no/where", bundle.path().join("s")).unwrap();
    deleted(&bundle);
}

#[test]
fn info() {
    let bundle = Bundle::new();
    let path = runtime(&bundle, r#"echo '{"ociVersionMax":"1.3.0","annotations":{"k":"v"}}'"#);
    let ask = |binary: &Path| {
        let options = runc::Options { binary_name: binary.display().to_string(), ..Default::default() };
        let mut command = Command::new(SHIM);
        command.arg("-info");
        fed(command, &pack(&options).unwrap().write_to_bytes().unwrap())
    };
    let info = RuntimeInfo::parse_from_bytes(&succeeded(&ask(&path))).unwrap();
    assert_eq!((info.name.as_str(), info.annotations["k"].as_str()), ("io.containerd.tare.v2", "v"));
    let output = ask(Path::new("/no/such/runtime"));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(words, "containerd-shim-tare-v2: find the runtime /no/such/runtime: there is no such program\n");
}

#[test]
fn an_idle_shim_is_small() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    bundle.start(&bundle.params());
    let server = bundle.server();
    // Of this build, which is larger than a release; what files back is shared by all shims.
    let rollup = server.read("smaps_rollup");
    let anonymous =
        rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(anonymous.parse::<u32>().unwrap() <= 512, "{rollup}");
}
