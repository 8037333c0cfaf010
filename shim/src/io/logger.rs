//! A binary logger: a program of the host that reads a process's output from its fds 3 and 4, and says on 5 that it is ready.
//!
//! It is our child and reaped here, by its pidfd, whenever it ends; so its pid stays its own as long as we may signal it.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc::{SIGKILL, SIGTERM};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{pipe2, read};
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::LoggerNames;
use super::target::{Handshake, LoggerTarget};
use crate::error::{Context, Error, Result};
use crate::sys::process::{pidfd_open, pidfd_send_signal};
use crate::sys::spawn;
use crate::sys::watch::watch;

/// How long a logger has at the end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// To read to the end of its input: a signal at once would lose what it has not read yet.
    pub(super) end_of_file: Duration,
    /// To end after SIGTERM.
    pub(super) terminate: Duration,
}

impl Patience {
    /// The second is what containerd's shim gives; loggers count on ten.
    pub(super) const USUAL: Self = Self { end_of_file: Duration::from_millis(200), terminate: Duration::from_secs(12) };
}

/// A running logger; killed on drop.
#[derive(Debug)]
pub(super) struct Logger {
    name: String,
    pid: u32,
    pidfd: OwnedFd,
    gone: watch::Receiver<bool>,
}

impl Logger {
    /// Starts this program with these two pipes' read ends, and waits until it is ready.
    pub(super) async fn start(
        target: &LoggerTarget,
        names: &LoggerNames,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> Result<Self> {
        let name = target.program.display().to_string();
        let failed = || format!("start the logger {name}");
        let (ready, say_ready) = pipe2(OFlag::O_CLOEXEC).context(failed)?;
        let program = c_string(target.program.clone().into_os_string())?;
        let mut arguments = vec![program.clone()];
        for argument in &target.arguments {
            arguments.push(c_string(argument.clone())?);
        }
        let environment = environment(names)?;
        let inherited = [stdout.as_fd(), stderr.as_fd(), say_ready.as_fd()];
        let pid = spawn::with_descriptors(&program, &arguments, &environment, &inherited).context(failed)?;
        // Nobody can have reaped it yet: that happens on this thread only.
        let pidfd = pidfd_open(pid).context(|| format!("watch the logger {name}"))?;
        let logger = Self::reaped(name, pid, pidfd)?;
        // Its end-of-file tells readiness, and theirs that the process is gone.
        drop((stdout, stderr, say_ready));
        logger.ready(ready, target.handshake).await?;
        Ok(logger)
    }

    /// Its pid until it has been reaped.
    pub(super) fn pid(&self) -> Option<u32> {
        (!*self.gone.borrow()).then_some(self.pid)
    }

    /// Ends it, when its pipes have been closed: it may read to the end, then it is asked, then killed.
    pub(super) async fn stop(mut self, patience: Patience) {
        for (wait, signal) in [(patience.end_of_file, SIGTERM), (patience.terminate, SIGKILL)] {
            if timeout(wait, self.gone.wait_for(|gone| *gone)).await.is_ok() {
                return;
            }
            if signal == SIGKILL {
                warn!("logger {}: it goes on after SIGTERM and is killed", self.name);
            }
            self.signal(signal);
        }
        // An error is that its task has ended: it is gone too.
        let _ = self.gone.wait_for(|gone| *gone).await;
    }

    /// Reaps it when it ends, whether somebody stops it or not.
    fn reaped(name: String, pid: u32, pidfd: OwnedFd) -> Result<Self> {
        let (say_gone, gone) = watch::channel(false);
        let failed = || format!("watch the logger {name}");
        let exit = watch(pidfd.try_clone().context(failed)?, Interest::READABLE).context(failed)?;
        let logger = Self { name: name.clone(), pid, pidfd, gone };
        tokio::task::spawn_local(async move {
            match exit.readable().await {
                Ok(_) => reap(&name, exit.get_ref()),
                Err(error) => warn!("logger {name}: it cannot be watched: {error}"),
            }
            drop(exit);
            say_gone.send_replace(true);
        });
        Ok(logger)
    }

    async fn ready(&self, pipe: OwnedFd, handshake: Handshake) -> Result<()> {
        let name = &self.name;
        let failed = || format!("wait until the logger {name} is ready");
        let pipe = watch(super::nonblocking(pipe).context(failed)?, Interest::READABLE).context(failed)?;
        let length = loop {
            let mut readable = pipe.readable().await.context(failed)?;
            match read(pipe.get_ref(), &mut [0]) {
                Err(Errno::EAGAIN) => readable.clear_ready(),
                Err(Errno::EINTR) => {}
                result => break result.context(failed)?,
            }
        };
        if length == 0 && handshake == Handshake::Byte {
            return Err(Error::internal(format!(
                "the logger {name} did not say that it is ready: it closed fd 5, or ended, before it wrote a byte to it"
            )));
        }
        Ok(())
    }

    fn signal(&self, signal: i32) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
            Err(error) => warn!("logger {}: send signal {signal}: {error}", self.name),
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if self.pid().is_some() {
            self.signal(SIGKILL);
        }
    }
}

fn reap(name: &str, pidfd: &OwnedFd) {
    match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {
        Ok(WaitStatus::Exited(_, 0) | WaitStatus::Signaled(_, nix::sys::signal::SIGTERM, _)) => {
            debug!("logger {name}: it has ended");
        }
        Ok(status) => warn!("logger {name}: it has ended: {status:?}"),
        Err(error) => debug!("logger {name}: it has ended, and somebody else reaped it: {error}"),
    }
}

/// Ours, and what the logger is told.
fn environment(names: &LoggerNames) -> Result<Vec<CString>> {
    let told: [(OsString, OsString); 2] = [
        ("CONTAINER_ID".into(), names.id.clone().into()),
        ("CONTAINER_NAMESPACE".into(), names.namespace.clone().into()),
    ];
    let ours = std::env::vars_os().filter(|(key, _)| told.iter().all(|(told, _)| told != key)).collect::<Vec<_>>();
    ours.into_iter()
        .chain(told)
        .map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            c_string(variable)
        })
        .collect()
}

fn c_string(text: OsString) -> Result<CString> {
    CString::new(text.into_vec()).map_err(|error| {
        let text = OsString::from_vec(error.into_vec());
        Error::invalid(format!("a logger cannot be given \"{}\": it contains a NUL", text.as_bytes().escape_ascii()))
    })
}
