//! What is set on a process from outside, by the one who may: resource limits and the OOM score.
//!
//! Only root of the host's user namespace may raise a hard limit or lower the score. It is done as late as possible, since
//! what init still has to open or allocate would count.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::libc;
use oci_spec::runtime::PosixRlimitType;

use crate::error::{Context, Error, Result};
use crate::plan::process::{ProcessPlan, Rlimit};
use crate::sys::sched::{limit, set_limit};

/// Sets what `plan` asks for on `pid`, a child of ours that has not been reaped.
pub fn apply(pid: i32, plan: &ProcessPlan) -> Result<()> {
    if let Some(score) = plan.oom_score_adj {
        set_oom_score_adj(pid, score)?;
    }
    plan.rlimits.iter().try_for_each(|&rlimit| set_rlimit(pid, rlimit))
}

fn set_oom_score_adj(pid: i32, score: i32) -> Result<()> {
    match fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::sys(format!("set process.oomScoreAdj to {score}"), Errno::EACCES)
                .hint("a score below the caller's needs CAP_SYS_RESOURCE"))
        }
        written => written.on("set process.oomScoreAdj to", score),
    }
}

fn set_rlimit(pid: i32, Rlimit { resource, soft, hard }: Rlimit) -> Result<()> {
    let number = number(resource);
    let Err(errno) = set_limit(pid, number, soft, hard) else { return Ok(()) };
    let error = Error::sys(format!("set {resource} to soft {}, hard {}", Value(soft), Value(hard)), errno);
    Err(match (errno, limit(pid, number)) {
        (Errno::EPERM, Ok((_, now))) if hard > now => {
            error.hint(format_args!("the hard limit is {}, and raising it needs CAP_SYS_RESOURCE", Value(now)))
        }
        _ => error,
    })
}

struct Value(u64);

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == u64::MAX { f.write_str("unlimited") } else { self.0.fmt(f) }
    }
}

fn number(resource: PosixRlimitType) -> u32 {
    match resource {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_and_what_it_cannot_be_is_said() {
        let (_, hard) = limit(0, libc::RLIMIT_CORE).unwrap();
        let core = Rlimit { resource: PosixRlimitType::RlimitCore, soft: 0, hard };
        set_rlimit(0, core).unwrap();
        assert_eq!(limit(0, libc::RLIMIT_CORE).unwrap(), (0, hard));
        let files = Rlimit { resource: PosixRlimitType::RlimitNofile, soft: u64::MAX, hard: u64::MAX };
        let error = set_rlimit(0, files).unwrap_err().to_string();
        assert!(
            error.starts_with("set RLIMIT_NOFILE to soft unlimited, hard unlimited: operation not permitted"),
            "{error}"
        );
    }
}
