//! What the flags of `run` make, as it is seen from inside: limits, namespaces, rights, devices.

use std::fs;
use std::path::PathBuf;

use integration::{skip, wait};

use crate::harness::{BUSYBOX, World};

/// What a script prints in a container with these flags.
#[track_caller]
fn inside(world: &World, flags: &[&str], script: &str) -> String {
    let words = [&["run", "--rm", "--network", "none"], flags, &[BUSYBOX, "sh", "-c", script]].concat();
    world.ok(&words)
}

/// Prints a limit by its file of cgroups 1, or of cgroups 2.
fn limit(old: &str, new: &str) -> String {
    format!("cd /sys/fs/cgroup; cat {old} 2>/dev/null || cat {new}")
}

#[test]
fn limits_are_those_of_its_cgroup() {
    let world = World::new();
    for (flags, script, old, new) in [
        (&["--memory", "64m"][..], limit("memory/memory.limit_in_bytes", "memory.max"), "67108864", "67108864"),
        (
            &["-m", "64m", "--memory-swap", "96m"],
            limit("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
            "100663296",
            "33554432",
        ),
        (
            &["-m", "64m", "--memory-reservation", "32m"],
            limit("memory/memory.soft_limit_in_bytes", "memory.low"),
            "33554432",
            "33554432",
        ),
        (&["--pids-limit", "77"], limit("pids/pids.max", "pids.max"), "77", "77"),
        (&["--cpus", "0.5"], limit("cpu/cpu.cfs_quota_us", "cpu.max"), "50000", "50000 100000"),
        (
            &["--cpu-period", "50000", "--cpu-quota", "20000"],
            format!("{}; {}", limit("cpu/cpu.cfs_period_us", "cpu.max"), limit("cpu/cpu.cfs_quota_us", "cpu.max")),
            "50000\n20000",
            "20000 50000\n20000 50000",
        ),
        (&["--cpu-shares", "512"], limit("cpu/cpu.shares", "cpu.weight"), "512", "59"),
        (
            &["--cpuset-cpus", "0", "--cpuset-mems", "0"],
            format!("{}; {}", limit("cpuset/cpuset.cpus", "cpuset.cpus"), limit("cpuset/cpuset.mems", "cpuset.mems")),
            "0\n0",
            "0\n0",
        ),
    ] {
        let seen = inside(&world, flags, &script);
        assert!(seen == old || seen == new, "{flags:?}: {seen}, and not {old} or {new}");
    }
    // Those of cgroups 1 alone; docker says so of them on cgroups 2, and goes on.
    let of_old = "cd /sys/fs/cgroup/memory && cat memory.swappiness && head -n 1 memory.oom_control";
    if inside(&world, &[], "test -d /sys/fs/cgroup/memory && echo old || echo new") == "old" {
        let flags = ["-m", "64m", "--memory-swappiness", "10", "--oom-kill-disable"];
        assert_eq!(inside(&world, &flags, of_old), "10\noom_kill_disable 1");
    }
    assert_eq!(inside(&world, &["--oom-score-adj", "123"], "cat /proc/self/oom_score_adj"), "123");
    assert_eq!(inside(&world, &["--ulimit", "cpu=5:7"], "ulimit -t; ulimit -Ht"), "5\n7");
    let shm = inside(&world, &["--shm-size", "3m"], "grep ' /dev/shm ' /proc/mounts");
    assert!(shm.contains("size=3072k"), "{shm}");
    world.assert_empty();
}

#[test]
fn weights_of_block_devices_are_set_where_the_kernel_has_them() {
    let world = World::new();
    let there = ["blkio/blkio.weight", "blkio/blkio.bfq.weight", "io.weight", "io.bfq.weight"];
    let script = format!("cd /sys/fs/cgroup; for f in {}; do test ! -e $f || cat $f; done", there.join(" "));
    if inside(&world, &[], &script).is_empty() {
        skip!("the kernel has no weights of block devices: it is built without BFQ, or BFQ is not in use")
    }
    let seen = inside(&world, &["--blkio-weight", "300"], &script);
    // io.weight counts to 10000, where the others count to 1000.
    assert!(seen.split_whitespace().any(|it| it == "300" || it == "2930"), "{seen}");
}

#[test]
fn it_is_in_a_cgroup_of_the_users_and_sees_its_own_or_all() {
    let world = World::new();
    let parent = format!("/{}", world.tag);
    let cgroups = |flags: &[&str]| {
        let mut paths: Vec<String> = inside(&world, flags, "cat /proc/self/cgroup")
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2).map(str::to_owned))
            .collect();
        paths.sort();
        paths.dedup();
        paths
    };
    assert_eq!(cgroups(&["--cgroupns", "private"]), ["/"]);
    let whole = cgroups(&["--cgroupns", "host", "--cgroup-parent", &parent]);
    assert!(whole.iter().any(|it| it.starts_with(&format!("{parent}/"))), "{whole:?}");
    // The parent is the user's: it stays, as docker's does.
    for place in fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|it| it.path()) {
        let _ = fs::remove_dir(place.join(&world.tag));
    }
    let _ = fs::remove_dir(PathBuf::from("/sys/fs/cgroup").join(&world.tag));
    world.assert_empty();
}

