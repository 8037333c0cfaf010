//! What only a host with cgroup version 2 shows: each limit in the unified hierarchy, seen to bind, and cgroups that are handed
//! on to the container.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use integration::{Bundle, Container, Runtime, in_path, report_skip, skip, under_test};
use serde_json::{Value, json};

/// Whether containers are managed by version 2 here.
fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

macro_rules! need_unified {
    () => {
        if !is_unified() {
            skip!("containers of this host are managed by cgroup version 1");
        }
    };
}

fn file(container: &Container<'_>, name: &str) -> Option<String> {
    fs::read_to_string(container.cgroup("").join(name)).ok()
}

/// A bundle that sees its own cgroup as the root, writable or not.
fn own_view(rt: &Runtime, script: &str, access: &str) -> Bundle {
    let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [access]});
    rt.bundle(&["/bin/sh", "-c", script])
        .push("/linux/namespaces", json!({"type": "cgroup"}))
        .edit(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/sys/fs/cgroup")
        })
        .push("/mounts", mount)
}

/// The disk a path is on, as `MAJOR:MINOR`, if it is on one: limits of transfers are a whole disk's.
fn disk_of(path: &Path) -> Option<(u64, u64)> {
    let device = fs::metadata(path).expect("stat").dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let place = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let whole = if place.join("partition").exists() { place.parent()?.to_owned() } else { place };
    let numbers = fs::read_to_string(whole.join("dev")).ok()?;
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The flags of a cgroup2 mount are the whole hierarchy's, and the host's cgroup namespace sets them anew with each mount.
#[test]
fn a_container_without_a_cgroup_namespace_leaves_the_host_s_mount_as_it_is() {
    need_unified!();
    let flags = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let options = table.lines().find_map(|line| line.split_once(" - cgroup2 ")).expect("a cgroup2 mount").1;
        options.rsplit(' ').next().unwrap().to_owned()
    };
    let before = flags();
    if !before.contains("nsdelegate") {
        skip!("cgroup2 is mounted without nsdelegate here, so that it could not be lost");
    }
    let rt = Runtime::from_env();
    let bundle = own_view(&rt, "grep -w cgroup2 /proc/mounts", "ro").edit(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "cgroup");
    });
    let seen = rt.run(&bundle).ok().stdout;
    assert!(seen.contains(" /sys/fs/cgroup cgroup2 ro,"), "{seen}");
    assert_eq!(flags(), before);
}

