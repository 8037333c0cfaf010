//! What is compared: the floor, the runtime under test, and the runtimes installed here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration::{build_rootfs, sys, wait};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::Value;
use std::os::fd::AsFd;

/// One program to time.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    /// None for a runtime; for the floor, its `NAME:DIRECTORY` arguments.
    floor: Option<Vec<String>>,
    work: PathBuf,
}

/// Takes the benchmark out of what would make contenders unequal: crun 1.8 refuses a hybrid host, so the unified mount of
/// one is hidden, for all of them; and detached containers are ours to reap.
pub(crate) fn prepare() {
    nix::sys::prctl::set_child_subreaper(true).expect("become a child subreaper");
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of our own (as root)");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("keep mounts to ourselves");
    let mounts = cgroup_mounts();
    if mounts.iter().any(|(kind, ..)| kind == "cgroup") {
        for (_, _, point) in mounts.iter().filter(|(kind, ..)| kind == "cgroup2") {
            umount2(point, MntFlags::MNT_DETACH).expect("hide the unified hierarchy");
        }
    }
}

/// (cgroup or cgroup2, controllers, mount point).
fn cgroup_mounts() -> Vec<(String, String, PathBuf)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let right: Vec<&str> = right.split(' ').collect();
        let point = PathBuf::from(left.split(' ').nth(4)?);
        right[0].starts_with("cgroup").then(|| (right[0].to_owned(), right[2].to_owned(), point))
    };
    table.lines().filter_map(parse).collect()
}

/// The directories of the cgroups that the default bundle's container is in, as the floor takes them.
fn floor_cgroups(name: &str) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("read our cgroups");
    let path_of = |controller: &str| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            fields.next()?.split(',').any(|name| name == controller).then(|| fields.next().map(str::to_owned))?
        })
    };
    let argument = |(kind, options, point): (String, String, PathBuf)| {
        let shown = if kind == "cgroup2" { "2".to_owned() } else { point.file_name()?.to_str()?.to_owned() };
        let own = if kind == "cgroup2" { path_of("")? } else { options.split(',').find_map(path_of)? };
        Some(format!("{shown}:{}", point.join(own.trim_start_matches('/')).join(name).display()))
    };
    cgroup_mounts().into_iter().filter_map(argument).collect()
}

/// The contenders there are: the floor, tare, then `RUNTIMES` (crun and runc) as far as they are installed.
pub(crate) fn all() -> Vec<Contender> {
    let work = std::env::temp_dir().join(format!("tare-bench-{}", std::process::id()));
    fs::create_dir(&work).expect("make a work directory");
    let contender = |name: &str, binary: PathBuf, floor| {
        let work = work.join(name);
        fs::create_dir(&work).expect("make a work directory");
        build_rootfs(&work.join("rootfs"));
        // As on every host that has its /run in memory. A disk's file system would be measured with each, and not the same.
        let state = work.join("state");
        fs::create_dir(&state).expect("make a directory for states");
        mount(Some("state"), &state, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("mount a tmpfs for states");
        Contender { name: name.to_owned(), binary, floor, work }
    };
    let mut all = Vec::new();
    if let Some(floor) = std::env::var_os("TARE_FLOOR") {
        all.push(contender("floor", floor.into(), Some(floor_cgroups(&format!("floor{}", std::process::id())))));
    }
    if let Some(tare) = std::env::var_os("TARE_BIN") {
        all.push(contender("tare", tare.into(), None));
    }
    let others = std::env::var("RUNTIMES").unwrap_or_else(|_| "crun runc".to_owned());
    for name in others.split_whitespace() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file()) {
            Some(binary) => all.push(contender(Path::new(name).file_name().unwrap().to_str().unwrap(), binary, None)),
            None => eprintln!("{name} is not installed here, and so not compared"),
        }
    }
    all
}

