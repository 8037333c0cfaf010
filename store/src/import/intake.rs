//! Taking an archive in, in one pass: every file becomes a blob as it comes.
//!
//! ```text
//! blobs/<algorithm>/<hex>     a blob whose name says its digest: an ingest that expects it
//! any other file              a blob of whatever digest it turns out to have: what it was, manifest.json says later
//! links                       names for files
//! ```
//!
//! Names are keys: `..` in them is resolved as below a root of its own, and none is a path of this host.
//!
//! Nothing is needed twice, nothing is kept in memory, and no file is written but the blobs. An archive compressed as a whole is
//! read as well.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bytes::{Buf, Bytes};
use nix::fcntl::OFlag;
use tokio::sync::mpsc;

use super::docker::{self, File, Files};
use crate::content::digest::Digest;
use crate::error::{Context as _, Error, Kind, Result};
use crate::metadata::Labels;
use crate::progress::Phase;
use crate::registry::limit;
use crate::store::Call;
use crate::unpack::Limits;
use crate::unpack::tar::{self, Entry, Reader};

/// Of files in an archive: more is no image.
const FILES: u64 = 100_000;
const BUFFER: usize = 256 << 10;

/// Bytes that a client sends.
pub(super) struct Received {
    pub(super) from: mpsc::Receiver<Bytes>,
    pub(super) piece: Bytes,
}

impl Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.piece.has_remaining() {
            match self.from.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let most = buffer.len().min(self.piece.remaining());
        self.piece.copy_to_slice(&mut buffer[..most]);
        Ok(most)
    }
}

/// Takes in a file, or the directory of an OCI layout.
pub(super) fn path(call: &Call, path: &Path) -> Result<Files> {
    let shown = path.display();
    // Not blocking: a fifo would wait for its writer before it could be refused.
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.context(|| format!("open {shown}"))?;
    let found = file.metadata().context(|| format!("look at {shown}"))?;
    if found.is_dir() {
        return directory(call, path);
    }
    if !found.is_file() {
        return Err(Error::invalid(format!("{shown} is neither a file nor a directory")));
    }
    stream(call, file)
}

/// Takes in a tar archive, or one that is compressed.
pub(super) fn stream(call: &Call, from: impl Read) -> Result<Files> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let magic = from.fill_buf().context(|| "read the archive".into())?;
    match magic {
        [0x1f, 0x8b, ..] => archive(call, buffered(flate2::bufread::MultiGzDecoder::new(from))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(from).context(|| "begin to read zstd".into())?;
            archive(call, buffered(decoder))
        }
        _ => archive(call, from),
    }
}

fn buffered<R: Read>(from: R) -> BufReader<R> {
    BufReader::with_capacity(BUFFER, from)
}

/// By the reader that layers are read with: strict, and bounded in what headers may claim (CVE-2023-25153).
fn archive(call: &Call, from: impl BufRead) -> Result<Files> {
    let mut files = Files::default();
    let limits = Limits { entries: FILES, ..Limits::default() };
    let (mut reader, mut entry) = (Reader::new(from, &limits), Entry::default());
    while reader.next(&mut entry).map_err(broken)? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        match entry.kind {
            tar::Kind::Symlink | tar::Kind::Hardlink => {
                let name = docker::name(&path)?;
                // A hard link's target counts from the top of the archive.
                let from = if entry.kind == tar::Kind::Hardlink { "" } else { &name };
                let target = docker::link_target(from, &String::from_utf8_lossy(&entry.link))?;
                files.links.insert(name, target);
            }
            tar::Kind::File if entry.map.is_some() => {
                return Err(Error::data_loss(format!(
                    "the archive has {path:?} as a sparse file, which no image's is"
                )));
            }
            tar::Kind::File => {
                let name = docker::name(&path)?;
                let file = take_in(call, &name, entry.size, &mut Data(&mut reader));
                let file = file.map_err(|it| it.within(format_args!("file {name:?}")))?;
                // Which one would be meant, if there are two, no two readers agree on.
                if files.files.insert(name.clone(), file).is_some() {
                    return Err(Error::data_loss(format!("the archive has {name:?} twice")));
                }
            }
            _ => {}
        }
    }
    // To its very end: behind the last file come the checksum of what was compressed, and the client's word that this is all.
    reader.drain().map_err(broken)?;
    Ok(files)
}

/// What a file of the archive holds.
struct Data<'a, 'l, R>(&'a mut Reader<'l, R>);

impl<R: BufRead> Read for Data<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.piece().map_err(io::Error::other)?;
        let most = buffer.len().min(piece.len());
        buffer[..most].copy_from_slice(&piece[..most]);
        self.0.consume(most);
        Ok(most)
    }
}

