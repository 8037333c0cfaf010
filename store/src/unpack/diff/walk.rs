//! Walking what is above and what is below, name by name in order of bytes.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::{FileType, Stat};

use super::super::attributes::{Marks, xattrs, xattrs_at};
use super::super::failed;
use super::super::lower::{self, Below, View, is_whiteout};
use super::super::remove::list;
use super::super::tar::shown;
use super::DiffOptions;
use super::archive::{Archive, Header};
use crate::error::{Context, Error, Result};
use crate::fs::doors::{self, Door, Use};

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// One comparison.
pub(super) struct Walk<'a, W: Write> {
    pub(super) archive: Archive<W>,
    pub(super) options: &'a DiffOptions,
    pub(super) marks: Marks,
    /// Both are whole trees.
    pub(super) trees: bool,
    /// Headers of directories that are written as soon as anything in them is.
    pub(super) pending: Vec<Header>,
    /// The first path of each file with several.
    pub(super) links: HashMap<(u64, u64), Vec<u8>>,
    /// Of whole trees: files with several names one of which changed.
    pub(super) relinked: HashSet<u64>,
}

impl<W: Write> Walk<'_, W> {
    /// The root: an entry only where more than its time differs.
    pub(super) fn root(&mut self, upper: BorrowedFd<'_>, below: &View) -> Result<()> {
        if let Some(lower) = below.first() {
            let (stat, before) = (fstat(upper)?, fstat(lower.as_fd())?);
            let own = self.shown(xattrs(upper)?);
            if !same_owner(&stat, &before) || own != self.shown(xattrs(lower.as_fd())?) {
                let mut header = self.describe(b"", &stat, own);
                header.path = b"./".to_vec();
                self.archive.header(&header)?;
            }
        }
        self.inside(b"", upper, below)
    }

    fn inside(&mut self, path: &[u8], upper: BorrowedFd<'_>, below: &View) -> Result<()> {
        let mut names: Vec<(Vec<u8>, bool)> = list(upper)?.into_iter().map(|(name, _)| (name, true)).collect();
        if self.trees {
            let here: HashSet<Vec<u8>> = names.iter().map(|(name, _)| name.clone()).collect();
            for layer in below {
                names.extend(
                    list(layer.as_fd())?
                        .into_iter()
                        .filter(|(name, _)| !here.contains(name))
                        .map(|(name, _)| (name, false)),
                );
            }
        }
        names.sort();
        for (name, here) in names {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            let result = if here { self.one(&path, &name, upper, below) } else { self.gone(&path) };
            // A path is named once, where it happened.
            result.map_err(|error| {
                if error.message.starts_with("entry ") {
                    error
                } else {
                    error.within(format_args!("entry {}", shown(&path)))
                }
            })?;
        }
        Ok(())
    }

    fn one(&mut self, path: &[u8], name: &[u8], parent: BorrowedFd<'_>, below: &View) -> Result<()> {
        let Some(stat) = lower::stat(parent, name)? else { return Ok(()) };
        let before = lower::look(below, name, &self.marks)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(path, name, parent, &stat, before),
            // A socket is nothing without who listens.
            FileType::Socket => Ok(()),
            FileType::CharacterDevice if !self.trees && is_whiteout(&stat) => match before {
                Below::Nothing => Ok(()),
                _ => self.gone(path),
            },
            _ => self.other(path, name, parent, &stat, before),
        }
    }

    fn directory(
        &mut self,
        path: &[u8],
        name: &[u8],
        parent: BorrowedFd<'_>,
        stat: &Stat,
        before: Below,
    ) -> Result<()> {
        let fd = lower::directory(parent, name, Use::Look)?;
        let attributes = xattrs(fd.as_fd())?;
        self.check_marks(&attributes)?;
        let mut header = self.describe(path, stat, self.shown(attributes));
        header.path.push(b'/');
        let below = if let Below::Directory(view) = before { view } else { View::new() };
        // The kernel marks every new directory; it means something only where there is one below.
        let opaque = !below.is_empty() && self.marks.is_opaque(fd.as_fd())?;
        let unchanged = match below.first() {
            Some(lower) if self.trees => {
                let old = fstat(lower.as_fd())?;
                same_owner(stat, &old) && same_time(stat, &old) && header.xattrs == self.shown(xattrs(lower.as_fd())?)
            }
            _ => false,
        };
        let depth = self.pending.len();
        self.pending.push(header);
        if !unchanged {
            self.flush()?;
        }
        if opaque {
            let marker = [path, b"/.wh..wh..opq"].concat();
            self.archive.header(&Header { path: marker, kind: b'0', ..Header::default() })?;
        }
        let below = if opaque { View::new() } else { below };
        self.inside(path, fd.as_fd(), &below)?;
        self.pending.truncate(depth);
        Ok(())
    }

    fn other(&mut self, path: &[u8], name: &[u8], parent: BorrowedFd<'_>, stat: &Stat, before: Below) -> Result<()> {
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let open = if regular { Some(open(parent, name)?) } else { None };
        let attributes = match &open {
            Some(fd) => xattrs(fd.as_fd())?,
            None => xattrs_at(parent, name)?,
        };
        self.check_marks(&attributes)?;
        let attributes = self.shown(attributes);
        if self.trees
            && let Below::Other(lower, old) = &before
            && !self.relinked.contains(&stat.st_ino)
            && self.same(name, (parent, stat, &attributes), (lower.as_fd(), old))?
        {
            return Ok(());
        }
        let mut header = self.describe(path, stat, attributes);
        self.flush()?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                header = Header { kind: b'1', link: first.clone(), size: 0, xattrs: Vec::new(), ..header };
                return self.archive.header(&header);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        if header.kind == b'2' {
            header.link = readlink(parent, name)?;
        }
        self.archive.header(&header)?;
        match open {
            Some(fd) => self.archive.data(fd, header.size),
            None => Ok(()),
        }
    }

    /// What is below is here no more.
    fn gone(&mut self, path: &[u8]) -> Result<()> {
        self.flush()?;
        let (parent, name) = super::super::tree::split(path);
        let marker = [parent, if parent.is_empty() { b"" } else { b"/" }, b".wh.", name].concat();
        self.archive.header(&Header { path: marker, kind: b'0', ..Header::default() })
    }

    fn flush(&mut self) -> Result<()> {
        for header in &mut self.pending {
            // Written ones stay, empty, so that each directory takes off its own.
            if !header.path.is_empty() {
                self.archive.header(header)?;
                header.path.clear();
            }
        }
        Ok(())
    }

    fn shown(&self, attributes: Xattrs) -> Xattrs {
        attributes
            .into_iter()
            .filter_map(|(name, value)| self.marks.shown(&name).map(|name| (name.into_owned(), value)))
            .collect()
    }

    /// What a layer cannot say: that a directory was moved here, or that a file's data is elsewhere.
    fn check_marks(&self, attributes: &Xattrs) -> Result<()> {
        let tells = |name: &[u8], mark: &str| self.marks.is(name, mark);
        match attributes.iter().find(|(name, _)| tells(name, "redirect") || tells(name, "metacopy")) {
            Some((name, _)) => Err(Error::precondition(format!(
                "it is marked {}, which no layer can express: mount snapshots with redirect_dir=off,metacopy=off",
                String::from_utf8_lossy(name)
            ))),
            None => Ok(()),
        }
    }

    fn describe(&self, path: &[u8], stat: &Stat, xattrs: Xattrs) -> Header {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => b'5',
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            FileType::Fifo => b'6',
            _ => b'0',
        };
        let device = match kind {
            b'3' | b'4' => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        let latest = self.options.latest_mtime.filter(|latest| stat.st_mtime >= *latest);
        Header {
            path: path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == b'0' { stat.st_size.cast_unsigned() } else { 0 },
            seconds: latest.unwrap_or(stat.st_mtime),
            nanos: if latest.is_some() { 0 } else { stat.st_mtime_nsec },
            link: Vec::new(),
            device,
            xattrs,
        }
    }

    /// Everything that a layer can say is the same, the data included: times can be set.
    fn same(&self, name: &[u8], new: (BorrowedFd<'_>, &Stat, &Xattrs), old: (BorrowedFd<'_>, &Stat)) -> Result<bool> {
        let ((new, stat, attributes), (old, before)) = (new, old);
        if !same_owner(stat, before)
            || !same_time(stat, before)
            || stat.st_rdev != before.st_rdev
            || stat.st_size != before.st_size
        {
            return Ok(false);
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let (new, old) = (open(new, name)?, open(old, name)?);
                Ok(*attributes == self.shown(xattrs(old.as_fd())?) && same_data(new, old)?)
            }
            kind => {
                let link = kind == FileType::Symlink;
                Ok(*attributes == self.shown(xattrs_at(old, name)?)
                    && (!link || readlink(new, name)? == readlink(old, name)?))
            }
        }
    }

    /// Finds the files with several names of which one is new or changed: then all have to be in the layer.
    pub(super) fn relink(&mut self, upper: BorrowedFd<'_>, below: &View) -> Result<()> {
        for (name, is_directory) in list(upper)? {
            let Some(stat) = lower::stat(upper, &name)? else { continue };
            let before = lower::look(below, &name, &self.marks)?;
            if is_directory {
                let below = if let Below::Directory(view) = before { view } else { View::new() };
                self.relink(lower::directory(upper, &name, Use::Look)?.as_fd(), &below)?;
            } else if stat.st_nlink > 1 && !self.relinked.contains(&stat.st_ino) {
                let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                let own = if regular { xattrs(open(upper, &name)?.as_fd())? } else { xattrs_at(upper, &name)? };
                let same = match &before {
                    Below::Other(lower, old) => {
                        self.same(&name, (upper, &stat, &self.shown(own)), (lower.as_fd(), old))?
                    }
                    _ => false,
                };
                if !same {
                    self.relinked.insert(stat.st_ino);
                }
            }
        }
        Ok(())
    }
}

