//! From options as in fstab(5) to what the system calls take. Pure: every error of the caller ends here.

use nix::mount::MsFlags;

use crate::error::{Error, Result};
use crate::sys::mount::{
    ATTR_ATIME, ATTR_NOATIME, ATTR_NODEV, ATTR_NODIRATIME, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, ATTR_STRICTATIME,
};

/// The options of one mount, by who acts on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Flags that were asked for.
    pub(super) flags: MsFlags,
    /// Flags that were asked not to be, which a bind mount would take over from its source.
    pub(super) cleared: MsFlags,
    /// How mounts and unmounts travel to and from here.
    pub(super) propagation: Option<MsFlags>,
    /// How the image file that is the source becomes a loop device.
    pub(super) image: Option<Image>,
    /// Whom the owners of the files are shown as.
    pub(super) maps: Option<Maps>,
    /// The file system's own, unchanged.
    pub(super) data: Vec<String>,
}

/// An image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Image {
    /// Read through the page cache.
    Cached,
    /// Read directly, so that its pages are not cached twice.
    Direct,
}

/// The maps of a user namespace, in the form of `/proc/PID/uid_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maps {
    /// Of users.
    pub(super) uid: String,
    /// Of groups.
    pub(super) gid: String,
}

/// What an option does to the flags.
enum Effect {
    Set(MsFlags),
    Clear(MsFlags),
    Propagate(MsFlags),
}

fn effect(option: &str) -> Option<Effect> {
    use Effect::{Clear, Propagate, Set};
    let tree = MsFlags::MS_REC;
    Some(match option {
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND.union(tree)),
        "remount" => Set(MsFlags::MS_REMOUNT),
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "mand" => Set(MsFlags::MS_MANDLOCK),
        "nomand" => Clear(MsFlags::MS_MANDLOCK),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        "shared" => Propagate(MsFlags::MS_SHARED),
        "rshared" => Propagate(MsFlags::MS_SHARED.union(tree)),
        "slave" => Propagate(MsFlags::MS_SLAVE),
        "rslave" => Propagate(MsFlags::MS_SLAVE.union(tree)),
        "private" => Propagate(MsFlags::MS_PRIVATE),
        "rprivate" => Propagate(MsFlags::MS_PRIVATE.union(tree)),
        "unbindable" => Propagate(MsFlags::MS_UNBINDABLE),
        "runbindable" => Propagate(MsFlags::MS_UNBINDABLE.union(tree)),
        _ => return None,
    })
}

/// Sorts the options. What is no option of ours is the file system's.
pub(super) fn parse(options: &[String]) -> Result<Options> {
    let none = MsFlags::empty();
    let mut parsed =
        Options { flags: none, cleared: none, propagation: None, image: None, maps: None, data: Vec::new() };
    let (mut uid, mut gid) = (None, None);
    for option in options {
        match effect(option) {
            Some(Effect::Set(flags)) => {
                parsed.flags |= flags;
                parsed.cleared -= flags;
            }
            Some(Effect::Clear(flags)) => {
                parsed.flags -= flags;
                parsed.cleared |= flags;
            }
            Some(Effect::Propagate(flags)) => parsed.propagation = Some(flags),
            None if option == "defaults" || option.is_empty() => {}
            None if option == "loop" => parsed.image = Some(Image::Cached),
            None if option.starts_with("X-containerd.") => {
                return Err(Error::invalid(format!(
                    "mount with the option {option}: it is for containerd's mount manager, which must act on it and take it \
                     out before a shim is asked to mount"
                )));
            }
            None => match (option.strip_prefix("uidmap="), option.strip_prefix("gidmap=")) {
                (Some(map), _) => uid = Some(id_map("uidmap", map)?),
                (_, Some(map)) => gid = Some(id_map("gidmap", map)?),
                _ => parsed.data.push(option.clone()),
            },
        }
    }
    if parsed.image.is_some()
        && let Some(direct) = parsed.data.iter().position(|option| option == "direct-io")
    {
        parsed.data.remove(direct);
        parsed.image = Some(Image::Direct);
    }
    parsed.maps = match (uid, gid) {
        (Some(uid), Some(gid)) => Some(Maps { uid, gid }),
        (None, None) => None,
        (Some(_), None) => return Err(Error::invalid("mount with the option uidmap: gidmap must be given with it")),
        (None, Some(_)) => return Err(Error::invalid("mount with the option gidmap: uidmap must be given with it")),
    };
    Ok(parsed)
}

/// From `inside:outside:size[,…]` to lines of `inside outside size`.
fn id_map(name: &str, map: &str) -> Result<String> {
    let mut lines = String::new();
    for range in map.split(',') {
        let numbers: Option<Vec<u32>> = range.split(':').map(|number| number.parse().ok()).collect();
        let &[inside, outside, size] = numbers.as_deref().unwrap_or_default() else {
            return Err(Error::invalid(format!(
                "mount with the option {name}={map}: {range:?} must be <id inside>:<id outside>:<size>"
            )));
        };
        lines.push_str(&format!("{inside} {outside} {size}\n"));
    }
    Ok(lines)
}

