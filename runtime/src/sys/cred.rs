//! Ids and capabilities: setresuid(2), setgroups(2), capset(2), and the prctl(2) calls around them.
//!
//! The id calls go to the kernel directly: libc's own versions would first stop every thread, and there is one.

use nix::errno::Errno;
use nix::libc;

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: two words of 32 bits a set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets that capget(2) and capset(2) know: bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// What counts in permission checks.
    pub effective: u64,
    /// The limit of the effective set.
    pub permitted: u64,
    /// What survives execve of a file that has it too.
    pub inheritable: u64,
}

/// capget(2) of this process.
pub fn capabilities() -> Result<CapabilitySets, Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: with VERSION_3 the kernel reads the header and writes two elements; both live until it returns.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    Errno::result(done)?;
    let [low, high] = halves;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapabilitySets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// capset(2) of this process.
pub fn set_capabilities(sets: CapabilitySets) -> Result<(), Errno> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Half {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let halves = [half(0), half(32)];
    // SAFETY: with VERSION_3 the kernel reads the header and two elements; both live until it returns.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    Errno::result(done).map(drop)
}

/// Whether capability `number` is in the bounding set; `EINVAL` where the kernel does not know it.
pub fn bounding_has(number: u32) -> Result<bool, Errno> {
    prctl(libc::PR_CAPBSET_READ, number.into(), 0).map(|answer| answer == 1)
}

/// Takes capability `number` out of the bounding set for good; `EINVAL` where the kernel does not know it.
pub fn drop_bounding(number: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAPBSET_DROP, number.into(), 0).map(drop)
}

/// Puts capability `number` into the ambient set.
pub fn raise_ambient(number: u32) -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, number.into()).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<(), Errno> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0).map(drop)
}

/// Whether a change of all user ids away from root leaves the permitted capabilities.
pub fn set_keep_capabilities(keep: bool) -> Result<(), Errno> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

/// From now on no execve grants privileges, in this process and all its children.
pub fn set_no_new_privileges() -> Result<(), Errno> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

fn prctl(option: libc::c_int, second: libc::c_ulong, third: libc::c_ulong) -> Result<libc::c_int, Errno> {
    // SAFETY: every option used above takes integers alone, and those that want the unused arguments to be 0 get 0.
    Errno::result(unsafe { libc::prctl(option, second, third, 0 as libc::c_ulong, 0 as libc::c_ulong) })
}

/// Sets the real, effective and saved user id.
pub fn set_uid(uid: u32) -> Result<(), Errno> {
    // SAFETY: setresuid takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Sets the real, effective and saved group id.
pub fn set_gid(gid: u32) -> Result<(), Errno> {
    // SAFETY: setresgid takes three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Replaces the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the kernel reads exactly as many 32-bit ids as are said, and the slice holds that many.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}
