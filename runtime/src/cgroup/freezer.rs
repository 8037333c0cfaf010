//! Stopping all processes of a container at once, and letting them go on.
//!
//! Version 2 tells by an event on `cgroup.events` when all have stopped. Version 1 tells nothing and may fail while
//! processes fork: there the order is repeated, with growing pauses.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::files::Watched;
use super::{Cgroup, files};
use crate::error::{Context, Error, Kind, Result};

/// How long processes may take to stop; one in an uninterruptible system call takes as long as that.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

impl Cgroup {
    /// Stops all processes; returns when they have stopped. If they do not, they are let go again.
    pub fn freeze(&self) -> Result<()> {
        let directory = self.freezer()?;
        let frozen = match self.is_unified() {
            true => freeze_v2(directory),
            false => freeze_v1(directory),
        };
        frozen.inspect_err(|_| {
            // Half frozen is worse than not frozen.
            let _ = self.thaw();
        })
    }

    /// Lets all processes go on.
    pub fn thaw(&self) -> Result<()> {
        let directory = self.freezer()?;
        let (file, value) = if self.is_unified() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        files::write(directory, file, value).on("thaw the cgroup", directory.display())
    }

    /// Whether its processes were stopped. What lies in a frozen cgroup of somebody else does not count.
    pub fn is_frozen(&self) -> Result<bool> {
        let Ok(directory) = self.freezer() else { return Ok(false) };
        let file = if self.is_unified() { "cgroup.freeze" } else { "freezer.self_freezing" };
        match files::read(directory, file) {
            Ok(state) => Ok(state.trim() == "1"),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
            Err(errno) => Err(errno).on("read whether frozen is the cgroup", directory.display()),
        }
    }

    fn freezer(&self) -> Result<&Path> {
        self.directory("freezer").ok_or_else(|| {
            Error::new(
                Kind::Unsupported,
                "the container has no freezer cgroup, so it cannot be paused: create it with cgroups",
            )
        })
    }
}

fn freeze_v2(directory: &Path) -> Result<()> {
    let events = Watched::open(directory, "cgroup.events")?;
    files::write(directory, "cgroup.freeze", "1").on("freeze the cgroup", directory.display())?;
    let give_up = Instant::now() + PATIENCE;
    while files::value(&events.read()?, "frozen") == Some(0) {
        if !events.wait(give_up)? {
            return Err(not_frozen(directory));
        }
    }
    Ok(())
}

fn freeze_v1(directory: &Path) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(10);
    for attempt in 1_u32.. {
        files::write(directory, "freezer.state", "FROZEN").on("freeze the cgroup", directory.display())?;
        let state = files::read(directory, "freezer.state").on("freeze the cgroup", directory.display())?;
        if state.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(not_frozen(directory));
        }
        // A process that came in while the others stopped may hold the whole up for ever; letting all go for a moment helps.
        if attempt.is_multiple_of(50) {
            files::write(directory, "freezer.state", "THAWED").on("thaw the cgroup", directory.display())?;
        }
        #[allow(clippy::disallowed_methods, reason = "version 1 tells of no change of this state")]
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn not_frozen(directory: &Path) -> Error {
    Error::new(
        Kind::System,
        format!(
            "freeze the cgroup {}: not all processes have stopped within {} s (one may wait for a device or a file server)",
            directory.display(),
            PATIENCE.as_secs()
        ),
    )
}
