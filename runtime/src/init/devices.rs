//! The container's device nodes and the links every /dev has, made through the descriptor of their directory.
//!
//! /dev is opened without following a link: in an image where it is one, the nodes would be made, and ptmx removed, wherever
//! it leads (CVE-2026-41579). A node that cannot be made, because a user namespace may not, is bound from the host.

use std::ffi::OsStr;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, ResolveFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, dup2_stderr, dup2_stdin, dup2_stdout, fchownat, symlinkat, unlinkat};

use crate::error::{Context, Error, Kind, Result};
use crate::init::mounts::parent_and_name;
use crate::init::path::{self, Object};
use crate::init::rootfs::Root;
use crate::parent::mount_source::{Sources, open_device, private};
use crate::plan::devices::{Dev, DeviceNode, Devices};
use crate::plan::mounts::Link;
use crate::sys::mount::attach;

/// The links of /dev (runtime-spec, "Default Devices" and "Dev symbolic links").
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// The kernel's memory, where it is built to show that: proc(5). `/dev/core` is its old name.
const KCORE: &str = "/proc/kcore";

/// Makes all nodes and links. Relies on the file mode mask that [`crate::init::rootfs::attach`] set to 0.
pub fn create(root: &mut Root, devices: &Devices, sources: &mut Sources) -> Result<()> {
    if devices.dev == Dev::Bound {
        return Ok(());
    }
    let dev = open_dev(root)?;
    let mut bound = std::mem::take(&mut sources.devices).into_iter();
    for node in &devices.nodes {
        let source = bound.next().flatten();
        let failed = |error: Error| error.within(format!("make the device {}", node.path.display()));
        let made = one(root, &dev, node, source).map_err(failed)?;
        if node.path == Path::new("/dev/null") {
            root.null = Some(match made {
                Made::Bound(mount) => mount,
                Made::Node => place(dev.as_fd(), OsStr::new("null")).map_err(failed)?,
            });
            use_own_null(dev.as_fd())?;
        }
    }
    for (text, name) in LINKS {
        link(dev.as_fd(), text, name)?;
    }
    // What the specification leaves out, and people know from runc.
    if Path::new(KCORE).symlink_metadata().is_ok() {
        link(dev.as_fd(), KCORE, "core")?;
    }
    // The container's terminals are those of its own devpts.
    ptmx(dev.as_fd())
}

/// Opens /dev itself, and makes it where the image has none.
fn open_dev(root: &Root) -> Result<OwnedFd> {
    let dev = Path::new("/dev");
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = match path::open(root, dev, flags, ResolveFlag::RESOLVE_NO_SYMLINKS) {
        Err(Errno::ENOENT) => path::locate_or_make(root, dev, Link::Itself, Object::Directory),
        opened => opened,
    };
    match opened {
        Err(Errno::ELOOP | Errno::ENOTDIR) => Err(Error::new(
            Kind::System,
            "make the devices in /dev: the image has a link or file there, but it must be an ordinary directory",
        )),
        opened => opened.on("open", "/dev"),
    }
}

/// How a node came to be.
enum Made {
    /// It is a node of the container's own.
    Node,
    /// It is the host's, by this mount.
    Bound(OwnedFd),
}

fn one(root: &Root, dev: &OwnedFd, node: &DeviceNode, source: Option<OwnedFd>) -> Result<Made> {
    let (parent, name) = parent_and_name(&node.path);
    let opened;
    let directory = if parent == Path::new("/dev") {
        dev.as_fd()
    } else {
        opened = path::locate_or_make(root, parent, Link::Follow, Object::Directory).on("open", parent.display())?;
        opened.as_fd()
    };
    match source {
        Some(source) => bind(root, directory, name, source).map(Made::Bound),
        None => {
            match mknodat(directory, name, node.kind.file_type(), Mode::from_bits_truncate(node.mode), node.number()) {
                Ok(()) => own(directory, name, node).map(|()| Made::Node),
                Err(Errno::EEXIST) => keep(directory, name, node).map(|()| Made::Node),
                // The runtime itself is in a user namespace.
                Err(Errno::EPERM) => bind(root, directory, name, open_device(node)?).map(Made::Bound),
                Err(errno) => Err(Error::sys("make the node", errno)),
            }
        }
    }
}

