//! What is around the archive: compression, its end, and what comes after.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

use super::layer::{Item, archive, file, gzip};
use super::{Form, GZIP, Options, PLAIN, Place, open, paths};
use crate::content::digest::Digest;
use crate::error::{Error, Kind, Result};
use crate::unpack::{Extracted, extract};

fn unpacked(stream: impl Read + Send, media_type: &str) -> (Result<Extracted>, Vec<String>) {
    let place = Place::new();
    std::fs::create_dir(place.path("layer")).unwrap();
    let form = Form::Overlay { lowers: &|| Ok(Vec::new()), userxattr: false };
    let options = Options { rootless: true, ..Options::default() };
    let result = extract(stream, media_type, open(&place.path("layer")).as_fd(), &form, &options, &|_| {});
    (result, place.list("layer"))
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut writer = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// Larger than several of the pipe's buffers, and none of its parts a multiple of them.
fn large() -> Vec<u8> {
    let items: Vec<Item> = (0..40).map(|it| file(&format!("f{it:02}"), &vec![it; 70_001])).collect();
    archive(&items)
}

#[test]
fn each_compression_in_one_piece_and_in_several() {
    let bytes = large();
    let (head, tail) = bytes.split_at(1_000_001);
    let skippable = [&0x184d_2a53u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"note"].concat();
    for (what, media_type, stream) in [
        ("plain", PLAIN, bytes.clone()),
        ("gzip", GZIP, gzip(&bytes)),
        ("gzip in members", GZIP, [gzip(head), gzip(b""), gzip(tail)].concat()),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd", zstd(&bytes)),
        (
            "zstd in frames",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            [zstd(head), skippable.clone(), zstd(tail)].concat(),
        ),
        (
            "zstd after a skippable frame",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            [skippable, zstd(&bytes)].concat(),
        ),
        ("docker's name for gzip, but plain", "application/vnd.docker.image.rootfs.diff.tar.gzip", bytes.clone()),
        ("a foreign layer's", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", gzip(&bytes)),
    ] {
        let (result, lines) = unpacked(&*stream, media_type);
        let extracted = result.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((extracted.diff_id, extracted.size), (Digest::of(&bytes), bytes.len() as u64), "{what}");
        assert_eq!(lines.len(), 41, "{what}");
    }
}

#[test]
fn bytes_that_come_one_by_one_are_the_same() {
    struct Slow<'a>(&'a [u8]);
    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(&mut into[..1])
        }
    }
    let bytes = archive(&[file("f", b"text")]);
    for stream in [bytes.clone(), gzip(&bytes), zstd(&bytes)] {
        let (result, lines) = unpacked(Slow(&stream), GZIP);
        assert_eq!(result.unwrap().diff_id, Digest::of(&bytes));
        assert_eq!(paths(&lines), ["/", "/f"]);
    }
}

#[test]
fn the_diff_id_is_of_every_byte_to_the_last() {
    for end in [&b""[..], &[0; 512], &[0; 10_240], b"not an archive at all", &vec![b'x'; 1_000_000]] {
        let bytes = [&archive(&[file("f", b"")])[..], end].concat();
        let (result, lines) = unpacked(&*gzip(&bytes), GZIP);
        assert_eq!(result.unwrap().diff_id, Digest::of(&bytes), "{} bytes after the end", end.len());
        assert_eq!(paths(&lines), ["/", "/f"]);
    }
}

#[test]
fn empty_layers_are_layers() {
    for bytes in [&b""[..], &[0; 512], &[0; 1024], &[0; 10_240]] {
        for stream in [bytes.to_vec(), gzip(bytes), zstd(bytes)] {
            let (result, lines) = unpacked(&*stream, PLAIN);
            assert_eq!(result.unwrap().diff_id, Digest::of(bytes), "{} bytes", bytes.len());
            assert_eq!(paths(&lines), ["/"]);
        }
    }
}

