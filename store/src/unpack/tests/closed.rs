//! Directories and files that keep their own owner out, in the hands of an owner who is not root: what comes of them is what comes of them
//! in root's hands, owners aside.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink as link};

use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::super::Limits;
use super::super::diff::{DiffOptions, Source, write};
use super::super::tar::{Entry, Reader};
use super::layer::{Item, archive, dir, file, hardlink, symlink};
use super::{Form, Options, PLAIN, Place, extract, is_root, list, open};
use crate::fs::{Usage, open_tree, remove_tree, usage};
use crate::snapshots::copy;

/// An ordinary user, of whom the host need not know.
const UID: u32 = 2001;

/// Permissions of directories, and of the root of a tree.
const MODES: [u64; 6] = [0, 0o111, 0o300, 0o444, 0o555, 0o2555];

/// Does it in a thread of that user's, which ends with it. Nobody else's credentials change.
fn by_a_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (rustix::fs::Uid::from_raw(UID), rustix::fs::Gid::from_raw(UID));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

/// A place of that user's.
fn place() -> Place {
    let place = Place::new();
    chown(place.path("."), Some(UID), Some(UID)).unwrap();
    place
}

fn base(mode: u64) -> Vec<Item> {
    let items = vec![
        dir("./").mode(mode).at(5),
        dir("c").mode(mode).at(6).xattr("user.note", b"kept"),
        file("c/f", b"text").mode(0),
        file("c/gone", b"").mode(0o444).xattr("user.note", b"kept"),
        dir("c/in").mode(mode).at(7),
        file("c/in/g", b"inner"),
        file("c/in/gone", b""),
        dir("c/in/deep").mode(mode),
        file("c/in/deep/h", b""),
        symlink("way", "c/in"),
        // A directory is replaced: all others are put away, and have to be found again.
        dir("x"),
        file("x", b""),
        file("c/in/late", b"late"),
        file("way/later", b"later"),
        dir("c/in").mode(mode).at(8),
    ];
    owned(items)
}

fn owned(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().map(|item| item.owner(UID.into(), UID.into())).collect()
}

/// What a layer over it does.
fn uppers(mode: u64) -> Vec<(&'static str, Vec<Item>)> {
    let away = || [dir("y"), file("y", b"")];
    vec![
        ("nothing", vec![]),
        ("whiteouts", vec![file("c/.wh.gone", b""), file("c/in/.wh.gone", b""), file("c/in/deep/.wh.h", b"")]),
        (
            "whiteouts of nothing",
            vec![file("c/in/.wh.nothing", b""), file("c/in/f/.wh.x", b""), dir("c/in/f").mode(mode)],
        ),
        (
            "whiteouts where the directory has an entry",
            vec![dir("c").mode(mode), file("c/.wh.gone", b""), file("c/.wh.x", b"")],
        ),
        ("deleted whole", vec![file(".wh.c", b"")]),
        ("deleted after what is in it", vec![file("c/in/.wh.g", b""), file("c/.wh.in", b""), file(".wh.c", b"")]),
        ("deleted, and made anew", vec![file(".wh.c", b""), dir("c").mode(mode), file("c/new", b"")]),
        ("deleted, and entered", vec![file(".wh.c", b""), file("c/in/new", b"")]),
        ("made anew, and deleted", vec![dir("c").mode(mode), file("c/new", b""), file(".wh.c", b"")]),
        ("opaque", vec![dir("c").mode(mode), dir("c/in").mode(mode), file("c/in/n", b""), file("c/.wh..wh..opq", b"")]),
        ("opaque alone", vec![file("c/in/.wh..wh..opq", b"")]),
        ("the root is opaque", vec![dir("c").mode(mode), file("c/n", b""), file(".wh..wh..opq", b"")]),
        ("became a file", vec![file("c", b"now")]),
        (
            "became a file here",
            [dir("c").mode(mode), dir("c/in").mode(mode), file("c/in/g", b"")]
                .into_iter()
                .chain(away())
                .chain([file("c", b"now")])
                .collect(),
        ),
        ("became a file, and one again", vec![file("c", b""), dir("c").mode(mode), file("c/n", b"")]),
        (
            "deleted in what became a file",
            [dir("c").mode(mode), file("c/in", b"")]
                .into_iter()
                .chain(away())
                .chain([file("c/in/.wh.g", b"")])
                .collect(),
        ),
        ("entries without their directories", vec![file("c/in/deep/new", b""), file("c/new", b"")]),
        ("through a link", vec![file("way/new", b""), dir("way/more").mode(mode)]),
        ("again with other permissions", vec![dir("c").mode(0o755), dir("c/in").mode(0o700), file("c/in/n", b"")]),
        (
            "hard links",
            vec![hardlink("out", "c/f"), hardlink("c/in/linked", "c/in/g"), hardlink("c/way", "way/deep/h")],
        ),
        (
            "hard links within",
            [dir("c").mode(mode), dir("d").mode(mode), file("d/f", b"x").mode(0), dir("c/l")]
                .into_iter()
                .chain(away())
                .chain([hardlink("c/l", "d/f"), hardlink("c/late", "d/f")])
                .collect(),
        ),
    ]
}

