//! The programs in the kernel. Each case runs in a process of its own: this test program again, as `kernel::child`.

use std::io::{IoSlice, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socket};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tare::init::seccomp::{load, supported_flags};
use tare::plan::seccomp::{features, lower};
use tare::sys::process::{self, Forked};

use crate::libseccomp::skipped;
use crate::{DEFAULT, profile};

const PROFILE: &str = "TARE_TEST_SECCOMP";

/// Runs this test program's [`child`] under a profile, with a socket as its standard input; what it found is read from there.
fn start(profile: &Value) -> (std::process::Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kernel::child", "--test-threads=1"])
        .env(PROFILE, profile.to_string())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, ours)
}

fn run(profile: &Value) -> (ExitStatus, String) {
    let (mut child, mut socket) = start(profile);
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    (child.wait().unwrap(), text)
}

/// Not a test: under the filter is a process that this one forks. (The test runner's own threads would outlive a killed one.)
#[test]
fn child() {
    let Ok(value) = std::env::var(PROFILE) else { return };
    match process::clone(0, None).unwrap() {
        Forked::Child => {
            under_filter(&value);
            process::exit_now(0);
        }
        Forked::Parent(child) => {
            if let WaitStatus::Signaled(_, signal, _) = waitpid(Pid::from_raw(child.pid), None).unwrap() {
                say(&format!("{signal}"), &[]);
            }
        }
    }
}

fn under_filter(value: &str) {
    let seccomp = lower(&profile(serde_json::from_str(value).unwrap())).unwrap();
    nix::sys::prctl::set_no_new_privs().unwrap();
    let listener = load(&seccomp).unwrap();
    if let Some(listener) = &listener {
        say("listener;", &[listener.as_raw_fd()]);
    }
    drop(listener);
    let done = |result: Result<(), Errno>| result.map_or_else(|errno| errno as i32, |()| 0);
    say(&format!("mkdir {};", done(nix::unistd::mkdir("/", Mode::empty()))), &[]);
    let vsock = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None).map(drop);
    say(&format!("vsock {};", done(vsock)), &[]);
    let unix = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).map(drop);
    say(&format!("unix {}", done(unix)), &[]);
}

fn say(text: &str, fds: &[i32]) {
    let control = if fds.is_empty() { vec![] } else { vec![ControlMessage::ScmRights(fds)] };
    let socket = std::io::stdin().as_raw_fd();
    sendmsg::<()>(socket, &[IoSlice::new(text.as_bytes())], &control, MsgFlags::empty(), None).unwrap();
}

fn mkdir(action: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action}]})
}

#[test]
fn actions() {
    let errno = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]});
    let exists = Errno::EEXIST as i32;
    for (value, expected) in [
        (mkdir("SCMP_ACT_ERRNO"), Ok(1)),
        (errno, Ok(77)),
        (mkdir("SCMP_ACT_LOG"), Ok(exists)),
        (mkdir("SCMP_ACT_ALLOW"), Ok(exists)),
        // There is no tracer.
        (mkdir("SCMP_ACT_TRACE"), Ok(Errno::ENOSYS as i32)),
        (mkdir("SCMP_ACT_TRAP"), Err("SIGSYS")),
        (mkdir("SCMP_ACT_KILL"), Err("SIGSYS")),
        (mkdir("SCMP_ACT_KILL_THREAD"), Err("SIGSYS")),
        (mkdir("SCMP_ACT_KILL_PROCESS"), Err("SIGSYS")),
    ] {
        let (status, text) = run(&value);
        match expected {
            Ok(errno) => assert!(text.starts_with(&format!("mkdir {errno};")), "{value}: {text}, {status}"),
            Err(signal) => assert_eq!(text, signal, "{value}"),
        }
    }
}

#[test]
fn arguments_are_compared() {
    let rule = json!({"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": [
        {"index": 0, "op": "SCMP_CMP_EQ", "value": libc_vsock()}]});
    let (_, text) = run(&json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    assert!(text.ends_with("vsock 77;unix 0"), "{text}");
}

fn libc_vsock() -> i32 {
    AddressFamily::Vsock as i32
}

#[test]
fn a_process_works_under_the_default_profile() {
    let (status, text) = run(&serde_json::from_str(DEFAULT).unwrap());
    assert!(status.success() && text.ends_with("vsock 1;unix 0"), "{status}: {text}");
}

#[test]
fn every_supported_flag_loads() {
    let supported = supported_flags();
    assert!(supported.contains(&"SECCOMP_FILTER_FLAG_LOG"), "{supported:?}");
    for flag in features().known_flags {
        if !supported.contains(flag) {
            skipped(&format!("every_supported_flag_loads: the kernel has no {flag}"));
            continue;
        }
        let mut value = mkdir("SCMP_ACT_ERRNO");
        value["flags"] = json!([flag]);
        if flag.ends_with("WAIT_KILLABLE_RECV") {
            value["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
            value["listenerPath"] = json!("/a");
        }
        let (status, text) = run(&value);
        // The child drops the listener: nobody answers.
        assert!(status.success() && text.contains("mkdir"), "{flag}: {status}: {text}");
    }
    assert!(!tare::sys::seccomp::supports(1 << 30), "a flag nobody has");
}

#[test]
fn a_listener_is_asked() {
    let mut value = mkdir("SCMP_ACT_NOTIFY");
    value["listenerPath"] = json!("/a");
    let (mut child, mut socket) = start(&value);
    let mut message = [0; 9];
    let (length, mut fds) = tare::sys::scm::receive(socket.as_fd(), &mut message).unwrap();
    assert_eq!((&message[..length], fds.len()), (&b"listener;"[..], 1));
    let listener = fds.remove(0);
    let mut asked = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::NONE).unwrap();
    assert_eq!(asked[0].revents(), Some(PollFlags::POLLIN));
    // The agent goes away, so the call gets ENOSYS.
    drop(listener);
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert!(text.starts_with(&format!("mkdir {};", Errno::ENOSYS as i32)), "{text}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_refused_program_is_told_as_one() {
    let mut seccomp = lower(&profile(mkdir("SCMP_ACT_ERRNO"))).unwrap();
    // No return at its end.
    seccomp.program.truncate(1);
    nix::sys::prctl::set_no_new_privs().unwrap();
    let error = load(&seccomp).unwrap_err().to_string();
    assert_eq!(error, "load the seccomp filter of 1 instructions: invalid argument");
}
