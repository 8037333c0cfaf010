//! Removing a container's cgroups, with those the container has made below them.
//!
//! A directory goes only when its last process is gone, and a process that was killed takes a moment. Version 2 tells that
//! moment by an event; on version 1 the end
//! of a process listed there is waited for, and a growing pause where none is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::files::Watched;
use super::{Cgroup, SavedUnit, Systemd, files};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::process::pidfd_open;

/// How long processes may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

impl Cgroup {
    /// Removes all directories. What is gone already counts as removed; every one is tried, the first failure is told.
    pub fn destroy(&self) -> Result<()> {
        let mut first = match &self.saved.unit {
            Some(unit) if self.saved.made => self.stop_unit(unit),
            _ => Ok(()),
        };
        for directory in &self.saved.directories {
            let removed = match self.saved.made {
                true => remove(&directory.path, self.is_unified()),
                // Perhaps not ours: it goes if it is empty.
                false => remove_empty(&directory.path),
            };
            first = first.and(removed);
        }
        first
    }
}

impl Cgroup {
    /// systemd removes what it has made. Without one that answers, nobody minds that it is removed here.
    fn stop_unit(&self, unit: &SavedUnit) -> Result<()> {
        match Systemd::connect(unit.domain) {
            Ok(mut systemd) => systemd.stop(unit),
            Err(error) => {
                crate::log::warn(format_args!("the systemd unit {} is left to systemd: {error}", unit.name));
                Ok(())
            }
        }
    }
}

fn rmdir(path: &Path) -> Result<(), Errno> {
    match std::fs::remove_dir(path).map_err(|error| files::errno(&error)) {
        Err(Errno::ENOENT) => Ok(()),
        // A read-only mount refuses even what is not there.
        Err(Errno::EROFS) if std::fs::symlink_metadata(path).is_err() => Ok(()),
        done => done,
    }
}

fn remove_empty(path: &Path) -> Result<()> {
    // Whatever stands in the way is not ours to tell.
    let _ = rmdir(path);
    Ok(())
}

fn remove(path: &Path, unified: bool) -> Result<()> {
    if rmdir(path).is_ok() {
        return Ok(());
    }
    let give_up = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    // Opened first, so that the event of the last process's end is not missed.
    let events = if unified { Watched::open(path, "cgroup.events").ok() } else { None };
    loop {
        let left = match remove_tree(path) {
            Ok(()) => return Ok(()),
            Err(errno) => errno,
        };
        if left != Errno::EBUSY || Instant::now() > give_up {
            return Err(still_there(path, left));
        }
        match &events {
            Some(events) if populated(events) => drop(events.wait(give_up)?),
            _ => {
                let first = files::pids(path)?.first().and_then(|&pid| pidfd_open(pid).ok());
                wait_for_exit(first, pause)?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Waits until a process ends. One that has left the list of processes may still keep the directory for a moment, of which
/// no event tells: then, and at most, it is a pause.
fn wait_for_exit(process: Option<OwnedFd>, pause: Duration) -> Result<()> {
    let mut fds: Vec<PollFd<'_>> =
        process.iter().map(|process| PollFd::new(process.as_fd(), PollFlags::POLLIN)).collect();
    let pause = if fds.is_empty() { pause } else { LONGEST_PAUSE };
    match ppoll(&mut fds, Some(TimeSpec::from_duration(pause)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno).on("wait for", "the end of a process"),
    }
}

fn populated(events: &Watched) -> bool {
    events.read().is_ok_and(|text| files::value(&text, "populated") == Some(1))
}

/// Removes what is below first; a cgroup with children refuses as one with processes does.
fn remove_tree(path: &Path) -> Result<(), Errno> {
    match rmdir(path) {
        Err(Errno::EBUSY | Errno::ENOTEMPTY) => {}
        done => return done,
    }
    let children = files::children(path).map_err(|error| error.errno().unwrap_or(Errno::EIO))?;
    for child in children {
        remove_tree(&child)?;
    }
    rmdir(path)
}

fn still_there(path: &Path, errno: Errno) -> Error {
    let what = format!("remove the cgroup {}", path.display());
    let pids = match errno {
        Errno::EBUSY => files::pids(path).unwrap_or_default(),
        _ => Vec::new(),
    };
    match pids.first() {
        Some(pid) => Error::caused(
            Kind::System,
            what,
            format!("{} process(es) are still in it, such as {pid}: end them and delete again", pids.len()),
        ),
        None => Error::sys(what, errno),
    }
}
