//! A created or running container, force-deleted when the guard is dropped.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

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
        assert!(wait::readable(pidfd.as_fd(), wait::deadline()), "init {} of {} did not end", self.pid, self.id);
        self.reap()
    }

    fn reap(&self) -> Option<WaitStatus> {
        match waitid(Id::PIDFd(self.pidfd.as_ref()?.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => None,
            Ok(status) => Some(status),
            Err(e) => panic!("waitid {}: {e}", self.pid),
        }
    }

    /// The directory of the container's init in a cgroup hierarchy: a v1 controller's name, or "" for cgroup v2.
    pub fn cgroup(&self, controller: &str) -> PathBuf {
        leaks::cgroup_dir(self.pid, controller)
            .unwrap_or_else(|| panic!("init {} is in no cgroup of {controller:?}", self.pid))
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.call::<&str>("delete", &["--force"], &[]);
        if let Some(pidfd) = &self.pidfd
            && wait::readable(pidfd.as_fd(), wait::deadline())
        {
            self.reap();
        }
    }
}

impl fmt::Debug for Container<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container {} (init {})", self.id, self.pid)
    }
}
