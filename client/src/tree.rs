//! Copies trees between directories that are held open, either of which somebody else may be changing.
//!
//! Nothing is reached by a path: every name is looked up in its directory, without following a link, and used through what was opened.
//! A directory that becomes a link meanwhile, or is moved, is an error or is still the directory that it was (CVE-2018-15664).
//! A file is opened as a file only after it is known to be one: no fifo is waited at, no device touched.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::beneath;
use crate::error::{Context, Error, Result};

/// Directories in each other: each holds two descriptors while it is copied.
const DEEPEST: usize = 400;

/// Who owns the copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Who owns the originals.
    Kept,
    /// Whoever copies. Then nothing keeps a right that came with another owner: no set-uid or set-gid bit, no capability, and what is a
    /// device is the caller's alone.
    Caller,
}

/// One copying, of one or several trees.
#[derive(Debug)]
pub struct Copier {
    owner: Owner,
    /// Originals that have several names, and the first copy of each.
    links: HashMap<(u64, u64), OwnedFd>,
    /// Bytes of files' content.
    copied: u64,
}

impl Copier {
    /// Nothing is copied yet.
    #[must_use]
    pub fn new(owner: Owner) -> Self {
        Self { owner, links: HashMap::new(), copied: 0 }
    }

    /// How many bytes of content were copied.
    #[must_use]
    pub const fn copied(&self) -> u64 {
        self.copied
    }

    /// Copies what is in the directory `from` into the directory `to`, over what is there.
    ///
    /// # Errors
    /// A directory stands where something else would go, or the other way round; or a call fails.
    pub fn contents(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
        self.contents_at(from, to, Path::new(""), 0)
    }

    fn contents_at(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::failed(format!(
                "copy {}: there are more than {DEEPEST} directories in each other",
                path.display()
            )));
        }
        for name in names(from, path)? {
            let source = match look(from, &name) {
                // Gone since it was listed.
                Err(Errno::NOENT) => continue,
                found => found.context(|| copying(&path.join(&name)))?,
            };
            self.one(source.as_fd(), to, &name, &path.join(&name), depth)?;
        }
        Ok(())
    }

    /// Copies what `from`, an `O_PATH` descriptor, stands for, to `name` in `to`. `path` is for messages.
    ///
    /// # Errors
    /// As [`Self::contents`].
    pub fn item(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<()> {
        self.one(from, to, name, path, 0)
    }

    fn one(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path, path: &Path, depth: usize) -> Result<()> {
        let what = || copying(path);
        let stat = beneath::stat(from)?;
        let kind = beneath::kind(&stat);
        make_room(to, name, path, kind)?;
        if kind == FileType::Directory {
            return self.directory(from, &stat, to, name, path, depth);
        }
        let several = stat.st_nlink > 1;
        let key = (stat.st_dev, stat.st_ino);
        if several
            && let Some(first) = self.links.get(&key)
            && rustix::fs::linkat(first, "", to, name, AtFlags::EMPTY_PATH).is_ok()
        {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(from, to, name, path)?,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, "", Vec::new()).context(what)?;
                rustix::fs::symlinkat(target, to, name).context(what)?;
            }
            // A socket's file says nothing without who listens; docker leaves it out too.
            FileType::Socket => return Ok(()),
            _ => rustix::fs::mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev).context(what)?,
        }
        let made = look(to, name).context(what)?;
        self.attributes(from, &stat, made.as_fd(), path)?;
        if several {
            self.links.insert(key, made);
        }
        Ok(())
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: &Path,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        let what = || copying(path);
        match rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(what),
        }
        let made = look(to, name).context(what)?;
        if beneath::kind(&beneath::stat(&made)?) != FileType::Directory {
            return Err(Error::failed(format!("{}: its place was changed meanwhile", what())));
        }
        let source = beneath::reopen(from, OFlags::RDONLY | OFlags::DIRECTORY).context(what)?;
        self.contents_at(source.as_fd(), made.as_fd(), path, depth + 1)?;
        self.attributes(from, stat, made.as_fd(), path)
    }

    fn file(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<()> {
        let what = || copying(path);
        let source = beneath::reopen(from, OFlags::RDONLY | OFlags::NONBLOCK).context(what)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600)).context(what)?;
        self.copied += sparse(&File::from(source), &File::from(made)).context(what)?;
        Ok(())
    }

    /// Owner, mode, extended attributes and times. The order matters: a change of owner takes away set-uid bits and capabilities.
    fn attributes(&self, from: BorrowedFd<'_>, stat: &Stat, made: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let what = || format!("{}: give it the original's attributes", copying(path));
        if self.owner == Owner::Caller {
            return set(made, &for_caller(stat), &what);
        }
        let owner = Some((stat.st_uid, stat.st_gid));
        set(made, &Attributes { owner, mode: stat.st_mode & 0o7777, times: times(stat), xattrs: xattrs(from) }, &what)
    }
}

/// What a copy gets that becomes the caller's.
fn for_caller(stat: &Stat) -> Attributes {
    let device = matches!(beneath::kind(stat), FileType::CharacterDevice | FileType::BlockDevice);
    let allowed = if device { 0o600 } else { 0o1777 };
    Attributes { owner: None, mode: stat.st_mode & allowed, times: times(stat), xattrs: Vec::new() }
}

