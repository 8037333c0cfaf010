//! Unmounting a tree of mounts.

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::{Context, Result};
use crate::mountinfo;

/// Unmounts everything at and below `path`, deepest first. What is not mounted, or not there, is success.
///
/// The last part of `path` is not followed if it is a link. A mount that stays busy when nothing is left below it is
/// detached: it is gone from here at once, and ends with its last user.
pub fn unmount_recursive(path: &Path) -> Result<()> {
    let Some(path) = real_path(path)? else { return Ok(()) };
    // Each round makes them fewer, or is the last.
    loop {
        let points = mounted(&path)?;
        let results: Vec<nix::Result<()>> = points.iter().map(|point| unmount(point, MntFlags::empty())).collect();
        if results.iter().all(Result::is_ok) {
            return Ok(());
        }
        // One may have lain hidden below another, or have gone with it: look again. Else only force helps, which is tried
        // from the top, because that takes what is below along.
        let moved = results.iter().any(Result::is_ok)
            || points.iter().rev().any(|point| {
                let detached = unmount(point, MntFlags::MNT_DETACH).is_ok();
                if detached {
                    tracing::warn!("the mount on {} is busy: detached it", point.display());
                }
                detached
            });
        if !moved
            && let Some((point, error)) = points.iter().zip(results).find_map(|(point, it)| Some((point, it.err()?)))
        {
            return Err(error).context(|| format!("unmount {}", point.display()));
        }
    }
}

fn unmount(point: &Path, flags: MntFlags) -> nix::Result<()> {
    loop {
        match umount2(point, flags | MntFlags::UMOUNT_NOFOLLOW) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// The path as mountinfo has it, or None when there is no such directory. The file system mounted on it is not asked: it may
/// be one that does not answer any more.
fn real_path(path: &Path) -> Result<Option<PathBuf>> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.canonicalize().map(Some).context(|| format!("find {} to unmount it", path.display()));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match parent.canonicalize() {
        Ok(parent) => Ok(Some(parent.join(name))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(|| format!("find {} to unmount it", path.display())),
    }
}

/// Every mount at or below `path`, the deepest first, and of those at one place the last first.
fn mounted(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = mountinfo::mounts(|entry| entry.point.starts_with(path))?;
    let mut points: Vec<PathBuf> = entries.into_iter().rev().map(|entry| entry.point).collect();
    points.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(points)
}
