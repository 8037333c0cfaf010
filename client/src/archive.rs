//! Trees as tar streams: out of open directories and into them.
//!
//! As with [`crate::tree`], nothing is reached by a path that somebody else could lead astray: what is written is read through
//! descriptors, and what is read is made beneath a root, where a link leads nowhere else.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::beneath;
use crate::error::{Context, Error, Result};
use crate::tree::{self, Attributes, look};

/// Directories in each other.
const DEEPEST: usize = 400;

/// Bytes of all names of directories whose times are still to be set.
const MOST_REMEMBERED: usize = 64 << 20;

/// How extended attributes are called in a pax header.
const XATTR: &str = "SCHILY.xattr.";

/// A tar stream that is being written.
pub struct Out<W: Write> {
    builder: Builder<W>,
    /// Where files with several names are in the archive.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<W: Write> std::fmt::Debug for Out<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("links", &self.links.len()).finish_non_exhaustive()
    }
}

impl<W: Write> Out<W> {
    /// An empty one.
    pub fn new(writer: W) -> Self {
        Self { builder: Builder::new(writer), links: HashMap::new() }
    }

    /// Adds what `from`, an `O_PATH` descriptor, stands for, and all below it, as `name`.
    ///
    /// # Errors
    /// It cannot be read, or the writer fails.
    pub fn add(&mut self, from: BorrowedFd<'_>, name: &Path) -> Result<()> {
        self.add_at(from, name, 0)
    }

    /// Adds all that is in a directory, with names relative to it.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_contents(&mut self, from: BorrowedFd<'_>) -> Result<()> {
        let dir = beneath::reopen(from, OFlags::RDONLY | OFlags::DIRECTORY).context(|| "open the root".to_owned())?;
        self.add_below(dir.as_fd(), Path::new(""), 0)
    }

    fn add_below(&mut self, dir: BorrowedFd<'_>, name: &Path, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(Error::failed(format!(
                "archive {}: there are more than {DEEPEST} directories in each other",
                name.display()
            )));
        }
        for child in tree::names(dir, name)? {
            match look(dir, &child) {
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error).context(|| format!("archive {}", child.display())),
                Ok(found) => self.add_at(found.as_fd(), &name.join(&child), depth)?,
            }
        }
        Ok(())
    }

    fn add_at(&mut self, from: BorrowedFd<'_>, name: &Path, depth: usize) -> Result<()> {
        let what = || format!("archive {}", name.display());
        let stat = beneath::stat(from)?;
        let kind = beneath::kind(&stat);
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        let key = (stat.st_dev, stat.st_ino);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&key)
        {
            header.set_entry_type(EntryType::Link);
            return self.builder.append_link(&mut header, name, first).context(what);
        }
        let xattrs = tree::xattrs(from);
        if kind != FileType::Symlink && !xattrs.is_empty() {
            let named: Vec<(String, Vec<u8>)> = xattrs
                .into_iter()
                .filter_map(|(name, value)| Some((format!("{XATTR}{}", String::from_utf8(name).ok()?), value)))
                .collect();
            self.builder
                .append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
                .context(what)?;
        }
        match kind {
            FileType::Directory => {
                header.set_entry_type(EntryType::Directory);
                self.builder.append_data(&mut header, name.join(""), io::empty()).context(what)?;
                let dir = beneath::reopen(from, OFlags::RDONLY | OFlags::DIRECTORY).context(what)?;
                return self.add_below(dir.as_fd(), name, depth + 1);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, "", Vec::new()).context(what)?;
                header.set_entry_type(EntryType::Symlink);
                self.builder.append_link(&mut header, name, tree::os(target.as_bytes())).context(what)?;
            }
            FileType::RegularFile => {
                let file = beneath::reopen(from, OFlags::RDONLY | OFlags::NONBLOCK).context(what)?;
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                // The header says how long it is: what is written to it meanwhile does not change that.
                let content = File::from(file).take(size).chain(io::repeat(0)).take(size);
                self.builder.append_data(&mut header, name, content).context(what)?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                header.set_entry_type(match kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header.set_device_major(rustix::fs::major(stat.st_rdev)).context(what)?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev)).context(what)?;
                self.builder.append_data(&mut header, name, io::empty()).context(what)?;
            }
            // Sockets: nobody listens at a copy.
            _ => return Ok(()),
        }
        if stat.st_nlink > 1 {
            self.links.insert(key, name.to_owned());
        }
        Ok(())
    }

    /// Ends the archive, and gives its writer back, flushed.
    ///
    /// # Errors
    /// The writer fails.
    pub fn finish(self) -> Result<W> {
        let what = || "end the archive".to_owned();
        let mut writer = self.builder.into_inner().context(what)?;
        writer.flush().context(what)?;
        Ok(writer)
    }
}

/// Extracts a tar stream, compressed by gzip or not, into the directory `base` of `root`. Links of the root are followed as it has them.
///
/// # Errors
/// The stream is no archive, or is damaged; or something cannot be made.
pub fn extract(reader: impl Read, root: BorrowedFd<'_>, base: &Path) -> Result<()> {
    let mut reader = io::BufReader::with_capacity(64 << 10, reader);
    let gzip = io::BufRead::fill_buf(&mut reader).context(reading)?.starts_with(&[0x1f, 0x8b]);
    if gzip { entries(flate2::bufread::MultiGzDecoder::new(reader), root, base) } else { entries(reader, root, base) }
}

