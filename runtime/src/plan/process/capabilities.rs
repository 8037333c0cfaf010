//! The five capability sets as the kernel's masks, and what of them can be granted.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::error::{Error, Kind, Result};

/// The five sets: bit n is capability number n of capabilities(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The limit of what execve can give.
    pub bounding: u64,
    /// What counts in permission checks.
    pub effective: u64,
    /// What survives execve of a file that has it too. Empty unless asked for: a set left over here lets an ordinary user
    /// in the container gain it through a file.
    pub inheritable: u64,
    /// The limit of the effective set.
    pub permitted: u64,
    /// What survives execve of an ordinary file.
    pub ambient: u64,
}

/// What this process holds before it gives anything up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its permitted set.
    pub permitted: u64,
    /// Its bounding set.
    pub bounding: u64,
}

impl Capabilities {
    /// Takes the sets as given; a set that is not given is empty.
    ///
    /// # Errors
    /// When the inheritable set is larger than the bounding set: the kernel refuses that (capabilities(7)), and dropping a
    /// part of either would not be what was asked for.
    pub fn from_spec(sets: &LinuxCapabilities) -> Result<Self> {
        let mask = |set: &Option<HashSet<Capability>>| {
            set.iter().flatten().fold(0, |mask, &capability| mask | 1 << number(capability))
        };
        let masks = Self {
            bounding: mask(sets.bounding()),
            effective: mask(sets.effective()),
            inheritable: mask(sets.inheritable()),
            permitted: mask(sets.permitted()),
            ambient: mask(sets.ambient()),
        };
        match masks.inheritable & !masks.bounding {
            0 => Ok(masks),
            surplus => Err(Error::caused(
                Kind::Invalid,
                format!(
                    "process.capabilities.inheritable has [{}], which process.capabilities.bounding has not",
                    names(surplus)
                ),
                "operation not permitted",
            )),
        }
    }

    /// Splits what was asked for into what the kernel will grant and warnings about the rest: the runtime specification wants
    /// a container that runs with less, not one that fails.
    pub fn granted(self, held: Held) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let unavailable = (self.bounding & !held.bounding) | (self.permitted & !held.permitted);
        if unavailable != 0 {
            warnings.push(format!(
                "ignoring unknown or unavailable capabilities: [{}]: the runtime itself does not have them",
                names(unavailable)
            ));
        }
        // Each rule is the kernel's own, in cap_capset() and cap_task_prctl().
        let bounding = self.bounding & held.bounding;
        let permitted = self.permitted & held.permitted;
        let mut within_permitted = |set: &str, wanted: u64| {
            let surplus = wanted & !permitted & !unavailable;
            if surplus != 0 {
                warnings.push(format!("ignoring {set} capabilities that are not permitted: [{}]", names(surplus)));
            }
            wanted & permitted
        };
        let effective = within_permitted("effective", self.effective);
        let inheritable = self.inheritable & bounding;
        // The kernel wants them in the inheritable set too. That runc's default configuration asks for an ambient set and,
        // since CVE-2022-29162, for no inheritable one is no news to anybody: no warning.
        let ambient = within_permitted("ambient", self.ambient) & inheritable;
        (Self { bounding, effective, inheritable, permitted, ambient }, warnings)
    }
}

/// The name of capability `number`, or its number where this program knows no name.
pub fn name(number: u32) -> String {
    match caps::all().into_iter().find(|capability| u32::from(capability.index()) == number) {
        Some(capability) => capability.to_string(),
        None => format!("capability {number}"),
    }
}

fn names(mask: u64) -> String {
    let names: Vec<String> = (0..u64::BITS).filter(|bit| mask & 1 << bit != 0).map(name).collect();
    names.join(" ")
}

fn number(capability: Capability) -> u8 {
    use Capability as Given;
    use caps::Capability as Known;
    let known = match capability {
        Given::AuditControl => Known::CAP_AUDIT_CONTROL,
        Given::AuditRead => Known::CAP_AUDIT_READ,
        Given::AuditWrite => Known::CAP_AUDIT_WRITE,
        Given::BlockSuspend => Known::CAP_BLOCK_SUSPEND,
        Given::Bpf => Known::CAP_BPF,
        Given::CheckpointRestore => Known::CAP_CHECKPOINT_RESTORE,
        Given::Chown => Known::CAP_CHOWN,
        Given::DacOverride => Known::CAP_DAC_OVERRIDE,
        Given::DacReadSearch => Known::CAP_DAC_READ_SEARCH,
        Given::Fowner => Known::CAP_FOWNER,
        Given::Fsetid => Known::CAP_FSETID,
        Given::IpcLock => Known::CAP_IPC_LOCK,
        Given::IpcOwner => Known::CAP_IPC_OWNER,
        Given::Kill => Known::CAP_KILL,
        Given::Lease => Known::CAP_LEASE,
        Given::LinuxImmutable => Known::CAP_LINUX_IMMUTABLE,
        Given::MacAdmin => Known::CAP_MAC_ADMIN,
        Given::MacOverride => Known::CAP_MAC_OVERRIDE,
        Given::Mknod => Known::CAP_MKNOD,
        Given::NetAdmin => Known::CAP_NET_ADMIN,
        Given::NetBindService => Known::CAP_NET_BIND_SERVICE,
        Given::NetBroadcast => Known::CAP_NET_BROADCAST,
        Given::NetRaw => Known::CAP_NET_RAW,
        Given::Perfmon => Known::CAP_PERFMON,
        Given::Setgid => Known::CAP_SETGID,
        Given::Setfcap => Known::CAP_SETFCAP,
        Given::Setpcap => Known::CAP_SETPCAP,
        Given::Setuid => Known::CAP_SETUID,
        Given::SysAdmin => Known::CAP_SYS_ADMIN,
        Given::SysBoot => Known::CAP_SYS_BOOT,
        Given::SysChroot => Known::CAP_SYS_CHROOT,
        Given::SysModule => Known::CAP_SYS_MODULE,
        Given::SysNice => Known::CAP_SYS_NICE,
        Given::SysPacct => Known::CAP_SYS_PACCT,
        Given::SysPtrace => Known::CAP_SYS_PTRACE,
        Given::SysRawio => Known::CAP_SYS_RAWIO,
        Given::SysResource => Known::CAP_SYS_RESOURCE,
        Given::SysTime => Known::CAP_SYS_TIME,
        Given::SysTtyConfig => Known::CAP_SYS_TTY_CONFIG,
        Given::Syslog => Known::CAP_SYSLOG,
        Given::WakeAlarm => Known::CAP_WAKE_ALARM,
    };
    known.index()
}
