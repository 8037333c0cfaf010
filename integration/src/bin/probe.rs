//! The program that runs inside a test's container and tells what it sees there, as JSON. It is static and needs nothing.
//!
//! ```text
//! probe                        everything below, as one object
//! probe wait                   prints "ready", waits for SIGTERM, exits with 0
//! probe exit CODE              exits with it
//! probe syscall NR [ARG…]      the answer: {"value": n} or {"errno": n}
//! probe time NR COUNT          the nanoseconds a call takes, without arguments, failing or not
//! probe count FILE             appends 1, 2, 3, ... to the file, a line every 20 ms
//! probe lock FILE              locks the file (flock(2)), prints "locked", waits for SIGTERM
//! probe datagrams SOCKET       connects to a unix socket and sends it 1, 2, 3, ..., a datagram every 20 ms
//! probe notify TEXT…           sends each text to the socket that NOTIFY_SOCKET names, prints "told", waits for SIGTERM
//! probe eat MIB                touches so much memory, prints "ate", waits for SIGTERM
//! ```

// One `json!` of forty members recurses once a token.
#![recursion_limit = "512"]
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use integration::sys;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd;
use serde_json::{Value, json};

fn main() {
    // Before anything else opens one.
    let descriptors = descriptors();
    let args: Vec<String> = std::env::args().collect();
    let number = |index: usize| args.get(index).and_then(|text| parse(text)).expect("a number");
    match args.get(1).map(String::as_str) {
        None => println!("{}", report(descriptors)),
        Some("wait") => wait_for_term("ready"),
        Some("exit") => std::process::exit(number(2) as i32),
        Some("syscall") => {
            let mut values = [0u64; 6];
            for (slot, text) in values.iter_mut().zip(&args[3..]) {
                *slot = parse(text).expect("a number") as u64;
            }
            let answer = match sys::raw_syscall(number(2), values) {
                Ok(value) => json!({"value": value}),
                Err(e) => json!({"errno": e.raw_os_error()}),
            };
            println!("{answer}");
        }
        Some("time") => {
            let (call, count) = (number(2), number(3));
            let begin = std::time::Instant::now();
            for _ in 0..count {
                let _ = sys::raw_syscall(call, [0; 6]);
            }
            println!("{:.2}", begin.elapsed().as_nanos() as f64 / count as f64);
        }
        Some("count") => {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&args[2]).expect("open the file");
            count(|number| writeln!(file, "{number}").expect("write to the file"));
        }
        Some("lock") => {
            let file = fs::OpenOptions::new().create(true).append(true).open(&args[2]).expect("open the file");
            file.lock().expect("lock the file");
            wait_for_term("locked");
        }
        Some("datagrams") => {
            let socket = UnixDatagram::unbound().expect("make a socket");
            socket.connect(&args[2]).expect("connect");
            count(|number| {
                socket.send(number.to_string().as_bytes()).expect("send");
            });
        }
        Some("notify") => {
            let socket = UnixDatagram::unbound().expect("make a socket");
            let path = std::env::var_os("NOTIFY_SOCKET").expect("the variable NOTIFY_SOCKET");
            for text in &args[2..] {
                socket.send_to(text.as_bytes(), &path).expect("send");
            }
            wait_for_term("told");
        }
        Some("eat") => {
            let memory = vec![1u8; number(2) as usize * 1024 * 1024];
            // Each page is written above; the sum keeps the compiler from dropping it.
            std::hint::black_box(&memory);
            wait_for_term("ate");
        }
        Some(other) => panic!("unknown word {other:?}"),
    }
}

fn parse(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|value| value as i64),
        None => text.parse().ok(),
    }
}

fn count(mut each: impl FnMut(u64)) {
    for number in 1.. {
        each(number);
        // A pace, not a wait: a number each time, so that a checkpoint or a freeze shows as a gap in the count.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_for_term(word: &str) {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    // Blocked before the word is out, so that a signal sent at its sight is not lost: init has no default action.
    set.thread_block().expect("block SIGTERM");
    println!("{word}");
    std::io::stdout().flush().expect("flush");
    set.wait().expect("wait for SIGTERM");
}

fn descriptors() -> BTreeMap<u32, String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return BTreeMap::new() };
    let numbers: Vec<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let target = |n: u32| Some((n, fs::read_link(format!("/proc/self/fd/{n}")).ok()?.display().to_string()));
    // The directory, open while it was read, has no link any more and falls out.
    numbers.into_iter().filter_map(target).collect()
}