fn reading() -> String {
    "read the archive".to_owned()
}

fn entries(reader: impl Read, root: BorrowedFd<'_>, base: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(reader);
    // The times of directories change with what is made in them: they come last, the deepest first.
    let mut directories: Vec<(PathBuf, Attributes)> = Vec::new();
    let mut remembered = 0;
    for entry in archive.entries().context(reading)? {
        let mut entry = entry.context(reading)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            continue;
        }
        let name = PathBuf::from(tree::os(&entry.path_bytes()));
        let path = base.join(beneath::lexical(&name).strip_prefix("/").unwrap_or(&name));
        let what = || format!("extract {} to {}", name.display(), path.display());
        let xattrs = xattrs(&mut entry).context(reading)?;
        let attributes = attributes(entry.header(), xattrs).context(what)?;
        make(&mut entry, root, base, &path, &attributes)?;
        if kind == EntryType::Directory && remembered < MOST_REMEMBERED {
            remembered += path.as_os_str().len() + size_of::<Attributes>();
            directories.push((path, attributes));
        }
    }
    for (path, attributes) in directories.iter().rev() {
        // Somebody may have moved it meanwhile.
        if let Ok(dir) = beneath::open(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY) {
            tree::set(dir.as_fd(), attributes, &|| format!("set the times of {}", path.display()))?;
        }
    }
    Ok(())
}

fn attributes(header: &Header, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> io::Result<Attributes> {
    let id = |number: u64| u32::try_from(number).map_err(|_| io::Error::other(format!("{number} is no user or group")));
    let seconds = i64::try_from(header.mtime()?).unwrap_or(i64::MAX);
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(Attributes {
        owner: Some((id(header.uid()?)?, id(header.gid()?)?)),
        mode: header.mode()? & 0o7777,
        times: Timestamps { last_access: time, last_modification: time },
        xattrs,
    })
}

fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let name = extension.key_bytes().strip_prefix(XATTR.as_bytes());
        // As when a tree is copied: capabilities and the user's.
        if let Some(name) = name.filter(|it| *it == b"security.capability" || it.starts_with(b"user.")) {
            all.push((name.to_vec(), extension.value_bytes().to_vec()));
        }
    }
    Ok(all)
}

/// Makes one entry.
fn make<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    root: BorrowedFd<'_>,
    base: &Path,
    path: &Path,
    attributes: &Attributes,
) -> Result<()> {
    let what = || format!("extract {}", path.display());
    let kind = match entry.header().entry_type() {
        EntryType::Directory => FileType::Directory,
        EntryType::Symlink => FileType::Symlink,
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        EntryType::Fifo => FileType::Fifo,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Link => FileType::RegularFile,
        other => return Err(Error::failed(format!("{}: an entry of type {:?} is unknown", what(), other.as_byte()))),
    };
    let place = beneath::place_made(root, path).context(what)?;
    if place.name == Path::new(".") {
        return Ok(());
    }
    let dir = place.dir.as_fd();
    tree::make_room(dir, &place.name, path, kind)?;
    let target = entry.link_name_bytes().map(|it| PathBuf::from(tree::os(&it)));
    let target = || target.clone().ok_or_else(|| Error::failed(format!("{}: the link leads nowhere", what())));
    match entry.header().entry_type() {
        EntryType::Directory => match rustix::fs::mkdirat(dir, &place.name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).context(what),
        },
        EntryType::Symlink => {
            rustix::fs::symlinkat(target()?, dir, &place.name).context(what)?;
        }
        EntryType::Link => {
            // Another name of a file of the archive, beneath the same directory.
            let other = base.join(beneath::lexical(&target()?).strip_prefix("/").unwrap_or(Path::new("")));
            let other = beneath::open(root, &other, OFlags::PATH | OFlags::NOFOLLOW).context(what)?;
            return rustix::fs::linkat(other, "", dir, &place.name, AtFlags::EMPTY_PATH).context(what);
        }
        EntryType::Char | EntryType::Block | EntryType::Fifo => {
            let header = entry.header();
            let major = header.device_major().context(what)?.unwrap_or(0);
            let minor = header.device_minor().context(what)?.unwrap_or(0);
            let device = rustix::fs::makedev(major, minor);
            rustix::fs::mknodat(dir, &place.name, kind, Mode::from_raw_mode(0o600), device).context(what)?;
        }
        _ => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = rustix::fs::openat(dir, &place.name, flags, Mode::from_raw_mode(0o600)).context(what)?;
            io::copy(entry, &mut File::from(made)).context(what)?;
        }
    }
    let made = look(dir, &place.name).context(what)?;
    if beneath::kind(&beneath::stat(&made)?) != kind {
        return Err(Error::failed(format!("{}: its place was changed meanwhile", what())));
    }
    tree::set(made.as_fd(), attributes, &|| format!("{}: give it its attributes", what()))
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
