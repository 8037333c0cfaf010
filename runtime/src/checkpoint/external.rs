//! What of a container comes from outside, so that criu must neither save nor make it: bind mounts, cgroups of the host
//! (version 1), covers of masked files, and namespaces that were joined.
//!
//! Each has a name in the image, by which the restore is told what stands for it then:
//!
//! ```text
//!   a bind mount, a cgroup         its place in the container     what is bound there now: the new bundle's source
//!   a cover of a masked file       /dev/null                      /dev/null
//!   the network or pid namespace   extRootNetNS, extRootPidNS     an open descriptor of the namespace
//! ```
//!
//! The names are runc's. A place is what a destination leads to: criu compares it with the mount table.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::cgroup::{Layout, SavedCgroup, Version};
use crate::checkpoint::below::{self, Declared};
use crate::checkpoint::options::{seen_from, text};
use crate::criu::rpc::{ExternalMount, InheritFd, JoinNamespace};
use crate::error::{Context, Error, Result};
use crate::init::path::locate;
use crate::plan::devices::DeviceNode;
use crate::plan::mounts::{Link, Masks, Mount, Source, SourceLink};
use crate::plan::namespaces::{self, Namespaces};
use crate::sys::mount::Depth;

/// The name of all covers of masked files.
const NULL: &str = "/dev/null";

/// A container's root, to look up where a destination leads.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    prefix: PathBuf,
    process: String,
}

impl View {
    /// The root of a running container, seen through its init.
    pub fn of_process(pid: i32) -> Result<Self> {
        Self::of_directory(pid, Path::new("/"))
    }

    /// A directory that is to be the root, by its path in the mount namespace of a process.
    pub fn of_directory(pid: i32, path: &Path) -> Result<Self> {
        let path = seen_from(Path::new(&format!("/proc/{pid}/root")), path);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(&path, flags, Mode::empty()).on("open", path.display())?;
        let prefix = name_of(&root).on("find the name of", path.display())?;
        Ok(Self { root, prefix, process: pid.to_string() })
    }

    /// Where `destination` leads. What is not there (yet) is where it says.
    fn place(&self, destination: &Path) -> PathBuf {
        let Ok(found) = locate(&self.root, destination, Link::Follow) else { return destination.to_owned() };
        match name_of(&found).as_deref().map(|name| name.strip_prefix(&self.prefix).map(Path::to_owned)) {
            Ok(Ok(below)) => Path::new("/").join(below),
            _ => destination.to_owned(),
        }
    }
}

fn name_of(fd: &OwnedFd) -> std::io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Which directory of the host each cgroup hierarchy of the container shows, by the name it has there.
#[derive(Debug)]
pub struct CgroupPlaces(Vec<(PathBuf, PathBuf)>);

impl CgroupPlaces {
    /// None for version 2 and in a cgroup namespace: what is mounted there is no part of the host's mounts.
    pub fn of(layout: &Layout, cgroup: &SavedCgroup, namespaces: &Namespaces) -> Self {
        if layout.version() != Version::V1 || namespaces.cgroup.is_private() {
            return Self(Vec::new());
        }
        let hierarchies = layout.v1.iter().filter_map(|hierarchy| {
            let directory = cgroup.directories().iter().find(|entry| entry.controllers == hierarchy.controllers)?;
            Some((hierarchy.mount.file_name()?.into(), directory.path.clone()))
        });
        Self(hierarchies.collect())
    }
}

/// The hierarchies to save, by their controllers as the kernel lists them; none named is all.
///
/// On a hybrid host the unified hierarchy is not the container's: what criu would save of it, and write again at a restore,
/// are the settings of the host's own cgroup.
pub fn own_hierarchies(layout: &Layout, cgroup: &SavedCgroup) -> Vec<String> {
    if layout.version() != Version::V1 || layout.v2.is_none() {
        return Vec::new();
    }
    let own = cgroup.directories().iter().filter(|directory| !directory.controllers.is_empty());
    own.map(|directory| directory.controllers.join(",")).collect()
}

/// Everything bound from the host: destination and source.
fn bound(mounts: &[Mount], cgroups: &CgroupPlaces) -> Vec<(PathBuf, PathBuf)> {
    let mut all = Vec::new();
    for mount in mounts {
        match &mount.source {
            // No mount at all, but a link that is made.
            Source::Bind(bind) if bind.link == SourceLink::Copy => {}
            Source::Bind(bind) => all.push((mount.destination.clone(), bind.path.clone())),
            Source::Cgroup => {
                all.extend(cgroups.0.iter().map(|(name, path)| (mount.destination.join(name), path.clone())));
            }
            Source::Filesystem(_) | Source::Remount(_) => {}
        }
    }
    all
}

/// What the configuration names, each with what else may have come with it.
fn declared(view: &View, mounts: &[Mount]) -> Vec<Declared> {
    let tree = |mount: &Mount| match &mount.source {
        Source::Bind(bind) if bind.depth == Depth::Tree && bind.link != SourceLink::Copy => Some(bind.path.clone()),
        _ => None,
    };
    mounts.iter().map(|mount| Declared { place: view.place(&mount.destination), tree: tree(mount) }).collect()
}

