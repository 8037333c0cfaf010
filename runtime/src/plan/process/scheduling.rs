//! Scheduler, I/O priority, CPU affinity, personality and NUMA policy: the numbers that their system calls take.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler,
};

use super::bits::BitList;
use crate::error::{Error, Result};

/// The arguments of sched_setattr(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE or SCHED_DEADLINE.
    pub policy: LinuxSchedulerPolicy,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// −20 to 19.
    pub nice: i32,
    /// 1 to 99 for the two real-time policies, otherwise 0.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE alone.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE alone.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE alone; 0 means the deadline.
    pub period: u64,
}

impl Scheduling {
    pub(super) fn from_spec(scheduler: &Scheduler) -> Result<Self> {
        use LinuxSchedulerPolicy::{SchedDeadline, SchedFifo, SchedIso, SchedRr};
        let policy = *scheduler.policy();
        if policy == SchedIso {
            return Err(Error::unsupported(
                "process.scheduler.policy SCHED_ISO is reserved: Linux does not implement it",
            ));
        }
        let nice = scheduler.nice().unwrap_or(0);
        if !(-20..=19).contains(&nice) {
            return Err(Error::invalid(format!("process.scheduler.nice {nice} is not within -20 and 19")));
        }
        let priority = scheduler.priority().unwrap_or(0);
        let (priorities, who) = match policy {
            SchedFifo | SchedRr => (1..=99, "is not within 1 and 99"),
            _ => (0..=0, "is for SCHED_FIFO and SCHED_RR alone"),
        };
        let priority = match u32::try_from(priority) {
            Ok(valid) if priorities.contains(&valid) => valid,
            _ => return Err(Error::invalid(format!("process.scheduler.priority {priority} {who} (policy {policy})"))),
        };
        let [runtime, deadline, period] =
            [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or(0));
        if policy != SchedDeadline && (runtime, deadline, period) != (0, 0, 0) {
            return Err(Error::invalid(format!(
                "process.scheduler.runtime, deadline and period are for SCHED_DEADLINE alone (policy {policy})"
            )));
        }
        // The kernel's order: runtime <= deadline <= period, where a period of 0 stands for the deadline.
        if policy == SchedDeadline && (runtime == 0 || runtime > deadline || (period != 0 && deadline > period)) {
            return Err(Error::invalid(format!(
                "process.scheduler: SCHED_DEADLINE needs 0 < runtime <= deadline <= period \
                 (runtime {runtime}, deadline {deadline}, period {period})"
            )));
        }
        let flags = scheduler.flags().iter().flatten().fold(0, |flags, &flag| flags | scheduler_flag(flag));
        Ok(Self { policy, flags, nice, priority, runtime, deadline, period })
    }

    /// The policy's number in `linux/sched.h`.
    pub fn policy_number(self) -> u32 {
        match self.policy {
            LinuxSchedulerPolicy::SchedOther => 0,
            LinuxSchedulerPolicy::SchedFifo => 1,
            LinuxSchedulerPolicy::SchedRr => 2,
            LinuxSchedulerPolicy::SchedBatch => 3,
            LinuxSchedulerPolicy::SchedIso => 4,
            LinuxSchedulerPolicy::SchedIdle => 5,
            LinuxSchedulerPolicy::SchedDeadline => 6,
        }
    }
}

/// SCHED_FLAG_* of `linux/sched.h`.
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// The arguments of ioprio_set(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPriority {
    /// Real time, best effort or idle.
    pub class: IOPriorityClass,
    /// 0 (first) to 7 (last).
    pub level: u8,
}

impl IoPriority {
    pub(super) fn from_spec(priority: &LinuxIOPriority) -> Result<Self> {
        match u8::try_from(priority.priority()) {
            Ok(level @ 0..=7) => Ok(Self { class: priority.class(), level }),
            _ => Err(Error::invalid(format!(
                "process.ioPriority.priority {} is not within 0 and 7",
                priority.priority()
            ))),
        }
    }

    /// The value as the kernel packs it: the class above 13 bits of data.
    pub fn packed(self) -> u16 {
        let class: u16 = match self.class {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        class << 13 | u16::from(self.level)
    }
}

/// On which CPUs a process that joins a container starts, and where it runs once it is in the container's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    /// Before it enters the cgroup.
    pub initial: Option<BitList>,
    /// From then on; `None` is the whole cpuset.
    pub last: Option<BitList>,
}

impl ExecAffinity {
    pub(super) fn from_spec(affinity: &ExecCPUAffinity) -> Result<Self> {
        let list = |field: &str, text: &Option<String>| {
            let text = text.as_deref().filter(|text| !text.is_empty());
            text.map(|text| BitList::parse(field, text)).transpose()
        };
        Ok(Self {
            initial: list("process.execCPUAffinity.initial", affinity.initial())?,
            last: list("process.execCPUAffinity.final", affinity.cpu_affinity_final())?,
        })
    }
}

/// The domain for personality(2).
pub(super) fn personality(personality: &LinuxPersonality) -> Result<u32> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        return Err(Error::invalid(format!(
            "linux.personality.flags names {flag:?}: the runtime specification defines no flag yet"
        )));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    })
}

/// The arguments of set_mempolicy(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// MPOL_* with its MPOL_F_* flags.
    pub mode: u32,
    /// The mode's name, for an error.
    pub name: MemoryPolicyModeType,
    /// The nodes; `None` is the empty set, which some modes want.
    pub nodes: Option<BitList>,
}

impl MemoryPolicy {
    pub(super) fn from_spec(policy: &LinuxMemoryPolicy) -> Result<Self> {
        use MemoryPolicyFlagType::{MpolFNumaBalancing, MpolFRelativeNodes, MpolFStaticNodes};
        use MemoryPolicyModeType::{
            MpolBind, MpolDefault, MpolInterleave, MpolLocal, MpolPreferred, MpolPreferredMany, MpolWeightedInterleave,
        };
        let name = policy.mode();
        let nodes = policy.nodes().as_deref().filter(|nodes| !nodes.is_empty());
        let nodes = nodes.map(|nodes| BitList::parse("linux.memoryPolicy.nodes", nodes)).transpose()?;
        match (name, &nodes) {
            (MpolDefault | MpolLocal, Some(_)) => {
                return Err(Error::invalid(format!("linux.memoryPolicy.nodes must be empty with the mode {name}")));
            }
            (MpolBind | MpolInterleave | MpolWeightedInterleave | MpolPreferredMany, None) => {
                return Err(Error::invalid(format!("linux.memoryPolicy.nodes is empty: the mode {name} needs nodes")));
            }
            _ => {}
        }
        let flags = policy.flags().as_deref().unwrap_or_default();
        if flags.contains(&MpolFStaticNodes) && flags.contains(&MpolFRelativeNodes) {
            return Err(Error::invalid(
                "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            ));
        }
        if name != MpolDefault
            && nodes.is_none()
            && (flags.contains(&MpolFStaticNodes) || flags.contains(&MpolFRelativeNodes))
        {
            return Err(Error::invalid(
                "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES need nodes",
            ));
        }
        let mode = match name {
            MpolDefault => 0,
            MpolPreferred => 1,
            MpolBind => 2,
            MpolInterleave => 3,
            MpolLocal => 4,
            MpolPreferredMany => 5,
            MpolWeightedInterleave => 6,
        };
        let flags = flags.iter().fold(0, |all, flag| {
            all | match flag {
                MpolFNumaBalancing => 1 << 13,
                MpolFRelativeNodes => 1 << 14,
                MpolFStaticNodes => 1 << 15,
            }
        });
        Ok(Self { mode: mode | flags, name, nodes })
    }
}
