//! The unified hierarchy, a hybrid host's too.

use super::*;

#[test]
fn a_program_guards_devices_on_version_2() {
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"devices": [{"allow": false, "access": "rwm"}]}"#).unwrap();
    area.spawn("head -c 1 /dev/zero && ! head -c 1 /dev/kmsg && ! (echo > /dev/kmsg)");
    area.go();
    assert!(area.wait().success());

    // A second creation takes the place of our program and leaves the one of another.
    let directory = open_directory(&area.at("devices")).unwrap();
    let mine = crate::sys::bpf::device_programs(&directory).unwrap();
    assert_eq!(mine.len(), 1);
    let others = crate::plan::cgroup::bpf::compile(&Access::all());
    let others = crate::sys::bpf::load_device_program(&others, c"somebody").unwrap();
    crate::sys::bpf::attach_device_program(&directory, others.as_fd(), None).unwrap();
    area.create(r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]}"#).unwrap();
    let now = crate::sys::bpf::device_programs(&directory).unwrap();
    let names: Vec<Vec<u8>> = now
        .iter()
        .map(|&id| crate::sys::bpf::program_name(crate::sys::bpf::program_by_id(id).unwrap()).unwrap())
        .collect();
    assert_eq!(now.len(), 2, "{names:?}");
    assert!(
        !now.contains(&mine[0]) && names.contains(&b"somebody".to_vec()) && names.contains(&b"tare_devices".to_vec())
    );
}

#[test]
fn the_verifier_takes_every_sort_of_program() {
    if !nix::unistd::geteuid().is_root() {
        skip("needs root");
        return;
    }
    for rules in [
        "[]",
        r#"[{"allow": true, "access": "rwm"}]"#,
        r#"[{"allow": true, "access": "rwm"}, {"allow": false, "type": "c", "major": 4294967295, "minor": 4294967295, "access": "w"}]"#,
        r#"[{"allow": true, "type": "b", "major": 8, "access": "r"}, {"allow": true, "type": "c", "minor": 3, "access": "wm"}]"#,
    ] {
        let spec = spec(&format!(r#"{{"resources": {{"devices": {rules}}}}}"#));
        let layout = Layout::parse(b"0::/\n", b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let access = lower(&spec, "c", Manager::Cgroupfs, &layout, Privilege::Root).unwrap().devices;
        let program = crate::plan::cgroup::bpf::compile(&access);
        crate::sys::bpf::load_device_program(&program, c"tare_test").unwrap();
    }
}

#[test]
fn a_limit_of_a_controller_that_is_not_there_is_told_on_version_2() {
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    for (resources, parts) in [
        (
            r#"{"unified": {"nonsense.max": "1"}}"#,
            ["unified[\"nonsense.max\"]", "controller nonsense is not available"],
        ),
        (
            r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#,
            ["hugepageLimits[0]", "no huge pages of 3MB, only of"],
        ),
    ] {
        let error = area.create(resources).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        let mount = &area.layout.v2.as_ref().unwrap().mount;
        assert!(!is_there(&mount.join(&area.name)));
    }
}

#[test]
fn clone_starts_in_the_unified_cgroup() {
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    let cgroup = area.create("{}").unwrap();
    let fd = cgroup.clone_fd().unwrap();
    match crate::sys::process::clone(0, Some(fd)).unwrap() {
        crate::sys::process::Forked::Child => loop {
            nix::unistd::pause();
        },
        crate::sys::process::Forked::Parent { .. } => {}
    }
    assert_eq!(cgroup.pids().unwrap().len(), 1);
    cgroup.kill_all().unwrap();
}

#[test]
fn a_container_that_owns_its_cgroup_may_write_what_the_kernel_names() {
    use std::os::unix::fs::MetadataExt;
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    let linux = format!(
        r#"{{"cgroupsPath": "/{}", "namespaces": [{{"type": "user"}}, {{"type": "cgroup"}}],
             "uidMappings": [{{"containerID": 0, "hostID": 100000, "size": 1}}]}}"#,
        area.name
    );
    let text = format!(
        r#"{{"ociVersion": "1.3.0", "mounts": [{{"destination": "/c", "type": "cgroup"}}], "linux": {linux}}}"#
    );
    let spec: Spec = serde_json::from_str(&text).unwrap();
    let plan = lower(&spec, "c1", Manager::Cgroupfs, &area.layout, Privilege::Root).unwrap();
    area.cgroup = Some(Cgroup::create(&plan).unwrap());
    let directory = area.at("");
    let owner = |path: &Path| std::fs::metadata(path).unwrap().uid();
    assert_eq!(owner(&directory), 100_000);
    assert_eq!(owner(&directory.join("cgroup.procs")), 100_000);
    assert_eq!(owner(&directory.join("cgroup.max.depth")), 0);
}

#[test]
fn a_further_process_follows_into_the_cgroup_of_the_first_on_version_2() {
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    area.create("{}").unwrap();
    let pid = area.spawn(":");
    let own = area.at("");
    let link = |entry: Entry| {
        let number = std::os::fd::AsRawFd::as_raw_fd(entry.clone.as_ref().unwrap());
        std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap()
    };
    let pid = i32::try_from(pid).unwrap();
    assert_eq!(link(area.cgroup().for_exec(&[], pid).unwrap()), own);
    std::fs::create_dir(own.join("init")).unwrap();
    files::write(&own.join("init"), "cgroup.procs", &pid.to_string()).unwrap();
    assert_eq!(link(area.cgroup().for_exec(&[], pid).unwrap()), own);
    let offered = files::read(&own, "cgroup.controllers").unwrap();
    let Some(controller) = offered.split_whitespace().next() else {
        skip("no controller is offered");
        return;
    };
    files::write(&own, "cgroup.subtree_control", &format!("+{controller}")).unwrap();
    assert_eq!(link(area.cgroup().for_exec(&[], pid).unwrap()), own.join("init"));
    assert_eq!(link(area.cgroup().for_exec(&["init".to_owned()], pid).unwrap()), own.join("init"));
}
