//! linux.seccomp -> the BPF program that the kernel runs before each system call of the container, and how to load it.
//!
//! The decision for every architecture, number and arguments is the one that runc with libseccomp takes, which profiles
//! are written against: the architecture the program is built for is always part of the filter; an architecture that is
//! not kills the thread; names nobody knows are skipped; several conditions on one argument are alternatives; and a call
//! newer than any the profile names fails with ENOSYS instead of the default action (`verdicts`). Where libseccomp's program
//! does something else than its own pseudo code of the same rules (an accumulator that an earlier test has changed, rules
//! that are skipped since the first is of a call the architecture lacks), the rules count here.
//!
//! The compiler is our own. seccompiler, whose instruction type we use, compiles for one architecture at a time, knows
//! neither NOTIFY nor an errno of each rule, and tests number after number; and libseccomp is a C library that takes
//! milliseconds for what is 0.1 ms here. The steps: `rules` (names to numbers, by `syscalls`), `conditions` (the rules of one call
//! to a graph of tests), `verdicts` (what happens to every number), `program` (verdicts to instructions).
//!
//! On the wire (create keeps it for exec), little-endian: `"tare-sc1"`, u32 flags, u8 1 or 0 for a listener or none, with
//! one its path and its metadata (u32 length, bytes), u32 number of instructions, and each as u16 code, u8 jt, u8 jf, u32 k.

mod bytes;
mod conditions;
mod program;
mod redundant;
mod rules;
mod syscalls;
mod table;
mod verdicts;

use std::path::PathBuf;

use nix::libc;
use oci_spec::runtime::{Arch as SpecArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};
use seccompiler::sock_filter;

use crate::error::{Error, Result};
use program::{MAX_LENGTH, Section};
use rules::Rules;
use syscalls::Arch;

/// seccomp(2): SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, since Linux 5.19.
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;
/// seccomp(2): SECCOMP_FILTER_FLAG_NEW_LISTENER.
pub const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
/// seccomp(2): SECCOMP_FILTER_FLAG_LOG.
pub const LOG: u32 = libc::SECCOMP_FILTER_FLAG_LOG as u32;
/// seccomp(2): SECCOMP_FILTER_FLAG_SPEC_ALLOW.
pub const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;

/// A filter, ready to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seccomp {
    /// The program: 1 to 4,096 instructions.
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2), NEW_LISTENER included when a rule notifies.
    pub flags: u32,
    /// Whom to give the listener, when a rule notifies.
    pub notify: Option<Notify>,
}

/// The agent that decides what a rule with SCMP_ACT_NOTIFY leaves to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The agent's socket.
    pub listener_path: PathBuf,
    /// What to tell it, passed on as it is.
    pub metadata: String,
}

/// What `tare features` tells of seccomp: the names that a configuration may use.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    /// `SCMP_ACT_*`.
    pub actions: &'static [&'static str],
    /// `SCMP_CMP_*`.
    pub operators: &'static [&'static str],
    /// `SCMP_ARCH_*`.
    pub archs: &'static [&'static str],
    /// `SECCOMP_FILTER_FLAG_*` that are known; `sys::seccomp::supports` tells which of them the kernel has.
    pub known_flags: &'static [&'static str],
}

/// What is known, each list in order.
pub fn features() -> Features {
    Features {
        actions: &[
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_KILL",
            "SCMP_ACT_KILL_PROCESS",
            "SCMP_ACT_KILL_THREAD",
            "SCMP_ACT_LOG",
            "SCMP_ACT_NOTIFY",
            "SCMP_ACT_TRACE",
            "SCMP_ACT_TRAP",
        ],
        operators: &[
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_LE",
            "SCMP_CMP_LT",
            "SCMP_CMP_MASKED_EQ",
            "SCMP_CMP_NE",
        ],
        archs: &[
            "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_RISCV64",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X86_64",
        ],
        known_flags: &[
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
    }
}

/// The flag's value for seccomp(2); 0 for TSYNC, which changes nothing in a process of one thread.
pub fn flag_value(name: &str) -> Option<u32> {
    match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => Some(0),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Some(SPEC_ALLOW),
        "SECCOMP_FILTER_FLAG_LOG" => Some(LOG),
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Some(WAIT_KILLABLE_RECV),
        _ => None,
    }
}

/// Compiles linux.seccomp.
pub fn lower(spec: &LinuxSeccomp) -> Result<Seccomp> {
    lower_on(Arch::NATIVE, spec)
}

