//! One layer: what each kind of entry becomes.

use super::layer::{MTIME, archive, device, dir, file, hardlink, record, symlink};
use super::{Place, is_root, line, list, paths};
use crate::error::Kind;

fn made(items: &[super::Item]) -> Vec<String> {
    let place = Place::new();
    place.overlay("layer", &[], &archive(items)).unwrap();
    place.list("layer")
}

#[test]
fn entries_have_every_attribute_the_layer_gives_them() {
    if !is_root("entries_have_every_attribute_the_layer_gives_them") {
        return;
    }
    let lines = made(&[
        dir("./").mode(0o751).owner(3, 4).at(7),
        dir("a/").owner(1, 2).mode(0o1777),
        file("a/f", b"text").owner(1000, 1001).mode(0o640),
        file("a/suid", b"x")
            .owner(5, 6)
            .mode(0o6755)
            .xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        file("a/secret", b"").mode(0),
        symlink("a/l", "../nowhere").owner(7, 8),
        hardlink("a/h", "a/f"),
        device("a/null", b'3', 1, 3).mode(0o666),
        device("a/sda", b'4', 8, 0).owner(0, 6).mode(0o660),
        device("a/pipe", b'6', 0, 0).mode(0o622),
        dir("staff").owner(0, 50).mode(0o2775),
        file("staff/root's", b"").owner(0, 0),
        dir("staff/sub").owner(0, 0),
    ]);
    let (stamp, xattr) = (format!("{MTIME}.0"), "security.capability=");
    for (path, expected) in [
        ("/", "d751 3:4 7.0".to_owned()),
        ("/a", format!("d1777 1:2 {stamp}")),
        ("/a/f", format!("-640 1000:1001 {stamp} 4:text =a/f")),
        ("/a/h", format!("-640 1000:1001 {stamp} 4:text =a/f")),
        ("/a/secret", format!("-0 0:0 {stamp} 0:")),
        ("/a/l", format!("l777 7:8 {stamp} -> ../nowhere")),
        ("/a/null", format!("c666 0:0 {stamp} 1:3")),
        ("/a/sda", format!("b660 0:6 {stamp} 8:0")),
        ("/a/pipe", format!("p622 0:0 {stamp}")),
        ("/staff", format!("d2775 0:50 {stamp}")),
        ("/staff/root's", format!("-644 0:0 {stamp} 0:")),
        ("/staff/sub", format!("d755 0:0 {stamp}")),
    ] {
        assert_eq!(line(&lines, path), Some(&*expected), "{path}");
    }
    let suid = line(&lines, "/a/suid").unwrap();
    assert!(
        suid.starts_with(&format!("-6755 5:6 {stamp} 1:x {xattr}")),
        "chown takes set-id bits and capabilities away: {suid}"
    );
}

#[test]
fn what_is_made_counts() {
    let place = Place::new();
    let bytes = archive(&[dir("d"), file("d/f", &[1; 5000]), symlink("l", "d")]);
    let options = super::Options { rootless: true, ..super::Options::default() };
    let extracted = place.overlay_with("layer", &[], &bytes, &options).unwrap();
    assert_eq!(extracted.diff_id, super::super::Digest::of(&bytes));
    assert_eq!((extracted.size, extracted.inodes, extracted.bytes_on_disk), (bytes.len() as u64, 3, 8192 + 4096));
}

#[test]
fn the_umask_has_no_say() {
    if !is_root("the_umask_has_no_say") {
        return;
    }
    // In a thread of its own the umask is its own, and what it starts inherits it.
    let lines = std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
            made(&[
                dir("d"),
                file("d/f", b"").mode(0o666),
                device("d/p", b'6', 0, 0).mode(0o666),
                file("implied/f", b""),
            ])
        });
        made.join().unwrap()
    });
    assert!(line(&lines, "/d").unwrap().starts_with("d755 "));
    assert!(line(&lines, "/d/f").unwrap().starts_with("-666 "));
    assert!(line(&lines, "/d/p").unwrap().starts_with("p666 "));
    assert!(line(&lines, "/implied").unwrap().starts_with("d755 "));
}

