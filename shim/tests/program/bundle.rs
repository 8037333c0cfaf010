//! A bundle, and the shims that are started in it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use protobuf::Message;
use tare_proto::bootstrap::{BootstrapParams, BootstrapResult};
use tare_shim::command::wait;
use tare_shim::sys::process::pidfd_open;

pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-tare-v2");
/// Long enough for any machine; nothing waits that long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A bundle of its own, with a log, and a directory for sockets; what was started in it ends with it.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    /// Unlike that of any other test, so that processes are told apart by it.
    pub(crate) id: String,
}

impl Bundle {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("t{}", dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.'));
        let bundle = Self { dir, id };
        fs::create_dir(bundle.path()).unwrap();
        mkfifo(&bundle.path().join("log"), Mode::S_IRWXU).unwrap();
        bundle.write("config.json", "{}");
        bundle
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub(crate) fn sockets(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    /// Called as a daemon does that knows no BootstrapParams. The address is this test's own, so the socket is, too.
    pub(crate) fn shim(&self, action: &str) -> Command {
        let mut command = Command::new(SHIM);
        command.current_dir(self.path()).args(["-namespace", "ns", "-id", &self.id]);
        command.arg("-address").arg(self.dir.path()).args(["-publish-binary", "/bin/false", action]);
        command.env_remove("MAX_SHIM_VERSION").env_remove("TTRPC_ADDRESS").stdin(Stdio::null());
        command
    }

    pub(crate) fn params(&self) -> BootstrapParams {
        BootstrapParams {
            instance_id: self.id.clone(),
            namespace: "ns".into(),
            socket_dir: Some(self.sockets().display().to_string()),
            ..Default::default()
        }
    }

    /// Starts with these parameters and returns the path of the socket.
    pub(crate) fn start(&self, params: &BootstrapParams) -> PathBuf {
        let output = fed(self.shim("start"), &params.write_to_bytes().unwrap());
        let result = BootstrapResult::parse_from_bytes(&succeeded(&output)).unwrap();
        assert_eq!((result.version, result.protocol.as_str()), (3, "ttrpc"));
        result.address.strip_prefix("unix://").unwrap().into()
    }

    /// The processes that serve this bundle's container.
    pub(crate) fn servers(&self) -> Vec<u32> {
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
    pub(crate) fn server(&self) -> Server {
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
    pub(crate) fn log(&self) -> impl BufRead + use<> {
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

pub(crate) struct Server {
    pub(crate) pid: u32,
    process: OwnedFd,
}

impl Server {
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid as i32), signal).unwrap();
    }

    pub(crate) fn ends(&self) {
        assert!(wait(&self.process, PATIENCE).unwrap(), "process {} does not end", self.pid);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }
}

/// Runs it to the end of its output, which comes only when nobody holds these pipes any more.
pub(crate) fn fed(mut command: Command, stdin: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

pub(crate) fn succeeded(output: &Output) -> Vec<u8> {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && words.is_empty(), "{}: {words}", output.status);
    output.stdout.clone()
}

/// Whether tests of starts can run here.
pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Prints why a test cannot run here, and appends it to the file `TARE_SKIPS` names, where it is counted.
pub(crate) fn skip(why: &str) {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// A runtime that notes its arguments, then does this.
pub(crate) fn runtime(bundle: &Bundle, script: &str) -> PathBuf {
    let path = bundle.path().join("fake-runtime");
    fs::write(&path, format!("#!/bin/sh\necho \"$@\" >>'{}/calls'\n{script}\n", bundle.path().display())).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}
