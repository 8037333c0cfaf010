//! Layers made to escape, to be read two ways, or to use everything up; named after the CVEs.

use std::fs;
use std::io::{self, Read};

use super::layer::{Item, archive, dir, file, hardlink, symlink};
use super::{Options, Place, is_root, line, paths};
use crate::error::Kind;
use crate::unpack::Limits;
use crate::unpack::tar::{Entry, Reader};

fn refused(items: &[Item]) -> String {
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "host").unwrap();
    let options = Options { rootless: true, ..Options::default() };
    let error = place.overlay_with("layer", &[], &archive(items), &options).unwrap_err();
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"host");
    error.message
}

#[test]
fn cve_2021_29136_the_root_becomes_no_link() {
    for item in [
        symlink("/", "/etc"),
        symlink(".", "/etc"),
        symlink("x/..", "/etc"),
        file("./", b"x").kind(b'7'),
        hardlink("..", "f"),
    ] {
        let error = refused(&[file("f", b""), item]);
        assert!(error.contains("the root of an image is a directory"), "{error}");
    }
}

#[test]
fn cve_2021_32760_and_2026_33056_nothing_is_changed_through_a_link() {
    if !is_root("cve_2021_32760_and_2026_33056_nothing_is_changed_through_a_link") {
        return;
    }
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "host").unwrap();
    let host = super::list(&outside);
    let out = outside.to_str().unwrap();
    let bytes = archive(&[
        symlink("l", &format!("{out}/f")),
        hardlink("h", "l").mode(0o777).owner(7, 7),
        file("l2", b"").mode(0o777),
        symlink("dirlink", out),
        dir("dirlink").mode(0o777).owner(7, 7),
        file("dirlink/f", b"in the root"),
        symlink("up", "../../../../../../../../../.."),
        file("up/etc/passwd", b"in the root"),
        symlink("magic", "/proc/self/fd/0"),
        hardlink("h2", "magic"),
    ]);
    place.overlay("layer", &[], &bytes).unwrap();
    assert_eq!(super::list(&outside), host);
    let lines = place.list("layer");
    assert!(line(&lines, "/dirlink").unwrap().starts_with("d777"), "the directory took the link's place");
    assert!(line(&lines, "/etc/passwd").is_some(), "what leads up ends at the root");
    assert!(line(&lines, "/h").unwrap().starts_with("l777"));
}

#[test]
fn cve_2025_47290_a_link_made_meanwhile_leads_nowhere() {
    if !is_root("cve_2025_47290_a_link_made_meanwhile_leads_nowhere") {
        return;
    }
    // A directory that is at hand is replaced by a link out, and then an entry comes for it.
    let place = Place::new();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    let out = outside.to_str().unwrap();
    let bytes = archive(&[
        dir("d"),
        file("d/f", b""),
        symlink("d", out),
        file("d/g", b"after"),
        dir("e"),
        symlink("way", "e"),
        file("way/f", b""),
        symlink("way", out),
        file("way/g", b"after"),
    ]);
    place.overlay("layer", &[], &bytes).unwrap();
    assert_eq!(paths(&super::list(&outside)), ["/"]);
    let lines = place.list("layer");
    assert!(line(&lines, &format!("{out}/g")).is_some(), "within the root: {lines:#?}");
    assert!(line(&lines, "/e/g").is_none());
}

#[test]
fn cve_2025_62518_and_2026_33055_one_size_counts() {
    if !is_root("cve_2025_62518_and_2026_33055_one_size_counts") {
        return;
    }
    // An archive in a file whose header says 0 and whose record says how long it is; and the other way round.
    let inner = archive(&[file("smuggled", b"x")]);
    let size = inner.len().to_string();
    for zero in [true, false] {
        let mut outer = file("outer", &inner).pax("size", &size);
        if zero {
            outer = outer.patch(124, b"00000000000\0");
        } else {
            outer = outer.patch(124, b"00000001000\0");
        }
        let place = Place::new();
        place.overlay("layer", &[], &archive(&[outer, file("after", b"")])).unwrap();
        assert_eq!(paths(&place.list("layer")), ["/", "/after", "/outer"], "zero {zero}");
    }
    // A link has no data, whatever both say.
    let place = Place::new();
    let link = symlink("l", "t").pax("size", "1024").patch(124, b"00000002000\0");
    place.overlay("layer", &[], &archive(&[link, file("after", b"")])).unwrap();
    assert_eq!(paths(&place.list("layer")), ["/", "/after", "/l"]);
}

