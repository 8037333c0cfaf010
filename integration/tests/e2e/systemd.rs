//! The systemd cgroup driver beside a systemd that runs this host: what it was told, what is in the cgroup, and that both
//! stay so. Elsewhere only that it says what it lacks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use integration::world::systemd;
use integration::{Bundle, Container, Leaks, Runtime, skip, wait};
use nix::unistd::{Gid, Uid};
use serde_json::{Value, json};

use super::cgroup::directory;

const WITH_SYSTEMD: &[&str] = &["--systemd-cgroup"];

/// A runtime that lets systemd make the cgroups; none where systemd does not run the host.
fn with_systemd() -> Option<Runtime> {
    systemd::runs_the_host().then(|| Runtime::from_env().global_flags(WITH_SYSTEMD))
}

macro_rules! with_systemd {
    () => {
        match with_systemd() {
            Some(runtime) => runtime,
            None => skip!("this host is not run by systemd (integration/vm has one that is)"),
        }
    };
}

fn systemctl(args: &[&str]) -> String {
    let out = Command::new("systemctl").args(args).output().expect("systemctl runs");
    assert!(out.status.success(), "systemctl {args:?}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Properties of a unit as systemctl shows them.
fn shown(unit: &str) -> BTreeMap<String, String> {
    let text = systemctl(&["show", unit]);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[track_caller]
fn assert_shown(unit: &str, expected: &[(&str, &str)]) {
    let shown = shown(unit);
    for (name, value) in expected {
        assert_eq!(shown.get(*name).map(String::as_str), Some(*value), "{name} of {unit}");
    }
}

/// The scope that a container without a path of its own has.
fn unit(container: &Container<'_>) -> String {
    format!("tare-{}.scope", container.id())
}

fn is_v1() -> bool {
    Path::new("/sys/fs/cgroup/devices").is_dir()
}

/// The first of `files` that is in the container's cgroup of `controller`.
fn read(container: &Container<'_>, controller: &str, files: &[&str]) -> Option<String> {
    let directory = directory(container, controller);
    files.iter().find_map(|file| fs::read_to_string(directory.join(file)).ok()).map(|text| text.trim().to_owned())
}

fn with(rt: &Runtime, args: &[&str], resources: Value) -> Bundle {
    rt.bundle(args).edit(|config| {
        for (key, value) in resources.as_object().expect("resources") {
            config["linux"]["resources"][key] = value.clone();
        }
    })
}

#[test]
fn without_systemd_it_is_said_and_nothing_is_left() {
    if with_systemd().is_some() {
        skip!("this host is run by systemd");
    }
    let rt = Runtime::from_env().global_flags(WITH_SYSTEMD);
    let before = Leaks::snapshot(&rt);
    let error = rt.run(&rt.bundle(&["/bin/true"])).fails().error();
    assert!(error.contains("ask the host's systemd for a cgroup (/run/systemd/private: no such file"), "{error}");
    assert!(error.ends_with("or use --cgroup-manager cgroupfs"), "{error}");
    before.assert_same(&rt);
}

#[test]
fn each_limit_is_a_property_and_in_the_cgroup_and_stays_at_a_reload() {
    let rt = with_systemd!();
    let resources = json!({
        "pids": {"limit": 77},
        "memory": {"limit": 67_108_864, "reservation": 33_554_432},
        // Whole percents of a CPU: what systemd keeps, and writes at a reload.
        "cpu": {"shares": 512, "quota": 20_000, "period": 50_000, "cpus": "0", "mems": "0"},
    });
    let container = rt.create(&with(&rt, &["/bin/true"], resources), &[]).unwrap();
    let common: &[(&str, &str)] = &[
        ("Slice", "system.slice"),
        ("Delegate", "yes"),
        ("DefaultDependencies", "no"),
        ("CollectMode", "inactive-or-failed"),
        ("TasksMax", "77"),
        ("CPUQuotaPeriodUSec", "50ms"),
        ("CPUQuotaPerSecUSec", "400ms"),
    ];
    assert_shown(&unit(&container), common);
    let of_version: &[(&str, &str)] = match is_v1() {
        true => &[("MemoryLimit", "67108864"), ("CPUShares", "512")],
        false => &[
            ("MemoryMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("CPUWeight", "59"),
            ("AllowedCPUs", "0"),
            ("AllowedMemoryNodes", "0"),
        ],
    };
    assert_shown(&unit(&container), of_version);
    for _ in 0..2 {
        for (controller, files, expected) in [
            ("pids", &["pids.max"][..], "77"),
            ("memory", &["memory.limit_in_bytes", "memory.max"], "67108864"),
            ("memory", &["memory.soft_limit_in_bytes", "memory.low"], "33554432"),
            ("cpu", &["cpu.cfs_quota_us", "cpu.max"], if is_v1() { "20000" } else { "20000 50000" }),
            ("cpu", &["cpu.shares", "cpu.weight"], if is_v1() { "512" } else { "59" }),
            ("cpuset", &["cpuset.cpus"], "0"),
            ("cpuset", &["cpuset.mems"], "0"),
        ] {
            assert_eq!(read(&container, controller, files).as_deref(), Some(expected), "{files:?}");
        }
        systemctl(&["daemon-reload"]);
    }
}

#[test]
fn the_scope_lies_where_the_path_says_in_every_hierarchy() {
    let rt = with_systemd!();
    let tag = rt.tag().to_owned();
    let bundle = rt.bundle(&["/bin/sleep", "1000"]).set("/linux/cgroupsPath", json!(format!("{tag}-in.slice:p:{tag}")));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    let expected = format!("/{tag}.slice/{tag}-in.slice/p-{tag}.scope");
    let membership = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let inside = container.exec_detached(&[], &["/bin/sleep", "1000"]).unwrap();
    for pid in [container.pid(), inside.pid()] {
        for line in membership(pid).lines() {
            assert!(line.ends_with(&expected), "{line} of {pid}");
        }
    }
    assert_shown(&format!("p-{tag}.scope"), &[("Slice", &format!("{tag}-in.slice"))]);
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
    assert_shown(&format!("p-{tag}.scope"), &[("LoadState", "not-found")]);
    // A slice stays, as one of systemd's own does: it may be another's by now.
    systemctl(&["stop", &format!("{tag}.slice")]);
    remove_slices(&tag);
}

/// On version 1 the hierarchies that systemd does not use keep the directories of slices; they are nobody's.
fn remove_slices(tag: &str) {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        for path in [format!("{tag}.slice/{tag}-in.slice"), format!("{tag}.slice")] {
            let _ = fs::remove_dir(hierarchy.path().join(path));
        }
    }
}

#[test]
fn devices_are_the_same_before_and_after_a_reload() {
    let rt = with_systemd!();
    let script = "while read line; do echo x 2>&1 >/dev/null && echo null; (: </dev/full) 2>&1 && echo full; \
                  (: </dev/refused) 2>&1 && echo granted; echo end; done";
    let bundle = rt
        .bundle(&["/bin/sleep", "1000"])
        // /dev/kmsg's number, which no rule allows.
        .push("/linux/devices", json!({"path": "/dev/refused", "type": "c", "major": 1, "minor": 11, "fileMode": 438}))
        .push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 7, "access": "r"}));
    let container = rt.run_detached(&bundle, &[]).unwrap();
    assert_shown(&unit(&container), &[("DevicePolicy", "strict")]);
    for _ in 0..2 {
        let script = format!("echo | {{ {script}; }}");
        let out = container.exec(&["/bin/sh", "-c", &script]).ok().stdout;
        assert!(out.contains("null") && out.contains("full") && !out.contains("granted"), "{out}");
        assert!(out.to_lowercase().contains("not permitted"), "{out}");
        systemctl(&["daemon-reload"]);
    }
}

