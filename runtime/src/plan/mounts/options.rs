//! Mount options: the words of mount(8) and the runtime specification, each lowered once to what it changes.
//!
//! A word that is not in the table belongs to the filesystem and is handed to it as it stands.

use crate::plan::mounts::{Attributes, Propagation};
use crate::sys::mount as sys;
use crate::sys::mount::Depth;

/// What one word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Says nothing that is not the default.
    Nothing,
    /// Sets bits of the mount.
    Set(u64),
    /// Clears bits of the mount.
    Clear(u64),
    /// Puts a value in the access time field.
    Atime(u64),
    /// `Set` for the whole tree.
    SetTree(u64),
    /// `Clear` for the whole tree.
    ClearTree(u64),
    /// `Atime` for the whole tree.
    AtimeTree(u64),
    /// Sets `MS_` bits of the filesystem itself.
    SetSuper(u64),
    /// Clears `MS_` bits of the filesystem itself.
    ClearSuper(u64),
    /// Changes the propagation.
    Propagate(Propagation),
    /// `bind` and `rbind`.
    Bind(Depth),
    /// `remount`.
    Remount,
    /// `tmpcopyup`.
    CopyUp,
    /// `idmap` and `ridmap`.
    Idmap(Depth),
    /// `src-nofollow`.
    SourceNoFollow,
    /// `dest-nofollow`.
    DestinationNoFollow,
    /// `copy-symlink`.
    CopySymlink,
}

use Meaning::{
    Atime, AtimeTree, Bind, Clear, ClearSuper, ClearTree, CopySymlink, CopyUp, DestinationNoFollow, Idmap, Nothing,
    Propagate, Remount, Set, SetSuper, SetTree, SourceNoFollow,
};

const fn propagate(flag: u64, depth: Depth) -> Meaning {
    Propagate(Propagation { flag, depth })
}