#[test]
fn every_resource_is_in_its_file() {
    need_unified!();
    let rt = Runtime::from_env();
    let disk = disk_of(rt.work());
    let mut resources = json!({
        "pids": {"limit": 77},
        "memory": {"limit": 67_108_864, "swap": 100_663_296, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
        "unified": {"memory.high": "50331648", "memory.oom.group": "1", "pids.max": "78"},
    });
    let device = disk.map(|(major, minor)| {
        let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        resources["blockIO"] = json!({
            "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
            "throttleReadIOPSDevice": rate(3000), "throttleWriteIOPSDevice": rate(4000),
        });
        format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=3000 wiops=4000")
    });
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let lacks = |name: &str| !controllers.split_whitespace().any(|controller| controller == name);
    // What this kernel has no file for cannot be asked of it.
    let at_all = |name: &str| {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap().trim_start_matches('/').to_owned();
        Path::new("/sys/fs/cgroup").join(own).join(name).exists()
    };
    if lacks("hugetlb") {
        report_skip("this kernel has no controller hugetlb");
        resources.as_object_mut().unwrap().remove("hugepageLimits");
    }
    if !at_all("cpu.max.burst") {
        report_skip("this kernel has no cpu.max.burst");
        resources["cpu"].as_object_mut().unwrap().remove("burst");
    }
    if !at_all("memory.swap.max") {
        report_skip("this kernel counts no swap");
        resources["memory"].as_object_mut().unwrap().remove("swap");
    }
    if device.is_none() {
        report_skip("the work directory is on no disk of its own: transfers cannot be limited");
    }
    let asked = resources.clone();
    let bundle = rt.bundle(&["/bin/true"]).edit(|config| {
        for (key, value) in resources.as_object().unwrap() {
            config["linux"]["resources"][key] = value.clone();
        }
    });
    let container = rt.create(&bundle, &[]).unwrap();
    for (name, expected, when) in [
        // What `unified` says comes last.
        ("pids.max", "78", true),
        ("memory.max", "67108864", true),
        ("memory.swap.max", "33554432", !asked["memory"]["swap"].is_null()),
        ("memory.low", "33554432", true),
        ("memory.high", "50331648", true),
        ("memory.oom.group", "1", true),
        ("cpu.weight", "59", true),
        ("cpu.max", "20000 50000", true),
        ("cpu.max.burst", "10000", !asked["cpu"]["burst"].is_null()),
        ("cpuset.cpus", "0", true),
        ("cpuset.mems", "0", true),
        ("hugetlb.2MB.max", "4194304", !asked["hugepageLimits"].is_null()),
        ("hugetlb.2MB.rsvd.max", "4194304", !asked["hugepageLimits"].is_null()),
        ("io.max", device.as_deref().unwrap_or_default(), device.is_some()),
    ] {
        if when {
            assert_eq!(file(&container, name).as_deref().map(str::trim), Some(expected), "{name}");
        }
    }
    container.call::<&str>("update", &["--memory", "33554432", "--cpu-quota", "-1"], &[]).ok();
    assert_eq!(file(&container, "memory.max").as_deref(), Some("33554432\n"));
    assert_eq!(file(&container, "cpu.max").as_deref(), Some("max 50000\n"));
}

#[test]
fn a_weight_of_transfers_is_in_the_file_that_the_kernel_has() {
    need_unified!();
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/true"]).set("/linux/resources/blockIO", json!({"weight": 500}));
    match rt.create(&bundle, &[]) {
        Ok(container) => {
            let seen = ["io.bfq.weight", "io.weight"].map(|name| file(&container, name));
            assert!(
                seen[0].as_deref() == Some("default 500\n") || seen[1].as_deref() == Some("default 4950\n"),
                "{seen:?}"
            );
        }
        Err(output) => {
            let error = output.error();
            assert!(error.contains("blockIO.weight"), "{error}");
            skip!("this kernel weighs no transfers: {error}");
        }
    }
}

#[test]
fn a_quota_holds_the_container_back() {
    need_unified!();
    let rt = Runtime::from_env();
    let busy = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; grep nr_throttled /sys/fs/cgroup/cpu.stat";
    let limited = own_view(&rt, busy, "ro").set("/linux/resources/cpu", json!({"quota": 1_000, "period": 10_000}));
    let out = rt.run(&limited).ok().stdout;
    let throttled: u64 = out.split_whitespace().last().and_then(|count| count.parse().ok()).expect("a number");
    assert!(throttled > 0, "{out}");
}

#[test]
fn transfers_beyond_the_rate_wait() {
    need_unified!();
    let rt = Runtime::from_env();
    let Some((major, minor)) = disk_of(rt.work()) else { skip!("the work directory is on no disk of its own") };
    // Past the page cache, so that the container itself waits for the disk.
    let write = "dd if=/dev/zero of=/file bs=64k count=32 oflag=direct 2>/dev/null || echo refused";
    let rate = json!([{"major": major, "minor": minor, "rate": 1_048_576}]);
    let limited = rt
        .bundle(&["/bin/sh", "-c", write])
        .set("/root/readonly", json!(false))
        .set("/linux/resources/blockIO", json!({"throttleWriteBpsDevice": rate}));
    let out = rt.run(&limited);
    if out.stdout.contains("refused") {
        skip!("this file system does not write past the page cache");
    }
    // Two mebibytes at one a second.
    assert!(out.ok().took.as_millis() > 1500);
}

#[test]
fn a_process_is_born_in_the_cgroup() {
    need_unified!();
    if in_path("strace").is_none() {
        skip!("strace is not installed");
    }
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let traced = rt.fresh_path("trace");
    let state = rt.root();
    let out = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=clone3", "-o", traced.to_str().unwrap()])
        .arg(rt.binary())
        .args(["--root", state.to_str().unwrap(), "exec", container.id(), "cat", "/proc/self/cgroup"])
        .output()
        .expect("run strace");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), own);
    let calls = fs::read_to_string(&traced).unwrap();
    assert!(calls.contains("CLONE_INTO_CGROUP"), "{calls}");
}

