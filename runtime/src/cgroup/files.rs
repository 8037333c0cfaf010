//! Reading and writing the files of a cgroup: one value each, taken or refused by the kernel as a whole.
//!
//! A refusal becomes one sentence here: which field, which value, which file, why, and what would be taken instead where
//! the kernel says so elsewhere. Must not know which writes make a limit.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::cgroup::{Missing, Refused, Write};

/// A file of a cgroup is a page long, `memory.stat` and lists of processes some pages.
const CHUNK: usize = 4096;

/// Reads a file of a cgroup whole.
pub(super) fn read(directory: &Path, file: &str) -> Result<String, Errno> {
    let mut source = File::open(directory.join(file)).map_err(|error| errno(&error))?;
    let mut text = vec![0_u8; CHUNK];
    let mut length = 0;
    loop {
        match source.read(&mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
        }
        if text.len() - length < CHUNK {
            text.resize(text.len() * 2, 0);
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(|_| Errno::EILSEQ)
}

/// Writes a value into a file of a cgroup, in one piece. The file is never made: what the kernel lacks is an error.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<(), Errno> {
    put(&open_for_writing(&directory.join(file))?, value)
}

pub(super) fn open_for_writing(path: &Path) -> Result<File, Errno> {
    OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(|error| errno(&error))
}

pub(super) fn put(mut file: &File, value: &str) -> Result<(), Errno> {
    loop {
        match file.write(value.as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(&error)),
            Ok(_) => return Ok(()),
        }
    }
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// The number behind `key` in a file of `key number` lines.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok())
}

/// The processes of a cgroup and of those below it.
pub(super) fn pids(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect_pids(directory, &mut pids)?;
    Ok(pids)
}

fn collect_pids(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    // A threaded cgroup lists its threads only.
    let list = match read(directory, "cgroup.procs") {
        Err(Errno::EOPNOTSUPP) => read(directory, "cgroup.threads"),
        list => list,
    };
    match list {
        Ok(list) => pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok())),
        // Removed in the meantime: then it has none.
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(()),
        Err(errno) => return Err(errno).on("list the processes of", directory.display()),
    }
    children(directory)?.iter().try_for_each(|child| collect_pids(child, pids))
}

/// The cgroups right below one.
pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(errno(&error), Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        Err(error) => return Err(error).on("list", directory.display()),
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            // It was removed meanwhile, and is empty.
            Err(error) if matches!(errno(&error), Errno::ENOENT | Errno::ENODEV) => break,
            Err(error) => return Err(error).on("list", directory.display()),
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            children.push(entry.path());
        }
    }
    Ok(children)
}

/// A file of a cgroup that tells of its changes. The kernel compares with what was last read through this descriptor: a
/// change between reading and waiting is not missed.
#[derive(Debug)]
pub(super) struct Watched {
    file: File,
    path: PathBuf,
}

impl Watched {
    pub(super) fn open(directory: &Path, file: &str) -> Result<Self> {
        let path = directory.join(file);
        Ok(Self { file: File::open(&path).on("open", path.display())?, path })
    }

