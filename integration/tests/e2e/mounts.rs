//! Mounts as a container sees them. What each step does in detail is tested in the runtime's own kernel tests; here is what
//! depends on the whole: the order with hooks, user namespaces and the console, and the sentence that a user reads.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use integration::{Bundle, Runtime, skip};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

fn shell(rt: &Runtime, script: &str) -> Bundle {
    rt.bundle(&["/bin/sh", "-c", script])
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

/// A directory on the host with one file.
fn data(rt: &Runtime) -> PathBuf {
    let data = rt.fresh_path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "host's\n").unwrap();
    data
}

/// A mount that is gone with the value.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn volumes_are_written_and_read() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let bundle = shell(&rt, "cat /data/file /one && echo new > /data/new && ! echo x > /ro/new 2>&-")
        .push("/mounts", bind(&data, "/data", &["rw"]))
        .push("/mounts", bind(&data, "/ro", &["ro"]))
        .push("/mounts", bind(&data.join("file"), "/one", &["ro"]))
        .set("/root/readonly", json!(false));
    assert_eq!(rt.run(&bundle).ok().stdout, "host's\nhost's\n");
    assert_eq!(fs::read_to_string(data.join("new")).unwrap(), "new\n");
}

#[test]
fn a_missing_source_is_a_sentence() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["true"]).push("/mounts", bind(Path::new("/no/such/source"), "/data", &[]));
    let error = rt.run(&bundle).fails().error();
    assert!(error.contains("mount /no/such/source on /data: source does not exist"), "{error}");
}

#[test]
fn the_root_is_read_only_when_it_should_be() {
    let rt = Runtime::from_env();
    let writes = "touch /new 2>&- && echo written || echo refused";
    assert_eq!(rt.run(&shell(&rt, writes)).ok().stdout, "refused\n");
    let writable = shell(&rt, writes).set("/root/readonly", json!(false));
    assert_eq!(rt.run(&writable).ok().stdout, "written\n");
    assert!(writable.rootfs().join("new").is_file());
}

#[test]
fn options_reach_the_mount_table() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let below = Mounted::tmpfs(&data.join("below"));
    let bundle = shell(&rt, "cut -d' ' -f5,6 /proc/self/mountinfo | grep -E '^/[vt][ /]' | sort")
        .push("/mounts", bind(&data, "/v", &["rro", "nosuid", "nodev", "noexec", "noatime"]))
        .push(
            "/mounts",
            json!({"destination": "/t", "type": "tmpfs", "source": "t",
            "options": ["ro", "nosymfollow", "size=64k", "nodiratime"]}),
        )
        .set("/root/readonly", json!(false));
    let table = rt.run(&bundle).ok().stdout;
    drop(below);
    assert_eq!(
        table,
        "/t ro,nodiratime,relatime,nosymfollow\n/v ro,nosuid,nodev,noexec,noatime\n/v/below ro,relatime\n"
    );
}

#[test]
fn a_tmpfs_can_start_as_a_copy() {
    let rt = Runtime::from_env();
    let bundle = shell(&rt, "cat /etc/group | head -1; echo x > /etc/new && ls -d /etc/new")
        .push("/mounts", json!({"destination": "/etc", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]}));
    assert_eq!(rt.run(&bundle).ok().stdout, "root:x:0:\n/etc/new\n");
    assert!(!bundle.rootfs().join("etc/new").try_exists().unwrap());
}

#[test]
fn id_mapped_volumes_show_the_container_s_owners() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let mut volume = bind(&data, "/data", &["idmap"]);
    volume["uidMappings"] = map.clone();
    volume["gidMappings"] = map;
    let bundle = shell(&rt, "stat -c %u:%g /data/file").push("/mounts", volume).set("/root/readonly", json!(false));
    let out = rt.run(&bundle);
    if out.stderr.contains("does not support id-mapped mounts") {
        skip!("{}", out.stderr.trim());
    }
    assert_eq!(out.ok().stdout, "5000:5000\n");
}

#[test]
fn id_mapped_volumes_in_a_user_namespace_belong_to_its_root() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let bundle = shell(&rt, "stat -c %u:%g /data/file && echo new > /data/new")
        .with_user_namespace()
        .push("/mounts", bind(&data, "/data", &["idmap"]))
        .set("/root/readonly", json!(false));
    let out = rt.run(&bundle);
    if out.stderr.contains("does not support id-mapped mounts") {
        skip!("{}", out.stderr.trim());
    }
    assert_eq!(out.ok().stdout, "0:0\n");
    assert_eq!(fs::metadata(data.join("new")).unwrap().uid(), 0);
}

