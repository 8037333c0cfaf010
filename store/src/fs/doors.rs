//! Ways into what keeps its own owner out.
//!
//! Images have directories with modes such as 0, 0300 and 0444, and files that nobody may read. Root goes in anyway. An ordinary user
//! has to give himself his permissions first, for as long as he is there, and then gives the thing its own back.
//!
//! Several threads may be in the same directory at once, as a layer is what others stand on. So who is where is kept here, once for the
//! process: the last one out shuts the door, and whoever [asks](stat) is told a thing's own permissions, whatever they are at the moment.
//! Who changes them meanwhile, as a container may, has the last word.
//!
//! Only the owner's bits are ever added, for a moment in which a container of his may see them; and nothing is looked up twice: what is opened
//! is what was looked at, and never what a link points to. A daemon that is killed while it is inside leaves those bits behind.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::unistd::{getegid, geteuid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// What for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// To list a directory, and to look at what is in it.
    Look,
    /// To make and remove something in it, too.
    Change,
    /// To read a file.
    Read,
}

impl Use {
    fn bits(self) -> u32 {
        match self {
            Self::Look => 0o500,
            Self::Change => 0o700,
            Self::Read => 0o400,
        }
    }
}

/// By device and inode.
type Key = (u64, u64);

/// Of a thing that doors are open to.
#[derive(Debug)]
struct Held {
    doors: usize,
    own: u32,
    now: u32,
}

static HELD: Mutex<BTreeMap<Key, Held>> = Mutex::new(BTreeMap::new());

fn held() -> MutexGuard<'static, BTreeMap<Key, Held>> {
    // Nothing that could panic runs under this lock.
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether permissions do not count for us.
fn may_anything() -> bool {
    geteuid().is_root()
}

/// A directory or file that is open, and lets us in until this is dropped.
#[derive(Debug)]
pub(crate) struct Door {
    fd: OwnedFd,
    holds: Cell<Option<Key>>,
}

impl Door {
    /// To what is open already.
    pub(crate) fn to(fd: OwnedFd, what: Use) -> Result<Self> {
        if may_anything() {
            return Ok(Self { fd, holds: Cell::new(None) });
        }
        let holds = hold(&mut held(), fd.as_fd(), what)?;
        Ok(Self { fd, holds: Cell::new(holds) })
    }

    /// Gives the directory permissions for good, whether or not they would let us in.
    pub(crate) fn set_mode(&self, own: u32) -> Result<()> {
        if may_anything() {
            return rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(own));
        }
        let now = own | Use::Change.bits();
        let mut held = held();
        if self.holds.get().is_none() && now != own {
            let key = key(&rustix::fs::fstat(&self.fd)?);
            held.entry(key).or_insert(Held { doors: 0, own, now }).doors += 1;
            self.holds.set(Some(key));
        }
        if let Some(it) = self.holds.get().and_then(|key| held.get_mut(&key)) {
            (it.own, it.now) = (own, now);
        }
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(now))
    }

    /// Its state, with its own permissions.
    pub(crate) fn stat(&self) -> Result<Stat> {
        fstat(self.as_fd())
    }

    /// Shuts it, and says if that fails.
    pub(crate) fn shut(mut self) -> Result<()> {
        self.release()
    }

    /// Shuts it; what is open stays so.
    pub(crate) fn into_fd(mut self) -> Result<OwnedFd> {
        self.release()?;
        self.fd.try_clone().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn release(&mut self) -> Result<()> {
        let Some(key) = self.holds.take() else { return Ok(()) };
        let mut held = held();
        let Some(it) = held.get_mut(&key) else { return Ok(()) };
        it.doors -= 1;
        if it.doors > 0 {
            return Ok(());
        }
        let (own, now) = (it.own, it.now);
        held.remove(&key);
        if permissions(&rustix::fs::fstat(&self.fd)?) != now {
            return Ok(());
        }
        rustix::fs::chmod(by_descriptor(self.as_fd()), Mode::from_raw_mode(own))
    }
}

impl Read for Door {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.fd, into)?)
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            tracing::warn!("give back its permissions to what was entered: {error}");
        }
    }
}

/// A directory by its last name; not if that is a link.
pub(crate) fn directory(parent: BorrowedFd<'_>, name: impl Arg + Copy, what: Use) -> Result<Door> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Ok(fd) => Door::to(fd, what),
        Err(Errno::ACCESS) if !may_anything() => {
            let at = rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
            through(at, what, |at| {
                rustix::fs::openat(at, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            })
        }
        Err(error) => Err(error),
    }
}

/// A file, to be read; not if it is a link, and not waiting if it is a pipe.
pub(crate) fn file(parent: BorrowedFd<'_>, name: impl Arg + Copy) -> Result<Door> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(fd) => Door::to(fd, Use::Read),
        Err(Errno::ACCESS) if !may_anything() => {
            let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let at = rustix::fs::openat(parent, name, path, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode) != FileType::RegularFile {
                return Err(Errno::ACCESS);
            }
            through(at, Use::Read, |at| rustix::fs::open(by_descriptor(at), flags, Mode::empty()))
        }
        Err(error) => Err(error),
    }
}

/// The state of a name, never of what it points to; with its own permissions.
pub(crate) fn stat(parent: BorrowedFd<'_>, name: impl Arg) -> Result<Stat> {
    looked_at(|| rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
}

/// The same of what is open.
pub(crate) fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    looked_at(|| rustix::fs::fstat(fd))
}

fn looked_at(look: impl FnOnce() -> Result<Stat>) -> Result<Stat> {
    if may_anything() {
        return look();
    }
    let held = held();
    let mut stat = look()?;
    if let Some(it) = held.get(&key(&stat))
        && it.now == permissions(&stat)
    {
        stat.st_mode = (stat.st_mode & !0o7777) | it.own;
    }
    Ok(stat)
}

/// Opens what could only be looked at, by `open`, for which it needs the permissions.
fn through(at: OwnedFd, what: Use, open: impl FnOnce(BorrowedFd<'_>) -> Result<OwnedFd>) -> Result<Door> {
    let mut door = Door::to(at, what)?;
    door.fd = open(door.as_fd())?;
    Ok(door)
}

/// Lets us in, if it is ours and its permissions do not.
fn hold(held: &mut BTreeMap<Key, Held>, fd: BorrowedFd<'_>, what: Use) -> Result<Option<Key>> {
    let stat = rustix::fs::fstat(fd)?;
    let (mode, key) = (permissions(&stat), key(&stat));
    let entry = held.get_mut(&key);
    let now = mode | what.bits();
    // chmod(2) is for the owner; and it would take the set-group-id bit away if the group is not his.
    let closed = stat.st_uid != geteuid().as_raw() || (mode & 0o2000 != 0 && stat.st_gid != getegid().as_raw());
    if closed || (entry.is_none() && now == mode) {
        return Ok(None);
    }
    if now != mode {
        rustix::fs::chmod(by_descriptor(fd), Mode::from_raw_mode(now))?;
    }
    match entry {
        Some(it) => {
            if it.now != mode {
                it.own = mode;
            }
            (it.doors, it.now) = (it.doors + 1, now);
        }
        None => drop(held.insert(key, Held { doors: 1, own: mode, now })),
    }
    Ok(Some(key))
}

/// The path of what a descriptor is of: fchmod(2) takes none that was opened with O_PATH.
fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn key(stat: &Stat) -> Key {
    (stat.st_dev, stat.st_ino)
}

fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}
