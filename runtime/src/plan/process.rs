//! `process` of the configuration (and of `exec`'s process file) → [`ProcessPlan`]: everything between the mounts and
//! execve as total types.
//!
//! Pure: it reads no file, asks the kernel nothing and knows neither ids of namespaces nor the host. What only the running
//! kernel can say (a capability that is not there, an unmapped id) is found out where the plan is applied.

mod bits;
pub mod capabilities;
mod scheduling;

use std::collections::HashSet;
use std::ffi::CString;
use std::fmt;

use nix::libc;
use oci_spec::runtime::{Linux, PosixRlimit, PosixRlimitType, Process};

pub use self::bits::BitList;
pub use self::capabilities::{Capabilities, Held, name as capability_name};
pub use self::scheduling::{ExecAffinity, IoPriority, MemoryPolicy, Scheduling};
use crate::error::{Error, Result};

/// The largest id that can be set: the value above it means "no change" to setresuid(2), so a process that asked for it
/// would stay root.
const LAST_ID: u32 = u32::MAX - 1;

/// The most descriptors a process can have on a kernel as it comes (`fs.nr_open`).
const MAX_PRESERVED: u32 = 1 << 20;

/// What is executed, as whom, and with which attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessPlan {
    /// The program and its arguments; at least one.
    pub args: Vec<CString>,
    /// `name=value`, each name once (the last one given), none of them from the host.
    pub env: Vec<CString>,
    /// The absolute working directory.
    pub cwd: CString,
    /// Ids, groups and umask.
    pub user: User,
    /// The five sets; what is not given is empty.
    pub capabilities: Capabilities,
    /// Each resource once, soft at most hard.
    pub rlimits: Vec<Rlimit>,
    /// Whether execve may no longer grant privileges.
    pub no_new_privileges: bool,
    /// −1000 to 1000; `None` leaves what was inherited.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile to change to at execve.
    pub apparmor_profile: Option<CString>,
    /// The SELinux label to change to at execve.
    pub selinux_label: Option<CString>,
    /// ioprio_set(2).
    pub io_priority: Option<IoPriority>,
    /// sched_setattr(2).
    pub scheduling: Option<Scheduling>,
    /// CPUs of a process that joins a running container.
    pub exec_affinity: ExecAffinity,
    /// personality(2).
    pub personality: Option<u32>,
    /// set_mempolicy(2).
    pub memory_policy: Option<MemoryPolicy>,
    /// A terminal, if one is wanted.
    pub terminal: Option<Terminal>,
    /// The session keyring to join, by name; `None` keeps the caller's.
    pub keyring: Option<CString>,
    /// How many descriptors after standard error the program gets.
    pub preserved_fds: u32,
    /// How many of those, from 3 on, are listening sockets in the sense of sd_listen_fds(3).
    pub listen_fds: u32,
}

/// What the call of the runtime adds to a process.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The container's id.
    pub container: &'a str,
    /// Which session keyring the process gets.
    pub keyring: Keyring,
    /// `--preserve-fds`.
    pub preserve_fds: u32,
    /// See [`listen_fds`]. These come before the preserved ones.
    pub listen_fds: u32,
}

/// Which session keyring a process gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyring {
    /// The container's own, made if it is not there yet.
    New,
    /// The caller's: `--no-new-keyring`.
    Inherit,
}

/// The identity of the process, in ids of the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id; never the "no change" value.
    pub uid: u32,
    /// Group id; never the "no change" value.
    pub gid: u32,
    /// All supplementary groups, also when there are none.
    pub additional_gids: Vec<u32>,
    /// File mode creation mask, at most 0777.
    pub umask: u32,
}

/// One limit of setrlimit(2); `u64::MAX` is "unlimited".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Which resource.
    pub resource: PosixRlimitType,
    /// The limit in force.
    pub soft: u64,
    /// The ceiling of the limit in force.
    pub hard: u64,
}