/// What a file is given beside its content.
pub(crate) struct Attributes {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: u32,
    pub(crate) times: Timestamps,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Gives them to what an `O_PATH` descriptor stands for. The order matters: a change of owner takes away set-uid bits and capabilities.
pub(crate) fn set(made: BorrowedFd<'_>, attributes: &Attributes, what: &dyn Fn() -> String) -> Result<()> {
    let kind = beneath::kind(&beneath::stat(made)?);
    if let Some((uid, gid)) = attributes.owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH).context(what)?;
    }
    let path = self_path(made);
    if kind != FileType::Symlink {
        // By /proc, since fchmod(2) and fsetxattr(2) refuse such descriptors; it leads to the file itself.
        rustix::fs::chmod(&path, Mode::from_raw_mode(attributes.mode)).context(what)?;
        for (name, value) in &attributes.xattrs {
            let set = rustix::fs::setxattr(&path, name.as_slice(), value, rustix::fs::XattrFlags::empty());
            match set {
                // The other file system has none such: as docker, without.
                Ok(()) | Err(Errno::NOTSUP | Errno::PERM) => {}
                Err(error) => return Err(error).context(what),
            }
        }
    }
    rustix::fs::utimensat(made, "", &attributes.times, AtFlags::EMPTY_PATH).context(what)
}

/// A directory's attributes on another directory, without its times: both `O_PATH` or open.
pub(crate) fn look_alike(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let stat = beneath::stat(from)?;
    let attributes = Attributes {
        owner: Some((stat.st_uid, stat.st_gid)),
        mode: stat.st_mode & 0o7777,
        times: times(&stat),
        xattrs: Vec::new(),
    };
    set(to, &attributes, &|| "give a new volume the owner and mode of the image's directory".to_owned())
}

fn self_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// When it was read and written last.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    let at = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Extended attributes that travel: capabilities and the user's. Labels and those of overlays belong to their place.
pub(crate) fn xattrs(from: BorrowedFd<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = self_path(from);
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::listxattr(&path, &mut names) else { return Vec::new() };
    let travels = |name: &&[u8]| *name == b"security.capability" || name.starts_with(b"user.");
    let mut value = vec![0; 64 << 10];
    let mut read = |name: &[u8]| {
        let length = rustix::fs::getxattr(&path, name, &mut value).ok()?;
        Some((name.to_vec(), value[..length].to_vec()))
    };
    names[..length].split(|byte| *byte == 0).filter(|it| !it.is_empty()).filter(travels).filter_map(&mut read).collect()
}

fn copying(path: &Path) -> String {
    format!("copy {}", path.display())
}

/// What has this name in `dir`, itself.
pub(crate) fn look(dir: BorrowedFd<'_>, name: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The names in an open directory, sorted.
pub(crate) fn names(dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("list {}", path.display());
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).context(what)? {
        let entry = entry.context(what)?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::new(crate::tree::os(name))));
        }
    }
    names.sort();
    Ok(names)
}

/// The names in a directory that an `O_PATH` descriptor or a detached mount stands for.
pub(crate) fn names_of(dir: BorrowedFd<'_>) -> Result<Vec<PathBuf>> {
    let dir = beneath::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "list a directory".to_owned())?;
    names(dir.as_fd(), Path::new(""))
}

pub(crate) fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

/// Takes away what stands where `name` is to be made, unless it is a directory: that stays for a directory, and is an error otherwise.
pub(crate) fn make_room(to: BorrowedFd<'_>, name: &Path, path: &Path, kind: FileType) -> Result<()> {
    let stands = match look(to, name) {
        Ok(stands) => beneath::kind(&beneath::stat(&stands)?),
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).context(|| copying(path)),
    };
    match (stands == FileType::Directory, kind == FileType::Directory) {
        (true, true) => Ok(()),
        (true, false) => Err(Error::usage(format!(
            "cannot overwrite directory {:?} with non-directory: remove it first",
            path.display()
        ))),
        (false, true) => Err(Error::usage(format!(
            "cannot overwrite non-directory {:?} with directory: remove it first",
            path.display()
        ))),
        (false, false) => match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).context(|| format!("replace {}", path.display())),
        },
    }
}

/// Copies content, and leaves holes where there are some. Gives the bytes that were there.
fn sparse(from: &File, to: &File) -> io::Result<u64> {
    use rustix::fs::{SeekFrom, copy_file_range, seek};
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut copied = 0;
    let mut at = 0;
    while at < length {
        let (start, end) = match seek(from, SeekFrom::Data(at)) {
            Ok(start) => (start, seek(from, SeekFrom::Hole(start))?),
            Err(Errno::NXIO) => break,
            Err(_) => (at, length),
        };
        let (mut source, mut target) = (start, start);
        while source < end {
            let rest = usize::try_from(end - source).unwrap_or(usize::MAX);
            match copy_file_range(from, Some(&mut source), to, Some(&mut target), rest) {
                // It has become shorter.
                Ok(0) => return Ok(copied),
                Ok(count) => copied += count as u64,
                // Between these file systems the kernel does not.
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    copied += by_hand(from, to, source, end)?;
                    source = end;
                }
                Err(error) => return Err(error.into()),
            }
        }
        at = end;
    }
    Ok(copied)
}

fn by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; 128 << 10];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read_at(&mut buffer[..most], at)?;
        if count == 0 {
            break;
        }
        to.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    Ok(at - start)
}
