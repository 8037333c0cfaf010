//! SELinux: the labels of a container's process, of an exec and of its mounts, on a host with a policy loaded. Whether the policy
//! holds processes back or only watches makes no difference to them.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use integration::{Bundle, Runtime, in_path, skip};
use serde_json::json;

/// Types for a process and for its files: what containers commonly have, and what a policy without containers has for virtual
/// machines.
const TYPES: [(&str, &str); 2] = [("container_t", "container_file_t"), ("svirt_t", "svirt_image_t")];

struct Labels {
    process: String,
    other_process: String,
    mounts: String,
}

/// Labels of the policy that this host has; why there are none, if there are none.
fn labels() -> Result<Labels, &'static str> {
    if !fs::exists("/sys/fs/selinux/enforce").unwrap_or(false) {
        return Err("no SELinux policy is loaded on this host (VM_LSM=selinux integration/vm e2e selinux::)");
    }
    if in_path("getfattr").is_none() {
        return Err("getfattr is not installed");
    }
    // The kernel takes here what is a context of its policy.
    let known = |label: &str| {
        let file = OpenOptions::new().write(true).open("/sys/fs/selinux/context");
        file.and_then(|mut file| file.write_all(label.as_bytes())).is_ok()
    };
    let all = TYPES.map(|(process, file)| Labels {
        process: format!("system_u:system_r:{process}:s0:c1,c2"),
        other_process: format!("system_u:system_r:{process}:s0:c3,c4"),
        mounts: format!("system_u:object_r:{file}:s0:c1,c2"),
    });
    let mut usable = all.into_iter().filter(|it| known(&it.process) && known(&it.mounts));
    usable.next().ok_or("this host's SELinux policy has no types for containers or virtual machines")
}

macro_rules! with_selinux {
    () => {
        match labels() {
            Ok(labels) => labels,
            Err(reason) => skip!("{reason}"),
        }
    };
}

fn labelled(rt: &Runtime, labels: &Labels, args: &[&str]) -> Bundle {
    rt.bundle(args)
        .push("/mounts", json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}))
        .set("/process/selinuxLabel", json!(labels.process))
        .set("/linux/mountLabel", json!(labels.mounts))
}

/// What a process says of itself; the kernel ends it with a nul byte.
fn own_label(output: &str) -> &str {
    output.trim_end_matches(['\0', '\n'])
}

fn label_of(path: &Path) -> String {
    let get = Command::new("getfattr")
        .args(["--absolute-names", "--only-values", "-n", "security.selinux"])
        .arg(path)
        .output()
        .unwrap();
    assert!(get.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&get.stderr));
    own_label(&String::from_utf8(get.stdout).unwrap()).to_owned()
}

#[test]
fn the_process_and_an_exec_have_their_labels() {
    let labels = with_selinux!();
    let rt = Runtime::from_env();
    let current = ["/bin/cat", "/proc/self/attr/current"];
    for no_new_privileges in [true, false] {
        let set = |bundle: Bundle| bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        assert_eq!(own_label(&rt.run(&set(labelled(&rt, &labels, &current))).ok().stdout), labels.process);
        let container = rt.run_detached(&set(labelled(&rt, &labels, &["/bin/probe", "wait"])), &[]).unwrap();
        assert_eq!(own_label(&container.exec(&current).ok().stdout), labels.process, "an exec has the container's");
        let other = &labels.other_process;
        assert_eq!(own_label(&container.exec_with(&["--process-label", other], &current).ok().stdout), other);
    }
    let host = fs::read_to_string("/proc/self/attr/current").unwrap();
    let plain = rt.bundle(&current);
    assert_eq!(own_label(&rt.run(&plain).ok().stdout), own_label(&host), "without a label it has its caller's");
}

#[test]
fn in_a_user_namespace_they_hold_too() {
    let labels = with_selinux!();
    let rt = Runtime::from_env();
    let bundle = labelled(&rt, &labels, &["/bin/cat", "/proc/self/attr/current"]).with_user_namespace();
    assert_eq!(own_label(&rt.run(&bundle).ok().stdout), labels.process);
}

#[test]
fn the_mounts_and_what_is_made_in_them_have_theirs() {
    let labels = with_selinux!();
    let rt = Runtime::from_env();
    let script = "for dir in /tmp /dev/shm /dev; do echo >$dir/made; done; exec probe wait";
    let read_only = json!({"destination": "/queues", "type": "mqueue", "source": "mqueue", "options": ["ro"]});
    let bundle = labelled(&rt, &labels, &["/bin/sh", "-c", script]).push("/mounts", read_only);
    let container = rt.run_detached(&bundle, &[]).unwrap();
    let root = Path::new("/proc").join(container.pid().to_string()).join("root");
    integration::wait::until("the files are made", || root.join("dev/made").exists());
    for path in ["tmp", "tmp/made", "dev", "dev/null", "dev/made", "dev/shm/made", "dev/pts", "dev/mqueue", "queues"] {
        assert_eq!(label_of(&root.join(path)), labels.mounts, "{path}");
    }
    let refused = container.exec(&["/bin/sh", "-c", "echo >/queues/new"]).fails();
    assert!(refused.stderr.contains("Read-only"), "{refused:?}");
    // The kernel labels these itself.
    for path in ["proc", "sys", "sys/fs/cgroup"] {
        assert_ne!(label_of(&root.join(path)), labels.mounts, "{path}");
    }
}

#[test]
fn a_label_that_the_policy_does_not_know_is_an_error_that_says_so() {
    let labels = with_selinux!();
    let rt = Runtime::from_env();
    let absent = "system_u:system_r:no_such_type_t:s0";
    for field in ["/process/selinuxLabel", "/linux/mountLabel"] {
        let error = rt.run(&labelled(&rt, &labels, &["/bin/true"]).set(field, json!(absent))).fails().error();
        assert!(error.contains(absent), "{field}: {error}");
    }
    let container = rt.run_detached(&labelled(&rt, &labels, &["/bin/probe", "wait"]), &[]).unwrap();
    let error = container.exec_with(&["--process-label", absent], &["true"]).fails().error();
    assert!(error.contains(absent), "{error}");
    assert_eq!(container.status(), "running");
}
