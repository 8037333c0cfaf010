use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbad line\nweb:x:33:34:web:/var/www:/bin/sh\n7:x:70:71::/:\n\
                      over:x:4294967296:0::/:\nneg:x:-1:0::/:\n+::::::\n";
const GROUP: &str = "root:x:0:\nwww:x:34:\naudio:x:29:web\nvideo:x:44:root,web\n";

fn user(text: &str, added: &[&str]) -> Result<User> {
    let added: Vec<String> = added.iter().map(|it| (*it).to_owned()).collect();
    resolve_in(PASSWD, GROUP, text, &added)
}

#[test]
fn users_are_found_as_docker_finds_them() {
    for (text, added, uid, gid, groups) in [
        ("", &[][..], 0, 0, &[0, 44][..]),
        ("web", &[], 33, 34, &[34, 29, 44]),
        ("33", &[], 33, 34, &[34, 29, 44]),
        ("333:44", &[], 333, 44, &[44]),
        ("web:video", &[], 33, 44, &[44]),
        ("web:", &[], 33, 34, &[34, 29, 44]),
        (":44", &[], 0, 44, &[44]),
        ("333", &[], 333, 0, &[0]),
        ("1", &[], 1, 0, &[0]),
        ("0", &["audio", "999", "44"], 0, 0, &[0, 44, 29, 999]),
        // A name of digits is a name first.
        ("7", &[], 70, 71, &[71]),
        ("2147483647:2147483647", &[], 2_147_483_647, 2_147_483_647, &[2_147_483_647]),
    ] {
        let found = user(text, added).unwrap();
        assert_eq!((found.uid, found.gid, &*found.groups), (uid, gid, groups), "{text:?}");
    }
    assert_eq!(user("web", &[]).unwrap().home.as_deref(), Some("/var/www"));
    assert_eq!(user("333", &[]).unwrap().home, None);
}

/// CVE-2024-40635, CVE-2026-46680, CVE-2026-30892: a number past a user's range became root, or a name.
#[test]
fn cve_2024_40635_numbers_out_of_range_are_neither_users_nor_names() {
    for text in ["99999999999", "-1", "4294967295", "4294967296", "2147483648", "33:99999999999", "33:-1", "-0"] {
        let error = user(text, &[]).expect_err(text);
        assert!(error.message.contains("must be in range 0-2147483647"), "{text}: {error}");
    }
    assert!(user("0", &["4294967296"]).is_err());
    for text in ["nope", "33 ", "0x1", "+1", "over", "neg", "web:nope", "web:www:x", "1e3", "٣"] {
        let error = user(text, &[]).expect_err(text);
        assert!(error.message.contains("unable to find"), "{text}: {error}");
    }
}

fn root() -> (tempfile::TempDir, PathBuf, std::fs::File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    std::fs::create_dir(path.join("etc")).unwrap();
    let fd = std::fs::File::open(&path).unwrap();
    (dir, path, fd)
}

/// CVE-2024-9676: passwd is a link to what the host has, or a fifo that the reader waits at for ever.
#[test]
fn cve_2024_9676_passwd_is_only_read_inside_and_only_if_it_is_a_file() {
    let (_dir, path, fd) = root();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("passwd"), "victim:x:5:5::/:\n").unwrap();
    symlink(outside.path().join("passwd"), path.join("etc/passwd")).unwrap();
    assert!(resolve(fd.as_fd(), "victim", &[]).unwrap_err().message.contains("unable to find user victim"));
    symlink("../../../../../../etc/passwd", path.join("etc/group")).unwrap();
    std::fs::remove_file(path.join("etc/passwd")).unwrap();
    symlink("/etc/real", path.join("etc/passwd")).unwrap();
    std::fs::write(path.join("etc/real"), PASSWD).unwrap();
    // The group file leads to passwd, inside: no line of it is a group's that names anybody.
    assert_eq!(resolve(fd.as_fd(), "web", &[]).unwrap().uid, 33);
    std::fs::remove_file(path.join("etc/passwd")).unwrap();
    crate::testing::fifo(&path.join("etc/passwd"));
    assert!(resolve(fd.as_fd(), "web", &[]).unwrap_err().message.contains("not a regular file"));
}

/// CVE-2026-47262, CVE-2023-25153: a huge passwd is read into memory.
#[test]
fn cve_2026_47262_a_huge_passwd_is_not_read() {
    let (_dir, path, fd) = root();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path.join("etc/passwd")).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(resolve(fd.as_fd(), "web", &[]).unwrap_err().message.contains("larger than"));
}
