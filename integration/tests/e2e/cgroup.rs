//! Limits: each read back from the host's cgroups and, where this host has the controller, seen to bind.

use std::fs;
use std::path::{Path, PathBuf};

use integration::{Bundle, Container, Runtime, skip, wait};
use serde_json::{Value, json};

/// Whether the host manages containers by version 1 hierarchies.
fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/devices").is_dir() || Path::new("/sys/fs/cgroup/freezer").is_dir()
}

/// The container's directory for a controller, in the hierarchy of the version that manages it.
pub(super) fn directory(container: &Container<'_>, controller: &str) -> PathBuf {
    container.cgroup(if is_v1() { controller } else { "" })
}

/// The first of `files` that is in the container's cgroup of `controller`: the names of version 1 and version 2.
fn read(container: &Container<'_>, controller: &str, files: &[&str]) -> Option<String> {
    let directory = directory(container, controller);
    files.iter().find_map(|file| fs::read_to_string(directory.join(file)).ok()).map(|text| text.trim().to_owned())
}

fn limited(rt: &Runtime, args: &[&str], resources: Value) -> Bundle {
    rt.bundle(args).edit(|config| {
        for (key, value) in resources.as_object().expect("resources") {
            config["linux"]["resources"][key] = value.clone();
        }
    })
}

#[test]
fn each_limit_is_in_the_cgroup() {
    let rt = Runtime::from_env();
    let resources = json!({
        "pids": {"limit": 77},
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"},
    });
    let container = rt.create(&limited(&rt, &["/bin/true"], resources), &[]).unwrap();
    for (controller, files, expected) in [
        ("pids", &["pids.max"][..], "77"),
        ("memory", &["memory.limit_in_bytes", "memory.max"], "67108864"),
        ("memory", &["memory.soft_limit_in_bytes", "memory.low"], "33554432"),
        ("cpu", &["cpu.cfs_quota_us"], "20000"),
        ("cpu", &["cpu.cfs_period_us"], "50000"),
        ("cpu", &["cpu.max"], "20000 50000"),
        ("cpu", &["cpu.shares"], "512"),
        ("cpu", &["cpu.weight"], "59"),
        ("cpuset", &["cpuset.cpus"], "0"),
        ("cpuset", &["cpuset.mems"], "0"),
    ] {
        if let Some(found) = read(&container, controller, files) {
            assert_eq!(found, expected, "{files:?}");
        }
    }
    assert!(read(&container, "pids", &["pids.max"]).is_some());
}

#[test]
fn the_path_is_where_the_configuration_says() {
    let rt = Runtime::from_env();
    for (given, below_root) in [(format!("/{0}/a/{0}", rt.tag()), true), (format!("{0}/../{0}/b", rt.tag()), false)] {
        let bundle = rt.bundle(&["/bin/true"]).set("/linux/cgroupsPath", json!(given));
        let container = rt.create(&bundle, &[]).unwrap();
        let membership = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
        let clean = if below_root { given } else { format!("/{}/b", rt.tag()) };
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        for line in membership.lines().filter(|line| !is_v1() || !line.starts_with("0::")) {
            let (prefix, path) = line.rsplit_once(':').unwrap();
            let base = own.lines().find_map(|line| line.strip_prefix(prefix)?.strip_prefix(':')).unwrap();
            // On version 2 the caller's own cgroup has processes, so that its parent is the base.
            let base = if is_v1() { base.trim_end_matches('/') } else { base.rsplit_once('/').unwrap().0 };
            let base = if below_root { "" } else { base };
            assert_eq!(path, format!("{base}{clean}"), "{line}");
        }
        container.delete().ok();
        container.wait_exit();
        remove_parents(&rt, &membership);
    }
}

/// A runtime removes what is the container's own; the directories above it are the caller's.
fn remove_parents(rt: &Runtime, membership: &str) {
    let mounts = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
    let mounts: Vec<PathBuf> = mounts.chain([PathBuf::from("/sys/fs/cgroup")]).collect();
    for path in membership.lines().filter_map(|line| line.splitn(3, ':').nth(2)) {
        let above = Path::new(path).ancestors().skip(1).filter(|path| path.to_string_lossy().contains(rt.tag()));
        for path in above {
            for mount in &mounts {
                let _ = fs::remove_dir(mount.join(path.strip_prefix("/").unwrap()));
            }
        }
    }
}

