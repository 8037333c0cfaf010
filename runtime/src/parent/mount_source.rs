//! The host's side of the mounts: the root and every source of a bind mount as a detached tree, with all its attributes.
//!
//! init then attaches descriptors and resolves no path of the host. A detached copy is a peer of the host's mount, so what
//! keeps them apart is set here, before anything is attached or mounted on it.
//!
//! The root is taken before init exists; a bind mount's source when init asks for it ([`Binds`]): since Linux 6.8 the mount
//! table is in the order in which mounts are made, not attached, and that must be the order of the configuration.
//!
//! Copying a mount needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace. A caller without it has that
//! privilege only in the namespaces the container gets: [`Sources`] then stays empty, and init takes the same steps itself,
//! the root ([`Sources::complete`]) as the first thing in its new namespaces, which are still a plain copy of the host's:
//! nothing of an image has been touched, and no container process exists.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::init::attributes::Changes;
use crate::init::cgroup_mount;
use crate::parent::idmap_source::IdmapNamespaces;
use crate::plan::cgroup_view::{CgroupView, Hierarchy, Scope, Version};
use crate::plan::devices::DeviceNode;
use crate::plan::mounts::{Attributes, Bind, Mount, Privacy, RootfsPlan, Source, SourceLink};
use crate::plan::namespaces::{self, Namespaces};
use crate::sys::mount::{Depth, Symlink, clone_tree};

/// What of the plan concerns the host's files.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The root.
    pub rootfs: &'a RootfsPlan,
    /// All mounts, in order.
    pub mounts: &'a [Mount],
    /// All device nodes, in order.
    pub devices: &'a [DeviceNode],
    /// Decides what is bound because it cannot be made.
    pub namespaces: &'a Namespaces,
}

/// The trees for the root, the mounts and the devices.
#[derive(Debug, Default)]
pub struct Sources {
    /// The root; absent until [`Sources::complete`] where the caller lacks the privilege.
    pub(crate) root: Option<Tree>,
    /// One for each device node, where nodes cannot be made.
    pub(crate) devices: Vec<Option<OwnedFd>>,
    /// The host's /sys, where a new sysfs may be refused.
    pub(crate) sysfs: Option<Tree>,
    by: By,
}

/// Who opens the sources of bind mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The parent, when init asks.
    #[default]
    Parent,
    /// init, because the parent lacks the privilege.
    Init,
}

/// The source of a bind mount.
#[derive(Debug)]
pub enum Opened {
    /// A tree to be attached.
    Tree(Tree),
    /// `copy-symlink`: a link with this text.
    Link(PathBuf),
}

/// A detached tree.
#[derive(Debug)]
pub struct Tree {
    pub(crate) fd: OwnedFd,
    /// What could not be changed while it is detached, because the kernel is older than 5.12.
    pub(crate) pending: Option<Changes>,
}

/// What [`Opened`] is without its descriptor, for a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenedKind {
    /// A tree as it shall be.
    Tree,
    /// A tree whose attributes and propagation are yet to be set.
    PendingTree,
    /// A link with this text.
    Link(PathBuf),
}

/// Opens the sources of bind mounts, in any number of steps.
#[derive(Debug)]
pub struct Binds {
    privacy: Privacy,
    idmaps: IdmapNamespaces,
}

impl Binds {
    /// For the mounts of a container with this root.
    pub fn new(rootfs: &RootfsPlan) -> Self {
        Self { privacy: rootfs.privacy, idmaps: IdmapNamespaces::default() }
    }

    /// Opens the sources of `mounts`, all of which are bind mounts.
    pub fn open(&mut self, mounts: &[Mount]) -> Result<Vec<Opened>> {
        mounts
            .iter()
            .map(|mount| match &mount.source {
                Source::Bind(bind) => open_bind(mount, bind, self.privacy, &mut self.idmaps),
                _ => Err(Error::new(Kind::System, format!("{} is no bind mount", mount.destination.display()))),
            })
            .collect()
    }
}

/// Takes sources apart for a message; the descriptors go with it.
pub fn pack(opened: &[Opened]) -> (Vec<OpenedKind>, Vec<&OwnedFd>) {
    let kind = |opened: &Opened| match opened {
        Opened::Tree(Tree { pending: None, .. }) => OpenedKind::Tree,
        Opened::Tree(Tree { pending: Some(_), .. }) => OpenedKind::PendingTree,
        Opened::Link(text) => OpenedKind::Link(text.clone()),
    };
    let fd = |opened| match opened {
        &Opened::Tree(Tree { ref fd, .. }) => Some(fd),
        Opened::Link(_) => None,
    };
    (opened.iter().map(kind).collect(), opened.iter().filter_map(fd).collect())
}

