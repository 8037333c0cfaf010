//! A layer's blob out of what a snapshot has changed.

use std::io::{self, Write};

use crate::content::Ingest;
use crate::content::digest::Digest;
use crate::error::Result;
use crate::metadata::Labels;
use crate::store::Awaited;
use crate::unpack::compress::{Compression, Compressor};
use crate::unpack::diff::{self, DiffOptions, Source};

/// The label of a layer's blob that says which diff id it has.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// A blob that was made.
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) diff_id: Digest,
}

/// Writes the difference into the ingest, from its beginning, and makes it a blob. If that fails nothing stays of it: half a
/// difference is no use to the next try, and on a full disk it is in the way. So it ends when its caller has gone, too.
pub(crate) fn write(
    mut ingest: Ingest,
    compression: Compression,
    (source, options): (&Source<'_>, &DiffOptions),
    mut labels: Labels,
    lease: Option<&str>,
    awaited: &Awaited,
) -> Result<Blob> {
    let (written, digest, size) = match fill(&mut ingest, compression, source, options, awaited) {
        Ok(filled) => filled,
        Err(error) => {
            // The first failure is the one to be told.
            let _ = ingest.abort();
            return Err(error);
        }
    };
    labels.insert(UNCOMPRESSED.to_owned(), written.diff_id.to_string());
    ingest.commit(Some(size), Some(&digest), &labels, lease)?;
    Ok(Blob { digest, size, diff_id: written.diff_id })
}

fn fill(
    ingest: &mut Ingest,
    compression: Compression,
    source: &Source<'_>,
    options: &DiffOptions,
    awaited: &Awaited,
) -> Result<(diff::Written, Digest, u64)> {
    ingest.truncate(0)?;
    let mut out = Compressor::new(Into(ingest), compression)?;
    let written = diff::write(WhileAwaited(&mut out, awaited), source, options)?;
    let (_, digest, size) = out.finish()?;
    Ok((written, digest, size))
}

/// Something to write into for as long as somebody waits for it.
struct WhileAwaited<'a, W>(W, &'a Awaited);

impl<W: Write> Write for WhileAwaited<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.check().map_err(io::Error::other)?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An ingest as something to write into.
struct Into<'a>(&'a mut Ingest);

impl Write for Into<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
