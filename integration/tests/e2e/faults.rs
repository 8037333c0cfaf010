//! Whatever fails, and whoever is killed, at whichever system call: nothing is left behind.
//!
//! The kernel's side of each call is made to fail, or the calling process is killed at it, by strace's injection: for every
//! system call that a command makes, for its first, second, … use, in the parent and in what it clones. After each, the
//! command must have ended with a sentence (or have shrugged the failure off), `delete --force` must succeed, and mounts,
//! cgroups, processes, fds and directories must be as before. So this covers every step, including those to be written.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use integration::{Bundle, Leaks, Runtime, skip, sys, wait};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::geteuid;
use serde_json::{Value, json};

/// What the C runtime and the Rust runtime do before `main` and at the very end: not ours to handle.
const NOT_OURS: &[&str] = &[
    "arch_prctl",
    "brk",
    "execve",
    "exit",
    "exit_group",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "getrandom",
    "restart_syscall",
    "readlinkat",
    "sched_getaffinity",
    "futex",
];

struct Run {
    status: ExitStatus,
    stderr: String,
}

/// Runs the runtime with `args` under strace with `options`.
fn traced(rt: &Runtime, options: &[String], args: &[String]) -> Run {
    let (log, err) = (rt.work().join("traced.log"), rt.work().join("traced.err"));
    let inner = rt.command(&log);
    let mut command = Command::new("strace");
    command.arg("-qqq").args(options).arg("--").arg(inner.get_program()).args(inner.get_args()).args(args);
    command.env("TARE_TEST_TAG", rt.tag()).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(&err).expect("make a file for stderr"));
    let mut child = command.spawn().expect("start strace");
    let pidfd = sys::pidfd_open(child.id() as i32).expect("open strace");
    let in_time = wait::readable(pidfd.as_fd(), wait::deadline());
    if !in_time {
        let _ = child.kill();
    }
    let status = child.wait().expect("wait for strace");
    let stderr = fs::read_to_string(&err).unwrap_or_default();
    for file in [err, log] {
        let _ = fs::remove_file(file);
    }
    assert!(in_time, "{args:?} under strace {options:?} did not end: {stderr}");
    Run { status, stderr }
}

/// How often each system call is made by the process that makes it most, in a trace.
fn counts(trace: &Path, whose: Whose) -> BTreeMap<String, usize> {
    let mut each: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(trace).expect("the trace").lines() {
        // With -f every line begins with the pid.
        let (pid, call) = match whose {
            Whose::Parents => ("", line),
            Whose::Everybodys => line.split_once(char::is_whitespace).unwrap_or(("", line)),
        };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            *each.entry((pid.to_owned(), name.to_owned())).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in each {
        let known: &mut usize = most.entry(name).or_default();
        *known = (*known).max(count);
    }
    most.retain(|name, _| !NOT_OURS.contains(&name.as_str()));
    most
}

/// One command under test: brings what it needs into being, and returns its arguments.
type Prepare = fn(&Runtime, &str, &Bundle) -> Vec<String>;

/// The processes whose calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The runtime's first process only, so that the container may outlive the call.
    Parents,
    /// All that it clones too; the command must not leave a process running.
    Everybodys,
}

/// Injects each fault at each use of each call of a command, one after the other.
fn at_every_call(whose: Whose, prepare: Prepare) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip!("strace is not installed");
    }
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/true"]).edit(|config| config["process"]["args"] = json!(["/bin/true"]));
    bundle.write();
    let id = rt.fresh_id();
    let before = Leaks::snapshot(&rt);
    let follow: &[String] = if whose == Whose::Everybodys { &["-f".to_owned()] } else { &[] };
    let clean = |what: &str| {
        let deleted = rt.call(&["delete", "--force", &id]);
        assert!(deleted.status.success(), "delete after {what}: {deleted:?}");
        before.assert_same(&rt);
    };
    let trace = rt.work().join("trace");
    let plain =
        traced(&rt, &[follow, &["-o".into(), trace.display().to_string()]].concat(), &prepare(&rt, &id, &bundle));
    assert!(plain.status.success(), "fails without a fault: {}", plain.stderr);
    clean("no fault at all");
    let counts = counts(&trace, whose);
    assert!(counts.values().sum::<usize>() > 20, "the trace is too short to be true: {counts:?}");
    for (name, count) in counts {
        for at in 1..=count {
            for (fault, what) in [("an error", "error=EIO"), ("a kill", "signal=SIGKILL")] {
                if what == "error=EIO" && cannot_fail(&name) {
                    continue;
                }
                let inject = format!("inject={name}:{what}:when={at}");
                let options = ["-o", "/dev/null", "-e", &format!("trace={name}"), "-e", &inject].map(str::to_owned);
                let run = traced(&rt, &[follow, &options].concat(), &prepare(&rt, &id, &bundle));
                let where_ = format!("{fault} at {name} #{at}");
                // What is followed into the container hits its program too, whose silence is its own affair.
                let ours = what == "error=EIO" && whose == Whose::Parents;
                let told = run.status.success() || !ours || !run.stderr.trim().is_empty();
                assert!(told, "{where_}: failed without a word");
                assert!(!run.stderr.contains("panicked"), "{where_}: {}", run.stderr);
                clean(&where_);
            }
        }
    }
}

