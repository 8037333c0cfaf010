//! Compressed output whose bytes depend on the input alone: no name, no time in a header.

use std::io::{self, Write};

use flate2::GzBuilder;
use flate2::write::GzEncoder;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::content::digest::{Algorithm, Digest, Hasher};
use crate::error::{Context, Result};

/// gzip's own default: past it bytes get few and seconds many.
const GZIP_LEVEL: u32 = 6;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;

/// How a layer's blob is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As it is.
    None,
    /// What every registry and runtime reads.
    #[default]
    Gzip,
    /// Faster both ways, and smaller.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer of this kind.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Compresses into `out` and hashes what goes there.
pub struct Compressor<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    None(Box<Hashed<W>>),
    Gzip(Box<GzEncoder<Hashed<W>>>),
    Zstd(Box<ZstdEncoder<'static, Hashed<W>>>),
}

impl<W: Write> Compressor<W> {
    /// Begins a blob.
    pub fn new(out: W, compression: Compression) -> Result<Self> {
        let out = Hashed::new(out);
        let inner = match compression {
            Compression::None => Inner::None(Box::new(out)),
            // Without a builder's name and time the header is ten constant bytes.
            Compression::Gzip => {
                Inner::Gzip(Box::new(GzBuilder::new().write(out, flate2::Compression::new(GZIP_LEVEL))))
            }
            Compression::Zstd => {
                let mut encoder =
                    ZstdEncoder::new(out, ZSTD_LEVEL).context(|| "begin to compress by zstd".to_owned())?;
                encoder.include_checksum(true).context(|| "begin to compress by zstd".to_owned())?;
                Inner::Zstd(Box::new(encoder))
            }
        };
        Ok(Self { inner })
    }

    /// Ends the blob: the writer, and digest and bytes of what it got.
    pub fn finish(self) -> Result<(W, Digest, u64)> {
        let hashed = match self.inner {
            Inner::None(out) => Ok(*out),
            Inner::Gzip(encoder) => encoder.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        };
        let mut hashed = hashed.context(|| "write the end of the compressed layer".to_owned())?;
        hashed.flush().context(|| "write the end of the layer".to_owned())?;
        Ok(hashed.finish())
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(out) => out.write(bytes),
            Inner::Gzip(encoder) => encoder.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Inner::None(out) => out.flush(),
            Inner::Gzip(encoder) => encoder.flush(),
            Inner::Zstd(encoder) => encoder.flush(),
        }
    }
}

/// Hashes and counts what is written.
pub(super) struct Hashed<W> {
    out: W,
    hasher: Hasher,
    total: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, hasher: Algorithm::Sha256.hasher(), total: 0 }
    }

    pub(super) fn finish(self) -> (W, Digest, u64) {
        (self.out, self.hasher.finish(), self.total)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.out.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        self.total += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_same_bytes_give_the_same_blob() {
        let text = b"the same bytes ".repeat(10_000);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let blob = |pieces: usize| {
                let mut out = Compressor::new(Vec::new(), compression).unwrap();
                text.chunks(pieces).for_each(|piece| out.write_all(piece).unwrap());
                out.finish().unwrap()
            };
            let (bytes, digest, size) = blob(4096);
            assert_eq!((Digest::of(&bytes), bytes.len() as u64), (digest.clone(), size), "{compression:?}");
            assert_eq!(blob(4096).1, digest, "{compression:?}");
            let mut back = Vec::new();
            match compression {
                Compression::None => back.clone_from(&bytes),
                Compression::Gzip => drop(flate2::bufread::GzDecoder::new(&*bytes).read_to_end(&mut back).unwrap()),
                Compression::Zstd => back = zstd::decode_all(&*bytes).unwrap(),
            }
            assert!(back == text, "{compression:?}");
            if compression == Compression::Gzip {
                assert_eq!(bytes[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff], "neither a time nor a name");
            }
        }
    }
}
