//! Becoming the payload's user: attributes, filter, groups, ids, capabilities. The order is the point; each step says why it
//! stands where it does.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::prctl::{get_dumpable, set_dumpable};
use nix::sys::stat::{Mode, umask};

use super::cwd::{self, Entered};
use super::exec::{Prepared, Ready, find_program};
use super::{console, exec, seccomp};
use crate::error::{Context, Error, Kind, Result};
use crate::link::Link;
use crate::message::Request;
use crate::plan::process::{
    BitList, Capabilities, Held, IoPriority, MemoryPolicy, ProcessPlan, Scheduling, User, capability_name,
};
use crate::plan::seccomp::Seccomp;
use crate::sys::cred::{self, CapabilitySets};
use crate::sys::sched;

/// `CAP_SETGID`, `CAP_SYS_ADMIN`: bits of a mask.
const SETGID: u64 = 1 << 6;
const SYS_ADMIN: u64 = 1 << 21;

/// Whether the process is the container's first, or joins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The container's first process.
    Init,
    /// A process of `exec`, for which the affinity of the plan counts.
    Joined,
}

/// Gives up what the payload is not to have, and finds its program as the payload will.
///
/// `filter` is loaded here while still privileged, unless the plan sets no_new_privileges: that allows it without
/// privileges, so that it waits in [`Ready`] for the last moment, or, if the parent is to be sent its listener, until
/// everything else here is done. Capabilities that cannot be granted are a warning.
pub fn apply<'a>(prepared: Prepared<'a>, role: Role, filter: Option<&'a Seccomp>, link: &Link) -> Result<Ready<'a>> {
    let Prepared { plan, env } = prepared;
    // A raised priority, a real-time class and nodes of other cpusets need capabilities.
    attributes(plan, role)?;
    // Changing owners needs CAP_CHOWN. The pty is the user's too: it is standard input by now.
    console::give_stdio_to(plan.user.uid)?;
    // As root first: a directory may be closed to the user and still be meant as its working directory.
    let entered = cwd::enter(&plan.cwd)?;

    let before = cred::capabilities().on("read", "the capabilities of the runtime")?;
    // Needs CAP_SETPCAP, which the user will not have.
    let bounding = limit_bounding(plan.capabilities.bounding)?;
    let (granted, warnings) = plan.capabilities.granted(Held { permitted: before.permitted, bounding });
    warnings.iter().for_each(|warning| link.warn(warning));
    let stays_visible = is_visible_to_parent(filter)?;
    change_ids(&plan.user, before)?;
    if stays_visible {
        set_dumpable(true).on("let the runtime look into", "init")?;
    }
    // CVE-2024-21626 counts for this attempt as well: enter looks at where it came.
    if entered == Entered::NotAllowed {
        cwd::enter_as_user(&plan.cwd)?;
    }
    // An unprivileged filter needs no_new_privileges; without it CAP_SYS_ADMIN. So it comes before the capabilities go, but
    // after everything else: only capset, prctl, the search for the program and execve need the profile's consent.
    let mut limits = plan.rlimits.as_slice();
    if !plan.no_new_privileges
        && let Some(filter) = filter
    {
        // The limits come as late as they can. A profile need not allow them, so that is here.
        exec::limit(std::mem::take(&mut limits))?;
        raise(before, SYS_ADMIN)?;
        load(filter, link)?;
    }
    give_up(granted)?;
    let program = find_program(&plan.args[0], &env)?;
    let mut last = None;
    if plan.no_new_privileges {
        cred::set_no_new_privileges().on("set", "no_new_privs")?;
        match filter {
            Some(filter) if filter.notify.is_some() => load(filter, link)?,
            filter => last = filter,
        }
    }
    Ok(Ready { program, args: &plan.args, env, limits, filter: last })
}

fn load(filter: &Seccomp, link: &Link) -> Result<()> {
    if let Some(listener) = seccomp::load(filter)? {
        link.ask_done(&Request::Listener { fd: listener.as_raw_fd() })?;
    }
    Ok(())
}

