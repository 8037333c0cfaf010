//! Mounts, namespaces, cgroups: what a restored container finds round itself.

use super::*;

#[test]
fn a_bind_mount_below_another_is_found_again_in_a_fresh_root() {
    need_criu!();
    let rt = Runtime::from_env();
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    let deep = rt.fresh_path("deep");
    fs::create_dir(&deep).unwrap();
    let file = rt.fresh_path("file");
    fs::write(&file, "a file\n").unwrap();
    let bind = |source: &Path, destination: &str, option: &str| json!({"destination": destination, "type": "bind", "source": source, "options": ["bind", option]});
    // `link` leads to `opt`: the mount table knows only the latter.
    let configure = |bundle: Bundle| {
        std::os::unix::fs::symlink("opt", bundle.rootfs().join("link")).unwrap();
        fs::create_dir(bundle.rootfs().join("opt")).unwrap();
        bundle
            .set("/root/readonly", json!(false))
            .push("/mounts", bind(&data, "/link/data", "rw"))
            .push("/mounts", bind(&deep, "/link/data/a/b", "rw"))
            .push("/mounts", bind(&file, "/etc/file", "ro"))
    };
    let bundle = configure(rt.bundle(&["/bin/probe", "count", "/link/data/a/b/count"]));
    let first = run(&rt, &bundle);
    let count = deep.join("count");
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();

    // The new root file system has none of the mount points, and neither has the data directory any more.
    fs::remove_dir_all(data.join("a")).unwrap();
    let fresh = configure(rt.bundle(&["unused"]));
    let second = restore(&rt, &fresh, &image, &[]).unwrap();
    counts_on(&count);
    assert_eq!(second.exec(&["cat", "/etc/file"]).ok().stdout, "a file\n");
    second.exec(&["sh", "-c", "echo no > /etc/file"]).fails();
    assert!(data.join("a/b").is_dir());
}

/// A file system of the test's own that is shared, as every mount of a host with systemd is.
struct SharedMount(PathBuf);

impl SharedMount {
    fn new(rt: &Runtime) -> SharedMount {
        Self::at(rt.fresh_path("shared"))
    }

    fn at(place: PathBuf) -> SharedMount {
        use nix::mount::{MsFlags, mount};
        fs::create_dir(&place).unwrap();
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, &place, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        SharedMount(place)
    }
}

impl Drop for SharedMount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_host_whose_mounts_are_shared_is_left_alone() {
    need_criu!();
    let rt = Runtime::from_env();
    let shared = SharedMount::new(&rt);
    let data = shared.0.join("data");
    let rootfs = shared.0.join("rootfs");
    fs::create_dir(&data).unwrap();
    fs::create_dir(&rootfs).unwrap();
    integration::build_rootfs(&rootfs);
    let bundle = rt
        .bundle(&["/bin/probe", "count", "/data/count"])
        .set("/root/path", json!(rootfs))
        .push("/mounts", json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind"]}));
    let count = data.join("count");
    let before = Leaks::snapshot(&rt);
    let mut container = run(&rt, &bundle);
    for _ in 0..2 {
        counts_on(&count);
        let image = rt.fresh_path("image");
        checkpoint(&container, &image, &[]).ok();
        container.wait_exit();
        container = restore(&rt, &bundle, &image, &[]).unwrap();
        assert_eq!(Leaks::snapshot(&rt).mounts, before.mounts);
    }
    counts_on(&count);
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn each_way_to_treat_cgroups_keeps_the_limits() {
    need_criu!();
    for mode in ["", "soft", "full", "strict", "ignore"] {
        let rt = Runtime::from_env();
        let (count, bundle) = counting(&rt);
        let bundle = bundle.set("/linux/resources/pids/limit", json!(77));
        let first = run(&rt, &bundle);
        counts_on(&count);
        let flags: &[&str] = if mode.is_empty() { &[] } else { &["--manage-cgroups-mode", mode] };
        let image = rt.fresh_path("image");
        checkpoint(&first, &image, flags).ok();
        first.wait_exit();
        let second = match restore(&rt, &bundle, &image, flags) {
            Ok(second) => second,
            Err(output) => panic!("{mode}: {output:?}"),
        };
        counts_on(&count);
        let cgroup = second.cgroup("pids");
        assert!(text(&cgroup).contains(rt.tag()), "{mode}: {}", cgroup.display());
        assert_eq!(fs::read_to_string(cgroup.join("pids.max")).unwrap(), "77\n", "{mode}");
    }
}

/// A container in namespaces that are not the usual ones is saved and restored, and a process executed in it sees the same.
fn goes_on_in(rt: &Runtime, bundle: Bundle, count: &Path, what: &str) {
    let mut container = run(rt, &bundle);
    for _ in 0..2 {
        counts_on(count);
        let image = rt.fresh_path("image");
        let saved = checkpoint(&container, &image, &[]);
        assert!(saved.status.success(), "{what}: {saved:?}");
        container.wait_exit();
        container = restore(rt, &bundle, &image, &[]).unwrap_or_else(|output| panic!("{what}: {output:?}"));
    }
    counts_on(count);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        let seen = container.exec(&["readlink", &format!("/proc/self/ns/{kind}")]).ok().stdout;
        let init = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).unwrap();
        assert_eq!(seen.trim(), text(&init), "{what}");
    }
    container.kill("KILL").ok();
    container.wait_exit();
    container.delete().ok();
}