fn same_owner(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn same_time(a: &Stat, b: &Stat) -> bool {
    (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

fn same_data(mut a: Door, mut b: Door) -> Result<bool> {
    let (mut one, mut other) = (vec![0; 128 << 10], vec![0; 128 << 10]);
    loop {
        let length = a.read(&mut one).context(|| "read the file".to_owned())?;
        if length == 0 {
            return Ok(b.read(&mut other).context(|| "read the file below".to_owned())? == 0);
        }
        match b.read_exact(&mut other[..length]) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result.context(|| "read the file below".to_owned())?,
        }
        if one[..length] != other[..length] {
            return Ok(false);
        }
    }
}

fn open(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Door> {
    doors::file(parent, name).map_err(|error| failed("open the file", error))
}

fn readlink(parent: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new()).map_err(|error| failed("read the link", error))?;
    Ok(target.into_bytes())
}

fn fstat(fd: BorrowedFd<'_>) -> Result<Stat> {
    doors::fstat(fd).map_err(|error| failed("look at a directory", error))
}

/// A directory that was handed in.
pub(super) fn enter(directory: BorrowedFd<'_>) -> Result<Door> {
    let own = directory.try_clone_to_owned().context(|| "hold a directory".to_owned())?;
    Door::to(own, Use::Look).map_err(|error| failed("enter a directory", error))
}

/// Directories that were handed in, as a view.
pub(super) fn view(directories: &[BorrowedFd<'_>]) -> Result<View> {
    directories.iter().map(|it| enter(*it).map(Rc::new)).collect()
}
