//! What several tests need: cgroups of their own, mount namespaces of their own, and skips that are counted.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sched::{CloneFlags, unshare};

use crate::cgroup::Cgroup;

/// Prints why a test cannot run here, and appends it to the file `TARE_SKIPS` names, where `integration/test` counts it.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    let line = format!("skipped: {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TARE_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("a counted skip");
    }
    None
}

/// Runs `test` in a mount namespace of its own, in which nothing reaches the host, with a tmpfs to work in.
pub(crate) fn in_own_mounts(test: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        let _: Option<()> = skip("mounts need root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // A thread of its own, so that the namespace and the working directory end with the test.
    std::thread::scope(|scope| {
        let in_thread = || {
            use nix::mount::{MsFlags, mount};
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("test"), directory.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            test(directory.path());
        };
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, in_thread).unwrap();
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A pty's master and slave, close-on-exec from the start: a program that another test starts keeps neither open.
pub(crate) fn pty() -> (OwnedFd, OwnedFd) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NOCTTY)
        .open(ptsname_r(&master).unwrap())
        .unwrap();
    (master.into(), slave.into())
}

/// A cgroup below the root of the hierarchies, removed at the end.
pub(crate) struct OwnCgroup {
    name: String,
    cgroup: Cgroup,
}

impl OwnCgroup {
    /// One with the host's controllers.
    pub(crate) fn make() -> Option<Self> {
        Self::below(&Cgroup::root())
    }

    /// One of version 2, also on a hybrid host.
    pub(crate) fn make_unified() -> Option<Self> {
        let unified = crate::mountinfo::mounts(|entry| entry.kind == "cgroup2").unwrap();
        match unified.first() {
            Some(mount) => Self::below(&Cgroup::V2(mount.point.clone())),
            None => skip("no cgroups of version 2"),
        }
    }

    fn below(root: &Cgroup) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("tare-shim-unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroup = match root {
            Cgroup::V1(directories) => {
                Cgroup::V1(directories.iter().map(|(controller, at)| (controller.clone(), at.join(&name))).collect())
            }
            Cgroup::V2(directory) => Cgroup::V2(directory.join(&name)),
        };
        let own = Self { name, cgroup };
        for directory in own.directories() {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return skip(&format!("make the cgroup {}: {error}", directory.display()));
                }
                _ => {}
            }
            // A cpuset must have processors before it takes processes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(of_parent) = std::fs::read(directory.parent().unwrap().join(file)) {
                    let _ = std::fs::write(directory.join(file), of_parent);
                }
            }
        }
        Some(own)
    }

    fn directories(&self) -> Vec<&PathBuf> {
        match &self.cgroup {
            Cgroup::V1(directories) => directories.iter().map(|(_, directory)| directory).collect(),
            Cgroup::V2(directory) => vec![directory],
        }
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A process in it that waits to be killed.
    pub(crate) fn child(&self) -> Child {
        self.run("read line")
    }

    /// A shell in it that runs `script`, which starts once it is in.
    pub(crate) fn run(&self, script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut stdin = child.stdin.take().unwrap();
        self.cgroup.add(child.id()).unwrap();
        stdin.write_all(b"go\n").unwrap();
        Child { child, _stdin: stdin }
    }

    /// Removes it now; nothing may be in it.
    pub(crate) fn remove(&self) {
        for directory in self.directories() {
            // Controllers that share a hierarchy share the directory.
            if directory.is_dir() {
                std::fs::remove_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            }
        }
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        for directory in self.directories() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// A process that is killed at the end.
pub(crate) struct Child {
    child: std::process::Child,
    _stdin: std::process::ChildStdin,
}

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and says which signal it was, if one.
    pub(crate) fn wait(mut self) -> Option<i32> {
        self.child.wait().unwrap().signal()
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