#[test]
fn statistics_tell_of_pressure() {
    need_unified!();
    let rt = Runtime::from_env();
    let container = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    if file(&container, "cpu.pressure").is_none() {
        skip!("this kernel tells no pressure (CONFIG_PSI, psi=1)");
    }
    let out = container.call::<&str>("events", &["--stats"], &[]).ok().stdout;
    let stats: Value = serde_json::from_str(&out).unwrap();
    for (controller, kinds) in [("cpu", &["some"][..]), ("memory", &["some", "full"]), ("blkio", &["some", "full"])] {
        for kind in kinds {
            let told = &stats["data"][controller]["psi"][kind];
            assert!(told["avg10"].is_number() && told["total"].is_u64(), "{controller} {kind}: {stats}");
        }
    }
}

#[test]
fn the_root_of_a_user_namespace_divides_its_cgroup_but_does_not_widen_it() {
    need_unified!();
    let rt = Runtime::from_env();
    let script =
        "cd /sys/fs/cgroup; mkdir own sub && echo $$ >own/cgroup.procs && echo +pids >cgroup.subtree_control &&
        echo 5 >sub/pids.max && cat sub/pids.max; echo max 2>/dev/null >pids.max || echo kept; cat pids.max";
    let bundle = own_view(&rt, script, "rw").with_user_namespace().set("/linux/resources/pids", json!({"limit": 30}));
    let out = rt.run(&bundle).ok();
    assert_eq!(out.stdout, "5\nkept\n30\n", "{}", out.stderr);
}

#[test]
fn a_container_runs_containers_in_its_own_cgroup() {
    need_unified!();
    let rt = Runtime::from_env();
    // A process in the root of the view stands in the way of controllers for what is below, as on any host.
    let script = "mkdir /sys/fs/cgroup/outer && echo $$ >/sys/fs/cgroup/outer/cgroup.procs &&
        tare --root /run/state run --bundle /inner inner; echo $?; ls -d /sys/fs/cgroup/inner 2>/dev/null; ls /run/state";
    let inner_script = "cat /sys/fs/cgroup/pids.max; cat /proc/self/cgroup";
    let inner = own_view(&rt, inner_script, "ro").set("/linux/resources/pids", json!({"limit": 12}));
    let all = json!([
        "CAP_SYS_ADMIN",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_MKNOD",
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_NET_ADMIN",
        "CAP_SYS_CHROOT",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_SYS_RESOURCE",
        "CAP_AUDIT_WRITE",
        "CAP_NET_BIND_SERVICE",
        "CAP_BPF",
        "CAP_DAC_READ_SEARCH",
        "CAP_SYS_PTRACE"
    ]);
    let outer = own_view(&rt, script, "rw")
        .set("/root/readonly", json!(false))
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]))
        .set("/linux/resources/pids", json!({"limit": 200}))
        .set("/process/noNewPrivileges", json!(false))
        .push("/mounts", json!({"destination": "/run", "type": "tmpfs", "source": "tmpfs"}))
        .edit(|config| {
            for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
                config["process"]["capabilities"][set] = all.clone();
            }
        });
    fs::copy(under_test(), outer.rootfs().join("bin/tare")).expect("copy tare");
    let place = outer.rootfs().join("inner");
    fs::create_dir(&place).expect("make a directory");
    integration::build_rootfs(&place.join("rootfs"));
    fs::write(place.join("config.json"), inner.config.to_string()).expect("write the configuration");
    let out = rt.run(&outer).ok();
    assert_eq!(out.stdout, "12\n0::/\n0\n", "{}", out.stderr);
}
