//! The mounts a snapshotter hands out for a container's rootfs, made and undone.
//!
//! | mount | how | why so |
//! |---|---|---|
//! | bind | open_tree, mount_setattr, move_mount | its attributes are set before anybody sees it |
//! | overlay that fits in a page, any other file system | mount(2) | options go to the kernel exactly as they came |
//! | overlay of more layers, or of id-mapped ones | fsopen, fsconfig (`overlay.rs`) | no limit by size |
//! | `fuse.…`, `fuse3.…` | the program `mount.fuse` | there is no other way |
//!
//! The target is always a descriptor of a directory below the rootfs, so a link in one mount cannot lead the next out of it.
//!
//! It knows no container: the rootfs is a directory. Mounts are as seen from this thread's mount namespace.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlink};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Context, Error, Kind, Result};
use crate::sys::mount::{self as sys, Depth};
use crate::sys::userns;

mod helper;
mod image;
mod layers;
mod options;
mod overlay;
mod unmount;

use options::{Maps, Options};
pub use unmount::unmount_recursive;

/// One mount as containerd describes it (`containerd.types.Mount`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// The type of the file system, or `bind`.
    pub kind: String,
    /// What is mounted: a directory, a device, an image file (with the option `loop`), or a name.
    pub source: String,
    /// Where, below the rootfs; empty is the rootfs itself.
    pub target: String,
    /// As in fstab(5): flags and the file system's own options.
    pub options: Vec<String>,
}

impl From<tare_proto::types::Mount> for Mount {
    fn from(mount: tare_proto::types::Mount) -> Self {
        Self { kind: mount.type_, source: mount.source, target: mount.target, options: mount.options }
    }
}

/// Mounts all of `mounts` on `rootfs`, a directory that exists, in their order; each later one may lie in an earlier one.
///
/// All or nothing: when one fails, those made before it are undone. An option nobody can serve is `InvalidArgument`, told
/// before anything is mounted.
pub fn mount_rootfs(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    mount_all(mounts, rootfs).map_err(|error| match error.kind {
        // Of a directory; to a daemon it would say that there is no such container.
        Kind::NotFound => Error::internal(error.message),
        _ => error,
    })
}

fn mount_all(mounts: &[Mount], rootfs: &Path) -> Result<()> {
    let planned: Vec<Options> = mounts.iter().map(|mount| options::parse(&mount.options)).collect::<Result<_>>()?;
    let mut made = Made(Vec::new());
    for (mount, options) in mounts.iter().zip(&planned) {
        let target = Target::open(rootfs, &mount.target)?;
        mount_one(mount, options, &target, &mut made)?;
    }
    made.0.clear();
    Ok(())
}

/// The places of the mounts made so far, which are undone unless the list is emptied.
struct Made(Vec<PathBuf>);

impl Made {
    fn note(&mut self, target: &Target) {
        self.0.push(target.path.clone());
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // Just made, so at most something that scans mounts is in it; that one may keep it.
            if let Err(error) = umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
                tracing::warn!("undo the mount on {}: {error}", path.display());
            }
        }
    }
}

/// Where something is mounted.
struct Target {
    fd: OwnedFd,
    /// Its path on the host.
    path: PathBuf,
}

