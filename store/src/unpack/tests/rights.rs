//! Without the rights of the host's root: what is not to be made is passed over.

use super::layer::{archive, device, dir, file, hardlink};
use super::{Options, Place, is_root, line, paths};

#[test]
fn without_roots_rights_what_can_be_made_is_made() {
    let place = Place::new();
    let options = Options { rootless: true, ..Options::default() };
    let bytes =
        archive(&[dir("d").owner(5, 5), file("d/f", b"x").owner(1, 1).mode(0o4755), device("null", b'3', 1, 3)]);
    place.overlay_with("layer", &[], &bytes, &options).unwrap();
    let lines = place.list("layer");
    assert_eq!(paths(&lines), ["/", "/d", "/d/f"]);
    assert!(line(&lines, "/d/f").unwrap().starts_with(&format!("-4755 {}:", nix::unistd::geteuid())));
}

/// As when it had been made: what stood at its name is gone, in this layer and below; a hard link to it is no more than it is.
#[test]
fn a_device_that_is_not_made_takes_its_place_all_the_same() {
    if !is_root("a_device_that_is_not_made_takes_its_place_all_the_same") {
        return;
    }
    let null = |name: &str| device(name, b'3', 1, 3);
    let base = archive(&[
        dir("./"),
        dir("dev"),
        file("dev/null", b"below"),
        dir("dev/d"),
        file("dev/d/f", b"below"),
        file("f", b""),
        null("zero"),
    ]);
    let upper = archive(&[
        dir("dev"),
        file("dev/own", b"own"),
        null("dev/own"),
        dir("dev/dir"),
        file("dev/dir/f", b"own"),
        null("dev/dir"),
        null("dev/null"),
        null("dev/d"),
        null("dev/new"),
        hardlink("f", "dev/null"),
        null("dev/again"),
        file("dev/again", b"again"),
        hardlink("linked", "dev/again"),
    ]);
    let options = Options { rootless: true, ..Options::default() };
    let place = Place::new();
    for (name, lowers, layer) in [("lower", &[][..], &base), ("upper", &["lower"], &upper)] {
        place.overlay_with(name, lowers, layer, &options).unwrap();
        place.tree_with("tree", layer, &options).unwrap();
    }
    assert!(line(&place.list("lower"), "/zero").is_none(), "there is nothing below to hide");
    for seen in [place.merged(&["upper", "lower"]), place.list("tree")] {
        assert_eq!(paths(&seen), ["/", "/dev", "/dev/again", "/linked"], "{seen:#?}");
    }
}
