//! Overlays that do not fit into mount(2)'s page of options, or whose lower directories have mapped owners.
//!
//! Every directory is opened first, and given to the kernel as a descriptor where its path cannot be.
//!
//! | kernel | lower directories |
//! |---|---|
//! | since 6.7 | one at a time, fsconfig(`lowerdir+`); paths are shown in mountinfo |
//! | before | mount(2) in the directory `/proc/self/fd`, where a directory's name is a number: 500, the most an overlay can have, fit |
//! | mapped owners, since 6.15 | detached mounts |
//! | before | they are attached for as long as the overlay is being made, on its own mount point |

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};

use super::layers::{self, Layers, Role};
use super::options::Options;
use super::{Mount, Target, c_string, map_owners, proc_path, sentence};
use crate::error::{Context, Error, Result};
use crate::sys::mount::{self as sys, Depth};

/// The longest string fsconfig(2) takes.
const LONGEST: usize = 255;
/// How many of the kernel's messages on one failure are repeated.
const MESSAGES: usize = 4;

/// The ways to an overlay, in the order in which they are tried. What the kernel does not know, it calls invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// fsconfig(2), with lower directories that are mounted nowhere.
    Detached,
    /// fsconfig(2), with lower directories that are mounted for the time being.
    Attached,
    /// mount(2) with numbers as names.
    Numbers,
}

/// Mounts the overlay `mount` on `target`. `maps` is a user namespace for the owners in the lower directories.
pub(super) fn mount(mount: &Mount, options: &Options, maps: Option<&OwnedFd>, target: &Target) -> Result<()> {
    mount_by(&[Way::Detached, Way::Attached, Way::Numbers], mount, options, maps, target)
}

/// The same by the first of these ways that the kernel knows.
pub(super) fn mount_by(
    ways: &[Way],
    mount: &Mount,
    options: &Options,
    maps: Option<&OwnedFd>,
    target: &Target,
) -> Result<()> {
    let what = || sentence(mount, target);
    let directories = Directories::open(layers::parse(&options.data), maps)?;
    let mut last = Refusal::from(Errno::EINVAL);
    let mut attached = None;
    for way in ways {
        // Only mapped directories are detached mounts. Once unmounted they could not be mounted again, so they stay.
        match (way, maps) {
            (Way::Attached, None) => continue,
            (Way::Attached | Way::Numbers, Some(_)) if attached.is_none() => {
                attached = Some(directories.attach_lower(target).context(what)?);
            }
            _ => {}
        }
        let made = match way {
            Way::Detached | Way::Attached => directories.configure(mount, options),
            Way::Numbers => directories.mount_by_numbers(mount, options, target).map_err(Refusal::from),
        };
        match made {
            Ok(overlay) => {
                // The overlay keeps its layers; what was mounted on the target for them goes before the overlay comes there.
                drop(attached);
                return sys::attach(&overlay, &target.fd).context(what);
            }
            Err(refusal) if refusal.errno == Errno::EINVAL => last = refusal,
            Err(refusal) => return Err(refusal.into_error(mount, target)),
        }
    }
    Err(last.into_error(mount, target))
}

/// Which of the overlay's directories is not there.
pub(super) fn missing(options: &Options) -> Option<String> {
    let Layers { lower, upper, work, .. } = layers::parse(&options.data);
    let mut all = lower.into_iter().map(|lower| lower.path).chain(upper).chain(work);
    all.find(|path| path.try_exists().is_ok_and(|there| !there))
        .map(|path| format!("{} does not exist", path.display()))
}

/// What the kernel answered.
struct Refusal {
    errno: Errno,
    /// Its messages, which name an option or a directory.
    said: String,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, said: String::new() }
    }
}

impl Refusal {
    fn into_error(self, mount: &Mount, target: &Target) -> Error {
        let why = match self.errno {
            Errno::ENODEV => "this kernel has no file system overlay",
            errno => errno.desc(),
        };
        Error::internal(format!("{}: {why}{}", sentence(mount, target), self.said))
    }
}

/// The overlay's directories, open.
struct Directories {
    lower: Vec<(Role, Directory)>,
    upper: Option<Directory>,
    work: Option<Directory>,
    other: Vec<String>,
}

/// One of them.
struct Directory {
    fd: OwnedFd,
    /// A path of the same, or None where only the descriptor leads to it.
    path: Option<PathBuf>,
}

impl Directory {
    fn open(path: PathBuf) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = open(&path, flags, Mode::empty()).map_err(|errno| {
            Error::internal(format!("open the overlay's directory {}: {}", path.display(), errno.desc()))
        })?;
        Ok(Self { fd, path: Some(path) })
    }

    /// The directory's mount, detached, with mapped owners.
    fn open_mapped(path: &Path, maps: &OwnedFd) -> Result<Self> {
        let fd = sys::clone_tree(path, Depth::One).map_err(|errno| {
            Error::internal(format!("clone the overlay's directory {}: {}", path.display(), errno.desc()))
        })?;
        map_owners(&fd, maps, &path.display().to_string())?;
        Ok(Self { fd, path: None })
    }

    /// What fsconfig(2) is told: the path, which is what mountinfo then shows, unless a character in it means something or
    /// it is too long.
    fn name(&self) -> Result<CString, Errno> {
        let plain = |path: &&PathBuf| {
            let bytes = path.as_os_str().as_bytes();
            path.is_absolute() && bytes.len() <= LONGEST && !bytes.iter().any(|byte| br"\:,".contains(byte))
        };
        let name = self.path.as_ref().filter(plain).cloned().unwrap_or_else(|| proc_path(&self.fd));
        CString::new(name.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)
    }
}

