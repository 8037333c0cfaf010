//! A container's root as a descriptor: a mount that is attached nowhere and goes with its last descriptor, or a process's root.
//!
//! What the store calls the mounts of a snapshot are here only looked through or written into for a moment; what the container itself
//! runs on is mounted by its shim.
//!
//! | | made of | for |
//! |---|---|---|
//! | [`view`] | upper and lower directories, all as lower ones: it can be made beside the container's own | users, copy-up, diff, export |
//! | [`writable`] | as the store says | writing into a container that does not run |
//! | [`of_process`] | /proc/PID/root | a container that runs: with all that is mounted in it |

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use tare_proto::types::Mount;

use crate::error::{Context, Error, Result};

/// The directories of a root.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layers {
    /// Where changes are; none for a plain directory.
    pub upper: Option<PathBuf>,
    /// Where the kernel prepares changes.
    pub work: Option<PathBuf>,
    /// What it stands on, the top one first; or the plain directory.
    pub lower: Vec<PathBuf>,
    /// Its other options, as `index=off`.
    pub options: Vec<String>,
}

/// Takes a snapshot's mounts apart.
///
/// # Errors
/// They are neither one overlay nor one bound directory.
pub fn layers(mounts: &[Mount]) -> Result<Layers> {
    let [mount] = mounts else {
        return Err(Error::failed(format!("the store gave {} mounts for a root, and one is understood", mounts.len())));
    };
    let mut layers = Layers::default();
    match mount.type_.as_str() {
        "bind" | "rbind" => layers.lower.push(PathBuf::from(&mount.source)),
        "overlay" => {
            for option in &mount.options {
                match option.split_once('=') {
                    Some(("lowerdir", list)) => layers.lower.extend(split(list).map(PathBuf::from)),
                    Some(("upperdir", path)) => layers.upper = Some(PathBuf::from(path)),
                    Some(("workdir", path)) => layers.work = Some(PathBuf::from(path)),
                    _ => layers.options.push(option.clone()),
                }
            }
        }
        other => return Err(Error::failed(format!("the store gave a mount of type {other:?} for a root"))),
    }
    Ok(layers)
}

/// At colons, but not at `\:`.
fn split(list: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = Some(list);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut part = String::new();
        let mut characters = text.char_indices();
        while let Some((index, character)) = characters.next() {
            match character {
                '\\' => part.extend(characters.next().map(|(_, next)| next)),
                ':' => {
                    rest = Some(&text[index + 1..]);
                    return Some(part);
                }
                other => part.push(other),
            }
        }
        rest = None;
        Some(part)
    })
}

/// The root as it is, to be read.
///
/// # Errors
/// The kernel refuses the mount.
pub fn view(mounts: &[Mount]) -> Result<OwnedFd> {
    let mut layers = layers(mounts)?;
    layers.lower.splice(0..0, layers.upper.take());
    layers.work = None;
    mount(&layers)
}

/// Only what the root stands on, to be read; none if it stands on nothing.
///
/// # Errors
/// The kernel refuses the mount.
pub fn below(mounts: &[Mount]) -> Result<Option<OwnedFd>> {
    let mut layers = layers(mounts)?;
    if layers.upper.take().is_none() || layers.lower.is_empty() {
        return Ok(None);
    }
    layers.work = None;
    mount(&layers).map(Some)
}

/// The root as it is, to be written. Nothing else may have it mounted meanwhile.
///
/// # Errors
/// The kernel refuses the mount.
pub fn writable(mounts: &[Mount]) -> Result<OwnedFd> {
    mount(&layers(mounts)?)
}

/// The root that a process has, with everything that is mounted there.
///
/// # Errors
/// There is no such process.
pub fn of_process(pid: u32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("open the container's root {path}"))
}

fn mount(layers: &Layers) -> Result<OwnedFd> {
    let what = || format!("mount the container's root for a look at it ({})", name(layers));
    if let ([only], None) = (layers.lower.as_slice(), &layers.upper) {
        // One directory alone is no overlay. Without what is mounted below it.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        return rustix::mount::open_tree(CWD, only, flags).context(what);
    }
    let mut refused = String::new();
    for way in [Way::OneByOne, Way::Numbers] {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context(what)?;
        match overlay(&context, layers, way) {
            Ok(mounted) => return Ok(mounted),
            Err(error) => refused = format!("{}{}", std::io::Error::from(error), said(context)),
        }
    }
    Err(Error::failed(format!("{}: {refused}", what())))
}

fn name(layers: &Layers) -> String {
    layers.upper.as_ref().or(layers.lower.first()).map(|it| it.display().to_string()).unwrap_or_default()
}

/// How an overlay is told its lower directories.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Since Linux 6.7.
    OneByOne,
    /// Before: all in one text of at most 255 bytes, in which a directory's name is its descriptor's number.
    Numbers,
}

