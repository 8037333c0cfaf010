//! A part of a volume: `--mount …,volume-subpath=DIR`.
//!
//! Another container that has the volume may put a link in the directory's place at any moment. So it is opened beneath the volume,
//! and what the runtime is told is the open directory, by the name that /proc has for it while this process lives.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::OFlags;

use crate::beneath;
use crate::error::{Context, Error, Result};
use crate::record::Container;

/// Directories that are held open until the runtime has mounted them.
#[derive(Debug, Default)]
pub struct Held {
    by_place: Vec<(String, OwnedFd)>,
}

impl Held {
    /// What is mounted at `place` in place of the mount's own source.
    #[must_use]
    pub fn source(&self, place: &str) -> Option<String> {
        let (_, fd) = self.by_place.iter().find(|(held, _)| held == place)?;
        Some(format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()))
    }
}

/// Opens the parts of volumes that a container mounts. They are needed until its task is made.
///
/// # Errors
/// One is not there, or leads out of its volume.
pub fn hold(record: &Container) -> Result<Held> {
    let mut held = Held::default();
    for spec in record.host_config.mounts.iter().filter(|it| !it.subpath.is_empty()) {
        let Some(mount) = record.mounts.iter().find(|it| it.kind == "volume" && it.destination == spec.target) else {
            continue;
        };
        let what = || format!("mount {} of the volume {:?}", spec.subpath, mount.name);
        let path = Path::new(&spec.subpath);
        if path.is_absolute() || path.components().any(|it| matches!(it, Component::ParentDir)) {
            return Err(Error::usage(format!("{}: volume-subpath is a path inside the volume, without ..", what())));
        }
        let volume = File::open(&mount.source).context(what)?;
        let fd = beneath::open(&volume, path, OFlags::PATH).context(what)?;
        held.by_place.push((mount.destination.clone(), fd));
    }
    Ok(held)
}
