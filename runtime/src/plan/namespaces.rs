//! linux.namespaces, the id mappings and the time offsets, made total: each kind is inherited, new or joined, exactly once.

use std::path::PathBuf;

use nix::libc;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use crate::error::{Error, Result};

/// Where one namespace of the container comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The caller's own: the container shares it.
    #[default]
    Inherit,
    /// Made for the container.
    New,
    /// Joined: the namespace file at this path on the host.
    Join(PathBuf),
}

impl Source {
    /// Whether the container has a namespace of this kind other than the caller's.
    pub fn is_private(&self) -> bool {
        *self != Source::Inherit
    }

    /// Whether it is made for the container.
    pub fn is_new(&self) -> bool {
        *self == Source::New
    }
}

/// A range of ids: `size` ids from `container` on inside are those from `host` on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// The offset of one clock in a new time namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`, as /proc/PID/timens_offsets names it.
    pub clock: &'static str,
    /// Seconds; negative goes back.
    pub seconds: i64,
    /// Nanoseconds, below one second.
    pub nanoseconds: u32,
}

/// Every namespace of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// CLONE_NEWUSER
    pub user: Source,
    /// CLONE_NEWPID
    pub pid: Source,
    /// CLONE_NEWNS
    pub mount: Source,
    /// CLONE_NEWNET
    pub network: Source,
    /// CLONE_NEWIPC
    pub ipc: Source,
    /// CLONE_NEWUTS
    pub uts: Source,
    /// CLONE_NEWCGROUP
    pub cgroup: Source,
    /// CLONE_NEWTIME
    pub time: Source,
    /// For a new user namespace: not empty.
    pub uid_maps: Vec<IdMap>,
    /// For a new user namespace: not empty.
    pub gid_maps: Vec<IdMap>,
    /// For a new time namespace.
    pub time_offsets: Vec<TimeOffset>,
}

/// The CLONE_NEW* flag and the configuration's word for each kind, in the order in which namespaces are joined.
pub const KINDS: [(LinuxNamespaceType, i32, &str); 8] = [
    (LinuxNamespaceType::User, libc::CLONE_NEWUSER, "user"),
    (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC, "ipc"),
    (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS, "uts"),
    (LinuxNamespaceType::Network, libc::CLONE_NEWNET, "network"),
    (LinuxNamespaceType::Pid, libc::CLONE_NEWPID, "pid"),
    (LinuxNamespaceType::Cgroup, libc::CLONE_NEWCGROUP, "cgroup"),
    (LinuxNamespaceType::Time, CLONE_NEWTIME, "time"),
    (LinuxNamespaceType::Mount, libc::CLONE_NEWNS, "mount"),
];

/// time_namespaces(7); in the range of exit signals, so only unshare(2), setns(2) and clone3(2) know it.
pub const CLONE_NEWTIME: i32 = 0x80;

impl Namespaces {
    /// Where the namespace of this kind comes from.
    pub fn source(&self, kind: LinuxNamespaceType) -> &Source {
        match kind {
            LinuxNamespaceType::User => &self.user,
            LinuxNamespaceType::Pid => &self.pid,
            LinuxNamespaceType::Mount => &self.mount,
            LinuxNamespaceType::Network => &self.network,
            LinuxNamespaceType::Ipc => &self.ipc,
            LinuxNamespaceType::Uts => &self.uts,
            LinuxNamespaceType::Cgroup => &self.cgroup,
            LinuxNamespaceType::Time => &self.time,
        }
    }

    fn source_mut(&mut self, kind: LinuxNamespaceType) -> &mut Source {
        match kind {
            LinuxNamespaceType::User => &mut self.user,
            LinuxNamespaceType::Pid => &mut self.pid,
            LinuxNamespaceType::Mount => &mut self.mount,
            LinuxNamespaceType::Network => &mut self.network,
            LinuxNamespaceType::Ipc => &mut self.ipc,
            LinuxNamespaceType::Uts => &mut self.uts,
            LinuxNamespaceType::Cgroup => &mut self.cgroup,
            LinuxNamespaceType::Time => &mut self.time,
        }
    }