impl Options {
    /// What a mount gets by mount_setattr(2): bits to set, bits to clear.
    pub(super) fn attributes(&self) -> (u64, u64) {
        let table = [
            (MsFlags::MS_RDONLY, ATTR_RDONLY),
            (MsFlags::MS_NOSUID, ATTR_NOSUID),
            (MsFlags::MS_NODEV, ATTR_NODEV),
            (MsFlags::MS_NOEXEC, ATTR_NOEXEC),
            (MsFlags::MS_NODIRATIME, ATTR_NODIRATIME),
        ];
        let bits = |flags: MsFlags| {
            table.iter().filter(|(flag, _)| flags.contains(*flag)).fold(0, |bits, (_, attribute)| bits | attribute)
        };
        let (mut set, mut clear) = (bits(self.flags), bits(self.cleared));
        // One field of three values; the last word on it is what mount(2) would act on first.
        let atime = MsFlags::MS_NOATIME | MsFlags::MS_STRICTATIME | MsFlags::MS_RELATIME;
        if self.flags.intersects(atime) || self.cleared.contains(MsFlags::MS_NOATIME) {
            clear |= ATTR_ATIME;
            if self.flags.contains(MsFlags::MS_STRICTATIME) {
                set |= ATTR_STRICTATIME;
            } else if self.flags.contains(MsFlags::MS_NOATIME) {
                set |= ATTR_NOATIME;
            }
        }
        (set, clear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Options> {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_told_from_the_file_systems_own_options() {
        let all = ["rw", "noatime", "nosuid", "suid", "nodev", "defaults", "index=off", "volatile", "uid=0"];
        let parsed = of(&all).unwrap();
        assert_eq!(parsed.flags, MsFlags::MS_NOATIME | MsFlags::MS_NODEV);
        assert_eq!(parsed.cleared, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID);
        assert_eq!(parsed.data, ["index=off", "volatile", "uid=0"]);
        assert_eq!(parsed.propagation, None);

        assert_eq!(of(&["ro", "rw"]).unwrap().flags, MsFlags::empty());
        assert_eq!(of(&["rw", "ro"]).unwrap().flags, MsFlags::MS_RDONLY);
        assert_eq!(of(&["rbind", "ro"]).unwrap().flags, MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY);
        assert_eq!(of(&["rslave"]).unwrap().propagation, Some(MsFlags::MS_SLAVE | MsFlags::MS_REC));
    }

    #[test]
    fn direct_io_is_of_the_loop_device_only() {
        let table: [(&[&str], Option<Image>, &[&str]); 3] = [
            (&["loop"], Some(Image::Cached), &[]),
            (&["direct-io", "loop", "x"], Some(Image::Direct), &["x"]),
            (&["direct-io"], None, &["direct-io"]),
        ];
        for (options, image, data) in table {
            let parsed = of(options).unwrap();
            assert_eq!(
                (parsed.image, parsed.data.as_slice()),
                (image, data.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>().as_slice()),
                "{options:?}"
            );
        }
    }

    #[test]
    fn id_maps_become_lines() {
        let maps = of(&["uidmap=0:100000:65536,65536:5:1", "gidmap=0:7:4294967295"]).unwrap().maps.unwrap();
        assert_eq!(maps, Maps { uid: "0 100000 65536\n65536 5 1\n".into(), gid: "0 7 4294967295\n".into() });
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for options in [
            &["uidmap=0:1:2"][..],
            &["gidmap=0:1:2"],
            &["uidmap=0:1", "gidmap=0:1:2"],
            &["uidmap=", "gidmap=0:1:2"],
            &["uidmap=0:-1:2", "gidmap=0:1:2"],
            &["uidmap=0:1:2:3", "gidmap=0:1:2"],
            &["uidmap=0:4294967296:2", "gidmap=0:1:2"],
            &["X-containerd.mkfs.fs=ext4"],
        ] {
            let error = of(options).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::InvalidArgument, "{options:?}");
            assert!(error.message.starts_with("mount with the option"), "{error}");
        }
    }

    #[test]
    fn attributes_say_what_the_flags_say() {
        let table: [(&[&str], (u64, u64)); 7] = [
            (&["rbind"], (0, 0)),
            (&["ro", "nosuid", "nodev", "noexec", "nodiratime"], (0x8f, 0)),
            (&["rw", "suid", "dev", "exec", "diratime"], (0, 0x8f)),
            (&["noatime"], (ATTR_NOATIME, ATTR_ATIME)),
            (&["strictatime"], (ATTR_STRICTATIME, ATTR_ATIME)),
            (&["relatime"], (0, ATTR_ATIME)),
            (&["atime"], (0, ATTR_ATIME)),
        ];
        for (options, expected) in table {
            assert_eq!(of(options).unwrap().attributes(), expected, "{options:?}");
        }
    }
}
