//! A created or running container, force-deleted when the guard is dropped.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use serde_json::Value;

use crate::{Output, Runtime, leaks, sys, wait};

/// A container of a test.
pub struct Container<'r> {
    runtime: &'r Runtime,
    id: String,
    pid: i32,
    /// None when init had ended and been reaped before we could look.
    pidfd: Option<OwnedFd>,
    out: PathBuf,
    err: PathBuf,
}

impl<'r> Container<'r> {
    pub(crate) fn new(runtime: &'r Runtime, id: String, pid: i32, out: PathBuf, err: PathBuf) -> Self {
        Container { runtime, id, pid, pidfd: sys::pidfd_open(pid).ok(), out, err }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Init's pid on the host, from the pid file.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor of init.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_ref().expect("init was still there").as_fd()
    }

    /// What the container has written to its standard output so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.out).expect("read the container's output")
    }

    /// What the container has written to its standard error so far (the runtime's own lines come first).
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.err).expect("read the container's errors")
    }

    /// Waits until the standard output satisfies `enough`, and returns it.
    pub fn wait_stdout(&self, enough: impl Fn(&str) -> bool) -> String {
        wait::file(&self.out, enough)
    }

    /// Calls `<runtime> <verb> <flags> <id> <rest>`.
    pub fn call<S: AsRef<OsStr>>(&self, verb: &str, flags: &[&str], rest: &[S]) -> Output {
        let mut args: Vec<&OsStr> = vec![verb.as_ref()];
        args.extend(flags.iter().map(OsStr::new));
        args.push(self.id.as_ref());
        args.extend(rest.iter().map(AsRef::as_ref));
        self.runtime.call(&args)
    }

    /// `start`.
    pub fn start(&self) -> Output {
        self.call::<&str>("start", &[], &[])
    }

    /// `exec` in the foreground.
    pub fn exec(&self, command: &[&str]) -> Output {
        self.call("exec", &[], command)
    }

    /// `exec` with flags.
    pub fn exec_with(&self, flags: &[&str], command: &[&str]) -> Output {
        self.call("exec", flags, command)
    }

    /// `exec --detach` with flags. The process becomes ours, and is reaped as soon as it ends.
    pub fn exec_detached(&self, flags: &[&str], command: &[&str]) -> Result<Orphan, Output> {
        let pid_file = self.runtime.fresh_path("pid");
        let mut all = vec!["--detach", "--pid-file", pid_file.to_str().expect("a plain path")];
        all.extend(flags);
        let output = self.exec_with(&all, command);
        if !output.status.success() {
            return Err(output);
        }
        let pid = fs::read_to_string(&pid_file).unwrap_or_else(|e| panic!("the pid file: {e}: {output:?}"));
        assert!(pid.bytes().all(|byte| byte.is_ascii_digit()), "the pid file holds the number alone: {pid:?}");
        Ok(Orphan::adopt(pid.parse().expect("a pid")))
    }

    /// `kill` with a signal by name or number.
    pub fn kill(&self, signal: &str) -> Output {
        self.call("kill", &[], &[signal])
    }

    /// `delete`, not forced.
    pub fn delete(&self) -> Output {
        self.call::<&str>("delete", &[], &[])
    }

    /// `state`, parsed; panics if it fails.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.call::<&str>("state", &[], &[]).ok().json()
    }

    /// The status that `state` tells.
    #[track_caller]
    pub fn status(&self) -> String {
        self.state()["status"].as_str().expect("a status").to_owned()
    }

    /// Waits for init's end and reaps it if it is ours; says how it ended, if that could be learnt.
    pub fn wait_exit(&self) -> Option<WaitStatus> {
        let pidfd = self.pidfd.as_ref()?;
        assert!(
            wait::readable_while_reaping(pidfd.as_fd(), wait::deadline()),
            "init {} of {} did not end",
            self.pid,
            self.id
        );
        self.reap()
    }

    fn reap(&self) -> Option<WaitStatus> {
        match waitid(Id::PIDFd(self.pidfd.as_ref()?.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => None,
            Ok(status) => Some(status),
            Err(e) => panic!("waitid {}: {e}", self.pid),
        }
    }

    /// The directory of the container's init in the cgroup hierarchy that has the controller; "" is for the unified one, which is
    /// taken for a controller that version 1 does not have here, too.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        leaks::cgroup_dir(self.pid, controller)
            .or_else(|| leaks::cgroup_dir(self.pid, ""))
            .unwrap_or_else(|| panic!("init {} is in no cgroup of {controller:?}", self.pid))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.call::<&str>("delete", &["--force"], &[]);
        if let Some(pidfd) = &self.pidfd
            && wait::readable_while_reaping(pidfd.as_fd(), wait::deadline())
        {
            self.reap();
        }
    }
}

/// A process in a container that the runtime left to us, as it leaves them to conmon or a shim. Someone must reap it as soon
/// as it ends, or the end of the container's init hangs: the kernel waits for all processes of a pid namespace to be gone.
pub struct Orphan {
    pid: i32,
    end: JoinHandle<Option<WaitStatus>>,
}

fn adopted() -> MutexGuard<'static, BTreeSet<i32>> {
    static ADOPTED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    ADOPTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an [`Orphan`] reaps this process.
pub(crate) fn is_adopted(pid: i32) -> bool {
    adopted().contains(&pid)
}

impl Orphan {
    /// Takes charge of a process.
    pub fn adopt(pid: i32) -> Orphan {
        adopted().insert(pid);
        let end = std::thread::spawn(move || {
            let pidfd = sys::pidfd_open(pid).ok()?;
            while !wait::readable(pidfd.as_fd(), wait::deadline()) {}
            let end = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).ok();
            adopted().remove(&pid);
            end
        });
        Orphan { pid, end }
    }

    /// Its pid on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for its end; says how it ended, if it was ours to reap.
    pub fn wait(self) -> Option<WaitStatus> {
        self.end.join().expect("the thread that waits")
    }
}

impl fmt::Debug for Orphan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} in a container", self.pid)
    }
}

impl fmt::Debug for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} (init {})", self.id, self.pid)
    }
}
