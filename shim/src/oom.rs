//! Kills for lack of memory, in one cgroup.
//!
//! | | who wakes us | what says whether a process was killed |
//! |---|---|---|
//! | version 1 | an eventfd registered in `cgroup.event_control` | its count, and `oom_kill` in `memory.oom_control` |
//! | version 2 | poll(2) for a modification of `memory.events` | `oom_kill` in it |
//!
//! The counters make sure that none is lost, whenever we are woken. With version 2 there is no inotify: a user has 128 of
//! those by default, fewer than a host has containers.
//!
//! It knows no container: who owns the watch says whose kill it was.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::uio::pread;
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cgroup::Cgroup;
use crate::error::{Context, Error, Result};
use crate::sys::watch::watch;

/// Sees each OOM kill in a cgroup (version 2: and in those below it), from its making on.
///
/// ```text
/// let watch = OomWatch::new(&cgroup)?;            // after `create`, before `start`; in tokio's context
/// while watch.next().await.is_some() { publish(TaskOOM) }
/// // on init's exit, before its event: if watch.check() { publish(TaskOOM) }
/// ```
#[derive(Debug)]
pub struct OomWatch(Watch);

#[derive(Debug)]
enum Watch {
    V1(V1),
    V2(V2),
}

impl OomWatch {
    /// Begins to watch `cgroup`. A kill between here and the first [`next`](Self::next) is not lost.
    ///
    /// `NotFound` when memory is not counted there: the root cgroup, or one without the controller.
    pub fn new(cgroup: &Cgroup) -> Result<Self> {
        let directory = cgroup.controller("memory").ok_or_else(|| {
            Error::not_found(format!("watch the memory of {}: this host has no memory controller", cgroup.display()))
        })?;
        Ok(Self(match cgroup {
            Cgroup::V1(_) => Watch::V1(V1::new(directory)?),
            Cgroup::V2(_) => Watch::V2(V2::new(directory)?),
        }))
    }

    /// Waits for an OOM kill; several at once may be one. None, for ever, when nothing in the cgroup can be killed any more:
    /// it is removed (version 1), or nobody is left in it (version 2). Cancel safe.
    ///
    /// A version 2 cgroup that is removed within 10 ms of its last change wakes nobody, so do not wait for None alone.
    pub async fn next(&mut self) -> Option<()> {
        loop {
            // What happened is looked at only after the wake-up was taken: what comes in between wakes us again.
            if self.check() {
                return Some(());
            }
            let woken = match &mut self.0 {
                Watch::V1(watch) if watch.is_alive() => watch.woken().await,
                Watch::V2(watch) if watch.is_alive() => watch.woken().await,
                Watch::V1(_) | Watch::V2(_) => return None,
            };
            woken.ok()?;
        }
    }

    /// Whether there was a kill that [`next`](Self::next) has not yet told, which this call then has. Never blocks.
    ///
    /// For the exit of init: what killed it is told before it.
    pub fn check(&mut self) -> bool {
        match &mut self.0 {
            Watch::V1(watch) => watch.check(),
            Watch::V2(watch) => watch.check(),
        }
    }
}

/// The number of kills in a file of lines "name value".
fn kills(file: impl AsFd) -> Option<u64> {
    field(file, "oom_kill")
}

/// The value of one line, or None when the cgroup is gone (the file answers ENODEV).
fn field(file: impl AsFd, name: &str) -> Option<u64> {
    // At most six lines of a name and a number.
    let mut buffer = [0; 512];
    let length = pread(file, &mut buffer, 0).ok()?;
    let text = std::str::from_utf8(&buffer[..length]).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).context(|| format!("open {} to watch for OOM kills", path.display()))
}

/// The kernel adds one to the eventfd when the cgroup is out of memory, just before it kills, and when it is removed.
///
/// A kill because the whole host was out of memory is only in the counter, so [`check`](V1::check) compares that as well.
#[derive(Debug)]
struct V1 {
    event: AsyncFd<OwnedFd>,
    control: File,
    /// Kills that were told; the counter may come up to this later than the event.
    told: u64,
}

impl V1 {
    fn new(directory: &Path) -> Result<Self> {
        let control = open(&directory.join("memory.oom_control"))?;
        let what = || format!("watch {} for OOM kills", directory.display());
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).context(what)?;
        let registration = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        OpenOptions::new()
            .write(true)
            .open(directory.join("cgroup.event_control"))
            .and_then(|mut file| file.write_all(registration.as_bytes()))
            .context(what)?;
        let told = kills(&control).unwrap_or_default();
        Ok(Self { event: watch(event.into(), Interest::READABLE).context(what)?, control, told })
    }

    fn check(&mut self) -> bool {
        let mut count = [0; 8];
        let events = match read(self.event.get_ref(), &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            // Nothing since the last time.
            _ => 0,
        };
        match kills(&self.control) {
            Some(kills) => {
                let news = events > 0 || kills > self.told;
                self.told = kills.max(self.told + events);
                news
            }
            // One of the events was the removal.
            None => events > 1,
        }
    }

    fn is_alive(&self) -> bool {
        kills(&self.control).is_some()
    }

    async fn woken(&mut self) -> std::io::Result<()> {
        self.event.readable().await.map(|mut guard| guard.clear_ready())
    }
}

/// Both files tell poll(2) when they change. The cgroup counts as gone when the last process has left it: its removal itself
/// wakes nobody.
#[derive(Debug)]
struct V2 {
    memory: AsyncFd<OwnedFd>,
    processes: AsyncFd<OwnedFd>,
    told: u64,
}

impl V2 {
    fn new(directory: &Path) -> Result<Self> {
        let polled = |name: &str| {
            let path = directory.join(name);
            watch(open(&path)?.into(), Interest::PRIORITY).context(|| format!("watch {} for changes", path.display()))
        };
        let (memory, processes) = (polled("memory.events")?, polled("cgroup.events")?);
        let told = kills(memory.get_ref()).unwrap_or_default();
        Ok(Self { memory, processes, told })
    }

    fn check(&mut self) -> bool {
        let kills = kills(self.memory.get_ref()).unwrap_or(self.told);
        std::mem::replace(&mut self.told, kills) < kills
    }

    fn is_alive(&self) -> bool {
        field(self.processes.get_ref(), "populated") == Some(1)
    }

    async fn woken(&mut self) -> std::io::Result<()> {
        tokio::select! {
            guard = self.memory.ready(Interest::PRIORITY) => guard?.clear_ready(),
            guard = self.processes.ready(Interest::PRIORITY) => guard?.clear_ready(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