/// Extracts both layers, in both forms.
fn layers(place: &Place, mode: u64, upper: &[Item]) {
    let options = Options { rootless: !nix::unistd::geteuid().is_root(), ..Options::default() };
    for (name, items, lowers) in [("lower", &*base(mode), &[][..]), ("upper", upper, &["lower"])] {
        let bytes = archive(items);
        let extracted = |at: &str, form: &Form<'_>| {
            let path = place.path(at);
            if !path.is_dir() {
                fs::create_dir(&path).unwrap();
            }
            // As it was opened when it was made, or by its path.
            let root = open_tree(&path).unwrap();
            extract(&*bytes, PLAIN, root.as_fd(), form, &options, &|_| {}).unwrap()
        };
        let below = || lowers.iter().map(|name| open_tree(&place.path(name))).collect();
        extracted(name, &Form::Overlay { lowers: &below, userxattr: true });
        extracted("tree", &Form::Tree);
    }
}

/// What is read of them: the layers made of them, and what they take.
fn seen(place: &Place) -> (Vec<Vec<String>>, Vec<Usage>) {
    let [lower, upper, tree] = ["lower", "upper", "tree"].map(|name| open_tree(&place.path(name)).unwrap());
    let merged = Source::Overlay { upper: upper.as_fd(), lowers: vec![lower.as_fd()], userxattr: true };
    let whole = Source::Trees { lower: Some(lower.as_fd()), upper: tree.as_fd() };
    let all = Source::Trees { lower: None, upper: tree.as_fd() };
    let written = [merged, whole, all].map(|source| {
        let mut bytes = Vec::new();
        write(&mut bytes, &source, &DiffOptions::default()).unwrap();
        entries(&bytes)
    });
    fs::create_dir(place.path("copy")).unwrap();
    copy::tree(tree.as_fd(), open(&place.path("copy")).as_fd()).unwrap();
    (written.into(), ["lower", "upper", "tree", "copy"].map(|name| usage(&place.path(name)).unwrap()).into())
}

/// Of a layer: what its entries say but for owners, and how long it is.
fn entries(layer: &[u8]) -> Vec<String> {
    let limits = Limits::default();
    let (mut reader, mut entry) = (Reader::new(layer, &limits), Entry::default());
    let mut lines = vec![layer.len().to_string()];
    while reader.next(&mut entry).unwrap() {
        (entry.uid, entry.gid) = (0, 0);
        lines.push(format!("{} {entry:?}", entry.shown()));
    }
    lines
}

const TREES: [&str; 4] = ["lower", "upper", "tree", "copy"];

