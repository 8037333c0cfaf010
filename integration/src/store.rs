//! A store's daemon of a test's own, and its command line.
//!
//! ```no_run
//! use integration::store::Daemon;
//!
//! let store = Daemon::start();                        // private root and socket; ready when this returns
//! let digest = store.fed(&["content", "put", "a"], b"hello").ok().stdout;
//! assert_eq!(store.run(&["content", "get", digest.trim()]).ok().stdout, "hello");
//! assert!(store.run(&["images", "none~"]).fails().stderr.contains("filter"));
//! let images = store.json(&["images"]);               // with --json, parsed
//! store.stop();                                       // SIGTERM; fails the test unless it ends with 0
//! ```

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{built, sys, wait};

/// `STORE_BIN`, or else the newer of the built `release` and `debug` `tare-store`.
pub fn under_test() -> PathBuf {
    std::env::var_os("STORE_BIN").map_or_else(|| built("tare-store"), PathBuf::from)
}

/// A daemon that runs. Dropped, it is killed.
pub struct Daemon {
    /// The daemon's own directory: `root`, `run`, `log`.
    pub dir: PathBuf,
    child: Child,
    owned: bool,
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Ran {
    what: String,
    /// The exit status.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// The same, byte for byte.
    pub bytes: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// It ended with 0; otherwise the test fails with all it said.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}{}", self.what, self.stdout, self.stderr);
        self
    }

    /// It ended with 1.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert_eq!(self.code, Some(1), "{}\n{}{}", self.what, self.stdout, self.stderr);
        self
    }
}

impl Daemon {
    /// A daemon in a directory that goes with it.
    pub fn start() -> Self {
        let mut daemon = Self::start_in(&tempdir(), &[]);
        daemon.owned = true;
        daemon
    }

    /// A daemon in this directory, which stays, with further flags. Returns when it says that it is ready.
    pub fn start_in(dir: &Path, flags: &[&str]) -> Self {
        Self::spawn(dir, flags, |_| ())
    }

    /// The same, with what else its process needs.
    pub fn spawn(dir: &Path, flags: &[&str], more: impl FnOnce(&mut Command)) -> Self {
        let told = dir.join("ready");
        let _ = std::fs::remove_file(&told);
        let ready = UnixDatagram::bind(&told).expect("make the socket on which the daemon says that it is ready");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("make the log");
        let mut command = serve(dir, flags);
        command.env("NOTIFY_SOCKET", &told).stdout(log.try_clone().expect("share the log")).stderr(log);
        more(&mut command);
        let child = command.spawn().expect("start the daemon");
        let daemon = Self { dir: dir.to_owned(), child, owned: false };
        // One that fails says so and ends.
        let process = sys::pidfd_open(daemon.pid().as_raw()).expect("watch the daemon");
        let is_ready = wait::first_readable(ready.as_fd(), process.as_fd(), wait::deadline());
        assert!(is_ready, "the daemon is not ready: {}", daemon.log());
        let mut word = [0; 64];
        let length = ready.recv(&mut word).expect("hear the daemon");
        assert_eq!(&word[..length], b"READY=1");
        daemon
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.dir)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process number"))
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The command line, as a client of this daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        client(&self.socket(), args)
    }

    /// Runs a command.
    pub fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args), None)
    }

    /// Runs a command with this on its standard input.
    pub fn fed(&self, args: &[&str], input: &[u8]) -> Ran {
        run(self.command(args), Some(input))
    }

    /// Runs a command that succeeds with `--json`; what it printed, line by line.
    #[track_caller]
    pub fn json_lines(&self, args: &[&str]) -> Vec<serde_json::Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let ran = self.run(&args).ok();
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        ran.stdout.lines().map(parse).collect()
    }

    /// The last of those: the result.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        self.json_lines(args).pop().expect("a result")
    }

    /// The most memory that it ever had, in KiB, as the kernel counts it.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("read its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Asks it to end, as service managers do; it must end well.
    pub fn stop(mut self) {
        kill(self.pid(), Signal::SIGTERM).expect("ask the daemon to end");
        let status = wait::child(&mut self.child);
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Kills it where it stands.
    pub fn kill(mut self) {
        kill(self.pid(), Signal::SIGKILL).expect("kill the daemon");
        wait::child(&mut self.child);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log: {}", self.log());
        }
        if self.owned {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// The daemon's command, with its own root and socket below `dir` and nothing of this user's.
pub fn serve(dir: &Path, flags: &[&str]) -> Command {
    serve_on(&socket(dir), &dir.join("root"), flags)
}

/// The same with both said.
pub fn serve_on(socket: &Path, root: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(under_test());
    command.arg("serve").arg("--socket").arg(socket).arg("--root").arg(root);
    command.args(["--hosts-dir", "/none", "--docker-config", ""]).args(flags).stdin(Stdio::null());
    clean(&mut command);
    command
}

/// A command of a client.
pub fn client(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(under_test());
    command.arg("--socket").arg(socket).args(args);
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TARE_STORE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("CONTAINERD_NAMESPACE").env_remove("SOURCE_DATE_EPOCH");
    command.env("DOCKER_CONFIG", "/none");
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("run/ttrpc.sock")
}

/// Runs it to its end, with the input given and the output taken at once.
pub fn run(mut command: Command, input: Option<&[u8]>) -> Ran {
    let what = format!("{command:?}");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start the command");
    let (stdin, mut out, mut err) = (child.stdin.take(), child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // One that takes no more says why.
                let _ = stdin.write_all(input);
            }
        });
        scope.spawn(|| err.read_to_end(&mut stderr).expect("read standard error"));
        out.read_to_end(&mut stdout).expect("read standard output");
    });
    let status = wait::child(&mut child);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { what, code: status.code(), stdout: text(&stdout), bytes: stdout, stderr: text(&stderr) }
}

/// The directory into which an active snapshot's changes go, by its mounts.
pub fn upper(mounts: &serde_json::Value) -> PathBuf {
    let mount = &mounts[0];
    let options = mount["options"].as_array().into_iter().flatten();
    let upper = options.filter_map(|it| it.as_str()?.strip_prefix("upperdir=")).next();
    upper.or_else(|| mount["source"].as_str()).unwrap_or_else(|| panic!("{mounts}")).into()
}

/// A directory for one daemon, on a file system on which overlayfs' directories can lie.
pub fn tempdir() -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = PathBuf::from(format!("/var/tmp/tare-store-{}-{number}", std::process::id()));
    std::fs::create_dir(&dir).expect("make a directory of the test's own");
    dir
}
