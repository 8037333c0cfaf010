//! The container's side of a copy: its root as one descriptor.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use tare_proto::types::Mount as StoreMount;

use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::{Container, Status};
use crate::records::Lock;
use crate::{beneath, disk, root, truth};

/// Links in a row.
const MOST_LINKS: usize = 40;

/// A container's root, to be copied from or to.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) root: OwnedFd,
    pub(super) record: Container,
    /// Held while a container that does not run is written to, so that it is not started meanwhile.
    _lock: Option<Lock>,
}

/// Opens the root of a container. `written` is where it will be written to, if it will.
pub(super) async fn open(client: &Client, name: &str, written: Option<&str>) -> Result<Opened> {
    let record = truth::find(client, name).await?;
    if matches!(record.state.status, Status::Running | Status::Paused) {
        let root = root::of_process(record.state.pid)?;
        // The process may have ended before its root was opened, and another have got its number.
        let now = truth::find(client, &record.id).await?;
        if now.state.pid != record.state.pid {
            return Err(Error::failed(format!("container {} has just ended: try again", record.name)));
        }
        return Ok(Opened { root, record, _lock: None });
    }
    let (lock, record) = truth::hold(client, &record.id).await?;
    if matches!(record.state.status, Status::Running | Status::Paused) {
        return Err(Error::failed(format!("container {} has just been started: try again", record.name)));
    }
    let mounts = client.store.mounts(&record.snapshot).await?;
    let sources = sources(client, &record)?;
    let root = attached(client, &record, &mounts, sources, written.is_some())?;
    Ok(Opened { root, record, _lock: Some(lock) })
}

/// What is mounted in the container when it runs: where, what of the host, and whether it can be written.
type Sources = Vec<(PathBuf, OwnedFd, bool)>;

fn sources(client: &Client, record: &Container) -> Result<Sources> {
    let mut sources = Vec::new();
    let clone = |path: &Path| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        rustix::mount::open_tree(CWD, path, flags)
    };
    for name in ["hosts", "hostname", "resolv.conf"] {
        match clone(&client.paths.container(&record.id).join(name)) {
            Ok(fd) => sources.push((Path::new("/etc").join(name), fd, true)),
            // It has none before its first start.
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error).context(|| format!("open the container's {name}")),
        }
    }
    for mount in record.mounts.iter().filter(|it| it.kind != "tmpfs") {
        let fd = clone(Path::new(&mount.source))
            .context(|| format!("open {}, which is mounted at {}", mount.source, mount.destination))?;
        sources.push((PathBuf::from(&mount.destination), fd, mount.writable));
    }
    sources.sort_by_key(|(place, ..)| place.components().count());
    Ok(sources)
}

/// Mounts the root and what is in it, in a mount namespace that this process alone has: all of it goes with the process.
fn attached(
    client: &Client,
    record: &Container,
    mounts: &[StoreMount],
    sources: Sources,
    written: bool,
) -> Result<OwnedFd> {
    let what = || format!("mount the root of container {}", record.name);
    let root = if written { root::writable(mounts)? } else { root::view(mounts)? };
    let dir = client.paths.run.join("copies");
    disk::make_private(&dir)?;
    unshare(CloneFlags::CLONE_NEWNS).context(|| "make a mount namespace for the copy".to_owned())?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).context(what)?;
    let onto = File::open(&dir).context(what)?.into();
    attach(&root, &onto).context(what)?;
    for (place, source, writable) in sources {
        let what = || format!("mount {} of container {}", place.display(), record.name);
        let is_dir = beneath::kind(&beneath::stat(&source)?) == FileType::Directory;
        let onto = match mount_point(&root, &place, is_dir, written) {
            // It will be made when the container is started.
            Err(Errno::NOENT | Errno::ROFS) if !written => continue,
            onto => onto.context(what)?,
        };
        attach(&source, &onto).context(what)?;
        if !writable {
            let path = format!("/proc/self/fd/{}", source.as_raw_fd());
            rustix::mount::mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "").context(what)?;
        }
    }
    if written && record.host_config.readonly_rootfs {
        rustix::mount::mount_remount(&dir, MountFlags::BIND | MountFlags::RDONLY, "").context(what)?;
    }
    Ok(root)
}

/// Attaches a detached tree onto a place; its descriptor is then the root of what is there.
fn attach(tree: &OwnedFd, onto: &OwnedFd) -> std::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", onto, "", flags)?)
}

/// Where it is to be mounted; made, if it is written there anyway.
fn mount_point(root: &OwnedFd, place: &Path, is_dir: bool, make: bool) -> rustix::io::Result<OwnedFd> {
    match beneath::open(root, place, OFlags::PATH) {
        Err(Errno::NOENT) if make && is_dir => beneath::directory_made(root, place),
        Err(Errno::NOENT) if make => {
            let at = beneath::place_made(root, place)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&at.dir, &at.name, flags, Mode::from_raw_mode(0o755))?;
            beneath::open(root, place, OFlags::PATH)
        }
        found => found,
    }
}

impl Opened {
    /// A root that is open already.
    #[cfg(test)]
    pub(super) const fn of(root: OwnedFd, record: Container) -> Self {
        Self { root, record, _lock: None }
    }

    /// A path of the container without links at its end; the end need not be there.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let mut path = beneath::lexical(path);
        for _ in 0..MOST_LINKS {
            let Ok(found) = beneath::open(&self.root, &path, OFlags::PATH | OFlags::NOFOLLOW) else { return Ok(path) };
            if beneath::kind(&beneath::stat(&found)?) != FileType::Symlink {
                return Ok(path);
            }
            let target = rustix::fs::readlinkat(&found, "", Vec::new())
                .context(|| format!("read the link {}", path.display()))?;
            let target = Path::new(crate::tree::os(target.as_bytes())).to_owned();
            path = beneath::lexical(&path.parent().unwrap_or(Path::new("/")).join(target));
        }
        Err(Error::failed(format!(
            "{} in container {}: there are too many links in a row",
            path.display(),
            self.record.name
        )))
    }

    /// Says early, in docker's words, what the kernel would say late.
    pub(super) fn check_writable(&self, path: &Path) -> Result<()> {
        let below = |it: &&crate::record::Mount| path.starts_with(&it.destination);
        let mount = self.record.mounts.iter().filter(below).max_by_key(|it| it.destination.len());
        match mount {
            Some(mount) if !mount.writable => Err(Error::usage(format!(
                "mounted volume is marked read-only: {} of container {} cannot be written",
                mount.destination, self.record.name
            ))),
            None if self.record.host_config.readonly_rootfs => Err(Error::usage(format!(
                "container rootfs is marked read-only: container {} was made with --read-only",
                self.record.name
            ))),
            _ => Ok(()),
        }
    }
}