impl Directories {
    fn open(layers: Layers, maps: Option<&OwnedFd>) -> Result<Self> {
        let lower = |lower: layers::Lower| {
            let directory = match maps {
                Some(maps) => Directory::open_mapped(&lower.path, maps),
                None => Directory::open(lower.path),
            };
            directory.map(|directory| (lower.role, directory))
        };
        Ok(Self {
            lower: layers.lower.into_iter().map(lower).collect::<Result<_>>()?,
            upper: layers.upper.map(Directory::open).transpose()?,
            work: layers.work.map(Directory::open).transpose()?,
            other: layers.other,
        })
    }

    /// Makes the overlay, detached, one option at a time.
    fn configure(&self, mount: &Mount, options: &Options) -> Result<OwnedFd, Refusal> {
        let context = sys::fsopen(c"overlay")?;
        self.set_all(&context, mount, options)
            .and_then(|()| sys::create(&context))
            .and_then(|()| sys::fsmount(&context, options.attributes().0))
            .map_err(|errno| Refusal { errno, said: messages(context) })
    }

    fn set_all(&self, context: &OwnedFd, mount: &Mount, options: &Options) -> Result<(), Errno> {
        let invalid = |_: Error| Errno::EINVAL;
        let source = c_string(&mount.source).map_err(invalid)?;
        sys::set(context, c"source", Some(&source))?;
        let of_file_system = [
            (MsFlags::MS_RDONLY, c"ro"),
            (MsFlags::MS_SYNCHRONOUS, c"sync"),
            (MsFlags::MS_DIRSYNC, c"dirsync"),
            (MsFlags::MS_MANDLOCK, c"mand"),
        ];
        for (_, name) in of_file_system.iter().filter(|(flag, _)| options.flags.contains(*flag)) {
            sys::set(context, name, None)?;
        }
        for option in &self.other {
            let (name, value) = layers::parameter(option);
            let value = value.map(c_string).transpose().map_err(invalid)?;
            sys::set(context, &c_string(name).map_err(invalid)?, value.as_deref())?;
        }
        for (role, directory) in &self.lower {
            let name = match role {
                Role::Merged => c"lowerdir+",
                Role::DataOnly => c"datadir+",
            };
            sys::set(context, name, Some(&directory.name()?))?;
        }
        for (name, directory) in [(c"upperdir", &self.upper), (c"workdir", &self.work)] {
            if let Some(directory) = directory {
                sys::set(context, name, Some(&directory.name()?))?;
            }
        }
        Ok(())
    }

    /// Makes the overlay with mount(2), and takes it from `target` again.
    fn mount_by_numbers(&self, mount: &Mount, options: &Options, target: &Target) -> Result<OwnedFd, Errno> {
        let number = |directory: &Directory| directory.fd.as_raw_fd().to_string();
        let mut lower = String::new();
        for (role, directory) in &self.lower {
            lower.push_str(match role {
                Role::DataOnly => "::",
                Role::Merged if lower.is_empty() => "",
                Role::Merged => ":",
            });
            lower.push_str(&number(directory));
        }
        let mut data = format!("lowerdir={lower}");
        for (name, directory) in [("upperdir", &self.upper), ("workdir", &self.work)] {
            if let Some(directory) = directory {
                data.push_str(&format!(",{name}={}", number(directory)));
            }
        }
        for option in &self.other {
            data.push(',');
            data.push_str(option);
        }
        // There is one thread, and it does nothing else meanwhile.
        let home = open(".", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        chdir("/proc/self/fd")?;
        let source = Some(mount.source.as_str());
        let mounted =
            nix::mount::mount(source, &proc_path(&target.fd), Some("overlay"), options.flags, Some(data.as_str()));
        fchdir(&home)?;
        mounted?;
        let overlay = sys::clone_tree(&target.path, Depth::One);
        umount2(&target.path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)?;
        overlay
    }

    /// Mounts the lower directories, one upon the other.
    fn attach_lower<'a>(&self, target: &'a Target) -> Result<Attached<'a>, Errno> {
        let mut attached = Attached { target, count: 0 };
        for (_, directory) in &self.lower {
            sys::attach(&directory.fd, &target.fd)?;
            attached.count += 1;
        }
        Ok(attached)
    }
}

/// Lower directories that are mounted on the target until this is dropped.
struct Attached<'a> {
    target: &'a Target,
    count: usize,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        for _ in 0..self.count {
            if let Err(error) = umount2(&self.target.path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH) {
                tracing::warn!("unmount a layer from {}: {error}", self.target.path.display());
            }
        }
    }
}

/// What the kernel said while it refused, in brackets.
fn messages(context: OwnedFd) -> String {
    let mut context = File::from(context);
    let mut text = String::new();
    let mut line = [0; 512];
    for _ in 0..MESSAGES {
        // Each read gives one message, "e overlay: …", and fails when there is none left.
        let Ok(length) = context.read(&mut line) else { break };
        text.push_str(if text.is_empty() { " (" } else { "; " });
        text.push_str(String::from_utf8_lossy(&line[..length]).trim_start_matches("e ").trim_end());
    }
    if !text.is_empty() {
        text.push(')');
    }
    text
}