#[test]
fn a_directory_has_its_time_whatever_is_made_in_it_later() {
    if !is_root("a_directory_has_its_time_whatever_is_made_in_it_later") {
        return;
    }
    let mut items = vec![dir("d").at(11), dir("d/e").at(12), file("d/e/f", b"")];
    // More directories than are kept at hand, and then back to the first.
    items.extend((0..200).map(|it| dir(&format!("d/{it}")).at(1000 + it)));
    items.extend((0..200).map(|it| file(&format!("d/{it}/f"), b"")));
    items.push(file("d/e/g", b""));
    items.push(file("d/last", b""));
    items.push(dir("./").at(13));
    let lines = made(&items);
    assert!(line(&lines, "/").unwrap().ends_with(" 13.0"));
    assert!(line(&lines, "/d").unwrap().ends_with(" 11.0"));
    assert!(line(&lines, "/d/e").unwrap().ends_with(" 12.0"));
    for it in 0..200 {
        assert!(line(&lines, &format!("/d/{it}")).unwrap().ends_with(&format!(" {}.0", 1000 + it)), "{it}");
    }
}

#[test]
fn missing_parents_are_roots() {
    if !is_root("missing_parents_are_roots") {
        return;
    }
    let lines = made(&[file("a/b/c/f", b"x").owner(9, 9)]);
    assert_eq!(paths(&lines), ["/", "/a", "/a/b", "/a/b/c", "/a/b/c/f"]);
    assert_eq!(line(&lines, "/a/b"), Some("d755 0:0 0.0"));
    assert_eq!(line(&lines, "/"), Some("d755 0:0 0.0"), "of the root nobody speaks either");
}

#[test]
fn a_directory_is_replaced_by_a_file_and_back() {
    if !is_root("a_directory_is_replaced_by_a_file_and_back") {
        return;
    }
    let lines = made(&[
        dir("d"),
        file("d/f", b"old"),
        dir("d/deep"),
        file("d/deep/g", b""),
        file("d", b"now a file"),
        dir("d").mode(0o700),
        file("d/new", b""),
        symlink("l", "d"),
        file("l", b"not through the link"),
        file("twice", b"first"),
        file("twice", b"second"),
        dir("same"),
        file("same/kept", b""),
        dir("same").mode(0o711),
    ]);
    assert_eq!(paths(&lines), ["/", "/d", "/d/new", "/l", "/same", "/same/kept", "/twice"]);
    assert!(line(&lines, "/l").unwrap().ends_with("20:not through the link"));
    assert!(line(&lines, "/twice").unwrap().ends_with("6:second"));
    assert!(line(&lines, "/same").unwrap().starts_with("d711"));
    assert!(line(&lines, "/d").unwrap().ends_with(" trusted.overlay.opaque=y"), "the file hid what is below");
}

#[test]
fn a_hard_link_to_a_link_is_one() {
    if !is_root("a_hard_link_to_a_link_is_one") {
        return;
    }
    let lines = made(&[file("f", b"text"), symlink("l", "f"), hardlink("h", "l"), hardlink("f", "/./x/../h")]);
    assert!(line(&lines, "/h").unwrap().ends_with("-> f =f"));
    assert!(line(&lines, "/f").unwrap().ends_with("-> f =f"), "and may take the place of what it pointed to");
}

