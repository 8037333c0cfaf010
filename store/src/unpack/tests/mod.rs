//! What becomes of layers built for it: by the form on disk, by the tree that an overlay shows, by the error.

mod across;
mod attacks;
mod closed;
mod forms;
pub(crate) mod layer;
mod rights;
mod streams;

use std::ffi::OsStr;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use tempfile::TempDir;

use super::attributes::{xattrs, xattrs_at};
use super::{Extracted, Form, Options, extract};
use crate::error::Result;
use layer::{Item, archive};

pub(super) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub(super) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// False, and says so, where the tests' owners and devices cannot be made.
pub(crate) fn is_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: {test} needs root");
    }
    root
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

/// A directory that trees are made below.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ready(&self, name: &str) -> (PathBuf, OwnedFd) {
        let path = self.path(name);
        if !path.is_dir() {
            fs::create_dir(&path).unwrap();
        }
        let fd = open(&path);
        (path, fd)
    }

    /// The layer in overlayfs' form, above those given, top first.
    pub(crate) fn overlay(&self, name: &str, lowers: &[&str], bytes: &[u8]) -> Result<Extracted> {
        self.overlay_with(name, lowers, bytes, &Options::default())
    }

    pub(crate) fn overlay_with(
        &self,
        name: &str,
        lowers: &[&str],
        bytes: &[u8],
        options: &Options,
    ) -> Result<Extracted> {
        let (_, root) = self.ready(name);
        let below = || Ok(lowers.iter().map(|name| open(&self.path(name))).collect());
        extract(bytes, PLAIN, root.as_fd(), &Form::Overlay { lowers: &below, userxattr: false }, options, &|_| {})
    }

    /// The layer applied to a whole tree.
    pub(crate) fn tree(&self, name: &str, bytes: &[u8]) -> Result<Extracted> {
        self.tree_with(name, bytes, &Options::default())
    }

    pub(crate) fn tree_with(&self, name: &str, bytes: &[u8], options: &Options) -> Result<Extracted> {
        let (_, root) = self.ready(name);
        extract(bytes, PLAIN, root.as_fd(), &Form::Tree, options, &|_| {})
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        list(&self.path(name))
    }

    /// What an overlay of these shows, top first: mounted in a mount namespace of a thread that ends with it.
    pub(crate) fn merged(&self, layers: &[&str]) -> Vec<String> {
        let lower = layers.iter().map(|name| self.path(name).display().to_string()).collect::<Vec<_>>().join(":");
        let empty = self.path("empty");
        let _ = fs::create_dir(&empty);
        let at = self.path("mounted");
        let _ = fs::create_dir(&at);
        std::thread::scope(|scope| {
            let listing = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
                let data = format!("lowerdir={lower}:{}", empty.display());
                mount(Some("overlay"), &at, Some("overlay"), MsFlags::MS_RDONLY, Some(&*data)).unwrap();
                list(&at)
            });
            listing.join().unwrap()
        })
    }
}

/// One line a file: everything that two trees can differ in. Hard links are named by the first path.
pub(crate) fn list(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut seen = std::collections::HashMap::new();
    walk(root, Path::new(""), &mut seen, &mut lines);
    // An overlay counts the names of a lower file too that are hidden.
    let alone: Vec<String> =
        seen.into_values().filter(|it| lines.iter().filter(|line| line.contains(it)).count() < 2).collect();
    for line in &mut lines {
        for name in alone.iter().filter(|name| line.contains(&***name)).collect::<Vec<_>>() {
            *line = line.replace(&**name, "");
        }
    }
    lines
}

fn walk(root: &Path, at: &Path, seen: &mut std::collections::HashMap<(u64, u64), String>, lines: &mut Vec<String>) {
    let path = root.join(at);
    let stat = fs::symlink_metadata(&path).unwrap();
    let kind = stat.file_type();
    let letter = match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_file() => '-',
        () if kind.is_fifo() => 'p',
        () if kind.is_char_device() => 'c',
        () => 'b',
    };
    let parent = open(path.parent().unwrap());
    let attributes = match letter {
        'd' | '-' => xattrs(open(&path).as_fd()).unwrap(),
        _ => xattrs_at(parent.as_fd(), path.file_name().unwrap_or(OsStr::new("")).as_bytes()).unwrap(),
    };
    let mut line = format!(
        "/{} {letter}{:o} {}:{} {}.{}",
        at.display(),
        stat.mode() & 0o7777,
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec()
    );
    match letter {
        '-' => {
            let data = fs::read(&path).unwrap();
            let text = if data.len() < 40 {
                String::from_utf8_lossy(&data).into_owned()
            } else {
                super::Digest::of(&data).to_string()
            };
            line += &format!(" {}:{text}", data.len());
        }
        'l' => line += &format!(" -> {}", fs::read_link(&path).unwrap().display()),
        'c' | 'b' => line += &format!(" {}:{}", nix::sys::stat::major(stat.rdev()), nix::sys::stat::minor(stat.rdev())),
        _ => {}
    }
    if letter != 'd' && stat.nlink() > 1 {
        let first = seen.entry((stat.dev(), stat.ino())).or_insert_with(|| format!(" ={}", at.display()));
        line += first;
    }
    for (name, value) in attributes.iter().filter(|(name, _)| name != b"security.selinux") {
        line += &format!(" {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    }
    lines.push(line);
    if letter == 'd' {
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|item| item.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &at.join(name), seen, lines);
        }
    }
}

/// The lines of a listing that begin with this path and a blank.
pub(crate) fn line<'l>(lines: &'l [String], path: &str) -> Option<&'l str> {
    lines.iter().find_map(|line| line.strip_prefix(path)?.strip_prefix(' '))
}

pub(crate) fn paths(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|line| line.split(' ').next().unwrap()).collect()
}

/// Applies the layers one after the other to a whole tree, and extracts each into overlayfs' form; both must show the same.
pub(super) fn both(layers: &[Vec<Item>]) -> Vec<String> {
    let place = Place::new();
    let names: Vec<String> = (0..layers.len()).map(|it| format!("layer{it}")).collect();
    for (number, items) in layers.iter().enumerate() {
        place.tree("tree", &archive(items)).unwrap();
        let lowers: Vec<&str> = names[..number].iter().rev().map(|it| &**it).collect();
        place.overlay(&names[number], &lowers, &archive(items)).unwrap();
    }
    let tree = place.list("tree");
    let merged = place.merged(&names.iter().rev().map(|it| &**it).collect::<Vec<_>>());
    // A root that no layer speaks of is the directory that was there.
    assert_eq!(tree[1..], merged[1..], "the whole tree, and the overlay");
    merged
}