impl Target {
    /// Opens `below`, which must exist, as if `rootfs` were the root; what is mounted there by now is what is opened.
    fn open(rootfs: &Path, below: &str) -> Result<Self> {
        let what = || format!("open the mount point {below:?} in {}", rootfs.display());
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let mut fd = open(rootfs, flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
            .context(|| format!("open the rootfs {}", rootfs.display()))?;
        if !below.trim_matches('/').is_empty() {
            let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
            fd = openat2(&fd, below, OpenHow::new().flags(flags).resolve(resolve)).context(what)?;
        }
        let path = readlink(proc_path(&fd).as_path()).context(what)?;
        Ok(Self { fd, path: path.into() })
    }
}

/// A path that leads to what the descriptor is open on.
fn proc_path(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn mount_one(mount: &Mount, options: &Options, target: &Target, made: &mut Made) -> Result<()> {
    let maps = options.maps.as_ref().map(user_namespace).transpose()?;
    if helper::program(&mount.kind).is_some() {
        helper::mount(mount, &target.path)?;
        made.note(target);
        return Ok(());
    }
    if options.flags.contains(MsFlags::MS_BIND) && !options.flags.contains(MsFlags::MS_REMOUNT) {
        bind(mount, options, maps.as_ref(), target, made)?;
    } else if mount.kind == "overlay" && (maps.is_some() || !fits_a_page(options)) {
        overlay::mount(mount, options, maps.as_ref(), target)?;
        made.note(target);
    } else {
        by_type(mount, options, target, made)?;
        if let Some(maps) = &maps {
            remap(target, maps)?;
        }
    }
    match options.propagation {
        Some(propagation) => nix::mount::mount(None::<&str>, &target.path, None::<&str>, propagation, None::<&str>)
            .context(|| format!("set the propagation of {}", target.path.display())),
        None => Ok(()),
    }
}

/// A user namespace with these maps.
fn user_namespace(maps: &Maps) -> Result<OwnedFd> {
    userns::with_maps(&maps.uid, &maps.gid)
        .context(|| format!("make a user namespace with the maps {:?} and {:?}", maps.uid, maps.gid))
}

/// mount(2) takes at most a page of data, its last byte included.
fn fits_a_page(options: &Options) -> bool {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let length: usize = options.data.iter().map(|option| option.len() + 1).sum();
    i64::try_from(length).is_ok_and(|length| length <= page)
}

fn sentence(mount: &Mount, target: &Target) -> String {
    let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
    format!("mount {kind} {} on {}", mount.source, target.path.display())
}

fn bind(mount: &Mount, options: &Options, maps: Option<&OwnedFd>, target: &Target, made: &mut Made) -> Result<()> {
    let what = || sentence(mount, target);
    let depth = if options.flags.contains(MsFlags::MS_REC) { Depth::Tree } else { Depth::One };
    let tree = sys::clone_tree(mount.source.as_str(), depth).context(what)?;
    if let Some(maps) = maps {
        map_owners(&tree, maps, &mount.source)?;
    }
    let (set, clear) = options.attributes();
    let attributes = if set | clear == 0 { Ok(()) } else { sys::set_attributes(&tree, set, clear) };
    if let Err(error) = attributes
        && error != Errno::ENOSYS
    {
        return Err(error).context(what);
    }
    sys::attach(&tree, &target.fd).context(what)?;
    made.note(target);
    match attributes {
        Ok(()) => Ok(()),
        Err(_) => remount_bind(&tree, options, target).context(what),
    }
}

/// Before Linux 5.12 attributes are set once it is mounted, and all at once.
fn remount_bind(tree: &OwnedFd, options: &Options, target: &Target) -> nix::Result<()> {
    let table = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
    ];
    let has = fstatvfs(tree)?.flags();
    let kept =
        table.iter().filter(|(has_it, _)| has.contains(*has_it)).fold(MsFlags::empty(), |all, (_, it)| all | *it);
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | (kept - options.cleared) | (options.flags - MsFlags::MS_REC);
    nix::mount::mount(None::<&str>, &target.path, None::<&str>, flags, None::<&str>)
}

/// mount(2) of a file system, or with `remount` of what is there.
fn by_type(mount: &Mount, options: &Options, target: &Target, made: &mut Made) -> Result<()> {
    let data = options.data.join(",");
    if !fits_a_page(options) {
        return Err(Error::invalid(format!("{}: its options are longer than a page", sentence(mount, target))));
    }
    // The device is let go when its last user is: until mount(2) has it, that is us.
    let device = options.image.map(|image| image::attach(mount, options, image)).transpose()?;
    let source = device.as_ref().map_or(Path::new(&mount.source), |device| device.path.as_path());
    nix::mount::mount(
        (!source.as_os_str().is_empty()).then_some(source),
        &proc_path(&target.fd),
        Some(mount.kind.as_str()),
        options.flags,
        (!data.is_empty()).then_some(data.as_str()),
    )
    .map_err(|errno| refused(mount, options, target, errno))?;
    if !options.flags.contains(MsFlags::MS_REMOUNT) {
        made.note(target);
    }
    Ok(())
}

/// A sentence for what the kernel answers with a number.
fn refused(mount: &Mount, options: &Options, target: &Target, errno: Errno) -> Error {
    let why = match errno {
        Errno::ENODEV => format!("this kernel has no file system {}", mount.kind),
        Errno::ENOENT if mount.kind == "overlay" => {
            overlay::missing(options).unwrap_or_else(|| errno.desc().to_owned())
        }
        errno => errno.desc().to_owned(),
    };
    Error::internal(format!("{}: {why}", sentence(mount, target)))
}

/// Exchanges what was just mounted for the same with other owners, which only a detached mount can be given.
fn remap(target: &Target, maps: &OwnedFd) -> Result<()> {
    let name = target.path.display();
    let tree = sys::clone_tree(&target.path, Depth::One).context(|| format!("clone the mount on {name}"))?;
    map_owners(&tree, maps, &name.to_string())?;
    umount2(&target.path, MntFlags::UMOUNT_NOFOLLOW).context(|| format!("unmount {name}"))?;
    sys::attach(&tree, &target.fd).context(|| format!("mount {name} with mapped owners"))
}

fn map_owners(tree: &OwnedFd, maps: &OwnedFd, name: &str) -> Result<()> {
    sys::set_idmap(tree, maps).map_err(|errno| {
        let why = match errno {
            Errno::EINVAL => "its file system does not support that".to_owned(),
            Errno::ENOSYS => "that needs Linux 5.12".to_owned(),
            errno => errno.desc().to_owned(),
        };
        Error::internal(format!("map the owners of the files in {name}: {why}"))
    })
}

/// For system calls that take C strings.
fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("mount with the option {text:?}: it has a zero byte")))
}

#[cfg(test)]
mod tests;