    /// The CLONE_NEW* flags of all kinds for which `wanted` holds.
    pub fn flags(&self, wanted: impl Fn(&Source) -> bool) -> i32 {
        KINDS.iter().filter(|(kind, _, _)| wanted(self.source(*kind))).fold(0, |flags, (_, flag, _)| flags | flag)
    }

    /// Whether init needs a process between it and the parent, which prepares what only takes effect for children.
    pub fn need_intermediate(&self) -> bool {
        let joins = self.flags(|source| matches!(source, Source::Join(_))) != 0;
        // pid and time namespaces are entered by children only; with a new user namespace, the joined ones must be
        // entered before it is made (they belong to an outer one), and a new pid namespace must belong to a joined
        // user namespace, or proc could not be mounted in it.
        matches!(self.pid, Source::Join(_))
            || self.time.is_private()
            || (joins && self.user.is_new())
            || (matches!(self.user, Source::Join(_)) && self.pid.is_new())
    }
}

/// Lowers linux.namespaces, linux.uidMappings, linux.gidMappings and linux.timeOffsets.
pub fn lower(spec: &Spec) -> Result<Namespaces> {
    let mut plan = Namespaces::default();
    let Some(linux) = spec.linux() else { return Ok(plan) };
    for namespace in linux.namespaces().iter().flatten() {
        let word = word(namespace.typ());
        let source = match namespace.path() {
            None => Source::New,
            Some(path) if path.as_os_str().is_empty() => Source::New,
            Some(path) if !path.is_absolute() => {
                return Err(Error::invalid(format!(
                    "linux.namespaces: the path {} of type {word} is not absolute",
                    path.display()
                )));
            }
            Some(path) => Source::Join(path.clone()),
        };
        let slot = plan.source_mut(namespace.typ());
        if slot.is_private() {
            return Err(Error::invalid(format!("linux.namespaces names the type {word} twice")));
        }
        *slot = source;
    }
    plan.uid_maps = maps(linux.uid_mappings(), "uidMappings")?;
    plan.gid_maps = maps(linux.gid_mappings(), "gidMappings")?;
    plan.time_offsets = time_offsets(linux)?;
    check(&plan)?;
    Ok(plan)
}

fn word(kind: LinuxNamespaceType) -> &'static str {
    KINDS.iter().find(|(known, _, _)| *known == kind).map_or("", |(_, _, word)| word)
}

/// The most lines the kernel takes in uid_map (user_namespaces(7)).
const MAX_MAPS: usize = 340;

fn maps(mappings: &Option<Vec<LinuxIdMapping>>, field: &str) -> Result<Vec<IdMap>> {
    let mut maps = Vec::new();
    for (index, mapping) in mappings.iter().flatten().enumerate() {
        let map = IdMap { container: mapping.container_id(), host: mapping.host_id(), size: mapping.size() };
        if map.size == 0 {
            return Err(Error::invalid(format!("linux.{field}[{index}].size is 0: give the number of ids")));
        }
        let ends = [map.container.checked_add(map.size), map.host.checked_add(map.size)];
        if ends.contains(&None) {
            return Err(Error::invalid(format!(
                "linux.{field}[{index}]: {} ids from {} (host {}) on do not fit into 32 bits",
                map.size, map.container, map.host
            )));
        }
        maps.push(map);
    }
    if maps.len() > MAX_MAPS {
        return Err(Error::invalid(format!("linux.{field} has {} ranges; the kernel takes {MAX_MAPS}", maps.len())));
    }
    Ok(maps)
}

fn time_offsets(linux: &Linux) -> Result<Vec<TimeOffset>> {
    let mut offsets = Vec::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        let clock = match clock.as_str() {
            "monotonic" => "monotonic",
            "boottime" => "boottime",
            other => {
                return Err(Error::invalid(format!(
                    "linux.timeOffsets: {other:?} is no clock of a time namespace (those are monotonic and boottime)"
                )));
            }
        };
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds >= 1_000_000_000 {
            return Err(Error::invalid(format!(
                "linux.timeOffsets.{clock}.nanosecs is {nanoseconds}: must be below 1000000000"
            )));
        }
        offsets.push(TimeOffset { clock, seconds, nanoseconds });
    }
    offsets.sort_by_key(|offset| offset.clock);
    Ok(offsets)
}