#[test]
fn an_update_changes_both_or_nothing() {
    let rt = with_systemd!();
    let resources =
        json!({"memory": {"limit": 67_108_864}, "cpu": {"quota": 20_200, "period": 50_000}, "pids": {"limit": 50}});
    let container = rt.create(&with(&rt, &["/bin/true"], resources), &[]).unwrap();
    let update = |flags: &[&str]| container.call::<&str>("update", flags, &[]);
    update(&["--memory", "80000000", "--pids-limit", "60", "--cpu-share", "2048"]).ok();
    let memory = if is_v1() { "MemoryLimit" } else { "MemoryMax" };
    assert_shown(&unit(&container), &[(memory, "80000000"), ("TasksMax", "60")]);
    assert_eq!(read(&container, "pids", &["pids.max"]).as_deref(), Some("60"));
    // What systemd keeps in percents is still what was asked for.
    let quota = read(&container, "cpu", &["cpu.cfs_quota_us", "cpu.max"]).unwrap();
    assert!(quota.starts_with("20200"), "{quota}");
    let error = update(&["--pids-limit", "70", "--cpuset-cpus", "5000"]).fails().error();
    assert!(error.contains("cpus"), "{error}");
    assert_shown(&unit(&container), &[("TasksMax", "60")]);
    assert_eq!(read(&container, "pids", &["pids.max"]).as_deref(), Some("60"));
}

