//! What compressed the stream is seen from its first bytes, as containerd and docker do: Docker's media types say gzip of plain
//! archives too, and the diff id proves what came out. A media type that is of no layer at all is refused.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

use super::tar::stream_failed;
use crate::error::{Error, Kind, Result};

/// Read from the stream at once: more than a socket or a page cache hands over in a go.
const CHUNK: usize = 128 << 10;
/// As many bytes as the longest mark has.
const MARK: usize = 10;
/// The longest distance zstd may look back, as a power of two: what its own tools allow, 128 MiB.
const WINDOW: u32 = 27;

type Input<R> = Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// The archive within a compressed stream.
pub(super) enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(Box<ZstdDecoder<'static, Input<R>>>),
}

impl<R: Read> Decoder<R> {
    pub(super) fn new(stream: R, media_type: &str) -> Result<Self> {
        check(media_type)?;
        let mut stream = BufReader::with_capacity(CHUNK, stream);
        let mut mark = Vec::with_capacity(MARK);
        stream.by_ref().take(MARK as u64).read_to_end(&mut mark).map_err(stream_failed)?;
        let known = mark.clone();
        let input = Cursor::new(mark).chain(stream);
        Ok(match *known {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = ZstdDecoder::with_buffer(input).map_err(stream_failed)?;
                decoder.window_log_max(WINDOW).map_err(stream_failed)?;
                Self::Zstd(Box::new(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(foreign("xz")),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', b'&', b'S', b'Y', ..] => return Err(foreign("bzip2")),
            _ => Self::Plain(input),
        })
    }
}

fn foreign(program: &str) -> Error {
    Error::data_loss(format!("it is compressed by {program}; layers are compressed by gzip or zstd, or not at all"))
}

/// Layers are what is unpacked: an artifact's blob that happens to be an archive is none.
fn check(media_type: &str) -> Result<()> {
    let (kind, suffix) = media_type.split_once('+').unwrap_or((media_type, ""));
    match (kind, suffix) {
        (
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar",
            "" | "gzip" | "zstd",
        )
        | (
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd",
            "",
        ) => Ok(()),
        _ => Err(Error::new(
            Kind::Unimplemented,
            format!("{media_type:?} is not the media type of a layer that can be unpacked"),
        )),
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => {
                // One copy, from the buffer: at least as much as a call of the stream brings.
                let bytes = input.fill_buf()?;
                let length = bytes.len().min(into.len());
                into[..length].copy_from_slice(&bytes[..length]);
                input.consume(length);
                Ok(length)
            }
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}
