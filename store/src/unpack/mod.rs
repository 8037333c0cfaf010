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
pub mod tar;

mod attributes;
mod copy_up;
mod decompress;
mod dirs;
mod lower;
mod make;
mod pipe;
mod remove;
mod tree;
mod whiteout;

use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use rustix::io::Errno;

use crate::content::digest::Digest;
use crate::error::{Context, Error, Kind, Result, kind_of, remedy};
use decompress::Decoder;
use pipe::{Received, pipe};
use tar::{Entry, Reader};
use tree::Tree;

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
    /// Leave owners as they come out, and pass over what only the host's root can make (devices, `trusted.*` xattrs). The latter is done in
    /// a user namespace anyway.
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
    unpack(layer, media_type, root, form, options, progress).map_err(|error| match options.source.is_empty() {
        true => error,
        false => error.within(&options.source),
    })
}

fn unpack(
    layer: impl Read + Send,
    media_type: &str,
    root: BorrowedFd<'_>,
    form: &Form<'_>,
    options: &Options,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Extracted> {
    let read = AtomicU64::new(0);
    let decoder = Decoder::new(Counted { stream: layer, read: &read }, media_type)?;
    let (producer, received) = pipe();
    thread::scope(|scope| {
        let other = thread::Builder::new()
            .name("untar".to_owned())
            .spawn_scoped(scope, || untar(received, root, *form, options));
        let other = other.context(|| "start a thread to unpack".to_owned())?;
        producer.run(decoder, &options.limits, || read.load(Ordering::Relaxed), progress);
        other.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The other thread: reads the archive and makes the tree.
fn untar(received: Received, root: BorrowedFd<'_>, form: Form<'_>, options: &Options) -> Result<Extracted> {
    // A umask of this thread's own. Where that is refused, modes are set after the fact.
    let own_umask = nix::sched::unshare(CloneFlags::CLONE_FS).is_ok();
    if own_umask {
        nix::sys::stat::umask(Mode::empty());
    }
    let mut tree = Tree::new(root, form, options, own_umask)?;
    let mut reader = Reader::new(received, &options.limits);
    let mut entry = Entry::default();
    while reader.next(&mut entry)? {
        tree.apply(&entry, &mut reader).map_err(|error| error.within(format_args!("entry {}", entry.shown())))?;
    }
    reader.drain()?;
    tree.finish()?;
    let (diff_id, size) = reader.into_stream().finish();
    Ok(Extracted { diff_id, size, bytes_on_disk: tree.bytes, inodes: tree.inodes })
}

/// Counts what is read.
struct Counted<'a, R> {
    stream: R,
    read: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(into)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// A call that failed on what the layer wanted: some failures are the layer's own fault.
fn failed(what: &str, errno: Errno) -> Error {
    let error = io::Error::from(errno);
    let kind = match errno {
        Errno::LOOP
        | Errno::NAMETOOLONG
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::EXIST
        | Errno::INVAL
        | Errno::ILSEQ => Kind::DataLoss,
        Errno::MLINK => Kind::ResourceExhausted,
        _ => kind_of(&error),
    };
    Error::new(kind, format!("{what}: {error}{}", remedy(error.kind())))
}

#[cfg(test)]
pub(crate) mod tests;