/// A finished program: how long it took, and whether it succeeded.
pub(crate) struct Finished {
    pub(crate) milliseconds: f64,
    pub(crate) usage: sys::Usage,
    pub(crate) result: io::Result<()>,
}

impl Contender {
    pub(crate) fn is_floor(&self) -> bool {
        self.floor.is_some()
    }

    /// Writes `config.json`. One bundle directory each, changed between groups.
    pub(crate) fn configure(&self, config: &Value) {
        fs::write(self.work.join("config.json"), config.to_string()).expect("write config.json");
    }

    /// Where this contender's root file system is.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.work.join("rootfs")
    }

    fn errors(&self) -> PathBuf {
        self.work.join("errors")
    }

    /// The command for a verb; output goes nowhere, errors to a file.
    pub(crate) fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(cgroups) = &self.floor {
            command.arg(self.rootfs()).arg("/bin/true").args(cgroups);
        } else {
            command.arg("--root").arg(self.work.join("state")).arg(verb);
            if matches!(verb, "run" | "create") {
                command.arg("--bundle").arg(&self.work);
            }
            command.args(arguments);
        }
        let errors = fs::File::create(self.errors()).expect("make a file for errors");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        command
    }

    /// Runs a verb to its end.
    pub(crate) fn time(&self, verb: &str, arguments: &[&str]) -> Finished {
        let mut command = self.command(verb, arguments);
        let begin = Instant::now();
        #[expect(clippy::zombie_processes, reason = "waited for by wait4, which tells its memory and processor time")]
        let child = command.spawn().expect("start");
        let usage = sys::wait_with_usage(child.id() as i32).expect("wait4");
        let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
        let result = if usage.status == 0 { Ok(()) } else { Err(self.failure(verb)) };
        Finished { milliseconds, usage, result }
    }

    fn failure(&self, verb: &str) -> io::Error {
        let text = fs::read_to_string(self.errors()).unwrap_or_default();
        io::Error::other(format!("{} {verb} failed: {}", self.name, text.trim()))
    }

    /// Like `time`, but a failure ends the benchmark: for what every contender can do.
    pub(crate) fn must(&self, verb: &str, arguments: &[&str]) -> f64 {
        self.finish(verb, arguments).milliseconds
    }

    /// The same with all that is known.
    pub(crate) fn finish(&self, verb: &str, arguments: &[&str]) -> Finished {
        let finished = self.time(verb, arguments);
        if let Err(e) = &finished.result {
            self.give_up(&e.to_string());
        }
        finished
    }

    /// Ends the benchmark, and leaves nothing of it behind. The release build aborts on a panic, so nothing would be dropped.
    pub(crate) fn give_up(&self, why: &str) -> ! {
        eprintln!("{why}");
        for id in fs::read_dir(self.work.join("state")).into_iter().flatten().flatten() {
            let id = id.file_name();
            let _ = self.time("delete", &["--force", &id.to_string_lossy()]);
        }
        let _ = self.work.parent().map(fs::remove_dir_all);
        std::process::exit(1)
    }

    /// A pid file's path for the container.
    pub(crate) fn pid_file(&self) -> String {
        self.work.join("pid").display().to_string()
    }

    /// Kills the container's init and waits for its end.
    pub(crate) fn end(&self, id: &str) {
        let pid: i32 = fs::read_to_string(self.pid_file()).expect("a pid file").trim().parse().expect("a pid");
        if let Ok(pidfd) = sys::pidfd_open(pid) {
            self.must("kill", &[id, "KILL"]);
            assert!(wait::readable(pidfd.as_fd(), Instant::now() + Duration::from_secs(20)), "{id} does not end");
        }
        reap();
    }
}

/// Reaps what detached containers left to us. The benchmark waits for every child of its own before it calls this.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = umount2(&self.work.join("state"), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.work);
        // The last one to go takes the common directory along.
        let _ = self.work.parent().map(fs::remove_dir);
    }
}
