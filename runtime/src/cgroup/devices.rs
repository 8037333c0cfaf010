//! Which devices a container may use, told to the kernel: lines for the version 1 controller, a program for version 2.
//!
//! On version 2 the program carries a name of ours: a later one takes the place of just that one in a single step, and
//! programs that others attached (systemd, an administrator) stay. They can only narrow what ours allows.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::files;
use super::v1::Origin;
use crate::error::Error;
use crate::plan::cgroup::bpf;
use crate::plan::cgroup::devices::{Access, Effect};
use crate::sys::bpf::{attach_device_program, device_programs, load_device_program, program_by_id, program_name};

/// The name of our programs.
const NAME: &CStr = c"tare_devices";

/// Writes the rules of a version 1 directory. A fresh one takes a reset; one that was there may have children, which makes
/// a reset impossible, so only the differences are written.
pub(super) fn write_v1(directory: &Path, origin: Origin, access: &Access) -> Result<(), (Error, Errno)> {
    let changes = match origin {
        Origin::Fresh => access.changes(),
        Origin::Found => {
            let failed =
                |errno| (Error::sys(format!("read the device rules of {}", directory.display()), errno), errno);
            let list = files::read(directory, "devices.list").map_err(failed)?;
            let now = Access::from_list(&list).ok_or_else(|| failed(Errno::EILSEQ))?;
            access.changes_from(&now)
        }
    };
    let mut open: [Option<File>; 2] = [None, None];
    for change in changes {
        let (index, name) = match change.effect {
            Effect::Allow => (0, "devices.allow"),
            Effect::Deny => (1, "devices.deny"),
        };
        let failed = |errno| (refused(directory, name, &change.line, errno), errno);
        let file = match &mut open[index] {
            Some(file) => file,
            none => none.insert(files::open_for_writing(&directory.join(name)).map_err(failed)?),
        };
        files::put(file, &change.line).map_err(failed)?;
    }
    Ok(())
}

fn refused(directory: &Path, name: &str, line: &str, errno: Errno) -> Error {
    let what = format!("set linux.resources.devices (write {line:?} to {}/{name})", directory.display());
    match errno {
        Errno::EPERM => Error::caused(
            crate::error::Kind::System,
            what,
            "a parent cgroup does not allow it, or this user may not change device rules",
        ),
        Errno::EINVAL if line.starts_with('a') => Error::caused(
            crate::error::Kind::System,
            what,
            "the cgroup has children, and their rules follow from it: choose another cgroupsPath",
        ),
        errno => Error::sys(what, errno),
    }
}

/// Attaches the program of a version 2 directory, in the place of an earlier one of ours.
pub(super) fn attach(cgroup: BorrowedFd<'_>, origin: Origin, access: &Access) -> Result<(), Errno> {
    let program = load(&bpf::compile(access))?;
    let earlier = match origin {
        Origin::Fresh => None,
        Origin::Found => ours(cgroup)?,
    };
    attach_device_program(cgroup, program.as_fd(), earlier.as_ref().map(AsFd::as_fd))
}

/// The program attached to a cgroup that is ours.
fn ours(cgroup: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    for id in device_programs(cgroup)? {
        match program_by_id(id) {
            Ok(program) if program_name(&program)? == NAME.to_bytes() => return Ok(Some(program)),
            Ok(_) => {}
            // Gone meanwhile, or an LSM keeps it from us: then it is not ours.
            Err(Errno::ENOENT | Errno::EACCES | Errno::EPERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

fn load(program: &[bpf::Instruction]) -> Result<OwnedFd, Errno> {
    let refused = match load_device_program(program, NAME) {
        Err(Errno::EPERM) => Errno::EPERM,
        loaded => return loaded,
    };
    // Before 5.11 a program counts as locked memory. The limit is put back: the container inherits ours.
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return Err(refused) };
    let most = nix::sys::resource::RLIM_INFINITY;
    if setrlimit(Resource::RLIMIT_MEMLOCK, most, most).is_err()
        && setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard).is_err()
    {
        return Err(refused);
    }
    let loaded = load_device_program(program, NAME);
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard);
    loaded
}
