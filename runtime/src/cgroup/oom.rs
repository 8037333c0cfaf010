//! Being told when a container ran out of memory.
//!
//! Version 1: an eventfd registered through `cgroup.event_control`, which the kernel counts up at each event, and once more
//! when the cgroup goes. Version 2: an event on `memory.events`, whose `oom_kill` counts the killed processes.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::files::Watched;
use super::{Cgroup, files};
use crate::error::{Context, Error, Kind, Result};

/// A watch on the memory of a container; readable ([`OomWatch::flags`]) when there may be something new.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    V1 { counter: EventFd, control: std::path::PathBuf },
    V2 { events: Watched, seen: u64 },
}

impl Cgroup {
    /// Begins to watch.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let directory = self.directory("memory").ok_or_else(|| {
            Error::new(Kind::Unsupported, "the container has no memory cgroup: create it with cgroups to be told")
        })?;
        if self.is_unified() {
            let events = Watched::open(directory, "memory.events")?;
            let seen = events.read()?;
            let seen = files::value(&seen, "oom_kill").unwrap_or(0);
            return Ok(OomWatch(Source::V2 { events, seen }));
        }
        let counter = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).on("make", "an eventfd")?;
        let watched = directory.join("memory.oom_control");
        let watched = File::open(&watched).on("open", watched.display())?;
        let request = format!("{} {}", counter.as_fd().as_raw_fd(), watched.as_raw_fd());
        files::write(directory, "cgroup.event_control", &request)
            .on("watch for lack of memory in", directory.display())?;
        // The kernel keeps what it needs; the file may be closed.
        Ok(OomWatch(Source::V1 { counter, control: directory.join("cgroup.event_control") }))
    }
}

impl OomWatch {
    /// What to poll for.
    pub fn flags(&self) -> PollFlags {
        match self.0 {
            Source::V1 { .. } => PollFlags::POLLIN,
            Source::V2 { .. } => PollFlags::POLLPRI,
        }
    }

    /// How often it happened since the last call.
    pub fn count(&mut self) -> Result<u64> {
        match &mut self.0 {
            Source::V1 { counter, control } => match counter.read() {
                Ok(count) if control.try_exists().unwrap_or(false) => Ok(count),
                // The end of the cgroup was counted too.
                Ok(count) => Ok(count.saturating_sub(1)),
                Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
                Err(errno) => Err(errno).on("read", "an eventfd"),
            },
            Source::V2 { events, seen } => {
                let Ok(text) = events.read() else { return Ok(0) };
                let now = files::value(&text, "oom_kill").unwrap_or(0);
                Ok(now.saturating_sub(std::mem::replace(seen, now)))
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::V1 { counter, .. } => counter.as_fd(),
            Source::V2 { events, .. } => events.as_fd(),
        }
    }
}