impl Rlimit {
    /// The resource's number in `sys/resource.h`.
    pub fn number(self) -> u32 {
        match self.resource {
            PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
            PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
            PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
            PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
            PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
            PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
            PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
            PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
            PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
            PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
            PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
            PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
            PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
            PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
            PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
            PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        }
    }
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to soft {}, hard {}", self.resource, Limit(self.soft), Limit(self.hard))
    }
}

/// A limit's value as people read it.
pub struct Limit(pub u64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == u64::MAX { f.write_str("unlimited") } else { self.0.fmt(f) }
    }
}

/// The terminal of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its first size; without one the terminal is 0 × 0 until somebody sets it.
    pub size: Option<WindowSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// Lowers `process`, with the parts of `linux` that concern the process (personality, memory policy) and the flags of the
/// call.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) naming the field, for everything the runtime specification or the kernel
/// can never accept.
pub fn lower(process: &Process, linux: Option<&Linux>, call: &Call<'_>) -> Result<ProcessPlan> {
    let preserved_fds = call.preserve_fds.checked_add(call.listen_fds).filter(|&count| count <= MAX_PRESERVED);
    let preserved_fds = preserved_fds.ok_or_else(|| {
        Error::invalid(format!(
            "--preserve-fds {} is more than a process can have ({MAX_PRESERVED})",
            call.preserve_fds
        ))
    })?;
    let mut env = env(process.env().as_deref().unwrap_or_default())?;
    if call.listen_fds > 0 {
        env.retain(|entry| !entry.to_bytes().starts_with(b"LISTEN_FDS="));
        env.push(c_string(&format!("LISTEN_FDS={}", call.listen_fds), || "LISTEN_FDS".to_owned())?);
    }
    Ok(ProcessPlan {
        args: args(process)?,
        env,
        cwd: cwd(process)?,
        user: user(process)?,
        capabilities: process.capabilities().as_ref().map(Capabilities::from_spec).transpose()?.unwrap_or_default(),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process)?,
        apparmor_profile: label("process.apparmorProfile", process.apparmor_profile().as_deref())?,
        selinux_label: label("process.selinuxLabel", process.selinux_label().as_deref())?,
        io_priority: process.io_priority().as_ref().map(IoPriority::from_spec).transpose()?,
        scheduling: process.scheduler().as_ref().map(Scheduling::from_spec).transpose()?,
        exec_affinity: match process.exec_cpu_affinity() {
            Some(affinity) => ExecAffinity::from_spec(affinity)?,
            None => ExecAffinity::default(),
        },
        personality: linux.and_then(|linux| linux.personality().as_ref()).map(scheduling::personality).transpose()?,
        memory_policy: linux
            .and_then(|linux| linux.memory_policy().as_ref())
            .map(MemoryPolicy::from_spec)
            .transpose()?,
        terminal: terminal(process)?,
        keyring: match call.keyring {
            // The name by which every process of the container, and nobody else's, finds the same keyring.
            Keyring::New => Some(c_string(&format!("_ses.{}", call.container), || "the container id".to_owned())?),
            Keyring::Inherit => None,
        },
        preserved_fds,
        listen_fds: call.listen_fds,
    })
}

/// How many listening sockets the caller passed to this program, from descriptor 3 on, by sd_listen_fds(3): `LISTEN_PID` is
/// our `pid`, `LISTEN_FDS` is their number. Anything else is meant for somebody else.
pub fn listen_fds(variable: impl Fn(&str) -> Option<String>, pid: u32) -> u32 {
    let number = |name| variable(name).and_then(|text| text.parse().ok());
    if number("LISTEN_PID") == Some(pid) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// [`listen_fds`] of this process.
pub fn inherited_listen_fds() -> u32 {
    listen_fds(|name| std::env::var(name).ok(), std::process::id())
}

fn args(process: &Process) -> Result<Vec<CString>> {
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::invalid("process.args is empty: it must name a program to run"));
    }
    let field = |index| format!("process.args[{index}]");
    args.iter().enumerate().map(|(index, arg)| c_string(arg, || field(index))).collect()
}

