//! The seccomp agent: it gets the state and the notification descriptor, and answers for the container's calls.

use std::os::fd::AsFd;

use integration::{Bundle, Console, Runtime, sys, wait};
use serde_json::{Value, json};

/// EXDEV: what no mkdir says by itself.
const ANSWER: i32 = 18;
const TEXT: &str = "Invalid cross-device link";

/// A configuration that asks the agent about mkdir.
fn bundle(rt: &Runtime, args: &[&str], agent: &Console) -> Bundle {
    rt.bundle(args).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path(),
            "listenerMetadata": "told as it is",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        }),
    )
}

/// Checks what the agent was told, but for the pid, which is returned.
#[track_caller]
fn check(message: &[u8], id: &str, status: &str, bundle: &Bundle) -> (i64, i64) {
    let state: Value = serde_json::from_slice(message).unwrap();
    assert_eq!(state["fds"], json!(["seccompFd"]));
    assert_eq!(state["metadata"], "told as it is");
    assert_eq!(state["state"]["id"], id);
    assert_eq!(state["state"]["status"], status);
    assert_eq!(state["state"]["bundle"], bundle.path_str());
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    (state["pid"].as_i64().unwrap(), state["state"]["pid"].as_i64().unwrap())
}

#[test]
fn the_agent_answers_for_the_container() {
    let rt = Runtime::from_env();
    let agent = Console::listen(&rt);
    let bundle = bundle(&rt, &["/bin/mkdir", "/tmp/x"], &agent);
    let container = rt.create(&bundle, &[]).unwrap();
    let (listener, message) = agent.accept();
    let pids = check(&message, container.id(), "creating", &bundle);
    assert_eq!(pids, (container.pid().into(), container.pid().into()));
    container.start().ok();
    assert!(wait::readable(listener.as_fd(), wait::deadline()), "nobody asked");
    let (_, pid) = sys::refuse_notified(&listener, ANSWER).unwrap();
    assert_eq!(pid as i32, container.pid());
    container.wait_exit();
    assert!(container.stderr().contains(TEXT), "{}", container.stderr());
}

#[test]
fn the_agent_answers_for_an_exec_too() {
    let rt = Runtime::from_env();
    let agent = Console::listen(&rt);
    let bundle = bundle(&rt, &["/bin/probe", "wait"], &agent);
    let container = rt.create(&bundle, &[]).unwrap();
    let first = agent.accept();
    container.start().ok();
    container.wait_stdout(|text| text.contains("ready"));
    let exec = rt.spawn(&["exec", container.id(), "/bin/mkdir", "/tmp/x"], |_| {});
    let (listener, message) = agent.accept();
    let (pid, init) = check(&message, container.id(), "running", &bundle);
    assert!(pid != init && init == i64::from(container.pid()), "{pid} {init}");
    assert!(wait::readable(listener.as_fd(), wait::deadline()), "nobody asked");
    assert_eq!(i64::from(sys::refuse_notified(&listener, ANSWER).unwrap().1), pid);
    let output = exec.wait();
    assert!(output.code() == 1 && output.stderr.contains(TEXT), "{output:?}");
    drop(first);
}

/// The listener gets to the agent whatever the filter does to the ways in which descriptors are sent: agents do ask about
/// sendmsg, and a profile need not allow it.
#[test]
fn the_listener_needs_no_sendmsg() {
    for action in [json!("SCMP_ACT_NOTIFY"), json!("SCMP_ACT_ERRNO")] {
        let rt = Runtime::from_env();
        let agent = Console::listen(&rt);
        let rule = json!({"names": ["sendmsg", "recvmsg", "sendto", "recvfrom"], "action": action});
        let bundle = bundle(&rt, &["/bin/mkdir", "/tmp/x"], &agent).push("/linux/seccomp/syscalls", rule);
        let container = rt.create(&bundle, &[]).unwrap();
        let (listener, message) = agent.accept();
        check(&message, container.id(), "creating", &bundle);
        container.start().ok();
        assert!(wait::readable(listener.as_fd(), wait::deadline()), "{action}: nobody asked");
        sys::refuse_notified(&listener, ANSWER).unwrap();
        container.wait_exit();
        assert!(container.stderr().contains(TEXT), "{action}: {}", container.stderr());
    }
}