/// Failures that no kernel can make: strace does not make the call that it lets fail, while a close(2) that fails has closed
/// (man close.2), so that what waits for an end of file would wait for ever; umask(2) never fails, nor does clock_gettime(2) for the
/// clocks that every kernel has (a call of it is seen only where the vDSO cannot read the host's clock).
fn cannot_fail(name: &str) -> bool {
    ["clock_gettime", "close", "close_range", "umask"].contains(&name)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn created(rt: &Runtime, id: &str, bundle: &Bundle) {
    rt.call(&["create", "--bundle", bundle.path_str(), id]).ok();
}

fn running(rt: &Runtime, id: &str, bundle: &Bundle) {
    let waiting = bundle.path().join("waiting");
    if !waiting.exists() {
        fs::create_dir(&waiting).expect("make the second bundle");
        let config = fs::read_to_string(bundle.path().join("config.json")).expect("read the configuration");
        let mut config: Value = serde_json::from_str(&config).expect("parse the configuration");
        config["process"]["args"] = json!(["/bin/sleep", "1000"]);
        config["root"]["path"] = json!(bundle.rootfs());
        fs::write(waiting.join("config.json"), config.to_string()).expect("write the configuration");
    }
    rt.call(&["run", "--detach", "--bundle", &waiting.display().to_string(), id]).ok();
}

#[test]
fn run_leaves_nothing_behind() {
    at_every_call(Whose::Everybodys, |_, id, bundle| words(&["run", "--bundle", bundle.path_str(), id]));
}

#[test]
fn create_leaves_nothing_behind() {
    at_every_call(Whose::Parents, |_, id, bundle| words(&["create", "--bundle", bundle.path_str(), id]));
}

#[test]
fn start_leaves_nothing_behind() {
    at_every_call(Whose::Parents, |rt, id, bundle| {
        created(rt, id, bundle);
        words(&["start", id])
    });
}

#[test]
fn exec_leaves_nothing_behind() {
    at_every_call(Whose::Everybodys, |rt, id, bundle| {
        running(rt, id, bundle);
        words(&["exec", id, "/bin/true"])
    });
}

#[test]
fn delete_leaves_nothing_behind() {
    at_every_call(Whose::Parents, |rt, id, bundle| {
        created(rt, id, bundle);
        words(&["delete", "--force", id])
    });
}

/// The state directory of a runtime on a small file system of its own.
struct Small(PathBuf);

impl Small {
    fn new(rt: &Runtime, options: &str, flags: MsFlags) -> Self {
        fs::create_dir(rt.root()).expect("make the state directory");
        mount(Some("state"), &rt.root(), Some("tmpfs"), flags, Some(options)).expect("mount a tmpfs");
        Self(rt.root())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_state_directory_that_takes_nothing_is_named_with_a_remedy() {
    if !geteuid().is_root() {
        skip!("only root may mount");
    }
    let full = "no space left on device; make room on that file system (also for new files: `df -i`), or choose another directory with --root";
    let fixed = "read-only file system; choose another directory with --root";
    let none = MsFlags::empty();
    let mut full_at = BTreeSet::new();
    for (options, flags) in [
        ("nr_inodes=1", none),
        ("nr_inodes=2", none),
        ("nr_inodes=3", none),
        ("nr_inodes=4", none),
        ("size=4k", none),
        ("size=8k", none),
        ("size=12k", none),
        ("size=16k", none),
        ("size=20k", none),
        ("size=24k", none),
        ("size=28k", none),
        ("size=4k", MsFlags::MS_RDONLY),
    ] {
        let rt = Runtime::from_env();
        let _state = Small::new(&rt, options, flags);
        // Larger than a page, as most configurations are.
        let bundle = rt.bundle(&["/bin/true"]).set("/annotations", json!({"large": "x".repeat(5000)}));
        bundle.write();
        let id = rt.fresh_id();
        let output = rt.call(&["create", "--bundle", bundle.path_str(), &id]);
        if output.code() == 0 {
            rt.call(&["delete", "--force", &id]).ok();
        } else {
            let said = output.stderr.replace(rt.root().join(&id).to_str().unwrap(), "{}");
            if flags == none {
                let place = said.strip_suffix(&format!(": {full}\n"));
                full_at.insert(place.unwrap_or_else(|| panic!("{options}: {said}")).to_owned());
            } else {
                assert_eq!(said, format!("make the state directory {{}}: {fixed}\n"));
            }
            assert_eq!(output.code(), 1, "{options}");
        }
        assert_eq!(fs::read_dir(rt.root()).unwrap().count(), 0, "{options}: something is left");
    }
    // What is full first at which size is the kernel's to count; each of these is at one.
    // Before 6.7 a tmpfs keeps to its size roughly only, and none of these sizes ends between the first file and the second.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|it| it.parse::<u32>().unwrap_or(0));
    let exact = (numbers.next(), numbers.next()) >= (Some(6), Some(7));
    let exact_place = exact.then_some("write {}/config.json");
    let places = ["make the state directory {}", "make {}/exec.fifo", "write {}/state.json"];
    for place in places.into_iter().chain(exact_place) {
        assert!(full_at.contains(place), "{place} is not among {full_at:?}");
    }
}