#[test]
fn lies_about_holes_are_found() {
    let pax = |map: &str, size: &str| file("s", b"12345678").pax("GNU.sparse.map", map).pax("GNU.sparse.size", size);
    let version = |major: &str, data: &[u8]| {
        file("s", data).pax("GNU.sparse.major", major).pax("GNU.sparse.minor", "0").pax("GNU.sparse.realsize", "100")
    };
    for (item, reason) in [
        (pax("0,4,2,4", "100"), "overlap"),
        (pax("50,4,0,4", "100"), "out of order"),
        (pax("0,4,98,4", "100"), "with a piece of"),
        (pax("0,4,18446744073709551612,4", "100"), "with a piece of"),
        (pax("0,4", "100"), "but 8 are in the archive"),
        (pax("0,8,9", "100"), "an offset without its length"),
        (pax("0,8,x,0", "100"), "no list of numbers"),
        (pax("0,8", "18446744073709551615"), "a sparse file of 18446744073709551615 bytes"),
        (version("7", b""), "in a format that is none of GNU tar's"),
        (version("1", b""), "whose map is longer than its data"),
        (version("1", &[b'9'; 512]), "no list of numbers"),
        (version("1", &[b"300000\n".to_vec(), vec![b'0'; 505]].concat()), "a sparse file of more than"),
        (symlink("s", "t").pax("GNU.sparse.map", "0,0").pax("GNU.sparse.size", "1"), "no regular file"),
        (file("s", b"").kind(b'S'), "GNU's sparse file in an archive that is not"),
        (file("s", b"").pax("GNU.sparse.numbytes", "1"), "do not come in turn"),
    ] {
        let error = refused(&[item]);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

/// Entries without an end, from no memory at all.
struct Endless {
    entry: Vec<u8>,
    at: usize,
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(self.entry.len() - self.at);
        into[..length].copy_from_slice(&self.entry[self.at..self.at + length]);
        self.at = (self.at + length) % self.entry.len();
        Ok(length)
    }
}

#[test]
fn bombs_end_in_an_error() {
    let many = |item: Item| Endless { entry: item.bytes(), at: 0 };
    assert_eq!(Limits::default().entries, 1_000_000);
    let limits = Limits { entries: 10_000, ..Limits::default() };
    // The cheapest entries, then headers that come before entries: an endless stream of each.
    for item in [file("f", b""), file("L", b"name\0").kind(b'L'), file("x", b"9 path=a\n").kind(b'x')] {
        let mut reader = Reader::new(io::BufReader::with_capacity(1 << 20, many(item)), &limits);
        let mut entry = Entry::default();
        let error = loop {
            match reader.next(&mut entry) {
                Ok(more) => assert!(more),
                Err(error) => break error,
            }
        };
        assert_eq!((error.kind, reader.headers()), (Kind::ResourceExhausted, 10_001), "{error}");
    }
    let place = Place::new();
    let options = |limits| Options { rootless: true, limits, ..Options::default() };
    let layer = |name: &str, bytes: &[u8], limits: Limits| {
        let error = place.overlay_with(name, &[], bytes, &options(limits)).unwrap_err();
        assert_eq!(error.kind, Kind::ResourceExhausted, "{error}");
        error.message
    };
    let files: Vec<Item> = (0..20).map(|it| file(&it.to_string(), b"")).collect();
    let error = layer("entries", &archive(&files), Limits { entries: 10, ..Limits::default() });
    assert!(error.contains("more than 10 entries"), "{error}");
    let error = layer("size", &archive(&[file("f", &vec![0; 1 << 20])]), Limits { size: 1 << 19, ..Limits::default() });
    assert!(error.contains("which is the limit") || error.contains("the limit of a layer"), "{error}");
    let huge = file("x", b"").pax("SCHILY.xattr.user.a", vec![1; 60_000]).pax("comment", vec![b'c'; 1 << 20]);
    let error = layer("records", &archive(&[huge]), Limits::default());
    assert!(error.contains("a metadata header"), "{error}");
    let claim = file("x", b"").kind(b'x').patch(124, b"77777777777\0");
    assert!(layer("claim", &archive(&[claim]), Limits::default()).contains("a metadata header"));
    let zeros = super::layer::gzip(&archive(&[file("f", &vec![0; 80 << 20])]));
    let error = layer("ratio", &zeros, Limits { ratio: 100, ..Limits::default() });
    assert!(error.contains("inflates to more than 100 times its size"), "{error}");
    place.overlay_with("fine", &[], &zeros, &options(Limits::default())).unwrap();
}

#[test]
fn many_attributes_are_too_many() {
    let item = (0..3000).fold(file("x", b""), |item, it| item.xattr(&format!("user.{it}"), b"1"));
    let error = refused(&[item]);
    assert!(error.contains("more than 2048 extended attributes"), "{error}");
}

#[test]
fn links_to_links_end() {
    let mut items: Vec<Item> = (0..60).map(|it| symlink(&it.to_string(), &(it + 1).to_string())).collect();
    items.push(symlink("round", "round"));
    items.push(file("0/f", b""));
    let error = refused(&items);
    assert!(error.contains("too many links"), "{error}");
    let error = refused(&[symlink("round", "round"), file("round/f", b"")]);
    assert!(error.contains("too many links"), "{error}");
    // Each link goes 250 deeper than the last.
    let long = vec!["d"; 250].join("/");
    let down = vec![dir(&long).pax("path", &long), symlink("l", "x").pax("linkpath", &long)];
    let deeper = file("x", b"").pax("path", format!("l/{long}/f"));
    let error = refused(&[down, vec![deeper]].concat());
    assert!(error.contains("lies too deep"), "{error}");
}
