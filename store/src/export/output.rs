//! The forms in which an archive leaves.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use nix::fcntl::OFlag;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::content::digest::Digest;
use crate::error::{Context as _, Error, Result};
use crate::fs::sync_dir;
use crate::registry::limit;

/// Bytes of one piece to a client.
const PIECE: usize = 256 << 10;

/// What an archive is written into.
pub(super) trait Output {
    /// A small file.
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()>;
    /// index.json.
    fn index(&mut self, index: &Value) -> Result<()>;
    /// A blob of this many bytes.
    fn blob(&mut self, digest: &Digest, size: u64, from: &mut dyn Read) -> Result<()>;
    /// There is no more.
    fn end(self) -> Result<()>;
}

/// A client that takes pieces.
pub(super) struct Sending {
    to: mpsc::Sender<Bytes>,
}

impl Sending {
    pub(super) fn new(to: mpsc::Sender<Bytes>) -> BufWriter<Self> {
        BufWriter::with_capacity(PIECE, Self { to })
    }
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(&bytes[..bytes.len().min(PIECE)]);
        let sent = piece.len();
        let gone = |_| io::Error::other("nobody takes the archive any more");
        self.to.blocking_send(piece).map_err(gone)?;
        Ok(sent)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A tar archive.
pub(super) struct TarFile<W: Write> {
    to: tar::Builder<W>,
}

impl<W: Write> TarFile<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to: tar::Builder::new(to) }
    }

    /// No owner, no time: the same images give the same bytes.
    fn entry(&mut self, name: &str, size: u64, from: &mut dyn Read) -> Result<()> {
        let writing = || format!("write {name} into the archive");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o444);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        let mut exact = Exact { from: from.take(size), left: size };
        self.to.append_data(&mut header, name, &mut exact).context(writing)
    }
}

/// Fails at an early end, which would shift everything behind it in the archive.
struct Exact<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        if read == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl<W: Write> Output for TarFile<W> {
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.entry(name, bytes.len() as u64, &mut &*bytes)
    }

    fn index(&mut self, index: &Value) -> Result<()> {
        self.document("index.json", index.to_string().as_bytes())
    }

    fn blob(&mut self, digest: &Digest, size: u64, from: &mut dyn Read) -> Result<()> {
        self.entry(&super::blob_name(digest), size, from)
    }

    fn end(self) -> Result<()> {
        let ended = self.to.into_inner().and_then(|mut to| to.flush());
        ended.context(|| "end the archive".into())
    }
}

/// An OCI layout's directory.
pub(super) struct Directory {
    path: PathBuf,
    /// Written last: it names what is there.
    index: Value,
}

impl Directory {
    /// Makes it, or takes one that is there.
    pub(super) fn open(path: &Path) -> Result<Self> {
        for dir in ["", "blobs", "blobs/sha256"] {
            make_dir(&path.join(dir))?;
        }
        Ok(Self { path: path.to_owned(), index: Value::Null })
    }

    fn file(&self, name: &str, from: &mut dyn Read) -> Result<u64> {
        let mut written = 0;
        file(&self.path.join(name), |mut file| {
            let copied = io::copy(from, &mut file).and_then(|it| file.flush().map(|()| it));
            written = copied.context(|| format!("write {name}"))?;
            Ok(())
        })?;
        Ok(written)
    }
}

impl Output for Directory {
    fn document(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.file(name, &mut &*bytes).map(drop)
    }

