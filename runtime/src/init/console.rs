//! The terminal of a container: a pty from the container's own devpts, so that what the container sees under /dev/pts is
//! what it has.
//!
//! Nothing here trusts a name (CVE-2025-52565): the multiplexer is taken by its file system and device number, its other
//! end by an ioctl on it, and the mount on /dev/console goes from descriptor to descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::process::Terminal;
use crate::sys::mount::{Depth, Symlink, attach, clone_tree};
use crate::sys::tty::{make_controlling, open_peer, set_size, unlock_peer};

/// `DEVPTS_SUPER_MAGIC` of `linux/magic.h`.
const DEVPTS: FsType = FsType(0x1cd1);
/// Major and minor number of the multiplexer.
const PTMX: (u64, u64) = (5, 2);
/// The first of the eight major numbers of pty ends (`UNIX98_PTY_SLAVE_MAJOR`).
const PTY_MAJOR: u64 = 136;

/// The container's end of its terminal.
#[derive(Debug)]
pub struct Console(OwnedFd);

/// Makes the pty of a container's first process, which is the container's /dev/console too. The caller has the container
/// as its root. The second value is the master, for the outside.
pub fn open(terminal: Terminal) -> Result<(Console, OwnedFd)> {
    let (console, master) = open_in_running(terminal)?;
    mount_on_dev_console(&console.0)?;
    Ok((console, master))
}

/// Makes the pty of a process that joins a running container.
pub fn open_in_running(terminal: Terminal) -> Result<(Console, OwnedFd)> {
    let master = open_multiplexer()?;
    unlock_peer(&master).on("unlock", "the container's pty")?;
    let peer = open_peer(&master).on("open the container's end of", "its pty")?;
    let device = fstat(&peer).on("stat", "the container's pty")?.st_rdev;
    if !(PTY_MAJOR..PTY_MAJOR + 8).contains(&major(device)) {
        return Err(Error::new(Kind::System, "the multiplexer of /dev/pts gave something that is not a pty"));
    }
    if let Some(size) = terminal.size {
        set_size(&master, size.rows, size.columns).on("set the size of", "the container's pty")?;
    }
    Ok((Console(peer), master))
}

impl Console {
    /// Makes this the controlling terminal of the calling process, which leads a session without one, and its standard
    /// input, output and error.
    pub fn attach(self) -> Result<()> {
        make_controlling(&self.0).on("make the pty", "the controlling terminal")?;
        let ends = [dup2_stdin(&self.0), dup2_stdout(&self.0), dup2_stderr(&self.0)];
        ends.into_iter().collect::<Result<(), Errno>>().on("make the pty", "standard input, output and error")
    }
}

impl AsFd for Console {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open_multiplexer() -> Result<OwnedFd> {
    const PATH: &str = "/dev/pts/ptmx";
    let how = OpenHow::new()
        .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let master = openat2(AT_FDCWD, PATH, how).map_err(|errno| {
        Error::sys(format!("open {PATH} for the container's terminal"), errno)
            .hint("a terminal needs a mount of type devpts on /dev/pts")
    })?;
    let device = fstat(&master).on("stat", PATH)?.st_rdev;
    let magic = fstatfs(&master).on("statfs", PATH)?.filesystem_type();
    if magic != DEVPTS || (major(device), minor(device)) != PTMX {
        return Err(Error::invalid(format!("{PATH} in the container is not the multiplexer of a devpts instance"))
            .hint("a terminal needs a mount of type devpts on /dev/pts"));
    }
    Ok(master)
}

/// The console is a file of its own with the pty mounted over it, so that the pty keeps its name in /dev/pts.
fn mount_on_dev_console(peer: &OwnedFd) -> Result<()> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let dev = openat2(AT_FDCWD, "/dev", how).on("open", "/dev")?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = match openat(&dev, "console", flags, Mode::empty()) {
        Err(Errno::ENOENT) => {
            let make = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(&dev, "console", make, Mode::S_IRUSR | Mode::S_IWUSR).on("make", "/dev/console")?
        }
        opened => opened.on("open", "/dev/console")?,
    };
    let kind = SFlag::from_bits_truncate(fstat(&target).on("stat", "/dev/console")?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFLNK || kind == SFlag::S_IFDIR {
        return Err(Error::invalid("/dev/console in the container is a symbolic link or a directory")
            .hint("the terminal can only be mounted on a file or a device"));
    }
    let tree = clone_tree(peer, c"", Depth::One, Symlink::Itself).on("detach", "the container's pty")?;
    attach(&tree, &target).on("mount", "the container's pty on /dev/console")
}

/// Hands the stdio that the payload inherits to its user, who could otherwise not open /dev/stdout and its kin.
///
/// Only pipes and terminals: they are this container's alone. A file or /dev/null is the caller's, whose owner stays.
pub fn give_stdio_to(uid: u32) -> Result<()> {
    for (name, fd) in [("input", 0), ("output", 1), ("error", 2)] {
        give(name, crate::sys::fds::standard(fd).as_fd(), uid)?;
    }
    Ok(())
}

fn give(name: &str, fd: BorrowedFd<'_>, uid: u32) -> Result<()> {
    // A closed one has no owner.
    let Ok(stat) = fstat(fd) else { return Ok(()) };
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let ours = kind == SFlag::S_IFIFO || (kind == SFlag::S_IFCHR && nix::unistd::isatty(fd) == Ok(true));
    if !ours || stat.st_uid == uid {
        return Ok(());
    }
    match nix::unistd::fchown(fd, Some(nix::unistd::Uid::from_raw(uid)), None) {
        // Made by somebody whom this user namespace does not know, or on a read-only file system: it works as it is, for
        // what has it open.
        Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => Ok(()),
        other => other.on(&format!("give standard {name} (descriptor {}) to user", fd.as_raw_fd()), uid),
    }
}
