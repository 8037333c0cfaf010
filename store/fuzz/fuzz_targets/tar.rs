//! A layer's archive: entries or a sentence, never a panic, and nothing that a bound forbids. Checks of sums are made to hold, or no change of a
//! header would get past the first.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_store::unpack::Limits;
use tare_store::unpack::tar::{BLOCK, Entry, Kind, Reader};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
    let limits = Limits { entries: 1000, ..Limits::default() };
    let mut reader = Reader::new(&*bytes, &limits);
    let mut entry = Entry::default();
    while let Ok(true) = reader.next(&mut entry) {
        for path in [&entry.path, if entry.kind == Kind::Hardlink { &entry.link } else { &entry.path }] {
            assert!(path.len() <= limits.path);
            let bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
            assert!(path.is_empty() || !path.split(|&byte| byte == b'/').any(bad), "{path:?}");
        }
        assert!(entry.uid != u32::MAX && entry.gid != u32::MAX && entry.mode <= 0o7777 && entry.mtime.nanos < 1_000_000_000);
        let map = entry.map.as_deref().unwrap_or_default();
        assert!(map.windows(2).all(|pair| pair[0].offset + pair[0].length <= pair[1].offset));
        let mut read = 0;
        while let Ok(piece @ [_, ..]) = reader.piece() {
            let length = piece.len();
            reader.consume(length);
            read += length as u64;
        }
        let stored = entry.map.as_ref().map_or(entry.size, |map| map.iter().map(|it| it.length).sum());
        assert!(read <= stored);
    }
    let _ = reader.drain();
});
