//! Network devices of the host that move into a container, and the container's own loopback.
//!
//! The runtime is called in a network namespace of the test's own, so that nothing of the machine's network is touched.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use integration::{Output, Runtime, skip};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::json;

/// Moves this thread (a test has one) into a network namespace of its own, in which `ip` and the runtime then are.
fn own_network() -> bool {
    unshare(CloneFlags::CLONE_NEWNET).is_ok() && Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_ok()
}

#[track_caller]
fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the runtime under test knows netDevices.
fn known(rt: &Runtime) -> bool {
    let features = rt.call(&["features"]);
    features.status.success() && features.json()["linux"]["netDevices"]["enabled"] == true
}

fn run(rt: &Runtime, devices: serde_json::Value, script: &str) -> Output {
    rt.run(&rt.bundle(&["/bin/sh", "-c", script]).set("/linux/netDevices", devices))
}

#[test]
fn a_new_network_has_its_loopback_up() {
    let rt = Runtime::from_env();
    let output = rt.run(&rt.bundle(&["/bin/ip", "address", "show", "lo"])).ok();
    assert!(output.stdout.contains("LOOPBACK,UP") && output.stdout.contains("127.0.0.1/8"), "{output:?}");
}

#[test]
fn a_network_that_is_joined_is_left_as_it_is() {
    let rt = Runtime::from_env();
    if !own_network() {
        skip!("no network namespace of its own, or no ip(8)");
    }
    let joined = format!("/proc/self/task/{}/ns/net", nix::unistd::gettid());
    let joined = File::open(joined).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&joined));
    let bundle = rt.bundle(&["/bin/ip", "address", "show", "lo"]).without_namespace("network");
    let bundle = bundle.push("/linux/namespaces", json!({"type": "network", "path": path}));
    let output = rt.run(&bundle).ok();
    assert!(!output.stdout.contains(",UP"), "{output:?}");
}

#[test]
fn devices_move_in_under_their_names_with_addresses_and_routes() {
    let rt = Runtime::from_env();
    if !own_network() {
        skip!("no network namespace of its own, or no ip(8)");
    }
    if !known(&rt) {
        skip!("the runtime does not know netDevices");
    }
    ip("link add v0 mtu 1400 type veth peer name v1");
    ip("link set v1 up");
    ip("link set v0 up");
    ip("address add 10.1.2.3/24 dev v0");
    ip("address add fd00::3/64 dev v0 nodad");
    ip("route add default via 10.1.2.1 dev v0");
    let script = "ip link; ip address; ip route";
    let output = run(&rt, json!({"v0": {"name": "eth0"}, "v1": {}}), script).ok();
    for part in ["eth0", "mtu 1400", "10.1.2.3/24", "fd00::3/64", "default via 10.1.2.1 dev eth0", "v1"] {
        assert!(output.stdout.contains(part), "{part}: {output:?}");
    }
}

#[test]
fn a_failing_create_gives_the_devices_back() {
    let rt = Runtime::from_env();
    if !own_network() {
        skip!("no network namespace of its own, or no ip(8)");
    }
    if !known(&rt) {
        skip!("the runtime does not know netDevices");
    }
    ip("link add v0 type veth peer name v1");
    ip("address add 10.1.2.3/24 dev v0");
    for (devices, expected) in [
        (json!({"v0": {}, "z9": {}}), "move network device z9 into the container: find it on the host: no such device"),
        (
            json!({"v0": {"name": "lo"}}),
            "move network device v0 into the container: a device named lo is there already",
        ),
    ] {
        let error = run(&rt, devices, "true").fails().error();
        assert!(error.contains(expected), "{error}");
        assert!(ip("address show v0").contains("10.1.2.3/24"));
    }
    // A failure of a later step.
    let bundle = rt.bundle(&["/bin/true"]).set("/linux/netDevices", json!({"v0": {}}));
    let bundle = bundle.push("/hooks/createRuntime", json!({"path": "/bin/false"}));
    rt.run(&bundle).fails();
    assert!(ip("address show v0").contains("10.1.2.3/24"));
}

#[test]
fn devices_move_into_a_network_that_is_joined() {
    let rt = Runtime::from_env();
    if !own_network() {
        skip!("no network namespace of its own, or no ip(8)");
    }
    if !known(&rt) {
        skip!("the runtime does not know netDevices");
    }
    let host = File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let other = File::open("/proc/thread-self/ns/net").unwrap();
    setns(host.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    ip("link add v0 type veth peer name v1");
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&other));
    let bundle = rt.bundle(&["/bin/ip", "link"]).without_namespace("network");
    let bundle = bundle
        .push("/linux/namespaces", json!({"type": "network", "path": path}))
        .set("/linux/netDevices", json!({"v0": {"name": "e%d"}}));
    let output = rt.run(&bundle).ok();
    assert!(output.stdout.contains("e0@"), "{output:?}");
    // The namespace lives on, and the device in it: that is for its owner to manage.
    setns(other.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
    assert!(ip("link").contains("e0@"));
}