/// Puts the sources of `mounts` together from a message.
pub fn unpack(kinds: Vec<OpenedKind>, fds: Vec<OwnedFd>, mounts: &[Mount], rootfs: &RootfsPlan) -> Result<Vec<Opened>> {
    let wrong = || Error::new(Kind::System, "the parent sent other sources of mounts than it was asked for");
    if kinds.len() != mounts.len() {
        return Err(wrong());
    }
    let mut fds = fds.into_iter();
    kinds
        .into_iter()
        .zip(mounts)
        .map(|(kind, mount)| {
            let pending = match (kind, &mount.source) {
                (OpenedKind::Link(text), _) => return Ok(Opened::Link(text)),
                (OpenedKind::Tree, _) => None,
                (OpenedKind::PendingTree, Source::Bind(bind)) => Some(changes(mount, bind, rootfs.privacy)),
                (OpenedKind::PendingTree, _) => return Err(wrong()),
            };
            Ok(Opened::Tree(Tree { fd: fds.next().ok_or_else(wrong)?, pending }))
        })
        .collect()
}

/// Takes all that `wanted` needs of the host. To be called before init is made; see above for callers without privilege.
pub fn open(wanted: Wanted<'_>) -> Result<Sources> {
    let mut sources = Sources::default();
    match sources.complete(wanted) {
        Err(error) if sources.root.is_none() && error.errno() == Some(Errno::EPERM) => {
            Ok(Sources { by: By::Init, ..Sources::default() })
        }
        result => result.map(|()| sources),
    }
}

impl Sources {
    /// Who opens the sources of bind mounts.
    pub fn by(&self) -> By {
        self.by
    }

    /// Takes what is not there yet: nothing, unless the caller of [`open`] lacked the privilege.
    pub fn complete(&mut self, wanted: Wanted<'_>) -> Result<()> {
        if self.root.is_some() {
            return Ok(());
        }
        let privacy = wanted.rootfs.privacy;
        self.root = Some(root(wanted.rootfs)?);
        if wanted.namespaces.user.is_private() {
            for device in wanted.devices {
                self.devices.push(Some(open_device(device)?));
            }
            if needs_sysfs(wanted) {
                self.sysfs = Some(open_sysfs(privacy)?);
            }
        }
        Ok(())
    }
}

/// A new sysfs shows the devices of a network namespace and is for that one's owner only: a container that is in a user
/// namespace, but shares a network namespace from outside, is refused one.
fn needs_sysfs(wanted: Wanted<'_>) -> bool {
    !matches!(wanted.namespaces.network, namespaces::Source::New)
        && wanted.mounts.iter().any(|mount| matches!(&mount.source, Source::Filesystem(new) if *new.kind == *c"sysfs"))
}

fn open_sysfs(privacy: Privacy) -> Result<Tree> {
    let tree = clone_tree(AT_FDCWD, "/sys", Depth::Tree, Symlink::Itself).on("open", "/sys")?;
    let none = Attributes::default();
    settle(tree, Changes::of_bind(Depth::Tree, none, none, &[], privacy)).on("set the propagation of", "/sys")
}

fn root(plan: &RootfsPlan) -> Result<Tree> {
    let shown = plan.path.display();
    // The empty last component makes the kernel refuse what is not a directory.
    let fd =
        clone_tree(AT_FDCWD, &plan.path.join(""), Depth::Tree, Symlink::Follow).on("open the root directory", shown)?;
    let none = Attributes::default();
    let changes = match plan.privacy {
        // The root itself never stays a peer of the host's mount: what is mounted on it would appear on the host.
        Privacy::Kept => Changes::of_bind(Depth::One, none, none, &[], Privacy::Private),
        privacy => Changes::of_bind(Depth::Tree, none, none, &[], privacy),
    };
    settle(fd, changes).on("set the propagation of", plan.path.display())
}

/// Changes a detached tree, or notes that this can only be done once it is attached.
fn settle(fd: OwnedFd, changes: Changes) -> Result<Tree, Errno> {
    match changes.apply(&fd) {
        Ok(()) => Ok(Tree { fd, pending: None }),
        Err(Errno::ENOSYS) => Ok(Tree { fd, pending: Some(changes) }),
        Err(errno) => Err(errno),
    }
}

fn changes(mount: &Mount, bind: &Bind, privacy: Privacy) -> Changes {
    Changes::of_bind(bind.depth, mount.attributes, mount.tree_attributes, &mount.propagation, privacy)
}

