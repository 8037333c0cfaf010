//! In a mount namespace of each test's own, on a tmpfs.

mod overlays;
mod unmounting;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Command;

use nix::sys::statvfs::statvfs;

use super::overlay::Way;
use super::*;
use crate::error::Kind;
use crate::mountinfo;
use crate::testing::{in_own_mounts, skip};

fn described(kind: &str, source: impl AsRef<Path>, options: &[&str]) -> Mount {
    Mount {
        kind: kind.to_owned(),
        source: source.as_ref().to_str().unwrap().to_owned(),
        target: String::new(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

fn on(target: &str, mount: Mount) -> Mount {
    Mount { target: target.to_owned(), ..mount }
}

/// A directory with these files, each of which holds its own name.
fn directory(path: PathBuf, files: &[&str]) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    for file in files {
        fs::write(path.join(file), file).unwrap();
    }
    path
}

fn points(below: &Path) -> Vec<PathBuf> {
    mountinfo::mounts(|entry| entry.point.starts_with(below)).unwrap().into_iter().map(|entry| entry.point).collect()
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_read_only(path: &Path) -> bool {
    fs::write(path.join("new"), "").is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem)
}

#[test]
fn a_bind_mount_shows_its_source_with_the_attributes_asked_for() {
    in_own_mounts(|work| {
        let source = directory(work.join("source"), &["file"]);
        let rootfs = directory(work.join("rootfs"), &[]);
        let below = directory(source.join("below"), &[]);
        mount_rootfs(&[described("tmpfs", "tmpfs", &["size=64k"])], &below).unwrap();
        fs::write(below.join("mounted"), "").unwrap();

        for (options, seen_below, read_only) in [
            (&["bind"][..], vec![], false),
            (&["rbind", "rw"], vec!["mounted"], false),
            (&["rbind", "ro", "nosuid", "nodev"], vec!["mounted"], true),
        ] {
            mount_rootfs(&[described("bind", &source, options)], &rootfs).unwrap();
            assert_eq!(fs::read(rootfs.join("file")).unwrap(), b"file");
            assert_eq!(names(&rootfs.join("below")), seen_below, "{options:?}");
            assert_eq!(is_read_only(&rootfs), read_only, "{options:?}");
            let flags = statvfs(&rootfs).unwrap().flags();
            assert_eq!(flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_NODEV), read_only, "{options:?}");
            assert!(!is_read_only(&source), "the source itself is changed");
            unmount_recursive(&rootfs).unwrap();
            assert_eq!(points(&rootfs), Vec::<PathBuf>::new());
        }

        // Containerd may leave out the type.
        mount_rootfs(&[described("", &source, &["rbind"])], &rootfs).unwrap();
        assert_eq!(fs::read(rootfs.join("file")).unwrap(), b"file");
    });
}

/// Before Linux 5.12; here what is there already is kept as well.
#[test]
fn a_bind_mount_can_be_given_its_attributes_afterwards() {
    in_own_mounts(|work| {
        let source = directory(work.join("source"), &[]);
        let rootfs = directory(work.join("rootfs"), &[]);
        mount_rootfs(&[described("bind", &source, &["bind", "nosuid", "nodev"])], &rootfs).unwrap();
        let target = Target::open(&rootfs, "").unwrap();
        let options = options::parse(&["ro".to_owned(), "dev".to_owned()]).unwrap();
        remount_bind(&target.fd, &options, &target).unwrap();
        let flags = statvfs(&rootfs).unwrap().flags();
        assert!(flags.contains(FsFlags::ST_NOSUID | FsFlags::ST_RDONLY), "{flags:?}");
        assert!(!flags.contains(FsFlags::ST_NODEV), "{flags:?}");
    });
}

/// An empty file system of 8 MiB in the file `image`.
fn make_ext4(image: &Path) -> Option<()> {
    fs::File::create_new(image).unwrap().set_len(8 << 20).unwrap();
    match Command::new("mkfs.ext4").arg("-q").arg(image).status() {
        Ok(status) if status.success() => Some(()),
        other => skip(&format!("mkfs.ext4: {other:?}")),
    }
}

/// A directory on a file system whose owners can be mapped: tmpfs since Linux 6.3, else ext4.
fn mappable(work: &Path) -> Option<PathBuf> {
    let maps = user_namespace(&Maps { uid: "0 1 1\n".into(), gid: "0 1 1\n".into() }).unwrap();
    let on_tmpfs = sys::clone_tree(work, Depth::One).and_then(|tree| sys::set_idmap(&tree, &maps));
    if on_tmpfs.is_ok() {
        return Some(work.to_owned());
    }
    let (image, place) = (work.join("mappable.image"), directory(work.join("mappable"), &[]));
    make_ext4(&image)?;
    match mount_rootfs(&[described("ext4", &image, &["loop"])], &place) {
        Ok(()) => Some(place),
        Err(error) => skip(&error.message),
    }
}

#[test]
fn any_mount_can_have_mapped_owners() {
    in_own_mounts(|work| {
        let Some(place) = mappable(work) else { return };
        let source = directory(place.join("source"), &["file"]);
        let rootfs = directory(work.join("rootfs"), &[]);
        let maps = ["uidmap=0:100000:10,10:5:1", "gidmap=0:200000:10"];
        let bind = described("bind", &source, &[&["rbind", "ro"][..], &maps].concat());
        mount_rootfs(&[bind], &rootfs).unwrap();
        let owner = fs::metadata(rootfs.join("file")).map(|it| (it.uid(), it.gid())).unwrap();
        assert_eq!(owner, (100_000, 200_000));
        assert!(is_read_only(&rootfs));
        unmount_recursive(&rootfs).unwrap();

        // Not detached at first, so it is exchanged for one that is.
        let image = work.join("image");
        if make_ext4(&image).is_none() {
            return;
        }
        match mount_rootfs(&[described("ext4", &image, &[&["loop", "ro"][..], &maps].concat())], &rootfs) {
            Err(error) if lacks_loop_devices(&error) => {
                let _: Option<()> = skip(&error.message);
                return;
            }
            result => result.unwrap(),
        }
        let owner = fs::metadata(rootfs.join("lost+found")).map(|it| (it.uid(), it.gid())).unwrap();
        assert_eq!(owner, (100_000, 200_000));
        assert!(is_read_only(&rootfs));
        assert_eq!(points(&rootfs), std::slice::from_ref(&rootfs));
        unmount_recursive(&rootfs).unwrap();
        assert!(is_let_go(&image));
    });
}

fn lacks_loop_devices(error: &Error) -> bool {
    error.message.contains("loop device") || error.message.contains("no file system")
}

/// The image file a loop device has, in `/sys`.
fn is_in_use(image: &Path) -> bool {
    let image = image.to_str().unwrap();
    fs::read_dir("/sys/block").unwrap().any(|device| {
        let backing = device.unwrap().path().join("loop/backing_file");
        fs::read_to_string(backing).is_ok_and(|path| path.trim_end() == image)
    })
}

/// udev may look into a device when it appears, and for that long it is in use; nothing tells when it is not.
fn is_let_go(image: &Path) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while is_in_use(image) && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    !is_in_use(image)
}

