//! Empty trees made ahead, by a thread of their own: who prepares a snapshot takes one by a rename.
//!
//! ```text
//! spare/<batch>/<n>/{fs,work}      made ahead
//! spare/rm-<n>/...                 removed, and made a spare again, a few times
//! ```
//!
//! No row names a spare, and its `fs` was never handed out: a mount that somebody forgot may still write into that of a removed tree. But it
//! knows nothing of the directory around it, and nobody ever used a `work` that is empty, since the kernel makes a directory in it at the
//! first mount: these serve again. What a daemon leaves behind, whole or half-made, the next one removes.
//!
//! A batch lies in a directory of its own, and those lie in one that the file system is told to spread (chattr(1), `T`). On ext4 a
//! directory's inode comes from its parent's group, and without a journal the search passes over each inode there that was freed in the
//! last minutes: where thousands of snapshots come and go, that is most of what a snapshot costs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions, read_dir, remove_dir, rename, set_permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::error::{Context, Result};
use crate::fault;
use crate::fs::{open_dir, private_dir, remove_tree};
use crate::metadata::lock;

/// So many are kept at first, and twice as many each time that somebody finds none.
const FEWEST: usize = 8;
/// So many at most.
const MOST: usize = 64;
/// How many lie in one directory.
const BATCH: u64 = 16;
/// How often a directory serves before it is removed, on average: the inodes of what was in it stay in its batch's part of the disk.
const USES: u64 = 4;

/// Before the number of a tree that was removed.
const WAY_OUT: &str = "rm-";

/// The spares, and the thread that makes them; it begins with the first who asks.
pub(super) struct Spares {
    shared: Arc<Shared>,
    dir: Arc<PathBuf>,
    first_batch: u64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    fewer: Condvar,
}

#[derive(Default)]
struct State {
    ready: Vec<PathBuf>,
    wanted: usize,
    /// Numbers of trees that were spares, and are not removed: what is made elsewhere is not spread.
    handed_out: HashSet<u64>,
    /// Trees that were removed but for what serves again.
    stripped: Vec<PathBuf>,
    /// How many were offered.
    offered: u64,
    /// Something was taken since the maker last looked: it goes on, also after a failure.
    asked: bool,
    closing: bool,
}

impl Spares {
    /// Also lists what an earlier daemon left: the caller has that removed.
    pub(super) fn open(root: &Path) -> Result<(Self, Vec<PathBuf>)> {
        let dir = root.join("spare");
        private_dir(&dir)?;
        spread(&dir);
        let listing = || format!("list {}", dir.display());
        let entries = read_dir(&dir).context(listing)?;
        let old = entries.map(|it| Ok(it.context(listing)?.path())).collect::<Result<Vec<_>>>()?;
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        let first_batch = old.iter().filter_map(number).max().map_or(1, |it| it.saturating_add(1));
        let shared = Arc::new(Shared::default());
        Ok((Self { shared, dir: Arc::new(dir), first_batch, thread: Mutex::new(None) }, old))
    }

    /// Where a tree goes that is removed.
    pub(super) fn way_out(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{WAY_OUT}{number}"))
    }

    /// Whether an earlier daemon named it so.
    pub(super) fn was_removed(path: &Path) -> bool {
        path.file_name().is_some_and(|it| it.as_encoded_bytes().starts_with(WAY_OUT.as_bytes()))
    }

    /// Whether what [`way_out`](Self::way_out) named may serve again: only what was a spare of this daemon's.
    pub(super) fn wants_back(&self, tree: &Path) -> bool {
        let name = tree.file_name().and_then(OsStr::to_str);
        let number = name.and_then(|it| it.strip_prefix(WAY_OUT)?.parse::<u64>().ok());
        let mut state = lock(&self.shared.state);
        if !number.is_some_and(|it| state.handed_out.remove(&it)) {
            return false;
        }
        state.offered += 1;
        state.stripped.len() < state.wanted && !state.offered.is_multiple_of(USES)
    }

    /// Takes it, now that there is at most an unused `work` in it.
    pub(super) fn take_back(&self, stripped: &Path) {
        lock(&self.shared.state).stripped.push(stripped.to_owned());
    }

    /// Moves a spare to where tree `number` is wanted; whether there was one.
    pub(super) fn take(&self, to: &Path, number: u64) -> Result<bool> {
        let spare = self.ask()?;
        // Whatever is in the way of a spare is told to who makes the tree afresh.
        let taken = spare.is_some_and(|spare| rename(spare, to).is_ok());
        if taken {
            lock(&self.shared.state).handed_out.insert(number);
        }
        Ok(taken)
    }