fn directory(call: &Call, path: &Path) -> Result<Files> {
    let mut files = Files::default();
    for name in ["oci-layout", "index.json"] {
        take_in_path(call, path, name.to_owned(), &mut files)?;
    }
    for algorithm in ["sha256", "sha512"] {
        let blobs = path.join("blobs").join(algorithm);
        let entries = match std::fs::read_dir(&blobs) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.context(|| format!("read {}", blobs.display()))?,
        };
        for entry in entries {
            let entry = entry.context(|| format!("read {}", blobs.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What other tools are just writing there has other names.
            if format!("{algorithm}:{name}").parse::<Digest>().is_ok() {
                take_in_path(call, path, format!("blobs/{algorithm}/{name}"), &mut files)?;
            }
        }
    }
    Ok(files)
}

fn take_in_path(call: &Call, layout: &Path, name: String, files: &mut Files) -> Result<()> {
    let path = layout.join(&name);
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&path);
    let mut file = opened.context(|| format!("open {}", path.display()))?;
    let found = file.metadata().context(|| format!("look at {}", path.display()))?;
    if !found.is_file() {
        return Err(Error::data_loss(format!("{} is not a regular file", path.display())));
    }
    let taken = take_in(call, &name, found.len(), &mut file).map_err(|it| it.within(format_args!("file {name:?}")))?;
    files.files.insert(name, taken);
    Ok(())
}

/// What an archive says of itself, and what is read as a document, whatever its size.
const DOCUMENTS: [&str; 4] = ["oci-layout", "index.json", "manifest.json", "repositories"];

/// One file into the content store.
fn take_in(call: &Call, name: &str, size: u64, from: &mut impl Read) -> Result<File> {
    let content = &call.store.content;
    let expected = expected(name)?;
    // It would be refused when it is read: so it doesn't get to the disk (CVE-2023-25153).
    if DOCUMENTS.contains(&name) && size > limit::DOCUMENT {
        let most = limit::DOCUMENT;
        return Err(Error::data_loss(format!("it has {size} bytes: as a document at most {most} are read")));
    }
    if let Some(digest) = &expected
        && let Some(info) = content.hold(&call.ns, digest, Some(call.lease.id()))?
    {
        call.progress.item(&digest.to_string(), "blob", info.size).phase(Phase::Exists);
        // Skipped, not read: what is here was verified.
        let magic = magic_of(call, digest)?;
        return Ok(File { digest: digest.clone(), size: info.size, magic });
    }
    let id = expected.as_ref().map_or_else(|| name.to_owned(), ToString::to_string);
    let item = call.progress.item(&id, "blob", size);
    item.phase(Phase::Fetching);
    // Beside the lease's name: two imports may have files of one name.
    let reference = format!("import-{}-{id}", call.lease.id());
    let mut ingest = content.ingest(&call.ns, &reference, Some(size), expected.as_ref())?;
    let (mut buffer, mut magic) = (vec![0; BUFFER], [0; 4]);
    let mut written = 0;
    let copied = loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(error.downcast::<Error>().map_or_else(cut_off, broken)),
        };
        if written == 0 {
            let most = read.min(4);
            magic[..most].copy_from_slice(&buffer[..most]);
        }
        if let Err(error) = ingest.write(&buffer[..read]) {
            break Err(error);
        }
        written += read as u64;
        item.offset(written);
    };
    if let Err(error) = copied {
        // A stream is not sent again from where it broke.
        ingest.abort()?;
        return Err(error);
    }
    let committed = ingest.commit(Some(size), expected.as_ref(), &Labels::new(), Some(call.lease.id()))?;
    item.phase(Phase::Done);
    Ok(File { digest: committed.digest, size: committed.size, magic })
}

/// The digest that a name in an OCI layout says.
fn expected(name: &str) -> Result<Option<Digest>> {
    match name.strip_prefix("blobs/").and_then(|it| it.split_once('/')) {
        Some((algorithm, hex)) => format!("{algorithm}:{hex}")
            .parse()
            .map(Some)
            .map_err(|error: Error| Error::new(Kind::DataLoss, format!("the archive has the file {name:?}: {error}"))),
        None => Ok(None),
    }
}

fn magic_of(call: &Call, digest: &Digest) -> Result<[u8; 4]> {
    let mut magic = Vec::with_capacity(4);
    let reader = call.store.content.reader(&call.ns, digest)?;
    reader.take(4).read_to_end(&mut magic).context(|| format!("read blob {digest}"))?;
    magic.resize(4, 0);
    Ok(magic.try_into().unwrap_or_default())
}

/// What the archive's reader says, so that it is clear what of.
fn broken(error: Error) -> Error {
    if error.kind == Kind::DataLoss { error.within("the archive is broken or cut off") } else { error }
}

#[allow(clippy::needless_pass_by_value, reason = "as map_or_else gives it")]
fn cut_off(error: io::Error) -> Error {
    Error::data_loss(format!("the archive is broken or cut off: {error}"))
}