#[test]
fn an_image_file_is_mounted_from_a_loop_device_that_lets_it_go() {
    in_own_mounts(|work| {
        let image = work.join("image");
        if make_ext4(&image).is_none() {
            return;
        }
        let rootfs = directory(work.join("rootfs"), &[]);
        for (options, read_only) in [(&["loop"][..], false), (&["loop", "ro"], true)] {
            match mount_rootfs(&[described("ext4", &image, options)], &rootfs) {
                Err(error) if lacks_loop_devices(&error) => {
                    let _: Option<()> = skip(&error.message);
                    return;
                }
                result => result.unwrap(),
            }
            assert_eq!(names(&rootfs), ["lost+found"]);
            assert_eq!(is_read_only(&rootfs), read_only);
            if !read_only {
                fs::remove_file(rootfs.join("new")).unwrap();
            }
            assert!(is_in_use(&image));
            unmount_recursive(&rootfs).unwrap();
            assert!(is_let_go(&image), "{options:?}");
        }
        // What cannot be mounted does not keep a device.
        mount_rootfs(&[described("xfs", &image, &["loop"])], &rootfs).unwrap_err();
        assert!(is_let_go(&image));
        let missing = mount_rootfs(&[described("ext4", work.join("none"), &["loop"])], &rootfs).unwrap_err();
        assert!(missing.message.contains("open the image"), "{missing}");
    });
}

