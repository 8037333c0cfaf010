use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
    fd: File,
}

fn tree() -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    std::fs::create_dir(&root).unwrap();
    std::fs::create_dir(&outside).unwrap();
    let fd = File::open(&root).unwrap();
    Tree { root, outside, fd, _dir: dir }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(1_000_000_000);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    header.set_uid(u64::from(uid));
    header.set_gid(u64::from(gid));
    header
}

/// An archive of entries: kind, name (as it is, however wrong), link or content.
fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, text) in entries {
        let content = if *kind == EntryType::Regular { *text } else { "" };
        let mut header = header(*kind, content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if content.is_empty() {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn a_tree_goes_into_an_archive_and_out_again() {
    let Tree { root, fd, .. } = &tree();
    std::fs::create_dir_all(root.join("from/dir")).unwrap();
    let long = "n".repeat(150);
    for (name, text) in [("file", "content"), ("dir/inner", "inner"), (long.as_str(), "long")] {
        std::fs::write(root.join("from").join(name), text).unwrap();
    }
    std::fs::hard_link(root.join("from/file"), root.join("from/hard")).unwrap();
    symlink("dir/inner", root.join("from/link")).unwrap();
    crate::testing::fifo(&root.join("from/fifo"));
    std::fs::set_permissions(root.join("from/file"), PermissionsExt::from_mode(0o4711)).unwrap();
    rustix::fs::setxattr(root.join("from/file"), "user.colour", b"red", rustix::fs::XattrFlags::empty()).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    File::open(root.join("from/dir")).unwrap().set_modified(time).unwrap();

    let mut out = Out::new(Vec::new());
    out.add(look(fd.as_fd(), Path::new("from")).unwrap().as_fd(), Path::new("from")).unwrap();
    let bytes = out.finish().unwrap();
    std::fs::create_dir(root.join("to")).unwrap();
    extract(bytes.as_slice(), fd.as_fd(), Path::new("/to")).unwrap();
    let to = |name: &str| root.join("to/from").join(name);
    let metadata = |name: &str| to(name).symlink_metadata().unwrap();
    assert_eq!(std::fs::read_to_string(to("link")).unwrap(), "inner");
    assert_eq!(std::fs::read_to_string(to(&long)).unwrap(), "long");
    assert_eq!(metadata("hard").ino(), metadata("file").ino());
    assert_eq!(metadata("file").mode() & 0o7777, 0o4711);
    assert_eq!(metadata("dir").mtime(), 1_000_000_000, "set after what is in it was made");
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&metadata("fifo").file_type()));
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(to("file"), "user.colour", &mut value).unwrap();
    assert_eq!(&value[..length], b"red");
    // Compressed as well, and over what is there.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    extract(gzip.finish().unwrap().as_slice(), fd.as_fd(), Path::new("/to")).unwrap();
}

/// CVE-2018-15664 and the tar crates' CVE-2026-33056: an archive whose links lead out, and entries through them.
#[test]
fn cve_2018_15664_nothing_is_extracted_outside() {
    use EntryType::{Directory, Link, Regular, Symlink};
    let Tree { root, outside, fd, _dir } = tree();
    std::fs::write(outside.join("victim"), "victim").unwrap();
    let target = outside.display().to_string();
    let absolute = format!("{target}/new");
    for entries in [
        &[(Symlink, "out", target.as_str()), (Regular, "out/made", "x")][..],
        &[(Symlink, "up", "../outside"), (Regular, "up/made", "x")],
        &[(Regular, "../outside/made", "x"), (Regular, "../../made", "x")],
        &[(Regular, absolute.as_str(), "x")],
        &[(Symlink, "hard", "../outside/victim"), (Link, "hard2", "hard/../../outside/victim")],
        &[(Link, "victim", "../outside/victim")],
        &[(Symlink, "magic", "/proc/self/root"), (Regular, "magic/made", "x")],
        &[(Symlink, "d", target.as_str()), (Directory, "d", "")],
        &[(Symlink, "f", &format!("{target}/victim")), (Regular, "f", "changed")],
    ] {
        // Whether it is an error or lands inside: outside, nothing changes.
        let _ = extract(archive(entries).as_slice(), fd.as_fd(), Path::new("/"));
        let there: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(there, ["victim"], "{entries:?}");
        assert_eq!(std::fs::read_to_string(outside.join("victim")).unwrap(), "victim", "{entries:?}");
        assert_eq!(outside.join("victim").metadata().unwrap().nlink(), 1, "{entries:?}");
    }
    // The last one replaced the link itself.
    assert_eq!(std::fs::read_to_string(root.join("f")).unwrap(), "changed");
    assert!(!root.join("f").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn what_is_no_archive_is_an_error() {
    let Tree { root, fd, _dir, .. } = tree();
    let mut cut = archive(&[(EntryType::Regular, "file", "content")]);
    cut.truncate(512 + 3);
    let gzip = [0x1f, 0x8b, 0, 0];
    for bytes in [b"junk".as_slice(), &cut, &gzip] {
        assert!(extract(bytes, fd.as_fd(), Path::new("/")).is_err(), "{}", bytes.len());
    }
    extract(b"".as_slice(), fd.as_fd(), Path::new("/")).unwrap();
    std::fs::create_dir(root.join("dir")).unwrap();
    let over = archive(&[(EntryType::Regular, "dir", "x")]);
    assert!(
        extract(over.as_slice(), fd.as_fd(), Path::new("/"))
            .unwrap_err()
            .message
            .contains("cannot overwrite directory")
    );
}
