//! Every word and every wrong entry, without a kernel.

use super::*;
use serde_json::{Value, json};

fn spec(mounts: Value, linux: Value) -> Spec {
    serde_json::from_value(json!({"ociVersion": "1.3.0", "mounts": mounts, "linux": linux})).unwrap()
}

fn lowered(mounts: Value, linux: Value) -> Result<Vec<Mount>> {
    let spec = spec(mounts, linux);
    let namespaces = namespaces::lower(&spec)?;
    lower(&spec, Path::new("/bundle"), &namespaces)
}

fn one(mount: Value) -> Mount {
    lowered(json!([mount]), json!({})).unwrap().remove(0)
}

fn refused(mount: Value, linux: Value) -> String {
    lowered(json!([mount]), linux).unwrap_err().to_string()
}

fn bound(options: &[&str]) -> Mount {
    one(json!({"destination": "/d", "source": "/s", "type": "bind", "options": options}))
}

fn bind(mount: &Mount) -> &Bind {
    match &mount.source {
        Source::Bind(bind) => bind,
        other => panic!("not a bind mount: {other:?}"),
    }
}

fn filesystem(mount: &Mount) -> &Filesystem {
    match &mount.source {
        Source::Filesystem(filesystem) | Source::Remount(filesystem) => filesystem,
        other => panic!("not a filesystem: {other:?}"),
    }
}

#[test]
fn the_default_mounts_are_what_they_say() {
    let mounts = lowered(
        json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["relatime", "ro"]},
        ]),
        json!({}),
    )
    .unwrap();
    use crate::sys::mount as sys;
    assert_eq!(filesystem(&mounts[0]).kind.as_c_str(), c"proc");
    assert_eq!(mounts[1].attributes.set, sys::ATTR_NOSUID | sys::ATTR_STRICTATIME);
    assert_eq!(filesystem(&mounts[1]).data, ["mode=755", "size=65536k"]);
    let closed = sys::ATTR_NOSUID | sys::ATTR_NOEXEC | sys::ATTR_NODEV | sys::ATTR_RDONLY;
    assert_eq!(mounts[2].attributes.set, closed);
    assert_eq!(mounts[3].source, Source::Cgroup);
}

#[test]
fn destinations_are_absolute_and_clean() {
    let table = [("/a//b/./c/", "/a/b/c"), ("a", "/a"), ("/a/../b", "/b"), ("/../../b", "/b")];
    for (given, cleaned) in table {
        assert_eq!(one(json!({"destination": given, "type": "tmpfs"})).destination, Path::new(cleaned), "{given}");
    }
}

#[test]
fn wrong_entries_are_sentences_that_name_the_entry() {
    let table = [
        (json!({"destination": "/", "type": "tmpfs"}), "mounts[0] (/): the destination is the container's root"),
        (json!({"destination": "/a/..", "type": "tmpfs"}), "the destination is the container's root"),
        (json!({"destination": "", "type": "tmpfs"}), "the destination is empty"),
        (json!({"destination": "/a\u{0}b", "type": "tmpfs"}), "contains a nul byte"),
        (json!({"destination": "/a"}), "mounts[0] (/a): it has neither a type nor the option bind"),
        (json!({"destination": "/a", "type": "bind"}), "a bind mount needs a source"),
        (json!({"destination": "/a", "type": "bind", "source": ""}), "a bind mount needs a source"),
        (json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}), "only a bind mount can be id-mapped"),
        (json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}), "an option of a tmpfs"),
        (json!({"destination": "/a", "type": "tmpfs", "options": ["src-nofollow"]}), "options of a bind mount"),
        (json!({"destination": "/a", "type": "tmpfs", "options": ["x\u{0}"]}), "contains a nul byte"),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind", "idmap"]}),
            "needs a container with a user namespace",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"],
                   "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "uidMappings and gidMappings must be given together",
        ),
        (
            json!({"destination": "/a", "source": "/s", "options": ["bind"],
                   "uidMappings": [{"containerID": 0, "hostID": 4294967295u32, "size": 2}],
                   "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}),
            "which is not a range of ids",
        ),
    ];
    for (mount, sentence) in table {
        let error = refused(mount.clone(), json!({}));
        assert!(error.contains(sentence), "{mount}: {error}");
    }
}

#[test]
fn a_bind_mount_knows_its_depth_and_its_links() {
    assert_eq!(bind(&bound(&[])).depth, Depth::One);
    assert_eq!(bind(&bound(&["rbind"])).depth, Depth::Tree);
    assert_eq!(bind(&bound(&["bind", "src-nofollow"])).link, SourceLink::Itself);
    assert_eq!(bind(&bound(&["bind", "copy-symlink"])).link, SourceLink::Copy);
    assert_eq!(bound(&["bind", "dest-nofollow"]).destination_link, Link::Itself);
    let relative = one(json!({"destination": "/d", "source": "data", "type": "none", "options": ["rbind"]}));
    assert_eq!(bind(&relative).path, Path::new("/bundle/data"));
}