#[test]
fn a_failure_undoes_what_was_mounted() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &["own"]);
        let tmpfs = || described("tmpfs", "tmpfs", &[]);
        let failures = [
            described("bind", "/no/such/directory", &["rbind"]),
            described("no-such-type", "x", &[]),
            described("tmpfs", "tmpfs", &["no-such-option"]),
            described("overlay", "overlay", &["lowerdir=/no/such/directory"]),
            on("no/such/target", tmpfs()),
            described("tmpfs", "tmpfs", &[&"x".repeat(70_000)]),
            described("fuse.none", "x", &[]),
            described("bind", work, &["bind", "uidmap=0:0:0", "gidmap=0:0:1"]),
        ];
        for failure in failures {
            let error = mount_rootfs(&[tmpfs(), tmpfs(), failure.clone()], &rootfs).unwrap_err();
            assert_ne!(error.kind, Kind::NotFound, "{error}");
            assert_eq!(names(&rootfs), ["own"], "{error}");
            assert_eq!(points(&rootfs), Vec::<PathBuf>::new(), "{error}");
        }
        // What was there before stays.
        mount_rootfs(&[tmpfs()], &rootfs).unwrap();
        mount_rootfs(&[tmpfs(), described("no-such-type", "x", &[])], &rootfs).unwrap_err();
        assert_eq!(points(&rootfs).len(), 1);
        // What is wrong in itself is told before anything is mounted.
        let wrong = described("tmpfs", "tmpfs", &["X-containerd.mkdir.path=/x"]);
        let error = mount_rootfs(&[tmpfs(), wrong], Path::new("/no/such/rootfs")).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidArgument);
    });
}

#[test]
fn an_error_says_what_is_missing() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &[]);
        let there = directory(work.join("there"), &[]);
        let gone = work.join("gone");
        let (there, gone) = (there.to_str().unwrap(), gone.to_str().unwrap());
        let long: Vec<String> = (0..400).map(|_| there.to_owned()).collect();
        for (mount, part) in [
            (described("overlay", "o", &[&format!("lowerdir={there}:{gone}")]), format!("{gone} does not exist")),
            (
                described("overlay", "o", &[&format!("lowerdir={}:{gone}", long.join(":"))]),
                format!("open the overlay's directory {gone}: No such file"),
            ),
            (described("no-such-type", "x", &[]), "this kernel has no file system no-such-type".to_owned()),
            (described("bind", gone, &["bind"]), format!("mount bind {gone} on {}", rootfs.display())),
            (on("a/b", described("tmpfs", "x", &[])), "open the mount point \"a/b\" in".to_owned()),
        ] {
            let error = mount_rootfs(std::slice::from_ref(&mount), &rootfs).unwrap_err();
            assert!(error.message.contains(&part), "{error} lacks {part}");
        }
    });
}

#[test]
fn a_target_is_inside_whatever_links_say() {
    in_own_mounts(|work| {
        let outside = directory(work.join("outside"), &[]);
        let source = directory(work.join("source"), &[]);
        let inner = directory(source.join(outside.strip_prefix("/").unwrap()), &[]);
        symlink("/", source.join("absolute")).unwrap();
        symlink("../../../../../../../..", source.join("up")).unwrap();
        let rootfs = directory(work.join("rootfs"), &[]);
        let outside_name = outside.to_str().unwrap();
        for link in ["absolute", "up"] {
            let target = format!("{link}{outside_name}");
            let mounts = [described("bind", &source, &["bind"]), on(&target, described("tmpfs", "tmpfs", &[]))];
            mount_rootfs(&mounts, &rootfs).unwrap();
            let expected = rootfs.join(inner.strip_prefix(&source).unwrap());
            assert_eq!(points(&rootfs), [rootfs.clone(), expected]);
            assert_eq!(points(&outside), Vec::<PathBuf>::new());
            unmount_recursive(&rootfs).unwrap();
        }
        // The rootfs itself is no link either.
        let link = work.join("link");
        symlink(&outside, &link).unwrap();
        mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &link).unwrap_err();
    });
}

#[test]
fn propagation_is_set() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &[]);
        mount_rootfs(&[described("tmpfs", "tmpfs", &["rshared"])], &rootfs).unwrap();
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let line = table.lines().find(|line| line.contains(rootfs.to_str().unwrap())).unwrap();
        assert!(line.contains(" shared:"), "{line}");
    });
}
