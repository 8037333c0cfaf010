//! Loading the filter in init: the program was compiled by the plan, here it is only given to the kernel.
//!
//! When: without no_new_privs it takes CAP_SYS_ADMIN, so before capabilities are dropped; with it, as the last step before
//! execve, so that the profile need not allow what init itself calls.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::plan::seccomp::{LOG, NEW_LISTENER, SPEC_ALLOW, Seccomp, WAIT_KILLABLE_RECV};
use crate::sys;

/// Puts this thread, and what it becomes, under the filter. Returns the listener if a rule notifies.
pub fn load(seccomp: &Seccomp) -> Result<Option<OwnedFd>> {
    sys::seccomp::load(&seccomp.program, seccomp.flags).map_err(|errno| explain(seccomp, errno))
}

/// What a refused filter means.
fn explain(seccomp: &Seccomp, errno: Errno) -> Error {
    let load = || format!("load the seccomp filter of {} instructions", seccomp.program.len());
    match errno {
        Errno::EINVAL => match missing(seccomp.flags) {
            Some(flag) => Error::unsupported(format!("{}: the kernel does not support {flag}", load())),
            None => Error::sys(load(), errno),
        },
        Errno::ENOSYS => Error::unsupported(format!("{}: the kernel is built without seccomp filters", load())),
        Errno::EBUSY => {
            Error::sys(format!("{}: a filter that this process is already under has a listener", load()), errno)
        }
        _ => Error::sys(load(), errno),
    }
}

/// The first flag that the kernel does not know.
fn missing(flags: u32) -> Option<&'static str> {
    // WAIT_KILLABLE_RECV is only taken together with NEW_LISTENER.
    let named = [
        (LOG, LOG, "SECCOMP_FILTER_FLAG_LOG"),
        (SPEC_ALLOW, SPEC_ALLOW, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        (NEW_LISTENER, NEW_LISTENER, "SECCOMP_FILTER_FLAG_NEW_LISTENER (SCMP_ACT_NOTIFY)"),
        (WAIT_KILLABLE_RECV, WAIT_KILLABLE_RECV | NEW_LISTENER, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"),
    ];
    named
        .into_iter()
        .find(|&(flag, together, _)| flags & flag != 0 && !sys::seccomp::supports(together))
        .map(|(_, _, name)| name)
}

/// The flags of a configuration that this kernel supports, in the order in which they are known: for `tare features`.
pub fn supported_flags() -> Vec<&'static str> {
    let known = crate::plan::seccomp::features().known_flags;
    let has = |name: &&str| crate::plan::seccomp::flag_value(name).is_some_and(|flag| missing(flag).is_none());
    known.iter().copied().filter(has).collect()
}