    fn index(&mut self, index: &Value) -> Result<()> {
        self.index = index.clone();
        let path = self.path.join("index.json");
        let mut there = Vec::new();
        match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => {
                let file = opened.context(|| format!("open {}", path.display()))?;
                let read = file.take(limit::DOCUMENT).read_to_end(&mut there);
                read.context(|| format!("read {}", path.display()))?;
            }
        }
        let broken = |why: String| Error::precondition(format!("{} is no OCI layout's index: {why}", path.display()));
        let there: Value = serde_json::from_slice(&there).map_err(|error| broken(error.to_string()))?;
        let there =
            there.get("manifests").and_then(Value::as_array).ok_or_else(|| broken("it lists nothing".into()))?;
        merge(&mut self.index, there);
        Ok(())
    }

    fn blob(&mut self, digest: &Digest, size: u64, from: &mut dyn Read) -> Result<()> {
        make_dir(&self.path.join("blobs").join(digest.algorithm().name()))?;
        let name = super::blob_name(digest);
        // What is there under this name is a verified blob of whoever put it there; of another size, it is none.
        if std::fs::symlink_metadata(self.path.join(&name)).is_ok_and(|it| it.is_file() && it.len() == size) {
            return Ok(());
        }
        match self.file(&name, from)? {
            written if written == size => Ok(()),
            _ => Err(Error::data_loss(format!("blob {digest} became shorter while it was read"))),
        }
    }

    fn end(self) -> Result<()> {
        self.file("index.json", &mut self.index.to_string().as_bytes())?;
        sync_dir(&self.path)
    }
}

/// Keeps what another image has under another name.
fn merge(index: &mut Value, there: &[Value]) {
    let name = |it: &Value| {
        let annotation = |key: &str| it.get("annotations").and_then(|it| it.get(key)).cloned();
        (annotation("io.containerd.image.name"), annotation("org.opencontainers.image.ref.name"))
    };
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return };
    let new: Vec<_> = manifests.iter().map(name).collect();
    let taken = |it: &&Value| {
        let (full, tag) = name(it);
        new.iter().any(|(new_full, new_tag)| match (&full, new_full) {
            (Some(full), Some(new)) => full == new,
            _ => tag.is_some() && tag == *new_tag,
        })
    };
    let kept: Vec<Value> = there.iter().filter(|it| !taken(it)).cloned().collect();
    manifests.splice(0..0, kept);
}

/// Writes a file that shows when it is complete and on the disk.
pub(super) fn file(path: &Path, write: impl FnOnce(BufWriter<&File>) -> Result<()>) -> Result<()> {
    let shown = path.display();
    let invalid = || Error::invalid(format!("{shown} does not name a file"));
    let (Some(name), Some(dir)) = (path.file_name(), path.parent()) else { return Err(invalid()) };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let temporary = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644).custom_flags(OFlag::O_NOFOLLOW.bits());
    let file = options.open(&temporary).context(|| format!("make {}", temporary.display()))?;
    let written = write(BufWriter::with_capacity(PIECE, &file)).and_then(|()| {
        file.sync_all().context(|| format!("sync {shown}"))?;
        std::fs::rename(&temporary, path).context(|| format!("name {shown}"))?;
        sync_dir(dir)
    });
    if written.is_err() {
        // The error that is told is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made.context(|| format!("make {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_index_keeps_what_has_other_names() {
        let entry = |digest: &str, full: Option<&str>, tag: &str| {
            let mut entry = json!({"digest": digest, "annotations": {"org.opencontainers.image.ref.name": tag}});
            if let Some(full) = full {
                entry["annotations"]["io.containerd.image.name"] = json!(full);
            }
            entry
        };
        let mut index = json!({"manifests": [entry("new", Some("a.example/x:1"), "1")]});
        let there = [
            entry("same", Some("a.example/x:1"), "1"),
            entry("other name", Some("a.example/y:1"), "1"),
            entry("same tag", None, "1"),
            entry("other tag", None, "2"),
        ];
        merge(&mut index, &there);
        let digests: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|it| it["digest"].clone()).collect();
        assert_eq!(digests, [json!("other name"), json!("other tag"), json!("new")]);
    }

    #[test]
    fn a_file_shows_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("images.tar");
        let failed = file(&path, |mut to| {
            to.write_all(b"half").context(|| "write".into())?;
            Err(Error::internal("and no more"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        file(&path, |mut to| to.write_all(b"all").and_then(|()| to.flush()).context(|| "write".into())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"all");
    }
}
