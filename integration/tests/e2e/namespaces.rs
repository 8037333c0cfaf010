//! Namespaces: new, the caller's own, or joined by a path; and the clocks of a new time namespace.

use std::fs;

use integration::{Bundle, Runtime};
use serde_json::{Value, json};

/// The types of the specification, with the kernel's names in /proc/PID/ns.
const KINDS: [(&str, &str); 8] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
    ("user", "user"),
];

fn of_process(pid: impl std::fmt::Display, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

/// The namespaces given and a mount namespace, with no mount that needs one of the others.
fn bundle(rt: &Runtime, namespaces: &[Value]) -> Bundle {
    let mut all = namespaces.to_vec();
    if !all.iter().any(|namespace| namespace["type"] == "mount") {
        all.push(json!({"type": "mount"}));
    }
    let bundle = rt.bundle(&["/bin/probe"]).remove("/hostname").set("/linux/namespaces", json!(all));
    // A mqueue belongs to an ipc namespace and a sysfs to a network: only who owns those may mount them; and cgroups are
    // shown in the sysfs.
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !["mqueue", "sysfs", "cgroup"].contains(&mount["type"].as_str().unwrap()));
    })
}

#[test]
fn each_kind_is_new_where_it_is_asked_for_and_else_the_caller_s() {
    let rt = Runtime::from_env();
    let plain: Vec<Value> = KINDS[..7].iter().map(|(kind, _)| json!({"type": kind})).collect();
    for (namespaces, is_new) in [(&plain[..], true), (&[][..], false)] {
        let report = rt.run(&bundle(&rt, namespaces)).ok().json();
        for (kind, name) in &KINDS[..7] {
            let inside = report["namespaces"][name].as_str().unwrap();
            let is_own = is_new || *kind == "mount";
            assert_eq!(inside != of_process("self", name), is_own, "{kind}: {report}");
        }
    }
}

#[test]
fn each_kind_is_joined_by_its_path() {
    let rt = Runtime::from_env();
    let all: Vec<Value> = KINDS[..7].iter().map(|(kind, _)| json!({"type": kind})).collect();
    let donor = bundle(&rt, &all).set("/process/args", json!(["/bin/probe", "wait"]));
    let donor = rt.run_detached(&donor, &[]).unwrap();
    donor.wait_stdout(|text| text.contains("ready"));
    for (kind, name) in &KINDS[..7] {
        let path = format!("/proc/{}/ns/{name}", donor.pid());
        let report = rt.run(&bundle(&rt, &[json!({"type": kind, "path": path})])).ok().json();
        assert_eq!(report["namespaces"][name], of_process(donor.pid(), name), "{kind}");
        let others = KINDS.iter().filter(|(other, _)| other != kind && *other != "mount");
        for (other, name) in others {
            assert_eq!(report["namespaces"][name], of_process("self", name), "{other} beside a joined {kind}");
        }
    }
}

fn is_not_a_new_user(namespace: &Value) -> bool {
    namespace["type"] != "user" || namespace.get("path").is_some()
}

#[test]
fn who_joins_a_user_namespace_is_its_root() {
    let rt = Runtime::from_env();
    let donor = rt.bundle(&["/bin/probe", "wait"]).with_user_namespace();
    let map = donor.config["linux"]["uidMappings"][0].clone();
    let wanted = ["containerID", "hostID", "size"].map(|field| map[field].to_string());
    let donor = rt.run_detached(&donor, &[]).unwrap();
    donor.wait_stdout(|text| text.contains("ready"));
    let joined = |names: &[(&str, &str)]| -> Vec<Value> {
        let path = |name: &str| format!("/proc/{}/ns/{name}", donor.pid());
        names.iter().map(|(kind, name)| json!({"type": kind, "path": path(name)})).collect()
    };
    // Alone, with others of its own, and together with what belongs to it.
    for names in [&KINDS[7..], &[("user", "user"), ("network", "net"), ("ipc", "ipc"), ("pid", "pid")]] {
        let mut namespaces = joined(names);
        namespaces.push(json!({"type": "uts"}));
        if names.len() == 1 {
            // A procfs is of a pid namespace, and only who owns that may mount it.
            namespaces.push(json!({"type": "pid"}));
        }
        // The root file system is to be its root's.
        let bundle = bundle(&rt, &namespaces).with_user_namespace();
        let bundle =
            bundle.edit(|config| config["linux"]["namespaces"].as_array_mut().unwrap().retain(is_not_a_new_user));
        let bundle = bundle.remove("/linux/uidMappings").remove("/linux/gidMappings");
        let report = rt.run(&bundle).ok().json();
        for (kind, name) in names {
            assert_eq!(report["namespaces"][name], of_process(donor.pid(), name), "{kind}");
        }
        assert_eq!((&report["uid"], &report["gid"]), (&json!([0, 0]), &json!([0, 0])));
        let seen = report["uid_map"].as_str().unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(seen, wanted);
    }
}

#[test]
fn the_clocks_of_a_time_namespace_are_set_for_the_container_and_for_exec() {
    let rt = Runtime::from_env();
    let offsets = |report: &Value| -> Vec<String> {
        report["timens_offsets"].as_str().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    let expected = ["monotonic", "7200", "5", "boottime", "600", "0"];
    let time = [json!({"type": "time"}), json!({"type": "pid"})];
    let clocks = json!({"monotonic": {"secs": 7200, "nanosecs": 5}, "boottime": {"secs": 600}});
    let bundle = bundle(&rt, &time).set("/linux/timeOffsets", clocks);
    assert_eq!(offsets(&rt.run(&bundle).ok().json()), expected);
    let container = rt.run_detached(&bundle.set("/process/args", json!(["/bin/probe", "wait"])), &[]).unwrap();
    container.wait_stdout(|text| text.contains("ready"));
    let report = container.exec(&["/bin/probe"]).ok().json();
    assert_eq!(offsets(&report), expected);
    assert_eq!(report["namespaces"]["time"], of_process(container.pid(), "time"));
}
