//! Paths inside the container's root, reached so that nothing an image or a neighbour does to them leads outside.
//!
//! Everything starts at the descriptor of the root. What exists is opened by one openat2(2), in which the kernel keeps
//! absolute links and `..` inside and refuses the magic links of procfs. What does not exist is made component by component,
//! each through the descriptor of the one before: a name that is swapped meanwhile gives an error, or an object inside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::plan::mounts::Link;

/// As many symbolic links as the kernel itself follows in one path.
const MOST_LINKS: usize = 40;

/// How often a lookup is tried again that the kernel gave up because of a rename somewhere on the host (openat2(2)).
const MOST_TRIES: usize = 256;

/// What sort of object is wanted where nothing is yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// Opens `path` below `root` with `flags`, which may well be `O_PATH`; `resolve` adds to what is refused on the way.
pub fn open(root: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | resolve);
    for _ in 0..MOST_TRIES {
        match openat2(&root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens `path` as a place (`O_PATH`).
pub fn locate(root: impl AsFd, path: &Path, link: Link) -> Result<OwnedFd, Errno> {
    let follow = match link {
        Link::Follow => OFlag::empty(),
        Link::Itself => OFlag::O_NOFOLLOW,
    };
    open(root, path, OFlag::O_PATH | follow, ResolveFlag::empty())
}

/// Opens `path` as a place, and makes it and the directories above it where they are missing.
pub fn locate_or_make(root: impl AsFd, path: &Path, link: Link, object: Object) -> Result<OwnedFd, Errno> {
    match locate(&root, path, link) {
        Err(Errno::ENOENT) => make_missing(root, path, object),
        result => result,
    }
}

/// Makes `path`, of which some part is missing, and the directories above it.
pub fn make_missing(root: impl AsFd, path: &Path, object: Object) -> Result<OwnedFd, Errno> {
    match make_last(root.as_fd(), path, object)? {
        Some(made) => Ok(made),
        None => make(root.as_fd(), path, object),
    }
}

/// The usual case: only the last component is missing. `None` when it is not that simple.
fn make_last(root: BorrowedFd<'_>, path: &Path, object: Object) -> Result<Option<OwnedFd>, Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let directory = match open(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY, ResolveFlag::empty()) {
        Ok(directory) => directory,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    match make_one(directory.as_fd(), name, object) {
        Ok(made) => Ok(Some(made)),
        // Someone else made it just now, or it is a link that leads nowhere yet.
        Err(Errno::EEXIST | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Makes one object and opens it: the very one where it is a file, and where it is a directory one of that name.
fn make_one(directory: BorrowedFd<'_>, name: &OsStr, object: Object) -> Result<OwnedFd, Errno> {
    match object {
        Object::Directory => {
            mkdirat(directory, name, Mode::from_bits_truncate(0o755))?;
            step_into(directory, name)
        }
        Object::File => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            openat(directory, name, flags, Mode::from_bits_truncate(0o644))
        }
    }
}

fn step_into(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// Walks `path` from `root`, follows links by their text, and makes what is missing.
fn make(root: BorrowedFd<'_>, path: &Path, object: Object) -> Result<OwnedFd, Errno> {
    let mut todo: VecDeque<OsString> = VecDeque::new();
    push_front(&mut todo, path);
    // The directories that lead to where we are; `..` goes back to one we hold, so that a directory that is moved away
    // meanwhile takes nobody outside.
    let mut trail: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            trail.pop();
            continue;
        }
        let here = trail.last().map_or(root, |fd| fd.as_fd());
        let wanted = if todo.is_empty() { object } else { Object::Directory };
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let next = match openat(here, name.as_os_str(), flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT) => make_one(here, &name, wanted)?,
            Err(errno) => return Err(errno),
        };
        match SFlag::from_bits_truncate(fstat(&next)?.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS || is_magic(&next)? {
                    return Err(Errno::ELOOP);
                }
                let target = readlinkat(&next, c"")?;
                if Path::new(&target).is_absolute() {
                    trail.clear();
                }
                push_front(&mut todo, Path::new(&target));
            }
            SFlag::S_IFDIR => trail.push(next),
            _ if todo.is_empty() => return Ok(next),
            _ => return Err(Errno::ENOTDIR),
        }
    }
    match trail.pop() {
        Some(place) => Ok(place),
        None => step_into(root, OsStr::new(".")),
    }
}

/// Links in procfs are not followed here: the text of some is not where they lead.
fn is_magic(link: &OwnedFd) -> Result<bool, Errno> {
    Ok(nix::sys::statfs::fstatfs(link)?.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

fn push_front(todo: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => todo.push_front(name.to_owned()),
            Component::ParentDir => todo.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}