    pub(super) fn read(&self) -> Result<String> {
        let mut text = [0_u8; CHUNK];
        let length = self.file.read_at(&mut text, 0).on("read", self.path.display())?;
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    /// Waits until the file changes; `false` when the time is over.
    pub(super) fn wait(&self, give_up: Instant) -> Result<bool> {
        let left = give_up.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, left) {
            Ok(0) => Ok(false),
            Ok(_) | Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(errno).on("wait for a change of", self.path.display()),
        }
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// What was in the files that an update has changed.
#[derive(Default)]
pub(super) struct Undo(Vec<(PathBuf, String, String)>);

impl Undo {
    fn note(&mut self, directory: &Path, file: &str) {
        // A file of several lines takes only one of them a write, so its state cannot be put back by one.
        if let Ok(old) = read(directory, file)
            && old.trim_end().lines().count() == 1
        {
            self.0.push((directory.to_owned(), file.to_owned(), old));
        }
    }

    /// Puts everything back, the last change first. What cannot be put back stays: there is an error to tell already.
    pub(super) fn run(self) {
        for (directory, file, old) in self.0.iter().rev() {
            let _ = write(directory, file, old.trim_end());
        }
    }
}

/// Carries out the writes of one directory, in order.
pub(super) fn apply(directory: &Path, writes: &[Write]) -> Result<()> {
    apply_with(directory, writes, |_| {})
}

/// The same, noting before each write what it changes.
pub(super) fn apply_noting(directory: &Path, writes: &[Write], undo: &mut Undo) -> Result<()> {
    apply_with(directory, writes, |file| undo.note(directory, file))
}

fn apply_with(directory: &Path, writes: &[Write], mut before: impl FnMut(&str)) -> Result<()> {
    let mut again = Vec::new();
    for entry in writes {
        check_usage(directory, entry)?;
        match carry_out(directory, entry, &mut before) {
            Err(Errno::EINVAL) if entry.refused == Refused::TryLast => again.push(entry),
            done => done.map_err(|errno| explain(directory, entry, errno))?,
        }
    }
    for entry in again {
        carry_out(directory, entry, &mut before).map_err(|errno| explain(directory, entry, errno))?;
    }
    Ok(())
}

fn carry_out(directory: &Path, entry: &Write, before: &mut impl FnMut(&str)) -> Result<(), Errno> {
    before(&entry.file);
    let mut done = write(directory, &entry.file, &entry.value);
    if let (Err(Errno::ENOENT), Some((file, value))) = (done, &entry.instead) {
        before(file);
        done = write(directory, file, value);
    }
    match done {
        Err(Errno::ENOENT) if entry.missing == Missing::Ignore => Ok(()),
        done => done,
    }
}

fn check_usage(directory: &Path, entry: &Write) -> Result<()> {
    let Some((file, limit)) = entry.more_than else { return Ok(()) };
    let usage: Option<u64> = read(directory, file).ok().and_then(|text| text.trim().parse().ok());
    match usage {
        Some(usage) if usage >= limit => Err(Error::new(
            Kind::State,
            format!(
                "{} {limit} is not above what is in use now, {usage}, and checkBeforeUpdate is set: nothing was changed",
                entry.field
            ),
        )),
        _ => Ok(()),
    }
}

/// A refused write as a sentence.
pub(super) fn explain(directory: &Path, entry: &Write, errno: Errno) -> Error {
    let file: &str = &entry.file;
    let what = format!("set {} to {} (write {}/{file})", entry.field, entry.value, directory.display());
    let cause = match (errno, file) {
        (Errno::ENOENT, _) => missing(directory, file),
        (Errno::EBUSY, "memory.limit_in_bytes" | "memory.memsw.limit_in_bytes") => {
            let number = |file| read(directory, file).unwrap_or_default().trim().to_owned();
            let (usage, peak) = (number("memory.usage_in_bytes"), number("memory.max_usage_in_bytes"));
            Some(format!("more is in use than could be freed (usage {usage}, peak {peak}): give a higher limit"))
        }
        (
            Errno::EINVAL | Errno::ENODEV | Errno::EACCES | Errno::ERANGE | Errno::ENOSPC,
            "cpuset.cpus" | "cpuset.mems",
        ) => {
            let parent = directory.parent().unwrap_or(directory);
            let effective = format!("{}.effective", file);
            let there = read(parent, &effective).or_else(|_| read(parent, file)).unwrap_or_default();
            (!there.trim().is_empty())
                .then(|| format!("its parent cgroup has only {}: choose from these", there.trim()))
        }
        (Errno::EINVAL, "cpu.weight") => {
            Some("the cgroup runs only when the CPU is idle: set cpu.idle to 0 too".to_owned())
        }
        (Errno::EINVAL, "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "cpu.max") => {
            Some("the kernel refuses it, for it exceeds the limit of a parent cgroup or is out of range".to_owned())
        }
        (Errno::EINVAL, "cpu.cfs_burst_us" | "cpu.max.burst") => {
            Some("the kernel refuses it: a burst is at most the quota".to_owned())
        }
        (Errno::EINVAL, "memory.limit_in_bytes") => {
            let sum = read(directory, "memory.memsw.limit_in_bytes").unwrap_or_default();
            (!sum.is_empty()).then(|| format!("memory and swap together are limited to {}: raise that too", sum.trim()))
        }
        (Errno::EINVAL, "memory.memsw.limit_in_bytes") => {
            Some("it is the sum of memory and swap, and must be no less than the memory limit: set that too".to_owned())
        }
        (Errno::ENODEV, _) if file.starts_with("io.") || file.starts_with("blkio.") => {
            Some("this host has no such block device".to_owned())
        }
        _ => None,
    };
    match cause {
        Some(cause) => Error::caused(Kind::System, what, cause),
        None => Error::sys(what, errno),
    }
}

/// Why a file is not there, as far as the files beside it tell.
fn missing(directory: &Path, file: &str) -> Option<String> {
    if file.starts_with("memory.swap.") || file.starts_with("memory.memsw.") {
        return Some("this kernel counts no swap: leave the swap limit out, or boot with swapaccount=1".to_owned());
    }
    if let Some(size) = file.strip_prefix("hugetlb.").and_then(|rest| rest.split('.').next()) {
        let sizes = huge_page_sizes();
        if !sizes.iter().any(|known| known == size) {
            return Some(format!("this host has no huge pages of {size}, only of {}", sizes.join(", ")));
        }
    }
    let (controller, _) = file.split_once('.')?;
    let available = read(directory, "cgroup.controllers").ok()?;
    if controller == "cgroup" || available.split_whitespace().any(|name| name == controller) {
        return Some("this kernel has no such file".to_owned());
    }
    Some(format!("the cgroup controller {controller} is not available there (available: {})", available.trim()))
}

/// The sizes of huge pages that this host has, as the kernel names them in file names.
pub(super) fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut sizes: Vec<u64> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok())
        .collect();
    sizes.sort_unstable();
    sizes
        .into_iter()
        .map(|kib| match kib {
            kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
            kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
            kib => format!("{kib}KB"),
        })
        .collect()
}
