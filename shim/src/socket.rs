//! The shim's socket on disk: one for each group of containers, whoever starts it.
//!
//! ```text
//! DIR/                         0700, made if need be
//!   <sha256 of the group>      0600, the shim listens; DIR itself is locked (flock) while this entry is looked at and replaced
//! ```
//!
//! The lock is what makes two starts at once end in one shim: the first to have it binds and listens before it lets go, so the
//! second finds a socket that answers. Nothing else is left behind for it, no file to be removed by anyone. The same lock
//! lets a clean-up remove a dead socket without hitting the living one of a start in between.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::error::{Context, Error, Kind, Result};

/// The longest path a unix socket can have, the final zero not counted.
const LONGEST: usize = 107;

/// Whose socket it is now.
#[derive(Debug)]
pub enum Claim {
    /// A shim listens there already.
    Answers,
    /// Nobody did; now we do.
    Ours(Listening),
}

/// A socket that we bound, and the entry on disk that is ours.
#[derive(Debug)]
pub struct Listening {
    /// Listens already: who connects is served later.
    pub listener: UnixListener,
    /// Where.
    pub entry: Entry,
}

/// One particular file at a path, so that a successor of the same name is not taken for it. A listener keeps its file's inode,
/// so that no other gets the same number while it is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Takes the socket at this path, unless it answers.
///
/// # Errors
/// The path is too long for a socket, or the directory or the socket can't be made.
pub fn claim(path: &Path) -> Result<Claim> {
    if path.as_os_str().len() > LONGEST {
        return Err(Error::invalid(format!(
            "listen on {}: a socket's path has at most {LONGEST} bytes, this one has {}; give a shorter directory",
            path.display(),
            path.as_os_str().len()
        )));
    }
    let directory = directory(path)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .context(|| format!("make the directory of sockets {}", directory.display()))?;
    let _lock = lock(directory)?;
    if answers(path)? {
        return Ok(Claim::Answers);
    }
    remove(path)?;
    listen_at(path).map(Claim::Ours)
}

/// Removes the socket at this path if nobody listens there. That there is none is fine.
pub fn remove_dead(path: &Path) -> Result<()> {
    let _lock = match lock(directory(path)?) {
        Err(error) if error.kind == Kind::NotFound => return Ok(()),
        lock => lock?,
    };
    if answers(path)? { Ok(()) } else { remove(path) }
}

impl Entry {
    fn at(path: &Path) -> Result<Self> {
        let found = fs::symlink_metadata(path).context(|| format!("look at the socket {}", path.display()))?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, if it is still this one. Called while the listener is open, so that no start finds it dead before it is gone.
    pub fn remove(&self) -> Result<()> {
        let _lock = lock(directory(&self.path)?)?;
        match Self::at(&self.path) {
            Ok(there) if there == *self => remove(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn directory(path: &Path) -> Result<&Path> {
    path.parent().ok_or_else(|| Error::invalid(format!("{} is no path of a socket", path.display())))
}

fn lock(directory: &Path) -> Result<Flock<File>> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(directory)
        .context(|| format!("open the directory of sockets {}", directory.display()))?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .context(|| format!("lock the directory of sockets {}", directory.display()))
}

/// Whether somebody listens. Never waits: a backlog that is full is an answer too.
fn answers(path: &Path) -> Result<bool> {
    let probe = new_socket()?;
    let address = address(path)?;
    match connect(probe.as_raw_fd(), &address) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno).context(|| format!("connect to the socket {}", path.display())),
    }
}

fn listen_at(path: &Path) -> Result<Listening> {
    let what = || format!("listen on {}", path.display());
    let socket = new_socket()?;
    // The mode of the descriptor becomes the mode of the file: at no moment can another user open it, whatever the umask.
    fchmod(socket.as_fd(), Mode::from_bits_truncate(0o600)).context(what)?;
    bind(socket.as_raw_fd(), &address(path)?).context(what)?;
    // Against an umask that takes from the owner.
    fs::set_permissions(path, Permissions::from_mode(0o600)).context(what)?;
    listen(&socket, Backlog::MAXALLOWABLE).context(what)?;
    Ok(Listening { listener: socket.into(), entry: Entry::at(path)? })
}

fn new_socket() -> Result<std::os::fd::OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
        .context(|| "make a unix socket".to_owned())
}

fn address(path: &Path) -> Result<UnixAddr> {
    UnixAddr::new(path).context(|| format!("use {} as a socket's path", path.display()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove the socket {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    use super::*;

    fn ours(claim: Claim) -> Listening {
        match claim {
            Claim::Ours(listening) => listening,
            Claim::Answers => panic!("somebody else listens"),
        }
    }

    #[test]
    fn modes_are_private_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/s/sock");
        let listening = ours(claim(&path).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&path), 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(listening.entry.path(), path);
    }

    #[test]
    fn one_that_answers_is_kept_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let first = ours(claim(&path).unwrap());
        assert!(matches!(claim(&path).unwrap(), Claim::Answers));
        remove_dead(&path).unwrap();
        assert!(path.try_exists().unwrap(), "a living socket was removed");
        drop(first.listener);
        let second = ours(claim(&path).unwrap());
        // By an administrator, say.
        fs::remove_file(&path).unwrap();
        let third = ours(claim(&path).unwrap());
        second.entry.remove().unwrap();
        assert!(path.try_exists().unwrap(), "the successor's socket was removed");
        let second = third;
        second.entry.remove().unwrap();
        assert!(!path.try_exists().unwrap());
        second.entry.remove().unwrap();
    }

    #[test]
    fn a_dead_one_is_removed_and_none_is_fine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(ours(claim(&path).unwrap()));
        remove_dead(&path).unwrap();
        assert!(!path.try_exists().unwrap());
        remove_dead(&path).unwrap();
        remove_dead(&dir.path().join("no/where")).unwrap();
    }

    #[test]
    fn of_many_at_once_one_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let barrier = Barrier::new(8);
        // One round proves little: they have to meet between two system calls.
        for _ in 0..200 {
            let claims: Vec<Result<Claim>> = std::thread::scope(|scope| {
                let claim = || {
                    barrier.wait();
                    claim(&path)
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let claims: Vec<Claim> = claims.into_iter().map(Result::unwrap).collect();
            assert_eq!(claims.iter().filter(|claim| matches!(claim, Claim::Ours(_))).count(), 1);
            // The next round shall find a dead one; but what another test has just forked holds it too, until its execve.
            drop(claims);
            while UnixStream::connect(&path).is_ok() {}
        }
    }

    #[test]
    fn a_full_backlog_answers_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let socket = new_socket().unwrap();
        bind(socket.as_raw_fd(), &address(&path).unwrap()).unwrap();
        listen(&socket, Backlog::new(0).unwrap()).unwrap();
        let _waits = UnixStream::connect(&path).unwrap();
        assert!(answers(&path).unwrap());
        assert!(matches!(claim(&path).unwrap(), Claim::Answers));
    }

    #[test]
    fn a_path_too_long_is_said() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(LONGEST)));
        let error = claim(&path).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument);
        assert!(error.message.contains("at most 107 bytes"), "{error}");
    }
}
