//! One test's runtime: the binary under test with a state root, a work directory and names of its own.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Bundle, Container, Leaks, Output, sys, wait};

/// The runtime under test. Dropping it deletes what is left and checks that nothing stays behind.
pub struct Runtime {
    binary: PathBuf,
    tag: String,
    work: PathBuf,
    flags: Vec<String>,
    counter: AtomicU32,
}

impl Runtime {
    /// The runtime that `TARE_BIN` names, or the built `tare`; with a fresh state root and work directory.
    pub fn from_env() -> Runtime {
        Runtime::of_binary(&under_test())
    }

    /// A particular runtime binary, for comparisons.
    pub fn of_binary(binary: &Path) -> Runtime {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        nix::sys::prctl::set_child_subreaper(true).expect("become a child subreaper");
        let tag = format!("te{}n{}e", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let work = std::env::temp_dir().join(format!("tare-{tag}"));
        // Traversable, so that a container in a user namespace reaches its root file system.
        fs::create_dir(&work).unwrap_or_else(|e| panic!("make the work directory {}: {e}", work.display()));
        Runtime { binary: binary.to_owned(), tag, work, flags: Vec::new(), counter: AtomicU32::new(0) }
    }

    /// The same, with further global flags before each command (`--systemd-cgroup`, …).
    pub fn global_flags(mut self, flags: &[&str]) -> Runtime {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// The binary under test.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The mark that everything of this test carries.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// A directory for the test, removed at the end.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The state root (`--root`). The runtime makes it.
    pub fn root(&self) -> PathBuf {
        self.work.join("state")
    }

    /// A new path in the work directory; nothing is made there.
    pub fn fresh_path(&self, name: &str) -> PathBuf {
        self.work.join(format!("{}-{name}", self.counter.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new container id.
    pub fn fresh_id(&self) -> String {
        format!("{}c{}", self.tag, self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A bundle with a busybox root file system and runc's default configuration, without a terminal, running `args`.
    pub fn bundle(&self, args: &[&str]) -> Bundle {
        Bundle::make(self.fresh_path("bundle"), args)
    }

    /// The bare command with the global flags that every call has: `--root`, and the rest of `--log` and `--log-format`.
    /// For tests that need pipes, terminals or other credentials; most want [`Runtime::call`].
    pub fn command(&self, log: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(self.root()).arg("--log").arg(log).args(["--log-format", "json"]).args(&self.flags);
        command.env("TARE_TEST_TAG", &self.tag).stdin(Stdio::null());
        command
    }

    /// Starts a call without waiting for its end. Output goes to files.
    pub fn spawn<S: AsRef<OsStr>>(&self, args: &[S], adjust: impl FnOnce(&mut Command)) -> Running {
        let base = self.fresh_path("call");
        let [log, out, err] = ["log", "out", "err"].map(|suffix| base.with_extension(suffix));
        let mut command = self.command(&log);
        let open =
            |path: &Path| fs::OpenOptions::new().create_new(true).append(true).open(path).expect("make an output file");
        command.args(args).stdout(open(&out)).stderr(open(&err));
        adjust(&mut command);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let pidfd = sys::pidfd_open(child.id() as i32).expect("pidfd_open of a child not waited for");
        Running { command: format!("{command:?}"), child, pidfd, started, log, out, err, done: false }
    }

    /// Calls the runtime and waits for its end.
    pub fn call<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.spawn(args, |_| {}).wait()
    }

    /// Runs a container in the foreground, to its end.
    pub fn run(&self, bundle: &Bundle) -> Output {
        self.run_with(bundle, &[], |_| {})
    }

    /// The same with flags after `run` and a last word on the command (stdin, descriptors, environment).
    pub fn run_with(&self, bundle: &Bundle, flags: &[&str], adjust: impl FnOnce(&mut Command)) -> Output {
        bundle.write();
        let id = self.fresh_id();
        let mut args = vec!["run", "--bundle", bundle.path_str()];
        args.extend(flags);
        args.push(&id);
        self.spawn(&args, adjust).wait()
    }

    /// Creates a container; when the runtime fails, what it said is the error.
    pub fn create(&self, bundle: &Bundle, flags: &[&str]) -> Result<Container<'_>, Output> {
        self.bring_up("create", bundle, flags, |_| {})
    }

    /// Creates and starts a container that outlives the call (`run --detach`).
    pub fn run_detached(&self, bundle: &Bundle, flags: &[&str]) -> Result<Container<'_>, Output> {
        let flags: Vec<&str> = ["--detach"].iter().chain(flags).copied().collect();
        self.bring_up("run", bundle, &flags, |_| {})
    }

    /// `create` or `run --detach` with a last word on the command.
    pub fn bring_up(
        &self,
        verb: &str,
        bundle: &Bundle,
        flags: &[&str],
        adjust: impl FnOnce(&mut Command),
    ) -> Result<Container<'_>, Output> {
        bundle.write();
        let id = self.fresh_id();
        let pid_file = self.fresh_path("pid");
        let mut args: Vec<&OsStr> = vec![verb.as_ref(), "--bundle".as_ref(), bundle.path().as_ref()];
        args.extend(["--pid-file".as_ref(), pid_file.as_os_str()]);
        args.extend(flags.iter().map(OsStr::new));
        args.push(id.as_ref());
        let running = self.spawn(&args, adjust);
        let (out, err) = (running.out.clone(), running.err.clone());
        let output = running.wait();
        if !output.status.success() {
            return Err(output);
        }
        let pid = fs::read_to_string(&pid_file).unwrap_or_else(|e| panic!("the pid file: {e}: {output:?}"));
        let pid: i32 = pid.trim().parse().unwrap_or_else(|e| panic!("pid file {pid:?}: {e}"));
        Ok(Container::new(self, id, pid, out, err))
    }

    /// The state directory's container ids.
    pub(crate) fn state_ids(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root()) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for id in self.state_ids() {
            self.call(&["delete", "--force", &id]);
        }
        let left = Leaks::snapshot(self);
        left.clean_up();
        let removed = fs::remove_dir_all(&self.work);
        if !std::thread::panicking() {
            left.assert_empty();
            removed.unwrap_or_else(|e| panic!("remove the work directory {}: {e}", self.work.display()));
        }
    }
}

/// A call of the runtime that has not been waited for.
pub struct Running {
    command: String,
    child: Child,
    pidfd: OwnedFd,
    started: Instant,
    log: PathBuf,
    out: PathBuf,
    err: PathBuf,
    done: bool,
}

impl Running {
    /// The runtime process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// The child itself, for pipes given in `adjust`.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The file its standard output goes to.
    pub fn stdout_file(&self) -> &Path {
        &self.out
    }

    /// The file its standard error goes to.
    pub fn stderr_file(&self) -> &Path {
        &self.err
    }

    /// Sends the runtime process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the runtime");
    }

    /// Waits for its end; at the deadline it is killed and the test fails.
    pub fn wait(mut self) -> Output {
        let in_time = wait::readable_while_reaping(self.pidfd.as_fd(), wait::deadline());
        if !in_time {
            let _ = self.child.kill();
        }
        self.done = true;
        let status = self.child.wait().expect("wait for the runtime");
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let log =
            text(&self.log).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into())).collect();
        let output = Output {
            command: std::mem::take(&mut self.command),
            status,
            stdout: text(&self.out),
            stderr: text(&self.err),
            log,
            took: self.started.elapsed(),
        };
        assert!(in_time, "did not end before the deadline: {output:?}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The directory `target/<triple>/` (or `target/`) this program was built into.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("the path of this program");
    // <target>/<profile>/deps/e2e-… for a test, <target>/<profile>/bench for a program
    let profile = exe.ancestors().skip(1).find(|dir| !dir.ends_with("deps")).expect("a build directory");
    profile.parent().expect("a target directory").to_owned()
}

fn newest(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let age = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    candidates.into_iter().filter(|path| path.is_file()).max_by_key(age)
}

/// The binary that [`Runtime::from_env`] runs.
pub fn under_test() -> PathBuf {
    if let Some(path) = std::env::var_os("TARE_BIN") {
        return path.into();
    }
    let target = target_dir();
    newest(["release", "debug"].map(|profile| target.join(profile).join("tare"))).unwrap_or_else(|| {
        panic!("no tare in {} (release or debug): run `cargo build` first, or set TARE_BIN", target.display())
    })
}

/// The built `probe`, the program that reports from inside a container.
pub fn probe_path() -> PathBuf {
    built("probe")
}

/// A program of ours, in the newer of the two profiles.
pub fn built(name: &str) -> PathBuf {
    let target = target_dir();
    newest(["release", "debug"].map(|profile| target.join(profile).join(name)))
        .unwrap_or_else(|| panic!("no {name} in {}: run `cargo build --workspace` first", target.display()))
}

/// The debug build of a program of ours: with the points where tests let it fail.
pub fn built_for_debugging(name: &str) -> PathBuf {
    let path = target_dir().join("debug").join(name);
    assert!(path.is_file(), "no {}: run `cargo build --workspace` first", path.display());
    path
}

/// Where a program of this name is, as the shell would find it.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}