fn place(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty()).on("open", "the node")
}

/// Gives a new node its owner, which is root unless the configuration says otherwise.
fn own(directory: BorrowedFd<'_>, name: &OsStr, node: &DeviceNode) -> Result<()> {
    let (owner, group) = (node.uid.unwrap_or(0), node.gid.unwrap_or(0));
    if (owner, group) == (0, 0) {
        return Ok(());
    }
    let (owner, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)));
    let made = place(directory, name)?;
    fchownat(&made, c"", owner, group, AtFlags::AT_EMPTY_PATH).on("set", "its owner")
}

/// What is there already stays as it is, owner and mode too, if it is that device; anything else is not covered or removed.
fn keep(directory: BorrowedFd<'_>, name: &OsStr, node: &DeviceNode) -> Result<()> {
    let found = place(directory, name)?;
    let stat = fstat(&found).on("look at", "the node")?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let same_number = kind == SFlag::S_IFIFO || stat.st_rdev == node.number();
    if kind == node.kind.file_type() && same_number {
        return Ok(());
    }
    Err(Error::new(Kind::System, "the image has something else there: remove it, or mount a tmpfs on /dev"))
}

/// Attaches the host's node.
fn bind(root: &Root, directory: BorrowedFd<'_>, name: &OsStr, source: OwnedFd) -> Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = match openat(directory, name, flags, Mode::from_bits_truncate(0o644)) {
        Err(Errno::EEXIST) => place(directory, name)?,
        opened => opened.on("make", "the file to bind it on")?,
    };
    attach(&source, &target).on("bind", "the host's node")?;
    if root.settles_late() {
        private().apply_attached(root, &source).on("bind", "the host's node")?;
    }
    Ok(source)
}

/// Standard input, output and error that are the host's /dev/null become the container's: its root could change the mode of
/// the host's through such a descriptor.
fn use_own_null(dev: BorrowedFd<'_>) -> Result<()> {
    let what = "open the container's";
    let is_null = |fd: BorrowedFd<'_>| {
        fstat(fd).is_ok_and(|found| {
            found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && found.st_rdev == makedev(1, 3)
        })
    };
    let (input, output, error) = (stdin(), stdout(), stderr());
    let standard = [input.as_fd(), output.as_fd(), error.as_fd()].map(is_null);
    if standard == [false; 3] {
        return Ok(());
    }
    let null = openat(dev, c"null", OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
        .on(what, "/dev/null")?;
    if !is_null(null.as_fd()) {
        return Err(Error::new(Kind::System, "/dev/null in the container is not the null device (1:3)"));
    }
    let replace = [dup2_stdin, dup2_stdout, dup2_stderr];
    for (replace, _) in replace.iter().zip(standard).filter(|(_, wanted)| *wanted) {
        replace(&null).on(what, "/dev/null")?;
    }
    Ok(())
}

fn link(dev: BorrowedFd<'_>, text: &str, name: &str) -> Result<()> {
    match symlinkat(text, dev, name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(Error::sys(format!("make the link /dev/{name}"), errno)),
    }
}

fn ptmx(dev: BorrowedFd<'_>) -> Result<()> {
    let what = "make the link";
    match symlinkat("pts/ptmx", dev, "ptmx") {
        Err(Errno::EEXIST) => {}
        result => return result.on(what, "/dev/ptmx"),
    }
    if readlinkat(dev, "ptmx").is_ok_and(|text| text == "pts/ptmx") {
        return Ok(());
    }
    // A node here would be the terminals of the whole host. This is the container's own /dev, so it is its own to remove;
    // a mount on it is what the configuration asked for.
    if fstatat(dev, "ptmx", AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
        && unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir) == Err(Errno::EBUSY)
    {
        return Ok(());
    }
    symlinkat("pts/ptmx", dev, "ptmx").on(what, "/dev/ptmx")
}