#[test]
fn every_sort_of_namespace_is_found_again() {
    need_criu!();
    type Change = fn(Bundle) -> Bundle;
    let cases: [(&str, Change); 4] = [
        ("as usual", |bundle| bundle),
        ("a cgroup namespace", |bundle| bundle.push("/linux/namespaces", json!({"type": "cgroup"}))),
        ("the host's uts, ipc and network", |bundle| {
            ["uts", "ipc", "network"]
                .iter()
                .fold(bundle.remove("/hostname"), |bundle, kind| bundle.without_namespace(kind))
        }),
        ("the host's pids", |bundle| bundle.without_namespace("pid")),
    ];
    for (what, change) in cases {
        let rt = Runtime::from_env();
        let (count, bundle) = counting(&rt);
        goes_on_in(&rt, change(bundle), &count, what);
    }
}

#[test]
fn a_user_namespace_is_saved_and_a_restore_that_criu_cannot_do_leaves_nothing() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    std::os::unix::fs::chown(count.parent().unwrap(), Some(100_000), Some(100_000)).unwrap();
    let bundle = bundle.with_user_namespace();
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--leave-running"]).ok();
    counts_on(&count);
    first.kill("KILL").ok();
    first.wait_exit();
    first.delete().ok();
    let before = Leaks::snapshot(&rt);
    match restore(&rt, &bundle, &image, &[]) {
        Ok(_) => {}
        Err(output) => {
            // The processes of the new user namespace open the images themselves, which are the host's root's.
            assert!(output.error().contains("criu failed"), "{output:?}");
            before.assert_same(&rt);
            skip!("this criu does not restore into a user namespace: {}", output.error());
        }
    }
}

#[test]
fn joined_namespaces_are_joined_again() {
    need_criu!();
    let rt = Runtime::from_env();
    // The pause container of a pod.
    let pod = rt.run_detached(&rt.bundle(&["/bin/probe", "wait"]), &[]).unwrap();
    let (count, bundle) = counting(&rt);
    let join = |bundle: Bundle, kind: &str, file: &str| {
        let path = format!("/proc/{}/ns/{file}", pod.pid());
        bundle.without_namespace(kind).push("/linux/namespaces", json!({"type": kind, "path": path}))
    };
    let bundle = join(join(bundle.remove("/hostname"), "network", "net"), "ipc", "ipc");
    let bundle = join(bundle, "uts", "uts");
    let (_first, image) = saved(&rt, &bundle, &count);
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    for file in ["net", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(of(second.pid()), of(pod.pid()));
    }
}

#[test]
fn strict_refuses_cgroups_that_exist() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/{}first", rt.tag())));
    let first = run(&rt, &bundle);
    counts_on(&count);
    let parent = first.cgroup("pids");
    let taken = parent.with_file_name(format!("{}taken", rt.tag()));
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    fs::create_dir(&taken).unwrap();
    let bundle = bundle.set("/linux/cgroupsPath", json!(format!("/{}taken", rt.tag())));
    let error = restore(&rt, &bundle, &image, &["--manage-cgroups-mode", "strict"]).unwrap_err().fails().error();
    assert!(error.contains("taken exists already"), "{error}");
    fs::remove_dir(&taken).unwrap();
    let _second = restore(&rt, &bundle, &image, &["--manage-cgroups-mode", "strict"]).unwrap();
    counts_on(&count);
}

#[test]
fn a_restored_network_namespace_is_there_for_the_hooks_to_fill() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let said = rt.fresh_path("said");
    let script = format!("cat > {}; readlink /proc/self/ns/net > {}", text(&said), text(&said.with_extension("net")));
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    let first = run(&rt, &bundle);
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &["--empty-ns", "network"]).ok();
    first.wait_exit();
    let bundle = bundle.set("/hooks/createRuntime", hook);
    let second = restore(&rt, &bundle, &image, &["--empty-ns", "network"]).unwrap();
    counts_on(&count);
    // The hook runs beside the runtime and is told the pid whose namespaces stand.
    let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(&said).unwrap()).unwrap();
    assert_eq!(state["pid"].as_i64(), Some(i64::from(second.pid())));
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(fs::read_to_string(said.with_extension("net")).unwrap().trim(), text(&host));
    assert_ne!(fs::read_link(format!("/proc/{}/ns/net", second.pid())).unwrap(), host);
}

