//! A layer made from what changed: sorted, with no clock in it.
//!
//! Of an overlay's upper directory all is written that is in it, whiteouts and opaque directories as the layer's markers where there is something
//! below to hide. Of two whole trees what differs in anything a layer can say, data compared byte by byte; the
//! directories above a change come with it. A file with several names is written once, by the first; sockets are passed over.

mod archive;
mod walk;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use super::attributes::Marks;
use crate::content::digest::Digest;
use crate::error::Result;
use archive::Archive;
use walk::{Walk, enter, view};

/// Between what the difference is.
pub enum Source<'a> {
    /// An overlay's upper directory, whose whiteouts and opaque directories say what went.
    Overlay {
        /// The directory.
        upper: BorrowedFd<'a>,
        /// What is below, top first.
        lowers: Vec<BorrowedFd<'a>>,
        /// Marked with `user.overlay.*`.
        userxattr: bool,
    },
    /// Two whole trees; without a lower one everything is new.
    Trees {
        /// Before.
        lower: Option<BorrowedFd<'a>>,
        /// After.
        upper: BorrowedFd<'a>,
    },
}

/// How to write.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// No time is later than this (`SOURCE_DATE_EPOCH`), in seconds.
    pub latest_mtime: Option<i64>,
    /// What is compared, for messages.
    pub source: String,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The digest of the archive.
    pub diff_id: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Writes the difference as a tar archive. The same trees give the same bytes.
pub fn write(out: impl Write, source: &Source<'_>, options: &DiffOptions) -> Result<Written> {
    compare(out, source, options).map_err(|error| match options.source.is_empty() {
        true => error,
        false => error.within(&options.source),
    })
}

fn compare(out: impl Write, source: &Source<'_>, options: &DiffOptions) -> Result<Written> {
    let (upper, below, marks, trees) = match source {
        Source::Overlay { upper, lowers, userxattr } => (upper, view(lowers)?, Marks::overlay(*userxattr), false),
        Source::Trees { lower, upper } => (upper, view(lower.as_slice())?, Marks::TREE, true),
    };
    let upper = enter(*upper)?;
    let mut walk = Walk {
        archive: Archive::new(out),
        options,
        marks,
        trees,
        pending: Vec::new(),
        links: HashMap::new(),
        relinked: HashSet::new(),
    };
    if trees {
        walk.relink(upper.as_fd(), &below)?;
    }
    walk.root(upper.as_fd(), &below)?;
    walk.archive.finish()
}

#[cfg(test)]
mod tests;
