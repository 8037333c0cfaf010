use super::*;
use crate::testing::OwnCgroup;

fn mount(root: &str, point: &str, kind: &str, options: &str) -> Entry {
    Entry { root: root.into(), point: point.into(), kind: kind.into(), options: options.into() }
}

fn v1(directories: &[(&str, &str)]) -> Option<Cgroup> {
    Some(Cgroup::V1(directories.iter().map(|(name, path)| ((*name).to_owned(), path.into())).collect()))
}

#[test]
fn a_host_is_of_version_1_as_soon_as_a_controller_is() {
    let memory = || mount("/", "/c/memory", "cgroup", "rw,memory");
    let cpu = || mount("/", "/c/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct");
    let systemd = || mount("/", "/c/systemd", "cgroup", "rw,xattr,name=systemd");
    let unified = || mount("/", "/c/unified", "cgroup2", "rw,nsdelegate");
    let all = "3:cpu,cpuacct:/a\n2:memory:/b\n1:name=systemd:/s\n0::/u\n";
    let table = [
        // Legacy: shared hierarchies, and each controller's own path.
        (
            all,
            vec![memory(), cpu(), systemd()],
            v1(&[
                ("cpu", "/c/cpu,cpuacct/a"),
                ("cpuacct", "/c/cpu,cpuacct/a"),
                ("memory", "/c/memory/b"),
                ("name=systemd", "/c/systemd/s"),
            ]),
        ),
        // Hybrid.
        (all, vec![unified(), memory()], v1(&[("memory", "/c/memory/b")])),
        // Unified, with or without a named hierarchy beside it.
        ("0::/u/v\n", vec![unified()], Some(Cgroup::V2("/c/unified/u/v".into()))),
        ("1:name=systemd:/s\n0::/u\n", vec![unified(), systemd()], Some(Cgroup::V2("/c/unified/u".into()))),
        // The root; a hierarchy of which a part is mounted; one that shows another part; two mounts of one.
        ("0::/\n", vec![unified()], Some(Cgroup::V2("/c/unified".into()))),
        ("0::/pod/a\n", vec![mount("/pod", "/c", "cgroup2", "rw")], Some(Cgroup::V2("/c/a".into()))),
        ("0::/podder\n", vec![mount("/pod", "/c", "cgroup2", "rw")], None),
        ("0::/a\n", vec![mount("/pod", "/x", "cgroup2", "rw"), unified()], Some(Cgroup::V2("/c/unified/a".into()))),
        // A path with a colon; nothing mounted; not a line at all.
        ("0::/a:b\n", vec![unified()], Some(Cgroup::V2("/c/unified/a:b".into()))),
        (all, vec![], None),
        ("what\n", vec![unified()], None),
        // A controller is one whole option, not a part of one.
        ("2:memory:/b\n", vec![mount("/", "/c/x", "cgroup", "rw,memory_localevents")], None),
    ];
    for (memberships, hierarchies, expected) in table {
        assert_eq!(locate(memberships, &hierarchies), expected, "{memberships:?} in {hierarchies:?}");
    }
}

#[test]
fn a_process_is_found_where_it_was_put() {
    let Some(own) = OwnCgroup::make() else { return };
    let child = own.child();
    let cgroup = Cgroup::of(child.pid()).unwrap();
    assert_eq!(cgroup.controller("memory"), own.cgroup().controller("memory"));
    assert!(cgroup.exists());
    assert!(cgroup.display().contains(own.name()), "{}", cgroup.display());
    child.kill();

    drop(own);
    assert!(!cgroup.exists());
}

#[test]
fn a_cgroup_is_loaded_by_its_path_only_where_it_is() {
    let Some(own) = OwnCgroup::make() else { return };
    let loaded = Cgroup::load(own.name()).unwrap();
    assert_eq!(loaded, *own.cgroup());

    if let Some(memory) = own.cgroup().controller("memory").filter(|_| matches!(loaded, Cgroup::V1(_))) {
        std::fs::remove_dir(memory).unwrap();
        let rest = Cgroup::load(own.name()).unwrap();
        assert_eq!(rest.controller("memory"), None);
        assert_eq!(rest.controller("pids"), loaded.controller("pids"));
    }

    let kind = |path: &str| Cgroup::load(path).map_err(|error| error.kind);
    assert_eq!(kind("/no-such-cgroup/of/ours"), Err(crate::error::Kind::NotFound));
    for wrong in ["", "/", "../x", "/a/../b", "a/./../b"] {
        assert_eq!(kind(wrong), Err(crate::error::Kind::InvalidArgument), "{wrong}");
    }
}

#[test]
fn a_dead_process_has_no_cgroup() {
    // Above any pid_max.
    let error = Cgroup::of(u32::MAX).unwrap_err();
    assert_eq!(error.kind, crate::error::Kind::NotFound);
}
