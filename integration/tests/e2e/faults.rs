//! Whatever fails, and whoever is killed, at whichever system call: nothing is left behind.
//!
//! The kernel's side of each call is made to fail, or the calling process is killed at it, by strace's injection: for every
//! system call that a command makes, for its first, second, … use, in the parent and in what it clones. After each, the
//! command must have ended with a sentence (or have shrugged the failure off), `delete --force` must succeed, and mounts,
//! cgroups, processes, fds and directories must be as before. So this covers every step, including those to be written.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use integration::{Leaks, Runtime, skip, sys, wait};

/// What the C runtime and the Rust runtime do before `main` and at the very end: not ours to handle.
const NOT_OURS: &[&str] = &[
    "arch_prctl", "brk", "execve", "exit", "exit_group", "madvise", "mmap", "mprotect", "munmap", "prlimit64", "rseq",
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "set_robust_list", "set_tid_address", "sigaltstack", "getrandom",
    "restart_syscall", "readlinkat", "sched_getaffinity", "futex",
];

/// What happens at the call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Error,
    Kill,
}

struct Run {
    status: ExitStatus,
    stderr: String,
}

/// Runs the runtime with `args` under strace with `options`.
fn traced(rt: &Runtime, options: &[String], args: &[&str]) -> Run {
    let log = rt.fresh_path("log");
    let err = rt.fresh_path("err");
    let inner = rt.command(&log);
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-o"]).arg(if options.is_empty() { rt.work().join("trace") } else { "/dev/null".into() });
    command.args(options).arg("--").arg(inner.get_program()).args(inner.get_args()).args(args);
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
    let (_, _) = (fs::remove_file(&err), fs::remove_file(&log));
    assert!(in_time, "{args:?} with {options:?} did not end: {stderr}");
    Run { status, stderr }
}

/// How often each system call is made by the process that makes it most, in a trace of strace -f.
fn counts(trace: &Path) -> BTreeMap<String, usize> {
    let mut each: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(trace).expect("the trace").lines() {
        let Some((pid, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
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

/// Injects each fault at each use of each call of the command that `prepare` returns the arguments of, one after the other.
fn at_every_call(prepare: impl Fn(&Runtime) -> Vec<String>) {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_err() {
        skip!("strace is not installed");
    }
    let rt = Runtime::from_env();
    let before = Leaks::snapshot(&rt);
    let args = prepare(&rt);
    let id = args.iter().find(|arg| arg.starts_with(rt.tag())).expect("the id among the arguments").clone();
    let words = |args: &[String]| args.iter().map(String::as_str).map(str::to_owned).collect::<Vec<_>>();
    let call = |options: &[String], args: &[String]| {
        let args = words(args);
        traced(&rt, options, &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let plain = call(&[], &args);
    assert!(plain.status.success(), "{args:?} fails without a fault: {}", plain.stderr);
    rt.call(&["delete", "--force", &id]).ok();
    before.assert_same(&rt);
    let counts = counts(&rt.work().join("trace"));
    assert!(counts.values().sum::<usize>() > 20, "the trace is too short to be true: {counts:?}");
    for (name, count) in counts {
        for use_ in 1..=count {
            for fault in [Fault::Error, Fault::Kill] {
                let what = match fault {
                    Fault::Error => "error=EIO",
                    Fault::Kill => "signal=SIGKILL",
                };
                let options = ["-e".into(), format!("trace={name}"), "-e".into(), format!("inject={name}:{what}:when={use_}")];
                let args = prepare(&rt);
                let run = call(&options, &args);
                let told = run.status.success() || !run.stderr.trim().is_empty() || matches!(fault, Fault::Kill);
                assert!(told, "{name} #{use_} {fault:?}: failed without a word");
                assert!(!run.stderr.contains("panicked"), "{name} #{use_} {fault:?}: {}", run.stderr);
                let deleted = rt.call(&["delete", "--force", &id]);
                assert!(deleted.status.success(), "{name} #{use_} {fault:?} ({}): {deleted:?}", run.stderr);
                before.assert_same(&rt);
            }
        }
    }
}
