//! Spec → [`Plan`]: pure. Every error of the user ends here, before any side effect; past it there is no `Option<bool>` and
//! no string to be parsed.
//!
//! What the plan depends on beside the configuration (how this host's cgroups are laid out, the flags of the call) comes in
//! as values, so that all of it is tested without root.

pub mod cgroup;
pub mod cgroup_view;
pub mod devices;
pub mod hooks;
pub mod mounts;
pub mod namespaces;
pub mod netdev;
pub mod process;
pub mod rdt;
pub mod seccomp;
pub mod sysctl;
pub mod validate;

use std::path::Path;

use oci_spec::runtime::Spec;

use crate::cgroup::{Layout, SavedCgroup};
use crate::error::{Error, Result};
use crate::parent::mount_source::Wanted;

/// What the flags of the call add to the configuration.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// Who makes cgroups.
    pub manager: cgroup::Manager,
    /// Whether a cgroup that may not be written is an error.
    pub privilege: cgroup::Privilege,
    /// How the root is changed, where there is a mount namespace to change it in.
    pub change: mounts::RootChange,
    /// What the process gets of the caller.
    pub call: process::Call<'a>,
}

/// A container, lowered: what is to be done, in total types.
#[derive(Debug)]
pub struct Plan {
    /// Which namespaces are made, joined and shared.
    pub namespaces: namespaces::Namespaces,
    /// The root file system.
    pub rootfs: mounts::RootfsPlan,
    /// What is mounted in it, in order.
    pub mounts: Vec<mounts::Mount>,
    /// The nodes and links of /dev.
    pub devices: devices::Devices,
    /// What is hidden, what is made read-only.
    pub masks: mounts::Masks,
    /// Kernel parameters.
    pub sysctls: Vec<sysctl::Sysctl>,
    /// The name in the UTS namespace.
    pub hostname: Option<String>,
    /// The NIS domain in the UTS namespace.
    pub domainname: Option<String>,
    /// The process.
    pub process: process::ProcessPlan,
    /// Its system call filter.
    pub seccomp: Option<seccomp::Seccomp>,
    /// Its cgroups and their limits.
    pub cgroup: cgroup::CgroupPlan,
    /// What a mount of type cgroup shows.
    pub cgroup_view: cgroup_view::CgroupView,
    /// What runs at which moment of its life.
    pub hooks: hooks::Hooks,
    /// Network devices to move in.
    pub net_devices: Vec<netdev::NetDevice>,
    /// Its RDT group.
    pub rdt: Option<rdt::RdtPlan>,
    /// The SELinux label of its mounts.
    pub mount_label: Option<String>,
}

impl Plan {
    /// Lowers the configuration of the bundle at `bundle`.
    pub fn from_spec(spec: &Spec, bundle: &Path, options: &Options<'_>, layout: &Layout) -> Result<Self> {
        validate::check(spec)?;
        let namespaces = namespaces::lower(spec)?;
        let linux = spec.linux().as_ref();
        let process =
            spec.process().as_ref().ok_or_else(|| Error::invalid("process is missing in the configuration"))?;
        let mounts = mounts::lower(spec, bundle, &namespaces)?;
        let cgroup = cgroup::lower(spec, options.call.container, options.manager.clone(), layout, options.privilege)?;
        Ok(Self {
            rootfs: mounts::lower_rootfs(spec, bundle, options.change, &namespaces)?,
            devices: devices::lower(spec, &mounts)?,
            masks: mounts::lower_masks(spec, &namespaces)?,
            sysctls: sysctl::lower(spec, &namespaces)?,
            hostname: validate::uts_name(spec.hostname(), "hostname", &namespaces)?,
            domainname: validate::uts_name(spec.domainname(), "domainname", &namespaces)?,
            process: process::lower(process, linux, &options.call)?,
            seccomp: linux.and_then(|linux| linux.seccomp().as_ref()).map(seccomp::lower).transpose()?,
            cgroup_view: cgroup_view::lower(layout, SavedCgroup::planned(&cgroup).directories(), &namespaces),
            cgroup,
            hooks: hooks::lower(spec)?,
            net_devices: netdev::lower(spec, &namespaces)?,
            rdt: rdt::lower(spec, options.call.container)?,
            mount_label: linux.and_then(|linux| linux.mount_label().clone()),
            mounts,
            namespaces,
        })
    }

    /// What of it concerns the host's files.
    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            rootfs: &self.rootfs,
            mounts: &self.mounts,
            devices: &self.devices.nodes,
            namespaces: &self.namespaces,
        }
    }
}