/// Owners aside, as who is not root is the owner of everything; and the times of whiteouts, which have none.
fn listings(place: &Place) -> Vec<Vec<String>> {
    let owner = format!(" {UID}:{UID} ");
    let plain = |line: &String| match line.split_once(" c0 ") {
        Some((path, _)) => format!("{path} is gone"),
        None => line.replace(" 0:0 ", &owner).replace(&format!(" 0:{UID} "), &owner),
    };
    let shown = |name: &str| list(&place.path(name)).iter().map(plain).collect();
    TREES.map(shown).into()
}

#[test]
fn what_keeps_its_owner_out_comes_out_as_root_makes_it() {
    if !is_root("what_keeps_its_owner_out_comes_out_as_root_makes_it") {
        return;
    }
    for mode in MODES {
        for (name, upper) in uppers(mode) {
            let (upper, what) = (owned(upper), format!("{name}, {mode:o}"));
            let (users, roots) = (place(), Place::new());
            layers(&roots, mode, &upper);
            let wanted = seen(&roots);
            let got = by_a_user(|| {
                layers(&users, mode, &upper);
                seen(&users)
            });
            assert_eq!(listings(&users), listings(&roots), "{what}");
            assert_eq!(got, wanted, "{what}");
            by_a_user(|| TREES.map(|name| remove_tree(&users.path(name)).unwrap()));
            assert_eq!(fs::read_dir(users.path(".")).unwrap().count(), 0, "{what}");
        }
    }
}

/// Two at once in one directory: neither shuts the other in or out, and both are told its own permissions.
#[test]
fn the_last_one_out_shuts_the_door() {
    use crate::fs::doors::{Use, directory, stat};
    if !is_root("the_last_one_out_shuts_the_door") {
        return;
    }
    let place = place();
    by_a_user(|| {
        let path = place.path("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "").unwrap();
        let mode = || fs::symlink_metadata(&path).unwrap().mode() & 0o7777;
        let chmod = |mode| fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        chmod(0o044);
        let parent = open(&place.path("."));
        let own = || stat(parent.as_fd(), c"d").unwrap().st_mode & 0o7777;
        let enter = |what| directory(parent.as_fd(), c"d", what).unwrap();
        let (one, other) = (enter(Use::Look), enter(Use::Change));
        assert_eq!((mode(), own(), one.stat().unwrap().st_mode & 0o7777), (0o744, 0o044, 0o044));
        one.shut().unwrap();
        assert_eq!((mode(), own()), (0o744, 0o044));
        stat(other.as_fd(), c"f").unwrap();
        drop(other);
        assert_eq!((mode(), own()), (0o044, 0o044));
        // Who changes them meanwhile has the last word.
        let one = enter(Use::Look);
        chmod(0o755);
        assert_eq!(own(), 0o755);
        one.shut().unwrap();
        assert_eq!(mode(), 0o755);
    });
}

/// CVE-2021-32760: permissions are never those of what a link points to.
#[test]
fn cve_2021_32760_no_door_is_opened_through_a_link() {
    use crate::fs::doors::{Use, directory, file as read};
    if !is_root("cve_2021_32760_no_door_is_opened_through_a_link") {
        return;
    }
    let place = place();
    by_a_user(|| {
        for (name, make) in [("d", fs::create_dir as fn(_) -> _), ("f", |path| fs::write(path, "x"))] {
            let outside = place.path(name);
            make(outside.clone()).unwrap();
            fs::set_permissions(&outside, PermissionsExt::from_mode(0o000)).unwrap();
            link(&outside, place.path("link")).unwrap();
            let parent = open(&place.path("."));
            directory(parent.as_fd(), c"link", Use::Change).unwrap_err();
            read(parent.as_fd(), c"link").unwrap_err();
            assert_eq!(fs::symlink_metadata(&outside).unwrap().mode() & 0o7777, 0);
            // Nor is it the link that is removed with what it points to.
            remove_tree(&place.path("link")).unwrap();
            assert_eq!(fs::symlink_metadata(&outside).unwrap().mode() & 0o7777, 0);
        }
        assert!(read(open(&place.path(".")).as_fd(), c"f").is_ok());
    });
}