fn report(descriptors: BTreeMap<u32, String>) -> Value {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).map(str::to_owned)
    };
    let file = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim_end_matches(['\n', '\0']).to_owned());
    let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let namespaces: BTreeMap<&str, Option<String>> = names.map(|n| (n, link(&format!("/proc/self/ns/{n}")))).into();
    let sched = sys::sched_attr().ok();
    let io_priority = sys::io_priority().ok();
    json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars_os().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect::<Vec<_>>(),
        "cwd": std::env::current_dir().ok(),
        "exe": link("/proc/self/exe"),
        "pid": std::process::id(),
        "ppid": unistd::getppid().as_raw(),
        "pgid": unistd::getpgrp().as_raw(),
        "sid": unistd::getsid(None).map(unistd::Pid::as_raw).ok(),
        "uid": [unistd::getuid().as_raw(), unistd::geteuid().as_raw()],
        "gid": [unistd::getgid().as_raw(), unistd::getegid().as_raw()],
        "groups": unistd::getgroups().ok().map(|groups| groups.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>()),
        "umask": field("Umask"),
        "caps": {
            "inheritable": field("CapInh"), "permitted": field("CapPrm"), "effective": field("CapEff"),
            "bounding": field("CapBnd"), "ambient": field("CapAmb"),
        },
        "no_new_privs": field("NoNewPrivs"),
        "seccomp": field("Seccomp"),
        "seccomp_filters": field("Seccomp_filters"),
        "speculation": field("Speculation_Store_Bypass"),
        "signals": {"blocked": field("SigBlk"), "ignored": field("SigIgn"), "caught": field("SigCgt"), "pending": field("SigPnd")},
        "cpus": field("Cpus_allowed_list"),
        "mems": field("Mems_allowed_list"),
        "rlimits": rlimits(),
        "sched": sched.map(|s| json!({
            "policy": s.policy, "nice": s.nice, "priority": s.priority, "flags": s.flags,
            "runtime": s.runtime, "deadline": s.deadline, "period": s.period,
        })),
        "ioprio": io_priority.map(|(class, level)| json!({"class": class, "level": level})),
        "mempolicy": sys::memory_policy().ok().map(|(mode, nodes)| json!({"mode": mode, "nodes": nodes})),
        "personality": file("/proc/self/personality"),
        "oom_score_adj": file("/proc/self/oom_score_adj"),
        "label": file("/proc/self/attr/current"),
        "timens_offsets": file("/proc/self/timens_offsets"),
        "cgroup": file("/proc/self/cgroup"),
        "keys": file("/proc/keys"),
        "parent_death_signal": nix::sys::prctl::get_pdeathsig().ok().flatten().map(|signal| signal as i32),
        "subreaper": nix::sys::prctl::get_child_subreaper().ok(),
        "dumpable": nix::sys::prctl::get_dumpable().ok(),
        "hostname": unistd::gethostname().ok().map(|name| name.display().to_string()),
        "domainname": file("/proc/sys/kernel/domainname"),
        "namespaces": namespaces,
        "uid_map": file("/proc/self/uid_map"),
        "gid_map": file("/proc/self/gid_map"),
        "tty": [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()],
        "fds": descriptors,
        "mounts": mounts(),
        "interfaces": fs::read_dir("/sys/class/net").ok().map(|entries| {
            let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().display().to_string()).collect();
            names.sort();
            names
        }),
    })
}

fn link(path: &str) -> Option<String> {
    fs::read_link(path).ok().map(|target| target.display().to_string())
}

fn rlimits() -> BTreeMap<&'static str, Value> {
    use Resource::*;
    let all = [
        ("AS", RLIMIT_AS),
        ("CORE", RLIMIT_CORE),
        ("CPU", RLIMIT_CPU),
        ("DATA", RLIMIT_DATA),
        ("FSIZE", RLIMIT_FSIZE),
        ("LOCKS", RLIMIT_LOCKS),
        ("MEMLOCK", RLIMIT_MEMLOCK),
        ("MSGQUEUE", RLIMIT_MSGQUEUE),
        ("NICE", RLIMIT_NICE),
        ("NOFILE", RLIMIT_NOFILE),
        ("NPROC", RLIMIT_NPROC),
        ("RSS", RLIMIT_RSS),
        ("RTPRIO", RLIMIT_RTPRIO),
        ("RTTIME", RLIMIT_RTTIME),
        ("SIGPENDING", RLIMIT_SIGPENDING),
        ("STACK", RLIMIT_STACK),
    ];
    all.into_iter().filter_map(|(name, r)| getrlimit(r).ok().map(|(soft, hard)| (name, json!([soft, hard])))).collect()
}

/// The mount table in its order, one object a mount.
fn mounts() -> Vec<Value> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        Some(json!({
            "root": left.get(3)?, "target": left.get(4)?, "options": left.get(5)?.split(',').collect::<Vec<_>>(),
            "propagation": left.get(6..)?, "type": right.first()?, "source": right.get(1)?,
            "super_options": right.get(2)?.split(',').collect::<Vec<_>>(),
        }))
    };
    table.lines().filter_map(parse).collect()
}