#[test]
fn marks_of_overlayfs_in_an_image_are_escaped_and_labels_dropped() {
    if !is_root("marks_of_overlayfs_in_an_image_are_escaped_and_labels_dropped") {
        return;
    }
    let items = [
        dir("d").xattr("trusted.overlay.opaque", b"y").xattr("user.note", b"a=b\n"),
        file("f", b"").xattr("security.selinux", b"system_u:object_r:bin_t:s0").xattr("trusted.other", b"1"),
        symlink("l", "f").xattr("trusted.on_link", b"2").xattr("trusted.overlay.redirect", b"/etc"),
    ];
    let lines = made(&items);
    assert_eq!(
        line(&lines, "/d"),
        Some(&*format!("d755 0:0 {MTIME}.0 trusted.overlay.overlay.opaque=y user.note=a=b\n"))
    );
    assert_eq!(line(&lines, "/f"), Some(&*format!("-644 0:0 {MTIME}.0 0: trusted.other=1")));
    assert_eq!(
        line(&lines, "/l"),
        Some(&*format!("l777 0:0 {MTIME}.0 -> f trusted.on_link=2 trusted.overlay.overlay.redirect=/etc"))
    );
    let place = Place::new();
    place.tree("tree", &archive(&items)).unwrap();
    let tree = place.list("tree");
    assert!(line(&tree, "/d").unwrap().contains(" trusted.overlay.opaque=y"), "in a whole tree it means nothing");
    assert!(!line(&tree, "/f").unwrap().contains("selinux"));
}

#[test]
fn default_acls_give_nothing_that_the_layer_does_not() {
    if !is_root("default_acls_give_nothing_that_the_layer_does_not") {
        return;
    }
    // Version 2; owner rwx, user 7 rwx, group r-x, mask rwx, others ---.
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let acl = [
        &[2u8, 0, 0, 0][..],
        &entry(1, 7, u32::MAX),
        &entry(2, 7, 7),
        &entry(4, 5, u32::MAX),
        &entry(16, 7, u32::MAX),
        &entry(32, 0, u32::MAX),
    ]
    .concat();
    let lines = made(&[dir("d").xattr("system.posix_acl_default", &acl), file("d/f", b"").mode(0o644), dir("d/e")]);
    assert!(line(&lines, "/d").unwrap().contains("system.posix_acl_default"));
    assert_eq!(line(&lines, "/d/f"), Some(&*format!("-644 0:0 {MTIME}.0 0:")));
    assert_eq!(line(&lines, "/d/e"), Some(&*format!("d755 0:0 {MTIME}.0")));
}

#[test]
fn names_sizes_and_ids_that_a_header_has_no_room_for() {
    if !is_root("names_sizes_and_ids_that_a_header_has_no_room_for") {
        return;
    }
    let long = "n".repeat(200);
    let name = |name: &str| [name.as_bytes(), b"\0"].concat();
    let lines = made(&[
        file("pax-short", b"pax")
            .pax("path", format!("{long}/pax"))
            .pax("uid", "3000000")
            .pax("gid", "4294967294")
            .pax("mtime", "-1.5"),
        file("././@LongLink", &name(&format!("{long}/gnu"))).kind(b'L'),
        file("short", b"gnu").patch(257, b"ustar  \0").patch(108, [0x80, 0, 0, 0, 0, 0x30, 0, 0]),
        file("././@LongLink", &name(&format!("{long}/gnu"))).kind(b'K'),
        file("././@LongLink", &name(&format!("{long}/link"))).kind(b'L'),
        hardlink("short", "short"),
        symlink("sym", "x").pax("linkpath", &long),
        file("f", b"prefixed").patch(345, b"pre/fix"),
        file("neg", b"").patch(136, [0xff; 12]),
        dir("old/").kind(b'0'),
        file("contiguous", b"c").kind(b'7'),
        file("sized", b"12345").pax("size", "5").patch(124, b"00000000000\0"),
        file("after", b"it is where it should be"),
    ]);
    assert_eq!(line(&lines, &format!("/{long}/pax")), Some("-644 3000000:4294967294 -2.500000000 3:pax"));
    assert_eq!(line(&lines, &format!("/{long}/gnu")), Some(&*format!("-644 3145728:0 {MTIME}.0 3:gnu ={long}/gnu")));
    assert!(line(&lines, &format!("/{long}/link")).unwrap().ends_with(&format!("={long}/gnu")));
    assert!(line(&lines, "/sym").unwrap().ends_with(&format!("-> {long}")));
    assert!(line(&lines, "/pre/fix/f").unwrap().ends_with("8:prefixed"));
    assert!(line(&lines, "/neg").unwrap().contains(" -1.0 "));
    assert!(line(&lines, "/old").unwrap().starts_with('d'));
    assert!(line(&lines, "/contiguous").unwrap().ends_with("1:c"));
    assert!(line(&lines, "/sized").unwrap().ends_with("5:12345"));
    assert!(line(&lines, "/after").is_some());
}

