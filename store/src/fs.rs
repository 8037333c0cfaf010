//! Files that stay, and trees that go: the root of the store, and the few ways in which something on disk is made durable or removed.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::error::{Context, Error, Kind, Result};

pub(crate) mod doors;
mod trees;

pub(crate) use trees::names;
pub use trees::{Usage, remove_tree, usage};

/// How long a daemon that is just ending may take to let go of its root, so that the one that follows it need not fail.
const ENDING: Duration = Duration::from_secs(1);

/// The root directory, locked for this daemon for as long as a clone of this lives.
#[derive(Clone)]
pub struct Root {
    path: Arc<PathBuf>,
    _lock: Arc<Flock<File>>,
}

impl Root {
    /// Makes the directory if it is not there, shuts it for others, and takes its lock.
    ///
    /// Below it lie set-user-id programs of images and devices of layers: who could enter could run and open them (CVE-2021-41103).
    pub fn open(path: &Path) -> Result<Self> {
        private_dir(path)?;
        let path = path.canonicalize().context(|| format!("open {}", path.display()))?;
        let lock = lock(&path)?;
        Ok(Self { path: Arc::new(path), _lock: Arc::new(lock) })
    }

    /// Where it is: absolute, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Free bytes of its file system, as for us.
    pub fn free_bytes(&self) -> Result<u64> {
        let found =
            nix::sys::statvfs::statvfs(self.path()).context(|| format!("ask how full {} is", self.path().display()))?;
        Ok(found.blocks_available() * found.fragment_size())
    }
}

/// Makes a directory that only we can enter, with those above it; one that is there is made so, and must be ours.
pub fn private_dir(path: &Path) -> Result<()> {
    let shown = path.display();
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| format!("make {shown}"))?;
    let found = path.metadata().context(|| format!("look at {shown}"))?;
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::new(Kind::PermissionDenied, format!("{shown} belongs to user {}, not to us", found.uid())));
    }
    if found.mode() & 0o7777 != 0o700 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).context(|| format!("shut {shown} for others"))?;
    }
    Ok(())
}

fn lock(root: &Path) -> Result<Flock<File>> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
    let mut file = options.open(&path).context(|| format!("open {}", path.display()))?;
    let mut pid = String::new();
    let read = Read::by_ref(&mut file).take(32).read_to_string(&mut pid);
    read.context(|| format!("read {}", path.display()))?;
    let until = Instant::now() + ENDING;
    let mut file = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            Err((unlocked, Errno::EWOULDBLOCK)) if Instant::now() < until => file = unlocked,
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::precondition(format!(
                    "the store in {} is in use by process {}: stop that daemon, talk to its socket, or use another --root",
                    root.display(),
                    if pid.trim().is_empty() { "(unknown)" } else { pid.trim() }
                )));
            }
            Err((_, error)) => return Err(Error::internal(format!("lock {}: {error}", path.display()))),
        }
        #[expect(clippy::disallowed_methods, reason = "flock(2) knows no waiting with an end")]
        std::thread::sleep(Duration::from_millis(10));
    };
    let writing = || format!("write our process number into {}", path.display());
    file.set_len(0).context(writing)?;
    file.rewind().context(writing)?;
    writeln!(file, "{}", std::process::id()).context(writing)?;
    Ok(file)
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    let dir = File::open(path).context(|| format!("open {}", path.display()))?;
    dir.sync_all().context(|| format!("sync {}", path.display()))
}

/// Makes everything durable that was written to the file system of this directory. A write that failed since `dir` was opened is reported:
/// so open it before the first one.
pub fn sync_file_system(dir: impl std::os::fd::AsFd, shown: &Path) -> Result<()> {
    nix::unistd::syncfs(dir).context(|| format!("sync the file system of {}", shown.display()))
}

/// Opens a directory.
pub fn open_dir(path: &Path) -> Result<File> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    opened.context(|| format!("open {}", path.display()))
}

/// Opens the root of a tree of an image's or a container's, whose permissions may be any.
pub(crate) fn open_tree(path: &Path) -> Result<OwnedFd> {
    let opened = doors::directory(rustix::fs::CWD, path, doors::Use::Look).and_then(doors::Door::into_fd);
    opened.map_err(std::io::Error::from).context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests;