#[test]
fn annotations_are_properties() {
    let rt = with_systemd!();
    let annotated = |name: &str, value: &str| {
        rt.bundle(&["/bin/true"]).edit(|config| {
            config["annotations"][format!("org.systemd.property.{name}")] = json!(value);
        })
    };
    let container = rt.create(&annotated("TimeoutStopSec", "uint64 7"), &[]).unwrap();
    assert_shown(&unit(&container), &[("TimeoutStopUSec", "7s")]);
    drop(container);
    let before = Leaks::snapshot(&rt);
    for (name, value, part) in [
        ("CollectMode", "inactive", "write text in quotes"),
        ("NoSuchThing", "'x'", "Cannot set property NoSuchThing"),
        ("Slice", "'x.slice'", "linux.cgroupsPath says which slice"),
    ] {
        let error = rt.run(&annotated(name, value)).fails().error();
        assert!(error.contains(part), "{name}: {error}");
        before.assert_same(&rt);
    }
}

#[test]
fn a_container_is_paused_signalled_and_deleted_without_being_told_the_manager() {
    let rt = with_systemd!();
    let container = rt.run_detached(&rt.bundle(&["/bin/sleep", "1000"]), &[]).unwrap();
    // As a caller that has forgotten the flag.
    let plain = |verb: &str, rest: &[&str]| {
        let mut command = Command::new(rt.binary());
        command.arg("--root").arg(rt.root()).arg(verb).arg(container.id()).args(rest).stdin(Stdio::null());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{verb}: {out:?}");
    };
    plain("pause", &[]);
    assert_eq!(container.status(), "paused");
    plain("resume", &[]);
    plain("exec", &["/bin/true"]);
    plain("update", &["--pids-limit", "33"]);
    assert_shown(&unit(&container), &[("TasksMax", "33"), ("ActiveState", "active")]);
    plain("kill", &["KILL"]);
    container.wait_exit();
    plain("delete", &[]);
    assert_shown(&unit(&container), &[("LoadState", "not-found")]);
}

#[test]
fn a_unit_that_failed_is_made_room_of_and_one_that_runs_is_not() {
    let rt = with_systemd!();
    let name = format!("p-{}.scope", rt.tag());
    let bundle = |args: &[&str], pids: i64, seconds: u32| {
        with(&rt, args, json!({"pids": {"limit": pids}}))
            .set("/linux/cgroupsPath", json!(format!(":p:{}", rt.tag())))
            .edit(|config| config["annotations"]["org.systemd.property.CollectMode"] = json!("'inactive'"))
            // A scope that had to be killed when its time was over has failed.
            .edit(|config| config["annotations"]["org.systemd.property.TimeoutStopSec"] = json!("uint64 1"))
            .edit(|config| {
                config["annotations"]["org.systemd.property.RuntimeMaxSec"] = json!(format!("uint64 {seconds}"))
            })
    };
    let container = rt.run_detached(&bundle(&["/bin/sleep", "1000"], 50, 1), &[]).unwrap();
    container.wait_exit();
    // Without a delete, which would forget it.
    wait::until("the unit has failed", || shown(&name).get("ActiveState").is_some_and(|state| state == "failed"));
    let again = rt.run_detached(&bundle(&["/bin/sleep", "1000"], 51, 900), &[]).unwrap();
    assert_shown(&name, &[("ActiveState", "active"), ("TasksMax", "51")]);
    let Err(refused) = rt.create(&bundle(&["/bin/true"], 52, 900), &[]) else { panic!("the unit is in use") };
    let error = refused.fails().error();
    assert!(error.contains("a unit of that name is there already") && error.contains(&name), "{error}");
    assert_shown(&name, &[("ActiveState", "active"), ("TasksMax", "51")]);
    assert_eq!(again.status(), "running");
    again.kill("KILL").ok();
    again.wait_exit();
    again.delete().ok();
    container.delete().ok();
    assert_shown(&name, &[("LoadState", "not-found")]);
}

