//! A file that is only there to go: when the disk is full, what frees room needs a little first.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FallocateFlags, OFlag, fallocate};

/// More than the log grows by when everything is collected that fits on a disk that was just filled.
const BYTES: i64 = 1 << 20;

pub(super) struct Reserve {
    path: PathBuf,
    /// It was there when we last had to do with it: it need not be looked for each time that something is removed.
    held: AtomicBool,
}

impl Reserve {
    /// Takes it now, if there is room.
    pub(super) fn of(root: &Path) -> Self {
        let reserve = Self { path: root.join("reserve"), held: AtomicBool::new(false) };
        reserve.take();
        reserve
    }

    /// Whether there was one; its room is free then.
    pub(super) fn give_up(&self) -> bool {
        self.held.store(false, Ordering::Relaxed);
        fs::remove_file(&self.path).is_ok()
    }

    /// Gives it up for the time that `use_it` needs a little room, and takes it back if that left some.
    pub(super) fn lend<T>(&self, use_it: impl FnOnce() -> T) -> T {
        self.give_up();
        let used = use_it();
        self.take();
        used
    }

    /// Takes it if it is not there. Without room there is none: everything works, but a full disk then is full.
    pub(super) fn take(&self) {
        if self.held.load(Ordering::Relaxed) {
            return;
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let taken = match options.open(&self.path) {
            Ok(file) => fallocate(&file, FallocateFlags::empty(), 0, BYTES).is_ok() || !self.give_up(),
            Err(error) => error.kind() == ErrorKind::AlreadyExists,
        };
        self.held.store(taken, Ordering::Relaxed);
    }
}
