//! A disk that remembers every write and every flush, so that a power cut at any moment can be played afterwards.
//!
//! ```text
//! ext4 -> loop device -> one file of a FUSE file system -> this process: an image file, and a log of what came in which order
//! ```
//!
//! What a real disk may do at a power cut is played by [`Recording::cut`]: all that was written before the last flush is
//! there; of what came after it, each sector is there or is not, as a seed decides. Device mapper's log-writes target does the
//! same in the kernel, where there is one; this needs only FUSE and loop devices.
//!
//! ext4 is mounted with `data=writeback`, the order that promises least: a file's name may get to the disk long before its contents.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

/// What a disk writes whole or not at all: today's have 4 KiB. (ext4's superblock, with its checksum, would not survive less.)
const SECTOR: usize = 4096;
const DISK: INodeNo = INodeNo(2);
const CACHED: Duration = Duration::from_secs(3600);

/// What happened to the disk, in order.
#[derive(Clone, Copy)]
enum Event {
    /// `length` bytes at `offset`; they are in the log's file at `at`.
    Write {
        offset: u64,
        length: usize,
        at: u64,
    },
    Flush,
}

struct Log {
    events: Vec<Event>,
    bytes: File,
    end: u64,
}

/// The disk while it is in use: an empty ext4, mounted.
pub struct RecordedDisk {
    directory: PathBuf,
    log: Arc<Mutex<Log>>,
    session: Option<BackgroundSession>,
}

/// What was recorded of a disk.
pub struct Recording {
    directory: PathBuf,
    events: Vec<Event>,
    bytes: File,
}

impl RecordedDisk {
    /// Makes one of `megabytes` in `directory`, which must be empty, and mounts it at [`RecordedDisk::mounted`].
    ///
    /// # Errors
    /// A sentence: this machine has no FUSE, no loop device or no mkfs.ext4.
    pub fn make(directory: &Path, megabytes: u64) -> Result<Self, String> {
        let said = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| format!("{what}: {error}")
        };
        let image = directory.join("image");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&image).map_err(said("image"))?;
        file.set_len(megabytes << 20).map_err(said("image"))?;
        tool("mkfs.ext4", &["-q", "-F", "-J", "size=8"], &[&image])?;
        std::fs::copy(&image, directory.join("base")).map_err(said("base"))?;
        let bytes = directory.join("log");
        let bytes = OpenOptions::new().read(true).write(true).create_new(true).open(bytes).map_err(said("log"))?;
        let log = Arc::new(Mutex::new(Log { events: Vec::new(), bytes, end: 0 }));
        let (fuse, mounted) = (directory.join("fuse"), directory.join("disk"));
        for place in [&fuse, &mounted] {
            std::fs::create_dir(place).map_err(said("directory"))?;
        }
        let served = Served { image: file, size: megabytes << 20, log: Arc::clone(&log) };
        let session = fuser::spawn_mount(served, &fuse, &Config::default()).map_err(said("mount FUSE"))?;
        let disk = Self { directory: directory.to_owned(), log, session: Some(session) };
        tool("mount", &["-t", "ext4", "-o", "loop,data=writeback"], &[&fuse.join("disk"), &mounted])?;
        Ok(disk)
    }

    /// Where its file system is.
    pub fn mounted(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// How much has happened so far: a cut at this moment or later comes after all that was done by now.
    pub fn moment(&self) -> usize {
        self.log.lock().unwrap().events.len()
    }

    /// Unmounts it. Nobody may use it any more.
    pub fn close(mut self) -> Recording {
        let session = self.session.take();
        tool("umount", &[], &[&self.mounted()]).expect("unmount the recorded disk");
        drop(session);
        let log = self.log.lock().unwrap();
        Recording {
            directory: self.directory.clone(),
            events: log.events.clone(),
            bytes: log.bytes.try_clone().expect("duplicate a descriptor"),
        }
    }
}

impl Drop for RecordedDisk {
    fn drop(&mut self) {
        if self.session.is_some() {
            // A test that fails leaves no mount behind; whoever still uses it keeps what he has.
            let _ = tool("umount", &["--lazy"], &[&self.mounted()]);
        }
    }
}

impl Recording {
    /// The moments right after a flush.
    pub fn flushes(&self) -> Vec<usize> {
        (0..self.events.len()).filter(|at| matches!(self.events[*at], Event::Flush)).map(|at| at + 1).collect()
    }

    /// How many moments there are.
    pub fn moments(&self) -> usize {
        self.events.len()
    }