fn overlay(context: &OwnedFd, layers: &Layers, way: Way) -> rustix::io::Result<OwnedFd> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount};
    let context = context.as_fd();
    fsconfig_set_string(context, "source", "tarectl")?;
    for option in &layers.options {
        match option.split_once('=') {
            Some((name, value)) => fsconfig_set_string(context, name, value)?,
            None => fsconfig_set_flag(context, option.as_str())?,
        }
    }
    if let (Some(upper), Some(work)) = (&layers.upper, &layers.work) {
        fsconfig_set_string(context, "upperdir", upper)?;
        fsconfig_set_string(context, "workdir", work)?;
    }
    match way {
        Way::OneByOne => {
            for path in &layers.lower {
                fsconfig_set_string(context, "lowerdir+", path)?;
            }
            fsconfig_create(context)?;
        }
        Way::Numbers => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
            let dirs = layers.lower.iter().map(|path| open(path)).collect::<rustix::io::Result<Vec<_>>>()?;
            let names: Vec<String> = dirs.iter().map(|dir| dir.as_raw_fd().to_string()).collect();
            let home = open(Path::new("."))?;
            rustix::process::chdir("/proc/self/fd")?;
            // Kernels before 6.5 look the names up only when the file system is made.
            let made =
                fsconfig_set_string(context, "lowerdir", names.join(":")).and_then(|()| fsconfig_create(context));
            rustix::process::fchdir(home)?;
            made?;
        }
    }
    let attributes = if layers.upper.is_none() { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// What the kernel said while it refused.
fn said(context: OwnedFd) -> String {
    let mut context = File::from(context);
    let mut line = [0; 512];
    let mut text = String::new();
    while let Ok(length) = context.read(&mut line) {
        text.push_str(&format!(" ({})", String::from_utf8_lossy(&line[..length]).trim_start_matches("e ").trim_end()));
        if length == 0 || text.len() > 2048 {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay_mount(options: &[&str]) -> Mount {
        Mount {
            type_: "overlay".to_owned(),
            options: options.iter().map(|it| (*it).to_owned()).collect(),
            ..Mount::new()
        }
    }

    #[test]
    fn a_snapshots_mounts_are_taken_apart() {
        let found =
            layers(&[overlay_mount(&["index=off", "workdir=/w", "upperdir=/u", r"lowerdir=/a\:b:/c"])]).unwrap();
        assert_eq!(found.lower, [PathBuf::from("/a:b"), PathBuf::from("/c")]);
        assert_eq!((found.upper, found.work), (Some("/u".into()), Some("/w".into())));
        assert_eq!(found.options, ["index=off"]);
        let bind = Mount { type_: "bind".to_owned(), source: "/x".to_owned(), ..Mount::new() };
        assert_eq!(layers(std::slice::from_ref(&bind)).unwrap().lower, [PathBuf::from("/x")]);
        assert!(layers(&[bind.clone(), bind]).is_err());
        assert!(layers(&[]).is_err());
        assert!(layers(&[Mount { type_: "erofs".to_owned(), ..Mount::new() }]).is_err());
    }

    /// A tree of a lower, an upper and a working directory.
    fn tree() -> (tempfile::TempDir, Mount) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("lower/below"), "below").unwrap();
        std::fs::write(dir.path().join("upper/above"), "above").unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let mount = overlay_mount(&[
            &format!("upperdir={}", at("upper")),
            &format!("workdir={}", at("work")),
            &format!("lowerdir={}", at("lower")),
        ]);
        (dir, mount)
    }

    #[test]
    fn roots_are_seen_and_written_through_detached_mounts() {
        if !rustix::process::geteuid().is_root() {
            return crate::testing::skip("mounts need root");
        }
        let (dir, mount) = tree();
        let mounts = std::slice::from_ref(&mount);
        let read = |root: &OwnedFd, name: &str| crate::beneath::read(root, Path::new(name), 100).unwrap();
        let seen = view(mounts).unwrap();
        assert_eq!(read(&seen, "below").unwrap(), b"below");
        assert_eq!(read(&seen, "above").unwrap(), b"above");
        let refused = rustix::fs::mkdirat(&seen, "made", Mode::from_raw_mode(0o755)).unwrap_err();
        assert_eq!(refused, rustix::io::Errno::ROFS);
        let lower = below(mounts).unwrap().unwrap();
        assert_eq!((read(&lower, "below").is_some(), read(&lower, "above").is_some()), (true, false));
        drop((seen, lower));
        let written = writable(mounts).unwrap();
        rustix::fs::mkdirat(&written, "made", Mode::from_raw_mode(0o755)).unwrap();
        drop(written);
        assert!(dir.path().join("upper/made").is_dir());
        let mounted = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounted.contains(&dir.path().display().to_string()), "it is attached nowhere");
        // As kernels before 6.7 need it.
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let by_number = overlay(&context, &layers(mounts).unwrap(), Way::Numbers).unwrap();
        assert_eq!(read(&by_number, "below").unwrap(), b"below");
    }
}
