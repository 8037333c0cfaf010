//! What making and removing a container's cgroups leaves, and what it leaves alone.

use std::sync::atomic::AtomicBool;

use super::*;

#[test]
fn removal_takes_what_the_container_made_below() {
    let v1 = v1_host();
    let v2 = v2_host();
    for layout in v1.into_iter().chain(v2) {
        let mut area = Area::new(layout);
        area.create("{}").unwrap();
        for directory in area.cgroup().saved().directories() {
            std::fs::create_dir_all(directory.path.join("own/sub")).unwrap();
        }
        // A process that is dying while its cgroup is removed.
        area.spawn("sleep 1000");
        area.go();
        area.cgroup().kill_all().unwrap();
        area.cgroup().destroy().unwrap();
        for directory in area.cgroup().saved().directories() {
            assert!(!is_there(&directory.path), "{directory:?}");
        }
        area.cgroup().destroy().unwrap();
        assert_eq!(area.cgroup().pids().unwrap(), [0; 0]);
        assert!(!area.cgroup().is_frozen().unwrap());
        area.cgroup().kill_all().unwrap();
    }
}

#[test]
fn a_failed_creation_leaves_nothing() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.name = format!("{}/a/b", area.name);
    let error = area.create(r#"{"cpu": {"cpus": "0,4000"}}"#).unwrap_err().to_string();
    assert!(
        error.contains("linux.resources.cpu.cpus to 0,4000") && error.contains("its parent cgroup has only"),
        "{error}"
    );
    let base = area.name.split('/').next().unwrap_or_default();
    for hierarchy in &area.layout.v1 {
        assert!(!is_there(&hierarchy.mount.join(base)));
    }
}

/// As systemd does it to all that are empty.
#[test]
fn what_is_removed_before_a_process_joins_is_made_again() {
    let Some(layout) = v1_host() else { return };
    let mut again = 0;
    for _ in 0..20 {
        let mut area = Area::new(layout.clone());
        let first = area.layout.v1.first().unwrap().mount.join(&area.name);
        let plan = area.plan("{}").unwrap();
        let done = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let remover = scope.spawn(|| {
                let mut removed = false;
                while !removed && !done.load(Ordering::Relaxed) {
                    removed = std::fs::remove_dir(&first).is_ok();
                }
                removed
            });
            let made = Cgroup::create_to_join(&plan);
            done.store(true, Ordering::Relaxed);
            // It may have come too late, when all was open.
            again += usize::from(remover.join().unwrap() && is_there(&first));
            made
        });
        area.cgroup = Some(made.unwrap().0);
    }
    assert!(again > 0, "nothing was removed in time");
}

#[test]
fn a_cgroup_of_somebody_else_is_refused_and_left_alone() {
    let v1 = v1_host();
    let v2 = v2_host();
    for layout in v1.into_iter().chain(v2) {
        let mut area = Area::new(layout);
        area.create("{}").unwrap();
        area.spawn(":");
        let linux = format!(r#"{{"cgroupsPath": "/{}"}}"#, area.name);
        let plan = lower(&spec(&linux), "c2", Manager::Cgroupfs, &area.layout, Privilege::Root).unwrap();
        let error = Cgroup::create(&plan).unwrap_err();
        assert_eq!(error.kind(), Kind::Exists, "{error}");
        assert!(error.to_string().contains("is not empty: it holds 1 process(es)"), "{error}");
        // What is kept of the attempt ends neither the processes nor the directories of the other.
        let attempt = Cgroup::open(&plan.saved()).unwrap();
        attempt.kill_all().unwrap();
        attempt.signal_all(nix::libc::SIGTERM).unwrap_or_default();
        attempt.destroy().unwrap();
        assert_eq!(area.cgroup().pids().unwrap().len(), 1);
        area.go();
        assert!(area.wait().success());

        area.cgroup().freeze().unwrap();
        let error = Cgroup::create(&plan).unwrap_err().to_string();
        assert!(error.contains("is frozen"), "{error}");
        area.cgroup().thaw().unwrap();
        // Empty, it is taken.
        Cgroup::create(&plan).unwrap();
    }
}
