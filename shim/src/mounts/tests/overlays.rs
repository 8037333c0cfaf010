//! Layers over layers.

use super::*;

#[test]
fn an_overlay_writes_to_its_upper_directory() {
    in_own_mounts(|work| {
        let [bottom, top] = ["bottom", "top"].map(|name| directory(work.join(name), &[name]));
        let [upper, scratch, rootfs] = ["upper", "scratch", "rootfs"].map(|name| directory(work.join(name), &[]));
        let lower = format!("lowerdir={}:{}", top.display(), bottom.display());
        let upper_option = format!("upperdir={}", upper.display());
        let work_option = format!("workdir={}", scratch.display());
        let overlay = described("overlay", "overlay", &["index=off", &work_option, &upper_option, &lower, "nodev"]);

        mount_rootfs(std::slice::from_ref(&overlay), &rootfs).unwrap();
        assert_eq!(names(&rootfs), ["bottom", "top"]);
        assert!(statvfs(&rootfs).unwrap().flags().contains(FsFlags::ST_NODEV));
        fs::write(rootfs.join("new"), "").unwrap();
        assert_eq!(names(&upper), ["new"]);
        unmount_recursive(&rootfs).unwrap();

        // Without an upper directory, and only one fragment of options.
        mount_rootfs(&[described("overlay", "overlay", &["ro", &format!("{lower},index=off")])], &rootfs).unwrap();
        assert!(is_read_only(&rootfs));
    });
}

/// Long names, so that not a tenth of them fits in a page.
fn many_layers(work: &Path, count: usize) -> (Vec<PathBuf>, Mount) {
    let lower: Vec<PathBuf> = (0..count)
        .map(|number| {
            let layer = directory(work.join("l".repeat(200)).join(format!("{number}{}", "x".repeat(80))), &[]);
            fs::write(layer.join("who"), number.to_string()).unwrap();
            fs::write(layer.join(format!("file-{number:03}")), "").unwrap();
            layer
        })
        .collect();
    let list: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let [upper, scratch] = ["upper", "scratch"].map(|name| directory(work.join(name), &[]));
    let options = [
        "index=off".to_owned(),
        "nosuid".to_owned(),
        format!("workdir={}", scratch.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={}", list.join(":")),
    ];
    (lower, Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options: options.into() })
}

/// The ways that must work here: what a newer kernel can do may not be left to the older way.
fn ways(work: &Path) -> [&'static [Way]; 2] {
    let [top, bottom, place] = ["ways-top", "ways-bottom", "ways"].map(|name| directory(work.join(name), &[]));
    let mount = described("overlay", "overlay", &[&format!("lowerdir={}:{}", top.display(), bottom.display())]);
    let options = options::parse(&mount.options).unwrap();
    match overlay::mount_by(&[Way::Detached], &mount, &options, None, &Target::open(&place, "").unwrap()) {
        Ok(()) => [&[Way::Detached], &[Way::Numbers]],
        Err(_) => [&[Way::Detached, Way::Numbers], &[Way::Numbers]],
    }
}

#[test]
fn an_overlay_may_have_as_many_layers_as_the_kernel_takes() {
    in_own_mounts(|work| {
        let rootfs = directory(work.join("rootfs"), &[]);
        let (_, mount) = many_layers(work, 400);
        let home = std::env::current_dir().unwrap();
        for ways in ways(work) {
            let target = Target::open(&rootfs, "").unwrap();
            let options = options::parse(&mount.options).unwrap();
            overlay::mount_by(ways, &mount, &options, None, &target).unwrap();

            assert_eq!(fs::read(rootfs.join("who")).unwrap(), b"0", "the first is the topmost");
            assert_eq!(names(&rootfs).iter().filter(|name| name.starts_with("file-")).count(), 400);
            assert!(statvfs(&rootfs).unwrap().flags().contains(FsFlags::ST_NOSUID));
            fs::write(rootfs.join("new"), "").unwrap();
            assert!(work.join("upper/new").is_file());
            assert_eq!(points(&rootfs), std::slice::from_ref(&rootfs));
            assert_eq!(std::env::current_dir().unwrap(), home);
            unmount_recursive(&rootfs).unwrap();
            fs::remove_file(work.join("upper/new")).unwrap();
        }
        // And so it is reached from outside.
        mount_rootfs(&[mount], &rootfs).unwrap();
        assert_eq!(fs::read(rootfs.join("who")).unwrap(), b"0");
    });
}

