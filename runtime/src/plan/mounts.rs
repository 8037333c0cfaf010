//! The root filesystem and the mounts, lowered from the specification: pure, so that every wrong word ends here.
//!
//! What a mount needs of the host (a source's existence, a filesystem the kernel knows) is not looked at here.

mod options;
mod rootfs;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Spec};

use crate::error::{Error, Result};
use crate::plan::namespaces::{self, IdMap, Namespaces};
use crate::sys::mount::Depth;
use options::Meaning;
pub use options::known as known_options;
pub use rootfs::{Access, Attach, Masks, Privacy, RootChange, RootfsPlan, lower_masks, lower_rootfs};

/// More mounts than any kernel's default `fs.mount-max` allows in one namespace.
const MOST_MOUNTS: usize = 100_000;

/// One entry of `mounts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, in the container: absolute and clean, never `/`.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: Source,
    /// Attributes of this mount.
    pub attributes: Attributes,
    /// Attributes of it and all mounts below it.
    pub tree_attributes: Attributes,
    /// Propagation, applied in this order.
    pub propagation: Vec<Propagation>,
    /// Whether a symbolic link at the destination is mounted over or followed (inside the container's root).
    pub destination_link: Link,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or directory of the host.
    Bind(Bind),
    /// A new instance (or another mount) of a filesystem.
    Filesystem(Filesystem),
    /// The container's view of the cgroups, whatever their version.
    Cgroup,
    /// Nothing new: what is mounted there already changes its options.
    Remount(Filesystem),
}

/// A bind mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The source on the host, absolute.
    pub path: PathBuf,
    /// Whether the mounts below the source come along.
    pub depth: Depth,
    /// What a symbolic link as the source means.
    pub link: SourceLink,
    /// The mapping of owners, if there is one.
    pub idmap: Option<Idmap>,
}

/// A filesystem to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Its type, as in /proc/filesystems.
    pub kind: CString,
    /// The device or name that the mount table shows.
    pub name: CString,
    /// `MS_` bits that concern the filesystem itself.
    pub super_flags: u64,
    /// Its own options, as words or `key=value`, none of which contains a nul byte.
    pub data: Vec<String>,
    /// `tmpcopyup`: whether the directory's files are copied into it first.
    pub copy_up: CopyUp,
    /// The SELinux label that its root directory gets once it is mounted.
    pub root_label: Option<CString>,
}

/// Whether a new tmpfs starts with the files of the directory it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyUp {
    /// It starts empty.
    No,
    /// It starts with a copy.
    Yes,
}

/// What to do with a symbolic link as a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Follow it, inside the container's root.
    Follow,
    /// Mount over the link itself.
    Itself,
}

/// What to do with a symbolic link as a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceLink {
    /// Mount what it points to.
    Follow,
    /// Mount the link itself.
    Itself,
    /// Make the same link at the destination instead of a mount.
    Copy,
}

/// Bits to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

impl Attributes {
    /// Whether nothing changes.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// A change of propagation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`.
    pub flag: u64,
    /// Of the mount, or of it and all below.
    pub depth: Depth,
}

/// An id-mapped mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idmap {
    /// The mount, or all mounts of the tree.
    pub depth: Depth,
    /// Where the mapping comes from.
    pub mapping: Mapping,
}

/// The source of a mapping of owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Given in numbers.
    Ids(IdMaps),
    /// That of the user namespace at this path, which the container joins.
    Namespace(PathBuf),
}

/// Lines of `uid_map` and `gid_map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// The users.
    pub uids: Vec<IdMap>,
    /// The groups.
    pub gids: Vec<IdMap>,
}

/// Lowers all of `mounts`. `bundle` is the bundle's absolute directory, which relative bind sources start from.
pub fn lower(spec: &Spec, bundle: &Path, namespaces: &Namespaces) -> Result<Vec<Mount>> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if mounts.len() > MOST_MOUNTS {
        return Err(Error::invalid(format!("mounts has {} entries: at most {MOST_MOUNTS} are possible", mounts.len())));
    }
    let label = spec.linux().as_ref().and_then(|linux| linux.mount_label().as_deref()).unwrap_or_default();
    let context = Context { label, bundle, namespaces };
    mounts
        .iter()
        .enumerate()
        .map(|(index, mount)| {
            context.mount(mount).map_err(|wrong| {
                Error::invalid(format!("mounts[{index}] ({}): {wrong}", mount.destination().display()))
            })
        })
        .collect()
}

