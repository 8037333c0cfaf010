//! Several layers: an overlay of what each became shows what applying one after the other does.

use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex};

use super::layer::{Item, MTIME, archive, device, dir, file, hardlink, symlink};
use super::{Form, Options, PLAIN, Place, both, extract, is_root, line, open, paths};

#[test]
fn layers_show_the_same_one_by_one_and_as_an_overlay() {
    if !is_root("layers_show_the_same_one_by_one_and_as_an_overlay") {
        return;
    }
    let base = || {
        vec![
            dir("./").mode(0o711).owner(1, 1),
            dir("usr").at(5),
            dir("usr/bin").mode(0o750).owner(3, 4).at(6).xattr("user.kept", b"1"),
            file("usr/bin/tool", b"old").owner(9, 9).mode(0o755),
            symlink("bin", "usr/bin"),
            symlink("abs", "/usr/bin"),
            dir("d"),
            dir("d/sub"),
            file("d/sub/f", b"below"),
            file("d/g", b"below"),
            file("f", b"below"),
            device("fifo", b'6', 0, 0),
        ]
    };
    let cases: &[(&str, Vec<Item>, &[&str])] = &[
        ("nothing changes", vec![], &["/bin", "/d/sub/f", "/f"]),
        ("a file is replaced", vec![file("usr/bin/tool", b"new")], &["/usr/bin/tool"]),
        ("a missing parent is like the one below", vec![file("usr/bin/new", b"")], &["/usr/bin/new", "/usr/bin/tool"]),
        ("a parent that is a link below", vec![file("bin/new", b"")], &["/usr/bin/new", "/bin"]),
        ("a parent that is an absolute link below", vec![file("abs/new", b"")], &["/usr/bin/new", "/abs"]),
        (
            "a link within the layer to a directory below",
            vec![symlink("way", "d/../usr"), file("way/bin/n", b"")],
            &["/usr/bin/n"],
        ),
        ("a whiteout", vec![file(".wh.f", b"")], &["!/f"]),
        ("a whiteout in a directory without an entry", vec![file("d/sub/.wh.f", b"")], &["!/d/sub/f", "/d/sub"]),
        ("a whiteout of a directory", vec![file(".wh.d", b"")], &["!/d"]),
        ("a whiteout of what is not there", vec![file("new/.wh.nothing", b""), dir("new")], &["/new", "!/new/nothing"]),
        ("a whiteout and then the name", vec![file(".wh.f", b""), file("f", b"new")], &["/f"]),
        ("the name and then its whiteout", vec![file("f", b"new"), file(".wh.f", b"")], &["/f"]),
        ("a whiteout and a new directory", vec![file(".wh.d", b""), dir("d"), file("d/n", b"")], &["/d/n", "!/d/g"]),
        ("a new directory and its whiteout", vec![dir("d"), file("d/n", b""), file(".wh.d", b"")], &["/d/n", "!/d/g"]),
        ("a whiteout and an entry in it", vec![file(".wh.d", b""), file("d/sub/n", b"")], &["/d/sub/n", "!/d/sub/f"]),
        ("a whiteout of the link", vec![file(".wh.bin", b""), file("bin/n", b"")], &["/bin/n", "!/usr/bin/n"]),
        ("opaque first", vec![dir("d"), file("d/.wh..wh..opq", b""), file("d/n", b"")], &["/d/n", "!/d/g", "!/d/sub"]),
        ("opaque last", vec![dir("d"), file("d/n", b""), file("d/.wh..wh..opq", b"")], &["/d/n", "!/d/g", "!/d/sub"]),
        (
            "opaque with a directory within",
            vec![dir("d"), dir("d/sub"), file("d/.wh..wh..opq", b"")],
            &["/d/sub", "!/d/sub/f"],
        ),
        ("opaque alone", vec![file("d/.wh..wh..opq", b"")], &["/d", "!/d/g"]),
        (
            "the root is opaque",
            vec![file("n", b""), dir("d"), file(".wh..wh..opq", b"")],
            &["/n", "/d", "!/d/g", "!/usr", "!/f"],
        ),
        ("a directory becomes a file", vec![file("d", b"")], &["/d", "!/d/g"]),
        (
            "a directory becomes a file and one again",
            vec![file("d", b""), dir("d"), file("d/n", b"")],
            &["/d/n", "!/d/g"],
        ),
        ("a file becomes a directory", vec![dir("f"), file("f/n", b"")], &["/f/n"]),
        ("a link becomes a directory", vec![dir("bin"), file("bin/n", b"")], &["/bin/n", "!/usr/bin/n"]),
        ("a directory becomes a link", vec![file(".wh.d", b""), symlink("d", "usr"), file("d/n", b"")], &["/usr/n"]),
        (
            "by the link, then instead of it",
            vec![file("bin/a", b""), dir("bin"), file("bin/b", b"")],
            &["/usr/bin/a", "/bin/b", "!/usr/bin/b"],
        ),
        ("a hard link to a file below", vec![hardlink("usr/bin/alias", "usr/bin/tool")], &["/usr/bin/alias"]),
        ("a hard link through a link below", vec![hardlink("alias", "bin/tool")], &["/alias", "/usr/bin/tool"]),
        ("a hard link to a link below", vec![hardlink("alias", "bin")], &["/alias"]),
        ("a hard link to a pipe below", vec![hardlink("alias", "fifo")], &["/alias"]),
        (
            "a directory's entry after it was implied",
            vec![file("usr/bin/n", b""), dir("usr/bin").mode(0o700)],
            &["/usr/bin/tool"],
        ),
        (
            "deleted in what became a file",
            vec![file("d", b""), file("d/.wh.g", b""), file("d/sub/.wh.f", b"")],
            &["/d"],
        ),
        ("deleted within a deleted one", vec![file("d/.wh.g", b""), file(".wh.d", b"")], &["!/d"]),
    ];
    for (name, items, expected) in cases {
        let lines = both(&[base(), items.clone()]);
        for path in *expected {
            match path.strip_prefix('!') {
                Some(path) => assert!(line(&lines, path).is_none(), "{name}: {path} is there: {lines:#?}"),
                None => assert!(line(&lines, path).is_some(), "{name}: {path} is missing: {lines:#?}"),
            }
        }
        // And once more above it: what was deleted comes back, or does not.
        let again = vec![file("d/back", b"3"), file("usr/bin/third", b"3"), file(".wh.fifo", b"")];
        if !paths(&lines).contains(&"/d") || line(&lines, "/d").unwrap().starts_with('d') {
            both(&[base(), items.clone(), again]);
        }
    }
}