#[test]
fn an_archive_may_lack_its_end_but_nothing_else() {
    let item = file("f", b"data");
    let (result, lines) = unpacked(&*item.bytes(), PLAIN);
    result.unwrap();
    assert_eq!(paths(&lines), ["/", "/f"]);
    let (result, _) = unpacked(&item.bytes()[..516], PLAIN);
    result.unwrap();
    for (length, reason) in
        [(515, "ends 1 bytes before the end"), (512, "ends 4 bytes before"), (511, "within a header")]
    {
        let error = unpacked(&item.bytes()[..length], PLAIN).0.unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss);
        assert!(error.message.contains(reason), "{length}: {error}");
    }
    let long = file("L", b"name\0").kind(b'L').bytes();
    for (bytes, reason) in [
        (long.clone(), "before the entry it is for"),
        ([long.clone(), vec![0; 1024]].concat(), "before the entry it is for"),
        (long[..514].to_vec(), "within a metadata header"),
        ([vec![0; 512], item.bytes()].concat(), "a block of zeros amid the archive"),
        ([item.bytes(), vec![7; 512]].concat(), "wrong check sum"),
        (b"<html>not a layer</html>".repeat(100), "wrong check sum"),
    ] {
        let error = unpacked(&*bytes, PLAIN).0.unwrap_err();
        assert!(error.message.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_damaged_stream_is_told() {
    let bytes = large();
    let (gz, zs) = (gzip(&bytes), zstd(&bytes));
    let mut flipped = gz.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let mut sum = gz.clone();
    let length = sum.len();
    sum[length - 6] ^= 1;
    for (what, stream) in [
        ("cut gzip", &gz[..gz.len() - 100]),
        ("gzip without its sum", &gz[..gz.len() - 8]),
        ("gzip within its header", &gz[..5]),
        ("cut zstd", &zs[..zs.len() - 100]),
        ("a flipped bit", &flipped),
        ("a wrong sum", &sum),
        ("bytes after gzip", &[&gz[..], b"garbage after the member"].concat()),
        ("bytes after zstd", &[&zs[..], b"garbage after the frame"].concat()),
        ("xz", b"\xfd7zXZ\0 and so on"),
        ("bzip2", b"BZh91AY&SY and so on"),
    ] {
        let error = unpacked(stream, GZIP).0.unwrap_err();
        assert_eq!(error.kind, Kind::DataLoss, "{what}: {error}");
    }
}

#[test]
fn only_layers_are_unpacked() {
    for media_type in [
        "",
        "application/json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.layer.v1.tar+xz",
        "text/plain+gzip",
    ] {
        let error = unpacked(&*archive(&[]), media_type).0.unwrap_err();
        assert_eq!(error.kind, Kind::Unimplemented, "{media_type}");
    }
}

#[test]
fn the_readers_own_failure_comes_through() {
    struct Fails<'a>(&'a [u8]);
    impl Read for Fails<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::other(Error::unavailable("the registry went away"))),
                length => Ok(length),
            }
        }
    }
    let bytes = large();
    for stream in [gzip(&bytes), bytes, zstd(&large())] {
        let error = unpacked(Fails(&stream[..stream.len() - 500]), GZIP).0.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable);
        assert!(error.message.ends_with("the registry went away"), "{error}");
    }
}

#[test]
fn progress_is_told_by_compressed_bytes() {
    let place = Place::new();
    std::fs::create_dir(place.path("layer")).unwrap();
    let told = Mutex::new(Vec::new());
    let stream = gzip(&large());
    let form = Form::Overlay { lowers: &|| Ok(Vec::new()), userxattr: false };
    let options = Options { rootless: true, ..Options::default() };
    extract(&*stream, GZIP, open(&place.path("layer")).as_fd(), &form, &options, &|read| {
        told.lock().unwrap().push(read)
    })
    .unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.len() > 5 && told.is_sorted(), "{told:?}");
    assert_eq!(told.last(), Some(&(stream.len() as u64)));
}
