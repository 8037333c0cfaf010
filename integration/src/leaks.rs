//! What a test has left on the machine: only what carries its tag is looked at, so that tests can run in parallel.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Runtime, sys, wait};

/// One look at everything of one test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaks {
    /// Mount points in this mount namespace on or of the test's paths. A namespace kept alive by a bind mount is among them.
    /// Mounts on top of one another are numbered.
    pub mounts: BTreeSet<(PathBuf, usize)>,
    /// Directories in any cgroup hierarchy, named with the tag (systemd's units too).
    pub cgroups: BTreeSet<PathBuf>,
    /// Processes that are not zombies: by cgroup, command line, environment or root file system.
    pub processes: BTreeSet<(i32, String)>,
    /// Containers in the state root.
    pub state: BTreeSet<String>,
    /// Descriptors of this process. Only under cargo-nextest, where each test has a process of its own.
    pub descriptors: BTreeSet<(u32, PathBuf)>,
}

impl Leaks {
    /// Looks now.
    pub fn snapshot(runtime: &Runtime) -> Leaks {
        Leaks {
            mounts: mounts(runtime),
            cgroups: cgroups(runtime.tag()),
            processes: processes(runtime),
            state: runtime.state_ids().into_iter().collect(),
            descriptors: descriptors(),
        }
    }

    /// Panics, naming the difference, unless now is as it was then. Processes that are just ending are waited for.
    #[track_caller]
    pub fn assert_same(&self, runtime: &Runtime) {
        let now = settled(runtime, self);
        assert!(now == *self, "left behind or lost:\n{}", self.difference(&now));
    }

    /// Panics unless nothing is there.
    #[track_caller]
    pub(crate) fn assert_empty(&self) {
        let nothing = Leaks { descriptors: self.descriptors.clone(), ..Leaks::default() };
        assert!(*self == nothing, "left behind at the end of the test:\n{}", nothing.difference(self));
    }

    fn difference(&self, now: &Leaks) -> String {
        fn lines<T: Ord + std::fmt::Debug>(text: &mut String, what: &str, then: &BTreeSet<T>, now: &BTreeSet<T>) {
            now.difference(then).for_each(|item| *text += &format!("  new {what}: {item:?}\n"));
            then.difference(now).for_each(|item| *text += &format!("  gone {what}: {item:?}\n"));
        }
        let mut text = String::new();
        lines(&mut text, "mount", &self.mounts, &now.mounts);
        lines(&mut text, "cgroup", &self.cgroups, &now.cgroups);
        lines(&mut text, "process", &self.processes, &now.processes);
        lines(&mut text, "state", &self.state, &now.state);
        lines(&mut text, "descriptor", &self.descriptors, &now.descriptors);
        text
    }

    /// Ends, unmounts and removes everything seen, so that a failed test does not disturb the next.
    pub(crate) fn clean_up(&self) {
        for (pid, _) in &self.processes {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        for (pid, _) in &self.processes {
            wait_process(*pid, Instant::now() + Duration::from_secs(5));
        }
        for (mount, _) in self.mounts.iter().rev() {
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
        for cgroup in &self.cgroups {
            remove_cgroup(cgroup);
        }
    }
}

/// A snapshot, taken again when processes that were not there before have ended, for up to two seconds.
fn settled(runtime: &Runtime, before: &Leaks) -> Leaks {
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let now = Leaks::snapshot(runtime);
        let new: Vec<i32> = now.processes.difference(&before.processes).map(|(pid, _)| *pid).collect();
        if new.is_empty() || !new.iter().all(|pid| wait_process(*pid, until)) {
            return now;
        }
    }
}

fn wait_process(pid: i32, until: Instant) -> bool {
    sys::pidfd_open(pid).map_or(true, |fd| wait::readable(fd.as_fd(), until))
}

fn mounts(runtime: &Runtime) -> BTreeSet<(PathBuf, usize)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let name = runtime.work().file_name().and_then(|name| name.to_str()).expect("a name");
    let ours = table.lines().filter(|line| line.contains(name) || line.contains(runtime.tag()));
    let mut found = BTreeSet::new();
    for point in ours.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from) {
        let below = found.iter().filter(|(other, _)| *other == point).count();
        found.insert((point, below));
    }
    found
}