#[test]
fn a_process_beyond_the_number_is_refused() {
    let rt = Runtime::from_env();
    let script = "/bin/sleep 1000 & /bin/sleep 1000 & /bin/sleep 1000 & /bin/sleep 1000 & echo all";
    let out = rt.run(&limited(&rt, &["/bin/sh", "-c", script], json!({"pids": {"limit": 3}})));
    assert!(out.code() != 0 && !out.stdout.contains("all"), "{out:?}");
    assert!(out.stderr.contains("fork"), "{out:?}");
}

#[test]
fn a_number_of_0_is_a_limit_and_none_is_none() {
    let rt = Runtime::from_env();
    for (pids, can_fork) in [(json!({"limit": 0}), false), (json!({"limit": -1}), true), (json!({}), true)] {
        let out = rt.run(&limited(&rt, &["/bin/sh", "-c", "/bin/true; echo ok"], json!({"pids": pids.clone()})));
        assert_eq!(out.stdout.contains("ok"), can_fork, "{pids}: {out:?}");
    }
}

#[test]
fn memory_beyond_the_limit_ends_the_container() {
    let rt = Runtime::from_env();
    let bundle = limited(&rt, &["/bin/probe", "eat", "200"], json!({"memory": {"limit": 33_554_432}}));
    let out = rt.run(&bundle);
    assert_eq!(out.code(), 137, "{out:?}");
    assert!(!out.stdout.contains("ate"), "{out:?}");
}

#[test]
fn a_limit_too_low_to_start_says_so() {
    let rt = Runtime::from_env();
    let error = rt.run(&limited(&rt, &["/bin/true"], json!({"memory": {"limit": 8192}}))).fails().error();
    assert!(error.contains("memory") && error.contains("8 KiB"), "{error}");
}

#[test]
fn the_processors_are_those_of_the_set() {
    let rt = Runtime::from_env();
    let bundle = limited(&rt, &["/bin/grep", "Cpus_allowed_list", "/proc/self/status"], json!({"cpu": {"cpus": "1"}}));
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        skip!("this host has one processor");
    }
    assert_eq!(rt.run(&bundle).ok().stdout.split_whitespace().last(), Some("1"));
}

#[test]
fn only_devices_of_the_list_are_usable() {
    let rt = Runtime::from_env();
    // The node can be made (mknod is allowed), but not opened.
    let capable = |bundle: Bundle| {
        ["bounding", "effective", "permitted"]
            .iter()
            .fold(bundle, |bundle, set| bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD")))
    };
    let script = "mknod /dev/k c 10 229 && { (: < /dev/k) 2>&1 && echo opened; }; \
                  dd if=/dev/zero of=/dev/null bs=1 count=1 2>/dev/null && echo zero";
    let denied = capable(rt.bundle(&["/bin/sh", "-c", script]));
    let out = rt.run(&denied).ok().stdout;
    assert!(out.contains("zero") && !out.contains("opened") && out.contains("not permitted"), "{out}");

    let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"});
    let allowed = capable(rt.bundle(&["/bin/sh", "-c", script])).push("/linux/resources/devices", rule);
    let out = rt.run(&allowed).ok().stdout;
    // Past the list it is the driver that is asked, and a kernel may lack it.
    assert!(out.contains("zero") && (out.contains("opened") || out.contains("No such device")), "{out}");
}

#[test]
fn a_wrong_limit_is_refused_before_anything_is_made() {
    let rt = Runtime::from_env();
    for (resources, parts) in [
        (json!({"cpu": {"quota": 500}}), &["quota"][..]),
        (json!({"cpu": {"cpus": "4000"}}), &["cpu"]),
        (json!({"memory": {"limit": 8_388_608, "swap": 4_194_304}}), &["swap"]),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), &["huge"]),
        (json!({"unified": {"no/such": "1"}}), &["unified"]),
        (json!({"devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": ""}]}), &["access"]),
    ] {
        let out = rt.create(&limited(&rt, &["/bin/true"], resources.clone()), &[]).unwrap_err();
        let error = out.error();
        assert!(parts.iter().all(|part| error.contains(part)), "{resources}: {error}");
        assert!(!rt.root().exists() || fs::read_dir(rt.root()).unwrap().next().is_none(), "{resources} left state");
    }
}