#[test]
fn sparse_files_in_four_formats() {
    if !is_root("sparse_files_in_four_formats") {
        return;
    }
    let pair = |offset: u64, length: u64| format!("{offset:011o}\0{length:011o}\0");
    let mut old =
        file("old", b"headtail").kind(b'S').patch(257, b"ustar  \0").patch(483, format!("{:011o}\0", 100_000));
    old = old.patch(386, [pair(0, 4), pair(50_000, 2), pair(60_000, 1), pair(70_000, 0)].concat()).patch(482, [1]);
    let mut extension = vec![0; 512];
    extension[..24].copy_from_slice(pair(99_999, 1).as_bytes());
    let old = [&old.bytes()[..512], &extension, &old.bytes()[512..]].concat();
    let body = b"4\n0\n4\n50000\n2\n60000\n1\n99999\n1\n";
    let mut data = body.to_vec();
    data.resize(512, 0);
    data.extend(b"headtail");
    let pax = |name: &str| file(name, b"headtail").pax("GNU.sparse.size", "100000").pax("GNU.sparse.numblocks", "4");
    let zero = [
        ("offset", "0"),
        ("numbytes", "4"),
        ("offset", "50000"),
        ("numbytes", "2"),
        ("offset", "60000"),
        ("numbytes", "1"),
        ("offset", "99999"),
        ("numbytes", "1"),
    ]
    .iter()
    .fold(pax("zero"), |item, (key, value)| item.pax(&format!("GNU.sparse.{key}"), value));
    let one =
        pax("GNUSparseFile.1/one").pax("GNU.sparse.name", "one").pax("GNU.sparse.map", "0,4,50000,2,60000,1,99999,1");
    let two = file("GNUSparseFile.1/two", &data)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "two")
        .pax("GNU.sparse.realsize", "100000");
    let bytes = [old, zero.bytes(), one.bytes(), two.bytes(), archive(&[file("after", b"")])].concat();
    let place = Place::new();
    let extracted = place.overlay("layer", &[], &bytes).unwrap();
    let mut content = vec![0; 100_000];
    for (at, piece) in [(0, &b"head"[..]), (50_000, b"ta"), (60_000, b"i"), (99_999, b"l")] {
        content[at..at + piece.len()].copy_from_slice(piece);
    }
    let digest = super::super::Digest::of(&content).to_string();
    let lines = place.list("layer");
    assert_eq!(paths(&lines), ["/", "/after", "/old", "/one", "/two", "/zero"]);
    for path in ["/old", "/one", "/two", "/zero"] {
        assert!(line(&lines, path).unwrap().ends_with(&format!("100000:{digest}")), "{path}");
    }
    assert!(extracted.bytes_on_disk < 100_000, "holes are holes");
}

#[test]
fn a_global_header_changes_nothing() {
    let place = Place::new();
    let global =
        file("g", &[record(b"comment", b"a commit"), record(b"path", b"elsewhere"), record(b"size", b"999")].concat())
            .kind(b'g');
    let options = super::Options { rootless: true, ..super::Options::default() };
    place.overlay_with("layer", &[], &archive(&[global, file("f", b"x")]), &options).unwrap();
    assert_eq!(paths(&list(&place.path("layer"))), ["/", "/f"]);
}

