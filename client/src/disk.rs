//! Files and directories that are ours alone, and how they change: in one step, by one at a time, and for good.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};

use crate::error::{Context, Result, is_full};

/// A lock on a file or directory, made as a file if it is not there; waits for whoever has it.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn flock(path: &Path) -> Result<Flock<File>> {
    let what = || format!("lock {}", path.display());
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.extension().is_some_and(|it| it == "lock") => {
            OpenOptions::new().create(true).append(true).mode(0o600).open(path).context(what)?
        }
        file => file.context(what)?,
    };
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno).context(what)
}

/// Makes a directory that only we enter, if it is not there, and those above it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    private().recursive(true).create(path).context(|| format!("make {}", path.display()))
}

/// What makes a directory that only we enter.
pub(crate) fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Replaces a file in one step: nobody sees half of it, and a power cut leaves the old or the new.
///
/// # Errors
/// It cannot be written.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    exchange(path, content, mode).context(|| format!("write {}", path.display()))
}

fn exchange(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}~", std::process::id()));
    let fresh = path.with_file_name(name);
    let write = || {
        gone(fs::remove_file(&fresh))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        // What is renamed over the old one is on the disk; that the rename itself is not yet leaves the old one.
        file.sync_data()?;
        fs::rename(&fresh, path)
    };
    write().inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&fresh);
    })
}

/// A file that is only there to go: a full disk has no room for a new record, and that a container has ended must be written.
pub(crate) struct Reserve(PathBuf);

/// Room for a few versions of a record: a file system may give that of an old one back late.
const RESERVE: i64 = 64 << 10;

impl Reserve {
    /// The one of a container's directory.
    pub(crate) fn of(directory: &Path) -> Self {
        Self(directory.join("reserve"))
    }

    /// Takes the room if it is not taken. Where there is none, everything works until a disk is full.
    pub(crate) fn take(&self) {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0);
        if let Ok(file) = file
            && fallocate(&file, FallocateFlags::empty(), 0, RESERVE).is_err()
        {
            self.give_up();
        }
    }

    /// Whether there was any, which is free now.
    fn give_up(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }

    /// [`replace`], also on a full disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn replace(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let written = match exchange(path, content, mode) {
            Err(error) if is_full(&error) && self.give_up() => exchange(path, content, mode),
            written => written.inspect(|()| self.take()),
        };
        written.context(|| format!("write {}", path.display()))
    }
}

/// What was made in a directory outlives a power cut.
pub(crate) fn sync(directory: &Path) -> Result<()> {
    File::open(directory).and_then(|it| it.sync_all()).context(|| format!("sync {}", directory.display()))
}

/// That it was gone already is as well.
pub(crate) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