struct Context<'a> {
    label: &'a str,
    bundle: &'a Path,
    namespaces: &'a Namespaces,
}

/// The words of one entry, sorted by what they concern.
#[derive(Default)]
struct Words {
    attributes: Attributes,
    tree_attributes: Attributes,
    super_flags: u64,
    propagation: Vec<Propagation>,
    bind: Option<Depth>,
    idmap: Option<Depth>,
    data: Vec<String>,
    remount: bool,
    copy_up: bool,
    source_no_follow: bool,
    destination_no_follow: bool,
    copy_symlink: bool,
}

impl Words {
    fn read(options: &[String]) -> Result<Self, String> {
        let mut words = Self::default();
        for word in options {
            let Some(meaning) = options::meaning(word) else {
                if word.contains('\0') {
                    return Err(format!("the option {word:?} contains a nul byte"));
                }
                words.data.push(word.clone());
                continue;
            };
            words.take(meaning);
        }
        Ok(words)
    }

    fn take(&mut self, meaning: Meaning) {
        match meaning {
            Meaning::Nothing => {}
            Meaning::Set(bits) => self.attributes.set(bits),
            Meaning::Clear(bits) => self.attributes.clear(bits),
            Meaning::Atime(value) => self.attributes.atime(value),
            Meaning::SetTree(bits) => self.tree_attributes.set(bits),
            Meaning::ClearTree(bits) => self.tree_attributes.clear(bits),
            Meaning::AtimeTree(value) => self.tree_attributes.atime(value),
            Meaning::SetSuper(bits) => self.super_flags |= bits,
            Meaning::ClearSuper(bits) => self.super_flags &= !bits,
            Meaning::Propagate(propagation) => self.propagation.push(propagation),
            Meaning::Bind(depth) => self.bind = Some(depth),
            Meaning::Idmap(depth) => self.idmap = Some(depth),
            Meaning::Remount => self.remount = true,
            Meaning::CopyUp => self.copy_up = true,
            Meaning::SourceNoFollow => self.source_no_follow = true,
            Meaning::DestinationNoFollow => self.destination_no_follow = true,
            Meaning::CopySymlink => self.copy_symlink = true,
        }
    }
}

