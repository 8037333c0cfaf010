//! Bundles for tests: a small root file system and runc's default configuration, edited by the test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::probe_path;

/// A bundle directory with its configuration, which is written at each use.
pub struct Bundle {
    dir: PathBuf,
    /// The configuration: change it at will.
    pub config: Value,
}

impl Bundle {
    pub(crate) fn make(dir: PathBuf, args: &[&str]) -> Bundle {
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("make the bundle {}: {e}", dir.display()));
        build_rootfs(&dir.join("rootfs"));
        Bundle { dir, config: default_config(args) }
    }

    /// The bundle's directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The same as a string.
    pub fn path_str(&self) -> &str {
        self.dir.to_str().expect("a temporary directory with a plain name")
    }

    /// Its root file system on the host.
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// Changes the configuration by a closure.
    pub fn edit(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets what a JSON pointer names (`/linux/resources/pids/limit`); objects on the way are made.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        *self.slot(pointer) = value;
        self
    }

    /// Appends to the list a JSON pointer names, which is made if it is missing.
    pub fn push(mut self, pointer: &str, value: Value) -> Self {
        let slot = self.slot(pointer);
        if slot.is_null() {
            *slot = json!([]);
        }
        slot.as_array_mut().unwrap_or_else(|| panic!("{pointer} is a list")).push(value);
        self
    }

    /// Removes what a JSON pointer names, a member of an object.
    pub fn remove(mut self, pointer: &str) -> Self {
        let (parent, name) = pointer.rsplit_once('/').expect("a JSON pointer");
        if let Some(object) = self.config.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(name);
        }
        self
    }

    /// Removes a namespace from the list, by type.
    pub fn without_namespace(self, kind: &str) -> Self {
        self.edit(|config| {
            let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            list.retain(|namespace| namespace["type"] != kind);
        })
    }

    /// Adds a new user namespace with container ids 0…65535 mapped to 100000… on the host, and gives the root file system
    /// to its root.
    pub fn with_user_namespace(self) -> Self {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        chown_tree(&self.rootfs(), 100_000);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    fn slot(&mut self, pointer: &str) -> &mut Value {
        let mut at = &mut self.config;
        for name in pointer.trim_start_matches('/').split('/') {
            at = match (at.is_array(), name.parse::<usize>()) {
                (true, Ok(index)) => &mut at[index],
                _ => &mut at[name],
            };
        }
        at
    }

    /// Writes `config.json`.
    pub fn write(&self) {
        let path = self.dir.join("config.json");
        fs::write(&path, self.config.to_string()).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    }
}

fn chown_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).unwrap_or_else(|e| panic!("chown {}: {e}", path.display()));
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("read a directory of the root file system") {
            chown_tree(&entry.expect("an entry").path(), id);
        }
    }
}

/// The busybox programs that tests use.
const APPLETS: &[&str] = &[
    "ash", "base64", "basename", "cat", "chmod", "chown", "cmp", "cp", "cut", "date", "dd", "df", "echo", "env",
    "false", "find", "grep", "head", "hostname", "id", "ifconfig", "ip", "kill", "ln", "ls", "mkdir", "mkfifo",
    "mknod", "mount", "mv", "nc", "nproc", "ps", "pwd", "readlink", "rm", "rmdir", "route", "sed", "setsid", "sh",
    "sleep", "sort", "stat", "stty", "sync", "tail", "tee", "test", "touch", "tr", "true", "tty", "umount", "uname",
    "wc", "who", "xargs", "yes",
];

/// Builds a root file system: a static busybox with links for its programs, `probe`, users and empty mount points.
/// Files are copied, never linked: a container that writes over its programs must not reach anyone else's.
pub fn build_rootfs(root: &Path) {
    let made = |result: std::io::Result<()>, what: &str| {
        result.unwrap_or_else(|e| panic!("{what} in {}: {e}", root.display()))
    };
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "var"] {
        made(fs::create_dir_all(root.join(dir)), dir);
    }
    made(fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)), "tmp");
    let busybox = std::env::var_os("TARE_BUSYBOX").map_or_else(|| PathBuf::from("/bin/busybox"), PathBuf::from);
    let copy = |from: &Path, to: &str| {
        fs::copy(from, root.join(to))
            .unwrap_or_else(|e| panic!("copy {} (apt install busybox-static?): {e}", from.display()));
    };
    copy(&busybox, "bin/busybox");
    copy(&probe_path(), "bin/probe");
    for applet in APPLETS {
        made(symlink("busybox", root.join("bin").join(applet)), applet);
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n";
    made(fs::write(root.join("etc/passwd"), passwd), "etc/passwd");
    made(fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nuser:x:1000:\n"), "etc/group");
}

/// What `runc spec` writes, without a terminal, running `args`.
pub fn default_config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| {
        let mut mount = json!({"destination": destination, "type": kind, "source": source});
        if !options.is_empty() {
            mount["options"] = json!(options);
        }
        mount
    };
    let namespaces: Vec<Value> =
        ["pid", "network", "ipc", "uts", "mount"].iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "container",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": namespaces,
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
