//! `linux.sysctl`, with the rule that a container only sets what belongs to one of its own namespaces.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::plan::namespaces::Namespaces;

/// One sysctl to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// As the configuration names it, for errors.
    pub name: String,
    /// Its file, relative to the root of a procfs.
    pub path: String,
    /// What to write.
    pub value: String,
}

/// The sysctls of the ipc namespace that are not below `fs.mqueue`.
const IPC: [&str; 12] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
    "kernel.auto_msgmni",
];

/// Lowers `linux.sysctl`, sorted by name so that the order is the same each time.
pub fn lower(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    let Some(configured) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else {
        return Ok(Vec::new());
    };
    let mut sysctls = configured
        .iter()
        .map(|(name, value)| {
            let sysctl = one(name, value)?;
            check(spec, namespaces, &sysctl)?;
            Ok(sysctl)
        })
        .collect::<Result<Vec<_>>>()?;
    sysctls.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sysctls)
}

fn one(name: &str, value: &str) -> Result<Sysctl> {
    let path = to_path(name);
    let is_path = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !is_path || path.contains('\0') || value.contains('\0') || path.len() > 4000 {
        return Err(Error::invalid(format!("linux.sysctl: {name:?} is not the name of a sysctl")));
    }
    Ok(Sysctl { name: name.to_owned(), path: format!("sys/{path}"), value: value.to_owned() })
}

/// As sysctl(8): where the first separator is a dot, dots separate and a slash stands for a dot inside a part
/// (`net.ipv4.conf.eth0/100.forwarding`); where it is a slash, the name is the path.
fn to_path(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn check(spec: &Spec, namespaces: &Namespaces, sysctl: &Sysctl) -> Result<()> {
    let name = sysctl.path["sys/".len()..].replace('/', ".");
    let wrong = |cause: &str| Err(Error::invalid(format!("linux.sysctl: {} {cause}", sysctl.name)));
    let needs = |private: bool, kind: &str| match private {
        true => Ok(()),
        false => wrong(&format!("belongs to the {kind} namespace, and the container has none of its own")),
    };
    if IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
        return needs(namespaces.ipc.is_private(), "ipc");
    }
    if name.starts_with("net.") {
        return needs(namespaces.network.is_private(), "network");
    }
    if name.starts_with("user.") {
        return needs(namespaces.user.is_private(), "user");
    }
    match name.as_str() {
        "kernel.domainname" if spec.domainname().is_some() => wrong("says the same as domainname: use only that one"),
        "kernel.domainname" => needs(namespaces.uts.is_private(), "uts"),
        // The field is the runtime's own way to set it.
        "kernel.hostname" => wrong("is set by the field hostname"),
        _ => wrong("belongs to no namespace: setting it would change the host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lowered(sysctl: serde_json::Value, namespaces: serde_json::Value) -> Result<Vec<Sysctl>> {
        let spec: Spec = serde_json::from_value(json!({
            "ociVersion": "1.3.0", "linux": {"sysctl": sysctl, "namespaces": namespaces}
        }))
        .unwrap();
        lower(&spec, &crate::plan::namespaces::lower(&spec).unwrap())
    }

    #[test]
    fn a_sysctl_needs_the_namespace_it_belongs_to() {
        let table = [
            ("kernel.shmmax", "ipc"),
            ("kernel/shmmax", "ipc"),
            ("fs.mqueue.msg_max", "ipc"),
            ("net.ipv4.ip_forward", "network"),
            ("net/ipv4/ip_forward", "network"),
            ("kernel.domainname", "uts"),
        ];
        for (name, namespace) in table {
            let error = lowered(json!({name: "1"}), json!([])).unwrap_err().to_string();
            assert!(error.contains(&format!("belongs to the {namespace} namespace")), "{name}: {error}");
            assert!(lowered(json!({name: "1"}), json!([{"type": namespace}])).is_ok(), "{name}");
            let joined = json!([{"type": namespace, "path": "/proc/1/ns/x"}]);
            assert!(lowered(json!({name: "1"}), joined).is_ok(), "{name} joined");
        }
    }

    #[test]
    fn the_order_is_always_the_same() {
        let names: Vec<String> = (0..20).map(|number| format!("net.x{number:02}")).collect();
        let sysctls = names.iter().map(|name| (name.clone(), json!("1"))).collect();
        let lowered = lowered(serde_json::Value::Object(sysctls), json!([{"type": "network"}])).unwrap();
        assert_eq!(lowered.into_iter().map(|sysctl| sysctl.name).collect::<Vec<_>>(), names);
    }

    #[test]
    fn what_belongs_to_the_host_is_refused() {
        let all = json!([{"type": "ipc"}, {"type": "network"}, {"type": "uts"}]);
        for name in ["kernel.panic", "vm.swappiness", "fs.file-max", "kernel.hostname", "kernel.core_pattern"] {
            assert!(lowered(json!({name: "1"}), all.clone()).is_err(), "{name}");
        }
        for name in ["", ".", "net..x", "net.ipv4.../x", "net/../kernel/panic", "net/ipv4/../../kernel/panic"] {
            let error = lowered(json!({name: "1"}), all.clone()).unwrap_err().to_string();
            assert!(error.contains("is not the name of a sysctl"), "{name}: {error}");
        }
    }

    #[test]
    fn names_become_paths_as_sysctl_8_does_it() {
        let table = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
            ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ];
        for (name, path) in table {
            assert_eq!(to_path(name), path);
        }
    }
}
