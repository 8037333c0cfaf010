//! What only a full version 2 host can show, with files in a directory that stands for a cgroup.

use std::path::PathBuf;

use super::unique;
use crate::cgroup::{Cgroup, Directory, SavedCgroup, SavedVersion, files};
use crate::plan::cgroup::{
    CgroupPlan, Missing, OnDenied, Privilege, Refused, Target, UnifiedPlace, Write, devices::Access,
};

/// A directory with files that stands for a cgroup.
struct Fake(PathBuf);

impl Fake {
    fn new(entries: &[(&str, &str)]) -> Self {
        #[allow(clippy::disallowed_methods, reason = "a test keeps no state there")]
        let path = std::env::temp_dir().join(unique());
        std::fs::create_dir(&path).unwrap();
        for (name, content) in entries {
            std::fs::write(path.join(name), content).unwrap();
        }
        Self(path)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(file: &'static str, value: &str) -> Write {
    Write {
        file: file.into(),
        value: value.into(),
        field: "linux.resources.x".into(),
        instead: None,
        refused: Refused::Fail,
        missing: Missing::Fail,
        more_than: None,
    }
}

#[test]
fn a_missing_file_is_replaced_ignored_or_told() {
    let fake = Fake::new(&[("io.weight", ""), ("cgroup.controllers", "cpu io\n")]);
    let instead = Write { instead: Some(("io.weight".into(), "200".into())), ..write("io.bfq.weight", "20") };
    files::apply(&fake.0, &[instead]).unwrap();
    assert_eq!(fake.read("io.weight"), "200");
    files::apply(&fake.0, &[Write { missing: Missing::Ignore, ..write("memory.swap.max", "max") }]).unwrap();
    for (file, part) in [
        ("memory.swap.max", "counts no swap"),
        ("memory.max", "controller memory is not available there (available: cpu io)"),
        ("cpu.max.burst", "this kernel has no such file"),
    ] {
        let error = files::apply(&fake.0, &[write(file, "1")]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_limit_below_the_usage_is_refused_before_it_is_written() {
    let fake = Fake::new(&[("memory.current", "4096\n"), ("memory.max", "old")]);
    let checked = |limit| Write { more_than: Some(("memory.current", limit)), ..write("memory.max", "new") };
    let error = files::apply(&fake.0, &[checked(4096)]).unwrap_err().to_string();
    assert!(error.contains("in use now, 4096") && fake.read("memory.max") == "old", "{error}");
    files::apply(&fake.0, &[checked(4097)]).unwrap();
    assert_eq!(fake.read("memory.max"), "new");
}

#[test]
fn controllers_are_passed_on_from_the_top() {
    let mount = Fake::new(&[("cgroup.controllers", "cpu memory pids\n"), ("cgroup.subtree_control", "")]);
    let slice = mount.0.join("slice");
    std::fs::create_dir(&slice).unwrap();
    std::fs::write(slice.join("cgroup.subtree_control"), "").unwrap();
    std::fs::create_dir(slice.join("c1")).unwrap();
    for (file, content) in [
        ("cgroup.controllers", ""),
        ("cgroup.type", "domain\n"),
        ("cgroup.procs", ""),
        ("memory.max", ""),
        ("pids.max", ""),
    ] {
        std::fs::write(slice.join("c1").join(file), content).unwrap();
    }
    let place = UnifiedPlace {
        mount: mount.0.clone(),
        path: "slice/c1".into(),
        writes: vec![write("memory.max", "4096"), write("pids.max", "3")],
        owner: None,
    };
    let plan = CgroupPlan {
        target: Target::V2(place),
        unit: None,
        devices: Access::all(),
        on_denied: OnDenied::Fail,
        privilege: Privilege::Root,
    };
    // A program cannot be attached to a directory that is none of the cgroup file system: all before it was done.
    let error = Cgroup::create(&plan).unwrap_err().to_string();
    assert!(error.contains("attach the device program"), "{error}");
    assert_eq!(mount.read("cgroup.subtree_control"), "+cpu +memory +pids");
    assert_eq!(std::fs::read_to_string(slice.join("cgroup.subtree_control")).unwrap(), "+cpu +memory +pids");
    assert_eq!(std::fs::read_to_string(slice.join("c1/memory.max")).unwrap(), "4096");
    assert_eq!(std::fs::read_to_string(slice.join("c1/pids.max")).unwrap(), "3");

    std::fs::write(slice.join("c1/cgroup.type"), "domain invalid\n").unwrap();
    let error = Cgroup::create(&plan).unwrap_err().to_string();
    assert!(error.contains("\"domain invalid\"") && error.contains("choose another cgroupsPath"), "{error}");
}

#[test]
fn what_a_container_uses_is_told_on_version_2() {
    let fake = Fake::new(&[
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("memory.current", "100\n"),
        ("memory.max", "1000\n"),
        ("memory.swap.current", "5\n"),
        ("memory.swap.max", "500\n"),
        ("memory.stat", "anon 60\nfile 40\n"),
        (
            "memory.pressure",
            "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        ("cpu.stat", "usage_usec 7\nuser_usec 4\nsystem_usec 3\nnr_periods 2\nnr_throttled 1\nthrottled_usec 8\n"),
        ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
    ]);
    let saved = SavedCgroup {
        version: SavedVersion::V2,
        made: true,
        unit: None,
        directories: vec![Directory { controllers: Vec::new(), path: fake.0.clone() }],
    };
    let cgroup = Cgroup::open(&saved).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
    let memory = &stats.memory;
    assert_eq!((memory.cache, memory.usage.usage, memory.usage.limit), (40, 100, 1000));
    assert_eq!((memory.swap.usage, memory.swap.limit), (105, 1500));
    assert_eq!(memory.psi.as_ref().map(|psi| (psi.some.avg10, psi.some.total)), Some((0.5, 9)));
    assert_eq!((stats.cpu.usage.total, stats.cpu.throttling.throttled_time), (7000, 8000));
    let io: Vec<_> =
        stats.blkio.io_service_bytes_recursive.iter().map(|entry| (entry.op.as_str(), entry.value)).collect();
    assert_eq!(io, [("Read", 10), ("Write", 20)]);
    assert_eq!(cgroup.memory_and_swap_limits(), (Some(1000), Some(500)));
}
