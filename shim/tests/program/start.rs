//! `start`, and the process that it leaves.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use nix::sys::signal::Signal;
use protobuf::{EnumOrUnknown, Message, MessageField};
use tare_proto::any::pack;
use tare_proto::bootstrap::{BootstrapParams, Extension, LogLevel};
use tare_proto::runc;
use tare_proto::task_v3::{ConnectRequest, ShutdownRequest};
use tare_proto::task_v3_ttrpc::TaskClient;
use ttrpc::context;

use crate::bundle::{Bundle, PATIENCE, SHIM, fed, root, succeeded};

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

/// As a supervisor starts it: `-socket`, and no action.
#[test]
fn a_shim_may_be_told_where_to_serve() {
    if !root() {
        return;
    }
    let bundle = Bundle::new();
    let path = bundle.sockets().join("mine");
    let serving = || {
        let mut command = Command::new(SHIM);
        command.args(["-namespace", "ns", "-id", &bundle.id, "-debug-socket", "/no/where", "-debug", "-socket"]);
        command.arg(&path).current_dir(bundle.path());
        command
    };
    // The leader of a group of processes cannot leave it.
    let mut serves = std::os::unix::process::CommandExt::process_group(&mut serving(), 0).spawn().unwrap();
    let server = bundle.server();
    assert_eq!(server.pid, serves.id());
    // It is there before it serves.
    while std::os::unix::net::UnixStream::connect(&path).is_err() {
        assert_eq!(serves.try_wait().unwrap(), None, "it ended");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = ttrpc::r#async::Client::connect(&format!("unix://{}", path.display())).await.unwrap();
        let tasks = TaskClient::new(client);
        let connected = tasks.connect(context::with_duration(PATIENCE), &ConnectRequest::default()).await.unwrap();
        assert_eq!(connected.shim_pid, server.pid);
    });
    let second = serving().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8(second.stderr).unwrap();
    assert!(words.ends_with(&format!("another process serves {} already\n", path.display())), "{words}");
    server.signal(Signal::SIGTERM);
    assert!(serves.wait().unwrap().success());
    assert!(!path.try_exists().unwrap(), "the socket is left");
}