#[test]
fn recursive_words_concern_the_tree_and_the_others_the_mount() {
    use crate::sys::mount as sys;
    let mount = bound(&["rbind", "rro", "rnosuid", "ro", "noexec", "rnoatime"]);
    assert_eq!(mount.attributes, Attributes { set: sys::ATTR_RDONLY | sys::ATTR_NOEXEC, clear: 0 });
    let tree = sys::ATTR_RDONLY | sys::ATTR_NOSUID | sys::ATTR_NOATIME;
    assert_eq!(mount.tree_attributes, Attributes { set: tree, clear: sys::ATTR_ATIME });
}

#[test]
fn propagation_is_kept_in_order() {
    let mount = bound(&["rbind", "rslave", "shared"]);
    let flags: Vec<_> = mount.propagation.iter().map(|step| (step.flag, step.depth)).collect();
    assert_eq!(flags, [(libc::MS_SLAVE, Depth::Tree), (libc::MS_SHARED, Depth::One)]);
}

#[test]
fn words_nobody_knows_go_to_the_filesystem() {
    let mount = one(json!({"destination": "/a", "type": "overlay", "source": "overlay",
        "options": ["lowerdir=/l", "ro", "sync", "index=off", "defaults"]}));
    assert_eq!(filesystem(&mount).data, ["lowerdir=/l", "index=off"]);
    assert_eq!(filesystem(&mount).super_flags, libc::MS_SYNCHRONOUS);
}

