//! Tables: resources, and the properties that they must become.

use super::*;
use crate::cgroup::Layout;
use crate::dbus::Type;
use crate::plan::cgroup::devices::Access;
use crate::plan::cgroup::{self, CgroupPlan, Manager, Privilege, Target};

fn layout(version: Version) -> Layout {
    let unified = b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n".as_slice();
    match version {
        Version::Missing => Layout::parse(b"", b""),
        Version::V2 => Layout::parse(b"0::/user.slice/s.scope\n", unified),
        Version::V1 => Layout::parse(
            b"5:memory:/own\n4:cpu,cpuacct:/own\n3:devices:/\n2:freezer:/\n1:name=systemd:/u\n6:pids:/\n7:blkio:/\n8:cpuset:/\n0::/u\n",
            b"1 1 0:1 / /c/memory rw - cgroup cgroup rw,memory\n2 1 0:2 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
              3 1 0:3 / /c/devices rw - cgroup cgroup rw,devices\n4 1 0:4 / /c/freezer rw - cgroup cgroup rw,freezer\n\
              5 1 0:5 / /c/systemd rw - cgroup cgroup rw,name=systemd\n6 1 0:6 / /c/unified rw - cgroup2 cgroup2 rw\n\
              7 1 0:7 / /c/pids rw - cgroup cgroup rw,pids\n8 1 0:8 / /c/blkio rw - cgroup cgroup rw,blkio\n\
              9 1 0:9 / /c/cpuset rw - cgroup cgroup rw,cpuset\n",
        ),
    }
}

