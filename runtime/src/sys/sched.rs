//! How a process is scheduled: CPUs, policy, I/O priority, personality, NUMA policy, limits.
//!
//! All but the limits concern the calling process, which has one thread.

use nix::errno::Errno;
use nix::libc;

/// What sched_setattr(2) takes, up to and with the utilisation clamps (Linux 5.3).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Filled in by [`set_attributes`].
    pub size: u32,
    /// SCHED_*.
    pub policy: u32,
    /// SCHED_FLAG_*.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, in nanoseconds.
    pub period: u64,
    /// Lower utilisation clamp.
    pub util_min: u32,
    /// Upper utilisation clamp.
    pub util_max: u32,
}

/// sched_setattr(2).
pub fn set_attributes(attributes: Attributes) -> Result<(), Errno> {
    let attributes = Attributes { size: size_of::<Attributes>() as u32, ..attributes };
    // SAFETY: the kernel reads `size` bytes, the size of the structure, which lives until it returns.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) }).map(drop)
}

/// sched_setaffinity(2) with a mask of any length; bits beyond the machine's CPUs are ignored by the kernel.
pub fn set_affinity(mask: &[usize]) -> Result<(), Errno> {
    // SAFETY: the kernel reads at most as many bytes as are said, and the slice holds that many.
    let done = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    Errno::result(done).map(drop)
}

/// ioprio_set(2) with the packed class and level.
pub fn set_io_priority(packed: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_set takes three integers.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(packed)) };
    Errno::result(done).map(drop)
}

/// set_mempolicy(2); `nodes` is the mask, `None` the empty set.
pub fn set_memory_policy(mode: u32, nodes: Option<&[usize]>) -> Result<(), Errno> {
    let (mask, bits) = match nodes {
        // The kernel uses one bit less than it is told.
        Some(nodes) => (nodes.as_ptr(), nodes.len() * usize::BITS as usize + 1),
        None => (std::ptr::null(), 0),
    };
    // SAFETY: the kernel reads `bits - 1` bits from the mask, which is what the slice holds; with 0 it reads nothing.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// personality(2).
pub fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: personality takes an integer and changes nothing that compiled code relies on.
    Errno::result(unsafe { libc::personality(domain.into()) }).map(drop)
}

/// prlimit(2) of process `pid`, 0 being the caller; `u64::MAX` is "unlimited".
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let new = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads one rlimit64, which lives until it returns; a null place for the old limits is allowed.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const new, old) }).map(drop)
}

/// The limits of process `pid`, 0 being the caller: soft, hard.
pub fn limit(pid: i32, resource: u32) -> Result<(u64, u64), Errno> {
    let new = std::ptr::null::<libc::rlimit64>();
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64, which lives until it returns; without new limits it changes nothing.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new, &raw mut old) })?;
    Ok((old.rlim_cur, old.rlim_max))
}