fn open_bind(mount: &Mount, bind: &Bind, privacy: Privacy, idmaps: &mut IdmapNamespaces) -> Result<Opened> {
    let what = || format!("mount {} on {}", bind.path.display(), mount.destination.display());
    if bind.link == SourceLink::Copy
        && let Ok(target) = fs::read_link(&bind.path)
    {
        return Ok(Opened::Link(target));
    }
    let symlink = match bind.link {
        SourceLink::Itself => Symlink::Itself,
        SourceLink::Follow | SourceLink::Copy => Symlink::Follow,
    };
    let fd = clone_tree(AT_FDCWD, &bind.path, bind.depth, symlink).map_err(|errno| explain(what(), bind, errno))?;
    if let Some(idmap) = &bind.idmap {
        idmaps.apply(&fd, idmap).map_err(|error| error.within(what()))?;
    }
    settle(fd, changes(mount, bind, privacy)).map(Opened::Tree).map_err(|errno| match errno {
        Errno::EPERM => Error::caused(
            Kind::System,
            what(),
            "not permitted: in a user namespace an option that the host's mount has (ro, nosuid, nodev, noexec, atime) \
             cannot be taken away",
        ),
        Errno::EINVAL => Error::caused(Kind::Unsupported, what(), "the kernel does not know one of its options"),
        errno => Error::sys(what(), errno),
    })
}

fn explain(what: String, bind: &Bind, errno: Errno) -> Error {
    let cause = match errno {
        Errno::ENOENT => "source does not exist",
        Errno::EINVAL if bind.depth == Depth::One => {
            "the kernel refuses to copy it without the mounts below it: use rbind, or a source that can be bound"
        }
        errno => return Error::sys(what, errno),
    };
    // The number stays: whether the caller lacks a privilege is decided on it, and the text is ours.
    Error::caused(Kind::System, what, cause)
}

/// What keeps a bound device apart from the host's /dev: as its peer, a mount over it would appear there.
pub(crate) fn private() -> Changes {
    let none = Attributes::default();
    Changes::of_bind(Depth::One, none, none, &[], Privacy::Private)
}

/// The host's node for `device`, which must be that very device.
pub(crate) fn open_device(device: &DeviceNode) -> Result<OwnedFd> {
    let what = || format!("bind the host's device {}", device.path.display());
    let fd =
        clone_tree(AT_FDCWD, &device.path, Depth::One, Symlink::Follow).map_err(|errno| Error::sys(what(), errno))?;
    match private().apply(&fd) {
        // Before 5.12 it is done once it is attached.
        Ok(()) | Err(Errno::ENOSYS) => {}
        Err(errno) => return Err(Error::sys(what(), errno)),
    }
    let found = fstat(&fd).map_err(|errno| Error::sys(what(), errno))?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    let same_number = kind == SFlag::S_IFIFO || found.st_rdev == device.number();
    if kind != device.kind.file_type() || !same_number {
        return Err(Error::caused(Kind::System, what(), "the host has another one at this path"));
    }
    Ok(fd)
}

/// The directories of `view` as trees for the mount of the type `cgroup` among `mounts`, once they exist. None where they are
/// not bound, or where the caller lacks the privilege and init opens them itself.
pub fn open_cgroups(view: &CgroupView, mounts: &[Mount]) -> Result<Vec<OwnedFd>> {
    let mount = mounts.iter().find(|mount| mount.source == Source::Cgroup);
    let Some(mount) = mount.filter(|_| view.version == Version::Legacy && view.scope == Scope::Host) else {
        return Ok(Vec::new());
    };
    let attributes = cgroup_mount::attributes(mount);
    let mut trees = Vec::with_capacity(view.hierarchies.len());
    for hierarchy in &view.hierarchies {
        match open_cgroup(hierarchy, attributes)? {
            Some(tree) => trees.push(tree),
            None => return Ok(Vec::new()),
        }
    }
    Ok(trees)
}

/// The directory of one hierarchy as a tree with `attributes`; `None` without the privilege.
pub(crate) fn open_cgroup(hierarchy: &Hierarchy, attributes: Attributes) -> Result<Option<OwnedFd>> {
    let open = |directory: &Path| clone_tree(AT_FDCWD, directory, Depth::Tree, Symlink::Itself);
    let directory = &hierarchy.directory;
    let opened = match open(directory) {
        Err(Errno::ENOENT) => open(&hierarchy.callers),
        opened => opened,
    };
    let fd = match opened {
        Err(Errno::EPERM) => return Ok(None),
        result => result.on("open the cgroup", directory.display())?,
    };
    let changes = Changes::of_bind(Depth::Tree, attributes, Attributes::default(), &[], Privacy::Private);
    match changes.apply(&fd) {
        Err(Errno::ENOSYS) | Ok(()) => Ok(Some(fd)),
        Err(errno) => Err(Error::sys(format!("set the options of the cgroup {}", directory.display()), errno)),
    }
}
