//! An empty volume takes over what the image has in its place, as docker's do.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Volume, directory};
use crate::beneath;
use crate::client::Client;
use crate::error::{Context, Result};
use crate::tree::{self, Copier, Owner};

/// Copies what `root` has at `place` into the volume, if that is empty. The lock is held.
///
/// The place is an image's: it is resolved beneath the root (CVE-2022-23648: a link there copied the host's files).
pub(super) fn fill(client: &Client, volume: &Volume, root: BorrowedFd<'_>, place: &str) -> Result<()> {
    let marker = directory(client, &volume.name).join("filling");
    let to = File::open(&volume.mountpoint).context(|| format!("open the volume {:?}", volume.name))?;
    let begun = marker.try_exists().context(|| format!("look for {}", marker.display()))?;
    if !begun && !tree::names(to.as_fd(), Path::new(&volume.mountpoint))?.is_empty() {
        return Ok(());
    }
    let what = || format!("fill the volume {:?} with the image's {place}", volume.name);
    let from = match beneath::open(root, Path::new(place), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK) {
        Ok(from) => from,
        // There is nothing to copy, or it is no directory, or it leads nowhere inside.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(error) => return Err(error).context(what),
    };
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(&marker).context(what)?;
    Copier::new(Owner::Kept).contents(from.as_fd(), to.as_fd()).map_err(|error| error.within(what()))?;
    tree::look_alike(from.as_fd(), to.as_fd())?;
    fs::remove_file(&marker).context(what)
}