/// criu makes bind mounts again as plain ones: the owners in an id-mapped one would not be who they were.
pub fn refuse_idmapped(mounts: &[Mount]) -> Result<()> {
    let idmapped = |mount: &&Mount| matches!(&mount.source, Source::Bind(bind) if bind.idmap.is_some());
    match mounts.iter().find(idmapped) {
        None => Ok(()),
        Some(mount) => Err(Error::unsupported(format!(
            "criu cannot save or restore the id-mapped mount on {}",
            mount.destination.display()
        ))),
    }
}

/// The mounts to leave out of a dump.
pub fn to_dump(
    view: &View,
    mounts: &[Mount],
    cgroups: &CgroupPlaces,
    masks: &Masks,
    devices: &[DeviceNode],
) -> Result<Vec<ExternalMount>> {
    let mut all = Vec::new();
    for (destination, _) in bound(mounts, cgroups) {
        let place = text(&view.place(&destination))?;
        all.push(ExternalMount { key: place.clone(), val: place });
    }
    for place in below::of_container(&below::table(&view.process)?, &declared(view, mounts)) {
        let place = text(&place)?;
        all.push(ExternalMount { key: place.clone(), val: place });
    }
    for path in &masks.masked {
        // A directory is covered by a tmpfs, which criu saves; what is not there is not covered.
        let is_file = locate(&view.root, path, Link::Follow)
            .and_then(nix::sys::stat::fstat)
            .is_ok_and(|found| found.st_mode & nix::libc::S_IFMT != nix::libc::S_IFDIR);
        if is_file {
            all.push(ExternalMount { key: text(&view.place(path))?, val: NULL.to_owned() });
        }
    }
    for device in devices {
        // In a user namespace devices are the host's, bound.
        let place = text(&device.path)?;
        all.push(ExternalMount { key: place.clone(), val: place });
    }
    Ok(all)
}

/// What stands for each of them at a restore.
pub fn to_restore(
    view: &View,
    mounts: &[Mount],
    cgroups: &CgroupPlaces,
    devices: &[DeviceNode],
) -> Result<Vec<ExternalMount>> {
    let mut all = Vec::new();
    for (destination, source) in bound(mounts, cgroups) {
        all.push(ExternalMount { key: text(&view.place(&destination))?, val: text(&source)? });
    }
    for (place, source) in below::of_host(&below::table("self")?, &declared(view, mounts)) {
        all.push(ExternalMount { key: text(&place)?, val: text(&source)? });
    }
    all.push(ExternalMount { key: NULL.to_owned(), val: NULL.to_owned() });
    for device in devices {
        let path = text(&device.path)?;
        all.push(ExternalMount { key: path.clone(), val: path });
    }
    Ok(all)
}

/// The kinds that criu knows as external: its word, the name of the file in /proc/PID/ns, the name in the image.
fn external_kinds(namespaces: &Namespaces) -> [(&namespaces::Source, &'static str, &'static str); 2] {
    [(&namespaces.network, "net", "extRootNetNS"), (&namespaces.pid, "pid", "extRootPidNS")]
}

/// The namespaces that were joined, for a dump: `net[4026531840]:extRootNetNS`.
pub fn joined_namespaces(namespaces: &Namespaces, init: i32) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (source, word, key) in external_kinds(namespaces) {
        if matches!(source, namespaces::Source::Join(_)) {
            // Not the path it was joined by: that may be gone by now.
            let path = format!("/proc/{init}/ns/{word}");
            let found = nix::sys::stat::stat(path.as_str()).on("look at", &path)?;
            all.push(format!("{word}[{}]:{key}", found.st_ino));
        }
    }
    Ok(all)
}

/// The namespaces that a restored container joins.
#[derive(Debug, Default)]
pub struct Namespaced {
    /// Open descriptors of the external ones, to be handed to criu with the same numbers.
    pub open: Vec<OwnedFd>,
    /// What they stand for.
    pub inherited: Vec<InheritFd>,
    /// Those of other kinds, which criu joins by path.
    pub joined: Vec<JoinNamespace>,
}

/// Opens what a restore needs of the namespaces to be joined.
pub fn namespaces_to_join(namespaces: &Namespaces) -> Result<Namespaced> {
    let mut all = Namespaced::default();
    for (source, word, key) in external_kinds(namespaces) {
        if let namespaces::Source::Join(path) = source {
            let file = File::open(path).on(&format!("open the {word} namespace"), path.display())?;
            all.inherited.push(InheritFd { key: key.to_owned(), fd: file.as_fd().as_raw_fd() });
            all.open.push(file.into());
        }
    }
    for (source, word) in [(&namespaces.cgroup, "cgroup"), (&namespaces.time, "time")] {
        if matches!(source, namespaces::Source::Join(_)) {
            return Err(Error::unsupported(format!("criu cannot restore into a {word} namespace given by a path")));
        }
    }
    for (source, word) in
        [(&namespaces.user, "user"), (&namespaces.ipc, "ipc"), (&namespaces.uts, "uts"), (&namespaces.mount, "mnt")]
    {
        if let namespaces::Source::Join(path) = source {
            all.joined.push(JoinNamespace { ns: word.to_owned(), ns_file: text(path)? });
        }
    }
    Ok(all)
}
