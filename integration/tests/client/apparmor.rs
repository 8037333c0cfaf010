//! The AppArmor profile of a container, on a host that runs the module.

use std::fs;

use integration::{in_path, skip};

use crate::harness::{BUSYBOX, World};

#[test]
fn a_container_has_the_default_profile_the_asked_one_or_none() {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with('Y') {
        skip!("AppArmor is not enabled on this host");
    }
    if in_path("apparmor_parser").is_none() {
        skip!("apparmor_parser is not installed");
    }
    let world = World::new();
    let run = |flags: &[&str], command: &[&str]| {
        let all = [&["run", "--rm", "--network", "none"], flags, &[BUSYBOX], command].concat();
        world.ok(&all)
    };
    let current = ["cat", "/proc/self/attr/current"];
    assert_eq!(run(&[], &current), "tare-default (enforce)");
    assert_eq!(run(&["--security-opt", "apparmor=unconfined"], &current), "unconfined");
    assert_eq!(run(&["--privileged"], &current), "unconfined");
    let refused = world.code(
        &["run", "--rm", "--network", "none", "--security-opt", "apparmor=no-such-profile", BUSYBOX, "true"],
        125,
    );
    assert!(
        refused.stderr.contains("no-such-profile") && refused.stderr.contains("is not loaded on this host"),
        "{}",
        refused.stderr
    );

    // What capabilities would allow, the profile does not; what a container does every day goes on.
    let attempts = "mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        (echo 1 >/proc/sys/kernel/sysrq) 2>/dev/null && echo written
        echo x >/tmp/file && cat /tmp/file; sleep 1000 & kill $! && echo signalled";
    let capable =
        ["--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined", "--security-opt", "seccomp=unconfined"];
    assert_eq!(run(&capable, &["sh", "-c", attempts]), "x\nsignalled");
    let unconfined = [&capable[..], &["--security-opt", "apparmor=unconfined"]].concat();
    assert!(run(&unconfined, &["sh", "-c", attempts]).contains("mounted"));

    world.ok(&["run", "-d", "--name", "one", "--network", "none", BUSYBOX, "sleep", "1000"]);
    assert_eq!(world.field("one", ".AppArmorProfile"), "tare-default");
    assert_eq!(world.ok(&[&["exec", "one"], &current[..]].concat()), "tare-default (enforce)");
    assert_eq!(world.ok(&[&["exec", "--privileged", "one"], &current[..]].concat()), "unconfined");
    world.ok(&["stop", "-t", "0", "one"]);
    world.ok(&["rm", "one"]);
}