#[test]
fn mounts_below_a_bind_mount_come_along_again() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let data = count.parent().unwrap();
    let below = SharedMount::at(data.join("below"));
    let deeper = SharedMount::at(below.0.join("deeper"));
    fs::write(deeper.0.join("file"), "found\n").unwrap();
    let before = Leaks::snapshot(&rt);
    let first = run(&rt, &bundle);
    counts_on(&count);
    assert_eq!(first.exec(&["cat", "/data/below/deeper/file"]).ok().stdout, "found\n");
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    assert_eq!(second.exec(&["cat", "/data/below/deeper/file"]).ok().stdout, "found\n");
    let mounted = second.exec(&["grep", "-c", " /data", "/proc/self/mountinfo"]).ok().stdout;
    assert_eq!(mounted, "3\n");
    second.kill("KILL").ok();
    second.wait_exit();
    second.delete().ok();
    before.assert_same(&rt);
}

#[test]
fn network_devices_are_moved_in_again_and_back_after_a_failure() {
    need_criu!();
    let rt = Runtime::from_env();
    let ip = |args: &[&str]| Command::new("ip").args(args).output().expect("ip (iproute2)");
    let name = format!("t{}", std::process::id() % 100_000_000);
    let make = || ip(&["link", "add", &name, "type", "veth", "peer", "name", &format!("{name}p")]);
    let made = make();
    if !made.status.success() {
        skip!("no veth device can be made: {}", String::from_utf8_lossy(&made.stderr));
    }
    let (count, bundle) = counting(&rt);
    let bundle = bundle.set("/linux/netDevices", json!({name.as_str(): {"name": "inside0"}}));
    let (_first, image) = saved(&rt, &bundle, &count);
    // It went with its namespace, a moment after the end of the container.
    let until = wait::deadline();
    while ip(&["link", "show", &name]).status.success() || ip(&["link", "show", &format!("{name}p")]).status.success() {
        assert!(std::time::Instant::now() < until, "the devices outlive the container's network namespace");
    }
    assert!(make().status.success());

    let hook = json!([{"path": "/bin/false", "args": ["false"]}]);
    let bundle = bundle.set("/hooks/createRuntime", hook);
    restore(&rt, &bundle, &image, &[]).unwrap_err().fails();
    assert!(ip(&["link", "show", &name]).status.success(), "the device was lost");

    let bundle = bundle.remove("/hooks/createRuntime");
    let second = restore(&rt, &bundle, &image, &[]).unwrap();
    counts_on(&count);
    let devices = second.exec(&["ip", "-o", "link"]).ok().stdout;
    assert!(devices.contains("inside0"), "{devices}");
    drop(second);
    ip(&["link", "del", &format!("{name}p")]);
}

/// As with runc: the image has the mount of the socket, so the restore has to provide it, but tells no manager anything.
#[test]
fn a_container_of_a_service_manager_goes_on() {
    need_criu!();
    let rt = Runtime::from_env();
    let (count, bundle) = counting(&rt);
    let manager = rt.fresh_path("manager");
    let socket = std::os::unix::net::UnixDatagram::bind(&manager).unwrap();
    let with_manager = |command: &mut Command| {
        no_stdio(command);
        command.env("NOTIFY_SOCKET", &manager);
    };
    let first = rt.bring_up("create", &bundle, &[], with_manager).unwrap();
    // Nobody listens at this start: the program has nothing to say.
    first.start().ok();
    counts_on(&count);
    let image = rt.fresh_path("image");
    checkpoint(&first, &image, &[]).ok();
    first.wait_exit();

    let flags = ["--detach", "--image-path", text(&image)];
    let second = rt.bring_up("restore", &bundle, &flags, with_manager).unwrap();
    counts_on(&count);
    let mounted = second.exec(&["grep", "-c", " /run/notify ro,", "/proc/self/mountinfo"]).ok();
    assert_eq!(mounted.stdout, "1\n");
    assert!(!wait::readable(std::os::fd::AsFd::as_fd(&socket), std::time::Instant::now()));
    // What was restored can be saved again.
    let image = rt.fresh_path("image");
    checkpoint(&second, &image, &[]).ok();
    second.wait_exit();
}