#[test]
fn a_user_namespace_has_devices_terminals_and_sysfs() {
    let rt = Runtime::from_env();
    let script =
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c; ls /dev/pts; ls -d /sys/kernel; stat -c %t:%T /dev/null";
    for share_network in [false, true] {
        let mut bundle = shell(&rt, script).with_user_namespace();
        if share_network {
            bundle = bundle.without_namespace("network");
        }
        let out = rt.run(&bundle).ok().stdout;
        assert_eq!(out, "2\nptmx\n/sys/kernel\n1:3\n", "share_network: {share_network}");
    }
}

#[test]
fn a_created_container_can_be_mounted_into_by_its_hooks() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    // What vendors' hooks do: enter the mount namespace by pid, and mount below the root as the bundle names it.
    let bundle = shell(&rt, "cat /home/file");
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -t $pid -m mount --bind {} {}",
        data.display(),
        bundle.rootfs().join("home").display()
    );
    for stage in ["prestart", "createRuntime"] {
        let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]);
        let bundle = Bundle::edit(shell(&rt, "cat /home/file"), |config| {
            config["root"]["path"] = json!(bundle.rootfs());
            config["hooks"] = json!({stage: hook});
        });
        assert_eq!(rt.run(&bundle).ok().stdout, "host's\n", "{stage}");
    }
    // createContainer hooks are in that namespace already.
    let mounting = format!("mount --bind {} {}", data.display(), bundle.rootfs().join("home").display());
    let bundle = Bundle::edit(shell(&rt, "cat /home/file"), |config| {
        config["root"]["path"] = json!(bundle.rootfs());
        config["hooks"] = json!({"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", mounting],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}]});
    });
    assert_eq!(rt.run(&bundle).ok().stdout, "host's\n");
}

#[test]
fn what_the_host_mounts_later_arrives_and_not_the_other_way() {
    let rt = Runtime::from_env();
    let place = Mounted::tmpfs(&rt.fresh_path("shared"));
    mount(None::<&str>, &place.0, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
    for name in ["from-host", "from-container"] {
        fs::create_dir(place.0.join(name)).unwrap();
    }
    let bundle = rt
        .bundle(&["/bin/probe", "wait"])
        .push("/mounts", bind(&place.0, "/data", &["rslave"]))
        .set("/root/readonly", json!(false))
        .edit(|config| {
            for set in ["bounding", "effective", "permitted"] {
                config["process"]["capabilities"][set] = json!(["CAP_SYS_ADMIN"]);
            }
        });
    let container = rt.run_detached(&bundle, &[]).unwrap();
    let host = Mounted::tmpfs(&place.0.join("from-host"));
    fs::write(place.0.join("from-host/file"), "").unwrap();
    container.exec(&["ls", "/data/from-host/file"]).ok();
    container.exec(&["mount", "-t", "tmpfs", "t", "/data/from-container"]).ok();
    container.exec(&["touch", "/data/from-container/file"]).ok();
    assert_eq!(fs::read_dir(place.0.join("from-container")).unwrap().count(), 0);
    drop(host);
    container.call::<&str>("delete", &["--force"], &[]).ok();
    container.wait_exit();
}

#[test]
fn no_pivot_hides_the_host() {
    let rt = Runtime::from_env();
    let bundle = shell(&rt, "ls -d /bin/probe /proc/self && ls /proc/1/root/bin/probe");
    let out = rt.run_with(&bundle, &["--no-pivot"], |_| ()).ok();
    assert_eq!(out.stdout, "/bin/probe\n/proc/self\n/proc/1/root/bin/probe\n");
}

#[test]
fn masked_and_read_only_paths() {
    let rt = Runtime::from_env();
    let script = "wc -c < /etc/passwd; ls /home | wc -l; touch /var/new 2>&-; echo $?; stat -c %F /etc/passwd";
    let bundle = shell(&rt, script)
        .push("/linux/maskedPaths", json!("/etc/passwd"))
        .push("/linux/maskedPaths", json!("/home"))
        .push("/linux/readonlyPaths", json!("/var"))
        .set("/root/readonly", json!(false));
    fs::write(bundle.rootfs().join("home/file"), "").unwrap();
    assert_eq!(rt.run(&bundle).ok().stdout, "0\n0\n1\ncharacter special file\n");
}

#[test]
fn devices_have_their_number_mode_and_owner() {
    let rt = Runtime::from_env();
    let bundle = shell(
        &rt,
        "stat -c '%F %t:%T %a %u:%g' /dev/net/fuse /dev/loop /dev/pipe; readlink /dev/fd; readlink /dev/ptmx",
    )
    .set(
        "/linux/devices",
        json!([
            {"path": "/dev/net/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o666},
        ]),
    );
    let expected = "character special file a:e5 640 3:4\nblock special file 7:0 600 0:0\nfifo 0:0 666 0:0\n\
                    /proc/self/fd\npts/ptmx\n";
    assert_eq!(rt.run(&bundle).ok().stdout, expected);
}

#[test]
fn sysctls_are_the_container_s() {
    let rt = Runtime::from_env();
    let before = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let bundle = shell(&rt, "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward")
        .set("/linux/sysctl", json!({"kernel.shmmni": "77", "net.ipv4.ip_forward": "1"}));
    assert_eq!(rt.run(&bundle).ok().stdout, "77\n1\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), before);
    let foreign = rt.bundle(&["true"]).set("/linux/sysctl", json!({"kernel.panic": "1"}));
    let error = rt.run(&foreign).fails().error();
    assert!(error.contains("kernel.panic"), "{error}");
}

#[test]
fn a_device_in_the_place_of_another_by_a_mount_stays_that() {
    // People give containers /dev/urandom as /dev/random.
    let rt = Runtime::from_env();
    let bundle =
        shell(&rt, "stat -c %t:%T /dev/random").push("/mounts", bind(Path::new("/dev/urandom"), "/dev/random", &[]));
    assert_eq!(rt.run(&bundle).ok().stdout, "1:9\n");
}

#[test]
fn the_links_of_dev_are_there() {
    let rt = Runtime::from_env();
    let bundle = shell(&rt, "cd /dev; for it in core fd ptmx stderr stdin stdout; do echo $it $(readlink $it); done");
    // As runc has it: only where the kernel shows its memory.
    let core = if fs::exists("/proc/kcore").unwrap() { "core /proc/kcore" } else { "core" };
    let rest =
        "fd /proc/self/fd\nptmx pts/ptmx\nstderr /proc/self/fd/2\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\n";
    assert_eq!(rt.run(&bundle).ok().stdout, format!("{core}\n{rest}"));
}

#[test]
fn the_host_s_dev_is_left_as_it_is() {
    let rt = Runtime::from_env();
    let dev = Mounted::tmpfs(&rt.fresh_path("dev"));
    fs::write(dev.0.join("null"), "").unwrap();
    let bundle = shell(&rt, "ls /dev").edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        mounts.push(bind(&dev.0, "/dev", &[]));
        config["linux"]["maskedPaths"] = json!([]);
    });
    assert_eq!(rt.run(&bundle).ok().stdout, "null\n");
}

#[test]
fn the_umask_of_the_caller_does_not_close_mount_points() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let bundle = shell(&rt, "stat -c %a /new /new/deep /dev/pts /dev/null")
        .push("/mounts", bind(&data, "/new/deep/place", &[]))
        .set("/root/readonly", json!(false));
    let run = "umask 077; exec \"$@\"";
    let log = rt.fresh_path("log");
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", run, "sh"]);
    let runtime = rt.command(&log);
    command.arg(runtime.get_program()).args(runtime.get_args());
    bundle.write();
    command.args(["run", "--bundle", bundle.path_str(), &rt.fresh_id()]);
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let out = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out, "755\n755\n755\n666\n");
}

