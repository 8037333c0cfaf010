//! bpf(2), as far as device programs of a cgroup need it.

use std::ffi::{CStr, c_long};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use crate::plan::cgroup::bpf::Instruction;

const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
const PROG_GET_FD_BY_ID: c_long = 13;
const OBJ_GET_INFO_BY_FD: c_long = 15;
const PROG_QUERY: c_long = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The kernel takes at most this many programs at one cgroup.
const MOST_PROGRAMS: usize = 64;
/// How often loading is tried again when a signal interrupts the verifier.
const TRIES: usize = 30;

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
    replace: i32,
    padding: u32,
}

/// With every field the kernel knows: some kernels write the last one whatever size they are told.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    fd: i32,
    length: u32,
    info: u64,
}

/// The first part of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; 16],
}

/// Calls bpf(2) with `attributes`.
///
/// # Safety
/// Every address in `attributes` must be valid for what `command` reads or writes there, and stay so during the call.
unsafe fn bpf<T>(command: c_long, attributes: &mut T) -> Result<c_long, Errno> {
    // SAFETY: the kernel reads and writes size_of::<T>() bytes of `attributes`, which is exclusively borrowed and has no
    // padding of its own; the caller vouches for the addresses inside.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) })
}

/// Takes ownership of a descriptor the kernel just made; bpf(2) makes all of them close-on-exec.
fn own(fd: c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: `fd` was returned by the kernel as a new descriptor in this call, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a device program; the kernel's verifier checks it.
pub fn load_device_program(instructions: &[Instruction], name: &CStr) -> Result<OwnedFd, Errno> {
    let mut attributes = Load {
        prog_type: TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| Errno::E2BIG)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Load::default()
    };
    // The kernel wants a terminated name: the last byte stays zero.
    for (to, from) in attributes.name[..15].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    for _ in 1..TRIES {
        // SAFETY: `instructions` points to instruction_count instructions in the kernel's layout and `license` to a
        // terminated string; both outlive the call and are only read. There is no log buffer, and its size is 0.
        match unsafe { bpf(PROG_LOAD, &mut attributes) } {
            Err(Errno::EAGAIN) => {}
            loaded => return own(loaded?),
        }
    }
    Err(Errno::EAGAIN)
}

/// Attaches a device program to a cgroup, beside those of others, or in the place of `replace` in one step.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: BorrowedFd<'_>,
    replace: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attributes = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replace.is_some() { REPLACE } else { 0 },
        replace: replace.map_or(0, |old| old.as_raw_fd()),
        padding: 0,
    };
    // SAFETY: there is no address in these attributes, and the descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// The ids of the device programs attached to a cgroup itself.
pub fn device_programs(cgroup: impl AsFd) -> Result<Vec<u32>, Errno> {
    let mut ids = vec![0_u32; MOST_PROGRAMS];
    let mut attributes = Query {
        target: cgroup.as_fd().as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr() as u64,
        count: MOST_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: `ids` has room for `count` ids and is not touched otherwise until the call returns; the other addresses are
    // null, which asks for nothing.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    ids.truncate(attributes.count as usize);
    Ok(ids)
}

/// Opens a loaded program by its id.
pub fn program_by_id(id: u32) -> Result<OwnedFd, Errno> {
    let mut attributes = ById { id, ..ById::default() };
    // SAFETY: there is no address in these attributes.
    own(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) }?)
}

/// The name a program was loaded with, without the bytes after its end.
pub fn program_name(program: impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut info = Info::default();
    let mut attributes = InfoByFd {
        fd: program.as_fd().as_raw_fd(),
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` has `length` bytes, all of which may hold any value; its zeroed counts and addresses ask for no more.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info.name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec())
}