impl Context<'_> {
    fn mount(&self, mount: &oci_spec::runtime::Mount) -> Result<Mount, String> {
        let words = Words::read(mount.options().as_deref().unwrap_or_default())?;
        let destination = clean(mount.destination())?;
        let kind = mount.typ().as_deref().unwrap_or_default();
        let is_bind = words.bind.is_some() || kind == "bind" && !words.remount;
        let idmapped = words.idmap.is_some() || mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
        if idmapped && !is_bind {
            return Err("only a bind mount can be id-mapped".into());
        }
        if !is_bind && (words.source_no_follow || words.copy_symlink) {
            return Err("src-nofollow and copy-symlink are options of a bind mount".into());
        }
        if words.copy_up && kind != "tmpfs" {
            return Err("tmpcopyup is an option of a tmpfs".into());
        }
        let source = if words.remount {
            Source::Remount(self.filesystem(mount, kind, &words)?)
        } else if is_bind {
            Source::Bind(self.bind(mount, &words)?)
        } else if kind == "cgroup" {
            Source::Cgroup
        } else if kind.is_empty() {
            return Err("it has neither a type nor the option bind".into());
        } else {
            Source::Filesystem(self.filesystem(mount, kind, &words)?)
        };
        Ok(Mount {
            destination,
            source,
            attributes: words.attributes,
            tree_attributes: words.tree_attributes,
            propagation: words.propagation,
            destination_link: if words.destination_no_follow { Link::Itself } else { Link::Follow },
        })
    }

    fn bind(&self, mount: &oci_spec::runtime::Mount, words: &Words) -> Result<Bind, String> {
        let path = match mount.source() {
            Some(source) if !source.as_os_str().is_empty() => self.bundle.join(source),
            _ => return Err("a bind mount needs a source".into()),
        };
        if path.as_os_str().as_bytes().contains(&0) {
            return Err("the source contains a nul byte".into());
        }
        Ok(Bind {
            path,
            depth: words.bind.unwrap_or(Depth::One),
            link: match (words.copy_symlink, words.source_no_follow) {
                (true, _) => SourceLink::Copy,
                (false, true) => SourceLink::Itself,
                (false, false) => SourceLink::Follow,
            },
            idmap: self.idmap(mount, words)?,
        })
    }

    fn filesystem(&self, mount: &oci_spec::runtime::Mount, kind: &str, words: &Words) -> Result<Filesystem, String> {
        let name = mount.source().as_deref().map_or(kind.as_bytes(), |source| source.as_os_str().as_bytes());
        let mut data = words.data.clone();
        // Of the kernel's own filesystems these refuse a label of their own.
        let labelled = !matches!(kind, "proc" | "sysfs" | "cgroup" | "cgroup2") && !words.remount;
        let (label, mut root_label) = (self.label, None);
        if labelled && !label.is_empty() {
            if label.contains(['"', '\0']) {
                return Err(format!("linux.mountLabel {label:?} is not an SELinux label"));
            }
            match kind {
                // It was made with the ipc namespace, and takes no label as a whole any more.
                "mqueue" => root_label = CString::new(label).ok(),
                _ => data.push(format!("context=\"{label}\"")),
            }
        }
        Ok(Filesystem {
            kind: CString::new(kind).map_err(|_| "the type contains a nul byte")?,
            name: CString::new(name).map_err(|_| "the source contains a nul byte")?,
            super_flags: words.super_flags,
            data,
            copy_up: if words.copy_up { CopyUp::Yes } else { CopyUp::No },
            root_label,
        })
    }

    fn idmap(&self, mount: &oci_spec::runtime::Mount, words: &Words) -> Result<Option<Idmap>, String> {
        let uids = mount.uid_mappings().as_deref().unwrap_or_default();
        let gids = mount.gid_mappings().as_deref().unwrap_or_default();
        if uids.is_empty() != gids.is_empty() {
            return Err("uidMappings and gidMappings must be given together".into());
        }
        let depth = match words.idmap {
            Some(depth) => depth,
            None if uids.is_empty() => return Ok(None),
            None => Depth::One,
        };
        let mapping = if uids.is_empty() {
            self.container_mapping()?
        } else {
            Mapping::Ids(IdMaps { uids: lines("uidMappings", uids)?, gids: lines("gidMappings", gids)? })
        };
        Ok(Some(Idmap { depth, mapping }))
    }

    /// The mapping of the container's own user namespace, which `idmap` without a mapping means.
    fn container_mapping(&self) -> Result<Mapping, String> {
        let Namespaces { user, uid_maps, gid_maps, .. } = self.namespaces;
        match user {
            namespaces::Source::New => Ok(Mapping::Ids(IdMaps { uids: uid_maps.clone(), gids: gid_maps.clone() })),
            namespaces::Source::Join(path) => Ok(Mapping::Namespace(path.clone())),
            namespaces::Source::Inherit => {
                Err("idmap without uidMappings and gidMappings needs a container with a user namespace".into())
            }
        }
    }
}

fn lines(field: &str, mappings: &[LinuxIdMapping]) -> Result<Vec<IdMap>, String> {
    // The kernel's own limit (UID_GID_MAP_MAX_EXTENTS).
    if mappings.len() > 340 {
        return Err(format!("{field} has {} entries: at most 340 are possible", mappings.len()));
    }
    mappings
        .iter()
        .map(|mapping| {
            let (inside, outside, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
            let ends = [inside, outside].map(|start| start.checked_add(size));
            if size == 0 || ends.contains(&None) {
                return Err(format!("{field} maps {size} ids from {inside} to {outside}, which is not a range of ids"));
            }
            Ok(IdMap { container: inside, host: outside, size })
        })
        .collect()
}

/// A path in the container as every later step may use it: absolute, without `.`, `..` and nul, and not `/`.
///
/// A relative destination is taken from `/`, as runc does for old configurations. `..` is resolved by name: symbolic
/// links are only known once there is a root to look in.
fn clean(path: &Path) -> Result<PathBuf, String> {
    let mut cleaned = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::Normal(name) if name.as_bytes().contains(&0) => return Err("it contains a nul byte".into()),
            Component::Normal(name) => cleaned.push(name),
        }
    }
    if path.as_os_str().is_empty() {
        return Err("the destination is empty".into());
    }
    if cleaned == Path::new("/") {
        return Err("the destination is the container's root, which root.path names".into());
    }
    Ok(cleaned)
}

#[cfg(test)]
mod tests;