#[test]
fn a_create_that_fails_leaves_no_unit() {
    let rt = with_systemd!();
    let before = Leaks::snapshot(&rt);
    let units = || systemctl(&["list-units", "--all", "--full", "--plain", "--no-legend", "*.scope"]);
    for bundle in [
        rt.bundle(&["/no/such/program"]),
        with(&rt, &["/bin/true"], json!({"memory": {"limit": 8192}})),
        with(&rt, &["/bin/true"], json!({"cpu": {"cpus": "5000"}})),
        rt.bundle(&["/bin/true"])
            .push("/mounts", json!({"destination": "/x", "source": "/no/such", "type": "bind", "options": ["bind"]})),
    ] {
        rt.run(&bundle).fails();
        before.assert_same(&rt);
        assert!(!units().contains(rt.tag()), "{}", units());
    }
}

#[test]
fn many_are_made_at_once() {
    let rt = with_systemd!();
    let bundle = rt.bundle(&["/bin/true"]);
    bundle.write();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let id = rt.fresh_id();
            rt.spawn(&["run", "--bundle", bundle.path_str(), &id], |_| {})
        })
        .collect();
    for call in calls {
        call.wait().ok();
    }
    let units = systemctl(&["list-units", "--all", "--full", "--plain", "--no-legend", "*.scope"]);
    assert!(!units.contains(rt.tag()), "{units}");
}

#[test]
fn an_ordinary_user_s_container_is_the_user_s_systemd_s() {
    let rt = with_systemd!();
    if is_v1() {
        skip!("the user's systemd has no say over cgroup version 1");
    }
    let Some(user) = systemd::user() else { skip!("no ordinary user here has a systemd") };
    let runtime_dir = format!("/run/user/{}", user.uid);
    let script = "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
    let bundle = with(&rt, &["/bin/sh", "-c", script], json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 44}}))
        .edit(|config| {
            let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
            config["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .extend(["user", "cgroup"].map(|kind| json!({"type": kind})));
            // Its group is not mapped.
            config["mounts"][2]["options"].as_array_mut().unwrap().retain(|option| option != "gid=5");
            config["linux"]["uidMappings"] = map(user.uid.as_raw());
            config["linux"]["gidMappings"] = map(user.gid.as_raw());
        });
    bundle.write();
    chown_tree(bundle.path(), user.uid, user.gid);
    let root = rt.fresh_path("user-state");
    let call = |buses: bool, args: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)])
            .args(["--clear-groups", "--"])
            .arg(rt.binary())
            .arg("--root")
            .arg(&root)
            .arg("--systemd-cgroup")
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null());
        if buses {
            command.env("XDG_RUNTIME_DIR", &runtime_dir);
        }
        if args.contains(&"--detach") {
            // The container keeps what it is given.
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.output().unwrap()
    };
    fs::create_dir(&root).unwrap();
    nix::unistd::chown(&root, Some(user.uid), Some(user.gid)).unwrap();
    for buses in [true, false] {
        let id = rt.fresh_id();
        let out = call(buses, &["run", "--bundle", bundle.path_str(), &id]);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{out:?}");
        // The container's own is the root of what it sees.
        assert_eq!(text, "0::/\n67108864\n44\n");
    }
    // An exec from elsewhere is put there by the user's systemd.
    let id = rt.fresh_id();
    let sleeping = bundle.set("/process/args", json!(["/bin/sleep", "1000"]));
    sleeping.write();
    let out = call(true, &["run", "--detach", "--bundle", sleeping.path_str(), &id]);
    assert!(out.status.success(), "{out:?}");
    let pids = format!(
        "/sys/fs/cgroup/user.slice/user-{0}.slice/user@{0}.service/user.slice/tare-{id}.scope/cgroup.procs",
        user.uid
    );
    assert!(!fs::read_to_string(&pids).unwrap_or_default().is_empty(), "{pids}");
    let out = call(true, &["exec", &id, "/bin/cat", "/proc/self/cgroup"]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(text, "0::/\n", "{out:?}");
    let out = call(true, &["delete", "--force", &id]);
    assert!(out.status.success(), "{out:?}");
}

fn chown_tree(path: &Path, uid: Uid, gid: Gid) {
    nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
        .unwrap();
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap().flatten() {
            chown_tree(&entry.path(), uid, gid);
        }
    }
}
