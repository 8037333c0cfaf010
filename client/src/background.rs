//! What goes on when a command has ended: `tarectl revive` and `tarectl watch-health`, each with a file that it holds a lock on.
//!
//! A command that finds the lock free sets another process to it: so one that was killed is replaced. One that finds it taken ends.
//! Whoever is done with the work, and not with everything, lets the lock go before anybody may want another to be set.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::client::Client;
use crate::error::{Context, Result};

/// The lock of who does something; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    file: File,
}

/// Whoever locks a file for writing has to have it open for that.
fn opener() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).mode(0o600);
    options
}

impl Turn {
    /// Takes it; None if somebody has it, or its directory is gone.
    pub(crate) fn take(path: &Path) -> Result<Option<Self>> {
        let opened = opener().create(true).open(path);
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Self::lock(opened.context(|| format!("open {}", path.display()))?, path),
        }
    }

    /// The same with a file that is made for it; None if there is one already.
    ///
    /// # Errors
    /// Its directory is gone: `NotFound`.
    pub(crate) fn take_new(path: &Path) -> Result<Option<Self>> {
        match opener().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            opened => Self::lock(opened.context(|| format!("make {}", path.display()))?, path),
        }
    }

    /// The same with a file that is there; None if it is not.
    pub(crate) fn take_old(path: &Path) -> Result<Option<Self>> {
        match opener().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Self::lock(opened.context(|| format!("open {}", path.display()))?, path),
        }
    }

    /// Takes it when whoever has it lets it go; None if its directory is gone.
    pub(crate) fn wait(path: &Path) -> Result<Option<Self>> {
        let file = match opener().create(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.context(|| format!("open {}", path.display()))?,
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole_file())) {
                Err(Errno::EINTR) => {}
                locked => {
                    return locked.map(|_| Some(Self { file })).context(|| format!("lock {}", path.display()));
                }
            }
        }
    }

    fn lock(file: File, path: &Path) -> Result<Option<Self>> {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file())) {
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            locked => locked.map(|_| Some(Self { file })).context(|| format!("lock {}", path.display())),
        }
    }

    /// Whether the file was removed by whoever had the turn before.
    pub(crate) fn is_over(&self) -> bool {
        self.file.metadata().is_ok_and(|it| it.nlink() == 0)
    }
}

/// Whether somebody has this turn.
pub(crate) fn is_taken(path: &Path) -> bool {
    let file = match File::open(path) {
        Ok(file) => file,
        // What cannot be looked at is looked at by the next command.
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    // Only asked for, not taken: whoever comes to take it at this moment finds it free.
    let mut lock = whole_file();
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && i32::from(lock.l_type) != libc::F_UNLCK
}

/// A lock on all of a file, of the open file itself (fcntl(2), `F_OFD_SETLK`).
const fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Sets `tarectl COMMAND ID`, which takes this turn, to its work, unless somebody is at it.
pub(crate) fn ensure(client: &Client, command: &str, id: &str, turn: &Path) -> Result<()> {
    if is_taken(turn) {
        return Ok(());
    }
    let program = &client.programs.tarectl;
    let mut spawned = Command::new(program);
    spawned.args([command, id]).envs(client.environment()).current_dir("/");
    // A group of its own: what a terminal sends to us is not for it.
    spawned.process_group(0);
    spawned.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    spawned.spawn().map(drop).context(|| format!("run {} {command}", program.display()))
}
