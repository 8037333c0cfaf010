//! /dev/shm that others may have too (`--ipc shareable`): a mount on this host for as long as its container runs.
//!
//! It is bound into each of them, as docker does it: what is mounted in another mount namespace alone cannot be bound from here.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::client::Client;
use crate::disk::make_private;
use crate::error::{Context, Error, Result};
use crate::record::Container;

/// Mounts it, if this container has one. Its directory goes with all that there is of a running container.
pub(crate) fn make(client: &Client, record: &Container) -> Result<()> {
    if !is_shareable(record) {
        return Ok(());
    }
    let path = client.paths.shm(&record.id);
    make_private(&path)?;
    let options = format!("mode=1777,size={}", record.host_config.shm_size);
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    mount(Some("shm"), &path, Some("tmpfs"), flags, Some(options.as_str()))
        .context(|| format!("mount {}", path.display()))
}

/// Takes it away, if there is one; who has it still keeps it.
pub(crate) fn remove(client: &Client, id: &str) -> Result<()> {
    let path = client.paths.shm(id);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // It has none, or it is gone already.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).context(|| format!("unmount {}", path.display())),
    }
}

/// The one of a container that lets others have it.
///
/// # Errors
/// It does not.
pub(crate) fn of_other(client: &Client, other: &Container) -> Result<PathBuf> {
    if !is_shareable(other) {
        return Err(Error::failed(format!(
            "--ipc container:{}: that container shares its IPC namespace with nobody: make it with --ipc shareable",
            other.name
        )));
    }
    Ok(client.paths.shm(&other.id))
}

/// The one of a container itself, if others may have it.
pub(crate) fn of(client: &Client, record: &Container) -> Option<PathBuf> {
    is_shareable(record).then(|| client.paths.shm(&record.id))
}

fn is_shareable(record: &Container) -> bool {
    record.host_config.ipc_mode == "shareable"
}