#[test]
fn the_idmap_comes_from_the_mount_or_from_the_container() {
    let user = json!({"namespaces": [{"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 200000, "size": 65536}]});
    let mount = json!({"destination": "/d", "source": "/s", "options": ["rbind", "ridmap"]});
    let mounts = lowered(json!([mount]), user.clone()).unwrap();
    let Idmap { depth, mapping } = bind(&mounts[0]).idmap.clone().unwrap();
    assert_eq!(depth, Depth::Tree);
    let Mapping::Ids(ids) = mapping else { panic!("{mapping:?}") };
    assert_eq!(ids.gids, [IdMap { container: 0, host: 200_000, size: 65536 }]);

    let own = json!({"destination": "/d", "source": "/s", "options": ["bind"],
        "uidMappings": [{"containerID": 1, "hostID": 2, "size": 3}],
        "gidMappings": [{"containerID": 4, "hostID": 5, "size": 6}]});
    let mounts = lowered(json!([own]), user).unwrap();
    let Idmap { depth, mapping } = bind(&mounts[0]).idmap.clone().unwrap();
    assert_eq!(depth, Depth::One);
    let Mapping::Ids(ids) = mapping else { panic!("{mapping:?}") };
    assert_eq!(ids.uids, [IdMap { container: 1, host: 2, size: 3 }]);
}

#[test]
fn the_mount_label_goes_where_the_kernel_takes_one() {
    let mounts = ["proc", "tmpfs", "mqueue"].map(|kind| json!({"destination": format!("/{kind}"), "type": kind}));
    let mounts = lowered(json!(mounts), json!({"mountLabel": "system_u:object_r:container_file_t:s0:c1,c2"})).unwrap();
    assert!(filesystem(&mounts[0]).data.is_empty() && filesystem(&mounts[0]).root_label.is_none());
    assert!(filesystem(&mounts[2]).data.is_empty());
    assert_eq!(filesystem(&mounts[2]).root_label.as_deref(), Some(c"system_u:object_r:container_file_t:s0:c1,c2"));
    assert_eq!(filesystem(&mounts[1]).data, ["context=\"system_u:object_r:container_file_t:s0:c1,c2\""]);
    let wrong = lowered(json!([{"destination": "/t", "type": "tmpfs"}]), json!({"mountLabel": "a\",exec,b=\""}));
    assert!(wrong.unwrap_err().to_string().contains("is not an SELinux label"));
}

#[test]
fn more_mounts_than_a_namespace_holds_are_refused_before_any_is_read() {
    let mounts = vec![json!({"destination": "/a", "type": "tmpfs"}); MOST_MOUNTS + 1];
    let error = lowered(Value::Array(mounts), json!({})).unwrap_err().to_string();
    assert_eq!(error, "mounts has 100001 entries: at most 100000 are possible");
}

#[test]
fn the_root_is_absolute_and_its_propagation_known() {
    let lower = |root: Value, propagation: &str| {
        let spec: Spec = serde_json::from_value(
            json!({"ociVersion": "1.3.0", "root": root, "linux": {"rootfsPropagation": propagation}}),
        )
        .unwrap();
        lower_rootfs(&spec, Path::new("/bundle"), RootChange::Pivot, &new_mount_namespace())
    };
    let plan = lower(json!({"path": "rootfs", "readonly": true}), "").unwrap();
    assert_eq!(plan.path, Path::new("/bundle/rootfs"));
    assert_eq!((plan.access, plan.privacy, plan.attach), (Access::ReadOnly, Privacy::Slave, Attach::OverRoot));
    let table = [
        ("slave", Privacy::Slave, Some((libc::MS_SLAVE, Depth::One))),
        ("rslave", Privacy::Slave, Some((libc::MS_SLAVE, Depth::Tree))),
        ("private", Privacy::Private, None),
        ("rprivate", Privacy::Private, None),
        ("shared", Privacy::Kept, Some((libc::MS_SHARED, Depth::One))),
        ("rshared", Privacy::Kept, Some((libc::MS_SHARED, Depth::Tree))),
        ("unbindable", Privacy::Private, Some((libc::MS_UNBINDABLE, Depth::One))),
    ];
    for (word, privacy, last) in table {
        let plan = lower(json!({"path": "/r"}), word).unwrap();
        assert_eq!(plan.privacy, privacy, "{word}");
        assert_eq!(plan.propagation.map(|step| (step.flag, step.depth)), last, "{word}");
    }
    for (root, word, sentence) in [
        (json!({"path": ""}), "", "root.path is empty"),
        (json!({"path": "/r"}), "rr", "linux.rootfsPropagation is \"rr\""),
        (json!({"path": "/r"}), "r", "linux.rootfsPropagation is \"r\""),
    ] {
        let error = lower(root, word).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
}

#[test]
fn hooks_before_the_switch_put_the_root_at_its_path() {
    for (hooks, attach) in [
        (json!({"prestart": [{"path": "/h"}]}), Attach::AtPath),
        (json!({"createRuntime": [{"path": "/h"}]}), Attach::AtPath),
        (json!({"createContainer": [{"path": "/h"}]}), Attach::AtPath),
        (json!({"startContainer": [{"path": "/h"}], "prestart": []}), Attach::OverRoot),
    ] {
        let spec: Spec =
            serde_json::from_value(json!({"ociVersion": "1.3.0", "root": {"path": "/r"}, "hooks": hooks})).unwrap();
        assert_eq!(
            lower_rootfs(&spec, Path::new("/b"), RootChange::Pivot, &new_mount_namespace()).unwrap().attach,
            attach,
            "{hooks}"
        );
    }
}

#[test]
fn masks_are_absolute_paths_below_the_root() {
    let masks = |path: &str| spec(json!([]), json!({"maskedPaths": [path], "readonlyPaths": ["/proc/sys"]}));
    let lower = |path: &str| lower_masks(&masks(path), &new_mount_namespace());
    assert_eq!(lower("/proc/kcore").unwrap().masked, [PathBuf::from("/proc/kcore")]);
    assert_eq!(lower("proc/kcore").unwrap().masked, [PathBuf::from("/proc/kcore")]);
    for wrong in ["", "/", "/a/../..", "/a\u{0}"] {
        assert!(lower(wrong).is_err(), "{wrong:?}");
    }
}

fn new_mount_namespace() -> Namespaces {
    Namespaces { mount: namespaces::Source::New, ..Namespaces::default() }
}

#[test]
fn without_a_mount_namespace_the_root_stays_at_its_path_and_nothing_is_masked() {
    let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.3.0", "root": {"path": "/r"},
        "linux": {"maskedPaths": ["/proc/kcore"]}}))
    .unwrap();
    let shared = Namespaces::default();
    let plan = lower_rootfs(&spec, Path::new("/b"), RootChange::Pivot, &shared).unwrap();
    assert_eq!((plan.change, plan.attach), (RootChange::Chroot, Attach::AtPath));
    let error = lower_masks(&spec, &shared).unwrap_err().to_string();
    assert!(error.ends_with("need a mount namespace, and linux.namespaces has none"), "{error}");
}

#[test]
fn no_pivot_and_private_do_not_go_together() {
    let spec: Spec = serde_json::from_value(json!({"ociVersion": "1.3.0", "root": {"path": "/r"},
        "linux": {"rootfsPropagation": "rprivate"}}))
    .unwrap();
    let lower = |change| lower_rootfs(&spec, Path::new("/b"), change, &new_mount_namespace());
    assert!(lower(RootChange::Pivot).is_ok());
    assert!(lower(RootChange::MoveAndChroot).unwrap_err().to_string().contains("is not possible with --no-pivot"));
}
