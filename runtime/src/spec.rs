//! `spec`: writes a first `config.json`, the same container that runc's writes: a shell in a read-only root.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use nix::unistd::{getegid, geteuid};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use serde_json::{Serializer, Value, json};

use crate::cgroup::Layout;
use crate::cgroup::layout::Version;
use crate::cli::{SPEC_VERSION, SpecArgs};
use crate::error::{Context, Error, Kind, Result};

/// The capabilities of the process.
const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// Whom the configuration is for.
enum Flavour {
    /// Root, on a host whose containers see their cgroup in a namespace of its own (version 2) or do not.
    Root(Version),
    /// This user and group, who are root inside.
    Rootless(u32, u32),
}

/// Runs the command. A configuration that is there stays.
pub fn run(args: &SpecArgs) -> Result<()> {
    let flavour = match args.rootless {
        true => Flavour::Rootless(geteuid().as_raw(), getegid().as_raw()),
        false => Flavour::Root(Layout::detect()?.version()),
    };
    let path = args.bundle.as_deref().unwrap_or(Path::new("")).join("config.json");
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Exists, format!("File {} exists. Remove it first", path.display())));
        }
        other => other.on("make", path.display())?,
    };
    file.write_all(&text(&flavour)?).on("write", path.display())
}

/// The configuration as text, indented with tabs.
fn text(flavour: &Flavour) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    config(flavour)
        .serialize(&mut serializer)
        .map_err(|error| Error::caused(Kind::System, "write a configuration", error))?;
    text.push(b'\n');
    Ok(text)
}

/// In the order in which a person reads it; below this level the order does not matter.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    oci_version: &'static str,
    process: Process,
    root: Value,
    hostname: &'static str,
    mounts: Vec<Mount>,
    linux: Linux,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Process {
    terminal: bool,
    user: Value,
    args: Value,
    env: Value,
    cwd: &'static str,
    capabilities: Value,
    rlimits: Value,
    no_new_privileges: bool,
}

#[derive(Serialize)]
struct Mount {
    destination: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    source: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(skip_serializing_if = "Option::is_none")]
    uid_mappings: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid_mappings: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Value>,
    namespaces: Vec<Value>,
    masked_paths: [&'static str; 10],
    readonly_paths: [&'static str; 5],
}

fn config(flavour: &Flavour) -> Config {
    Config {
        oci_version: SPEC_VERSION,
        process: Process {
            terminal: true,
            user: json!({"uid": 0, "gid": 0}),
            args: json!(["sh"]),
            env: json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
            cwd: "/",
            capabilities: json!({
                "bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES
            }),
            rlimits: json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]),
            no_new_privileges: true,
        },
        root: json!({"path": "rootfs", "readonly": true}),
        hostname: "tare",
        mounts: mounts(flavour),
        linux: linux(flavour),
    }
}

fn mounts(flavour: &Flavour) -> Vec<Mount> {
    let mount = |destination, kind, source, options: &[&'static str]| Mount {
        destination,
        kind,
        source,
        options: options.to_vec(),
    };
    let pts = mount(
        "/dev/pts",
        "devpts",
        "devpts",
        match flavour {
            Flavour::Root(_) => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            // Only one group is mapped, so the terminals' own group is not.
            Flavour::Rootless(..) => &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
    );
    let sys = match flavour {
        Flavour::Root(_) => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        // A sysfs can be mounted only by who owns the network namespace.
        Flavour::Rootless(..) => mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
    };
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        pts,
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(flavour: &Flavour) -> Linux {
    let namespaces: &[&str] = match flavour {
        Flavour::Root(Version::V2) => &["pid", "network", "ipc", "uts", "mount", "cgroup"],
        Flavour::Root(_) => &["pid", "network", "ipc", "uts", "mount"],
        Flavour::Rootless(..) => &["pid", "ipc", "uts", "mount", "cgroup", "user"],
    };
    let (uid, gid) = match flavour {
        Flavour::Root(_) => (None, None),
        Flavour::Rootless(uid, gid) => (Some(uid), Some(gid)),
    };
    let mapping = |id: &u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    Linux {
        uid_mappings: uid.map(mapping),
        gid_mappings: gid.map(mapping),
        resources: match flavour {
            Flavour::Root(_) => Some(json!({"devices": [{"allow": false, "access": "rwm"}]})),
            Flavour::Rootless(..) => None,
        },
        namespaces: namespaces.iter().map(|kind| json!({"type": kind})).collect(),
        masked_paths: [
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ],
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(flavour: Flavour) -> Value {
        let text = text(&flavour).unwrap();
        crate::bundle::parse_spec(&text).unwrap();
        assert!(text.starts_with(b"{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,"));
        serde_json::from_slice(&text).unwrap()
    }

    fn kinds(config: &Value) -> Vec<&str> {
        config["linux"]["namespaces"].as_array().unwrap().iter().map(|ns| ns["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn each_flavour_is_a_configuration() {
        let old = written(Flavour::Root(Version::V1));
        assert_eq!(kinds(&old), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(old["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
        assert_eq!(old["mounts"][2]["options"][5], "gid=5");

        let new = written(Flavour::Root(Version::V2));
        assert_eq!(kinds(&new), ["pid", "network", "ipc", "uts", "mount", "cgroup"]);

        let rootless = written(Flavour::Rootless(1000, 1001));
        assert!(kinds(&rootless).contains(&"user") && !kinds(&rootless).contains(&"network"));
        assert_eq!(rootless["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(rootless["linux"]["gidMappings"], json!([{"containerID": 0, "hostID": 1001, "size": 1}]));
        assert_eq!(rootless["linux"].get("resources"), None);
        assert!(!rootless.to_string().contains("gid="));
        assert_eq!(rootless["mounts"][5]["options"][0], "rbind");
    }
}