/// Checks each entry and keeps the last one of each name, in the order of the last ones.
fn env(entries: &[String]) -> Result<Vec<CString>> {
    let mut names = HashSet::with_capacity(entries.len());
    let mut kept = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate().rev() {
        let field = || format!("process.env[{index}]");
        // An entry without a value is refused: taking the value of this process's environment would hand the host's
        // secrets to whoever wrote the image.
        let Some((name, _)) = entry.split_once('=') else {
            return Err(Error::invalid(format!("{} {entry:?} has no '=': an entry is name=value", field())));
        };
        if name.is_empty() {
            return Err(Error::invalid(format!("{} {entry:?} has an empty name", field())));
        }
        if names.insert(name) {
            kept.push(c_string(entry, field)?);
        }
    }
    kept.reverse();
    Ok(kept)
}

fn cwd(process: &Process) -> Result<CString> {
    let Some(cwd) = process.cwd().to_str() else {
        return Err(Error::invalid(format!("process.cwd {:?} is not valid UTF-8", process.cwd())));
    };
    if cwd.is_empty() {
        return Err(Error::invalid("process.cwd is empty: it must be an absolute path"));
    }
    if !cwd.starts_with('/') {
        return Err(Error::invalid(format!("process.cwd {cwd:?} is not an absolute path")));
    }
    c_string(cwd, || "process.cwd".to_owned())
}

fn user(process: &Process) -> Result<User> {
    let user = process.user();
    let additional = user.additional_gids().as_deref().unwrap_or_default();
    for (field, id) in [("uid", user.uid()), ("gid", user.gid())]
        .into_iter()
        .chain(additional.iter().map(|&gid| ("additionalGids", gid)))
    {
        if id > LAST_ID {
            return Err(Error::invalid(format!("process.user.{field} {id} is not an id: the largest is {LAST_ID}")));
        }
    }
    let umask = user.umask().unwrap_or(0o022);
    if umask > 0o777 {
        return Err(Error::invalid(format!("process.user.umask {umask} (octal {umask:o}) is larger than octal 777")));
    }
    Ok(User { uid: user.uid(), gid: user.gid(), additional_gids: additional.to_vec(), umask })
}

fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<Rlimit>> {
    let mut lowered: Vec<Rlimit> = Vec::with_capacity(limits.len());
    for limit in limits {
        let (resource, soft, hard) = (limit.typ(), limit.soft(), limit.hard());
        if lowered.iter().any(|earlier| earlier.resource == resource) {
            return Err(Error::invalid(format!("process.rlimits names {resource} twice")));
        }
        if soft > hard {
            return Err(Error::invalid(format!(
                "process.rlimits: the soft limit {soft} of {resource} is above its hard limit {hard}"
            )));
        }
        lowered.push(Rlimit { resource, soft, hard });
    }
    Ok(lowered)
}

fn oom_score_adj(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::invalid(format!("process.oomScoreAdj {score} is not within -1000 and 1000")))
        }
        score => Ok(score),
    }
}

/// An empty label asks for nothing.
fn label(field: &str, label: Option<&str>) -> Result<Option<CString>> {
    let label = label.filter(|label| !label.is_empty());
    // A line break would end the value early in the kernel's attribute file.
    if let Some(label) = label.filter(|label| label.contains('\n')) {
        return Err(Error::invalid(format!("{field} {label:?} contains a line break")));
    }
    label.map(|label| c_string(label, || field.to_owned())).transpose()
}

/// A size without a terminal is to be ignored (runtime specification, "process").
fn terminal(process: &Process) -> Result<Option<Terminal>> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let side = |field, value: u64| {
        u16::try_from(value).map_err(|_| {
            Error::invalid(format!("process.consoleSize.{field} {value} is larger than a terminal can be (65535)"))
        })
    };
    let size = match process.console_size() {
        Some(size) => Some(WindowSize { rows: side("height", size.height())?, columns: side("width", size.width())? }),
        None => None,
    };
    Ok(Some(Terminal { size }))
}

fn c_string(text: &str, field: impl FnOnce() -> String) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{} {text:?} contains a NUL byte", field())))
}

#[cfg(test)]
mod tests;