#[test]
fn parents_and_roots_are_like_those_below() {
    if !is_root("parents_and_roots_are_like_those_below") {
        return;
    }
    let lines = both(&[
        vec![dir("./").mode(0o711).owner(1, 1).at(3), dir("a").mode(0o2750).owner(3, 4).at(6).xattr("user.kept", b"1")],
        vec![file("a/n", b"")],
        vec![file("a/m", b"")],
    ]);
    assert_eq!(line(&lines, "/"), Some("d711 1:1 3.0"));
    assert_eq!(line(&lines, "/a"), Some("d2750 3:4 6.0 user.kept=1"));
    assert_eq!(paths(&lines), ["/", "/a", "/a/m", "/a/n"]);
}

#[test]
fn a_copy_for_a_hard_link_has_all_of_the_file() {
    if !is_root("a_copy_for_a_hard_link_has_all_of_the_file") {
        return;
    }
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tool = file("d/tool", b"text")
        .owner(9, 8)
        .mode(0o4755)
        .xattr("security.capability", capability)
        .xattr("trusted.overlay.x", b"y");
    let lines = both(&[vec![dir("d"), tool], vec![hardlink("alias", "d/tool")]]);
    let alias = line(&lines, "/alias").unwrap();
    assert!(alias.starts_with(&format!("-4755 9:8 {MTIME}.0 4:text =alias security.capability=")), "{alias}");
    assert!(line(&lines, "/d/tool").unwrap().contains("=alias"));
}

/// The upper layer is extracted first, and waits for the lower one only where it has to.
#[test]
fn layers_are_extracted_at_once() {
    if !is_root("layers_are_extracted_at_once") {
        return;
    }
    let place = Place::new();
    let (done, changed) = (Mutex::new(false), Condvar::new());
    std::fs::create_dir(place.path("upper")).unwrap();
    let upper = archive(&[dir("own"), file("own/f", b""), file("d/.wh.f", b""), hardlink("alias", "d/g")]);
    std::thread::scope(|scope| {
        let above = scope.spawn(|| {
            let lowers = || {
                let done = changed.wait_while(done.lock().unwrap(), |done| !*done).unwrap();
                drop(done);
                Ok(vec![open(&place.path("lower"))])
            };
            let form = Form::Overlay { lowers: &lowers, userxattr: false };
            extract(&*upper, PLAIN, open(&place.path("upper")).as_fd(), &form, &Options::default(), &|_| {}).unwrap();
        });
        place.overlay("lower", &[], &archive(&[dir("d").mode(0o700), file("d/f", b""), file("d/g", b"g")])).unwrap();
        *done.lock().unwrap() = true;
        changed.notify_all();
        above.join().unwrap();
    });
    let lines = place.merged(&["upper", "lower"]);
    assert_eq!(paths(&lines), ["/", "/alias", "/d", "/d/g", "/own", "/own/f"]);
    assert!(line(&lines, "/d").unwrap().starts_with("d700"));
}

#[test]
fn what_an_image_calls_like_marks_is_seen_under_that_name() {
    if !is_root("what_an_image_calls_like_marks_is_seen_under_that_name") {
        return;
    }
    let place = Place::new();
    place.overlay("lower", &[], &archive(&[dir("d"), file("d/f", b"")])).unwrap();
    place.overlay("upper", &["lower"], &archive(&[dir("d").xattr("trusted.overlay.opaque", b"y")])).unwrap();
    let lines = place.merged(&["upper", "lower"]);
    assert!(line(&lines, "/d/f").is_some(), "the image's attribute hides nothing");
    // Since Linux 6.7 it is shown under its own name; before, not at all.
    let shown = line(&lines, "/d").unwrap();
    assert!(shown.ends_with(" trusted.overlay.opaque=y") || shown.ends_with(&format!("{MTIME}.0")), "{shown}");
}