#[test]
fn namespaces_are_the_hosts_if_asked_for() {
    let world = World::new();
    for (flag, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--userns", "user")] {
        let script = format!("readlink /proc/self/ns/{kind}");
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        assert_eq!(inside(&world, &[flag, "host"], &script), ours, "{flag}");
        // Users are the host's without a word, as docker's.
        assert_eq!(inside(&world, &[], &script) == ours, kind == "user", "without {flag}");
    }
    assert_eq!(inside(&world, &["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts || :"), "0");
    let names = ["-h", "box", "--domainname", "example.org"];
    assert_eq!(inside(&world, &names, "hostname; cat /proc/sys/kernel/domainname"), "box\nexample.org");
    world.assert_empty();
}

/// Rights, as the kernel tells them of a process.
const RIGHTS: &str = "grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status | tr -s '\\t\\n' ' '";

#[test]
fn rights_are_more_or_less_if_asked_for() {
    let world = World::new();
    assert_eq!(inside(&world, &[], RIGHTS), "CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2");
    let without = ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges"];
    assert_eq!(inside(&world, &without, RIGHTS), "CapEff: 00000000a80425fb NoNewPrivs: 1 Seccomp: 0");
    let profile = world.dir.join("profile.json");
    let rule = r#"{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#)).unwrap();
    let profile = format!("seccomp={}", profile.display());
    let said = inside(&world, &["--security-opt", &profile], "mkdir /new 2>&1 || echo others");
    assert!(said.contains("not supported") && said.ends_with("others"), "{said}");
    // All that whoever started it may do itself.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = status.lines().find_map(|it| it.strip_prefix("CapBnd:")).unwrap().trim().to_owned();
    let privileged = format!("CapEff: {all} NoNewPrivs: 0 Seccomp: 0");
    assert_eq!(inside(&world, &["--privileged"], RIGHTS), privileged);
    let hidden = "head -n 1 /proc/timer_list | grep -q . && echo shown || echo hidden; grep -c ' /sys sysfs ro' /proc/mounts || :";
    assert_eq!(inside(&world, &[], hidden), "hidden\n1");
    assert_eq!(inside(&world, &["--privileged"], hidden), "shown\n0");
    let paths = "head -n 1 /proc/timer_list | grep -q . && echo shown || echo hidden";
    assert_eq!(inside(&world, &["--security-opt", "systempaths=unconfined"], paths), "shown");
    // exec has a flag of its own.
    world.ok(&["run", "-d", "--name", "plain", "--network", "none", BUSYBOX, "sleep", "1000"]);
    let of_exec = |flags: &[&str]| world.ok(&[&["exec"], flags, &["plain", "sh", "-c", RIGHTS]].concat());
    assert_eq!(of_exec(&[]), "CapEff: 00000000a80425fb NoNewPrivs: 0 Seccomp: 2");
    assert!(of_exec(&["--privileged"]).starts_with(&format!("CapEff: {all} ")));
    assert_eq!(inside(&world, &["-u", "1000", "--group-add", "999", "--group-add", "998"], "id -G"), "0 998 999");
    world.ok(&["rm", "-f", "plain"]);
    world.assert_empty();
}

#[test]
fn devices_are_there_and_open_as_far_as_was_said() {
    let world = World::new();
    // One that nobody has otherwise. To open it is enough.
    let script = "for to in if of; do dd $to=/dev/mine count=0 2>&1 | grep -c 'not permitted' || :; done";
    for (rights, refused) in [("r", "0\n1"), ("w", "1\n0"), ("rw", "0\n0")] {
        let device = format!("/dev/loop-control:/dev/mine:{rights}");
        assert_eq!(inside(&world, &["--device", &device], script), refused, "{rights}");
    }
    // One that the host need not have: what counts is who says no.
    let open = "mknod /node c 10 235 && dd if=/node count=0 2>&1 | grep -c 'not permitted' || :";
    assert_eq!(inside(&world, &[], open), "1");
    assert_eq!(inside(&world, &["--device-cgroup-rule", "c 10:235 rwm"], open), "0");
    world.assert_empty();
}

#[test]
fn a_small_init_reaps_and_passes_signals_on() {
    let inits =
        ["/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/usr/bin/catatonit"];
    let world = World::new();
    if !inits.iter().any(|it| fs::exists(it).unwrap_or(false)) {
        let sentence = world.refused(&["run", "--rm", "--network", "none", "--init", BUSYBOX, "true"]);
        assert!(sentence.contains("tini"), "{sentence}");
        skip!("there is no small init: install the package tini")
    }
    let flags = ["--network", "none", "--name"];
    for (name, init, code) in [("with", &["--init"][..], "143"), ("without", &[], "137")] {
        world.ok(&[&["run", "-d"], &flags[..], &[name], init, &[BUSYBOX, "sleep", "1000"]].concat());
        // Process 1 is not ended by a signal that it does nothing about.
        world.ok(&["stop", "-t", "2", name]);
        assert_eq!(world.field(name, ".State.ExitCode"), code, "{name}");
    }
    // An orphan that ends is somebody's.
    let orphan =
        "sh -c 'sleep 0.01 & exit'; while ls /proc/*/comm | xargs grep -sq '^sleep'; do :; done; cat /proc/1/cmdline";
    let seen = inside(&world, &["--init"], orphan);
    assert!(seen.starts_with("/sbin/docker-init"), "{seen}");
    world.ok(&["rm", "with", "without"]);
    world.assert_empty();
}

#[test]
fn the_runtime_its_annotations_and_its_checks_are_the_users() {
    let world = World::new();
    let runtime = integration::under_test().display().to_string();
    let flags = ["--network", "none", "--runtime", &runtime, "--annotation", "org.example.a=b"];
    world.ok(&[&["run", "-d", "--name", "web"], &flags[..], &[BUSYBOX, "sleep", "1000"]].concat());
    let id = world.field("web", ".Id");
    let config = fs::read_to_string(world.run.join("containers").join(&id).join("bundle/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["annotations"]["org.example.a"], "b");
    assert_eq!(world.field("web", ".HostConfig.Runtime"), runtime);
    let sentence = world.refused(&["run", "--rm", "--network", "none", "--runtime", "/no/such", BUSYBOX, "true"]);
    assert!(sentence.contains("/no/such"), "{sentence}");
    world.ok(&["rm", "-f", "web"]);

    // What the image checks is not checked if it is said so; failures at first do not count.
    world.ok(&["create", "--name", "base", "--network", "none", BUSYBOX]);
    world.ok(&["commit", "-c", "HEALTHCHECK --interval=50ms --retries=1 CMD false", "base", "checked"]);
    let start = ["run", "-d", "--network", "none", "--name"];
    let sleep = ["checked", "sleep", "1000"];
    world.ok(&[&start[..], &["ill"], &sleep].concat());
    world.until("ill", ".State.Health.Status", "unhealthy");
    world.ok(&[&start[..], &["unseen", "--no-healthcheck"], &sleep].concat());
    assert!(world.inspect("unseen")["State"].get("Health").is_none());
    let early = ["--health-start-period", "1h", "--health-start-interval", "20ms", "--health-interval", "1h"];
    world.ok(&[&start[..], &["early"], &early, &sleep].concat());
    wait::until("several checks have failed", || {
        world.inspect("early")["State"]["Health"]["Log"].as_array().is_some_and(|it| it.len() >= 3)
    });
    assert_eq!(world.field("early", ".State.Health.Status"), "starting");
    world.ok(&["rm", "-f", "base", "ill", "unseen", "early"]);
    world.ok(&["rmi", "checked"]);
    world.assert_empty();
}

#[test]
fn the_address_of_its_interface_and_of_a_second_network_are_the_users() {
    let world = World::new();
    world.ok(&[
        "network",
        "create",
        "-d",
        "bridge",
        "--attachable",
        "--internal",
        "--subnet",
        "10.70.0.0/24",
        "--gateway",
        "10.70.0.77",
        "--ip-range",
        "10.70.0.128/25",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "inner",
    ]);
    let script = "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip -o -4 addr show eth0; ip route";
    let words =
        ["run", "--rm", "--network", "inner", "--mac-address", "92:d0:c6:0a:29:33", BUSYBOX, "sh", "-c", script];
    let seen = world.ok(&words);
    let mut lines = seen.lines();
    assert_eq!((lines.next(), lines.next()), (Some("92:d0:c6:0a:29:33"), Some("1400")), "{seen}");
    let address = lines.next().unwrap();
    let last: u32 = address.split("10.70.0.").nth(1).and_then(|it| it.split('/').next()).unwrap().parse().unwrap();
    assert!((128..255).contains(&last), "{address}");
    assert!(!seen.contains("default"), "it leads nowhere: {seen}");
    let shown = world.ok(&["network", "inspect", "inner"]);
    for part in
        ["\"Internal\": true", "\"Attachable\": true", "\"Gateway\": \"10.70.0.77\"", "\"IPRange\": \"10.70.0.128/25\""]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(world.ok(&["network", "ls", "-f", "name=inner", "--format", "{{.Name}} {{.Internal}}"]), "inner true");
    assert_eq!(world.ok(&["network", "ls", "-q", "--no-trunc", "-f", "name=inner"]).len(), 64);
    world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    world.ok(&["network", "connect", "--ip", "10.70.0.200", "inner", "web"]);
    assert!(world.ok(&["exec", "web", "ip", "-o", "-4", "addr", "show", "eth1"]).contains("10.70.0.200/24"));
    assert!(world.refused(&["network", "connect", "--link", "a:b", "inner", "web"]).contains("--alias"));
    assert!(world.refused(&["run", "--rm", "--ip6", "fd00::1", "--network", "inner", BUSYBOX]).contains("IPv6"));
    world.ok(&["rm", "-f", "web"]);
    world.ok(&["network", "rm", "inner"]);
    world.assert_empty();
}