/// Whether the parent is to fetch a listener and has no privileges of its own, so that it may only look into a process that
/// is dumpable (ptrace(2)); a change of user ends that, until execve.
///
/// It shows no more than the process of a container whose user the caller is itself: descriptors of the host are closed, and
/// another process of the container can look into this one only if it has all of its capabilities.
fn is_visible_to_parent(filter: Option<&Seccomp>) -> Result<bool> {
    if filter.is_none_or(|filter| filter.notify.is_none()) {
        return Ok(false);
    }
    get_dumpable().on("find out", "whether init is dumpable")
}

/// What the payload inherits beside its identity.
fn attributes(plan: &ProcessPlan, role: Role) -> Result<()> {
    // Before the filter: profiles commonly allow personality(2) for a few domains only.
    if let Some(domain) = plan.personality {
        sched::set_personality(domain).on("set the personality", format_args!("{domain:#x}"))?;
    }
    // Before the scheduler: SCHED_DEADLINE is refused to a process that is tied to some CPUs.
    affinity(plan, role)?;
    if let Some(scheduling) = plan.scheduling {
        schedule(scheduling)?;
    }
    if let Some(priority) = plan.io_priority {
        set_io_priority(priority)?;
    }
    if let Some(policy) = &plan.memory_policy {
        set_memory_policy(policy)?;
    }
    umask(Mode::from_bits_truncate(plan.user.umask));
    Ok(())
}

/// Whatever CPUs the caller was tied to, the container has those of its cpuset.
fn affinity(plan: &ProcessPlan, role: Role) -> Result<()> {
    match &plan.exec_affinity.last {
        Some(cpus) if role == Role::Joined => run_on("process.execCPUAffinity.final", cpus),
        // As many CPUs as Linux can be built for; the kernel takes those of the cpuset.
        _ => sched::set_affinity(&[usize::MAX; 8192 / usize::BITS as usize])
            .on("let the process use", "all CPUs of its cpuset"),
    }
}

/// Ties the calling process to the CPUs that `field` of the configuration names.
pub fn run_on(field: &str, cpus: &BitList) -> Result<()> {
    sched::set_affinity(cpus.words()).map_err(|errno| {
        let error = Error::sys(format!("run on the CPUs of {field} ({})", cpus), errno);
        if errno == Errno::EINVAL { error.hint("none of them is in the cpuset of the process") } else { error }
    })
}

fn schedule(scheduling: Scheduling) -> Result<()> {
    let Scheduling { policy, flags, nice, priority, runtime, deadline, period } = scheduling;
    let number = scheduling.policy_number();
    let attributes =
        sched::Attributes { policy: number, flags, nice, priority, runtime, deadline, period, ..Default::default() };
    sched::set_attributes(attributes).map_err(|errno| {
        let error = Error::sys(format!("set the scheduler to {policy} (nice {nice}, priority {priority})"), errno);
        match errno {
            Errno::EPERM => error.hint(
                "it needs CAP_SYS_NICE in the host's user namespace, and a real-time policy a cgroup with \
                 linux.resources.cpu.realtimeRuntime where the kernel shares real time out (CONFIG_RT_GROUP_SCHED)",
            ),
            Errno::EOPNOTSUPP => error.hint("a flag is not supported by this kernel"),
            Errno::EBUSY => error.hint("the CPUs have not enough time left for this deadline"),
            _ => error,
        }
    })
}

fn set_io_priority(priority: IoPriority) -> Result<()> {
    let what = format!("set the I/O priority to {} {}", priority.class, priority.level);
    sched::set_io_priority(priority.packed()).map_err(|errno| {
        let error = Error::sys(what, errno);
        if errno == Errno::EPERM { error.hint("the class needs CAP_SYS_NICE or CAP_SYS_ADMIN") } else { error }
    })
}

fn set_memory_policy(policy: &MemoryPolicy) -> Result<()> {
    let nodes = policy.nodes.as_ref();
    sched::set_memory_policy(policy.mode, nodes.map(BitList::words)).map_err(|errno| {
        let shown = nodes.map_or("no node".to_owned(), |nodes| format!("nodes {}", nodes));
        let error = Error::sys(format!("set the memory policy {} on {shown}", policy.name), errno);
        match errno {
            Errno::ENOSYS => error.hint("this kernel has no NUMA support"),
            Errno::EINVAL => {
                error.hint("a node is not there or not in the cpuset, or this kernel does not know the mode")
            }
            _ => error,
        }
    })
}