fn check(plan: &Namespaces) -> Result<()> {
    let mapped = !plan.uid_maps.is_empty() || !plan.gid_maps.is_empty();
    match plan.user {
        Source::New if plan.uid_maps.is_empty() => {
            Err(Error::invalid("linux.namespaces has a new user namespace, but linux.uidMappings is empty"))
        }
        Source::New if plan.gid_maps.is_empty() => {
            Err(Error::invalid("linux.namespaces has a new user namespace, but linux.gidMappings is empty"))
        }
        Source::Inherit if mapped => Err(Error::invalid(
            "linux.uidMappings or linux.gidMappings is set, but linux.namespaces has no user namespace",
        )),
        _ if !plan.time_offsets.is_empty() && !plan.time.is_new() => {
            Err(Error::invalid("linux.timeOffsets is set, but linux.namespaces has no new time namespace"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(linux: serde_json::Value) -> Result<Namespaces> {
        lower(&serde_json::from_value(serde_json::json!({"ociVersion": "1.3.0", "linux": linux})).unwrap())
    }

    fn refused(linux: serde_json::Value) -> String {
        lowered(linux).unwrap_err().to_string()
    }

    #[test]
    fn each_kind_is_inherited_new_or_joined() {
        let plan = lowered(serde_json::json!({"namespaces": [
            {"type": "pid"}, {"type": "network", "path": "/run/netns/a"}, {"type": "mount", "path": ""}]}))
        .unwrap();
        assert!(plan.pid.is_new() && plan.mount.is_new());
        assert_eq!(plan.network, Source::Join("/run/netns/a".into()));
        assert_eq!(plan.ipc, Source::Inherit);
        assert_eq!(plan.flags(Source::is_new), libc::CLONE_NEWPID | libc::CLONE_NEWNS);
    }

    #[test]
    fn wrong_namespaces_are_sentences() {
        let table = [
            (serde_json::json!({"namespaces": [{"type": "pid"}, {"type": "pid"}]}), "names the type pid twice"),
            (
                serde_json::json!({"namespaces": [{"type": "uts", "path": "proc/1/ns/uts"}]}),
                "of type uts is not absolute",
            ),
            (serde_json::json!({"namespaces": [{"type": "user"}]}), "linux.uidMappings is empty"),
            (serde_json::json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}), "has no user namespace"),
            (
                serde_json::json!({"namespaces": [{"type": "user"}],
                    "uidMappings": [{"containerID": 1, "hostID": 0, "size": 4294967295u32}]}),
                "do not fit into 32 bits",
            ),
            (serde_json::json!({"timeOffsets": {"boottime": {"secs": 1}}}), "has no new time namespace"),
            (serde_json::json!({"timeOffsets": {"realtime": {"secs": 1}}}), "is no clock of a time namespace"),
        ];
        for (linux, sentence) in table {
            let error = refused(linux.clone());
            assert!(error.contains(sentence), "{linux}: {error}");
        }
    }

    #[test]
    fn time_offsets_come_in_one_order_whatever_the_table_has() {
        // A table has another order each time it is made.
        for _ in 0..64 {
            let linux = serde_json::json!({"namespaces": [{"type": "time"}],
                "timeOffsets": {"monotonic": {"secs": 1, "nanosecs": 2}, "boottime": {"secs": -3}}});
            let offset = |clock, seconds, nanoseconds| TimeOffset { clock, seconds, nanoseconds };
            assert_eq!(lowered(linux).unwrap().time_offsets, [offset("boottime", -3, 0), offset("monotonic", 1, 2)]);
        }
    }

    #[test]
    fn an_intermediate_stands_only_where_the_order_needs_it() {
        let table = [
            (serde_json::json!([{"type": "pid"}, {"type": "mount"}, {"type": "network"}]), false),
            (serde_json::json!([{"type": "pid", "path": "/proc/1/ns/pid"}]), true),
            (serde_json::json!([{"type": "time"}]), true),
            (serde_json::json!([{"type": "user", "path": "/proc/1/ns/user"}]), false),
            (serde_json::json!([{"type": "user", "path": "/proc/1/ns/user"}, {"type": "pid"}]), true),
        ];
        for (namespaces, needed) in table {
            let plan = lowered(serde_json::json!({"namespaces": namespaces})).unwrap();
            assert_eq!(plan.need_intermediate(), needed, "{plan:?}");
        }
    }
}
