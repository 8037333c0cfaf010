//! Resource limits and the OOM score: what needs the privileges of the host, and so is done before init loses them.
//!
//! Both are inherited by a clone. The hard limits are raised in this process, before there is a child and anything to undo;
//! init then lowers its own to what is asked for, at its last moment, since what it still has to open would count.

use std::fs::OpenOptions;
use std::io::{self, Write};

use nix::errno::Errno;

use crate::error::{Context, Error, Result};
use crate::plan::process::{Limit, ProcessPlan};
use crate::sys::sched::{limit, set_limit};

/// Raises this process's hard limits to those that `plan` asks for, where they are lower.
pub fn raise(plan: &ProcessPlan) -> Result<()> {
    for wanted in &plan.rlimits {
        let (soft, hard) = limit(0, wanted.number()).on("read", wanted.resource)?;
        if wanted.hard <= hard {
            continue;
        }
        set_limit(0, wanted.number(), soft, wanted.hard).map_err(|errno| {
            let error = Error::sys(format!("set {wanted}"), errno);
            match errno {
                Errno::EPERM => {
                    error.hint(format_args!("the hard limit is {}, and raising it needs CAP_SYS_RESOURCE", Limit(hard)))
                }
                _ => error,
            }
        })?;
    }
    Ok(())
}

/// Sets the OOM score of a process: a child that was cloned just now and has our ids still. It passes the score on to its own
/// children.
pub fn set_oom_score(pid: i32, plan: &ProcessPlan) -> Result<()> {
    put_oom_score(&format!("/proc/{pid}/oom_score_adj"), plan)
}

/// The same of such a child itself. It allocates nothing unless it fails.
pub fn set_own_oom_score(plan: &ProcessPlan) -> Result<()> {
    put_oom_score("/proc/self/oom_score_adj", plan)
}

fn put_oom_score(path: &str, plan: &ProcessPlan) -> Result<()> {
    let Some(score) = plan.oom_score_adj else { return Ok(()) };
    // Not by way of a String: see above.
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| {
        let mut text = [0; 16];
        let mut rest = &mut text[..];
        write!(rest, "{score}")?;
        let left = rest.len();
        file.write_all(&text[..text.len() - left])
    });
    match written {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::sys(format!("set process.oomScoreAdj to {score}"), Errno::EACCES)
                .hint("a score below the caller's needs CAP_SYS_RESOURCE"))
        }
        written => written.on("set process.oomScoreAdj to", score),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::process::{Call, Keyring, lower};

    #[test]
    fn a_limit_that_cannot_be_had_is_told_before_there_is_a_child() {
        let process = serde_json::json!({
            "cwd": "/", "user": {}, "args": ["sh"],
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}],
        });
        let process = serde_json::from_value(process).unwrap();
        let call = Call { container: "c1", keyring: Keyring::New, preserve_fds: 0, listen_fds: 0 };
        let (_, hard) = limit(0, nix::libc::RLIMIT_NOFILE).unwrap();
        // Above fs.nr_open this is refused to everybody.
        assert_eq!(
            raise(&lower(&process, None, &call).unwrap()).unwrap_err().to_string(),
            format!(
                "set RLIMIT_NOFILE to soft 1, hard unlimited: operation not permitted; \
                 the hard limit is {hard}, and raising it needs CAP_SYS_RESOURCE"
            ),
        );
    }
}
