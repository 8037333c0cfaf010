//! Image files as block devices.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::Mount;
use super::options::{Image, Options};
use crate::error::{Context, Error, Result};
use crate::sys::loopdev;

/// How often a device that somebody else took first is looked for again.
const TRIES: usize = 64;
/// File systems nothing can be written to, whatever the options say; many containers may have one image at a time.
const READ_ONLY: [&str; 3] = ["erofs", "squashfs", "iso9660"];

/// A loop device, which lets go of its image when this is dropped and it is not mounted.
pub(super) struct Device {
    pub(super) path: PathBuf,
    _open: File,
}

/// Gives the image file of `mount` a loop device.
pub(super) fn attach(mount: &Mount, options: &Options, image: Image) -> Result<Device> {
    let image_path = Path::new(&mount.source);
    let what = || format!("open the image {}", mount.source);
    let read_only = options.flags.contains(MsFlags::MS_RDONLY) || READ_ONLY.contains(&mount.kind.as_str());
    let mut flags = loopdev::AUTOCLEAR | if read_only { loopdev::READ_ONLY } else { 0 };
    if image == Image::Direct {
        flags |= loopdev::DIRECT_IO;
    }
    let file = OpenOptions::new().read(true).write(!read_only).open(image_path).context(what)?;
    let what = || format!("set up a loop device for {}", mount.source);
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control").context(what)?;
    for attempt in 0..TRIES {
        // A free device may be somebody else's by the time we configure it. Who is about to may take a while, and be
        // answered with again and again, so then there is a new one.
        let number = if attempt % 2 == 0 { loopdev::free(&control) } else { loopdev::add(&control) }.context(what)?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(!read_only).open(&path).context(what)?;
        match loopdev::configure(device.as_fd(), &file, mount.source.as_bytes(), flags) {
            Ok(()) => return Ok(Device { path, _open: device }),
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).context(what),
        }
    }
    Err(Error::internal(format!("{}: others took {TRIES} free devices first", what())))
}
