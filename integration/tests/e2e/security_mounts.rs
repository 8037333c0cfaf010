//! Attacks on the set-up of the root, its mounts, devices and masks, by an image, a configuration that repeats one, or a
//! neighbour that shares a volume. Named after the vulnerabilities of other runtimes. Each must end in a sentence, or change
//! nothing outside.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use integration::{Bundle, Console, Runtime};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

fn shell(rt: &Runtime, script: &str) -> Bundle {
    rt.bundle(&["/bin/sh", "-c", script])
}

fn bind(source: &Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind"]})
}

/// A directory of the host that the attack is after, with one file.
fn victim(rt: &Runtime) -> PathBuf {
    let victim = rt.fresh_path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "host's").unwrap();
    victim
}

/// Checks that the victim is as it was made.
fn unharmed(victim: &Path) {
    let files: Vec<_> = fs::read_dir(victim).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["file"]);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "host's");
}

/// Replaces a directory of the image by a link.
fn link_instead(bundle: &Bundle, path: &str, text: impl AsRef<Path>) {
    let place = bundle.rootfs().join(path);
    fs::remove_dir_all(&place).unwrap();
    symlink(text, &place).unwrap();
}

/// Takes all mounts at or below a place out of the configuration.
fn without_mounts(bundle: Bundle, below: &str) -> Bundle {
    bundle.edit(|config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with(below));
    })
}

#[test]
fn cve_2019_16884_a_volume_in_the_place_of_proc() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    for (destination, sentence) in [
        ("/proc", "only a procfs may be mounted on /proc"),
        ("/proc/self/attr", "symbolic link there"),
        ("/proc/sys", "the destination is inside procfs"),
        ("/proc/nothing/there", "the destination is inside procfs"),
        ("/proc/../proc/sys/kernel", "the destination is inside procfs"),
        ("/link/sys", "the destination is inside procfs"),
    ] {
        let bundle = rt.bundle(&["true"]).push("/mounts", bind(&victim, destination));
        symlink("/proc", bundle.rootfs().join("link")).unwrap();
        let error = rt.run(&bundle).fails().error();
        assert!(error.contains(sentence), "{destination}: {error}");
    }
    unharmed(&victim);
}

#[test]
fn cve_2019_19921_cve_2023_27561_cve_2023_28642_cve_2025_54867_proc_or_sys_is_a_link() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    for path in ["proc", "sys"] {
        for target in [victim.as_path(), Path::new("/tmp"), Path::new("tmp"), Path::new("/nowhere")] {
            let bundle = rt.bundle(&["true"]);
            link_instead(&bundle, path, target);
            let error = rt.run(&bundle).fails().error();
            assert!(error.contains("the image has a symbolic link there"), "{path} -> {}: {error}", target.display());
        }
    }
    unharmed(&victim);
}

#[test]
fn cve_2019_18837_a_destination_that_leads_out() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    let volume = rt.fresh_path("volume");
    fs::create_dir(&volume).unwrap();
    let up = PathBuf::from("../".repeat(40)).join(victim.strip_prefix("/").unwrap());
    for target in [victim.as_path(), &up] {
        let bundle =
            shell(&rt, "ls /link").push("/mounts", bind(&volume, "/link/new")).set("/root/readonly", json!(false));
        symlink(target, bundle.rootfs().join("link")).unwrap();
        assert_eq!(rt.run(&bundle).ok().stdout, "new\n");
        unharmed(&victim);
    }
}

/// Swaps two names until it is dropped.
struct Swapping {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapping {
    fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn cve_2021_30465_cve_2024_45310_a_volume_changes_while_it_is_mounted_on() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    let (volume, data) = (rt.fresh_path("volume"), rt.fresh_path("data"));
    fs::create_dir_all(volume.join("dir/sub")).unwrap();
    fs::create_dir(&data).unwrap();
    // Relative to the volume's place in the container it leads nowhere; on the host it would be the victim.
    symlink(&victim, volume.join("link")).unwrap();
    let swapping = Swapping::start(volume.join("dir"), volume.join("link"));
    for round in 0..30 {
        let mut bundle =
            rt.bundle(&["true"]).push("/mounts", bind(&volume, "/volume")).set("/root/readonly", json!(false));
        for n in 0..20 {
            bundle = bundle
                .push("/mounts", bind(&data, "/volume/dir/sub"))
                .push("/mounts", bind(&data, &format!("/volume/dir/{round}-{n}/new")));
        }
        // Whether it succeeds is the neighbour's luck; where it mounts and makes directories is not.
        let out = rt.run(&bundle);
        assert!(out.code() == 0 || out.error().contains("mount "), "{out:?}");
        unharmed(&victim);
    }
    drop(swapping);
}

#[test]
fn cve_2025_31133_cve_2025_62161_a_null_device_that_is_none() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    let target = victim.join("file");
    // The image's own /dev with a link for null, and a mask that would put its target over a file.
    let bundle = without_mounts(rt.bundle(&["true"]), "/dev").push("/linux/maskedPaths", json!("/etc/passwd"));
    symlink(&target, bundle.rootfs().join("dev/null")).unwrap();
    let error = rt.run(&bundle.set("/root/readonly", json!(false))).fails().error();
    assert!(error.contains("make the device /dev/null: the image has something else there"), "{error}");
    // A /dev from outside, for which no nodes are made.
    let dev = rt.fresh_path("dev");
    fs::create_dir(&dev).unwrap();
    symlink(&target, dev.join("null")).unwrap();
    let bundle = without_mounts(rt.bundle(&["true"]), "/dev")
        .push("/mounts", bind(&dev, "/dev"))
        .push("/linux/maskedPaths", json!("/etc/passwd"));
    let error = rt.run(&bundle).fails().error();
    assert!(error.contains("/dev/null is not the null device (1:3)"), "{error}");
    unharmed(&victim);
}

