//! The device nodes of a container: those of the configuration and those every container has.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, makedev};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};

use crate::error::{Error, Result};
use crate::plan::mounts::{Mount, Source};

/// What a container finds below /dev beside its mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// The nodes to make, in order.
    pub nodes: Vec<DeviceNode>,
    /// Whose /dev it is.
    pub dev: Dev,
}

/// Whose /dev it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dev {
    /// The container's: nodes and links are made in it.
    #[default]
    Own,
    /// Bound from the host by the configuration: it is left as it is.
    Bound,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Where, in the container: absolute, without `.` and `..`.
    pub path: PathBuf,
    /// What sort of node.
    pub kind: DeviceKind,
    /// Its major number; 0 for a pipe.
    pub major: u32,
    /// Its minor number; 0 for a pipe.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if not root.
    pub uid: Option<u32>,
    /// Group, if not root.
    pub gid: Option<u32>,
}

/// The sorts of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// A named pipe.
    Pipe,
}

impl DeviceKind {
    /// The file type of such a node.
    pub fn file_type(self) -> SFlag {
        match self {
            Self::Block => SFlag::S_IFBLK,
            Self::Character => SFlag::S_IFCHR,
            Self::Pipe => SFlag::S_IFIFO,
        }
    }
}

impl DeviceNode {
    /// Its number as stat(2) has it.
    pub fn number(&self) -> u64 {
        makedev(u64::from(self.major), u64::from(self.minor))
    }
}

/// The nodes every container has (runtime-spec, config-linux, "Default Devices"), by their character device numbers.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Lowers `linux.devices`. `mounts` are the lowered ones: a node that one of them covers is not made.
pub fn lower(spec: &Spec, mounts: &[Mount]) -> Result<Devices> {
    // A devtmpfs is one for the whole host: what was made or linked in it would be the host's.
    let shared = |source: &Source| match source {
        Source::Bind(_) => true,
        Source::Filesystem(new) => new.kind.as_c_str() == c"devtmpfs",
        Source::Cgroup | Source::Remount(_) => false,
    };
    if mounts.iter().any(|mount| mount.destination == Path::new("/dev") && shared(&mount.source)) {
        return Ok(Devices { nodes: Vec::new(), dev: Dev::Bound });
    }
    let mut nodes = Vec::new();
    let configured = spec.linux().as_ref().and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for (index, device) in configured.iter().enumerate() {
        let node = node(device).map_err(|wrong| Error::invalid(format!("linux.devices[{index}]: {wrong}")))?;
        nodes.push(node);
    }
    for (path, major, minor) in DEFAULTS {
        if !nodes.iter().any(|node| node.path == Path::new(path)) {
            let kind = DeviceKind::Character;
            nodes.push(DeviceNode { path: path.into(), kind, major, minor, mode: 0o666, uid: None, gid: None });
        }
    }
    let covered: HashSet<&Path> = mounts.iter().map(|mount| mount.destination.as_path()).collect();
    nodes.retain(|node| !covered.contains(node.path.as_path()));
    Ok(Devices { nodes, dev: Dev::Own })
}

fn node(device: &LinuxDevice) -> Result<DeviceNode, String> {
    let path = device.path();
    let shown = path.display();
    if !path.is_absolute() || path.file_name().is_none() || path.as_os_str().as_bytes().contains(&0) {
        return Err(format!("the path {shown:?} is not the absolute path of a node"));
    }
    if path.components().any(|component| component.as_os_str() == "..") {
        return Err(format!("the path {shown} contains .."));
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Character,
        LinuxDeviceType::P => DeviceKind::Pipe,
        LinuxDeviceType::A => return Err(format!("{shown} has the type a: a node is c, u, b or p")),
    };
    // The kernel's dev_t has 12 bits for the major and 20 for the minor number.
    let number = |name: &str, value: i64, bits: u32| match u32::try_from(value) {
        _ if kind == DeviceKind::Pipe => Ok(0),
        Ok(value) if value < 1 << bits => Ok(value),
        _ => Err(format!("the {name} number {value} of {shown} is not one the kernel knows")),
    };
    let mode = device.file_mode().unwrap_or(0o666);
    if mode & !0o177_777 != 0 {
        return Err(format!("the fileMode {mode:o} of {shown} is more than permission bits"));
    }
    Ok(DeviceNode {
        path: path.components().collect(),
        kind,
        major: number("major", device.major(), 12)?,
        minor: number("minor", device.minor(), 20)?,
        mode: mode & 0o7777,
        uid: device.uid(),
        gid: device.gid(),
    })
}

#[cfg(test)]
mod tests;