#[test]
fn what_aufs_kept_of_its_own_is_no_part_of_the_image() {
    let place = Place::new();
    let options = super::Options { rootless: true, ..super::Options::default() };
    let bytes = archive(&[
        dir(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", b""),
        file(".wh..wh.aufs", b""),
        dir("d"),
        file("d/.wh..wh.x", b""),
    ]);
    place.overlay_with("layer", &[], &bytes, &options).unwrap();
    assert_eq!(paths(&place.list("layer")), ["/", "/d"]);
}

#[test]
fn names_that_go_up_stay_in_the_root() {
    if !is_root("names_that_go_up_stay_in_the_root") {
        return;
    }
    let lines =
        made(&[file("/abs/./f", b""), file("../../up", b""), file("abs/x/../../side", b""), hardlink("h", "../../up")]);
    assert_eq!(paths(&lines), ["/", "/abs", "/abs/f", "/h", "/side", "/up"]);
}

#[test]
fn an_entry_that_cannot_be_is_named() {
    let name = "a".repeat(256);
    let deep = "d/".repeat(300);
    for (items, reason) in [
        (vec![file(".wh.", b"")], "a whiteout that names nothing"),
        (vec![file("a/.wh.", b"")], "a whiteout that names nothing"),
        (vec![file(".wh...", b"")], "a whiteout that names nothing"),
        (vec![file(".wh.x/f", b"")], "is called .wh."),
        (vec![file("f", b""), file("f/g", b"")], "what should be its directory is none"),
        (vec![hardlink("h", "gone")], "which neither this layer nor one below has"),
        (vec![dir("d"), hardlink("h", "d")], "which is a directory"),
        (vec![file("f", b""), hardlink("f", "f")], "a hard link to itself"),
        (vec![hardlink("h", "/")], "a hard link to the root"),
        (vec![symlink("s", "")], "whose target has 0 bytes"),
        (vec![file("x", b"").pax("path", &name)], "more than 255 bytes"),
        (vec![file("x", b"").pax("path", &deep)], "a path of 300 names"),
        (vec![file("x", b"").pax("path", "y/".repeat(3000))], "a path of 5999 bytes"),
        (vec![file("x", b"").pax("uid", "4294967295")], "uid 4294967295 does not exist"),
        (vec![file("x", b"").pax("gid", "18446744073709551615")], "does not exist"),
        (vec![file("x", b"").patch(108, [0xff; 8])], "uid -1 does not exist"),
        (vec![file("x", b"").patch(124, [0xff; 12])], "says its data has -1 bytes"),
        (vec![file("x", b"").patch(124, b"zzzzzzzzzzz\0")], "a size that is no number"),
        (vec![file("x", b"").pax("size", "9223372036854775808")], "the limit of a layer"),
        (vec![file("x", b"").kind(b'M')], "type 'M'"),
        (vec![file("x", b"").kind(b'Q')], "type 'Q'"),
        (vec![file("x", b"").xattr("user.big", &[1; 65_537])], "Linux has at most 65536"),
        (vec![device("x", b'3', 5000, 1)], "device major 5000"),
        (vec![file("a\x1b[2J\n", b"").kind(b'Q')], "entry \"/a\\u{1b}[2J\\n\": "),
    ] {
        let place = Place::new();
        let options =
            super::Options { rootless: true, source: "debian:12: layer 1".to_owned(), ..super::Options::default() };
        let error = place.overlay_with("layer", &[], &archive(&items), &options).unwrap_err();
        assert!(error.message.contains(reason), "{reason}: {error}");
        assert!(error.message.starts_with("debian:12: layer 1: "), "{error}");
        assert!(matches!(error.kind, Kind::DataLoss | Kind::ResourceExhausted), "{error:?}");
    }
}