/// Drops from the bounding set what is not wanted; a mask of what is in it then (and more, beyond what was wanted).
fn limit_bounding(wanted: u64) -> Result<u64> {
    let mut missing = 0;
    for number in 0..u64::BITS {
        let known = if wanted & 1 << number != 0 {
            cred::bounding_has(number).map(|has| missing |= u64::from(!has) << number)
        } else {
            cred::drop_bounding(number)
        };
        match known {
            Ok(()) => {}
            // The first number this kernel does not know: neither does it know those above.
            Err(Errno::EINVAL) => {
                missing |= wanted & u64::MAX << number;
                break;
            }
            // Without CAP_SETPCAP what is not there needs no dropping.
            Err(Errno::EPERM) if cred::bounding_has(number) == Ok(false) => {}
            Err(errno) => {
                return Err(Error::sys(format!("drop {} from the bounding set", capability_name(number)), errno)
                    .hint("it needs CAP_SETPCAP"));
            }
        }
    }
    Ok(!missing)
}

/// Groups before ids, and the group id before the user id: after the user id has changed neither is allowed.
fn change_ids(user: &User, before: CapabilitySets) -> Result<()> {
    set_groups(&user.additional_gids, before)?;
    cred::set_gid(user.gid).map_err(|errno| unmapped(format!("become group {}", user.gid), errno))?;
    if user.uid != 0 {
        // Leaving user id 0 would drop the permitted set, of which the payload may want some.
        cred::set_keep_capabilities(true).on("keep", "the capabilities over the change of user")?;
    }
    cred::set_uid(user.uid).map_err(|errno| unmapped(format!("become user {}", user.uid), errno))
}

/// Also an empty list is set: the caller's groups are not the container's.
fn set_groups(groups: &[u32], before: CapabilitySets) -> Result<()> {
    let Err(errno) = cred::set_groups(groups) else { return Ok(()) };
    // With CAP_SETGID the reason for EPERM is /proc/self/setgroups: a user namespace that its owner mapped without
    // newgidmap must not drop groups, since a group can also be what keeps somebody out (user_namespaces(7)).
    let denied = errno == Errno::EPERM && before.effective & SETGID != 0;
    if denied && groups.is_empty() {
        return Ok(());
    }
    let error = unmapped(format!("set the supplementary groups {groups:?}"), errno);
    Err(if denied {
        error.hint("the user namespace denies setgroups; it has to be mapped by newgidmap")
    } else {
        error
    })
}

fn unmapped(what: String, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL => Error::caused(Kind::Invalid, what, "the id is not mapped in the container's user namespace"),
        errno => Error::sys(what, errno),
    }
}

/// Makes a permitted capability effective again after the change of user id took it away.
fn raise(before: CapabilitySets, capability: u64) -> Result<()> {
    let now = cred::capabilities().on("read", "the capabilities")?;
    if now.effective & capability != 0 || before.permitted & capability == 0 {
        return Ok(());
    }
    cred::set_capabilities(CapabilitySets { effective: now.effective | capability, ..now }).on("raise", "CAP_SYS_ADMIN")
}

/// Reduces the capabilities to what is granted. The ambient set last: it is cut by every change of the others.
fn give_up(granted: Capabilities) -> Result<()> {
    let Capabilities { effective, permitted, inheritable, ambient, .. } = granted;
    cred::set_capabilities(CapabilitySets { effective, permitted, inheritable }).on("set", "the capabilities")?;
    cred::set_keep_capabilities(false).on("stop keeping", "the capabilities over a change of user")?;
    if permitted & inheritable != 0 {
        // What is left of the caller's; in all other cases capset has emptied it.
        cred::clear_ambient().on("empty", "the ambient capabilities")?;
    }
    (0..u64::BITS)
        .filter(|number| ambient & 1 << number != 0)
        .try_for_each(|number| cred::raise_ambient(number).on("make ambient", capability_name(number)))
}

#[cfg(test)]
mod tests;
