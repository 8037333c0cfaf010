//! Writes the container's sysctls, through a procfs that is known to be one.

use nix::errno::Errno;

use crate::error::{Error, Kind, Result};
use crate::plan::sysctl::Sysctl;
use crate::procfs::Procfs;

/// Writes all of them. Called in the container's namespaces: the kernel's own lookup goes by the process that writes.
pub fn apply(procfs: &Procfs, sysctls: &[Sysctl]) -> Result<()> {
    sysctls.iter().try_for_each(|sysctl| {
        procfs.write(&sysctl.path, sysctl.value.as_bytes()).map_err(|errno| {
            let what = format!("set the sysctl {} to {:?}", sysctl.name, sysctl.value);
            match errno {
                Errno::ENOENT => Error::caused(Kind::Unsupported, what, "the kernel has none of this name"),
                Errno::EINVAL => Error::caused(Kind::System, what, "the kernel does not take this value"),
                errno => Error::sys(what, errno),
            }
        })
    })
}