#[test]
fn a_cgroup_in_use_is_refused_and_its_processes_live_on() {
    let rt = Runtime::from_env();
    let path = format!("/{}-shared", rt.tag());
    let bundle = |args: &[&str]| rt.bundle(args).set("/linux/cgroupsPath", json!(path)).without_namespace("pid");
    let first = rt.run_detached(&bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    first.wait_stdout(|text| text.contains("ready"));
    let error = rt.create(&bundle(&["/bin/true"]), &[]).unwrap_err().error();
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(first.status(), "running");
    first.kill("TERM").ok();
    first.wait_exit();
    first.delete().ok();
}

#[test]
fn the_root_of_the_hierarchies_is_no_containers_cgroup() {
    let rt = Runtime::from_env();
    let error = rt.create(&rt.bundle(&["/bin/true"]).set("/linux/cgroupsPath", json!("/")), &[]).unwrap_err().error();
    assert!(!error.is_empty());
}

#[test]
fn a_cgroup_namespace_begins_at_the_containers_own() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/cat", "/proc/self/cgroup"]).push("/linux/namespaces", json!({"type": "cgroup"}));
    let out = rt.run(&bundle).ok().stdout;
    let lines = out.lines().filter(|line| !is_v1() || !line.starts_with("0::"));
    assert!(lines.clone().count() > 0 && lines.clone().all(|line| line.ends_with(":/")), "{out}");
}

#[test]
fn what_the_container_made_below_its_cgroup_goes_with_it() {
    let rt = Runtime::from_env();
    let writable = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]});
    let script = if is_v1() {
        "for d in /sys/fs/cgroup/*; do mkdir -p $d/own/sub || exit 3; echo 0 > $d/own/tasks; done; echo made; sleep 1000"
    } else {
        "mkdir -p /sys/fs/cgroup/own/sub; echo made; sleep 1000"
    };
    let bundle = rt
        .bundle(&["/bin/sh", "-c", script])
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .edit(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup")
        })
        .push("/mounts", writable);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    let out = wait_or_show(&container);
    assert!(out.contains("made"), "{out}");
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

fn wait_or_show(container: &Container<'_>) -> String {
    container.wait_stdout(|text| text.contains("made"))
}

#[test]
fn exec_joins_the_containers_cgroup_or_one_below_it() {
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let own = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let init = own(&container.pid().to_string());
    let seen = container.exec(&["cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(seen, init);

    let sub = directory(&container, "pids").join("sub");
    fs::create_dir(&sub).unwrap();
    let flag = if is_v1() { "pids:sub" } else { "sub" };
    let seen = container.exec_with(&["--cgroup", flag], &["cat", "/proc/self/cgroup"]).ok().stdout;
    assert_eq!(seen.lines().filter(|line| line.ends_with("/sub")).count(), 1, "{seen}");
    for (flag, part) in [("../..", "cgroup"), ("nothing", "cgroup"), ("nocontroller:sub", "controller")] {
        let error = container.exec_with(&["--cgroup", flag], &["true"]).fails().error();
        assert!(error.contains(part), "{flag}: {error}");
    }
}

#[test]
fn without_cgroups_the_container_stays_where_its_caller_is() {
    let rt = Runtime::from_env().global_flags(&["--cgroup-manager", "disabled"]);
    let bundle = rt.bundle(&["/bin/cat", "/proc/self/cgroup"]);
    let out = rt.run(&bundle);
    if out.stderr.contains("flag provided but not defined") {
        skip!("this runtime cannot do without cgroups");
    }
    assert_eq!(out.ok().stdout, fs::read_to_string("/proc/self/cgroup").unwrap());
    let error = rt.run(&limited(&rt, &["/bin/true"], json!({"pids": {"limit": 5}}))).fails().error();
    assert!(error.contains("pids.limit") && error.contains("disabled"), "{error}");
}

#[test]
fn a_container_that_forks_without_end_is_removed() {
    let rt = Runtime::from_env();
    let bundle = limited(
        &rt,
        &["/bin/sh", "-c", "echo up; f() { f | f & }; f; while :; do sleep 1000; done"],
        json!({"pids": {"limit": 100}}),
    )
    .without_namespace("pid");
    let container = rt.run_detached(&bundle, &[]).unwrap();
    container.wait_stdout(|text| text.contains("up"));
    container.call::<&str>("delete", &["--force"], &[]).ok();
    assert!(wait::readable_while_reaping(container.pidfd(), wait::deadline()));
}
