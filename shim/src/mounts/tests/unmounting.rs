//! What takes mounts away again.

use super::*;

#[test]
fn what_is_not_mounted_is_unmounted() {
    in_own_mounts(|work| {
        unmount_recursive(&directory(work.join("plain"), &[])).unwrap();
        unmount_recursive(&work.join("missing")).unwrap();
        unmount_recursive(&work.join("missing/below")).unwrap();
    });
}

#[test]
fn a_tree_of_mounts_is_unmounted_in_any_order_of_making() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &[]);
        let tmpfs = || mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &rootfs).unwrap();
        let below = |path: &str| {
            let at = directory(rootfs.join(path), &[]);
            mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &at).unwrap();
        };
        tmpfs();
        below("a");
        below("a/with space");
        below("a");
        below("b");
        // Hides all of it.
        tmpfs();
        below("a/c");
        // A name that only begins the same.
        let other = directory(work.join("rootfs2"), &[]);
        mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &other).unwrap();

        unmount_recursive(&rootfs).unwrap();
        assert_eq!(points(&rootfs), Vec::<PathBuf>::new());
        assert_eq!(points(&other), std::slice::from_ref(&other));
        unmount_recursive(&rootfs).unwrap();
    });
}

#[test]
fn a_busy_mount_is_detached() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &[]);
        let tmpfs = || described("tmpfs", "tmpfs", &[]);
        mount_rootfs(&[tmpfs()], &rootfs).unwrap();
        let below = directory(rootfs.join("below"), &[]);
        mount_rootfs(&[tmpfs()], &below).unwrap();
        let open = fs::File::create_new(below.join("open")).unwrap();

        unmount_recursive(&rootfs).unwrap();
        assert_eq!(points(&rootfs), Vec::<PathBuf>::new());
        open.set_len(1).unwrap();
    });
}

#[test]
fn a_link_in_the_place_of_a_mount_is_not_followed() {
    in_own_mounts(|work| {
        let precious = directory(work.join("precious"), &[]);
        mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &precious).unwrap();
        let bundle = directory(work.join("bundle"), &[]);
        symlink(&precious, bundle.join("rootfs")).unwrap();
        unmount_recursive(&bundle.join("rootfs")).unwrap();
        assert_eq!(points(&precious), std::slice::from_ref(&precious));

        // One that leads to the bundle is.
        let real = directory(bundle.join("real"), &[]);
        mount_rootfs(&[described("tmpfs", "tmpfs", &[])], &real).unwrap();
        symlink(&bundle, work.join("alias")).unwrap();
        unmount_recursive(&work.join("alias/real")).unwrap();
        assert_eq!(points(&real), Vec::<PathBuf>::new());
    });
}