#[test]
fn the_namespace_s_mounts_are_in_order_and_complete() {
    let rt = Runtime::from_env();
    let data = data(&rt);
    let bundle = rt
        .bundle(&["cat", "/proc/self/mountinfo"])
        .push("/mounts", bind(&data, "/home", &[]))
        .push("/mounts", json!({"destination": "/var", "type": "tmpfs", "source": "t"}))
        .push("/mounts", bind(&data, "/tmp", &[]));
    let out = rt.run(&bundle).ok().stdout;
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places: Vec<&str> = out.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    for path in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/proc/sys"] {
        assert!(places.contains(&path), "{path} is missing in {places:?}");
    }
    let configured = ["/", "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/home", "/var", "/tmp"];
    let in_table: Vec<&str> = places.iter().copied().filter(|path| configured.contains(path)).collect();
    assert_eq!(in_table, configured, "as the configuration has them");
    assert!(!out.contains("shared:"), "nothing is a peer of the host's: {out}");
    assert!(!host.contains(rt.tag()), "nothing of the container is mounted on the host");
}

#[test]
fn a_shared_mount_namespace_is_clean_after_the_container() {
    let rt = Runtime::from_env();
    let bundle = rt
        .bundle(&["/bin/probe", "wait"])
        .without_namespace("mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    let table = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let container = rt.run_detached(&bundle, &[]).unwrap();
    assert!(table().contains(bundle.rootfs().to_str().unwrap()), "it is the caller's namespace");
    container.exec(&["ls", "/proc/self/status"]).ok();
    container.call::<&str>("delete", &["--force"], &[]).ok();
    container.wait_exit();
    assert!(!table().contains(bundle.rootfs().to_str().unwrap()));

    let masked = rt.bundle(&["true"]).without_namespace("mount");
    let error = rt.run(&masked).fails().error();
    assert!(error.contains("linux.maskedPaths and linux.readonlyPaths need a mount namespace"), "{error}");
}