#[test]
fn cve_2025_52881_cve_2025_62596_writes_to_procfs_go_to_the_real_one() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    // No procfs is mounted; the image's /proc has a link for the sysctl.
    let bundle = without_mounts(shell(&rt, "cat /proc/sys/kernel/shmmni"), "/proc")
        .set("/linux/sysctl", json!({"kernel.shmmni": "77"}))
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .push("/mounts", bind(&victim, "/victim"));
    fs::create_dir_all(bundle.rootfs().join("proc/sys/kernel")).unwrap();
    symlink("/victim/file", bundle.rootfs().join("proc/sys/kernel/shmmni")).unwrap();
    let out = rt.run(&bundle.set("/root/readonly", json!(false)));
    assert_eq!(out.ok().stdout, "host's");
    unharmed(&victim);
}

#[test]
fn cve_2026_41579_cve_2026_47766_dev_is_a_link() {
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    for mounted in [true, false] {
        let bundle = rt.bundle(&["true"]).set("/root/readonly", json!(false));
        // The volume with the victim's files is mounted first, and the image's /dev leads there.
        let bundle = bundle.edit(|config| {
            config["mounts"].as_array_mut().unwrap().insert(0, bind(&victim, "/volume"));
        });
        let bundle = if mounted { bundle } else { without_mounts(bundle, "/dev") };
        link_instead(&bundle, "dev", "/volume");
        let error = rt.run(&bundle).fails().error();
        assert!(error.contains("the image has a link or file there"), "{error}");
        unharmed(&victim);
    }
}

#[test]
fn cve_2023_25809_cgroups_of_a_user_namespace_are_read_only() {
    let rt = Runtime::from_env();
    let script = "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/escape 2>&- && echo made in $d; done; true";
    for share_cgroups in [true, false] {
        let mut bundle = shell(&rt, script).with_user_namespace();
        if !share_cgroups {
            bundle = bundle.push("/linux/namespaces", json!({"type": "cgroup"}));
        }
        assert_eq!(rt.run(&bundle).ok().stdout, "");
    }
}

#[test]
fn a_console_that_is_a_link_is_refused() {
    // CVE-2025-52565: the pty was bound to wherever the image's /dev/console led.
    let rt = Runtime::from_env();
    let victim = victim(&rt);
    let bundle = without_mounts(rt.bundle(&["true"]), "/dev/")
        .set("/root/readonly", json!(false))
        .set("/process/terminal", json!(true))
        .edit(|config| {
            let mounts = config["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/dev");
            mounts.push(json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}));
        });
    symlink(victim.join("file"), bundle.rootfs().join("dev/console")).unwrap();
    let console = Console::listen(&rt);
    let flags = ["--console-socket", console.path().to_str().unwrap()];
    let error = rt.create(&bundle, &flags).map(drop).unwrap_err().error();
    assert!(error.contains("/dev/console in the container is a symbolic link"), "{error}");
    unharmed(&victim);
    assert!(fs::symlink_metadata(bundle.rootfs().join("dev/console")).unwrap().file_type().is_symlink());
    assert!(!fs::metadata(victim.join("file")).unwrap().file_type().is_char_device());
}

#[test]
fn resource_bombs_end_in_an_error() {
    let rt = Runtime::from_env();
    let mount = json!({"destination": "/m", "type": "tmpfs", "source": "t"});
    let bundle = rt.bundle(&["true"]).edit(|config| config["mounts"] = json!(vec![mount; 100_001]));
    let error = rt.run(&bundle).fails().error();
    assert!(error.contains("at most 100000 are possible") || error.contains("config.json"), "{error}");
}