/// [`lower`], as on a machine whose native architecture is `native`.
fn lower_on(native: Arch, spec: &LinuxSeccomp) -> Result<Seccomp> {
    let notify = notify(spec)?;
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let flags = flags(spec, notify.is_some())?;
    let archs = architectures(native, spec);
    let rules = Rules::collect(spec, default, &archs)?;

    let mut graphs = Vec::new();
    let mut sections = Vec::with_capacity(archs.len());
    for &arch in &archs {
        // x32 shares the audit architecture, and so the section, of x86_64.
        if arch == Arch::X32 && archs.contains(&Arch::X86_64) {
            continue;
        }
        let modes: &[Arch] = match arch {
            Arch::X86_64 if archs.contains(&Arch::X32) => &[Arch::X86_64, Arch::X32],
            _ => &[arch],
        };
        let ranges = verdicts::ranges(spec.default_action(), default, modes, &rules, &mut graphs)?;
        sections.push(Section { audit: arch.audit(), ranges });
    }
    // What libseccomp does with an architecture that the filter does not know.
    let program = program::assemble(&sections, &graphs, default, libc::SECCOMP_RET_KILL_THREAD);
    if program.len() > MAX_LENGTH {
        return Err(Error::invalid(format!(
            "linux.seccomp needs more than the {MAX_LENGTH} instructions that the kernel takes: use fewer rules with arguments"
        )));
    }
    Ok(Seccomp { program, flags, notify })
}

/// Who is asked, if a rule asks. A listener's path without such a rule means nothing.
fn notify(spec: &LinuxSeccomp) -> Result<Option<Notify>> {
    // The listener reaches the parent by a write(2) after the filter is loaded: an agent asked about that write could
    // never have been given the listener.
    if spec.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(Error::invalid("linux.seccomp: SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let mut asking = calls(spec).iter().filter(|call| call.action() == LinuxSeccompAction::ScmpActNotify).peekable();
    if asking.peek().is_none() {
        return Ok(None);
    }
    if asking.any(|call| call.names().iter().any(|name| name == "write")) {
        return Err(Error::invalid("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    let Some(listener_path) = spec.listener_path().clone().filter(|path| !path.as_os_str().is_empty()) else {
        return Err(Error::invalid("linux.seccomp has a rule with SCMP_ACT_NOTIFY, but listenerPath is not set"));
    };
    Ok(Some(Notify { listener_path, metadata: spec.listener_metadata().clone().unwrap_or_default() }))
}

fn calls(spec: &LinuxSeccomp) -> &[LinuxSyscall] {
    spec.syscalls().as_deref().unwrap_or_default()
}

/// The flags of seccomp(2). No `flags` at all means SPEC_ALLOW, as with runc: the speculation mitigations that seccomp
/// would turn on cost more than they protect.
fn flags(spec: &LinuxSeccomp, notifies: bool) -> Result<u32> {
    let mut value = match spec.flags() {
        None => SPEC_ALLOW,
        Some(flags) => flags.iter().fold(0, |value, flag| {
            value
                | match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
                    // Init has one thread: there is nobody to synchronize with.
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
                }
        }),
    };
    if notifies {
        value |= NEW_LISTENER;
    } else if value & WAIT_KILLABLE_RECV != 0 {
        return Err(Error::invalid(
            "linux.seccomp.flags has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, but no rule has SCMP_ACT_NOTIFY",
        ));
    }
    Ok(value)
}

/// The architectures of the filter, without repeats, the native one first.
///
/// One without a table here cannot make a call on a machine this program runs on, so what its rules say does not matter.
fn architectures(native: Arch, spec: &LinuxSeccomp) -> Vec<Arch> {
    let mut archs = vec![native];
    for arch in spec.architectures().iter().flatten() {
        let arch = match arch {
            SpecArch::ScmpArchX86_64 => Arch::X86_64,
            SpecArch::ScmpArchX86 => Arch::X86,
            SpecArch::ScmpArchX32 => Arch::X32,
            SpecArch::ScmpArchAarch64 => Arch::Aarch64,
            SpecArch::ScmpArchArm => Arch::Arm,
            SpecArch::ScmpArchRiscv64 => Arch::Riscv64,
            _ => continue,
        };
        if !archs.contains(&arch) {
            archs.push(arch);
        }
    }
    archs
}

/// The `SECCOMP_RET_*` value of an action, with its data.
fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<u32> {
    if let Some(data) = data
        && !matches!(action, LinuxSeccompAction::ScmpActErrno | LinuxSeccompAction::ScmpActTrace)
    {
        // runtime-spec, config-linux: it must fail then.
        return Err(Error::invalid(format!(
            "linux.seccomp: errnoRet {data} is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"
        )));
    }
    let data = data.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        LinuxSeccompAction::ScmpActLog => libc::SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
        // The kernel's MAX_ERRNO is 4095, and libseccomp takes what is below it.
        LinuxSeccompAction::ScmpActErrno if data < 4095 => libc::SECCOMP_RET_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace if data <= 0xffff => libc::SECCOMP_RET_TRACE | data,
        LinuxSeccompAction::ScmpActErrno => {
            return Err(Error::invalid(format!("linux.seccomp: errnoRet {data} is not below 4095")));
        }
        LinuxSeccompAction::ScmpActTrace => {
            return Err(Error::invalid(format!("linux.seccomp: errnoRet {data} of SCMP_ACT_TRACE is not below 65536")));
        }
    })
}