/// Paths are shown in mountinfo where they can be, for whoever looks at a host.
#[test]
fn a_short_path_of_a_layer_stays_readable() {
    in_own_mounts(|work| {
        let lower: Vec<String> = (0..200)
            .map(|number| directory(work.join(format!("layer-{number}")), &[]).to_str().unwrap().to_owned())
            .collect();
        let rootfs = directory(work.join("rootfs"), &[]);
        let mount = described("overlay", "overlay", &[&format!("lowerdir={}", lower.join(":"))]);
        mount_rootfs(&[mount], &rootfs).unwrap();
        let shown = mountinfo::mounts(|entry| entry.point == rootfs).unwrap().remove(0).options;
        if shown.contains("lowerdir+") {
            assert!(lower.iter().all(|path| shown.contains(path.as_str())), "{shown}");
        } else {
            let _: Option<()> = skip("this kernel takes layers only all at once");
        }
    });
}

#[test]
fn layers_may_have_any_name() {
    in_own_mounts(|work| {
        let (_, mut mount) = many_layers(work, 30);
        let odd = [r"a:b", r"c,d", r"e\f", r#"g"h"#, "i j"];
        let escaped: Vec<String> = odd
            .iter()
            .map(|name| {
                let layer = directory(work.join(name), &[]);
                fs::write(layer.join(format!("odd-{}", name.len())), "").unwrap();
                fs::write(layer.join(name), "").unwrap();
                layer.to_str().unwrap().replace('\\', r"\\").replace(':', r"\:").replace(',', r"\,")
            })
            .collect();
        let last = mount.options.last_mut().unwrap();
        last.push_str(&format!(":{}", escaped.join(":")));
        for (number, ways) in ways(work).into_iter().enumerate() {
            let rootfs = directory(work.join(format!("rootfs-{number}")), &[]);
            let target = Target::open(&rootfs, "").unwrap();
            let options = options::parse(&mount.options).unwrap();
            let result = overlay::mount_by(ways, &mount, &options, None, &target);
            result.unwrap_or_else(|error| panic!("{ways:?}: {error}"));
            for name in odd {
                assert!(rootfs.join(name).is_file(), "{name}");
            }
        }
    });
}

#[test]
fn lower_directories_can_have_mapped_owners() {
    in_own_mounts(|work| {
        let Some(work) = mappable(work) else { return };
        let (lower, mut mount) = many_layers(&work, 40);
        chown(lower[0].join("who"), Some(1), Some(2)).unwrap();
        mount.options.extend(["uidmap=0:100000:65536".to_owned(), "gidmap=0:200000:65536".to_owned()]);
        let options = options::parse(&mount.options).unwrap();
        let maps = user_namespace(options.maps.as_ref().unwrap()).unwrap();
        for ways in [&[Way::Detached, Way::Attached, Way::Numbers][..], &[Way::Attached, Way::Numbers], &[Way::Numbers]]
        {
            let rootfs = directory(work.join(format!("rootfs-{}", ways.len())), &[]);
            let target = Target::open(&rootfs, "").unwrap();
            let result = overlay::mount_by(ways, &mount, &options, Some(&maps), &target);
            // Overlays take mapped directories since Linux 5.19.
            result.unwrap_or_else(|error| panic!("{ways:?}: {error}"));
            let owner = |name: &str| fs::metadata(rootfs.join(name)).map(|it| (it.uid(), it.gid())).unwrap();
            assert_eq!(owner("who"), (100_001, 200_002), "{ways:?}");
            assert_eq!(owner("file-039"), (100_000, 200_000), "{ways:?}");
            assert_eq!(points(&rootfs), std::slice::from_ref(&rootfs), "{ways:?}: layers are left");
            unmount_recursive(&rootfs).unwrap();
        }
        // What was not asked for stays as it is.
        let unmapped = fs::metadata(lower[0].join("who")).unwrap();
        assert_eq!((unmapped.uid(), unmapped.gid()), (1, 2));
    });
}