fn spec(linux: &str) -> Spec {
    serde_json::from_str(&format!(r#"{{"ociVersion": "1.3.0", "root": {{"path": "r"}}, "linux": {linux}}}"#)).unwrap()
}

fn site(domain: Domain, base: &str) -> Manager {
    Manager::Systemd(Site { domain, base: base.to_owned() })
}

fn lowered(linux: &str, manager: Manager, version: Version) -> Result<CgroupPlan> {
    cgroup::lower(&spec(linux), "c1", manager, &layout(version), Privilege::Root)
}

/// The properties beside those that every unit has, as text.
fn properties(resources: &str, version: Version) -> Result<Vec<String>> {
    let bare = lowered("{}", site(Domain::System, ""), version)?.unit.unwrap().properties;
    let linux = format!(r#"{{"resources": {resources}}}"#);
    let unit = lowered(&linux, site(Domain::System, ""), version)?.unit.unwrap();
    assert_eq!(unit.properties[..bare.len()], bare);
    Ok(unit.properties[bare.len()..]
        .iter()
        .map(|property| format!("{}={}", property.name, shown(&property.value)))
        .collect())
}

fn shown(value: &Value) -> String {
    match value {
        Value::U64(u64::MAX) => "infinity".to_owned(),
        Value::U64(number) => number.to_string(),
        Value::Text(text) => text.clone(),
        Value::Byte(byte) => format!("{byte:02x}"),
        Value::Array(_, values) | Value::Struct(values) => values.iter().map(shown).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

#[test]
fn each_resource_becomes_its_properties() {
    type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);
    let table: &[Row<'_>] = &[
        ("{}", &[], &[]),
        (r#"{"pids": {"limit": 100}}"#, &["TasksMax=100"], &["TasksMax=100"]),
        (r#"{"pids": {"limit": -1}}"#, &["TasksMax=infinity"], &["TasksMax=infinity"]),
        (r#"{"memory": {"limit": 4096}}"#, &["MemoryLimit=4096"], &["MemoryMax=4096"]),
        (r#"{"memory": {"limit": -1}}"#, &["MemoryLimit=infinity"], &["MemorySwapMax=infinity", "MemoryMax=infinity"]),
        // Swap and the reservation are no properties on version 1: they are written.
        (
            r#"{"memory": {"limit": 4096, "swap": 8192, "reservation": 2048}}"#,
            &["MemoryLimit=4096"],
            &["MemorySwapMax=4096", "MemoryMax=4096", "MemoryLow=2048"],
        ),
        (r#"{"cpu": {"shares": 1024}}"#, &["CPUShares=1024"], &["CPUWeight=100"]),
        (
            r#"{"cpu": {"quota": 25000, "period": 50000}}"#,
            &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=500000"],
            &["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=500000"],
        ),
        // Rounded up to a percent.
        (
            r#"{"cpu": {"quota": 1100}}"#,
            &["CPUQuotaPerSecUSec=20000"],
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=20000"],
        ),
        (
            r#"{"cpu": {"quota": -1}}"#,
            &["CPUQuotaPerSecUSec=infinity"],
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"],
        ),
        (
            r#"{"cpu": {"cpus": "0-1,9", "mems": "0"}}"#,
            &["AllowedCPUs=03 02", "AllowedMemoryNodes=01"],
            &["AllowedCPUs=03 02", "AllowedMemoryNodes=01"],
        ),
        (r#"{"cpu": {"idle": 1}}"#, &[], &["CPUWeight=0"]),
        (r#"{"cpu": {"idle": 1, "shares": 1024}}"#, &["CPUShares=1024"], &["CPUWeight=100", "CPUWeight=0"]),
        (r#"{"cpu": {"idle": 0}}"#, &[], &["CPUWeight=100"]),
        (r#"{"blockIO": {"weight": 200}}"#, &["BlockIOWeight=200"], &["IOWeight=1920"]),
        (
            r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}}"#,
            &[],
            &["IODeviceWeight=/dev/block/8:0 1"],
        ),
        (
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}],
                            "throttleWriteIOPSDevice": [{"major": 8, "minor": 1, "rate": 0}]}}"#,
            &["BlockIOReadBandwidth=/dev/block/8:0 7"],
            &["IOReadBandwidthMax=/dev/block/8:0 7", "IOWriteIOPSMax=/dev/block/8:1 infinity"],
        ),
        // No property knows of these.
        (r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}], "rdma": {"a": {"hcaHandles": 1}}}"#, &[], &[]),
        (r#"{"cpu": {"burst": 0}}"#, &[], &[]),
    ];
    for (resources, v1, v2) in table {
        if !resources.contains("hugepage") {
            assert_eq!(properties(resources, Version::V1).unwrap(), *v1, "{resources} on version 1");
        }
        assert_eq!(properties(resources, Version::V2).unwrap(), *v2, "{resources} on version 2");
    }
}

#[test]
fn each_file_that_has_a_property_is_found_in_unified() {
    let table: &[(&str, &str, &[&str])] = &[
        ("memory.max", "64M", &["MemoryMax=67108864"]),
        ("memory.high", "max", &["MemoryHigh=infinity"]),
        ("memory.low", "1k", &["MemoryLow=1024"]),
        ("memory.min", "5", &["MemoryMin=5"]),
        ("memory.swap.max", "1G", &["MemorySwapMax=1073741824"]),
        ("pids.max", "max", &["TasksMax=infinity"]),
        ("cpu.weight", "7", &["CPUWeight=7"]),
        ("cpu.idle", "1", &["CPUWeight=0"]),
        ("cpu.max", "max", &["CPUQuotaPerSecUSec=infinity"]),
        ("cpu.max", "5000 10000", &["CPUQuotaPeriodUSec=10000", "CPUQuotaPerSecUSec=500000"]),
        ("cpuset.cpus", "8", &["AllowedCPUs=00 01"]),
        ("cpuset.mems", "0-2", &["AllowedMemoryNodes=07"]),
        ("io.weight", "default 50", &["IOWeight=50"]),
        ("io.weight", "8:0 60\\n9:0 default", &["IODeviceWeight=/dev/block/8:0 60"]),
        (
            "io.max",
            "8:0 rbps=1 wbps=2",
            &["IOReadBandwidthMax=/dev/block/8:0 1", "IOWriteBandwidthMax=/dev/block/8:0 2"],
        ),
        (
            "io.max",
            "8:0 riops=3 wiops=max",
            &["IOReadIOPSMax=/dev/block/8:0 3", "IOWriteIOPSMax=/dev/block/8:0 infinity"],
        ),
        ("io.latency", "8:0 target=75", &["IODeviceLatencyTargetUSec=/dev/block/8:0 75"]),
        ("memory.oom.group", "1", &[]),
        ("hugetlb.2MB.max", "0", &[]),
    ];
    for (file, value, expected) in table {
        let resources = format!(r#"{{"unified": {{"{file}": "{value}"}}}}"#);
        assert_eq!(properties(&resources, Version::V2).unwrap(), *expected, "{file} {value}");
    }
    for (file, value) in [
        ("memory.max", "much"),
        ("memory.max", "99999999999999999999"),
        ("pids.max", "-1"),
        ("cpu.max", "1 2 3"),
        ("cpu.max", ""),
        ("cpu.weight", "x"),
        ("io.max", "8:0 what=1"),
        ("io.weight", "8:0 x"),
        ("io.latency", "8:0 75"),
    ] {
        let resources = format!(r#"{{"unified": {{"{file}": " {value}"}}}}"#);
        let error = properties(&resources, Version::V2).unwrap_err().to_string();
        assert!(error.contains(&format!("which is no value of {file}")), "{file} {value}: {error}");
    }
}

#[test]
fn the_scope_lies_in_its_slice_in_every_hierarchy() {
    let path = r#"{"cgroupsPath": "a-b.slice:p:n"}"#;
    let plan = lowered(path, site(Domain::System, ""), Version::V2).unwrap();
    assert!(!plan.clones_into());
    let unit = plan.unit.unwrap();
    assert_eq!((&*unit.name, &*unit.slice), ("p-n.scope", "a-b.slice"));
    assert!(matches!(plan.target, Target::V2(place) if place.path == "a.slice/a-b.slice/p-n.scope"));
    let plan = lowered("{}", site(Domain::User, "user.slice/user@7.service"), Version::V2).unwrap();
    assert!(
        matches!(plan.target, Target::V2(place) if place.path == "user.slice/user@7.service/user.slice/tare-c1.scope")
    );
    let plan = lowered(path, site(Domain::System, ""), Version::V1).unwrap();
    let Target::V1(places) = plan.target else { panic!("{:?}", plan.target) };
    assert!(places.iter().all(|place| place.path == "a.slice/a-b.slice/p-n.scope"));
    let mounts: Vec<&str> = places.iter().map(|place| place.mount.to_str().unwrap()).collect();
    // The hierarchy by which a hybrid systemd finds processes is the last.
    assert_eq!(mounts.last(), Some(&"/c/unified"));
    assert!(mounts.contains(&"/c/systemd") && mounts.contains(&"/c/freezer"), "{mounts:?}");
    for (domain, version, part) in [
        (Domain::User, Version::V1, "no say over cgroup version 1"),
        (Domain::System, Version::Missing, "no cgroup hierarchy is mounted"),
    ] {
        let error = lowered("{}", site(domain, ""), version).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_weight_of_an_idle_cgroup_is_not_written() {
    let linux = r#"{"resources": {"cpu": {"idle": 1, "shares": 512}}}"#;
    let plan = lowered(linux, site(Domain::System, ""), Version::V2).unwrap();
    let Target::V2(place) = plan.target else { panic!("{:?}", plan.target) };
    assert_eq!(place.writes.iter().map(|write| &*write.file).collect::<Vec<_>>(), ["cpu.idle"]);
}

#[test]
fn devices_are_named_as_systemd_names_them() {
    let drivers = "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n136 pts\n 10 misc\n\nBlock devices:\n  8 sd\n 65 sd\n  7 loop\n";
    let rules = |linux: &str, version| {
        let linux = format!(r#"{{"resources": {{"devices": [{linux}]}}}}"#);
        let plan = lowered(&linux, site(Domain::System, ""), version).unwrap();
        let rules = device_rules(&plan.devices, version, drivers);
        rules.iter().map(|property| (property.name.to_string(), shown(&property.value))).collect::<Vec<_>>()
    };
    let policy = |policy: &str| ("DevicePolicy".to_owned(), policy.to_owned());
    let always = "block-* m";
    let usual = rules(r#"{"allow": false, "access": "rwm"}"#, Version::V2);
    assert_eq!(usual[0], policy("strict"));
    assert!(usual[1].1.starts_with(always), "{usual:?}");
    for entry in ["/dev/char/1:3 rwm", "/dev/char/10:200 rwm", "char-pts rwm", "char-* m"] {
        assert!(usual[1].1.contains(entry), "{entry} in {usual:?}");
    }
    let loops = rules(r#"{"allow": true, "type": "b", "major": 7, "access": "r"}"#, Version::V2);
    assert!(loops[1].1.contains("block-loop r"), "{loops:?}");
    // Several numbers have this name, none has that number, and no minor number is named alone.
    for inexpressible in [
        r#"{"allow": true, "type": "b", "major": 8, "access": "r"}"#,
        r#"{"allow": true, "type": "c", "major": 99, "access": "r"}"#,
        r#"{"allow": true, "type": "c", "minor": 9, "access": "r"}"#,
    ] {
        assert_eq!(rules(inexpressible, Version::V2), [policy("auto")], "{inexpressible}");
        let v1 = rules(inexpressible, Version::V1);
        assert_eq!((&v1[0], v1[1].1.matches("rwm").count()), (&policy("strict"), usual[1].1.matches("rwm").count()));
    }
    assert_eq!(rules(r#"{"allow": true, "access": "rwm"}"#, Version::V1), [policy("auto")]);
    assert_eq!(device_rules(&Access::all(), Version::V2, ""), [Property::new("DevicePolicy", Value::text("auto"))]);
    let typ = Type::parse("a(ss)").unwrap();
    assert_eq!(device_rules(&Access::none(), Version::V2, "")[1].value.typ(), typ);
}

#[test]
fn annotations_come_last() {
    let mut spec = spec("{}");
    let annotations = HashMap::from([("org.systemd.property.MemoryMax".to_owned(), "uint64 5".to_owned())]);
    spec.set_annotations(Some(annotations));
    let lower = |manager| cgroup::lower(&spec, "c1", manager, &layout(Version::V2), Privilege::Root);
    let unit = lower(site(Domain::System, "")).unwrap().unit.unwrap();
    assert_eq!(unit.asked, [Property::new("MemoryMax", Value::U64(5))]);
    // They are nobody's business but systemd's.
    assert_eq!(lower(Manager::Cgroupfs).unwrap().unit, None);
}
