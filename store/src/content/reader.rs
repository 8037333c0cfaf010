//! Blobs as they are read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::digest::Digest;
use super::{Content, Namespace};
use crate::descriptor::Descriptor;
use crate::error::{Context, Error, Result};

/// One blob, read from any position.
#[derive(Debug)]
pub struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    pub(crate) fn open(path: &Path, digest: &Digest, size: u64) -> Result<Self> {
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
        let damaged = |why: String| {
            Error::data_loss(format!("blob {digest} {why}: run fsck with repair, or pull its image again"))
        };
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("is recorded and its file is gone".into()));
            }
            other => other.context(|| format!("open blob {digest}"))?,
        };
        let found = file.metadata().context(|| format!("look at blob {digest}"))?.len();
        if found != size {
            return Err(damaged(format!("has {found} bytes on disk and should have {size}")));
        }
        Ok(Self { file, size })
    }

    /// In bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Content {
    /// All of a document, compared with its descriptor. It must not have more than `limit` bytes.
    pub fn read(&self, ns: &Namespace, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let digest = &descriptor.digest;
        let mut reader = self.reader(ns, digest)?;
        let size = reader.size();
        if size > limit {
            return Err(Error::exhausted(format!(
                "blob {digest} has {size} bytes: as a document at most {limit} are read"
            )));
        }
        if size != descriptor.size {
            let wanted = descriptor.size;
            return Err(Error::data_loss(format!("blob {digest} has {size} bytes, and its descriptor says {wanted}")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).context(|| format!("read blob {digest}"))?;
        let mut hasher = digest.algorithm().hasher();
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            return Err(Error::data_loss(format!(
                "blob {digest} is damaged on disk: its bytes are {found}; run fsck with repair, or pull its image again"
            )));
        }
        Ok(bytes)
    }
}