    fn ask(&self) -> Result<Option<PathBuf>> {
        let mut state = lock(&self.shared.state);
        let spare = state.ready.pop();
        if spare.is_none() {
            state.wanted = (state.wanted * 2).clamp(FEWEST, MOST);
        }
        // Not for each: a thread that is woken costs more than a spare.
        if state.ready.len() <= state.wanted / 2 {
            state.asked = true;
            self.shared.fewer.notify_one();
        }
        drop(state);
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let (shared, dir, batch) = (Arc::clone(&self.shared), Arc::clone(&self.dir), self.first_batch);
            let started = Builder::new().name("spares".into()).spawn(move || Maker::new(dir, batch).work(&shared));
            *thread = Some(started.context(|| "start the thread that makes empty snapshots ahead".to_owned())?);
        }
        Ok(spare)
    }
}

impl Drop for Spares {
    fn drop(&mut self) {
        lock(&self.shared.state).closing = true;
        self.shared.fewer.notify_one();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the file system to spread what is made in this directory. Most know no such thing, and need none.
fn spread(dir: &Path) {
    if let Ok(dir) = open_dir(dir)
        && let Ok(flags) = ioctl_getflags(&dir)
    {
        let _ = ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

/// What the thread knows.
struct Maker {
    dir: Arc<PathBuf>,
    batch: u64,
    made: u64,
    /// Batches from which not all were taken yet.
    full: Vec<PathBuf>,
}

impl Maker {
    fn new(dir: Arc<PathBuf>, batch: u64) -> Self {
        Self { dir, batch, made: 0, full: Vec::new() }
    }

    fn work(mut self, shared: &Shared) {
        let mut state = lock(&shared.state);
        while !state.closing {
            if state.ready.len() >= state.wanted || !state.asked {
                state.asked = false;
                state = shared.fewer.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let stripped = state.stripped.pop();
            drop(state);
            let made = match stripped {
                Some(path) => match furnish(&path, true) {
                    Ok(()) => Ok(path),
                    // What cannot serve again goes at last.
                    Err(error) => remove_tree(&path).and(Err(error)),
                },
                None => self.make(),
            };
            let made = made.and_then(|spare| fault::point("snapshots.spare.made").map(|()| spare));
            state = lock(&shared.state);
            match made {
                Ok(spare) => state.ready.push(spare),
                Err(error) => {
                    // Who comes for one makes it, and is told what is in the way.
                    tracing::debug!("{error}");
                    state.asked = false;
                }
            }
        }
    }

    fn make(&mut self) -> Result<PathBuf> {
        let batch = self.dir.join(self.batch.to_string());
        if self.made == 0 {
            self.full.retain(|old| remove_dir(old).is_err());
            directory_there(&batch, 0o700)?;
        }
        self.made += 1;
        let spare = batch.join(self.made.to_string());
        if self.made == BATCH {
            self.full.push(batch);
            self.batch += 1;
            self.made = 0;
        }
        skeleton(&spare, true)?;
        Ok(spare)
    }
}

/// An empty tree.
pub(super) fn skeleton(path: &Path, work: bool) -> Result<()> {
    // The outer one is shut for others even if somebody opens the store's root.
    directory(path, 0o700)?;
    furnish(path, work)
}

/// What is in an empty tree, of which `work` may be there.
fn furnish(path: &Path, work: bool) -> Result<()> {
    let fs = path.join("fs");
    directory(&fs, 0o755)?;
    // Whatever our umask is: this one is the root directory of containers.
    let opening = || format!("open {} for all", fs.display());
    if fs.symlink_metadata().context(opening)?.permissions().mode() & 0o777 != 0o755 {
        set_permissions(&fs, Permissions::from_mode(0o755)).context(opening)?;
    }
    if !work {
        return Ok(());
    }
    directory_there(&path.join("work"), 0o711)
}

/// The same, but it may be there.
fn directory_there(path: &Path, mode: u32) -> Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        done => done.context(|| format!("make {}", path.display())),
    }
}

fn directory(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(path).context(|| format!("make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use integration::wait;

    use super::*;

    fn there(spares: &Spares) -> usize {
        lock(&spares.shared.state).ready.len()
    }

    #[test]
    fn a_removed_tree_serves_again_a_few_times() {
        let root = tempfile::tempdir().unwrap();
        let (spares, _) = Spares::open(root.path()).unwrap();
        let stripped = |number: u64| {
            let path = spares.way_out(number);
            directory(&path, 0o700).unwrap();
            if number.is_multiple_of(2) {
                directory(&path.join("work"), 0o711).unwrap();
            }
            path
        };
        spares.take(&root.path().join("none"), 0).unwrap();
        wait::until("spares are made", || there(&spares) == FEWEST);
        assert!(!spares.wants_back(&root.path().join("spare/1")), "no tree");
        let offered: Vec<PathBuf> = (1..=2 * USES).map(stripped).collect();
        assert!(!spares.wants_back(&offered[0]), "made elsewhere");
        lock(&spares.shared.state).handed_out.extend(1..=2 * USES);
        let kept: Vec<_> = offered.iter().filter(|it| spares.wants_back(it)).collect();
        assert_eq!(kept.len() as u64, 2 * USES - 2, "one of {USES} goes");
        // One that has what it must not have is not handed out.
        let strange = kept[0];
        directory(&strange.join("fs"), 0o700).unwrap();
        let inode = |path: &Path| path.metadata().unwrap().ino();
        let expected: Vec<u64> = kept[1..].iter().map(|it| inode(it)).collect();
        kept.iter().for_each(|it| spares.take_back(it));
        assert!(!spares.wants_back(&offered[0]), "once only");
        let (mut taken, mut again) = (0, Vec::new());
        let mut one = || {
            let to = root.path().join(format!("taken-{taken}"));
            let there = spares.take(&to, 100 + taken).unwrap();
            if there {
                let mut names: Vec<_> = read_dir(&to).unwrap().map(|it| it.unwrap().file_name()).collect();
                names.sort();
                assert_eq!(names, ["fs", "work"]);
                taken += 1;
                again.push(inode(&to));
            }
            there
        };
        wait::until("all are used", || {
            one();
            lock(&spares.shared.state).stripped.is_empty()
        });
        for _ in 0..2 * FEWEST {
            wait::until("one is taken", &mut one);
        }
        assert!(expected.iter().all(|it| again.contains(it)), "{again:?}, not {expected:?}");
        assert!(!strange.try_exists().unwrap(), "it is removed");
    }

    #[test]
    fn a_spare_is_taken_once_and_what_an_earlier_daemon_left_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let (spares, old) = Spares::open(root.path()).unwrap();
        assert!(old.is_empty());
        // Nobody prepared anything yet: nothing is made.
        assert!(!spares.take(&root.path().join("none"), 1).unwrap());
        wait::until("spares are made", || there(&spares) == FEWEST);
        for number in 0..FEWEST {
            let to = root.path().join(number.to_string());
            wait::until("one is there", || there(&spares) > 0);
            assert!(spares.take(&to, 2).unwrap());
            let mode = |name: &str| std::fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(""), mode("fs")), (0o700, 0o755));
            assert!(read_dir(to.join("fs")).unwrap().chain(read_dir(to.join("work")).unwrap()).next().is_none());
        }
        // What is taken is replaced, and what cannot be put there is not handed out.
        wait::until("more are made", || there(&spares) > FEWEST / 2);
        assert!(!spares.take(&root.path().join("no/such"), 3).unwrap());
        assert!(!lock(&spares.shared.state).handed_out.contains(&3));
        drop(spares);
        let (spares, old) = Spares::open(root.path()).unwrap();
        assert_eq!(old, [root.path().join("spare/1")]);
        assert_eq!(spares.first_batch, 2);
    }

    #[test]
    fn batches_that_are_used_up_go() {
        let root = tempfile::tempdir().unwrap();
        let mut maker = Maker::new(Arc::new(root.path().to_owned()), 1);
        for number in 0..BATCH {
            let spare = maker.make().unwrap();
            rename(&spare, root.path().join(format!("taken-{number}"))).unwrap();
        }
        let next = maker.make().unwrap();
        assert_eq!(next, root.path().join("2/1"));
        assert!(!root.path().join("1").try_exists().unwrap());
        // A failure in between does not stop it.
        std::fs::create_dir(root.path().join("2/2")).unwrap();
        maker.make().unwrap_err();
        assert_eq!(maker.make().unwrap(), root.path().join("2/3"));
    }
}
