//! From a compressed stream to a tree of files, and back.
//!
//! # Extraction
//!
//! ```text
//!  caller's thread                                  a thread of its own (umask 0)
//!  layer.read -> inflate (gzip, zstd, plain) --buffers--> sha256 (diff id) -> tar reader -> directory fds -> files
//!                     ^----------------- the same few buffers, empty -----------------'
//! ```
//!
//! Memory is those buffers, the directory fds at hand, and one entry's names and xattrs, whatever the layer holds. What is
//! on disk already is the only record of what the layer did so far.
//!
//! The root is one directory fd. A parent directory is reached by openat2(RESOLVE_IN_ROOT | NO_MAGICLINKS), an entry is created
//! in it by its last name alone, exclusively, and then treated through its own fd: no link in the layer leads out, and none is
//! followed where the entry itself is meant (CVE-2021-29136, CVE-2021-32760, CVE-2026-33056).
//!
//! # Form on disk
//!
//! [`Form::Overlay`] is what overlayfs takes as a lower directory: `.wh.name` is a character device 0:0 called `name`, an opaque
//! directory has the xattr `trusted.overlay.opaque` (`user.` in rootless mounts) = `y`, and what an image calls
//! `trusted.overlay.x` is escaped as `trusted.overlay.overlay.x`. [`Form::Tree`] is the merged tree itself.
//!
//! This module knows nothing of blobs, snapshots or names of images: it takes a stream and a directory.

pub mod compress;
pub mod diff;

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::content::digest::Digest;
use crate::error::{Error, Result};

/// What the directory that a layer is extracted into is to become.
#[derive(Clone, Copy)]
pub enum Form<'a> {
    /// The changes of this layer alone, as a lower directory of overlayfs. The directory is empty at the start.
    Overlay {
        /// The roots of the layers below, top first; empty for the lowest layer. Called at most once, only when an entry needs
        /// what is below, and may block until that is extracted.
        lowers: &'a (dyn Fn() -> Result<Vec<OwnedFd>> + Sync),
        /// Mark with `user.overlay.*`, for mounts with `userxattr` (rootless).
        userxattr: bool,
    },
    /// The whole tree: the directory holds a full copy of what is below, and whiteouts delete.
    Tree,
}

/// How to extract.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What the stream is, for messages: "debian:12: layer sha256:…".
    pub source: String,
    /// What no layer may exceed.
    pub limits: Limits,
    /// Leave owners as they come out, and pass over what an ordinary user cannot make (devices, `trusted.*` xattrs).
    pub rootless: bool,
}

/// What a hostile layer would use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Headers in the archive, those of metadata included.
    pub entries: u64,
    /// Bytes of the archive.
    pub size: u64,
    /// Bytes of the archive for each compressed byte, looked at from 64 MiB on. 0: any.
    pub ratio: u64,
    /// Bytes of a path, and of a link's target.
    pub path: usize,
    /// Names in a path.
    pub depth: usize,
    /// Bytes of one entry's extended attributes and other PAX records.
    pub records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1_000_000, size: 256 << 30, ratio: 0, path: 4095, depth: 256, records: 1 << 20 }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// The digest of the uncompressed archive, to its last byte.
    pub diff_id: Digest,
    /// The archive's bytes.
    pub size: u64,
    /// What the tree takes on disk, by blocks of 4 KiB; hard links count once.
    pub bytes_on_disk: u64,
    /// Files, directories and others made.
    pub inodes: u64,
}

/// Extracts one layer below `root`. `progress` gets the compressed bytes read so far, at least once a buffer.
///
/// Fails with [`crate::error::Kind::DataLoss`] for a layer that is malformed or hostile, with `ResourceExhausted` at a limit or a
/// full disk, with the reader's own error (an [`Error`] within an [`std::io::Error`]) where it fails. What is below `root` is then to be removed.
/// The digest is returned, not judged: whoever publishes compares it.
pub fn extract(
    layer: impl Read + Send,
    media_type: &str,
    root: BorrowedFd<'_>,
    form: &Form<'_>,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Extracted> {
    let _ = (layer, media_type, root, form, progress);
    Err(Error::unimplemented(format!("{}: not extracted", options.source)))
}
