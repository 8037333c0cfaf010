//! (The lead wires this file in as soon as the modules it names are there.)
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

use oci_spec::runtime::Spec;

use crate::bundle::Bundle;
use crate::cgroup::{Layout, SavedCgroup};
use crate::error::Result;
use crate::parent::mount_source::Wanted;

/// What the flags of the call add to the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The container's id.
    pub id: String,
    /// Who makes cgroups.
    pub manager: cgroup::Manager,
    /// Whether a cgroup that may not be written is an error.
    pub privilege: cgroup::Privilege,
    /// How the root is entered.
    pub root_change: mounts::RootChange,
    /// Whether the container gets a session keyring of its own.
    pub keyring: process::Keyring,
    /// How many fds after standard error are handed to the payload.
    pub preserve_fds: u32,
    /// How many of the caller's listening sockets go before those.
    pub listen_fds: u32,
}

impl Options {
    fn call(&self) -> process::Call<'_> {
        process::Call {
            container: &self.id,
            keyring: self.keyring,
            preserve_fds: self.preserve_fds,
            listen_fds: self.listen_fds,
        }
    }
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
    /// Kernel parameters, as paths below /proc/sys.
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
    /// What a mount of the type cgroup shows of them.
    pub cgroup_view: cgroup_view::CgroupView,
    /// What runs at which moment of its life.
    pub hooks: hooks::Hooks,
    /// Network devices to move in.
    pub net_devices: Vec<netdev::NetDevice>,
    /// Its RDT group.
    pub rdt: Option<rdt::RdtPlan>,
}

impl Plan {
    /// Lowers a bundle's configuration.
    pub fn from_spec(bundle: &Bundle, options: &Options, layout: &Layout) -> Result<Self> {
        let spec: &Spec = bundle.spec();
        validate::check(spec)?;
        let namespaces = namespaces::lower(spec)?;
        let linux = spec.linux().as_ref();
        let mounts = mounts::lower(spec, bundle.path(), &namespaces)?;
        let cgroup = cgroup::lower(spec, &options.id, options.manager, layout, options.privilege)?;
        let directories = SavedCgroup::planned(&cgroup);
        Ok(Self {
            rootfs: mounts::lower_rootfs(spec, bundle.path(), options.root_change, &namespaces)?,
            devices: devices::lower(spec, &mounts)?,
            mounts,
            masks: mounts::lower_masks(spec, &namespaces)?,
            sysctls: sysctl::lower(spec, &namespaces)?,
            hostname: validate::uts_name(spec.hostname(), "hostname", &namespaces)?,
            domainname: validate::uts_name(spec.domainname(), "domainname", &namespaces)?,
            process: process::lower(validate::process(spec)?, linux, &options.call())?,
            seccomp: linux.and_then(|linux| linux.seccomp().as_ref()).map(seccomp::lower).transpose()?,
            cgroup_view: cgroup_view::lower(layout, directories.directories(), &namespaces),
            cgroup,
            hooks: hooks::lower(spec)?,
            net_devices: netdev::lower(spec, &namespaces)?,
            rdt: rdt::lower(spec, &options.id)?,
            namespaces,
        })
    }

    /// What of it concerns the host's files.
    pub fn wanted(&self) -> Wanted<'_> {
        let Self { rootfs, mounts, devices, namespaces, .. } = self;
        Wanted { rootfs, mounts, devices: &devices.nodes, namespaces }
    }
}
