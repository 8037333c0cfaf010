//! Tables: a piece of `linux`, and the exact writes it must become.

use super::*;

mod devices_and_program;

const HYBRID: &str = "9:name=systemd:/\n8:pids:/own\n7:blkio:/own\n6:freezer:/own\n5:devices:/own\n4:memory:/own\n3:cpuset:/own\n\
                      2:cpu,cpuacct:/own\n1:net_cls,net_prio:/\n0::/own\n";
const UNIFIED: &str = "0::/user.slice/session.scope\n";

fn v1() -> Layout {
    let mounts: String = HYBRID
        .lines()
        .filter_map(|line| line.split(':').nth(1).filter(|names| !names.is_empty()))
        .map(|names| {
            let dir = names.trim_start_matches("name=");
            format!("31 23 0:28 / /sys/fs/cgroup/{dir} rw,relatime - cgroup cgroup rw,{names}\n")
        })
        .collect();
    let mounts = format!("{mounts}40 23 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    Layout::parse(HYBRID.as_bytes(), mounts.as_bytes())
}

fn v2() -> Layout {
    Layout::parse(UNIFIED.as_bytes(), b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n")
}

fn spec(linux: &str) -> Spec {
    let text = format!(r#"{{"ociVersion": "1.3.0", "root": {{"path": "rootfs"}}, "linux": {linux}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn lower_in(layout: &Layout, linux: &str) -> Result<CgroupPlan> {
    lower(&spec(linux), "c1", Manager::Cgroupfs, layout, Privilege::Root)
}

/// `file=value` of each write, in order; on version 1 the hierarchy's order.
fn writes(layout: &Layout, resources: &str) -> Result<Vec<String>> {
    let plan = lower_in(layout, &format!(r#"{{"resources": {resources}}}"#))?;
    let writes = match plan.target {
        Target::None => Vec::new(),
        Target::V1(places) => places.into_iter().flat_map(|place| place.writes).collect(),
        Target::V2(place) => place.writes,
    };
    Ok(writes.into_iter().map(|write| format!("{}={}", write.file, write.value)).collect())
}

#[test]
fn each_resource_becomes_its_writes() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("{}", &[], &[]),
        (r#"{"pids": {"limit": 100}}"#, &["pids.max=100"], &["pids.max=100"]),
        (r#"{"pids": {"limit": 0}}"#, &["pids.max=1"], &["pids.max=1"]),
        (r#"{"pids": {"limit": -1}}"#, &["pids.max=max"], &["pids.max=max"]),
        (r#"{"memory": {"limit": 4096}}"#, &["memory.limit_in_bytes=4096"], &["memory.max=4096"]),
        (r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0}}"#, &[], &[]),
        (
            r#"{"memory": {"limit": 4096, "swap": 8192, "reservation": 2048}}"#,
            &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=8192", "memory.soft_limit_in_bytes=2048"],
            &["memory.swap.max=4096", "memory.max=4096", "memory.low=2048"],
        ),
        (
            r#"{"memory": {"limit": 4096, "swap": 4096}}"#,
            &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=4096"],
            &["memory.swap.max=0", "memory.max=4096"],
        ),
        (
            r#"{"memory": {"limit": 4096, "swap": -1}}"#,
            &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=-1"],
            &["memory.swap.max=max", "memory.max=4096"],
        ),
        (
            r#"{"memory": {"limit": -1}}"#,
            &["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"],
            &["memory.swap.max=max", "memory.max=max"],
        ),
        (
            r#"{"memory": {"swappiness": 60, "disableOOMKiller": true}}"#,
            &["memory.oom_control=1", "memory.swappiness=60"],
            &[],
        ),
        (r#"{"cpu": {"shares": 1024}}"#, &["cpu.shares=1024"], &["cpu.weight=100"]),
        (r#"{"cpu": {"quota": 5000}}"#, &["cpu.cfs_quota_us=5000"], &["cpu.max=5000 100000"]),
        (r#"{"cpu": {"quota": -1}}"#, &["cpu.cfs_quota_us=-1"], &["cpu.max=max 100000"]),
        (r#"{"cpu": {"period": 20000}}"#, &["cpu.cfs_period_us=20000"], &["cpu.max=max 20000"]),
        (
            r#"{"cpu": {"quota": 5000, "period": 20000, "burst": 1000}}"#,
            &["cpu.cfs_period_us=20000", "cpu.cfs_burst_us=1000", "cpu.cfs_quota_us=5000"],
            &["cpu.max.burst=1000", "cpu.max=5000 20000"],
        ),
        (
            r#"{"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 950000}}"#,
            &["cpu.rt_period_us=1000000", "cpu.rt_runtime_us=950000"],
            &[],
        ),
        (
            r#"{"cpu": {"idle": 1, "shares": 2048}}"#,
            &["cpu.shares=2048", "cpu.idle=1"],
            &["cpu.weight=174", "cpu.idle=1"],
        ),
        (
            r#"{"cpu": {"idle": 0, "shares": 2048}}"#,
            &["cpu.shares=2048", "cpu.idle=0"],
            &["cpu.idle=0", "cpu.weight=174"],
        ),
        (
            r#"{"cpu": {"cpus": "0-1,3", "mems": "0"}}"#,
            &["cpuset.cpus=0-1,3", "cpuset.mems=0"],
            &["cpuset.cpus=0-1,3", "cpuset.mems=0"],
        ),
        (r#"{"cpu": {"cpus": "", "mems": ""}}"#, &[], &[]),
        (r#"{"blockIO": {"weight": 500}}"#, &["blkio.weight=500"], &["io.bfq.weight=500"]),
        (
            r#"{"blockIO": {"leafWeight": 20, "weightDevice": [{"major": 8, "minor": 0, "weight": 10, "leafWeight": 30}]}}"#,
            &["blkio.leaf_weight=20", "blkio.weight_device=8:0 10", "blkio.leaf_weight_device=8:0 30"],
            &["io.bfq.weight=8:0 10"],
        ),
        (
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}, {"major": 8, "minor": 16, "rate": 0}],
                            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 1}],
                            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 2}],
                            "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 18446744073709551615}]}}"#,
            &[
                "blkio.throttle.read_bps_device=8:0 1024",
                "blkio.throttle.read_bps_device=8:16 0",
                "blkio.throttle.write_bps_device=8:0 1",
                "blkio.throttle.read_iops_device=8:0 2",
                "blkio.throttle.write_iops_device=8:0 18446744073709551615",
            ],
            &[
                "io.max=8:0 rbps=1024",
                "io.max=8:16 rbps=max",
                "io.max=8:0 wbps=1",
                "io.max=8:0 riops=2",
                "io.max=8:0 wiops=18446744073709551615",
            ],
        ),
        (
            r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]}}"#,
            &["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 5"],
            &[],
        ),
    ];
    for (resources, on_v1, on_v2) in table {
        let mut found = writes(&v1(), resources).unwrap();
        // Version 1 hierarchies are independent of each other; only the order within one matters.
        let mut expected: Vec<String> = on_v1.iter().map(|&write| write.to_owned()).collect();
        let controller = |write: &String| write.split('.').next().unwrap_or_default().to_owned();
        found.sort_by_key(controller);
        expected.sort_by_key(controller);
        assert_eq!(found, expected, "version 1: {resources}");
        assert_eq!(writes(&v2(), resources).unwrap(), *on_v2, "version 2: {resources}");
    }
}

#[test]
fn only_version_2_has_these() {
    for (resources, expected) in [
        (
            r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#,
            &["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"][..],
        ),
        (
            r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 1000}}}"#,
            &["rdma.max=mlx4_0 hca_object=1000", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"],
        ),
        (
            r#"{"unified": {"memory.high": "1000", "io.latency": "8:0 target=10\n8:16 target=20\n", "misc.max": "sev 1"}}"#,
            &["io.latency=8:0 target=10", "io.latency=8:16 target=20", "memory.high=1000", "misc.max=sev 1"],
        ),
    ] {
        assert_eq!(writes(&v2(), resources).unwrap(), expected, "{resources}");
    }
    let error = writes(&v1(), r#"{"unified": {"memory.high": "1000"}}"#).unwrap_err();
    assert!(error.to_string().contains("linux.resources.unified is for cgroup version 2"), "{error}");
    let error = writes(&v1(), r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}"#).unwrap_err();
    assert!(error.to_string().contains("controller hugetlb is in none of this host's version 1"), "{error}");
}

#[test]
fn shares_become_the_weights_that_runc_gives() {
    for (shares, weight) in [
        (0, None),
        (1, Some(1)),
        (2, Some(1)),
        (3, Some(2)),
        (512, Some(59)),
        (1024, Some(100)),
        (2048, Some(174)),
        (4096, Some(303)),
        (262_144, Some(10_000)),
        (u64::MAX, Some(10_000)),
    ] {
        assert_eq!(limits::weight_from_shares(shares), weight, "{shares}");
    }
    let mut last = 0;
    for shares in 2..=262_144 {
        let weight = limits::weight_from_shares(shares).unwrap();
        assert!((1..=10_000).contains(&weight) && weight >= last, "{shares}: {weight} after {last}");
        last = weight;
    }
}

#[test]
fn a_wrong_value_is_told_with_field_value_and_remedy() {
    for (resources, parts) in [
        (r#"{"cpu": {"quota": 500}}"#, &["cpu.quota is 500", "at least 1000"][..]),
        (r#"{"cpu": {"period": 999}}"#, &["cpu.period is 999", "1000 to 1000000"]),
        (r#"{"cpu": {"quota": 5000, "burst": 6000}}"#, &["cpu.burst 6000 is above", "at most 5000"]),
        (r#"{"cpu": {"idle": 2}}"#, &["cpu.idle is 2", "0 (normal) or 1"]),
        (r#"{"cpu": {"cpus": "0-"}}"#, &["cpu.cpus is \"0-\"", "such as 0-3,7"]),
        (r#"{"cpu": {"cpus": "3-1"}}"#, &["cpu.cpus is \"3-1\""]),
        (r#"{"cpu": {"mems": "a"}}"#, &["cpu.mems is \"a\""]),
        (r#"{"cpu": {"cpus": "0\n1"}}"#, &["cpu.cpus is \"0\\n1\""]),
        (r#"{"memory": {"limit": -2}}"#, &["memory.limit is -2", "-1 for no limit"]),
        (r#"{"memory": {"limit": 8192, "swap": 4096}}"#, &["memory.swap 4096 is below", "at least 8192"]),
        (r#"{"blockIO": {"weight": 9}}"#, &["blockIO.weight is 9", "10 to 1000"]),
        (
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}}"#,
            &["throttleReadBpsDevice[0]", "-1:0"],
        ),
        (r#"{"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}"#, &["hugepageLimits[0].pageSize is \"2M\"", "2MB"]),
        (r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#, &["hugepageLimits[0].pageSize"]),
        (r#"{"rdma": {"mlx5_1": {}}}"#, &["rdma.mlx5_1 sets no limit", "hcaHandles"]),
        (r#"{"devices": [{"allow": true}]}"#, &["devices[0].access is \"\"", "m (mknod)"]),
        (r#"{"devices": [{"allow": true, "access": "rx"}]}"#, &["devices[0].access is \"rx\""]),
        (r#"{"devices": [{"allow": true, "type": "p", "access": "r"}]}"#, &["devices[0].type is \"p\""]),
        (r#"{"devices": [{"allow": true, "type": "c", "major": -2, "access": "r"}]}"#, &["devices[0].major is -2"]),
    ] {
        for layout in [v1(), v2()] {
            let error = writes(&layout, resources).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Invalid, "{resources}: {error}");
            for part in parts {
                assert!(error.to_string().contains(part), "{resources}: {error} does not say {part}");
            }
        }
    }
    for (resources, part) in [
        (r#"{"unified": {"a/b.c": "1"}}"#, "\"a/b.c\""),
        (r#"{"unified": {"memory": "1"}}"#, "\"memory\""),
        (r#"{"unified": {"..": "1"}}"#, "\"..\""),
        (r#"{"memory": {"swap": 4096}}"#, "memory.swap is 4096 without linux.resources.memory.limit"),
    ] {
        let error = writes(&v2(), resources).unwrap_err().to_string();
        assert!(error.contains(part), "{resources}: {error} does not say {part}");
    }
    let error = writes(&v1(), r#"{"cpu": {"shares": 1}}"#).unwrap_err().to_string();
    assert!(error.contains("cpu.shares is 1: give 2 to 262144"), "{error}");
}

#[test]
fn a_value_that_may_depend_on_a_later_one_is_tried_again() {
    let plan = lower_in(
        &v1(),
        r#"{"resources": {"cpu": {"quota": 5000, "period": 20000}, "memory": {"limit": 4096, "swap": 8192}}}"#,
    );
    let Target::V1(places) = plan.unwrap().target else { panic!("not version 1") };
    let again: Vec<_> =
        places.iter().flat_map(|place| &place.writes).filter(|write| write.refused == Refused::TryLast).collect();
    let files: Vec<_> = again.iter().map(|write| write.file.as_ref()).collect();
    assert_eq!(files, ["memory.limit_in_bytes", "cpu.cfs_period_us"]);
}

#[test]
fn the_check_before_an_update_compares_with_the_usage() {
    let plan =
        lower_in(&v2(), r#"{"resources": {"memory": {"limit": 4096, "swap": 8192, "checkBeforeUpdate": true}}}"#);
    let Target::V2(place) = plan.unwrap().target else { panic!("not version 2") };
    let checks: Vec<_> = place.writes.iter().map(|write| (write.file.as_ref(), write.more_than)).collect();
    assert_eq!(
        checks,
        [("memory.swap.max", Some(("memory.current", 8192))), ("memory.max", Some(("memory.current", 4096)))]
    );
}

#[test]
fn the_path_follows_the_rules_callers_rely_on() {
    for (given, memory, unified) in [
        (r#""/a/b""#, "a/b", "a/b"),
        (r#""a/b""#, "own/a/b", "user.slice/a/b"),
        (r#""""#, "own/c1", "user.slice/c1"),
        (r#""/../../a/./b//c/../d""#, "a/b/d", "a/b/d"),
        (r#""../../a""#, "own/a", "user.slice/a"),
        (r#""..""#, "own/c1", "user.slice/c1"),
        (r#""system.slice:docker:c1""#, "own/system.slice:docker:c1", "user.slice/system.slice:docker:c1"),
    ] {
        let linux = format!(r#"{{"cgroupsPath": {given}}}"#);
        let Target::V1(places) = lower_in(&v1(), &linux).unwrap().target else { panic!("not version 1") };
        let place = places.iter().find(|place| place.controllers == ["memory"]).unwrap();
        assert_eq!((place.path.as_str(), place.mount.to_str()), (memory, Some("/sys/fs/cgroup/memory")), "{given}");
        let Target::V2(place) = lower_in(&v2(), &linux).unwrap().target else { panic!("not version 2") };
        assert_eq!((place.path.as_str(), place.mount.to_str()), (unified, Some("/sys/fs/cgroup")), "{given}");
    }
    for given in ["/", "/..", "//./"] {
        let error = lower_in(&v1(), &format!(r#"{{"cgroupsPath": "{given}"}}"#)).unwrap_err().to_string();
        assert!(error.contains("root of the cgroup hierarchies"), "{error}");
    }
}

#[test]
fn every_hierarchy_is_joined_and_the_unified_one_of_a_hybrid_host_is_not() {
    let Target::V1(places) = lower_in(&v1(), "{}").unwrap().target else { panic!("not version 1") };
    assert_eq!(places.len(), 9);
    assert!(places.iter().all(|place| !place.controllers.is_empty() && !place.mount.ends_with("unified")));
}

#[test]
fn the_manager_and_the_lack_of_rights_decide_what_is_made() {
    let limited = r#"{"resources": {"pids": {"limit": 5}}}"#;
    let empty = Layout::parse(b"0::/\n", b"");
    let plan = |linux, manager, layout: &Layout, privilege| lower(&spec(linux), "c1", manager, layout, privilege);
    let denied = |linux, privilege| plan(linux, Manager::Cgroupfs, &v1(), privilege).unwrap().on_denied;
    assert_eq!(denied("{}", Privilege::Root), OnDenied::Fail);
    assert_eq!(denied("{}", Privilege::Rootless), OnDenied::GoWithout);
    assert_eq!(denied(limited, Privilege::Rootless), OnDenied::Explain);
    assert_eq!(denied(r#"{"cgroupsPath": "/x"}"#, Privilege::Rootless), OnDenied::Fail);

    assert_eq!(plan("{}", Manager::Disabled, &v1(), Privilege::Root).unwrap().target, Target::None);
    assert_eq!(plan("{}", Manager::Cgroupfs, &empty, Privilege::Rootless).unwrap().target, Target::None);
    for (linux, manager, layout, part) in [
        (limited, Manager::Disabled, &v1(), "pids.limit cannot be applied with --cgroup-manager disabled"),
        ("{}", Manager::Cgroupfs, &empty, "no cgroup hierarchy is mounted"),
    ] {
        let error = plan(linux, manager, layout, Privilege::Root).unwrap_err().to_string();
        assert!(error.contains(part), "{error} does not say {part}");
    }
}

#[test]
fn a_container_that_may_manage_its_cgroup_owns_it() {
    let spec = |mount: &str, cgroup: &str| -> Spec {
        let text = format!(
            r#"{{"ociVersion": "1.3.0", "mounts": [{{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["{mount}"]}}],
                 "linux": {{"namespaces": [{{"type": "user"}}{cgroup}],
                            "uidMappings": [{{"containerID": 0, "hostID": 100000, "size": 65536}}]}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    let own = r#", {"type": "cgroup"}"#;
    assert_eq!(owner(&spec("rw", own)), Some(100_000));
    assert_eq!(owner(&spec("ro", own)), None);
    assert_eq!(owner(&spec("rw", "")), None);
    assert_eq!(owner(&spec("rw", r#", {"type": "cgroup", "path": "/proc/1/ns/cgroup"}"#)), None);
}

#[test]
fn pids_without_a_limit_ask_for_nothing() {
    for (json, kept) in [
        (r#"{"pids": {}}"#, false),
        (r#"{"pids": {"limit": 0}}"#, true),
        (r#"{"pids": {"limit": 5}}"#, true),
        ("{}", false),
    ] {
        let mut resources: LinuxResources = serde_json::from_str(json).unwrap();
        forget_unset_pids(&mut resources, json.as_bytes(), "/pids");
        assert_eq!(resources.pids().is_some(), kept, "{json}");
    }
}
