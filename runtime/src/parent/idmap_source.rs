//! Id-mapped mounts: their mapping is a user namespace's, which a process that does nothing else is made for.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{pipe2, read};

use crate::error::{Context, Error, Kind, Result};
use crate::parent::idmap;
use crate::plan::mounts::{IdMaps, Idmap, Mapping};
use crate::plan::namespaces::Namespaces;
use crate::sys::mount::set_idmap;
use crate::sys::process::{Forked, clone, exit_now, wait};

/// The user namespaces made so far: mounts with the same mapping share one.
#[derive(Debug, Default)]
pub(super) struct IdmapNamespaces(Vec<(Mapping, OwnedFd)>);

impl IdmapNamespaces {
    /// Maps the owners of a detached mount.
    pub(super) fn apply(&mut self, mount: impl AsFd, idmap: &Idmap) -> Result<()> {
        let namespace = self.get(&idmap.mapping)?;
        set_idmap(mount, idmap.depth, namespace).map_err(|errno| match errno {
            Errno::ENOSYS => Error::unsupported("id-mapped mounts need Linux 5.12"),
            Errno::EINVAL => Error::unsupported(
                "the source's filesystem does not support id-mapped mounts on this kernel (or is id-mapped already)",
            ),
            Errno::EPERM => Error::caused(
                Kind::System,
                "map its owners",
                "not permitted: this takes CAP_SYS_ADMIN where its filesystem was mounted",
            ),
            errno => Error::sys("map its owners", errno),
        })
    }

    fn get(&mut self, mapping: &Mapping) -> Result<&OwnedFd> {
        // A linear search: a configuration has one or two mappings, however many mounts.
        let known = self.0.iter().position(|(known, _)| known == mapping);
        let index = match known {
            Some(index) => index,
            None => {
                let namespace = match mapping {
                    Mapping::Ids(maps) => make(maps)?,
                    Mapping::Namespace(path) => open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
                        .on("open the user namespace", path.display())?,
                };
                self.0.push((mapping.clone(), namespace));
                self.0.len() - 1
            }
        };
        Ok(&self.0[index].1)
    }
}

/// Makes a user namespace with these maps.
///
/// A user namespace exists as long as a process or a descriptor is in it, and only a process can make one. It waits until
/// its end of a pipe is closed, which also happens when we are killed.
fn make(maps: &IdMaps) -> Result<OwnedFd> {
    let (waits, lifeline) = pipe2(OFlag::O_CLOEXEC).on("make", "a pipe")?;
    let holder = match clone(libc::CLONE_NEWUSER as u64, None).on("make", "a user namespace for id-mapped mounts")? {
        Forked::Child => {
            drop(lifeline);
            while read(&waits, &mut [0; 1]) == Err(Errno::EINTR) {}
            exit_now(0)
        }
        Forked::Parent(holder) => holder,
    };
    let namespace = open_namespace(holder.pid, maps);
    drop(lifeline);
    // It has ended by now, or is about to; that it is reaped is all that counts.
    let _ = wait(&holder.pidfd);
    namespace
}

fn open_namespace(pid: i32, maps: &IdMaps) -> Result<OwnedFd> {
    let plan = Namespaces { uid_maps: maps.uids.clone(), gid_maps: maps.gids.clone(), ..Namespaces::default() };
    idmap::write(pid, &plan)?;
    let path = format!("/proc/{pid}/ns/user");
    open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).on("open", path)
}
