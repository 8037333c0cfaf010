//! Loop devices: a file as a block device, see loop(4).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_ADD: libc::Ioctl = 0x4c80;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;

/// The device refuses writes.
pub const READ_ONLY: u32 = 1;
/// The device lets go of its file when nobody has it open or mounted any more.
pub const AUTOCLEAR: u32 = 4;
/// The file's pages are not cached twice.
pub const DIRECT_IO: u32 = 16;

/// The number of a device that has no file, which another process may take before we do.
pub fn free(control: impl AsFd) -> Result<u32, Errno> {
    // SAFETY: this request takes no argument.
    let number = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) };
    Errno::result(number).map(|number| number as u32)
}

/// Makes a new device and returns its number.
pub fn add(control: impl AsFd) -> Result<u32, Errno> {
    // SAFETY: this request takes an integer; a negative one leaves the choice of the number to the kernel.
    let number = unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_ADD, -1_i64) };
    Errno::result(number).map(|number| number as u32)
}

/// `struct loop_config` with its `struct loop_info64`: of the latter, only flags and name are set.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    numbers: [u64; 5],
    device: u32,
    encryption: [u32; 2],
    flags: u32,
    name: [u8; 64],
    crypt_name: [u8; 64],
    key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

// As the kernel's headers have it.
const _: () = assert!(size_of::<Config>() == 304);

/// Gives `device` its file, all at once. `name` is what losetup(8) shows, cut to 63 bytes. `EBUSY` when it has one.
pub fn configure(device: impl AsFd, file: impl AsFd, name: &[u8], flags: u32) -> Result<(), Errno> {
    let mut config = Config {
        fd: file.as_fd().as_raw_fd() as u32,
        block_size: 0,
        numbers: [0; 5],
        device: 0,
        encryption: [0; 2],
        flags,
        name: [0; 64],
        crypt_name: [0; 64],
        key: [0; 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    let length = name.len().min(config.name.len() - 1);
    config.name[..length].copy_from_slice(&name[..length]);
    // SAFETY: the request reads a `struct loop_config`, whose layout and size `Config` has, and which lives until it returns.
    let result = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    Errno::result(result).map(drop)
}
