//! `root`, `linux.rootfsPropagation`, and the paths that are hidden or made read-only.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::plan::mounts::Propagation;
use crate::plan::namespaces::Namespaces;
use crate::sys::mount::Depth;

/// The container's root, as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsPlan {
    /// The root directory on the host, absolute.
    pub path: PathBuf,
    /// Whether the container may write to it.
    pub access: Access,
    /// What becomes of mounts that came from the host.
    pub privacy: Privacy,
    /// The propagation that `/` gets once it is the root.
    pub propagation: Option<Propagation>,
    /// Where in the new mount namespace the root is put before it becomes `/`.
    pub attach: Attach,
    /// How it becomes `/`.
    pub change: RootChange,
}

/// How the root is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootChange {
    /// pivot_root(2): the host's tree is gone from the namespace afterwards.
    Pivot,
    /// `--no-pivot`, where `/` is the kernel's first file system, which cannot be pivoted: the root is moved over `/`.
    MoveAndChroot,
    /// The container has the caller's mount namespace: its mounts are made at the root's path, and remain there.
    Chroot,
}

/// Whether the container may write to its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may.
    ReadWrite,
    /// It may not, once all is set up.
    ReadOnly,
}

/// What becomes of the tie between a mount taken from the host and the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Mounts and unmounts of the host arrive in the container, not the other way round: the default.
    Slave,
    /// Neither way.
    Private,
    /// As on the host: what is shared there propagates both ways.
    Kept,
}

/// Where the root is put before it becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// On top of the namespace's `/`: no path of the host is needed.
    OverRoot,
    /// At its own path, because hooks that run before the root is switched find and mount things there.
    AtPath,
}

/// Lowers `root` and what concerns it.
pub fn lower_rootfs(spec: &Spec, bundle: &Path, change: RootChange, namespaces: &Namespaces) -> Result<RootfsPlan> {
    let change = if namespaces.mount.is_private() { change } else { RootChange::Chroot };
    let root =
        spec.root().as_ref().ok_or_else(|| Error::invalid("root is missing: it must name the root directory"))?;
    if root.path().as_os_str().is_empty() {
        return Err(Error::invalid("root.path is empty"));
    }
    if root.path().as_os_str().as_bytes().contains(&0) {
        return Err(Error::invalid("root.path contains a nul byte"));
    }
    let word = spec.linux().as_ref().and_then(|linux| linux.rootfs_propagation().as_deref()).unwrap_or_default();
    let (privacy, propagation) = propagation(word)?;
    if change == RootChange::MoveAndChroot && matches!(word, "private" | "rprivate") {
        // The host's tree stays in the namespace and would keep mounts of the host busy for ever (as runc refuses it).
        return Err(Error::invalid("linux.rootfsPropagation private is not possible with --no-pivot: use slave"));
    }
    Ok(RootfsPlan {
        path: bundle.join(root.path()),
        access: if root.readonly() == Some(true) { Access::ReadOnly } else { Access::ReadWrite },
        privacy,
        propagation,
        attach: if has_early_hooks(spec) || change == RootChange::Chroot { Attach::AtPath } else { Attach::OverRoot },
        change,
    })
}

fn propagation(word: &str) -> Result<(Privacy, Option<Propagation>)> {
    let (name, depth) = match word.strip_prefix('r') {
        Some(name) => (name, Depth::Tree),
        None => (word, Depth::One),
    };
    let last = |flag| Some(Propagation { flag, depth });
    Ok(match name {
        "" if word.is_empty() => (Privacy::Slave, None),
        "slave" => (Privacy::Slave, last(libc::MS_SLAVE)),
        // Private already, and making it so again after the switch would undo what the mounts asked for.
        "private" => (Privacy::Private, None),
        "shared" => (Privacy::Kept, last(libc::MS_SHARED)),
        "unbindable" => (Privacy::Private, last(libc::MS_UNBINDABLE)),
        _ => {
            return Err(Error::invalid(format!(
                "linux.rootfsPropagation is {word:?}: it must be shared, slave, private or unbindable, \
                 or one of them with an r in front"
            )));
        }
    })
}

/// Whether a hook runs between the mounts and the switch of the root.
fn has_early_hooks(spec: &Spec) -> bool {
    let Some(hooks) = spec.hooks() else { return false };
    // The specification deprecates prestart, but callers use it.
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    [prestart, hooks.create_runtime(), hooks.create_container()]
        .iter()
        .any(|hooks| hooks.as_ref().is_some_and(|hooks| !hooks.is_empty()))
}

/// What the container shall not see, or not change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// Files and directories that appear empty.
    pub masked: Vec<PathBuf>,
    /// Files and directories (with all below) that are read-only.
    pub readonly: Vec<PathBuf>,
}

/// Lowers `linux.maskedPaths` and `linux.readonlyPaths`.
pub fn lower_masks(spec: &Spec, namespaces: &Namespaces) -> Result<Masks> {
    let Some(linux) = spec.linux() else { return Ok(Masks::default()) };
    let masks = Masks {
        masked: paths("linux.maskedPaths", linux.masked_paths())?,
        readonly: paths("linux.readonlyPaths", linux.readonly_paths())?,
    };
    if masks != Masks::default() && !namespaces.mount.is_private() {
        return Err(Error::invalid(
            "linux.maskedPaths and linux.readonlyPaths need a mount namespace, and linux.namespaces has none",
        ));
    }
    Ok(masks)
}

fn paths(field: &str, paths: &Option<Vec<String>>) -> Result<Vec<PathBuf>> {
    paths.as_deref().unwrap_or_default().iter().map(|path| absolute(field, path)).collect()
}

fn absolute(field: &str, path: &str) -> Result<PathBuf> {
    let wrong = |what: &str| Error::invalid(format!("{field}: {path:?} {what}"));
    if path.contains('\0') {
        return Err(wrong("contains a nul byte"));
    }
    // Without a slash in front it is meant from the root too, as runc takes it.
    let path = Path::new("/").join(path);
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(wrong("contains .."));
    }
    if path.components().count() < 2 {
        return Err(wrong("is the whole root: use root.readonly"));
    }
    Ok(path)
}