fn processes(runtime: &Runtime) -> BTreeSet<(i32, String)> {
    let me = std::process::id() as i32;
    let entries = fs::read_dir("/proc").expect("read /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != me).filter_map(|pid| is_ours(pid, runtime).map(|why| (pid, why))).collect()
}

/// By which mark a process is of this test. A process can end while it is looked at: what cannot be read is not ours.
fn is_ours(pid: i32, runtime: &Runtime) -> Option<String> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let tag = runtime.tag();
    let read = |name: &str| String::from_utf8_lossy(&fs::read(proc.join(name)).unwrap_or_default()).into_owned();
    // "pid (comm) S ppid …": a zombie holds nothing but its number, and its parent is to reap it.
    let stat = read("stat");
    if stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X'])) {
        return None;
    }
    let command = read("cmdline").replace('\0', " ");
    let marked = |name: &str| read(name).contains(tag);
    // Another mount namespace whose root is one of our directories. Our own mounts, copied into another test's container
    // while it is made, are not at its root.
    let rooted = || {
        let work = runtime.work().file_name().and_then(|name| name.to_str()).expect("a name");
        read("mountinfo").lines().any(|line| {
            let mut fields = line.split(' ').skip(3);
            fields.next().is_some_and(|root| root.contains(work)) && fields.next() == Some("/")
        })
    };
    let named = || command.contains(tag) && !is_release_agent(&command);
    (named() || marked("cgroup") || marked("environ") || rooted()).then_some(command)
}

/// Whether it is what the kernel itself runs, with the name of the cgroup, when one of systemd's version 1 hierarchy is empty.
fn is_release_agent(command: &str) -> bool {
    let agent = fs::read_to_string("/sys/fs/cgroup/systemd/release_agent").unwrap_or_default();
    !agent.trim().is_empty() && command.split(' ').next() == Some(agent.trim())
}

fn descriptors() -> BTreeSet<(u32, PathBuf)> {
    if std::env::var_os("NEXTEST").is_none() {
        return BTreeSet::new();
    }
    let entries = fs::read_dir("/proc/self/fd").expect("read /proc/self/fd");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    // The directory itself, open while it is read, cannot be resolved afterwards and falls out.
    let numbers: Vec<u32> = numbers.collect();
    numbers.into_iter().filter_map(|n| Some((n, fs::read_link(format!("/proc/self/fd/{n}")).ok()?))).collect()
}

/// Mounted cgroup hierarchies as (controllers of v1, or "" for v2; mount point; root inside the hierarchy).
fn hierarchies() -> Vec<(String, PathBuf, PathBuf)> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("read the mount table");
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (root, point) = (left.next()?, left.next()?);
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let controllers = match kind {
            "cgroup" => options.to_owned(),
            "cgroup2" => String::new(),
            _ => return None,
        };
        Some((controllers, PathBuf::from(point), PathBuf::from(root)))
    };
    table.lines().filter_map(parse).collect()
}

fn cgroups(tag: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for (_, point, _) in hierarchies() {
        find_tagged(&point, tag, &mut found);
    }
    found
}

fn find_tagged(dir: &Path, tag: &str, found: &mut BTreeSet<PathBuf>) {
    // Other tests' cgroups come and go meanwhile.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_string_lossy().contains(tag) {
            found.insert(entry.path());
        } else {
            find_tagged(&entry.path(), tag, found);
        }
    }
}

fn remove_cgroup(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    let _ = fs::remove_dir(dir);
}

/// Where a process is in a hierarchy: a v1 controller (or `name=…`), or "" for v2.
pub(crate) fn cgroup_dir(pid: i32, controller: &str) -> Option<PathBuf> {
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let has = |controllers: &str| controllers.split(',').any(|name| name == controller);
    let path = table.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        has(controllers).then(|| PathBuf::from(path))
    })?;
    let (_, point, root) = hierarchies().into_iter().find(|(controllers, ..)| has(controllers))?;
    // A hierarchy mounted from below its own root shows paths without that prefix.
    let below = path.strip_prefix(&root).unwrap_or_else(|_| path.strip_prefix("/").unwrap_or(&path));
    Some(point.join(below))
}
