//! An ordinary user whose manager has delegated a cgroup of version 2 to what he runs: limits hold without a privilege.
//!
//! `VM_USER=1 integration/vm e2e ordinary::` runs this in a session of systemd. What root can play of it is in `callers`.

use std::fs;
use std::path::PathBuf;

use integration::{Bundle, Runtime, skip, wait};
use nix::unistd::{AccessFlags, access, getegid, geteuid};
use serde_json::{Value, json};

/// The cgroup above our own, in which the runtime makes containers', if it is ours to divide.
fn delegated() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let above = PathBuf::from("/sys/fs/cgroup").join(own).parent()?.to_owned();
    let ours = !geteuid().is_root() && access(&above.join("cgroup.subtree_control"), AccessFlags::W_OK).is_ok();
    ours.then_some(above)
}

/// With a user namespace of the caller's one id, which needs no helper.
fn bundle(rt: &Runtime, script: &str) -> Bundle {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    rt.bundle(&["/bin/sh", "-c", script])
        .without_namespace("network")
        .push("/linux/namespaces", json!({"type": "user"}))
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .set("/linux/uidMappings", map(geteuid().as_raw()))
        .set("/linux/gidMappings", map(getegid().as_raw()))
        .edit(|config| {
            for mount in config["mounts"].as_array_mut().expect("mounts") {
                match mount["destination"].as_str() {
                    Some("/dev/pts") => mount["options"].as_array_mut().unwrap().retain(|option| option != "gid=5"),
                    // A new one is only for who owns the network.
                    Some("/sys") => {
                        *mount = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
                    }
                    _ => {}
                }
            }
        })
}

#[test]
fn limits_hold_in_a_cgroup_that_was_delegated() {
    let Some(above) = delegated() else {
        skip!("not an ordinary user with a delegated cgroup of version 2 (VM_USER=1 integration/vm e2e ordinary::)");
    };
    let rt = Runtime::from_env();
    let script = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max; echo up; sleep 1000";
    let limited = bundle(&rt, script)
        .set("/linux/resources/pids", json!({"limit": 20}))
        .set("/linux/resources/memory", json!({"limit": 67_108_864}));
    let container = rt.run_detached(&limited, &[]).unwrap();
    assert_eq!(container.wait_stdout(|text| text.contains("up")), "20\n67108864\nup\n");
    assert!(container.cgroup("").starts_with(&above), "{}", container.cgroup("").display());

    container.call::<&str>("update", &["--pids-limit", "25", "--memory", "32m"], &[]).ok();
    assert_eq!(container.exec(&["cat", "/sys/fs/cgroup/pids.max"]).ok().stdout, "25\n");
    let out = container.call::<&str>("events", &["--stats"], &[]).ok().stdout;
    let stats: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["data"]["memory"]["usage"]["limit"], 33_554_432);
    assert_eq!(stats["data"]["pids"]["limit"], 25);
    container.call::<&str>("pause", &[], &[]).ok();
    assert_eq!(container.status(), "paused");
    container.call::<&str>("resume", &[], &[]).ok();
    let eaten = container.exec(&["/bin/probe", "eat", "100"]);
    assert!(eaten.code() != 0 && !eaten.stdout.contains("ate"), "{eaten:?}");
    container.call::<&str>("delete", &["--force"], &[]).ok();
    assert!(wait::readable_while_reaping(container.pidfd(), wait::deadline()));
}
