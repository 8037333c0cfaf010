//! What is written is read back: the layer, above what was below, shows the tree it was made from.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};

use super::super::tests::layer::{Item, archive, device, dir, file, hardlink, symlink as link};
use super::super::tests::{Place, is_root, line, open, paths};
use super::{DiffOptions, Source, Written, write};
use crate::error::{Kind, Result};

fn written(source: &Source<'_>, options: &DiffOptions) -> (Vec<u8>, Written) {
    let mut bytes = Vec::new();
    let written = write(&mut bytes, source, options).unwrap();
    assert_eq!(
        (written.diff_id.clone(), written.size),
        (crate::content::digest::Digest::of(&bytes), bytes.len() as u64)
    );
    (bytes, written)
}

fn names(bytes: &[u8]) -> Vec<String> {
    let limits = super::super::Limits::default();
    let mut reader = super::super::tar::Reader::new(bytes, &limits);
    let mut entry = super::super::tar::Entry::default();
    let mut names = Vec::new();
    while reader.next(&mut entry).unwrap() {
        names.push(String::from_utf8_lossy(&entry.path).into_owned());
    }
    names
}

fn base() -> Vec<Item> {
    let long = "a-long-name/".repeat(20);
    vec![
        dir("./"),
        dir("d").owner(1, 2).mode(0o1777).xattr("user.note", b"x"),
        file("d/f", b"text")
            .owner(3_000_000, 4)
            .mode(0o4755)
            .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        hardlink("d/h", "d/f"),
        link("l", "d/f").xattr("trusted.t", b"1"),
        link("ll", "x").pax("linkpath", &long),
        device("null", b'3', 1, 3),
        device("sda", b'4', 8, 1),
        device("pipe", b'6', 0, 0),
        file("x", b"deep").pax("path", format!("{long}f")).pax("mtime", "1234567890.123456789"),
        file("old", b"").pax("mtime", "-5.25"),
        file("big", &vec![7; 300_000]),
        dir("gone"),
        file("gone/f", b""),
        dir("opaque"),
        file("opaque/below", b""),
        dir("e"),
        file("e/f", b""),
    ]
}

#[test]
fn a_whole_tree_comes_back_whole() {
    if !is_root("a_whole_tree_comes_back_whole") {
        return;
    }
    let place = Place::new();
    place.tree("tree", &archive(&base())).unwrap();
    let tree = open(&place.path("tree"));
    let source = Source::Trees { lower: None, upper: tree.as_fd() };
    let (bytes, _) = written(&source, &DiffOptions::default());
    place.tree("back", &bytes).unwrap();
    assert_eq!(place.list("tree")[1..], place.list("back")[1..]);
    assert_eq!(written(&source, &DiffOptions::default()).0, bytes, "and the same again");
    let names = names(&bytes);
    assert!(names.is_sorted_by(|a, b| a.split('/').le(b.split('/'))), "{names:?}");
}

#[test]
fn an_overlays_changes_are_a_layer() {
    if !is_root("an_overlays_changes_are_a_layer") {
        return;
    }
    let place = Place::new();
    place.overlay("lower", &[], &archive(&base())).unwrap();
    let changes = [
        file("new", b"1"),
        file(".wh.gone", b""),
        file("d/.wh.h", b""),
        dir("opaque"),
        file("opaque/.wh..wh..opq", b""),
        file("opaque/mine", b""),
        dir("d").mode(0o700),
        dir("d/marked").xattr("trusted.overlay.metacopy", b""),
        file("e", b"now a file"),
        file("l", b""),
    ];
    place.overlay("upper", &["lower"], &archive(&changes)).unwrap();
    let (lower, upper) = (open(&place.path("lower")), open(&place.path("upper")));
    // As the kernel does with every new directory; and a whiteout of what is not below.
    fs::create_dir(place.path("upper/fresh")).unwrap();
    super::super::attributes::set_xattr(
        open(&place.path("upper/fresh")).as_fd(),
        b"trusted.overlay.opaque",
        b"y",
        false,
    )
    .unwrap();
    let source = Source::Overlay { upper: upper.as_fd(), lowers: vec![lower.as_fd()], userxattr: false };
    let (bytes, _) = written(&source, &DiffOptions::default());
    let names = names(&bytes);
    let expected = [
        "d",
        "d/.wh.h",
        "d/marked",
        "e",
        "fresh",
        ".wh.gone",
        "l",
        "new",
        "opaque",
        "opaque/.wh..wh..opq",
        "opaque/mine",
    ];
    assert_eq!(names, expected);
    place.overlay("again", &["lower"], &bytes).unwrap();
    assert_eq!(place.merged(&["again", "lower"])[1..], place.merged(&["upper", "lower"])[1..]);
}

