//! Which process it is that a container began with, so that a pid used again is never taken for it: the pid and the time of
//! its start, as /proc tells it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::{pidfd_open, pidfd_send_signal};

/// The first process of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Its pid in the runtime's pid namespace.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat, proc_pid_stat(5)).
    pub start_time: u64,
}

impl Init {
    /// Describes a process that is known to be there, such as a child that has not been waited for.
    pub fn of(pid: i32) -> Result<Self> {
        let (start_time, _) = stat(pid)?
            .ok_or_else(|| Error::new(Kind::State, format!("process {pid} ended before it could be noted")))?;
        Ok(Self { pid, start_time })
    }

    /// A pidfd of the process; `None` if it has ended (a zombie has).
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = match pidfd_open(self.pid) {
            Ok(pidfd) => pidfd,
            Err(Errno::ESRCH) => return Ok(None),
            // A pid that now names a thread is not the process that it was.
            Err(Errno::EINVAL) => return Ok(None),
            Err(errno) => return Err(errno).on("open the process", self.pid),
        };
        // Read after the pidfd was opened: if the pid has the right start time now, the pidfd is of that process.
        match stat(self.pid)? {
            Some((start_time, state)) if start_time == self.start_time && state != b'Z' && state != b'X' => {
                match pidfd_send_signal(&pidfd, 0) {
                    Err(Errno::ESRCH) => Ok(None),
                    _ => Ok(Some(pidfd)),
                }
            }
            _ => Ok(None),
        }
    }
}

/// Start time and state letter of a process; `None` if there is none.
fn stat(pid: i32) -> Result<Option<(u64, u8)>> {
    let path = format!("/proc/{pid}/stat");
    // All its fields are numbers but the command, which is at most 64 bytes long.
    let mut buffer = [0; 2048];
    let text = match File::open(&path).and_then(|mut file| file.read(&mut buffer)) {
        Ok(length) => &buffer[..length],
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        Err(error) => return Err(error).on("read", path),
    };
    // The command stands in parentheses and may contain any byte, so count from the last closing one.
    let fields = text.iter().rposition(|byte| *byte == b')').map(|end| &text[end + 1..]).unwrap_or_default();
    let mut words = fields.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let state = words.next().and_then(|word| word.first().copied());
    let start = words.nth(18).and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
    match (start, state) {
        (Some(start), Some(state)) => Ok(Some((start, state))),
        _ => Err(Error::new(Kind::System, format!("{path} is not in the form of proc_pid_stat(5)"))),
    }
}
