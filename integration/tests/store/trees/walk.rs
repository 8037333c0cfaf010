//! A tree with all that can be told apart in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use sha2::{Digest as _, Sha256};

pub(super) type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// With what it holds: a file's digest, a link's target, a device's numbers.
    pub(super) what: String,
    /// Of a file, in bytes.
    pub(super) size: u64,
    pub(super) mode: String,
    /// User and group.
    pub(super) owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, i64),
    pub(super) xattrs: BTreeMap<OsString, String>,
    /// The other names that it has.
    pub(super) links: Vec<PathBuf>,
}

/// Everything below a directory, which itself has the empty path.
pub(super) fn walk(root: &Path) -> Tree {
    let (mut tree, mut names) = (Tree::new(), BTreeMap::new());
    step(root, Path::new(""), &mut tree, &mut names);
    for same in names.into_values() {
        for name in &same {
            let others = same.iter().filter(|it| *it != name).cloned().collect();
            tree.entry(name.clone()).and_modify(|it: &mut Entry| it.links = others);
        }
    }
    tree
}

type Names = BTreeMap<(u64, u64), Vec<PathBuf>>;

fn step(root: &Path, below: &Path, tree: &mut Tree, names: &mut Names) {
    let path = root.join(below);
    let meta = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entry = Entry {
        what: what(&path, &meta),
        size: if meta.is_file() { meta.size() } else { 0 },
        mode: format!("{:o}", meta.mode() & 0o7777),
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        xattrs: xattrs(&path),
        links: Vec::new(),
    };
    tree.insert(below.to_owned(), entry);
    if !meta.is_dir() {
        if meta.nlink() > 1 {
            names.entry((meta.dev(), meta.ino())).or_default().push(below.to_owned());
        }
        return;
    }
    let mut children: Vec<_> = fs::read_dir(&path).unwrap().map(|it| it.unwrap().file_name()).collect();
    children.sort();
    for child in children {
        step(root, &below.join(child), tree, names);
    }
}

fn what(path: &Path, meta: &Metadata) -> String {
    let kind = meta.file_type();
    let device = |kind: &str| format!("{kind} device {}:{}", major(meta.rdev()), minor(meta.rdev()));
    if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        let mut hash = Sha256::new();
        io::copy(&mut File::open(path).unwrap(), &mut Hashing(&mut hash)).unwrap();
        format!("file {}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    } else if kind.is_char_device() {
        device("character")
    } else if kind.is_block_device() {
        device("block")
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        "socket".to_owned()
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Names, and values in hexadecimal. What overlayfs writes for itself does not show through a mount.
fn xattrs(path: &Path) -> BTreeMap<OsString, String> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(error) => panic!("{}: list xattrs: {error}", path.display()),
    };
    let names = names[..length].split(|byte| *byte == 0).filter(|it| !it.is_empty());
    names
        .map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let mut value = vec![0; 64 << 10];
            let length = rustix::fs::lgetxattr(path, &name, &mut value).unwrap();
            (name, value[..length].iter().map(|byte| format!("{byte:02x}")).collect())
        })
        .collect()
}