#[test]
fn two_trees_differ_in_what_was_changed() {
    if !is_root("two_trees_differ_in_what_was_changed") {
        return;
    }
    let place = Place::new();
    place.tree("lower", &archive(&base())).unwrap();
    place.tree("upper", &archive(&base())).unwrap();
    let (lower, upper) = (open(&place.path("lower")), open(&place.path("upper")));
    let source = Source::Trees { lower: Some(lower.as_fd()), upper: upper.as_fd() };
    assert_eq!(names(&written(&source, &DiffOptions::default()).0), [""; 0], "nothing changed");

    // A byte changed, size and time as they were.
    let big = place.path("upper/big");
    let time = fs::metadata(&big).unwrap().modified().unwrap();
    let mut data = fs::read(&big).unwrap();
    data[200_000] = 8;
    fs::write(&big, data).unwrap();
    fs::File::options().write(true).open(&big).unwrap().set_modified(time).unwrap();
    fs::remove_dir_all(place.path("upper/gone")).unwrap();
    fs::remove_file(place.path("upper/e/f")).unwrap();
    fs::remove_dir(place.path("upper/e")).unwrap();
    symlink("d", place.path("upper/e")).unwrap();
    fs::hard_link(place.path("upper/d/f"), place.path("upper/alias")).unwrap();
    fs::write(place.path("upper/opaque/below"), "changed").unwrap();
    let (bytes, _) = written(&source, &DiffOptions::default());
    assert_eq!(names(&bytes), ["alias", "big", "d", "d/f", "d/h", "e", ".wh.gone", "opaque", "opaque/below"]);
    place.tree("lower", &bytes).unwrap();
    assert_eq!(place.list("lower")[1..], place.list("upper")[1..]);
    assert_eq!(fs::metadata(place.path("lower/alias")).unwrap().nlink(), 3);
}

#[test]
fn no_time_is_later_than_it_may_be() {
    let place = Place::new();
    fs::create_dir_all(place.path("upper/d")).unwrap();
    fs::write(place.path("upper/d/f"), "x").unwrap();
    let upper = open(&place.path("upper"));
    let source = Source::Overlay { upper: upper.as_fd(), lowers: Vec::new(), userxattr: false };
    let options = DiffOptions { latest_mtime: Some(1_000_000_000), source: String::new() };
    let first = written(&source, &options);
    fs::write(place.path("upper/d/f"), "x").unwrap();
    assert_eq!(written(&source, &options), first, "whenever it was made");
    let limits = super::super::Limits::default();
    let mut reader = super::super::tar::Reader::new(&*first.0, &limits);
    let mut entry = super::super::tar::Entry::default();
    while reader.next(&mut entry).unwrap() {
        assert_eq!((entry.mtime.seconds, entry.mtime.nanos), (1_000_000_000, 0), "{}", entry.shown());
    }
}

#[test]
fn what_no_layer_can_say_is_refused() {
    if !is_root("what_no_layer_can_say_is_refused") {
        return;
    }
    let place = Place::new();
    fs::create_dir_all(place.path("upper/moved")).unwrap();
    super::super::attributes::set_xattr(
        open(&place.path("upper/moved")).as_fd(),
        b"trusted.overlay.redirect",
        b"/x",
        false,
    )
    .unwrap();
    let upper = open(&place.path("upper"));
    let source = Source::Overlay { upper: upper.as_fd(), lowers: Vec::new(), userxattr: false };
    let options = DiffOptions { source: "snapshot 1".to_owned(), ..DiffOptions::default() };
    let error: Result<Written> = write(Vec::new(), &source, &options);
    let error = error.unwrap_err();
    assert_eq!(error.kind, Kind::FailedPrecondition);
    assert!(
        error.message.starts_with("snapshot 1: entry \"/moved\": it is marked trusted.overlay.redirect"),
        "{error}"
    );
    assert_eq!(paths(&place.list("upper")), ["/", "/moved"]);
    assert!(line(&place.list("upper"), "/moved").is_some());
}