/// Every word that is known, sorted, so that it is found by bisection; `features` lists them.
pub(super) const WORDS: &[(&str, Meaning)] = &[
    ("async", ClearSuper(libc::MS_SYNCHRONOUS)),
    ("atime", Atime(0)),
    ("bind", Bind(Depth::One)),
    ("copy-symlink", CopySymlink),
    ("defaults", Nothing),
    ("dest-nofollow", DestinationNoFollow),
    ("dev", Clear(sys::ATTR_NODEV)),
    ("diratime", Clear(sys::ATTR_NODIRATIME)),
    ("dirsync", SetSuper(libc::MS_DIRSYNC)),
    ("exec", Clear(sys::ATTR_NOEXEC)),
    ("idmap", Idmap(Depth::One)),
    ("iversion", SetSuper(libc::MS_I_VERSION)),
    ("lazytime", SetSuper(libc::MS_LAZYTIME)),
    ("loud", ClearSuper(libc::MS_SILENT)),
    ("mand", SetSuper(libc::MS_MANDLOCK)),
    ("noatime", Atime(sys::ATTR_NOATIME)),
    ("nodev", Set(sys::ATTR_NODEV)),
    ("nodiratime", Set(sys::ATTR_NODIRATIME)),
    ("noexec", Set(sys::ATTR_NOEXEC)),
    ("noiversion", ClearSuper(libc::MS_I_VERSION)),
    ("nolazytime", ClearSuper(libc::MS_LAZYTIME)),
    ("nomand", ClearSuper(libc::MS_MANDLOCK)),
    ("norelatime", Nothing),
    ("nostrictatime", Atime(0)),
    ("nosuid", Set(sys::ATTR_NOSUID)),
    ("nosymfollow", Set(sys::ATTR_NOSYMFOLLOW)),
    ("private", propagate(libc::MS_PRIVATE, Depth::One)),
    ("ratime", AtimeTree(0)),
    ("rbind", Bind(Depth::Tree)),
    ("rdev", ClearTree(sys::ATTR_NODEV)),
    ("rdiratime", ClearTree(sys::ATTR_NODIRATIME)),
    ("relatime", Atime(0)),
    ("remount", Remount),
    ("rexec", ClearTree(sys::ATTR_NOEXEC)),
    ("ridmap", Idmap(Depth::Tree)),
    ("rnoatime", AtimeTree(sys::ATTR_NOATIME)),
    ("rnodev", SetTree(sys::ATTR_NODEV)),
    ("rnodiratime", SetTree(sys::ATTR_NODIRATIME)),
    ("rnoexec", SetTree(sys::ATTR_NOEXEC)),
    ("rnorelatime", Nothing),
    ("rnostrictatime", AtimeTree(0)),
    ("rnosuid", SetTree(sys::ATTR_NOSUID)),
    ("rnosymfollow", SetTree(sys::ATTR_NOSYMFOLLOW)),
    ("ro", Set(sys::ATTR_RDONLY)),
    ("rprivate", propagate(libc::MS_PRIVATE, Depth::Tree)),
    ("rrelatime", AtimeTree(0)),
    ("rro", SetTree(sys::ATTR_RDONLY)),
    ("rrw", ClearTree(sys::ATTR_RDONLY)),
    ("rshared", propagate(libc::MS_SHARED, Depth::Tree)),
    ("rslave", propagate(libc::MS_SLAVE, Depth::Tree)),
    ("rstrictatime", AtimeTree(sys::ATTR_STRICTATIME)),
    ("rsuid", ClearTree(sys::ATTR_NOSUID)),
    ("rsymfollow", ClearTree(sys::ATTR_NOSYMFOLLOW)),
    ("runbindable", propagate(libc::MS_UNBINDABLE, Depth::Tree)),
    ("rw", Clear(sys::ATTR_RDONLY)),
    ("shared", propagate(libc::MS_SHARED, Depth::One)),
    ("silent", SetSuper(libc::MS_SILENT)),
    ("slave", propagate(libc::MS_SLAVE, Depth::One)),
    ("src-nofollow", SourceNoFollow),
    ("strictatime", Atime(sys::ATTR_STRICTATIME)),
    ("suid", Clear(sys::ATTR_NOSUID)),
    ("symfollow", Clear(sys::ATTR_NOSYMFOLLOW)),
    ("sync", SetSuper(libc::MS_SYNCHRONOUS)),
    ("tmpcopyup", CopyUp),
    ("unbindable", propagate(libc::MS_UNBINDABLE, Depth::One)),
];

/// What `word` means, or `None` where it is the filesystem's own.
pub(super) fn meaning(word: &str) -> Option<Meaning> {
    WORDS.binary_search_by_key(&word, |(name, _)| name).ok().map(|found| WORDS[found].1)
}

/// Every known option, sorted: what `features` reports as `mountOptions`.
pub fn known() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(name, _)| *name)
}

impl Attributes {
    /// Sets bits; what an earlier word cleared is no longer cleared.
    pub(super) fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    /// Clears bits; what an earlier word set is no longer set.
    pub(super) fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// Puts `value` into the access time field, which the kernel only takes when the whole field is cleared with it.
    pub(super) fn atime(&mut self, value: u64) {
        self.clear |= sys::ATTR_ATIME;
        self.set = self.set & !sys::ATTR_ATIME | value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_bisection_finds_every_word() {
        assert!(WORDS.is_sorted_by(|a, b| a.0 < b.0));
        for (word, meant) in WORDS {
            assert_eq!(meaning(word), Some(*meant), "{word}");
        }
        assert_eq!(meaning("size=64k"), None);
    }

    #[test]
    fn the_later_word_wins() {
        let mut attributes = Attributes::default();
        attributes.set(sys::ATTR_RDONLY);
        attributes.clear(sys::ATTR_RDONLY);
        assert_eq!(attributes, Attributes { set: 0, clear: sys::ATTR_RDONLY });
        attributes.atime(sys::ATTR_NOATIME);
        attributes.atime(sys::ATTR_STRICTATIME);
        assert_eq!(attributes.set, sys::ATTR_STRICTATIME);
        assert_eq!(attributes.clear, sys::ATTR_RDONLY | sys::ATTR_ATIME);
    }
}