    /// The disk as it may be after a cut at this moment, mounted: what was written after the last flush before is there or not,
    /// sector by sector, as the seed decides. Seed 0 loses all of it.
    pub fn cut(&self, moment: usize, seed: u64) -> Cut {
        let image = self.directory.join(format!("cut-{moment}-{seed}"));
        std::fs::copy(self.directory.join("base"), &image).expect("copy the empty disk");
        let file = OpenOptions::new().write(true).open(&image).expect("open the copy");
        let kept = (0..moment).rev().find(|at| matches!(self.events[*at], Event::Flush)).unwrap_or(0);
        let mut random = seed;
        let mut buffer = Vec::new();
        for (at, event) in self.events[..moment].iter().enumerate() {
            let Event::Write { offset, length, at: from } = *event else { continue };
            if at > kept && seed == 0 {
                continue;
            }
            buffer.resize(length, 0);
            self.bytes.read_exact_at(&mut buffer, from).expect("read the log");
            if at < kept {
                file.write_all_at(&buffer, offset).expect("write the copy");
                continue;
            }
            // A disk loses whole requests more often than parts of one.
            let (whole, lost) = (!next(&mut random).is_multiple_of(4), next(&mut random).is_multiple_of(2));
            for (number, sector) in buffer.chunks(SECTOR).enumerate() {
                if if whole { !lost } else { next(&mut random).is_multiple_of(2) } {
                    file.write_all_at(sector, offset + (number * SECTOR) as u64).expect("write the copy");
                }
            }
        }
        let mounted = self.directory.join(format!("cut-{moment}-{seed}.mounted"));
        std::fs::create_dir(&mounted).expect("make a mount point");
        tool("mount", &["-t", "ext4", "-o", "loop"], &[&image, &mounted]).expect("mount the disk after the cut");
        Cut { image, mounted }
    }
}

/// A disk after a power cut, mounted until this is dropped.
pub struct Cut {
    image: PathBuf,
    mounted: PathBuf,
}

impl Cut {
    /// Where its file system is.
    pub fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = tool("umount", &["--lazy"], &[&self.mounted]);
        let _ = std::fs::remove_dir(&self.mounted);
        let _ = std::fs::remove_file(&self.image);
    }
}

/// The next of a sequence of numbers without a pattern to speak of (xorshift64, Marsaglia 2003).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 16
}

fn tool(name: &str, options: &[&str], paths: &[&Path]) -> Result<(), String> {
    let output = Command::new(name).args(options).args(paths).output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The FUSE file system with the one file.
struct Served {
    image: File,
    size: u64,
    log: Arc<Mutex<Log>>,
}

impl Served {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let disk = inode == DISK;
        FileAttr {
            ino: inode,
            size: if disk { self.size } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if disk { FileType::RegularFile } else { FileType::Directory },
            perm: if disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    fn record(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut log = self.log.lock().unwrap();
        let at = log.end;
        log.bytes.write_all_at(data, at)?;
        log.end += data.len() as u64;
        log.events.push(Event::Write { offset, length: data.len(), at });
        self.image.write_all_at(data, offset)
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, _: INodeNo, name: &std::ffi::OsStr, reply: ReplyEntry) {
        if name == "disk" {
            reply.entry(&CACHED, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&CACHED, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: what the loop device writes is recorded when it writes it.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut data = vec![0; (size as usize).min(self.size.saturating_sub(offset) as usize)];
        match self.image.read_exact_at(&mut data, offset) {
            Ok(()) => reply.data(&data),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.record(offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("a FUSE request is small")),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.log.lock().unwrap().events.push(Event::Flush);
        reply.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A cut must lose what was not synced and keep what was, or no test that plays one means anything.
    #[test]
    fn a_cut_loses_what_was_not_synced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let disk = match RecordedDisk::make(directory.path(), 64) {
            Ok(disk) => disk,
            Err(reason) => crate::skip!("no recorded disk: {reason}"),
        };
        let data = vec![7; 100_000];
        let synced = disk.mounted().join("synced");
        fs::write(&synced, &data).unwrap();
        File::open(&synced).unwrap().sync_all().unwrap();
        File::open(disk.mounted()).unwrap().sync_all().unwrap();
        let promised = disk.moment();
        // The mistake that this is to find: written and renamed, but never synced; only the name is made durable.
        let (temporary, careless) = (disk.mounted().join("temporary"), disk.mounted().join("careless"));
        fs::write(&temporary, &data).unwrap();
        fs::rename(&temporary, &careless).unwrap();
        File::open(disk.mounted()).unwrap().sync_all().unwrap();
        let named = disk.moment();
        let recording = disk.close();

        let mut broken = 0;
        for seed in 0..8 {
            let cut = recording.cut(promised, seed);
            assert_eq!(fs::read(cut.path().join("synced")).unwrap(), data);
            let cut = recording.cut(named, seed);
            assert_eq!(fs::read(cut.path().join("synced")).unwrap(), data);
            broken += usize::from(fs::read(cut.path().join("careless")).is_ok_and(|found| found != data));
        }
        assert!(broken > 0, "a file that was never synced was whole after every cut");
        assert!(recording.flushes().len() > 1 && recording.moments() > promised);
    }
}
